//! What the Raft core wants done, in the order in which it must be done.

use std::ops::Range;

use raftkv_protocol::peer::Message;
use raftkv_protocol::types::{Entry, HardState, Index};

/// Names what one [`Ready`] wrote; monotone per shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The caller's name for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadId(pub u64);

/// A read whose leadership was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// Which.
    pub read: ReadId,
    /// It may be served once this is applied.
    pub index: Index,
}

/// A message to send. If it is an append, its entries are empty and named by `entries`; whoever encodes it fills them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// For an append: the indexes of its entries, end exclusive. Empty otherwise.
    pub entries: Range<u64>,
}

/// What is to be done, top to bottom.
#[derive(Debug, Default)]
pub struct Ready {
    /// Write this term and vote to the log.
    pub hard_state: Option<HardState>,
    /// Append these to the log; the first discards everything from its index on.
    pub append: Vec<Entry>,
    /// The name of what this ready writes, if it writes anything or has `after_sync` messages: told back by
    /// `Raft::persisted` when it and everything before it is durable.
    pub write: Option<WriteId>,
    /// These may leave now.
    pub messages: Vec<Outgoing>,
    /// These leave after `write` is durable.
    pub after_sync: Vec<Outgoing>,
    /// Apply up to here.
    pub commit: Index,
    /// These reads may be served when their index is applied.
    pub reads: Vec<ReadReady>,
    /// These reads will never be confirmed: leadership was lost.
    pub reads_dropped: Vec<ReadId>,
}
