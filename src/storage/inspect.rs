//! Walks a log for people, reading only: while the node runs, or after.
//!
//! A running node may be in the middle of a batch, and may begin a segment while this walks. So nothing here is an
//! error but an unreadable directory: what does not parse is shown as the place where the walk of that segment ended.
//! What a later batch or segment proves durable is looked at for [blemishes](super::blemish) too.
//!
//! A log that is no longer young begins with a later segment than the first; one that is let go meanwhile is passed over.
//! What no running node explains is said to be damage: a segment that is missing between two others, and what ends the
//! walk of one before the place where the next says that it ends.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::batch::{self, BLOCK_BYTES, BatchHeader, Damage, HardStateCopy, PlacedBatch};
use super::blemish::{Blemish, Search, has_data, is_end_known};
use super::disk::{Access, Disk, DiskFile, RealDisk};
use super::record::Record;
use super::segment::{self, BATCHES_AT, FileState, SegmentHeader, segment_name};

/// What the walk comes across, in the order in which it was written.
#[derive(Debug)]
pub enum Item<'a> {
    /// A segment begins.
    Segment {
        /// The file.
        path: &'a str,
        /// Its header.
        header: &'a SegmentHeader,
    },
    /// A batch begins.
    Batch {
        /// Its header; the offset in the file is its `start`.
        header: &'a BatchHeader,
    },
    /// A record of that batch. Hard states come last, from the first copy that is right.
    Record {
        /// Its offset in the file.
        offset: u64,
        /// What it says.
        record: &'a Record<'a>,
    },
    /// Something is not as it was written, though nothing was lost there.
    Blemish(
        /// Where, and what.
        &'a Blemish,
    ),
    /// The walk of this segment ends.
    End {
        /// The file.
        path: &'a str,
        /// Where.
        offset: u64,
        /// Why.
        reason: &'a End,
        /// Something was there that is not there any more.
        is_damage: bool,
    },
}

/// Why the walk of a segment ended.
#[derive(Debug)]
pub enum End {
    /// The next segment says that this one ends here.
    Sealed,
    /// No batch follows: the log ends here, or a batch is being written.
    NoBatch,
    /// A record is not what was written, or is being written.
    Damaged(Damage),
    /// It is no segment, or cannot be read.
    Unreadable(String),
    /// There is no such file, and so none of those up to this one, although there are earlier ones.
    Missing(u64),
}

/// Calls `visit` for everything in the log that is in `dir`, until it breaks off.
pub fn inspect(dir: &Path, visit: impl FnMut(Item<'_>) -> ControlFlow<()>) -> io::Result<()> {
    inspect_disk(&RealDisk::read_only(dir), visit)
}

/// The same on any disk.
pub fn inspect_disk(disk: &dyn Disk, mut visit: impl FnMut(Item<'_>) -> ControlFlow<()>) -> io::Result<()> {
    let mut sequences: Vec<u64> = disk.list()?.iter().filter_map(|name| sequence_of(name)).collect();
    sequences.sort_unstable();
    let mut previous = None;
    for sequence in sequences {
        let path = disk.path(&segment_name(sequence));
        let missing = previous.replace(sequence).filter(|previous| previous + 1 < sequence);
        if let Some(previous) = missing.filter(|previous| is_there(disk, *previous)) {
            let (path, reason) = (disk.path(&segment_name(previous + 1)), End::Missing(sequence - 1));
            if visit(Item::End { path: &path, offset: 0, reason: &reason, is_damage: is_there(disk, sequence) })
                .is_break()
            {
                break;
            }
        }
        let next = sequence.checked_add(1).and_then(|next| read_header(disk, next).ok());
        let next = next.map(|(file, next)| (has_data(&*file, &next), next));
        let walked = match read_header(disk, sequence) {
            Ok((file, header)) => walk(&path, &*file, &header, next.as_ref(), &mut |item| match item {
                // One that is let go meanwhile may be written to again.
                Item::End { path, offset, reason, is_damage: true } => {
                    visit(Item::End { path, offset, reason, is_damage: is_there(disk, sequence) })
                }
                item => visit(item),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let reason = End::Unreadable(error.to_string());
                visit(Item::End { path: &path, offset: 0, reason: &reason, is_damage: true })
            }
        };
        if walked.is_break() {
            break;
        }
    }
    Ok(())
}

/// Whether a segment has its name still.
fn is_there(disk: &dyn Disk, sequence: u64) -> bool {
    disk.open(&segment_name(sequence), Access::Read).is_ok()
}

fn sequence_of(name: &str) -> Option<u64> {
    match FileState::of(name) {
        Some(FileState::Segment(sequence)) => Some(sequence),
        _ => None,
    }
}

fn read_header(disk: &dyn Disk, sequence: u64) -> io::Result<(Box<dyn DiskFile>, SegmentHeader)> {
    let file = disk.open(&segment_name(sequence), Access::Read)?;
    let mut bytes = [0; segment::HEADER_BYTES];
    let length = file.read_at(0, &mut bytes)?;
    let header = SegmentHeader::decode(&bytes[..length]).map_err(|bad| io::Error::other(bad.to_string()))?;
    if header.sequence != sequence {
        return Err(io::Error::other(format!("the segment's header has sequence number {}", header.sequence)));
    }
    Ok((file, header))
}

fn walk(
    path: &str,
    file: &dyn DiskFile,
    header: &SegmentHeader,
    next: Option<&(bool, SegmentHeader)>,
    visit: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    visit(Item::Segment { path, header })?;
    let (has_data, next) = next.map_or((false, None), |(has_data, next)| (*has_data, Some(next)));
    let mut search = Search::new(path);
    let mut first_block = [0; BLOCK_BYTES as usize];
    if let Ok(length) = file.read_at(0, &mut first_block) {
        search.first_block(&first_block[..length]);
    }
    let cut = next.and_then(|next| next.predecessor).map(|seal| seal.cut);
    let durable_upto = cut.unwrap_or_else(|| durable_upto(file, header));
    let (mut at, mut is_reused) = (BATCHES_AT, false);
    let reason = loop {
        if cut.is_some_and(|cut| at >= cut) {
            break End::Sealed;
        }
        let (batch_header, bytes) = match read_batch(file, header, at) {
            Ok(Some(read)) => read,
            Ok(None) => break End::NoBatch,
            Err(error) => break End::Unreadable(error.to_string()),
        };
        visit(Item::Batch { header: &batch_header })?;
        let batch = PlacedBatch::new(batch_header, header.key, &bytes);
        let mut damage = None;
        let is_right = |copy: &HardStateCopy| batch.hard_states(*copy).all(|record| record.is_ok());
        let copies = [HardStateCopy::First, HardStateCopy::Second];
        let copy = copies.into_iter().find(is_right).unwrap_or(HardStateCopy::First);
        for record in batch.records().chain(batch.hard_states(copy)) {
            match record {
                Ok((offset, record)) => {
                    is_reused |= matches!(record, Record::Reused);
                    visit(Item::Record { offset: at + offset as u64, record: &record })?;
                }
                Err(found) => damage = damage.or(Some(found)),
            }
        }
        if let Some(damage) = damage {
            break End::Damaged(damage);
        }
        if batch_header.end() <= durable_upto {
            search.batch(&batch_header, &batch);
        }
        search.take_found().iter().try_for_each(|blemish| visit(Item::Blemish(blemish)))?;
        at = batch_header.end();
    };
    if next.is_some_and(|next| is_end_known(header, next, is_reused)) && matches!(reason, End::Sealed) {
        // What cannot be read there is nothing to be shown.
        let _ = search.continued(file, header, at, has_data).and_then(|at| search.unused(file, at));
        search.take_found().iter().try_for_each(|blemish| visit(Item::Blemish(blemish)))?;
    }
    let is_damage = match reason {
        End::Sealed => false,
        End::Unreadable(_) | End::Missing(_) => true,
        End::NoBatch | End::Damaged(_) => at < durable_upto,
    };
    visit(Item::End { path, offset: at, reason: &reason, is_damage })
}

/// What the segment's own batches prove durable.
fn durable_upto(file: &dyn DiskFile, segment: &SegmentHeader) -> u64 {
    let (mut upto, mut at) = (segment.durable_upto, BATCHES_AT);
    let mut head = [0; batch::HEADER_BYTES];
    while let Ok(length) = file.read_at(at, &mut head)
        && let Some(header) = BatchHeader::decode(&head[..length], segment.key, at)
    {
        upto = upto.max(header.durable_upto);
        at = header.end();
    }
    upto
}

fn read_batch(file: &dyn DiskFile, segment: &SegmentHeader, at: u64) -> io::Result<Option<(BatchHeader, Vec<u8>)>> {
    let mut head = [0; batch::HEADER_BYTES];
    let length = file.read_at(at, &mut head)?;
    let Some(header) = BatchHeader::decode(&head[..length], segment.key, at) else { return Ok(None) };
    if header.end() > file.size()? {
        return Ok(None);
    }
    let mut bytes = vec![0; header.length as usize];
    let length = file.read_at(at, &mut bytes)?;
    Ok((length == bytes.len()).then_some((header, bytes)))
}
