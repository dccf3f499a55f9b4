//! A cluster of real processes that ends with its owner.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{SlotTable, Status};
use raftkv_protocol::types::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::args::Death;
use crate::blocking::Connection;
use crate::topology::Topology;

/// How long the cluster may take to be whole again.
const SETTLE_WAIT: Duration = Duration::from_secs(120);
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// For one question to one node.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The server's binary.
    pub server: &'a Path,
    /// How many nodes.
    pub nodes: u64,
    /// Where the temporary directory with their data is made.
    pub dir: &'a Path,
    /// What the cluster is for; part of the directory's name.
    pub name: &'a str,
    /// Further flags for every node.
    pub flags: &'a [String],
}

/// Nodes, their data and their logs.
pub struct Cluster {
    server: PathBuf,
    flags: Vec<String>,
    dir: TempDir,
    nodes: Vec<Node>,
    stop: Arc<AtomicBool>,
}

struct Node {
    id: NodeId,
    address: String,
    /// `None` while it is down.
    process: Option<Child>,
}

impl Cluster {
    /// Starts every node with fresh data. `stop` ends every wait.
    pub fn start(plan: &Plan<'_>, stop: Arc<AtomicBool>) -> Result<Cluster, String> {
        let dir = tempfile::Builder::new().prefix(&format!("raftkv-{}.", plan.name)).tempdir_in(plan.dir);
        let dir = dir.map_err(|error| format!("{}: {error}", plan.dir.display()))?;
        let addresses = unused_addresses(plan.nodes).map_err(|error| error.to_string())?;
        let node = |(address, id)| Node { id: NodeId(id), address, process: None };
        let nodes = addresses.into_iter().zip(1..).map(node).collect();
        let mut cluster = Cluster { server: plan.server.into(), flags: plan.flags.to_vec(), dir, nodes, stop };
        cluster.launch_all()?;
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
            self.pause(SETTLE_PAUSE)?;
            if Instant::now() > deadline {
                return Err(format!("the cluster does not settle: {trouble}"));
            }
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

    /// Waits a moment. Fails if the user has seen enough, or a node that should run has ended.
    pub fn pause(&mut self, moment: Duration) -> Result<(), String> {
        thread::park_timeout(moment);
        if self.stop.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        for node in &mut self.nodes {
            if let Some(Ok(Some(status))) = node.process.as_mut().map(Child::try_wait) {
                let log = std::fs::read_to_string(self.dir.path().join(format!("node{}.log", node.id)));
                return Err(format!("node {} ended, {status}: {}", node.id, log.unwrap_or_default().trim_end()));
            }
        }
        Ok(())
    }

    /// What every node that runs says of itself.
    pub fn statuses(&self) -> Result<Vec<Status>, String> {
        let up = self.nodes.iter().filter(|node| node.process.is_some());
        up.map(|node| status(&node.address).map_err(|error| format!("node {}: {error}", node.id))).collect()
    }

    /// What one node says of itself.
    pub fn status(&self, id: NodeId) -> Result<Status, String> {
        status(self.address(id)?).map_err(|error| format!("node {id}: {error}"))
    }

    /// Every node.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Where the nodes that run listen.
    pub fn endpoints(&self) -> Vec<String> {
        let up = self.nodes.iter().filter(|node| node.process.is_some());
        up.map(|node| node.address.clone()).collect()
    }

    /// Where a node listens.
    pub fn address(&self, id: NodeId) -> Result<&str, String> {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.map(|node| node.address.as_str()).ok_or_else(|| not_here(id))
    }

    /// The process of a node that runs.
    pub fn pid(&self, id: NodeId) -> Result<u32, String> {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.and_then(|node| node.process.as_ref()).map(Child::id).ok_or_else(|| format!("node {id} does not run"))
    }

    /// The processes of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()).map(Child::id).collect()
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(format!("node{id}"))
    }

    /// Nodes that are started from now on get these flags.
    pub fn set_flags(&mut self, flags: Vec<String>) {
        self.flags = flags;
    }

    /// Sends the signal.
    pub fn strike(&mut self, id: NodeId, death: Death) -> Result<(), String> {
        let process = self.node(id)?.process.as_ref().ok_or_else(|| format!("node {id} does not run"))?;
        signal(process, if death == Death::Kill { Signal::KILL } else { Signal::STOP })
    }

    /// Starts a killed node again; lets a stopped one go on.
    pub fn revive(&mut self, id: NodeId, death: Death) -> Result<(), String> {
        if let (Death::Stop, Some(process)) = (death, &self.node(id)?.process) {
            return signal(process, Signal::CONT);
        }
        self.kill(id)?;
        self.launch(id)
    }

    /// Kills a node, if it runs, and waits for its end.
    pub fn kill(&mut self, id: NodeId) -> Result<(), String> {
        self.node(id)?.end().map_err(|error| format!("node {id}: {error}"))
    }

    /// Kills all at once, then waits for their end.
    pub fn kill_all(&mut self) -> Result<(), String> {
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            // One that has ended already is found in a moment.
            let _ = signal(process, Signal::KILL);
        }
        self.ids().into_iter().try_for_each(|id| self.kill(id))
    }

    /// Starts a node that is down.
    pub fn launch(&mut self, id: NodeId) -> Result<(), String> {
        let members: Vec<String> = self.nodes.iter().map(|node| format!("{}={}", node.id, node.address)).collect();
        let mut command = Command::new(&self.server);
        command.args(["--node-id", &id.to_string(), "--listen", self.address(id)?]);
        command.args(["--initial-cluster", &members.join(","), "--data-dir"]).arg(self.data_dir(id));
        command.args(&self.flags);
        let log = self.dir.path().join(format!("node{id}.log"));
        let process = spawn(&mut command, &log).map_err(|error| format!("{}: {error}", self.server.display()))?;
        self.node(id)?.process = Some(process);
        Ok(())
    }

    /// Starts all.
    pub fn launch_all(&mut self) -> Result<(), String> {
        self.ids().into_iter().try_for_each(|id| self.launch(id))
    }

    fn node(&mut self, id: NodeId) -> Result<&mut Node, String> {
        self.nodes.iter_mut().find(|node| node.id == id).ok_or_else(|| not_here(id))
    }
}

impl Node {
    fn end(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        // One that has ended already cannot be killed, which is as good.
        let _ = process.kill();
        process.wait().map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.end();
        }
    }
}

fn not_here(id: NodeId) -> String {
    format!("node {id} was not started here")
}

/// In a process group of its own: Ctrl-C goes to whoever measures, who ends the nodes.
fn spawn(command: &mut Command, log: &Path) -> io::Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).spawn()
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
    Ok((connection.status()?, table))
}

fn status(address: &str) -> io::Result<Status> {
    Connection::open(address, ASK_TIMEOUT)?.status()
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
