//! The log of a test replica, in memory or on its disk, with its entries.

use raftkv_protocol::types::{Entry, EntryId, Index};

/// Entries after `start`, without a gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Log {
    /// The entry before the first.
    pub(super) start: EntryId,
    pub(super) entries: Vec<Entry>,
}

impl Log {
    /// The last entry, or the start.
    pub(super) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.start, |entry| entry.id)
    }

    /// Adds entries; the first discards everything from its index on.
    pub(super) fn put(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.id) else { return };
        let follows = self.start.index < first.index && first.index <= self.last().index.next();
        assert!(follows, "a gap in the log: {first} after {} to {}", self.start, self.last());
        self.entries.truncate(self.offset(first.index));
        self.entries.extend_from_slice(entries);
    }

    /// Discards everything: the log starts after this entry.
    pub(super) fn reset(&mut self, start: EntryId) {
        *self = Log { start, entries: Vec::new() };
    }

    /// Discards what comes before and with this entry.
    pub(super) fn compact(&mut self, start: EntryId) {
        assert!(self.matches(start), "{start} is not in the log that goes from {} to {}", self.start, self.last());
        self.entries.drain(..self.offset(start.index) + 1);
        self.start = start;
    }

    /// Whether it holds this entry, or starts after it.
    pub(super) fn matches(&self, id: EntryId) -> bool {
        id == self.start || self.entry(id.index).is_some_and(|entry| entry.id == id)
    }

    /// The entry at this index.
    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        (index > self.start.index).then(|| self.entries.get(self.offset(index))).flatten()
    }

    /// The entries from `first` up to `end`, exclusive.
    pub(super) fn range(&self, first: Index, end: Index) -> &[Entry] {
        &self.entries[self.offset(first)..self.offset(end)]
    }

    /// Where two logs hold the same id, they are the same up to there, as far back as both go.
    pub(super) fn check_matching(&self, other: &Log) {
        let begin = self.start.index.max(other.start.index).next();
        let end = self.last().index.min(other.last().index).next();
        if begin < end {
            let (one, other) = (self.range(begin, end), other.range(begin, end));
            let same = one.iter().zip(other).rposition(|(a, b)| a.id == b.id).map_or(0, |last| last + 1);
            assert_eq!(one[..same], other[..same], "two logs agree at {same} after {begin} and differ before");
        }
    }

    fn offset(&self, index: Index) -> usize {
        (index.0 - self.start.index.0 - 1) as usize
    }
}
