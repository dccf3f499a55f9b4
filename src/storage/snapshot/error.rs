//! Why something about a snapshot did not work.

use std::fmt;
use std::io;

use raftkv_protocol::types::EntryId;

use super::format::{BadSnapshot, VERSION};
use crate::storage::disk::is_full;

/// Why a snapshot was not written, received or read. The store can be used on after any of these.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The disk is full. What was being written is gone.
    NoSpace {
        /// The file that found no room.
        path: String,
    },
    /// The disk has less room than the rest of a snapshot takes: nothing was begun.
    NoRoom {
        /// The file that would not fit.
        path: String,
        /// How many bytes more it takes.
        bytes: u64,
        /// How many there are.
        free: u64,
    },
    /// The disk failed. What was being written is gone.
    Disk {
        /// The file, or the directory.
        path: String,
        /// What it said.
        error: io::Error,
    },
    /// The file does not hold what was written into it.
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A later version of the software wrote the file.
    Newer {
        /// The file.
        path: String,
        /// The version of its format.
        version: u32,
    },
    /// There is a snapshot that is as new or newer.
    Superseded {
        /// The last entry in it.
        by: EntryId,
    },
    /// A chunk does not continue what was received.
    OutOfPlace {
        /// The offset of the one that would.
        expected: u64,
    },
    /// Something is longer than any snapshot can hold: an item, the configuration, or the list of checkpoints.
    TooLong,
    /// An item's key does not come after the one before it.
    OutOfOrder,
    /// An earlier call failed and said why; nothing more can be done with this one.
    Ended,
}

impl SnapshotError {
    /// What the disk said about a file.
    pub(super) fn disk(path: &str, error: io::Error) -> SnapshotError {
        let path = path.to_owned();
        if is_full(&error) { SnapshotError::NoSpace { path } } else { SnapshotError::Disk { path, error } }
    }

    /// Whether the file holds something else than was written. Of other errors it may be none the worse.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, SnapshotError::Damaged { .. })
    }

    /// What the decoder said about a file.
    pub(super) fn bad(path: &str, bad: BadSnapshot) -> SnapshotError {
        let path = path.to_owned();
        match bad {
            BadSnapshot::Damaged { offset, what } => SnapshotError::Damaged { path, offset, what },
            BadSnapshot::Newer(version) => SnapshotError::Newer { path, version },
        }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NoSpace { path } => write!(f, "no space for the snapshot {path}"),
            SnapshotError::NoRoom { path, bytes, free } => {
                write!(f, "no space for the snapshot {path}: it takes {bytes} bytes, and the disk has {free} left")
            }
            SnapshotError::Disk { path, error } => write!(f, "cannot use the snapshot {path}: {error}; check the disk"),
            SnapshotError::Damaged { path, offset, what } => {
                write!(f, "the snapshot is damaged: {path} at offset {offset}: {what}")
            }
            SnapshotError::Newer { path, version } => write!(
                f,
                "the snapshot {path} has format version {version}, this version knows up to {VERSION}: start the \
                 version that wrote it"
            ),
            SnapshotError::Superseded { by } => write!(f, "there is a snapshot as of entry {by} already"),
            SnapshotError::OutOfPlace { expected } => {
                write!(f, "the snapshot goes on at offset {expected}, and something else came")
            }
            SnapshotError::TooLong => f.write_str("something is too long for a snapshot"),
            SnapshotError::OutOfOrder => f.write_str("the items of a snapshot are not in the order of their keys"),
            SnapshotError::Ended => f.write_str("the snapshot was given up after an earlier error"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::Disk { error, .. } => Some(error),
            _ => None,
        }
    }
}
