//! Waiting for conditions, with a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long things may take that take milliseconds on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within `patience`; `what` says what was waited for.
#[track_caller]
pub fn eventually<T>(patience: Duration, what: impl Display, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Lets time pass: the interval between two looks at a condition, or the length of a fault. Never a stand-in for one.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition, which has a deadline")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
