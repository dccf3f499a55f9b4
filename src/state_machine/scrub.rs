//! The state is read again, though nobody asks for it, as disks are scrubbed.
//!
//! The running hash of a state knows what was put there, and reads a value only when it is overwritten: what memory does to
//! a key that rests would stay unseen. So at every checkpoint some of the items are read, in the order of their keys, and
//! hashed anew. When all of them were, what they come to must be the running hash. A small state is read as a whole at each
//! checkpoint, a large one in slices: then what is written to the part that was read already is added to its sum as it is to
//! the running hash.
//!
//! So a byte that has changed is found at the next checkpoint of a small state. In a large one it is found when the items
//! that are under way, and then all, were read: after at most twice as many checkpoints as the state has slices, and one.
//!
//! Replicas need not be equally far: each looks after its own memory.

use std::hint::black_box;
use std::ops::Bound;

use arrayvec::ArrayVec;
use raftkv_protocol::types::Index;

use super::state_hash::{Contribution, ItemsHash};
use super::stored::Stored;
use super::tree::{Order, Tree};

/// A state of no more than this is read as a whole.
const SMALL: Share = Share { keys: 4_096, bytes: 1 << 20 };
/// How much of a larger one is read at a checkpoint: no more keys, and no more bytes but for the last of the items.
const SLICE: Share = Share { keys: 512, bytes: 1 << 20 };
const ALL: Share = Share { keys: u64::MAX, bytes: u64::MAX };
/// Values lie anywhere in memory. So many are fetched together before they are hashed, or each would be waited for.
const TOGETHER: usize = 16;

/// A number of keys, and of bytes of keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

/// Something of either end of a value, so that it is fetched.
fn touch(stored: &Stored) -> u64 {
    stored.version().0 ^ stored.value().last().copied().map_or(0, u64::from)
}

/// Memory does not hold what was put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// It did as of this entry, or later.
    pub sound: Index,
    /// The last entry before it was found.
    pub at: Index,
    /// The hash of what is there.
    pub found: u128,
    /// The hash of what was put there.
    pub expected: u128,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrub {
    /// The keys up to this one were read in this pass.
    upto: Option<Box<[u8]>>,
    /// Of the items up to there, as they are now.
    hash: ItemsHash,
    /// The last entry before this pass began.
    begun: Index,
    /// The same of the last pass that found nothing wrong.
    sound: Index,
    corruption: Option<Corruption>,
}

impl Scrub {
    /// Of a state that was just found to be what it should be.
    pub(super) fn since(sound: Index) -> Scrub {
        Scrub { sound, ..Scrub::default() }
    }

    pub(super) fn corruption(&self) -> Option<&Corruption> {
        self.corruption.as_ref()
    }

    pub(super) fn sound(&self) -> Index {
        self.sound
    }

    /// An item is there now.
    pub(super) fn put(&mut self, key: &[u8], item: Contribution) {
        if self.has_read(key) {
            self.hash.put(item);
        }
    }

    /// An item is there no longer.
    pub(super) fn removed(&mut self, key: &[u8], item: Contribution) {
        if self.has_read(key) {
            self.hash.remove(item);
        }
    }

    fn has_read(&self, key: &[u8]) -> bool {
        self.upto.as_deref().is_some_and(|upto| key <= upto)
    }

    /// Reads a checkpoint's share of the state as it is after an entry. `bytes` are those of all keys and values, `expected`
    /// is the running hash.
    pub(super) fn go_on(&mut self, map: &Tree, bytes: u64, at: Index, expected: u128) {
        let is_small = map.len() as u64 <= SMALL.keys && bytes <= SMALL.bytes;
        if is_small {
            self.upto = None;
        }
        self.read(map, if is_small { ALL } else { SLICE }, at, expected);
    }

    /// Reads so many of the next items.
    pub(super) fn read(&mut self, map: &Tree, mut share: Share, at: Index, expected: u128) {
        let before = self.upto.take();
        if before.is_none() {
            (self.hash, self.begun) = (ItemsHash::default(), at);
        }
        let from = before.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut items = map.range((from, Bound::Unbounded), Order::Rising).peekable();
        while items.peek().is_some() {
            let group: ArrayVec<_, TOGETHER> = items.by_ref().take(TOGETHER).collect();
            black_box(group.iter().fold(0, |sum, (_, stored)| sum ^ touch(stored)));
            for (key, stored) in group {
                if self.upto.is_some() {
                    // There is more than this share.
                    return;
                }
                let (key, value) = (key.as_bytes(), stored.value());
                self.hash.add(key, stored.version(), value);
                share.keys -= 1;
                share.bytes = share.bytes.saturating_sub(key.len() as u64 + value.len() as u64);
                if share.keys == 0 || share.bytes == 0 {
                    self.upto = Some(key.into());
                }
            }
        }
        self.end(at, expected);
    }

    /// All items were read.
    fn end(&mut self, at: Index, expected: u128) {
        self.upto = None;
        let found = self.hash.value();
        if found == expected {
            self.sound = self.begun;
        } else if self.corruption.is_none() {
            self.corruption = Some(Corruption { sound: self.sound, at, found, expected });
        }
    }
}
