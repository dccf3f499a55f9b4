//! What calls take and give: owned counterparts of the protocol's borrowed types.

use raftkv_protocol::client::{Consistency, Scan};
use raftkv_protocol::types::{Index, NodeId};

/// The index of the entry that last wrote a key: grows with every write to it, and is the token of a compare-and-set.
pub type Version = Index;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// Changes with every write to the key.
    pub version: Version,
    /// The value.
    pub bytes: Vec<u8>,
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// Changes with every write to the key.
    pub version: Version,
    /// The value.
    pub value: Vec<u8>,
}

/// A page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub items: Vec<Item>,
    /// Where the next page begins ([`ScanOptions::cursor`]); `None` if this was the last.
    pub cursor: Option<Vec<u8>>,
}

/// Which keys to read, in which order. Keys are compared byte by byte.
///
/// ```
/// use raftkv::client::ScanOptions;
///
/// let newest_ten = ScanOptions::prefix(b"event/").reverse().limit(10);
/// let one_day = ScanOptions::range(b"event/2024-05-01", b"event/2024-05-02");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    prefix: Vec<u8>,
    start: Vec<u8>,
    end: Vec<u8>,
    cursor: Vec<u8>,
    limit: u32,
    reverse: bool,
    consistency: Consistency,
}

impl ScanOptions {
    /// Every key.
    #[must_use]
    pub fn all() -> ScanOptions {
        ScanOptions::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> ScanOptions {
        ScanOptions { prefix: prefix.as_ref().to_vec(), ..ScanOptions::default() }
    }

    /// The keys from `start`, inclusive, to `end`, exclusive.
    #[must_use]
    pub fn range(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> ScanOptions {
        ScanOptions::all().start(start).end(end)
    }

    /// Only keys at or after this one, also in reverse.
    #[must_use]
    pub fn start(mut self, key: impl AsRef<[u8]>) -> ScanOptions {
        self.start = key.as_ref().to_vec();
        self
    }

    /// Only keys before this one, also in reverse.
    #[must_use]
    pub fn end(mut self, key: impl AsRef<[u8]>) -> ScanOptions {
        self.end = key.as_ref().to_vec();
        self
    }

    /// The page after the one that ended with this cursor ([`Page::cursor`]).
    #[must_use]
    pub fn cursor(mut self, cursor: impl AsRef<[u8]>) -> ScanOptions {
        self.cursor = cursor.as_ref().to_vec();
        self
    }

    /// At most so many items a page; the server has a limit of its own (1,000 unless configured).
    #[must_use]
    pub fn limit(mut self, items: u32) -> ScanOptions {
        self.limit = items;
        self
    }

    /// From the highest key down.
    #[must_use]
    pub fn reverse(mut self) -> ScanOptions {
        self.reverse = true;
        self
    }

    /// How fresh; linearizable unless set.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> ScanOptions {
        self.consistency = consistency;
        self
    }

    pub(super) fn consistency_wanted(&self) -> Consistency {
        self.consistency
    }

    pub(super) fn keys(&self) -> [&[u8]; 4] {
        [&self.prefix, &self.start, &self.end, &self.cursor]
    }

    pub(super) fn as_scan(&self) -> Scan<'_> {
        Scan {
            prefix: &self.prefix,
            start: &self.start,
            end: &self.end,
            cursor: &self.cursor,
            limit: self.limit,
            reverse: self.reverse,
            consistency: self.consistency,
            shard: None,
        }
    }
}

/// Which node a question is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// Any that answers.
    #[default]
    Any,
    /// The node with this id.
    Node(NodeId),
    /// The node at this `host:port`.
    Endpoint(String),
}

impl From<NodeId> for Target {
    fn from(node: NodeId) -> Target {
        Target::Node(node)
    }
}

impl From<&str> for Target {
    fn from(endpoint: &str) -> Target {
        Target::Endpoint(endpoint.to_owned())
    }
}

impl From<String> for Target {
    fn from(endpoint: String) -> Target {
        Target::Endpoint(endpoint)
    }
}

/// What to do with a request for which the client has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Wait for room, at most until the deadline.
    #[default]
    Block,
    /// Fail at once with [`ErrorKind::QueueFull`](super::ErrorKind::QueueFull).
    Fail,
}
