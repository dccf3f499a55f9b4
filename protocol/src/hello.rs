//! The first frame in each direction: who are you, and can we talk?

use crate::frame::DecodeError;
use crate::types::{ClusterId, CoreId, Incarnation, NodeId, ShardId};

/// The first bytes of a hello's payload.
pub const MAGIC: [u8; 8] = *b"RAFTKV\r\n";
/// The lowest protocol version spoken here.
pub const VERSION_MIN: u16 = 1;
/// The highest protocol version spoken here.
pub const VERSION_MAX: u16 = 1;

/// What the dialling side says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The lowest version that the sender speaks.
    pub version_min: u16,
    /// The highest version that the sender speaks.
    pub version_max: u16,
    /// The cluster meant; 0 (clients only) for whichever this is.
    pub cluster: ClusterId,
    /// Who dials.
    pub role: HelloRole,
    /// Bits for optional abilities; unknown ones are ignored. None exist yet.
    pub features: u64,
    /// Reserved: the authentication method (0 = none), its nonce and its MAC.
    pub auth: Auth<'a>,
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloRole {
    /// A client. The server hands the socket to the core that owns `home`, a hint only: any shard may be used.
    Client {
        /// The shard that most requests will be for.
        home: Option<ShardId>,
    },
    /// A node of the cluster, which will send Raft messages on this link and receive nothing but the reply.
    Peer {
        /// Its id.
        node: NodeId,
        /// Its data directory's.
        incarnation: Incarnation,
        /// The sender's core; the receiver serves the link on its core of this index modulo its number of cores.
        core: CoreId,
    },
}

/// Room for authentication. Empty with method 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// 0 is none; no other exists yet.
    pub method: u8,
    /// The sender's nonce.
    pub nonce: &'a [u8],
    /// Proves the sender's knowledge of the secret.
    pub mac: &'a [u8],
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloReply<'a> {
    /// Go on.
    Welcome {
        /// The highest version that both sides speak.
        version: u16,
        /// The cluster.
        cluster: ClusterId,
        /// The answering node.
        node: NodeId,
        /// Its data directory's.
        incarnation: Incarnation,
        /// How many shards the cluster has.
        shards: u16,
        /// How many cores the node has.
        cores: u16,
        /// Bits for optional abilities.
        features: u64,
        /// Where the node serves HTTP; empty if it does not.
        http: &'a str,
        /// Reserved for authentication.
        auth: Auth<'a>,
    },
    /// The connection is closed after this.
    Refused {
        /// Why, for programs.
        reason: HelloRefusal,
        /// Why, for people.
        message: &'a str,
    },
}

/// Why a hello was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum HelloRefusal {
    /// The payload does not begin with the magic, or makes no sense.
    Malformed = 1,
    /// No common protocol version.
    Version = 2,
    /// Another cluster.
    Cluster = 3,
    /// A peer whose node id is not a member, or is this node's own.
    UnknownNode = 4,
    /// A peer that comes back with another incarnation: it has lost its disk and must be replaced.
    Incarnation = 5,
    /// Too many connections.
    Connections = 6,
    /// The authentication failed.
    Unauthorized = 7,
}

impl<'a> Hello<'a> {
    /// Appends it to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }

    /// Reads the payload of a frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Hello<'a>, DecodeError> {
        let _ = (kind, payload);
        unimplemented!()
    }
}

impl<'a> HelloReply<'a> {
    /// Appends it to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }

    /// Reads the payload of a frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<HelloReply<'a>, DecodeError> {
        let _ = (kind, payload);
        unimplemented!()
    }
}
