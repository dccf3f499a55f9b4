//! The start of a log: reads it, tidies its directory, and goes on in a new segment.
//!
//! No thread is involved.

use std::sync::Arc;

use super::LogError;
use super::disk::{Access, Disk};
use super::record::Seal;
use super::recovery::{self, Recovery, RecoveryReport};
use super::replay::Replay;
use super::segment::segment_name;
use super::spares::{First, Quota, SpareMaker};
use super::stats::Shared;
use super::syncer::Syncer;

/// A log that goes on.
pub(super) struct Started {
    /// What it held; all of it is durable.
    pub(super) replay: Replay,
    /// Places what comes next.
    pub(super) syncer: Syncer,
    /// The spares that were found.
    pub(super) spares: First,
    /// What it met.
    pub(super) report: RecoveryReport,
}

pub(super) fn start(
    disk: &Arc<dyn Disk>,
    shared: &Arc<Shared>,
    quota: &Arc<Quota>,
    segment_size: u64,
) -> Result<Started, LogError> {
    let Recovery { mut replay, tip, kept, report } = recovery::read(&**disk)?;
    if report.torn_bytes > 0 {
        let path = disk.path("");
        log::info!("the log {path} ended in {} bytes that a crash left of an unfinished batch: cut", report.torn_bytes);
    }
    let sealed = tip.seal;
    let maker = SpareMaker { disk: Arc::clone(disk), segment_size, quota: Arc::clone(quota) };
    let mut spares = First::new(maker)
        .map_err(|error| LogError(format!("cannot tidy the log directory {}: {error}", disk.path(""))))?;
    let (numbered, mut batches): (Vec<_>, Vec<_>) = kept.into_iter().map(|kept| (kept.numbered, kept.batch)).unzip();
    if mutant!("kept-batches-not-rewritten") {
        batches.clear();
    }
    let (syncer, places) = Syncer::start(Arc::clone(disk), Arc::clone(shared), tip, &mut batches, &mut spares)?;
    for (at, place) in numbered.into_iter().zip(places) {
        if let Some(at) = at {
            replay.move_batch(at, place);
        }
    }
    if let Some(seal) = sealed {
        trim(&**disk, &seal, quota);
    }
    Ok(Started { replay, syncer, spares, report })
}

/// Gives back the unused rest of the segment that was the last one before this start. It is sealed and durably so, and
/// this process has not mapped it.
fn trim(disk: &dyn Disk, seal: &Seal, quota: &Quota) {
    let name = segment_name(seal.sequence);
    let trimmed = disk.open(&name, Access::Read).and_then(|file| {
        let size = file.size()?;
        if size > seal.cut {
            disk.truncate(&name, seal.cut)?;
            quota.sub_used(size - seal.cut);
        }
        Ok(())
    });
    if let Err(error) = trimmed {
        log::warn!("cannot give back the unused end of {}: {error}", disk.path(&name));
    }
}
