//! The log of a replica with its entries, as it was written or as it is on disk.

use raftkv_protocol::types::{Entry, EntryId, Index};

/// Entries after `start`, without a gap.
#[derive(Clone, Debug, Default)]
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

    /// The entry at this index, if it is in the log.
    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(self.start.index.0 + 1)? as usize)
    }

    /// Whether it holds this entry, or starts after it.
    pub(super) fn matches(&self, id: EntryId) -> bool {
        id == self.start || self.entry(id.index).is_some_and(|entry| entry.id == id)
    }

    /// The entries with these indexes.
    pub(super) fn range(&self, indexes: std::ops::Range<u64>) -> Option<&[Entry]> {
        let offset = |index: u64| index.checked_sub(self.start.index.0 + 1).map(|offset| offset as usize);
        self.entries.get(offset(indexes.start)?..offset(indexes.end)?)
    }

    /// Adds entries; the first discards everything from its index on.
    pub(super) fn put(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let at = first.id.index.0.checked_sub(self.start.index.0 + 1).expect("the start is not overwritten") as usize;
        assert!(at <= self.entries.len(), "a gap in the log before {}", first.id);
        self.entries.truncate(at);
        self.entries.extend_from_slice(entries);
    }

    /// Discards everything: the log starts after this entry.
    pub(super) fn reset(&mut self, start: EntryId) {
        *self = Log { start, entries: Vec::new() };
    }

    /// Discards what comes before and with this entry.
    pub(super) fn compact(&mut self, start: EntryId) {
        assert!(self.matches(start), "compacted to {start}, which is not there");
        self.entries.drain(..(start.index.0 - self.start.index.0) as usize);
        self.start = start;
    }

    /// Where two logs hold the same id, they are the same up to there, as far back as both go.
    pub(super) fn check_matching(&self, other: &Log) {
        let begin = self.start.index.0.max(other.start.index.0) + 1;
        let end = self.last().index.0.min(other.last().index.0) + 1;
        let (Some(one), Some(other)) = (self.range(begin..end), other.range(begin..end)) else { return };
        let same = one.iter().zip(other).rposition(|(a, b)| a.id == b.id).map_or(0, |last| last + 1);
        assert_eq!(one[..same], other[..same], "two logs agree at {same} after {begin} and differ before");
    }
}
