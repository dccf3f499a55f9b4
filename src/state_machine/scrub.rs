//! The state is read again, though nobody asks for it, as disks are scrubbed.
//!
//! The running hash of a state knows what was put there, and reads a value only when it is overwritten: what memory does to
//! a key that rests would stay unseen. So at every checkpoint all items are read and hashed anew; what they come to must be
//! the running hash. A small state is read right there. A large one would hold up whoever applies: it is *due* from
//! then on, a snapshot of it is handed out, which takes no time, and whoever reads that tells what it came to.
//!
//! Replicas need not be equally far: each looks after its own memory.

use raftkv_protocol::types::Index;

use super::state_hash::ItemsHash;
use super::together::Together;
use super::tree::Tree;

/// A state of no more keys, and no more bytes of keys and values, is small.
const SMALL_KEYS: usize = 4_096;
const SMALL_BYTES: u64 = 1 << 20;

/// Memory does not hold what was put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// It did as of this entry, or later.
    pub sound: Index,
    /// The last entry before it was read.
    pub at: Index,
    /// The hash of what is there.
    pub found: u128,
    /// The hash of what was put there.
    pub expected: u128,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrub {
    /// The last entry before all was last read and nothing was wrong.
    sound: Index,
    corruption: Option<Corruption>,
    is_due: bool,
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

    /// Whether a snapshot is to be read that is taken from now on.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    pub(super) fn set_due(&mut self, is_due: bool) {
        self.is_due = is_due;
    }

    /// The state has come to a checkpoint. `bytes` are those of all keys and values, `expected` is the running hash.
    pub(super) fn checkpoint(&mut self, map: &Tree, bytes: u64, at: Index, expected: u128) {
        self.is_due = map.len() > SMALL_KEYS || bytes > SMALL_BYTES;
        if self.is_due {
            return;
        }
        let mut hash = ItemsHash::default();
        for (key, stored) in Together::of(map.iter()) {
            hash.add(key.as_bytes(), stored.version(), stored.value());
        }
        self.end(at, hash.value(), expected);
    }

    /// All items were read as they were after the entry `at`.
    pub(super) fn end(&mut self, at: Index, found: u128, expected: u128) {
        if found == expected {
            self.sound = self.sound.max(at);
        } else if self.corruption.is_none() {
            self.corruption = Some(Corruption { sound: self.sound, at, found, expected });
        }
    }
}
