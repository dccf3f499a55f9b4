//! Whether the disk under a core's log keeps up and has room, as the core's loop sees it.
//!
//! The loop hands a batch to its syncer and goes on; it never waits for the disk, so it notices by the clock when a
//! batch does not come back. What counts is the time from the hand-over until the loop learns that the batch is
//! durable, as that is how long writes wait. No clock is in here, and nothing of the log but the number of the batch and
//! whether there is space.

use std::time::{Duration, Instant};

use raftkv_protocol::health::DiskHealth;

use crate::storage::{BatchNumber, Space};

/// How long a disk must have been well before its node gets leadership back.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// For how long after a late sync a disk counts as slow: the next sync may be late again.
const RECOVERING_AFTER: Duration = Duration::from_secs(5);
/// A disk that has nothing to do after a late sync is taken to be over it then.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// A batch that the syncer has.
#[derive(Clone, Copy, Debug)]
struct Handed {
    batch: BatchNumber,
    at: Instant,
    /// It has taken longer than it may.
    is_late: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct DiskWatch {
    /// What a sync may take.
    budget: Duration,
    handed: Option<Handed>,
    /// The last sync that was looked at was late, or is.
    stalls: bool,
    /// When a sync was last seen to be late.
    late_at: Option<Instant>,
    space: Space,
    /// When only the reserve was last seen to be left.
    full_at: Option<Instant>,
    now: Instant,
}

impl DiskWatch {
    pub(super) fn new(budget: Duration, now: Instant) -> DiskWatch {
        DiskWatch { budget, handed: None, stalls: false, late_at: None, space: Space::Plenty, full_at: None, now }
    }

    /// Which batch the syncer has now, at the end of a turn; `None` too while it waits for space. And whether there is.
    pub(super) fn look(&mut self, batch: Option<BatchNumber>, space: Space, now: Instant) {
        self.now = now;
        self.space = space;
        if space == Space::ReserveOnly {
            self.full_at = Some(now);
        }
        if self.handed.map(|handed| handed.batch) != batch {
            // A batch that came back in time shows that the disk is well. One that was late shows nothing new.
            if self.handed.is_some_and(|handed| !handed.is_late) {
                self.stalls = false;
            }
            self.handed = batch.map(|batch| Handed { batch, at: now, is_late: false });
        }
        match &mut self.handed {
            Some(handed) if now.saturating_duration_since(handed.at) >= self.budget => {
                handed.is_late = true;
                self.stalls = true;
                self.late_at = Some(now);
            }
            Some(_) => {}
            None => {
                let is_over = |at| now.saturating_duration_since(at) >= IDLE_AFTER;
                self.stalls &= !self.late_at.is_some_and(is_over);
            }
        }
    }

    /// Whether the disk holds the node up now, as of the last look: a sync is late, or was, and none has come back in
    /// time since.
    pub(super) fn stalls(&self) -> bool {
        self.stalls
    }

    /// How the disk does, as of the last look.
    pub(super) fn health(&self) -> DiskHealth {
        let is_within = |at: Option<Instant>, time| at.is_some_and(|at| self.now.saturating_duration_since(at) < time);
        if self.space == Space::ReserveOnly {
            DiskHealth::Full
        } else if is_within(self.late_at, RECOVERING_AFTER) {
            DiskHealth::Slow
        } else if is_within(self.late_at.max(self.full_at), HEALTHY_AFTER) {
            DiskHealth::Recovering
        } else {
            DiskHealth::Healthy
        }
    }

    /// For how long the batch in flight has been on its way.
    pub(super) fn in_flight(&self) -> Option<Duration> {
        self.handed.map(|handed| self.now.saturating_duration_since(handed.at))
    }

    /// When a look may find something new although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let late = self.handed.filter(|handed| !handed.is_late).map(|handed| handed.at + self.budget);
        // While a sync is late, the time of health has not begun.
        let well_since = self.late_at.filter(|_| self.handed.is_none_or(|handed| !handed.is_late));
        let steps = [IDLE_AFTER, RECOVERING_AFTER, HEALTHY_AFTER].map(|after| well_since.map(|since| since + after));
        let roomy_since = self.full_at.filter(|_| self.space == Space::Plenty);
        let roomy = roomy_since.map(|since| since + HEALTHY_AFTER);
        let steps = steps.into_iter().chain([roomy]).flatten().filter(|at| *at > self.now);
        late.into_iter().chain(steps).min()
    }
}
