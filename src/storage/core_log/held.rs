//! What the log holds on the disk: the segments that there are, where the batches are in them, and which shard keeps the
//! oldest from being let go.

use std::collections::VecDeque;

use raftkv_protocol::types::ShardId;

use super::FileLog;
use crate::blocks::Blocks;
use crate::storage::BatchNumber;
use crate::storage::stats::Change;
use crate::storage::syncer::Place;
use crate::storage::tip::SegmentFile;

/// Places that are kept together.
const PLACES: usize = 256;

/// Where the batches are that are durable, as far back as anything in them is in the log.
#[derive(Debug)]
pub(super) struct Places {
    /// The last batch whose place was forgotten.
    forgotten: BatchNumber,
    places: Blocks<Place, PLACES>,
}

impl Places {
    /// Of the batches from number 1 on.
    pub(super) fn new(places: Vec<Place>) -> Places {
        Places { forgotten: BatchNumber(0), places: places.into_iter().collect() }
    }

    /// The last batch that is durable.
    pub(super) fn last(&self) -> BatchNumber {
        BatchNumber(self.forgotten.0 + self.places.len() as u64)
    }

    /// Where a batch is, if it is durable.
    pub(super) fn get(&self, batch: BatchNumber) -> Option<Place> {
        let at = batch.0.checked_sub(self.forgotten.0 + 1)?;
        self.places.get(at as usize).copied()
    }

    /// The next batch is durable.
    pub(super) fn push(&mut self, place: Place) {
        self.places.push(place);
    }

    /// Nobody will ask for a batch before this one.
    pub(super) fn forget_before(&mut self, batch: BatchNumber) {
        let needless = usize::try_from(batch.0.saturating_sub(self.forgotten.0 + 1)).unwrap_or(usize::MAX);
        let gone = needless.min(self.places.len());
        self.places.drop_first(gone, |gone| drop(gone));
        self.forgotten.0 += gone as u64;
    }
}

/// The segments that there are, oldest first.
#[derive(Debug)]
pub(super) struct Held {
    segments: VecDeque<SegmentFile>,
}

impl Held {
    pub(super) fn new(segments: VecDeque<SegmentFile>) -> Held {
        Held { segments }
    }

    pub(super) fn note(&mut self, change: Change) {
        match change {
            Change::Begun(segment) => self.segments.push_back(segment),
            Change::Gone(sequence) => self.segments.retain(|segment| segment.sequence != sequence),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.segments.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Sequence number of the oldest.
    pub(super) fn oldest(&self) -> u64 {
        self.segments.front().map_or(0, |segment| segment.sequence)
    }

    /// Sequence number of the one that is written to.
    pub(super) fn current(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.sequence)
    }

    /// Bytes of the segments from `first` on that come before `end`.
    fn bytes_between(&self, first: u64, end: u64) -> u64 {
        let between = |segment: &&SegmentFile| first <= segment.sequence && segment.sequence < end;
        self.segments.iter().filter(between).map(|segment| segment.size).sum()
    }
}

impl FileLog {
    /// See [`CoreLog::pinned_by`](crate::storage::CoreLog::pinned_by).
    pub(super) fn find_pinning(&self) -> Option<(ShardId, u64)> {
        let current = self.held.current();
        let (mut first, mut next): (Option<(BatchNumber, u64, ShardId)>, u64) = (None, current);
        for (&shard, tail) in &self.shards {
            let Some(batch) = tail.oldest_batch() else { continue };
            let Some(Place { segment, .. }) = self.places.get(batch) else { continue };
            match first {
                Some((earlier, _, _)) if earlier <= batch => next = segment.min(next),
                later => {
                    next = later.map_or(next, |(_, segment, _)| segment.min(next));
                    first = Some((batch, segment, shard));
                }
            }
        }
        let (_, segment, shard) = first.filter(|(_, segment, _)| *segment < current)?;
        Some((shard, self.held.bytes_between(segment, next)))
    }

    /// How many places and runs are remembered, for tests of a long life.
    #[cfg(test)]
    pub(in crate::storage) fn index_size(&self) -> usize {
        self.places.places.len() + self.shards.values().map(crate::storage::tail::ShardTail::run_count).sum::<usize>()
    }
}
