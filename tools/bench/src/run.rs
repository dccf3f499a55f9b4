//! What the threads of a run share.

use crate::meter::Meter;
use crate::operations::Mix;

/// A run.
#[derive(Debug)]
pub struct Run {
    /// What the requests look like.
    pub mix: Mix,
    /// The keys of each shard.
    pub key_sets: Vec<Vec<u32>>,
    /// Connections in all.
    pub conns: usize,
    /// Requests in flight on each.
    pub inflight: usize,
    /// Requests a second in all; `None` for a closed loop.
    pub rate: Option<u64>,
    /// Threads that share the connections.
    pub threads: usize,
    /// Where the sequences of keys and values begin.
    pub seed: u64,
    /// A request without a reply is given up after this.
    pub timeout_ns: u64,
    /// The clock and the counts.
    pub meter: Meter,
}
