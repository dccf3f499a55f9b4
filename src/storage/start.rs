//! The start of a log: reads it, tidies its directory, and goes on in a new segment.
//!
//! No thread is involved.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::LogError;
use super::blemish;
use super::disk::{Access, Disk, is_full};
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
    trim_all(&**disk, &ends, &mut tip.sealed)?;
    let sealed = tip.seal;
    let mut segments = tip.sealed.clone();
    let maker = SpareMaker { disk: Arc::clone(disk), segment_size, quota: Arc::clone(quota) };
    let mut spares = First::new(maker).map_err(|error| cannot_tidy(&**disk, &error))?;
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
        last.size = trim(&**disk, &seal, size)?;
        quota.sub_used(size - last.size);
        syncer.trimmed(*last);
        spares.lay_by(size - last.size).map_err(|error| cannot_tidy(&**disk, &error))?;
    }
    Ok(Started { replay, syncer, spares, segments, report })
}

/// Gives back what earlier starts would have given back, had they not ended before: on a full disk it is all the space there
/// is.
fn trim_all(disk: &dyn Disk, ends: &[Seal], segments: &mut VecDeque<SegmentFile>) -> Result<(), LogError> {
    let mut is_named = false;
    for segment in segments {
        let Some(end) = ends.iter().find(|end| end.sequence == segment.sequence) else { continue };
        if segment.size > end.cut {
            if !std::mem::replace(&mut is_named, true) {
                // The name of the segment that says where the one before it ends may be lost yet.
                match disk.sync_dir() {
                    Err(error) if is_full(&error) => {
                        log::warn!("cannot give back the unused ends of segments in {}: {error}", disk.path(""));
                        return Ok(());
                    }
                    synced => synced.map_err(|error| cannot_tidy(disk, &error))?,
                }
            }
            segment.size = trim(disk, end, segment.size)?;
        }
    }
    Ok(())
}

/// Gives back the unused rest of a segment that is sealed, durably so, and that this process has not mapped. Tells its size.
fn trim(disk: &dyn Disk, seal: &Seal, size: u64) -> Result<u64, LogError> {
    if size <= seal.cut {
        return Ok(size);
    }
    let name = segment_name(seal.sequence);
    match disk.truncate(&name, seal.cut) {
        Ok(()) => Ok(seal.cut),
        // Some file systems need space to set space free.
        Err(error) if is_full(&error) => {
            log::warn!("cannot give back the unused end of {}: {error}", disk.path(&name));
            // It may be shorter all the same.
            let file = disk.open(&name, Access::Read).and_then(|file| file.size());
            file.map_err(|error| cannot_tidy(disk, &error))
        }
        Err(error) => Err(cannot_tidy(disk, &error)),
    }
}

fn cannot_tidy(disk: &dyn Disk, error: &io::Error) -> LogError {
    LogError(format!(
        "cannot tidy the log directory {}: {error}; check the disk, then start the node again",
        disk.path("")
    ))
}
