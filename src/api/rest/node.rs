//! What the node tells of itself: `/v1/status`, `/v1/cluster`, `/livez` and `/readyz`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use raftkv_protocol::client::{LogHold, ShardStatus, SlotTable, Status};
use raftkv_protocol::health::Verdict;
use serde::Serialize;

use super::body::json;
use super::{Rest, params};
use crate::api::ask::{OwnedAnswer, OwnedOperation, OwnedRefusal};
use crate::api::node_handle::Check;

#[derive(Serialize)]
struct Member<'a> {
    id: u64,
    address: &'a str,
}

#[derive(Serialize)]
struct NodeStatus<'a> {
    cluster_id: String,
    node_id: u64,
    incarnation: String,
    version: &'a str,
    disk: &'static str,
    sync_ms: u64,
    members: Vec<Member<'a>>,
    shards: Vec<Shard>,
    log_holds: Vec<Hold<'a>>,
    counters: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Shard {
    id: u16,
    role: &'static str,
    term: u64,
    leader: Option<u64>,
    commit: u64,
    applied: u64,
    persisted: u64,
    last_index: u64,
    last_term: u64,
    snapshot_index: u64,
    keys: u64,
    state_hash: String,
    repairing: bool,
    diverged: Option<&'static str>,
}

#[derive(Serialize)]
struct Hold<'a> {
    core: u16,
    shard: u16,
    log_bytes: u64,
    log_bytes_max: u64,
    bytes: u64,
    reason: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Cluster<'a> {
    cluster_id: String,
    members: Vec<Member<'a>>,
    shards: Vec<ClusterShard>,
}

#[derive(Serialize)]
struct ClusterShard {
    id: u16,
    leader: Option<u64>,
    term: u64,
}

fn members(nodes: &[(raftkv_protocol::types::NodeId, String)]) -> Vec<Member<'_>> {
    nodes.iter().map(|(id, address)| Member { id: id.0, address }).collect()
}

fn shard(shard: &ShardStatus) -> Shard {
    Shard {
        id: shard.id.0,
        role: shard.role.name(),
        term: shard.term.0,
        leader: shard.leader.map(|node| node.0),
        commit: shard.commit.0,
        applied: shard.applied.0,
        persisted: shard.persisted.0,
        last_index: shard.last.index.0,
        last_term: shard.last.term.0,
        snapshot_index: shard.snapshot.index.0,
        keys: shard.keys,
        state_hash: format!("{:032x}", shard.state_hash),
        repairing: shard.is_repairing,
        diverged: shard.divergence.map(|divergence| why_not_served(divergence.verdict)),
    }
}

/// What is wrong with a replica that does not serve.
pub fn why_not_served(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Diverged => "this replica's state is another than that of the majority",
        Verdict::Undecided => "the replicas' states differ, and no majority has the same",
        Verdict::Corrupt => "this replica's memory does not hold what was written to it",
    }
}

fn hold(hold: &LogHold) -> Hold<'_> {
    Hold {
        core: hold.core.0,
        shard: hold.shard.0,
        log_bytes: hold.log_bytes,
        log_bytes_max: hold.log_bytes_max,
        bytes: hold.bytes,
        reason: hold.reason.name(),
        message: &hold.message,
    }
}

fn node_status(status: &Status) -> NodeStatus<'_> {
    NodeStatus {
        cluster_id: status.cluster.to_string(),
        node_id: status.node.0,
        incarnation: status.incarnation.to_string(),
        version: &status.version,
        disk: status.disk.name(),
        sync_ms: status.sync_ms,
        members: members(&status.nodes),
        shards: status.shards.iter().map(shard).collect(),
        log_holds: status.holds.iter().map(hold).collect(),
        counters: status.counters.iter().map(|(name, value)| (name.clone(), (*value).into())).collect(),
    }
}

/// `GET /v1/status`: this node's shards, log and counters.
pub async fn status(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    params::none(request.uri().query())?;
    let (_, answer) = rest.ask(OwnedOperation::Status).await?;
    let OwnedAnswer::Status(status) = answer else { return Err(rest.unexpected()) };
    Ok(json(&rest, &node_status(&status)))
}

/// `GET /v1/cluster`: the members, and who leads which shard as far as this node knows.
pub async fn cluster(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    params::none(request.uri().query())?;
    let (_, answer) = rest.ask(OwnedOperation::Slots).await?;
    let OwnedAnswer::Slots(table) = answer else { return Err(rest.unexpected()) };
    Ok(json(&rest, &cluster_of(&table)))
}

fn cluster_of(table: &SlotTable) -> Cluster<'_> {
    let shards = (0..).zip(&table.leaders);
    let shards =
        shards.map(|(id, (leader, term))| ClusterShard { id, leader: leader.map(|node| node.0), term: term.0 });
    Cluster { cluster_id: table.cluster.to_string(), members: members(&table.nodes), shards: shards.collect() }
}

/// `GET /livez`.
pub async fn livez(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    let verbose = params::verbose(request.uri().query())?;
    Ok(verdict(&rest.health.live(rest.timer.now()), verbose))
}

/// `GET /readyz`.
pub async fn readyz(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    let verbose = params::verbose(request.uri().query())?;
    Ok(verdict(&rest.health.ready(rest.timer.now()), verbose))
}

/// 200 or 503, with the checks that failed; with all of them if that is asked for.
fn verdict(checks: &[Check], verbose: bool) -> Response {
    let is_well = checks.iter().all(|check| check.fault.is_none());
    let mut text = String::new();
    for check in checks {
        match &check.fault {
            Some(fault) => text.push_str(&format!("[-] {}: {fault}\n", check.name)),
            None if verbose => text.push_str(&format!("[+] {} ok\n", check.name)),
            None => {}
        }
    }
    text.push_str(if is_well { "ok\n" } else { "failed\n" });
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
