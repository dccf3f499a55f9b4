//! When a shard is snapshotted next, and where its log may begin then: counts the bytes of what is appended, and
//! remembers which snapshots are kept.
//!
//! Of the two that are kept the log holds everything since the *older*: should the newer turn out to be damaged, the
//! older and the log are the whole state. A tail for followers that lag may stay besides.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, Index, SnapshotId};

use crate::state_machine::Snapshot;

/// After a snapshot that failed, the next waits so long; each time twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Into how many steps a tail is divided.
const TAIL_STEPS: u64 = 8;

/// A snapshot that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) meta: SnapshotMeta,
    /// The bytes that had been appended up to its last entry.
    appended: u64,
}

/// What has become of the next snapshot.
#[derive(Debug)]
enum Next {
    /// It waits until enough was appended, and until this time.
    Idle { not_before: Option<Instant> },
    /// This is the state; its last entries are not durable here yet.
    Begun(Box<Snapshot>, u64),
    /// It is being written.
    Writing { at: EntryId, appended: u64 },
}

/// Where the log was when how much had been appended, in steps: for finding the entry that so many bytes follow without
/// walking through all of them.
#[derive(Debug)]
struct Marks {
    tail: u64,
    marks: VecDeque<(Index, u64)>,
}

impl Marks {
    /// The log ends at `last` now. Entries that were replaced leave no mark.
    fn note(&mut self, last: Index, appended: u64) {
        while self.marks.back().is_some_and(|(index, _)| *index >= last) {
            self.marks.pop_back();
        }
        let step = (self.tail / TAIL_STEPS).max(1);
        if self.tail > 0 && self.marks.back().is_none_or(|(_, at)| appended - at >= step) {
            self.marks.push_back((last, appended));
        }
        while self.marks.get(1).is_some_and(|(_, at)| appended - at >= self.tail) {
            self.marks.pop_front();
        }
    }

    /// The newest mark that a whole tail follows.
    fn before_tail(&self, appended: u64) -> Option<(Index, u64)> {
        self.marks.front().copied().filter(|(_, at)| appended - at >= self.tail)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Compaction {
    /// Bytes of the entries appended so far, those found at the start included.
    appended: u64,
    /// The count at the log's start.
    appended_at_start: u64,
    newest: Option<Kept>,
    /// `None` if the log does not reach back to it.
    older: Option<Kept>,
    /// The newest snapshot was found not to be what was written: another is to be taken at once.
    is_urgent: bool,
    next: Next,
    pause: Duration,
    marks: Marks,
}

impl Compaction {
    /// An empty log without snapshots. `tail` bytes of the newest entries are to stay in it.
    pub(super) fn new(tail: u64) -> Compaction {
        Compaction {
            appended: 0,
            appended_at_start: 0,
            newest: None,
            older: None,
            is_urgent: false,
            next: Next::Idle { not_before: None },
            pause: PAUSE_MIN,
            marks: Marks { tail, marks: VecDeque::new() },
        }
    }

    /// What was found at a start: a log after the entry `start` whose records have these sizes, and two snapshots.
    pub(super) fn found(
        start: Index,
        sizes: impl Iterator<Item = u64>,
        older: Option<SnapshotMeta>,
        newest: Option<SnapshotMeta>,
        tail: u64,
    ) -> Compaction {
        let mut compaction = Compaction::new(tail);
        let mut kept = older.into_iter().chain(newest).peekable();
        let mut index = start;
        let mut sizes = sizes.fuse();
        loop {
            while let Some(meta) = kept.next_if(|meta| meta.at.index <= index) {
                compaction.keep(Kept { meta, appended: compaction.appended });
            }
            let Some(bytes) = sizes.next() else { break };
            index = index.next();
            compaction.appended(bytes, index);
        }
        // The log ends before it: it starts anew behind it.
        for meta in kept {
            compaction.installed(meta, true);
        }
        compaction
    }

    fn keep(&mut self, kept: Kept) {
        self.older = self.newest.replace(kept);
        self.is_urgent = false;
    }

    /// A snapshot is not what was written. Returns what is known of it if it was kept.
    pub(super) fn rotten(&mut self, id: SnapshotId) -> Option<SnapshotMeta> {
        if let Some(older) = self.older.take_if(|kept| kept.meta.id == id) {
            return Some(older.meta);
        }
        let newest = self.newest.take_if(|kept| kept.meta.id == id)?;
        self.newest = self.older.take();
        self.is_urgent = true;
        Some(newest.meta)
    }

    /// Entries of so many bytes were appended; the log ends at `last`.
    pub(super) fn appended(&mut self, bytes: u64, last: Index) {
        self.appended += bytes;
        self.marks.note(last, self.appended);
    }

    /// The next snapshot is due whatever has come since the last.
    pub(super) fn urge(&mut self) {
        self.is_urgent = true;
    }

    /// The bytes of the entries in the log.
    pub(super) fn log_bytes(&self) -> u64 {
        self.appended - self.appended_at_start
    }

    /// The newest snapshot.
    pub(super) fn newest(&self) -> Option<SnapshotMeta> {
        self.newest.map(|kept| kept.meta)
    }

    /// The bytes of the entries since the newest snapshot.
    pub(super) fn bytes_since_newest(&self) -> u64 {
        self.appended - self.newest.map_or(0, |kept| kept.appended)
    }

    /// Whether the state after entry `applied` is worth a snapshot if one is taken every `bytes` bytes.
    pub(super) fn is_due(&self, applied: Index, bytes: u64, now: Instant) -> bool {
        let at = self.newest.map_or(Index(0), |kept| kept.meta.at.index);
        let is_worth_it = self.is_urgent || self.bytes_since_newest() >= bytes;
        applied > at && is_worth_it && self.may_try(now)
    }

    /// Whether a snapshot of the state after entry `applied` may be begun, whether or not it is worth it by itself.
    pub(super) fn may_begin(&self, applied: Index) -> bool {
        let at = self.newest.map_or(Index(0), |kept| kept.meta.at.index);
        applied > at && matches!(self.next, Next::Idle { .. })
    }

    /// Whether nothing is on its way, and what failed last is to be tried again.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        matches!(self.next, Next::Idle { not_before } if not_before.is_none_or(|time| time <= now))
    }

    /// This is to be the next snapshot.
    pub(super) fn begin(&mut self, state: Snapshot) {
        self.next = Next::Begun(Box::new(state), self.appended);
    }

    /// The state that is to be written, once it is durable here: a snapshot must not say more than the log.
    pub(super) fn take_begun(&mut self, persisted: Index) -> Option<Snapshot> {
        let is_there = |state: &Snapshot| state.at().index <= persisted || mutant!("snapshot-ahead-of-the-log");
        let is_durable = matches!(&self.next, Next::Begun(state, _) if is_there(state));
        if !is_durable {
            return None;
        }
        match std::mem::replace(&mut self.next, Next::Idle { not_before: None }) {
            Next::Begun(state, appended) => {
                self.next = Next::Writing { at: state.at(), appended };
                Some(*state)
            }
            other => {
                self.next = other;
                None
            }
        }
    }

    /// Whether a snapshot is on its way.
    pub(super) fn is_taking(&self) -> bool {
        !matches!(self.next, Next::Idle { .. })
    }

    /// It is written, whole and durable. `false` if it is not worth anything any more: a later one was installed.
    pub(super) fn taken(&mut self, meta: SnapshotMeta) -> bool {
        self.pause = PAUSE_MIN;
        let next = std::mem::replace(&mut self.next, Next::Idle { not_before: None });
        let Next::Writing { at, appended } = next else { return false };
        let is_newest = at == meta.at && self.newest.is_none_or(|kept| kept.meta.at.index < at.index);
        if is_newest {
            self.keep(Kept { meta, appended });
        }
        is_newest
    }

    /// It could not be written.
    pub(super) fn failed(&mut self, now: Instant) {
        self.next = Next::Idle { not_before: Some(now + self.pause) };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Another node's snapshot has taken the place of the state, and of the log, unless that holds the snapshot's last
    /// entry. Returns a state that is not worth writing any more.
    pub(super) fn installed(&mut self, meta: SnapshotMeta, is_log_reset: bool) -> Option<Box<Snapshot>> {
        self.keep(Kept { meta, appended: self.appended });
        if is_log_reset {
            self.older = None;
            self.appended_at_start = self.appended;
            self.marks.marks.clear();
        }
        if !matches!(self.next, Next::Begun(..)) {
            return None;
        }
        match std::mem::replace(&mut self.next, Next::Idle { not_before: None }) {
            Next::Begun(state, _) => Some(state),
            Next::Idle { .. } | Next::Writing { .. } => None,
        }
    }

    /// The entry before the first that must stay in the log, by its index, and the snapshot that covers what goes.
    pub(super) fn start(&self) -> Option<(Index, SnapshotMeta)> {
        let older = if mutant!("compacted-to-the-newest") { self.newest? } else { self.older? };
        let start = older.meta.at.index;
        let start = match self.appended - older.appended >= self.marks.tail {
            true => start,
            false => self.marks.before_tail(self.appended)?.0.min(start),
        };
        Some((start, older.meta))
    }

    /// The log begins after `start` now.
    pub(super) fn compacted(&mut self, start: Index) {
        let marks = self.marks.marks.iter().copied();
        let known = marks
            .chain([self.older, self.newest].into_iter().flatten().map(|kept| (kept.meta.at.index, kept.appended)));
        let before = known.filter(|(index, _)| *index <= start).map(|(_, appended)| appended).max();
        self.appended_at_start = self.appended_at_start.max(before.unwrap_or(0));
    }
}
