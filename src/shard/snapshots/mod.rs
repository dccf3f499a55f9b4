//! Snapshots off the loop: one worker for each core writes down the states of its shards, serves pieces of them to other
//! nodes, takes other nodes' in, and loads them. It has threads of its own, or is moved by hand.
//!
//! A worker does one step at a time: a short job (a piece that is read or written) or about 256 KiB of a long one, and
//! long ones take turns, so that nobody who waits for a piece waits for a snapshot. It speaks with the loop through
//! channels; the loop never waits for it. States that are not needed any more are dropped here, too: with millions of
//! keys that takes longer than a turn may.
//!
//! A snapshot that cannot be written or read is said, and nothing else comes of it: what was there before stays.

mod jobs;
mod load;
mod loop_end;
mod stores;
mod work;
mod worker;

#[cfg(test)]
mod full_disk_test;
#[cfg(test)]
mod load_test;
#[cfg(test)]
mod worker_test;
#[cfg(test)]
mod worker_thread_test;

pub use jobs::{Done, Failure, Job, Loaded, PieceFor};
pub use load::{Found, Unfound, find};
pub use loop_end::Snapshots;
pub use stores::Stores;
pub use worker::{Effort, Pace, SnapshotHands, SnapshotWorker, snapshot_worker};

/// What one step of a long job handles, in bytes of keys and values.
const STEP_BYTES: usize = 256 << 10;
