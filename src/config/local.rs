//! Several nodes on one machine: what each child process is told.

use std::ffi::OsString;
use std::path::PathBuf;

use super::flags::Flags;
use super::layers::{Given, Layered, Origin};
use super::{Config, address, available_cores, check, layers};
use crate::error::Fatal;
use crate::storage::data_dir;

/// Segments are prefilled, and a trial is rarely about gigabytes.
const SEGMENT_SIZE: u64 = 8 << 20;

/// The nodes to run.
#[derive(Debug)]
pub struct LocalCluster {
    /// By id, from 1 on.
    pub nodes: Vec<LocalNode>,
}

/// One of them.
#[derive(Debug)]
pub struct LocalNode {
    /// Its settings, as it will understand `args`.
    pub config: Config,
    /// What its process is called with; nothing else must reach it from the environment.
    pub args: Vec<OsString>,
}

/// Divides the machine among `nodes` nodes. Settings that are not about a single node are handed to each.
pub(super) fn plan(layered: &Layered, nodes: u16) -> Result<LocalCluster, Fatal> {
    for name in ["node-id", "advertise", "initial-cluster"] {
        if layered.given.iter().any(|given| given.name == name) {
            return Err(Fatal::usage(format!("--local-cluster chooses --{name} for each node; leave it out")));
        }
    }
    let (host, port) = address::split("--listen", &layered.flags.listen)?;
    if port.checked_add(nodes - 1).is_none() {
        return Err(Fatal::usage(format!("--listen {host}:{port} leaves no room for the ports of {nodes} nodes")));
    }
    let addresses: Vec<String> = (0..nodes).map(|offset| format!("{host}:{}", port + offset)).collect();
    let http = http_addresses(&layered.flags, nodes)?;
    let members: Vec<String> = (1..).zip(&addresses).map(|(id, address)| format!("{id}={address}")).collect();
    let members = members.join(",");
    let plans = (1..).zip(addresses.iter().zip(&http)).map(|(id, (address, http))| {
        let node = Node { id, nodes, address, http: http.as_deref(), members: &members };
        plan_node(layered, &node)
    });
    Ok(LocalCluster { nodes: plans.collect::<Result<_, _>>()? })
}

/// Where the nodes listen for HTTP, if that is told: at consecutive ports too.
fn http_addresses(flags: &Flags, nodes: u16) -> Result<Vec<Option<String>>, Fatal> {
    let Some(listen) = flags.http_listen.as_deref().filter(|listen| *listen != "off") else {
        return Ok(vec![flags.http_listen.clone(); usize::from(nodes)]);
    };
    let (host, port) = address::split("--http-listen", listen)?;
    if port.checked_add(nodes - 1).is_none() {
        return Err(Fatal::usage(format!("--http-listen {listen} leaves no room for the ports of {nodes} nodes")));
    }
    Ok((0..nodes).map(|offset| Some(format!("{host}:{}", port + offset))).collect())
}

/// What one node is told that the others are not.
struct Node<'a> {
    id: u16,
    nodes: u16,
    address: &'a str,
    http: Option<&'a str>,
    members: &'a str,
}

fn plan_node(layered: &Layered, node: &Node<'_>) -> Result<LocalNode, Fatal> {
    let Node { id, nodes, address, http, members } = *node;
    let is_given = |name: &str| layered.given.iter().any(|given| given.name == name);
    let base = layered.flags.data_dir.clone().unwrap_or_else(|| PathBuf::from("./data"));
    let data_dir = base.join(format!("node{id}"));
    let mut flags = layered.flags.clone();
    flags.local_cluster = None;
    flags.node_id = u64::from(id);
    address.clone_into(&mut flags.listen);
    flags.http_listen = http.map(str::to_owned);
    flags.initial_cluster = Some(members.to_owned());
    flags.data_dir = Some(data_dir.clone());
    if flags.cores.is_none() && data_dir::recorded_cores(&data_dir)?.is_none() {
        flags.cores = Some((available_cores() / nodes).clamp(1, flags.shards));
    }
    if !is_given("segment-size") {
        flags.segment_size = SEGMENT_SIZE;
    }
    let config = check(&flags)?;

    let own = [
        ("node-id", id.to_string().into()),
        ("listen", address.into()),
        ("initial-cluster", members.into()),
        ("data-dir", data_dir.into_os_string()),
        ("cores", config.cores.to_string().into()),
        ("segment-size", config.segment_size.to_string().into()),
    ];
    let http = http.map(|address| ("http-listen", OsString::from(address)));
    let own: Vec<Given> = own
        .into_iter()
        .chain(http)
        .map(|(name, value)| Given { name: name.to_owned(), value, origin: Origin::Flag })
        .collect();
    let handed_on = layered
        .given
        .iter()
        .filter(|given| given.name != "local-cluster" && own.iter().all(|own| own.name != given.name));
    let args = own.iter().chain(handed_on).map(|given| layers::flag(&given.name, &given.value)).collect();
    Ok(LocalNode { config, args })
}
