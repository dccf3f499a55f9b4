//! What a node is told: flags over environment over file over defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raftkv_protocol::types::{ClusterId, NodeId};

use crate::limits::Limits;

/// The settings of one node, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node_id: NodeId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What the others are told to dial; `listen` unless set.
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
    /// Part of the cluster id.
    pub cluster_name: String,
    /// Bytes of a log segment.
    pub segment_size: u64,
    /// Everything else that is bounded.
    pub limits: Limits,
}

impl Config {
    /// The cluster's id: derived from its name, members and shards.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::derive(&self.cluster_name, &self.initial_cluster, self.shards)
    }
}
