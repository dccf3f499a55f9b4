//! The ordered map of one shard, and the commands that change it.
//!
//! A [`StateMachine`] is fed the committed entries of its shard, each once and in order, and becomes the same on every
//! replica (Raft paper §2): it knows no clock, no randomness, no disk, no network, and not whether its node leads.
//! It owns keys, values and versions; the version of a key is the index of the entry that last wrote it. A hash of
//! all of it is kept up to date with every change, so that replicas can be compared at fixed indexes; what it was made of is
//! read again at each of them, as memory may change what nobody writes.
//!
//! **Invariants.**
//! - No committed entry may be able to panic [`StateMachine::apply`]: it would stop every replica, at every start.
//! - An entry applies as a whole or not at all. One that this version does not understand is an [`ApplyError`]: the
//!   node stops, as going on would make replicas differ.
//! - What an entry does depends on nothing but the entry and the state. Limits of size are checked before a command
//!   is proposed and never here, where nodes could be configured differently.
//! - Nothing borrows from an entry after `apply`: values are copied to allocations of their exact size, as a slice
//!   would keep the whole read buffer alive that the entry arrived in.
//!
//! Not here yet: sessions of clients. Their place in the format exists; no such command is proposed.

#![deny(clippy::iter_over_hash_type)]

pub mod command;
mod key;
mod range;
mod remains;
pub mod restore;
mod scrub;
pub mod snapshot;
pub mod state_hash;
mod stored;
mod together;
mod tree;

#[cfg(test)]
mod command_test;
#[cfg(test)]
mod key_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod remains_test;
#[cfg(test)]
mod restore_test;
#[cfg(test)]
mod scrub_test;
#[cfg(test)]
mod state_hash_test;
#[cfg(test)]
mod state_machine_test;
#[cfg(test)]
mod tree_test;

use std::fmt;

use raftkv_protocol::client::{Condition, Existed, Scan};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index};

pub use command::{describe, encode_batch, encode_delete, encode_put};
pub use remains::Remains;
pub use restore::{Restore, RestoreError};
pub use scrub::Corruption;
pub use snapshot::Snapshot;
pub use state_hash::{CHECKPOINTS_KEPT, Checkpoint, HASH_FORMAT};

use command::{Change, Command, Operation};
use range::ScanRange;
use scrub::Scrub;
use state_hash::{Contribution, StateHash};
use stored::Stored;
use tree::{Order, Tree};

/// What an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to report: a no-op or a configuration.
    Nothing,
    /// The key was written.
    Put,
    /// The key was removed, if it existed.
    Deleted {
        /// Whether it did.
        existed: bool,
    },
    /// All of several operations took place.
    Batch {
        /// Which of the deletes have found their key.
        existed: Existed,
    },
    /// The condition did not hold; nothing changed.
    ConditionFailed,
    /// The condition of one of several operations did not hold; nothing changed.
    BatchConditionFailed {
        /// The first such, counted from 0.
        operation: usize,
    },
}

/// A committed entry that this version cannot apply: the node stops, as going on would make replicas differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError(pub String);

/// The state of one shard.
#[derive(Default)]
pub struct StateMachine {
    map: Tree,
    applied: EntryId,
    hash: StateHash,
    scrub: Scrub,
    /// Of all keys and values.
    bytes: u64,
}

impl StateMachine {
    /// Applies the next committed entry. After an error nothing has changed.
    pub fn apply(&mut self, entry: &Entry) -> Result<Outcome, ApplyError> {
        if Some(entry.id.index.0) != self.applied.index.0.checked_add(1) {
            return Err(ApplyError(format!("entry {} cannot be applied after {}", entry.id, self.applied)));
        }
        let outcome = match entry.kind {
            EntryKind::Noop | EntryKind::Configuration => Outcome::Nothing,
            EntryKind::Command => self.execute(entry)?,
        };
        self.applied = entry.id;
        if self.hash.applied(entry.id.index) {
            self.scrub.checkpoint(&self.map, self.bytes, entry.id.index, self.hash.value());
        }
        Ok(outcome)
    }

    /// The last entry that was applied.
    #[must_use]
    pub fn applied(&self) -> Index {
        self.applied.index
    }

    /// The version and the value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<(Index, &[u8])> {
        self.map.get(key).map(|stored| (stored.version(), stored.value()))
    }

    /// Calls `item(key, version, value)` for the keys that `scan` wants of this shard (its cursor included), in its
    /// order, until `item` returns false. `scan.limit` and `scan.shard` are the caller's business.
    pub fn scan<'a>(&'a self, scan: &Scan<'_>, mut item: impl FnMut(&'a [u8], Index, &'a [u8]) -> bool) {
        let range = ScanRange::of(scan);
        let Some(bounds) = range.bounds() else { return };
        let order = if scan.reverse { Order::Falling } else { Order::Rising };
        for (key, stored) in self.map.range(bounds, order) {
            if !item(key.as_bytes(), stored.version(), stored.value()) {
                return;
            }
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.map.len() as u64
    }

    /// How many bytes the keys and values have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The rolling 128-bit hash of the state.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.hash.value()
    }

    /// The hashes at the latest indexes at which replicas compare theirs, oldest first.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = Checkpoint> + '_ {
        self.hash.checkpoints()
    }

    /// What has been found wrong with the memory that holds the state.
    #[must_use]
    pub fn corruption(&self) -> Option<&Corruption> {
        self.scrub.corruption()
    }

    /// The entry as of which, or after which, all of the state was last read and was what was put there.
    #[must_use]
    pub fn scrubbed(&self) -> Index {
        self.scrub.sound()
    }

    /// Whether the state has come to a checkpoint since it was last read, and is too large to be read while entries are applied.
    #[must_use]
    pub fn scrub_is_due(&self) -> bool {
        self.scrub.is_due()
    }

    /// The state as it is now, to be read by another thread: [`StateMachine::scrubbed_as_of`] takes in what it came to.
    pub fn begin_scrub(&mut self) -> Snapshot {
        self.scrub.set_due(false);
        self.snapshot()
    }

    /// All items were read as they were after an entry. They have the hash `found`, and should have `expected`.
    pub fn scrubbed_as_of(&mut self, at: Index, found: u128, expected: u128) {
        self.scrub.end(at, found, expected);
    }

    /// Has the state read however small it is, for simulations.
    pub fn want_scrub(&mut self) {
        self.scrub.set_due(true);
    }

    /// Changes a byte of a value as bad memory would, behind the hash's back: it comes to light when the state is read to see
    /// whether it still is what it was, or when a snapshot is taken. Whether there was one. For tests of how
    /// replicas find out that they differ.
    pub fn flip_byte(&mut self, key: &[u8]) -> bool {
        let Some((version, value)) = self.get(key) else { return false };
        let mut value = value.to_vec();
        let Some(first) = value.first_mut() else { return false };
        *first ^= 1;
        self.map.put(key, version, &value, |_| {});
        true
    }

    /// Gives a key another value than the log says, hash and all. Whether it was there.
    #[cfg(test)]
    pub(crate) fn misapply(&mut self, key: &[u8], value: &[u8]) -> bool {
        let version = self.get(key).map(|(version, _)| version);
        version.map(|version| self.put(key, version, value)).is_some()
    }

    /// The state as it is now. Takes constant time, however many keys there are.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.applied, self.hash.value(), self.hash.share_checkpoints(), self.map.clone())
    }

    fn execute(&mut self, entry: &Entry) -> Result<Outcome, ApplyError> {
        let command = Command::decode(&entry.body).map_err(|error| unknown(entry.id, &error))?;
        if command.session().is_some() {
            return Err(unknown(entry.id, &"sessions are unknown to this server"));
        }
        let count = command.operations().len();
        let version = if mutant!("version-is-the-term") { Index(entry.id.term.0) } else { entry.id.index };
        if let Some(operation) = command.operations().position(|operation| !self.holds(&operation)) {
            if mutant!("batch-applied-in-part") {
                self.change_all(command.operations().take(operation), version);
            }
            return Ok(if count > 1 { Outcome::BatchConditionFailed { operation } } else { Outcome::ConditionFailed });
        }
        let mut operations = command.operations();
        if count > 1 {
            return Ok(self.change_all(operations, version));
        }
        let operation = operations.next().expect("decode refuses a command without operations");
        Ok(self.change(&operation, version))
    }

    fn change_all<'a>(&mut self, operations: impl Iterator<Item = Operation<'a>>, version: Index) -> Outcome {
        let mut existed = Existed::default();
        for (number, operation) in operations.enumerate() {
            if self.change(&operation, version) == (Outcome::Deleted { existed: true }) {
                existed.insert(number);
            }
        }
        Outcome::Batch { existed }
    }

    fn holds(&self, operation: &Operation<'_>) -> bool {
        match operation.condition {
            Condition::None => true,
            Condition::Version(version) => self.get(operation.key).is_some_and(|(current, _)| {
                current == version || (mutant!("later-version-matches") && current > version)
            }),
            Condition::Exists => self.map.get(operation.key).is_some(),
            Condition::Absent => self.map.get(operation.key).is_none(),
        }
    }

    fn change(&mut self, operation: &Operation<'_>, version: Index) -> Outcome {
        let key = operation.key;
        match operation.change {
            Change::Put(value) => {
                self.put(key, version, value);
                Outcome::Put
            }
            Change::Delete => {
                let old = self.map.remove(key);
                Outcome::Deleted { existed: self.forget(key, old) || mutant!("delete-always-finds") }
            }
        }
    }

    /// The hash has just read the old value, so its cache lines are at hand for the new one.
    fn put(&mut self, key: &[u8], version: Index, value: &[u8]) {
        let new = Contribution::of(key, version, value);
        self.hash.add(new);
        self.bytes += size(key, value);
        self.map.put(key, version, value, |old| {
            let gone = Contribution::of(key, old.version(), old.value());
            self.hash.remove(gone);
            self.bytes -= size(key, old.value());
        });
    }

    /// Takes what a key held out of the hash and the count. Returns whether it held anything.
    fn forget(&mut self, key: &[u8], old: Option<Stored>) -> bool {
        let Some(old) = old else { return false };
        let gone = Contribution::of(key, old.version(), old.value());
        self.hash.remove(gone);
        self.bytes -= size(key, old.value());
        true
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64
}

fn unknown(id: EntryId, why: &dyn fmt::Display) -> ApplyError {
    ApplyError(format!("committed entry {id} cannot be applied: {why}; start a server that knows it"))
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys();
        write!(f, "StateMachine {{ applied: {}, keys: {keys}, hash: {:032x} }}", self.applied, self.hash())
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ApplyError {}
