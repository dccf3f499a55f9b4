//! A campaign: every target for its share of the executions, on several threads that share nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Target;
use crate::engine::{Failure, Worker};
use crate::feedback::Feedback;
use crate::random::mix;

/// Inputs between two looks at the clock.
const SLICE: u64 = 512;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// When a target has had enough.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// After so many executions of all targets together, shared out by [`Target::share`].
    Executions(u64),
    /// After so long for all targets together.
    Time(Duration),
}

/// How a campaign is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long.
    pub budget: Budget,
    /// The same seed and number of jobs make the same inputs.
    pub seed: u64,
    /// Threads.
    pub jobs: usize,
}

/// What came of one target.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub target: &'static str,
    /// Inputs run.
    pub executions: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Inputs that are worth mutating, of all workers.
    pub corpus: usize,
    /// See [`Feedback::features`].
    pub features: usize,
    /// See [`Feedback::combinations`].
    pub combinations: usize,
    /// The first failure of each worker, if it had one.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Inputs per second, of all jobs.
    #[must_use]
    pub fn rate(&self) -> u64 {
        (self.executions as f64 / self.elapsed.as_secs_f64().max(1e-9)) as u64
    }
}

/// Runs one target for its share of the plan, where all targets of the campaign have `shares` together. `progress` is
/// called now and then with the executions so far.
#[must_use]
pub fn run(target: Target, plan: &Plan, shares: u64, progress: &mut dyn FnMut(u64)) -> Outcome {
    let started = Instant::now();
    let done = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let (executions, time) = match plan.budget {
        Budget::Executions(all) => (all * target.share / shares, None),
        Budget::Time(all) => (u64::MAX, Some(all * u32::try_from(target.share).unwrap_or(1) / shares as u32)),
    };
    let mut workers = thread::scope(|scope| {
        let (ended, ends) = mpsc::channel();
        for job in 0..plan.jobs as u64 {
            let (ended, done, is_over) = (ended.clone(), &done, &is_over);
            let own = executions / plan.jobs as u64 + u64::from(job < executions % plan.jobs as u64);
            scope.spawn(move || {
                let mut worker = Worker::new(target, mix(plan.seed).wrapping_add(job));
                let failure = drive(&mut worker, own, done, is_over);
                // The receiver waits for every worker.
                let _ = ended.send((job, worker, failure));
            });
        }
        drop(ended);
        let deadline = time.map(|time| started + time);
        collect(&ends, deadline, &is_over, &mut || progress(done.load(Ordering::Relaxed)))
    });
    workers.sort_by_key(|(job, ..)| *job);
    summarize(target, started.elapsed(), workers)
}

type Ended = (u64, Worker, Option<Failure>);

fn drive(worker: &mut Worker, executions: u64, done: &AtomicU64, is_over: &AtomicBool) -> Option<Failure> {
    let mut left = executions;
    while left > 0 && !is_over.load(Ordering::Relaxed) {
        let slice = left.min(SLICE);
        if let Err(failure) = worker.run(slice) {
            return Some(failure);
        }
        left -= slice;
        done.fetch_add(slice, Ordering::Relaxed);
    }
    None
}

fn collect(
    ends: &mpsc::Receiver<Ended>,
    deadline: Option<Instant>,
    is_over: &AtomicBool,
    progress: &mut dyn FnMut(),
) -> Vec<Ended> {
    let mut workers = Vec::new();
    loop {
        let left = deadline.map_or(PROGRESS, |at| at.saturating_duration_since(Instant::now()).min(PROGRESS));
        match ends.recv_timeout(left) {
            Ok(ended) => workers.push(ended),
            Err(mpsc::RecvTimeoutError::Timeout) => progress(),
            Err(mpsc::RecvTimeoutError::Disconnected) => return workers,
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            is_over.store(true, Ordering::Relaxed);
        }
    }
}

fn summarize(target: Target, elapsed: Duration, workers: Vec<Ended>) -> Outcome {
    let mut feedback = Feedback::default();
    workers.iter().for_each(|(_, worker, _)| feedback.merge(worker.feedback()));
    Outcome {
        target: target.name,
        executions: workers.iter().map(|(_, worker, _)| worker.executions()).sum(),
        elapsed,
        corpus: workers.iter().map(|(_, worker, _)| worker.corpus()).sum(),
        features: feedback.features(),
        combinations: feedback.combinations(),
        failures: workers.into_iter().filter_map(|(_, _, failure)| failure).collect(),
    }
}
