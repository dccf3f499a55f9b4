//! Three nodes of two cores each, turned by hand whenever they have something to do. Time passes when nobody has, and
//! a turn ends only when what it gave to the log is durable, so that one seed is one run.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use raftkv_protocol::client::{Code, Operation, Reply, Request};
use raftkv_protocol::frame;
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId, RequestId, ShardId};

use super::network::{Bell, MemoryNetwork, MemorySocket, Wires};
use crate::config::{Config, LogIo};
use crate::limits::Limits;
use crate::server::by_hand::{self, CoreParts, NodeByHand, Progress};
use crate::server::node::Peer;
use crate::shard::snapshots::Stores;
use crate::socket::Socket;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::{self, CoreLog, FileLog};

pub(super) const NODES: u64 = 3;
pub(super) const CORES: u16 = 2;
pub(super) const SHARDS: u16 = 4;
/// How long the machine may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn address(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(id).expect("few nodes")], 7_000))
}

fn config(id: NodeId, dir: &Path, limits: &Limits) -> Config {
    Config {
        node_id: id,
        listen: address(id.0),
        advertise: address(id.0).to_string(),
        data_dir: dir.to_owned(),
        initial_cluster: (1..=NODES).map(|id| (NodeId(id), address(id).to_string())).collect(),
        shards: SHARDS,
        cores: CORES,
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_millis(800),
        cluster_name: "by hand".to_owned(),
        segment_size: 128 << 10,
        log_io: LogIo::Map,
        log_level: log::LevelFilter::Off,
        limits: limits.clone(),
    }
}

/// What a core is moved by.
struct Seat {
    bell: Bell,
    woken: Arc<AtomicBool>,
    log_woken: Receiver<()>,
}

struct Member {
    node: NodeByHand<MemoryNetwork>,
    seats: Vec<Seat>,
}

impl Member {
    /// Whether anything is left of it.
    fn runs(&self) -> bool {
        (0..CORES).any(|core| self.node.wake_at(CoreId(core)).is_some())
    }

    fn is_due(&self, core: CoreId, now: Instant) -> bool {
        let seat = &self.seats[usize::from(core.0)];
        let is_called =
            !seat.bell.borrow().is_empty() || seat.woken.load(Ordering::Relaxed) || !seat.log_woken.is_empty();
        let has_work = self.node.snapshots(core).next_effort().is_some();
        self.node.wake_at(core).is_some_and(|at| at <= now || is_called || has_work)
    }

    /// Turns a core until all that it has given to its log is durable.
    fn turn(&mut self, core: CoreId, now: Instant) {
        let seat = &self.seats[usize::from(core.0)];
        seat.woken.store(false, Ordering::Relaxed);
        let mut ready = seat.bell.take();
        while seat.log_woken.try_recv().is_ok() {}
        while self.node.snapshots(core).next_effort().is_some() {
            self.node.snapshots(core).work();
        }
        loop {
            if let Progress::Ended(log) = self.node.turn(core, now, &ready).expect("a turn") {
                return log.close().expect("the log closes");
            }
            if self.node.router(core).expect("the core runs").log().backlog_bytes() == 0 {
                return;
            }
            ready.clear();
            seat.log_woken.recv_timeout(PATIENCE).expect("the log syncs");
        }
    }
}

pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) wires: Wires,
    seed: u64,
    limits: Limits,
    members: Vec<Option<Member>>,
    dirs: tempfile::TempDir,
}

impl Cluster {
    /// A cluster none of whose nodes was started yet.
    pub(super) fn without_nodes(seed: u64) -> Cluster {
        Cluster::of(seed, Limits::default())
    }

    fn of(seed: u64, limits: Limits) -> Cluster {
        Cluster {
            now: Instant::now(),
            wires: Wires::default(),
            seed,
            limits,
            members: (0..NODES).map(|_| None).collect(),
            dirs: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A cluster in which every shard has a leader that every node knows.
    pub(super) fn with_leaders(seed: u64) -> Cluster {
        Cluster::with_limits(seed, Limits::default())
    }

    /// The same, with other limits.
    pub(super) fn with_limits(seed: u64, limits: Limits) -> Cluster {
        let mut cluster = Cluster::of(seed, limits);
        (1..=NODES).for_each(|id| cluster.start_node(id));
        cluster.run_until("leaders", Cluster::has_leaders);
        cluster
    }

    pub(super) fn has_leaders(&self) -> bool {
        (0..SHARDS).map(ShardId).all(|shard| {
            let known = |id| self.known_leader(id, shard);
            known(1).is_some() && (2..=NODES).all(|id| known(id) == known(1))
        })
    }

    pub(super) fn start_node(&mut self, id: u64) {
        let dir = self.dirs.path().join(format!("node{id}"));
        let peers = (1..=NODES).filter(|peer| *peer != id);
        let peers = peers.map(|peer| Peer { id: NodeId(peer), address: address(peer) }).collect();
        let node =
            by_hand::open(config(NodeId(id), &dir, &self.limits), peers, Incarnation(id)).expect("a data directory");
        let mut seats = Vec::new();
        let cores = (0..CORES).map(CoreId).map(|core| {
            let (log_wakes, log_woken) = unbounded();
            let log_wake: storage::Wake = Arc::new(move || {
                // A log that outlives its node by a moment wakes nobody.
                log_wakes.send(()).ok();
            });
            let shards = node.shards_of(core).collect();
            let mut options = storage::Options::new(dir.join(format!("log{core}")), shards, log_wake);
            options.segment_size = node.config.segment_size;
            let (log, recovered) = FileLog::open(options).expect("a log");
            let (bell, woken) = (Rc::new(RefCell::new(Vec::new())), Arc::new(AtomicBool::new(false)));
            let network = self.wires.network(address(id), Rc::clone(&bell));
            seats.push(Seat { bell, woken: Arc::clone(&woken), log_woken });
            let wake = Arc::new(move || woken.store(true, Ordering::Relaxed));
            let seed = self.seed ^ (id << 8) ^ u64::from(core.0);
            CoreParts { network, log, recovered, wake, seed }
        });
        let cores = cores.collect();
        let disk_of = |shard| {
            let snapshots = dir.join(format!("snapshots{shard}"));
            Ok(Arc::new(RealDisk::create(&snapshots, storage::LogIo::Map)?) as Arc<dyn Disk>)
        };
        let stores = Stores::open((0..SHARDS).map(ShardId), disk_of).expect("folders for snapshots");
        let node = NodeByHand::start(node, cores, &stores, self.now).expect("a start");
        self.members[at(id)] = Some(Member { node, seats });
    }

    /// Ends a node's process without a word.
    pub(super) fn kill(&mut self, id: u64) {
        self.members[at(id)] = None;
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

    /// Turns every core that has something to do; if none has, time passes.
    pub(super) fn step(&mut self) {
        let mut rested = true;
        let mut next = self.now + Duration::from_secs(1);
        for member in self.members.iter_mut().flatten() {
            for core in (0..CORES).map(CoreId) {
                if member.is_due(core, self.now) {
                    member.turn(core, self.now);
                    rested = false;
                }
                next = member.node.wake_at(core).map_or(next, |at| at.min(next));
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
        while let Ok(wrote @ 1..) = self.socket.write(&self.unsent) {
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
