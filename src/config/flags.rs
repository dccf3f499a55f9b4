//! The flags as they are written: names, help texts, defaults, and what a single value may be.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};
use log::LevelFilter;

use super::units::{Lease, duration, lease, log_level, memory_size, node_id, size};
use crate::limits::{BATCH_OPERATIONS_MAX, CLOCK_DRIFT_PPM_MAX, SCAN_ITEMS_MAX, SHARDS_MAX};

const EXAMPLES: &str = "\
Examples:
  raftkv-server
      one durable node on 127.0.0.1:7001, with its data in ./data/node1
  raftkv-server --local-cluster 3
      three nodes on this machine, on ports 7001 to 7003

  Three machines; the list of nodes is the same on each:
  ALL=1=10.0.0.1:7001,2=10.0.0.2:7001,3=10.0.0.3:7001
  raftkv-server --node-id 1 --listen 10.0.0.1:7001 --initial-cluster $ALL
  raftkv-server --node-id 2 --listen 10.0.0.2:7001 --initial-cluster $ALL
  raftkv-server --node-id 3 --listen 10.0.0.3:7001 --initial-cluster $ALL

Every flag can also be set in the environment (--node-id as RAFTKV_NODE_ID) and
in the TOML file that --config names (node-id = 1). A flag goes before the
environment, the environment before the file. Durations are written 250ms or
1s, sizes 1024, 64KiB or 64MiB.";

const PER_CORE: &str = "Limits of each core";

/// A strongly consistent, replicated key-value store.
#[derive(Clone, Debug, Parser)]
#[command(name = "raftkv-server", version, after_help = EXAMPLES, max_term_width = 120)]
pub(super) struct Flags {
    /// This node's id, at least 1
    #[arg(long, value_name = "ID", default_value = "1", value_parser = node_id)]
    pub node_id: u64,

    /// Where it listens for clients and peers
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7001")]
    pub listen: String,

    /// Where it listens for HTTP, or `off` [default: 1000 ports above --listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<String>,

    /// Where clients and peers reach it [default: its address in --initial-cluster, or --listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Where it keeps its data [default: ./data/node<ID>]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Read settings from this TOML file; its keys are the names of the flags
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check all settings as a start would, say so in one line, and end with exit code 0 or 2
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,

    /// Print every setting as it is, as a settings file, with where it comes from, and end
    #[arg(long)]
    pub print_config: bool,

    /// What it logs to stderr: off, error, warn, info, debug or trace. RUST_LOG goes before it; SIGHUP reads it again
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_level)]
    pub log_level: LevelFilter,

    /// Whether the page for people that `GET /` over HTTP shows offers to write and delete keys
    #[arg(long, value_name = "SWITCH", default_value = "off", default_missing_value = "on")]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub ui_write: Switch,

    /// Run this many nodes on this machine, as child processes on consecutive ports from --listen on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9), help_heading = "Cluster")]
    pub local_cluster: Option<u16>,

    /// Every node and its address, the same on all nodes [default: this node alone]
    #[arg(long, value_name = "ID=HOST:PORT,…", help_heading = "Cluster")]
    pub initial_cluster: Option<String>,

    /// Nodes of other clusters are turned away by the cluster's id: its name, its nodes and its shards
    #[arg(long, value_name = "NAME", default_value = "raftkv", help_heading = "Cluster")]
    pub cluster_name: String,

    /// Raft groups that the keys are divided among; fixed when the cluster is born
    #[arg(long, value_name = "N", default_value = "12", help_heading = "Cluster")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    pub shards: u16,

    /// How often a leader sends heartbeats
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration, help_heading = "Cluster")]
    pub heartbeat: Duration,

    /// How long a follower waits for them before it stands for election
    #[arg(long, value_name = "TIME", default_value = "800ms", value_parser = duration, help_heading = "Cluster")]
    pub election_timeout: Duration,

    /// Answer reads that ask for it by leases that last this long, from twice --heartbeat to --election-timeout: needs
    /// clocks that keep --clock-drift-max
    #[arg(long, value_name = "TIME or off", default_value = "off", value_parser = lease, help_heading = "Cluster")]
    pub lease: Lease,

    /// How much a clock may be too fast or too slow, in millionths: leases count on it
    #[arg(long, value_name = "N", default_value = "100000", help_heading = "Cluster")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(CLOCK_DRIFT_PPM_MAX)))]
    pub clock_drift_max: u32,

    /// Event loops, each with its own log; with another number a start moves the shards to as many logs
    /// [default: those that the data directory has, or else the machine's cores, at most --shards]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Tuning")]
    pub cores: Option<u16>,

    /// Bytes of a log segment; a fresh node fills four per core with zeros
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size, help_heading = "Tuning")]
    pub segment_size: u64,

    /// How batches are placed in the log
    #[arg(long, value_name = "WAY", default_value = "direct", help_heading = "Tuning")]
    pub log_io: LogIo,

    /// Who does it: a thread of its own, or the event loop, which stands still meanwhile
    #[arg(long, value_name = "WHO", default_value = "thread", help_heading = "Tuning")]
    pub log_sync: LogSync,

    /// A node whose syncs of the log take longer hands its shards to others, if a majority does better
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration, help_heading = "Tuning")]
    pub slow_sync: Duration,

    /// Bytes of a shard's entries after which it is snapshotted, so that the log before can go
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size, help_heading = "Tuning")]
    pub snapshot_log_bytes: u64,

    /// The most bytes of keys and values that are written into the node's own snapshots in a second; more while a log is
    /// longer than half of --core-log-bytes-max, or has only its reserve left
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size, help_heading = "Tuning")]
    pub snapshot_write_rate: u64,

    /// Bytes of keys and values, 64 more for each key, that a core reads again in a second to find memory that has changed by
    /// itself; small shards are read at each checkpoint besides
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size, help_heading = "Tuning")]
    pub scrub_rate: u64,

    /// Bytes of a shard's newest entries that stay in the log for nodes that lag
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size, help_heading = "Tuning")]
    pub log_tail_bytes: u64,

    /// The longest key
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = memory_size, help_heading = "Limits")]
    pub key_bytes_max: usize,

    /// The longest value
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = memory_size, help_heading = "Limits")]
    pub value_bytes_max: usize,

    /// The most operations of a batch
    #[arg(long, value_name = "N", default_value = "128", help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=BATCH_OPERATIONS_MAX as i64))]
    pub batch_operations_max: u32,

    /// The most bytes of the keys and values of a batch
    #[arg(long, value_name = "SIZE", default_value = "1280KiB", value_parser = memory_size, help_heading = "Limits")]
    pub batch_bytes_max: usize,

    /// The most keys in a page of a scan
    #[arg(long, value_name = "N", default_value = "1000", help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(SCAN_ITEMS_MAX)))]
    pub scan_items_max: u32,

    /// The most bytes in a page of a scan
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = memory_size, help_heading = "Limits")]
    pub scan_bytes_max: usize,

    /// The most client connections
    #[arg(long, value_name = "N", default_value = "10000", help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: u32,

    /// The most requests in flight on a connection
    #[arg(long, value_name = "N", default_value = "1024", help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub inflight_max: u32,

    /// Reply bytes that may wait on a connection before no more is read from it
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = memory_size, help_heading = "Limits")]
    pub reply_bytes_max: usize,

    /// Proposed but uncommitted bytes of a shard before writes are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = "Limits")]
    pub uncommitted_bytes_max: usize,

    /// How long a connection may take to say hello
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Limits")]
    pub hello_timeout: Duration,

    /// How long nothing, not a byte, may come from a node of which a snapshot is fetched
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = "Limits")]
    pub snapshot_timeout: Duration,

    /// The longest head of an HTTP request
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = memory_size, help_heading = "Limits")]
    pub http_header_bytes_max: usize,

    /// How long the head of an HTTP request may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = "Limits")]
    pub http_header_timeout: Duration,

    /// How long the body of an HTTP request may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Limits")]
    pub http_body_timeout: Duration,

    /// How long an HTTP connection may rest before it is closed
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration, help_heading = "Limits")]
    pub http_idle_timeout: Duration,

    /// Requests in flight on an HTTP/2 connection
    #[arg(long, value_name = "N", default_value = "128", help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub http_streams_max: u32,

    /// How long a request may take before it is given up
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Limits")]
    pub request_timeout: Duration,

    /// How long an ordered stop may take before the node ends with requests unanswered
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Limits")]
    pub stop_timeout: Duration,

    /// Proposed but uncommitted bytes of a core's shards before writes are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_uncommitted_bytes_max: usize,

    /// Bytes that the log holds and the disk has not taken before writes are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_backlog_bytes_max: usize,

    /// Bytes of requests that wait for a leader before others are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_parked_bytes_max: usize,

    /// Bytes of requests that wait for other nodes before others are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_forwarded_bytes_max: usize,

    /// Bytes of requests that wait for a core before the other cores' are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_inbox_bytes_max: usize,

    /// Bytes of bodies of HTTP requests that are not whole yet before others are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_http_body_bytes_max: usize,

    /// Reply bytes asked for and not read, on all connections, before reads are refused as overloaded
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_reply_bytes_max: usize,

    /// Scans over all shards at a time; more wait
    #[arg(long, value_name = "N", default_value = "16", help_heading = PER_CORE)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub core_scans_max: u32,

    /// Scans that may wait before others are refused as overloaded
    #[arg(long, value_name = "N", default_value = "4096", help_heading = PER_CORE)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub core_scans_waiting_max: u32,

    /// Requests for the metrics that are served at a time before others are refused as overloaded
    #[arg(long, value_name = "N", default_value = "64", help_heading = PER_CORE)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub core_scrapes_max: u32,

    /// Unsent bytes on a link to another node before it takes nothing more
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub link_bytes_max: usize,

    /// Bytes of the log before the shards that hold on to its oldest segments are made to let go
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size, help_heading = PER_CORE)]
    pub core_log_bytes_max: u64,

    /// Bytes of the log's newest entries kept in memory, for followers that lag a little
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = memory_size, help_heading = PER_CORE)]
    pub core_log_memory_max: usize,

    /// Bytes of snapshots taken from other nodes in a second
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = size, help_heading = PER_CORE)]
    pub snapshot_rate: u64,
}

/// What is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// How a log places its batches in its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogIo {
    /// With a write past the page cache that is durable when it returns.
    #[default]
    Direct,
    /// With a write through the page cache that is durable when it returns.
    Buffered,
    /// Through the memory map, then one sync.
    Map,
}

impl ValueEnum for LogIo {
    fn value_variants<'a>() -> &'a [LogIo] {
        &[LogIo::Direct, LogIo::Buffered, LogIo::Map]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            LogIo::Map => "map",
            LogIo::Buffered => "buffered",
            LogIo::Direct => "direct",
        }))
    }
}

/// Who places a log's batches and makes them durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogSync {
    /// A thread of the log.
    #[default]
    Thread,
    /// The core's event loop, at the end of each turn.
    Inline,
}

impl ValueEnum for LogSync {
    fn value_variants<'a>() -> &'a [LogSync] {
        &[LogSync::Thread, LogSync::Inline]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            LogSync::Thread => "thread",
            LogSync::Inline => "inline",
        }))
    }
}
