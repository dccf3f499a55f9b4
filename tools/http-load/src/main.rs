//! `http-load`: what `raftkv-bench` does, done over HTTP: to RaftKV's REST and gRPC faces, to etcd, and to a reference
//! server that keeps a map in memory. Connections, requests in flight, keys, values, warm-up, window, percentiles and the
//! JSON line are those of `raftkv-bench`, from the same code.
//!
//! It also holds connections open that do nothing or little ([`hold`]), and is that reference server itself
//! ([`reference`]).

mod args;
mod caller;
mod etcd;
mod hold;
mod link;
mod load;
mod plan;
mod reference;
mod rest;
mod tonics;

use std::process::ExitCode;
use std::thread;

use clap::{Parser, ValueEnum};
use raftkv_bench::keys::KeySpace;
use raftkv_bench::meter::{Loop, Meter};
use raftkv_bench::process::Usage;
use raftkv_bench::report::{Report, Setup};
use raftkv_bench::watch::{Watched, watch};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::args::{Cli, Command, Load};
use crate::load::{Generator, prefill};
use crate::plan::Plan;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => execute(&cli.load),
        Some(Command::Serve(args)) => reference::serve(args),
        Some(Command::Hold(args)) => hold::execute(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(args: &Load) -> Result<(), String> {
    if args.target.is_http1() && args.inflight > 1 {
        return Err("a connection of HTTP/1.1 has one request in flight: --inflight 1".into());
    }
    Usage::of(&args.pids)?;
    let keys = KeySpace::new(args.keys, args.key_size as usize)?;
    let plan = local(&runtime()?, Plan::make(args, &keys))?;
    if !args.no_prefill {
        eprintln!("prefilling {} keys", args.keys);
        local(&runtime()?, prefill(args, &keys, &plan));
    }
    let threads = args.threads.min(args.conns);
    let meter = Meter::start(Loop::Closed, args.warmup, args.duration, threads as usize);
    meter.stop_on_signals().map_err(|error| error.to_string())?;
    let runtimes = (0..threads).map(|_| runtime()).collect::<Result<Vec<_>, _>>()?;
    let watched = thread::scope(|scope| {
        let generators: Vec<_> = (0..threads)
            .zip(&runtimes)
            .map(|(thread, runtime)| {
                let (keys, plan, meter) = (&keys, &plan, &meter);
                scope.spawn(move || local(runtime, Generator::new(args, keys, plan, meter, thread, threads).generate()))
            })
            .collect();
        let finished = || generators.iter().all(thread::ScopedJoinHandle::is_finished);
        let watched = watch(&meter, &args.pids, || None, finished);
        for generator in generators {
            generator.join().expect("the load reports its errors");
        }
        watched
    })?;
    let (tally, measured_s) = meter.measured();
    let Watched { servers, client, syncs } = watched;
    Report { setup: setup(args), tally, measured_s, elections: None, servers, client, syncs }.print(args.json)
}

/// One thread with all its futures: what they share needs no lock.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

fn local<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    LocalSet::new().block_on(runtime, future)
}

fn setup(args: &Load) -> Setup {
    let name =
        |value: Option<clap::builder::PossibleValue>| value.map_or_else(String::new, |v| v.get_name().to_owned());
    Setup {
        target: name(args.target.to_possible_value()),
        workload: name(args.workload.to_possible_value()),
        conns: args.conns,
        inflight: args.inflight,
        key_size: args.key_size,
        value_size: args.value_size,
        keys: args.keys,
        rate: None,
        warmup_s: args.warmup.as_secs_f64(),
    }
}
