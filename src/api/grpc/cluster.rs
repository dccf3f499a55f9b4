//! `raftkv.v1.Cluster`: what the node knows of itself.

use std::sync::Arc;

use raftkv_protocol::client as told;
use tonic::{Request, Response, Status};

use super::generated::raftkv::cluster_server::Cluster;
use super::generated::raftkv::{LogHold, Member, Shard, StatusRequest, StatusResponse};
use super::status;
use crate::api::ask::{OwnedAnswer, OwnedOperation};
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// The nodes, by way of one.
#[derive(Debug)]
pub struct Nodes(pub Arc<NodeHandle>);

#[tonic::async_trait]
impl Cluster for Nodes {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        match self.0.ask(OwnedOperation::Status).await {
            Ok((_, OwnedAnswer::Status(told))) => Ok(Response::new(response(*told))),
            Ok(_) => Err(status::of(self.0.unexpected(), &self.0, None)),
            Err(refusal) => Err(status::of(refusal, &self.0, Some(Task::Status))),
        }
    }
}

fn response(status: told::Status) -> StatusResponse {
    StatusResponse {
        cluster_id: status.cluster.to_string(),
        node_id: status.node.0,
        incarnation: status.incarnation.to_string(),
        version: status.version,
        disk: status.disk.name().to_owned(),
        sync_ms: status.sync_ms,
        members: status.nodes.into_iter().map(|(id, address)| Member { id: id.0, address }).collect(),
        shards: status.shards.iter().map(shard).collect(),
        log_holds: status.holds.into_iter().map(hold).collect(),
        counters: status.counters.into_iter().collect(),
    }
}

fn shard(shard: &told::ShardStatus) -> Shard {
    Shard {
        id: shard.id.0.into(),
        role: shard.role.name().to_owned(),
        term: shard.term.0,
        leader: shard.leader.map(|node| node.0),
        commit: shard.commit.0,
        applied: shard.applied.0,
        persisted: shard.persisted.0,
        last_index: shard.last.index.0,
        last_term: shard.last.term.0,
        snapshot_index: shard.snapshot.index.0,
        keys: shard.keys,
        state_hash: shard.state_hash.to_be_bytes().to_vec().into(),
        repairing: shard.is_repairing,
        diverged: shard.divergence.is_some(),
    }
}

fn hold(hold: told::LogHold) -> LogHold {
    LogHold {
        core: hold.core.0.into(),
        shard: hold.shard.0.into(),
        log_bytes: hold.log_bytes,
        log_bytes_max: hold.log_bytes_max,
        bytes: hold.bytes,
        reason: hold.reason.name().to_owned(),
        message: hold.message,
    }
}
