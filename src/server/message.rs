//! What the cores of a node say to each other, and how a reply finds its way back.

use raftkv_protocol::client::{LogHold, ShardSnapshot, ShardStatus};
use raftkv_protocol::peer::{ForwardId, Message, ShardCheckpoint};
use raftkv_protocol::types::{CoreId, NodeId, RequestId, ShardId, SnapshotId};

use std::time::Instant;

use crate::metrics::Counters;
use crate::metrics::figures::CoreFigures;
use crate::metrics::requests::Taken;

/// A connection of one core. The generation tells it from a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The place in the core's table.
    pub slot: u32,
    /// Counts the connections of the core.
    pub generation: u32,
}

/// A request that came over HTTP, at its core. No two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// Who has asked for a read that may have to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A connection, which has the request still.
    Connection(ConnectionId),
    /// Somebody who came over HTTP.
    Exchange(ExchangeId),
}

/// The most bytes that the reply to a request may have, as they are charged when it is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Of a read, which waits until its core has room for the reply.
    Read(u32),
    /// Of a request that waits for no room.
    Other(u32),
}

impl Charge {
    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        let (Charge::Read(bytes) | Charge::Other(bytes)) = self;
        bytes as usize
    }

    /// Whether it is a read's.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(self, Charge::Read(_))
    }
}

/// Where the reply to a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The core of this node that waits for it.
    pub core: CoreId,
    /// Who waits there.
    pub origin: Origin,
}

/// Who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client.
    Client {
        /// Its connection.
        connection: ConnectionId,
        /// Its name for the request.
        request: RequestId,
        /// What the reply was taken to weigh when the request was taken in.
        charge: Charge,
        /// When the request was taken in, and what for.
        taken: Taken,
    },
    /// Somebody who came over HTTP.
    Exchange {
        /// Its name at the core.
        exchange: ExchangeId,
        /// What the reply was taken to weigh when the request was taken in.
        charge: Charge,
        /// When the request was taken in, and what for.
        taken: Taken,
    },
    /// A scan over all shards, for which this shard's page is one part.
    Gather {
        /// The scan.
        job: u64,
        /// The shard.
        shard: ShardId,
    },
    /// Another node that forwarded the request. Answered by whichever core has the answer, on its own link.
    Peer {
        /// That node.
        node: NodeId,
        /// Its name for the request.
        id: ForwardId,
    },
}

/// A request that outlives the bytes it came in.
#[derive(Clone, Debug)]
pub struct OwnedCall {
    /// The operation as an encoded request frame (the id in it means nothing).
    pub frame: Vec<u8>,
    /// The shard it is for.
    pub shard: ShardId,
    /// Who waits.
    pub to: ReplyTo,
    /// Until when.
    pub deadline: Instant,
}

impl OwnedCall {
    /// The memory that it takes while it waits: the room of its frame, also what of that is empty.
    pub(super) fn bytes(&self) -> usize {
        self.frame.capacity()
    }
}

/// From one core of a node to another.
#[derive(Debug)]
pub enum CoreMessage {
    /// Serve this; the shard is yours.
    Call(OwnedCall),
    /// An answer to a call, as an encoded reply frame.
    Reply {
        /// Who waits at the receiving core.
        origin: Origin,
        /// The reply.
        frame: Vec<u8>,
    },
    /// A peer's Raft message for a shard of the receiving core.
    Raft(Message),
    /// A peer's answer to something that the receiving core forwarded, as an encoded peer frame.
    ForwardReply(Vec<u8>),
    /// A peer closed a link of this node.
    LinkLost(NodeId),
    /// A peer tells the hashes of its replicas of shards of the receiving core.
    Checkpoints {
        /// Which peer.
        from: NodeId,
        /// The hashes.
        checkpoints: Vec<ShardCheckpoint>,
    },
    /// A snapshot of a shard of the receiving core was looked through, and is not what was written.
    SnapshotRotten(ShardId, SnapshotId),
    /// Have your shards snapshotted, and tell what became of it.
    SnapshotsAsked {
        /// Whom.
        core: CoreId,
        /// Its name for the question.
        job: u64,
    },
    /// What has become of a core's snapshots that were asked for.
    SnapshotsPart {
        /// The asking core's name for the question.
        job: u64,
        /// The shards.
        snapshots: Vec<ShardSnapshot>,
    },
    /// Tell what you know of your shards.
    StatusAsked {
        /// Whom.
        core: CoreId,
        /// Its name for the question.
        job: u64,
        /// What it is wanted for.
        wanted: Wanted,
    },
    /// What a core knows of its shards.
    StatusPart {
        /// The asking core's name for the question.
        job: u64,
        /// What it knows.
        status: Box<CoreStatus>,
    },
}

/// What a core knows of itself.
#[derive(Debug)]
pub struct CoreStatus {
    /// Its shards.
    pub shards: Vec<ShardStatus>,
    /// Its counters.
    pub counters: Counters,
    /// What its log holds on to although it should not.
    pub holds: Vec<LogHold>,
    /// What else it knows, if it is wanted for the metrics.
    pub figures: Option<CoreFigures>,
}

/// What is to be made of the cores' parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The status.
    Status,
    /// The metrics.
    Figures,
}
