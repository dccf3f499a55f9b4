//! When a run counts, and what its threads have counted.
//!
//! Each thread records into its own tallies and posts them about once a second, so that nothing is shared on the way
//! of a request.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::tally::{Fault, Tally};

/// Which requests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// A request is sent when another was answered; those count that were answered in the window.
    Closed,
    /// Requests are due at fixed times; those count that were due in the window, whenever they were answered.
    Open,
}

/// The clock and the counts of a run. Times are nanoseconds since it began.
#[derive(Debug)]
pub struct Meter {
    kind: Loop,
    started: Instant,
    window: Range<u64>,
    stop: Arc<AtomicBool>,
    boards: Vec<Mutex<Board>>,
}

/// What one thread has posted.
#[derive(Debug, Default)]
struct Board {
    /// Since the progress line was last printed.
    live: Tally,
    /// All that counts.
    measured: Tally,
    last_answer: u64,
}

impl Meter {
    /// Starts the clock.
    pub fn start(kind: Loop, warmup: Duration, duration: Duration, threads: usize) -> Meter {
        let nanos = |duration: Duration| duration.as_nanos() as u64;
        Meter {
            kind,
            started: Instant::now(),
            window: nanos(warmup)..nanos(warmup + duration),
            stop: Arc::default(),
            boards: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Has SIGINT and SIGTERM end the run early.
    pub fn stop_on_signals(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&self.stop))?;
        }
        Ok(())
    }

    /// Has this flag end the run early.
    #[must_use]
    pub fn stopped_by(mut self, stop: Arc<AtomicBool>) -> Meter {
        self.stop = stop;
        self
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// What is measured.
    pub fn window(&self) -> Range<u64> {
        self.window.clone()
    }

    /// Whether the user has seen enough.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A thread's own counts.
    pub fn recorder(&self, thread: usize) -> Recorder<'_> {
        Recorder { meter: self, thread, inside: Tally::default(), outside: Tally::default(), last_answer: 0 }
    }

    /// Takes what was posted since the last call, of all threads, for the progress line.
    pub fn take_live(&self) -> Tally {
        let mut sum = Tally::default();
        for thread in 0..self.boards.len() {
            let mut board = self.board(thread);
            sum.add(&board.live);
            board.live.clear();
        }
        sum
    }

    /// What was measured, and over how many seconds. An open loop may be answered after its window has closed; a run
    /// that was stopped ended before.
    pub fn measured(&self) -> (Tally, f64) {
        let mut sum = Tally::default();
        let mut last_answer = 0;
        for thread in 0..self.boards.len() {
            let board = self.board(thread);
            sum.add(&board.measured);
            last_answer = last_answer.max(board.last_answer);
        }
        let end = if self.stopped() { last_answer } else { last_answer.max(self.window.end) };
        (sum, end.saturating_sub(self.window.start) as f64 / 1e9)
    }

    fn board(&self, thread: usize) -> MutexGuard<'_, Board> {
        self.boards[thread].lock().expect("no thread panics while it holds a board")
    }
}

/// A thread's own counts.
#[derive(Debug)]
pub struct Recorder<'a> {
    meter: &'a Meter,
    thread: usize,
    inside: Tally,
    outside: Tally,
    last_answer: u64,
}

impl Recorder<'_> {
    /// A request that counts from `since` was answered.
    pub fn answered(&mut self, since: u64, now: u64) {
        if self.is_inside(since, now) {
            self.last_answer = now;
            self.inside.answered(now.saturating_sub(since));
        } else {
            self.outside.answered(now.saturating_sub(since));
        }
    }

    /// `count` requests that count from `since` failed.
    pub fn failed(&mut self, fault: Fault, since: u64, now: u64, count: u64) {
        let tally = if self.is_inside(since, now) { &mut self.inside } else { &mut self.outside };
        tally.failed(fault, count);
    }

    /// Makes the counts known.
    pub fn post(&mut self) {
        let mut board = self.meter.board(self.thread);
        board.live.add(&self.inside);
        board.live.add(&self.outside);
        board.measured.add(&self.inside);
        board.last_answer = self.last_answer;
        self.inside.clear();
        self.outside.clear();
    }

    fn is_inside(&self, since: u64, now: u64) -> bool {
        self.meter.window.contains(match self.meter.kind {
            Loop::Closed => &now,
            Loop::Open => &since,
        })
    }
}
