//! What time it is for a node: a clock that nobody sets, and that also counts while the machine is suspended.
//!
//! `Instant::now` stands still meanwhile. A leader that is suspended and goes on would take its lease (`raft/lease.rs`) for
//! as young as before, while the others have another leader.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What both clocks showed when the process first asked.
static START: OnceLock<(Instant, Duration)> = OnceLock::new();

/// The time now. It differs from `Instant::now` by how long the machine was suspended since the process began.
#[must_use]
pub fn now() -> Instant {
    let (instant, boottime) = *START.get_or_init(|| (Instant::now(), read()));
    instant + read().saturating_sub(boottime)
}

/// How long ago the machine was started.
fn read() -> Duration {
    // The clock is never negative.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine that was not suspended since the test began both clocks are the same.
    #[test]
    fn it_goes_forward_with_the_monotonic_clock() {
        let first = now();
        let between = Instant::now();
        let second = now();
        assert!(second >= first);
        let apart =
            |other: Instant| second.saturating_duration_since(other).max(other.saturating_duration_since(second));
        assert!(apart(between) < Duration::from_secs(1), "{first:?} {between:?} {second:?}");
    }
}
