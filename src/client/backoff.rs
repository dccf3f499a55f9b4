//! Pauses between attempts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses that double from attempt to attempt up to a longest, each shortened by a random part of up to a half, so that
/// clients that failed together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    random: u64,
}

impl Backoff {
    /// The same seed gives the same pauses.
    pub(super) fn new((first, longest): (Duration, Duration), seed: u64) -> Backoff {
        Backoff { first, longest: longest.max(first), random: seed | 1 }
    }

    /// How long to wait before attempt number `attempt`, counted from 1.
    pub(super) fn pause(&mut self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full - full.mul_f64(self.next_fraction() / 2.0)
    }

    /// In [0, 1), by xorshift64 (Marsaglia, 2003).
    fn next_fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Another one in every client. The standard library's hasher keys are the only randomness that needs no further
/// dependency.
pub(super) fn random_seed() -> u64 {
    RandomState::new().hash_one(0_u8)
}
