//! What a node says of a log that is longer than it should be.

use std::time::Duration;

use raftkv_protocol::client::{Answer, HoldReason, LogHold, Operation};
use raftkv_protocol::types::{CoreId, ShardId};

use super::cluster::{CORES, Cluster, NODES, SHARDS};
use super::divergence::{alike, spoil};
use super::{key_of, put, replica, router, status_of, write};
use crate::limits::Limits;
use crate::storage::{CoreLog as _, Space};

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

/// Writes to a shard until the log of its core is longer than it may be on a node.
fn exceed(cluster: &mut Cluster, node: u64, shard: ShardId) {
    for _ in 0..100 {
        if held_bytes(cluster, node, shard) > LOG_BYTES_MAX {
            return;
        }
        write(cluster, node, &key_of(shard), &[7; 50_000]);
    }
    panic!("the log does not grow");
}

/// Has a shard need old segments that the other one of its core, which is written to, does not.
fn rest(cluster: &mut Cluster, node: u64, shard: ShardId) {
    let other = shard.0 + CORES;
    (0..2).for_each(|_| write_and_snapshot(cluster, node, ALL, 10));
    write(cluster, node, &key_of(shard), &[7; 10]);
    (0..2).for_each(|_| write_and_snapshot(cluster, node, other..other + 1, 200_000));
}

/// By core.
fn reasons(cluster: &mut Cluster, node: u64) -> Vec<(u16, HoldReason)> {
    status_of(cluster, node).holds.iter().map(|hold| (hold.core.0, hold.reason)).collect()
}

/// A node takes one at a time.
#[test]
fn a_shard_whose_snapshot_is_taken_is_named_and_one_that_waits_for_that_too() {
    let mut cluster = cluster(43, 64 << 20);
    rest(&mut cluster, 1, ShardId(0));
    cluster.hold_snapshots(1, true);
    exceed(&mut cluster, 1, ShardId(0));
    let mut client = cluster.dial(1, None, &[]);
    client.send(1, Operation::Snapshot { wait_ms: 1 });
    cluster.run(Duration::from_millis(500));
    assert_eq!(reasons(&mut cluster, 1), [(0, HoldReason::Snapshotting)]);
    exceed(&mut cluster, 1, ShardId(1));
    cluster.run(Duration::from_millis(500));
    assert_eq!(reasons(&mut cluster, 1), [(0, HoldReason::Snapshotting), (1, HoldReason::Pending)]);
}

/// It would write its state down, and that is wrong; and it cannot build it anew from a snapshot that cannot be read.
#[test]
fn a_shard_that_is_not_like_the_others_is_named() {
    let limits = Limits {
        log_tail_bytes: 0,
        core_log_bytes_max: LOG_BYTES_MAX,
        snapshot_log_bytes: 45_000,
        ..Limits::default()
    };
    let mut cluster = alike(Cluster::with_limits(44, limits));
    let disk = cluster.snapshot_disk(3, ShardId(0));
    disk.names().iter().for_each(|name| disk.set_unreadable(name, true));
    spoil(&mut cluster, &[3]);
    exceed(&mut cluster, 3, ShardId(0));
    (0..3).for_each(|_| write_and_snapshot(&mut cluster, 3, CORES..CORES + 1, 200_000));
    assert_eq!(reasons(&mut cluster, 3), [(0, HoldReason::Diverged)]);
}

/// However long the log is: each segment that goes is one more to write to.
// rule 17
#[test]
fn on_a_full_disk_a_log_within_its_budget_says_what_holds_it() {
    let limits = Limits { log_tail_bytes: 0, snapshot_log_bytes: 64 << 20, ..Limits::default() };
    let mut cluster = Cluster::with_limits(45, limits);
    rest(&mut cluster, 1, ShardId(0));
    cluster.hold_snapshots(1, true);
    exceed(&mut cluster, 1, ShardId(0));
    assert_eq!(reasons(&mut cluster, 1), []);
    cluster.set_full(1, true);
    (0..SHARDS).for_each(|shard| cluster.snapshot_disk(1, ShardId(shard)).set_full(true));
    let space = |cluster: &Cluster| router(cluster, 1, 0).log().space();
    for _ in 0..20 {
        if space(&cluster) == Space::ReserveOnly {
            break;
        }
        write(&mut cluster, 2, &key_of(ShardId(0)), &[7; 50_000]);
    }
    assert_eq!(space(&cluster), Space::ReserveOnly);
    cluster.run(Duration::from_millis(500));
    let holds = status_of(&mut cluster, 1).holds;
    let [LogHold { core: CoreId(0), log_bytes, log_bytes_max, bytes, reason: HoldReason::Snapshotting, .. }] =
        &holds[..]
    else {
        panic!("{holds:?}")
    };
    assert!(*bytes > 0 && log_bytes < log_bytes_max, "{holds:?}");
}
