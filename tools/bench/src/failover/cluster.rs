//! A cluster of real processes that ends with its owner.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Operation, SlotTable, Status};
use raftkv_protocol::types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::args::{Death, Failover};
use crate::blocking::Connection;
use crate::topology::Topology;

/// How long the cluster may take to be whole again.
const SETTLE_WAIT: Duration = Duration::from_secs(60);
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// For one question to one node.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes, their data and their logs.
pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Node>,
    stop: Arc<AtomicBool>,
}

struct Node {
    id: NodeId,
    address: String,
    command: Command,
    process: Child,
}

impl Cluster {
    /// Starts every node with fresh data.
    pub fn start(args: &Failover, stop: Arc<AtomicBool>) -> Result<Cluster, String> {
        let dir = tempfile::Builder::new().prefix("raftkv-failover.").tempdir_in(&args.dir);
        let dir = dir.map_err(|error| format!("{}: {error}", args.dir.display()))?;
        let addresses = unused_addresses(args.nodes).map_err(|error| error.to_string())?;
        let members: Vec<String> = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}")).collect();
        let mut cluster = Cluster { dir, nodes: Vec::new(), stop };
        for (address, id) in addresses.into_iter().zip(1..) {
            let mut command = Command::new(&args.server);
            command.args(["--node-id", &id.to_string(), "--listen", &address, "--initial-cluster", &members.join(",")]);
            command.arg("--data-dir").arg(cluster.dir.path().join(format!("node{id}"))).args(&args.server_flags);
            let process = spawn(&mut command, &cluster.log(NodeId(id)))
                .map_err(|error| format!("{}: {error}", args.server.display()))?;
            cluster.nodes.push(Node { id: NodeId(id), address, command, process });
        }
        Ok(cluster)
    }

    /// Waits until every node answers, every shard has one leader that all agree on, and everybody has applied all
    /// that is committed.
    pub fn settled(&mut self) -> Result<Topology, String> {
        let deadline = Instant::now() + SETTLE_WAIT;
        loop {
            let trouble = match self.settled_now() {
                Ok(topology) => return Ok(topology),
                Err(trouble) => trouble,
            };
            if self.stop.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            for node in &mut self.nodes {
                if let Ok(Some(status)) = node.process.try_wait() {
                    let log = std::fs::read_to_string(self.dir.path().join(format!("node{}.log", node.id)));
                    return Err(format!("node {} ended, {status}: {}", node.id, log.unwrap_or_default().trim_end()));
                }
            }
            if Instant::now() > deadline {
                return Err(format!("the cluster does not settle: {trouble}"));
            }
            thread::park_timeout(SETTLE_PAUSE);
        }
    }

    fn settled_now(&self) -> Result<Topology, String> {
        let mut all = Vec::new();
        let mut topology: Option<Topology> = None;
        for node in &self.nodes {
            let (status, known) = ask(&node.address).map_err(|error| format!("node {}: {error}", node.id))?;
            all.push(status);
            match &mut topology {
                Some(topology) => drop(topology.merge(known)),
                None => topology = Some(Topology::new(known)),
            }
        }
        if !agree(&all) {
            return Err("the nodes do not agree yet".into());
        }
        topology.filter(|topology| topology.leaderless() == 0).ok_or_else(|| "a shard has no leader".into())
    }

    /// Sends the signal.
    pub fn strike(&mut self, id: NodeId, death: Death) -> Result<(), String> {
        signal(&self.node(id)?.process, if death == Death::Kill { Signal::KILL } else { Signal::STOP })
    }

    /// Starts a killed node again; lets a stopped one go on.
    pub fn revive(&mut self, id: NodeId, death: Death) -> Result<(), String> {
        let log = self.log(id);
        let node = self.node(id)?;
        if death == Death::Stop {
            return signal(&node.process, Signal::CONT);
        }
        node.restart(&log).map_err(|error| format!("node {id}: {error}"))
    }

    fn node(&mut self, id: NodeId) -> Result<&mut Node, String> {
        self.nodes.iter_mut().find(|node| node.id == id).ok_or_else(|| format!("node {id} was not started here"))
    }

    fn log(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(format!("node{id}.log"))
    }
}

impl Node {
    fn restart(&mut self, log: &Path) -> io::Result<()> {
        self.process.wait()?;
        self.process = spawn(&mut self.command, log)?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // One that has ended already cannot be killed, which is as good.
            let _ = node.process.kill();
            let _ = node.process.wait();
        }
    }
}

fn spawn(command: &mut Command, log: &Path) -> io::Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

fn signal(process: &Child, signal: Signal) -> Result<(), String> {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or("a process id out of range")?;
    kill_process(pid, signal).map_err(|error| error.to_string())
}

/// Held until all are drawn, so that they differ.
fn unused_addresses(count: u64) -> io::Result<Vec<String>> {
    let held: io::Result<Vec<TcpListener>> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    held?.iter().map(|listener| listener.local_addr().map(|address| address.to_string())).collect()
}

fn ask(address: &str) -> io::Result<(Status, SlotTable)> {
    let mut connection = Connection::open(address, ASK_TIMEOUT)?;
    let table = connection.slots()?;
    connection.queue(Operation::Status);
    connection.flush()?;
    let status = connection.receive(|reply| match reply.result {
        Ok(Answer::Status(status)) => Some(*status),
        _ => None,
    })?;
    Ok((status.ok_or_else(|| io::Error::other("no status"))?, table))
}

/// Whether all nodes name the same leader, term and end of the log for every shard and have applied all of it.
fn agree(all: &[Status]) -> bool {
    let Some(first) = all.first() else { return false };
    all.iter().all(|status| {
        status.shards.len() == first.shards.len()
            && status.shards.iter().zip(&first.shards).all(|(one, other)| {
                one.leader.is_some()
                    && (one.leader, one.term, one.last) == (other.leader, other.term, other.last)
                    && one.applied == one.last.index
            })
    })
}
