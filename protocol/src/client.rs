//! What clients and servers say to each other.
//!
//! Keys, values and messages borrow from the buffer they were decoded from: neither side allocates to read a put, a
//! get or its reply. Here are the types; `request` and `reply` beside this file hold their bytes, `code` the refusals.

mod batch;
mod code;
mod reply;
mod request;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::health::{DiskHealth, Divergence};
use crate::types::{ClusterId, CoreId, EntryId, Incarnation, Index, NodeId, RequestId, ShardId, Term};

pub use batch::{BATCH_OPERATIONS_MAX, Batch, BatchBuffer, BatchOperation, Change, Existed, KeyTooLong};
pub use code::{Code, Refusal};

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
    /// Write and remove several keys of one shard together, or none of them.
    Batch(Batch<'a>),
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
    /// Have the asked node take a snapshot of each of its shards whose state has moved since the last one.
    Snapshot {
        /// How long to wait for all of them, in milliseconds; 0 for as long as the server lets other requests wait. They
        /// are taken all the same.
        wait_ms: u32,
    },
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
    /// All operations of a batch were applied; the version of the keys that were put is the reply's index.
    Batch {
        /// Which of its deletes have found their key.
        existed: Existed,
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
    /// What has become of the snapshots, by shard in ascending order.
    Snapshots(Vec<ShardSnapshot>),
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
    /// How its disk does.
    pub disk: DiskHealth,
    /// For how many milliseconds the longest of its syncs in flight has taken.
    pub sync_ms: u64,
    /// What keeps its logs longer than they should be, and shards whose last snapshot failed. Empty where all is well.
    pub holds: Vec<LogHold>,
}

/// A shard that keeps a core's log from letting go of its oldest segments, or whose last snapshot failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHold {
    /// Whose log.
    pub core: CoreId,
    /// Bytes of its segments.
    pub log_bytes: u64,
    /// What they should stay below.
    pub log_bytes_max: u64,
    /// Which shard.
    pub shard: ShardId,
    /// Bytes of whole segments that could go if this shard's log started later; 0 if it is not the one that holds on to the
    /// oldest, or if another needs the same.
    pub bytes: u64,
    /// Why it does not.
    pub reason: HoldReason,
    /// Why its last snapshot failed, for people; empty if it did not.
    pub message: String,
}

/// Why a shard's log does not start later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HoldReason {
    /// Nothing is in the way: it is its turn soon, or there is too little to gain.
    Pending = 0,
    /// A snapshot of it is being taken.
    Snapshotting = 1,
    /// Its entries are being written again at the log's end.
    Copying = 2,
    /// There is nothing that a snapshot could cover: its entries are not committed.
    NoQuorum = 3,
    /// Its state is another than that of others, and must not be in a snapshot.
    Diverged = 4,
    /// Its last snapshot failed. It is tried again.
    Failed = 5,
}

/// The snapshot of one shard that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Which shard.
    pub shard: ShardId,
    /// What has become of it.
    pub outcome: SnapshotOutcome,
}

/// What has become of a snapshot that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// It is durable.
    Taken {
        /// The last entry that it covers.
        at: EntryId,
        /// The size of its file.
        bytes: u64,
        /// How long it took; zero if another node's was installed meanwhile.
        took: Duration,
    },
    /// There is nothing that the newest snapshot does not cover.
    Unchanged {
        /// The last entry that it covers; 0@0 if there is none, as nothing was ever written.
        at: EntryId,
        /// The size of its file.
        bytes: u64,
    },
    /// There is none: why, for people.
    Failed(String),
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
    /// Why it does not serve, if its state is another than that of others.
    pub divergence: Option<Divergence>,
    /// Its log has lost something and gets it back from the others: until then it takes no part in elections.
    pub is_repairing: bool,
}

impl HoldReason {
    /// The reason with this number. One that has no name here comes from a newer node: nothing is known to be in the way.
    #[must_use]
    pub fn from_u8(number: u8) -> HoldReason {
        match number {
            1 => HoldReason::Snapshotting,
            2 => HoldReason::Copying,
            3 => HoldReason::NoQuorum,
            4 => HoldReason::Diverged,
            5 => HoldReason::Failed,
            _ => HoldReason::Pending,
        }
    }

    /// The name in the specification, as in `no_quorum`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HoldReason::Pending => "pending",
            HoldReason::Snapshotting => "snapshotting",
            HoldReason::Copying => "copying",
            HoldReason::NoQuorum => "no_quorum",
            HoldReason::Diverged => "diverged",
            HoldReason::Failed => "failed",
        }
    }
}

impl Consistency {
    /// The name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Consistency::Linearizable => "linearizable",
            Consistency::Lease => "lease",
            Consistency::Stale => "stale",
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(text: &str) -> Result<Consistency, String> {
        [Consistency::Linearizable, Consistency::Lease, Consistency::Stale]
            .into_iter()
            .find(|consistency| consistency.name() == text)
            .ok_or_else(|| format!("{text:?} is none of linearizable, lease, stale"))
    }
}

impl Role {
    /// The name in the specification, as in `pre_candidate`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::PreCandidate => "pre_candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
            Role::Learner => "learner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Operation<'a> {
    /// The name in the specification, as in `put`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Put { .. } => "put",
            Operation::Delete { .. } => "delete",
            Operation::Batch(_) => "batch",
            Operation::Get { .. } => "get",
            Operation::Scan(_) => "scan",
            Operation::Slots => "slots",
            Operation::Status => "status",
            Operation::Ping => "ping",
            Operation::Snapshot { .. } => "snapshot",
        }
    }

    /// The one key it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Operation::Put { key, .. } | Operation::Delete { key, .. } | Operation::Get { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether it changes anything, so that it must not be sent twice when its outcome is unknown.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Operation::Put { .. } | Operation::Delete { .. } | Operation::Batch(_))
    }
}

impl fmt::Display for Operation<'_> {
    /// For logs: the name and, escaped, the key or the prefix; never the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Operation::Put { key, value, .. } => write!(f, " \"{}\" ({} bytes)", key.escape_ascii(), value.len()),
            Operation::Delete { key, .. } | Operation::Get { key, .. } => write!(f, " \"{}\"", key.escape_ascii()),
            Operation::Batch(batch) => write!(f, " of {} operations", batch.len()),
            Operation::Scan(scan) => write!(f, " \"{}\"", scan.prefix.escape_ascii()),
            _ => Ok(()),
        }
    }
}
