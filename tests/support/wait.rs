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
pub fn eventually<T>(patience: Duration, what: impl Display, condition: impl FnMut() -> Option<T>) -> T {
    let Some(answer) = within(patience, condition) else { panic!("not within {patience:?}: {what}") };
    answer
}

/// The same, for who has more to say if there is no answer.
pub fn within<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let answer = condition();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        pause(Duration::from_millis(5));
    }
}

/// Lets time pass: the interval between two looks at a condition, or the length of a fault. Never a stand-in for one.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition, which has a deadline")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
