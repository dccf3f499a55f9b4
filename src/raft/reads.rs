//! Linearizable reads by ReadIndex (Raft thesis §6.4), many to a round.
//!
//! A read waits in the queue until the leader has committed an entry of its own term: before that its commit index
//! may be behind what an earlier leader acknowledged. A round then takes the commit index, sends heartbeats with a
//! context that was never used before, and is confirmed by answers to exactly these from a majority: whoever answers
//! had not moved to a later term when it did, so nobody else had committed anything by the time the round began. One
//! round is in flight at a time; what is asked meanwhile joins the next.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::ReadContext;
use raftkv_protocol::types::{Index, NodeId};

use super::{NotLeader, Raft, ReadId, ReadReady};

/// The reads of a leader.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Wait for the next round.
    queued: Vec<ReadId>,
    /// Wait for the round in flight.
    waiting: Vec<ReadId>,
    /// The round in flight: its number, and the commit index when it began.
    round: Option<(u64, Index)>,
    /// The number of the newest round, over all terms of this process.
    counter: u64,
}

impl Reads {
    /// How many reads wait for a round and in one.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.queued.len(), self.waiting.len())
    }
}

impl Raft {
    /// Queues a linearizable read for the next round.
    pub fn read_index(&mut self, read: ReadId) -> Result<(), NotLeader> {
        if self.role != Role::Leader {
            return Err(NotLeader(self.leader));
        }
        self.reads.queued.push(read);
        Ok(())
    }

    /// Whether a round can be started: reads are queued, none is in flight, and an entry of this term is committed.
    pub fn reads_waiting(&self) -> bool {
        !self.reads.queued.is_empty()
            && self.reads.round.is_none()
            && (self.terms.term_at(self.commit) == Some(self.hard_state.term) || mutant!("read-before-own-commit"))
    }

    /// Whether a round is in flight: started, not confirmed, leadership not lost.
    pub fn read_round_in_flight(&self) -> bool {
        self.reads.round.is_some()
    }

    /// How many read rounds were begun since the process started.
    pub fn read_rounds(&self) -> u64 {
        self.reads.counter
    }

    /// Starts the next read round for all queued reads, if there are any. (A core starts the rounds of all its shards together.)
    pub fn start_read_round(&mut self) {
        if self.role != Role::Leader || !self.reads_waiting() {
            return;
        }
        self.reads.counter += u64::from(!mutant!("read-context-reused"));
        let index = if mutant!("read-at-applied") { self.applied } else { self.commit };
        self.reads.round = Some((self.reads.counter, index));
        std::mem::swap(&mut self.reads.queued, &mut self.reads.waiting);
        for progress in &mut self.progress {
            progress.confirmed &= mutant!("read-confirmation-kept");
        }
        self.send_heartbeats();
        self.try_confirm_reads();
    }

    /// The context of the round in flight, or of none.
    pub(super) fn read_context(&self) -> ReadContext {
        ReadContext {
            incarnation: self.config.incarnation,
            term: self.hard_state.term,
            counter: self.reads.round.map_or(0, |(counter, _)| counter),
        }
    }

    /// A follower answered a heartbeat with this context.
    pub(super) fn confirm_reads(&mut self, from: NodeId, context: ReadContext) {
        if self.reads.round.is_none() || context != self.read_context() {
            return;
        }
        if let Some(progress) = self.progress_mut(from) {
            progress.confirmed = true;
            self.try_confirm_reads();
        }
    }

    fn try_confirm_reads(&mut self) {
        let Some((_, index)) = self.reads.round else { return };
        let confirmed =
            |node| node == self.config.id || self.progress_of(node).is_some_and(|follower| follower.confirmed);
        if self.configuration.has_quorum(confirmed) || mutant!("read-unconfirmed") {
            self.reads.round = None;
            self.out.reads.extend(self.reads.waiting.drain(..).map(|read| ReadReady { read, index }));
        }
    }

    /// Leadership is lost, and with it every read that was not confirmed.
    pub(super) fn drop_reads(&mut self) {
        self.reads.round = None;
        self.out.reads_dropped.append(&mut self.reads.waiting);
        self.out.reads_dropped.append(&mut self.reads.queued);
    }
}
