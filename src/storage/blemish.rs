//! Blemishes: bytes below W that are not what was written, though nothing was lost with them.
//!
//! Checksums cover what a segment holds. The rest is zeros, or is there twice: the gaps behind the header, the records and
//! the hard states up to the next block, the unused end of a segment, and the two copies of a batch's hard states. A disk
//! that changes such a byte, or does not give it any more, changes others too, so each is named. The log is taken as it is: what it says is complete, and
//! the segment that every start begins restates each shard, its term and vote in two new copies.
//!
//! What a crash has left is no blemish. All that lies below W was written whole, padding included, before anything proved it
//! durable; what lies at or above W is not looked at. The end of a segment is looked at if the same process began the next
//! one, so that no start has cut anything there, and if the file was filled with zeros for it, and not in use before.

use std::{fmt, io, mem};

use super::batch::{BLOCK_BYTES, BatchHeader, HardStateCopy, PlacedBatch};
use super::disk::DiskFile;
use super::given::read_given;
use super::record::Record;
use super::segment::{BATCHES_AT, HEADER_BYTES, SegmentHeader};

/// Bytes that are not what was written, and that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blemish {
    /// The file.
    pub path: String,
    /// The first of them: of a copy, where the record begins that is not right.
    pub offset: u64,
    /// What should be there.
    pub spot: Spot,
}

/// What is not needed, because it holds nothing or is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The rest of the block that a segment's header begins.
    HeaderPadding,
    /// The rest of a block of a batch.
    BatchPadding,
    /// What was never used of a segment.
    Unused,
    /// One copy of a batch's hard states.
    HardState(HardStateCopy),
    /// What says behind a segment's cut that the log goes on in the next one, which is there.
    Continued,
    /// A block that the disk does not give, with nothing in it that is not somewhere else too.
    BadSector,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spot::HeaderPadding => "there should be zeros behind the segment's header",
            Spot::BatchPadding => "there should be zeros behind the records of a batch",
            Spot::Unused => "there should be zeros in the unused end of the segment",
            Spot::Continued => "what says that the log goes on in the next segment, which is there, is damaged",
            Spot::BadSector => "the disk does not give this block",
            Spot::HardState(HardStateCopy::First) => "the first of two copies of hard states is damaged",
            Spot::HardState(HardStateCopy::Second) => "the second of two copies of hard states is damaged",
        })
    }
}

impl fmt::Display for Blemish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.path, self.offset, self.spot)
    }
}

/// One line that says what to do about them; `None` if there are none.
#[must_use]
pub fn warning(blemishes: &[Blemish]) -> Option<String> {
    let first = blemishes.first()?;
    let more = match blemishes.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more such spots; raftkv-nc check names them)"),
    };
    Some(format!("{first}{more}; nothing is lost, but the disk does not keep what was written: replace it soon"))
}

/// Looks through bytes of a segment for blemishes.
pub(super) struct Search<'p> {
    path: &'p str,
    found: Vec<Blemish>,
}

impl<'p> Search<'p> {
    pub(super) fn new(path: &'p str) -> Search<'p> {
        Search { path, found: Vec::new() }
    }

    /// What was found since the last call.
    pub(super) fn take_found(&mut self) -> Vec<Blemish> {
        mem::take(&mut self.found)
    }

    /// The first block of a segment whose header is right.
    pub(super) fn first_block(&mut self, block: &[u8]) {
        self.zeros(HEADER_BYTES as u64, block.get(HEADER_BYTES..BATCHES_AT as usize), Spot::HeaderPadding);
    }

    /// A batch whose records are right, and the hard states in one copy at least.
    pub(super) fn batch(&mut self, header: &BatchHeader, batch: &PlacedBatch<'_>) {
        for copy in [HardStateCopy::First, HardStateCopy::Second] {
            if let Some(damage) = batch.hard_states(copy).find_map(Result::err) {
                self.note(header.start + damage.offset as u64, Spot::HardState(copy));
            }
            let (offset, padding) = batch.padding(copy);
            self.zeros(header.start + offset as u64, Some(padding), Spot::BatchPadding);
        }
    }

    /// What says behind the cut that the log goes on in the next segment. An older version wrote none, and a crash may leave
    /// anything of it, unless the next segment `has_data`. Tells where the unused end begins.
    pub(super) fn continued(
        &mut self,
        file: &dyn DiskFile,
        segment: &SegmentHeader,
        cut: u64,
        has_data: bool,
    ) -> io::Result<u64> {
        let mut block = [0; BLOCK_BYTES as usize];
        let before = self.found.len();
        let length = read_given(file, cut, &mut block, |at, _| self.note(at, Spot::BadSector))?;
        if is_zeros(&block[..length]) && self.found.len() == before {
            return Ok(cut);
        }
        let header = BatchHeader::decode(&block[..length], segment.key, cut);
        let batch = header.filter(|header| header.length as usize == length).map(|header| {
            let batch = PlacedBatch::new(header, segment.key, &block);
            (header, batch)
        });
        match batch.filter(|(_, batch)| says_continued(batch).is_some()) {
            Some((header, batch)) => self.batch(&header, &batch),
            None if has_data && self.found.len() == before => self.note(cut, Spot::Continued),
            None => {}
        }
        Ok(cut + BLOCK_BYTES)
    }

    /// The end of a segment from `at` on, which was never used: up to the first byte that is not zero.
    pub(super) fn unused(&mut self, file: &dyn DiskFile, mut at: u64) -> io::Result<()> {
        let end = file.size()?;
        let before = self.found.len();
        let mut chunk = vec![0; end.saturating_sub(at).min(CHUNK_BYTES) as usize];
        while at < end && self.found.len() == before {
            let length = read_given(file, at, &mut chunk, |at, _| self.note(at, Spot::BadSector))?;
            if length == 0 {
                break;
            }
            self.zeros(at, Some(&chunk[..length]), Spot::Unused);
            at += length as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, offset: u64, bytes: Option<&[u8]>, spot: Spot) {
        let at = bytes.and_then(first_not_zero);
        if let Some(at) = at {
            self.note(offset + at as u64, spot);
        }
    }

    fn note(&mut self, offset: u64, spot: Spot) {
        self.found.push(Blemish { path: self.path.to_owned(), offset, spot });
    }
}

/// What a segment never used is read in pieces of this size.
const CHUNK_BYTES: u64 = 1 << 20;

/// Whether the end of a segment behind its seal must be as the allocator left it. `is_reused`: not for this segment.
pub(super) fn is_end_known(segment: &SegmentHeader, next: &SegmentHeader, is_reused: bool) -> bool {
    next.key.epoch == segment.key.epoch && !is_reused
}

/// In which segment the log goes on, if this is the batch that says so.
pub(super) fn says_continued(batch: &PlacedBatch<'_>) -> Option<u64> {
    match batch.records().next() {
        Some(Ok((_, Record::Continued { sequence, .. }))) => Some(sequence),
        _ => None,
    }
}

/// Whether there are batches behind what a segment began with.
pub(super) fn has_data(file: &dyn DiskFile, segment: &SegmentHeader) -> bool {
    let mut head = [0; super::batch::HEADER_BYTES];
    let length = file.read_at(segment.durable_upto, &mut head).unwrap_or(0);
    BatchHeader::decode(&head[..length], segment.key, segment.durable_upto).is_some()
}

/// A block that nothing was written into.
static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// Whether bytes, at most a block, are all zeros.
pub(super) fn is_zeros(bytes: &[u8]) -> bool {
    *bytes == ZEROS[..bytes.len()]
}

fn first_not_zero(bytes: &[u8]) -> Option<usize> {
    let mut blocks = bytes.chunks(ZEROS.len());
    let block = blocks.position(|block| !is_zeros(block))? * ZEROS.len();
    bytes[block..].iter().position(|byte| *byte != 0).map(|at| block + at)
}
