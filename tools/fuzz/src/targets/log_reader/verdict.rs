//! What must come of a damaged directory, worked out from the undamaged one: which bytes still are what was written is
//! known here, without any checksum.

use raftkv::storage::{batch, segment};

use super::directory::Directory;
use super::image::{Batch, IMAGES, Image, Segment};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Checksums were forged: nobody can know.
    Anything,
    /// An error: something below what is proved durable is damaged.
    Refused,
    /// What the log held after so many batches.
    Batches(usize),
    /// Files are missing or under other names, which no header can prove: an error, or what the log held at some time.
    RefusedOrOnce,
}

pub(super) fn expected(image: &Image, directory: &Directory) -> Expected {
    if directory.is_forged() {
        return Expected::Anything;
    }
    if directory.is_renamed() {
        return Expected::RefusedOrOnce;
    }
    let mut batches = 0;
    for (slot, segment) in image.segments.iter().enumerate() {
        let right = |batch: &&Batch| is_right(image, directory, slot, batch);
        if !directory.is_intact(image, slot, 0..segment::HEADER_BYTES) {
            // With another log's header the file is that log's, and right if that log's blocks follow.
            return if has_another_header(directory, slot) { Expected::Anything } else { Expected::Refused };
        }
        let is_last = slot + 1 == image.segments.len();
        // With what was cut off may have gone what proves it durable.
        if is_last && directory.slot(slot).len() < segment.bytes.len() {
            return Expected::Refused;
        }
        let kept = segment.batches.iter().take_while(right).count();
        batches += kept;
        let upto = if is_last { durable_upto(image, directory, slot, segment) } else { u64::MAX };
        if segment.batches.get(kept).is_some_and(|batch| (batch.start as u64) < upto) {
            return Expected::Refused;
        }
    }
    Expected::Batches(batches)
}

/// Whether a file begins as one of another image does, or as another one of this.
fn has_another_header(directory: &Directory, slot: usize) -> bool {
    let header = directory.slot(slot).get(..segment::HEADER_BYTES);
    let mut segments = IMAGES.iter().flat_map(|image| &image.segments);
    header.is_some_and(|header| segments.any(|segment| segment.bytes.starts_with(header)))
}

/// The greatest position that a header which is left proves durable.
fn durable_upto(image: &Image, directory: &Directory, slot: usize, segment: &Segment) -> u64 {
    let left = segment.batches.iter().filter(|batch| has_header(image, directory, slot, batch));
    left.map(|batch| batch.durable_upto).max().unwrap_or(0).max(segment.durable_upto)
}

fn has_header(image: &Image, directory: &Directory, slot: usize, batch: &Batch) -> bool {
    directory.is_intact(image, slot, batch.start..batch.start + batch::HEADER_BYTES)
}

/// Whether all of it can be read: of the two copies of the hard states, one is enough.
fn is_right(image: &Image, directory: &Directory, slot: usize, batch: &Batch) -> bool {
    let intact = |range: &std::ops::Range<usize>| directory.is_intact(image, slot, range.clone());
    let has_hard_states = intact(&batch.first_copy) || intact(&batch.second_copy);
    batch.end <= directory.slot(slot).len()
        && has_header(image, directory, slot, batch)
        && intact(&batch.records)
        && has_hard_states
}
