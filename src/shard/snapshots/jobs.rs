//! What the loop of a core and its snapshot worker say to each other.

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, ShardId, SnapshotId};

use crate::state_machine::{Remains, Snapshot, StateMachine};

/// Names whoever waits for a piece of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceFor(pub u64);

/// What the worker is to do.
#[derive(Debug)]
pub enum Job {
    /// Write this state down.
    Take {
        /// Whose.
        shard: ShardId,
        /// The state.
        state: Snapshot,
        /// The disk has only its reserve left: nothing is written before it is known where there is room.
        is_full: bool,
    },
    /// Read this state, to see whether memory has kept it.
    Scrub {
        /// Whose.
        shard: ShardId,
        /// The state.
        state: Snapshot,
    },
    /// Read a piece of a snapshot's file for another node.
    Read {
        /// Who waits for it.
        piece_for: PieceFor,
        /// Whose snapshot.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
        /// From where.
        offset: u64,
        /// How much.
        length_max: usize,
    },
    /// Begin to receive another node's snapshot, or go on where it ended.
    Receive {
        /// Whose.
        shard: ShardId,
        /// Which.
        meta: SnapshotMeta,
    },
    /// The next bytes of it.
    Write {
        /// Whose.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
        /// Where in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All of it is there: check it, make it durable, load it.
    Install {
        /// Whose.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
    },
    /// Load a snapshot of this node, for a state that is built anew.
    Reload {
        /// Whose.
        shard: ShardId,
        /// Which.
        meta: SnapshotMeta,
    },
    /// It is not wanted any more.
    Abandon {
        /// Whose.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
    },
    /// The snapshot is not what was written, or not what it should be: it must not be what the next start begins with, and
    /// no other node gets any more of it.
    SetAside {
        /// Whose.
        shard: ShardId,
        /// Which.
        meta: SnapshotMeta,
    },
    /// Let go of a state: with many keys that takes long.
    LetGo(Remains),
}

/// Why the worker could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The disk has no room: another time, perhaps. In words.
    NoSpace(String),
    /// There is one that is as new or newer, which is no harm. In words.
    Superseded(String),
    /// Anything else, in words. Nothing of what was written counts.
    Failed(String),
}

impl Failure {
    /// In words.
    #[must_use]
    pub fn words(&self) -> &str {
        let (Failure::NoSpace(words) | Failure::Superseded(words) | Failure::Failed(words)) = self;
        words
    }
}

/// A snapshot that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Which.
    pub meta: SnapshotMeta,
    /// The state in it.
    pub machine: StateMachine,
    /// The longest key with its value, in bytes.
    pub longest: usize,
}

/// What the worker has done.
#[derive(Debug)]
pub enum Done {
    /// A state is written, whole and durable.
    Taken {
        /// Whose.
        shard: ShardId,
        /// Under which name.
        meta: SnapshotMeta,
    },
    /// It is not.
    NotTaken {
        /// Whose.
        shard: ShardId,
        /// Why.
        failure: Failure,
    },
    /// It is not, and never will be: its items do not make up the hash that was kept of it.
    Corrupt {
        /// Whose.
        shard: ShardId,
        /// The last entry in it.
        at: EntryId,
        /// The hash of its items.
        found: u128,
        /// The hash that was kept.
        expected: u128,
    },
    /// A state was read to its end.
    Scrubbed {
        /// Whose.
        shard: ShardId,
        /// The last entry in it.
        at: EntryId,
        /// The hash of its items.
        found: u128,
        /// The hash that was kept.
        expected: u128,
    },
    /// A piece that was asked for.
    Piece {
        /// Who waits for it.
        piece_for: PieceFor,
        /// Whose snapshot.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
        /// Where it begins.
        offset: u64,
        /// The size of the file and the bytes; `None` if there is no such snapshot here.
        piece: Option<(u64, Vec<u8>)>,
    },
    /// A snapshot that was loaded, or looked through while another node fetches it, is not what was written.
    Rotten {
        /// Whose.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
    },
    /// Of a snapshot that is being received, everything up to here is in the file.
    Received {
        /// Whose.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
        /// Bytes.
        upto: u64,
    },
    /// A snapshot that was received is durable under its name, and loaded.
    Installed {
        /// Whose.
        shard: ShardId,
        /// What was in it.
        loaded: Box<Loaded>,
    },
    /// A snapshot of this node is loaded.
    Reloaded {
        /// Whose.
        shard: ShardId,
        /// What was in it.
        loaded: Box<Loaded>,
    },
    /// The disk does not give it, which may pass.
    NotReloaded {
        /// Whose.
        shard: ShardId,
        /// Why.
        failure: Failure,
    },
    /// A snapshot that was being received is given up, and its file is gone.
    NotInstalled {
        /// Whose.
        shard: ShardId,
        /// Which.
        id: SnapshotId,
        /// Why.
        failure: Failure,
    },
}
