//! What the cores of a node share. Nothing of it is on the data path but the leader table, which is a hint.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use raftkv_protocol::client::SlotTable;
use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId, ShardId, Term};

use crate::config::Config;
use crate::storage::data_dir::DataDir;

/// Another node of the cluster.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// One node, as all its cores see it.
#[derive(Debug)]
pub struct Node {
    /// Its settings.
    pub config: Config,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its data directory's.
    pub incarnation: Incarnation,
    /// The other voters.
    pub peers: Vec<Peer>,
    /// The leaders as the shards' owners last knew them.
    pub leaders: LeaderTable,
    /// Open client connections.
    pub connections: AtomicUsize,
    /// Accepted sockets that are open: clients, peers, and whoever has not said hello yet.
    pub sockets: AtomicUsize,
    /// More are closed at once, so that descriptors are left for logs and links.
    pub sockets_max: usize,
    /// Set when the node is to end: leadership is handed over and no new work begun.
    pub stopping: AtomicBool,
    /// Where peers' incarnations are remembered. Locked at hellos only.
    pub data_dir: Mutex<DataDir>,
}

impl Node {
    /// The core that owns a shard.
    #[must_use]
    pub fn owner(&self, shard: ShardId) -> CoreId {
        CoreId(shard.0 % self.config.cores)
    }

    /// Who should lead a shard, so that leaders spread over the nodes.
    #[must_use]
    pub fn preferred_leader(&self, shard: ShardId) -> NodeId {
        let voters = &self.config.initial_cluster;
        voters[usize::from(shard.0) % voters.len()].0
    }

    /// The slot table as far as this node knows.
    #[must_use]
    pub fn slot_table(&self) -> SlotTable {
        let shards = (0..self.config.shards).map(ShardId);
        SlotTable {
            cluster: self.cluster,
            nodes: self.config.initial_cluster.clone(),
            leaders: shards.map(|shard| self.leaders.get(shard)).collect(),
        }
    }

    /// Whether the node is to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Who leads which shard, as a hint for routing: each shard's owner writes, all cores read.
#[derive(Debug)]
pub struct LeaderTable {
    leaders: Vec<(AtomicU64, AtomicU64)>,
}

impl LeaderTable {
    /// A table that knows nothing yet.
    #[must_use]
    pub fn new(shards: u16) -> LeaderTable {
        LeaderTable { leaders: (0..shards).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect() }
    }

    /// The leader and the term in which it was known. The two may be of different moments.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> (Option<NodeId>, Term) {
        let (leader, term) = &self.leaders[usize::from(shard.0)];
        let leader = leader.load(Ordering::Relaxed);
        ((leader != 0).then_some(NodeId(leader)), Term(term.load(Ordering::Relaxed)))
    }

    /// Only the shard's owner calls this. True if it is news.
    pub fn set(&self, shard: ShardId, leader: Option<NodeId>, term: Term) -> bool {
        let entry = &self.leaders[usize::from(shard.0)];
        let leader = leader.map_or(0, |node| node.0);
        let news = entry.0.swap(leader, Ordering::Relaxed) != leader;
        entry.1.store(term.0, Ordering::Relaxed);
        news
    }
}
