//! What a node is told: flags over environment over file over defaults, checked as a whole.
//!
//! It reads the command line, the environment, the settings file and, for the number of cores that a data directory
//! was born with, that directory. It starts nothing. Every refusal is one line that names the setting and says what to
//! do; the process ends with exit code 2.

mod address;
mod file;
mod flags;
mod layers;
mod local;
mod names;
mod print;
mod units;
mod written;

#[cfg(test)]
mod asking_test;
#[cfg(test)]
mod config_test;
#[cfg(test)]
mod local_test;
#[cfg(test)]
mod reference_test;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use raftkv_protocol::types::{ClusterId, NodeId};

use crate::error::Fatal;
use crate::limits::{Limits, SEGMENT_BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::storage::data_dir::{self, Identity};

pub use flags::{LogIo, LogSync};
pub use local::{LocalCluster, LocalNode};
pub use written::Settings;

use flags::{Flags, Switch};
use layers::{Asked, Layered};

/// What the process is to do.
#[derive(Debug)]
pub enum Mode {
    /// Be a node.
    Node(Box<Config>),
    /// Run several nodes as child processes.
    LocalCluster(LocalCluster),
    /// Print this and end: the help text or the version.
    Print(String),
}

/// The settings of one node, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node_id: NodeId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it listens for HTTP, if it does.
    pub http_listen: Option<SocketAddr>,
    /// Whether the page for people offers to write keys.
    pub ui_write: bool,
    /// Where clients and peers reach it: its address in `initial_cluster`.
    pub advertise: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Every voter and its address, this node among them, sorted by id.
    pub initial_cluster: Vec<(NodeId, String)>,
    /// Raft groups of the cluster.
    pub shards: u16,
    /// Event loops of this node; at most `shards`.
    pub cores: u16,
    /// How often leaders send heartbeats.
    pub heartbeat: Duration,
    /// How long a follower waits for them.
    pub election_timeout: Duration,
    /// How long leases last, if there are any.
    pub lease: Option<Duration>,
    /// How much a node's clock may be too fast or too slow, in millionths.
    pub clock_drift_ppm_max: u32,
    /// Part of the cluster id.
    pub cluster_name: String,
    /// Bytes of a log segment.
    pub segment_size: u64,
    /// How the log places its batches.
    pub log_io: LogIo,
    /// Who places them and makes them durable.
    pub log_sync: LogSync,
    /// What a sync of the log may take before the node's disk counts as slow.
    pub slow_sync: Duration,
    /// The least important of what is logged.
    pub log_level: LevelFilter,
    /// Everything else that is bounded.
    pub limits: Limits,
}

impl Config {
    /// The cluster's id: derived from its name, members and shards.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::derive(&self.cluster_name, &self.initial_cluster, self.shards)
    }

    /// The other voters, and where they are reached. Host names are looked up now.
    pub fn peer_addresses(&self) -> Result<Vec<(NodeId, SocketAddr)>, Fatal> {
        let others = self.initial_cluster.iter().filter(|(id, _)| *id != self.node_id);
        let resolve = |id, address| address::resolve(&format!("--initial-cluster: node {id} at"), address);
        others.map(|(id, address)| Ok((*id, resolve(*id, address)?))).collect()
    }

    /// Whose data directory this node opens.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            cluster: self.cluster_id(),
            cluster_name: self.cluster_name.clone(),
            members: self.initial_cluster.clone(),
            shards: self.shards,
            node: self.node_id,
            cores: self.cores,
        }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Reading {
    /// What the process is to do.
    pub mode: Mode,
    /// The settings of a node as they were written; none for several nodes.
    pub settings: Settings,
    /// What its operator should hear of the settings, in one line each.
    pub warnings: Vec<String>,
}

/// Reads the settings. `args` are those after the program's name, `env` the variables of the environment.
pub fn read(args: Vec<OsString>, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Reading, Fatal> {
    let env: BTreeMap<OsString, OsString> = env.into_iter().collect();
    let layered = match layers::read(args, &env)? {
        Asked::Run(layered) => *layered,
        Asked::Print(text) => {
            return Ok(Reading { mode: Mode::Print(text), settings: Settings::default(), warnings: Vec::new() });
        }
    };
    let ignored = |variable: &String| format!("the environment has {variable}, which is no setting: it is ignored");
    let warnings = layered.ignored.iter().map(ignored).collect();
    let (mode, settings) = match layered.flags.local_cluster {
        Some(nodes) => (several_nodes(&layered, nodes)?, Settings::default()),
        None => one_node(&layered)?,
    };
    Ok(Reading { mode, settings, warnings })
}

fn one_node(layered: &Layered) -> Result<(Mode, Settings), Fatal> {
    let (flags, config) = (&layered.flags, check(&layered.flags)?);
    let settings = Settings::new(layered, &config);
    let mode = if flags.print_config {
        Mode::Print(print::settings(&settings)?)
    } else if flags.check_config {
        config.peer_addresses()?;
        let (id, nodes, name) = (config.node_id, config.initial_cluster.len(), &config.cluster_name);
        Mode::Print(format!("the settings are right: node {id} of {nodes} of the cluster {name}\n"))
    } else {
        Mode::Node(Box::new(config))
    };
    Ok((mode, settings))
}

fn several_nodes(layered: &Layered, nodes: u16) -> Result<Mode, Fatal> {
    let cluster = local::plan(layered, nodes)?;
    if layered.flags.print_config {
        return Err(Fatal::usage("--print-config prints the settings of one node: leave --local-cluster out"));
    }
    if layered.flags.check_config {
        return Ok(Mode::Print(format!("the settings are right: {nodes} nodes on this machine\n")));
    }
    Ok(Mode::LocalCluster(cluster))
}

/// The definition of the command line.
#[must_use]
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Makes the settings of one node of its flags.
fn check(flags: &Flags) -> Result<Config, Fatal> {
    let node_id = NodeId(flags.node_id);
    let listen = address::resolve("--listen", &flags.listen)?;
    let initial_cluster = members(flags, node_id)?;
    let own = initial_cluster.iter().find(|(id, _)| *id == node_id).map(|(_, address)| address.clone());
    let advertise = own.ok_or_else(|| {
        Fatal::usage(format!("--node-id {node_id} is not in --initial-cluster; add {node_id}=HOST:PORT to it"))
    })?;
    check_cluster(flags)?;
    check_segment_size(flags.segment_size)?;
    let limits = limits(flags);
    limits.check().map_err(Fatal::usage)?;
    let data_dir = flags.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("./data/node{node_id}")));
    let cores = match flags.cores {
        Some(cores) => cores,
        None => data_dir::recorded_cores(&data_dir)?.unwrap_or_else(|| available_cores().min(flags.shards)),
    };
    if cores > flags.shards {
        return Err(Fatal::usage(format!(
            "--cores {cores} is more than --shards {}: a core without a shard would idle; use at most {0} cores",
            flags.shards
        )));
    }
    Ok(Config {
        node_id,
        listen,
        http_listen: http_listen(flags, listen)?,
        ui_write: flags.ui_write == Switch::On,
        advertise,
        data_dir,
        initial_cluster,
        shards: flags.shards,
        cores,
        heartbeat: flags.heartbeat,
        election_timeout: flags.election_timeout,
        lease: flags.lease.0,
        clock_drift_ppm_max: flags.clock_drift_max,
        cluster_name: flags.cluster_name.clone(),
        segment_size: flags.segment_size,
        log_io: flags.log_io,
        log_sync: flags.log_sync,
        slow_sync: flags.slow_sync,
        log_level: flags.log_level,
        limits,
    })
}

/// How far above the port of `--listen` the one for HTTP lies, unless it is set.
const HTTP_PORT_OFFSET: u16 = 1_000;

/// Where the node listens for HTTP: a thousand ports above `--listen` unless it is told otherwise.
fn http_listen(flags: &Flags, listen: SocketAddr) -> Result<Option<SocketAddr>, Fatal> {
    match flags.http_listen.as_deref() {
        Some("off") => Ok(None),
        Some(address) => address::resolve("--http-listen", address).map(Some),
        None if listen.port() == 0 => Ok(Some(listen)),
        None => match listen.port().checked_add(HTTP_PORT_OFFSET) {
            Some(port) => Ok(Some(SocketAddr::new(listen.ip(), port))),
            None => Err(Fatal::usage(format!(
                "--listen {listen} leaves no room for the port of HTTP, which is {HTTP_PORT_OFFSET} above it: set \
                 --http-listen HOST:PORT, or --http-listen off"
            ))),
        },
    }
}

/// Every member and its address, sorted by id.
fn members(flags: &Flags, node_id: NodeId) -> Result<Vec<(NodeId, String)>, Fatal> {
    let advertised = flags.advertise.as_deref();
    if let Some(address) = advertised {
        address::check_dialable("--advertise", address)?;
    }
    let Some(list) = &flags.initial_cluster else {
        let address = advertised.unwrap_or(&flags.listen);
        address::check_dialable("--listen", address)?;
        return Ok(vec![(node_id, address.to_owned())]);
    };
    let members = address::parse_members(list)?;
    let listed = members.iter().find(|(id, _)| *id == node_id).map(|(_, address)| address.as_str());
    match (advertised, listed) {
        (Some(advertised), Some(listed)) if advertised != listed => Err(Fatal::usage(format!(
            "--advertise {advertised} differs from {node_id}={listed} in --initial-cluster; \
             the others dial what the list says, so leave --advertise out"
        ))),
        _ => Ok(members),
    }
}

fn check_cluster(flags: &Flags) -> Result<(), Fatal> {
    let name = &flags.cluster_name;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(Fatal::usage(format!(
            "--cluster-name `{}` must be 1 to 64 letters, digits, dots, dashes or underscores",
            name.escape_debug()
        )));
    }
    if flags.election_timeout < 2 * flags.heartbeat {
        return Err(Fatal::usage(format!(
            "--election-timeout {} must be at least twice --heartbeat {}, or one late heartbeat unseats a leader",
            units::show_duration(flags.election_timeout),
            units::show_duration(flags.heartbeat)
        )));
    }
    check_lease(flags)
}

/// A lease is renewed by heartbeats, and elections wait until what it rests on has run out.
fn check_lease(flags: &Flags) -> Result<(), Fatal> {
    let Some(lease) = flags.lease.0 else { return Ok(()) };
    let allowed = 2 * flags.heartbeat..=flags.election_timeout;
    if allowed.contains(&lease) {
        return Ok(());
    }
    let [lease, least, most] = [lease, *allowed.start(), *allowed.end()].map(units::show_duration);
    Err(Fatal::usage(format!(
        "--lease {lease} must be from twice --heartbeat, {least}, so that one late heartbeat does not end it, to \
         --election-timeout, {most}"
    )))
}

fn check_segment_size(bytes: u64) -> Result<(), Fatal> {
    let allowed = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
    if allowed.contains(&bytes) && bytes.is_multiple_of(SEGMENT_BLOCK_BYTES) {
        return Ok(());
    }
    let [size, least, most, block] =
        [bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, SEGMENT_BLOCK_BYTES].map(units::show_size);
    Err(Fatal::usage(format!("--segment-size {size} must be from {least} to {most} and a multiple of {block}")))
}

fn limits(flags: &Flags) -> Limits {
    Limits {
        key_bytes_max: flags.key_bytes_max,
        value_bytes_max: flags.value_bytes_max,
        batch_operations_max: flags.batch_operations_max as usize,
        batch_bytes_max: flags.batch_bytes_max,
        scan_items_max: flags.scan_items_max as usize,
        scan_bytes_max: flags.scan_bytes_max,
        connections_max: flags.connections_max as usize,
        inflight_max: flags.inflight_max as usize,
        reply_bytes_max: flags.reply_bytes_max,
        uncommitted_bytes_max: flags.uncommitted_bytes_max,
        core_uncommitted_bytes_max: flags.core_uncommitted_bytes_max,
        core_backlog_bytes_max: flags.core_backlog_bytes_max,
        core_parked_bytes_max: flags.core_parked_bytes_max,
        core_forwarded_bytes_max: flags.core_forwarded_bytes_max,
        core_inbox_bytes_max: flags.core_inbox_bytes_max,
        core_reply_bytes_max: flags.core_reply_bytes_max,
        core_scans_max: flags.core_scans_max as usize,
        core_scans_waiting_max: flags.core_scans_waiting_max as usize,
        core_scrapes_max: flags.core_scrapes_max as usize,
        link_bytes_max: flags.link_bytes_max,
        snapshot_log_bytes: flags.snapshot_log_bytes,
        log_tail_bytes: flags.log_tail_bytes,
        core_log_bytes_max: flags.core_log_bytes_max,
        core_log_memory_max: flags.core_log_memory_max,
        snapshot_rate: flags.snapshot_rate,
        snapshot_write_rate: flags.snapshot_write_rate,
        scrub_rate: flags.scrub_rate,
        snapshot_timeout: flags.snapshot_timeout,
        http_header_bytes_max: flags.http_header_bytes_max,
        http_streams_max: flags.http_streams_max as usize,
        core_http_body_bytes_max: flags.core_http_body_bytes_max,
        http_header_timeout: flags.http_header_timeout,
        http_body_timeout: flags.http_body_timeout,
        http_idle_timeout: flags.http_idle_timeout,
        hello_timeout: flags.hello_timeout,
        request_timeout: flags.request_timeout,
        stop_timeout: flags.stop_timeout,
    }
}

fn available_cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}
