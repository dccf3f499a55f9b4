//! A byte goes wrong in the last batch of a log, which nothing behind it proves to have been durable: a start takes it for what
//! a crash has left of a batch, and lets it go. Nothing of it is shown, and the others have what it held.

use std::collections::BTreeMap;
use std::time::Duration;

use raftkv_protocol::client::{Answer, Consistency, Operation};
use raftkv_protocol::types::{Index, ShardId};

use super::cluster::{Cluster, NODES};
use super::{expect_value, key_of, put, replica, write};

/// The log of a node's first core holds it.
const SHARD: ShardId = ShardId(0);
/// The node whose disk is at fault.
const WRONG: u64 = 3;
const BLOCK: usize = 4_096;
const LAST: &[u8] = b"the value in the last batch";

/// What the key has held since which entry.
type History = BTreeMap<Index, Vec<u8>>;

fn put_noted(cluster: &mut Cluster, value: &[u8], history: &mut History) -> Index {
    let mut client = cluster.dial(1, None, &[]);
    let at = cluster.ask(&mut client, put(&key_of(SHARD), value), |reply| {
        assert_eq!(reply.result, Ok(Answer::Put));
        reply.at.index
    });
    history.insert(at, value.to_vec());
    at
}

/// A cluster whose nodes all have the last value on their disks, and a node of which ends before anything is written behind it.
fn cluster(seed: u64) -> (Cluster, History) {
    let mut cluster = Cluster::with_nodes(seed, NODES);
    let mut history = History::new();
    for value in [b"one", b"two"] {
        put_noted(&mut cluster, value, &mut history);
    }
    cluster.run(Duration::from_millis(500));
    let last = put_noted(&mut cluster, LAST, &mut history);
    cluster.run_until("all have it on their disks", |cluster| {
        (1..=NODES).all(|node| replica(cluster, node, SHARD).raft().persisted_index() >= last)
    });
    cluster.kill(WRONG);
    (cluster, history)
}

/// The last segment of the log, and where its last batch lies: from a block's beginning to the last byte that is not 0.
fn last_batch(cluster: &Cluster) -> (String, std::ops::Range<usize>) {
    let disk = cluster.disk(WRONG, 0);
    let segment = disk.names().into_iter().filter(|name| name.starts_with("segment-")).max().expect("a segment");
    let bytes = disk.bytes(&segment);
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("something was written") + 1;
    let start = (end - 1) / BLOCK * BLOCK;
    assert!(bytes[start..end].windows(LAST.len()).any(|window| window == LAST), "it is the batch with the last value");
    (segment, start..end)
}

/// What a replica holds is what was committed, as far as it says that it has come.
#[track_caller]
fn check(cluster: &Cluster, node: u64, history: &History) {
    if !cluster.runs(node) {
        return;
    }
    let shard = replica(cluster, node, SHARD);
    let expected = history.range(..=shard.applied()).next_back();
    let held = shard.state().get(&key_of(SHARD));
    assert_eq!(held, expected.map(|(at, value)| (*at, &value[..])), "node {node} at {}", shard.applied());
}

fn has_caught_up(cluster: &Cluster) -> bool {
    let state = |node| {
        let status = replica(cluster, node, SHARD).status();
        (status.applied, status.state_hash)
    };
    (1..=NODES).all(|node| cluster.runs(node) && state(node) == state(1)) && replica(cluster, WRONG, SHARD).is_ready()
}

// museum 39, 42
#[test]
fn a_flipped_byte_in_the_last_batch_of_a_log_is_never_served_against_a_quorum() {
    let (cluster_before, _) = cluster(70);
    let (segment, batch) = last_batch(&cluster_before);
    drop(cluster_before);
    // Every field of the heads, and the entry; then some of the zeros that fill the block.
    for byte in batch.clone().step_by(5).chain([batch.end + 1, batch.start + BLOCK - 1]) {
        let (mut cluster, mut history) = cluster(70);
        assert_eq!(last_batch(&cluster), (segment.clone(), batch.clone()), "one seed is one run");
        cluster.disk(WRONG, 0).flip(&segment, byte as u64, (byte % 8) as u8);
        cluster.start_node(WRONG);
        assert!(replica(&cluster, WRONG, SHARD).raft().elections_started() == 0);
        let heals = |cluster: &Cluster| {
            check(cluster, WRONG, &history);
            !replica(cluster, WRONG, SHARD).status().is_repairing
        };
        cluster.run_until("it takes part again", heals);
        // It is needed for a majority now; what it may have forgotten the other has.
        cluster.kill(1);
        let leads = |cluster: &Cluster| {
            (2..=NODES).for_each(|node| check(cluster, node, &history));
            cluster.has_leaders()
        };
        cluster.run_until("leaders", leads);
        for node in [2, WRONG] {
            expect_value(&mut cluster, node, &key_of(SHARD), LAST);
        }
        let mut client = cluster.dial(WRONG, None, &[]);
        let key = key_of(SHARD);
        let stale = Operation::Get { key: &key, consistency: Consistency::Stale };
        cluster.ask(&mut client, stale, |reply| match reply.result {
            Ok(Answer::Value { value, .. }) => assert_eq!(value, LAST, "byte {byte}"),
            Ok(other) => panic!("{other:?}"),
            // It does not know yet how far the others are.
            Err(_) => {}
        });
        cluster.start_node(1);
        cluster.run_until("leaders", Cluster::has_leaders);
        put_noted(&mut cluster, b"newer", &mut history);
        cluster.run_until("all are alike", has_caught_up);
        check(&cluster, WRONG, &history);
        write(&mut cluster, WRONG, &key, b"newest");
    }
}
