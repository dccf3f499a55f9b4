//! The first frame in each direction: who are you, and can we talk?
//!
//! The frame envelope, the magic and the two version fields that follow it, and the refusal are the same in every
//! version of the protocol, past and future: whoever speaks another version can still read why it was turned away.

use std::fmt;

use crate::frame::{self, DecodeError};
use crate::kind;
use crate::types::{ClusterId, CoreId, Incarnation, NodeId, ShardId};
use crate::wire::{Reader, Writer};

/// The first bytes of a hello's payload.
pub const MAGIC: [u8; 8] = *b"RAFTKV\r\n";
/// The lowest protocol version spoken here.
pub const VERSION_MIN: u16 = 1;
/// The highest protocol version spoken here.
pub const VERSION_MAX: u16 = 1;

/// Stands for "no home shard": shard numbers end below 16,384.
const NO_SHARD: u16 = u16::MAX;
const ROLE_CLIENT: u8 = 1;
const ROLE_PEER: u8 = 2;
const ROLE_SNAPSHOTS: u8 = 3;

/// The highest version spoken both here and by a side that speaks `min` to `max`.
#[must_use]
pub fn negotiate(min: u16, max: u16) -> Option<u16> {
    let version = max.min(VERSION_MAX);
    (version >= min.max(VERSION_MIN)).then_some(version)
}

/// A bit of a peer's features: every shard of the node has had a leader since its data directory was born. A node of which
/// that is not so does not vote for one of which it is: its own votes and entries may have been lost with a disk.
pub const FEATURE_ADMITTED: u64 = 1;
/// A bit of a peer's features: the node reads `checkpoints` and `health`, and is told both.
pub const FEATURE_NEWS: u64 = 2;
/// Of a server: it takes requests for snapshots ([`kind::SNAPSHOT`]).
pub const FEATURE_SNAPSHOT: u64 = 4;
/// Of a server: it takes batches ([`kind::BATCH`]), of clients and of peers that send them on.
pub const FEATURE_BATCH: u64 = 8;

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
    /// Bits such as [`FEATURE_ADMITTED`] and [`FEATURE_NEWS`]; unknown ones are ignored.
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
    /// A node of the cluster that fetches snapshots: it asks for pieces, and is answered on the same connection.
    Snapshots {
        /// Its id.
        node: NodeId,
        /// Its data directory's.
        incarnation: Incarnation,
        /// The sender's core.
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
    /// For a reason that has no number here; a newer server's is read as this.
    Other = 0,
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

impl HelloRefusal {
    /// The reason with this number; [`HelloRefusal::Other`] if there is none.
    #[must_use]
    pub fn from_u8(number: u8) -> HelloRefusal {
        match number {
            1 => HelloRefusal::Malformed,
            2 => HelloRefusal::Version,
            3 => HelloRefusal::Cluster,
            4 => HelloRefusal::UnknownNode,
            5 => HelloRefusal::Incarnation,
            6 => HelloRefusal::Connections,
            7 => HelloRefusal::Unauthorized,
            _ => HelloRefusal::Other,
        }
    }

    /// The name in the specification, as in `unknown_node`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HelloRefusal::Other => "other",
            HelloRefusal::Malformed => "malformed",
            HelloRefusal::Version => "version",
            HelloRefusal::Cluster => "cluster",
            HelloRefusal::UnknownNode => "unknown_node",
            HelloRefusal::Incarnation => "incarnation",
            HelloRefusal::Connections => "connections",
            HelloRefusal::Unauthorized => "unauthorized",
        }
    }
}

impl fmt::Display for HelloRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Hello<'a> {
    /// Appends it to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, kind::HELLO, |out| {
            out.extend_from_slice(&MAGIC);
            out.put_u16(self.version_min);
            out.put_u16(self.version_max);
            out.put_u128(self.cluster.0);
            self.role.put(out);
            out.put_u64(self.features);
            self.auth.put(out);
        });
    }

    /// Reads the payload of a frame of this kind. Ask [`Hello::versions`] first: the fields after the versions may
    /// lie elsewhere in a version that is not spoken here.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Hello<'a>, DecodeError> {
        let (version_min, version_max, mut fields) = Hello::preamble(kind, payload)?;
        Ok(Hello {
            version_min,
            version_max,
            cluster: ClusterId(fields.u128("cluster")?),
            role: HelloRole::read(&mut fields)?,
            features: fields.u64("features")?,
            auth: Auth::read(&mut fields)?,
        })
    }

    /// The lowest and the highest version that the sender speaks, whatever the rest of the payload looks like.
    pub fn versions(kind: u8, payload: &[u8]) -> Result<(u16, u16), DecodeError> {
        Hello::preamble(kind, payload).map(|(min, max, _)| (min, max))
    }

    fn preamble(kind: u8, payload: &[u8]) -> Result<(u16, u16, Reader<'_>), DecodeError> {
        if kind != kind::HELLO {
            return Err(DecodeError::Kind(kind));
        }
        let mut fields = Reader::new(payload);
        if fields.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(DecodeError::Invalid("magic"));
        }
        Ok((fields.u16("version_min")?, fields.u16("version_max")?, fields))
    }
}

impl HelloRole {
    /// The same fields for all roles, so that every offset is fixed; those of the other roles are 0 (home: none).
    fn put(self, out: &mut Vec<u8>) {
        let (number, home, node, incarnation, core) = match self {
            HelloRole::Client { home } => (ROLE_CLIENT, home, NodeId(0), Incarnation(0), CoreId(0)),
            HelloRole::Peer { node, incarnation, core } => (ROLE_PEER, None, node, incarnation, core),
            HelloRole::Snapshots { node, incarnation, core } => (ROLE_SNAPSHOTS, None, node, incarnation, core),
        };
        out.put_u8(number);
        out.put_u16(home.map_or(NO_SHARD, |shard| shard.0));
        out.put_u64(node.0);
        out.put_u64(incarnation.0);
        out.put_u16(core.0);
    }

    fn read(fields: &mut Reader<'_>) -> Result<HelloRole, DecodeError> {
        let number = fields.u8("role")?;
        let home = fields.u16("home")?;
        let node = NodeId(fields.u64("node")?);
        let incarnation = Incarnation(fields.u64("incarnation")?);
        let core = CoreId(fields.u16("core")?);
        match number {
            ROLE_CLIENT => Ok(HelloRole::Client { home: (home != NO_SHARD).then_some(ShardId(home)) }),
            ROLE_PEER => Ok(HelloRole::Peer { node, incarnation, core }),
            ROLE_SNAPSHOTS => Ok(HelloRole::Snapshots { node, incarnation, core }),
            _ => Err(DecodeError::Invalid("role")),
        }
    }
}

impl<'a> Auth<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.method);
        out.put_bytes16(self.nonce);
        out.put_bytes16(self.mac);
    }

    fn read(fields: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
        Ok(Auth {
            method: fields.u8("auth method")?,
            nonce: fields.bytes16("auth nonce")?,
            mac: fields.bytes16("auth mac")?,
        })
    }
}

impl<'a> HelloReply<'a> {
    /// Appends it to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            HelloReply::Welcome { version, cluster, node, incarnation, shards, cores, features, http, auth } => {
                frame::write(out, kind::WELCOME, |out| {
                    out.put_u16(*version);
                    out.put_u128(cluster.0);
                    out.put_u64(node.0);
                    out.put_u64(incarnation.0);
                    out.put_u16(*shards);
                    out.put_u16(*cores);
                    out.put_u64(*features);
                    out.put_text(http);
                    auth.put(out);
                });
            }
            HelloReply::Refused { reason, message } => frame::write(out, kind::HELLO_REFUSED, |out| {
                out.put_u8(*reason as u8);
                out.put_text(message);
            }),
        }
    }

    /// Reads the payload of a frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<HelloReply<'a>, DecodeError> {
        let mut fields = Reader::new(payload);
        match kind {
            kind::WELCOME => Ok(HelloReply::Welcome {
                version: fields.u16("version")?,
                cluster: ClusterId(fields.u128("cluster")?),
                node: NodeId(fields.u64("node")?),
                incarnation: Incarnation(fields.u64("incarnation")?),
                shards: fields.u16("shards")?,
                cores: fields.u16("cores")?,
                features: fields.u64("features")?,
                http: fields.text("http")?,
                auth: Auth::read(&mut fields)?,
            }),
            kind::HELLO_REFUSED => Ok(HelloReply::Refused {
                reason: HelloRefusal::from_u8(fields.u8("reason")?),
                message: fields.text("message")?,
            }),
            _ => Err(DecodeError::Kind(kind)),
        }
    }
}
