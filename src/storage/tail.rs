//! One shard's part of the log as the loop knows it: the newest entries in memory, and for all of them the batches
//! that hold them.
//!
//! The index is made of [`Runs`] (one for each batch that holds entries of the shard, or several for a large one, not one
//! for each entry). What is evicted from memory are whole runs.

use raftkv_protocol::types::{Entry, Index};

use super::BatchNumber;
use super::runs::{Extent, Part, Runs};
use crate::blocks::Blocks;

/// Entries that are kept together: their places come and go at a time.
const ENTRIES: usize = 256;
/// What an entry costs in memory besides its body, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ShardTail {
    /// The entry before the first in the log.
    start: Index,
    /// The last entry in the log; `start` if there is none.
    last: Index,
    /// The newest entries, up to `last`, and before them those that were let go of and are to be reclaimed.
    entries: Blocks<Entry, ENTRIES>,
    /// How many the latter are.
    released: usize,
    runs: Runs<BatchNumber>,
}

/// The memory that an entry takes.
pub(crate) fn entry_memory_bytes(entry: &Entry) -> usize {
    entry.body.len() + ENTRY_OVERHEAD_BYTES
}

/// The memory that these entries took.
fn memory_bytes(entries: impl Iterator<Item = Entry>) -> usize {
    entries.map(|entry| entry_memory_bytes(&entry)).sum()
}

impl ShardTail {
    /// A shard whose entries after `start` up to `last` are on disk only.
    pub(crate) fn recovered(start: Index, last: Index, runs: Runs<BatchNumber>) -> ShardTail {
        ShardTail { start, last, entries: Blocks::default(), released: 0, runs }
    }

    pub(crate) fn start(&self) -> Index {
        self.start
    }

    pub(crate) fn last(&self) -> Index {
        self.last
    }

    /// Whether the entry is in the log.
    pub(crate) fn contains(&self, index: Index) -> bool {
        self.start < index && index <= self.last
    }

    /// The first entry of the log in memory; one past the last if there is none.
    fn first_in_memory(&self) -> Index {
        Index(self.last.0 + 1 - (self.entries.len() - self.released) as u64)
    }

    /// Discards everything from `from` on; returns the memory that this set free.
    pub(crate) fn truncate(&mut self, from: Index) -> usize {
        assert!(self.start < from, "entry {from} was asked to replace what is behind the log's start {}", self.start);
        if self.last < from {
            return 0;
        }
        let first = self.first_in_memory();
        let kept = (from.0.max(first.0) - first.0) as usize;
        let mut freed = 0;
        self.entries.truncate(self.released + kept, |gone| freed += memory_bytes(gone));
        self.last = from.prev();
        self.runs.truncate(from);
        freed
    }

    /// Forgets the entries up to `start`. Those that were in memory are to be reclaimed.
    pub(crate) fn compact(&mut self, start: Index) {
        assert!(start <= self.last, "a log that ends at {} was asked to start after entry {start}", self.last);
        if start <= self.start {
            return;
        }
        let gone = (start.0 + 1).saturating_sub(self.first_in_memory().0);
        self.start = start;
        self.runs.compact(start, self.last);
        self.released += gone as usize;
    }

    /// Forgets everything: the log is empty and starts after `start`. Entries that were in memory are to be reclaimed.
    pub(crate) fn reset(&mut self, start: Index) {
        self.runs.clear();
        (self.start, self.last) = (start, start);
        self.released = self.entries.len();
    }

    /// Whether entries that are not in the log any more are in memory still.
    pub(crate) fn is_reclaimable(&self) -> bool {
        self.released > 0
    }

    /// Drops up to `count_max` entries that are not in the log any more; returns the memory that this set free.
    pub(crate) fn reclaim(&mut self, count_max: usize) -> usize {
        let count = self.released.min(count_max);
        self.released -= count;
        self.drop_first(count)
    }

    fn drop_first(&mut self, count: usize) -> usize {
        let mut freed = 0;
        self.entries.drop_first(count, |gone| freed += memory_bytes(gone));
        freed
    }

    /// Adds the next entry, which lies in these bytes of the batch.
    pub(crate) fn push(&mut self, entry: Entry, batch: BatchNumber, extent: Extent) {
        assert_eq!(entry.id.index, self.last.next(), "an entry must follow the shard's last");
        self.runs.push(entry.id.index, batch, extent);
        self.last = entry.id.index;
        self.entries.push(entry);
    }

    /// The oldest batch that holds any of the entries.
    pub(crate) fn oldest_batch(&self) -> Option<BatchNumber> {
        self.runs.oldest()
    }

    #[cfg(test)]
    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The batch of the first entry that is in memory.
    pub(crate) fn oldest_in_memory(&self) -> Option<BatchNumber> {
        self.runs_in_memory().next().map(|part| part.at)
    }

    fn runs_in_memory(&self) -> impl Iterator<Item = Part<BatchNumber>> {
        self.runs.parts(self.first_in_memory(), self.last, self.last)
    }

    /// Drops the entries that are in memory for this batch, which is durable, and those before them. Returns the
    /// memory that this set free.
    pub(crate) fn evict(&mut self, batch: BatchNumber) -> usize {
        let durable = self.runs_in_memory().take_while(|part| part.at <= batch);
        let gone: u64 = durable.map(|part| part.last.0 + 1 - part.first.0).sum();
        let released = std::mem::take(&mut self.released);
        self.drop_first(released + gone as usize)
    }

    /// These entries, if all of them are in memory.
    pub(crate) fn range(&self, first: Index, last: Index) -> Option<impl Iterator<Item = &Entry>> {
        let base = self.first_in_memory();
        if first < base || last > self.last || last.next() < first {
            return None;
        }
        let count = last.next().0 - first.0;
        Some(self.entries.behind(self.released + (first.0 - base.0) as usize).take(count as usize))
    }

    /// The entries in memory from `first` on, if that one is.
    pub(crate) fn range_from(&self, first: Index) -> Option<impl Iterator<Item = &Entry>> {
        self.contains(first).then(|| self.range(first, self.last)).flatten()
    }

    /// Where the entries from `first` to `last` are: the batches, with the first and last of them that each holds.
    pub(crate) fn locate(&self, first: Index, last: Index) -> impl Iterator<Item = Part<BatchNumber>> {
        self.runs.parts(first, last, self.last)
    }

    /// The entries from `first` to `last` are in other batches now.
    pub(crate) fn relocate(&mut self, first: Index, last: Index, to: Runs<BatchNumber>) {
        self.runs.replace(first, last, to, self.last);
    }
}
