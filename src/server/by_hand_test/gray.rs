//! Disks that hang or are slow: leadership leaves their node, stays away, and comes back.

use std::time::{Duration, Instant};

use raftkv_protocol::health::DiskHealth;
use raftkv_protocol::types::{NodeId, ShardId, Term};

use super::cluster::{Cluster, NODES, SHARDS, Sync};
use super::{counted, expect_value, key_of, replica, status_of, write};

/// Node 1 should lead shards 0 and 3, which lie on different cores.
pub(super) const OWN: [ShardId; 2] = [ShardId(0), ShardId(3)];
/// What a sync may take.
const BUDGET: Duration = Duration::from_millis(200);

/// A cluster in which every node leads what it should.
pub(super) fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::with_leaders(seed);
    cluster.run_until("the preferred nodes lead", |cluster| {
        (0..SHARDS).map(ShardId).all(|shard| leader(cluster, shard) == 1 + u64::from(shard.0) % NODES)
    });
    cluster.run(Duration::from_secs(1));
    cluster
}

pub(super) fn leader(cluster: &Cluster, shard: ShardId) -> u64 {
    cluster.known_leader(2, shard).map_or(0, |node| node.0)
}

pub(super) fn leads_nothing(cluster: &Cluster, node: u64) -> bool {
    (0..SHARDS).map(ShardId).all(|shard| !replica(cluster, node, shard).leads() && leader(cluster, shard) != node)
}

pub(super) fn terms(cluster: &Cluster) -> Vec<Term> {
    (0..SHARDS).map(|shard| replica(cluster, 2, ShardId(shard)).raft().term()).collect()
}

pub(super) fn transfers_away(cluster: &Cluster) -> u64 {
    (1..=NODES).map(|node| counted(cluster, node, |counters| counters.transfers_away)).sum()
}

/// Writes to a shard of every node, once a second.
pub(super) fn write_for(cluster: &mut Cluster, seconds: u64) {
    for _ in 0..seconds {
        for shard in (0..3).map(ShardId) {
            write(cluster, 2, &key_of(shard), b"value");
        }
        cluster.run(Duration::from_secs(1));
    }
}

/// Until node 1 has given up what it leads; since when it should.
fn await_departure(cluster: &mut Cluster) -> Instant {
    let begun = cluster.now;
    write(cluster, 2, &key_of(OWN[0]), b"value");
    cluster.run_until("node 1 leads nothing", |cluster| leads_nothing(cluster, 1));
    begun
}

// museum 44, rule 30
#[test]
fn leadership_leaves_a_node_whose_disk_hangs_and_comes_back_after_30_s_of_health() {
    let mut cluster = cluster(1);
    cluster.set_sync(1, Sync::Hangs);
    let begun = await_departure(&mut cluster);
    let took = cluster.now - begun;
    assert!(BUDGET <= took && took < Duration::from_secs(1), "{took:?}");
    // It answers throughout, from its memory and by the others.
    let status = status_of(&mut cluster, 1);
    assert_eq!(status.disk, DiskHealth::Slow);
    assert!(status.sync_ms >= 200, "{} ms", status.sync_ms);
    for shard in (0..SHARDS).map(ShardId) {
        write(&mut cluster, 1, &key_of(shard), b"newer");
        expect_value(&mut cluster, 1, &key_of(shard), b"newer");
    }
    // The others know it, and nobody gives anything back.
    assert_eq!([2, 3].map(|node| cluster.node(node).node().health.of(NodeId(1))), [DiskHealth::Slow; 2]);
    let before = (terms(&cluster), transfers_away(&cluster));
    write_for(&mut cluster, 60);
    assert!(leads_nothing(&cluster, 1));
    assert_eq!((terms(&cluster), transfers_away(&cluster)), before);

    cluster.set_sync(1, Sync::AtOnce);
    let well_since = cluster.now;
    write_for(&mut cluster, 28);
    assert!(leads_nothing(&cluster, 1));
    assert_eq!(status_of(&mut cluster, 1).disk, DiskHealth::Recovering);
    cluster.run_until("leadership is back", |cluster| OWN.into_iter().all(|shard| leader(cluster, shard) == 1));
    let took = cluster.now - well_since;
    assert!(Duration::from_secs(30) <= took && took < Duration::from_secs(40), "{took:?}");
    assert_eq!(status_of(&mut cluster, 1).disk, DiskHealth::Healthy);
    assert_eq!(counted(&cluster, 1, |counters| counters.disk_slow), 1);
}

// museum 44
#[test]
fn leadership_leaves_a_node_whose_syncs_take_long_and_stays_away() {
    let mut cluster = cluster(2);
    cluster.set_sync(1, Sync::Takes(Duration::from_millis(350)));
    let begun = await_departure(&mut cluster);
    let took = cluster.now - begun;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let before = terms(&cluster);
    write_for(&mut cluster, 60);
    assert!(leads_nothing(&cluster, 1));
    assert_eq!(terms(&cluster), before);
    assert!(status_of(&mut cluster, 1).disk > DiskHealth::Healthy);
}

#[test]
fn a_sync_within_the_budget_moves_nothing() {
    let mut cluster = cluster(3);
    let before = terms(&cluster);
    cluster.set_sync(1, Sync::Takes(Duration::from_millis(150)));
    write(&mut cluster, 2, &key_of(OWN[0]), b"value");
    cluster.run(Duration::from_millis(151));
    cluster.set_sync(1, Sync::AtOnce);
    write_for(&mut cluster, 5);
    assert_eq!((terms(&cluster), transfers_away(&cluster)), (before, 0));
    assert_eq!(status_of(&mut cluster, 1).disk, DiskHealth::Healthy);
}

/// A stall that all disks share is over for all of them at about the same time, and moving would help nobody.
#[test]
fn where_all_disks_are_slow_nothing_moves() {
    for (seed, sync) in [(4, Sync::Takes(Duration::from_millis(350))), (5, Sync::Takes(Duration::from_secs(2)))] {
        let mut cluster = cluster(seed);
        let before = terms(&cluster);
        (1..=NODES).for_each(|node| cluster.set_sync(node, sync));
        write_for(&mut cluster, 30);
        assert_eq!((terms(&cluster), transfers_away(&cluster)), (before.clone(), 0), "{sync:?}");
        (1..=NODES).for_each(|node| cluster.set_sync(node, Sync::AtOnce));
        write_for(&mut cluster, 60);
        assert_eq!((terms(&cluster), transfers_away(&cluster)), (before, 0), "{sync:?}");
    }
}

/// Whoever led, a commit would wait for one of the two.
#[test]
fn without_a_healthy_majority_nothing_moves() {
    let mut cluster = cluster(6);
    let before = terms(&cluster);
    for node in [1, 3] {
        cluster.set_sync(node, Sync::Takes(Duration::from_millis(350)));
    }
    write_for(&mut cluster, 30);
    assert_eq!((terms(&cluster), transfers_away(&cluster)), (before, 0));
    assert_eq!(status_of(&mut cluster, 1).disk, DiskHealth::Slow);
}

/// The others stand before it, also where the end of the leader's process makes all hurry.
#[test]
fn a_node_whose_disk_is_slow_is_not_elected_while_another_may_be() {
    let shard = ShardId(1);
    for seed in 10..20 {
        let mut cluster = cluster(seed);
        cluster.set_sync(3, Sync::Takes(Duration::from_millis(350)));
        write(&mut cluster, 1, &key_of(shard), b"value");
        cluster
            .run_until("the disk of node 3 is slow", |cluster| cluster.node(3).node().health.own() == DiskHealth::Slow);
        assert!(replica(&cluster, 2, shard).leads());
        cluster.kill(2);
        cluster.run_until("another leader", |cluster| [1, 3].iter().any(|node| replica(cluster, *node, shard).leads()));
        assert!(replica(&cluster, 1, shard).leads(), "seed {seed}");
    }
}

/// It is better than nobody.
#[test]
fn a_node_whose_disk_is_slow_is_elected_where_nobody_else_can_be() {
    let shard = ShardId(1);
    let mut cluster = cluster(7);
    // Node 1 lacks what the others have, so that it cannot win.
    cluster.kill(1);
    cluster.set_sync(3, Sync::Takes(Duration::from_millis(350)));
    write(&mut cluster, 3, &key_of(shard), b"value");
    cluster.run_until("node 3 has it", |cluster| {
        let [leader, follower] = [2, 3].map(|node| replica(cluster, node, shard).raft());
        leader.commit() == leader.last().index && follower.persisted_index() == leader.last().index
    });
    cluster.run_until("the disk of node 3 is slow", |cluster| cluster.node(3).node().health.own() == DiskHealth::Slow);
    cluster.kill(2);
    cluster.start_node(1);
    cluster.run_until("a leader", |cluster| replica(cluster, 3, shard).leads());
}
