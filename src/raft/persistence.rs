//! What of the log and of the term is durable, learned from completions.
//!
//! Every `Ready` that writes gets a [`WriteId`]; several may be on their way to the disk. A completion says that its
//! write and everything before it is durable. Between the write and its completion the log may have been truncated
//! and may have grown again, even to the very same ids (10@3, then 10@4, then 10@3 again), while the disk holds any
//! prefix of these writes. So a truncation lowers the end of every write on its way as well as `persisted`: what a
//! write still claims when it completes has been in the log, untouched, ever since it was written.
//!
//! A reset (a snapshot takes the log's place) is a truncation down to nothing, even where the old log and the new one
//! hold the same ids: until the reset itself is durable the disk holds a log that starts elsewhere. So `persisted` is 0
//! from the reset on, and the first write that may raise it again is the one that holds the reset.

use std::collections::VecDeque;

use raftkv_protocol::types::{EntryId, HardState, Index};

use super::WriteId;

/// One write on its way to the disk.
#[derive(Clone, Copy, Debug)]
struct Write {
    id: WriteId,
    /// The end of the log when it was written, lowered by truncations since. 0@0 if the log was reset since.
    last: EntryId,
    /// Term and vote when it was written.
    hard_state: HardState,
}

/// The writes on their way, and what is durable.
#[derive(Debug)]
pub(super) struct Persistence {
    /// Oldest first, ids ascending.
    writes: VecDeque<Write>,
    newest: WriteId,
    /// The log is durable up to here; 0 while a reset is on its way to the disk.
    persisted: Index,
    /// The newest term and vote that are durable.
    durable: HardState,
    /// The term and vote of this write and of those before it are durable, though they are on their way.
    ahead: WriteId,
    /// The newest term and vote that were handed out to be written.
    written: HardState,
    /// Writes that claimed less when they completed than when they began.
    overtaken: u64,
}

impl Persistence {
    /// After a start: everything that was recovered is durable.
    pub(super) fn new(persisted: Index, durable: HardState) -> Persistence {
        Persistence {
            writes: VecDeque::new(),
            newest: WriteId(0),
            persisted,
            durable,
            ahead: WriteId(0),
            written: durable,
            overtaken: 0,
        }
    }

    /// The log is durable up to here; 0 while a reset is on its way to the disk.
    pub(super) fn persisted(&self) -> Index {
        self.persisted
    }

    /// The newest term and vote that are durable.
    pub(super) fn durable(&self) -> HardState {
        self.durable
    }

    /// The term and vote, if they are yet to be handed out.
    pub(super) fn take_unwritten(&mut self, hard_state: HardState) -> Option<HardState> {
        let unwritten = hard_state != self.written;
        self.written = hard_state;
        let vote = hard_state.vote.filter(|_| !mutant!("vote-not-written"));
        unwritten.then_some(HardState { vote, ..hard_state })
    }

    /// A write leaves, after which the log ends at `last` on disk.
    pub(super) fn begin(&mut self, last: EntryId) -> WriteId {
        self.newest = WriteId(self.newest.0 + 1);
        self.writes.push_back(Write { id: self.newest, last, hard_state: self.written });
        self.newest
    }

    /// This write and all before it are durable.
    pub(super) fn complete(&mut self, write: WriteId) {
        while let Some(&done) = self.writes.front()
            && (done.id <= write || mutant!("completion-counts-later-writes"))
        {
            self.writes.pop_front();
            self.persisted = self.persisted.max(done.last.index);
            if done.id > self.ahead {
                self.durable = done.hard_state;
            }
        }
    }

    /// This term and vote are durable, though the writes that hold them may not be. Tells the last of these.
    pub(super) fn went_ahead(&mut self, hard_state: HardState) -> Option<WriteId> {
        let last = self.writes.iter().rev().find(|write| write.hard_state == hard_state)?;
        if last.id > self.ahead {
            (self.ahead, self.durable) = (last.id, hard_state);
        }
        Some(self.ahead)
    }

    /// The log now ends at `last`: what is or becomes durable beyond it is no longer part of it.
    pub(super) fn truncated(&mut self, last: EntryId) {
        if !mutant!("truncation-keeps-persisted") {
            self.persisted = self.persisted.min(last.index);
        }
        let is_cut = |write: &&mut Write| write.last.index > last.index && !mutant!("stale-completion-counts");
        for write in self.writes.iter_mut().filter(is_cut) {
            write.last = last;
            self.overtaken += 1;
        }
    }

    /// The log was discarded and now starts elsewhere: what is or becomes durable of the old one is no part of it.
    pub(super) fn reset(&mut self) {
        if mutant!("reset-keeps-claims") {
            return;
        }
        self.persisted = Index(0);
        for write in self.writes.iter_mut().filter(|write| write.last != EntryId::ZERO) {
            write.last = EntryId::ZERO;
            self.overtaken += 1;
        }
    }

    /// How often a truncation or a reset has overtaken a write on its way to the disk.
    pub(super) fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// What the writes on their way still claim, oldest first.
    pub(super) fn pending(&self) -> impl Iterator<Item = (WriteId, EntryId)> {
        self.writes.iter().map(|write| (write.id, write.last))
    }
}
