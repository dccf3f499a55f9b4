//! The log's bytes on the disk while few keys are overwritten without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::args::Overwrite;
use super::disk::{Taken, cores, taken};
use super::figures::mib;
use super::setup::Ground;
use crate::cluster::Cluster;
use crate::json::{Object, list, quoted, rounded};
use crate::report::Report;

const EVERY: Duration = Duration::from_secs(1);
/// How soon the end of the load is noticed.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two lines.
const LINE_EVERY: u64 = 60;
/// Files of a core's log besides what it holds: six spares, the segment that is being written, the one being begun.
const FILES_BESIDES: u64 = 8;

/// The most that was seen of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    taken: Taken,
    /// When the logs took the most.
    at_s: f64,
}

/// What the log of a core may take, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) cores: u64,
    /// The log above which shards are made to let go.
    pub(crate) core_log_bytes_max: u64,
    /// What all shards of a core need together.
    pub(crate) needed_bytes: u64,
    pub(crate) segment_bytes: u64,
}

impl Bound {
    fn of(args: &Overwrite, cores: u64, shards: u64) -> Bound {
        let shard = args.log_tail_bytes.max(args.snapshot_log_bytes.saturating_mul(3));
        Bound {
            cores,
            core_log_bytes_max: args.core_log_bytes_max,
            needed_bytes: shard.saturating_mul(shards.div_ceil(cores.max(1))),
            segment_bytes: args.segment_size,
        }
    }

    /// The log that a core keeps, at most: shards are made to let go when half of it is not needed.
    fn kept_bytes(&self) -> u64 {
        self.core_log_bytes_max.max(self.needed_bytes.saturating_mul(2))
    }

    /// Of a node.
    pub(crate) fn bytes(&self) -> u64 {
        let core = self.kept_bytes().saturating_add(FILES_BESIDES.saturating_mul(self.segment_bytes));
        core.saturating_mul(self.cores)
    }
}

/// Overwrites for as long as was asked for. Fails if the bound did not hold.
pub fn execute(args: &Overwrite) -> Result<(), String> {
    let own = [
        ("--core-log-bytes-max", args.core_log_bytes_max),
        ("--segment-size", args.segment_size),
        ("--snapshot-log-bytes", args.snapshot_log_bytes),
        ("--log-tail-bytes", args.log_tail_bytes),
    ];
    let mut ground = Ground::start(&args.site, "overwrite", args.nodes, (args.keys, args.value_bytes), &own)?;
    let first = ground.cluster.ids()[0];
    let shards = ground.cluster.status(first)?.shards.len() as u64;
    let bound = Bound::of(args, cores(&ground.cluster.data_dir(first)) as u64, shards);
    println!(
        "bound of a node's logs: {} = {} cores x ({} of log + {FILES_BESIDES} files of {})",
        mib(bound.bytes()),
        bound.cores,
        mib(bound.kept_bytes()),
        mib(bound.segment_bytes)
    );
    let bound = bound.bytes();
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    let (report, samples, most) = put_and_sample(args, &ground, time)?;
    // What a node said when it ended, if one did.
    let ended = ground.cluster.pause(Duration::ZERO);
    if !ground.stop.load(Ordering::Relaxed) {
        ended?;
    }
    print_summary(args, bound, &report, samples, &most);
    let over = most.iter().filter(|most| most.taken.logs > bound).count();
    if over > 0 { Err(format!("the logs of {over} nodes took more than their bound")) } else { Ok(()) }
}

fn put_and_sample(args: &Overwrite, ground: &Ground, time: Duration) -> Result<(Report, u64, Vec<Most>), String> {
    let stop = Arc::clone(&ground.stop);
    thread::scope(|scope| {
        let over = Arc::new(AtomicBool::new(false));
        let sampler = {
            let (over, cluster) = (Arc::clone(&over), &ground.cluster);
            scope.spawn(move || sample(cluster, &over))
        };
        let report = ground.puts(&args.drive, (Duration::ZERO, time), None, &stop);
        over.store(true, Ordering::Relaxed);
        let (samples, most) = sampler.join().expect("the sampler does not panic");
        Ok((report?, samples, most))
    })
}

/// Looks every second, and a last time at the end.
fn sample(cluster: &Cluster, over: &AtomicBool) -> (u64, Vec<Most>) {
    let dirs: Vec<_> = cluster.ids().into_iter().map(|id| cluster.data_dir(id)).collect();
    let mut most = vec![Most::default(); dirs.len()];
    let started = Instant::now();
    for samples in 1.. {
        let is_last = over.load(Ordering::Relaxed);
        for (dir, most) in dirs.iter().zip(&mut most) {
            let now = taken(dir);
            if now.logs > most.taken.logs {
                *most = Most { taken: Taken { logs: now.logs, ..most.taken }, at_s: started.elapsed().as_secs_f64() };
            }
            most.taken.snapshots = most.taken.snapshots.max(now.snapshots);
        }
        if samples % LINE_EVERY == 0 || is_last {
            let logs: Vec<String> = most.iter().map(|most| mib(most.taken.logs)).collect();
            println!("{:>5.0} s: the most so far: logs {}", started.elapsed().as_secs_f64(), logs.join(", "));
        }
        if is_last {
            return (samples, most);
        }
        let next = started + EVERY * samples as u32;
        while Instant::now() < next && !over.load(Ordering::Relaxed) {
            thread::park_timeout(PAUSE);
        }
    }
    unreachable!("the loop ends with its last look")
}

fn print_summary(args: &Overwrite, bound: u64, report: &Report, samples: u64, most: &[Most]) {
    let held = most.iter().all(|most| most.taken.logs <= bound);
    if args.site.json {
        let mut json = Object::default();
        json.field("mode", quoted("overwrite")).field("keys", args.keys).field("value_bytes", args.value_bytes);
        json.field("measured_s", rounded(report.measured_s)).field("puts", report.tally.ops());
        json.field("errors", report.tally.fault_count()).field("samples", samples);
        json.field("log_bytes_bound", bound).field("held", held);
        json.field("log_bytes_max", list(most.iter().map(|most| most.taken.logs)));
        json.field("log_bytes_max_at_s", list(most.iter().map(|most| rounded(most.at_s))));
        json.field("snapshot_bytes_max", list(most.iter().map(|most| most.taken.snapshots)));
        println!("{}", json.finish());
        return;
    }
    for (most, node) in most.iter().zip(1..) {
        println!(
            "node {node}: logs took {} at most (after {:.0} s), snapshots {}",
            mib(most.taken.logs),
            most.at_s,
            mib(most.taken.snapshots)
        );
    }
    println!(
        "{} puts in {:.0} s, {samples} looks: the bound of {} {}",
        report.tally.ops(),
        report.measured_s,
        mib(bound),
        if held { "held" } else { "DID NOT HOLD" }
    );
}
