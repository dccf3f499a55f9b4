//! Random messages of every kind.
//!
//! Messages borrow their bytes, so the bytes are leaked: a few hundred KiB in a test process.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use raftkv_protocol::client::{
    Answer, Batch, BatchBuffer, BatchOperation, Change, Code, Condition, Consistency, Existed, HoldReason, Item,
    LogHold, Operation, Page, Refusal, Reply, Request, Role, Scan, ShardSnapshot, ShardStatus, SlotTable,
    SnapshotOutcome, Status,
};
use raftkv_protocol::health::{DiskHealth, Divergence, Verdict};
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloReply, HelloRole};
use raftkv_protocol::peer::{
    AppendResult, Body, Checkpoints, ChunkResult, Forward, ForwardId, ForwardReply, Health, Message, PeerFrame,
    Promise, ReadContext, SNAPSHOT_CHUNK_MAX, ShardCheckpoint, SnapshotChunk, SnapshotMeta, SnapshotRead,
};
use raftkv_protocol::types::{
    ClusterId, CoreId, Entry, EntryId, EntryKind, Incarnation, Index, NodeId, RequestId, ShardId, SnapshotId, Term,
};

use crate::message::AnyMessage;

pub fn message() -> impl Strategy<Value = AnyMessage<'static>> {
    prop_oneof![
        hello().prop_map(AnyMessage::Hello),
        hello_reply().prop_map(AnyMessage::HelloReply),
        (any::<u64>(), operation())
            .prop_map(|(id, operation)| AnyMessage::Request(Request { id: RequestId(id), operation })),
        (any::<u64>(), reply()).prop_map(|(id, reply)| AnyMessage::Reply(Reply { id: RequestId(id), ..reply })),
        raft().prop_map(|message| AnyMessage::Peer(PeerFrame::Message(message))),
        forward().prop_map(|forward| AnyMessage::Peer(PeerFrame::Forward(forward))),
        (forward_id(), reply())
            .prop_map(|(id, reply)| AnyMessage::Peer(PeerFrame::ForwardReply(ForwardReply { id, reply }))),
        snapshot_read().prop_map(|read| AnyMessage::Peer(PeerFrame::SnapshotRead(read))),
        snapshot_chunk().prop_map(|chunk| AnyMessage::Peer(PeerFrame::SnapshotChunk(chunk))),
        disk_health().prop_map(|disk| AnyMessage::Peer(PeerFrame::Health(Health { disk }))),
        checkpoints().prop_map(|checkpoints| AnyMessage::Peer(PeerFrame::Checkpoints(checkpoints))),
    ]
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| &*bytes.leak())
}

fn text() -> impl Strategy<Value = &'static str> {
    ".{0,20}".prop_map(|text: String| &*text.leak())
}

fn node() -> impl Strategy<Value = NodeId> {
    (1..=u64::MAX).prop_map(NodeId)
}

fn nodes() -> impl Strategy<Value = Vec<(NodeId, String)>> {
    vec((node(), text().prop_map(str::to_owned)), 0..5)
}

/// Below 16,384, as all shards are.
fn shard() -> impl Strategy<Value = ShardId> {
    (0..16_384_u16).prop_map(ShardId)
}

fn index() -> impl Strategy<Value = Index> {
    any::<u64>().prop_map(Index)
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    (any::<u64>(), any::<u64>()).prop_map(|(index, term)| EntryId::new(index, term))
}

fn cluster() -> impl Strategy<Value = ClusterId> {
    any::<u128>().prop_map(ClusterId)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation)
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    (any::<u8>(), bytes(), bytes()).prop_map(|(method, nonce, mac)| Auth { method, nonce, mac })
}

fn hello() -> impl Strategy<Value = Hello<'static>> {
    let role = prop_oneof![
        option::of(shard()).prop_map(|home| HelloRole::Client { home }),
        (node(), incarnation(), any::<u16>()).prop_map(|(node, incarnation, core)| HelloRole::Peer {
            node,
            incarnation,
            core: CoreId(core)
        }),
        (node(), incarnation(), any::<u16>()).prop_map(|(node, incarnation, core)| HelloRole::Snapshots {
            node,
            incarnation,
            core: CoreId(core)
        }),
    ];
    (any::<u16>(), any::<u16>(), cluster(), role, any::<u64>(), auth()).prop_map(
        |(version_min, version_max, cluster, role, features, auth)| Hello {
            version_min,
            version_max,
            cluster,
            role,
            features,
            auth,
        },
    )
}

fn hello_reply() -> impl Strategy<Value = HelloReply<'static>> {
    let numbers = (any::<u16>(), any::<u16>(), any::<u16>(), any::<u64>());
    prop_oneof![
        (numbers, cluster(), node(), incarnation(), text(), auth()).prop_map(
            |((version, shards, cores, features), cluster, node, incarnation, http, auth)| HelloReply::Welcome {
                version,
                cluster,
                node,
                incarnation,
                shards,
                cores,
                features,
                http,
                auth,
            }
        ),
        (0..=7_u8, text())
            .prop_map(|(reason, message)| HelloReply::Refused { reason: HelloRefusal::from_u8(reason), message }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::None),
        index().prop_map(Condition::Version),
        Just(Condition::Exists),
        Just(Condition::Absent),
    ]
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![Just(Consistency::Linearizable), Just(Consistency::Lease), Just(Consistency::Stale)]
}

/// What may be forwarded: what concerns one shard.
fn shard_operation() -> impl Strategy<Value = Operation<'static>> {
    let keys = (bytes(), bytes(), bytes(), bytes());
    prop_oneof![
        (bytes(), bytes(), condition()).prop_map(|(key, value, condition)| Operation::Put { key, value, condition }),
        (bytes(), condition()).prop_map(|(key, condition)| Operation::Delete { key, condition }),
        batch().prop_map(Operation::Batch),
        (bytes(), consistency()).prop_map(|(key, consistency)| Operation::Get { key, consistency }),
        (keys, any::<u32>(), any::<bool>(), consistency(), option::of(shard())).prop_map(
            |((prefix, start, end, cursor), limit, reverse, consistency, shard)| Operation::Scan(Scan {
                prefix,
                start,
                end,
                cursor,
                limit,
                reverse,
                consistency,
                shard,
            })
        ),
    ]
}

fn batch() -> impl Strategy<Value = Batch<'static>> {
    let change = prop_oneof![Just(Change::Delete), bytes().prop_map(Change::Put)];
    let operation =
        (bytes(), condition(), change).prop_map(|(key, condition, change)| BatchOperation { key, condition, change });
    vec(operation, 0..6).prop_map(|operations| {
        let buffer: &'static mut BatchBuffer = Box::leak(Box::default());
        operations.iter().for_each(|operation| buffer.push(operation).expect("short keys"));
        let batch = buffer.as_batch();
        assert!(batch.operations().eq(operations), "what goes in comes out");
        batch
    })
}

fn operation() -> impl Strategy<Value = Operation<'static>> {
    let snapshot = any::<u32>().prop_map(|wait_ms| Operation::Snapshot { wait_ms });
    let whole_node = prop_oneof![Just(Operation::Slots), Just(Operation::Status), Just(Operation::Ping), snapshot];
    prop_oneof![4 => shard_operation(), 4 => whole_node]
}

/// With the request id 0, as in the answer to a forwarded request.
fn reply() -> impl Strategy<Value = Reply<'static>> {
    let code = (1..=13_u8).prop_map(|number| Code::from_u8(number).expect("the codes are 1 to 13"));
    let refusal =
        (code, option::of(node()), text()).prop_map(|(code, leader, message)| Refusal { code, leader, message });
    let result = prop_oneof![3 => answer().prop_map(Ok), 1 => refusal.prop_map(Err)];
    (entry_id(), result).prop_map(|(at, result)| Reply { id: RequestId(0), at, result })
}

fn answer() -> impl Strategy<Value = Answer<'static>> {
    let item = (bytes(), index(), bytes()).prop_map(|(key, version, value)| Item { key, version, value });
    prop_oneof![
        Just(Answer::Put),
        any::<bool>().prop_map(|existed| Answer::Deleted { existed }),
        any::<u128>().prop_map(|existed| Answer::Batch { existed: Existed(existed) }),
        (index(), bytes()).prop_map(|(version, value)| Answer::Value { version, value }),
        (vec(item, 0..6), any::<bool>()).prop_map(|(items, more)| Answer::Page(Page { items, more })),
        slot_table().prop_map(Answer::Slots),
        status().prop_map(|status| Answer::Status(Box::new(status))),
        Just(Answer::Pong),
        vec(shard_snapshot(), 0..4).prop_map(Answer::Snapshots),
    ]
}

fn shard_snapshot() -> impl Strategy<Value = ShardSnapshot> {
    let taken = (entry_id(), any::<u64>(), any::<u64>()).prop_map(|(at, bytes, took)| SnapshotOutcome::Taken {
        at,
        bytes,
        took: Duration::from_micros(took),
    });
    let outcome = prop_oneof![
        taken,
        (entry_id(), any::<u64>()).prop_map(|(at, bytes)| SnapshotOutcome::Unchanged { at, bytes }),
        text().prop_map(|words| SnapshotOutcome::Failed(words.to_owned())),
    ];
    (shard(), outcome).prop_map(|(shard, outcome)| ShardSnapshot { shard, outcome })
}

fn slot_table() -> impl Strategy<Value = SlotTable> {
    let leader = (option::of(node()), any::<u64>().prop_map(Term));
    (cluster(), nodes(), vec(leader, 0..6)).prop_map(|(cluster, nodes, leaders)| SlotTable { cluster, nodes, leaders })
}

fn status() -> impl Strategy<Value = Status> {
    let counters = vec((text().prop_map(str::to_owned), any::<u64>()), 0..4);
    let disk = (disk_health(), any::<u64>(), vec(hold(), 0..3));
    (cluster(), node(), incarnation(), text(), nodes(), vec(shard_status(), 0..4), counters, disk).prop_map(
        |(cluster, node, incarnation, version, nodes, shards, counters, (disk, sync_ms, holds))| Status {
            cluster,
            node,
            incarnation,
            version: version.to_owned(),
            nodes,
            shards,
            counters,
            disk,
            sync_ms,
            holds,
        },
    )
}

fn hold() -> impl Strategy<Value = LogHold> {
    let bytes = (any::<u64>(), any::<u64>(), any::<u64>());
    (any::<u16>().prop_map(CoreId), bytes, shard(), 0..6_u8, text()).prop_map(
        |(core, (log_bytes, log_bytes_max, bytes), shard, reason, message)| LogHold {
            core,
            log_bytes,
            log_bytes_max,
            shard,
            bytes,
            reason: HoldReason::from_u8(reason),
            message: message.to_owned(),
        },
    )
}

fn shard_status() -> impl Strategy<Value = ShardStatus> {
    let role = prop_oneof![
        Just(Role::Follower),
        Just(Role::PreCandidate),
        Just(Role::Candidate),
        Just(Role::Leader),
        Just(Role::Learner)
    ];
    let indexes = (index(), index(), index());
    let state = (any::<u64>(), any::<u128>(), option::of(divergence()), any::<bool>());
    (shard(), role, any::<u64>(), option::of(node()), indexes, entry_id(), entry_id(), state).prop_map(
        |(
            id,
            role,
            term,
            leader,
            (commit, applied, persisted),
            last,
            snapshot,
            (keys, state_hash, divergence, is_repairing),
        )| {
            let term = Term(term);
            ShardStatus {
                id,
                role,
                term,
                leader,
                commit,
                applied,
                persisted,
                last,
                snapshot,
                keys,
                state_hash,
                divergence,
                is_repairing,
            }
        },
    )
}

fn disk_health() -> impl Strategy<Value = DiskHealth> {
    (0..4_u8).prop_map(DiskHealth::from_u8)
}

fn divergence() -> impl Strategy<Value = Divergence> {
    let verdict = prop_oneof![Just(Verdict::Diverged), Just(Verdict::Undecided), Just(Verdict::Corrupt)];
    (verdict, index(), index(), any::<u128>(), any::<u128>())
        .prop_map(|(verdict, agreed, differs, own, other)| Divergence { verdict, agreed, differs, own, other })
}

fn checkpoints() -> impl Strategy<Value = Checkpoints> {
    let checkpoint =
        (shard(), index(), any::<u128>()).prop_map(|(shard, index, hash)| ShardCheckpoint { shard, index, hash });
    (any::<u16>(), vec(checkpoint, 0..6)).prop_map(|(format, checkpoints)| Checkpoints { format, checkpoints })
}

fn raft() -> impl Strategy<Value = Message> {
    (shard(), node(), node(), any::<u64>(), body()).prop_map(|(shard, from, to, term, body)| Message {
        shard,
        from,
        to,
        term: Term(term),
        body,
    })
}

fn body() -> impl Strategy<Value = Body> {
    let append_result = prop_oneof![
        index().prop_map(|matched| AppendResult::Accepted { matched }),
        (index(), entry_id()).prop_map(|(prev, hint)| AppendResult::Rejected { prev, hint }),
    ];
    prop_oneof![
        entry_id().prop_map(|last| Body::PreVote { last }),
        any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
        (entry_id(), any::<bool>()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
        append(),
        (any::<u32>(), append_result).prop_map(|(link, result)| Body::AppendReply { link, result }),
        (index(), context(), any::<u64>()).prop_map(|(commit, context, sent_us)| Body::Heartbeat {
            commit,
            context,
            sent_us
        }),
        (context(), any::<u64>(), any::<u64>()).prop_map(|(context, sent_us, lasts_us)| {
            Body::HeartbeatReply { context, promise: Promise { sent_us, lasts_us } }
        }),
        Just(Body::TimeoutNow),
        (any::<u32>(), snapshot_meta()).prop_map(|(link, meta)| Body::Snapshot { link, meta }),
    ]
}

fn context() -> impl Strategy<Value = ReadContext> {
    (incarnation(), any::<u64>(), any::<u64>()).prop_map(|(incarnation, term, counter)| ReadContext {
        incarnation,
        term: Term(term),
        counter,
    })
}

/// Entries that follow each other, with terms that never fall.
fn append() -> impl Strategy<Value = Body> {
    let kind = prop_oneof![Just(EntryKind::Noop), Just(EntryKind::Command), Just(EntryKind::Configuration)];
    let prev = (0..1_u64 << 40, 0..1_u64 << 40).prop_map(|(index, term)| EntryId::new(index, term));
    (any::<u32>(), prev, index(), vec((0..3_u64, kind, bytes()), 0..6)).prop_map(|(link, prev, commit, parts)| {
        let mut id = prev;
        let entries = parts
            .into_iter()
            .map(|(term_growth, kind, body)| {
                id = EntryId { index: id.index.next(), term: Term(id.term.0 + term_growth) };
                Entry { id, kind, body: Bytes::from_static(body) }
            })
            .collect();
        Body::Append { link, prev, commit, entries }
    })
}

fn forward_id() -> impl Strategy<Value = ForwardId> {
    (any::<u16>(), any::<u64>()).prop_map(|(core, serial)| ForwardId { core: CoreId(core), serial })
}

fn forward() -> impl Strategy<Value = Forward<'static>> {
    (forward_id(), shard(), shard_operation(), any::<u32>()).prop_map(|(id, shard, operation, timeout_ms)| Forward {
        id,
        shard,
        operation,
        timeout_ms,
    })
}

fn snapshot_id() -> impl Strategy<Value = SnapshotId> {
    any::<u64>().prop_map(SnapshotId)
}

fn snapshot_meta() -> impl Strategy<Value = SnapshotMeta> {
    (snapshot_id(), entry_id(), any::<u64>()).prop_map(|(id, at, bytes)| SnapshotMeta { id, at, bytes })
}

fn snapshot_read() -> impl Strategy<Value = SnapshotRead> {
    (shard(), snapshot_id(), any::<u64>(), 1..=SNAPSHOT_CHUNK_MAX as u32)
        .prop_map(|(shard, id, offset, length_max)| SnapshotRead { shard, id, offset, length_max })
}

/// A piece that lies within its file, or none.
fn snapshot_chunk() -> impl Strategy<Value = SnapshotChunk<'static>> {
    let piece = option::of((bytes(), any::<u64>()));
    (shard(), snapshot_id(), any::<u64>(), piece).prop_map(|(shard, id, offset, piece)| {
        let Some((bytes, behind)) = piece else {
            return SnapshotChunk { shard, id, offset, result: ChunkResult::Gone };
        };
        let offset = offset >> 1;
        let behind = if bytes.is_empty() { 0 } else { behind };
        let total = (offset + bytes.len() as u64).saturating_add(behind);
        SnapshotChunk { shard, id, offset, result: ChunkResult::Ok { total, bytes } }
    })
}
