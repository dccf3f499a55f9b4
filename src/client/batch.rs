//! Batches: what a caller puts together, and what comes of it.

use raftkv_protocol::client::{self as wire, BatchBuffer, BatchOperation, Change, Existed};

use super::{Condition, Version};

/// Puts and deletes of several keys that take effect together, or not at all ([`Client::batch`](super::Client::batch)).
///
/// The keys must lie in one shard. Those with the same tag do: `{cart:7}:items` and `{cart:7}:total`.
///
/// ```
/// use raftkv::client::{Batch, Condition};
///
/// let batch = Batch::new()
///     .put("{cart:7}:items", "3")
///     .put_if("{cart:7}:total", "41.50", Condition::Absent)
///     .delete("{cart:7}:coupon");
/// assert_eq!(batch.len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a batch does nothing until a client sends it"]
pub struct Batch {
    operations: BatchBuffer,
    /// The first key that no frame can carry.
    too_long: Option<usize>,
}

/// A batch that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batched {
    /// The version of all keys that it has put.
    pub version: Version,
    /// Of each operation in order: whether it is a delete and its key existed.
    pub deleted: Vec<bool>,
}

impl Batch {
    /// A batch without operations, which no server takes yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Writes a key.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Batch {
        self.put_if(key, value, Condition::None)
    }

    /// Writes a key; if `condition` does not hold when the batch is applied, nothing of the batch is done.
    pub fn put_if(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, condition: Condition) -> Batch {
        self.push(&BatchOperation { key: key.as_ref(), condition, change: Change::Put(value.as_ref()) })
    }

    /// Removes a key.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Batch {
        self.delete_if(key, Condition::None)
    }

    /// Removes a key; if `condition` does not hold when the batch is applied, nothing of the batch is done.
    pub fn delete_if(self, key: impl AsRef<[u8]>, condition: Condition) -> Batch {
        self.push(&BatchOperation { key: key.as_ref(), condition, change: Change::Delete })
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.as_batch().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(mut self, operation: &BatchOperation<'_>) -> Batch {
        if let Err(too_long) = self.operations.push(operation) {
            self.too_long.get_or_insert(too_long.0);
        }
        self
    }

    pub(super) fn as_wire(&self) -> wire::Batch<'_> {
        self.operations.as_batch()
    }

    /// The length of the first key that no frame can carry.
    pub(super) fn too_long(&self) -> Option<usize> {
        self.too_long
    }

    /// A key of the shard that the batch is for.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.as_wire().operations().next().map(|operation| operation.key)
    }

    pub(super) fn applied(&self, version: Version, existed: Existed) -> Batched {
        Batched { version, deleted: (0..self.len()).map(|operation| existed.contains(operation)).collect() }
    }
}
