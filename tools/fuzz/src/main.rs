//! `raftkv-fuzz`: feeds the fuzz targets for a number of executions or minutes, or one input again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod checks;

use checks::Check;
use raftkv_fuzz::Target;
use raftkv_fuzz::campaign::{self, Budget, Outcome, Plan};
use raftkv_fuzz::engine::Failure;
use raftkv_fuzz::feedback::{Feedback, named};
use raftkv_fuzz::panics;
use raftkv_fuzz::targets;

/// Feeds mutated inputs to parts of RaftKV and reports every input that breaks one.
///
/// The same seed and number of jobs repeat a campaign. Exit code: 0 nothing broke, 1 something did, 2 bad usage.
#[derive(Debug, Parser)]
#[command(name = "raftkv-fuzz", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    check: Option<Check>,
    /// Which targets; all of them if none is named
    targets: Vec<String>,
    /// Executions of all named targets together, as in 300M
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    executions: u64,
    /// Run for so long instead
    #[arg(long, value_name = "M", conflicts_with = "executions")]
    minutes: Option<u32>,
    /// Decides every input, together with --jobs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; as many as there are cores if not said
    #[arg(long)]
    jobs: Option<usize>,
    /// Run the one named target once, with this file's bytes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["executions", "minutes"])]
    input: Option<PathBuf>,
    /// Where the inputs that break something are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    artifacts: PathBuf,
    /// Write the seeds of the one named target to this directory, for another fuzzer
    #[arg(long, value_name = "DIR", conflicts_with_all = ["executions", "minutes", "input"])]
    write_seeds: Option<PathBuf>,
    /// List the targets and what must hold in each
    #[arg(long)]
    list: bool,
}

fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        _ => (text, 1),
    };
    let count = digits.parse().ok().and_then(|count: u64| count.checked_mul(unit));
    count.ok_or_else(|| "a number is wanted, with k or M behind it for thousands or millions".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(check) = &arguments.check {
        return check.run();
    }
    let chosen = match choose(&arguments.targets) {
        Ok(chosen) => chosen,
        Err(line) => return usage(&line),
    };
    if arguments.list {
        chosen.iter().for_each(|target| println!("{:<16} {}", target.name, target.what));
        return ExitCode::SUCCESS;
    }
    match (&arguments.input, &arguments.write_seeds, chosen.as_slice()) {
        (None, None, _) => run_all(&chosen, &arguments),
        (Some(file), _, [target]) => run_once(target, file),
        (None, Some(folder), [target]) => write_seeds(target, folder),
        _ => usage("--input and --write-seeds go with the name of one target"),
    }
}

fn usage(line: &str) -> ExitCode {
    eprintln!("raftkv-fuzz: {line}");
    ExitCode::from(2)
}

fn choose(names: &[String]) -> Result<Vec<Target>, String> {
    let all = targets::all();
    if names.is_empty() {
        return Ok(all);
    }
    let by_name = |name: &String| {
        let known = || all.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
        let target = all.iter().find(|target| target.name == name).copied();
        target.ok_or_else(|| format!("there is no target {name}; there are: {}", known()))
    };
    names.iter().map(by_name).collect()
}

fn run_once(target: &Target, file: &Path) -> ExitCode {
    let input = match fs::read(file) {
        Ok(input) => input,
        Err(error) => return usage(&format!("cannot read {}: {error}", file.display())),
    };
    match panics::catch(|| (target.run)(&input, &mut Feedback::default())) {
        Ok(()) => {
            println!("{}: {} bytes, nothing broke", target.name, input.len());
            ExitCode::SUCCESS
        }
        Err(words) => {
            println!("{}: {words}", target.name);
            ExitCode::FAILURE
        }
    }
}

fn write_seeds(target: &Target, folder: &Path) -> ExitCode {
    let seeds = (target.seeds)();
    let write = |(number, seed): (usize, &Vec<u8>)| fs::write(folder.join(format!("seed-{number:04}")), seed);
    match fs::create_dir_all(folder).and_then(|()| seeds.iter().enumerate().try_for_each(write)) {
        Ok(()) => {
            println!("{}: {} seeds in {}", target.name, seeds.len(), folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => usage(&format!("cannot write to {}: {error}", folder.display())),
    }
}

fn run_all(chosen: &[Target], arguments: &Arguments) -> ExitCode {
    let budget = match arguments.minutes {
        Some(minutes) => Budget::Time(Duration::from_secs(60) * minutes),
        None => Budget::Executions(arguments.executions),
    };
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let plan = Plan { budget, seed: arguments.seed, jobs: arguments.jobs.unwrap_or(cores).max(1) };
    println!("seed {}, {} jobs", plan.seed, plan.jobs);
    let shares = chosen.iter().map(|target| target.share).sum();
    let mut outcomes = Vec::new();
    for target in chosen {
        let mut progress = |executions| eprintln!("{}: {executions} executions so far", target.name);
        let outcome = campaign::run(*target, &plan, shares, &mut progress);
        println!("{}", line(&outcome));
        for failure in &outcome.failures {
            report(failure, &arguments.artifacts);
        }
        outcomes.push(outcome);
    }
    let executions: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.elapsed.as_secs_f64()).sum();
    let failures: usize = outcomes.iter().map(|outcome| outcome.failures.len()).sum();
    println!("{executions} executions of {} targets in {seconds:.1} s, {failures} failures", outcomes.len());
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn line(outcome: &Outcome) -> String {
    format!(
        "{:<16} {:>11} executions, {:>8} a second, {:>5} inputs in the corpus, {:>5} features, {:>6} outcomes, {} failures",
        outcome.target,
        outcome.executions,
        outcome.rate(),
        outcome.corpus,
        outcome.features,
        outcome.combinations,
        outcome.failures.len()
    )
}

fn report(failure: &Failure, artifacts: &Path) {
    let hex: String = failure.input.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = artifacts.join(format!("{}-{:016x}.bin", failure.target, named(&hex)));
    println!("{}: {}", failure.target, failure.words);
    println!("  input, {} bytes: {hex}", failure.input.len());
    let written: io::Result<()> = fs::create_dir_all(artifacts).and_then(|()| fs::write(&file, &failure.input));
    match written {
        Ok(()) => {
            let file = file.display();
            println!("  again: cargo run --profile fuzz -p raftkv-fuzz -- {} --input {file}", failure.target);
        }
        Err(error) => println!("  could not be written to {}: {error}", file.display()),
    }
}
