//! Nodes of two cores each, turned by hand whenever they have something to do. Time passes when nobody has. Their disks
//! are simulated: a sync takes no time, unless a test says how long, so that one seed is one run.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Code, Operation, Reply, Request};
use raftkv_protocol::frame;
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId, RequestId, ShardId};

use super::network::{Bell, MemoryNetwork, MemorySocket, Wires};
use crate::config::{Config, LogIo, LogSync};
use crate::error::Fatal;
use crate::limits::Limits;
use crate::server::by_hand::{self, CoreParts, NodeByHand, Progress};
use crate::server::node::Peer;
use crate::shard::snapshots::Stores;
use crate::socket::Socket;
use crate::storage::disk::Disk;
use crate::storage::simulated_disk::{SimulatedDisk, Survivors};
use crate::storage::{self, FileLog, Workers};

pub(super) const NODES: u64 = 3;
pub(super) const CORES: u16 = 2;
pub(super) const SHARDS: u16 = 4;
/// How long the machine may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn address(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(id).expect("few nodes")], 7_000))
}

fn config(id: NodeId, nodes: u64, dir: &Path, limits: &Limits, lease: Option<Duration>) -> Config {
    Config {
        node_id: id,
        listen: address(id.0),
        http_listen: None,
        ui_write: false,
        advertise: address(id.0).to_string(),
        data_dir: dir.to_owned(),
        initial_cluster: (1..=nodes).map(|id| (NodeId(id), address(id).to_string())).collect(),
        shards: SHARDS,
        cores: CORES,
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_millis(800),
        cluster_name: "by hand".to_owned(),
        segment_size: 128 << 10,
        log_io: LogIo::Map,
        log_sync: LogSync::default(),
        slow_sync: Duration::from_millis(200),
        lease,
        clock_drift_ppm_max: 0,
        log_level: log::LevelFilter::Off,
        limits: limits.clone(),
    }
}

/// How long a sync of a node's logs takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// It is done when the turn ends.
    AtOnce,
    Takes(Duration),
    Hangs,
}

/// What a core is moved by.
struct Seat {
    bell: Bell,
    woken: Arc<AtomicBool>,
    workers: Workers,
    /// Since when a batch has waited for its sync.
    syncing_since: Option<Instant>,
}

impl Seat {
    /// When the sync that waits is done.
    fn synced_at(&self, sync: Sync) -> Option<Instant> {
        match sync {
            Sync::AtOnce => self.syncing_since,
            Sync::Takes(time) => self.syncing_since.map(|since| since + time),
            Sync::Hangs => None,
        }
    }

    /// Does what the log's threads have done by now. Whether the core is to look.
    fn work(&mut self, sync: Sync, now: Instant) -> bool {
        // If the disk has no room, the next turn tries again.
        while self.workers.can_allocate() && self.workers.allocate() {}
        let mut any = false;
        while self.workers.can_read() {
            self.workers.read();
            any = true;
        }
        if self.syncing_since.is_none() && self.workers.can_sync() {
            self.syncing_since = Some(now);
        }
        if self.synced_at(sync).is_some_and(|at| at <= now) {
            self.syncing_since = None;
            self.workers.sync();
            any = true;
        }
        any
    }
}

struct Member {
    node: NodeByHand<MemoryNetwork>,
    seats: Vec<Seat>,
    sync: Sync,
    /// Its snapshot workers do nothing.
    holds_snapshots: bool,
}

impl Member {
    /// Whether anything is left of it.
    fn runs(&self) -> bool {
        (0..CORES).any(|core| self.node.wake_at(CoreId(core)).is_some())
    }

    /// When a core is to be turned, or its log has done something.
    fn due_at(&self, core: CoreId) -> Option<Instant> {
        let wake_at = self.node.wake_at(core)?;
        let synced_at = self.seats[usize::from(core.0)].synced_at(self.sync);
        Some(synced_at.map_or(wake_at, |at| at.min(wake_at)))
    }

    fn is_due(&self, core: CoreId, now: Instant) -> bool {
        let seat = &self.seats[usize::from(core.0)];
        let is_called = !seat.bell.borrow().is_empty() || seat.woken.load(Ordering::Relaxed);
        self.due_at(core).is_some_and(|at| at <= now || is_called || self.has_snapshot_work(core))
    }

    fn has_snapshot_work(&self, core: CoreId) -> bool {
        !self.holds_snapshots && self.node.snapshots(core).next_effort().is_some()
    }

    /// Turns a core until its log has nothing more for it at this time. An error ends the process.
    fn turn(&mut self, core: CoreId, now: Instant) -> Result<(), Fatal> {
        let seat = &mut self.seats[usize::from(core.0)];
        seat.work(self.sync, now);
        seat.woken.store(false, Ordering::Relaxed);
        let mut ready = seat.bell.take();
        while self.has_snapshot_work(core) {
            self.node.snapshots(core).work();
        }
        loop {
            if self.node.turn(core, now, &ready)? == Progress::Ended {
                self.node.end(core).close().expect("the log closes");
                return Ok(());
            }
            if !self.seats[usize::from(core.0)].work(self.sync, now) {
                return Ok(());
            }
            ready.clear();
        }
    }
}

pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) wires: Wires,
    seed: u64,
    limits: Limits,
    log_sync: LogSync,
    lease: Option<Duration>,
    members: Vec<Option<Member>>,
    /// By node and core.
    disks: Vec<Vec<SimulatedDisk>>,
    /// The node whose process may end by itself, and what it said.
    doomed: Option<(u64, Option<Fatal>)>,
    /// By node and shard.
    snapshots: Vec<Vec<SimulatedDisk>>,
    dirs: tempfile::TempDir,
}

impl Cluster {
    /// A cluster none of whose nodes was started yet.
    pub(super) fn without_nodes(seed: u64) -> Cluster {
        Cluster::of(seed, NODES, Limits::default())
    }

    pub(super) fn of(seed: u64, nodes: u64, limits: Limits) -> Cluster {
        let disk = |node: u64, core: u16| SimulatedDisk::new(seed ^ (node << 16) ^ u64::from(core));
        let snapshots = |node: u64, shard: u16| SimulatedDisk::new(seed ^ (node << 24) ^ u64::from(shard));
        Cluster {
            now: Instant::now(),
            wires: Wires::default(),
            seed,
            limits,
            log_sync: LogSync::Thread,
            lease: None,
            members: (0..nodes).map(|_| None).collect(),
            disks: (1..=nodes).map(|node| (0..CORES).map(|core| disk(node, core)).collect()).collect(),
            doomed: None,
            snapshots: (1..=nodes).map(|node| (0..SHARDS).map(|shard| snapshots(node, shard)).collect()).collect(),
            dirs: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A cluster in which every shard has a leader that every node knows.
    pub(super) fn with_leaders(seed: u64) -> Cluster {
        Cluster::of(seed, NODES, Limits::default()).started()
    }

    /// The same, in which each loop syncs its log itself.
    pub(super) fn syncing_inline(seed: u64) -> Cluster {
        Cluster { log_sync: LogSync::Inline, ..Cluster::of(seed, NODES, Limits::default()) }.started()
    }

    /// The same, with leases that last so long.
    pub(super) fn with_leases(seed: u64, lease: Duration) -> Cluster {
        Cluster { lease: Some(lease), ..Cluster::of(seed, NODES, Limits::default()) }.started()
    }

    /// The same, with other limits.
    pub(super) fn with_limits(seed: u64, limits: Limits) -> Cluster {
        Cluster::of(seed, NODES, limits).started()
    }

    /// The same of so many nodes.
    pub(super) fn with_nodes(seed: u64, nodes: u64) -> Cluster {
        Cluster::of(seed, nodes, Limits::default()).started()
    }

    /// A node alone, with other limits.
    pub(super) fn alone(seed: u64, limits: Limits) -> Cluster {
        Cluster::of(seed, 1, limits).started()
    }

    fn started(mut self) -> Cluster {
        (1..=self.nodes()).for_each(|id| self.start_node(id));
        self.run_until("leaders", Cluster::has_leaders);
        self
    }

    pub(super) fn nodes(&self) -> u64 {
        self.members.len() as u64
    }

    /// Whether all nodes that run know the same leader, one that runs, of every shard.
    pub(super) fn has_leaders(&self) -> bool {
        let running: Vec<u64> = (1..=self.nodes()).filter(|id| self.runs(*id)).collect();
        (0..SHARDS).map(ShardId).all(|shard| {
            let mut known = running.iter().map(|id| self.known_leader(*id, shard));
            let first = known.next().flatten();
            first.is_some_and(|leader| running.contains(&leader.0)) && known.all(|leader| leader == first)
        })
    }

    pub(super) fn start_node(&mut self, id: u64) {
        self.try_start_node(id).expect("a start");
    }

    /// Starts a node, if it can be.
    pub(super) fn try_start_node(&mut self, id: u64) -> Result<(), Fatal> {
        let dir = self.data_dir(id);
        let peers = (1..=self.nodes()).filter(|peer| *peer != id);
        let peers = peers.map(|peer| Peer { id: NodeId(peer), address: address(peer) }).collect();
        let config = config(NodeId(id), self.nodes(), &dir, &self.limits, self.lease);
        let node = by_hand::open(config, peers, Incarnation(id)).expect("a data directory");
        let mut seats = Vec::new();
        let cores = (0..CORES).map(CoreId).map(|core| -> Result<_, Fatal> {
            let (bell, woken) = (Rc::new(RefCell::new(Vec::new())), Arc::new(AtomicBool::new(false)));
            let wake: storage::Wake = {
                let woken = Arc::clone(&woken);
                Arc::new(move || woken.store(true, Ordering::Relaxed))
            };
            let disk = &mut self.disks[at(id)][usize::from(core.0)];
            let mut options = storage::Options::new("simulated", node.shards_of(core).collect(), Arc::clone(&wake));
            options.segment_size = node.config.segment_size;
            options.sync = match self.log_sync {
                LogSync::Thread => storage::LogSync::Thread,
                LogSync::Inline => storage::LogSync::Inline,
            };
            let next = SimulatedDisk::new(self.seed ^ 0x5a5a);
            let (from, to) = (Arc::new(disk.clone()), Arc::new(next.clone()));
            if by_hand::salvage(&node, from, to, options.clone(), 0)?.is_some() {
                *disk = next;
            }
            let disk = disk.clone();
            let opened = FileLog::open_by_hand(Arc::new(disk), options);
            let (log, recovered, workers) = opened.map_err(|error| Fatal::failure(error.to_string()))?;
            let network = self.wires.network(address(id), Rc::clone(&bell));
            seats.push(Seat { bell, woken, workers, syncing_since: None });
            let seed = self.seed ^ (id << 8) ^ u64::from(core.0);
            Ok(CoreParts { network, log, recovered, wake, seed })
        });
        let cores = cores.collect::<Result<_, Fatal>>()?;
        let disk_of = |shard: ShardId| {
            let disk = self.snapshots[at(id)][usize::from(shard.0)].clone();
            Ok(Arc::new(disk) as Arc<dyn Disk>)
        };
        let stores = Stores::open((0..SHARDS).map(ShardId), disk_of).expect("folders for snapshots");
        let node = NodeByHand::start(node, cores, &stores, self.now)?;
        self.members[at(id)] = Some(Member { node, seats, sync: Sync::AtOnce, holds_snapshots: false });
        Ok(())
    }

    /// The disk of a core's log.
    pub(super) fn disk(&self, id: u64, core: u16) -> &SimulatedDisk {
        &self.disks[at(id)][usize::from(core)]
    }

    /// This node's process may end by itself from now on.
    pub(super) fn may_end(&mut self, id: u64) {
        self.doomed = Some((id, None));
    }

    /// What the process said that ended by itself, if it did.
    pub(super) fn end(&self) -> Option<&Fatal> {
        self.doomed.as_ref().and_then(|(_, end)| end.as_ref())
    }

    /// The power goes, and nothing is left of a node but what was durable.
    pub(super) fn lose_power(&mut self, id: u64) {
        self.kill(id);
        self.disks_of(id).for_each(|disk| disk.crash_in_place(Survivors::None));
    }

    fn disks_of(&self, id: u64) -> impl Iterator<Item = &SimulatedDisk> {
        self.disks[at(id)].iter().chain(&self.snapshots[at(id)])
    }

    /// Where a node keeps what is not a log.
    pub(super) fn data_dir(&self, id: u64) -> std::path::PathBuf {
        self.dirs.path().join(format!("node{id}"))
    }

    /// From now on syncs of a node's logs take so long, that one too which waits.
    pub(super) fn set_sync(&mut self, id: u64, sync: Sync) {
        self.members[at(id)].as_mut().expect("the node runs").sync = sync;
    }

    /// Whether the disk of a node's logs has no room.
    pub(super) fn set_full(&self, id: u64, is_full: bool) {
        self.disks[at(id)].iter().for_each(|disk| disk.set_full(is_full));
    }

    /// Whether a node's snapshot workers do nothing from now on.
    pub(super) fn hold_snapshots(&mut self, id: u64, holds: bool) {
        self.members[at(id)].as_mut().expect("the node runs").holds_snapshots = holds;
    }

    /// The disk of a shard's snapshots.
    pub(super) fn snapshot_disk(&self, id: u64, shard: ShardId) -> &SimulatedDisk {
        &self.snapshots[at(id)][usize::from(shard.0)]
    }

    /// Ends a node's process without a word.
    pub(super) fn kill(&mut self, id: u64) {
        self.members[at(id)] = None;
        self.disks_of(id).for_each(SimulatedDisk::restart);
    }

    pub(super) fn stop(&mut self, id: u64) {
        self.node_mut(id).stop();
    }

    pub(super) fn runs(&self, id: u64) -> bool {
        self.members[at(id)].as_ref().is_some_and(Member::runs)
    }

    pub(super) fn node(&self, id: u64) -> &NodeByHand<MemoryNetwork> {
        &self.members[at(id)].as_ref().expect("the node runs").node
    }

    pub(super) fn node_mut(&mut self, id: u64) -> &mut NodeByHand<MemoryNetwork> {
        &mut self.members[at(id)].as_mut().expect("the node runs").node
    }

    /// Who leads a shard as far as a node knows.
    pub(super) fn known_leader(&self, id: u64, shard: ShardId) -> Option<NodeId> {
        self.node(id).node().leaders.get(shard).0
    }

    pub(super) fn leader(&self, shard: ShardId) -> u64 {
        self.known_leader(1, shard).expect("the shard has a leader").0
    }

    /// Turns a core once, with what its sockets have for it, while its clock shows these times.
    pub(super) fn turn_pausing(&mut self, id: u64, core: CoreId, times: &[Instant]) {
        let member = self.members[at(id)].as_mut().expect("the node runs");
        let ready = member.seats[usize::from(core.0)].bell.take();
        member.node.turn_pausing(core, times, &ready).expect("a turn");
        self.now = times.last().copied().unwrap_or(self.now);
    }

    /// Turns every core that has something to do; if none has, time passes.
    pub(super) fn step(&mut self) {
        let mut rested = true;
        let mut next = self.now + Duration::from_secs(1);
        for (seat, place) in self.members.iter_mut().enumerate() {
            let Some(member) = place else { continue };
            for core in (0..CORES).map(CoreId) {
                if member.is_due(core, self.now) {
                    rested = false;
                    if let Err(fatal) = member.turn(core, self.now) {
                        let (_, end) = self.doomed.as_mut().filter(|(id, _)| at(*id) == seat).expect("a turn");
                        *end = Some(fatal);
                        *place = None;
                        break;
                    }
                }
                next = member.due_at(core).map_or(next, |at| at.min(next));
            }
        }
        if rested {
            self.now = next;
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until("time", |cluster| cluster.now >= end);
    }

    #[track_caller]
    pub(super) fn run_until(&mut self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let give_up_at = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < give_up_at, "in vain: {what}");
            self.step();
        }
    }

    /// Dials a node as a client whose requests are mostly for `home`, and sends `first` right behind the hello.
    pub(super) fn dial(&mut self, id: u64, home: Option<ShardId>, first: &[Request<'_>]) -> Client {
        let socket = self.wires.connect(address(200), address(id)).expect("the node listens");
        let mut client = Client { socket, unsent: Vec::new(), received: Vec::new() };
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster: ClusterId(0),
            role: HelloRole::Client { home },
            features: 0,
            auth: Auth::default(),
        };
        hello.encode(&mut client.unsent);
        first.iter().for_each(|request| request.encode(&mut client.unsent));
        let (kind, payload) = self.receive(&mut client);
        let welcome = HelloReply::decode(kind, &payload).expect("an answer to the hello");
        assert!(matches!(welcome, HelloReply::Welcome { node, .. } if node == NodeId(id)), "{welcome:?}");
        client
    }

    /// The next frame that a client gets.
    pub(super) fn receive(&mut self, client: &mut Client) -> (u8, Vec<u8>) {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            client.exchange();
            let found = frame::parse(&client.received, frame::CLIENT_FRAME_MAX).expect("a frame");
            if let Some(found) = found {
                let (kind, payload, consumed) = (found.kind, found.payload.to_vec(), found.consumed);
                client.received.drain(..consumed);
                return (kind, payload);
            }
            assert!(Instant::now() < give_up_at, "no reply");
            self.step();
        }
    }

    /// Asks through a client's connection; `look` sees the reply.
    #[track_caller]
    pub(super) fn ask<T>(
        &mut self,
        client: &mut Client,
        operation: Operation<'_>,
        look: impl FnOnce(Reply<'_>) -> T,
    ) -> T {
        Request { id: RequestId(7), operation }.encode(&mut client.unsent);
        let (kind, payload) = self.receive(client);
        let reply = Reply::decode(kind, &payload).expect("a reply");
        assert_eq!(reply.id, RequestId(7));
        look(reply)
    }
}

fn at(id: u64) -> usize {
    usize::try_from(id - 1).expect("few nodes")
}

/// A client's end of a connection.
pub(super) struct Client {
    socket: MemorySocket,
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl Client {
    /// Asks for something, which must find room on the wire, and reads nothing.
    pub(super) fn send(&mut self, id: u64, operation: Operation<'_>) {
        Request { id: RequestId(id), operation }.encode(&mut self.unsent);
        self.write();
        assert!(self.unsent.is_empty(), "the wire is full");
    }

    /// Asks for something that may be longer than what the wire has room for, and reads nothing.
    pub(super) fn send_when_possible(&mut self, cluster: &mut Cluster, id: u64, operation: Operation<'_>) {
        Request { id: RequestId(id), operation }.encode(&mut self.unsent);
        let give_up_at = Instant::now() + PATIENCE;
        while !self.unsent.is_empty() {
            assert!(Instant::now() < give_up_at, "the node does not read");
            self.write();
            cluster.step();
        }
    }

    /// Says that nothing more will come from here.
    pub(super) fn end(&mut self) {
        self.socket.shutdown_write().expect("the socket is open");
    }

    /// The replies that have come since the last look, by the names of their requests: done, or why not.
    pub(super) fn replies(&mut self) -> Vec<(u64, Option<Code>)> {
        self.exchange();
        let mut replies = Vec::new();
        while let Some(found) = frame::parse(&self.received, frame::CLIENT_FRAME_MAX).expect("a frame") {
            let reply = Reply::decode(found.kind, found.payload).expect("a reply");
            replies.push((reply.id.0, reply.result.err().map(|refusal| refusal.code)));
            let consumed = found.consumed;
            self.received.drain(..consumed);
        }
        replies
    }

    fn write(&mut self) {
        // Writing nothing rings the node's bell all the same.
        while !self.unsent.is_empty()
            && let Ok(wrote @ 1..) = self.socket.write(&self.unsent)
        {
            self.unsent.drain(..wrote);
        }
    }

    /// Writes and reads what there is.
    fn exchange(&mut self) {
        self.write();
        let mut buffer = [0; 512];
        while let Ok(got @ 1..) = self.socket.read(&mut buffer) {
            self.received.extend_from_slice(&buffer[..got]);
        }
    }
}
