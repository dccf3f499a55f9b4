//! What snapshots cost the puts beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use raftkv_protocol::client::{Role, SnapshotOutcome, Status};

use super::args::Snapshots;
use super::figures::{greatest, largest, median, ratio, sum};
use super::setup::{Ground, NEVER_BYTES};
use crate::blocking::Connection;
use crate::json::{Object, list, quoted, rounded};
use crate::report::{Report, readable_us};

/// The longest that a node may take for snapshots of all its shards.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(600);

/// Leaders go where they belong once their nodes are steady, one a second.
const SPREAD_WAIT: Duration = Duration::from_secs(120);

/// Whether snapshots are taken in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    With,
    Without,
}

/// What a phase found.
struct Phase {
    p99_us: f64,
    /// Snapshots taken meanwhile, by all nodes.
    taken: u64,
    /// The longest turn of the nodes' loops in the minute before it ended.
    turn_us_max: u64,
    /// The most processor time that snapshots have taken of one turn until then.
    hold_us_max: u64,
}

/// Measures all pairs and prints the ratios.
pub fn execute(args: &Snapshots) -> Result<(), String> {
    let stored = (args.data.keys, args.data.value_bytes);
    let only_when_asked = [("--snapshot-log-bytes", NEVER_BYTES), ("--core-log-bytes-max", NEVER_BYTES)];
    let mut ground = Ground::start(&args.site, "snapshots", args.nodes, stored, &only_when_asked)?;
    ground.load()?;
    // A hand-over while it is measured would be taken for what snapshots cost, or hide it.
    ground.wait_for("leaders to be spread over the nodes", SPREAD_WAIT, |cluster| {
        let leads = |status: Status| status.shards.iter().filter(|shard| shard.role == Role::Leader).count();
        let led: Vec<usize> = cluster.statuses()?.into_iter().map(leads).collect();
        let (least, most) = (led.iter().min().copied().unwrap_or(0), led.iter().max().copied().unwrap_or(0));
        Ok((most - least <= 1).then_some(()))
    })?;
    eprintln!("the most puts, in a closed loop");
    let most = ground.measure(&args.drive, (args.warmup, args.duration), None)?.ops_per_s();
    let rate = ((most / 2.0) as u64).max(1);
    println!("the most: {most:.0} puts/s; measured at {rate}/s");
    let mut pairs = Vec::new();
    for number in 1..=args.pairs {
        let order = if number % 2 == 1 { [Kind::With, Kind::Without] } else { [Kind::Without, Kind::With] };
        let first = run_phase(args, &mut ground, order[0], rate)?;
        let second = run_phase(args, &mut ground, order[1], rate)?;
        let (with, without) = if order[0] == Kind::With { (first, second) } else { (second, first) };
        println!(
            "pair {number:>3}: p99 {} with {} snapshots, {} without: {:.2} times",
            readable_us(with.p99_us),
            with.taken,
            readable_us(without.p99_us),
            ratio(with.p99_us, without.p99_us),
        );
        pairs.push((with, without));
    }
    print_summary(args, most, rate, &pairs);
    Ok(())
}

/// Fails if no snapshots were taken, or some where none was to be.
fn run_phase(args: &Snapshots, ground: &mut Ground, kind: Kind, rate: u64) -> Result<Phase, String> {
    let before = sum(&ground.cluster.statuses()?, "snapshots_taken")?;
    let report = match kind {
        Kind::With => beside_snapshots(args, ground, rate)?,
        Kind::Without => ground.measure(&args.drive, (args.warmup, args.duration), Some(rate))?,
    };
    let after = ground.cluster.statuses()?;
    let taken = sum(&after, "snapshots_taken")? - before;
    match kind {
        Kind::With if taken == 0 => Err("no snapshot was taken where they were to be".into()),
        Kind::Without if taken > 0 => Err(format!("{taken} snapshots were taken where none was to be")),
        _ => Ok(Phase {
            p99_us: report.tally.latency_us(0.99),
            taken,
            turn_us_max: greatest(&after, "turn_us_max")?,
            hold_us_max: greatest(&after, "snapshot_hold_us_max")?,
        }),
    }
}

/// Measures while all nodes take snapshots, until the last ones are there.
fn beside_snapshots(args: &Snapshots, ground: &mut Ground, rate: u64) -> Result<Report, String> {
    let is_over = AtomicBool::new(false);
    let addresses = ground.cluster.endpoints();
    thread::scope(|scope| {
        let is_over = &is_over;
        let askers = addresses.iter().map(|address| scope.spawn(move || snapshot_until(address, is_over)));
        let askers: Vec<_> = askers.collect();
        let report = ground.measure(&args.drive, (args.warmup, args.duration), Some(rate));
        is_over.store(true, Ordering::Relaxed);
        for asker in askers {
            asker.join().expect("whoever asks reports its errors")?;
        }
        report
    })
}

/// Asks a node for snapshots again and again.
fn snapshot_until(address: &str, is_over: &AtomicBool) -> Result<(), String> {
    let trouble = |what: String| format!("snapshots at {address}: {what}");
    let mut connection = Connection::open(address, SNAPSHOT_WAIT).map_err(|error| trouble(error.to_string()))?;
    while !is_over.load(Ordering::Relaxed) {
        for snapshot in connection.snapshot(SNAPSHOT_WAIT).map_err(|error| trouble(error.to_string()))? {
            if let SnapshotOutcome::Failed(why) = snapshot.outcome {
                return Err(trouble(why));
            }
        }
    }
    Ok(())
}

fn print_summary(args: &Snapshots, most: f64, rate: u64, pairs: &[(Phase, Phase)]) {
    let ratios: Vec<f64> = pairs.iter().map(|(with, without)| ratio(with.p99_us, without.p99_us)).collect();
    let of = |get: fn(&(Phase, Phase)) -> f64| pairs.iter().map(get).collect::<Vec<f64>>();
    let (with, without) = (of(|pair| pair.0.p99_us), of(|pair| pair.1.p99_us));
    let taken: u64 = pairs.iter().map(|(with, _)| with.taken).sum();
    let phases = || pairs.iter().flat_map(|(with, without)| [with, without]);
    let turn_us_max = phases().map(|phase| phase.turn_us_max).max().unwrap_or(0);
    let hold_us_max = phases().map(|phase| phase.hold_us_max).max().unwrap_or(0);
    if args.site.json {
        let mut json = Object::default();
        json.field("mode", quoted("snapshots")).field("keys", args.data.keys).field("pairs", pairs.len());
        json.field("puts_per_s_max", rounded(most)).field("rate", rate).field("snapshots_taken", taken);
        json.field("ratio_median", rounded(median(&ratios))).field("ratio_max", rounded(largest(&ratios)));
        json.field("ratios", list(ratios.iter().copied().map(rounded)));
        json.field("p99_us_with", list(with.iter().copied().map(rounded)));
        json.field("p99_us_without", list(without.iter().copied().map(rounded)));
        json.field("snapshot_hold_us_max", hold_us_max).field("turn_us_max", turn_us_max);
        println!("{}", json.finish());
        return;
    }
    println!(
        "p99 of puts at {rate}/s while snapshots are taken ({taken} in all): {:.2} times that without, \
         median of {} pairs (medians {} and {})",
        median(&ratios),
        pairs.len(),
        readable_us(median(&with)),
        readable_us(median(&without)),
    );
    println!(
        "the most processor time that snapshots took of one turn of a loop: {}; the longest turn, with snapshots or without: {}",
        readable_us(hold_us_max as f64),
        readable_us(turn_us_max as f64),
    );
}
