//! Batches: what is placed and made durable with one sync, byte for byte. Integers are little-endian.
//!
//! A batch starts on a 4 KiB boundary of its segment and fills whole blocks, so that no byte of an earlier batch is
//! ever written again.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "RKVB"
//!      4      4  CRC-32 (IEEE) over the segment's id and epoch, then the rest of the header
//!      8      8  epoch
//!     16      8  number: counted up through the whole log
//!     24      8  start: the batch's offset in its segment
//!     32      8  durable_upto: everything before this offset of the segment was durable when this was written
//!     40      4  length of the batch in bytes, a multiple of 4,096
//!     44      4  R, the bytes of records behind the header
//!     48      4  H, the bytes of one copy of the hard states; 0 for none
//!     52      4  0
//!     56      R  records
//!   56+R      H  hard states, one record per shard: the first copy
//!                zeros up to the next multiple of 4,096
//!      …      H  the second copy, in other blocks than the first; absent if H is 0
//!                zeros up to the next multiple of 4,096
//! ```

use std::ops::Range;

use raftkv_protocol::types::{Entry, HardState, ShardId};

use super::BatchNumber;
use super::record::{self, BadRecord, Record, Seed, u32_at, u64_at};
use super::segment::SegmentKey;
use super::tip::Start;

const MAGIC_AT: usize = 0;
const CRC_AT: usize = MAGIC_AT + 4;
const EPOCH_AT: usize = CRC_AT + 4;
const NUMBER_AT: usize = EPOCH_AT + 8;
const START_AT: usize = NUMBER_AT + 8;
const DURABLE_UPTO_AT: usize = START_AT + 8;
const LENGTH_AT: usize = DURABLE_UPTO_AT + 8;
const RECORDS_AT: usize = LENGTH_AT + 4;
const HARD_STATES_AT: usize = RECORDS_AT + 4;
const RESERVED_AT: usize = HARD_STATES_AT + 4;
/// The bytes of a batch before its records.
pub const HEADER_BYTES: usize = RESERVED_AT + 4;

const MAGIC: &[u8; 4] = b"RKVB";
/// Batches start and end on multiples of this.
pub const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = BLOCK_BYTES as usize;

/// A buffer that grew beyond this is given back to the allocator after use.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Its place among the batches of the log.
    pub number: u64,
    /// Its offset in the segment.
    pub start: u64,
    /// Everything before this offset of the segment was durable when the batch was written.
    pub durable_upto: u64,
    /// Bytes of the whole batch.
    pub length: u32,
    /// Bytes of its records.
    pub records: u32,
    /// Bytes of one copy of its hard states.
    pub hard_states: u32,
}

/// Where the parts of a batch lie, relative to its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    first_copy: usize,
    second_copy: usize,
    length: usize,
}

impl Layout {
    fn new(records: usize, hard_states: usize) -> Layout {
        let first_copy = HEADER_BYTES + records;
        let second_copy = (first_copy + hard_states).next_multiple_of(BLOCK);
        Layout { first_copy, second_copy, length: (second_copy + hard_states).next_multiple_of(BLOCK) }
    }
}

impl BatchHeader {
    /// Writes the header into the first bytes of `out`.
    pub fn encode(&self, key: SegmentKey, out: &mut [u8]) {
        let out = &mut out[..HEADER_BYTES];
        out[MAGIC_AT..CRC_AT].copy_from_slice(MAGIC);
        out[EPOCH_AT..NUMBER_AT].copy_from_slice(&key.epoch.to_le_bytes());
        out[NUMBER_AT..START_AT].copy_from_slice(&self.number.to_le_bytes());
        out[START_AT..DURABLE_UPTO_AT].copy_from_slice(&self.start.to_le_bytes());
        out[DURABLE_UPTO_AT..LENGTH_AT].copy_from_slice(&self.durable_upto.to_le_bytes());
        out[LENGTH_AT..RECORDS_AT].copy_from_slice(&self.length.to_le_bytes());
        out[RECORDS_AT..HARD_STATES_AT].copy_from_slice(&self.records.to_le_bytes());
        out[HARD_STATES_AT..RESERVED_AT].copy_from_slice(&self.hard_states.to_le_bytes());
        out[RESERVED_AT..].fill(0);
        let checksum = checksum(key, out);
        out[CRC_AT..EPOCH_AT].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the header that `bytes` begin with, if it is one of this segment at this offset.
    #[must_use]
    pub fn decode(bytes: &[u8], key: SegmentKey, start: u64) -> Option<BatchHeader> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if &bytes[MAGIC_AT..CRC_AT] != MAGIC || checksum(key, bytes) != u32_at(bytes, CRC_AT) {
            return None;
        }
        let header = BatchHeader {
            number: u64_at(bytes, NUMBER_AT),
            start: u64_at(bytes, START_AT),
            durable_upto: u64_at(bytes, DURABLE_UPTO_AT),
            length: u32_at(bytes, LENGTH_AT),
            records: u32_at(bytes, RECORDS_AT),
            hard_states: u32_at(bytes, HARD_STATES_AT),
        };
        let consistent = header.start == start && header.layout().length == header.length as usize;
        (consistent && u64_at(bytes, EPOCH_AT) == key.epoch).then_some(header)
    }

    /// Where the batch ends in its segment.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }

    /// Where its records lie but the hard states, relative to its start.
    pub(super) fn record_range(&self) -> Range<usize> {
        HEADER_BYTES..self.layout().first_copy
    }

    fn layout(&self) -> Layout {
        Layout::new(self.records as usize, self.hard_states as usize)
    }
}

fn checksum(key: SegmentKey, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(key.seed());
    hasher.update(&header[EPOCH_AT..HEADER_BYTES]);
    hasher.finalize()
}

/// Bytes of a batch that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, relative to the batch's start.
    pub offset: usize,
    /// What is wrong.
    pub what: BadRecord,
    /// The entry that the damaged bytes seem to hold.
    pub entry: Option<(ShardId, raftkv_protocol::types::EntryId)>,
}

impl Damage {
    /// Whether the bytes are what was written, by a later version.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.what, BadRecord::Unknown(_))
    }
}

/// A batch as it was read, its header checked.
#[derive(Clone, Copy, Debug)]
pub struct PlacedBatch<'a> {
    header: BatchHeader,
    seed: Seed,
    bytes: &'a [u8],
}

impl<'a> PlacedBatch<'a> {
    /// The batch with this header; `bytes` are all of it.
    #[must_use]
    pub fn new(header: BatchHeader, key: SegmentKey, bytes: &'a [u8]) -> PlacedBatch<'a> {
        debug_assert_eq!(bytes.len(), header.length as usize);
        PlacedBatch { header, seed: Seed::new(key, header.number), bytes }
    }

    /// Its records but the hard states, each with its offset from the batch's start. Ends with the first damage.
    pub fn records(&self) -> Records<'a> {
        Records { bytes: &self.bytes[..self.header.layout().first_copy], at: HEADER_BYTES, seed: self.seed }
    }

    /// The bytes of its records.
    #[must_use]
    pub fn record_bytes(&self) -> &'a [u8] {
        &self.bytes[self.header.record_range()]
    }

    /// What fills the block behind a copy of its hard states, with its offset from the batch's start: zeros. Behind the
    /// first copy also if there are no hard states.
    #[must_use]
    pub fn padding(&self, copy: HardStateCopy) -> (usize, &'a [u8]) {
        let layout = self.header.layout();
        let (from, upto) = match copy {
            HardStateCopy::First => (layout.first_copy, layout.second_copy),
            HardStateCopy::Second => (layout.second_copy, layout.length),
        };
        let from = from + self.header.hard_states as usize;
        (from, &self.bytes[from..upto])
    }

    /// One of the two copies of its hard states.
    pub fn hard_states(&self, copy: HardStateCopy) -> Records<'a> {
        let layout = self.header.layout();
        let at = match copy {
            HardStateCopy::First => layout.first_copy,
            HardStateCopy::Second => layout.second_copy,
        };
        Records { bytes: &self.bytes[..at + self.header.hard_states as usize], at, seed: self.seed }
    }
}

/// Hard states are written twice, in different blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardStateCopy {
    /// Right behind the records.
    First,
    /// In the batch's last blocks.
    Second,
}

/// Iterates over records; see [`PlacedBatch::records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    seed: Seed,
}

impl<'a> Records<'a> {
    /// The records in some bytes of a batch, which begin and end with one. Offsets count from the first.
    pub(super) fn within(header: &BatchHeader, key: SegmentKey, bytes: &'a [u8]) -> Records<'a> {
        Records { bytes, at: 0, seed: Seed::new(key, header.number) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, Record<'a>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let offset = self.at;
        match Record::decode(&self.bytes[offset..], self.seed) {
            Ok((record, length)) => {
                self.at += length;
                Some(Ok((offset, record)))
            }
            Err(what) => {
                self.at = self.bytes.len();
                Some(Err(Damage { offset, what, entry: record::claimed_entry(&self.bytes[offset..]) }))
            }
        }
    }
}

/// Where a batch is placed, and after what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The segment.
    pub key: SegmentKey,
    /// The number that the batch gets.
    pub number: u64,
    /// Its offset in the segment.
    pub start: u64,
    /// Everything before this offset of the segment is durable.
    pub durable_upto: u64,
}

/// A batch that is being gathered: a buffer that is handed back and forth and never freed between batches.
#[derive(Debug)]
pub struct Batch {
    number: BatchNumber,
    bytes: Vec<u8>,
    hard_states: Vec<(ShardId, HardState)>,
    /// How many entries were added.
    entries: u64,
    /// What is no longer needed. It travels to the syncer with the batch and is not written: the next segment says it.
    starts: Vec<Start>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(number: BatchNumber) -> Batch {
        Batch { number, bytes: vec![0; HEADER_BYTES], hard_states: Vec::new(), entries: 0, starts: Vec::new() }
    }

    /// Empties the batch for another use.
    pub fn reuse(&mut self, number: BatchNumber) {
        self.number = number;
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.bytes.resize(HEADER_BYTES, 0);
        self.hard_states.clear();
        self.entries = 0;
        self.starts.clear();
    }

    /// The loop's name for it. The number on disk is another one: it is given at placement.
    #[must_use]
    pub fn number(&self) -> BatchNumber {
        self.number
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES && self.hard_states.is_empty()
    }

    /// Adds an entry.
    pub fn push_entry(&mut self, shard: ShardId, entry: &Entry) {
        record::encode_entry(shard, entry, &mut self.bytes);
        self.entries += 1;
    }

    /// Adds a copy of an entry.
    pub(super) fn push_copy(&mut self, shard: ShardId, entry: &Entry) {
        record::encode_copy(shard, entry, &mut self.bytes);
    }

    /// Adds any record but a hard state.
    pub fn push(&mut self, record: &Record<'_>) {
        debug_assert!(!matches!(record, Record::HardState { .. }), "hard states have their own place");
        record.encode(&mut self.bytes);
    }

    /// Adds records that were read from another batch.
    pub(super) fn push_encoded(&mut self, records: &[u8]) {
        self.bytes.extend_from_slice(records);
    }

    /// Adds a shard's hard state; only the last of each shard is written.
    pub fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        match self.hard_states.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, latest)) => *latest = hard_state,
            None => self.hard_states.push((shard, hard_state)),
        }
    }

    /// Takes note of from where on a shard's entries are needed; only the last of each shard counts.
    pub(super) fn set_start(&mut self, start: Start) {
        self.forget_start(start.shard);
        self.starts.push(start);
    }

    /// The shard's log begins anew.
    pub(super) fn forget_start(&mut self, shard: ShardId) {
        self.starts.retain(|start| start.shard != shard);
    }

    /// Hands out what was noted.
    pub(super) fn take_starts(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.starts)
    }

    /// The hard states that it will write.
    #[must_use]
    pub fn hard_states(&self) -> &[(ShardId, HardState)] {
        &self.hard_states
    }

    /// The same, to replace them by later ones.
    pub(super) fn hard_states_mut(&mut self) -> impl Iterator<Item = &mut (ShardId, HardState)> {
        self.hard_states.iter_mut()
    }

    /// Whether there are records besides hard states.
    #[must_use]
    pub(super) fn has_records(&self) -> bool {
        self.bytes.len() > HEADER_BYTES
    }

    /// How many entries were added; copies of earlier ones do not count.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes gathered so far.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that the batch will take in a segment.
    #[must_use]
    pub fn placed_bytes(&self) -> u64 {
        let hard_states = self.hard_states.len() * (record::HEADER_BYTES + 8);
        Layout::new(self.bytes.len() - HEADER_BYTES, hard_states).length as u64
    }

    /// Completes the batch for its place and returns its bytes. `observe` sees every record but the hard states.
    /// The batch must be [reused](Batch::reuse) before anything is added again.
    pub(super) fn finish(&mut self, placement: &Placement, mut observe: impl FnMut(&Record<'_>)) -> &[u8] {
        let seed = Seed::new(placement.key, placement.number);
        let records_end = self.bytes.len();
        for &(shard, hard_state) in &self.hard_states {
            Record::HardState { shard, hard_state }.encode(&mut self.bytes);
        }
        let hard_states = self.bytes.len() - records_end;
        let layout = Layout::new(records_end - HEADER_BYTES, hard_states);
        stamp_all(&mut self.bytes[HEADER_BYTES..records_end], seed, &mut observe);
        stamp_all(&mut self.bytes[records_end..], seed, &mut |_| {});
        self.bytes.resize(layout.length, 0);
        self.bytes.copy_within(layout.first_copy..layout.first_copy + hard_states, layout.second_copy);
        let header = BatchHeader {
            number: placement.number,
            start: placement.start,
            durable_upto: placement.durable_upto,
            length: bytes_u32(layout.length),
            records: bytes_u32(records_end - HEADER_BYTES),
            hard_states: bytes_u32(hard_states),
        };
        header.encode(placement.key, &mut self.bytes);
        &self.bytes
    }
}

fn stamp_all(records: &mut [u8], seed: Seed, observe: &mut impl FnMut(&Record<'_>)) {
    let mut at = 0;
    while at < records.len() {
        let (record, length) = record::stamp(&mut records[at..], seed);
        observe(&record.expect("a batch holds what was encoded here"));
        at += length;
    }
}

fn bytes_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch is closed at a few MiB and an entry is limited")
}
