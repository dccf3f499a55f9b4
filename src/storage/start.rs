//! The start of a log: reads it, tidies its directory, and goes on in a new segment.
//!
//! No thread is involved.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LogError;
use super::blemish;
use super::disk::Disk;
use super::record::Seal;
use super::recovery::{self, Recovery, RecoveryReport};
use super::replay::Replay;
use super::segment::segment_name;
use super::spares::{First, Quota, SpareMaker};
use super::stats::Shared;
use super::syncer::Syncer;
use super::tip::SegmentFile;

/// A log that goes on.
pub(super) struct Started {
    /// What it held; all of it is durable.
    pub(super) replay: Replay,
    /// Places what comes next.
    pub(super) syncer: Syncer,
    /// The spares that were found.
    pub(super) spares: First,
    /// The segments that were found, oldest first. Some may be about to be let go.
    pub(super) segments: VecDeque<SegmentFile>,
    /// What it met.
    pub(super) report: RecoveryReport,
}

pub(super) fn start(
    disk: &Arc<dyn Disk>,
    shared: &Arc<Shared>,
    quota: &Arc<Quota>,
    segment_size: u64,
) -> Result<Started, LogError> {
    let Recovery { mut replay, mut tip, ends, kept, report, blemishes, .. } = recovery::read(&**disk)?;
    if report.torn_bytes > 0 {
        let path = disk.path("");
        log::info!("the log {path} ended in {} bytes that a crash left of an unfinished batch: cut", report.torn_bytes);
    }
    if let Some(line) = blemish::warning(&blemishes) {
        log::warn!("a spot of the log is not as it was written: {line}");
    }
    trim_all(&**disk, &ends, &mut tip.sealed);
    let sealed = tip.seal;
    let mut segments = tip.sealed.clone();
    let maker = SpareMaker { disk: Arc::clone(disk), segment_size, quota: Arc::clone(quota) };
    let mut spares = First::new(maker)
        .map_err(|error| LogError(format!("cannot tidy the log directory {}: {error}", disk.path(""))))?;
    let (numbered, mut batches): (Vec<_>, Vec<_>) = kept.into_iter().map(|kept| (kept.numbered, kept.batch)).unzip();
    if mutant!("kept-batches-not-rewritten") {
        batches.clear();
    }
    let (mut syncer, places) = Syncer::start(Arc::clone(disk), Arc::clone(shared), tip, &mut batches, &mut spares)?;
    for (at, place) in numbered.into_iter().zip(places) {
        if let Some(at) = at {
            replay.move_batch(at, place);
        }
    }
    if let Some(seal) = sealed.filter(|seal| !spares.lets_go(seal.sequence))
        && let Some(last) = segments.back_mut()
    {
        let size = last.size;
        last.size = trim(&**disk, &seal, size);
        quota.sub_used(size - last.size);
        syncer.trimmed(*last);
        spares.lay_by(size - last.size);
    }
    Ok(Started { replay, syncer, spares, segments, report })
}

/// Gives back what earlier starts would have given back, had they not ended before: on a full disk it is all the space there
/// is.
fn trim_all(disk: &dyn Disk, ends: &[Seal], segments: &mut VecDeque<SegmentFile>) {
    let mut untrimmed = segments
        .iter_mut()
        .filter_map(|segment| {
            let end = ends.iter().find(|end| end.sequence == segment.sequence)?;
            (segment.size > end.cut).then_some((segment, end))
        })
        .peekable();
    if untrimmed.peek().is_none() {
        return;
    }
    // The name of the segment that says where the one before it ends may be lost yet.
    if let Err(error) = disk.sync_dir() {
        return log::warn!("cannot give back the unused ends of segments in {}: {error}", disk.path(""));
    }
    untrimmed.for_each(|(segment, end)| segment.size = trim(disk, end, segment.size));
}

/// Gives back the unused rest of a segment that is sealed, durably so, and that this process has not mapped. Tells its size.
fn trim(disk: &dyn Disk, seal: &Seal, size: u64) -> u64 {
    if size <= seal.cut {
        return size;
    }
    let name = segment_name(seal.sequence);
    if let Err(error) = disk.truncate(&name, seal.cut) {
        log::warn!("cannot give back the unused end of {}: {error}", disk.path(&name));
        return size;
    }
    seal.cut
}
