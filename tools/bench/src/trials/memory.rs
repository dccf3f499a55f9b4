//! Resident memory of nodes, empty and with keys.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::args::Memory;
use super::disk::cores;
use super::figures::{mib, ratio, stands_still, tail_entry_bytes};
use super::setup::Ground;
use crate::json::{Object, list, quoted, rounded};
use crate::process::Resident;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// What does not stand still after so long is taken as it is.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a core keeps of the log in memory, at most: the default of `--core-log-memory-max`.
const TAIL_BYTES_MAX: u64 = 8 << 20;

/// The memory of every node of a cluster, at the moments that count.
struct Found {
    nodes: u64,
    cores: usize,
    empty: Vec<Resident>,
    full: Vec<Resident>,
    restarted: Vec<Resident>,
}

/// Measures clusters of three and of one, and prints what they take.
pub fn execute(args: &Memory) -> Result<(), String> {
    let found: Vec<Found> = [3, 1].into_iter().map(|nodes| measure(args, nodes)).collect::<Result<_, _>>()?;
    if args.site.json {
        let clusters: Vec<String> = found.iter().map(|found| json_of(args, found)).collect();
        let mut json = Object::default();
        json.field("mode", quoted("memory")).field("keys", args.data.keys).field("value_bytes", args.data.value_bytes);
        json.field("clusters", list(clusters));
        println!("{}", json.finish());
    } else {
        found.iter().for_each(|found| print_table(args, found));
    }
    Ok(())
}

fn measure(args: &Memory, nodes: u64) -> Result<Found, String> {
    eprintln!("{nodes} {}: empty", if nodes == 1 { "node" } else { "nodes" });
    let stored = (args.data.keys, args.data.value_bytes);
    let mut ground = Ground::start(&args.site, "memory", nodes, stored, &[])?;
    let empty = settled_memory(&mut ground, args.still)?;
    ground.set_order(args.order);
    ground.load()?;
    ground.cluster.settled()?;
    let full = settled_memory(&mut ground, args.still)?;
    eprintln!("killed and started again");
    ground.restart_with(&[])?;
    let restarted = settled_memory(&mut ground, args.still)?;
    let first = ground.cluster.ids()[0];
    Ok(Found { nodes, cores: cores(&ground.cluster.data_dir(first)), empty, full, restarted })
}

/// The memory of every node once it has stood still for so long.
fn settled_memory(ground: &mut Ground, still: Duration) -> Result<Vec<Resident>, String> {
    let wanted = (still.as_millis() / EVERY.as_millis()).max(1) as usize + 1;
    let deadline = Instant::now() + PATIENCE.max(still * 2);
    let mut samples: VecDeque<Vec<Resident>> = VecDeque::new();
    loop {
        let now: Vec<Resident> = ground.cluster.pids().into_iter().map(Resident::of).collect::<Result<_, _>>()?;
        samples.push_back(now.clone());
        samples.drain(..samples.len().saturating_sub(wanted));
        let node_stands =
            |node: usize| stands_still(&samples.iter().map(|all| all[node].rss_bytes).collect::<Vec<_>>());
        let stands = samples.len() == wanted && (0..now.len()).all(node_stands);
        if stands || Instant::now() > deadline {
            if !stands {
                eprintln!("memory does not stand still; taken as it is after {PATIENCE:?}");
            }
            return Ok(now);
        }
        ground.cluster.pause(EVERY)?;
    }
}

/// What the entries in memory take at most: what was written, or the limit.
fn tail_bytes_max(args: &Memory, cores: usize) -> u64 {
    (TAIL_BYTES_MAX * cores as u64).min(u64::from(args.data.keys) * tail_entry_bytes(args.data.value_bytes))
}

fn per_key(args: &Memory, now: &Resident, empty: &Resident) -> f64 {
    ratio(now.rss_bytes as f64 - empty.rss_bytes as f64, f64::from(args.data.keys))
}

/// The largest of the nodes.
fn per_key_max(args: &Memory, now: &[Resident], empty: &[Resident]) -> f64 {
    now.iter().zip(empty).map(|(now, empty)| per_key(args, now, empty)).fold(0.0, f64::max)
}

fn print_table(args: &Memory, found: &Found) {
    let Found { nodes, cores, empty, full, restarted } = found;
    for (number, ((empty, full), restarted)) in (1..).zip(empty.iter().zip(full).zip(restarted)) {
        println!(
            "node {number} of {nodes}: empty {}, with {} keys {} ({:.0} bytes a key, peak {}), \
             started again {} ({:.0} bytes a key, peak {})",
            mib(empty.rss_bytes),
            args.data.keys,
            mib(full.rss_bytes),
            per_key(args, full, empty),
            mib(full.peak_bytes),
            mib(restarted.rss_bytes),
            per_key(args, restarted, empty),
            mib(restarted.peak_bytes),
        );
    }
    println!(
        "{nodes} {} of {cores} cores: {:.0} bytes a key, at most {:.0} of them ({}) the newest entries of the log; \
         {:.0} after a start, without those",
        if *nodes == 1 { "node" } else { "nodes" },
        per_key_max(args, full, empty),
        ratio(tail_bytes_max(args, *cores) as f64, f64::from(args.data.keys)),
        mib(tail_bytes_max(args, *cores)),
        per_key_max(args, restarted, empty),
    );
}

fn json_of(args: &Memory, found: &Found) -> String {
    let residents = |all: &[Resident]| {
        list(all.iter().map(|one| {
            let mut json = Object::default();
            json.field("rss_bytes", one.rss_bytes).field("rss_anon_bytes", one.anon_bytes);
            json.field("peak_bytes", one.peak_bytes);
            json.finish()
        }))
    };
    let mut json = Object::default();
    json.field("nodes", found.nodes).field("cores", found.cores);
    json.field("bytes_per_key", rounded(per_key_max(args, &found.full, &found.empty)));
    json.field("bytes_per_key_started_again", rounded(per_key_max(args, &found.restarted, &found.empty)));
    json.field("log_tail_bytes_max", tail_bytes_max(args, found.cores));
    json.field("empty", residents(&found.empty)).field("full", residents(&found.full));
    json.field("started_again", residents(&found.restarted));
    json.finish()
}
