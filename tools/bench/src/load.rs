//! A run from beginning to end: prepare, start the threads, watch, report.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use clap::ValueEnum;

use crate::args::{Load, Peer};
use crate::blocking::Connection;
use crate::keys::KeySpace;
use crate::meter::{Loop, Meter};
use crate::operations::Mix;
use crate::prepare;
use crate::process::Usage;
use crate::report::{Report, Setup};
use crate::run::Run;
use crate::signals::stop_on_signals;
use crate::topology::Topology;
use crate::watch::{Watched, watch};
use crate::worker::Worker;

/// Runs the load until SIGINT or SIGTERM at the latest and prints the result. Fails if nothing could be measured.
pub fn execute(load: &Load) -> Result<(), String> {
    run(load, &stop_on_signals()?)?.print(load.json)
}

/// Runs the load until it is over or `stop` is set.
pub fn run(load: &Load, stop: &Arc<AtomicBool>) -> Result<Report, String> {
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
    let run = start(load, mix, key_sets, Arc::clone(stop));
    let watched = thread::scope(|scope| {
        let threads: Vec<_> = (0..run.threads)
            .map(|number| {
                let (run, topology) = (&run, topology.clone());
                scope.spawn(move || Worker::new(run, number, topology).and_then(Worker::work))
            })
            .collect();
        let finished = || threads.iter().all(thread::ScopedJoinHandle::is_finished);
        let watched = watch(&run.meter, &load.pids, || log_syncs(load, &topology), finished);
        for thread in threads {
            thread.join().expect("a worker reports its errors").map_err(|error| error.to_string())?;
        }
        watched
    })?;
    let (tally, measured_s) = run.meter.measured();
    let elections = prepare::discover(&load.endpoints, load.timeout).ok().map(|now| now.terms_since(&topology));
    let Watched { servers, client, syncs } = watched;
    Ok(Report { setup: setup(load), tally, measured_s, elections, servers, client, syncs })
}

/// How often all nodes together have synced their logs, if all of them say.
fn log_syncs(load: &Load, topology: &Topology) -> Option<u64> {
    let of_node = |address: &str| {
        let status = Connection::open(address, load.timeout).and_then(|mut connection| connection.status()).ok()?;
        status.counters.iter().find(|(name, _)| name == "log_syncs").map(|(_, syncs)| *syncs)
    };
    (load.target == Peer::Raftkv).then(|| topology.nodes().map(|(_, address)| of_node(address)).sum())?
}

fn start(load: &Load, mix: Mix, key_sets: Vec<Vec<u32>>, stop: Arc<AtomicBool>) -> Run {
    // A thread without a connection would have nothing to do.
    let threads = load.threads.min(load.conns) as usize;
    let kind = if load.rate.is_some() { Loop::Open } else { Loop::Closed };
    Run {
        mix,
        key_sets,
        conns: load.conns as usize,
        inflight: load.inflight as usize,
        rate: load.rate,
        threads,
        seed: load.seed,
        timeout_ns: load.timeout.as_nanos() as u64,
        meter: Meter::start(kind, load.warmup, load.duration, threads).stopped_by(stop),
    }
}

fn setup(load: &Load) -> Setup {
    let name =
        |value: Option<clap::builder::PossibleValue>| value.map_or_else(String::new, |v| v.get_name().to_owned());
    Setup {
        target: name(load.target.to_possible_value()),
        workload: name(load.workload.to_possible_value()),
        conns: load.conns,
        inflight: load.inflight,
        key_size: load.key_size,
        value_size: load.value_size,
        keys: load.keys,
        rate: load.rate,
        warmup_s: load.warmup.as_secs_f64(),
    }
}
