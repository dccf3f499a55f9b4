//! The command lines of the trials.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::args::parse_duration;

/// Where and how a trial runs its nodes.
#[derive(Clone, Debug, Args)]
pub struct Site {
    /// The server's binary
    #[arg(long, default_value = "target/release/raftkv-server")]
    pub server: PathBuf,
    /// Where the temporary directory with the nodes' data is made: on a real disk
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    /// Further flags for every node
    #[arg(last = true)]
    pub server_flags: Vec<String>,
}

/// What is stored. Keys have 16 bytes.
#[derive(Clone, Debug, Args)]
pub struct Data {
    /// How many distinct keys, as in 1M, 100k, 500
    #[arg(long, default_value = "1M", value_parser = parse_count)]
    pub keys: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_bytes: u32,
}

/// The load that a trial puts on its cluster.
#[derive(Clone, Debug, Args)]
pub struct Drive {
    /// Connections in all
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub conns: u32,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub inflight: u32,
}

/// Flags of the restart.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Loads the keys while small snapshots are taken, so that each node has a snapshot of everything; starts the nodes \
again with a threshold that is never reached, and overwrites keys until --log-bytes of log lie behind the \
snapshots, over all shards. Then, again and again, kills all nodes at once (SIGKILL), starts them, and asks each \
for a key of every shard, linearizably, from the moment that the processes are started on. The first start only \
warms the cache and does not count.

Example:
  raftkv-bench restart --keys 1M --value-bytes 128 --trials 10")]
pub struct Restart {
    /// What is stored
    #[command(flatten)]
    pub data: Data,
    /// Bytes of log behind the snapshots, of all shards of a node together, as in 64MiB
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    pub log_bytes: u64,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// How often all nodes are killed and started again
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub trials: u32,
    /// Where
    #[command(flatten)]
    pub site: Site,
}

/// In which order keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Each behind all others of its shard
    Rising,
    /// Shuffled, the same each time
    Random,
}

/// Flags of the memory measurement.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
For three nodes and for one: resident memory of the empty processes, with the keys, and after a kill and a start \
with the same data, each once it has stood still for --still. Bytes per key count from the empty process.

The newest entries of the log stay in memory too, for followers: at most 8 MiB per core, the default of --core-log-memory-max; \
the summary says how much that is at most, by what was written. A node that was started again has none of them, \
until it writes.

Example:
  raftkv-bench memory --keys 1M --value-bytes 128 -- --cores 1")]
pub struct Memory {
    /// What is stored
    #[command(flatten)]
    pub data: Data,
    /// In which order the keys are written
    #[arg(long, value_enum, default_value_t = Order::Rising)]
    pub order: Order,
    /// How long memory must stand still before it is read
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub still: Duration,
    /// Where
    #[command(flatten)]
    pub site: Site,
}

/// Flags of the snapshots' cost.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Loads the keys, measures the most puts in a closed loop without snapshots, and then, in an open loop at half of \
that, the p99 of puts in pairs: once while every node is asked for snapshots of all that it stores, again as soon \
as they are there, and once while none is taken, the order alternating. Nothing else takes any, as the nodes' \
counters show. The nodes go on from phase to phase. The result is the median of the pairs' ratios; besides, the most processor \
time that snapshots took of one turn of a node's loop.

Example:
  raftkv-bench snapshots --keys 1M --pairs 10 -- --snapshot-write-rate 64MiB")]
pub struct Snapshots {
    /// What is stored
    #[command(flatten)]
    pub data: Data,
    /// How many pairs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// How long each phase is measured
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before that, which does not count
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// The load
    #[command(flatten)]
    pub drive: Drive,
    /// Where
    #[command(flatten)]
    pub site: Site,
}

/// Flags of catching up.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Three nodes. One is killed, and all keys are written, with a threshold for snapshots so small that the other \
nodes' logs begin behind the end of its own: they have taken two snapshots of every shard since, the older of \
which is where a log begins. Puts go on while it is started again, until it has applied on every shard what was \
committed a moment before.

Puts are measured before it is killed, while it is away, while it catches up, and afterwards, each over \
--duration but the third, which ends with it. By default they are a closed loop, as fast as it goes; --rate \
makes it an open one.

Example:
  raftkv-bench catch-up --keys 1M --rate 20000 --snapshot-rate 16MiB")]
pub struct CatchUp {
    /// What is stored
    #[command(flatten)]
    pub data: Data,
    /// How long puts are measured before and after
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before that, which does not count
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// The nodes' setting of this name: bytes of snapshots that a core takes from others in a second
    #[arg(long, default_value = "8MiB", value_parser = parse_size)]
    pub snapshot_rate: u64,
    /// How long it may take to catch up
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub patience: Duration,
    /// Puts a second in an open loop
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// The load
    #[command(flatten)]
    pub drive: Drive,
    /// Where
    #[command(flatten)]
    pub site: Site,
}

/// Flags of the endless overwrites.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Overwrites few keys without end and looks every second at the bytes on each node's disk. The bound of a node's \
logs is, for each core, the log that is kept and the files besides. Kept is --core-log-bytes-max, above which \
shards are made to let go, or, if that is more, twice what its shards need: each --log-tail-bytes, or three \
times --snapshot-log-bytes (the log between two snapshots, that since the second, and what comes while a third \
is written). Besides there are files of --segment-size: six spares, the segment that is being written, and the \
one that is being begun.
Ends with exit code 1 if the logs of any node ever took more.

Example:
  raftkv-bench overwrite --minutes 30 --core-log-bytes-max 1GiB --snapshot-log-bytes 16MiB")]
pub struct Overwrite {
    /// How many distinct keys, as in 1000, 100k
    #[arg(long, default_value = "1000", value_parser = parse_count)]
    pub keys: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_bytes: u32,
    /// For how many minutes
    #[arg(long, default_value_t = 30.0, value_parser = parse_minutes)]
    pub minutes: f64,
    /// The nodes' setting of this name
    #[arg(long, default_value = "4GiB", value_parser = parse_size)]
    pub core_log_bytes_max: u64,
    /// The nodes' setting of this name
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    pub segment_size: u64,
    /// The nodes' setting of this name
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    pub snapshot_log_bytes: u64,
    /// The nodes' setting of this name
    #[arg(long, default_value = "16MiB", value_parser = parse_size)]
    pub log_tail_bytes: u64,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// The load
    #[command(flatten)]
    pub drive: Drive,
    /// Where
    #[command(flatten)]
    pub site: Site,
}

/// Flags of the write amplification.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Puts in a closed loop; what the nodes' processes wrote to the disk meanwhile (/proc/PID/io) over the bytes of \
keys and values that were put, for a node and for all together. What it consists of: records of the log (by the \
format's sizes), headers and padding of batches (what the log handed to the disk besides), segments filled with \
zeros ahead (new files), snapshots (their files' sizes), and the rest.

Example:
  raftkv-bench amplification --keys 100k --duration 2m")]
pub struct Amplification {
    /// How many distinct keys, as in 1M, 100k, 500
    #[arg(long, default_value = "100k", value_parser = parse_count)]
    pub keys: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_bytes: u32,
    /// How long to put
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// The load
    #[command(flatten)]
    pub drive: Drive,
    /// Where
    #[command(flatten)]
    pub site: Site,
}

/// A number of keys: `500`, `100k`, `1M`.
pub(crate) fn parse_count(text: &str) -> Result<u32, String> {
    let (digits, unit) = split(text);
    let unit = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        _ => return Err("the units are k and M".into()),
    };
    let count = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    count.filter(|&count| count > 0).ok_or_else(|| "not a number of keys such as 1M or 500".into())
}

/// A number of bytes: `4096`, `64MiB`, as the server writes them.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let unit = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("the units are KiB, MiB and GiB".into()),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    size.ok_or_else(|| "not a size such as 4096 or 64MiB".into())
}

pub(crate) fn parse_minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number of minutes")?;
    if minutes > 0.0 && minutes <= 10_000.0 { Ok(minutes) } else { Err("not between 0 and 10000".into()) }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}
