//! One replica whose peers are liars: every well-formed message, in every order, with every other input in between.

use std::time::Duration;

use bytes::Bytes;
use raftkv::raft::ReadId;
use raftkv_protocol::kind;
use raftkv_protocol::peer::{AppendResult, Body, Message, PeerFrame, ReadContext, SnapshotMeta};
use raftkv_protocol::types::{
    Entry, EntryId, EntryKind, HardState, Incarnation, Index, NodeId, ShardId, SnapshotId, Term,
};

use super::replica::{Disk, Durable, Replica, Windows, log};
use crate::choices::Choices;
use crate::feedback::Feedback;

/// Inputs of one run.
const INPUTS_MAX: usize = 64;
/// From the lowest Raft kind to the highest.
const RAFT_KINDS: u64 = (kind::SNAPSHOT_OFFER - kind::PRE_VOTE) as u64 + 1;

pub(super) fn run(disk: Disk, choices: &mut Choices<'_>, feedback: &mut Feedback) {
    let mut replica = begin(disk, choices);
    for name in 0..INPUTS_MAX as u64 {
        if choices.is_empty() {
            break;
        }
        input(&mut replica, name, choices, feedback);
        replica.output.messages.clear();
        replica.output.reads.clear();
        replica.output.reads_dropped.clear();
    }
    replica.check_end();
}

/// A replica as it comes back from some disk.
fn begin(disk: Disk, choices: &mut Choices<'_>) -> Replica {
    let size = [3, 3, 5, 1][choices.below(4) as usize];
    let windows = if choices.below(2) == 0 { Windows::Tight } else { Windows::Wide };
    let durable = match choices.below(4) {
        0 => Durable::default(),
        1 => Durable {
            hard_state: HardState { term: Term(2), vote: None },
            log: log(EntryId::ZERO, &[1, 2]),
            ..Durable::default()
        },
        2 => Durable {
            hard_state: HardState { term: Term(4), vote: Some(NodeId(2)) },
            log: log(EntryId::ZERO, &[1, 1, 3, 3]),
            ..Durable::default()
        },
        _ => {
            let start = EntryId::new(5, 2);
            let snapshots = vec![SnapshotMeta { id: SnapshotId(1), at: start, bytes: 5 }];
            Durable { hard_state: HardState { term: Term(3), vote: None }, log: log(start, &[2, 3]), snapshots }
        }
    };
    Replica::new(1, size, windows, disk, durable)
}

fn input(replica: &mut Replica, name: u64, choices: &mut Choices<'_>, feedback: &mut Feedback) {
    match choices.below(40) {
        0 => replica.pass(Duration::from_millis(choices.below(120))),
        1 => replica.pass(Duration::from_millis(700 + 4 * choices.below(256))),
        2 => _ = replica.tick_if_due(),
        3 => {
            let from = NodeId(choices.below(6));
            replica.act(|raft| raft.link_lost(from));
        }
        4 => {
            let to = NodeId(choices.below(6));
            replica.act(|raft| raft.link_up(to));
        }
        5 => {
            let to = NodeId(choices.below(6));
            _ = replica.act(|raft| raft.transfer(to));
        }
        6 => {
            _ = replica.act(|raft| raft.read_index(ReadId(name)));
            replica.act(|raft| raft.start_read_round());
        }
        7 => {
            let lengths = [choices.below(32) as usize, 3];
            _ = replica.propose(name, &lengths[..1 + choices.below(2) as usize]);
        }
        8 => {
            let kept = choices.below(4) as usize;
            replica.restart(kept);
        }
        9..14 => _ = replica.persist(),
        14 => raw(replica, choices, feedback),
        15 | 16 => lead(replica, choices, feedback),
        32 => _ = replica.take_snapshot(),
        33 => _ = replica.compact(choices.below(8)),
        34 => {
            if let Some((_, meta)) = replica.offered.take() {
                replica.fetch(meta);
            }
        }
        35 => replica.restore(),
        _ => {
            let message = message(replica, choices);
            replica.step(message, feedback);
        }
    }
}

/// A frame's payload as a peer may send it.
fn raw(replica: &mut Replica, choices: &mut Choices<'_>, feedback: &mut Feedback) {
    let kind = kind::PRE_VOTE + choices.below(RAFT_KINDS) as u8;
    let length = choices.byte() as usize;
    if let Ok(PeerFrame::Message(message)) = PeerFrame::decode(kind, choices.bytes(length)) {
        replica.step(message, feedback);
    }
}

/// Makes the replica stand for election, and peers grant it what it asks for.
fn lead(replica: &mut Replica, choices: &mut Choices<'_>, feedback: &mut Feedback) {
    replica.pass(Duration::from_millis(1_300));
    for granted in [Body::PreVoteReply { granted: true }, Body::VoteReply { granted: true }] {
        while replica.persist() {}
        for from in 2..=3 {
            let is_hypothetical = matches!(granted, Body::PreVoteReply { .. });
            let term = Term(replica.raft.term().0 + u64::from(is_hypothetical));
            let message = Message { shard: ShardId(0), from: NodeId(from), to: NodeId(1), term, body: granted.clone() };
            replica.step(message, feedback);
            if choices.below(2) == 0 {
                break;
            }
        }
    }
}

/// A message that is mostly near the replica's own term and log.
fn message(replica: &Replica, choices: &mut Choices<'_>) -> Message {
    let own = replica.raft.term();
    let from = NodeId([2, 3, 2, 3, 4, 5, 1, 9][choices.below(8) as usize]);
    let term = match choices.below(8) {
        0..5 => own,
        5 => Term(own.0 + 1),
        6 => Term(own.0.saturating_sub(1)),
        _ => Term(choices.number()),
    };
    let (shard, to) = match choices.below(64) {
        0 => (ShardId(1), NodeId(1)),
        1 => (ShardId(0), NodeId(2)),
        _ => (ShardId(0), NodeId(1)),
    };
    Message { shard, from, to, term, body: body(replica, term, choices) }
}

fn body(replica: &Replica, term: Term, choices: &mut Choices<'_>) -> Body {
    let granted = choices.below(2) == 0;
    match choices.below(14) {
        0 => Body::PreVote { last: id(replica, choices) },
        1 => Body::PreVoteReply { granted },
        2 => Body::Vote { last: id(replica, choices), transfer: granted },
        3 => Body::VoteReply { granted },
        4..7 => append(replica, term, choices),
        7 => Body::AppendReply {
            link: link(choices),
            result: AppendResult::Accepted { matched: index(replica, choices) },
        },
        8 => {
            let (prev, hint) = (index(replica, choices), id(replica, choices));
            Body::AppendReply { link: link(choices), result: AppendResult::Rejected { prev, hint } }
        }
        9 => Body::Heartbeat { commit: index(replica, choices), context: context(term, choices), sent_us: 0 },
        10 => Body::HeartbeatReply { context: context(term, choices), promise: Default::default() },
        11 => Body::TimeoutNow,
        _ => Body::Snapshot { link: link(choices), meta: snapshot(replica, choices) },
    }
}

/// A snapshot of an entry of the log, of one that may follow it, or of any.
fn snapshot(replica: &Replica, choices: &mut Choices<'_>) -> SnapshotMeta {
    let at = match choices.below(4) {
        0 => id(replica, choices),
        _ => EntryId {
            index: Index(replica.raft.commit().0 + choices.below(6)),
            term: Term(replica.raft.term().0.saturating_sub(choices.below(3))),
        },
    };
    SnapshotMeta { id: SnapshotId(choices.below(4)), at, bytes: choices.number() }
}

fn link(choices: &mut Choices<'_>) -> u32 {
    choices.below(4) as u32
}

fn context(term: Term, choices: &mut Choices<'_>) -> ReadContext {
    let incarnation = Incarnation([1, 101, 0, 7][choices.below(4) as usize]);
    ReadContext { incarnation, term, counter: choices.below(4) }
}

/// An index near the end of the log, or any.
fn index(replica: &Replica, choices: &mut Choices<'_>) -> Index {
    match choices.byte() {
        byte @ 0..0xe0 => Index((replica.raft.last().index.0 + 2).saturating_sub(u64::from(byte % 8))),
        _ => Index(choices.number()),
    }
}

/// The id of an entry of the log, or any.
fn id(replica: &Replica, choices: &mut Choices<'_>) -> EntryId {
    let index = index(replica, choices);
    match replica.raft.term_at(index) {
        Some(term) if choices.below(4) != 0 => EntryId { index, term },
        _ => EntryId { index, term: Term(choices.number()) },
    }
}

/// Entries that follow `prev`, mostly.
fn append(replica: &Replica, term: Term, choices: &mut Choices<'_>) -> Body {
    let prev = id(replica, choices);
    let mut entries = Vec::new();
    let mut last = prev;
    for _ in 0..choices.below(4) {
        let term = match choices.below(4) {
            0 => last.term,
            1..3 => term,
            _ => Term(choices.number()),
        };
        let index = if choices.below(16) == 0 { Index(choices.number()) } else { Index(last.index.0.wrapping_add(1)) };
        last = EntryId { index, term };
        let kind = if choices.below(4) == 0 { EntryKind::Noop } else { EntryKind::Command };
        entries.push(Entry { id: last, kind, body: Bytes::from_static(b"lie") });
    }
    Body::Append { link: link(choices), prev, commit: index(replica, choices), entries }
}

/// A replica that is led, one that leads, and one that is asked for votes.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let appended = vec![0, 0, 0, 1, 17, 0, 0, 9, 0, 4, 3, 1, 1, 0, 9, 1, 0, 3, 9, 9, 17, 0, 0, 9, 0, 9, 0, 0, 1];
    let leads = vec![0, 0, 1, 1, 15, 1, 1, 9, 7, 9, 0, 9, 9, 17, 0, 0, 9, 0, 7, 2, 1, 6, 17, 0, 0, 9, 0, 10, 0, 1];
    let voted = vec![0, 2, 0, 2, 17, 0, 5, 9, 0, 2, 0, 1, 9, 17, 1, 5, 9, 0, 0, 0, 1, 8, 2, 17, 0, 0, 9, 0, 2, 0, 1];
    // It leads and compacts its log, and follows one who offers it a snapshot, which it restores.
    let compacted = vec![0, 0, 1, 1, 15, 1, 1, 9, 7, 9, 0, 9, 9, 17, 0, 0, 9, 0, 7, 1, 1, 32, 33, 2, 9, 33, 7];
    let restored = vec![0, 0, 0, 1, 17, 0, 0, 9, 0, 12, 0, 1, 5, 1, 1, 9, 9, 34, 35, 9, 9, 8, 2];
    vec![appended, leads, voted, compacted, restored]
}
