//! Reads on their way: waiting for the time or for a round, then for their index to be applied.

use std::collections::VecDeque;
use std::time::Instant;

use raftkv_protocol::client::{Consistency, Item, Page, Scan};
use raftkv_protocol::types::Index;

use crate::raft::ReadId;
use crate::state_machine::StateMachine;

/// A client's read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// How fresh.
    pub consistency: Consistency,
    /// What.
    pub kind: ReadKind,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// One key.
    Get {
        /// Which.
        key: Box<[u8]>,
    },
    /// A page of the shard's keys.
    Scan(Box<ShardScan>),
}

/// A page of one shard's keys, with its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardScan {
    /// As in [`Scan::prefix`].
    pub prefix: Box<[u8]>,
    /// As in [`Scan::start`].
    pub start: Box<[u8]>,
    /// As in [`Scan::end`].
    pub end: Box<[u8]>,
    /// As in [`Scan::cursor`].
    pub cursor: Box<[u8]>,
    /// As in [`Scan::reverse`].
    pub reverse: bool,
    /// At most so many items.
    pub items_max: usize,
    /// At most so many bytes of keys and values, but at least one item.
    pub bytes_max: usize,
}

impl ShardScan {
    /// The page.
    #[must_use]
    pub fn page<'m>(&self, machine: &'m StateMachine) -> Page<'m> {
        let scan = Scan {
            prefix: &self.prefix,
            start: &self.start,
            end: &self.end,
            cursor: &self.cursor,
            reverse: self.reverse,
            ..Scan::default()
        };
        let mut page = Page::default();
        let mut bytes = 0;
        machine.scan(&scan, |key, version, value| {
            bytes += key.len() + value.len();
            let full = page.items.len() == self.items_max || (bytes > self.bytes_max && !page.items.is_empty());
            if full {
                page.more = true;
            } else {
                page.items.push(Item { key, version, value });
            }
            !full
        });
        page
    }
}

/// A read that is not served.
#[derive(Debug)]
pub(super) struct Pending<R> {
    pub(super) kind: ReadKind,
    pub(super) to: R,
    pub(super) deadline: Instant,
}

/// All reads of a shard that are not served. A read's id is its position in the order of arrival, so that a late
/// answer of Raft about a read that was given up meets nobody.
#[derive(Debug)]
pub(super) struct Reads<R> {
    first: u64,
    pending: VecDeque<Option<Pending<R>>>,
    /// Wait for a time that is read after they came, to be answered by a lease.
    awaiting: Vec<ReadId>,
    /// Leadership is confirmed; served once the index is applied, in this order. A read by the lease may have a higher index than
    /// one of a round that was confirmed after it: that one is served a little later than it could be.
    confirmed: VecDeque<(Index, ReadId)>,
}

impl<R> Default for Reads<R> {
    fn default() -> Self {
        Reads { first: 0, pending: VecDeque::new(), awaiting: Vec::new(), confirmed: VecDeque::new() }
    }
}

impl<R> Reads<R> {
    pub(super) fn add(&mut self, kind: ReadKind, to: R, deadline: Instant) -> ReadId {
        self.pending.push_back(Some(Pending { kind, to, deadline }));
        ReadId(self.first + self.pending.len() as u64 - 1)
    }

    pub(super) fn await_clock(&mut self, id: ReadId) {
        self.awaiting.push(id);
    }

    pub(super) fn await_clocks(&self) -> bool {
        !self.awaiting.is_empty()
    }

    pub(super) fn take_awaiting(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.awaiting)
    }

    pub(super) fn confirmed(&mut self, id: ReadId, index: Index) {
        self.confirmed.push_back((index, id));
    }

    /// Serves every confirmed read whose index is applied.
    pub(super) fn serve_applied(&mut self, applied: Index, mut serve: impl FnMut(&ReadKind, R, Index)) {
        while let Some(&(index, id)) = self.confirmed.front() {
            if index > applied {
                return;
            }
            self.confirmed.pop_front();
            if let Some(pending) = self.take(id) {
                serve(&pending.kind, pending.to, applied);
            }
        }
    }

    /// Gives up on the reads whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant, mut give_up: impl FnMut(R)) {
        for slot in &mut self.pending {
            if slot.as_ref().is_some_and(|pending| pending.deadline <= now)
                && let Some(pending) = slot.take()
            {
                give_up(pending.to);
            }
        }
        self.forget_front();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets a read; `None` if that was done already.
    pub(super) fn take(&mut self, id: ReadId) -> Option<Pending<R>> {
        let slot = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        let pending = self.pending.get_mut(slot)?.take();
        self.forget_front();
        pending
    }

    fn forget_front(&mut self) {
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.first += 1;
        }
    }
}
