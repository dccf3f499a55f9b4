//! What a piece of work takes of its thread, to be shown. Nothing is decided by it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shows the processor time of the thread that reads it. On a busy machine the time of day would show mostly for how long
/// other threads had the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stopwatch {
    /// It always shows zero: one run is to be like another.
    #[default]
    Stands,
    /// It goes on.
    Runs,
}

impl Stopwatch {
    /// What it shows: only differences mean something.
    #[must_use]
    pub fn read(self) -> Duration {
        match self {
            Stopwatch::Stands => Duration::ZERO,
            // The clock is never negative.
            Stopwatch::Runs => Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default(),
        }
    }
}
