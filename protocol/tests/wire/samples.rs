//! One message of every variant: what the golden files hold.

use std::time::Duration;

use bytes::Bytes;
use raftkv_protocol::client::{
    Answer, Batch, BatchBuffer, BatchOperation, Change, Code, Condition, Consistency, Existed, HoldReason, Item,
    LogHold, Operation, Page, Refusal, Reply, Request, Role, Scan, ShardSnapshot, ShardStatus, SlotTable,
    SnapshotOutcome, Status,
};
use raftkv_protocol::health::{DiskHealth, Divergence, Verdict};
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloReply, HelloRole};
use raftkv_protocol::peer::{
    AppendResult, Body, Checkpoints, ChunkResult, Forward, ForwardId, ForwardReply, Health, Message, PeerFrame,
    Promise, ReadContext, ShardCheckpoint, SnapshotChunk, SnapshotMeta, SnapshotRead,
};
use raftkv_protocol::types::{
    ClusterId, CoreId, Entry, EntryId, EntryKind, Incarnation, Index, NodeId, RequestId, ShardId, SnapshotId, Term,
};

use crate::message::AnyMessage;

/// Every sample with the name of its golden file.
pub fn all() -> Vec<(String, AnyMessage<'static>)> {
    [hellos(), hello_replies(), requests(), answers(), refusals(), raft(), forwards(), news(), snapshots()].concat()
}

type Samples = Vec<(String, AnyMessage<'static>)>;

/// The cluster of all samples: it is also the test vector of the specification.
pub fn members() -> Vec<(NodeId, String)> {
    [(1, "10.0.0.1:7001"), (2, "10.0.0.2:7001"), (3, "10.0.0.3:7001")]
        .map(|(id, address)| (NodeId(id), address.to_owned()))
        .to_vec()
}

pub fn cluster() -> ClusterId {
    ClusterId::derive("raftkv", &members(), 12)
}

const INCARNATION: Incarnation = Incarnation(0x1122_3344_5566_7788);
const SNAPSHOT: SnapshotId = SnapshotId(0x0a0b_0c0d_0e0f_1011);

fn named<'a, const N: usize>(samples: [(&str, AnyMessage<'a>); N]) -> Vec<(String, AnyMessage<'a>)> {
    samples.map(|(name, message)| (name.to_owned(), message)).to_vec()
}

fn hellos() -> Samples {
    let hello = |cluster, role, auth| {
        AnyMessage::Hello(Hello { version_min: 1, version_max: 1, cluster, role, features: 0, auth })
    };
    let (node, incarnation, core) = (NodeId(2), INCARNATION, CoreId(1));
    let peer = HelloRole::Peer { node, incarnation, core };
    let snapshots = HelloRole::Snapshots { node, incarnation, core };
    let auth = Auth { method: 7, nonce: b"nonce", mac: b"mac" };
    named([
        ("hello_client", hello(ClusterId(0), HelloRole::Client { home: None }, Auth::default())),
        ("hello_client_home", hello(cluster(), HelloRole::Client { home: Some(ShardId(5)) }, Auth::default())),
        ("hello_client_auth", hello(cluster(), HelloRole::Client { home: None }, auth)),
        ("hello_peer", hello(cluster(), peer, Auth::default())),
        ("hello_snapshots", hello(cluster(), snapshots, Auth::default())),
    ])
}

fn hello_replies() -> Samples {
    let welcome = HelloReply::Welcome {
        version: 1,
        cluster: cluster(),
        node: NodeId(1),
        incarnation: INCARNATION,
        shards: 12,
        cores: 2,
        features: 0,
        http: "10.0.0.1:8001",
        auth: Auth::default(),
    };
    let mut samples = named([("welcome", AnyMessage::HelloReply(welcome))]);
    for reason in (0..=7).map(HelloRefusal::from_u8) {
        let refused = HelloReply::Refused { reason, message: "no" };
        samples.push((format!("hello_refused_{reason}"), AnyMessage::HelloReply(refused)));
    }
    samples
}

fn batch(operations: &[BatchOperation<'_>]) -> Batch<'static> {
    let buffer: &'static mut BatchBuffer = Box::leak(Box::default());
    operations.iter().for_each(|operation| buffer.push(operation).expect("short keys"));
    buffer.as_batch()
}

fn put_and_delete() -> Batch<'static> {
    let (city, key) = (b"{place}city", b"{place}country");
    batch(&[
        BatchOperation { key: city, condition: Condition::Version(Index(7)), change: Change::Put(b"Bern") },
        BatchOperation { key, condition: Condition::None, change: Change::Delete },
    ])
}

fn requests() -> Samples {
    let request = |operation| AnyMessage::Request(Request { id: RequestId(1), operation });
    let put = |condition| request(Operation::Put { key: b"city", value: b"Bern", condition });
    let delete = |condition| request(Operation::Delete { key: b"city", condition });
    let get = |key: &'static [u8], consistency| request(Operation::Get { key, consistency });
    let version = Condition::Version(Index(7));
    let full_scan = Scan {
        prefix: b"c",
        start: b"ca",
        end: b"cz",
        cursor: b"city",
        limit: 10,
        reverse: true,
        consistency: Consistency::Stale,
        shard: Some(ShardId(3)),
    };
    named([
        ("put", put(Condition::None)),
        ("put_if_version", put(version)),
        ("put_if_exists", put(Condition::Exists)),
        ("put_if_absent", put(Condition::Absent)),
        ("put_empty_value", request(Operation::Put { key: b"k", value: b"", condition: Condition::None })),
        ("delete", delete(Condition::None)),
        ("delete_if_version", delete(version)),
        ("delete_if_exists", delete(Condition::Exists)),
        ("delete_if_absent", delete(Condition::Absent)),
        ("batch", request(Operation::Batch(put_and_delete()))),
        ("batch_empty", request(Operation::Batch(batch(&[])))),
        ("get", get(b"city", Consistency::Linearizable)),
        ("get_lease", get(b"city", Consistency::Lease)),
        ("get_stale", get(b"\x00\xff", Consistency::Stale)),
        ("scan", request(Operation::Scan(Scan { prefix: b"c", limit: 2, ..Scan::default() }))),
        ("scan_everything_set", request(Operation::Scan(full_scan))),
        ("slots", request(Operation::Slots)),
        ("status", request(Operation::Status)),
        ("ping", request(Operation::Ping)),
        ("snapshot", request(Operation::Snapshot { wait_ms: 60_000 })),
    ])
}

fn answers() -> Samples {
    let reply = |at, answer| AnyMessage::Reply(Reply { id: RequestId(1), at, result: Ok(answer) });
    let at = EntryId::new(7, 3);
    let items = vec![
        Item { key: b"city", version: Index(7), value: b"Bern" },
        Item { key: b"country", version: Index(4), value: b"" },
    ];
    let table = SlotTable {
        cluster: cluster(),
        nodes: members(),
        leaders: vec![(Some(NodeId(1)), Term(3)), (Some(NodeId(2)), Term(1)), (None, Term(5))],
    };
    named([
        ("put_reply", reply(at, Answer::Put)),
        ("delete_reply", reply(at, Answer::Deleted { existed: true })),
        ("delete_reply_absent", reply(at, Answer::Deleted { existed: false })),
        ("batch_reply", reply(at, Answer::Batch { existed: Existed(0b10) })),
        ("get_reply", reply(at, Answer::Value { version: Index(7), value: b"Bern" })),
        ("scan_reply", reply(EntryId::ZERO, Answer::Page(Page { items, more: true }))),
        ("scan_reply_empty", reply(EntryId::ZERO, Answer::Page(Page::default()))),
        ("slots_reply", reply(EntryId::ZERO, Answer::Slots(table))),
        ("status_reply", reply(EntryId::ZERO, Answer::Status(Box::new(status())))),
        ("status_reply_repairing", reply(EntryId::ZERO, Answer::Status(Box::new(repairing_status())))),
        ("status_reply_gray", reply(EntryId::ZERO, Answer::Status(Box::new(gray_status())))),
        ("status_reply_held", reply(EntryId::ZERO, Answer::Status(Box::new(held_status())))),
        ("ping_reply", reply(EntryId::ZERO, Answer::Pong)),
        ("snapshot_reply", reply(EntryId::ZERO, Answer::Snapshots(snapshot_outcomes()))),
    ])
}

fn snapshot_outcomes() -> Vec<ShardSnapshot> {
    let took = Duration::from_micros(0x0001_86a0);
    let outcomes = [
        SnapshotOutcome::Taken { at: EntryId::new(7, 3), bytes: 0x0102_0304, took },
        SnapshotOutcome::Unchanged { at: EntryId::new(2, 1), bytes: 0x0506 },
        SnapshotOutcome::Failed("no space".to_owned()),
    ];
    (0..).zip(outcomes).map(|(shard, outcome)| ShardSnapshot { shard: ShardId(shard), outcome }).collect()
}

fn status() -> Status {
    let shard = |(number, role)| ShardStatus {
        id: ShardId(number),
        role,
        term: Term(3),
        leader: (role != Role::Candidate).then_some(NodeId(1)),
        commit: Index(7),
        applied: Index(6),
        persisted: Index(8),
        last: EntryId::new(9, 3),
        snapshot: EntryId::new(2, 1),
        keys: 2,
        state_hash: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        divergence: None,
        is_repairing: false,
    };
    let roles = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader, Role::Learner];
    Status {
        cluster: cluster(),
        node: NodeId(1),
        incarnation: INCARNATION,
        version: "0.1.0".to_owned(),
        nodes: members(),
        shards: (0..).zip(roles).map(shard).collect(),
        counters: vec![("connections".to_owned(), 3), ("syncs".to_owned(), 1000)],
        disk: DiskHealth::Healthy,
        sync_ms: 0,
        holds: Vec::new(),
    }
}

/// A node that repairs two of its replicas, one of which does not serve.
fn repairing_status() -> Status {
    let mut status = Status { disk: DiskHealth::Recovering, sync_ms: 2, ..status() };
    status.shards.iter_mut().take(2).for_each(|shard| shard.is_repairing = true);
    let own = status.shards[1].state_hash;
    let verdict = Verdict::Diverged;
    status.shards[1].divergence =
        Some(Divergence { verdict, agreed: Index(1024), differs: Index(2048), own, other: !own });
    status
}

/// A node whose disk hangs, and two of whose replicas do not serve.
fn gray_status() -> Status {
    let mut status = Status { disk: DiskHealth::Slow, sync_ms: 1234, ..status() };
    for (shard, verdict) in status.shards.iter_mut().zip([Verdict::Diverged, Verdict::Undecided]) {
        let own = shard.state_hash;
        shard.divergence = Some(Divergence { verdict, agreed: Index(1024), differs: Index(2048), own, other: !own });
    }
    status
}

/// A node one of whose logs is too long, for each of the reasons that there are.
fn held_status() -> Status {
    let reasons = (0..6).map(HoldReason::from_u8);
    let hold = |(shard, reason)| LogHold {
        core: CoreId(1),
        log_bytes: 0x0001_4000_0000,
        log_bytes_max: 0x0001_0000_0000,
        shard: ShardId(shard),
        bytes: 0x0400_0000,
        reason,
        message: if reason == HoldReason::Failed { "no space".to_owned() } else { String::new() },
    };
    Status { holds: (0..).zip(reasons).map(hold).collect(), ..status() }
}

fn refusals() -> Samples {
    let refusal = |code: Code| {
        let leader = (code == Code::NotLeader).then_some(NodeId(2));
        let result = Err(Refusal { code, leader, message: "no such key" });
        (format!("refusal_{code}"), AnyMessage::Reply(Reply { id: RequestId(1), at: EntryId::new(7, 3), result }))
    };
    Code::all().map(refusal).collect()
}

fn raft() -> Samples {
    let message = |body| {
        let (shard, from, to, term) = (ShardId(5), NodeId(1), NodeId(2), Term(3));
        AnyMessage::Peer(PeerFrame::Message(Message { shard, from, to, term, body }))
    };
    let append =
        |entries| message(Body::Append { link: 0xa1b2_c3d4, prev: EntryId::new(7, 2), commit: Index(6), entries });
    let entry = |index, term, kind, body| Entry { id: EntryId::new(index, term), kind, body: Bytes::from_static(body) };
    let entries = vec![
        entry(8, 2, EntryKind::Command, b"command"),
        entry(9, 3, EntryKind::Noop, b""),
        entry(10, 3, EntryKind::Configuration, b"voters"),
    ];
    let append_reply = |result| message(Body::AppendReply { link: 0xa1b2_c3d4, result });
    let context = ReadContext { incarnation: INCARNATION, term: Term(3), counter: 42 };
    let promise = Promise { sent_us: 0x0102_0304, lasts_us: 500_000 };
    let last = EntryId::new(9, 2);
    let meta = SnapshotMeta { id: SNAPSHOT, at: EntryId::new(7, 2), bytes: 0x0102_0304 };
    named([
        ("pre_vote", message(Body::PreVote { last })),
        ("pre_vote_reply", message(Body::PreVoteReply { granted: true })),
        ("pre_vote_reply_no", message(Body::PreVoteReply { granted: false })),
        ("vote", message(Body::Vote { last, transfer: false })),
        ("vote_transfer", message(Body::Vote { last, transfer: true })),
        ("vote_reply", message(Body::VoteReply { granted: true })),
        ("vote_reply_no", message(Body::VoteReply { granted: false })),
        ("append", append(entries)),
        ("append_probe", append(Vec::new())),
        ("append_reply", append_reply(AppendResult::Accepted { matched: Index(10) })),
        ("append_reply_rejected", append_reply(AppendResult::Rejected { prev: Index(7), hint: EntryId::new(5, 1) })),
        ("heartbeat", message(Body::Heartbeat { commit: Index(6), context, sent_us: 0 })),
        ("heartbeat_lease", message(Body::Heartbeat { commit: Index(6), context, sent_us: 0x0102_0304 })),
        ("heartbeat_reply", message(Body::HeartbeatReply { context, promise: Promise::default() })),
        ("heartbeat_reply_promise", message(Body::HeartbeatReply { context, promise })),
        ("timeout_now", message(Body::TimeoutNow)),
        ("snapshot_offer", message(Body::Snapshot { link: 0xa1b2_c3d4, meta })),
    ])
}

fn forwards() -> Samples {
    let id = ForwardId { core: CoreId(1), serial: 99 };
    let forward = |operation| {
        AnyMessage::Peer(PeerFrame::Forward(Forward { id, shard: ShardId(5), operation, timeout_ms: 4750 }))
    };
    let reply = |result| {
        let reply = Reply { id: RequestId(0), at: EntryId::new(7, 3), result };
        AnyMessage::Peer(PeerFrame::ForwardReply(ForwardReply { id, reply }))
    };
    let scan = Scan { prefix: b"c", shard: Some(ShardId(5)), ..Scan::default() };
    let not_leader = Refusal { code: Code::NotLeader, leader: Some(NodeId(3)), message: "node 3 leads shard 5" };
    let (key, consistency, condition) = (b"city", Consistency::Linearizable, Condition::None);
    named([
        ("forward_put", forward(Operation::Put { key, value: b"Bern", condition })),
        ("forward_delete", forward(Operation::Delete { key, condition })),
        ("forward_batch", forward(Operation::Batch(put_and_delete()))),
        ("forward_get", forward(Operation::Get { key, consistency })),
        ("forward_scan", forward(Operation::Scan(scan))),
        ("forward_reply_put", reply(Ok(Answer::Put))),
        ("forward_reply_get", reply(Ok(Answer::Value { version: Index(7), value: b"Bern" }))),
        ("forward_reply_refusal", reply(Err(not_leader))),
    ])
}

fn snapshots() -> Samples {
    let (shard, id) = (ShardId(5), SNAPSHOT);
    let read = SnapshotRead { shard, id, offset: 0x0004_0000, length_max: 0x0004_0000 };
    let chunk =
        |offset, result| AnyMessage::Peer(PeerFrame::SnapshotChunk(SnapshotChunk { shard, id, offset, result }));
    let total = 0x0004_0005;
    named([
        ("snapshot_read", AnyMessage::Peer(PeerFrame::SnapshotRead(read))),
        ("snapshot_chunk", chunk(0x0004_0000, ChunkResult::Ok { total, bytes: b"piece" })),
        ("snapshot_chunk_end", chunk(total, ChunkResult::Ok { total, bytes: b"" })),
        ("snapshot_chunk_gone", chunk(0x0004_0000, ChunkResult::Gone)),
    ])
}

fn news() -> Samples {
    let health = |disk| AnyMessage::Peer(PeerFrame::Health(Health { disk }));
    let checkpoint = |shard, index, hash| ShardCheckpoint { shard: ShardId(shard), index: Index(index), hash };
    let checkpoints = vec![checkpoint(5, 1024, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), checkpoint(8, 3072, 1)];
    let told = |checkpoints| AnyMessage::Peer(PeerFrame::Checkpoints(Checkpoints { format: 1, checkpoints }));
    named([
        ("health_healthy", health(DiskHealth::Healthy)),
        ("health_recovering", health(DiskHealth::Recovering)),
        ("health_slow", health(DiskHealth::Slow)),
        ("health_full", health(DiskHealth::Full)),
        ("checkpoints", told(checkpoints)),
        ("checkpoints_none", told(Vec::new())),
    ])
}
