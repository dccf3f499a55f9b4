//! Everything that touches the disk: the log of one core, shared by its shards.
//!
//! The event loop owns a [`FileLog`], which never blocks. What the loop adds gathers in a batch (`batch`); the syncer
//! thread (`syncer`) places a batch into the current segment and makes it durable with one sync, or the loop itself does
//! so between two turns, if it is told to ([`LogSync::Inline`]); the allocator thread
//! (`spares`) prepares segments ahead; the reader thread (`reader`) brings back entries that are no longer in memory;
//! `recovery` reads all of it after a start. They reach files through [`disk::Disk`] only, so that a simulated disk
//! ([`simulated_disk`]) can stand in for the real one under the same format, placement and recovery; and a simulation
//! opens a log without threads and moves its three [`Workers`] itself.
//!
//! [`snapshot`] holds the states of shards as of one entry each, in files of their own.
//!
//! The log knows shards, terms and indexes. It must not know what an entry's body means, nor anything of Raft's roles.
//!
//! **What the format guarantees**, and where it is said in bytes: [`record`], [`batch`], [`segment`].
//!
//! - An acknowledged byte is never written again, and batch n+1 is placed only after the sync of batch n.
//! - A torn tail is told from corruption by what later bytes prove durable; corruption is refused, never cut. Whoever can
//!   get back what is lost writes what is sound anew ([`salvage_shards`]), and takes durable note of that first.
//! - After a start, the log goes on in a new segment that seals its predecessor.
//! - The first failed write or sync ends the log; it is never tried again.
//! - A segment is let go when a later one restates what is known of each shard, durably, and no entry behind the starts
//!   that it states lies in it or before it.

pub mod batch;
pub mod blemish;
mod core_log;
pub mod disk;
mod given;
pub mod inspect;
pub mod memory;
mod reader;
pub mod record;
mod recovery;
mod replay;
mod resize;
mod runs;
mod salvage;
pub mod segment;
pub mod simulated_disk;
mod simulated_file;
pub mod snapshot;
mod spares;
mod start;
mod stats;
mod stepped;
mod syncer;
mod tail;
mod tip;
mod workers;

#[cfg(test)]
mod ahead_test;
#[cfg(test)]
mod blemish_test;
#[cfg(test)]
mod compaction_test;
#[cfg(test)]
mod conformance_test;
#[cfg(test)]
mod copy_forward_test;
#[cfg(test)]
mod core_log_test;
#[cfg(test)]
mod disk_test;
#[cfg(test)]
mod given_test;
#[cfg(test)]
mod inline_test;
#[cfg(test)]
mod kills_test;
#[cfg(test)]
mod log_by_hand;
#[cfg(test)]
mod reader_test;
#[cfg(test)]
mod record_test;
#[cfg(test)]
mod recovery_test;
#[cfg(test)]
mod recycling_test;
#[cfg(test)]
mod release_test;
#[cfg(test)]
mod replay_test;
#[cfg(test)]
mod resize_test;
#[cfg(test)]
mod rot_test;
#[cfg(test)]
mod runs_test;
#[cfg(test)]
mod salvage_test;
#[cfg(test)]
mod simulated_disk_test;
#[cfg(test)]
mod spares_test;
#[cfg(test)]
mod workers_test;

pub mod data_dir;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use core_log::{FileLog, LogSync, Options};
pub use disk::LogIo;
pub use memory::MemoryLog;
pub use recovery::{Newest, RecoveryReport, check, check_closely, newest};
pub use resize::{SalvagedLog, move_shards, salvage_log, salvage_shards};
pub use salvage::{begin_anew, damage};
pub use stats::LogStats;
pub use workers::Workers;

use raftkv_protocol::types::{Entry, EntryId, HardState, Index, ShardId, SnapshotId, Term};

use crate::metrics::figures::LogFigures;

/// Wakes the loop that owns a log: a batch is durable, a fetch is finished, or the space changed.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A log that was idle for this long proves its last batch durable with a watermark.
const IDLE: Duration = Duration::from_millis(10);

/// Numbers the batches of one core's log: the records gathered while the batch before them is being synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// The log of one core, shared by its shards. It never blocks: what it is given gathers in a batch, a batch is
/// handed to the syncer by [`CoreLog::flush`], and the loop is woken when it is durable.
pub trait CoreLog {
    /// Adds entries of a shard (drained from `entries`) to the gathering batch. The first discards everything of
    /// the shard from its index on; it is at most one past the shard's last.
    fn append(&mut self, shard: ShardId, entries: &mut Vec<Entry>);

    /// Adds a shard's new term and vote to the gathering batch.
    fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState);

    /// Nothing of the shard up to `start`, an entry of its log, is needed any more: it belongs to this snapshot, which is
    /// durable. The log starts there from now on, and never earlier again: a `start` before that is ignored. Nothing is
    /// written for it, so that after a crash the log may start earlier; the space is set free by and by.
    fn compact(&mut self, shard: ShardId, start: EntryId, snapshot: SnapshotId);

    /// Adds to the gathering batch that this snapshot, which is durable, takes the place of all that the shard's log
    /// holds: it is empty and starts after `start`.
    fn reset(&mut self, shard: ShardId, start: EntryId, snapshot: SnapshotId);

    /// Entries of the shard whose place keeps space from being set free are written again by and by, with the batches to
    /// come. For a shard that cannot be compacted; it changes nothing but where the entries lie. Does nothing if it has
    /// begun already. While there is only the reserve left, it takes a small part of that at most.
    fn copy_forward(&mut self, shard: ShardId);

    /// Whether entries of the shard are being written again, see [`CoreLog::copy_forward`].
    fn is_copying(&self, shard: ShardId) -> bool;

    /// Bytes of the segments that the log consists of; 0 if it lies in none.
    fn held_bytes(&self) -> u64;

    /// The shard whose oldest entry keeps the oldest segments from being let go, if any does: with the bytes of whole
    /// segments that could go if its log started later. They are 0 if another shard needs the same segment; that one is
    /// named next. What a shard was compacted to already counts, although segments go only when the next one begins.
    fn pinned_by(&self) -> Option<(ShardId, u64)>;

    /// The batch after whose durability everything added so far is durable. May be one that is durable already.
    fn last_batch(&self) -> BatchNumber;

    /// Hands the gathering batch to the syncer, unless it is empty or a batch is being synced.
    fn flush(&mut self);

    /// The newest batch that is durable, with all before it. The first failure is final: the node stops.
    fn durable(&mut self) -> Result<BatchNumber, LogError>;

    /// The shard's term and vote that are durable, although the batch that holds them is not: on a full disk they do not
    /// wait for it. `None` if none went ahead.
    fn hard_state_ahead(&self, shard: ShardId) -> Option<HardState>;

    /// The entries of a shard with these indexes, if all of them are in memory still.
    fn tail(&self, shard: ShardId, first: Index, last: Index) -> Option<impl Iterator<Item = &Entry>>;

    /// Asks for entries that are no longer in memory: from `first` up to `last` or `bytes_max` bytes of bodies,
    /// at least one. They are read off the loop, which is woken; [`CoreLog::fetched`] hands them out.
    fn fetch(&mut self, fetch: Fetch);

    /// The next finished fetch, in any order.
    fn fetched(&mut self) -> Option<Fetched>;

    /// Bytes that were added and are not durable yet. They stay in memory however long the disk hangs, and a leader
    /// whose followers' disks work commits without its own: whoever takes writes in must look at this.
    fn backlog_bytes(&self) -> usize;

    /// Whether the log has room for ordinary writes.
    fn space(&self) -> Space;

    /// What is measured of it.
    fn figures(&self) -> LogFigures;
}

/// A request to read entries off the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Whose.
    pub shard: ShardId,
    /// The caller's name for it.
    pub tag: u64,
    /// The first index.
    pub first: Index,
    /// The last index wanted.
    pub last: Index,
    /// Stop before exceeding this many bytes of bodies, but read at least one entry.
    pub bytes_max: usize,
}

/// What a [`Fetch`] brought.
#[derive(Debug)]
pub struct Fetched {
    /// What was asked.
    pub fetch: Fetch,
    /// Consecutive entries from `fetch.first`, or why they could not be read. Entries that were discarded meanwhile
    /// are [`FetchError::Gone`].
    pub result: Result<Vec<Entry>, FetchError>,
}

/// Why a fetch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchError {
    /// Truncated or compacted meanwhile: ask again with what is there now.
    Gone,
    /// The disk returned something else than was written: file, offset and entry named. The node stops.
    Corrupt(String),
}

/// Room in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Everything may be written.
    Plenty,
    /// Only the reserve is left: HardState, no-ops, configuration and deletes may be written, puts are refused.
    ReserveOnly,
}

/// The log failed: one line that names the file and what to do. Nothing written since is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError(pub String);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// What the log remembers of one shard, all of it durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredShard {
    /// Term and vote.
    pub hard_state: HardState,
    /// The entry before the first in the log.
    pub start: EntryId,
    /// The snapshot that `start` belongs to.
    pub snapshot: SnapshotId,
    /// Term and body size of every entry after `start`, in order.
    pub entries: Vec<(Term, u32)>,
}
