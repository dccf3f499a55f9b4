//! What snapshots cost the puts beside them.

use super::args::Snapshots;
use super::figures::{largest, longest_turn_us, median, ratio, sum};
use super::setup::{Ground, NEVER_BYTES};
use crate::json::{Object, list, optional, quoted, rounded};
use crate::report::readable_us;

/// Whether snapshots are taken in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    With,
    Without,
}

/// What a phase found.
struct Phase {
    p99_us: f64,
    /// Snapshots taken while it was measured, by all nodes.
    taken: u64,
    /// The longest turn of a node's loops since its start, if the nodes count that.
    turn_us: Option<u64>,
}

/// Measures all pairs and prints the ratios.
pub fn execute(args: &Snapshots) -> Result<(), String> {
    let stored = (args.data.keys, args.data.value_bytes);
    let mut ground = Ground::start(&args.site, "snapshots", args.nodes, stored, &flags(args, Kind::Without))?;
    ground.load()?;
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

fn flags(args: &Snapshots, kind: Kind) -> [(&'static str, u64); 2] {
    let bytes = if kind == Kind::With { args.snapshot_log_bytes } else { NEVER_BYTES };
    [("--snapshot-log-bytes", bytes), ("--core-log-bytes-max", NEVER_BYTES)]
}

/// Starts the nodes with the kind's threshold and measures. Fails if snapshots were not taken, or were.
fn run_phase(args: &Snapshots, ground: &mut Ground, kind: Kind, rate: u64) -> Result<Phase, String> {
    ground.restart_with(&flags(args, kind))?;
    let before = sum(&ground.cluster.statuses()?, "snapshots_taken")?;
    let report = ground.measure(&args.drive, (args.warmup, args.duration), Some(rate))?;
    let after = ground.cluster.statuses()?;
    let taken = sum(&after, "snapshots_taken")? - before;
    match kind {
        Kind::With if taken == 0 => {
            Err("no snapshot was taken where they were to be: is the threshold too large?".into())
        }
        Kind::Without if taken > 0 => Err(format!("{taken} snapshots were taken where none was to be")),
        _ => Ok(Phase { p99_us: report.tally.latency_us(0.99), taken, turn_us: longest_turn_us(&after) }),
    }
}

fn print_summary(args: &Snapshots, most: f64, rate: u64, pairs: &[(Phase, Phase)]) {
    let ratios: Vec<f64> = pairs.iter().map(|(with, without)| ratio(with.p99_us, without.p99_us)).collect();
    let of = |get: fn(&(Phase, Phase)) -> f64| pairs.iter().map(get).collect::<Vec<f64>>();
    let (with, without) = (of(|pair| pair.0.p99_us), of(|pair| pair.1.p99_us));
    let taken: u64 = pairs.iter().map(|(with, _)| with.taken).sum();
    let turns =
        [pairs.iter().filter_map(|pair| pair.0.turn_us).max(), pairs.iter().filter_map(|pair| pair.1.turn_us).max()];
    if args.site.json {
        let mut json = Object::default();
        json.field("mode", quoted("snapshots")).field("keys", args.data.keys).field("pairs", pairs.len());
        json.field("puts_per_s_max", rounded(most)).field("rate", rate).field("snapshots_taken", taken);
        json.field("ratio_median", rounded(median(&ratios))).field("ratio_max", rounded(largest(&ratios)));
        json.field("ratios", list(ratios.iter().copied().map(rounded)));
        json.field("p99_us_with", list(with.iter().copied().map(rounded)));
        json.field("p99_us_without", list(without.iter().copied().map(rounded)));
        json.field("turn_us_max_with", optional(turns[0])).field("turn_us_max_without", optional(turns[1]));
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
    if let [Some(with), Some(without)] = turns {
        println!("longest turn of a loop: {} with, {} without", readable_us(with as f64), readable_us(without as f64));
    }
}
