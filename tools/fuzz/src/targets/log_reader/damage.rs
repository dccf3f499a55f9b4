//! What can happen to a directory: to its bytes, its files and their names, and what a forger can do.

use std::ops::Range;

use raftkv::storage::batch::{self, BLOCK_BYTES};
use raftkv::storage::record;
use raftkv::storage::segment::{self, BATCHES_AT};

use super::directory::Directory;
use super::image::{Batch, IMAGES, Image, Segment};
use crate::choices::Choices;
use crate::feedback::Feedback;

/// How many kinds of damage there are.
pub(super) const KINDS: u8 = 16;

const BLOCK: usize = BLOCK_BYTES as usize;
const SECTOR: usize = 512;

/// Does one thing to the directory.
pub(super) fn apply(directory: &mut Directory, image: &Image, choices: &mut Choices<'_>, feedback: &mut Feedback) {
    let kind = choices.below(u64::from(KINDS));
    feedback.saw_with(1, kind);
    let slot = choices.below(image.segments.len() as u64) as usize;
    let segment = &image.segments[slot];
    match kind {
        0 | 1 => {
            let (at, bit) = (place(segment, choices), choices.below(8));
            directory.change(slot, at..at + 1, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1 << bit));
        }
        2 => {
            let (at, length, value) = (place(segment, choices), choices.u16() as usize, choices.byte());
            directory.change(slot, at..at + length, |bytes| bytes.fill(value));
        }
        3 => {
            let at = place(segment, choices);
            let filler = choices.bytes(16).to_vec();
            directory.change(slot, at..at + filler.len(), |bytes| bytes.copy_from_slice(&filler[..bytes.len()]));
        }
        4 => {
            let length =
                if choices.below(2) == 0 { place(segment, choices) } else { block(directory, slot, choices).start };
            directory.truncate(slot, length);
        }
        5 => swap_blocks(directory, slot, choices),
        6 => copy_block(directory, image, slot, choices),
        7 => foreign_block(directory, slot, choices),
        8 | 9 => tear(directory, slot, segment, choices),
        10 => {
            let length = (1 + choices.below(4) as usize) * BLOCK;
            directory.extend(slot, &segment.bytes[..length.min(segment.bytes.len())]);
        }
        11 => rename(directory, choices),
        _ => forge(directory, image, slot, choices),
    }
}

/// An offset: mostly one that means something.
fn place(segment: &Segment, choices: &mut Choices<'_>) -> usize {
    let batch = |choices: &mut Choices<'_>| &segment.batches[choices.below(segment.batches.len() as u64) as usize];
    let within =
        |range: Range<usize>, choices: &mut Choices<'_>| range.start + choices.u16() as usize % range.len().max(1);
    match choices.below(8) {
        0 => choices.byte() as usize % segment::HEADER_BYTES,
        1 | 2 => batch(choices).start + choices.byte() as usize % batch::HEADER_BYTES,
        3 | 4 => within(batch(choices).records.clone(), choices),
        5 => within(batch(choices).first_copy.clone(), choices),
        6 => within(batch(choices).second_copy.clone(), choices),
        _ => choices.u16() as usize % segment.bytes.len(),
    }
}

/// A block of a file.
fn block(directory: &Directory, slot: usize, choices: &mut Choices<'_>) -> Range<usize> {
    let blocks = (directory.slot(slot).len() / BLOCK).clamp(1, 256);
    let at = choices.below(blocks as u64) as usize * BLOCK;
    at..at + BLOCK
}

fn swap_blocks(directory: &mut Directory, slot: usize, choices: &mut Choices<'_>) {
    let (one, other) = (block(directory, slot, choices), block(directory, slot, choices));
    let (Some(a), Some(b)) = (directory.slot(slot).get(one.clone()), directory.slot(slot).get(other.clone())) else {
        return;
    };
    let (a, b) = (a.to_vec(), b.to_vec());
    directory.change(slot, one, |bytes| bytes.copy_from_slice(&b));
    directory.change(slot, other, |bytes| bytes.copy_from_slice(&a));
}

/// A write that went to the wrong place, of this file or of another.
fn copy_block(directory: &mut Directory, image: &Image, slot: usize, choices: &mut Choices<'_>) {
    let from_slot = choices.below(image.segments.len() as u64) as usize;
    let (from, to) = (block(directory, from_slot, choices), block(directory, slot, choices));
    let Some(bytes) = directory.slot(from_slot).get(from).map(<[u8]>::to_vec) else { return };
    directory.change(slot, to, |target| target.copy_from_slice(&bytes[..target.len()]));
}

/// A block of another log: what an earlier life of the file may have left behind.
fn foreign_block(directory: &mut Directory, slot: usize, choices: &mut Choices<'_>) {
    let other = &IMAGES[choices.below(IMAGES.len() as u64) as usize];
    let segment = &other.segments[choices.below(other.segments.len() as u64) as usize];
    let to = block(directory, slot, choices);
    // Where the two files are one, this changes nothing.
    let bytes = segment.bytes.get(to.clone()).unwrap_or(&segment.bytes[..BLOCK]);
    directory.change(slot, to.clone(), |target| target.copy_from_slice(&bytes[..target.len()]));
    if to.start == 0 {
        // With the header the file is that log's, and right if that log's blocks follow: nothing in it says otherwise.
        directory.forge();
    }
}

/// Of the last batch, or of another one, only some sectors were written.
fn tear(directory: &mut Directory, slot: usize, segment: &Segment, choices: &mut Choices<'_>) {
    let from_end = choices.below(4) as usize;
    let Some(batch) = segment.batches.iter().rev().nth(from_end) else { return };
    let written = u64::from(choices.u16());
    for (number, at) in (batch.start..batch.end).step_by(SECTOR).enumerate() {
        if written >> (number % 16) & 1 == 0 {
            directory.change(slot, at..at + SECTOR, |bytes| bytes.fill(0));
        }
    }
}

/// Files that are lost, doubled, or have each other's names.
fn rename(directory: &mut Directory, choices: &mut Choices<'_>) {
    let (kind, one, other, sequence) = (choices.below(4), choices.byte(), choices.byte(), choices.number());
    directory.rename(|names| {
        if names.is_empty() {
            return;
        }
        let (one, other) = (usize::from(one) % names.len(), usize::from(other) % names.len());
        let (slot, other_slot) = (names[one].1, names[other].1);
        let is_taken = names.iter().any(|(known, _)| *known == sequence);
        match kind {
            0 => _ = names.remove(one),
            1 if !is_taken => names.push((sequence, slot)),
            2 if !is_taken => names[one].0 = sequence,
            _ => (names[one].1, names[other].1) = (other_slot, slot),
        }
    });
}

/// Fields of a segment's header, offset and width.
const SEGMENT_FIELDS: [(usize, usize); 8] = [(12, 4), (16, 8), (32, 8), (40, 8), (48, 8), (56, 8), (64, 8), (80, 8)];
/// Fields of a batch's header.
const BATCH_FIELDS: [(usize, usize); 7] = [(8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 4)];
/// Fields of a record.
const RECORD_FIELDS: [(usize, usize); 8] = [(4, 4), (8, 1), (9, 1), (10, 2), (12, 8), (20, 8), (28, 8), (36, 8)];

/// Changes a field, and makes every checksum of the file right.
fn forge(directory: &mut Directory, image: &Image, slot: usize, choices: &mut Choices<'_>) {
    let segment = &image.segments[slot];
    let batch = &segment.batches[choices.below(segment.batches.len() as u64) as usize];
    let (at, (offset, width)) = match choices.below(4) {
        0 => (0, SEGMENT_FIELDS[choices.below(8) as usize]),
        1 => (batch.start, BATCH_FIELDS[choices.below(7) as usize]),
        _ => (some_record(directory.slot(slot), batch, choices), RECORD_FIELDS[choices.below(8) as usize]),
    };
    let number = choices.number().to_le_bytes();
    directory.change(slot, at + offset..at + offset + width, |field| field.copy_from_slice(&number[..field.len()]));
    directory.change(slot, 0..segment.bytes.len(), |bytes| stamp(bytes, segment));
    directory.forge();
}

/// Where one of the first records of a batch begins, or of its hard states.
fn some_record(bytes: &[u8], batch: &Batch, choices: &mut Choices<'_>) -> usize {
    let range = [&batch.records, &batch.first_copy, &batch.second_copy][choices.below(3) as usize];
    let mut at = range.start;
    for _ in 0..choices.below(4) {
        let next = at + number_at(bytes, at + 4, 4) as usize;
        if next + record::HEADER_BYTES > range.end {
            break;
        }
        at = next;
    }
    at
}

fn number_at(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(field) = bytes.get(at..at + width) {
        number[..width].copy_from_slice(field);
    }
    u64::from_le_bytes(number)
}

/// The checksums of a whole segment, as the format says: of the header, of each batch's header, of each record.
fn stamp(bytes: &mut [u8], segment: &Segment) {
    if bytes.len() < BATCHES_AT as usize {
        return;
    }
    let checksum = crc32fast::hash(&bytes[12..segment::HEADER_BYTES]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    let mut seed = crc32fast::Hasher::new();
    seed.update(&bytes[16..32]);
    seed.update(&bytes[40..48]);
    let seed = seed.finalize();
    for batch in &segment.batches {
        let Some(placed) = bytes.get_mut(batch.start..batch.end) else { return };
        let checksum = continued(seed, &placed[8..batch::HEADER_BYTES]);
        placed[4..8].copy_from_slice(&checksum.to_le_bytes());
        let seed = continued(seed, &placed[16..24]);
        for range in [&batch.records, &batch.first_copy, &batch.second_copy] {
            stamp_records(&mut placed[range.start - batch.start..range.end - batch.start], seed);
        }
    }
}

fn stamp_records(mut records: &mut [u8], seed: u32) {
    while records.len() >= record::HEADER_BYTES {
        let length = number_at(records, 4, 4) as usize;
        if !(record::HEADER_BYTES..=records.len()).contains(&length) {
            return;
        }
        let (record, rest) = records.split_at_mut(length);
        let checksum = continued(seed, &record[4..]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
        records = rest;
    }
}

/// The CRC-32 that goes on after one with this value.
fn continued(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}
