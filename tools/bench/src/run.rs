//! What the threads of a run share: what to do, when it counts, and the boards on which they post what they counted.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::operations::Mix;
use crate::tally::{Fault, Tally};

/// A run. Times are nanoseconds since `started`.
#[derive(Debug)]
pub struct Run {
    /// What the requests look like.
    pub mix: Mix,
    /// The keys of each shard.
    pub key_sets: Vec<Vec<u32>>,
    /// Connections in all.
    pub conns: usize,
    /// Requests in flight on each.
    pub inflight: usize,
    /// Requests a second in all; `None` for a closed loop.
    pub rate: Option<u64>,
    /// Threads that share the connections.
    pub threads: usize,
    /// Where the sequences of keys and values begin.
    pub seed: u64,
    /// A request without a reply is given up after this.
    pub timeout_ns: u64,
    /// When the run began.
    pub started: Instant,
    /// What is measured.
    pub window: Range<u64>,
    /// The user has seen enough.
    pub stop: Arc<AtomicBool>,
    /// One for each thread.
    pub boards: Vec<Mutex<Board>>,
}

impl Run {
    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Whether the user has seen enough.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes what was posted since the last call, of all threads, for the progress line.
    pub fn take_live(&self) -> Tally {
        let mut sum = Tally::default();
        for board in &self.boards {
            let mut board = board.lock().expect("no thread panics while it holds a board");
            sum.add(&board.live);
            board.live.clear();
        }
        sum
    }

    /// What was measured so far, and when the last measured request was answered.
    pub fn measured(&self) -> (Tally, u64) {
        let mut sum = (Tally::default(), 0);
        for board in &self.boards {
            let board = board.lock().expect("no thread panics while it holds a board");
            sum.0.add(&board.measured);
            sum.1 = sum.1.max(board.last_answer);
        }
        sum
    }
}

/// What one thread has posted.
#[derive(Debug, Default)]
pub struct Board {
    /// Since the progress line was last printed.
    live: Tally,
    /// All that counts.
    measured: Tally,
    last_answer: u64,
}

/// A thread's own counts, posted about once a second so that nothing is shared on the way of a request.
#[derive(Debug)]
pub struct Recorder {
    window: Range<u64>,
    /// In an open loop a request counts if it was *due* in the window, in a closed loop if it was answered in it.
    counts_by_due_time: bool,
    inside: Tally,
    outside: Tally,
    last_answer: u64,
}

impl Recorder {
    /// For the threads of `run`.
    pub fn new(run: &Run) -> Recorder {
        Recorder {
            window: run.window.clone(),
            counts_by_due_time: run.rate.is_some(),
            inside: Tally::default(),
            outside: Tally::default(),
            last_answer: 0,
        }
    }

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

    /// Moves the counts to a board.
    pub fn post(&mut self, board: &Mutex<Board>) {
        let mut board = board.lock().expect("no thread panics while it holds a board");
        board.live.add(&self.inside);
        board.live.add(&self.outside);
        board.measured.add(&self.inside);
        board.last_answer = self.last_answer;
        self.inside.clear();
        self.outside.clear();
    }

    fn is_inside(&self, since: u64, now: u64) -> bool {
        self.window.contains(if self.counts_by_due_time { &since } else { &now })
    }
}
