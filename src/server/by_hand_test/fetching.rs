//! A node that was away for so long that it needs another's snapshot.

use std::time::Duration;

use raftkv_protocol::client::{Answer, HoldReason, Operation};
use raftkv_protocol::types::{Index, NodeId, ShardId};

use super::cluster::{CORES, Cluster, NODES};
use super::{counted, expect_value, key_of, put, replica, replica_mut, status_of, write};
use crate::limits::Limits;

const SHARD: ShardId = ShardId(0);
/// The node that was away.
const LATE: u64 = 3;
const KEYS: usize = 20;

/// A cluster in which the log of the others begins behind what a node has that starts now, and the shard is a piece long.
fn cluster(seed: u64) -> Cluster {
    cluster_with(seed, 2_000)
}

/// The same with values of so many bytes.
fn cluster_with(seed: u64, value_bytes: usize) -> Cluster {
    limited(seed, value_bytes, Limits::default())
}

/// The same with these limits, but for what lets a log begin late.
fn limited(seed: u64, value_bytes: usize, limits: Limits) -> Cluster {
    let limits = Limits { log_tail_bytes: 0, snapshot_log_bytes: 8 << 10, ..limits };
    let mut cluster = Cluster::with_limits(seed, limits);
    write(&mut cluster, 1, &key_of(SHARD), b"before");
    cluster.run(Duration::from_millis(200));
    cluster.kill(LATE);
    cluster.run_until("others lead", Cluster::has_leaders);
    let mut client = cluster.dial(1, None, &[]);
    for n in 0..KEYS {
        // The tag says to which shard it belongs.
        let key = [b"{", &key_of(SHARD)[..], b"}", &n.to_le_bytes()].concat();
        cluster.ask(&mut client, put(&key, &vec![7; value_bytes]), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
    }
    // Two snapshots of all of it.
    for value in [b"one", b"two"] {
        for node in (1..=NODES).filter(|node| *node != LATE) {
            write(&mut cluster, node, &key_of(SHARD), value);
            cluster.run(Duration::from_millis(200));
            let mut client = cluster.dial(node, None, &[]);
            cluster.ask(&mut client, Operation::Snapshot { wait_ms: 0 }, |reply| {
                assert!(matches!(reply.result, Ok(Answer::Snapshots(_))), "{:?}", reply.result);
            });
        }
    }
    cluster
}

fn installed(cluster: &Cluster) -> u64 {
    counted(cluster, LATE, |counters| counters.snapshots_installed)
}

/// A KiB every half second: one piece takes longer than any patience.
#[test]
fn a_snapshot_comes_through_however_slow_the_link_is() {
    let mut cluster = cluster(60);
    cluster.wires.slow_down(0);
    cluster.start_node(LATE);
    let mut took = Duration::ZERO;
    while installed(&cluster) == 0 {
        cluster.wires.slow_down(1 << 10);
        cluster.run(Duration::from_millis(500));
        took += Duration::from_millis(500);
        assert!(took < Duration::from_secs(60), "it does not come through");
    }
    assert!(took > Duration::from_secs(15), "{took:?}");
    assert_eq!(counted(&cluster, LATE, |counters| counters.snapshot_timeouts), 0);
    let fetched = counted(&cluster, LATE, |counters| counters.snapshot_bytes_received);
    let bytes = replica(&cluster, LATE, SHARD).newest_snapshot().expect("it was installed").bytes;
    assert!(bytes <= fetched && fetched < bytes + bytes / 2, "{fetched} of {bytes}: once");
}

/// What is committed stays so, whoever leads: the snapshot that is under way is as good as the next leader's, and goes on.
#[test]
fn a_snapshot_goes_on_where_it_was_when_another_node_takes_the_lead() {
    // Five pieces.
    let mut cluster = cluster_with(62, 60_000);
    let (before, after) = match cluster.leader(SHARD) {
        1 => (1, 2),
        leader => (leader, 1),
    };
    cluster.wires.slow_down(0);
    cluster.start_node(LATE);
    cluster.run_until("it is being fetched", |cluster| counted(cluster, before, |c| c.snapshot_bytes_sent) > 0);
    for step in 0..1_000 {
        if step == 300 {
            assert!(counted(&cluster, LATE, |counters| counters.snapshot_bytes_received) > 0);
            replica_mut(&mut cluster, before, SHARD).raft_mut().transfer(NodeId(after)).expect("it leads");
        }
        if step == 400 {
            let known = [before, after, LATE].map(|node| cluster.known_leader(node, SHARD));
            assert_eq!((known, installed(&cluster)), ([Some(NodeId(after)); 3], 0));
        }
        cluster.wires.slow_down(2 << 10);
        cluster.run(Duration::from_millis(25));
    }
    assert_eq!(installed(&cluster), 1);
    let bytes = replica(&cluster, LATE, SHARD).newest_snapshot().expect("it was installed").bytes;
    assert_eq!(counted(&cluster, LATE, |counters| counters.snapshot_bytes_received), bytes, "each byte once");
    assert_eq!(
        [before, after].map(|node| counted(&cluster, node, |counters| counters.snapshot_bytes_sent)),
        [bytes, 0]
    );
    assert_eq!(counted(&cluster, LATE, |counters| counters.snapshot_timeouts), 0);
}

#[test]
fn a_node_without_room_for_a_snapshot_says_so_and_fetches_it_when_there_is() {
    let mut cluster = cluster(61);
    cluster.snapshot_disk(LATE, SHARD).set_full(true);
    cluster.start_node(LATE);
    cluster.run(Duration::from_secs(10));
    assert_eq!(counted(&cluster, LATE, |counters| counters.snapshot_bytes_received), 0, "it was not begun");
    let attempts = counted(&cluster, LATE, |counters| counters.snapshots_failed);
    assert!((2..=5).contains(&attempts), "{attempts} attempts in 10 s");
    let holds = status_of(&mut cluster, LATE).holds;
    let [hold] = &holds[..] else { panic!("{holds:?}") };
    assert_eq!((hold.shard, hold.reason), (SHARD, HoldReason::Failed));
    assert!(hold.message.contains("no space for the snapshot"), "{}", hold.message);
    cluster.snapshot_disk(LATE, SHARD).set_full(false);
    cluster.run_until("it has the snapshot", |cluster| installed(cluster) > 0);
    assert_eq!(status_of(&mut cluster, LATE).holds, []);
}

/// The node that was away fetches a long snapshot slowly, while the shard is written to so often that it takes one after the
/// other. Ends when the first has come, or the leader's log begins behind it. Which node leads, and whether it has come.
fn fetch_while_writing(cluster: &mut Cluster) -> (u64, bool) {
    let leader = cluster.leader(SHARD);
    cluster.wires.slow_down(0);
    cluster.start_node(LATE);
    cluster.run_until("it is being fetched", |cluster| counted(cluster, leader, |c| c.snapshot_bytes_sent) > 0);
    let taken = |cluster: &Cluster| counted(cluster, leader, |counters| counters.snapshots_taken);
    let (begun, first) = (taken(cluster), replica(cluster, leader, SHARD).newest_snapshot().expect("it is offered").at);
    for step in 0..2_000 {
        if step % 40 == 0 {
            write_more(cluster, leader);
        }
        cluster.wires.slow_down(2 << 10);
        cluster.run(Duration::from_millis(25));
        let has_come = installed(cluster) > 0;
        if has_come || start(cluster, leader) > first.index {
            cluster.wires.slow_down(usize::MAX);
            assert!(
                !has_come || taken(cluster) - begun > 5,
                "{} snapshots were taken meanwhile",
                taken(cluster) - begun
            );
            return (leader, has_come);
        }
    }
    panic!("it does not come through");
}

/// As much as brings on another snapshot, in writes that are short enough not to be slowed down.
fn write_more(cluster: &mut Cluster, via: u64) {
    (0..2).for_each(|_| write(cluster, via, &key_of(SHARD), &[7; 5_000]));
}

fn start(cluster: &Cluster, node: u64) -> Index {
    replica(cluster, node, SHARD).raft().start().index
}

/// Its log goes on to begin where the one ends that is under way: otherwise it would have come for nothing, and so would the
/// next.
#[test]
fn the_log_does_not_overtake_a_snapshot_that_is_being_fetched() {
    let mut cluster = cluster_with(64, 60_000);
    let (leader, has_come) = fetch_while_writing(&mut cluster);
    assert!(has_come, "the log was faster");
    let last = replica(&cluster, leader, SHARD).raft().last().index;
    cluster.run_until("it has everything", |cluster| replica(cluster, LATE, SHARD).applied() >= last);
    assert_eq!(installed(&cluster), 1, "the rest came from the log");
    // From now on it begins where it would.
    let before = start(&cluster, leader);
    write_more(&mut cluster, leader);
    cluster.run_until("the log is compacted", |cluster| start(cluster, leader) > before);
}

#[test]
fn a_log_that_is_as_long_as_it_may_be_waits_for_no_follower() {
    let mut cluster = limited(65, 60_000, Limits { core_log_bytes_max: 1, ..Limits::default() });
    let (leader, has_come) = fetch_while_writing(&mut cluster);
    assert!(!has_come, "the log has waited");
    let last = replica(&cluster, leader, SHARD).raft().last().index;
    cluster.run_until("it has everything", |cluster| replica(cluster, LATE, SHARD).applied() >= last);
}

/// Which of a node's disks the power leaves first.
#[derive(Clone, Copy, Debug)]
enum Dying {
    Log,
    Snapshots,
}

/// A node fetches a snapshot and puts it in the place of what it had, and its power goes at an operation of one of its disks.
/// Whether there was such an operation before it had caught up.
fn is_cut_off(dying: Dying, operation: u64) -> bool {
    let mut cluster = cluster(66);
    cluster.may_end(LATE);
    let disk = match dying {
        Dying::Log => cluster.disk(LATE, SHARD.0 % CORES).clone(),
        Dying::Snapshots => cluster.snapshot_disk(LATE, SHARD).clone(),
    };
    cluster.start_node(LATE);
    disk.die_at(operation);
    let last = replica(&cluster, 1, SHARD).raft().last().index;
    let has_all = |cluster: &Cluster| cluster.runs(LATE) && replica(cluster, LATE, SHARD).applied() >= last;
    cluster.run_until("it has everything, or no power", |cluster| has_all(cluster) || disk.is_off());
    let was_cut_off = disk.is_off();
    cluster.lose_power(LATE);
    cluster.start_node(LATE);
    cluster.run_until("it has everything", has_all);
    expect_value(&mut cluster, LATE, &key_of(SHARD), b"two");
    was_cut_off
}

/// Old or new, never something in between: from the first piece to what the log says of it, and over every file in between.
// museum 29
#[test]
fn the_power_may_go_at_any_moment_while_a_snapshot_is_fetched_and_installed() {
    for (dying, least) in [(Dying::Log, 5), (Dying::Snapshots, 5)] {
        let operations = (0..).find(|operation| !is_cut_off(dying, *operation)).expect("it comes to an end");
        assert!(operations >= least, "{operations} operations of {dying:?}");
    }
}
