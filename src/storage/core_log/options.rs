//! How a log is opened.

use std::fmt;
use std::path::PathBuf;

use raftkv_protocol::types::ShardId;

use crate::storage::Wake;
use crate::storage::disk::LogIo;
use crate::storage::segment::SEGMENT_BYTES;

/// The default of [`Options::tail_bytes_max`].
const TAIL_BYTES_MAX: usize = 8 << 20;

/// Who places batches and makes them durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogSync {
    /// A thread of the log, while the loop goes on.
    #[default]
    Thread,
    /// The loop, when it calls [`FileLog::sync_inline`](super::FileLog::sync_inline).
    Inline,
}

/// How to open a log.
#[derive(Clone)]
pub struct Options {
    /// The directory; created if it does not exist.
    pub dir: PathBuf,
    /// The shards of the core.
    pub shards: Vec<ShardId>,
    /// Bytes of a segment, a multiple of 4,096 and at least 64 KiB. An entry larger than that gets a larger segment.
    pub segment_size: u64,
    /// The most bytes of durable entries that stay in memory.
    pub tail_bytes_max: usize,
    /// How batches reach the disk.
    pub io: LogIo,
    /// Who brings them there.
    pub sync: LogSync,
    /// The most bytes that all files of the log may take together; `None` for as many as the disk has.
    pub max_bytes: Option<u64>,
    /// Called by the log's workers when the loop should look.
    pub wake: Wake,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, shards: Vec<ShardId>, wake: Wake) -> Options {
        Options {
            dir: dir.into(),
            shards,
            segment_size: SEGMENT_BYTES,
            tail_bytes_max: TAIL_BYTES_MAX,
            io: LogIo::default(),
            sync: LogSync::default(),
            max_bytes: None,
            wake,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("dir", &self.dir).field("shards", &self.shards).finish_non_exhaustive()
    }
}
