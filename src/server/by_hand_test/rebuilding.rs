//! Wrong states, built anew in the running node once their log has grown too long.

use std::time::Duration;

use raftkv_protocol::client::{Code, Consistency, Operation};
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{CoreId, Index, NodeId, ShardId, SnapshotId};

use super::cluster::{CORES, Cluster, NODES};
use super::divergence::{alike, fill, spoil};
use super::{counted, expect_value, key_of, replica, replica_mut, router, status_of, write};
use crate::limits::Limits;
use crate::shard::snapshots::{Failure, Loaded};
use crate::state_machine::StateMachine;
use crate::storage::CoreLog as _;

const SHARD: ShardId = ShardId(0);
const WRONG: u64 = 3;
const LOG_BYTES_MAX: u64 = 1 << 20;

fn limits(snapshot_log_bytes: u64) -> Limits {
    Limits { log_tail_bytes: 0, core_log_bytes_max: LOG_BYTES_MAX, snapshot_log_bytes, ..Limits::default() }
}

/// Three nodes, of which one has taken to another state than the others. By then they have taken one snapshot.
fn with_a_wrong_state(seed: u64) -> Cluster {
    let mut cluster = alike(Cluster::with_limits(seed, limits(45_000)));
    spoil(&mut cluster, &[WRONG]);
    assert!(replica(&cluster, WRONG, SHARD).is_wrong());
    cluster
}

fn log_bytes(cluster: &Cluster) -> u64 {
    router(cluster, WRONG, SHARD.0 % CORES).log().held_bytes()
}

/// Writes so many values of 50,000 bytes. Returns how long the log of the wrong node was at most.
fn write_on(cluster: &mut Cluster, writes: usize) -> u64 {
    let mut longest = 0;
    for _ in 0..writes {
        write(cluster, 1, &key_of(SHARD), &[7; 50_000]);
        cluster.run(Duration::from_millis(20));
        longest = longest.max(log_bytes(cluster));
    }
    longest
}

fn rebuilt(cluster: &Cluster) -> u64 {
    counted(cluster, WRONG, |counters| counters.states_rebuilt)
}

/// What a stale read at the node comes to.
fn read_stale(cluster: &mut Cluster) -> Result<(), Code> {
    let key = key_of(SHARD);
    let mut client = cluster.dial(WRONG, None, &[]);
    let operation = Operation::Get { key: &key, consistency: Consistency::Stale };
    cluster.ask(&mut client, operation, |reply| reply.result.map(|_| ()).map_err(|refusal| refusal.code))
}

/// All replicas are alike again, and know it.
#[track_caller]
fn expect_alike(cluster: &mut Cluster) {
    let upto = replica(cluster, 1, SHARD).raft().last().index.0;
    fill(cluster, upto + 2_048);
    let hashes = [1, 2, 3].map(|node| replica(cluster, node, SHARD).status().state_hash);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:x?}");
    for node in 1..=NODES {
        assert!(replica(cluster, node, SHARD).serves(), "node {node}");
        assert!(replica(cluster, node, SHARD).trusts(NodeId(WRONG)), "node {node}");
    }
    assert_eq!(read_stale(cluster), Ok(()));
    write(cluster, WRONG, &key_of(SHARD), b"newest");
    expect_value(cluster, WRONG, &key_of(SHARD), b"newest");
}

// rule 20
#[test]
fn the_log_of_a_state_that_differs_stays_within_its_bounds_as_the_state_is_built_anew() {
    let mut cluster = with_a_wrong_state(50);
    assert_eq!(write_on(&mut cluster, 10).max(LOG_BYTES_MAX), LOG_BYTES_MAX);
    assert_eq!((rebuilt(&cluster), read_stale(&mut cluster)), (0, Err(Code::Diverged)), "as long as it is short");
    assert!([1, 2].iter().all(|node| !replica(&cluster, *node, SHARD).trusts(NodeId(WRONG))));
    let longest = write_on(&mut cluster, 100);
    assert!(longest < 2 * LOG_BYTES_MAX, "{longest} bytes");
    assert_eq!(rebuilt(&cluster), 1);
    // It has told its checkpoints anew, and nobody has come to another since.
    cluster.run(Duration::from_millis(500));
    assert!([1, 2].iter().all(|node| replica(&cluster, *node, SHARD).trusts(NodeId(WRONG))));
    expect_alike(&mut cluster);
    assert_eq!(status_of(&mut cluster, WRONG).holds, []);
    assert_eq!((rebuilt(&cluster), counted(&cluster, WRONG, |counters| counters.divergences)), (1, 1));
    // There was a snapshot of it since.
    expect_built_anew(&mut cluster, 2);
    // And so does the next process.
    cluster.kill(WRONG);
    cluster.start_node(WRONG);
    cluster.run_until("it has caught up", |cluster| replica(cluster, WRONG, SHARD).is_ready());
    expect_alike(&mut cluster);
}

// rule 20
#[test]
fn a_state_that_is_built_anew_is_shown_when_it_has_come_to_where_the_former_was() {
    let mut cluster = with_a_wrong_state(51);
    cluster.hold_snapshots(WRONG, true);
    write_on(&mut cluster, 40);
    assert_eq!((rebuilt(&cluster), read_stale(&mut cluster)), (0, Err(Code::Diverged)), "it is not loaded yet");
    let shown = replica(&cluster, WRONG, SHARD).applied();
    replica_mut(&mut cluster, WRONG, SHARD).apply_at_most(Some(10));
    cluster.hold_snapshots(WRONG, false);
    let mut demand = cluster.dial(WRONG, None, &[]);
    demand.send(1, Operation::Snapshot { wait_ms: 60_000 });
    let (newest, mut refusals) = (replica(&cluster, WRONG, SHARD).newest_snapshot(), 0);
    while rebuilt(&cluster) == 0 || replica(&cluster, WRONG, SHARD).applied() < shown {
        match read_stale(&mut cluster) {
            Err(Code::NotReady) => {
                refusals += 1;
                assert_eq!(
                    replica(&cluster, WRONG, SHARD).newest_snapshot(),
                    newest,
                    "a snapshot now would not shorten the log"
                );
            }
            Err(Code::Diverged) => assert_eq!(rebuilt(&cluster), 0),
            other => assert!(replica(&cluster, WRONG, SHARD).applied() >= shown, "{other:?}"),
        }
    }
    assert!(refusals > 0, "it was seen on its way");
    replica_mut(&mut cluster, WRONG, SHARD).apply_at_most(None);
    cluster.run(Duration::from_secs(1));
    let taken = replica(&cluster, WRONG, SHARD).newest_snapshot().map(|meta| meta.at.index);
    assert!(taken >= Some(shown), "{taken:?}, which somebody asked for");
    expect_alike(&mut cluster);
}

/// The node is the preferred leader, has all of the log, and tells right hashes.
#[test]
fn a_node_does_not_lead_before_its_state_has_come_to_where_the_former_was() {
    let mut cluster = alike(Cluster::with_limits(54, limits(45_000)));
    replica_mut(&mut cluster, 1, SHARD).doubt_state();
    cluster.run_until("somebody else leads", |cluster| !replica(cluster, 1, SHARD).leads());
    let led = |cluster: &Cluster| replica(cluster, 1, SHARD).leads();
    for _ in 0..40 {
        write(&mut cluster, 2, &key_of(SHARD), &[7; 50_000]);
        replica_mut(&mut cluster, 1, SHARD).apply_at_most(Some(0));
    }
    let rebuilt = |cluster: &Cluster| counted(cluster, 1, |counters| counters.states_rebuilt);
    cluster.run_until("it is built anew", |cluster| rebuilt(cluster) == 1);
    cluster.run(Duration::from_secs(60));
    assert!(!led(&cluster));
    replica_mut(&mut cluster, 1, SHARD).apply_at_most(None);
    cluster.run(Duration::from_secs(90));
    assert!(led(&cluster), "as is usual");
    write(&mut cluster, 2, &key_of(SHARD), b"newest");
    expect_value(&mut cluster, 1, &key_of(SHARD), b"newest");
}

/// A state that was built anew and differs again, before there was a snapshot of it.
fn with_a_state_that_is_wrong_again(seed: u64) -> Cluster {
    let mut cluster = with_a_wrong_state(seed);
    cluster.hold_snapshots(WRONG, true);
    write_on(&mut cluster, 40);
    cluster.hold_snapshots(WRONG, false);
    cluster.run_until("it is built anew", |cluster| rebuilt(cluster) == 1);
    cluster.hold_snapshots(WRONG, true);
    cluster.run_until("it has caught up", |cluster| replica(cluster, WRONG, SHARD).is_ready());
    spoil_again(&mut cluster);
    cluster
}

fn rebuilt_from_others(cluster: &Cluster) -> u64 {
    counted(cluster, WRONG, |counters| counters.states_rebuilt_from_others)
}

/// What this node has brought it to the same again: the next state begins with the leader's snapshot.
// rule 20
#[test]
fn a_state_that_differs_again_is_built_anew_from_a_snapshot_of_the_leader() {
    let mut cluster = with_a_state_that_is_wrong_again(52);
    cluster.hold_snapshots(WRONG, false);
    write_on(&mut cluster, 60);
    assert_eq!((rebuilt(&cluster), rebuilt_from_others(&cluster)), (1, 1));
    let longest = write_on(&mut cluster, 60);
    assert!(longest < 2 * LOG_BYTES_MAX, "{longest} bytes");
    expect_alike(&mut cluster);
    assert_eq!(counted(&cluster, WRONG, |counters| counters.snapshots_installed), 0, "its log stays");
    // It begins with what it was given, like any other.
    cluster.kill(WRONG);
    cluster.start_node(WRONG);
    cluster.run_until("it has caught up", |cluster| replica(cluster, WRONG, SHARD).is_ready());
    expect_alike(&mut cluster);
    expect_built_anew(&mut cluster, 1);
}

/// It is killed after every step of the worker, from the first of the fetch to the last before the new state takes its place.
// rule 20
#[test]
fn a_node_that_is_killed_while_it_fetches_for_a_wrong_state_starts_like_any_other() {
    let (mut while_it_came, mut before_it_took_its_place) = (0, 0);
    for steps in 1.. {
        assert!(steps < 50, "it comes to no end");
        let mut cluster = with_nothing_to_begin_with(55 + steps);
        let worker = |cluster: &Cluster| cluster.node(WRONG).snapshots(CoreId(SHARD.0 % CORES)).clone();
        let mut done = 0;
        while done < steps && rebuilt_from_others(&cluster) == 0 {
            if worker(&cluster).next_effort().is_some() {
                worker(&cluster).work();
                done += 1;
            }
            if done < steps {
                cluster.step();
            }
        }
        if rebuilt_from_others(&cluster) > 0 {
            break;
        }
        let names = cluster.snapshot_disk(WRONG, SHARD).names();
        let is_there = |start: &str| names.iter().any(|name| name.starts_with(start));
        while_it_came += u32::from(is_there("receiving-"));
        before_it_took_its_place += u32::from(is_there("snapshot-"));
        cluster.kill(WRONG);
        cluster.start_node(WRONG);
        cluster.run_until("it has caught up", |cluster| replica(cluster, WRONG, SHARD).is_ready());
        expect_alike(&mut cluster);
    }
    assert!(while_it_came > 0 && before_it_took_its_place > 0, "{while_it_came}, {before_it_took_its_place}");
}

/// A state that was found to differ, whose snapshots are set aside, and whose log is too long. The worker stands still.
fn with_nothing_to_begin_with(seed: u64) -> Cluster {
    let mut cluster = Cluster::with_limits(seed, limits(60_000));
    cluster.run_until("node 1 leads", |cluster| replica(cluster, 1, SHARD).leads());
    write_on(&mut cluster, 10);
    replica_mut(&mut cluster, WRONG, SHARD).doubt_state();
    let wrong = replica_mut(&mut cluster, WRONG, SHARD).distrust_snapshots(Index(0));
    assert_eq!(wrong.len(), 2);
    let router = cluster.node_mut(WRONG).router_mut(CoreId(SHARD.0 % CORES)).expect("the core runs");
    wrong.into_iter().for_each(|meta| router.snapshots.set_aside(SHARD, meta));
    cluster.run(Duration::from_millis(100));
    cluster.hold_snapshots(WRONG, true);
    write_on(&mut cluster, 30);
    cluster
}

/// Both kept snapshots were taken of the wrong state, and are set aside: of what is before them there is no log.
// rule 20
#[test]
fn where_both_snapshots_are_of_the_wrong_state_it_is_built_anew_from_one_of_the_leader() {
    let mut cluster = alike(Cluster::with_limits(56, limits(10_000)));
    let sound = replica(&cluster, WRONG, SHARD).newest_snapshot().expect("there is one");
    spoil(&mut cluster, &[WRONG]);
    let start = replica(&cluster, WRONG, SHARD).raft().start().index;
    assert!(start > Index(1_024) && start > sound.at.index, "{start}");
    assert!(replica(&cluster, WRONG, SHARD).is_wrong());
    assert_eq!(replica(&cluster, WRONG, SHARD).newest_snapshot(), None, "they are set aside");
    write_on(&mut cluster, 60);
    assert_eq!((rebuilt(&cluster), rebuilt_from_others(&cluster)), (0, 1));
    let longest = write_on(&mut cluster, 60);
    assert!(longest < 2 * LOG_BYTES_MAX, "{longest} bytes");
    expect_alike(&mut cluster);
    assert_eq!(status_of(&mut cluster, WRONG).holds, []);
}

/// There is nobody to fetch one from, and its log is not to blame.
#[test]
fn a_node_alone_builds_its_state_anew_each_time_that_its_memory_has_not_kept_it() {
    let mut cluster = Cluster::alone(57, limits(45_000));
    let rebuilt = |cluster: &Cluster| counted(cluster, 1, |counters| counters.states_rebuilt);
    cluster.run_until("it leads", |cluster| replica(cluster, 1, SHARD).leads());
    fill(&mut cluster, 1_030);
    for times in 1..=3 {
        cluster.hold_snapshots(1, true);
        for _ in 0..40 {
            write(&mut cluster, 1, &key_of(SHARD), &[7; 50_000]);
        }
        replica_mut(&mut cluster, 1, SHARD).doubt_state();
        cluster.hold_snapshots(1, false);
        cluster.run_until("it is built anew", |cluster| rebuilt(cluster) == times);
        cluster.run_until("it serves", |cluster| {
            replica(cluster, 1, SHARD).is_ready() && replica(cluster, 1, SHARD).serves()
        });
        expect_value(&mut cluster, 1, &key_of(SHARD), &[7; 50_000]);
    }
}

/// The worker answers when it can; meanwhile another snapshot may have become the newest, or another state taken the place.
#[test]
fn what_a_reload_comes_to_counts_only_while_it_is_wanted() {
    let mut cluster = with_a_wrong_state(58);
    let newest = replica(&cluster, WRONG, SHARD).newest_snapshot().expect("there is one");
    let now = cluster.now;
    let loaded = |id| Loaded { meta: SnapshotMeta { id, ..newest }, machine: StateMachine::default(), longest: 0 };
    let other = SnapshotId(newest.id.0 ^ 1);
    let shard = replica_mut(&mut cluster, WRONG, SHARD);
    let applied = shard.applied();
    assert!(shard.may_rebuild(now) && !shard.rebuild(Some(loaded(other)), now).0, "it is not the newest");
    assert!(!shard.rebuild(None, now).0, "nor is nothing");
    assert_eq!((shard.applied(), shard.rebuilds()), (applied, 0));

    let failure = Failure::Failed("it does not give it".to_owned());
    let failed = |cluster: &Cluster, node| counted(cluster, node, |counters| counters.snapshots_failed);
    for (node, counts) in [(1, 0), (WRONG, 1)] {
        let router = cluster.node_mut(node).router_mut(CoreId(SHARD.0 % CORES)).expect("the core runs");
        router.not_reloaded(SHARD, &failure, now);
        assert_eq!(failed(&cluster, node), counts, "node {node}");
    }
    assert!(!replica(&cluster, WRONG, SHARD).may_rebuild(now), "not at once");
}

/// A node that takes to another state builds it anew, for the so-manieth time.
#[track_caller]
fn expect_built_anew(cluster: &mut Cluster, times: u64) {
    cluster.hold_snapshots(WRONG, true);
    spoil_again(cluster);
    cluster.hold_snapshots(WRONG, false);
    write_on(cluster, 60);
    assert_eq!(rebuilt(cluster), times);
    expect_alike(cluster);
}

/// The node takes to another state again, and that is found.
fn spoil_again(cluster: &mut Cluster) {
    cluster.run(Duration::from_millis(500));
    assert!(replica_mut(cluster, WRONG, SHARD).misapply(&key_of(SHARD), b"another"), "it was written");
    let upto = replica(cluster, 1, SHARD).raft().last().index.0;
    let before = counted(cluster, WRONG, |counters| counters.divergences);
    fill(cluster, upto + 1_100);
    assert_eq!(counted(cluster, WRONG, |counters| counters.divergences), before + 1);
}

/// The disk does not give the snapshot at first; then it turns out to be damaged, and the log goes back to the older one.
#[test]
fn a_snapshot_that_cannot_be_loaded_is_tried_again_and_of_a_damaged_one_the_older_takes_the_place() {
    let mut cluster = Cluster::with_limits(53, limits(64 << 20));
    cluster.run_until("node 1 leads", |cluster| replica(cluster, 1, SHARD).leads());
    for upto in [300, 600] {
        fill(&mut cluster, upto);
        let mut client = cluster.dial(WRONG, None, &[]);
        cluster.ask(&mut client, Operation::Snapshot { wait_ms: 0 }, |reply| assert!(reply.result.is_ok()));
    }
    let mut cluster = alike(cluster);
    spoil(&mut cluster, &[WRONG]);
    let shard = replica(&cluster, WRONG, SHARD);
    let (newest, older) = (shard.newest_snapshot().expect("there is one").at, shard.raft().start());
    assert!(Index(0) < older.index && older.index < newest.index && newest.index <= Index(1_024), "{older}, {newest}");
    let name = format!("snapshot-{:016x}-{:016x}.snap", newest.index.0, newest.term.0);
    cluster.snapshot_disk(WRONG, SHARD).set_unreadable(&name, true);
    write_on(&mut cluster, 40);
    cluster.run(Duration::from_secs(10));
    let failed = counted(&cluster, WRONG, |counters| counters.snapshots_failed);
    assert!((3..=6).contains(&failed), "{failed} times, each after a longer pause");
    assert_eq!((rebuilt(&cluster), replica(&cluster, WRONG, SHARD).serves()), (0, false));
    let holds = status_of(&mut cluster, WRONG).holds;
    assert!(holds.iter().any(|hold| hold.shard == SHARD && hold.message.contains(&name)), "{holds:?}");
    cluster.snapshot_disk(WRONG, SHARD).set_unreadable(&name, false);
    cluster.snapshot_disk(WRONG, SHARD).edit(&name, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    cluster.run(Duration::from_secs(60));
    assert_eq!(rebuilt(&cluster), 1);
    assert!(!cluster.snapshot_disk(WRONG, SHARD).names().contains(&name));
    expect_alike(&mut cluster);
}
