//! One shard on one node: its Raft replica, its part of the core's log, its state machine, and the requests that wait
//! for any of them.
//!
//! The only place where a [`Ready`] is executed is [`Shard::drive`], top to bottom, once per turn. The shard knows no
//! socket and no request format: who asked is an opaque reply address `R`, and what leaves goes through an [`Outbox`].
//!
//! - A write waits in `writes` from its proposal until its entry is applied, or until another entry has taken its
//!   index (a definite *no*), or until its deadline (*unknown*).
//! - A read waits in `reads` until a round has confirmed leadership, and then until its index is applied.
//! - A completed batch of the log is told to Raft by the [`WriteId`]s it held; what had to wait for it leaves then.

mod cold;
mod compaction;
mod compare;
mod divergence;
mod execution;
mod reads;
mod rebuilding;
mod scrubbing;
pub mod snapshots;
mod snapshotting;
mod writes;

#[cfg(test)]
mod agreement_test;
#[cfg(test)]
mod batches_test;
#[cfg(test)]
mod cold_test;
#[cfg(test)]
mod compaction_test;
#[cfg(test)]
mod divergence_test;
#[cfg(test)]
mod shard_test;
#[cfg(test)]
mod snapshotting_test;
#[cfg(test)]
mod writes_test;

use std::collections::VecDeque;
use std::time::Instant;

use raftkv_protocol::client::{Answer, Code, Consistency, Page, Refusal, Role, ShardStatus};
use raftkv_protocol::peer::{Body, Message, SnapshotMeta};
use raftkv_protocol::types::{Entry, EntryId, Index, NodeId, ShardId};

use crate::error::Fatal;
use crate::metrics::figures::ShardFigures;
use crate::raft::{NotLeader, Outgoing, Raft, Ready, WriteId};
use crate::state_machine::StateMachine;
use crate::storage::{BatchNumber, CoreLog, Fetched, Space};

use cold::ColdReads;
use compaction::Compaction;
use divergence::Comparison;
pub use divergence::News;
use reads::Reads;
pub use reads::{Read, ReadKind, ShardScan};
use snapshots::Loaded;
pub use snapshotting::{Beginning, Settled};
pub use writes::Write;
use writes::Writes;

/// The most entries applied in one turn: after a restart the loop must not stop for the whole log.
const APPLY_ENTRIES_MAX: u64 = 4_096;

/// Where what a shard says goes.
pub trait Outbox<R> {
    /// Sends a Raft message; if it is an append, with these entries.
    fn send<'e>(&mut self, message: &Message, entries: impl Iterator<Item = &'e Entry>);

    /// Answers a request.
    fn reply(&mut self, to: R, at: EntryId, result: Result<Answer<'_>, Refusal<'_>>);

    /// Takes back a read whose leader was deposed before it was confirmed: it can be asked again, of `leader` or of
    /// whoever is next. Whoever does not ask again is told that this node is not the leader.
    fn read_lost(&mut self, _shard: ShardId, _read: &ReadKind, to: R, _deadline: Instant, leader: Option<NodeId>)
    where
        Self: Sized,
    {
        refuse_not_leader(to, leader, self);
    }
}

/// Why a request was not taken in. It never reached the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// Ask this node instead, if it is known who.
    NotLeader(Option<NodeId>),
    /// Too much waits already.
    Overloaded,
    /// The log has room for deletes only.
    NoSpace,
    /// A batch without operations, or with two on one key.
    InvalidBatch,
    /// A stale read before this node has applied what the first leader after its start had committed.
    NotReady,
    /// This replica's state is another than that of others.
    Diverged,
}

/// A log batch on its way to the disk, as this shard sees it.
#[derive(Debug)]
struct Pending {
    batch: BatchNumber,
    write: WriteId,
    after_sync: Vec<Outgoing>,
}

/// One shard on one node.
#[derive(Debug)]
pub struct Shard<R> {
    id: ShardId,
    raft: Raft,
    machine: StateMachine,
    ready: Ready,
    pending: VecDeque<Pending>,
    writes: Writes<R>,
    reads: Reads<R>,
    cold: ColdReads,
    comparison: Comparison,
    /// The state was wrong and built anew, and no snapshot was taken of it since.
    is_rebuilt: bool,
    /// How often a state has taken the place of a wrong one.
    rebuilds: u64,
    /// How often the disk has not given the own snapshot for it, one time after the other.
    reloads_failed: u32,
    /// What the former state had applied, until the one that is built anew has, too.
    catches_up_to: Option<Index>,
    /// The state as of this entry is being read to see whether memory has kept it.
    scrubbing: Option<EntryId>,
    /// This node's disk is not well: others should lead.
    is_reluctant: bool,
    compaction: Compaction,
    /// The log begins earlier than it may, as a follower was fetching a snapshot.
    is_held_back: bool,
    /// A snapshot that this replica needs, and who offers it.
    offer: Option<(NodeId, SnapshotMeta)>,
    /// The latest snapshot that a leader has told of although this replica does not need it.
    elsewhere: Option<(NodeId, SnapshotMeta)>,
    /// One that was fetched and has not taken its place yet.
    waiting: Option<Box<Loaded>>,
    /// What the state machine must have applied before it may answer stale reads: the commit index that the first
    /// leader after the start announced. `None` until there was one.
    ready_at: Option<Index>,
    /// The commit index of the first append that a leader sent after the start. This node's own may be behind what it
    /// had applied before: committed entries need not have been on its disk.
    announced: Option<Index>,
    uncommitted_bytes_max: usize,
    /// The most entries applied in one turn.
    apply_entries_max: u64,
    /// The longest entry that was appended or applied since the start: no value is longer, nor will be for a while.
    entry_bytes_max: usize,
}

impl<R: Copy> Shard<R> {
    /// A shard whose replica was just made from its log. The state machine is rebuilt from the log as it commits.
    #[must_use]
    pub fn new(id: ShardId, raft: Raft, uncommitted_bytes_max: usize) -> Shard<R> {
        Shard {
            id,
            comparison: Comparison::new(raft.voters().len()),
            is_rebuilt: false,
            catches_up_to: None,
            scrubbing: None,
            elsewhere: None,
            rebuilds: 0,
            reloads_failed: 0,
            is_reluctant: false,
            raft,
            machine: StateMachine::default(),
            ready: Ready::default(),
            pending: VecDeque::new(),
            writes: Writes::default(),
            reads: Reads::default(),
            cold: ColdReads::default(),
            compaction: Compaction::new(0),
            is_held_back: false,
            offer: None,
            waiting: None,
            ready_at: None,
            announced: None,
            uncommitted_bytes_max,
            apply_entries_max: APPLY_ENTRIES_MAX,
            entry_bytes_max: 0,
        }
    }

    /// Which shard this is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The replica, to look at.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The replica, for the inputs that need nothing of the shard: ticks, links, transfers.
    pub fn raft_mut(&mut self) -> &mut Raft {
        &mut self.raft
    }

    /// Whether this node leads the shard and takes proposals.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.role() == Role::Leader
    }

    /// Bytes of writes that are not committed, as far as this node leads.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        self.raft.uncommitted_bytes() + self.writes.queued_bytes()
    }

    /// The longest entry that this node has appended or applied since its start; no value of the shard is longer.
    #[must_use]
    pub fn entry_bytes_max(&self) -> usize {
        self.entry_bytes_max
    }

    /// Takes a peer's message in.
    pub fn step(&mut self, message: Message) {
        if self.announced.is_none()
            && message.term >= self.raft.term()
            && let Body::Append { commit, .. } = message.body
        {
            self.announced = Some(commit);
        }
        self.raft.step(message);
    }

    /// Takes a write in; it is proposed with all others of the turn.
    pub fn write(&mut self, write: Write<'_>, to: R, deadline: Instant, space: Space) -> Result<(), Declined> {
        if !self.leads() {
            return Err(Declined::NotLeader(self.raft.leader()));
        }
        if space == Space::ReserveOnly && write.has_puts() {
            return Err(Declined::NoSpace);
        }
        if self.raft.refuses_proposals() {
            // Nobody takes proposals until the next leader does.
            return Err(Declined::NotLeader(None));
        }
        if !self.serves() {
            return Err(Declined::Diverged);
        }
        let room = self.uncommitted_bytes_max.saturating_sub(self.raft.uncommitted_bytes());
        self.writes.queue(write, to, deadline, room)
    }

    /// Takes a read in. A stale one is answered at once, one by a lease waits for the time, and any other for a round.
    pub fn read(&mut self, read: Read, to: R, deadline: Instant, out: &mut impl Outbox<R>) -> Result<(), Declined> {
        let is_unconfirmed = mutant!("scan-unconfirmed") && matches!(read.kind, ReadKind::Scan(_)) && self.leads();
        if read.consistency == Consistency::Stale || is_unconfirmed || mutant!("read-served-locally") {
            if self.ready_at.is_none_or(|index| self.machine.applied() < index) && !mutant!("stale-read-unready") {
                return Err(Declined::NotReady);
            }
            if !self.serves() {
                return Err(Declined::Diverged);
            }
            self.serve(&read.kind, to, out);
            return Ok(());
        }
        if self.leads() && !self.serves() {
            return Err(if self.raft.is_transferring() { Declined::NotLeader(None) } else { Declined::Diverged });
        }
        let id = self.reads.add(read.kind, to, deadline);
        if read.consistency == Consistency::Lease && self.leads() && self.raft.has_leases() {
            self.reads.await_clock(id);
            return Ok(());
        }
        self.raft.read_index(id).map_err(|not_leader| {
            self.reads.take(id);
            Declined::NotLeader(not_leader.0)
        })
    }

    /// Whether reads wait for the time, to be answered by a lease.
    #[must_use]
    pub fn has_lease_reads(&self) -> bool {
        self.reads.await_clocks()
    }

    /// Takes the time in for the reads that wait for it: those that a lease answers are served by [`Shard::drive`], the others
    /// wait for a round. All of them came before `now`, which is what a lease must still be held at.
    pub fn serve_by_lease(&mut self, now: Instant, out: &mut impl Outbox<R>) {
        for id in self.reads.take_awaiting() {
            if self.raft.read_by_lease(id, now) {
                continue;
            }
            if let Err(NotLeader(leader)) = self.raft.read_index(id)
                && let Some(lost) = self.reads.take(id)
            {
                out.read_lost(self.id, &lost.kind, lost.to, lost.deadline, leader);
            }
        }
    }

    /// Executes what Raft wants done, applies what is committed, and answers what is decided.
    pub fn drive<L: CoreLog>(&mut self, log: &mut L, out: &mut impl Outbox<R>) -> Result<(), Fatal> {
        self.propose(out);
        let durable = log.durable().map_err(|error| Fatal::failure(error.to_string()))?;
        let durable = if mutant!("sync-not-awaited") { log.last_batch() } else { durable };
        loop {
            self.complete(durable, log, out);
            let mut ready = std::mem::take(&mut self.ready);
            let anything = self.raft.ready(&mut ready);
            if anything {
                self.execute(&mut ready, log, out);
            }
            self.ready = ready;
            if !anything && self.pending.front().is_none_or(|pending| pending.batch > durable) {
                break;
            }
        }
        if mutant!("waiting-write-refused") && !self.leads() {
            let never = self.raft.deadline() + std::time::Duration::from_secs(86_400);
            self.writes.expire(never, |to, _| refuse_not_leader(to, None, out));
        }
        self.apply(log, out)?;
        let serves = self.serves();
        self.reads.serve_applied(self.machine.applied(), |kind, to, applied| {
            if !serves {
                return refuse_diverged(to, out);
            }
            serve(&self.machine, EntryId { index: applied, term: self.raft.term() }, kind, to, out);
        });
        self.comparison.reached(self.machine.checkpoints().next_back());
        Ok(())
    }

    /// Hands in entries that were read from the disk, for a follower that lags or for applying after a restart.
    pub fn fetched<L: CoreLog>(
        &mut self,
        fetched: Fetched,
        log: &mut L,
        out: &mut impl Outbox<R>,
    ) -> Result<(), Fatal> {
        match self.cold.finish(&fetched.fetch, fetched.result).map_err(Fatal::failure)? {
            cold::Finished::Send => {
                self.send_read(log, out);
                Ok(())
            }
            cold::Finished::Apply(entries) => {
                for entry in &entries {
                    if entry.id.index > self.raft.commit() {
                        break;
                    }
                    if entry.id.index == self.machine.applied().next() {
                        self.apply_entry(entry, out)?;
                    }
                }
                self.raft.applied(self.machine.applied());
                self.apply(log, out)
            }
            cold::Finished::Gone => Ok(()),
        }
    }

    /// Answers what has waited past its deadline: writes with *unknown*, reads with a definite *no*.
    pub fn expire(&mut self, now: Instant, out: &mut impl Outbox<R>) {
        self.writes.expire(now, |to, id| {
            let message = "no majority confirmed the write in time; it may or may not take effect";
            let code = if mutant!("expired-write-refused") { Code::NoLeader } else { Code::Timeout };
            out.reply(to, id, Err(Refusal { code, leader: None, message }));
        });
        self.reads.expire(now, |to| {
            let message = "no majority confirmed this node's leadership in time; the read was not served";
            out.reply(to, EntryId::ZERO, Err(Refusal { code: Code::NoLeader, leader: None, message }));
        });
    }

    /// Whether nothing waits for an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }

    /// Whether log batches of this shard are on their way to the disk.
    #[must_use]
    pub fn awaits_disk(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Has a turn apply no more entries than that, or none, as if the processor were too slow for more; `None` for as many
    /// as usual.
    pub fn apply_at_most(&mut self, entries: Option<u64>) {
        self.apply_entries_max = entries.unwrap_or(APPLY_ENTRIES_MAX);
    }

    /// Whether committed entries wait to be applied in the next turn.
    #[must_use]
    pub fn has_more_to_apply(&self) -> bool {
        self.apply_entries_max > 0 && self.machine.applied() < self.raft.commit() && !self.cold.applies()
    }

    /// Whether a leader is known, everything it had committed when it was first heard of is applied here, and nothing is
    /// left to be repaired.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.raft.is_damaged()
            && self.raft.leader().is_some()
            && self.ready_at.is_some_and(|index| self.machine.applied() >= index)
    }

    /// The shard as `status` shows it.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        ShardStatus {
            id: self.id,
            role: self.raft.role(),
            term: self.raft.term(),
            leader: self.raft.leader(),
            commit: self.raft.commit(),
            applied: self.machine.applied(),
            persisted: self.raft.persisted_index(),
            last: self.raft.last(),
            snapshot: self.raft.snapshot().map_or(EntryId::ZERO, |snapshot| snapshot.at),
            keys: self.machine.keys(),
            state_hash: self.machine.hash(),
            divergence: self.comparison.divergence().copied(),
            is_repairing: self.raft.is_damaged(),
        }
    }

    /// What else a scrape shows of it.
    #[must_use]
    pub fn figures(&self) -> ShardFigures {
        let (last, commit) = (self.raft.last().index, self.raft.commit());
        let leads = self.leads();
        let voters = self.raft.voters().iter();
        ShardFigures {
            shard: self.id,
            bytes: self.machine.bytes(),
            pending_bytes: if leads { self.uncommitted_bytes() as u64 } else { 0 },
            pending_entries: if leads { last.0.saturating_sub(commit.0) } else { 0 },
            elections: self.raft.elections_started(),
            overwritten: self.writes.failed().0,
            expired: self.writes.failed().1,
            lags: voters.filter_map(|node| Some((*node, last.0.saturating_sub(self.raft.matched(*node)?.0)))).collect(),
        }
    }

    fn serve(&self, kind: &ReadKind, to: R, out: &mut impl Outbox<R>) {
        serve(&self.machine, self.at(), kind, to, out);
    }

    /// The term and index of the state that is served now.
    fn at(&self) -> EntryId {
        EntryId { index: self.machine.applied(), term: self.raft.term() }
    }
}

fn serve<R>(machine: &StateMachine, at: EntryId, kind: &ReadKind, to: R, out: &mut impl Outbox<R>) {
    match kind {
        ReadKind::Get { key } => match machine.get(key) {
            Some((version, value)) => out.reply(to, at, Ok(Answer::Value { version, value })),
            None => {
                out.reply(to, at, Err(Refusal { code: Code::NotFound, leader: None, message: "no such key" }));
            }
        },
        ReadKind::Scan(scan) => {
            let page: Page<'_> = scan.page(machine);
            out.reply(to, at, Ok(Answer::Page(page)));
        }
    }
}

fn refuse_diverged<R>(to: R, out: &mut impl Outbox<R>) {
    let message = "this replica's state is another than that of others; ask again, or another node";
    out.reply(to, EntryId::ZERO, Err(Refusal { code: Code::Diverged, leader: None, message }));
}

fn refuse_not_leader<R>(to: R, leader: Option<NodeId>, out: &mut impl Outbox<R>) {
    let message = "this node does not lead the key's shard; nothing was written";
    out.reply(to, EntryId::ZERO, Err(Refusal { code: Code::NotLeader, leader, message }));
}
