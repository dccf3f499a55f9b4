//! `raftkv-bench`: see the library beside it.

use std::process::ExitCode;

use clap::Parser;
use raftkv_bench::args::{Cli, Command};
use raftkv_bench::{failover, load, null_server, trials};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => load::execute(&cli.load),
        Some(Command::NullServer(args)) => null_server::serve(args).map_err(|error| error.to_string()),
        Some(Command::Failover(args)) => failover::execute(args),
        Some(Command::Restart(args)) => trials::restart(args),
        Some(Command::Memory(args)) => trials::memory(args),
        Some(Command::Snapshots(args)) => trials::snapshots(args),
        Some(Command::CatchUp(args)) => trials::catch_up(args),
        Some(Command::Overwrite(args)) => trials::overwrite(args),
        Some(Command::Amplification(args)) => trials::amplification(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftkv-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
