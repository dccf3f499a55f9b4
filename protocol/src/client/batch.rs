//! Batches: puts and deletes of several keys of one shard that take effect together, or not at all.

use std::collections::BTreeSet;
use std::fmt;

use super::Condition;
use crate::frame::DecodeError;
use crate::types::{ShardId, Slot};
use crate::wire::{Reader, Writer};

/// The most operations of a batch that any server takes: [`Existed`] has a bit for each.
pub const BATCH_OPERATIONS_MAX: usize = 128;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
/// An operation: its kind, its condition, the length of its key.
const OPERATION_LEN_MIN: usize = 1 + 1 + 2;

/// One change of one key, if its condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOperation<'a> {
    /// 1 byte to the key limit. No other operation of the batch has the same.
    pub key: &'a [u8],
    /// Checked when the batch is applied, before anything of it has changed.
    pub condition: Condition,
    /// What happens to the key.
    pub change: Change<'a>,
}

/// What an operation does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It gets this value.
    Put(&'a [u8]),
    /// It is removed.
    Delete,
}

/// The operations of a batch as they lie in a frame. They have been read once, so that reading them cannot fail any
/// more; nothing is allocated for them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch<'a> {
    count: u32,
    operations: &'a [u8],
}

/// A batch under construction, which owns its bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BatchBuffer {
    count: u32,
    operations: Vec<u8>,
}

/// A key has more bytes than any frame can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTooLong(pub usize);

/// Which deletes of a batch have found their key: bit n, counted from the lowest, is that of operation n. The bits of puts
/// are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existed(pub u128);

impl Existed {
    /// Notes that the key of this operation, a delete, existed. No server takes more operations than have a bit.
    pub fn insert(&mut self, operation: usize) {
        if operation < BATCH_OPERATIONS_MAX {
            self.0 |= 1 << operation;
        }
    }

    /// Whether this operation is a delete whose key existed.
    #[must_use]
    pub fn contains(self, operation: usize) -> bool {
        operation < BATCH_OPERATIONS_MAX && self.0 >> operation & 1 == 1
    }
}

impl<'a> Batch<'a> {
    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The operations in order.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = BatchOperation<'a>> + Clone + use<'a> {
        let mut fields = Reader::new(self.operations);
        // A range of u32 is no exact-size iterator, as usize may be smaller; a count that was checked fits both.
        (0..self.count as usize)
            .map(move |_| BatchOperation::read(&mut fields).expect("every operation has been read before"))
    }

    /// How many bytes the keys and values have together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.operations().map(|operation| operation.key.len() + operation.value_len()).sum()
    }

    /// How many bytes the operations have in a frame.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.operations.len()
    }

    /// The first key that an earlier operation has too.
    #[must_use]
    pub fn key_twice(&self) -> Option<&'a [u8]> {
        let mut keys = BTreeSet::new();
        self.operations().map(|operation| operation.key).find(|key| !keys.insert(*key))
    }

    /// Whether anything is written, rather than only removed.
    #[must_use]
    pub fn has_puts(&self) -> bool {
        self.operations().any(|operation| operation.change != Change::Delete)
    }

    /// The shard of the keys in a cluster of `shards`; of the first key that lies in another one than the first of all, the
    /// two shards. `None` of a batch without operations.
    #[must_use]
    pub fn shard(&self, shards: u16) -> Option<Result<ShardId, (ShardId, ShardId)>> {
        let mut owners = self.operations().map(|operation| Slot::of(operation.key).shard(shards));
        let first = owners.next()?;
        Some(owners.find(|owner| *owner != first).map_or(Ok(first), |other| Err((first, other))))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_count(self.len());
        out.extend_from_slice(self.operations);
    }

    pub(super) fn read(fields: &mut Reader<'a>) -> Result<Batch<'a>, DecodeError> {
        let count = fields.count(OPERATION_LEN_MIN, "operations")?;
        let all = fields.rest();
        for _ in 0..count {
            BatchOperation::read(fields)?;
        }
        let operations = &all[..all.len() - fields.rest().len()];
        Ok(Batch { count: count as u32, operations })
    }
}

impl<'a> BatchOperation<'a> {
    fn value_len(&self) -> usize {
        match self.change {
            Change::Put(value) => value.len(),
            Change::Delete => 0,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(match self.change {
            Change::Put(_) => KIND_PUT,
            Change::Delete => KIND_DELETE,
        });
        self.condition.put(out);
        out.put_bytes16(self.key);
        if let Change::Put(value) = self.change {
            out.put_bytes32(value);
        }
    }

    fn read(fields: &mut Reader<'a>) -> Result<BatchOperation<'a>, DecodeError> {
        let kind = fields.u8("operation")?;
        let condition = Condition::read(fields)?;
        let key = fields.bytes16("key")?;
        let change = match kind {
            KIND_PUT => Change::Put(fields.bytes32("value")?),
            KIND_DELETE => Change::Delete,
            _ => return Err(DecodeError::Invalid("operation")),
        };
        Ok(BatchOperation { key, condition, change })
    }
}

impl BatchBuffer {
    /// Adds an operation behind those that are there.
    ///
    /// # Errors
    /// If its key has more than 65,535 bytes.
    pub fn push(&mut self, operation: &BatchOperation<'_>) -> Result<(), KeyTooLong> {
        if operation.key.len() > usize::from(u16::MAX) {
            return Err(KeyTooLong(operation.key.len()));
        }
        operation.put(&mut self.operations);
        self.count += 1;
        Ok(())
    }

    /// The batch, borrowing from this one.
    #[must_use]
    pub fn as_batch(&self) -> Batch<'_> {
        Batch { count: self.count, operations: &self.operations }
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.operations()).finish()
    }
}

impl fmt::Debug for BatchBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_batch().fmt(f)
    }
}

/// The most bytes of a key that are shown of an operation.
const SHOWN_BYTES_MAX: usize = 64;

impl fmt::Display for BatchOperation<'_> {
    /// For people: `put "k" (128 bytes) if absent`; never the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.change {
            Change::Put(_) => "put ",
            Change::Delete => "delete ",
        })?;
        let shown = &self.key[..self.key.len().min(SHOWN_BYTES_MAX)];
        write!(f, "\"{}{}\"", shown.escape_ascii(), if shown.len() < self.key.len() { "…" } else { "" })?;
        if let Change::Put(value) = self.change {
            write!(f, " ({} bytes)", value.len())?;
        }
        match self.condition {
            Condition::None => Ok(()),
            Condition::Version(version) => write!(f, " if version {version}"),
            Condition::Exists => f.write_str(" if it exists"),
            Condition::Absent => f.write_str(" if absent"),
        }
    }
}
