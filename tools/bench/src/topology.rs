//! Who leads what, and which connection goes where.
//!
//! A connection goes to one node and says which shard is its home, so that the node can serve it on the core that
//! owns that shard. Connections are dealt out over the shards in an order in which their leaders alternate: each
//! node gets its share, and a run with fewer connections than shards still spreads over the nodes.

use std::collections::BTreeMap;

use raftkv_protocol::client::SlotTable;
use raftkv_protocol::types::{NodeId, ShardId, Term};

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The node that is dialled.
    pub node: NodeId,
    /// The shard named in the hello. The node leads it.
    pub home: ShardId,
}

/// The newest that is known of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: BTreeMap<NodeId, String>,
    leaders: Vec<(Option<NodeId>, Term)>,
}

impl Topology {
    /// What a first table says.
    pub fn new(table: SlotTable) -> Topology {
        Topology { nodes: table.nodes.into_iter().collect(), leaders: table.leaders }
    }

    /// Learns from another table, shard by shard: a node may lag behind what is already known. True if a leader changed.
    pub fn merge(&mut self, table: SlotTable) -> bool {
        self.nodes.extend(table.nodes);
        let mut changed = false;
        for (known, told) in self.leaders.iter_mut().zip(table.leaders) {
            let newer = told.1 > known.1 || (told.1 == known.1 && known.0.is_none());
            if newer && told.0.is_some() {
                changed |= known.0 != told.0;
                *known = told;
            }
        }
        changed
    }

    /// How many shards the cluster has.
    pub fn shards(&self) -> u16 {
        self.leaders.len() as u16
    }

    /// How many terms have begun since an earlier state, over all shards: each is an election.
    pub fn terms_since(&self, earlier: &Topology) -> u64 {
        let terms = self.leaders.iter().zip(&earlier.leaders);
        terms.map(|((_, now), (_, then))| now.0.saturating_sub(then.0)).sum()
    }

    /// Shards that no leader is known for.
    pub fn leaderless(&self) -> usize {
        self.leaders.iter().filter(|(leader, _)| leader.is_none()).count()
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.nodes.iter().map(|(&node, address)| (node, address.as_str()))
    }

    /// Where a node listens.
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node).map(String::as_str)
    }

    /// The node that follows in the order of ids, around the circle.
    pub fn node_after(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.keys().copied().find(|&other| other > node).or_else(|| self.nodes.keys().copied().next())
    }

    /// The shards that a node leads.
    pub fn led_by(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        (0u16..).map(ShardId).zip(&self.leaders).filter(move |(_, led)| led.0 == Some(node)).map(|(shard, _)| shard)
    }

    /// The targets of `conns` connections, drawing from the shards that `wanted` accepts.
    pub fn plan(&self, conns: usize, wanted: impl Fn(ShardId) -> bool) -> Vec<Target> {
        let mut by_node: Vec<Vec<Target>> = self
            .nodes
            .keys()
            .map(|&node| self.led_by(node).filter(|&shard| wanted(shard)).map(|home| Target { node, home }).collect())
            .collect();
        by_node.retain(|targets| !targets.is_empty());
        let rounds = by_node.iter().map(Vec::len).max().unwrap_or(0);
        let order: Vec<Target> = (0..rounds)
            .flat_map(|round| by_node.iter().filter_map(move |targets| targets.get(round)))
            .copied()
            .collect();
        order.iter().copied().cycle().take(if order.is_empty() { 0 } else { conns }).collect()
    }
}

/// Moves as few connections as possible from where they are to what is planned: those whose target is still in the
/// plan stay. Both slices have one element per connection.
pub fn reassign(current: &[Target], planned: &[Target]) -> Vec<Target> {
    let mut quota: BTreeMap<Target, usize> = BTreeMap::new();
    for &target in planned {
        *quota.entry(target).or_default() += 1;
    }
    let mut take = |target: Target| match quota.get_mut(&target) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    let stays: Vec<bool> = current.iter().map(|&target| take(target)).collect();
    let mut open = planned.iter().copied().filter(|&target| take(target));
    current
        .iter()
        .zip(stays)
        .map(|(&target, stays)| if stays { target } else { open.next().unwrap_or(target) })
        .collect()
}
