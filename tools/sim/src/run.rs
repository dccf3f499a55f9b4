//! One seed is one run; many seeds on many threads are a campaign.

use std::cell::RefCell;
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::agenda::SECOND;
use crate::coverage::Coverage;
use crate::logged;
use crate::oracle::Violation;
use crate::world::World;

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The first violation, with the last events in readable form.
    pub failure: Option<Failure>,
    /// Events that happened.
    pub events: u64,
    /// Of those, how many did something while faults went on; see [`World::events_under_faults`].
    pub events_under_faults: u64,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// Of all that happened.
    pub digest: u64,
    /// What happened.
    pub coverage: Coverage,
    /// Every line of the trace, where it was asked for.
    pub lines: Vec<String>,
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which invariant, and what was seen.
    pub violation: Violation,
    /// The last events.
    pub tail: String,
    /// What was drawn.
    pub plan: String,
}

/// Panics are violations like any other: their words are kept for the report instead of being printed.
pub fn catch_panics() {
    panic::set_hook(Box::new(|info| {
        PANIC.with(|words| *words.borrow_mut() = info.to_string().replace('\n', " "));
    }));
}

/// Runs a seed to its end or to its first violation.
#[must_use]
pub fn run_seed(seed: u64, whole_trace: bool) -> Report {
    // What the run before has logged at its end is none of this one's.
    let _ = logged::take();
    let mut world = match World::new(seed, whole_trace) {
        Ok(world) => world,
        Err(error) => return Report::impossible(seed, &format!("no directory for the run: {error}")),
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(_) => Some(Violation::of("nothing panics", PANIC.with(|words| words.take()))),
    };
    let failure =
        violation.map(|violation| Failure { violation, tail: world.trace.tail(), plan: world.plan.to_string() });
    let simulated = panic::catch_unwind(AssertUnwindSafe(|| world.now())).unwrap_or_default();
    let report = Report {
        seed,
        failure,
        events: world.events,
        events_under_faults: world.events_under_faults,
        simulated,
        digest: world.trace.value(),
        coverage: std::mem::take(&mut world.coverage),
        lines: world.trace.lines.take().unwrap_or_default(),
    };
    // After a panic in the middle of a turn, taking the world apart may panic again; that says nothing new.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(world)));
    report
}

/// Runs a seed twice and compares all that happened: a seed that is two runs is a failure.
#[must_use]
pub fn run_seed_twice(seed: u64) -> Report {
    compared(run_seed(seed, true), &run_seed(seed, true))
}

fn compared(mut first: Report, second: &Report) -> Report {
    let is_same = first.lines == second.lines && first.digest == second.digest && first.events == second.events;
    if first.failure.is_some() || is_same {
        return first;
    }
    let at = first.lines.iter().zip(&second.lines).position(|(one, other)| one != other);
    let at = at.unwrap_or(first.lines.len().min(second.lines.len()));
    let line = |report: &Report| report.lines.get(at).cloned().unwrap_or_else(|| "the end".to_owned());
    let what = format!("line {at} of the trace was `{}` at first, and then `{}`", line(&first), line(second));
    let violation = Violation::of("one seed is one run", what);
    first.failure = Some(Failure { violation, tail: String::new(), plan: String::new() });
    first
}

impl Report {
    pub(crate) fn impossible(seed: u64, why: &str) -> Report {
        let failure =
            Failure { violation: Violation::of("the run can begin", why), tail: String::new(), plan: String::new() };
        Report {
            seed,
            failure: Some(failure),
            events: 0,
            events_under_faults: 0,
            simulated: 0,
            digest: 0,
            coverage: Coverage::default(),
            lines: Vec::new(),
        }
    }
}

impl Failure {
    /// For people: what, when, and how to see it again, with these options besides.
    #[must_use]
    pub fn describe(&self, seed: u64, options: &str) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "seed {seed}: {}", self.violation.invariant);
        let _ = writeln!(text, "  {}", self.violation.what);
        let _ = writeln!(text, "  plan: {}", self.plan);
        let _ = writeln!(text, "the last events:");
        text.push_str(&self.tail);
        let _ = writeln!(text, "again: cargo run --profile sim -p raftkv-sim -- --seed {seed}{options}");
        text
    }
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Runs.
    pub runs: u64,
    /// Events of all of them.
    pub events: u64,
    /// Those that did something while faults went on.
    pub events_under_faults: u64,
    /// Simulated nanoseconds of all of them.
    pub simulated: u64,
    /// What happened.
    pub coverage: Coverage,
    /// The runs that failed, by seed.
    pub failures: Vec<Report>,
}

impl Campaign {
    /// Takes in what came of other seeds.
    pub fn merge(&mut self, other: Campaign) {
        self.runs += other.runs;
        self.events += other.events;
        self.events_under_faults += other.events_under_faults;
        self.simulated += other.simulated;
        self.coverage.merge(&other.coverage);
        self.failures.extend(other.failures);
    }

    /// Takes in what came of a run.
    pub fn add(&mut self, report: Report) {
        self.runs += 1;
        self.events += report.events;
        self.events_under_faults += report.events_under_faults;
        self.simulated += report.simulated;
        self.coverage.merge(&report.coverage);
        if report.failure.is_some() {
            self.failures.push(report);
        }
    }

    /// Simulated hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.simulated as f64 / SECOND as f64 / 3_600.0
    }
}

/// Runs the seeds on `jobs` threads, each by `run`, until all are done or so many have failed. `each` sees every report as
/// it comes.
pub fn run_seeds(
    seeds: std::ops::Range<u64>,
    jobs: usize,
    failures_max: usize,
    run: impl Fn(u64) -> Report + Sync,
    each: impl Fn(&Report) + Sync,
) -> Campaign {
    let next = AtomicU64::new(seeds.start);
    let enough = AtomicBool::new(false);
    let campaign = Mutex::new(Campaign::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let mut report = run(seed);
                    report.lines = Vec::new();
                    each(&report);
                    let mut campaign = campaign.lock().expect("a run catches its own panics");
                    campaign.add(report);
                    if campaign.failures.len() >= failures_max {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut campaign = campaign.into_inner().expect("a run catches its own panics");
    campaign.failures.sort_by_key(|report| report.seed);
    campaign
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str], digest: u64) -> Report {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Report { failure: None, digest, lines, ..Report::impossible(7, "") }
    }

    #[test]
    fn a_seed_that_is_two_runs_has_failed() {
        let failed = |first: Report, second: Report| compared(first, &second).failure.map(|failure| failure.violation);
        assert_eq!(failed(report(&["a", "b"], 1), report(&["a", "b"], 1)), None);
        let differing = failed(report(&["a", "b"], 1), report(&["a", "c"], 1)).expect("a violation");
        assert_eq!(differing.invariant, "one seed is one run");
        assert!(differing.what.contains("line 1") && differing.what.contains("`c`"), "{}", differing.what);
        assert!(failed(report(&["a"], 1), report(&["a", "b"], 1)).is_some());
        assert!(failed(report(&["a"], 1), report(&["a"], 2)).is_some());
        let again = compared(report(&["a"], 1), &report(&["b"], 1)).failure.map(|it| it.describe(7, " --doublecheck"));
        let command = "again: cargo run --profile sim -p raftkv-sim -- --seed 7 --doublecheck\n";
        assert!(again.is_some_and(|text| text.ends_with(command)));
    }
}
