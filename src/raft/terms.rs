//! What the Raft core remembers of its log: the term and the body size of every entry, and nothing else.
//!
//! Terms are run-length encoded, since a log has few of them; sizes are one `u32` each and bound an append in bytes
//! without reading the log. This module knows entries by their ids only; it decides nothing.

use raftkv_protocol::types::{EntryId, Index, Term};

use crate::blocks::Blocks;

/// Sizes that are kept together: to let go of a million of them takes as many steps fewer.
const SIZES: usize = 4_096;

/// The log's terms and sizes from `start` (exclusive) to its end.
#[derive(Debug)]
pub(super) struct Terms {
    /// The entry before the first.
    start: EntryId,
    /// The first entry of each run of equal terms, ascending in index and in term.
    runs: Vec<EntryId>,
    /// The body size of every entry, the first that of `start.index + 1`.
    sizes: Blocks<u32, SIZES>,
}

impl Terms {
    /// A log that starts after `start` and holds these entries.
    pub(super) fn new(start: EntryId, entries: &[(Term, u32)]) -> Terms {
        let mut terms = Terms { start, runs: Vec::new(), sizes: Blocks::default() };
        for &(term, size) in entries {
            terms.push(term, size);
        }
        terms
    }

    /// The entry before the first.
    pub(super) fn start(&self) -> EntryId {
        self.start
    }

    /// The last entry, or the start if there is none.
    pub(super) fn last(&self) -> EntryId {
        match self.runs.last() {
            Some(run) => EntryId { index: Index(self.start.index.0 + self.sizes.len() as u64), term: run.term },
            None => self.start,
        }
    }

    /// The term of an entry or of the start; `None` outside the log.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last().index || index < self.start.index {
            return None;
        }
        // Nearly every question is about the newest run.
        if let Some(run) = self.runs.last()
            && index >= run.index
        {
            return Some(run.term);
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        Some(after.checked_sub(1).map_or(self.start.term, |at| self.runs[at].term))
    }

    /// The id of the entry at this index, or of the start.
    pub(super) fn id_at(&self, index: Index) -> Option<EntryId> {
        self.term_at(index).map(|term| EntryId { index, term })
    }

    /// Whether this very entry is in the log, or is its start.
    pub(super) fn matches(&self, id: EntryId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// Adds an entry at the end. Terms never fall along a log.
    pub(super) fn push(&mut self, term: Term, size: u32) -> EntryId {
        let last = self.last();
        debug_assert!(term >= last.term, "an entry of term {term} after {last}");
        let id = EntryId { index: last.index.next(), term };
        if self.runs.last().is_none_or(|run| run.term != term) {
            self.runs.push(id);
        }
        self.sizes.push(size);
        id
    }

    /// Discards the entry at `index` and everything after it.
    pub(super) fn truncate_from(&mut self, index: Index) {
        debug_assert!(index > self.start.index, "the start is not an entry");
        let keep = index.0.saturating_sub(self.start.index.0 + 1);
        self.sizes.truncate(usize::try_from(keep).unwrap_or(usize::MAX), |gone| drop(gone));
        self.runs.truncate(self.runs.partition_point(|run| run.index < index));
    }

    /// Discards everything up to and including `start`, which is in the log.
    pub(super) fn compact(&mut self, start: EntryId) {
        debug_assert!(self.matches(start), "{start} is not in the log, which ends at {}", self.last());
        let count = usize::try_from(start.index.0 - self.start.index.0).unwrap_or(usize::MAX);
        let begun = self.runs.partition_point(|run| run.index <= start.index);
        let end = self.runs.get(begun).map_or(self.last().index, |next| next.index.prev());
        if begun > 0 && end > start.index {
            // The run that holds the new start goes on behind it.
            self.runs[begun - 1].index = start.index.next();
            self.runs.drain(..begun - 1);
        } else {
            self.runs.drain(..begun);
        }
        self.sizes.drop_first(count, |gone| drop(gone));
        self.start = start;
    }

    /// The last entry at or before `id.index` with a term of at most `id.term`: the last place where a log that
    /// holds `id` and this one may still agree. The start if there is none.
    pub(super) fn last_compatible(&self, id: EntryId) -> EntryId {
        let last = self.last();
        let end = id.index.min(last.index);
        let usable = self.runs.partition_point(|run| run.index <= end && run.term <= id.term);
        if usable == 0 {
            return self.start;
        }
        let run_end = self.runs.get(usable).map_or(last.index, |next| next.index.prev());
        EntryId { index: end.min(run_end), term: self.runs[usable - 1].term }
    }

    /// How far an append that begins at `first` goes: the index after its last entry and the bytes of its bodies. It
    /// holds at most `bytes_max` bytes, or a single entry.
    pub(super) fn chunk(&self, first: Index, bytes_max: usize) -> (Index, usize) {
        let mut bytes = 0;
        let mut end = first;
        let skip = first.0.saturating_sub(self.start.index.0 + 1);
        for &size in self.sizes.behind(usize::try_from(skip).unwrap_or(usize::MAX)) {
            if bytes + size as usize > bytes_max && end > first {
                break;
            }
            bytes += size as usize;
            end = end.next();
        }
        (end, bytes)
    }

    /// The bytes of the bodies after `after`, up to and including `upto`.
    pub(super) fn bytes_between(&self, after: Index, upto: Index) -> usize {
        let offset = |index: Index| {
            let count = index.0.saturating_sub(self.start.index.0);
            usize::try_from(count).unwrap_or(usize::MAX).min(self.sizes.len())
        };
        let (from, to) = (offset(after), offset(upto));
        self.sizes.behind(from).take(to.saturating_sub(from)).map(|size| *size as usize).sum()
    }
}
