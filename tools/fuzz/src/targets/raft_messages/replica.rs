//! One replica with its log, its disk and its clock; every input is followed by the invariants.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv::raft::invariants::{Observed, check, check_step};
use raftkv::raft::{Config, Leases, Outgoing, Raft, ReadId, ReadReady, Ready, Recovered, WriteId};
use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message, SnapshotMeta};
use raftkv_protocol::types::{
    Entry, EntryId, EntryKind, HardState, Incarnation, Index, NodeId, ShardId, SnapshotId, Term,
};

use super::log::Log;
use crate::feedback::Feedback;

/// T.
pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_millis(800);
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Where all clocks are counted from. Only differences matter.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a sync is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// What was synced survives a restart.
    Honest,
    /// It reports writes as durable that a restart loses: a cluster on such disks must be caught.
    Lying,
}

/// A write on its way to the disk.
#[derive(Debug)]
struct Write {
    id: WriteId,
    hard_state: Option<HardState>,
    /// The log was compacted before this write.
    compaction: Option<EntryId>,
    reset: Option<EntryId>,
    append: Vec<Entry>,
    after_sync: Vec<Message>,
}

/// What a replica remembers over a restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) hard_state: HardState,
    pub(super) log: Log,
    /// The two newest, the newer one last. It covers at least what comes before the log.
    pub(super) snapshots: Vec<SnapshotMeta>,
}

/// What a replica wants done by others.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) messages: Vec<Message>,
    pub(super) reads: Vec<ReadReady>,
    pub(super) reads_dropped: Vec<ReadId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) raft: Raft,
    config: Config,
    disk: Disk,
    time: Duration,
    /// As it was written, durable or not.
    pub(super) log: Log,
    pub(super) durable: Durable,
    /// The start of the log that goes to the disk with the next write.
    compaction: Option<EntryId>,
    /// The newest snapshot that it was offered and needs.
    pub(super) offered: Option<(NodeId, SnapshotMeta)>,
    /// Fetched, and not restored yet.
    fetched: Option<SnapshotMeta>,
    snapshots_taken: u64,
    writes: VecDeque<Write>,
    ready: Ready,
    pub(super) output: Output,
}

/// The limits of a replica: so low that they are met, or so high that they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    Tight,
    Wide,
}

impl Replica {
    /// Node `id` of nodes 1 to `size`.
    pub(super) fn new(id: u64, size: u64, windows: Windows, disk: Disk, durable: Durable) -> Replica {
        let (append, inflight, messages) = match windows {
            Windows::Tight => (8, 24, 3),
            Windows::Wide => (1 << 20, 4 << 20, 64),
        };
        let config = Config {
            id: NodeId(id),
            shard: ShardId(0),
            voters: (1..=size).map(NodeId).collect(),
            incarnation: Incarnation(id),
            heartbeat: HEARTBEAT,
            election_timeout: ELECTION_TIMEOUT,
            epoch: *EPOCH,
            preferred: false,
            seed: 7,
            append_bytes_max: append,
            inflight_bytes_max: inflight,
            inflight_messages_max: messages,
            leases: Leases::default(),
        };
        let raft = Raft::new(config.clone(), recovered(&durable), *EPOCH);
        let mut replica = Replica {
            raft,
            config,
            disk,
            time: Duration::ZERO,
            log: durable.log.clone(),
            durable,
            compaction: None,
            offered: None,
            fetched: None,
            snapshots_taken: 0,
            writes: VecDeque::new(),
            ready: Ready::default(),
            output: Output::default(),
        };
        replica.drive();
        replica
    }

    pub(super) fn id(&self) -> NodeId {
        self.config.id
    }

    /// The process dies and starts again with what its disk holds: `kept` of its writes on their way made it.
    pub(super) fn restart(&mut self, kept: usize) {
        for _ in 0..kept {
            self.complete_write();
        }
        self.output = Output::default();
        self.writes.clear();
        (self.compaction, self.offered, self.fetched) = (None, None, None);
        self.log.clone_from(&self.durable.log);
        self.config.incarnation.0 += 100;
        self.raft = Raft::new(self.config.clone(), recovered(&self.durable), *EPOCH + self.time);
        self.drive();
    }

    /// One input, its invariants, and everything that the replica then wants done.
    pub(super) fn act<R>(&mut self, input: impl FnOnce(&mut Raft) -> R) -> R {
        let result = self.checked(input);
        self.drive();
        result
    }

    fn checked<R>(&mut self, input: impl FnOnce(&mut Raft) -> R) -> R {
        let before = Observed::of(&self.raft);
        let result = input(&mut self.raft);
        check(&self.raft);
        check_step(&before, &self.raft);
        result
    }

    /// A message comes in. The feedback is told what kind met which role, and what it did.
    pub(super) fn step(&mut self, message: Message, feedback: &mut Feedback) {
        let (role, term, commit) = (self.raft.role(), self.raft.term(), self.raft.commit());
        let dropped = self.raft.dropped_messages();
        let kind = kind_of(&message.body);
        let age = match message.term.0.wrapping_sub(term.0) {
            0 => 0,
            1 => 1,
            later if later < 1 << 62 => 2,
            _ => 3,
        };
        self.act(|raft| raft.step(message));
        let did = u64::from(self.raft.dropped_messages() > dropped)
            | u64::from(self.raft.commit() > commit) << 1
            | u64::from(self.raft.term() > term) << 2
            | u64::from(self.raft.leader().is_some()) << 3
            | u64::from(!self.output.messages.is_empty()) << 4;
        feedback.saw_with(did, kind << 16 | age << 12 | (role as u64) << 8 | self.raft.role() as u64);
    }

    /// Its clock goes on, and it hears of it.
    pub(super) fn pass(&mut self, time: Duration) {
        self.time += time;
        let now = *EPOCH + self.time;
        self.act(|raft| raft.tick(now));
    }

    /// Its clock is read again, if the replica waits for that.
    pub(super) fn tick_if_due(&mut self) -> bool {
        let is_due = self.raft.deadline() <= *EPOCH + self.time;
        if is_due {
            self.pass(Duration::ZERO);
        }
        is_due
    }

    /// The oldest write is durable. Whether there was one.
    pub(super) fn persist(&mut self) -> bool {
        let Some((id, after_sync)) = self.complete_write() else { return false };
        self.output.messages.extend(after_sync);
        self.act(|raft| raft.persisted(id));
        true
    }

    /// Whether what it calls durable may be gone after a restart.
    pub(super) fn disk_lies(&self) -> bool {
        self.disk == Disk::Lying
    }

    /// How many writes are on their way.
    pub(super) fn writes(&self) -> usize {
        self.writes.len()
    }

    fn complete_write(&mut self) -> Option<(WriteId, Vec<Message>)> {
        let Write { id, hard_state, compaction, reset, append, after_sync } = self.writes.pop_front()?;
        if self.disk == Disk::Honest {
            self.durable.hard_state = hard_state.unwrap_or(self.durable.hard_state);
            compaction.into_iter().for_each(|start| self.durable.log.compact(start));
            reset.into_iter().for_each(|start| self.durable.log.reset(start));
            self.durable.log.put(&append);
        }
        Some((id, after_sync))
    }

    /// Proposes commands of these lengths; their bodies tell them apart.
    pub(super) fn propose(&mut self, name: u64, lengths: &[usize]) -> bool {
        let body = |(at, length): (usize, &usize)| {
            let mut body = (name << 8 | at as u64).to_le_bytes().to_vec();
            body.resize((*length).max(3), 0);
            Bytes::from(body)
        };
        let mut commands: Vec<Bytes> = lengths.iter().enumerate().map(body).collect();
        self.act(|raft| raft.propose(EntryKind::Command, &mut commands)).is_ok()
    }

    /// Takes a snapshot of what is applied, if the log is durable up to there.
    pub(super) fn take_snapshot(&mut self) -> bool {
        self.snapshots_taken += 1;
        let at = EntryId { index: self.raft.commit(), term: self.raft.term_at(self.raft.commit()).unwrap_or_default() };
        let id = SnapshotId(self.config.id.0 << 32 | self.config.incarnation.0 << 16 | self.snapshots_taken);
        let meta = SnapshotMeta { id, at, bytes: at.index.0 };
        let is_taken = at != EntryId::ZERO && self.act(|raft| raft.snapshot_taken(meta));
        if is_taken {
            self.keep(meta);
        }
        is_taken
    }

    /// Lets the log start so many entries later, at the most after the older snapshot's last. Whether it did.
    pub(super) fn compact(&mut self, entries: u64) -> bool {
        let Some(oldest) = self.durable.snapshots.first() else { return false };
        let index = Index((self.raft.start().index.0 + entries).min(oldest.at.index.0));
        let Some(term) = self.raft.term_at(index) else { return false };
        let start = EntryId { index, term };
        let is_compacted = self.act(|raft| raft.compact(start));
        if is_compacted {
            self.log.compact(start);
            self.compaction = Some(start);
        }
        is_compacted
    }

    /// A snapshot that was offered is on the disk.
    pub(super) fn fetch(&mut self, meta: SnapshotMeta) {
        self.keep(meta);
        self.fetched = Some(meta);
    }

    /// Restores what was fetched.
    pub(super) fn restore(&mut self) {
        if let Some(meta) = self.fetched.take() {
            self.act(|raft| raft.restore(meta));
        }
    }

    fn keep(&mut self, meta: SnapshotMeta) {
        let snapshots = &mut self.durable.snapshots;
        // On a disk that lies nothing is there after a restart.
        if self.disk == Disk::Honest {
            snapshots.retain(|known| known.at.index != meta.at.index);
            snapshots.push(meta);
            snapshots.sort_by_key(|known| known.at.index);
            let obsolete = snapshots.len().saturating_sub(2);
            snapshots.drain(..obsolete);
        }
    }

    /// Executes what the replica wants until it wants nothing more.
    fn drive(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        while self.checked(|raft| raft.ready(&mut ready)) {
            let reset = ready.reset.map(|(start, _)| start);
            reset.into_iter().for_each(|start| self.log.reset(start));
            self.log.put(&ready.append);
            for outgoing in ready.messages.drain(..) {
                let message = self.filled(outgoing);
                self.output.messages.push(message);
            }
            if let Some(id) = ready.write {
                let after_sync = ready.after_sync.drain(..).map(|outgoing| self.filled(outgoing)).collect();
                let append = std::mem::take(&mut ready.append);
                let (compaction, hard_state) = (self.compaction.take(), ready.hard_state);
                self.writes.push_back(Write { id, hard_state, compaction, reset, append, after_sync });
            } else {
                let nothing = ready.hard_state.is_none() && ready.append.is_empty() && ready.after_sync.is_empty();
                assert!(nothing && reset.is_none(), "something to write without a name for the write: {}", self.raft);
            }
            self.offered = ready.install.or(self.offered);
            self.output.reads.append(&mut ready.reads);
            self.output.reads_dropped.append(&mut ready.reads_dropped);
            let commit = ready.commit;
            self.checked(|raft| raft.applied(commit));
        }
        self.ready = ready;
    }

    /// The message with the entries that it names.
    fn filled(&self, outgoing: Outgoing) -> Message {
        let Outgoing { mut message, entries: named } = outgoing;
        if let Body::Append { prev, entries, .. } = &mut message.body {
            assert_eq!(named.start, prev.index.0 + 1, "entries that do not follow: {}", self.raft);
            let Some(own) = self.log.range(named) else { panic!("sends what it does not have: {}", self.raft) };
            entries.extend_from_slice(own);
        }
        message
    }

    /// The entry at this index, if it is in the log.
    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.entry(index)
    }

    /// The same on its disk.
    pub(super) fn durable_entry(&self, index: Index) -> Option<&Entry> {
        self.durable.log.entry(index)
    }

    /// What the replica remembers of its log is what it had written; it wants nothing more.
    pub(super) fn check_end(&mut self) {
        let ends = (self.raft.start(), self.raft.last());
        assert_eq!(ends, (self.log.start, self.log.last()), "the log that was written is another one: {}", self.raft);
        for entry in &self.log.entries {
            assert_eq!(self.raft.term_at(entry.id.index), Some(entry.id.term), "{}: {}", entry.id, self.raft);
        }
        let mut ready = Ready::default();
        assert!(!self.checked(|raft| raft.ready(&mut ready)), "a drained replica wants something: {}", self.raft);
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.role() == Role::Leader
    }
}

fn recovered(durable: &Durable) -> Recovered {
    let entries = durable.log.entries.iter().map(|entry| (entry.id.term, entry.body.len() as u32)).collect();
    let (hard_state, start, snapshot) = (durable.hard_state, durable.log.start, durable.snapshots.last().copied());
    Recovered { hard_state, start, entries, snapshot, damaged: false }
}

/// A log with entries of these terms after `start`, with bodies that differ where their terms do.
pub(super) fn log(start: EntryId, terms: &[u64]) -> Log {
    let entry = |(index, &term): (u64, &u64)| Entry {
        id: EntryId { index: Index(index), term: Term(term) },
        kind: EntryKind::Command,
        body: Bytes::copy_from_slice(&term.to_le_bytes()[..4]),
    };
    Log { start, entries: (start.index.0 + 1..).zip(terms).map(entry).collect() }
}

fn kind_of(body: &Body) -> u64 {
    match body {
        Body::PreVote { .. } => 0,
        Body::PreVoteReply { granted } => 1 + u64::from(*granted),
        Body::Vote { transfer, .. } => 3 + u64::from(*transfer),
        Body::VoteReply { granted } => 5 + u64::from(*granted),
        Body::Append { entries, .. } => 7 + entries.len().min(2) as u64,
        Body::AppendReply { result: raftkv_protocol::peer::AppendResult::Accepted { .. }, .. } => 10,
        Body::AppendReply { .. } => 11,
        Body::Heartbeat { .. } => 12,
        Body::HeartbeatReply { .. } => 13,
        Body::TimeoutNow => 14,
        Body::Snapshot { .. } => 15,
        _ => 16,
    }
}
