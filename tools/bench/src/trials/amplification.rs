//! Bytes written to the disk for a byte that was put.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use raftkv_protocol::client::Status;

use super::args::Amplification;
use super::disk::Births;
use super::figures::{BATCH_HEAD_BYTES, committed, counter, ratio, record_bytes, user_bytes};
use super::setup::Ground;
use crate::json::{Object, list, quoted, rounded};
use crate::process::written_bytes;

/// Between two looks at the files: snapshots and segments stay longer.
const EVERY: Duration = Duration::from_millis(100);

/// What a node has counted at some moment.
struct Counted {
    disk: u64,
    log: u64,
    syncs: u64,
    snapshots: u64,
}

/// What a node wrote for the puts, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Written {
    /// All of it, as the kernel counts.
    pub(crate) disk: f64,
    /// Records of the puts.
    pub(crate) records: f64,
    /// Heads of the batches.
    pub(crate) heads: f64,
    /// What else the log handed to the disk: padding to whole blocks, votes, watermarks.
    pub(crate) padding: f64,
    /// Segments filled with zeros ahead.
    pub(crate) prefill: f64,
    /// Snapshots.
    pub(crate) snapshots: f64,
}

impl Written {
    /// What is none of the parts. Snapshots that are not finished are in it, and headers of segments.
    pub(crate) fn rest(&self) -> f64 {
        self.disk - self.records - self.heads - self.padding - self.prefill - self.snapshots
    }

    /// The parts by name, the whole first.
    fn parts(&self) -> [(&'static str, f64); 7] {
        [
            ("all", self.disk),
            ("log_records", self.records),
            ("batch_heads", self.heads),
            ("batch_padding", self.padding),
            ("segment_prefill", self.prefill),
            ("snapshots", self.snapshots),
            ("rest", self.rest()),
        ]
    }
}

/// Puts, and prints what was written for them.
pub fn execute(args: &Amplification) -> Result<(), String> {
    let mut ground = Ground::start(&args.site, "amplification", args.nodes, (args.keys, args.value_bytes), &[])?;
    ground.load()?;
    ground.cluster.settled()?;
    let dirs: Vec<PathBuf> = ground.cluster.ids().into_iter().map(|id| ground.cluster.data_dir(id)).collect();
    let mut births: Vec<Births> = dirs.iter().map(|dir| Births::since(dir)).collect();
    let before = ground.cluster.statuses()?;
    let first = count(&ground, &before)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (dirs, births, over) = (&dirs, &mut births, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                births.iter_mut().zip(dirs).for_each(|(births, dir)| births.look(dir));
                thread::park_timeout(EVERY);
            }
        });
        let report = ground.puts(&args.drive, (Duration::ZERO, args.duration), None, &ground.stop);
        over.store(true, Ordering::Relaxed);
        report
    })?;
    ground.cluster.settled()?;
    births.iter_mut().zip(&dirs).for_each(|(births, dir)| births.look(dir));
    let after = ground.cluster.statuses()?;
    let last = count(&ground, &after)?;
    let puts = committed(&after).iter().sum::<u64>() - committed(&before).iter().sum::<u64>();
    if puts == 0 {
        return Err("no put succeeded".into());
    }
    let each = first.iter().zip(&last).zip(&births);
    let written: Vec<Written> = each.map(|((first, last), births)| split(args, puts, first, last, births)).collect();
    print_summary(args, puts, &written);
    Ok(())
}

fn count(ground: &Ground, statuses: &[Status]) -> Result<Vec<Counted>, String> {
    let one = |status: &Status| {
        Ok(Counted {
            disk: written_bytes(ground.cluster.pid(status.node)?)?,
            log: counter(status, "log_bytes_written")?,
            syncs: counter(status, "log_syncs")?,
            snapshots: counter(status, "snapshots_taken")?,
        })
    };
    statuses.iter().map(one).collect()
}

fn split(args: &Amplification, puts: u64, first: &Counted, last: &Counted, births: &Births) -> Written {
    let log = (last.log - first.log) as f64;
    let records = (puts * record_bytes(args.value_bytes)) as f64;
    let heads = ((last.syncs - first.syncs) * BATCH_HEAD_BYTES) as f64;
    // A snapshot that came and went between two looks counts as one of those that were seen.
    let (seen, bytes) = births.snapshots();
    let snapshots = ratio(bytes as f64, seen as f64) * (last.snapshots - first.snapshots) as f64;
    Written {
        disk: (last.disk - first.disk) as f64,
        records,
        heads,
        padding: log - records - heads,
        prefill: births.segment_bytes() as f64,
        snapshots,
    }
}

fn print_summary(args: &Amplification, puts: u64, written: &[Written]) {
    let user = (puts * user_bytes(args.value_bytes)) as f64;
    let nodes = written.len() as f64;
    let mean = |part: usize| written.iter().map(|one| one.parts()[part].1).sum::<f64>() / nodes;
    let all = ratio(mean(0), user);
    let names = Written::default().parts().map(|(name, _)| name);
    if args.site.json {
        let mut parts = Object::default();
        for (part, name) in names.iter().enumerate().skip(1) {
            parts.field(name, rounded(ratio(mean(part), user)));
        }
        let mut json = Object::default();
        json.field("mode", quoted("amplification")).field("keys", args.keys).field("value_bytes", args.value_bytes);
        json.field("puts", puts).field("user_bytes", user).field("amplification_of_a_node", rounded(all));
        json.field("amplification_of_all", rounded(all * nodes)).field("parts", parts.finish());
        json.field("disk_bytes", list(written.iter().map(|one| one.disk)));
        println!("{}", json.finish());
        return;
    }
    for (part, name) in names.iter().enumerate().skip(1) {
        println!("  {:<16}{:>8.2}", name.replace('_', " "), ratio(mean(part), user));
    }
    println!(
        "{puts} puts: a node writes {all:.2} bytes for a byte of keys and values, all {} together {:.2}",
        written.len(),
        all * nodes
    );
}
