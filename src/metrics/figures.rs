//! What a node tells of itself when its metrics are scraped: plain values, as the cores had them when they were asked.

use std::sync::OnceLock;

use bytes::Bytes;
use raftkv_protocol::client::Status;
use raftkv_protocol::types::{CoreId, NodeId, ShardId};

use super::Counters;
use super::histogram::{Numbers, Sizes, SnapshotSizes, Times};
use super::latest::LatestMax;
use super::requests::Requests;

/// What a node's cores have told of it.
#[derive(Debug)]
pub struct Figures {
    /// Its shards, the health of its disk, and what holds on to its logs.
    pub status: Box<Status>,
    /// What its cores have counted, added up.
    pub counters: Counters,
    /// What became of the requests of all cores.
    pub requests: Box<Requests>,
    /// Its cores, in their order.
    pub cores: Vec<CoreFigures>,
    /// All this as text, in each form that somebody has asked for: many may have asked together.
    pub texts: Texts,
}

/// What is written once, when it is first asked for, in each of its forms.
#[derive(Debug, Default)]
pub struct Texts {
    /// In Prometheus's text format.
    pub prometheus: OnceLock<Bytes>,
    /// As OpenMetrics.
    pub open_metrics: OnceLock<Bytes>,
}

/// What a core knows of itself beyond its shards' status and its counters.
#[derive(Debug)]
pub struct CoreFigures {
    /// Which.
    pub core: CoreId,
    /// What it has measured.
    pub measures: Box<Measures>,
    /// What is measured of its log.
    pub log: LogFigures,
    /// Whether its link to each other node is up.
    pub links: Vec<(NodeId, bool)>,
    /// What became of its requests.
    pub requests: Box<Requests>,
    /// Its shards.
    pub shards: Vec<ShardFigures>,
}

/// What a core measures as it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// How long its turns have taken, in microseconds, the waiting between them apart.
    pub turn_times: Times,
    /// The longest of them lately.
    pub longest_turn: LatestMax,
    /// How many events each of its polls has reported.
    pub turn_events: Numbers,
    /// How many messages of other cores it has found, each time that there were some.
    pub inbox_depths: Numbers,
    /// How long its snapshots took, in microseconds.
    pub snapshot_times: Times,
    /// How many bytes they have.
    pub snapshot_bytes: SnapshotSizes,
    /// What they took of the turns that had to do with them, in microseconds of processor time.
    pub snapshot_holds: Times,
}

/// What is measured of a core's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// How long its syncs took, in microseconds.
    pub sync_times: Times,
    /// How many bytes each made durable, padding included.
    pub batch_bytes: Sizes,
    /// How many new entries each made durable.
    pub batch_entries: Numbers,
    /// Bytes that were added and are not durable yet.
    pub backlog_bytes: u64,
    /// Bytes of files that wait to be used as segments.
    pub spare_bytes: u64,
}

/// What a replica knows beyond its status.
#[derive(Debug)]
pub struct ShardFigures {
    /// Of which shard.
    pub shard: ShardId,
    /// Bytes of its keys and values.
    pub bytes: u64,
    /// Bytes of writes that are not committed, as far as this node leads.
    pub pending_bytes: u64,
    /// Entries in its log that are not committed, as far as this node leads.
    pub pending_entries: u64,
    /// Elections that this node has stood in.
    pub elections: u64,
    /// Writes that another leader's entry took the place of.
    pub overwritten: u64,
    /// Writes whose outcome was not known in time.
    pub expired: u64,
    /// As far as this node leads: how many entries of its log each follower is not known to have.
    pub lags: Vec<(NodeId, u64)>,
}

/// What the system says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Seconds of processors that it has used, in all its threads.
    pub cpu_s: f64,
    /// Bytes of memory that it has in use.
    pub resident_bytes: u64,
    /// Bytes of addresses that it has in use.
    pub virtual_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Files and sockets that are open.
    pub open_fds: u64,
    /// How many may be.
    pub max_fds: u64,
    /// When it started, in seconds since 1970.
    pub started_s: f64,
}
