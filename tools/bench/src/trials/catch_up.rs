//! A node that was away for so long that the logs of the others begin behind its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::client::Status;
use raftkv_protocol::types::NodeId;

use super::args::CatchUp;
use super::disk::cores;
use super::figures::{committed, counter, greatest, mib, ratio, record_bytes};
use super::setup::Ground;
use crate::cluster::Cluster;
use crate::json::{Object, optional, quoted, rounded};
use crate::report::{Report, readable_us};

const NODES: u64 = 3;
/// Between two looks: what was committed at one is applied at the next.
const EVERY: Duration = Duration::from_millis(200);
/// The bounds of the threshold for snapshots.
const SMALL_BYTES: (u64, u64) = (4 << 10, 4 << 20);

/// Puts a second.
struct Rates {
    whole: f64,
    away: f64,
    during: f64,
    after: f64,
}

/// What the return of the node found.
struct Return {
    seconds: f64,
    fetched_bytes: u64,
    /// That it may fetch in a second, on all its cores.
    rate_cap: u64,
    shards_fetched: u64,
    shards: usize,
    puts_per_s: f64,
    /// The most processor time that snapshots have taken of one turn of a loop, on any node.
    hold_us_max: u64,
}

/// Measures, and prints what it was.
pub fn execute(args: &CatchUp) -> Result<(), String> {
    let stored = (args.data.keys, args.data.value_bytes);
    // Several snapshots of each of a dozen shards while the node is away.
    let small = u64::from(args.data.keys) * record_bytes(args.data.value_bytes) / 60;
    let small = small.clamp(SMALL_BYTES.0, SMALL_BYTES.1);
    let flags = [("--snapshot-log-bytes", small), ("--log-tail-bytes", 0), ("--snapshot-rate", args.snapshot_rate)];
    let mut ground = Ground::start(&args.site, "catch-up", NODES, stored, &flags)?;
    let times = (args.warmup, args.duration);
    eprintln!("puts on three nodes");
    let whole = ground.measure(&args.drive, times, args.rate)?.ops_per_s();
    ground.cluster.settled()?;
    let node = NodeId(NODES);
    let end = ends(&ground.cluster.status(node)?);
    ground.cluster.kill(node)?;
    eprintln!("node {node} is killed");
    write_past(&mut ground, &end, args.patience)?;
    eprintln!("puts on two nodes");
    let away = ground.measure(&args.drive, times, args.rate)?.ops_per_s();
    eprintln!("node {node} is started");
    let back = run_return(args, &mut ground, node)?;
    ground.cluster.settled()?;
    eprintln!("puts on three nodes again");
    let after = ground.measure(&args.drive, times, args.rate)?.ops_per_s();
    let rates = Rates { whole, away, during: back.puts_per_s, after };
    print_summary(args, &rates, &back);
    Ok(())
}

/// Where the log of each shard ends.
fn ends(status: &Status) -> Vec<u64> {
    status.shards.iter().map(|shard| shard.last.index.0).collect()
}

/// Writes every key, until the logs of all shards begin behind these ends.
fn write_past(ground: &mut Ground, end: &[u64], patience: Duration) -> Result<(), String> {
    let mut seen = Seen::default();
    ground.load()?;
    let deadline = Instant::now() + patience;
    loop {
        seen.look(&ground.cluster)?;
        if seen.logs_begin_behind(end) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(
                "the logs do not begin behind the node's end: too few keys for two snapshots of each shard".into()
            );
        }
        // The keys are written: a little more of them pushes shards that are just short of a snapshot.
        ground.write(1_000, |cluster| seen.look(cluster))?;
    }
}

/// Snapshots that were seen, by node and shard.
#[derive(Debug, Default)]
struct Seen(BTreeMap<(NodeId, usize), BTreeSet<u64>>);

impl Seen {
    fn look(&mut self, cluster: &Cluster) -> Result<(), String> {
        for status in cluster.statuses()? {
            for (shard, state) in status.shards.iter().enumerate() {
                self.0.entry((status.node, shard)).or_default().insert(state.snapshot.index.0);
            }
        }
        Ok(())
    }

    fn logs_begin_behind(&self, end: &[u64]) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(&(_, shard), snapshots)| begins_behind(snapshots, end[shard]))
    }
}

/// Whether the log of a shard with these snapshots begins behind an index: it begins with the older of the newest two.
pub(crate) fn begins_behind(snapshots: &BTreeSet<u64>, end: u64) -> bool {
    snapshots.iter().rev().nth(1).is_some_and(|&older| older > end)
}

/// Starts the node under load and waits until it has caught up.
fn run_return(args: &CatchUp, ground: &mut Ground, node: NodeId) -> Result<Return, String> {
    let caught_up = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    ground.cluster.launch(node)?;
    let (report, seconds) = thread::scope(|scope| {
        let (ground, caught_up) = (&*ground, &caught_up);
        let load = scope.spawn(move || ground.puts(&args.drive, (Duration::ZERO, args.patience), args.rate, caught_up));
        let waited = wait_until_caught_up(ground, node, started, args.patience);
        caught_up.store(true, Ordering::Relaxed);
        let report: Result<Report, String> = load.join().expect("the load reports its errors");
        Ok::<_, String>((report?, waited?))
    })?;
    let status = ground.cluster.status(node)?;
    let hold_us_max = greatest(&ground.cluster.statuses()?, "snapshot_hold_us_max")?;
    let found = Return {
        seconds,
        rate_cap: args.snapshot_rate.saturating_mul(cores(&ground.cluster.data_dir(node)) as u64),
        fetched_bytes: counter(&status, "snapshot_bytes_received")?,
        shards_fetched: counter(&status, "snapshots_installed")?,
        shards: status.shards.len(),
        puts_per_s: report.ops_per_s(),
        hold_us_max,
    };
    if found.shards_fetched == 0 {
        return Err("the node caught up without a snapshot of another: the logs were not let go".into());
    }
    Ok(found)
}

/// The seconds until the node has applied, on every shard, what was committed a moment before.
fn wait_until_caught_up(ground: &Ground, node: NodeId, started: Instant, patience: Duration) -> Result<f64, String> {
    let mut before: Option<Vec<u64>> = None;
    loop {
        let asked = started.elapsed();
        // It does not answer before it has read its log.
        let status = ground.cluster.status(node).ok();
        let applied = status.map(|status| status.shards.iter().map(|shard| shard.applied.0).collect::<Vec<_>>());
        if let (Some(applied), Some(before)) = (&applied, &before)
            && applied.iter().zip(before).all(|(applied, before)| applied >= before)
        {
            return Ok(asked.as_secs_f64());
        }
        if ground.stop.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        if asked > patience {
            return Err(format!("node {node} has not caught up after {patience:?}"));
        }
        before = others(ground, node).ok().map(|statuses| committed(&statuses));
        thread::park_timeout(EVERY);
    }
}

fn others(ground: &Ground, node: NodeId) -> Result<Vec<Status>, String> {
    let others = ground.cluster.ids().into_iter().filter(|&other| other != node);
    others.map(|other| ground.cluster.status(other)).collect()
}

fn print_summary(args: &CatchUp, rates: &Rates, back: &Return) {
    let per_s = ratio(back.fetched_bytes as f64, back.seconds);
    if args.site.json {
        let mut json = Object::default();
        json.field("mode", quoted("catch-up"))
            .field("keys", args.data.keys)
            .field("value_bytes", args.data.value_bytes);
        json.field("caught_up_s", rounded(back.seconds)).field("snapshot_bytes", back.fetched_bytes);
        json.field("snapshot_bytes_per_s", rounded(per_s)).field("snapshot_bytes_per_s_max", back.rate_cap);
        json.field("shards", back.shards);
        json.field("snapshots_installed", back.shards_fetched).field("rate", optional(args.rate));
        json.field("puts_per_s_whole", rounded(rates.whole)).field("puts_per_s_away", rounded(rates.away));
        json.field("puts_per_s_during", rounded(rates.during)).field("puts_per_s_after", rounded(rates.after));
        json.field("during_to_away", rounded(ratio(rates.during, rates.away)));
        json.field("during_to_whole", rounded(ratio(rates.during, rates.whole)));
        json.field("snapshot_hold_us_max", back.hold_us_max);
        println!("{}", json.finish());
        return;
    }
    println!(
        "caught up after {:.2} s: {} of snapshots ({}/s, at most {}/s), {} installed for {} shards",
        back.seconds,
        mib(back.fetched_bytes),
        mib(per_s as u64),
        mib(back.rate_cap),
        back.shards_fetched,
        back.shards,
    );
    println!(
        "puts/s: {:.0} on three nodes, {:.0} on two, {:.0} while it caught up \
         ({:+.0} % against two, {:+.0} % against three), {:.0} after",
        rates.whole,
        rates.away,
        rates.during,
        (ratio(rates.during, rates.away) - 1.0) * 100.0,
        (ratio(rates.during, rates.whole) - 1.0) * 100.0,
        rates.after,
    );
    println!(
        "the most processor time that snapshots, taken, sent and fetched, took of one turn of a loop: {}",
        readable_us(back.hold_us_max as f64),
    );
}
