//! What a node says of a log that is longer than it should be.

use std::time::Duration;

use raftkv_protocol::client::{Answer, HoldReason, LogHold, Operation};
use raftkv_protocol::types::{CoreId, ShardId};

use super::cluster::{CORES, Cluster, NODES, SHARDS};
use super::{key_of, put, replica, router, status_of, write};
use crate::limits::Limits;
use crate::storage::CoreLog as _;

const LOG_BYTES_MAX: u64 = 1 << 20;

fn cluster(seed: u64, snapshot_log_bytes: u64) -> Cluster {
    let limits =
        Limits { log_tail_bytes: 0, core_log_bytes_max: LOG_BYTES_MAX, snapshot_log_bytes, ..Limits::default() };
    Cluster::with_limits(seed, limits)
}

const ALL: std::ops::Range<u16> = 0..SHARDS;

/// Writes a value to shards, and has a node take a snapshot of them.
fn write_and_snapshot(cluster: &mut Cluster, node: u64, mut shards: std::ops::Range<u16>, bytes: usize) {
    shards.clone().map(ShardId).for_each(|shard| write(cluster, node, &key_of(shard), &vec![7; bytes]));
    cluster.run_until("the node has applied it", |cluster| {
        let is_applied = |shard| {
            let written = replica(cluster, cluster.leader(shard), shard).raft().last().index;
            replica(cluster, node, shard).applied() == written
        };
        shards.clone().map(ShardId).all(is_applied)
    });
    let mut client = cluster.dial(node, None, &[]);
    cluster.ask(&mut client, Operation::Snapshot { wait_ms: 0 }, |reply| {
        assert!(matches!(reply.result, Ok(Answer::Snapshots(_))), "{:?}", reply.result);
    });
    assert!(shards.all(|shard| {
        let replica = replica(cluster, node, ShardId(shard));
        replica.newest_snapshot().is_some_and(|meta| meta.at.index == replica.applied())
    }));
}

fn held_bytes(cluster: &Cluster, node: u64, shard: ShardId) -> u64 {
    router(cluster, node, shard.0 % CORES).log().held_bytes()
}

#[test]
fn a_node_that_is_well_holds_on_to_nothing() {
    let mut cluster = cluster(40, 64 << 20);
    write_and_snapshot(&mut cluster, 1, ALL, 10);
    assert_eq!(status_of(&mut cluster, 1).holds, []);
}

/// The others are gone, and what the leader has taken in for one shard is most of what its log has.
#[test]
fn a_shard_without_a_quorum_is_named_with_the_bytes_that_it_holds() {
    let mut cluster = cluster(41, 64 << 20);
    let shard = ShardId(1);
    let node = cluster.leader(shard);
    write_and_snapshot(&mut cluster, node, ALL, 10);
    write_and_snapshot(&mut cluster, node, ALL, 10);
    // The other shard of its core needs only later segments.
    write_and_snapshot(&mut cluster, node, 3..4, 200_000);
    write_and_snapshot(&mut cluster, node, 3..4, 10);
    (1..=NODES).filter(|id| *id != node).for_each(|id| cluster.kill(id));
    let (key, value) = (key_of(shard), vec![7; 100_000]);
    let mut client = cluster.dial(node, Some(shard), &[]);
    for id in 0..12 {
        client.send_when_possible(&mut cluster, id, put(&key, &value));
    }
    cluster.run_until("it has all of them", |cluster| held_bytes(cluster, node, shard) > 3 * LOG_BYTES_MAX / 2);
    let holds = status_of(&mut cluster, node).holds;
    let [LogHold { core, log_bytes, log_bytes_max, shard: held, bytes, reason, message }] = &holds[..] else {
        panic!("{holds:?}")
    };
    assert_eq!((*core, *held, *reason, message.as_str()), (CoreId(1), shard, HoldReason::NoQuorum, ""));
    assert_eq!((*log_bytes, *log_bytes_max), (held_bytes(&cluster, node, shard), LOG_BYTES_MAX));
    // Up to the first that the other shard needs.
    assert!(*bytes > 200_000 && bytes < log_bytes, "{bytes} of {log_bytes} bytes");
}

/// Its log is within its budget: what failed is shown all the same, and no longer when it is mended.
#[test]
fn a_snapshot_that_failed_is_shown_until_one_is_taken() {
    let mut cluster = cluster(42, 16 << 10);
    let shard = ShardId(2);
    cluster.snapshot_disk(1, shard).set_full(true);
    write(&mut cluster, 1, &key_of(shard), &[7; 20_000]);
    cluster.run_until("a snapshot fails", |cluster| router(cluster, 1, 0).counters.snapshots_failed > 0);
    let holds = status_of(&mut cluster, 1).holds;
    let [LogHold { core: CoreId(0), log_bytes_max: LOG_BYTES_MAX, bytes: 0, shard: held, reason, message, .. }] =
        &holds[..]
    else {
        panic!("{holds:?}")
    };
    assert_eq!((*held, *reason), (shard, HoldReason::Failed));
    assert!(message.contains("space"), "{message}");
    cluster.snapshot_disk(1, shard).set_full(false);
    let covers = |cluster: &Cluster| replica(cluster, 1, shard).newest_snapshot().is_some();
    let since = cluster.now;
    cluster.run_until("it is tried again", covers);
    assert!(cluster.now - since < Duration::from_secs(5), "{:?}", cluster.now - since);
    assert_eq!(status_of(&mut cluster, 1).holds, []);
}
