//! Snapshots of one shard: a directory of files, each the state as of one entry.
//!
//! [`SnapshotStore`] is the directory. [`SnapshotWriter`] writes what this node has, item by item; [`SnapshotReceiver`]
//! takes what a peer sends, chunk by chunk; [`SnapshotReader`] gives the items back, and [`SnapshotFile`] the bytes, for
//! a peer. All of it is done in short steps, off the loop, through [`Disk`](super::disk::Disk), by one thread at a time
//! for a shard; reading needs nobody's leave.
//!
//! It knows keys, versions and values as bytes. It must not know what they mean, nor when a snapshot is wanted.
//!
//! **What holds.**
//! - A file with a snapshot's name is whole: it was synced before it got the name, and no byte of it changes after that.
//!   [`SnapshotStore::open`] makes the names durable that it finds.
//! - Whatever is read is checked, every byte of it. What is wrong is named with file and offset.
//! - Two are kept. An older one is removed when two newer ones are durable, and whoever has it open can read on. Where the disk
//!   has no room for the next, the older of the two may be what is written over.
//! - What a process left unfinished is removed at a start. What it received is kept as far as it is right, and written
//!   again: the page cache may hold what the disk does not.
//! - No space is a refusal, which leaves nothing behind. So does any other failure: what was being written is removed,
//!   and what was there stays.

mod decoder;
mod error;
mod format;
mod reader;
mod receiver;
mod store;
mod unfinished;
mod writer;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod decoder_test;
#[cfg(test)]
mod format_test;
#[cfg(test)]
mod receiver_test;
#[cfg(test)]
mod store_test;

pub use decoder::Items;
pub use error::SnapshotError;
pub use format::{FileLength, Footer, Header, Item, VERSION, snapshot_name};
pub use reader::{SnapshotFile, SnapshotReader};
pub use receiver::SnapshotReceiver;
pub use store::SnapshotStore;
pub use writer::SnapshotWriter;

use raftkv_protocol::types::{EntryId, SnapshotId};

/// Files are read and written in pieces of about this size: what one step of a long job takes.
const PIECE_BYTES: usize = 256 << 10;

/// What tells one snapshot of a shard from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// The last entry in it.
    pub at: EntryId,
    /// The bytes of its file.
    pub bytes: u64,
}
