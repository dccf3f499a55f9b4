//! The segments that a log is made of: the header, byte for byte, and the names of the files.
//!
//! A segment is a file of fixed size, written once from its beginning to its end. Its first 4 KiB block holds the
//! header, the rest batches (see [`batch`](super::batch)). Integers are little-endian.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic "RKVLOG\r\n"
//!      8      4  CRC-32 (IEEE) over the rest of the header
//!     12      4  format version, 1
//!     16     16  id of the segment, drawn at random each time the file is taken into use
//!     32      8  sequence number: 1 for the first segment of a log, then counted up
//!     40      8  epoch: counted up at each start of the process
//!     48      8  size of the segment in bytes
//!     56      8  durable_upto: what lies before this offset was durable before the file got its name
//!     64     16  id of the predecessor; 0 for none
//!     80      8  cut: what lies in the predecessor at or after this offset does not belong to the log
//! ```
//!
//! A file's name is its state. `allocating-…` is being filled with zeros, and is removed at a start. `spare-…` is filled
//! and durable, and waits to be used; whatever it holds is meaningless. `segment-<sequence number, 16 hex digits>.log`
//! is part of the log: the header, the restatement behind it, and what a start wrote again were durable before the
//! file got this name, and the name is durable before anything else is written into it.

use std::fmt;

use super::batch::BLOCK_BYTES;
use super::record::{Seal, u32_at, u64_at, u128_at};

const MAGIC_AT: usize = 0;
const CRC_AT: usize = MAGIC_AT + 8;
const VERSION_AT: usize = CRC_AT + 4;
const ID_AT: usize = VERSION_AT + 4;
const SEQUENCE_AT: usize = ID_AT + 16;
const EPOCH_AT: usize = SEQUENCE_AT + 8;
const SIZE_AT: usize = EPOCH_AT + 8;
const DURABLE_UPTO_AT: usize = SIZE_AT + 8;
const PREDECESSOR_AT: usize = DURABLE_UPTO_AT + 8;
const CUT_AT: usize = PREDECESSOR_AT + 16;
/// The bytes of the header that mean something.
pub const HEADER_BYTES: usize = CUT_AT + 8;

const MAGIC: &[u8; 8] = b"RKVLOG\r\n";
const VERSION: u32 = 1;

/// Where the first batch of a segment starts.
pub const BATCHES_AT: u64 = BLOCK_BYTES;
/// The least size of a segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The size of a segment unless configured otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;

const _: () = assert!(HEADER_BYTES as u64 <= BLOCK_BYTES);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(BLOCK_BYTES) && SEGMENT_BYTES.is_multiple_of(BLOCK_BYTES));

/// Names one use of a segment's file. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub u128);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What every checksum in a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentKey {
    /// The segment.
    pub id: SegmentId,
    /// The start of the process that wrote it.
    pub epoch: u64,
}

impl SegmentKey {
    /// The CRC-32 of id and epoch, to be continued.
    #[must_use]
    pub(super) fn seed(self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.id.0.to_le_bytes());
        hasher.update(&self.epoch.to_le_bytes());
        hasher.finalize()
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Id and epoch.
    pub key: SegmentKey,
    /// Its place among the segments of the log.
    pub sequence: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What lies before this offset was durable before the file got its name.
    pub durable_upto: u64,
    /// The segment before it, and where that one ends. `None` in the first.
    pub predecessor: Option<Seal>,
}

/// Why bytes are not the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Too short, not the magic, or the checksum does not match.
    Damaged,
    /// Written by a later version of the software.
    Version(u32),
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadHeader::Damaged => f.write_str("the segment's header is damaged"),
            BadHeader::Version(version) => write!(f, "the segment has format {version}, this version reads {VERSION}"),
        }
    }
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (predecessor, cut) = self.predecessor.map_or((0, 0), |seal| (seal.segment.0, seal.cut));
        let mut bytes = [0; HEADER_BYTES];
        bytes[MAGIC_AT..CRC_AT].copy_from_slice(MAGIC);
        bytes[VERSION_AT..ID_AT].copy_from_slice(&VERSION.to_le_bytes());
        bytes[ID_AT..SEQUENCE_AT].copy_from_slice(&self.key.id.0.to_le_bytes());
        bytes[SEQUENCE_AT..EPOCH_AT].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[EPOCH_AT..SIZE_AT].copy_from_slice(&self.key.epoch.to_le_bytes());
        bytes[SIZE_AT..DURABLE_UPTO_AT].copy_from_slice(&self.size.to_le_bytes());
        bytes[DURABLE_UPTO_AT..PREDECESSOR_AT].copy_from_slice(&self.durable_upto.to_le_bytes());
        bytes[PREDECESSOR_AT..CUT_AT].copy_from_slice(&predecessor.to_le_bytes());
        bytes[CUT_AT..].copy_from_slice(&cut.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[VERSION_AT..]);
        bytes[CRC_AT..VERSION_AT].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header that `bytes` begin with.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let header = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        if &header[MAGIC_AT..CRC_AT] != MAGIC || crc32fast::hash(&header[VERSION_AT..]) != u32_at(header, CRC_AT) {
            return Err(BadHeader::Damaged);
        }
        let version = u32_at(header, VERSION_AT);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let sequence = u64_at(header, SEQUENCE_AT);
        let predecessor = Some(u128_at(header, PREDECESSOR_AT)).filter(|id| *id != 0).map(|id| Seal {
            segment: SegmentId(id),
            sequence: sequence.saturating_sub(1),
            cut: u64_at(header, CUT_AT),
        });
        Ok(SegmentHeader {
            key: SegmentKey { id: SegmentId(u128_at(header, ID_AT)), epoch: u64_at(header, EPOCH_AT) },
            sequence,
            size: u64_at(header, SIZE_AT),
            durable_upto: u64_at(header, DURABLE_UPTO_AT),
            predecessor,
        })
    }
}

/// What a file in a log's directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Being filled with zeros.
    Allocating,
    /// Waits to be used.
    Spare,
    /// Part of the log, with this sequence number.
    Segment(u64),
}

impl FileState {
    /// What the name says; `None` for a file that is not the log's.
    #[must_use]
    pub fn of(name: &str) -> Option<FileState> {
        if name.starts_with("allocating-") {
            return Some(FileState::Allocating);
        }
        if name.starts_with("spare-") {
            return Some(FileState::Spare);
        }
        let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
        (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(FileState::Segment)
    }
}

/// The name of a segment that is part of the log.
#[must_use]
pub fn segment_name(sequence: u64) -> String {
    format!("segment-{sequence:016x}.log")
}

/// The name of a file that is being filled.
#[must_use]
pub(super) fn allocating_name(tag: u64) -> String {
    format!("allocating-{tag:016x}.log")
}

/// The name of a file that waits to be used.
#[must_use]
pub(super) fn spare_name(tag: u64) -> String {
    format!("spare-{tag:016x}.log")
}
