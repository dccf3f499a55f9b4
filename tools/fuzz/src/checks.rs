//! The commands that feed no target: what disks do to whole logs and snapshots.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};

use raftkv_fuzz::{crash_images, flips};

use crate::parse_count;

/// What is checked instead of targets.
#[derive(Debug, Subcommand)]
pub enum Check {
    /// Lets the power go while logs and snapshots are written, and starts on whatever the disks may have kept
    CrashImages(CrashImages),
    /// Changes every byte of a sealed segment and of a snapshot of 64 KiB each, and of the end of a log
    Flips(Flips),
}

impl Check {
    /// Runs it.
    pub fn run(&self) -> ExitCode {
        match self {
            Check::CrashImages(arguments) => arguments.run(),
            Check::Flips(arguments) => arguments.run(),
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

/// Prints of each file what became of the changes.
#[derive(Debug, Args)]
pub struct Flips {
    /// Changes one byte of so many; all of them if not said
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Changes each bit of a byte alone, and all together, instead of one of them
    #[arg(long)]
    all_bits: bool,
    /// Decides which bytes and bits
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Flips {
    fn run(&self) -> ExitCode {
        let plan = flips::Plan { every: self.every, seed: self.seed, all_bits: self.all_bits };
        let mut code = ExitCode::SUCCESS;
        let files: [(&str, &dyn Fn() -> _); 4] = [
            ("a sealed segment of 64 KiB", &|| flips::segment(&plan)),
            ("a snapshot of 64 KiB", &|| flips::snapshot(&plan)),
            ("the end of a log with a watermark", &|| flips::tail(true, &plan)),
            ("the end of a log that crashed before its watermark", &|| flips::tail(false, &plan)),
        ];
        for (what, flip) in files {
            let started = Instant::now();
            let (tally, unnoticed) = flip();
            let flips::Tally { bytes, flips, refused, in_a_copy, in_a_gap, cut, mended } = tally;
            println!(
                "flips: {what}: {flips} flips in {bytes} bytes, {} detected ({refused} refused; of those that lose nothing \
                 {in_a_gap} named where nothing stands and {in_a_copy} in one of two copies); in what nothing proves {cut} cut \
                 as torn, {mended} written over; {} unnoticed, {:.1} s",
                tally.detected(),
                unnoticed.len(),
                started.elapsed().as_secs_f64()
            );
            unnoticed.iter().take(20).for_each(|line| println!("  {line}"));
            if !unnoticed.is_empty() {
                let bits = if self.all_bits { " --all-bits" } else { "" };
                let (every, seed) = (self.every, self.seed);
                println!(
                    "  again: cargo run --profile sim -p raftkv-fuzz -- flips --every {every} --seed {seed}{bits}"
                );
                code = ExitCode::FAILURE;
            }
        }
        code
    }
}
