//! The state of a shard at one point in time, to be read by another thread while the shard goes on.

use std::ops::Bound;

use raftkv_protocol::types::{EntryId, Index};

use super::Checkpoint;
use super::state_hash::Latest;
use super::together::Together;
use super::tree::{Order, Tree};

/// A state as it was. It shares what has not changed since with the state machine it comes from.
#[derive(Clone)]
pub struct Snapshot {
    at: EntryId,
    hash: u128,
    checkpoints: Latest,
    map: Tree,
}

impl Snapshot {
    pub(super) fn new(at: EntryId, hash: u128, checkpoints: Latest, map: Tree) -> Snapshot {
        Snapshot { at, hash, checkpoints, map }
    }

    /// The last entry in it.
    #[must_use]
    pub fn at(&self) -> EntryId {
        self.at
    }

    /// The hash of the state.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The hashes at the latest indexes at which replicas compare theirs, oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// How many keys it holds.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.map.len() as u64
    }

    /// Its map, which is all of it that takes long to let go of.
    pub(super) fn into_map(self) -> Tree {
        self.map
    }

    /// Every key with its version and value, in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Index, &[u8])> {
        Together::of(self.map.iter()).map(|(key, stored)| (key.as_bytes(), stored.version(), stored.value()))
    }

    /// The same for the keys behind this one, if there is one, for whoever reads it in several goes.
    pub fn iter_after(&self, key: Option<&[u8]>) -> impl Iterator<Item = (&[u8], Index, &[u8])> {
        let range = self.map.range((key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded), Order::Rising);
        Together::of(range).map(|(key, stored)| (key.as_bytes(), stored.version(), stored.value()))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot {{ at: {}, keys: {}, hash: {:032x} }}", self.at, self.keys(), self.hash)
    }
}
