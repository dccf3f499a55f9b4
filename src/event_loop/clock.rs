//! The loop's clock, read twice a turn, and queues of things that time out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time of this turn. Everything that a turn does happens at the same instant.
#[derive(Debug)]
pub struct Clock {
    now: Instant,
    source: Source,
}

#[derive(Debug)]
enum Source {
    System,
    Hand,
}

impl Clock {
    /// A clock that shows the present.
    #[must_use]
    pub fn start() -> Clock {
        Clock { now: Instant::now(), source: Source::System }
    }

    /// A clock that stands still unless it is [set](Clock::set).
    #[must_use]
    pub fn by_hand(now: Instant) -> Clock {
        Clock { now, source: Source::Hand }
    }

    /// Sets a clock by hand; never back.
    pub fn set(&mut self, now: Instant) {
        debug_assert!(now >= self.now, "time goes forward");
        self.now = now;
    }

    /// Reads the system's monotonic clock: at the start of a turn, and again once its input is drained.
    pub fn refresh(&mut self) -> Instant {
        if let Source::System = self.source {
            self.now = Instant::now();
        }
        self.now
    }

    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }
}

/// Keys that expire after one fixed duration, so that the order of arrival is the order of expiry. Nothing is ever
/// removed early: the owner looks whether the key still means anything.
#[derive(Debug)]
pub struct TimeoutQueue<K> {
    after: Duration,
    queue: VecDeque<(Instant, K)>,
}

impl<K> TimeoutQueue<K> {
    /// A queue whose keys expire after `after`.
    #[must_use]
    pub fn new(after: Duration) -> TimeoutQueue<K> {
        TimeoutQueue { after, queue: VecDeque::new() }
    }

    /// Adds a key; returns when it expires.
    pub fn push(&mut self, now: Instant, key: K) -> Instant {
        let at = now + self.after;
        self.queue.push_back((at, key));
        at
    }

    /// The next key that has expired.
    pub fn pop_expired(&mut self, now: Instant) -> Option<K> {
        if self.queue.front()?.0 > now {
            return None;
        }
        self.queue.pop_front().map(|(_, key)| key)
    }

    /// When the next key expires.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }
}
