//! From the start of killed nodes to linearizable gets on every shard through each of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Consistency, Operation, Status};
use raftkv_protocol::types::{NodeId, RequestId};

use super::args::Restart;
use super::figures::{counter, entries_behind_snapshots, largest, median, mib, record_bytes, sum};
use super::setup::{Ground, NEVER_BYTES};
use crate::blocking::Connection;
use crate::json::{Object, list, quoted, rounded};

/// Between two attempts.
const EVERY: Duration = Duration::from_millis(2);
/// How soon the user, and nodes that hang, are noticed.
const READ_TIMEOUT: Duration = Duration::from_millis(250);
/// Gets that nobody answers for so long fail the measurement.
const PATIENCE: Duration = Duration::from_secs(120);
/// The bounds of the threshold while the keys are written.
const SMALL_BYTES: (u64, u64) = (4 << 10, 1 << 20);
/// How long no snapshot is taken before all are taken that are due.
const QUIET: Duration = Duration::from_secs(2);

/// Runs all trials and prints what they found.
pub fn execute(args: &Restart) -> Result<(), String> {
    let mut ground = prepare(args)?;
    let topology = ground.cluster.settled()?;
    let keys = ground.one_key_each(&topology)?;
    let state = ground.cluster.statuses()?;
    for status in &state {
        eprintln!("{}", state_line(status, args)?);
    }
    let mut trials = Vec::new();
    for number in 0..=args.trials {
        let nodes = run_trial(&mut ground, &keys)?;
        let seconds = largest(&nodes);
        let each: Vec<String> = nodes.iter().map(|node| format!("{node:.3}")).collect();
        let note = if number == 0 { ", warms the cache, does not count" } else { "" };
        println!("start {number:>3}: every shard through every node after {seconds:.3} s ({}){note}", each.join(", "));
        if number > 0 {
            trials.push(seconds);
        }
        ground.cluster.settled()?;
    }
    print_summary(args, &trials, &state)
}

/// Nodes with a snapshot of everything, and so much log behind it.
fn prepare(args: &Restart) -> Result<Ground, String> {
    let record = record_bytes(args.data.value_bytes);
    // Several snapshots of each of a dozen shards, however few keys there are.
    let small = (u64::from(args.data.keys) * record / 48).clamp(SMALL_BYTES.0, SMALL_BYTES.1);
    let stored = (args.data.keys, args.data.value_bytes);
    let flags = [("--snapshot-log-bytes", small), ("--log-tail-bytes", 0)];
    let mut ground = Ground::start(&args.site, "restart", args.nodes, stored, &flags)?;
    ground.load()?;
    eprintln!("waiting for snapshots of everything");
    let mut last = (0, Instant::now());
    ground.wait_for("snapshots of every shard", PATIENCE, |cluster| {
        let statuses = cluster.statuses()?;
        let taken = sum(&statuses, "snapshots_taken")?;
        if taken != last.0 {
            last = (taken, Instant::now());
        }
        Ok((every_shard_has_one(&statuses) && last.1.elapsed() >= QUIET).then_some(()))
    })?;
    ground.restart_with(&[("--snapshot-log-bytes", NEVER_BYTES), ("--core-log-bytes-max", NEVER_BYTES)])?;
    let wanted = args.log_bytes / record;
    loop {
        let behind = ground.cluster.statuses()?.iter().map(entries_behind_snapshots).min().unwrap_or(0);
        if behind >= wanted {
            return Ok(ground);
        }
        eprintln!("writing {} entries behind the snapshots, where {behind} are already", wanted - behind);
        ground.write(wanted - behind, |_| Ok(()))?;
        ground.cluster.settled()?;
    }
}

fn every_shard_has_one(statuses: &[Status]) -> bool {
    statuses.iter().flat_map(|status| &status.shards).all(|shard| shard.snapshot.index.0 > 0)
}

/// For each node, the seconds from the start of the processes until it has answered for every shard.
fn run_trial(ground: &mut Ground, keys: &[Vec<u8>]) -> Result<Vec<f64>, String> {
    ground.cluster.kill_all()?;
    let started = Instant::now();
    ground.cluster.launch_all()?;
    let nodes: Vec<(NodeId, String)> = ground.cluster.ids().into_iter().zip(ground.cluster.endpoints()).collect();
    let stop = &*ground.stop;
    thread::scope(|scope| {
        let ask = |(node, address): &(NodeId, String)| {
            let (node, address) = (*node, address.clone());
            scope.spawn(move || {
                wait_for_gets(&address, keys, started, stop).map_err(|error| format!("node {node}: {error}"))
            })
        };
        let threads: Vec<_> = nodes.iter().map(ask).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("a probe reports its errors"));
        ends.map(|end| end.map(|duration| duration.as_secs_f64())).collect()
    })
}

/// Asks a node for all keys until it has answered each: at once when it can be reached, and again what it refuses.
fn wait_for_gets(address: &str, keys: &[Vec<u8>], started: Instant, stop: &AtomicBool) -> Result<Duration, String> {
    let mut missing: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    while !missing.is_empty() {
        // A connection that fails is made anew; what was answered stays answered.
        if let Ok(mut connection) = Connection::open(address, READ_TIMEOUT) {
            while !missing.is_empty() && ask_once(&mut connection, &mut missing, started, stop).is_ok() {
                thread::park_timeout(EVERY);
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("no gets of {} shards after {PATIENCE:?}", missing.len()));
        }
        if !missing.is_empty() {
            thread::park_timeout(EVERY);
        }
    }
    Ok(started.elapsed())
}

/// One get for each key, all in flight at once, until all are answered or refused. Leaves in `missing` what was
/// refused.
fn ask_once(
    connection: &mut Connection,
    missing: &mut Vec<&[u8]>,
    started: Instant,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let get = |key| Operation::Get { key, consistency: Consistency::Linearizable };
    let ids: Vec<(RequestId, &[u8])> = missing.iter().map(|&key| (connection.queue(get(key)), key)).collect();
    connection.flush()?;
    let mut waiting = ids.len();
    while waiting > 0 && !stop.load(Ordering::Relaxed) && started.elapsed() <= PATIENCE {
        let answer = connection.receive(|reply| (reply.id, matches!(reply.result, Ok(Answer::Value { .. }))));
        match answer {
            Ok((id, is_value)) => {
                waiting -= 1;
                let answered = ids.iter().find(|(asked, _)| *asked == id).filter(|_| is_value);
                missing.retain(|key| answered.is_none_or(|(_, found)| key != found));
            }
            // The node has accepted and is not far enough to answer.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn state_line(status: &Status, args: &Restart) -> Result<String, String> {
    let behind = entries_behind_snapshots(status);
    Ok(format!(
        "node {}: {} keys, {behind} entries behind the snapshots ({} of log), log files of {}",
        status.node,
        status.shards.iter().map(|shard| shard.keys).sum::<u64>(),
        mib(behind * record_bytes(args.data.value_bytes)),
        mib(counter(status, "log_disk_bytes")?),
    ))
}

fn print_summary(args: &Restart, trials: &[f64], state: &[Status]) -> Result<(), String> {
    let behind = state.iter().map(entries_behind_snapshots);
    let record = record_bytes(args.data.value_bytes);
    let disk: Vec<u64> = state.iter().map(|status| counter(status, "log_disk_bytes")).collect::<Result<_, _>>()?;
    if args.site.json {
        let mut json = Object::default();
        json.field("mode", quoted("restart")).field("nodes", args.nodes).field("keys", args.data.keys);
        json.field("value_bytes", args.data.value_bytes);
        json.field("log_bytes_behind_snapshots", list(behind.map(|entries| entries * record)));
        json.field("log_disk_bytes", list(disk));
        json.field("median_s", rounded(median(trials))).field("max_s", rounded(largest(trials)));
        json.field("trials_s", list(trials.iter().copied().map(rounded)));
        println!("{}", json.finish());
    } else {
        println!(
            "{} killed nodes started to gets on every shard through each, {} trials: median {:.3} s  max {:.3} s",
            args.nodes,
            trials.len(),
            median(trials),
            largest(trials)
        );
    }
    Ok(())
}
