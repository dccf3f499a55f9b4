//! A node whose log has lost something gets it back from the others, and until then counts for nothing.

use std::time::Duration;

use raftkv_protocol::client::{Answer, Code, Consistency, Operation};
use raftkv_protocol::types::ShardId;

use super::cluster::{Cluster, NODES, SHARDS};
use super::{counted, expect_value, key_of, put, replica, status_of, write};
use crate::storage::data_dir::recorded_damage;

/// Which shards a node says are being repaired.
fn repairing(cluster: &mut Cluster, node: u64) -> Vec<u16> {
    let status = status_of(cluster, node);
    status.shards.iter().filter(|shard| shard.is_repairing).map(|shard| shard.id.0).collect()
}

/// Which shards are on record as damaged in a node's data directory.
fn recorded(cluster: &Cluster, node: u64) -> Vec<u16> {
    recorded_damage(&cluster.data_dir(node)).expect("readable").into_keys().map(|shard| shard.0).collect()
}

/// A cluster that holds a few values of every shard.
fn cluster(seed: u64, nodes: u64) -> Cluster {
    let mut cluster = Cluster::with_nodes(seed, nodes);
    for shard in (0..SHARDS).map(ShardId) {
        for value in [b"one", b"two"] {
            write(&mut cluster, 1, &key_of(shard), value);
        }
    }
    cluster.run(Duration::from_millis(500));
    cluster
}

/// Of the log of a node's first core, which holds the shards 0 and 2, something in the middle goes wrong.
fn damage_log(cluster: &Cluster, node: u64) {
    let (segment, block) = middle(cluster, node);
    cluster.disk(node, 0).edit(&segment, |bytes| bytes[block * 4096] ^= 1);
}

/// The same place cannot be read any more.
fn spoil_log(cluster: &Cluster, node: u64) {
    let (segment, block) = middle(cluster, node);
    cluster.disk(node, 0).spoil_block(&segment, block);
}

/// A segment, and a block in the middle of what is written there.
fn middle(cluster: &Cluster, node: u64) -> (String, usize) {
    let disk = cluster.disk(node, 0);
    let segment = disk.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    let bytes = disk.bytes(&segment);
    let written = bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0)).expect("something");
    (segment, written / 2)
}

// museum 42
#[test]
fn a_node_whose_log_is_damaged_gets_everything_back_and_takes_part_again() {
    let mut cluster = cluster(1, NODES);
    cluster.kill(3);
    damage_log(&cluster, 3);
    cluster.start_node(3);
    assert_eq!(repairing(&mut cluster, 3), [0, 2]);
    assert_eq!(recorded(&cluster, 3), [0, 2]);
    assert_eq!(counted(&cluster, 3, |counters| counters.shards_repairing), 2);
    assert!(!replica(&cluster, 3, ShardId(0)).is_ready());
    cluster.run_until("it is repaired", |cluster| recorded(cluster, 3).is_empty());
    assert_eq!(repairing(&mut cluster, 3), [0_u16; 0]);
    assert_eq!(counted(&cluster, 3, |counters| counters.shards_repairing), 0);
    assert_eq!(counted(&cluster, 3, |counters| counters.log_salvages), 1);
    let is_ready = |cluster: &Cluster| (0..SHARDS).map(ShardId).all(|shard| replica(cluster, 3, shard).is_ready());
    cluster.run_until("it is ready", is_ready);
    for shard in (0..SHARDS).map(ShardId) {
        let healthy = replica(&cluster, 1, shard).status();
        cluster.run_until("it has all", |cluster| replica(cluster, 3, shard).status().applied >= healthy.applied);
        let key = key_of(shard);
        let mut client = cluster.dial(3, None, &[]);
        let operation = Operation::Get { key: &key, consistency: Consistency::Stale };
        let read = cluster.ask(&mut client, operation, |reply| reply.result.map(drop).map_err(|refusal| refusal.code));
        assert_eq!(read, Ok::<_, Code>(()));
    }
    // Without it there is no majority any more.
    cluster.kill(1);
    cluster.run_until("leaders", Cluster::has_leaders);
    for shard in (0..SHARDS).map(ShardId) {
        expect_value(&mut cluster, 2, &key_of(shard), b"two");
    }
}

/// Nothing is lost with a byte that holds nothing: the node starts like any other, alone too, and counts it.
#[test]
fn a_blemish_in_the_log_is_counted_and_repairs_nothing() {
    let mut cluster = cluster(7, 1);
    cluster.kill(1);
    let (segment, _) = middle(&cluster, 1);
    cluster.disk(1, 0).flip(&segment, 200, 3);
    cluster.start_node(1);
    cluster.run_until("leaders", Cluster::has_leaders);
    cluster.run_until("it is counted", |cluster| counted(cluster, 1, |counters| counters.log_blemishes) == 1);
    assert_eq!(counted(&cluster, 1, |counters| counters.log_salvages), 0);
    for shard in (0..SHARDS).map(ShardId) {
        expect_value(&mut cluster, 1, &key_of(shard), b"two");
    }
}

/// A sector of the log that cannot be read any more is damage like any other: of the others the node gets it back, and alone
/// it says so.
// museum 42
#[test]
fn a_node_with_a_bad_sector_in_its_log_is_repaired_like_any_other() {
    for nodes in [NODES, 1] {
        let mut cluster = cluster(6, nodes);
        cluster.kill(nodes);
        spoil_log(&cluster, nodes);
        let started = cluster.try_start_node(nodes);
        if nodes == 1 {
            let line = started.expect_err("refused").to_string();
            let told = line.contains("the disk does not give") && line.contains("Input/output error");
            assert!(told && line.contains("; no other node has what is lost: "), "{line}");
            continue;
        }
        started.expect("the others have it");
        assert_eq!(repairing(&mut cluster, nodes), [0, 2]);
        cluster.run_until("it is repaired", |cluster| recorded(cluster, nodes).is_empty());
        cluster.kill(1);
        cluster.run_until("leaders", Cluster::has_leaders);
        for shard in (0..SHARDS).map(ShardId) {
            expect_value(&mut cluster, 2, &key_of(shard), b"two");
        }
    }
}

// museum 42
#[test]
fn damage_is_not_forgotten_when_the_node_starts_again_with_what_is_left() {
    let mut cluster = cluster(2, NODES);
    (1..=NODES).for_each(|node| cluster.kill(node));
    damage_log(&cluster, 3);
    for _ in 0..3 {
        cluster.start_node(3);
        cluster.run(Duration::from_secs(5));
        assert_eq!(repairing(&mut cluster, 3), [0, 2]);
        assert_eq!(replica(&cluster, 3, ShardId(0)).raft().elections_started(), 0);
        cluster.kill(3);
        assert_eq!(recorded(&cluster, 3), [0, 2]);
    }
    (1..=NODES).for_each(|node| cluster.start_node(node));
    cluster.run_until("it is repaired", |cluster| recorded(cluster, 3).is_empty());
    assert_eq!(counted(&cluster, 3, |counters| counters.log_salvages), 0, "the log was sound at this start");
}

/// Nobody has what a node has lost that is alone.
// museum 42
#[test]
fn a_node_that_is_alone_does_not_start_with_less_than_it_had() {
    let mut cluster = cluster(4, 1);
    let healthy = cluster.disk(1, 0).fork();
    cluster.kill(1);
    damage_log(&cluster, 1);
    let line = cluster.try_start_node(1).expect_err("refused").to_string();
    assert!(line.starts_with("the log is corrupt: ") && line.contains("; no other node has what is lost: "), "{line}");
    assert_eq!(recorded(&cluster, 1), [0_u16; 0]);
    let segment = healthy.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    cluster.disk(1, 0).set_bytes(&segment, healthy.bytes(&segment));
    cluster.start_node(1);
    // Whoever wrote this had others.
    cluster.node(1).node().data_dir().expect("in use").mark_damaged(&[ShardId(1)], "what", 1).expect("writes");
    cluster.kill(1);
    let line = cluster.try_start_node(1).expect_err("refused").to_string();
    assert!(line.contains("has lost part of its log (see `damage` there), and no other node has it"), "{line}");
}

/// All that is missing is the vote: it holds, and shows to whoever asks for it, what the majority commits.
// museum 42
#[test]
fn while_one_of_five_is_down_a_damaged_node_gets_its_data_back_though_not_its_vote() {
    let mut cluster = cluster(8, 5);
    cluster.kill(5);
    cluster.kill(3);
    damage_log(&cluster, 3);
    cluster.start_node(3);
    cluster.run_until("leaders", Cluster::has_leaders);
    let shard = ShardId(0);
    for _ in 0..2 {
        write(&mut cluster, 1, &key_of(shard), b"three");
        let goal = replica(&cluster, cluster.leader(shard), shard).raft().commit();
        cluster.run_until("it has everything", |cluster| {
            let replica = replica(cluster, 3, shard);
            replica.raft().persisted_index() >= goal && replica.applied() >= goal
        });
        assert_eq!(repairing(&mut cluster, 3), [0, 2]);
        let mut client = cluster.dial(3, None, &[]);
        let key = key_of(shard);
        let operation = Operation::Get { key: &key, consistency: Consistency::Stale };
        cluster.ask(&mut client, operation, |reply| match reply.result {
            Ok(Answer::Value { value, .. }) => assert_eq!(value, b"three"),
            other => panic!("{other:?}"),
        });
        expect_value(&mut cluster, 3, &key, b"three");
        // What has come back is on its disk: the next start has it before anybody is asked.
        cluster.kill(3);
        cluster.start_node(3);
        assert_eq!(counted(&cluster, 3, |counters| counters.log_salvages), 0);
        assert!(replica(&cluster, 3, shard).raft().last().index >= goal);
    }
    // The others are a majority by one: with another of them gone its vote would be needed.
    cluster.kill(4);
    cluster.run(Duration::from_secs(10));
    assert_eq!(repairing(&mut cluster, 3), [0, 2]);
    let mut client = cluster.dial(1, None, &[]);
    let said =
        cluster.ask(&mut client, put(&key_of(shard), b"four"), |reply| reply.result.map(drop).map_err(|why| why.code));
    assert!(matches!(said, Err(Code::Timeout | Code::NoLeader)), "{said:?}");
    [4, 5].into_iter().for_each(|node| cluster.start_node(node));
    cluster.run_until("it is repaired", |cluster| recorded(cluster, 3).is_empty());
    write(&mut cluster, 1, &key_of(shard), b"five");
}

/// While another voter is down the node stays as it is, and nobody hands it what it should lead otherwise.
#[test]
fn nothing_is_handed_to_a_node_that_is_being_repaired() {
    let mut cluster = cluster(3, 5);
    cluster.kill(5);
    cluster.kill(3);
    damage_log(&cluster, 3);
    cluster.start_node(3);
    cluster.run_until("leaders", Cluster::has_leaders);
    cluster.run(Duration::from_secs(100));
    assert_eq!(repairing(&mut cluster, 3), [0, 2]);
    for shard in (0..SHARDS).map(ShardId) {
        write(&mut cluster, 3, &key_of(shard), b"three");
        expect_value(&mut cluster, 1, &key_of(shard), b"three");
    }
    let transfers: u64 = [1, 2, 4].iter().map(|node| counted(&cluster, *node, |counters| counters.transfers)).sum();
    assert_eq!(transfers, 0);
    cluster.start_node(5);
    cluster.run_until("it is repaired", |cluster| recorded(cluster, 3).is_empty());
    cluster.run_until("what it should lead is back", |cluster| replica(cluster, 3, ShardId(2)).leads());
}
