//! Disks that are full: leadership leaves their node, stays away while they are, and comes back.

use std::time::Duration;

use raftkv_protocol::client::{Answer, Code, Consistency, Operation};
use raftkv_protocol::health::DiskHealth;
use raftkv_protocol::types::{NodeId, ShardId};

use super::cluster::{Cluster, NODES, SHARDS};
use super::gray::{OWN, cluster, leader, leads_nothing, terms, transfers_away, write_for};
use super::{counted, expect_value, key_of, put, replica, status_of, write};
use crate::limits::Limits;

/// The long values that fill disks.
const FILLER_BYTES: usize = 60_000;

fn health(cluster: &Cluster, node: u64) -> DiskHealth {
    cluster.node(node).node().health.own()
}

/// Writes to a shard, refused or not, until the nodes' logs have only their reserves left.
fn fill(cluster: &mut Cluster, nodes: &[u64], shard: ShardId) {
    nodes.iter().for_each(|node| cluster.set_full(*node, true));
    let (key, value) = (key_of(shard), vec![7; FILLER_BYTES]);
    for _ in 0..20 {
        if nodes.iter().all(|node| health(cluster, *node) == DiskHealth::Full) {
            return;
        }
        let mut client = cluster.dial(2, None, &[]);
        cluster.ask(&mut client, put(&key, &value), |_| ());
    }
    panic!("20 long values were taken by full disks");
}

// rule 17
#[test]
fn leadership_leaves_a_node_whose_disk_is_full_and_comes_back_after_30_s_with_space() {
    let mut cluster = cluster(50);
    fill(&mut cluster, &[1], OWN[0]);
    let full_since = cluster.now;
    cluster.run_until("node 1 leads nothing", |cluster| leads_nothing(cluster, 1));
    let took = cluster.now - full_since;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(status_of(&mut cluster, 1).disk, DiskHealth::Full);
    assert_eq!([2, 3].map(|node| cluster.node(node).node().health.of(NodeId(1))), [DiskHealth::Full; 2]);
    // Nobody is refused any more, whichever node is asked.
    for shard in (0..SHARDS).map(ShardId) {
        write(&mut cluster, 1, &key_of(shard), b"newer");
        expect_value(&mut cluster, 1, &key_of(shard), b"newer");
    }
    // Longer than the reserve lasts: it lags, and gets nothing back.
    let before = (terms(&cluster), transfers_away(&cluster));
    write_for(&mut cluster, 60);
    assert!(leads_nothing(&cluster, 1));
    assert_eq!((terms(&cluster), transfers_away(&cluster)), before);
    let behind = |cluster: &Cluster| {
        replica(cluster, 2, OWN[0]).raft().commit().0 - replica(cluster, 1, OWN[0]).raft().persisted_index().0
    };
    assert!(behind(&cluster) > 0);

    cluster.set_full(1, false);
    let roomy_since = cluster.now;
    cluster.run_until("it knows", |cluster| health(cluster, 1) == DiskHealth::Recovering);
    assert!(cluster.now - roomy_since < Duration::from_secs(1), "{:?}", cluster.now - roomy_since);
    write_for(&mut cluster, 28);
    assert!(leads_nothing(&cluster, 1));
    assert_eq!((behind(&cluster), health(&cluster, 1)), (0, DiskHealth::Recovering));
    cluster.run_until("leadership is back", |cluster| OWN.into_iter().all(|shard| leader(cluster, shard) == 1));
    let took = cluster.now - roomy_since;
    assert!(Duration::from_secs(30) <= took && took < Duration::from_secs(40), "{took:?}");
    assert_eq!(status_of(&mut cluster, 1).disk, DiskHealth::Healthy);
    assert_eq!(counted(&cluster, 1, |counters| counters.disk_full), 1);
    write(&mut cluster, 1, &key_of(OWN[0]), &[7; 60_000]);
}

/// Whoever led, puts would be refused.
// rule 17
#[test]
fn where_all_disks_are_full_nothing_moves_and_puts_are_refused() {
    let mut cluster = cluster(51);
    let before = terms(&cluster);
    let all: Vec<u64> = (1..=NODES).collect();
    fill(&mut cluster, &all, OWN[0]);
    cluster.run(Duration::from_secs(30));
    assert_eq!((terms(&cluster), transfers_away(&cluster)), (before.clone(), 0));
    let mut client = cluster.dial(2, None, &[]);
    let refused = cluster
        .ask(&mut client, put(&key_of(OWN[0]), b"value"), |reply| reply.result.expect_err("there is no space").code);
    assert_eq!(refused, Code::NoSpace);
    all.iter().for_each(|node| cluster.set_full(*node, false));
    cluster.run(Duration::from_secs(1));
    write_for(&mut cluster, 60);
    assert_eq!((terms(&cluster), transfers_away(&cluster)), (before, 0));
}

/// A commit would wait for one of the two.
// rule 17
#[test]
fn without_a_majority_that_has_space_nothing_moves() {
    let mut cluster = cluster(52);
    let before = terms(&cluster);
    fill(&mut cluster, &[1, 3], OWN[0]);
    cluster.run(Duration::from_secs(30));
    assert_eq!((terms(&cluster), transfers_away(&cluster)), (before, 0));
    // As soon as the other has space again, it is a majority.
    cluster.set_full(3, false);
    cluster.run_until("node 1 leads nothing", |cluster| leads_nothing(cluster, 1));
}

/// What no majority has room for would time out, and would take what full nodes keep for the first entry of the next leader.
// rule 17
#[test]
fn a_leader_with_space_takes_no_puts_that_no_majority_has_room_for() {
    let mut cluster = cluster(53);
    let shard = (0..SHARDS).map(ShardId).find(|shard| leader(&cluster, *shard) == 2).expect("it leads one");
    fill(&mut cluster, &[1, 3], OWN[0]);
    cluster.run_until("node 2 knows", |cluster| {
        [1, 3].map(|node| cluster.node(2).node().health.of(NodeId(node))) == [DiskHealth::Full; 2]
    });
    let refused = |cluster: &mut Cluster, via: u64| {
        let mut client = cluster.dial(via, None, &[]);
        cluster.ask(&mut client, put(&key_of(shard), &[7; FILLER_BYTES]), |reply| reply.result.err().map(|no| no.code))
    };
    for _ in 0..20 {
        assert_eq!([1, 2, 3].map(|via| refused(&mut cluster, via)), [Some(Code::NoSpace); 3]);
    }
    assert_eq!(health(&cluster, 2), DiskHealth::Healthy);
    // Whoever leads next finds room for its first entry.
    cluster.lose_power(2);
    cluster.run_until("the others have leaders", Cluster::has_leaders);
    let mut client = cluster.dial(1, None, &[]);
    let get = Operation::Get { key: &key_of(shard), consistency: Consistency::Linearizable };
    assert_eq!(cluster.ask(&mut client, get, |reply| reply.result.err().map(|no| no.code)), Some(Code::NotFound));
    cluster.start_node(2);
    cluster.set_full(3, false);
    cluster.run_until("node 1 leads nothing", |cluster| leads_nothing(cluster, 1));
    assert_eq!(refused(&mut cluster, 3), None);
}

/// A cluster each of whose replicas has two snapshots, and whose logs need not reach back behind them.
fn with_two_snapshots(seed: u64, value_bytes: usize) -> Cluster {
    let limits = Limits { log_tail_bytes: 0, ..Limits::default() };
    let mut cluster = Cluster::with_limits(seed, limits);
    for value in [b"one", b"two"] {
        for shard in (0..SHARDS).map(ShardId) {
            write(&mut cluster, 1, &key_of(shard), &vec![value[0]; value_bytes]);
        }
        cluster.run(Duration::from_millis(200));
        for node in 1..=NODES {
            let mut client = cluster.dial(node, None, &[]);
            cluster.ask(&mut client, Operation::Snapshot { wait_ms: 0 }, |reply| {
                assert!(matches!(reply.result, Ok(Answer::Snapshots(_))), "{:?}", reply.result);
            });
        }
    }
    cluster
}

/// Of a shard that is written on, the log and the snapshots give back what they take; a shard that rests is copied out of the way.
// rule 17
#[test]
fn a_log_that_can_be_compacted_is_written_to_on_a_full_disk() {
    let mut cluster = with_two_snapshots(54, 20_000);
    for node in 1..=NODES {
        cluster.set_full(node, true);
        (0..SHARDS).for_each(|shard| cluster.snapshot_disk(node, ShardId(shard)).set_full(true));
    }
    let mut refused = 0;
    for n in 0..100_u8 {
        let started = cluster.now;
        loop {
            let mut client = cluster.dial(1, None, &[]);
            let said = cluster.ask(&mut client, put(&key_of(OWN[0]), &[n; 20_000]), |reply| {
                reply.result.map(drop).map_err(|why| why.code)
            });
            if said.is_ok() {
                break;
            }
            refused += 1;
            assert!(cluster.now - started < Duration::from_secs(60), "put {n} is not taken: {said:?}");
            cluster.run(Duration::from_millis(100));
        }
    }
    assert!(refused > 0, "the disks were full");
    expect_value(&mut cluster, 2, &key_of(OWN[0]), &[99; 20_000]);
}

/// What is free is the log's, where both are on one disk.
// rule 17
#[test]
fn while_a_log_has_only_its_reserve_snapshots_are_written_over_older_ones() {
    let mut cluster = with_two_snapshots(55, FILLER_BYTES);
    let taken = |cluster: &Cluster| -> u64 {
        (1..=NODES).map(|node| counted(cluster, node, |counters| counters.snapshots_taken)).sum()
    };
    let files = |cluster: &Cluster| -> Vec<Vec<Option<u64>>> {
        let disks = (1..=NODES).flat_map(|node| (0..SHARDS).map(move |shard| (node, ShardId(shard))));
        let disks = disks.map(|(node, shard)| cluster.snapshot_disk(node, shard));
        disks.map(|disk| disk.names().iter().rev().map(|name| disk.number_of(name)).collect()).collect()
    };
    let (before, old) = (taken(&cluster), files(&cluster));
    fill(&mut cluster, &[1, 2, 3], OWN[0]);
    cluster.run_until("each node has taken some", |cluster| taken(cluster) >= before + NODES);
    let new = files(&cluster);
    assert_ne!(new, old);
    for (new, old) in new.iter().zip(&old) {
        assert!(new == old || (new[0], new[1]) == (old[1], old[0]), "{new:?} for {old:?}");
    }
}
