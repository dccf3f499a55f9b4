//! A run from beginning to end: prepare, start the threads, watch, report.

use std::io::{IsTerminal, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Load, Peer};
use crate::keys::KeySpace;
use crate::operations::Mix;
use crate::prepare;
use crate::process::Usage;
use crate::report::{Report, faults_text, readable_us};
use crate::run::{Board, Run};
use crate::worker::Worker;

/// How quickly the user's interrupt is noticed.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// Runs the load and prints the result. Fails if nothing could be measured.
pub fn execute(load: &Load) -> Result<(), String> {
    Usage::of(&load.pids)?;
    let keys = KeySpace::new(load.keys, load.key_size as usize)?;
    let mix = Mix {
        workload: load.workload,
        keys,
        value_size: load.value_size as usize,
        read_ratio: load.read_ratio,
        scan_limit: load.scan_limit,
    };
    let mut topology = prepare::discover(&load.endpoints, load.timeout)?;
    let key_sets = mix.keys.by_shard(topology.shards());
    if !load.no_prefill && load.target == Peer::Raftkv {
        eprintln!("prefilling {} keys", load.keys);
        prepare::prefill(&mut topology, &key_sets, &mix, load.seed, load.timeout)?;
    }
    let run = start(load, mix, key_sets);
    watch_signals(&run)?;
    let watched = thread::scope(|scope| {
        let threads: Vec<_> = (0..run.threads)
            .map(|number| {
                let (run, topology) = (&run, topology.clone());
                scope.spawn(move || Worker::new(run, number, topology).and_then(Worker::work))
            })
            .collect();
        let watched = watch(load, &run, || threads.iter().all(thread::ScopedJoinHandle::is_finished));
        for thread in threads {
            thread.join().expect("a worker reports its errors").map_err(|error| error.to_string())?;
        }
        watched
    })?;
    report(load, &run, watched)
}

fn start(load: &Load, mix: Mix, key_sets: Vec<Vec<u32>>) -> Run {
    // A thread without a connection would have nothing to do.
    let threads = load.threads.min(load.conns) as usize;
    let nanos = |duration: Duration| duration.as_nanos() as u64;
    Run {
        mix,
        key_sets,
        conns: load.conns as usize,
        inflight: load.inflight as usize,
        rate: load.rate,
        threads,
        seed: load.seed,
        timeout_ns: nanos(load.timeout),
        started: Instant::now(),
        window: nanos(load.warmup)..nanos(load.warmup + load.duration),
        stop: Arc::new(AtomicBool::new(false)),
        boards: (0..threads).map(|_| Mutex::new(Board::default())).collect(),
    }
}

/// Ctrl-C ends the run; what was measured until then is reported.
fn watch_signals(run: &Run) -> Result<(), String> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&run.stop)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What was used at the beginning and at the end of the window.
struct Watched {
    servers: Option<(Usage, Usage)>,
    client: (Usage, Usage),
}

/// Prints the progress and looks at the processes when the window opens and closes.
fn watch(load: &Load, run: &Run, finished: impl Fn() -> bool) -> Result<Watched, String> {
    let mut progress = Progress::new();
    let mut begin = None;
    let look = || Ok::<_, String>((Usage::of(&load.pids)?, Usage::of_self()?));
    let mut end = None;
    while !finished() {
        let now = run.now();
        if now >= run.window.start && begin.is_none() {
            begin = Some(look()?);
        }
        if (now >= run.window.end || run.stopped()) && end.is_none() {
            end = Some(look()?);
        }
        progress.show(run);
        let next = [run.window.start, run.window.end].into_iter().find(|&at| at > now).unwrap_or(u64::MAX);
        thread::park_timeout(WATCH_PAUSE.min(Duration::from_nanos(next - now)));
    }
    progress.finish();
    let end = end.map_or_else(look, Ok)?;
    let begin = begin.unwrap_or(end);
    Ok(Watched { servers: (!load.pids.is_empty()).then_some((begin.0, end.0)), client: (begin.1, end.1) })
}

fn report(load: &Load, run: &Run, watched: Watched) -> Result<(), String> {
    let (tally, last_answer) = run.measured();
    // An open loop may still be answered after its window; a stopped run ends before it.
    let end = if run.stopped() { last_answer } else { last_answer.max(run.window.end) };
    let end = if run.rate.is_none() { end.min(run.window.end) } else { end };
    let measured_s = end.saturating_sub(run.window.start) as f64 / 1e9;
    let report = Report { load, tally, measured_s, servers: watched.servers, client: watched.client };
    let text = if load.json { report.json() + "\n" } else { report.table() };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    if report.tally.ops() == 0 {
        return Err(format!("no operation succeeded; errors: {}", faults_text(&report.tally)));
    }
    Ok(())
}

/// A line on stderr: each second in place on a terminal, and every five seconds elsewhere.
struct Progress {
    on_terminal: bool,
    shown_at: Instant,
    every: Duration,
}

impl Progress {
    fn new() -> Progress {
        let on_terminal = std::io::stderr().is_terminal();
        Progress { on_terminal, shown_at: Instant::now(), every: Duration::from_secs(if on_terminal { 1 } else { 5 }) }
    }

    fn show(&mut self, run: &Run) {
        let passed = self.shown_at.elapsed();
        if passed < self.every {
            return;
        }
        self.shown_at = Instant::now();
        let now = run.now();
        let phase = match now {
            now if now < run.window.start => "warm-up",
            now if now < run.window.end => "measuring",
            _ => "waiting for the last replies",
        };
        let tally = run.take_live();
        let line = format!(
            "{:>4.0} s {phase}: {:>9.0} ops/s  p50 {}  p99 {}  errors {}",
            now as f64 / 1e9,
            tally.ops() as f64 / passed.as_secs_f64(),
            readable_us(tally.latency_us(0.5)),
            readable_us(tally.latency_us(0.99)),
            faults_text(&tally),
        );
        // Clears what an earlier, longer line left behind.
        if self.on_terminal { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
    }

    fn finish(&self) {
        if self.on_terminal {
            eprintln!();
        }
    }
}
