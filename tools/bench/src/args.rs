//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::trials::args as trials;

const EXAMPLES: &str = "\
Examples:
  Puts on a single local node, a table as result:
    raftkv-bench --endpoints 127.0.0.1:7001

  Linearizable gets on three nodes, with the servers' CPU and memory, JSON as the last line:
    raftkv-bench --endpoints 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003 \\
        --workload get --conns 64 --inflight 4 --pids \"$(pgrep -d, raftkv-server)\" --json

  An open loop of 20,000 operations a second, nine reads to a write; latencies count from the intended send time:
    raftkv-bench --workload mixed --read-ratio 0.9 --rate 20000

  The limit of the machine: the same frames answered by servers without Raft and without a disk:
    C=1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103
    for n in 1 2 3; do raftkv-bench null-server --node-id $n --cluster $C & done
    raftkv-bench --target null --endpoints 127.0.0.1:7101 --workload get

  From the kill of a node to the first put on each shard that it led:
    raftkv-bench failover --server target/release/raftkv-server --trials 20

  The life of a cluster that is started for it; each has its own --help:
    raftkv-bench restart --trials 10
    raftkv-bench memory
    raftkv-bench snapshots --pairs 10
    raftkv-bench catch-up --rate 20000
    raftkv-bench overwrite --minutes 30
    raftkv-bench amplification";

/// The load generator of RaftKV.
///
/// Keeps a number of requests in flight on each connection and reports throughput, latency percentiles and errors.
/// Each connection goes to one node and draws its keys from the shards which that node leads.
#[derive(Debug, Parser)]
#[command(name = "raftkv-bench", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do other than to generate load.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Other uses.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answers the same frames without Raft and without a disk
    NullServer(NullServer),
    /// Measures the time from the death of a node to the first put on every shard that it led
    Failover(Failover),
    /// Measures the time from the start of killed nodes to gets on every shard through each
    Restart(trials::Restart),
    /// Measures the memory that keys take
    Memory(trials::Memory),
    /// Measures what snapshots cost the puts beside them
    Snapshots(trials::Snapshots),
    /// Measures how a node that was away for long catches up, and what that costs
    CatchUp(trials::CatchUp),
    /// Overwrites few keys for long and checks that the logs stay within their bound
    Overwrite(trials::Overwrite),
    /// Measures the bytes written to the disk for a byte that was put
    Amplification(trials::Amplification),
}

/// What is asked of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Overwrite keys.
    Put,
    /// Read keys, linearizably.
    Get,
    /// Both, see --read-ratio.
    Mixed,
    /// Pages of --scan-limit keys from a random key on.
    Scan,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// A cluster of raftkv-server.
    Raftkv,
    /// Null servers: there is nothing to prefill.
    Null,
}

/// Flags of the load generator.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// Nodes to learn the cluster from, HOST:PORT, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub endpoints: Vec<String>,
    /// Who answers
    #[arg(long, value_enum, default_value = "raftkv")]
    pub target: Peer,
    /// What is asked
    #[arg(long, value_enum, default_value = "put")]
    pub workload: Workload,
    /// Connections in all
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub conns: u32,
    /// Requests in flight on each connection (a server takes 1024 at most by default)
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub inflight: u32,
    /// Bytes of a key
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub key_size: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_size: u32,
    /// How many keys there are; requests are uniform over them
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub keys: u32,
    /// How long to measure, as in 20s, 500ms, 2m
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before that, which does not count
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Open loop: so many requests a second in all, whatever the servers do; latency counts from the intended send time
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// The share of gets in a mixed workload, 0 to 1
    #[arg(long, default_value_t = 0.5, value_parser = parse_ratio)]
    pub read_ratio: f64,
    /// Keys in a page of a scan
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub scan_limit: u32,
    /// Repeats the same sequence of keys and values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Do not write every key once before the load
    #[arg(long)]
    pub no_prefill: bool,
    /// Print one JSON object as the last line instead of a table
    #[arg(long)]
    pub json: bool,
    /// Processes whose CPU time and memory are reported: the servers
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Give a request up after this time
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// Flags of the null server.
#[derive(Clone, Debug, Args)]
pub struct NullServer {
    /// Which node of the cluster this is
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: u64,
    /// Where to listen; by default this node's address in --cluster
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Every node, as in 1=127.0.0.1:7101,2=127.0.0.1:7102; leaders are spread evenly. By default this node alone
    #[arg(long, value_delimiter = ',', value_parser = parse_member)]
    pub cluster: Vec<(u64, SocketAddr)>,
    /// How many shards to pretend
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub shards: u16,
    /// Bytes of the value that a get is answered with
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_size: u32,
}

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Death {
    /// SIGKILL: its connections break, which the others notice.
    Kill,
    /// SIGSTOP: it falls silent, and nothing tells.
    Stop,
}

/// Flags of the fail-over measurement.
#[derive(Clone, Debug, Args)]
pub struct Failover {
    /// The server's binary
    #[arg(long, default_value = "target/release/raftkv-server")]
    pub server: PathBuf,
    /// How many nodes to start, on loopback, with data in a temporary directory
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    pub nodes: u64,
    /// How many times a node dies and comes back
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub trials: u32,
    /// How it dies
    #[arg(long, value_enum, default_value = "kill")]
    pub signal: Death,
    /// Where the temporary directory is made
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    /// Further flags for every node
    #[arg(last = true)]
    pub server_flags: Vec<String>,
}

/// `20s`, `1.5s`, `500ms`, `2m`, or plain seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err("the units are ms, s and m".into()),
    };
    let number: f64 = digits.parse().map_err(|_| "not a duration such as 20s or 500ms")?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("not between 0 and 1".into()) }
}

fn parse_member(text: &str) -> Result<(u64, SocketAddr), String> {
    let (id, address) = text.split_once('=').ok_or("not ID=ADDRESS:PORT")?;
    Ok((
        id.parse().map_err(|_| format!("{id} is not a node id"))?,
        address.parse().map_err(|_| format!("{address} is not an ADDRESS:PORT"))?,
    ))
}
