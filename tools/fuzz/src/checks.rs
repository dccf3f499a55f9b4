//! The commands that feed no target: what disks do to whole logs and snapshots.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};

use raftkv_fuzz::crash_images;

use crate::parse_count;

/// What is checked instead of targets.
#[derive(Debug, Subcommand)]
pub enum Check {
    /// Lets the power go while logs and snapshots are written, and starts on whatever the disks may have kept
    CrashImages(CrashImages),
}

impl Check {
    /// Runs it.
    pub fn run(&self) -> ExitCode {
        match self {
            Check::CrashImages(arguments) => arguments.run(),
        }
    }
}

/// Prints how far it is, then what came of it. The images depend on the seed alone.
#[derive(Debug, Args)]
pub struct CrashImages {
    /// At least so many images, as in 1M
    #[arg(long, value_name = "N", default_value = "20k", value_parser = parse_count)]
    images: u64,
    /// Decides every image
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the images of this run
    #[arg(long, value_name = "R")]
    run: Option<u64>,
    /// Threads; as many as there are cores if not said
    #[arg(long)]
    jobs: Option<usize>,
}

impl CrashImages {
    fn run(&self) -> ExitCode {
        let started = Instant::now();
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let jobs = self.jobs.unwrap_or(cores).max(1) as u64;
        let plan = crash_images::Plan { images: self.images, seed: self.seed, run: self.run, jobs };
        println!("crash-images: seed {}, {jobs} jobs", self.seed);
        let progress = |images| {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("crash-images: {images} images so far, {:.0} a second", images as f64 / seconds);
        };
        let (tally, failures) = crash_images::run_all(&plan, &progress);
        println!("crash-images: {tally}; {:.1} s, {} failures", started.elapsed().as_secs_f64(), failures.len());
        for failure in &failures {
            println!("run {}, {}", failure.run, failure.words);
            let (seed, run) = (self.seed, failure.run);
            println!("  again: cargo run --profile sim -p raftkv-fuzz -- crash-images --seed {seed} --run {run}");
        }
        let missing = tally.missing();
        if failures.is_empty() && !missing.is_empty() {
            println!("crash-images: it never happened: {}", missing.join(", "));
        }
        if failures.is_empty() && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
