//! One shard's part of the log as the loop knows it: the newest entries in memory, and for all of them the batches
//! that hold them.
//!
//! A *run* is the consecutive entries of one shard in one batch. Runs are what the index consists of (16 bytes each,
//! not one entry each), and what is evicted from memory.

use std::collections::{VecDeque, vec_deque};

use raftkv_protocol::types::{Entry, Index};

use super::BatchNumber;

/// What an entry costs in memory besides its body, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Consecutive entries of one shard in one batch: from here to the next run, or to the shard's last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Index,
    pub(crate) batch: BatchNumber,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ShardTail {
    /// The entry before the first in the log.
    start: Index,
    /// The last entry in the log; `start` if there is none.
    last: Index,
    /// The newest entries, up to `last`.
    entries: VecDeque<Entry>,
    /// Ordered by index and by batch.
    runs: VecDeque<Run>,
}

/// The memory that an entry takes.
pub(crate) fn entry_memory_bytes(entry: &Entry) -> usize {
    entry.body.len() + ENTRY_OVERHEAD_BYTES
}

impl ShardTail {
    /// A shard whose entries after `start` up to `last` are on disk only.
    pub(crate) fn recovered(start: Index, last: Index, runs: VecDeque<Run>) -> ShardTail {
        ShardTail { start, last, entries: VecDeque::new(), runs }
    }

    pub(crate) fn last(&self) -> Index {
        self.last
    }

    /// Whether the entry is in the log.
    pub(crate) fn contains(&self, index: Index) -> bool {
        self.start < index && index <= self.last
    }

    /// The first entry in memory; one past the last if there is none.
    fn first_in_memory(&self) -> Index {
        Index(self.last.0 + 1 - self.entries.len() as u64)
    }

    /// Discards everything from `from` on; returns the memory that this set free.
    pub(crate) fn truncate(&mut self, from: Index) -> usize {
        assert!(self.start < from, "entry {from} was asked to replace what is behind the log's start {}", self.start);
        if self.last < from {
            return 0;
        }
        let first = self.first_in_memory();
        let kept = (from.0.max(first.0) - first.0) as usize;
        let freed = self.entries.drain(kept..).map(|entry| entry_memory_bytes(&entry)).sum();
        self.last = from.prev();
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        freed
    }

    /// Discards everything: the log starts after `start`. Returns the memory that this set free.
    pub(crate) fn reset(&mut self, start: Index) -> usize {
        let freed = self.entries.drain(..).map(|entry| entry_memory_bytes(&entry)).sum();
        (self.start, self.last) = (start, start);
        self.runs.clear();
        freed
    }

    /// Adds the next entry. Returns whether a run begins with it.
    pub(crate) fn push(&mut self, entry: Entry, batch: BatchNumber) -> bool {
        assert_eq!(entry.id.index, self.last.next(), "an entry must follow the shard's last");
        let begins = self.runs.back().is_none_or(|run| run.batch != batch);
        if begins {
            self.runs.push_back(Run { first: entry.id.index, batch });
        }
        self.last = entry.id.index;
        self.entries.push_back(entry);
        begins
    }

    /// Forgets the entries that are in memory for this batch, which is durable, and everything older. Returns the
    /// memory that this set free.
    pub(crate) fn evict(&mut self, batch: BatchNumber) -> usize {
        let later = self.runs.partition_point(|run| run.batch <= batch);
        let upto = self.runs.get(later).map_or(self.last, |run| run.first.prev());
        let mut freed = 0;
        while self.first_in_memory() <= upto {
            let Some(entry) = self.entries.pop_front() else { break };
            freed += entry_memory_bytes(&entry);
        }
        freed
    }

    /// These entries, if all of them are in memory.
    pub(crate) fn range(&self, first: Index, last: Index) -> Option<vec_deque::Iter<'_, Entry>> {
        let base = self.first_in_memory();
        if first < base || last > self.last || last.next() < first {
            return None;
        }
        let from = (first.0 - base.0) as usize;
        Some(self.entries.range(from..from + (last.next().0 - first.0) as usize))
    }

    /// The entries in memory from `first` on, if that one is.
    pub(crate) fn range_from(&self, first: Index) -> Option<vec_deque::Iter<'_, Entry>> {
        self.contains(first).then(|| self.range(first, self.last)).flatten()
    }

    /// Where the entries from `first` to `last` are: each run with the first and last of them that it holds.
    pub(crate) fn locate(&self, first: Index, last: Index) -> impl Iterator<Item = (BatchNumber, Index, Index)> {
        let begin = self.runs.partition_point(|run| run.first <= first).saturating_sub(1);
        let end_of = move |at: usize| self.runs.get(at + 1).map_or(self.last, |run| run.first.prev());
        (begin..self.runs.len())
            .map(move |at| (self.runs[at].batch, self.runs[at].first.max(first), end_of(at).min(last)))
            .take_while(move |(_, from, _)| *from <= last)
    }
}
