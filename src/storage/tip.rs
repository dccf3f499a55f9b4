//! Where a log ends, and what is known there: what its next segment continues and restates.

use std::collections::{BTreeMap, VecDeque};

use raftkv_protocol::types::{EntryId, ShardId, SnapshotId};

use super::batch::Batch;
use super::record::{Record, Seal, ShardState};
use super::runs::Whereabouts;

/// From where on a shard's entries are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) shard: ShardId,
    /// The entry before the first that is needed.
    pub(crate) at: EntryId,
    /// The snapshot that it belongs to.
    pub(crate) snapshot: SnapshotId,
}

/// A segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub(crate) sequence: u64,
    /// Bytes that it takes on the disk.
    pub(crate) size: u64,
}

/// What is known of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardTip {
    pub(crate) state: ShardState,
    /// The segments that hold its entries, by sequence number.
    pub(crate) segments: Whereabouts<u64>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tip {
    /// The last segment and where it ends. `None` before the first.
    pub(crate) seal: Option<Seal>,
    /// Of the last segment.
    pub(crate) epoch: u64,
    /// Of the last batch.
    pub(crate) number: u64,
    /// What is known of each shard there.
    pub(crate) shards: BTreeMap<ShardId, ShardTip>,
    /// The segments that are not written to any more, oldest first.
    pub(crate) sealed: VecDeque<SegmentFile>,
}

impl ShardTip {
    fn begin_after(&mut self, start: &Start) {
        let ShardState { start: before, last, .. } = self.state;
        if before.index <= start.at.index && start.at.index <= last.index {
            self.state.start = start.at;
            self.state.snapshot = start.snapshot;
            self.segments.compact(start.at.index, last.index);
        }
    }
}

impl Tip {
    /// Takes note of a record that is placed in this segment.
    pub(crate) fn record(&mut self, record: &Record<'_>, segment: u64) {
        match *record {
            Record::Entry { shard, id, .. } => {
                let tip = self.shards.entry(shard).or_default();
                tip.state.last = id;
                tip.segments.entry(id.index, segment);
            }
            Record::Copy { shard, id, .. } => {
                self.shards.entry(shard).or_default().segments.copy(id.index, segment);
            }
            Record::Copied { shard, first, last } => {
                let ShardTip { state, segments } = self.shards.entry(shard).or_default();
                let end = state.last.index;
                if let Some(copied) = segments.copied(state.start.index, first, last.min(end)) {
                    segments.use_copies(copied, end);
                }
                segments.drop_copies();
            }
            Record::Reset { shard, start, snapshot } => {
                let tip = self.shards.entry(shard).or_default();
                (tip.state.start, tip.state.last, tip.state.snapshot) = (start, start, snapshot);
                tip.segments.reset();
            }
            Record::Restate { shard, state } => {
                self.begin_after(&[Start { shard, at: state.start, snapshot: state.snapshot }]);
            }
            Record::HardState { .. } | Record::Watermark | Record::Seal(_) | Record::Reused => {}
            Record::Continued { .. } => {}
        }
    }

    /// Takes note of what is no longer needed.
    pub(crate) fn begin_after(&mut self, starts: &[Start]) {
        for start in starts {
            if let Some(tip) = self.shards.get_mut(&start.shard) {
                tip.begin_after(start);
            }
        }
    }

    /// Adds what is known of each shard to a batch.
    pub(crate) fn restate(&self, batch: &mut Batch) {
        for (&shard, tip) in &self.shards {
            batch.push(&Record::Restate { shard, state: tip.state });
            batch.set_hard_state(shard, tip.state.hard_state);
        }
    }

    /// Whether nothing that is needed lies in the segments up to this one.
    fn is_needless(&self, sequence: u64) -> bool {
        let oldest = self.shards.values().filter_map(|tip| tip.segments.live().oldest()).min();
        oldest.is_none_or(|oldest| oldest > sequence || mutant!("needed-segment-released"))
    }

    /// Whether any segment could go if what is known here were restated.
    pub(crate) fn has_needless(&self) -> bool {
        self.sealed.front().is_some_and(|oldest| self.is_needless(oldest.sequence))
    }

    /// Bytes of segments that could go if the one after `current` began now.
    pub(crate) fn needless_bytes(&self, current: SegmentFile) -> u64 {
        let segments = self.sealed.iter().chain([&current]);
        segments.take_while(|segment| self.is_needless(segment.sequence)).map(|segment| segment.size).sum()
    }

    /// Hands out the segments that nothing needs, oldest first. What is known here must be restated behind them, durably.
    pub(crate) fn take_needless(&mut self) -> Vec<SegmentFile> {
        let needless = self.sealed.iter().take_while(|segment| self.is_needless(segment.sequence)).count();
        self.sealed.drain(..needless).collect()
    }
}
