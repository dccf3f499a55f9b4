//! `raftkv-sim`: runs seeds, shows failures, repeats them.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{Parser, Subcommand};
use raftkv_sim::MUST_HAPPEN;
use raftkv_sim::logged;
use raftkv_sim::record::{self, Stretch};
use raftkv_sim::run::{Campaign, Report, catch_panics, run_seed, run_seed_twice, run_seeds};

/// A whole RaftKV cluster in one thread, with simulated clock, network and disks: one seed is one run.
///
/// Examples:
///   raftkv-sim --seed 42                       one run, and what happened in it
///   raftkv-sim --seed 42 --trace               the same with its whole trace
///   raftkv-sim --seeds 1..2001 --jobs 2        many runs; exit code 1 if one fails
///   raftkv-sim --seeds 1..50001 --record done  for hours, in several sittings
///   raftkv-sim --seeds 1..51 --doublecheck     each seed twice: both runs must be the same, event for event
///   raftkv-sim --seed 42 --doublecheck         the same for one
#[derive(Parser)]
#[command(name = "raftkv-sim", version, verbatim_doc_comment)]
struct Args {
    /// Run this seed
    #[arg(long, conflicts_with_all = ["seeds", "jobs", "failures_max", "record", "must_happen"])]
    seed: Option<u64>,
    /// Run these seeds: from the first up to, but without, the second
    #[arg(long, value_parser = parse_range, value_name = "A..B")]
    seeds: Option<Range<u64>>,
    /// Runs at a time [default: as many as there are cores]
    #[arg(long)]
    jobs: Option<usize>,
    /// Run each seed twice and compare the traces
    #[arg(long)]
    doublecheck: bool,
    /// Print a line for each turn of a node and all that it logs, each work of a disk, each answer and each fault of the run of --seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Stop after so many failures
    #[arg(long, default_value_t = 3)]
    failures_max: usize,
    /// Keep what is done in this file, and run what is missing or has failed the next time
    #[arg(long, value_name = "FILE", requires = "seeds")]
    record: Option<PathBuf>,
    /// Fail also if something that a campaign should meet never happened in the runs of this call
    #[arg(long)]
    must_happen: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Shows that known bugs are found: which seed finds each mutant; exit code 1 if one is not. Needs a build with RUSTFLAGS="--cfg raftkv_mutants"
    Mutants {
        /// Only these
        names: Vec<String>,
        /// Search from seed 1 on, and not first from the seed in mutants.txt; what is printed is the new mutants.txt
        #[arg(long)]
        search: bool,
        /// Give a mutant up after so many seeds
        #[arg(long, default_value_t = 2_000)]
        seeds_max: u64,
    },
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("it should be A..B, such as 1..1001")?;
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    let range = number(first)?..number(end)?;
    if range.is_empty() { Err("it holds no seed".to_owned()) } else { Ok(range) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    catch_panics();
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let passed = match (&args.command, args.seed) {
        (Some(Command::Mutants { names, search, seeds_max }), _) => mutants(names, *search, *seeds_max, jobs),
        (None, Some(seed)) => one(&args, seed),
        (None, None) => match &args.record {
            Some(path) => recorded(&args, path, jobs).unwrap_or_else(|error| {
                eprintln!("cannot keep the record {}: {error}", path.display());
                false
            }),
            None => passed(&args, &many(&args, wanted(&args), jobs, args.failures_max)),
        },
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn wanted(args: &Args) -> Range<u64> {
    args.seeds.clone().unwrap_or(1..101)
}

/// What a run needs besides its seed to be repeated.
fn options(args: &Args) -> &'static str {
    if args.doublecheck { " --doublecheck" } else { "" }
}

fn one(args: &Args, seed: u64) -> bool {
    let started = Instant::now();
    if args.trace {
        logged::listen();
    }
    let report = if args.doublecheck { run_seed_twice(seed) } else { run_seed(seed, args.trace) };
    for line in report.lines.iter().filter(|_| args.trace) {
        println!("{line}");
    }
    if let Some(failure) = &report.failure {
        println!("{}", failure.describe(seed, options(args)));
    }
    println!(
        "seed {seed}: {} events ({} under faults), {:.1} simulated seconds in {:.2} s, digest {:016x}",
        report.events,
        report.events_under_faults,
        report.simulated as f64 / 1e9,
        started.elapsed().as_secs_f64(),
        report.digest
    );
    print!("{}", report.coverage);
    report.failure.is_none()
}

/// A campaign in several sittings.
fn recorded(args: &Args, path: &Path, jobs: usize) -> std::io::Result<bool> {
    let wanted = wanted(args);
    let run = |seeds, failures_max| many(args, seeds, jobs, failures_max);
    let sitting = record::go_on(path, &wanted, args.failures_max, run)?;
    let done = record::read(path)?;
    let latest = record::latest(&done);
    let sum = |of: fn(&Stretch) -> u64| latest.iter().map(|stretch| of(stretch)).sum::<u64>();
    let (runs, failed) = (sum(|stretch| stretch.seeds.end - stretch.seeds.start), sum(|stretch| stretch.failed));
    let (events, hours) = (sum(|stretch| stretch.events), sum(|stretch| stretch.simulated_ms) as f64 / 3.6e6);
    println!("all sittings: {runs} seeds, {failed} failed; {events} events, {hours:.2} simulated hours");
    let left = record::left(&wanted, &done);
    for seeds in &left {
        println!("left: {}..{}", seeds.start, seeds.end);
    }
    Ok(passed(args, &sitting) && left.is_empty())
}

fn many(args: &Args, seeds: Range<u64>, jobs: usize, failures_max: usize) -> Campaign {
    let started = Instant::now();
    let done = AtomicU64::new(0);
    let total = seeds.end - seeds.start;
    let run = |seed| if args.doublecheck { run_seed_twice(seed) } else { run_seed(seed, false) };
    let each = |report: &Report| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        progress(done, total, started);
        if let Some(failure) = &report.failure {
            eprintln!("\n{}", failure.describe(report.seed, options(args)));
        }
    };
    let campaign = run_seeds(seeds, jobs, failures_max, run, each);
    eprintln!();
    summary(&campaign, started);
    campaign
}

/// Whether it is what was asked for: without a failure, and, if that was asked for, with all that is to happen.
fn passed(args: &Args, campaign: &Campaign) -> bool {
    let missing = if args.must_happen { campaign.coverage.missing(MUST_HAPPEN) } else { Vec::new() };
    if !missing.is_empty() {
        println!("never happened, so that nothing is known of it: {}", missing.join(", "));
    }
    campaign.failures.is_empty() && missing.is_empty()
}

fn progress(done: u64, total: u64, started: Instant) {
    if std::io::stderr().is_terminal() || done == total || done.is_multiple_of(100) {
        let rate = done as f64 / started.elapsed().as_secs_f64();
        let left = (total - done) as f64 / rate;
        eprint!("\r{done} of {total} seeds, {rate:.1} a second, {left:.0} s left   ");
        // What a person sees of it is all that it is for.
        let _ = std::io::stderr().flush();
    }
}

fn summary(campaign: &Campaign, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} failed; {} events ({} under faults), {:.0} a second; {:.2} simulated hours in {seconds:.0} s, {:.0} \
         times as fast as life",
        campaign.runs,
        campaign.failures.len(),
        campaign.events,
        campaign.events_under_faults,
        campaign.events as f64 / seconds,
        campaign.hours(),
        campaign.hours() * 3_600.0 / seconds
    );
    print!("{}", campaign.coverage);
}

#[cfg(not(raftkv_mutants))]
fn mutants(_: &[String], _: bool, _: u64, _: usize) -> bool {
    eprintln!("this build has no mutants: build it with RUSTFLAGS=\"--cfg raftkv_mutants\" and its own --target-dir");
    false
}

/// For each mutant the seed that found it last.
#[cfg(raftkv_mutants)]
const REMEMBERED: &str = include_str!("../mutants.txt");

/// Seeds that are tried from the remembered one on.
#[cfg(raftkv_mutants)]
const SEEDS_AROUND: u64 = 20;

#[cfg(raftkv_mutants)]
fn remembered(name: &str) -> Option<u64> {
    let mut lines = REMEMBERED.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten())
}

/// Looks for each mutant where it was found last, unless the search is to be new, and then from seed 1 on: a change of
/// the code may have made other runs of the remembered seeds.
#[cfg(raftkv_mutants)]
fn mutants(names: &[String], search: bool, seeds_max: u64, jobs: usize) -> bool {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let mut survivors = 0;
    for mutant in raftkv::mutants::ALL.iter().filter(|mutant| wanted(mutant.name)) {
        let name = mutant.name;
        raftkv::mutants::choose(Some(name));
        let known = remembered(name).filter(|_| !search).map(|seed| seed..seed + SEEDS_AROUND);
        let found = known.into_iter().chain([1..seeds_max + 1]).find_map(|seeds| first_failure(seeds, jobs));
        raftkv::mutants::choose(None);
        match found {
            Some((seed, invariant)) => println!("{name:<34} {seed:>6}  {invariant}"),
            None => {
                survivors += 1;
                println!("{name:<34}      -  SURVIVES: {}", mutant.what);
            }
        }
    }
    if survivors > 0 {
        println!("# {survivors} survive");
    }
    survivors == 0
}

/// The first of these seeds that fails, and by which invariant.
#[cfg(raftkv_mutants)]
fn first_failure(seeds: Range<u64>, jobs: usize) -> Option<(u64, &'static str)> {
    let campaign = run_seeds(seeds, jobs, 1, |seed| run_seed(seed, false), |_| {});
    let first = campaign.failures.first()?;
    first.failure.as_ref().map(|failure| (first.seed, failure.violation.invariant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_one_seed_cannot_honour_is_refused() {
        let parse = |options: &[&str]| Args::try_parse_from([&["raftkv-sim"], options].concat());
        assert!(parse(&["--seed", "4", "--doublecheck"]).is_ok_and(|args| args.doublecheck));
        assert!(parse(&["--seed", "4", "--trace"]).is_ok());
        for more in [&["--seeds", "1..2"][..], &["--jobs", "1"], &["--failures-max", "3"], &["--must-happen"]] {
            assert!(parse(&[&["--seed", "4"], more].concat()).is_err(), "{more:?}");
        }
        assert!(parse(&["--seed", "4", "--record", "done"]).is_err());
        assert!(parse(&["--seeds", "1..2", "--record", "done", "--must-happen", "--doublecheck"]).is_ok());
    }
}
