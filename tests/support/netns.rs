//! Nodes on hosts of their own: a network namespace for each, joined by a bridge in one more, to which this process is
//! linked too. Anything can be cut in one direction.
//!
//! Nobody asks who has an address: each host is told which hardware address belongs to which neighbour. A cut tells it
//! a wrong one. What it sends is then dropped without a word, on connections that exist as well as on new ones, while
//! the other direction stays as it is. It takes nothing but `ip`.
//!
//! The addresses are of a range that is set aside for tests of networks (198.18.0.0/15) and known on this machine only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::process::through;
use super::tools::unusable;

/// This process, from where the clients call. Nodes are hosts by their ids.
pub const HERE: u64 = 14;
/// The namespace of the bridge.
const HUB: u64 = 15;
/// Addresses of one network.
const HOSTS: u32 = 16;
/// How many networks of one process have addresses of their own.
const NETWORKS: u32 = 64;
/// How many processes have addresses of their own: as many as fill the range.
const PROCESSES: u32 = 128;
/// A hardware address that no host has.
const NOBODY: &str = "02:00:00:00:ff:ff";
const RANGE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const PORT: u16 = 7001;

/// The hosts and what joins them. All of it is removed when this is dropped.
#[derive(Debug)]
pub struct Network {
    nodes: Vec<u64>,
    /// Which of this process's networks.
    number: u16,
    /// What is cut, from a host to another.
    cuts: BTreeSet<(u64, u64)>,
}

impl Network {
    /// Hosts for so many nodes, all connected; `None` if that is not possible here.
    pub fn make(test: &str, nodes: u64) -> Option<Network> {
        static NUMBERS: AtomicU16 = AtomicU16::new(0);
        assert!(nodes < HERE, "no addresses are left for {nodes} nodes");
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let network = Network { nodes: (1..=nodes).collect(), number, cuts: BTreeSet::new() };
        match network.build() {
            Ok(()) => Some(network),
            Err(why) => {
                unusable(test, "a network of namespaces", &why);
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.namespace(HUB);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for id in &self.nodes {
            let namespace = self.namespace(*id);
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            self.plug_in(*id)?;
        }
        self.plug_in(HERE)?;
        self.directions().into_iter().try_for_each(|(from, to)| self.tell(from, to, &hardware(to)))
    }

    /// Gives a host its address and a cable to the bridge.
    fn plug_in(&self, host: u64) -> Result<(), String> {
        let (hub, device, port) = (self.namespace(HUB), self.device(host), format!("port{host}"));
        let address = format!("{}/28", self.ip_address(host));
        let (device, hardware) = (device.as_str(), hardware(host));
        self.ip_at(
            host,
            &["link", "add", device, "address", &hardware, "type", "veth", "peer", "name", &port, "netns", &hub],
        )?;
        self.ip_at(host, &["addr", "add", &address, "dev", device])?;
        self.ip_at(host, &["link", "set", device, "up"])?;
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])
    }

    /// Where each node listens.
    pub fn addresses(&self) -> BTreeMap<u64, SocketAddr> {
        self.nodes.iter().map(|id| (*id, SocketAddr::from((self.ip_address(*id), PORT)))).collect()
    }

    /// The command on a node's host. The process that is started is the command's own.
    pub fn on_host(&self, id: u64, command: &Command) -> Command {
        let mut outer = Command::new("ip");
        outer.args(["netns", "exec", &self.namespace(id)]);
        through(outer, command)
    }

    /// From now on nothing that one host sends reaches the other. The hosts are nodes or [`HERE`].
    pub fn cut(&mut self, from: u64, to: u64) {
        if from != to && self.cuts.insert((from, to)) {
            self.tell(from, to, NOBODY).expect("a direction can be cut");
        }
    }

    /// Cuts both directions.
    pub fn cut_both(&mut self, one: u64, other: u64) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Everything reaches everybody again.
    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            self.tell(from, to, &hardware(to)).expect("a direction can be opened");
        }
    }

    /// Every pair of hosts, both ways round.
    fn directions(&self) -> Vec<(u64, u64)> {
        let hosts = || self.nodes.iter().copied().chain([HERE]);
        hosts().flat_map(|from| hosts().filter(move |to| *to != from).map(move |to| (from, to))).collect()
    }

    /// Tells a host the hardware address of another.
    fn tell(&self, host: u64, of: u64, hardware: &str) -> Result<(), String> {
        let (address, device) = (self.ip_address(of).to_string(), self.device(host));
        self.ip_at(host, &["neigh", "replace", &address, "lladdr", hardware, "dev", &device, "nud", "permanent"])
    }

    fn ip_at(&self, host: u64, args: &[&str]) -> Result<(), String> {
        match host {
            HERE => ip(args),
            _ => ip(&[&["-n", &self.namespace(host)], args].concat()),
        }
    }

    fn namespace(&self, host: u64) -> String {
        format!("raftkv-{}-{}-{host}", std::process::id(), self.number)
    }

    /// A device's name has at most 15 characters.
    fn device(&self, host: u64) -> String {
        match host {
            HERE => format!("rkv{:x}b{}", std::process::id(), self.number),
            _ => "eth0".to_owned(),
        }
    }

    fn ip_address(&self, host: u64) -> Ipv4Addr {
        let network = std::process::id() % PROCESSES * NETWORKS + u32::from(self.number) % NETWORKS;
        Ipv4Addr::from(u32::from(RANGE) + network * HOSTS + host as u32)
    }
}

fn hardware(host: u64) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

fn ip(args: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(args).stdin(Stdio::null()).output();
    let output = ran.map_err(|error| format!("cannot run ip: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("ip {}: {}", args.join(" "), complaint.trim()))
}

impl Drop for Network {
    /// Whatever of it was made: it may have failed half-way.
    fn drop(&mut self) {
        // The other end of a cable goes with the first, and the cables of a namespace with it.
        let _ = ip(&["link", "delete", &self.device(HERE)]);
        for host in self.nodes.iter().copied().chain([HUB]) {
            let _ = ip(&["netns", "delete", &self.namespace(host)]);
        }
    }
}
