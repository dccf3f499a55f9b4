//! `raftkv-bench`: how fast is a RaftKV cluster?
//!
//! [`load`] runs the load generator: [`prepare`] learns the cluster and writes every key once, a [`worker`] per
//! thread keeps its [`conn`]ections busy, [`report`] prints the result. [`null_server`] answers the same frames
//! without doing anything, which shows what the machine and the protocol allow.
//!
//! The generator shares its machine with the servers that it measures, so what it spends on a request decides what
//! is left for them: no allocation, no lock and no system call belongs to a single request.

mod alarm;
mod args;
mod blocking;
mod conn;
mod inflight;
mod keys;
mod link;
mod load;
mod null_server;
mod operations;
mod prepare;
mod process;
mod report;
mod rng;
mod run;
mod schedule;
mod tally;
mod topology;
mod worker;

#[cfg(test)]
mod args_test;
#[cfg(test)]
mod inflight_test;
#[cfg(test)]
mod keys_test;
#[cfg(test)]
mod process_test;
#[cfg(test)]
mod report_test;
#[cfg(test)]
mod schedule_test;
#[cfg(test)]
mod topology_test;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => load::execute(&cli.load),
        Some(Command::NullServer(args)) => null_server::serve(args).map_err(|error| error.to_string()),
        Some(Command::Failover(_)) => Err("not there yet".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftkv-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
