//! The ordered map of one shard, and the commands that change it.

use bytes::Bytes;
use raftkv_protocol::client::{Condition, Scan};
use raftkv_protocol::types::{Entry, Index};

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
    /// The condition did not hold; nothing changed.
    ConditionFailed,
}

/// A committed entry that this version cannot apply: the node stops, as going on would make replicas differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError(pub String);

/// The state of one shard.
#[derive(Debug, Default)]
pub struct StateMachine {}

#[expect(unused_variables, missing_docs, reason = "signatures only")]
impl StateMachine {
    /// Applies the next committed entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<Outcome, ApplyError> {
        unimplemented!()
    }
    pub fn applied(&self) -> Index {
        unimplemented!()
    }
    pub fn get(&self, key: &[u8]) -> Option<(Index, &[u8])> {
        unimplemented!()
    }
    /// Calls `item(key, version, value)` for the keys that `scan` wants of this shard (its cursor included), in its
    /// order, until `item` returns false. `scan.limit` and `scan.shard` are the caller's business.
    pub fn scan(&self, scan: &Scan<'_>, item: impl FnMut(&[u8], Index, &[u8]) -> bool) {
        unimplemented!()
    }
    pub fn keys(&self) -> u64 {
        unimplemented!()
    }
    /// The rolling 128-bit hash of the state.
    pub fn hash(&self) -> u128 {
        unimplemented!()
    }
}

/// Appends the command of a put to `out` (rule: one client request is one entry).
pub fn encode_put(key: &[u8], value: &[u8], condition: Condition, out: &mut Vec<u8>) {
    let _ = (key, value, condition, out);
    unimplemented!()
}

/// Appends the command of a delete to `out`.
pub fn encode_delete(key: &[u8], condition: Condition, out: &mut Vec<u8>) {
    let _ = (key, condition, out);
    unimplemented!()
}

/// Reads a command back for people: `put "k" (128 bytes)`.
#[must_use]
pub fn describe(body: &Bytes) -> String {
    let _ = body;
    unimplemented!()
}
