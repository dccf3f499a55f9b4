//! What the nodes of a cluster say to each other: Raft messages, forwarded requests, news of themselves, and pieces of
//! snapshots.
//!
//! Here are the types; `raft`, `forward`, `news` and `snapshot` beside this file hold their bytes.

mod forward;
mod news;
mod raft;
mod snapshot;

use crate::client::{Operation, Reply};
use crate::frame::DecodeError;
use crate::health::DiskHealth;
use crate::kind;
use crate::types::{CoreId, Entry, EntryId, Incarnation, Index, NodeId, ShardId, SnapshotId, Term};

/// A Raft message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The Raft group.
    pub shard: ShardId,
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's term. In a pre-vote and in a granted answer to it: the term that would be campaigned for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a Raft message says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Would you vote for me? (Raft thesis §9.6)
    PreVote {
        /// The end of the sender's log.
        last: EntryId,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// Whether.
        granted: bool,
    },
    /// RequestVote (Raft paper §5.2).
    Vote {
        /// The end of the sender's log.
        last: EntryId,
        /// The leader asked for this election: stickiness does not hold it up (Raft thesis §3.10).
        transfer: bool,
    },
    /// The answer to a vote request.
    VoteReply {
        /// Whether.
        granted: bool,
    },
    /// AppendEntries with entries, or as a probe without (Raft paper §5.3).
    Append {
        /// Identifies the sender's link to the receiver; comes back in the reply. A reply that belongs to an
        /// earlier link is dropped.
        link: u32,
        /// The entry before the first of `entries`.
        prev: EntryId,
        /// The sender's commit index.
        commit: Index,
        /// Consecutive, the first at `prev.index + 1`.
        entries: Vec<Entry>,
    },
    /// The answer to an append.
    AppendReply {
        /// From the append.
        link: u32,
        /// What came of it.
        result: AppendResult,
    },
    /// I lead. Confirms leadership for the reads of `context`.
    Heartbeat {
        /// min(the sender's commit index, what it knows to be matched on the receiver).
        commit: Index,
        /// The read round that an answer to this confirms.
        context: ReadContext,
        /// When it was sent at the earliest, in microseconds of the leader's own clock: comes back in a promise. 0: the
        /// leader has no use for one.
        sent_us: u64,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// From the heartbeat.
        context: ReadContext,
        /// What the leader may hold its lease by.
        promise: Promise,
    },
    /// Campaign now: leadership transfer (Raft thesis §3.10).
    TimeoutNow,
    /// What you need is no longer in my log: here is a snapshot to be fetched (Raft paper §7). Answered by
    /// [`Body::AppendReply`], once it is installed durably or turns out not to be needed.
    Snapshot {
        /// As in an append.
        link: u32,
        /// What is on offer.
        meta: SnapshotMeta,
    },
}

/// A snapshot of a shard, as it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Its name. Never 0.
    pub id: SnapshotId,
    /// The last entry that it covers.
    pub at: EntryId,
    /// The size of its file.
    pub bytes: u64,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendResult {
    /// The log matches the leader's, and is durable, up to here.
    Accepted {
        /// min(persisted, last index verified in this term).
        matched: Index,
    },
    /// The entry at `prev` is missing or another one.
    Rejected {
        /// The append's `prev.index`.
        prev: Index,
        /// The last entry that may still match: the sender's last with a term of at most `prev.term`, at or before `prev.index`.
        hint: EntryId,
    },
}

/// Names a read round: fresh for each, over restarts and terms too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadContext {
    /// The leader's, drawn anew at each start of the process.
    pub incarnation: Incarnation,
    /// The leader's term.
    pub term: Term,
    /// Counts the rounds. 0: no round.
    pub counter: u64,
}

/// A voter's word that it will help to elect nobody else for a while, by its own clock, from when it has got the heartbeat
/// that it answers. The leader counts from when it sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Promise {
    /// From the heartbeat.
    pub sent_us: u64,
    /// For so many microseconds. 0: no promise.
    pub lasts_us: u64,
}

/// Names a forwarded request at its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ForwardId {
    /// The core of the origin that waits for the answer.
    pub core: CoreId,
    /// Unique at that core while it waits, also across restarts of the process.
    pub serial: u64,
}

/// A client's request, sent on by a node that does not lead the key's shard to the one that does. Forwarded at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'a> {
    /// The origin's name for it.
    pub id: ForwardId,
    /// The shard that the origin means.
    pub shard: ShardId,
    /// Put, Delete, Get, or Scan of one shard.
    pub operation: Operation<'a>,
    /// Milliseconds that remain until the origin gives up.
    pub timeout_ms: u32,
}

/// The answer to a forwarded request, sent on the answering node's own link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardReply<'a> {
    /// The origin's name for it.
    pub id: ForwardId,
    /// The reply; its request id is 0, the origin knows the client's.
    pub reply: Reply<'a>,
}

/// The most bytes of a snapshot that are asked for, or sent, at once.
pub const SNAPSHOT_CHUNK_MAX: usize = 1024 * 1024;

/// Please send a piece of a snapshot's file: asked by the node that fetches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRead {
    /// Whose state.
    pub shard: ShardId,
    /// Which snapshot.
    pub id: SnapshotId,
    /// Where in the file the piece begins.
    pub offset: u64,
    /// How many bytes at most: 1 to [`SNAPSHOT_CHUNK_MAX`].
    pub length_max: u32,
}

/// The answer to a [`SnapshotRead`], on the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotChunk<'a> {
    /// Whose state.
    pub shard: ShardId,
    /// Which snapshot.
    pub id: SnapshotId,
    /// Where in the file the piece begins.
    pub offset: u64,
    /// The piece.
    pub result: ChunkResult<'a>,
}

/// A piece of a snapshot, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkResult<'a> {
    /// Here it is.
    Ok {
        /// The size of the file.
        total: u64,
        /// From the offset on, at most [`SNAPSHOT_CHUNK_MAX`], none beyond `total`. Empty at the end of the file only.
        bytes: &'a [u8],
    },
    /// There is no such snapshot here, or not any more.
    Gone,
}

/// How the sender does. Told to whoever reads it ([`FEATURE_NEWS`](crate::hello::FEATURE_NEWS)), on every link: once it
/// is up, and whenever it is another than was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its disk.
    pub disk: DiskHealth,
}

/// The hashes of the sender's replicas, at indexes at which all replicas take them. Each is told once on a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// How the hashes are made: those of another format say nothing.
    pub format: u16,
    /// Of any shards, in any order.
    pub checkpoints: Vec<ShardCheckpoint>,
}

/// The hash of a replica's state right after an entry was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCheckpoint {
    /// The replica's shard.
    pub shard: ShardId,
    /// The entry.
    pub index: Index,
    /// The hash.
    pub hash: u128,
}

/// Every frame that a peer sends after its hello.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFrame<'a> {
    /// For the shard's Raft group.
    Message(Message),
    /// Please serve this.
    Forward(Forward<'a>),
    /// Here is what came of it.
    ForwardReply(ForwardReply<'a>),
    /// Please send a piece of a snapshot. On connections for snapshots only.
    SnapshotRead(SnapshotRead),
    /// Here it is.
    SnapshotChunk(SnapshotChunk<'a>),
    /// How the sender does.
    Health(Health),
    /// The hashes of its replicas.
    Checkpoints(Checkpoints),
}

impl<'a> PeerFrame<'a> {
    /// Appends it to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            PeerFrame::Message(message) => message.encode(out),
            PeerFrame::Forward(forward) => forward.encode(out),
            PeerFrame::ForwardReply(reply) => reply.encode(out),
            PeerFrame::SnapshotRead(read) => read.encode(out),
            PeerFrame::SnapshotChunk(chunk) => chunk.encode(out),
            PeerFrame::Health(health) => health.encode(out),
            PeerFrame::Checkpoints(checkpoints) => checkpoints.encode(out),
        }
    }

    /// Reads the payload of a frame of this kind. The bodies of an append's entries share one allocation.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<PeerFrame<'a>, DecodeError> {
        match kind {
            kind::FORWARD => Forward::decode(payload).map(PeerFrame::Forward),
            kind::FORWARD_REPLY => ForwardReply::decode(payload).map(PeerFrame::ForwardReply),
            kind::SNAPSHOT_READ => SnapshotRead::decode(payload).map(PeerFrame::SnapshotRead),
            kind::SNAPSHOT_CHUNK => SnapshotChunk::decode(payload).map(PeerFrame::SnapshotChunk),
            kind::HEALTH => Health::decode(payload).map(PeerFrame::Health),
            kind::CHECKPOINTS => Checkpoints::decode(payload).map(PeerFrame::Checkpoints),
            _ => Message::decode(kind, payload).map(PeerFrame::Message),
        }
    }
}
