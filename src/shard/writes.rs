//! Writes on their way: queued for the turn's proposal, then waiting for their entry to be applied.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use raftkv_protocol::client::{Answer, Batch, Code, Condition, Existed, Refusal};
use raftkv_protocol::types::{Entry, EntryId, Index};

use crate::state_machine::command::Command;
use crate::state_machine::{Outcome, encode_batch, encode_delete, encode_put};

use super::Declined;

/// A client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    /// Write a key.
    Put {
        /// Within the limit.
        key: &'a [u8],
        /// Within the limit.
        value: &'a [u8],
        /// Checked at apply.
        condition: Condition,
    },
    /// Remove a key.
    Delete {
        /// Within the limit.
        key: &'a [u8],
        /// Checked at apply.
        condition: Condition,
    },
    /// Write and remove several keys of the shard, all or none.
    Batch(Batch<'a>),
}

impl Write<'_> {
    /// Whether anything is written, rather than only removed.
    pub(super) fn has_puts(&self) -> bool {
        match self {
            Write::Put { .. } => true,
            Write::Delete { .. } => false,
            Write::Batch(batch) => batch.has_puts(),
        }
    }

    fn form(&self) -> Form {
        if matches!(self, Write::Batch(_)) { Form::Batch } else { Form::Single }
    }
}

/// How a write was asked for, and is answered. A batch of one operation is the same command as that operation alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Single,
    Batch,
}

/// What became of a waiting write when the entry at its index was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is that entry.
    Applied,
    /// Another leader's entry took its place: it never happens.
    Overwritten,
}

#[derive(Debug)]
struct Waiting<R> {
    id: EntryId,
    deadline: Instant,
    form: Form,
    /// `None` once it was answered *unknown*.
    to: Option<R>,
}

impl<R> Waiting<R> {
    /// What the entry that was applied at its index means for it.
    fn decided_by(&self, applied: EntryId) -> Decided {
        let is_same = self.id == applied || mutant!("overwritten-write-confirmed");
        if is_same { Decided::Applied } else { Decided::Overwritten }
    }
}

/// All writes of a shard that are not decided.
#[derive(Debug)]
pub(super) struct Writes<R> {
    /// The turn's commands back to back; `ends` cuts them.
    block: Vec<u8>,
    ends: Vec<usize>,
    queued: Vec<(R, Instant, Form)>,
    /// By rising index, one to an index.
    waiting: VecDeque<Waiting<R>>,
    /// Proposed in an earlier term and gone from the own log, so that a later write of this node may wait at the same
    /// index. Another node may still have the entry and bring it back: it is decided when that index is applied.
    displaced: Vec<Waiting<R>>,
    spare: Vec<Bytes>,
    /// Writes that another leader's entry took the place of, and those whose outcome was not known in time.
    failed: (u64, u64),
}

impl<R> Default for Writes<R> {
    fn default() -> Self {
        let (block, ends, queued) = (Vec::new(), Vec::new(), Vec::new());
        let (displaced, spare) = (Vec::new(), Vec::new());
        Writes { block, ends, queued, waiting: VecDeque::new(), displaced, spare, failed: (0, 0) }
    }
}

impl<R: Copy> Writes<R> {
    /// Queues a write for the turn's proposal, unless all that is queued then exceeds `bytes_max`.
    pub(super) fn queue(
        &mut self,
        write: Write<'_>,
        to: R,
        deadline: Instant,
        bytes_max: usize,
    ) -> Result<(), Declined> {
        let before = self.block.len();
        match write {
            Write::Put { key, value, condition } => encode_put(key, value, condition, &mut self.block),
            Write::Delete { key, condition } => encode_delete(key, condition, &mut self.block),
            Write::Batch(batch) => {
                encode_batch(batch.operations(), &mut self.block).map_err(|_| Declined::InvalidBatch)?;
            }
        }
        if self.block.len() > bytes_max {
            self.block.truncate(before);
            return Err(Declined::Overloaded);
        }
        self.ends.push(self.block.len());
        self.queued.push((to, deadline, write.form()));
        Ok(())
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.block.len()
    }

    /// The queued commands, all slices of one allocation; `None` if there are none.
    pub(super) fn take_commands(&mut self) -> Option<Vec<Bytes>> {
        if self.ends.is_empty() {
            return None;
        }
        let room = self.block.len();
        let block = Bytes::from(std::mem::replace(&mut self.block, Vec::with_capacity(room)));
        let mut commands = std::mem::take(&mut self.spare);
        let mut start = 0;
        for end in self.ends.drain(..) {
            commands.push(block.slice(start..end));
            start = end;
        }
        Some(commands)
    }

    /// Takes the emptied vector back for the next turn.
    pub(super) fn give_back(&mut self, mut commands: Vec<Bytes>) {
        commands.clear();
        self.spare = commands;
    }

    /// The queued writes have become entries, the first of which is `first`.
    pub(super) fn proposed(&mut self, first: EntryId) {
        while self.waiting.back().is_some_and(|back| back.id.index >= first.index) {
            self.displaced.extend(self.waiting.pop_back());
        }
        let mut id = first;
        for (to, deadline, form) in self.queued.drain(..) {
            self.waiting.push_back(Waiting { id, deadline, form, to: Some(to) });
            id.index = id.index.next();
        }
    }

    pub(super) fn refuse_queued(&mut self, mut refuse: impl FnMut(R)) {
        for (to, ..) in self.queued.drain(..) {
            refuse(to);
        }
    }

    /// An entry was applied: decides everybody who waits at its index. Entries are applied one by one.
    pub(super) fn applied(&mut self, id: EntryId, mut decide: impl FnMut(R, Form, Decided)) {
        while let Some(front) = self.waiting.front() {
            if front.id.index > id.index {
                break;
            }
            if let Some(to) = front.to {
                let decided = front.decided_by(id);
                self.failed.0 += u64::from(decided == Decided::Overwritten);
                decide(to, front.form, decided);
            }
            self.waiting.pop_front();
        }
        if !self.displaced.is_empty() {
            for waiting in self.displaced.extract_if(.., |waiting| waiting.id.index <= id.index) {
                if let Some(to) = waiting.to {
                    let decided = waiting.decided_by(id);
                    self.failed.0 += u64::from(decided == Decided::Overwritten);
                    decide(to, waiting.form, decided);
                }
            }
        }
    }

    /// The state has gone on to `upto` by a snapshot, over entries that nobody here has seen: whether the writes that wait
    /// up to there are among them cannot be said.
    pub(super) fn skipped(&mut self, upto: Index, mut unknown: impl FnMut(R, EntryId)) {
        let is_skipped = |waiting: &Waiting<R>| waiting.id.index <= upto;
        let count = self.waiting.partition_point(is_skipped);
        for waiting in self.waiting.drain(..count).chain(self.displaced.extract_if(.., |waiting| is_skipped(waiting))) {
            if let Some(to) = waiting.to {
                self.failed.1 += 1;
                unknown(to, waiting.id);
            }
        }
    }

    /// Gives up on the writes whose deadline has passed. They keep their place: their entries may be applied yet.
    pub(super) fn expire(&mut self, now: Instant, mut unknown: impl FnMut(R, EntryId)) {
        for waiting in self.waiting.iter_mut().chain(&mut self.displaced) {
            if waiting.deadline <= now
                && let Some(to) = waiting.to.take()
            {
                self.failed.1 += 1;
                unknown(to, waiting.id);
            }
        }
        self.displaced.retain(|waiting| waiting.to.is_some());
    }

    /// How many writes another leader's entry took the place of, and of how many the outcome was not known in time.
    pub(super) fn failed(&self) -> (u64, u64) {
        self.failed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.waiting.iter().chain(&self.displaced).all(|waiting| waiting.to.is_none())
    }
}

/// Replies to a write whose entry was applied with this outcome.
pub(super) fn answer(entry: &Entry, form: Form, outcome: Outcome, reply: impl FnOnce(Result<Answer<'_>, Refusal<'_>>)) {
    let refusal = |code, message| Err(Refusal { code, leader: None, message });
    match (form, outcome) {
        (Form::Single, Outcome::Put) => reply(Ok(Answer::Put)),
        (Form::Single, Outcome::Deleted { existed }) => reply(Ok(Answer::Deleted { existed })),
        (Form::Single, Outcome::ConditionFailed) => {
            reply(refusal(Code::PreconditionFailed, "the key's version is not the one that the condition asks for"));
        }
        (Form::Batch, Outcome::Put | Outcome::Deleted { existed: false }) => {
            reply(Ok(Answer::Batch { existed: Existed(0) }));
        }
        (Form::Batch, Outcome::Deleted { existed: true }) => reply(Ok(Answer::Batch { existed: Existed(1) })),
        (_, Outcome::Batch { existed }) => reply(Ok(Answer::Batch { existed })),
        (Form::Batch, Outcome::ConditionFailed) => {
            reply(refusal(Code::PreconditionFailed, &failed_condition(entry, 0)));
        }
        (_, Outcome::BatchConditionFailed { operation }) => {
            reply(refusal(Code::PreconditionFailed, &failed_condition(entry, operation)));
        }
        // A client's write is a command, and a command has an outcome.
        (_, Outcome::Nothing) => reply(refusal(Code::BadRequest, "the entry was empty")),
    }
}

/// Which of a batch's conditions did not hold.
fn failed_condition(entry: &Entry, operation: usize) -> String {
    let command = Command::decode(&entry.body).ok();
    let named = command.as_ref().and_then(|command| command.operations().nth(operation));
    let (number, count) = (operation + 1, command.map_or(0, |command| command.operations().len()));
    let words = named.map_or_else(String::new, |operation| format!(" ({operation})"));
    format!("the condition of operation {number} of {count}{words} does not hold: nothing of the batch was written")
}
