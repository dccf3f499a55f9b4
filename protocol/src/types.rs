//! The words that every layer shares: identifiers, terms, indexes, slots and entries.

use std::fmt;
use std::num::ParseIntError;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::wire::Writer;

/// A slice of the key space. There are [`SLOTS`] of them.
pub const SLOTS: u16 = 16_384;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<$name, ParseIntError> {
                text.parse().map($name)
            }
        }
    };
}

newtype!(
    /// A server process of a cluster. Never 0.
    NodeId(u64)
);
newtype!(
    /// A Raft group: it owns a contiguous range of slots.
    ShardId(u16)
);
newtype!(
    /// An event-loop thread of a node, counted from 0.
    CoreId(u16)
);
newtype!(
    /// One of the 16,384 slices of the key space.
    Slot(u16)
);
newtype!(
    /// A Raft term (Raft paper §5.1). 0 is the term before the first election.
    Term(u64)
);
newtype!(
    /// The position of an entry in a shard's log. The first entry has index 1; 0 is the place before it.
    Index(u64)
);
newtype!(
    /// The correlation id that a client gives to a request; the reply carries it back.
    RequestId(u64)
);
newtype!(
    /// Drawn at random when a data directory is born. A node that comes back with another one has lost its disk.
    Incarnation(u64)
);

/// Names a cluster: the hash of its name, its members' addresses and its number of shards (see the
/// specification). 0 in a client's hello means "whichever cluster this is".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = ParseIntError;

    /// Reads what is displayed: up to 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<ClusterId, ParseIntError> {
        u128::from_str_radix(text, 16).map(ClusterId)
    }
}

/// Names a snapshot of a shard, in its file, in the log and between nodes. Drawn at random when it is taken; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

/// An entry's identity: two entries with the same id are the same entry (Raft paper §5.3, Log Matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryId {
    /// Where in the log.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: Term,
}

impl EntryId {
    /// The place before the first entry.
    pub const ZERO: EntryId = EntryId { index: Index(0), term: Term(0) };

    /// Shorthand, index first as it is printed.
    #[must_use]
    pub const fn new(index: u64, term: u64) -> EntryId {
        EntryId { index: Index(index), term: Term(term) }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What a node must never forget about a shard: its term, and whom it voted for in it (Raft paper, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// The candidate that got this node's vote in `term`.
    pub vote: Option<NodeId>,
}

/// What an entry's body means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The empty entry that a leader appends at the start of its term.
    Noop = 0,
    /// A command of the state machine.
    Command = 1,
    /// A cluster configuration. Reserved until membership changes exist.
    Configuration = 2,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<EntryKind> {
        match number {
            0 => Some(EntryKind::Noop),
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::Configuration),
            _ => None,
        }
    }
}

/// One entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index and term.
    pub id: EntryId,
    /// What the body means.
    pub kind: EntryKind,
    /// Opaque to Raft and to the log.
    pub body: Bytes,
}

impl Slot {
    /// The slot of a key: `xxh3_64(tag) >> 50`, where the tag is the text between the first `{` and the next `}`
    /// after it if there is any, and the whole key otherwise.
    #[must_use]
    pub fn of(key: &[u8]) -> Slot {
        Slot((xxh3_64(hashed_part(key)) >> 50) as u16)
    }

    /// The shard that owns the slot in a cluster of `shards`.
    #[must_use]
    pub fn shard(self, shards: u16) -> ShardId {
        ShardId((u32::from(self.0) * u32::from(shards) / u32::from(SLOTS)) as u16)
    }

    /// The first and the last slot of a shard in a cluster of `shards`, which is 1 to [`SLOTS`].
    #[must_use]
    pub fn range(shard: ShardId, shards: u16) -> RangeInclusive<Slot> {
        let first_of = |shard: u32| (shard * u32::from(SLOTS)).div_ceil(u32::from(shards)) as u16;
        let shard = u32::from(shard.0);
        Slot(first_of(shard))..=Slot(first_of(shard + 1) - 1)
    }
}

/// The tag of a key that has one that is not empty; otherwise the whole key.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let after = &key[open + 1..];
    match after.iter().position(|&byte| byte == b'}') {
        Some(len) if len > 0 => &after[..len],
        _ => key,
    }
}

impl ClusterId {
    /// The id of the cluster with this name, these members (any order) and this many shards. Never 0.
    ///
    /// The XXH3-128 (seed 0) of name length (u32), name, number of members (u32), for each member in the order of the
    /// ids its id (u64), address length (u32) and address, and at last the number of shards (u16), all little-endian.
    /// The lengths make two different clusters two different byte strings.
    #[must_use]
    pub fn derive(name: &str, members: &[(NodeId, String)], shards: u16) -> ClusterId {
        let mut members: Vec<_> = members.iter().collect();
        members.sort();
        let mut input = Vec::new();
        input.put_bytes32(name.as_bytes());
        input.put_count(members.len());
        for (id, address) in members {
            input.put_u64(id.0);
            input.put_bytes32(address.as_bytes());
        }
        input.put_u16(shards);
        ClusterId(xxh3_128(&input).max(1))
    }
}
