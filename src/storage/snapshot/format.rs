//! The bytes of a snapshot file. Integers are little-endian, checksums CRC-32 (IEEE).
//!
//! A file is a header, blocks of items, and a footer, with nothing before, between and behind. Every byte is covered by a
//! checksum, or is one; what each checksum begins with says where its bytes belong, so that no block can stand in
//! another's place or come from another snapshot.
//!
//! Header; its first 20 bytes mean the same in every version:
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic "RKVSNAP\n"
//!      8      4  format version, 1
//!     12      4  length of the header
//!     16      4  CRC-32 over all other bytes of the header
//!     20      8  id of the snapshot, drawn at random; never 0
//!     28      2  shard
//!     30      2  F, the bytes of the name of the state hash's format
//!     32      8  index of the last entry in the snapshot
//!     40      8  term of that entry
//!     48      4  C, the bytes of the configuration
//!     52      F  name of the state hash's format
//!   52+F      C  configuration: the voters as of that entry
//! ```
//!
//! Block:
//!
//! ```text
//! offset  bytes  field
//!      0      4  CRC-32 over the snapshot's id (8), the block's number (8), then everything that follows in the block
//!      4      4  kind: 1 items, 2 footer
//!      8      4  P, the bytes of the payload; at most 64 KiB unless the block holds a single longer item
//!     12      P  payload
//! ```
//!
//! The first block has number 1. Its payload is items, one behind the other, whose keys rise from byte to byte through
//! the whole file:
//!
//! ```text
//! offset  bytes  field
//!      0      4  K, the bytes of the key
//!      4      4  V, the bytes of the value
//!      8      8  version
//!     16      K  key
//!   16+K      V  value
//! ```
//!
//! The footer is the last block. Only a whole file has one:
//!
//! ```text
//! offset  bytes  field
//!      0      8  number of items
//!      8      8  bytes of all keys and values
//!     16     16  state hash
//!     32      4  N, the number of checkpoints
//!     36  24 N   each checkpoint: its index (8) and the state hash right after the entry there (16), oldest first
//!   then      8  mark "RKVDONE\n"
//! ```
//!
//! The name of a file says what it is. `snapshot-<index>-<term>.snap`, 16 hex digits each, is whole and durable.
//! `writing-….snap` is being written. A start removes it, or makes it a `spare-….snap`: room for the next one, where the disk
//! has no other. `receiving-<id>.snap` comes from a peer, and may go on coming after a start. `damaged-….snap` was found not
//! to hold what was written.

use raftkv_protocol::types::{EntryId, Index, ShardId, SnapshotId};

use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::storage::record::{u32_at, u64_at, u128_at};

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const LENGTH_AT: usize = VERSION_AT + 4;
const CRC_AT: usize = LENGTH_AT + 4;
/// The bytes of a header that mean the same in every version.
pub(super) const PREFIX_BYTES: usize = CRC_AT + 4;
const ID_AT: usize = PREFIX_BYTES;
const SHARD_AT: usize = ID_AT + 8;
const HASH_FORMAT_BYTES_AT: usize = SHARD_AT + 2;
const INDEX_AT: usize = HASH_FORMAT_BYTES_AT + 2;
const TERM_AT: usize = INDEX_AT + 8;
const CONFIGURATION_BYTES_AT: usize = TERM_AT + 8;
const HASH_FORMAT_AT: usize = CONFIGURATION_BYTES_AT + 4;

const MAGIC: &[u8; 8] = b"RKVSNAP\n";
/// The format that is written here.
pub const VERSION: u32 = 1;
/// The longest header: a longer one is not believed.
const HEADER_BYTES_MAX: usize = 1 << 20;

const BLOCK_KIND_AT: usize = 4;
const BLOCK_PAYLOAD_AT: usize = BLOCK_KIND_AT + 4;
/// The bytes of a block before its payload.
pub(super) const BLOCK_HEADER_BYTES: usize = BLOCK_PAYLOAD_AT + 4;
/// A block gets no further item beyond so many bytes of payload.
pub(super) const PAYLOAD_BYTES: usize = 64 << 10;
/// The longest payload: a longer one is neither written nor believed.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

const ITEM_VALUE_BYTES_AT: usize = 4;
const ITEM_VERSION_AT: usize = ITEM_VALUE_BYTES_AT + 4;
/// The bytes of an item before its key.
pub(super) const ITEM_HEADER_BYTES: usize = ITEM_VERSION_AT + 8;

const FOOTER_BYTES_AT: usize = 8;
const FOOTER_HASH_AT: usize = FOOTER_BYTES_AT + 8;
const CHECKPOINTS_AT: usize = FOOTER_HASH_AT + 16;
const CHECKPOINT_BYTES: usize = 8 + 16;
const MARK: &[u8; 8] = b"RKVDONE\n";

const _: () = assert!(PAYLOAD_BYTES <= PAYLOAD_BYTES_MAX && PAYLOAD_BYTES_MAX <= u32::MAX as usize);
// Whatever a node may be configured to take fits into a block.
const _: () = assert!(ITEM_HEADER_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// How long a file becomes, and which of its items begin a block: for whoever writes it, and whoever wants to know before.
#[derive(Debug)]
pub struct FileLength {
    bytes: u64,
    /// The bytes of the payload of the block that gets the next item, if one has begun.
    payload: Option<usize>,
}

impl FileLength {
    /// Of a file whose header names this format of the state hash and these voters.
    #[must_use]
    pub fn new(hash_format: &[u8], configuration: &[u8]) -> FileLength {
        let header = HASH_FORMAT_AT + hash_format.len() + configuration.len();
        FileLength { bytes: header as u64, payload: None }
    }

    /// With one item more, the next in the order of the file. Whether that begins a block.
    pub fn push(&mut self, item: &Item<'_>) -> bool {
        let bytes = item.encoded_bytes();
        let begun = self.payload.filter(|payload| payload + bytes <= PAYLOAD_BYTES);
        if begun.is_none() {
            self.bytes += BLOCK_HEADER_BYTES as u64;
        }
        self.bytes += bytes as u64;
        self.payload = Some(begun.unwrap_or(0) + bytes);
        begun.is_none()
    }

    /// With so many checkpoints in its footer.
    #[must_use]
    pub fn finish(self, checkpoints: usize) -> u64 {
        let footer = CHECKPOINTS_AT + 4 + checkpoints * CHECKPOINT_BYTES + MARK.len();
        self.bytes + (BLOCK_HEADER_BYTES + footer) as u64
    }
}

/// What a file says before its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The snapshot's name.
    pub id: SnapshotId,
    /// Whose state it is.
    pub shard: ShardId,
    /// The last entry in it.
    pub at: EntryId,
    /// The name of the format of the state hash, as the state machine calls it.
    pub hash_format: Vec<u8>,
    /// The voters as of `at`, as whoever took the snapshot encoded them.
    pub configuration: Vec<u8>,
}

/// What a file says behind its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// How many items it has.
    pub items: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
    /// The hash of the state.
    pub hash: u128,
    /// The hashes right after earlier entries, oldest first.
    pub checkpoints: Vec<(Index, u128)>,
}

/// A key with its version and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The index of the entry that wrote it.
    pub version: Index,
    /// The value.
    pub value: &'a [u8],
}

/// Why bytes are not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadSnapshot {
    /// They are not what was written.
    Damaged {
        /// Where, in the file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A later version of the software wrote them.
    Newer(u32),
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    Items = 1,
    Footer = 2,
}

/// The first bytes of a header that is all there or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    version: u32,
    pub(super) length: usize,
    checksum: u32,
}

impl Prefix {
    /// Reads what every header begins with.
    pub(super) fn decode(bytes: &[u8; PREFIX_BYTES]) -> Result<Prefix, BadSnapshot> {
        if &bytes[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err(damaged_header("it does not begin like a snapshot"));
        }
        let length = u32_at(bytes, LENGTH_AT) as usize;
        if !(PREFIX_BYTES..=HEADER_BYTES_MAX).contains(&length) {
            return Err(damaged_header("the length of the header makes no sense"));
        }
        Ok(Prefix { version: u32_at(bytes, VERSION_AT), length, checksum: u32_at(bytes, CRC_AT) })
    }
}

fn damaged_header(what: &'static str) -> BadSnapshot {
    BadSnapshot::Damaged { offset: 0, what }
}

impl Header {
    /// The header's bytes, unless they would be too many.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let hash_format = u16::try_from(self.hash_format.len()).ok()?;
        let length = HASH_FORMAT_AT + self.hash_format.len() + self.configuration.len();
        if length > HEADER_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.shard.0.to_le_bytes());
        bytes.extend_from_slice(&hash_format.to_le_bytes());
        bytes.extend_from_slice(&self.at.index.0.to_le_bytes());
        bytes.extend_from_slice(&self.at.term.0.to_le_bytes());
        bytes.extend_from_slice(&(self.configuration.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.hash_format);
        bytes.extend_from_slice(&self.configuration);
        let checksum = header_checksum(&bytes);
        bytes[CRC_AT..PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Some(bytes)
    }

    /// Reads a header, whose bytes these are from the first to the last.
    pub(super) fn decode(prefix: &Prefix, bytes: &[u8]) -> Result<Header, BadSnapshot> {
        if header_checksum(bytes) != prefix.checksum {
            return Err(damaged_header("the checksum of the header does not match"));
        }
        if prefix.version != VERSION {
            return Err(BadSnapshot::Newer(prefix.version));
        }
        let malformed = damaged_header("the parts of the header do not make up the whole");
        if bytes.len() < HASH_FORMAT_AT {
            return Err(malformed);
        }
        let word = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (hash_format, configuration) =
            bytes[HASH_FORMAT_AT..].split_at_checked(usize::from(word(HASH_FORMAT_BYTES_AT))).ok_or(malformed)?;
        let id = SnapshotId(u64_at(bytes, ID_AT));
        if configuration.len() != u32_at(bytes, CONFIGURATION_BYTES_AT) as usize || id.0 == 0 {
            return Err(malformed);
        }
        Ok(Header {
            id,
            shard: ShardId(word(SHARD_AT)),
            at: EntryId::new(u64_at(bytes, INDEX_AT), u64_at(bytes, TERM_AT)),
            hash_format: hash_format.to_vec(),
            configuration: configuration.to_vec(),
        })
    }
}

fn header_checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[PREFIX_BYTES..]);
    hasher.finalize()
}

/// Begins a block at the end of `out`; [`end_block`] fills in its header.
pub(super) fn begin_block(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; BLOCK_HEADER_BYTES]);
}

/// Ends the block that `block` is, from the first byte to the last.
pub(super) fn end_block(block: &mut [u8], id: SnapshotId, number: u64, kind: BlockKind) {
    let payload = (block.len() - BLOCK_HEADER_BYTES) as u32;
    block[BLOCK_KIND_AT..BLOCK_PAYLOAD_AT].copy_from_slice(&(kind as u32).to_le_bytes());
    block[BLOCK_PAYLOAD_AT..BLOCK_HEADER_BYTES].copy_from_slice(&payload.to_le_bytes());
    let checksum = block_checksum(block, id, number);
    block[..BLOCK_KIND_AT].copy_from_slice(&checksum.to_le_bytes());
}

/// How long the block is that `bytes` begin with; nothing if they are too few to say.
pub(super) fn block_length(bytes: &[u8]) -> Option<usize> {
    (bytes.len() >= BLOCK_HEADER_BYTES).then(|| BLOCK_HEADER_BYTES + u32_at(bytes, BLOCK_PAYLOAD_AT) as usize)
}

/// What a whole block holds, or what is wrong with it.
pub(super) fn check_block(block: &[u8], id: SnapshotId, number: u64) -> Result<BlockKind, &'static str> {
    if block_checksum(block, id, number) != u32_at(block, 0) {
        return Err("the checksum of a block does not match");
    }
    let kind = u32_at(block, BLOCK_KIND_AT);
    let known = [BlockKind::Items, BlockKind::Footer].into_iter().find(|known| *known as u32 == kind);
    known.ok_or("a block is of an unknown kind")
}

fn block_checksum(block: &[u8], id: SnapshotId, number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.0.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&block[BLOCK_KIND_AT..]);
    hasher.finalize()
}

impl<'a> Item<'a> {
    /// The bytes that it takes in a payload.
    pub(super) fn encoded_bytes(&self) -> usize {
        ITEM_HEADER_BYTES + self.key.len() + self.value.len()
    }

    /// Appends the item, which fits into a block.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.value.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.version.0.to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }

    /// The item that `bytes` begin with, and what follows it.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<(Item<'a>, &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(ITEM_HEADER_BYTES)?;
        let (key, rest) = rest.split_at_checked(u32_at(head, 0) as usize)?;
        let (value, rest) = rest.split_at_checked(u32_at(head, ITEM_VALUE_BYTES_AT) as usize)?;
        Some((Item { key, version: Index(u64_at(head, ITEM_VERSION_AT)), value }, rest))
    }
}

impl Footer {
    /// Appends the footer's payload.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.items.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&(self.checkpoints.len() as u32).to_le_bytes());
        for (index, hash) in &self.checkpoints {
            out.extend_from_slice(&index.0.to_le_bytes());
            out.extend_from_slice(&hash.to_le_bytes());
        }
        out.extend_from_slice(MARK);
    }

    /// Reads the payload of a footer.
    pub(super) fn decode(payload: &[u8]) -> Option<Footer> {
        let (head, rest) = payload.split_at_checked(CHECKPOINTS_AT + 4)?;
        let checkpoints = rest.strip_suffix(MARK)?;
        let count = u32_at(head, CHECKPOINTS_AT) as usize;
        if checkpoints.len() != count.checked_mul(CHECKPOINT_BYTES)? {
            return None;
        }
        let checkpoint = |bytes: &[u8]| (Index(u64_at(bytes, 0)), u128_at(bytes, 8));
        Some(Footer {
            items: u64_at(head, 0),
            bytes: u64_at(head, FOOTER_BYTES_AT),
            hash: u128_at(head, FOOTER_HASH_AT),
            checkpoints: checkpoints.chunks_exact(CHECKPOINT_BYTES).map(checkpoint).collect(),
        })
    }
}

/// What a file in a shard's directory of snapshots is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// Whole and durable, the state as of this entry.
    Snapshot(EntryId),
    /// Being written.
    Writing,
    /// Room for one, and no more.
    Spare,
    /// Coming from a peer.
    Receiving(SnapshotId),
    /// Not what was written.
    Damaged,
}

impl FileState {
    /// What the name says; `None` for a file of somebody else.
    pub(super) fn of(name: &str) -> Option<FileState> {
        let stem = name.strip_suffix(".snap")?;
        if stem.starts_with("writing-") {
            return Some(FileState::Writing);
        }
        if stem.starts_with("spare-") {
            return Some(FileState::Spare);
        }
        if stem.starts_with("damaged-") {
            return Some(FileState::Damaged);
        }
        if let Some(id) = stem.strip_prefix("receiving-") {
            return Some(FileState::Receiving(SnapshotId(number(id)?)));
        }
        let (index, term) = stem.strip_prefix("snapshot-")?.split_once('-')?;
        Some(FileState::Snapshot(EntryId::new(number(index)?, number(term)?)))
    }
}

fn number(digits: &str) -> Option<u64> {
    let is_number = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// The name of the snapshot as of this entry.
#[must_use]
pub fn snapshot_name(at: EntryId) -> String {
    format!("snapshot-{:016x}-{:016x}.snap", at.index.0, at.term.0)
}

/// The name of a snapshot that is being written.
pub(super) fn writing_name(id: SnapshotId) -> String {
    format!("writing-{id}.snap")
}

/// The name of a file that is kept for the next snapshot to be written into.
pub(super) fn spare_name(id: SnapshotId) -> String {
    format!("spare-{id}.snap")
}

/// The name of a snapshot that comes from a peer.
pub(super) fn receiving_name(id: SnapshotId) -> String {
    format!("receiving-{id}.snap")
}

/// The name of a snapshot that was found damaged.
pub(super) fn damaged_name(at: EntryId) -> String {
    format!("damaged-{:016x}-{:016x}.snap", at.index.0, at.term.0)
}
