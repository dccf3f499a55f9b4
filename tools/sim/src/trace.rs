//! What happened in a run, in order: the last of it in readable form for a failure, and a digest of all of it, so that
//! two runs of one seed can be compared.

use std::collections::VecDeque;
use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::agenda::MICROSECOND;
use crate::logged;

/// How many of the last events a failure shows.
const SHOWN: usize = 60;

/// See the module.
#[derive(Debug, Default)]
pub struct Trace {
    /// Every line, if the run is to be compared or shown as a whole.
    pub lines: Option<Vec<String>>,
    last: VecDeque<(u64, String)>,
    digest: u64,
    events: u64,
}

impl Trace {
    /// A trace; `whole` keeps every line.
    #[must_use]
    pub fn new(whole: bool) -> Trace {
        Trace { lines: whole.then(Vec::new), ..Trace::default() }
    }

    /// Takes note of numbers that tell one run from another; nothing of them is shown.
    pub fn digest(&mut self, numbers: &[u64]) {
        self.events += 1;
        for number in numbers {
            self.digest = (self.digest.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{numbers:x?}"));
        }
    }

    /// Takes note of something worth reading.
    pub fn say(&mut self, now: u64, what: String) {
        self.digest = xxh3_64_with_seed(what.as_bytes(), self.digest ^ now);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12} us  {what}", now / MICROSECOND));
        }
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back((now, what));
    }

    /// Adds what nodes have logged. It says nothing that tells one run from another.
    pub fn add_logged(&mut self, now: u64, whose: impl Fn() -> String) {
        if let Some(lines) = &mut self.lines {
            let logged = logged::take();
            lines.extend(logged.iter().map(|line| format!("{:>12} us    {}: {line}", now / MICROSECOND, whose())));
        }
    }

    /// Of all of it.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.digest
    }

    /// How much was noted.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last events, a line each.
    #[must_use]
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for (time, what) in &self.last {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:>10} us  {what}", time / MICROSECOND);
        }
        text
    }
}
