//! Leading: replication, commitment, heartbeats, the quorum check, and handing over.
//!
//! **How a follower learns the commit index**: with the next append or the next heartbeat. No message is sent for its
//! sake alone: under load the next append leaves at once, and when idle only a stale read on a follower could notice
//! the hundred milliseconds, while a message for each follower and commit batch would cost a system call and a wake-up.

use std::time::Instant;

use bytes::Bytes;
use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{AppendResult, Body, Promise, ReadContext};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index, NodeId};

use super::progress::{Probe, Progress, Revival, State};
use super::timing::next_beat;
use super::{NotLeader, Outgoing, ProposeError, Raft};

/// When a leader has something to do. A time that is missing is set at the next tick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaderTimes {
    /// The next heartbeat.
    beat: Option<Instant>,
    /// The end of the window within which a majority must be heard.
    quorum: Option<Instant>,
}

/// A leadership on its way to another voter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Who is to lead.
    pub(super) to: NodeId,
    /// When it is given up; set at the next tick.
    deadline: Option<Instant>,
    /// Whether the target was told to stand for election.
    was_asked: bool,
}

impl LeaderTimes {
    /// The earliest, `None` if one is to be set first.
    pub(super) fn earliest(&self) -> Option<Instant> {
        Some(self.beat?.min(self.quorum?))
    }
}

impl Transfer {
    /// When it is given up, `None` if that is to be set first.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Raft {
    /// The election is won. The no-op lets everything before it be committed (§5.4.2, §8).
    pub(super) fn become_leader(&mut self) {
        self.role = Role::Leader;
        self.leader = Some(self.config.id);
        self.leader_times = LeaderTimes::default();
        self.has_stood_aside = false;
        self.timer.calm();
        self.votes.clear();
        let last = self.terms.last();
        for progress in &mut self.progress {
            progress.reset(last.index);
        }
        self.uncommitted_bytes = self.terms.bytes_between(self.commit, last.index);
        self.append_own(EntryKind::Noop, Bytes::new());
    }

    /// What only a leader has ends with the leadership.
    pub(super) fn stop_leading(&mut self) {
        self.drop_reads();
        self.transfer = None;
        self.uncommitted_bytes = 0;
        self.timer.restart();
    }

    /// Drains `commands`, each one entry; returns the id of the first (the others follow, of the same term).
    pub fn propose(&mut self, kind: EntryKind, commands: &mut Vec<Bytes>) -> Result<EntryId, ProposeError> {
        if self.role != Role::Leader {
            return Err(ProposeError::NotLeader(self.leader));
        }
        if let Some(transfer) = self.transfer.filter(|_| self.refuses_proposals()) {
            return Err(ProposeError::Transferring(transfer.to));
        }
        let first = EntryId { index: self.terms.last().index.next(), term: self.hard_state.term };
        self.out.append.reserve(commands.len());
        for body in commands.drain(..) {
            self.append_own(kind, body);
        }
        Ok(first)
    }

    fn append_own(&mut self, kind: EntryKind, body: Bytes) {
        let id = EntryId { index: self.terms.last().index.next(), term: self.hard_state.term };
        self.uncommitted_bytes += body.len();
        self.append_entry(Entry { id, kind, body });
    }

    /// Sends every follower what it lacks, as far as the limits allow.
    pub(super) fn send_appends(&mut self) {
        for at in 0..self.progress.len() {
            while self.send_append(at) {}
        }
    }

    /// Sends one append, if there is something to send and room for it. Whether there was.
    fn send_append(&mut self, at: usize) -> bool {
        let progress = &self.progress[at];
        let is_due = match progress.state {
            State::Probe(probe) => probe == Probe::Due,
            State::Replicate => progress.next <= self.terms.last().index,
            State::Snapshot { .. } => false,
        };
        if !is_due {
            return false;
        }
        let Some(prev) = self.terms.id_at(progress.next.prev()) else {
            self.offer_snapshot(at);
            return false;
        };
        let (end, bytes) = self.terms.chunk(progress.next, self.config.append_bytes_max);
        if !progress.has_room(bytes, self.config.inflight_bytes_max, self.config.inflight_messages_max) {
            return false;
        }
        self.progress[at].sent(end, bytes);
        self.push_append(at, prev, end);
        true
    }

    fn push_append(&mut self, at: usize, prev: EntryId, end: Index) {
        let Progress { node, link, .. } = self.progress[at];
        let body = Body::Append { link, prev, commit: self.commit, entries: Vec::new() };
        let message = self.message(node, self.hard_state.term, body);
        self.out.messages.push(Outgoing { message, entries: prev.index.next().0..end.0 });
    }

    /// The answer to an append.
    pub(super) fn on_append_reply(&mut self, from: NodeId, link: u32, result: AppendResult) {
        let (start, last) = (self.terms.start().index, self.terms.last().index);
        let Some(progress) = self.progress_mut(from) else { return };
        progress.active = true;
        if link != progress.link {
            return;
        }
        match result {
            AppendResult::Accepted { matched } if matched <= last => {
                if progress.accepted(matched, start, last) {
                    self.advance_commit();
                    self.hand_over_if_ready();
                }
            }
            AppendResult::Rejected { prev, hint } if hint.index <= prev && prev <= last => {
                // The follower's log may agree with this one up to the hint; this one narrows it further, as far as it
                // reaches back.
                let hint = if hint.index < start { hint } else { self.terms.last_compatible(hint) };
                if let Some(progress) = self.progress_mut(from) {
                    progress.rejected(prev, hint.index, start);
                }
            }
            AppendResult::Accepted { .. } | AppendResult::Rejected { .. } => self.dropped_messages += 1,
        }
    }

    /// The answer to a heartbeat.
    pub(super) fn on_heartbeat_reply(&mut self, from: NodeId, context: ReadContext, promise: Promise) {
        let Some(progress) = self.progress_mut(from) else { return };
        progress.active = true;
        progress.answered = true;
        self.take_promise(from, context, promise);
        self.confirm_reads(from, context);
    }

    /// Sees to it that nothing waits for ever for an answer that was lost. Once a beat, and not with every heartbeat
    /// reply: read rounds bring many, and an append may just wait for the follower's disk.
    fn revive_stalled(&mut self) {
        let newest = self.snapshot.map_or(Index(0), |snapshot| snapshot.at.index);
        for at in 0..self.progress.len() {
            match self.progress[at].beat(newest) {
                Revival::None => {}
                Revival::Question => self.ask_what_arrived(at),
                Revival::Offer => self.offer_snapshot(at),
                Revival::Notice => self.send_offer(at),
            }
        }
    }

    /// An empty append tells whether the entries before it arrived, whatever the window says.
    fn ask_what_arrived(&mut self, at: usize) {
        let end = self.progress[at].next;
        if let Some(prev) = self.terms.id_at(end.prev()) {
            self.push_append(at, prev, end);
        }
    }

    /// Commits what a majority has on disk, if it ends with an entry of this term (§5.4.2). The leader's own disk
    /// counts like any other.
    pub(super) fn advance_commit(&mut self) {
        let reached = self.configuration.committed(|node| self.reached(node));
        let is_own_term = self.terms.term_at(reached) == Some(self.hard_state.term) || mutant!("older-term-committed");
        if reached > self.commit && is_own_term {
            self.uncommitted_bytes -= self.terms.bytes_between(self.commit, reached);
            self.commit = reached;
        }
    }

    /// How far a member's log is durable and like this one, as far as the leader knows.
    pub(super) fn reached(&self, node: NodeId) -> Index {
        if node == self.config.id {
            return if mutant!("leader-counts-unsynced") {
                self.terms.last().index
            } else {
                self.persistence.persisted()
            };
        }
        self.progress_of(node).map_or(Index(0), |progress| progress.matched)
    }

    /// Tells every follower that this node leads.
    pub(super) fn send_heartbeats(&mut self) {
        let (context, sent_us) = (self.read_context(), self.sent_us());
        for at in 0..self.progress.len() {
            let Progress { node, matched, .. } = self.progress[at];
            self.send(node, Body::Heartbeat { commit: self.commit.min(matched), context, sent_us });
        }
    }

    /// The clock of a leader. After a pause of more than T nothing can be said of who was there.
    pub(super) fn tick_leader(&mut self, was_paused: bool) {
        let window_end = self.now + self.config.election_timeout;
        let quorum = *self.leader_times.quorum.get_or_insert(window_end);
        if self.now >= quorum {
            let hears_majority = self.configuration.has_quorum(|node| self.is_active(node));
            if !hears_majority && !was_paused {
                self.become_follower(None);
                return;
            }
            self.leader_times.quorum = Some(window_end);
            self.progress.iter_mut().for_each(Progress::window_ends);
        }
        if let Some(transfer) = &mut self.transfer
            && self.now >= *transfer.deadline.get_or_insert(window_end)
        {
            self.transfer = None;
        }
        let following = next_beat(self.config.epoch, self.config.heartbeat, self.now);
        let beat = *self.leader_times.beat.get_or_insert(following);
        if self.now >= beat {
            self.leader_times.beat = Some(following);
            self.revive_stalled();
            self.send_heartbeats();
        }
    }

    fn is_active(&self, node: NodeId) -> bool {
        node == self.config.id || self.progress_of(node).is_some_and(|progress| progress.active)
    }

    /// Hands leadership to a voter; anybody else is ignored. Given up after an election timeout.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), NotLeader> {
        if self.role != Role::Leader {
            return Err(NotLeader(self.leader));
        }
        let is_under_way = self.transfer.is_some_and(|transfer| transfer.to == to);
        if to != self.config.id && self.configuration.is_voter(to) && !is_under_way {
            self.give_lease_up();
            self.transfer = Some(Transfer { to, deadline: None, was_asked: false });
            self.hand_over_if_ready();
        }
        Ok(())
    }

    /// A voter will not help to elect anybody now. If it is the one that was told to stand, nobody waits for it.
    pub(super) fn on_refusal(&mut self, from: NodeId) {
        self.transfer = self.transfer.filter(|transfer| transfer.to != from || !transfer.was_asked);
    }

    /// Whether leadership is being handed to another node.
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether proposals are left to the next leader, as leadership is being handed to it.
    pub fn refuses_proposals(&self) -> bool {
        self.is_transferring() && !mutant!("transfer-takes-proposals")
    }

    /// The target has everything: it may stand for election. What this leader has taken in is committed first, so that
    /// it can still say what became of it: it may be long until it hears of that as a follower, if its disk hangs.
    pub(super) fn hand_over_if_ready(&mut self) {
        let Some(Transfer { to, was_asked: false, .. }) = self.transfer else { return };
        let last = self.terms.last().index;
        if self.reached(to) != last || self.commit != last {
            return;
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.was_asked = true;
        }
        self.has_stood_aside = true;
        self.send(to, Body::TimeoutNow);
    }
}
