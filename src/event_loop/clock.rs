//! The loop's clock, read a few times a turn, and queues of things that time out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::boottime;

/// The time of this turn. Everything that a turn does happens at the same instant.
#[derive(Debug)]
pub struct Clock {
    now: Instant,
    source: Source,
}

#[derive(Debug)]
enum Source {
    System,
    /// Once read, it goes on to this time, if there is one.
    Hand {
        after: Option<Instant>,
        is_read: bool,
    },
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
        Clock { now, source: Source::Hand { after: None, is_read: false } }
    }

    /// Sets a clock by hand; never back.
    pub fn set(&mut self, now: Instant) {
        debug_assert!(now >= self.now, "time goes forward");
        self.now = now;
        if let Source::Hand { after, is_read } = &mut self.source {
            (*after, *is_read) = (None, false);
        }
    }

    /// Sets a clock by hand that goes on to another time as soon as it was read once, as if the process stood still then.
    pub fn set_until_read(&mut self, now: Instant, then: Instant) {
        self.set(now);
        if let Source::Hand { after, .. } = &mut self.source {
            *after = Some(then);
        }
    }

    /// Reads the system's clock, which counts while the machine is suspended: at the start of a turn, again once its input is
    /// drained, once more when requests over HTTP were read (one may ask for a lease's answer and have come just now), and at its end.
    pub fn refresh(&mut self) -> Instant {
        match &mut self.source {
            Source::System => self.now = boottime::now(),
            Source::Hand { after, is_read } => {
                if let Some(then) = after.take_if(|_| *is_read) {
                    self.now = then;
                }
                *is_read = true;
            }
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
