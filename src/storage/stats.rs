//! What the log's threads count, for the metrics and for whoever watches the disk's health.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use raftkv_protocol::types::ShardId;

use super::LogError;
use super::tip::SegmentFile;
use crate::boottime;
use crate::metrics::figures::LogFigures;
use crate::metrics::histogram::{SharedHistogram, micros};

/// Counters of one core's log since it was opened, and what it takes on the disk now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Syncs of segments.
    pub syncs: u64,
    /// Batches placed, watermarks and restatements included.
    pub batches: u64,
    /// Bytes placed, padding included.
    pub bytes: u64,
    /// Segments taken into use.
    pub segments: u64,
    /// Times that a batch had no place and waited for one.
    pub space_waits: u64,
    /// How long placing and syncing the last batch took.
    pub sync_latency_last_us: u64,
    /// The longest so far.
    pub sync_latency_max_us: u64,
    /// The sum of all.
    pub sync_latency_sum_us: u64,
    /// Bytes that all files of the log take, spares included.
    pub disk_bytes: u64,
    /// Bytes of entries that are in memory.
    pub memory_bytes: u64,
    /// Segments that the log consists of.
    pub held_segments: u64,
    /// Bytes of these.
    pub held_bytes: u64,
    /// Sequence number of the oldest of them.
    pub oldest_segment: u64,
    /// How often a shard's oldest entries were written again, see [`CoreLog::copy_forward`](super::CoreLog::copy_forward).
    pub copied_forward: u64,
    /// Spots of the log that the start found not to be as they were written, though nothing was lost there.
    pub blemishes: u64,
    /// See [`CoreLog::pinned_by`](super::CoreLog::pinned_by).
    pub pinned_by: Option<(ShardId, u64)>,
}

/// What the workers tell of the segments that the log consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This is the newest now.
    Begun(SegmentFile),
    /// The one with this sequence number, the oldest, is none any more.
    Gone(u64),
}

/// What the threads of one log share besides their channels.
#[derive(Debug)]
pub(crate) struct Shared {
    opened: Instant,
    syncs: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    segments: AtomicU64,
    space_waits: AtomicU64,
    sync_latency_last_us: AtomicU64,
    sync_latency_max_us: AtomicU64,
    sync_latency_sum_us: AtomicU64,
    sync_times: SharedHistogram<4, 22>,
    batch_bytes: SharedHistogram<12, 15>,
    batch_entries: SharedHistogram<0, 15>,
    /// Microseconds after `opened`, plus one; 0 when no sync is in flight.
    sync_since: AtomicU64,
    /// Only the reserved segments are left.
    pub(crate) reserve_only: AtomicBool,
    /// Times that the disk had no room for a segment.
    refusals: AtomicU64,
    /// The syncer has a batch and no segment to place it in.
    waits_for_space: AtomicBool,
    changes_in: Sender<Change>,
    changes: Receiver<Change>,
    /// Set once: the log has ended.
    failure: OnceLock<LogError>,
}

impl Shared {
    pub(crate) fn new() -> Shared {
        let (changes_in, changes) = unbounded();
        Shared {
            opened: boottime::now(),
            syncs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            space_waits: AtomicU64::new(0),
            sync_latency_last_us: AtomicU64::new(0),
            sync_latency_max_us: AtomicU64::new(0),
            sync_latency_sum_us: AtomicU64::new(0),
            sync_times: SharedHistogram::default(),
            batch_bytes: SharedHistogram::default(),
            batch_entries: SharedHistogram::default(),
            sync_since: AtomicU64::new(0),
            reserve_only: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            waits_for_space: AtomicBool::new(false),
            changes_in,
            changes,
            failure: OnceLock::new(),
        }
    }

    /// The log ends, whoever of its workers met the error. Returns the first one: all others follow from it.
    pub(crate) fn fail(&self, error: LogError) -> LogError {
        self.failure.get_or_init(|| error).clone()
    }

    /// Why the log has ended. Nothing is written any more.
    pub(crate) fn failure(&self) -> Option<&LogError> {
        self.failure.get()
    }

    /// Whether it has.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// The counters.
    pub(crate) fn stats(&self) -> LogStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            syncs: load(&self.syncs),
            batches: load(&self.batches),
            bytes: load(&self.bytes),
            segments: load(&self.segments),
            space_waits: load(&self.space_waits),
            sync_latency_last_us: load(&self.sync_latency_last_us),
            sync_latency_max_us: load(&self.sync_latency_max_us),
            sync_latency_sum_us: load(&self.sync_latency_sum_us),
            ..LogStats::default()
        }
    }

    /// The histograms, for whoever scrapes them.
    pub(super) fn figures(&self) -> LogFigures {
        LogFigures {
            sync_times: self.sync_times.copy(),
            batch_bytes: self.batch_bytes.copy(),
            batch_entries: self.batch_entries.copy(),
            ..LogFigures::default()
        }
    }

    /// Since when a write or sync is in flight, if one is.
    pub(crate) fn sync_since(&self) -> Option<Instant> {
        let since = self.sync_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.opened + Duration::from_micros(since))
    }

    pub(crate) fn sync_started(&self) -> Instant {
        let now = boottime::now();
        self.sync_since.store(micros(now - self.opened) + 1, Ordering::Relaxed);
        now
    }

    pub(crate) fn sync_ended(&self, started: Instant) {
        let latency_us = micros(boottime::now().saturating_duration_since(started));
        self.sync_since.store(0, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_latency_last_us.store(latency_us, Ordering::Relaxed);
        self.sync_latency_max_us.fetch_max(latency_us, Ordering::Relaxed);
        self.sync_latency_sum_us.fetch_add(latency_us, Ordering::Relaxed);
        self.sync_times.note(latency_us);
    }

    /// A batch of so many bytes, padding included, and new entries was made durable with one sync.
    pub(crate) fn batch_synced(&self, bytes: usize, entries: u64) {
        self.batch_bytes.note(bytes as u64);
        self.batch_entries.note(entries);
    }

    pub(crate) fn batch_placed(&self, bytes: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn segment_begun(&self, segment: SegmentFile) {
        self.segments.fetch_add(1, Ordering::Relaxed);
        self.tell(Change::Begun(segment));
    }

    pub(crate) fn segment_gone(&self, sequence: u64) {
        self.tell(Change::Gone(sequence));
    }

    /// How often the disk had no room for a segment.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    pub(super) fn add_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the syncer has a batch and no segment to place it in.
    pub(crate) fn waits_for_space(&self) -> bool {
        self.waits_for_space.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waits_for_space(&self, waits: bool) {
        if !self.waits_for_space.swap(waits, Ordering::Relaxed) && waits {
            self.space_waits.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(&self, change: Change) {
        self.changes_in.send(change).expect("both ends of the channel are here");
    }

    /// The next change of the segments that the loop has not seen.
    pub(super) fn next_change(&self) -> Option<Change> {
        self.changes.try_recv().ok()
    }
}
