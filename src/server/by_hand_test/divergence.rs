//! Replicas whose state is another than the others': found at the next checkpoint, and kept from serving.

use std::time::Duration;

use raftkv_protocol::client::{Code, Consistency, Operation};
use raftkv_protocol::health::{Divergence, Verdict};
use raftkv_protocol::types::{CoreId, Index, NodeId, ShardId};

use super::cluster::{CORES, Cluster, NODES};
use super::{counted, expect_value, get, key_of, put, replica, replica_mut, router, status_of, write};
use crate::limits::Limits;
use crate::server::message::{Origin, ReplyTo};
use crate::shard::Write;
use crate::storage::Space;

const SHARD: ShardId = ShardId(0);
/// Long enough for hashes to be told and compared.
const EXCHANGE: Duration = Duration::from_millis(500);

fn leader(cluster: &Cluster) -> u64 {
    (1..=cluster.nodes())
        .find(|node| cluster.runs(*node) && replica(cluster, *node, SHARD).leads())
        .expect("somebody leads")
}

/// Writes other keys of the shard until its index is at least this; nobody waits for the answers.
pub(super) fn fill(cluster: &mut Cluster, upto: u64) {
    let key = key_of(SHARD);
    let to = ReplyTo { core: CoreId(SHARD.0 % CORES), origin: Origin::Gather { job: u64::MAX, shard: SHARD } };
    let deadline = cluster.now + Duration::from_secs(60);
    for round in 0.. {
        assert!(round < 1_000, "nobody takes them in");
        let node = leader(cluster);
        let shard = replica_mut(cluster, node, SHARD);
        let missing = upto.saturating_sub(shard.raft().last().index.0);
        if missing == 0 {
            break;
        }
        for n in 0..missing.min(500) {
            let other = [&key[..], &n.to_le_bytes()].concat();
            let write = Write::Put { key: &other, value: b"filler", condition: Default::default() };
            if shard.write(write, to, deadline, Space::Plenty).is_err() {
                // It has turned out to be wrong and hands over.
                break;
            }
        }
        cluster.run(Duration::from_millis(20));
    }
    cluster.run(EXCHANGE);
}

/// A cluster whose replicas have compared at index 1,024, where all were alike.
fn cluster(seed: u64, nodes: u64) -> Cluster {
    alike(Cluster::with_nodes(seed, nodes))
}

/// The same of a cluster that has just begun.
pub(super) fn alike(mut cluster: Cluster) -> Cluster {
    let nodes = cluster.nodes();
    cluster.run_until("node 1 leads", |cluster| replica(cluster, 1, SHARD).leads());
    write(&mut cluster, nodes.min(2), &key_of(SHARD), b"right");
    fill(&mut cluster, 1_030);
    for node in 1..=nodes {
        assert!(counted(&cluster, node, |counters| counters.checkpoints_received) >= nodes - 1, "node {node}");
        assert!(replica(&cluster, node, SHARD).serves());
    }
    cluster
}

/// These nodes apply something that is not what the log says, each something else, as an error in the program would, and the
/// shard goes on to its next checkpoint.
pub(super) fn spoil(cluster: &mut Cluster, nodes: &[u64]) {
    for node in nodes {
        assert!(replica_mut(cluster, *node, SHARD).misapply(&key_of(SHARD), &node.to_le_bytes()), "it was written");
    }
    fill(cluster, 2_050);
}

/// What a read of the shard at a node comes to.
fn read(cluster: &mut Cluster, node: u64, consistency: Consistency) -> Result<(), Code> {
    let key = key_of(SHARD);
    let mut client = cluster.dial(node, None, &[]);
    let operation = Operation::Get { key: &key, consistency };
    cluster.ask(&mut client, operation, |reply| reply.result.map(|_| ()).map_err(|refusal| refusal.code))
}

fn found(cluster: &Cluster, node: u64) -> Option<Divergence> {
    replica(cluster, node, SHARD).status().divergence
}

/// A node's replica is found to be wrong, between which indexes, with which hashes; the `healthy` one's is another.
#[track_caller]
fn expect_diverged(cluster: &mut Cluster, node: u64, healthy: u64) {
    let right = replica(cluster, healthy, SHARD).checkpoints_after(Index(1_024)).next().expect("a checkpoint");
    let wrong = replica(cluster, node, SHARD).checkpoints_after(Index(1_024)).next().expect("a checkpoint");
    assert_ne!(right.hash, wrong.hash);
    let want = Divergence {
        verdict: Verdict::Diverged,
        agreed: Index(1_024),
        differs: Index(2_048),
        own: wrong.hash,
        other: right.hash,
    };
    let status = status_of(cluster, node);
    assert_eq!(status.shards[usize::from(SHARD.0)].divergence, Some(want));
    assert_eq!(status.shards.iter().filter(|shard| shard.divergence.is_some()).count(), 1, "only this shard");
    assert_eq!(counted(cluster, node, |counters| counters.divergences), 1);
    assert_eq!(read(cluster, node, Consistency::Stale), Err(Code::Diverged));
}

/// These nodes serve the shard as if nothing were.
#[track_caller]
fn expect_service(cluster: &mut Cluster, nodes: &[u64]) {
    for node in nodes {
        write(cluster, *node, &key_of(SHARD), b"newer");
        expect_value(cluster, *node, &key_of(SHARD), b"newer");
        cluster.run(Duration::from_millis(300));
        assert_eq!(read(cluster, *node, Consistency::Stale), Ok(()), "node {node}");
        assert_eq!(found(cluster, *node), None);
    }
}

// rule 20, museum 48
#[test]
fn a_follower_that_differs_stops_serving_and_the_others_go_on() {
    let mut cluster = cluster(1, NODES);
    let term = replica(&cluster, 1, SHARD).raft().term();
    spoil(&mut cluster, &[2]);
    expect_diverged(&mut cluster, 2, 1);
    expect_service(&mut cluster, &[1, 3]);
    // What it forwards is served.
    write(&mut cluster, 2, &key_of(SHARD), b"newest");
    expect_value(&mut cluster, 2, &key_of(SHARD), b"newest");
    assert_eq!((leader(&cluster), replica(&cluster, 1, SHARD).raft().term()), (1, term));
    // It does not stand for election, not even if it is asked to, and nobody would ask it.
    assert!([1, 3].iter().all(|node| !replica(&cluster, *node, SHARD).trusts(NodeId(2))));
    replica_mut(&mut cluster, 1, SHARD).raft_mut().transfer(NodeId(2)).expect("it leads");
    cluster.run(Duration::from_secs(2));
    assert_eq!((leader(&cluster), replica(&cluster, 1, SHARD).raft().term()), (1, term));
    cluster.kill(1);
    cluster.run_until("node 3 leads", |cluster| replica(cluster, 3, SHARD).leads());
    expect_service(&mut cluster, &[3]);
}

// rule 20
#[test]
fn a_leader_that_differs_hands_over_and_does_not_get_the_shard_back() {
    let mut cluster = cluster(2, NODES);
    let before = cluster.now;
    spoil(&mut cluster, &[1]);
    cluster.run_until("somebody else leads", |cluster| leader(cluster) != 1);
    assert!(cluster.now - before < Duration::from_secs(2), "{:?}", cluster.now - before);
    expect_diverged(&mut cluster, 1, 2);
    expect_service(&mut cluster, &[2, 3]);
    assert_eq!(counted(&cluster, 1, |counters| counters.transfers_away), 1);
    // Node 1 is the preferred leader, and keeps up.
    cluster.run(Duration::from_secs(90));
    assert_ne!(leader(&cluster), 1);
    // A state that is built anew is right.
    cluster.kill(1);
    cluster.start_node(1);
    cluster.run_until("node 1 has caught up", |cluster| replica(cluster, 1, SHARD).is_ready());
    fill(&mut cluster, 3_080);
    expect_service(&mut cluster, &[1, 2, 3]);
    assert!(replica(&cluster, 2, SHARD).trusts(NodeId(1)));
}

// rule 20
#[test]
fn a_wrong_state_does_not_outlive_the_process_in_a_snapshot() {
    let limits = Limits { snapshot_log_bytes: 45_000, log_tail_bytes: 0, ..Limits::default() };
    let mut cluster = alike(Cluster::with_limits(8, limits));
    let sound = replica(&cluster, 2, SHARD).status().snapshot;
    assert!(Index(0) < sound.index && sound.index < Index(1_024), "{sound}");
    spoil(&mut cluster, &[2]);
    expect_diverged(&mut cluster, 2, 1);
    let set_aside = |name: &String| name.starts_with("damaged-");
    assert!(cluster.snapshot_disk(2, SHARD).names().iter().any(set_aside), "there was one of the wrong state");
    assert_eq!(replica(&cluster, 2, SHARD).status().snapshot, sound, "what it would offer to others");
    // It takes no more.
    fill(&mut cluster, 4_000);
    assert_eq!(replica(&cluster, 2, SHARD).status().snapshot, sound);
    cluster.kill(2);
    cluster.start_node(2);
    assert_eq!(replica(&cluster, 2, SHARD).status().snapshot, sound);
    cluster.run_until("node 2 has caught up", |cluster| replica(cluster, 2, SHARD).is_ready());
    fill(&mut cluster, 5_200);
    expect_service(&mut cluster, &[1, 2, 3]);
    let hashes = [1, 2, 3].map(|node| replica(&cluster, node, SHARD).status().state_hash);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

/// Keys that rest and keys that are written again, on a follower and on the leader: each is read at the next checkpoint.
// rule 20
#[test]
fn a_wrong_byte_in_memory_is_found_at_the_next_checkpoint() {
    let rests = key_of(SHARD);
    let written = [&rests[..], &7_u64.to_le_bytes()].concat();
    for (wrong, key) in [(1, &rests), (1, &written), (2, &rests), (2, &written)] {
        let mut cluster = cluster(10, NODES);
        let term = replica(&cluster, 1, SHARD).raft().term();
        assert!(replica_mut(&mut cluster, wrong, SHARD).flip_byte(key));
        fill(&mut cluster, 2_047);
        assert_eq!(found(&cluster, wrong), None);
        fill(&mut cluster, 2_048);
        let healthy = 3;
        let expected = replica(&cluster, healthy, SHARD).checkpoints_after(Index(1_024)).next().expect("a checkpoint");
        let status = status_of(&mut cluster, wrong);
        let found = status.shards[usize::from(SHARD.0)].divergence.expect("it was found");
        assert_eq!((found.verdict, found.agreed, found.differs), (Verdict::Corrupt, Index(1_024), Index(2_048)));
        assert_ne!(found.own, found.other);
        // Of a key that rests the hash is known that it should have; of one that was written it is the hash that is wrong.
        assert_eq!(found.own == expected.hash, *key == written);
        assert_eq!(found.other == expected.hash, *key == rests);
        assert_eq!(status.shards.iter().filter(|shard| shard.divergence.is_some()).count(), 1, "only this shard");
        assert_eq!(counted(&cluster, wrong, |counters| counters.divergences), 1);
        assert_eq!(read(&mut cluster, wrong, Consistency::Stale), Err(Code::Diverged));
        if wrong == 1 {
            cluster.run_until("somebody else leads", |cluster| leader(cluster) != 1);
        } else {
            assert_eq!((leader(&cluster), replica(&cluster, 1, SHARD).raft().term()), (1, term));
        }
        let sound: Vec<u64> = (1..=NODES).filter(|node| *node != wrong).collect();
        expect_service(&mut cluster, &sound);
    }
}

/// A state that is too large to be read by the loop: the worker reads it.
// rule 20
#[test]
fn a_wrong_byte_of_a_large_state_is_found_at_the_next_checkpoint() {
    for wrong in [1, 2] {
        let mut cluster = cluster(12, NODES);
        write(&mut cluster, 1, &key_of(SHARD), &[7; 1 << 20]);
        fill(&mut cluster, 2_050);
        assert_eq!(counted(&cluster, wrong, |counters| counters.states_scrubbed), 1);
        let sound = replica(&cluster, wrong, SHARD).state().scrubbed();
        assert!((Index(2_048)..=Index(2_050)).contains(&sound), "{sound}");
        assert!(replica_mut(&mut cluster, wrong, SHARD).flip_byte(&key_of(SHARD)));
        fill(&mut cluster, 3_071);
        assert_eq!(found(&cluster, wrong), None);
        fill(&mut cluster, 3_072);
        let found = found(&cluster, wrong).expect("it was found");
        assert_eq!((found.verdict, found.agreed, found.differs), (Verdict::Corrupt, sound, Index(3_072)));
        assert_eq!(found.other, replica(&cluster, 3, SHARD).status().state_hash, "it is known what it should have");
        assert_eq!(counted(&cluster, wrong, |counters| counters.divergences), 1);
        assert_eq!(read(&mut cluster, wrong, Consistency::Stale), Err(Code::Diverged));
        cluster.run_until("another leads", |cluster| leader(cluster) != wrong);
        // It is known: nobody reads it again.
        fill(&mut cluster, 4_200);
        assert_eq!([wrong, 3].map(|node| counted(&cluster, node, |counters| counters.states_scrubbed)), [2, 3]);
        let sound: Vec<u64> = (1..=NODES).filter(|node| *node != wrong).collect();
        expect_service(&mut cluster, &sound);
    }
}

/// What may be read in a second was read, and more: the next is read when that is made up for.
#[test]
fn large_states_are_read_no_faster_than_they_may_be() {
    let limits = Limits { scrub_rate: 64 << 10, ..Limits::default() };
    let mut cluster = alike(Cluster::with_limits(13, limits));
    write(&mut cluster, 1, &key_of(SHARD), &[7; 1 << 20]);
    let begun = |cluster: &Cluster| counted(cluster, 2, |counters| counters.state_scrub_bytes);
    // What nothing was read of for eight seconds, or since the start, is made up for in some sixteen.
    fill(&mut cluster, 2_050);
    let (first, since) = (begun(&cluster), cluster.now);
    assert!(first > 1 << 20);
    fill(&mut cluster, 4_100);
    assert_eq!(begun(&cluster), first);
    cluster.run_until("the next is read", |cluster| begun(cluster) > first);
    let waited = (cluster.now - since).as_secs_f64();
    let whole = first as f64 / 65_536.0;
    assert!(whole - 8.5 < waited && waited < whole + 0.5, "{waited} s of {whole}");
}

// rule 20
#[test]
fn a_wrong_byte_in_the_memory_of_a_node_alone_is_found_as_well() {
    let mut cluster = cluster(11, 1);
    assert!(replica_mut(&mut cluster, 1, SHARD).flip_byte(&key_of(SHARD)));
    fill(&mut cluster, 2_050);
    assert_eq!(found(&cluster, 1).map(|found| found.verdict), Some(Verdict::Corrupt));
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        assert_eq!(read(&mut cluster, 1, consistency), Err(Code::Diverged));
    }
    cluster.kill(1);
    cluster.start_node(1);
    cluster.run_until("it has caught up", |cluster| replica(cluster, 1, SHARD).is_ready());
    fill(&mut cluster, 3_080);
    expect_service(&mut cluster, &[1]);
}

/// No checkpoint comes between: the snapshot is the first to read it.
// rule 20
#[test]
fn a_wrong_byte_that_no_write_finds_is_found_by_the_next_snapshot() {
    for wrong in [1, 2] {
        let limits = Limits { snapshot_log_bytes: 45_000, log_tail_bytes: 0, ..Limits::default() };
        let mut cluster = alike(Cluster::with_limits(9, limits));
        let sound = replica(&cluster, wrong, SHARD).status().snapshot;
        let start = replica(&cluster, wrong, SHARD).raft().start();
        assert!(replica_mut(&mut cluster, wrong, SHARD).flip_byte(&key_of(SHARD)));
        fill(&mut cluster, 4_000);
        let status = replica(&cluster, wrong, SHARD).status();
        let found = status.divergence.expect("it was found");
        assert_eq!((found.verdict, status.snapshot), (Verdict::Corrupt, sound));
        assert!(found.differs > sound.index && found.own != found.other, "{found}");
        assert_eq!(replica(&cluster, wrong, SHARD).raft().start(), start, "its log is needed");
        assert_eq!(counted(&cluster, wrong, |counters| counters.divergences), 1);
        assert_eq!(counted(&cluster, wrong, |counters| counters.snapshots_failed), 1);
        assert_eq!(read(&mut cluster, wrong, Consistency::Stale), Err(Code::Diverged));
        assert_ne!(leader(&cluster), wrong);
        let sound_nodes: Vec<u64> = (1..=NODES).filter(|node| *node != wrong).collect();
        expect_service(&mut cluster, &sound_nodes);
        // A state that is built anew is right.
        cluster.kill(wrong);
        cluster.start_node(wrong);
        cluster.run_until("it has caught up", |cluster| replica(cluster, wrong, SHARD).is_ready());
        fill(&mut cluster, 6_000);
        assert!(replica(&cluster, wrong, SHARD).status().snapshot.index > found.differs);
        expect_service(&mut cluster, &[1, 2, 3]);
    }
}

// rule 20
#[test]
fn one_of_five_that_differs_is_alone_with_it() {
    let mut cluster = cluster(3, 5);
    spoil(&mut cluster, &[4]);
    expect_diverged(&mut cluster, 4, 1);
    expect_service(&mut cluster, &[1, 2, 3, 5]);
}

#[test]
fn two_of_five_that_differ_stop_serving() {
    let mut cluster = cluster(4, 5);
    spoil(&mut cluster, &[1, 4]);
    cluster.run_until("somebody else leads", |cluster| leader(cluster) != 1);
    assert_ne!(leader(&cluster), 4);
    expect_diverged(&mut cluster, 1, 2);
    expect_diverged(&mut cluster, 4, 2);
    expect_service(&mut cluster, &[2, 3, 5]);
}

// rule 20
#[test]
fn where_no_majority_agrees_nobody_serves_until_one_does() {
    let mut cluster = cluster(5, NODES);
    spoil(&mut cluster, &[1, 2]);
    let key = key_of(SHARD);
    for node in 1..=NODES {
        let found = found(&cluster, node).expect("nobody knows who is right");
        assert_eq!((found.verdict, found.agreed, found.differs), (Verdict::Undecided, Index(1_024), Index(2_048)));
        for consistency in [Consistency::Linearizable, Consistency::Stale] {
            assert_eq!(read(&mut cluster, node, consistency), Err(Code::Diverged), "node {node}");
        }
        let mut client = cluster.dial(node, None, &[]);
        let written = cluster.ask(&mut client, put(&key, b"v"), |reply| reply.result.map_err(|why| why.code).err());
        assert_eq!(written, Some(Code::Diverged));
    }
    // The shards that nothing is the matter with go on.
    write(&mut cluster, 1, &key_of(ShardId(1)), b"value");
    // Node 1 builds its state anew: with node 3 it is the majority, and node 2 is wrong.
    cluster.kill(1);
    cluster.start_node(1);
    cluster.run_until("nodes 1 and 3 agree", |cluster| {
        [1, 3].iter().all(|node| replica(cluster, *node, SHARD).serves()) && replica(cluster, 2, SHARD).is_wrong()
    });
    cluster
        .run_until("a leader that serves", |cluster| [1, 3].iter().any(|node| replica(cluster, *node, SHARD).leads()));
    cluster.run(Duration::from_secs(1));
    expect_service(&mut cluster, &[1, 3]);
    assert_eq!(read(&mut cluster, 2, Consistency::Stale), Err(Code::Diverged));
}

/// The third could decide it: it is waited for, though not for long.
#[test]
fn two_that_differ_while_the_third_is_down_stop_until_it_decides() {
    let mut cluster = cluster(6, NODES);
    cluster.kill(3);
    spoil(&mut cluster, &[2]);
    cluster.run(Duration::from_secs(2));
    for node in [1, 2] {
        assert_eq!(found(&cluster, node).map(|found| found.verdict), Some(Verdict::Undecided), "node {node}");
        assert_eq!(read(&mut cluster, node, Consistency::Linearizable), Err(Code::Diverged));
    }
    cluster.start_node(3);
    cluster.run_until("the third has decided", |cluster| {
        replica(cluster, 1, SHARD).serves() && replica(cluster, 2, SHARD).is_wrong()
    });
    expect_service(&mut cluster, &[1]);
    assert_eq!(counted(&cluster, 1, |counters| counters.divergences), 1);
}

/// A hash is told once on a link, and not more often than heartbeats are.
#[test]
fn checkpoints_cost_little() {
    let mut cluster = cluster(7, NODES);
    let received = |cluster: &Cluster| counted(cluster, 2, |counters| counters.checkpoints_received);
    let before = received(&cluster);
    cluster.run(Duration::from_secs(10));
    assert_eq!(received(&cluster), before, "nothing is told twice");
    fill(&mut cluster, 5_130);
    assert_eq!(received(&cluster), before + 2 * 4, "four more of two peers");
    let mut client = cluster.dial(2, None, &[]);
    cluster.ask(&mut client, get(&key_of(SHARD)), |reply| assert!(reply.result.is_ok()));
    assert_eq!(router(&cluster, 2, 0).counters.divergences, 0);
}

/// Another shard of its core is snapshotted without a pause.
#[test]
fn a_large_state_is_read_although_there_are_snapshots_all_the_time() {
    let limits = Limits { snapshot_log_bytes: 4 << 10, log_tail_bytes: 0, ..Limits::default() };
    let mut cluster = Cluster::alone(90, limits);
    let hot = ShardId(CORES);
    cluster.run_until("it leads", |cluster| [SHARD, hot].iter().all(|shard| replica(cluster, 1, *shard).leads()));
    write(&mut cluster, 1, &key_of(SHARD), &[7; 1 << 20]);
    let to = ReplyTo { core: CoreId(SHARD.0 % CORES), origin: Origin::Gather { job: u64::MAX, shard: SHARD } };
    let deadline = cluster.now + Duration::from_secs(6_000);
    let put = |cluster: &mut Cluster, shard, value: &[u8]| {
        let put = Write::Put { key: b"key", value, condition: Default::default() };
        assert!(replica_mut(cluster, 1, shard).write(put, to, deadline, Space::Plenty).is_ok());
    };
    let taken = |cluster: &Cluster| counted(cluster, 1, |counters| counters.snapshots_taken);
    // To the checkpoint.
    for _ in 0..11 {
        (0..100).for_each(|_| put(&mut cluster, SHARD, b""));
        cluster.run(Duration::from_millis(2));
    }
    for _ in 0..10 {
        // The next is due when this one is done.
        cluster.hold_snapshots(1, true);
        put(&mut cluster, hot, &[7; 5_000]);
        cluster.run(Duration::from_millis(2));
        let before = taken(&cluster);
        cluster.hold_snapshots(1, false);
        cluster.run_until("it is taken", |cluster| taken(cluster) > before);
    }
    let scrubbed = replica(&cluster, 1, SHARD).state().scrubbed();
    assert!(scrubbed >= Index(1_024), "{scrubbed}");
}
