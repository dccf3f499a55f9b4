//! The progress line on the standard error: in place on a terminal, line by line elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Where the line is, and when it was last shown.
#[derive(Debug)]
pub struct Progress {
    on_terminal: bool,
    shown_at: Instant,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { on_terminal: stderr().is_terminal(), shown_at: Instant::now() }
    }
}

impl Progress {
    /// The time since the line was last shown, if another is due: each second on a terminal, every five elsewhere.
    pub fn due(&mut self) -> Option<Duration> {
        let passed = self.shown_at.elapsed();
        let every = Duration::from_secs(if self.on_terminal { 1 } else { 5 });
        (passed >= every).then(|| {
            self.shown_at = Instant::now();
            passed
        })
    }

    /// Shows a line in the place of the last.
    pub fn show(&self, line: &str) {
        if self.on_terminal {
            // Clears what an earlier, longer line left behind.
            eprint!("\r\x1b[2K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    /// What is shown last stays.
    pub fn finish(&self) {
        if self.on_terminal {
            eprintln!();
        }
    }
}
