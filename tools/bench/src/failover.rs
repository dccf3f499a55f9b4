//! How long a shard takes no writes when the node that leads it dies.
//!
//! Starts a cluster of its own, kills or stops a node, and sends a put for every shard that it led to both survivors
//! every 5 ms. What counts is the time from the signal to the first put that is acknowledged, shard by shard. Signals
//! go to processes that were started here and to no others.

pub(crate) mod probe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raftkv_protocol::types::{NodeId, ShardId};

use self::probe::Probe;
use crate::args::{Death, Failover};
use crate::cluster::{Cluster, Plan};
use crate::signals::stop_on_signals;
use crate::topology::Topology;

/// What a trial found.
struct Trial {
    node: NodeId,
    /// From the signal to the first acknowledged put, for each shard that the node led.
    outages: Vec<(ShardId, Duration)>,
}

impl Trial {
    /// Until every shard took writes again.
    fn whole(&self) -> Duration {
        self.outages.iter().map(|&(_, outage)| outage).max().unwrap_or_default()
    }
}

/// Runs all trials and prints what they found.
pub fn execute(args: &Failover) -> Result<(), String> {
    let stop = stop_on_signals()?;
    let plan =
        Plan { server: &args.server, nodes: args.nodes, dir: &args.dir, name: "failover", flags: &args.server_flags };
    let mut cluster = Cluster::start(&plan, Arc::clone(&stop))?;
    let mut trials = Vec::new();
    for number in 1..=args.trials {
        let topology = cluster.settled()?;
        let trial = run_trial(&mut cluster, &topology, args.signal, &stop)?;
        let outages: Vec<String> =
            trial.outages.iter().map(|(shard, outage)| format!("{shard}: {:.1}", millis(*outage))).collect();
        println!(
            "trial {number:>3}: node {} led {} shards, all take writes after {:.1} ms ({})",
            trial.node,
            trial.outages.len(),
            millis(trial.whole()),
            outages.join(", "),
        );
        trials.push(trial);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    print_summary(args, &trials);
    Ok(())
}

fn run_trial(cluster: &mut Cluster, topology: &Topology, death: Death, stop: &AtomicBool) -> Result<Trial, String> {
    let leads = |node: NodeId| topology.led_by(node).count();
    let node =
        topology.nodes().map(|(node, _)| node).max_by_key(|&node| leads(node)).ok_or("a cluster without nodes")?;
    let shards: Vec<ShardId> = topology.led_by(node).collect();
    let survivors: Vec<&str> =
        topology.nodes().filter(|&(other, _)| other != node).map(|(_, address)| address).collect();
    let mut probe = Probe::open(&survivors, topology.shards()).map_err(|error| error.to_string())?;
    let died = Instant::now();
    cluster.strike(node, death)?;
    let outages = probe.wait_for_writes(&shards, died, stop).map_err(|error| error.to_string())?;
    cluster.revive(node, death)?;
    Ok(Trial { node, outages })
}

fn print_summary(args: &Failover, trials: &[Trial]) {
    let mut whole: Vec<f64> = trials.iter().map(|trial| millis(trial.whole())).collect();
    let mut each: Vec<f64> =
        trials.iter().flat_map(|trial| &trial.outages).map(|&(_, outage)| millis(outage)).collect();
    whole.sort_by(f64::total_cmp);
    each.sort_by(f64::total_cmp);
    let death = match args.signal {
        Death::Kill => "kill",
        Death::Stop => "stop",
    };
    if args.json {
        let list: Vec<String> = trials.iter().map(|trial| format!("{:.1}", millis(trial.whole()))).collect();
        println!(
            "{{\"mode\": \"failover\", \"signal\": \"{death}\", \"trials\": {}, \"all_shards_ms\": {}, \"one_shard_ms\": {}, \
             \"trials_ms\": [{}]}}",
            trials.len(),
            summary_json(&whole),
            summary_json(&each),
            list.join(", ")
        );
        return;
    }
    for (name, values) in [("all shards", &whole), ("one shard", &each)] {
        println!(
            "{name} after {death}, {} trials: median {:.1} ms  p99 {:.1} ms  max {:.1} ms",
            trials.len(),
            quantile(values, 0.5),
            quantile(values, 0.99),
            quantile(values, 1.0)
        );
    }
}

fn summary_json(sorted: &[f64]) -> String {
    let at = |share| quantile(sorted, share);
    format!("{{\"median\": {:.1}, \"p99\": {:.1}, \"max\": {:.1}}}", at(0.5), at(0.99), at(1.0))
}

/// The least value that this share of all do not exceed (nearest rank). 0 if there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
