//! Time as the core sees it: the clock of the last tick, and what is counted from the next one.
//!
//! The core is told the time only by `tick`, after a turn's input was handled. Input that starts a wait therefore
//! leaves the length of the wait behind, and the tick that follows turns it into a deadline; a process that slept
//! through its deadline first hears what arrived meanwhile and only then judges.

use std::time::{Duration, Instant};

/// Until a hinted follower's first attempt.
const HINT_DELAY: Jitter = Jitter { least: Duration::ZERO, spread: Duration::from_millis(20) };
/// Until a hinted follower tries again.
const RETRY_DELAY: Jitter = Jitter { least: Duration::from_millis(15), spread: Duration::from_millis(15) };
/// How often a hinted follower tries again before the normal timers rule.
const QUICK_RETRIES_MAX: u8 = 5;

/// A random wait from `least` up to `least + spread`.
#[derive(Clone, Copy, Debug)]
struct Jitter {
    least: Duration,
    spread: Duration,
}

/// When the node last heard from its leader, and when it stands for election.
#[derive(Debug)]
pub(super) struct ElectionTimer {
    timeout: Duration,
    /// The node stands for election then, unless `wait` is set.
    deadline: Instant,
    /// To be counted from the next tick.
    wait: Option<Duration>,
    /// At the tick that followed the leader's last message.
    heard_at: Option<Instant>,
    /// The leader was heard since the last tick.
    heard: bool,
    /// Quick retries that are left (see `hint`).
    retries: u8,
    /// The wait after a refusal has been set for the running attempt.
    retrying: bool,
    /// Others go first.
    late: bool,
    random: SplitMix,
}

impl ElectionTimer {
    /// A timer that fires after a random wait.
    pub(super) fn new(timeout: Duration, seed: u64, now: Instant) -> ElectionTimer {
        let mut timer = ElectionTimer {
            timeout,
            deadline: now,
            wait: None,
            heard_at: None,
            heard: false,
            retries: 0,
            retrying: false,
            late: false,
            random: SplitMix(seed),
        };
        timer.restart();
        timer.settle(now);
        timer
    }

    /// Makes the timer fire at the next tick.
    pub(super) fn fire_now(&mut self) {
        self.wait = Some(Duration::ZERO);
    }

    /// Starts a wait that ends before those of the others, drawn from [T/4, T/2).
    pub(super) fn go_first(&mut self) {
        self.wait = Some(self.random.draw(self.first_wait()));
    }

    /// Shorter than any wait of the normal timers, and longer than any haste.
    fn first_wait(&self) -> Jitter {
        Jitter { least: self.timeout / 4, spread: self.timeout / 4 }
    }

    /// From now on waits end when those of the others have ended, or as before.
    pub(super) fn set_late(&mut self, late: bool) {
        self.late = late;
    }

    /// Starts a new wait, drawn from [T, 1.5 T), or after that.
    pub(super) fn restart(&mut self) {
        let least = if self.late { self.timeout * 3 / 2 } else { self.timeout };
        self.wait = Some(self.random.draw(Jitter { least, spread: self.timeout / 2 }));
    }

    /// The node may not stand for election before this time. Who should be late lets the others go first then too.
    pub(super) fn put_off(&mut self, until: Instant) {
        let delay = if self.late { self.first_wait() } else { HINT_DELAY };
        self.wait = None;
        self.deadline = until + self.random.draw(delay);
    }

    /// A lost attempt is over: a new wait, unless a quick one was set.
    pub(super) fn restart_unless_retrying(&mut self) {
        if !self.retrying {
            self.restart();
        }
    }

    /// The leader was heard: a new wait, and no more haste.
    pub(super) fn heard(&mut self) {
        self.heard = true;
        self.calm();
        self.restart();
    }

    /// Forgets when a leader was heard.
    pub(super) fn forget_leader(&mut self) {
        self.heard = false;
        self.heard_at = None;
    }

    /// The leader's link is gone: stand for election soon, and retry quickly if refused.
    pub(super) fn hint(&mut self) {
        self.retries = QUICK_RETRIES_MAX;
        self.hurry(HINT_DELAY);
    }

    /// Starts a short wait; who should be late lets the others' quick attempts pass.
    fn hurry(&mut self, delay: Jitter) {
        if self.late {
            return self.go_first();
        }
        self.wait = Some(self.random.draw(delay));
    }

    /// An attempt begins.
    pub(super) fn attempt(&mut self) {
        self.retrying = false;
        self.restart();
    }

    /// The attempt was refused by somebody: if there is haste, the next one comes soon.
    pub(super) fn refused(&mut self) {
        if self.retries > 0 && !self.retrying {
            self.retries -= 1;
            self.retrying = true;
            self.hurry(RETRY_DELAY);
        }
    }

    /// Somebody else is about to win: if there is haste, let them go first.
    pub(super) fn yield_to_other(&mut self) {
        if self.retries > 0 {
            self.hurry(RETRY_DELAY);
        }
    }

    /// There is a leader: no more haste.
    pub(super) fn calm(&mut self) {
        self.retries = 0;
        self.retrying = false;
    }

    /// Turns what the input left behind into times.
    pub(super) fn settle(&mut self, now: Instant) {
        if let Some(wait) = self.wait.take() {
            self.deadline = now + wait;
        }
        if std::mem::take(&mut self.heard) {
            self.heard_at = Some(now);
        }
    }

    /// Whether `settle` has something to do.
    pub(super) fn is_unsettled(&self) -> bool {
        self.wait.is_some() || self.heard
    }

    /// Whether a leader was heard within T.
    pub(super) fn heard_recently(&self, now: Instant) -> bool {
        self.heard || self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < self.timeout)
    }

    /// Whether it is time to stand for election.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wait.is_none() && now >= self.deadline
    }

    /// When it is.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// The first multiple of `period` after `epoch` that is later than `now`.
pub(super) fn next_beat(epoch: Instant, period: Duration, now: Instant) -> Instant {
    let period_ns = period.as_nanos().max(1);
    let beats = now.saturating_duration_since(epoch).as_nanos() / period_ns + 1;
    let offset_ns = u64::try_from(beats * period_ns).unwrap_or(u64::MAX);
    epoch + Duration::from_nanos(offset_ns)
}

/// Steele, Lea and Flood's splitmix64: enough to keep candidates apart.
#[derive(Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    /// The next number, any of all.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn draw(&mut self, jitter: Jitter) -> Duration {
        let spread_ns = u64::try_from(jitter.spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        jitter.least + Duration::from_nanos(self.next() % spread_ns)
    }
}
