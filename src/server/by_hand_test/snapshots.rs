//! Snapshots that a client asks a node for.

use std::time::Duration;

use raftkv_protocol::client::{Answer, Code, Operation, Reply, ShardSnapshot, SnapshotOutcome};
use raftkv_protocol::types::{EntryId, Index, ShardId};

use super::cluster::{Client, Cluster, NODES, SHARDS};
use super::{counted, key_of, put, replica, write};
use crate::limits::Limits;

const NODE: u64 = 1;
const A_WHILE: Duration = Duration::from_millis(500);

/// A cluster that has written to every shard, and applied it everywhere.
fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::with_limits(seed, Limits { log_tail_bytes: 0, ..Limits::default() });
    (0..SHARDS).map(ShardId).for_each(|shard| write_and_apply(&mut cluster, shard));
    cluster
}

fn write_and_apply(cluster: &mut Cluster, shard: ShardId) {
    write(cluster, 2, &key_of(shard), b"value");
    let written = replica(cluster, cluster.leader(shard), shard).raft().last().index;
    cluster.run_until("it is applied", |cluster| (1..=NODES).all(|node| applied(cluster, node, shard) >= written));
}

fn applied(cluster: &Cluster, node: u64, shard: ShardId) -> Index {
    replica(cluster, node, shard).applied()
}

fn demand(wait_ms: u32) -> Operation<'static> {
    Operation::Snapshot { wait_ms }
}

fn outcomes(reply: Reply<'_>) -> Result<Vec<SnapshotOutcome>, Code> {
    match reply.result {
        Ok(Answer::Snapshots(snapshots)) => {
            let shards: Vec<ShardId> = snapshots.iter().map(|snapshot| snapshot.shard).collect();
            assert_eq!(shards, (0..SHARDS).map(ShardId).collect::<Vec<_>>());
            Ok(snapshots.into_iter().map(|ShardSnapshot { outcome, .. }| outcome).collect())
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn ask(cluster: &mut Cluster, wait_ms: u32) -> Result<Vec<SnapshotOutcome>, Code> {
    let mut client = cluster.dial(NODE, None, &[]);
    cluster.ask(&mut client, demand(wait_ms), outcomes)
}

/// The last entry of a snapshot that was taken.
fn taken(outcome: &SnapshotOutcome) -> Option<EntryId> {
    if let SnapshotOutcome::Taken { at, bytes, .. } = outcome {
        assert!(*bytes > 0);
        return Some(*at);
    }
    None
}

fn snapshots_taken(cluster: &Cluster) -> u64 {
    counted(cluster, NODE, |counters| counters.snapshots_taken)
}

/// Sends a request and waits until all cores know of it.
fn send(cluster: &mut Cluster, wait_ms: u32) -> Client {
    let mut client = cluster.dial(NODE, None, &[]);
    client.send(1, demand(wait_ms));
    cluster.run(Duration::from_millis(1));
    client
}

#[test]
fn a_node_snapshots_its_shards_when_it_is_asked() {
    let mut cluster = cluster(30);
    let first = ask(&mut cluster, 0).expect("all are taken");
    for (shard, outcome) in (0..SHARDS).map(ShardId).zip(&first) {
        assert_eq!(taken(outcome).map(|at| at.index), Some(applied(&cluster, NODE, shard)), "shard {shard}");
    }
    assert_eq!(snapshots_taken(&cluster), u64::from(SHARDS));
    assert_eq!(counted(&cluster, 2, |counters| counters.snapshots_taken), 0, "nobody else was asked");

    let second = ask(&mut cluster, 0).expect("nothing is new");
    for (before, now) in first.iter().zip(&second) {
        let SnapshotOutcome::Unchanged { at, bytes } = now else { panic!("{now:?}") };
        assert_eq!((taken(before), *bytes > 0), (Some(*at), true));
    }
    assert_eq!(snapshots_taken(&cluster), u64::from(SHARDS));

    let moved = ShardId(2);
    write_and_apply(&mut cluster, moved);
    let third = ask(&mut cluster, 0).expect("one is taken");
    let taken: Vec<bool> = third.iter().map(|outcome| taken(outcome).is_some()).collect();
    assert_eq!(taken, [false, false, true, false]);
    assert_eq!(snapshots_taken(&cluster), u64::from(SHARDS) + 1);
    // Of the two the log holds what follows the older.
    let raft = replica(&cluster, NODE, moved).raft();
    assert_eq!(raft.snapshot().map(|meta| meta.at.index), Some(applied(&cluster, NODE, moved)));
    assert_eq!(Some(raft.start()), self::taken(&first[usize::from(moved.0)]));
}

/// What compaction leaves in memory goes some at a time, in turns that come although nothing else is to be done.
#[test]
fn an_idle_node_gives_back_the_memory_of_what_its_log_let_go() {
    let mut cluster = Cluster::of(41, 1, Limits { log_tail_bytes: 0, ..Limits::default() });
    cluster.start_node(NODE);
    cluster.run_until("leaders", Cluster::has_leaders);
    let memory = |cluster: &Cluster| counted(cluster, NODE, |counters| counters.log_memory_bytes);
    (0..5_000).for_each(|_| write(&mut cluster, NODE, &key_of(ShardId(0)), b"value"));
    ask(&mut cluster, 0).expect("the first, which the log goes back to");
    write(&mut cluster, NODE, &key_of(ShardId(0)), b"value");
    let full = memory(&cluster);
    ask(&mut cluster, 0).expect("the second, with which what is before the first goes");
    let (begun, few) = (cluster.now, full / 100);
    assert!(memory(&cluster) > full / 2, "not all at once");
    cluster.run_until("it is given back", |cluster| memory(cluster) <= few);
    assert!(cluster.now - begun < Duration::from_millis(50), "after {:?}", cluster.now - begun);
}

#[test]
fn a_request_joins_the_snapshots_that_are_under_way() {
    let mut cluster = cluster(31);
    cluster.hold_snapshots(NODE, true);
    let mut clients = [send(&mut cluster, 60_000), send(&mut cluster, 60_000)];
    cluster.run(A_WHILE);
    assert!(clients.iter_mut().all(|client| client.replies().is_empty()));
    cluster.hold_snapshots(NODE, false);
    cluster.run(A_WHILE);
    assert_eq!(clients.each_mut().map(Client::replies), [vec![(1, None)], vec![(1, None)]]);
    assert_eq!(snapshots_taken(&cluster), u64::from(SHARDS), "each once");
}

/// The first shard of each core is being written as it was before.
#[test]
fn what_was_applied_before_the_request_is_in_the_snapshot_that_answers_it() {
    let mut cluster = cluster(32);
    cluster.hold_snapshots(NODE, true);
    let mut early = send(&mut cluster, 60_000);
    (0..SHARDS).map(ShardId).for_each(|shard| write_and_apply(&mut cluster, shard));
    let wanted: Vec<Index> = (0..SHARDS).map(|shard| applied(&cluster, NODE, ShardId(shard))).collect();
    let mut late = send(&mut cluster, 60_000);
    cluster.hold_snapshots(NODE, false);
    cluster.run_until("both are done", |cluster| snapshots_taken(cluster) == u64::from(SHARDS) + 1);
    cluster.run(A_WHILE);
    assert_eq!([early.replies(), late.replies()], [[(1, None)], [(1, None)]]);
    for (shard, wanted) in (0..SHARDS).map(ShardId).zip(wanted) {
        let newest = replica(&cluster, NODE, shard).newest_snapshot().expect("one was taken");
        assert!(newest.at.index >= wanted, "shard {shard}");
    }
}

#[test]
fn whoever_waits_too_long_is_told_so_and_the_snapshots_go_on() {
    let mut cluster = cluster(33);
    cluster.hold_snapshots(NODE, true);
    let before = cluster.now;
    assert_eq!(ask(&mut cluster, 700), Err(Code::Timeout));
    let took = cluster.now - before;
    assert!((Duration::from_millis(700)..Duration::from_millis(900)).contains(&took), "{took:?}");
    cluster.hold_snapshots(NODE, false);
    cluster.run_until("all are taken", |cluster| snapshots_taken(cluster) == u64::from(SHARDS));
    let after = ask(&mut cluster, 0).expect("nothing is new");
    assert!(after.iter().all(|outcome| matches!(outcome, SnapshotOutcome::Unchanged { .. })), "{after:?}");
}

/// Those too count that were told *timeout*: what they have begun is not done.
#[test]
fn too_many_requests_at_a_time_are_refused() {
    let mut cluster = cluster(34);
    cluster.hold_snapshots(NODE, true);
    let mut waiting: Vec<Client> = (0..16).map(|nth| send(&mut cluster, if nth < 8 { 1 } else { 60_000 })).collect();
    cluster.run(A_WHILE);
    assert_eq!(ask(&mut cluster, 0), Err(Code::Overloaded));
    assert_eq!(counted(&cluster, NODE, |counters| counters.overloaded_snapshots), 1);
    cluster.hold_snapshots(NODE, false);
    cluster.run(A_WHILE);
    let timeout = vec![(1, Some(Code::Timeout))];
    assert!(waiting[..8].iter_mut().all(|client| client.replies() == timeout));
    assert!(waiting[8..].iter_mut().all(|client| client.replies() == [(1, None)]));
    assert!(ask(&mut cluster, 0).is_ok());
}

#[test]
fn a_snapshot_that_fails_is_named_and_the_others_are_taken() {
    let mut cluster = cluster(35);
    let full = ShardId(1);
    cluster.snapshot_disk(NODE, full).set_full(true);
    let outcomes = ask(&mut cluster, 0).expect("an answer");
    for (shard, outcome) in (0..SHARDS).map(ShardId).zip(&outcomes) {
        match outcome {
            SnapshotOutcome::Failed(why) if shard == full => assert!(why.contains("space"), "{why}"),
            outcome => assert!(shard != full && taken(outcome).is_some(), "shard {shard}: {outcome:?}"),
        }
    }
    // Whoever has made room does not wait until the node tries again by itself.
    cluster.snapshot_disk(NODE, full).set_full(false);
    let before = cluster.now;
    let outcomes = ask(&mut cluster, 0).expect("an answer");
    assert!(taken(&outcomes[usize::from(full.0)]).is_some(), "{outcomes:?}");
    assert!(cluster.now - before < A_WHILE, "{:?}", cluster.now - before);
}

#[test]
fn a_stop_does_not_wait_for_snapshots_and_nobody_is_left_without_an_answer() {
    let mut cluster = cluster(36);
    cluster.hold_snapshots(NODE, true);
    let mut client = send(&mut cluster, 60_000);
    let asked_at = cluster.now;
    cluster.stop(NODE);
    cluster.run_until("the end of the node", |cluster| !cluster.runs(NODE));
    assert!(cluster.now - asked_at < Duration::from_secs(4), "{:?}", cluster.now - asked_at);
    assert_eq!(client.replies(), [(1, Some(Code::NotReady))]);
}

/// Beside everything else that the node does.
#[test]
fn writes_go_on_while_snapshots_are_taken() {
    let mut cluster = cluster(37);
    cluster.hold_snapshots(NODE, true);
    let mut waiting = send(&mut cluster, 60_000);
    let mut client = cluster.dial(NODE, None, &[]);
    for shard in (0..SHARDS).map(ShardId) {
        cluster.ask(&mut client, put(&key_of(shard), b"newer"), |reply| assert_eq!(reply.result, Ok(Answer::Put)));
    }
    assert!(waiting.replies().is_empty());
    cluster.hold_snapshots(NODE, false);
    cluster.run(A_WHILE);
    assert_eq!(waiting.replies(), [(1, None)]);
}
