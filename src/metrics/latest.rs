//! The greatest of what was noted lately: what a short time has seen, and a long one would hide.

use std::time::{Duration, Instant};

/// The spans that a minute is made of.
const SPAN: Duration = Duration::from_secs(10);
/// The one under way, and those of the minute before it.
const SPANS: usize = 7;

/// The greatest value of the last minute, and of at most ten seconds before that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatestMax {
    /// Of each span, the one under way first.
    greatest: [u64; SPANS],
    /// When the span under way has begun.
    begun: Option<Instant>,
}

impl LatestMax {
    /// Notes a value, at a time that never goes back.
    pub fn note(&mut self, now: Instant, value: u64) {
        let begun = *self.begun.get_or_insert(now);
        let spans = now.saturating_duration_since(begun).as_secs() / SPAN.as_secs();
        if spans > 0 {
            let gone = usize::try_from(spans).unwrap_or(SPANS).min(SPANS);
            self.greatest.rotate_right(gone);
            self.greatest[..gone].fill(0);
            self.begun = Some(begun + Duration::from_secs(spans * SPAN.as_secs()));
        }
        self.greatest[0] = self.greatest[0].max(value);
    }

    /// The greatest, as of when a value was noted last; 0 if none was.
    #[must_use]
    pub fn greatest(&self) -> u64 {
        self.greatest.iter().copied().max().unwrap_or(0)
    }
}
