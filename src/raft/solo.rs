//! One replica alone, for tests that say themselves what its peers send. Its disk waits to be told.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv_protocol::peer::{AppendResult, Body, Message, ReadContext, SnapshotMeta};
use raftkv_protocol::types::{
    Entry, EntryId, EntryKind, HardState, Incarnation, Index, NodeId, ShardId, SnapshotId, Term,
};

use super::cluster::{BEAT, T};
use super::invariants::{Observed, check, check_step};
use super::{Config, Leases, Outgoing, Raft, Ready, Recovered, WriteId};

/// A replica, its clock and its writes on their way.
pub(super) struct Solo {
    pub(super) raft: Raft,
    epoch: Instant,
    time: Duration,
    /// Each write and the messages that wait for it, oldest first.
    pub(super) writes: VecDeque<(WriteId, Vec<Message>)>,
    /// The log after its start, as the `Ready`s wrote it.
    pub(super) log: Vec<EntryId>,
    /// Where it starts.
    start: Index,
    /// The snapshots that it asked to be fetched, and from whom.
    pub(super) installs: Vec<(NodeId, SnapshotMeta)>,
    /// The resets of its log, each with the snapshot's name.
    pub(super) resets: Vec<(EntryId, SnapshotId)>,
}

/// Node 1 of three, with nothing on its disk.
pub(super) fn fresh() -> Solo {
    recovered(3, 0, None, &[])
}

/// Node 1 of `size` voters with this term, this vote and entries of these terms on its disk.
pub(super) fn recovered(size: u64, term: u64, vote: Option<u64>, terms: &[u64]) -> Solo {
    with(size, term, vote, terms, |_| {})
}

/// The same, but there may have been more on its disk.
pub(super) fn damaged(size: u64, term: u64, vote: Option<u64>, terms: &[u64]) -> Solo {
    let mut solo = recovered(size, term, vote, terms);
    let hard_state = HardState { term: Term(term), vote: vote.map(NodeId) };
    let entries = terms.iter().map(|&term| (Term(term), 1)).collect();
    let recovered = Recovered { hard_state, start: EntryId::ZERO, entries, snapshot: None, damaged: true };
    solo.raft = Raft::new(solo.raft.config.clone(), recovered, solo.epoch);
    solo
}

/// Node 1 of three in the term of this entry, after which its empty log starts: snapshot 1 covers it.
pub(super) fn starting_after(start: EntryId) -> Solo {
    with_snapshot(start, &[], meta(1, (start.index.0, start.term.0)))
}

/// Node 1 of three whose log starts after this entry and holds entries of these terms, and a snapshot on its disk. Its
/// term is that of the last entry.
pub(super) fn with_snapshot(start: EntryId, terms: &[u64], snapshot: SnapshotMeta) -> Solo {
    let mut solo = recovered(3, 0, None, &[]);
    let term = terms.last().map_or(start.term, |&term| Term(term));
    let hard_state = HardState { term, vote: None };
    let entries = terms.iter().map(|&term| (Term(term), 1)).collect();
    let recovered = Recovered { hard_state, start, entries, snapshot: Some(snapshot), damaged: false };
    solo.log = (start.index.0 + 1..).zip(terms).map(|(index, &term)| EntryId::new(index, term)).collect();
    solo.start = start.index;
    solo.raft = Raft::new(solo.raft.config.clone(), recovered, solo.epoch);
    solo
}

/// The same as `recovered`, with an adapted configuration.
pub(super) fn with(size: u64, term: u64, vote: Option<u64>, terms: &[u64], adapt: impl Fn(&mut Config)) -> Solo {
    let epoch = Instant::now();
    let mut config = Config {
        preferred: false,
        id: NodeId(1),
        shard: ShardId(0),
        voters: (1..=size).map(NodeId).collect(),
        incarnation: Incarnation(9),
        heartbeat: BEAT,
        election_timeout: T,
        epoch,
        seed: 7,
        append_bytes_max: 100,
        inflight_bytes_max: 300,
        inflight_messages_max: 10,
        leases: Leases::default(),
    };
    adapt(&mut config);
    let recovered = Recovered {
        hard_state: HardState { term: Term(term), vote: vote.map(NodeId) },
        start: EntryId::ZERO,
        entries: terms.iter().map(|&term| (Term(term), 1)).collect(),
        snapshot: None,
        damaged: false,
    };
    let log = (1..).zip(terms).map(|(index, &term)| EntryId::new(index, term)).collect();
    let raft = Raft::new(config, recovered, epoch);
    let (writes, installs, resets) = (VecDeque::new(), Vec::new(), Vec::new());
    Solo { raft, epoch, time: Duration::ZERO, writes, log, start: Index(0), installs, resets }
}

/// Entries with these ids and one byte each.
pub(super) fn entries(ids: &[(u64, u64)]) -> Vec<Entry> {
    let entry = |&(index, term): &(u64, u64)| Entry {
        id: EntryId::new(index, term),
        kind: EntryKind::Command,
        body: Bytes::from_static(b"x"),
    };
    ids.iter().map(entry).collect()
}

/// An append on link 0.
pub(super) fn append(prev: (u64, u64), commit: u64, ids: &[(u64, u64)]) -> Body {
    Body::Append { link: 0, prev: EntryId::new(prev.0, prev.1), commit: Index(commit), entries: entries(ids) }
}

/// A heartbeat of no read round.
pub(super) fn heartbeat(commit: u64) -> Body {
    Body::Heartbeat { commit: Index(commit), context: ReadContext::default(), sent_us: 0 }
}

/// A vote request that nobody but its sender asked for.
pub(super) fn vote(last: (u64, u64)) -> Body {
    Body::Vote { last: EntryId::new(last.0, last.1), transfer: false }
}

/// A pre-vote.
pub(super) fn pre_vote(last: (u64, u64)) -> Body {
    Body::PreVote { last: EntryId::new(last.0, last.1) }
}

/// An acknowledgement on link 0.
pub(super) fn accepted(matched: u64) -> Body {
    Body::AppendReply { link: 0, result: AppendResult::Accepted { matched: Index(matched) } }
}

/// A refusal on link 0.
pub(super) fn rejected(prev: u64, hint: (u64, u64)) -> Body {
    let hint = EntryId::new(hint.0, hint.1);
    Body::AppendReply { link: 0, result: AppendResult::Rejected { prev: Index(prev), hint } }
}

/// Snapshot `id`, which ends with this entry.
pub(super) fn meta(id: u64, at: (u64, u64)) -> SnapshotMeta {
    SnapshotMeta { id: SnapshotId(id), at: EntryId::new(at.0, at.1), bytes: 1_000 }
}

/// The offer of snapshot `id` on link 0.
pub(super) fn offer(id: u64, at: (u64, u64)) -> Body {
    Body::Snapshot { link: 0, meta: meta(id, at) }
}

/// What the messages say.
pub(super) fn bodies(messages: &[Message]) -> Vec<&Body> {
    messages.iter().map(|message| &message.body).collect()
}

impl Solo {
    /// One input, its invariants, and the messages that may leave at once.
    pub(super) fn act<R>(&mut self, input: impl FnOnce(&mut Raft) -> R) -> (R, Vec<Outgoing>) {
        let result = self.checked(input);
        let mut ready = Ready::default();
        let mut messages = Vec::new();
        while self.checked(|raft| raft.ready(&mut ready)) {
            messages.append(&mut ready.messages);
            self.installs.extend(ready.install);
            if let Some((start, snapshot)) = ready.reset {
                self.resets.push((start, snapshot));
                self.log.clear();
                self.start = start.index;
            }
            if let Some(first) = ready.append.first() {
                self.log.truncate((first.id.index.0 - self.start.0) as usize - 1);
                self.log.extend(ready.append.iter().map(|entry| entry.id));
            }
            if let Some(write) = ready.write {
                let waiting = ready.after_sync.drain(..).map(|outgoing| outgoing.message).collect();
                self.writes.push_back((write, waiting));
            }
        }
        let terms = &self.raft.terms;
        self.log.drain(..(terms.start().index.0 - self.start.0) as usize);
        self.start = terms.start().index;
        let indexes = terms.start().index.0 + 1..=terms.last().index.0;
        let ids: Vec<EntryId> = indexes.map(|index| terms.id_at(Index(index)).expect("in the log")).collect();
        assert_eq!(self.log, ids, "the log on its way to the disk is another one");
        (result, messages)
    }

    fn checked<R>(&mut self, input: impl FnOnce(&mut Raft) -> R) -> R {
        let before = Observed::of(&self.raft);
        let result = input(&mut self.raft);
        check(&self.raft);
        check_step(&before, &self.raft);
        result
    }

    /// A message to this node; what it sends at once.
    pub(super) fn step(&mut self, from: u64, term: u64, body: Body) -> Vec<Message> {
        let message = Message { shard: ShardId(0), from: NodeId(from), to: NodeId(1), term: Term(term), body };
        self.act(|raft| raft.step(message)).1.into_iter().map(|outgoing| outgoing.message).collect()
    }

    /// Time passes; what the node sends at once.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Message> {
        self.time += time;
        let now = self.epoch + self.time;
        self.act(|raft| raft.tick(now)).1.into_iter().map(|outgoing| outgoing.message).collect()
    }

    /// The clock, standing still.
    pub(super) fn tick(&mut self) -> Vec<Message> {
        self.pass(Duration::ZERO)
    }

    /// The oldest write is durable; what leaves because of it.
    pub(super) fn persist(&mut self) -> Vec<Message> {
        let (write, mut messages) = self.writes.pop_front().expect("a write is on its way");
        let (_, after) = self.act(|raft| raft.persisted(write));
        messages.extend(after.into_iter().map(|outgoing| outgoing.message));
        messages
    }

    /// All writes are durable; what leaves because of it.
    pub(super) fn persist_all(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while !self.writes.is_empty() {
            messages.extend(self.persist());
        }
        messages
    }

    /// Proposes one-byte commands; the appends that leave.
    pub(super) fn propose(&mut self, count: usize) -> Vec<Outgoing> {
        let mut commands = vec![Bytes::from_static(b"x"); count];
        let (result, messages) = self.act(|raft| raft.propose(EntryKind::Command, &mut commands));
        result.expect("the node leads");
        messages
    }

    /// Makes the node stand and win with every other node's vote. Its disk is done; the peers know nothing yet.
    pub(super) fn lead(&mut self) -> Vec<Message> {
        self.act(|raft| raft.timer.fire_now());
        self.tick();
        let peers: Vec<u64> = self.raft.progress.iter().map(|progress| progress.node.0).collect();
        let next = self.raft.term().0 + 1;
        for &peer in &peers {
            self.step(peer, next, Body::PreVoteReply { granted: true });
        }
        self.persist_all();
        let mut messages = Vec::new();
        for &peer in &peers {
            messages.extend(self.step(peer, next, Body::VoteReply { granted: true }));
        }
        messages
    }
}
