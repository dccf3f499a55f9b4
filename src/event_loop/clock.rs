//! The loop's clock, read a few times a turn, and queues of things that time out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::boottime;
use crate::metrics::stopwatch::Stopwatch;

/// The time of this turn. Everything that a turn does happens at the same instant.
#[derive(Debug)]
pub struct Clock {
    now: Instant,
    source: Source,
}

#[derive(Debug)]
enum Source {
    System,
    /// What it shows when it is read, one time after the other, and then what it showed last.
    Hand(VecDeque<Instant>),
}

impl Clock {
    /// A clock that shows the present.
    #[must_use]
    pub fn start() -> Clock {
        Clock { now: boottime::now(), source: Source::System }
    }

    /// A clock that stands still unless it is [set](Clock::set).
    #[must_use]
    pub fn by_hand(now: Instant) -> Clock {
        Clock { now, source: Source::Hand(VecDeque::new()) }
    }

    /// Sets a clock by hand; never back.
    pub fn set(&mut self, now: Instant) {
        self.set_readings(&[now]);
    }

    /// Sets a clock by hand that shows another time each time that it is read, as if the process stood still in between, and in
    /// the end the last of them.
    pub fn set_readings(&mut self, times: &[Instant]) {
        debug_assert!(times.is_sorted() && times.first().is_some_and(|first| *first >= self.now), "time goes forward");
        self.now = times.first().copied().unwrap_or(self.now);
        if let Source::Hand(readings) = &mut self.source {
            *readings = times.iter().copied().collect();
        }
    }

    /// Reads the system's clock, which counts while the machine is suspended: at the start of a turn, again once its input is
    /// drained, once more when requests over HTTP were read (one may ask for a lease's answer and have come just now), and at its end.
    pub fn refresh(&mut self) -> Instant {
        match &mut self.source {
            Source::System => self.now = boottime::now(),
            Source::Hand(readings) => self.now = readings.pop_front().unwrap_or(self.now),
        }
        self.now
    }

    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What to measure work with: beside a clock that is set by hand it stands still, too.
    #[must_use]
    pub fn stopwatch(&self) -> Stopwatch {
        match self.source {
            Source::System => Stopwatch::Runs,
            Source::Hand(_) => Stopwatch::Stands,
        }
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
