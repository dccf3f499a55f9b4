//! What clients and servers say to each other.
//!
//! Everything borrows from the buffer it was decoded from, so that neither side allocates to read a frame.

use crate::frame::DecodeError;
use crate::types::{ClusterId, EntryId, Incarnation, Index, NodeId, RequestId, ShardId, Term};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Consistency {
    /// Reflects every write acknowledged before the read was sent.
    #[default]
    Linearizable = 0,
    /// Linearizable under the cluster's clock bound; answered linearizably where leases are off.
    Lease = 1,
    /// Whatever the asked node has applied.
    Stale = 2,
}

/// What must hold of a key for a write to it to take place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Nothing: always write.
    #[default]
    None,
    /// The key exists with exactly this version.
    Version(Index),
    /// The key exists.
    Exists,
    /// The key does not exist.
    Absent,
}

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Comes back in the reply. Unique among the requests in flight on the connection.
    pub id: RequestId,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// Write a key.
    Put {
        /// 1 byte to the key limit.
        key: &'a [u8],
        /// 0 bytes to the value limit.
        value: &'a [u8],
        /// Checked when the write is applied.
        condition: Condition,
    },
    /// Remove a key.
    Delete {
        /// 1 byte to the key limit.
        key: &'a [u8],
        /// Checked when the removal is applied.
        condition: Condition,
    },
    /// Read a key.
    Get {
        /// 1 byte to the key limit.
        key: &'a [u8],
        /// How fresh.
        consistency: Consistency,
    },
    /// Read keys in byte order.
    Scan(Scan<'a>),
    /// The slot table: which shard owns which slots, and who leads it.
    Slots,
    /// The state of the asked node.
    Status,
    /// Is anybody there?
    Ping,
}

/// A page of keys in byte order over all shards. Each shard is read at its own index: a page is no snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
    /// The first key, inclusive (also in reverse). Empty: from the lowest.
    pub start: &'a [u8],
    /// The end, exclusive (also in reverse). Empty: to the highest.
    pub end: &'a [u8],
    /// The last key of the page before; empty for the first page.
    pub cursor: &'a [u8],
    /// At most so many items; 0 means the server's limit.
    pub limit: u32,
    /// From the highest key down.
    pub reverse: bool,
    /// How fresh.
    pub consistency: Consistency,
    /// Only keys of this shard (nodes ask each other so); `None` for all.
    pub shard: Option<ShardId>,
}

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The request's.
    pub id: RequestId,
    /// The term and index at which it was answered: of the written entry for a write, of the state read for a
    /// read, 0@0 where no shard was involved.
    pub at: EntryId,
    /// What came of it.
    pub result: Result<Answer<'a>, Refusal<'a>>,
}

/// The good outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer<'a> {
    /// A put was applied; the key's version is the reply's index.
    Put,
    /// A delete was applied.
    Deleted {
        /// Whether the key existed.
        existed: bool,
    },
    /// The value of a key.
    Value {
        /// The index of the entry that wrote it.
        version: Index,
        /// Its bytes.
        value: &'a [u8],
    },
    /// A page of a scan.
    Page(Page<'a>),
    /// The slot table.
    Slots(SlotTable),
    /// The node's state.
    Status(Box<Status>),
    /// Somebody is.
    Pong,
}

/// A page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// In the order asked for.
    pub items: Vec<Item<'a>>,
    /// Whether keys may follow after the last item, whose key is the next page's cursor. Never with an empty page.
    pub more: bool,
}

/// One key of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The index of the entry that wrote it.
    pub version: Index,
    /// Its value.
    pub value: &'a [u8],
}

/// Which shard owns which slots, who leads it, and where the nodes listen. Shard `i` of `n` owns the slots `s`
/// with `s * n / 16384 == i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotTable {
    /// The cluster.
    pub cluster: ClusterId,
    /// By node id: where clients reach it.
    pub nodes: Vec<(NodeId, String)>,
    /// Indexed by shard: the leader as far as the asked node knows, and the term in which it knew it.
    pub leaders: Vec<(Option<NodeId>, Term)>,
}

/// The state of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterId,
    /// The asked node.
    pub node: NodeId,
    /// Its data directory's.
    pub incarnation: Incarnation,
    /// Its software version.
    pub version: String,
    /// By node id: every member and its address.
    pub nodes: Vec<(NodeId, String)>,
    /// Every shard of the node.
    pub shards: Vec<ShardStatus>,
    /// Named counters of the node, in alphabetical order: refusals, connections, syncs and so on.
    pub counters: Vec<(String, u64)>,
}

/// What a node is to a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower = 0,
    /// Asks whether an election could be won (Raft thesis §9.6).
    PreCandidate = 1,
    /// Stands for election.
    Candidate = 2,
    /// Leads.
    Leader = 3,
    /// Receives the log but has no vote.
    Learner = 4,
}

/// The state of one shard on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which shard.
    pub id: ShardId,
    /// What the node is to it.
    pub role: Role,
    /// The node's term.
    pub term: Term,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// Committed up to.
    pub commit: Index,
    /// Applied up to.
    pub applied: Index,
    /// Durable on this node up to.
    pub persisted: Index,
    /// The end of its log.
    pub last: EntryId,
    /// Where its log starts: the entry that the last snapshot covers.
    pub snapshot: EntryId,
    /// How many keys it holds.
    pub keys: u64,
    /// The rolling hash of its state at `applied`.
    pub state_hash: u128,
}

/// Why a request was not served, as a stable code. The same on every face of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// The request makes no sense; its message says why.
    BadRequest = 1,
    /// The key does not exist.
    NotFound = 2,
    /// Over a limit, which the message names.
    TooLarge = 3,
    /// The condition of a write does not hold.
    PreconditionFailed = 4,
    /// An atomic batch spans shards.
    CrossShard = 5,
    /// The asked node does not lead the shard; the hint names who does, if known.
    NotLeader = 6,
    /// The shard had no leader until the deadline.
    NoLeader = 7,
    /// The node is not ready to serve the shard yet.
    NotReady = 8,
    /// Too much is in flight; try again later.
    Overloaded = 9,
    /// The disk is full.
    NoSpace = 10,
    /// This replica differs from the majority and does not serve.
    Diverged = 11,
    /// No outcome until the deadline. A write may have been applied, or may be later.
    Timeout = 12,
    /// The connection may not do this.
    Unauthorized = 13,
}

impl Code {
    /// The name in the specification, as in `no_leader`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::NotFound => "not_found",
            Code::TooLarge => "too_large",
            Code::PreconditionFailed => "precondition_failed",
            Code::CrossShard => "cross_shard",
            Code::NotLeader => "not_leader",
            Code::NoLeader => "no_leader",
            Code::NotReady => "not_ready",
            Code::Overloaded => "overloaded",
            Code::NoSpace => "no_space",
            Code::Diverged => "diverged",
            Code::Timeout => "timeout",
            Code::Unauthorized => "unauthorized",
        }
    }

    /// Whether a write answered with this may have been applied, or may be in future.
    #[must_use]
    pub fn maybe_applied(self) -> bool {
        self == Code::Timeout
    }
}

/// The bad outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// What kind.
    pub code: Code,
    /// Who leads the shard, with [`Code::NotLeader`] where it is known.
    pub leader: Option<NodeId>,
    /// For people: what, where, and what to do.
    pub message: &'a str,
}

impl<'a> Request<'a> {
    /// Appends the request to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }

    /// Reads the payload of a request frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let _ = (kind, payload);
        unimplemented!()
    }
}

impl<'a> Reply<'a> {
    /// Appends the reply to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }

    /// Reads the payload of a reply frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Reply<'a>, DecodeError> {
        let _ = (kind, payload);
        unimplemented!()
    }
}
