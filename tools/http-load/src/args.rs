//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use raftkv_bench::args::parse_duration;

/// The load of raftkv-bench over HTTP: for REST, gRPC and etcd, measured and reported alike.
///
/// Each connection goes to one node and draws its keys from the shards which that node leads; with etcd, all go to the
/// leader.
#[derive(Debug, Parser)]
#[command(name = "http-load", version, args_conflicts_with_subcommands = true)]
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
    /// Serves REST's keys from a map in memory, with axum and hyper on tokio's runtime of several threads
    Serve(Serve),
    /// Holds connections open that do nothing or little, and says what each takes of the server's memory
    Hold(Hold),
}

/// Who answers, and how it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// etcd over gRPC, straight on HTTP/2: a full gRPC client takes several times as much processor time.
    Etcd,
    /// etcd over gRPC, with tonic's client.
    EtcdTonic,
    /// RaftKV over gRPC, with tonic's client.
    Tonic,
    /// RaftKV over REST, HTTP/1.1.
    Rest,
    /// The reference server over REST, HTTP/1.1.
    Reference,
}

impl Target {
    /// Whether its connections are HTTP/1.1.
    pub fn is_http1(self) -> bool {
        matches!(self, Target::Rest | Target::Reference)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Overwrite keys.
    Put,
    /// Read keys, linearizably.
    Get,
}

/// Flags of the load.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// Addresses of the nodes for HTTP, HOST:PORT, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:8001")]
    pub endpoints: Vec<String>,
    /// Who answers, and how it is asked
    #[arg(long, value_enum, default_value = "rest")]
    pub target: Target,
    /// What is asked
    #[arg(long, value_enum, default_value = "put")]
    pub workload: Workload,
    /// Connections in all
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub conns: u32,
    /// Requests in flight on each connection; HTTP/1.1 takes one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub inflight: u32,
    /// Bytes of a key
    #[arg(long, default_value_t = 16)]
    pub key_size: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128)]
    pub value_size: u32,
    /// How many keys there are; requests are uniform over them
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub keys: u32,
    /// How long to measure
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Load before that, which does not count
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub warmup: Duration,
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

/// Flags of the reference server.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// Threads of the runtime
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
}

/// What a held connection has done before it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// HTTP/1.1: a get has been answered.
    Http,
    /// HTTP/2: a get has been answered.
    Http2,
    /// The binary protocol: it has been welcomed.
    Binary,
}

/// Flags of what holds connections.
#[derive(Clone, Debug, Args)]
pub struct Hold {
    /// Where to: the node's address for HTTP, or for the binary protocol
    #[arg(long, default_value = "127.0.0.1:8001")]
    pub endpoint: SocketAddr,
    /// Connections that do nothing more once they are open
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub idle: u32,
    /// What these are
    #[arg(long, value_enum, default_value = "http")]
    pub kind: Kind,
    /// Further connections, of HTTP/1.1: one half send a put byte by byte, the others read a large value as slowly
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub slow: u32,
    /// How long a slow connection waits after each byte that it sends, and each kilobyte that it reads
    #[arg(long, default_value = "50ms", value_parser = parse_duration)]
    pub pause: Duration,
    /// The server, whose memory is looked at before and after
    #[arg(long)]
    pub pid: Option<u32>,
    /// End once all are open and the line about them is printed; otherwise they are held until SIGTERM
    #[arg(long)]
    pub once: bool,
}
