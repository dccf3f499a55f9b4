//! A hash of a shard's whole state that is kept up to date with every change, so that replicas can be compared.
//!
//! Each key contributes the XXH3-128 (seed 0) of
//!
//! ```text
//! offset  size  field
//!      0     1  what it is: 1 = a key and its value
//!      1     4  length of the key, little-endian
//!      5        the key
//!   then        the value
//!   then     8  the version, little-endian
//! ```
//!
//! and the state's hash is the sum of the contributions modulo 2^128, which no order of changes can influence, plus
//! the XXH3-128 of the name of this format. Replicas of different software compare their hashes: this never changes
//! without another name.

use arrayvec::ArrayVec;
use raftkv_protocol::types::Index;
use triomphe::Arc;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// The name of the format of the hash.
pub const FORMAT: &[u8] = b"raftkv state 1";
/// The number in that name: hashes of another format say nothing.
pub const HASH_FORMAT: u16 = 1;
const TAG_KEY: u8 = 1;
/// The bytes of an item besides its key and value.
const ITEM_BYTES: usize = 5 + 8;
/// An item of no more bytes is hashed in one piece: up to here XXH3 has a way for short inputs, and to copy them costs less
/// than to hash them in pieces.
const SHORT_BYTES: usize = 240;

/// At which indexes replicas compare their hashes: the multiples of this.
pub const CHECKPOINT_INTERVAL: u64 = 1_024;
/// How many of the latest checkpoints are remembered: more than any shard reaches between two exchanges.
pub const CHECKPOINTS_KEPT: usize = 64;

/// The state's hash right after the entry at an index was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// A multiple of [`CHECKPOINT_INTERVAL`].
    pub index: Index,
    /// The hash there.
    pub hash: u128,
}

/// The latest checkpoints, oldest first, as snapshots share them.
pub(super) type Latest = Arc<ArrayVec<Checkpoint, CHECKPOINTS_KEPT>>;

/// The latest checkpoints. Whoever takes a snapshot shares them, as it shares the map: to make a list of its own it would
/// have to ask the allocator for a piece of an unusual size, and that may take the time to put all in order that was freed since
/// the last time, which is more than a millisecond.
#[derive(Clone, Debug)]
struct Checkpoints {
    latest: Latest,
    /// Where they go on while a snapshot has the others.
    other: Latest,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints { latest: Arc::new(ArrayVec::new()), other: Arc::new(ArrayVec::new()) }
    }
}

impl Checkpoints {
    /// Adds one that is later than the others.
    fn push(&mut self, checkpoint: Checkpoint) {
        if !self.latest.is_unique() {
            std::mem::swap(&mut self.latest, &mut self.other);
            match Arc::get_mut(&mut self.latest) {
                Some(latest) => latest.clone_from(&self.other),
                None => self.latest = Arc::new(ArrayVec::clone(&self.other)),
            }
        }
        let latest = Arc::make_mut(&mut self.latest);
        if latest.is_full() {
            latest.remove(0);
        }
        latest.push(checkpoint);
    }
}

/// The rolling hash and its latest checkpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct StateHash {
    items: ItemsHash,
    checkpoints: Checkpoints,
}

impl StateHash {
    pub(super) fn value(&self) -> u128 {
        self.items.value()
    }

    pub(super) fn add(&mut self, item: Contribution) {
        self.items.put(item);
    }

    pub(super) fn remove(&mut self, item: Contribution) {
        self.items.remove(item);
    }

    /// Remembers the hash if this is one of the indexes at which replicas compare. Whether it is.
    pub(super) fn applied(&mut self, index: Index) -> bool {
        let is_checkpoint = index.0.is_multiple_of(CHECKPOINT_INTERVAL);
        if is_checkpoint {
            self.remember(Checkpoint { index, hash: self.value() });
        }
        is_checkpoint
    }

    /// Adds a checkpoint that is later than the others.
    pub(super) fn remember(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.push(checkpoint);
    }

    pub(super) fn checkpoints(&self) -> impl DoubleEndedIterator<Item = Checkpoint> + '_ {
        self.checkpoints.latest.iter().copied()
    }

    /// They stay as they are now.
    pub(super) fn share_checkpoints(&self) -> Latest {
        Arc::clone(&self.checkpoints.latest)
    }
}

/// The hash of a state whose items are named one by one, for whoever keeps no state.
#[derive(Clone, Debug)]
pub struct ItemsHash(u128);

impl Default for ItemsHash {
    fn default() -> ItemsHash {
        ItemsHash(xxh3_128(FORMAT))
    }
}

impl ItemsHash {
    /// Adds an item; each is named once, in any order.
    pub fn add(&mut self, key: &[u8], version: Index, value: &[u8]) {
        self.put(Contribution::of(key, version, value));
    }

    pub(super) fn put(&mut self, item: Contribution) {
        self.0 = self.0.wrapping_add(item.0);
    }

    pub(super) fn remove(&mut self, item: Contribution) {
        self.0 = self.0.wrapping_sub(item.0);
    }

    /// The hash of the state that has these items and no others.
    #[must_use]
    pub fn value(&self) -> u128 {
        self.0
    }
}

/// What an item adds to the hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contribution(u128);

impl Contribution {
    pub(super) fn of(key: &[u8], version: Index, value: &[u8]) -> Contribution {
        let mut head = [TAG_KEY; 5];
        head[1..].copy_from_slice(&(key.len() as u32).to_le_bytes());
        let version = version.0.to_le_bytes();
        let parts = [&head[..], key, value, &version[..]];
        if key.len().saturating_add(value.len()) <= SHORT_BYTES - ITEM_BYTES {
            let mut bytes = ArrayVec::<u8, SHORT_BYTES>::new();
            for part in parts {
                bytes.try_extend_from_slice(part).expect("the sum of the lengths was compared with the room");
            }
            return Contribution(xxh3_128(&bytes));
        }
        let mut hasher = Xxh3Default::new();
        parts.into_iter().for_each(|part| hasher.update(part));
        Contribution(hasher.digest128())
    }
}
