//! When requests are due: at once (closed loop), or at times fixed beforehand (open loop).
//!
//! In an open loop the times do not depend on how the server does. A request that could not be sent on time still
//! counts from the time at which it should have been, so that a stall of one second shows in every request that
//! it held up and not only in those that were already on their way (no coordinated omission).

/// When the requests of one connection are due. Times are nanoseconds since the start of the run.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// As soon as there is room.
    Closed,
    /// At fixed times.
    Open(Arrivals),
}

impl Schedule {
    /// The time from which the next request counts, if it is due. [`Schedule::sent`] moves on to the one after it.
    pub fn due(&self, now: u64) -> Option<u64> {
        match self {
            Schedule::Closed => Some(now),
            Schedule::Open(arrivals) => Some(arrivals.due()).filter(|&intended| intended <= now),
        }
    }

    /// The request that was due is on its way.
    pub fn sent(&mut self) {
        if let Schedule::Open(arrivals) = self {
            arrivals.advance();
        }
    }

    /// How many requests are due in `..until` and not sent.
    pub fn unsent(&self, until: u64) -> u64 {
        match self {
            Schedule::Closed => 0,
            Schedule::Open(arrivals) => arrivals.remaining(until),
        }
    }
}

/// Every `stride`th of a run's arrivals, evenly spaced at `rate` a second.
#[derive(Clone, Debug)]
pub struct Arrivals {
    rate: u64,
    stride: u64,
    number: u64,
}

impl Arrivals {
    /// The arrivals `first`, `first + stride`, … of all those at `rate` (not 0) a second.
    pub fn new(rate: u64, first: u64, stride: u64) -> Arrivals {
        Arrivals { rate, stride, number: first }
    }

    /// When the next one is due. Computed from its number, so that rounding does not add up.
    pub fn due(&self) -> u64 {
        self.time(self.number)
    }

    /// On to the one after.
    pub fn advance(&mut self) {
        self.number += self.stride;
    }

    fn remaining(&self, until: u64) -> u64 {
        let mut left = self.clone();
        let mut count = 0;
        while left.due() < until {
            left.advance();
            count += 1;
        }
        count
    }

    fn time(&self, number: u64) -> u64 {
        (u128::from(number) * 1_000_000_000 / u128::from(self.rate)) as u64
    }
}

/// The order in which a thread's connections have something due: its alarm clock.
#[derive(Clone, Debug)]
pub struct Calendar {
    rate: u64,
    conns: u64,
    threads: u64,
    thread: u64,
    own: u64,
    passed: u64,
}

impl Calendar {
    /// Of thread `thread` of `threads`, which owns the connections `thread`, `thread + threads`, … of `conns`.
    /// Connection `c` has the arrivals `c`, `c + conns`, …
    pub fn new(rate: u64, conns: u64, threads: u64, thread: u64) -> Calendar {
        Calendar { rate, conns, threads, thread, own: (conns - thread).div_ceil(threads), passed: 0 }
    }

    /// When the next request is due.
    pub fn due(&self) -> u64 {
        let (round, place) = (self.passed / self.own, self.passed % self.own);
        Arrivals::new(self.rate, round * self.conns + self.thread + place * self.threads, 1).due()
    }

    /// The thread's connection (counted among its own) that has something due, if it is time. On to the one after.
    pub fn pop(&mut self, now: u64) -> Option<usize> {
        if self.due() > now {
            return None;
        }
        let place = self.passed % self.own;
        self.passed += 1;
        Some(place as usize)
    }
}
