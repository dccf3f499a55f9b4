//! What is done of a [`Ready`] and for it: entries to the log, messages out, what is committed to the state machine.

use raftkv_protocol::client::{Code, Refusal};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index};

use crate::error::Fatal;
use crate::raft::{Outgoing, ProposeError, Ready};
use crate::storage::record::entry_bytes;
use crate::storage::{BatchNumber, CoreLog};

use super::cold::{Entries, Place, going_on_from};
use super::rebuilding::APPLY_ANEW_MAX;
use super::{Outbox, Pending, Shard, refuse_not_leader, writes};

impl<R: Copy> Shard<R> {
    /// Proposes the writes of this turn, each as one entry.
    pub(super) fn propose(&mut self, out: &mut impl Outbox<R>) {
        let Some(mut commands) = self.writes.take_commands() else {
            return;
        };
        match self.raft.propose(EntryKind::Command, &mut commands) {
            Ok(first) => self.writes.proposed(first),
            Err(error) => {
                let leader = match error {
                    ProposeError::NotLeader(leader) => leader,
                    ProposeError::Transferring(to) => Some(to),
                };
                self.writes.refuse_queued(|to| refuse_not_leader(to, leader, out));
            }
        }
        self.writes.give_back(commands);
    }

    /// Tells Raft which writes are durable, and sends what had to wait for them.
    pub(super) fn complete<L: CoreLog>(&mut self, durable: BatchNumber, log: &mut L, out: &mut impl Outbox<R>) {
        self.remind_of_snapshot();
        while self.pending.front().is_some_and(|pending| pending.batch <= durable) {
            let Some(pending) = self.pending.pop_front() else { break };
            self.raft.persisted(pending.write);
            for outgoing in pending.after_sync {
                self.send(outgoing, log, out);
            }
        }
        if let Some(hard_state) = log.hard_state_ahead(self.id) {
            self.complete_ahead(hard_state, log, out);
        }
    }

    /// The term and vote did not wait for a batch that has no place on a full disk. Nor does what waited for them.
    fn complete_ahead<L: CoreLog>(&mut self, hard_state: HardState, log: &mut L, out: &mut impl Outbox<R>) {
        let Some(upto) = self.raft.hard_state_persisted(hard_state) else { return };
        let ahead = self.pending.iter_mut().filter(|pending| pending.write <= upto);
        for outgoing in ahead.flat_map(|pending| std::mem::take(&mut pending.after_sync)).collect::<Vec<_>>() {
            self.send(outgoing, log, out);
        }
    }

    /// One `Ready`, top to bottom.
    pub(super) fn execute<L: CoreLog>(&mut self, ready: &mut Ready, log: &mut L, out: &mut impl Outbox<R>) {
        if let Some(hard_state) = ready.hard_state {
            log.set_hard_state(self.id, hard_state);
        }
        if let Some((start, snapshot)) = ready.reset {
            log.reset(self.id, start, snapshot);
        }
        if let Some(last) = ready.append.last() {
            let mut bytes = 0;
            for entry in &ready.append {
                self.entry_bytes_max = self.entry_bytes_max.max(entry.body.len());
                bytes += entry_bytes(entry) as u64;
            }
            self.compaction.appended(bytes, last.id.index);
            log.append(self.id, &mut ready.append);
        }
        if mutant!("after-sync-at-once") {
            ready.messages.append(&mut ready.after_sync);
        }
        for outgoing in ready.messages.drain(..) {
            self.send(outgoing, log, out);
        }
        if let Some(write) = ready.write {
            let after_sync = std::mem::take(&mut ready.after_sync);
            let early = u64::from(mutant!("completed-a-batch-early"));
            let batch = BatchNumber(log.last_batch().0.saturating_sub(early));
            self.pending.push_back(Pending { batch, write, after_sync });
        }
        for read in ready.reads.drain(..) {
            self.reads.confirmed(read.read, read.index);
        }
        self.offer = ready.install.take().or(self.offer);
        self.elsewhere = ready.notice.take().or(self.elsewhere);
        let leader = self.raft.leader();
        for read in ready.reads_dropped.drain(..) {
            if let Some(lost) = self.reads.take(read) {
                out.read_lost(self.id, &lost.kind, lost.to, lost.deadline, leader);
            }
        }
    }

    fn send<L: CoreLog>(&mut self, outgoing: Outgoing, log: &mut L, out: &mut impl Outbox<R>) {
        let Outgoing { message, entries } = outgoing;
        if self.cold.has_unsent()
            && let Some(matched) = self.raft.matched(message.to)
            && self.cold.matched(message.to, matched)
        {
            self.send_read(log, out);
        }
        let place = self.cold.place(&message);
        if entries.is_empty() {
            // An append without entries asks about those that were sent.
            if place == Place::First {
                out.send(&message, std::iter::empty());
            }
            return;
        }
        let (mut first, last) = (Index(entries.start), Index(entries.end - 1));
        let mut message = message;
        if let Place::Behind(upto) = place
            && upto >= first
        {
            let Some(term) = self.raft.term_at(upto).filter(|_| upto < last) else { return };
            message = going_on_from(EntryId { index: upto, term }, message);
            first = upto.next();
        }
        let tail = log.tail(self.id, first, last);
        let is_in_memory = tail.is_some();
        if let Some(tail) = tail.filter(|_| place == Place::First) {
            return out.send(&message, tail);
        }
        if let Some(fetch) = self.cold.wait(self.id, message, (first, last), is_in_memory) {
            log.fetch(fetch);
        }
    }

    /// Sends the appends that waited for entries which have been read.
    pub(super) fn send_read<L: CoreLog>(&mut self, log: &mut L, out: &mut impl Outbox<R>) {
        while let Some(unsent) = self.cold.next_to_send() {
            if !self.leads() || unsent.message.term != self.raft.term() {
                continue;
            }
            if let Entries::Read(entries) = &unsent.entries {
                out.send(&unsent.message, entries.iter());
                continue;
            }
            if let Some(tail) = log.tail(self.id, unsent.first(), unsent.last) {
                out.send(&unsent.message, tail);
                continue;
            }
            // They have left the memory meanwhile.
            let fetch = self.cold.read_first(self.id, unsent);
            log.fetch(fetch);
        }
    }

    /// Applies what is committed, as far as it is in memory and the turn's share goes; asks for the rest.
    pub(super) fn apply<L: CoreLog>(&mut self, log: &mut L, out: &mut impl Outbox<R>) -> Result<(), Fatal> {
        self.note_readiness();
        self.note_caught_up();
        let first = self.machine.applied().next();
        let commit = self.raft.commit();
        if first > commit || self.cold.applies() || self.apply_entries_max == 0 {
            return Ok(());
        }
        let entries_max = if self.is_catching_up() { APPLY_ANEW_MAX } else { self.apply_entries_max };
        let last = Index(commit.0.min(first.0 + entries_max.min(self.apply_entries_max) - 1));
        let Some(tail) = log.tail(self.id, first, last) else {
            let fetch = self.cold.apply(self.id, first, last);
            log.fetch(fetch);
            return Ok(());
        };
        for entry in tail {
            self.apply_entry(entry, out)?;
        }
        self.raft.applied(self.machine.applied());
        self.note_caught_up();
        Ok(())
    }

    pub(super) fn apply_entry(&mut self, entry: &Entry, out: &mut impl Outbox<R>) -> Result<(), Fatal> {
        self.entry_bytes_max = self.entry_bytes_max.max(entry.body.len());
        let outcome = self
            .machine
            .apply(entry)
            .map_err(|error| Fatal::failure(format!("shard {}: entry {}: {}", self.id, entry.id, error.0)))?;
        if let Some(corruption) = self.machine.corruption().copied() {
            self.state_corrupt(&corruption);
        }
        if let Some(reached) = self.machine.checkpoints().next_back().filter(|reached| reached.index == entry.id.index)
        {
            self.comparison.passed(reached);
        }
        let serves = self.serves();
        self.writes.applied(entry.id, |to, form, decided| match decided {
            writes::Decided::Applied if !serves => {
                // It is committed; what it does to a state that is the right one, this replica cannot say.
                let message =
                    "this replica's state is another than that of others; the write may or may not take effect";
                out.reply(to, entry.id, Err(Refusal { code: Code::Timeout, leader: None, message }));
            }
            writes::Decided::Applied => writes::answer(entry, form, outcome, |result| out.reply(to, entry.id, result)),
            writes::Decided::Overwritten => refuse_not_leader(to, self.raft.leader(), out),
        });
        Ok(())
    }

    /// Remembers where the first leader after the start had committed to. A leader's own term must have committed
    /// something first: until then its commit index may lag what is committed. And a follower must have got as far as
    /// the leader was: the first append that it gets may bring only a part.
    fn note_readiness(&mut self) {
        if self.ready_at.is_some() {
            return;
        }
        let commit = self.raft.commit();
        let caught_up = self.leads() || self.announced.is_some_and(|announced| announced <= commit);
        if caught_up && self.raft.leader().is_some() && self.raft.term_at(commit) == Some(self.raft.term()) {
            self.ready_at = Some(commit);
        }
    }
}
