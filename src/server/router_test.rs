//! Routers of three nodes over logs in memory: what they say to each other is carried by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, Condition, Consistency, Operation, Refusal, Scan};
use raftkv_protocol::frame;
use raftkv_protocol::hello::FEATURE_ADMITTED;
use raftkv_protocol::peer::{PeerFrame, SnapshotChunk};
use raftkv_protocol::types::{CoreId, EntryId, Incarnation, NodeId, RequestId, ShardId, Slot};

use super::message::{Charge, ConnectionId, CoreMessage, ExchangeId, Origin, ReplyTo, Wanted};
use super::node::{Node, Peer};
use super::router::Router;
use super::transport::Transport;
use crate::config::{Config, LogIo, LogSync};
use crate::limits::Limits;
use crate::metrics::figures::Figures;
use crate::metrics::requests::{Face, Taken, Task};
use crate::raft::{self, Raft};
use crate::shard::Shard;
use crate::shard::snapshots::Snapshots;
use crate::storage::MemoryLog;
use crate::storage::data_dir::DataDir;
use crate::storage::memory::Completion;

pub(super) const SHARDS: u16 = 3;
const CONNECTION: ConnectionId = ConnectionId { slot: 0, generation: 1 };

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    Batch(u128),
    Value(Vec<u8>),
    Page(Vec<Vec<u8>>, bool),
    No(Code),
}

/// What one router says.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) links: BTreeMap<NodeId, Vec<u8>>,
    told: Vec<(u64, Told)>,
    /// To other cores.
    pub(super) answers: Vec<CoreMessage>,
    figures: Vec<(ExchangeId, Arc<Figures>)>,
}

impl Transport for Mail {
    fn reply(
        &mut self,
        _: ConnectionId,
        request: RequestId,
        _: Charge,
        _: EntryId,
        result: Result<Answer<'_>, Refusal<'_>>,
    ) {
        let told = match result {
            Ok(Answer::Value { value, .. }) => Told::Value(value.to_vec()),
            Ok(Answer::Page(page)) => Told::Page(page.items.iter().map(|item| item.key.to_vec()).collect(), page.more),
            Ok(Answer::Batch { existed }) => Told::Batch(existed.0),
            Ok(_) => Told::Done,
            Err(refusal) => Told::No(refusal.code),
        };
        self.told.push((request.0, told));
    }

    fn figures(&mut self, exchange: ExchangeId, _: Charge, figures: Arc<Figures>) {
        self.figures.push((exchange, figures));
    }

    fn peer(&mut self, node: NodeId) -> Option<&mut Vec<u8>> {
        self.links.get_mut(&node)
    }

    fn core(&mut self, _: CoreId, message: CoreMessage) -> Result<(), CoreMessage> {
        Err(message)
    }

    fn answer(&mut self, _: CoreId, message: CoreMessage) {
        self.answers.push(message);
    }

    fn snapshot_chunk(&mut self, _: ConnectionId, _: &SnapshotChunk<'_>) {}

    fn source(&mut self, _: NodeId) -> Option<&mut Vec<u8>> {
        None
    }

    fn leave_source(&mut self) {}
}

pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) nodes: Vec<(Router<MemoryLog>, Mail)>,
    dirs: tempfile::TempDir,
}

fn config(id: NodeId, dir: &Path) -> Config {
    Config {
        node_id: id,
        listen: "127.0.0.1:1".parse().unwrap(),
        http_listen: None,
        ui_write: false,
        advertise: String::new(),
        data_dir: dir.to_owned(),
        initial_cluster: (1..=3).map(|id| (NodeId(id), format!("127.0.0.{id}:1"))).collect(),
        shards: SHARDS,
        cores: 1,
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_millis(800),
        cluster_name: "test".to_owned(),
        segment_size: 1 << 20,
        log_io: LogIo::Map,
        log_sync: LogSync::default(),
        slow_sync: Duration::from_millis(200),
        lease: None,
        clock_drift_ppm_max: 0,
        log_level: log::LevelFilter::Off,
        limits: Limits::default(),
    }
}

/// The first core of a node.
fn router(config: Config, now: Instant) -> Router<MemoryLog> {
    let data_dir = DataDir::open(&config.data_dir, &config.identity()).unwrap();
    let (id, address) = (config.node_id, config.listen);
    let peers = (1..=3).map(NodeId).filter(|peer| *peer != id).map(|id| Peer { id, address }).collect();
    let node = Arc::new(Node::new(config, peers, data_dir, usize::MAX));
    let shards: Vec<ShardId> = node.shards_of(CoreId(0)).collect();
    let shard = |shard: &ShardId| {
        let config = raft::Config {
            id,
            shard: *shard,
            voters: (1..=3).map(NodeId).collect(),
            incarnation: Incarnation(id.0),
            heartbeat: node.config.heartbeat,
            election_timeout: node.config.election_timeout,
            epoch: now,
            preferred: node.preferred_leader(*shard) == id,
            seed: 7,
            append_bytes_max: 1 << 20,
            inflight_bytes_max: 1 << 20,
            inflight_messages_max: 64,
            leases: raft::Leases::default(),
        };
        let bytes_max = node.config.limits.uncommitted_bytes_max;
        Shard::new(*shard, Raft::new(config, raft::Recovered::default(), now), bytes_max)
    };
    let replicas = shards.iter().map(shard).collect();
    let log = MemoryLog::new(&shards, Completion::OnFlush);
    let (snapshots, _, _) = Snapshots::with_ends();
    Router::new(Arc::clone(&node), CoreId(0), replicas, log, snapshots, 1_000 * id.0, now)
}

impl Cluster {
    /// Three nodes that know each other and have no leaders yet: shard 0 is for node 1, and so on.
    fn new() -> Cluster {
        Cluster::with(|_| ())
    }

    /// The same, with other limits.
    pub(super) fn with_limits(limits: &Limits) -> Cluster {
        Cluster::with(|config| config.limits = limits.clone())
    }

    /// The same, with other settings.
    pub(super) fn with(change: impl Fn(&mut Config)) -> Cluster {
        let now = Instant::now();
        let dirs = tempfile::tempdir().unwrap();
        let node = |id: u64| {
            let mut config = config(NodeId(id), &dirs.path().join(id.to_string()));
            change(&mut config);
            (router(config, now), Mail::default())
        };
        let mut cluster = Cluster { now, nodes: (1..=3).map(node).collect(), dirs };
        for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
            cluster.link_up(from, to);
        }
        cluster
    }

    pub(super) fn with_leaders() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.await_leaders();
        cluster
    }

    /// Until every node leads the shard that is for it.
    pub(super) fn await_leaders(&mut self) {
        let leads = |node: &(Router<MemoryLog>, Mail), at: usize| {
            let shard = &node.0.shards()[at];
            shard.leads() && shard.is_ready()
        };
        self.run_until(|cluster| cluster.nodes.iter().enumerate().all(|(at, node)| leads(node, at)));
        self.run(Duration::from_millis(200));
    }

    pub(super) fn link_up(&mut self, from: u64, to: u64) {
        let (router, mail) = &mut self.nodes[from as usize - 1];
        mail.links.insert(NodeId(to), Vec::new());
        router.link_up(NodeId(to));
    }

    pub(super) fn link_down(&mut self, from: u64, to: u64) {
        let (router, mail) = &mut self.nodes[from as usize - 1];
        mail.links.remove(&NodeId(to));
        router.link_down(NodeId(to), mail);
    }

    pub(super) fn turn(&mut self, id: u64) {
        let (router, mail) = &mut self.nodes[id as usize - 1];
        router.finish_turn(self.now, mail).unwrap();
    }

    /// Hands over what is on the links of one node. Whether there was anything.
    pub(super) fn deliver(&mut self, from: u64) -> bool {
        let mut any = false;
        for to in 1..=3 {
            let Some(link) = self.nodes[from as usize - 1].1.links.get_mut(&NodeId(to)) else { continue };
            let bytes = std::mem::take(link);
            let (router, mail) = &mut self.nodes[to as usize - 1];
            let mut rest = &bytes[..];
            while let Some(found) = frame::parse(rest, frame::PEER_FRAME_MAX).unwrap() {
                let peer_frame = PeerFrame::decode(found.kind, found.payload).unwrap();
                router.peer_frame(NodeId(from), peer_frame, self.now, mail);
                rest = &rest[found.consumed..];
                any = true;
            }
        }
        any
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut moved = false;
            for id in 1..=3 {
                self.turn(id);
                // What the log has made durable at once is looked at in the next turn.
                self.turn(id);
                moved |= self.deliver(id);
            }
            if !moved {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub(super) fn run_until(&mut self, holds: impl Fn(&Cluster) -> bool) {
        for _ in 0..10_000 {
            self.settle();
            if holds(self) {
                return;
            }
            self.now += Duration::from_millis(1);
        }
        panic!("it never happens");
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(|cluster| cluster.now >= end);
    }

    pub(super) fn ask(&mut self, at: u64, request: u64, operation: Operation<'_>) {
        let taken = Taken { at: self.now, face: Face::Binary, task: Task::of(&operation) };
        let origin =
            Origin::Client { connection: CONNECTION, request: RequestId(request), charge: Charge::Other(0), taken };
        let (router, mail) = &mut self.nodes[at as usize - 1];
        router.request(operation, ReplyTo { core: CoreId(0), origin }, self.now, mail);
    }

    pub(super) fn put(&mut self, at: u64, request: u64, key: &[u8]) {
        self.ask(at, request, Operation::Put { key, value: b"value", condition: Condition::None });
    }

    pub(super) fn get(&mut self, at: u64, request: u64, key: &[u8]) {
        self.ask(at, request, Operation::Get { key, consistency: Consistency::Linearizable });
    }

    pub(super) fn told(&mut self, at: u64) -> Vec<(u64, Told)> {
        std::mem::take(&mut self.nodes[at as usize - 1].1.told)
    }
}

/// The `n`-th key of a shard.
pub(super) fn key_of(shard: u16, n: usize) -> Vec<u8> {
    let keys = (0..).map(|n: u32| format!("key{n:05}").into_bytes());
    keys.filter(|key| Slot::of(key).shard(SHARDS) == ShardId(shard)).nth(n).unwrap()
}

#[test]
fn any_node_serves_any_key_by_forwarding_once() {
    let mut cluster = Cluster::with_leaders();
    for shard in 0..SHARDS {
        cluster.put(1, u64::from(shard), &key_of(shard, 0));
    }
    cluster.settle();
    let mut told = cluster.told(1);
    told.sort_by_key(|told| told.0);
    assert_eq!(told, [(0, Told::Done), (1, Told::Done), (2, Told::Done)]);
    assert_eq!(cluster.nodes[0].0.counters.forwards_sent, 2);
    assert_eq!(cluster.nodes[1].0.counters.forwards_served, 1);
    cluster.get(3, 9, &key_of(1, 0));
    cluster.settle();
    assert_eq!(cluster.told(3), [(9, Told::Value(b"value".to_vec()))]);
}

/// However long the node was at rest before the request came.
#[test]
fn a_forwarded_call_may_take_as_long_as_is_left_to_it() {
    let mut cluster = Cluster::with_leaders();
    cluster.now += Duration::from_millis(700);
    let now = cluster.now;
    cluster.nodes[0].0.begin_turn(now);
    cluster.put(1, 1, &key_of(1, 0));
    let link = &cluster.nodes[0].1.links[&NodeId(2)];
    let found = frame::parse(link, frame::PEER_FRAME_MAX).unwrap().unwrap();
    let PeerFrame::Forward(forward) = PeerFrame::decode(found.kind, found.payload).unwrap() else {
        panic!("the call is forwarded")
    };
    let want = cluster.nodes[0].0.node.config.limits.request_timeout;
    assert_eq!(Duration::from_millis(forward.timeout_ms.into()), want);
}

// rule 25
#[test]
fn a_forwarded_write_is_unknown_when_the_link_breaks_and_a_read_is_asked_again() {
    let mut cluster = Cluster::with_leaders();
    cluster.put(1, 1, &key_of(1, 0));
    cluster.get(1, 2, &key_of(1, 0));
    cluster.nodes[0].1.links.insert(NodeId(2), Vec::new()); // Both are lost on their way.
    cluster.link_down(1, 2);
    assert_eq!(cluster.told(1), [(1, Told::No(Code::Timeout))]);
    cluster.link_up(1, 2);
    cluster.run(Duration::from_millis(100));
    assert_eq!(cluster.told(1), [(2, Told::No(Code::NotFound))], "the write was not sent again");
}

#[test]
fn a_request_without_a_leader_waits_for_one() {
    let mut cluster = Cluster::new();
    cluster.put(1, 1, &key_of(0, 0));
    cluster.put(1, 2, &key_of(2, 0));
    cluster.settle();
    assert_eq!(cluster.told(1), []);
    cluster.run(Duration::from_millis(700));
    let mut told = cluster.told(1);
    told.sort_by_key(|told| told.0);
    assert_eq!(told, [(1, Told::Done), (2, Told::Done)]);
}

// rule 25
#[test]
fn a_request_that_finds_no_leader_in_time_is_refused_for_certain() {
    let mut cluster = Cluster::new();
    for (from, to) in [(1, 2), (1, 3), (2, 1), (3, 1)] {
        cluster.link_down(from, to);
    }
    cluster.put(1, 1, &key_of(0, 0));
    cluster.get(1, 2, &key_of(0, 0));
    cluster.run(Limits::default().request_timeout - Duration::from_millis(1));
    assert_eq!(cluster.told(1), []);
    cluster.run(Duration::from_millis(100));
    assert_eq!(cluster.told(1), [(1, Told::No(Code::NoLeader)), (2, Told::No(Code::NoLeader))]);
}

// museum 22
#[test]
fn a_leader_without_a_majority_answers_no_read_and_leaves_its_writes_unknown() {
    let mut cluster = Cluster::with_leaders();
    for (from, to) in [(1, 2), (1, 3), (2, 1), (3, 1)] {
        cluster.link_down(from, to);
    }
    cluster.put(1, 1, &key_of(0, 0));
    cluster.get(1, 2, &key_of(0, 0));
    cluster.run(Limits::default().request_timeout + Duration::from_millis(100));
    let mut told = cluster.told(1);
    told.sort_by_key(|told| told.0);
    assert_eq!(told[0], (1, Told::No(Code::Timeout)));
    assert_eq!(told[1..], [(2, Told::No(Code::NoLeader))]);
}

// rule 28
#[test]
fn a_scan_is_merged_over_all_shards_page_by_page_in_both_directions() {
    let mut cluster = Cluster::with_leaders();
    let mut keys: Vec<Vec<u8>> = (0..SHARDS).flat_map(|shard| (0..7).map(move |n| key_of(shard, n))).collect();
    for (request, key) in (0..).zip(&keys) {
        cluster.put(2, request, key);
    }
    cluster.settle();
    assert_eq!(cluster.told(2).len(), keys.len());
    keys.sort();
    for reverse in [false, true] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), Vec::new(), 0);
        loop {
            let scan = Scan { prefix: b"key", cursor: &cursor, limit: 4, reverse, ..Scan::default() };
            cluster.ask(3, 1, Operation::Scan(scan));
            cluster.settle();
            let told = cluster.told(3);
            let [(1, Told::Page(page, more))] = &told[..] else { panic!("{told:?}") };
            assert!(!page.is_empty() && page.len() <= 4);
            seen.extend(page.iter().cloned());
            cursor = page.last().unwrap().clone();
            pages += 1;
            if !more {
                break;
            }
        }
        if reverse {
            seen.reverse();
        }
        assert_eq!(seen, keys);
        assert!(pages >= 6, "{pages}");
    }
}

// rule 28
#[test]
fn a_scan_fails_as_a_whole_and_once_if_a_shard_cannot_answer() {
    let mut cluster = Cluster::with_leaders();
    for (from, to) in [(3, 1), (3, 2), (1, 3), (2, 3)] {
        cluster.link_down(from, to);
    }
    cluster.ask(3, 1, Operation::Scan(Scan::default()));
    cluster.run(Limits::default().request_timeout + Duration::from_millis(200));
    assert_eq!(cluster.told(3), [(1, Told::No(Code::NoLeader))], "as a single key of any of them");
}

#[test]
fn too_many_scans_wait_for_each_other_and_all_are_answered() {
    let mut cluster = Cluster::with_leaders();
    for request in 0..100 {
        cluster.ask(1, request, Operation::Scan(Scan::default()));
    }
    cluster.run(Duration::from_millis(50));
    assert_eq!(cluster.told(1).len(), 100);
}

#[test]
fn a_core_that_is_asked_for_its_status_tells_no_more_than_that() {
    let mut cluster = Cluster::with_leaders();
    let (router, mail) = &mut cluster.nodes[0];
    for wanted in [Wanted::Status, Wanted::Figures] {
        router.core_message(CoreMessage::StatusAsked { core: CoreId(1), job: 7, wanted }, mail);
        let Some(CoreMessage::StatusPart { job: 7, status }) = mail.answers.pop() else { panic!("it answers") };
        assert_eq!((status.shards.len(), status.counters), (SHARDS.into(), router.counters.clone()));
        assert_eq!(status.figures.is_some(), wanted == Wanted::Figures);
    }
}

#[test]
fn all_who_ask_for_the_metrics_while_they_are_gathered_are_answered_together() {
    let mut cluster = Cluster::with(|config| config.cores = 2);
    let now = cluster.now;
    let (router, mail) = &mut cluster.nodes[0];
    let taken = Taken { at: now, face: Face::Rest, task: Task::Metrics };
    let mut names = 0..;
    let mut ask = |router: &mut Router<MemoryLog>, count| {
        for exchange in names.by_ref().take(count).map(ExchangeId) {
            let origin = Origin::Exchange { exchange, charge: Charge::Other(0), taken };
            router.desk.statuses.wait(ReplyTo { core: CoreId(0), origin });
        }
    };
    // Who asks while others' are gathered may know of what has happened since.
    for (before, later, answered) in [(100, 50, 0..100), (0, 0, 100..150)] {
        ask(router, before);
        router.finish_turn(now, mail).unwrap();
        let asked = std::mem::take(&mut mail.answers);
        let [CoreMessage::StatusAsked { job, wanted: Wanted::Figures, .. }] = asked[..] else { panic!("{asked:?}") };
        ask(router, later);
        router.finish_turn(now, mail).unwrap();
        assert_eq!((mail.answers.len(), mail.figures.len()), (0, 0));
        let status = Box::new(router.own_status(Wanted::Figures));
        router.core_message(CoreMessage::StatusPart { job, status }, mail);
        let told = std::mem::take(&mut mail.figures);
        assert_eq!(told.iter().map(|(name, _)| name.0).collect::<Vec<_>>(), answered.collect::<Vec<_>>());
        assert!(told.iter().all(|(_, figures)| Arc::ptr_eq(figures, &told[0].1)));
    }
    assert!(router.desk.statuses.is_empty());
    assert_eq!(router.counters.scrapes_gathered, 2);
}

#[test]
fn whoever_waits_while_others_metrics_are_gathered_has_as_much_time_as_they_had() {
    let mut cluster = Cluster::with(|config| config.cores = 2);
    let (start, timeout) = (cluster.now, Limits::default().request_timeout);
    let (router, mail) = &mut cluster.nodes[0];
    let taken = Taken { at: start, face: Face::Rest, task: Task::Metrics };
    for exchange in [1, 2].map(ExchangeId) {
        let origin = Origin::Exchange { exchange, charge: Charge::Other(0), taken };
        router.desk.statuses.wait(ReplyTo { core: CoreId(0), origin });
        router.finish_turn(start, mail).unwrap();
    }
    // The other core hangs, until the first has waited too long.
    let late = start + timeout;
    for now in [late, late + timeout / 2] {
        router.finish_turn(now, mail).unwrap();
    }
    let asked = std::mem::take(&mut mail.answers);
    let [_, CoreMessage::StatusAsked { job, .. }] = asked[..] else { panic!("{asked:?}") };
    let status = Box::new(router.own_status(Wanted::Figures));
    router.core_message(CoreMessage::StatusPart { job, status }, mail);
    assert_eq!(mail.figures.iter().map(|(name, _)| name.0).collect::<Vec<_>>(), [2]);
}

impl Cluster {
    /// Node 3 comes back with an empty disk. It reaches node 2 only, which is admitted and knows of no other node 3.
    fn lose_disk_of_3(&mut self) {
        let dir = self.dirs.path().join("3 again");
        self.nodes[2] = (router(config(NodeId(3), &dir), self.now), Mail::default());
        self.nodes[2].0.node.note_peer(NodeId(2), FEATURE_ADMITTED);
        self.nodes[0].1.links.clear();
        for (from, to) in [(2, 3), (3, 2)] {
            self.link_up(from, to);
        }
    }

    fn cut(&mut self, ways: &[(u64, u64)]) {
        for (one, other) in ways {
            self.link_down(*one, *other);
            self.link_down(*other, *one);
        }
    }

    fn welcome_of_3(&self, by: u64) {
        self.nodes[2].0.node.admission.note_welcome(NodeId(by));
    }
}

/// Node 1, which has an entry that node 2 lacks, is away; node 3 had acknowledged that entry and then lost its disk.
/// Nodes 2 and 3 are a majority that has forgotten it, and must not elect a leader.
// museum 34, rule 22
#[test]
fn a_node_that_is_not_admitted_gives_no_vote_to_one_that_is() {
    let mut cluster = Cluster::with_leaders();
    cluster.cut(&[(1, 2), (2, 3)]);
    cluster.lose_disk_of_3();
    // Welcomes will do to follow, but not to vote.
    [1, 2].iter().for_each(|by| cluster.welcome_of_3(*by));
    cluster.run(Duration::from_secs(5));
    // Shard 1 was node 2's before, so that no vote is needed for it.
    let elected = |router: &Router<MemoryLog>| router.shards().iter().any(|shard| shard.leads() && shard.id().0 != 1);
    assert!(!cluster.nodes[1..].iter().any(|(router, _)| elected(router)));
    assert!(cluster.nodes[2].0.counters.votes_withheld > 0);
    cluster.nodes[2].0.node.admit().unwrap();
    cluster.run_until(|cluster| cluster.nodes[1].0.shards().iter().all(Shard::leads));
}

/// Node 2 was elected by node 1 and never met node 3. Cut off from node 1 it leads on for a while; meanwhile nodes 1 and
/// 3 have another leader, commit a write, and node 3 loses its disk and meets node 2. If it followed, the two would
/// commit another write in the place of that one.
// museum 34, rule 22
#[test]
fn a_node_without_a_past_follows_only_after_most_others_have_welcomed_it() {
    let mut cluster = Cluster::new();
    cluster.cut(&[(2, 3)]);
    let leads = |cluster: &Cluster, at: usize| cluster.nodes[at].0.shards()[1].leads();
    cluster.run_until(|cluster| leads(cluster, 1) && cluster.nodes[1].0.shards()[1].is_ready());
    cluster.cut(&[(1, 2)]);
    cluster.run_until(|cluster| leads(cluster, 0) || leads(cluster, 2));
    cluster.put(1, 1, &key_of(1, 0));
    cluster.settle();
    assert_eq!(cluster.told(1), [(1, Told::Done)]);

    cluster.lose_disk_of_3();
    cluster.welcome_of_3(2);
    assert!(leads(&cluster, 1), "it has not noticed yet");
    let before = cluster.nodes[1].0.shards()[1].raft().commit();
    cluster.put(2, 2, &key_of(1, 0));
    cluster.run(Duration::from_millis(100));
    assert_eq!((cluster.told(2), cluster.nodes[1].0.shards()[1].raft().commit()), (vec![], before));
    assert!(cluster.nodes[2].0.counters.leaders_unheeded > 0);
    assert!(leads(&cluster, 1), "and would commit if node 3 followed");

    cluster.welcome_of_3(1);
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.told(2), [(2, Told::Done)], "what only the lie of node 1 makes possible");
}
