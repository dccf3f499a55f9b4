//! Shards of three nodes that take snapshots, let their logs go, and go on from each other's snapshots.

use std::time::Duration;

use raftkv_protocol::client::{Code, Consistency};
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, Index, SnapshotId};

use super::shard_test::{Cluster, SHARD};
use super::snapshots::Loaded;
use super::{News, Settled};
use crate::state_machine::state_hash::FORMAT;
use crate::state_machine::{Restore, Snapshot};
use crate::storage::CoreLog;

/// What a worker makes of a state that it has written and read again.
fn loaded(state: &Snapshot, id: u64) -> Loaded {
    let mut restore = Restore::new(state.at(), FORMAT).expect("the format is known");
    state.iter().for_each(|(key, version, value)| restore.push(key, version, value).expect("keys rise"));
    let longest = state.iter().map(|(key, _, value)| key.len() + value.len()).max().unwrap_or(0);
    let machine = restore.finish(state.hash(), state.checkpoints().to_vec()).expect("the state is whole");
    Loaded { meta: SnapshotMeta { id: SnapshotId(id), at: state.at(), bytes: 100 }, machine, longest }
}

fn take(cluster: &mut Cluster, at: usize, id: u64) -> Snapshot {
    let node = &mut cluster.nodes[at];
    node.shard.begin_snapshot();
    let state = node.shard.snapshot_to_write().expect("everything is durable");
    let meta = SnapshotMeta { id: SnapshotId(id), at: state.at(), bytes: 100 };
    assert_eq!(node.shard.snapshot_taken(meta, &mut node.log, u64::MAX), None);
    state
}

fn put(cluster: &mut Cluster, values: std::ops::Range<u8>) {
    for value in values {
        cluster.put(0, &[value; 20], u32::from(value)).expect("the first leads");
        cluster.settle();
    }
}

fn last(cluster: &Cluster, at: usize) -> Index {
    cluster.nodes[at].shard.status().last.index
}

/// The first leads, and its log begins behind what the third has; the snapshot with which the third can go on.
fn with_one_left_behind() -> (Cluster, Snapshot) {
    let mut cluster = Cluster::led_by_the_first();
    cluster.cut = vec![2];
    put(&mut cluster, 0..20);
    take(&mut cluster, 0, 1);
    put(&mut cluster, 20..40);
    let state = take(&mut cluster, 0, 2);
    (cluster, state)
}

/// Lets the third be offered what it needs.
fn reconnect(cluster: &mut Cluster) -> SnapshotMeta {
    cluster.cut = vec![];
    cluster.nodes[0].shard.raft_mut().link_up(raftkv_protocol::types::NodeId(3));
    for _ in 0..1_000 {
        cluster.settle();
        if let Some((from, meta)) = cluster.nodes[2].shard.take_offer() {
            assert_eq!(from.0, 1);
            return meta;
        }
        cluster.now += Duration::from_millis(1);
    }
    panic!("nothing is offered");
}

fn install(cluster: &mut Cluster, at: usize, loaded: Loaded) -> bool {
    let node = &mut cluster.nodes[at];
    assert!(node.shard.install(loaded).is_none());
    node.shard.settle_snapshot(&mut node.out).installed.is_some()
}

// rule 14
#[test]
fn the_log_goes_behind_the_older_of_two_snapshots() {
    let mut cluster = Cluster::led_by_the_first();
    put(&mut cluster, 0..20);
    assert_eq!(cluster.nodes[0].shard.status().snapshot, EntryId::ZERO);
    let first = take(&mut cluster, 0, 1);
    assert_eq!(cluster.nodes[0].shard.status().snapshot, first.at());
    assert_eq!(cluster.nodes[0].shard.raft().start(), EntryId::ZERO, "there is no older one");
    put(&mut cluster, 20..40);
    take(&mut cluster, 0, 2);
    assert_eq!(cluster.nodes[0].shard.raft().start(), first.at());
    let log = &cluster.nodes[0].log;
    assert!(log.tail(SHARD, first.at().index, last(&cluster, 0)).is_none());
    assert!(log.tail(SHARD, first.at().index.next(), last(&cluster, 0)).is_some());
}

// rule 8
#[test]
fn a_leader_writes_no_state_that_its_own_disk_does_not_have() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.hold(0);
    cluster.put(0, b"v", 1).expect("the first leads");
    cluster.settle();
    let shard = &mut cluster.nodes[0].shard;
    assert!(shard.status().applied > shard.raft().persisted_index(), "committed without the own disk");
    shard.begin_snapshot();
    assert!(shard.snapshot_to_write().is_none());
    cluster.let_go(0);
    cluster.settle();
    let shard = &mut cluster.nodes[0].shard;
    let state = shard.snapshot_to_write().expect("it is durable now");
    assert_eq!(state.at().index, shard.status().applied);
}

// museum 31
#[test]
fn a_follower_that_needs_what_is_gone_goes_on_from_a_snapshot() {
    let (mut cluster, state) = with_one_left_behind();
    let offered = reconnect(&mut cluster);
    assert_eq!((offered.id, offered.at), (SnapshotId(2), state.at()));
    assert!(cluster.nodes[2].shard.lacks(&offered));
    assert!(install(&mut cluster, 2, loaded(&state, 2)));
    assert!(!cluster.nodes[2].shard.lacks(&offered));
    let status = cluster.nodes[2].shard.status();
    assert_eq!((status.applied, status.commit, status.last), (state.at().index, state.at().index, state.at()));
    put(&mut cluster, 40..50);
    cluster.run(Duration::from_millis(300));
    let (first, third) = (cluster.nodes[0].shard.status(), cluster.nodes[2].shard.status());
    assert_eq!((third.applied, third.state_hash), (first.applied, first.state_hash));
    assert_eq!(cluster.nodes[0].shard.raft().matched(raftkv_protocol::types::NodeId(3)), Some(last(&cluster, 0)));
    cluster.get(2, Consistency::Stale, 99).expect("it has caught up");
    assert_eq!(cluster.told(2), [(99, Ok(Some(vec![49; 20])))]);
}

// museum 26
#[test]
fn entries_that_only_the_follower_has_give_way_to_the_snapshot() {
    let mut cluster = Cluster::led_by_the_first();
    // The first is alone with entries that nobody commits; the others go on without it, and let their logs go.
    cluster.cut = vec![0];
    for value in 0..30 {
        cluster.put(0, &[value; 20], u32::from(value)).expect("it still leads");
    }
    cluster.settle();
    cluster.run_until(|cluster| cluster.nodes[1].shard.leads() || cluster.nodes[2].shard.leads());
    let leader = if cluster.nodes[1].shard.leads() { 1 } else { 2 };
    for round in 1..=2 {
        for value in 100..110 {
            cluster.put(leader, &[value; 20], 1_000).expect("it leads");
            cluster.settle();
        }
        take(&mut cluster, leader, round);
    }
    let state = take_again(&mut cluster, leader);
    cluster.cut = vec![];
    for at in 0..3 {
        (0..3).filter(|other| *other != at).for_each(|other| {
            cluster.nodes[at].shard.raft_mut().link_up(raftkv_protocol::types::NodeId(other as u64 + 1));
        });
    }
    cluster.run_until(|cluster| cluster.nodes[0].shard.has_offer());
    assert!(last(&cluster, 0) > state.at().index, "what conflicts reaches further than the snapshot");
    cluster.told(0);
    assert!(install(&mut cluster, 0, loaded(&state, 3)));
    cluster.settle();
    assert_eq!(last(&cluster, 0), last(&cluster, leader));
    let told = cluster.told(0);
    let unknown = told.iter().filter(|(_, result)| *result == Err(Code::Timeout)).count();
    assert!(unknown > 10, "whose index is skipped cannot know: {told:?}");
    cluster.run(Duration::from_millis(500));
    let (own, others) = (cluster.nodes[0].shard.status(), cluster.nodes[leader].shard.status());
    assert_eq!((own.applied, own.state_hash), (others.applied, others.state_hash));
}

/// The newest snapshot's state: nothing was applied since.
fn take_again(cluster: &mut Cluster, at: usize) -> Snapshot {
    cluster.nodes[at].shard.begin_snapshot();
    cluster.nodes[at].shard.snapshot_to_write().expect("everything is durable")
}

#[test]
fn a_snapshot_that_comes_too_late_changes_nothing() {
    let (mut cluster, state) = with_one_left_behind();
    let at = state.at();
    reconnect(&mut cluster);
    assert!(install(&mut cluster, 2, loaded(&state, 2)));
    put(&mut cluster, 40..50);
    cluster.run(Duration::from_millis(300));
    let before = cluster.nodes[2].shard.status();
    assert!(before.applied > at.index);
    let node = &mut cluster.nodes[2];
    assert!(node.shard.install(loaded(&state, 2)).is_none());
    let settled = node.shard.settle_snapshot(&mut node.out);
    assert!(settled.installed.is_none());
    assert_eq!(settled.useless.map(|machine| machine.applied()), Some(at.index), "it is to be dropped elsewhere");
    assert_eq!(cluster.nodes[2].shard.status(), before);
}

// museum 29, rule 10
#[test]
fn a_crash_around_an_installation_leaves_a_replica_that_goes_on() {
    for is_durable in [false, true] {
        let (mut cluster, state) = with_one_left_behind();
        reconnect(&mut cluster);
        cluster.hold(2);
        assert!(install(&mut cluster, 2, loaded(&state, 2)));
        cluster.turn(2);
        if is_durable {
            cluster.let_go(2);
            cluster.turn(2);
        }
        // The file was durable under its name before anything else.
        cluster.restart_with(2, loaded(&state, 2));
        let status = cluster.nodes[2].shard.status();
        assert_eq!((status.applied, status.snapshot), (state.at().index, state.at()), "durable: {is_durable}");
        cluster.let_go(2);
        put(&mut cluster, 40..45);
        cluster.run(Duration::from_millis(500));
        let (first, third) = (cluster.nodes[0].shard.status(), cluster.nodes[2].shard.status());
        assert_eq!((third.applied, third.state_hash), (first.applied, first.state_hash), "durable: {is_durable}");
    }
}

#[test]
fn a_restart_begins_with_the_newest_snapshot_and_applies_what_follows() {
    let mut cluster = Cluster::led_by_the_first();
    put(&mut cluster, 0..20);
    take(&mut cluster, 1, 1);
    put(&mut cluster, 20..40);
    let state = take(&mut cluster, 1, 2);
    put(&mut cluster, 40..60);
    cluster.restart_with(1, loaded(&state, 2));
    assert_eq!(cluster.nodes[1].shard.status().applied, state.at().index);
    cluster.run(Duration::from_millis(300));
    let (first, second) = (cluster.nodes[0].shard.status(), cluster.nodes[1].shard.status());
    assert_eq!((second.applied, second.state_hash), (first.applied, first.state_hash));
}

/// Whether that was found before or after the snapshot came.
// museum 48
#[test]
fn that_a_state_was_corrupt_is_told_although_a_snapshot_has_taken_its_place() {
    for is_known_before in [true, false] {
        let (mut cluster, state) = with_one_left_behind();
        reconnect(&mut cluster);
        let (at, now) = (EntryId::new(1, 1), cluster.now);
        let corrupt = |cluster: &mut Cluster| cluster.nodes[2].shard.snapshot_corrupt(at, 3, 4, now);
        if is_known_before {
            corrupt(&mut cluster);
        }
        assert_eq!(cluster.nodes[2].shard.serves(), !is_known_before);
        assert!(install(&mut cluster, 2, loaded(&state, 2)));
        if !is_known_before {
            corrupt(&mut cluster);
        }
        let shard = &mut cluster.nodes[2].shard;
        assert!(shard.serves());
        let news = shard.compare(now);
        assert!(matches!(news[..], [News::Replaced(found)] if (found.own, found.other) == (3, 4)), "{news:?}");
        assert!(shard.serves() && shard.compare(now).is_empty());
    }
}

/// A write that is committed, and is in the state.
// rule 25
#[test]
fn a_committed_write_over_which_a_rebuild_skips_is_not_refused_for_good() {
    let mut cluster = Cluster::led_by_the_first();
    put(&mut cluster, 0..5);
    cluster.told(0);
    // The first lags in applying what it has proposed.
    cluster.nodes[0].shard.apply_at_most(Some(0));
    put(&mut cluster, 10..15);
    assert!(cluster.told(0).is_empty());
    cluster.run(Duration::from_millis(200));
    let state = take(&mut cluster, 1, 7);
    let commit = cluster.nodes[0].shard.status().commit;
    assert!(state.at().index > cluster.nodes[0].shard.applied() && state.at().index <= commit);
    // Its state turns out to be wrong, and the next begins with that of another node.
    rebuild_from(&mut cluster, 0, &state, 7);
    cluster.nodes[0].shard.apply_at_most(None);
    cluster.run(Duration::from_millis(300));
    let leader = (0..3).find(|at| cluster.nodes[*at].shard.leads()).expect("somebody leads");
    cluster.put(leader, b"one more", 1_000).expect("it leads");
    cluster.settle();
    cluster.run(Duration::from_millis(300));
    let told = cluster.told(0);
    assert_eq!(told.iter().filter(|(_, result)| *result == Err(Code::Timeout)).count(), 5, "{told:?}");
    assert!(told.iter().all(|(_, result)| *result != Err(Code::NotLeader)), "{told:?}");
}

/// The state of a node turns out to be wrong, and one that was fetched takes its place.
#[track_caller]
fn rebuild_from(cluster: &mut Cluster, at: usize, state: &Snapshot, id: u64) -> Settled {
    let node = &mut cluster.nodes[at];
    node.shard.doubt_state();
    assert!(node.shard.lacks(&SnapshotMeta { id: SnapshotId(id), at: state.at(), bytes: 100 }));
    assert!(node.shard.install(loaded(state, id)).is_none());
    let settled = node.shard.settle_snapshot(&mut node.out);
    assert!(settled.rebuilt.is_some() && settled.useless.is_some() && settled.installed.is_none());
    settled
}

#[test]
fn a_state_that_is_wrong_again_on_its_way_has_as_far_to_go_as_before() {
    let mut cluster = Cluster::led_by_the_first();
    put(&mut cluster, 0..100);
    cluster.run(Duration::from_millis(200));
    let former = cluster.nodes[1].shard.applied();
    cluster.nodes[1].shard.apply_at_most(Some(10));
    let mut now = cluster.now;
    for _ in 0..2 {
        let node = &mut cluster.nodes[1];
        node.shard.doubt_state();
        assert!(node.shard.rebuild(None, now).0);
        cluster.turn(1);
        // The second time it waits.
        now += Duration::from_secs(60);
    }
    while cluster.nodes[1].shard.is_catching_up() {
        assert!(cluster.nodes[1].shard.applied() < former, "it may not lead");
        cluster.turn(1);
    }
    assert_eq!(cluster.nodes[1].shard.applied(), former);
}

/// The own snapshots are set aside; that of the leader is an earlier one than the newest of them.
#[test]
fn followers_are_offered_the_snapshot_that_is_there() {
    let mut cluster = Cluster::led_by_the_first();
    let write = |cluster: &mut Cluster, numbers| {
        put(cluster, numbers);
        cluster.run(Duration::from_millis(200));
    };
    write(&mut cluster, 0..10);
    take(&mut cluster, 1, 1);
    write(&mut cluster, 10..20);
    let of_leader = take(&mut cluster, 0, 9);
    write(&mut cluster, 20..30);
    take(&mut cluster, 1, 2);
    let shard = &mut cluster.nodes[1].shard;
    assert!(shard.raft().start().index < of_leader.at().index);
    // As is done when it has diverged.
    assert_eq!(shard.distrust_snapshots(Index(0)).len(), 2);
    rebuild_from(&mut cluster, 1, &of_leader, 9);
    cluster.run(Duration::from_millis(300));
    let shard = &cluster.nodes[1].shard;
    assert_eq!(shard.newest_snapshot().map(|meta| meta.id), Some(SnapshotId(9)));
    assert_eq!(shard.raft().snapshot().map(|meta| meta.id), Some(SnapshotId(9)), "what followers are offered");
    assert!(shard.snapshot_is_due(u64::MAX, cluster.now), "the log behind it may be long");
}

/// It waits for the disk while the state turns out to be wrong.
#[test]
fn a_snapshot_that_was_begun_is_given_back_by_a_rebuild() {
    let mut cluster = Cluster::led_by_the_first();
    put(&mut cluster, 0..5);
    cluster.hold(0);
    put(&mut cluster, 10..15);
    cluster.run(Duration::from_millis(200));
    let node = &mut cluster.nodes[0];
    node.shard.begin_snapshot();
    assert!(node.shard.snapshot_to_write().is_none(), "it is not durable");
    put(&mut cluster, 15..20);
    cluster.run(Duration::from_millis(200));
    let state = take(&mut cluster, 1, 7);
    let settled = rebuild_from(&mut cluster, 0, &state, 7);
    assert!(settled.begun.is_some() && !cluster.nodes[0].shard.is_taking_snapshot());
}
