//! From a key to its slot, its shard, the shard's leader and the leader's address.
//!
//! ```
//! use raftkv::client::{SlotTable, NodeId, Term};
//! use raftkv::client::slots::SlotMap;
//!
//! let table = SlotTable {
//!     nodes: vec![(NodeId(1), "10.0.0.1:7001".into())],
//!     leaders: vec![(Some(NodeId(1)), Term(3)), (None, Term(2))],
//!     ..SlotTable::default()
//! };
//! let map = SlotMap::new(table);
//! assert_eq!(map.shards(), 2);
//! assert_eq!(map.leader(raftkv::client::ShardId(0)), Some(NodeId(1)));
//! assert_eq!(map.address(NodeId(1)), Some("10.0.0.1:7001"));
//! ```

use raftkv_protocol::client::SlotTable;
use raftkv_protocol::types::{NodeId, ShardId, Slot, Term};

/// The slot table with the questions that clients have about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotMap {
    table: SlotTable,
}

impl SlotMap {
    /// Answers from this table; [`Client::slots`](super::Client::slots) fetches one.
    #[must_use]
    pub fn new(table: SlotTable) -> SlotMap {
        SlotMap { table }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &SlotTable {
        &self.table
    }

    /// How many shards the cluster has; 0 before a table is known.
    #[must_use]
    pub fn shards(&self) -> u16 {
        // A table with more shards than slots makes no sense; what is beyond owns no slot.
        u16::try_from(self.table.leaders.len()).unwrap_or(u16::MAX)
    }

    /// The shard that owns the key; `None` before a table is known.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> Option<ShardId> {
        match self.shards() {
            0 => None,
            shards => Some(Slot::of(key).shard(shards)),
        }
    }

    /// The shard's leader as far as is known.
    #[must_use]
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.table.leaders.get(usize::from(shard.0)).and_then(|(leader, _)| *leader)
    }

    /// Where clients reach the node.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.table.nodes.iter().find(|(id, _)| *id == node).map(|(_, address)| address.as_str())
    }

    /// Where to send a request for this key, if its shard's leader is known.
    #[must_use]
    pub fn leader_address(&self, key: &[u8]) -> Option<&str> {
        self.address(self.leader(self.shard_of(key)?)?)
    }

    /// The shards that the node leads.
    pub fn led_by(&self, node: NodeId) -> impl Iterator<Item = ShardId> + '_ {
        (0..self.shards()).map(ShardId).filter(move |shard| self.leader(*shard) == Some(node))
    }

    /// Whether `term` is newer than what the table knows of the shard, or the table knows no leader of it.
    pub(super) fn is_behind(&self, shard: ShardId, term: Term) -> bool {
        self.table
            .leaders
            .get(usize::from(shard.0))
            .is_some_and(|(leader, known)| term > *known || (leader.is_none() && term == *known))
    }

    /// Takes over what another table knows better: of each shard the leader of the higher term. A term has one leader,
    /// so that another one known for the same term comes from a redirect, and is younger.
    pub(super) fn merge(&mut self, newer: SlotTable) {
        if newer.leaders.len() != self.table.leaders.len() {
            self.table = newer;
            return;
        }
        for (known, told) in self.table.leaders.iter_mut().zip(newer.leaders) {
            if told.1 > known.1 || (told.1 == known.1 && known.0.is_none()) {
                *known = told;
            }
        }
        self.table.nodes = newer.nodes;
    }

    /// Takes over what node `from` said when it refused to serve the shard: that `leader` leads it in `term` (0 if it
    /// did not say). Older news is believed only about `from` itself.
    pub(super) fn redirect(&mut self, shard: ShardId, leader: Option<NodeId>, term: Term, from: Option<NodeId>) {
        let Some(known) = self.table.leaders.get_mut(usize::from(shard.0)) else { return };
        if term > known.1 || known.0.is_none() || known.0 == from {
            *known = (leader, term.max(known.1));
        }
    }
}
