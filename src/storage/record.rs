//! The records of the log, byte for byte. Integers are little-endian.
//!
//! ```text
//! offset  bytes  field
//!      0      4  CRC-32 (IEEE) over the seed, then everything that follows in the record
//!      4      4  length of the record, these 8 bytes included
//!      8      1  kind: 1 entry, 2 hard state, 3 reset, 4 restatement, 5 watermark, 6 seal, 7 copy, 8 copied, 9 reused,
//!                10 continued
//!      9      1  kind of the entry (0 no-op, 1 command, 2 configuration) and its copies; 0 in other records
//!     10      2  shard; 0 in watermark, seal, reused and continued
//!     12      8  term
//!     20      8  index
//!     28      …  body
//! ```
//!
//! | kind | term, index | body |
//! | --- | --- | --- |
//! | entry | the entry's | the entry's body. Replay: discards the shard's entries from this index on, then appends. |
//! | hard state | the term, 0 | 8 bytes: the node voted for, 0 for none |
//! | reset | of the entry before the first | 8 bytes: the id of the snapshot up to this entry. Replay: the shard's log is empty and starts after it. |
//! | restatement | of the entry before the first | 40 bytes: the hard state's term, its vote, the last entry's term and index, the snapshot's id |
//! | watermark | 0, 0 | empty. It gives the batch that carries it a reason to be; the batch's header proves the one before. |
//! | seal | the predecessor's sequence number, its cut | 16 bytes: the predecessor's id |
//! | copy | the entry's | the entry's body. An entry that is in the log already, written again so that the segment with the original can go. It means nothing until the shard's next copied record. |
//! | copied | 0, the last copy's index | 8 bytes: the first copy's index. Replay: from here on the copies are the entries, as far as they were not discarded meanwhile. |
//! | reused | 0, 0 | empty. The segment's file was in use before: what lies behind the batches is left from then. |
//! | continued | 0, the successor's sequence number | 16 bytes: the successor's id. It lies behind the cut: whoever meets it at the end of a log misses the next segment. |
//!
//! The seed is the segment's id (16 bytes), the epoch (8) and the number of the batch (8): a record that was left
//! behind by an earlier life of the file, or that belongs to another batch, has the wrong checksum.

use std::fmt;

use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, SnapshotId, Term};

use super::segment::{SegmentId, SegmentKey};

const CRC_AT: usize = 0;
const LENGTH_AT: usize = CRC_AT + 4;
const KIND_AT: usize = LENGTH_AT + 4;
const ENTRY_KIND_AT: usize = KIND_AT + 1;
const SHARD_AT: usize = ENTRY_KIND_AT + 1;
const TERM_AT: usize = SHARD_AT + 2;
const INDEX_AT: usize = TERM_AT + 8;
/// The bytes of a record before its body.
pub const HEADER_BYTES: usize = INDEX_AT + 8;

const RESTATE_BODY_BYTES: usize = 5 * 8;

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const RESET: u8 = 3;
const RESTATE: u8 = 4;
const WATERMARK: u8 = 5;
const SEAL: u8 = 6;
const COPY: u8 = 7;
const COPIED: u8 = 8;
const REUSED: u8 = 9;
const CONTINUED: u8 = 10;

/// What the log says of one shard at the beginning of a segment, so that older segments can be let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Term and vote.
    pub hard_state: HardState,
    /// The entry before the first in the log.
    pub start: EntryId,
    /// The last entry in the log; `start` if there is none.
    pub last: EntryId,
    /// The snapshot that `start` belongs to.
    pub snapshot: SnapshotId,
}

/// Where a segment's contents end for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The sealed segment.
    pub segment: SegmentId,
    /// Its sequence number.
    pub sequence: u64,
    /// What lies at or after this offset does not belong to the log.
    pub cut: u64,
}

/// One record, its body borrowed from the bytes that it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An entry of a shard; it discards the shard's entries from its index on.
    Entry {
        /// Whose.
        shard: ShardId,
        /// Index and term.
        id: EntryId,
        /// What the body means.
        kind: EntryKind,
        /// The entry's body.
        body: &'a [u8],
    },
    /// A shard's term and vote.
    HardState {
        /// Whose.
        shard: ShardId,
        /// Term and vote.
        hard_state: HardState,
    },
    /// The shard's log is empty and starts after this entry.
    Reset {
        /// Whose.
        shard: ShardId,
        /// The entry before the first.
        start: EntryId,
        /// The snapshot of everything up to there.
        snapshot: SnapshotId,
    },
    /// What is known of a shard at the beginning of a segment.
    Restate {
        /// Whose.
        shard: ShardId,
        /// What is known.
        state: ShardState,
    },
    /// Nothing new: the batch exists to prove the one before it durable.
    Watermark,
    /// The predecessor of this segment ends here.
    Seal(Seal),
    /// An entry that is in the log already, written again. It means nothing until all copies are there.
    Copy {
        /// Whose.
        shard: ShardId,
        /// Index and term.
        id: EntryId,
        /// What the body means.
        kind: EntryKind,
        /// The entry's body.
        body: &'a [u8],
    },
    /// All copies are there: they are the entries from here on.
    Copied {
        /// Whose.
        shard: ShardId,
        /// The first of them.
        first: Index,
        /// The last of them.
        last: Index,
    },
    /// The file of this segment was in use before.
    Reused,
    /// The log goes on in this segment, which has its durable name.
    Continued {
        /// Its sequence number.
        sequence: u64,
        /// Its id.
        segment: SegmentId,
    },
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// The length is less than a record's least or more than what is there.
    Length,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, but this version does not know this kind or shape of record.
    Unknown(u8),
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::Length => f.write_str("a record's length is wrong"),
            BadRecord::Checksum => f.write_str("a record's checksum does not match"),
            BadRecord::Unknown(kind) => write!(f, "a record of kind {kind} is unknown to this version"),
        }
    }
}

/// Where the checksums of a batch's records begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of the records of a batch.
    #[must_use]
    pub fn new(key: SegmentKey, batch_number: u64) -> Seed {
        let mut hasher = crc32fast::Hasher::new_with_initial(key.seed());
        hasher.update(&batch_number.to_le_bytes());
        Seed(hasher.finalize())
    }

    fn checksum(self, record: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&record[LENGTH_AT..]);
        hasher.finalize()
    }
}

/// The fixed fields of a record that is known to be well-formed.
#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    kind: u8,
    shard: ShardId,
    id: EntryId,
}

impl Head {
    fn read(record: &[u8]) -> Head {
        Head {
            length: u32_at(record, LENGTH_AT) as usize,
            kind: record[KIND_AT],
            shard: ShardId(u16::from_le_bytes([record[SHARD_AT], record[SHARD_AT + 1]])),
            id: EntryId::new(u64_at(record, INDEX_AT), u64_at(record, TERM_AT)),
        }
    }

    fn is_entry(&self) -> bool {
        self.kind == ENTRY || self.kind == COPY
    }
}

/// The bytes that an entry takes in the log.
#[must_use]
pub fn entry_bytes(entry: &Entry) -> usize {
    HEADER_BYTES + entry.body.len()
}

/// Appends an entry's record to `out`, its checksum left open: it depends on the batch.
pub fn encode_entry(shard: ShardId, entry: &Entry, out: &mut Vec<u8>) {
    encode(ENTRY, entry.kind as u8, shard, entry.id, &entry.body, out);
}

/// Appends a copy of an entry, likewise.
pub(super) fn encode_copy(shard: ShardId, entry: &Entry, out: &mut Vec<u8>) {
    encode(COPY, entry.kind as u8, shard, entry.id, &entry.body, out);
}

/// Writes the checksum of the record that `bytes` begin with; returns what it says, and its length.
pub(super) fn stamp(bytes: &mut [u8], seed: Seed) -> (Option<Record<'_>>, usize) {
    let head = Head::read(bytes);
    let record = &mut bytes[..head.length];
    let checksum = seed.checksum(record);
    record[CRC_AT..LENGTH_AT].copy_from_slice(&checksum.to_le_bytes());
    (interpret(head, record), head.length)
}

/// The entry that damaged bytes seem to hold. Their checksum is wrong, so this is a hint for people only.
pub(super) fn claimed_entry(bytes: &[u8]) -> Option<(ShardId, EntryId)> {
    if bytes.len() < HEADER_BYTES {
        return None;
    }
    let head = Head::read(bytes);
    (head.is_entry() && head.id.index.0 > 0).then_some((head.shard, head.id))
}

impl<'a> Record<'a> {
    /// The bytes that it takes in the log.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let body = match *self {
            Record::Entry { body, .. } | Record::Copy { body, .. } => body.len(),
            Record::HardState { .. } | Record::Reset { .. } | Record::Copied { .. } => 8,
            Record::Restate { .. } => RESTATE_BODY_BYTES,
            Record::Seal(_) | Record::Continued { .. } => 16,
            Record::Watermark | Record::Reused => 0,
        };
        HEADER_BYTES + body
    }

    /// Appends the record to `out`, its checksum left open: it depends on the batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Record::Entry { shard, id, kind, body } => encode(ENTRY, kind as u8, shard, id, body, out),
            Record::HardState { shard, hard_state } => {
                let id = EntryId { index: Index(0), term: hard_state.term };
                encode(HARD_STATE, 0, shard, id, &vote_bytes(hard_state), out);
            }
            Record::Reset { shard, start, snapshot } => {
                encode(RESET, 0, shard, start, &snapshot.0.to_le_bytes(), out);
            }
            Record::Restate { shard, state } => encode(RESTATE, 0, shard, state.start, &restate_body(&state), out),
            Record::Watermark => encode(WATERMARK, 0, ShardId(0), EntryId::ZERO, &[], out),
            Record::Seal(seal) => {
                let id = EntryId::new(seal.cut, seal.sequence);
                encode(SEAL, 0, ShardId(0), id, &seal.segment.0.to_le_bytes(), out);
            }
            Record::Copy { shard, id, kind, body } => encode(COPY, kind as u8, shard, id, body, out),
            Record::Copied { shard, first, last } => {
                let id = EntryId { index: last, term: Term(0) };
                encode(COPIED, 0, shard, id, &first.0.to_le_bytes(), out);
            }
            Record::Reused => encode(REUSED, 0, ShardId(0), EntryId::ZERO, &[], out),
            Record::Continued { sequence, segment } => {
                let id = EntryId { index: Index(sequence), term: Term(0) };
                encode(CONTINUED, 0, ShardId(0), id, &segment.0.to_le_bytes(), out);
            }
        }
    }

    /// Reads the record that `bytes` begin with; returns its length too.
    pub fn decode(bytes: &'a [u8], seed: Seed) -> Result<(Record<'a>, usize), BadRecord> {
        if bytes.len() < HEADER_BYTES {
            return Err(BadRecord::Length);
        }
        let head = Head::read(bytes);
        if head.length < HEADER_BYTES || head.length > bytes.len() {
            return Err(BadRecord::Length);
        }
        let record = &bytes[..head.length];
        if seed.checksum(record) != u32_at(record, CRC_AT) && !mutant!("checksum-ignored") {
            return Err(BadRecord::Checksum);
        }
        Ok((interpret(head, record).ok_or(BadRecord::Unknown(head.kind))?, head.length))
    }
}

fn interpret(head: Head, record: &[u8]) -> Option<Record<'_>> {
    let Head { shard, id, .. } = head;
    let body = &record[HEADER_BYTES..];
    Some(match head.kind {
        ENTRY => Record::Entry { shard, id, kind: entry_kind(record[ENTRY_KIND_AT])?, body },
        HARD_STATE if body.len() == 8 => {
            Record::HardState { shard, hard_state: HardState { term: id.term, vote: vote(u64_at(body, 0)) } }
        }
        RESET if body.len() == 8 => Record::Reset { shard, start: id, snapshot: SnapshotId(u64_at(body, 0)) },
        RESTATE if body.len() == RESTATE_BODY_BYTES => {
            let state = ShardState {
                hard_state: HardState { term: Term(u64_at(body, 0)), vote: vote(u64_at(body, 8)) },
                start: id,
                last: EntryId::new(u64_at(body, 24), u64_at(body, 16)),
                snapshot: SnapshotId(u64_at(body, 32)),
            };
            Record::Restate { shard, state }
        }
        WATERMARK if body.is_empty() => Record::Watermark,
        SEAL if body.len() == 16 => {
            Record::Seal(Seal { segment: SegmentId(u128_at(body, 0)), sequence: id.term.0, cut: id.index.0 })
        }
        COPY => Record::Copy { shard, id, kind: entry_kind(record[ENTRY_KIND_AT])?, body },
        COPIED if body.len() == 8 => Record::Copied { shard, first: Index(u64_at(body, 0)), last: id.index },
        REUSED if body.is_empty() => Record::Reused,
        CONTINUED if body.len() == 16 => {
            Record::Continued { sequence: id.index.0, segment: SegmentId(u128_at(body, 0)) }
        }
        _ => return None,
    })
}

fn encode(kind: u8, entry_kind: u8, shard: ShardId, id: EntryId, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("an entry's body is limited to a few MiB");
    let mut header = [0; HEADER_BYTES];
    header[LENGTH_AT..KIND_AT].copy_from_slice(&length.to_le_bytes());
    header[KIND_AT] = kind;
    header[ENTRY_KIND_AT] = entry_kind;
    header[SHARD_AT..TERM_AT].copy_from_slice(&shard.0.to_le_bytes());
    header[TERM_AT..INDEX_AT].copy_from_slice(&id.term.0.to_le_bytes());
    header[INDEX_AT..].copy_from_slice(&id.index.0.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(body);
}

fn restate_body(state: &ShardState) -> [u8; RESTATE_BODY_BYTES] {
    let mut body = [0; RESTATE_BODY_BYTES];
    body[..8].copy_from_slice(&state.hard_state.term.0.to_le_bytes());
    body[8..16].copy_from_slice(&vote_bytes(state.hard_state));
    body[16..24].copy_from_slice(&state.last.term.0.to_le_bytes());
    body[24..32].copy_from_slice(&state.last.index.0.to_le_bytes());
    body[32..].copy_from_slice(&state.snapshot.0.to_le_bytes());
    body
}

fn vote_bytes(hard_state: HardState) -> [u8; 8] {
    hard_state.vote.map_or(0, |node| node.0).to_le_bytes()
}

fn vote(node: u64) -> Option<NodeId> {
    (node != 0).then_some(NodeId(node))
}

fn entry_kind(byte: u8) -> Option<EntryKind> {
    [EntryKind::Noop, EntryKind::Command, EntryKind::Configuration].into_iter().find(|kind| *kind as u8 == byte)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
