//! A cluster of server processes on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use raftkv::client::{Client, NodeId, Role, ShardId, Slot, Status};
use tempfile::TempDir;

use super::netns::Network;
use super::process::{Ended, Process, server};
use super::wait::{PATIENCE, eventually, within};
use super::wire::Wire;

/// Raft groups of a cluster unless a test wants another number.
pub const SHARDS: u16 = 6;

/// Makes a cluster.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    nodes: u64,
    shards: u16,
    cluster_name: String,
    flags: Vec<String>,
    data: Option<PathBuf>,
    network: Option<Network>,
}

/// The cluster. Its processes are killed and its files removed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    addresses: BTreeMap<u64, SocketAddr>,
    shards: u16,
    cluster_name: String,
    flags: Vec<String>,
    running: BTreeMap<u64, Process>,
    starts: usize,
    data: PathBuf,
    files: TempDir,
    /// Dropped after the processes on its hosts.
    network: Option<Network>,
}

/// An address block that no other cluster of this or another running test process has: nodes differ in the last byte.
pub fn fresh_addresses(nodes: u64) -> BTreeMap<u64, SocketAddr> {
    static BLOCKS: AtomicU8 = AtomicU8::new(0);
    let block = BLOCKS.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    // Ports below those that the kernel gives to outgoing connections.
    let port = 7001 + u16::try_from(pid / 200 % 20_000).expect("less than 20,000");
    let second = 16 + u8::try_from(pid % 200).expect("less than 200");
    (1..=nodes).map(|id| (id, SocketAddr::from(([127, second, block, id as u8], port)))).collect()
}

/// A directory for the files of one test, removed with it.
pub fn temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("raftkv-test-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

impl Builder {
    /// Raft groups.
    pub fn shards(mut self, shards: u16) -> Builder {
        self.shards = shards;
        self
    }

    /// Part of the cluster's id.
    pub fn cluster_name(mut self, name: &str) -> Builder {
        name.clone_into(&mut self.cluster_name);
        self
    }

    /// Several of these.
    pub fn flags<F: AsRef<str>>(self, flags: impl IntoIterator<Item = F>) -> Builder {
        flags.into_iter().fold(self, |builder, flag| builder.flag(flag.as_ref()))
    }

    /// A flag for every node, as in `--inflight-max=8`, instead of what it was before.
    pub fn flag(mut self, flag: &str) -> Builder {
        set_flag(&mut self.flags, flag);
        self
    }

    /// Where the nodes' data directories lie, instead of among the test's own files.
    pub fn data(mut self, dir: &Path) -> Builder {
        self.data = Some(dir.to_owned());
        self
    }

    /// Each node on a host of its own, instead of all on this one.
    pub fn network(mut self, network: Network) -> Builder {
        self.network = Some(network);
        self
    }

    /// A cluster none of whose nodes runs yet.
    pub fn idle(self) -> Cluster {
        let files = temp_dir();
        let addresses = self.network.as_ref().map_or_else(|| fresh_addresses(self.nodes), Network::addresses);
        Cluster {
            addresses,
            shards: self.shards,
            cluster_name: self.cluster_name,
            flags: self.flags,
            running: BTreeMap::new(),
            starts: 0,
            data: self.data.unwrap_or_else(|| files.path().to_owned()),
            files,
            network: self.network,
        }
    }

    /// Starts all nodes and waits until they are ready for use, as [`Cluster::restart_all`] does.
    pub fn start(self) -> Cluster {
        let mut cluster = self.idle();
        cluster.restart_all();
        cluster
    }
}

impl Cluster {
    /// A cluster of so many nodes, with ids from 1.
    pub fn of(nodes: u64) -> Builder {
        let flags = vec!["--segment-size=1MiB".to_owned(), "--cores=1".to_owned()];
        Builder { nodes, shards: SHARDS, cluster_name: "test".to_owned(), flags, data: None, network: None }
    }

    /// A cluster with nothing out of the ordinary, ready for use.
    pub fn start(nodes: u64) -> Cluster {
        Cluster::of(nodes).start()
    }

    /// All ids.
    pub fn ids(&self) -> Vec<u64> {
        self.addresses.keys().copied().collect()
    }

    /// The ids of the nodes that run.
    pub fn running(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// Where a node listens.
    pub fn address(&self, id: u64) -> SocketAddr {
        self.addresses[&id]
    }

    /// All addresses, for a client.
    pub fn endpoints(&self) -> Vec<String> {
        self.addresses.values().map(SocketAddr::to_string).collect()
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.data.join(format!("node{id}"))
    }

    /// Whether a node has on record that it was admitted.
    pub fn is_admitted(&self, id: u64) -> bool {
        let identity = std::fs::read_to_string(self.data_dir(id).join("identity"));
        identity.is_ok_and(|identity| identity.contains("admitted"))
    }

    /// Waits until a node has on record that it was admitted.
    #[track_caller]
    pub fn await_admission(&self, id: u64) {
        eventually(PATIENCE, format!("node {id} is admitted"), || self.is_admitted(id).then_some(()));
    }

    /// A directory for whatever else the test needs.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The value of `--initial-cluster`.
    pub fn members(&self) -> String {
        let members: Vec<String> = self.addresses.iter().map(|(id, address)| format!("{id}={address}")).collect();
        members.join(",")
    }

    /// The arguments that a node is started with.
    pub fn args(&self, id: u64) -> Vec<String> {
        let mut args = vec![
            format!("--node-id={id}"),
            format!("--listen={}", self.address(id)),
            format!("--initial-cluster={}", self.members()),
            format!("--data-dir={}", self.data_dir(id).display()),
            format!("--shards={}", self.shards),
            format!("--cluster-name={}", self.cluster_name),
        ];
        args.extend(self.flags.iter().cloned());
        args
    }

    /// A flag for every node that is started from now on, as [`Builder::flag`].
    pub fn set_flag(&mut self, flag: &str) {
        set_flag(&mut self.flags, flag);
    }

    /// Starts a node, and does not wait for anything.
    pub fn spawn(&mut self, id: u64) -> &mut Process {
        self.spawn_with(id, server())
    }

    /// Starts a node with another command in front of its arguments.
    pub fn spawn_with(&mut self, id: u64, mut command: Command) -> &mut Process {
        self.starts += 1;
        let name = format!("node{id}.{}", self.starts);
        command.args(self.args(id));
        if let Some(network) = &self.network {
            command = network.on_host(id, &command);
        }
        let process = Process::spawn(&name, &mut command, self.files.path());
        let before = self.running.insert(id, process);
        assert!(before.is_none(), "node {id} runs already");
        self.running.get_mut(&id).expect("just inserted")
    }

    /// Starts a node and waits until it listens.
    pub fn start_node(&mut self, id: u64) {
        self.spawn(id).await_listening();
    }

    /// What joins the nodes' hosts.
    pub fn network(&mut self) -> &mut Network {
        self.network.as_mut().expect("the nodes are on hosts of their own")
    }

    /// The process of a node that runs.
    pub fn process(&mut self, id: u64) -> &mut Process {
        self.running.get_mut(&id).unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// Kills a node at once.
    pub fn kill_9(&mut self, id: u64) {
        self.running.remove(&id).expect("the node runs").kill_9();
    }

    /// Kills all nodes, each at once and all together.
    pub fn kill_all(&mut self) {
        for process in self.running.values_mut() {
            process.kill_9();
        }
        self.running.clear();
    }

    /// Tells a node to stop, and waits until it has.
    pub fn stop(&mut self, id: u64) -> Ended {
        let mut process = self.running.remove(&id).expect("the node runs");
        process.signal("TERM");
        process.await_end(PATIENCE)
    }

    /// Waits until a node that was told to stop has begun to.
    pub fn await_stopping(&mut self, id: u64) {
        let has_begun = |node: &mut Process| node.stderr().contains("stopping: handing leadership over");
        eventually(PATIENCE, "it stops", || has_begun(self.process(id)).then_some(()));
    }

    /// Waits for a node to end by itself.
    pub fn await_end(&mut self, id: u64) -> Ended {
        self.running.remove(&id).expect("the node runs").await_end(PATIENCE)
    }

    /// Waits for a node to end by itself with exit code 1, and the one line that says why.
    #[track_caller]
    pub fn await_failure(&mut self, id: u64) -> String {
        let ended = self.await_end(id);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("raftkv-server: ")).collect();
        let [line] = lines[..] else { panic!("one line says why: {}", ended.stderr) };
        line.to_owned()
    }

    /// Starts every node that does not run, and waits until every shard has a leader and every node is admitted. One that
    /// is not gives no vote to those that are, so that not every majority of a cluster that young has a leader.
    pub fn restart_all(&mut self) {
        let down: Vec<u64> = self.ids().into_iter().filter(|id| !self.running.contains_key(id)).collect();
        for id in &down {
            self.spawn(*id);
        }
        for id in down {
            self.process(id).await_listening();
        }
        self.await_leaders();
        self.running().into_iter().for_each(|id| self.await_admission(id));
    }

    /// A raw connection to one node.
    #[track_caller]
    pub fn wire(&self, id: u64) -> Wire {
        Wire::connect(self.address(id)).unwrap_or_else(|error| panic!("node {id} does not answer: {error}"))
    }

    /// A client that knows all nodes.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.client_with(Duration::from_secs(10))
    }

    /// A client that knows all nodes, with this deadline for each call.
    #[track_caller]
    pub fn client_with(&self, timeout: Duration) -> Client {
        Client::builder().endpoints(self.endpoints()).timeout(timeout).connect().expect("the cluster answers")
    }

    /// What each running node says of itself; `None` if one does not answer.
    pub fn statuses(&self) -> Option<BTreeMap<u64, Status>> {
        self.statuses_of(&self.running())
    }

    /// What these nodes say of themselves; `None` if one does not answer.
    pub fn statuses_of(&self, nodes: &[u64]) -> Option<BTreeMap<u64, Status>> {
        let ask = |id: &u64| {
            let mut wire = Wire::connect(self.address(*id)).ok()?;
            Some((*id, wire.try_status().ok()?))
        };
        nodes.iter().map(ask).collect()
    }

    /// Waits until all running nodes agree on a leader of every shard that leads indeed.
    #[track_caller]
    pub fn await_leaders(&self) {
        self.await_leaders_among(&self.running());
    }

    /// Waits until these nodes agree, for every shard, on a leader among them that leads indeed.
    #[track_caller]
    pub fn await_leaders_among(&self, nodes: &[u64]) {
        self.await_leaders_within(PATIENCE, nodes);
    }

    /// The same, not longer than this.
    #[track_caller]
    pub fn await_leaders_within(&self, patience: Duration, nodes: &[u64]) {
        let mut seen = None;
        let agree = within(patience, || {
            seen = self.statuses_of(nodes);
            let statuses = seen.as_ref()?;
            (0..self.shards).all(|shard| agreed_leader(statuses, ShardId(shard)).is_some()).then_some(())
        });
        if agree.is_none() {
            let dissent = seen.map_or_else(|| "one of them does not answer".to_owned(), |seen| self.dissent(&seen));
            panic!("not within {patience:?}: nodes {nodes:?} agree on leaders: {dissent}");
        }
    }

    /// What nodes say of the shards on whose leaders they do not agree.
    fn dissent(&self, statuses: &BTreeMap<u64, Status>) -> String {
        let mut words = String::new();
        for shard in (0..self.shards).map(ShardId).filter(|shard| agreed_leader(statuses, *shard).is_none()) {
            let _ = write!(words, "\nshard {shard}");
            for (id, status) in statuses {
                for state in status.shards.iter().filter(|state| state.id == shard) {
                    let (role, term, leader, last) = (state.role, state.term, state.leader, state.last);
                    let _ = write!(words, ", node {id}: {role:?} in term {term} of {leader:?}, last {last:?}");
                }
            }
        }
        let strangers: Vec<&u64> = statuses.keys().filter(|id| !self.is_admitted(**id)).collect();
        words + &format!("\nnot admitted: {strangers:?}")
    }

    /// The leader of each shard.
    #[track_caller]
    pub fn leaders(&self) -> BTreeMap<ShardId, u64> {
        eventually(PATIENCE, "all nodes agree on leaders", || {
            let statuses = self.statuses()?;
            (0..self.shards).map(ShardId).map(|shard| Some((shard, agreed_leader(&statuses, shard)?))).collect()
        })
    }

    /// The leader of a key's shard.
    #[track_caller]
    pub fn leader_of(&self, key: impl AsRef<[u8]>) -> u64 {
        self.leaders()[&Slot::of(key.as_ref()).shard(self.shards)]
    }

    /// Keys `{prefix}0`, `{prefix}1`, … of which each shard has at least one.
    pub fn keys_for_all_shards(&self, prefix: &str) -> Vec<String> {
        let shard = |key: &String| Slot::of(key.as_bytes()).shard(self.shards);
        let mut keys = BTreeMap::new();
        for key in (0..).map(|n| format!("{prefix}{n}")) {
            keys.entry(shard(&key)).or_insert(key);
            if keys.len() == usize::from(self.shards) {
                break;
            }
        }
        keys.into_values().collect()
    }

    /// Waits until every running node has applied the same, and everything, of every shard.
    #[track_caller]
    pub fn await_convergence(&self) {
        self.await_convergence_within(PATIENCE);
    }

    /// The same, not longer than this.
    #[track_caller]
    pub fn await_convergence_within(&self, patience: Duration) {
        eventually(patience, "all nodes have applied the same", || {
            let statuses = self.statuses()?;
            let state = |status: &Status| -> Vec<_> {
                status.shards.iter().map(|shard| (shard.applied, shard.last, shard.keys, shard.state_hash)).collect()
            };
            let complete = |status: &Status| status.shards.iter().all(|shard| shard.applied == shard.last.index);
            let mut states = statuses.values().map(state);
            let first = states.next()?;
            (statuses.values().all(complete) && states.all(|other| other == first)).then_some(())
        });
    }
}

fn set_flag(flags: &mut Vec<String>, flag: &str) {
    let name = |flag: &str| flag.split_once('=').map(|(name, _)| name.to_owned());
    flags.retain(|other| name(other) != name(flag));
    flags.push(flag.to_owned());
}

/// The node that all name as the shard's leader and that says so too.
fn agreed_leader(statuses: &BTreeMap<u64, Status>, shard: ShardId) -> Option<u64> {
    let of =
        |status: &Status| status.shards.iter().find(|state| state.id == shard).map(|state| (state.leader, state.term));
    let mut claims = statuses.values().map(of);
    let claim = claims.next()??;
    let (Some(NodeId(leader)), _) = claim else { return None };
    let leads = statuses.get(&leader)?.shards.iter().any(|state| state.id == shard && state.role == Role::Leader);
    (leads && claims.all(|other| other == Some(claim))).then_some(leader)
}
