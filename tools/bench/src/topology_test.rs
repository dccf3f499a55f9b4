use std::collections::BTreeMap;

use raftkv_protocol::client::SlotTable;
use raftkv_protocol::types::{ClusterId, NodeId, ShardId, Term};

use crate::topology::{Target, Topology, reassign};

/// A table in which shard `i` is led by `leaders[i]` (0: nobody) in the term given.
fn table(leaders: &[u64], term: u64) -> SlotTable {
    SlotTable {
        cluster: ClusterId(7),
        nodes: (1..=3).map(|id| (NodeId(id), format!("127.0.0.1:700{id}"))).collect(),
        leaders: leaders.iter().map(|&id| ((id != 0).then_some(NodeId(id)), Term(term))).collect(),
    }
}

fn per_node(targets: &[Target]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for target in targets {
        *counts.entry(target.node.0).or_default() += 1;
    }
    counts
}

#[test]
fn connections_are_spread_over_nodes_and_shards() {
    let topology = Topology::new(table(&[1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3], 1));
    let plan = topology.plan(64, |_| true);
    assert_eq!(per_node(&plan), BTreeMap::from([(1, 22), (2, 21), (3, 21)]));
    for target in &plan {
        assert!(topology.led_by(target.node).any(|shard| shard == target.home));
    }
    assert_eq!(per_node(&topology.plan(3, |_| true)), BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    assert_eq!(topology.plan(1, |_| true).len(), 1);
}

#[test]
fn nodes_get_connections_in_proportion_to_what_they_lead() {
    let topology = Topology::new(table(&[1, 1, 1, 2], 1));
    assert_eq!(per_node(&topology.plan(40, |_| true)), BTreeMap::from([(1, 30), (2, 10)]));
}

#[test]
fn shards_without_a_leader_or_without_keys_get_no_connections() {
    let topology = Topology::new(table(&[1, 0, 3], 1));
    assert_eq!(topology.leaderless(), 1);
    assert_eq!(per_node(&topology.plan(4, |_| true)), BTreeMap::from([(1, 2), (3, 2)]));
    assert_eq!(per_node(&topology.plan(4, |shard| shard == ShardId(2))), BTreeMap::from([(3, 4)]));
    assert!(topology.plan(4, |_| false).is_empty());
}

#[test]
fn a_table_of_a_lagging_node_changes_nothing() {
    let mut topology = Topology::new(table(&[1, 2, 3], 5));
    assert!(!topology.merge(table(&[2, 2, 2], 4)));
    assert!(!topology.merge(table(&[0, 0, 0], 6)), "that a node knows no leader is no news");
    assert!(!topology.merge(table(&[1, 2, 3], 5)));
    assert!(topology.merge(table(&[2, 2, 3], 6)));
    let earlier = Topology::new(table(&[1, 2, 3], 5));
    assert_eq!((topology.terms_since(&earlier), earlier.terms_since(&topology)), (3, 0));
    assert_eq!(topology.led_by(NodeId(2)).collect::<Vec<_>>(), [ShardId(0), ShardId(1)]);
}

#[test]
fn only_the_connections_of_a_moved_shard_move() {
    let mut topology = Topology::new(table(&[1, 2, 3, 1, 2, 3], 1));
    let before = topology.plan(12, |_| true);
    topology.merge(table(&[1, 2, 3, 2, 2, 3], 2));
    let after = reassign(&before, &topology.plan(12, |_| true));
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(moved, 2);
    assert_eq!(per_node(&after), BTreeMap::from([(1, 2), (2, 6), (3, 4)]));
}

#[test]
fn a_dead_nodes_connections_are_taken_over_by_the_others() {
    let mut topology = Topology::new(table(&[1, 2, 3, 1, 2, 3], 1));
    let before = topology.plan(6, |_| true);
    topology.merge(table(&[2, 2, 3, 3, 2, 3], 2));
    let after = reassign(&before, &topology.plan(6, |_| true));
    assert_eq!(per_node(&after), BTreeMap::from([(2, 3), (3, 3)]));
}
