//! `etcd-load`: what `raftkv-bench` does, done to etcd. Connections, requests in flight, keys, values, warm-up, window,
//! percentiles and the JSON line are the same, from the same code. All connections go to the leader.

mod caller;
mod grpc;
mod load;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use raftkv_bench::args::parse_duration;
use raftkv_bench::blocking::resolve;
use raftkv_bench::keys::KeySpace;
use raftkv_bench::meter::{Loop, Meter};
use raftkv_bench::process::Usage;
use raftkv_bench::report::{Report, Setup};
use raftkv_bench::watch::{Watched, watch};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::caller::{RETRY_PAUSE, leads};
use crate::load::{Load, prefill};

/// How long to wait for etcd to elect a leader, in attempts.
const LEADER_ATTEMPTS: u32 = 600;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Overwrite keys.
    Put,
    /// Read keys, linearizably.
    Get,
}

/// The load of raftkv-bench for etcd, measured and reported alike. All connections go to the leader.
#[derive(Clone, Debug, Parser)]
#[command(name = "etcd-load", version)]
struct Args {
    /// Client addresses of the members, HOST:PORT, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// What is asked
    #[arg(long, value_enum, default_value = "put")]
    workload: Workload,
    /// Connections in all
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    conns: u32,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    inflight: u32,
    /// Bytes of a key
    #[arg(long, default_value_t = 16)]
    key_size: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128)]
    value_size: u32,
    /// How many keys there are; requests are uniform over them
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// How long to measure
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before that, which does not count
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    warmup: Duration,
    /// Repeats the same sequence of keys and values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not write every key once before the load
    #[arg(long)]
    no_prefill: bool,
    /// Print one JSON object as the last line instead of a table
    #[arg(long)]
    json: bool,
    /// Processes whose CPU time and memory are reported: the servers
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Give a request up after this time
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
}

fn main() -> ExitCode {
    match execute(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etcd-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(args: &Args) -> Result<(), String> {
    Usage::of(&args.pids)?;
    let keys = KeySpace::new(args.keys, args.key_size as usize)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let leader = local(&runtime, find_leader(args))?;
    if !args.no_prefill {
        eprintln!("prefilling {} keys", args.keys);
        local(&runtime, prefill(args, &keys, leader));
    }
    let meter = Meter::start(Loop::Closed, args.warmup, args.duration, 1);
    meter.stop_on_signals().map_err(|error| error.to_string())?;
    let watched = thread::scope(|scope| {
        let load = scope.spawn(|| local(&runtime, Load::new(args, &keys, leader, &meter).generate()));
        let watched = watch(&meter, &args.pids, || None, || load.is_finished());
        load.join().expect("the load reports its errors");
        watched
    })?;
    let (tally, measured_s) = meter.measured();
    let Watched { servers, client, syncs } = watched;
    Report { setup: setup(args), tally, measured_s, elections: None, servers, client, syncs }.print(args.json)
}

fn local<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    LocalSet::new().block_on(runtime, future)
}

fn setup(args: &Args) -> Setup {
    Setup {
        target: "etcd".into(),
        workload: args.workload.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        conns: args.conns,
        inflight: args.inflight,
        key_size: args.key_size,
        value_size: args.value_size,
        keys: args.keys,
        rate: None,
        warmup_s: args.warmup.as_secs_f64(),
    }
}

/// Asks every member who it is and who leads, until the leader is among those that answer.
async fn find_leader(args: &Args) -> Result<SocketAddr, String> {
    let mut trouble = String::from("no member says that it leads");
    for _ in 0..LEADER_ATTEMPTS {
        for endpoint in &args.endpoints {
            let address = resolve(endpoint).map_err(|error| format!("{endpoint}: {error}"))?;
            match leads(address, args.timeout).await {
                Ok(true) => return Ok(address),
                Ok(false) => {}
                Err(error) => trouble = format!("{endpoint}: {error}"),
            }
        }
        sleep(RETRY_PAUSE).await;
    }
    Err(trouble)
}
