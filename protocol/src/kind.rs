//! The kind byte of a frame: one number for each message, all of them here.
//!
//! | range | who sends it |
//! | --- | --- |
//! | `0x01..=0x0f` | both sides, before anything else: the hello |
//! | `0x10..=0x3f` | a client: requests |
//! | `0x40` | a server: a request was refused |
//! | `0x50..=0x7f` | a server: the answer to request kind `k` has kind `k + 0x40` |
//! | `0x80..=0xaf` | a peer: Raft messages, and the hashes of replicas |
//! | `0xb0..=0xbf` | a peer: how it does |
//! | `0xc0..=0xcf` | a peer: forwarded requests and their answers |
//! | `0xd0..=0xdf` | a peer: snapshots, on a connection of their own |
//!
//! A number that was ever used or reserved (see the specification) never gets another meaning.

/// The dialling side's first frame.
pub const HELLO: u8 = 0x01;
/// The hello was accepted.
pub const WELCOME: u8 = 0x02;
/// The hello was refused.
pub const HELLO_REFUSED: u8 = 0x03;

/// Write a key.
pub const PUT: u8 = 0x10;
/// Remove a key.
pub const DELETE: u8 = 0x11;
/// Read a key.
pub const GET: u8 = 0x12;
/// Read keys in byte order.
pub const SCAN: u8 = 0x13;
/// Write and remove several keys of one shard together.
pub const BATCH: u8 = 0x14;
/// Ask for the slot table.
pub const SLOTS: u8 = 0x18;
/// Ask for the node's state.
pub const STATUS: u8 = 0x19;
/// Ask for a sign of life.
pub const PING: u8 = 0x1a;
/// Have the node's shards snapshotted.
pub const SNAPSHOT: u8 = 0x1d;

/// A request was refused.
pub const REFUSAL: u8 = 0x40;
/// A put was applied.
pub const PUT_REPLY: u8 = PUT + REPLY;
/// A delete was applied.
pub const DELETE_REPLY: u8 = DELETE + REPLY;
/// The value of a key.
pub const GET_REPLY: u8 = GET + REPLY;
/// A page of a scan.
pub const SCAN_REPLY: u8 = SCAN + REPLY;
/// A batch was applied.
pub const BATCH_REPLY: u8 = BATCH + REPLY;
/// The slot table.
pub const SLOTS_REPLY: u8 = SLOTS + REPLY;
/// The node's state.
pub const STATUS_REPLY: u8 = STATUS + REPLY;
/// A sign of life.
pub const PING_REPLY: u8 = PING + REPLY;
/// What has become of the snapshots.
pub const SNAPSHOT_REPLY: u8 = SNAPSHOT + REPLY;

/// From a request's kind to its answer's.
const REPLY: u8 = 0x40;

/// Raft: would you vote for me?
pub const PRE_VOTE: u8 = 0x80;
/// Raft: the answer to a pre-vote.
pub const PRE_VOTE_REPLY: u8 = 0x81;
/// Raft: vote for me.
pub const VOTE: u8 = 0x82;
/// Raft: the answer to a vote request.
pub const VOTE_REPLY: u8 = 0x83;
/// Raft: entries, or a probe.
pub const APPEND: u8 = 0x84;
/// Raft: the answer to an append.
pub const APPEND_REPLY: u8 = 0x85;
/// Raft: I lead.
pub const HEARTBEAT: u8 = 0x86;
/// Raft: the answer to a heartbeat.
pub const HEARTBEAT_REPLY: u8 = 0x87;
/// Raft: campaign now.
pub const TIMEOUT_NOW: u8 = 0x88;
/// Hashes of replicas' states, to be compared.
pub const CHECKPOINTS: u8 = 0x8b;
/// Raft: a snapshot is to be had here.
pub const SNAPSHOT_OFFER: u8 = 0x8c;
/// How the node's disk does.
pub const HEALTH: u8 = 0xb0;
/// A client's request, sent on to the leader.
pub const FORWARD: u8 = 0xc0;
/// The answer to a forwarded request.
pub const FORWARD_REPLY: u8 = 0xc1;
/// Ask for a piece of a snapshot.
pub const SNAPSHOT_READ: u8 = 0xd0;
/// A piece of a snapshot.
pub const SNAPSHOT_CHUNK: u8 = 0xd1;

/// Every kind with its name in the specification, in numerical order.
pub const ALL: [(u8, &str); 38] = [
    (HELLO, "hello"),
    (WELCOME, "welcome"),
    (HELLO_REFUSED, "hello_refused"),
    (PUT, "put"),
    (DELETE, "delete"),
    (GET, "get"),
    (SCAN, "scan"),
    (BATCH, "batch"),
    (SLOTS, "slots"),
    (STATUS, "status"),
    (PING, "ping"),
    (SNAPSHOT, "snapshot"),
    (REFUSAL, "refusal"),
    (PUT_REPLY, "put_reply"),
    (DELETE_REPLY, "delete_reply"),
    (GET_REPLY, "get_reply"),
    (SCAN_REPLY, "scan_reply"),
    (BATCH_REPLY, "batch_reply"),
    (SLOTS_REPLY, "slots_reply"),
    (STATUS_REPLY, "status_reply"),
    (PING_REPLY, "ping_reply"),
    (SNAPSHOT_REPLY, "snapshot_reply"),
    (PRE_VOTE, "pre_vote"),
    (PRE_VOTE_REPLY, "pre_vote_reply"),
    (VOTE, "vote"),
    (VOTE_REPLY, "vote_reply"),
    (APPEND, "append"),
    (APPEND_REPLY, "append_reply"),
    (HEARTBEAT, "heartbeat"),
    (HEARTBEAT_REPLY, "heartbeat_reply"),
    (TIMEOUT_NOW, "timeout_now"),
    (CHECKPOINTS, "checkpoints"),
    (SNAPSHOT_OFFER, "snapshot_offer"),
    (HEALTH, "health"),
    (FORWARD, "forward"),
    (FORWARD_REPLY, "forward_reply"),
    (SNAPSHOT_READ, "snapshot_read"),
    (SNAPSHOT_CHUNK, "snapshot_chunk"),
];

/// The kind's name in the specification, as in `put_reply`.
#[must_use]
pub fn name(kind: u8) -> Option<&'static str> {
    ALL.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}
