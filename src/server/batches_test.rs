//! Batches on their way to their shard: from any node, in one shard only, and not to a node that does not know them.

use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Code, Condition, Operation};
use raftkv_protocol::hello::FEATURE_BATCH;
use raftkv_protocol::peer::{Forward, ForwardId, PeerFrame};
use raftkv_protocol::types::{CoreId, NodeId, ShardId};

use super::router_test::{Cluster, Told, key_of};

fn puts(keys: &[Vec<u8>], condition: Condition) -> BatchBuffer {
    batch(keys, condition, Change::Put(b"value"))
}

fn batch(keys: &[Vec<u8>], condition: Condition, change: Change<'_>) -> BatchBuffer {
    let mut batch = BatchBuffer::default();
    keys.iter().for_each(|key| batch.push(&BatchOperation { key, condition, change }).expect("short keys"));
    batch
}

fn ask(cluster: &mut Cluster, at: u64, request: u64, batch: &BatchBuffer) {
    cluster.ask(at, request, Operation::Batch(batch.as_batch()));
}

/// As their hellos would say.
fn introduce(cluster: &Cluster, features: u64) {
    for (at, peer) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2)] {
        cluster.nodes[at].0.node.note_peer(NodeId(peer), features);
    }
}

// rule 18
#[test]
fn a_batch_is_one_entry_of_the_shard_of_its_keys_from_whichever_node() {
    let mut cluster = Cluster::with_leaders();
    introduce(&cluster, FEATURE_BATCH);
    let keys: Vec<Vec<u8>> = (0..3).map(|n| key_of(1, n)).collect();
    for at in 1..=3 {
        let before = cluster.nodes[1].0.shards()[1].status().last.index;
        let request = puts(&keys, if at == 1 { Condition::Absent } else { Condition::Exists });
        ask(&mut cluster, at, 7, &request);
        cluster.settle();
        assert_eq!(cluster.told(at), [(7, Told::Batch(0))]);
        assert_eq!(cluster.nodes[1].0.shards()[1].status().last.index, before.next(), "one entry");
    }
    let some = [key_of(1, 9), keys[2].clone(), keys[0].clone()];
    ask(&mut cluster, 3, 8, &batch(&some, Condition::None, Change::Delete));
    cluster.settle();
    assert_eq!(cluster.told(3), [(8, Told::Batch(0b110))], "two of the three were there");
    ask(&mut cluster, 1, 9, &puts(&keys, Condition::Absent));
    cluster.settle();
    assert_eq!(cluster.told(1), [(9, Told::No(Code::PreconditionFailed))]);
    cluster.get(1, 10, &keys[0]);
    cluster.settle();
    assert_eq!(cluster.told(1), [(10, Told::No(Code::NotFound))], "nothing of it was written");
}

// rule 31
#[test]
fn a_batch_over_several_shards_is_refused_at_once_and_counted() {
    let mut cluster = Cluster::with_leaders();
    ask(&mut cluster, 1, 1, &puts(&[key_of(0, 0), key_of(0, 1), key_of(2, 0)], Condition::None));
    assert_eq!(cluster.told(1), [(1, Told::No(Code::CrossShard))]);
    assert_eq!(cluster.nodes[0].0.counters.refused_cross_shard, 1);
    ask(&mut cluster, 1, 2, &puts(&[key_of(0, 0), key_of(0, 1)], Condition::None));
    cluster.settle();
    assert_eq!(cluster.told(1), [(2, Told::Batch(0))]);
}

#[test]
fn no_batch_is_sent_to_a_node_that_has_not_said_that_it_takes_them() {
    let mut cluster = Cluster::with_leaders();
    let keys = [key_of(1, 0), key_of(1, 1)];
    for (features, told) in [(0, Told::No(Code::NotReady)), (FEATURE_BATCH, Told::Batch(0))] {
        introduce(&cluster, features);
        ask(&mut cluster, 1, 1, &puts(&keys, Condition::None));
        cluster.settle();
        assert_eq!(cluster.told(1), [(1, told)]);
    }
}

// rule 18
#[test]
fn a_batch_that_names_a_key_twice_is_not_proposed_whoever_sends_it() {
    let mut cluster = Cluster::with_leaders();
    let before = cluster.nodes[1].0.shards()[1].status().last;
    for keys in [&[key_of(1, 0), key_of(1, 0)][..], &[]] {
        let batch = puts(keys, Condition::None);
        let operation = Operation::Batch(batch.as_batch());
        let id = ForwardId { core: CoreId(0), serial: 7 };
        let frame = PeerFrame::Forward(Forward { id, shard: ShardId(1), operation, timeout_ms: 100 });
        let now = cluster.now;
        let (router, mail) = &mut cluster.nodes[1];
        router.peer_frame(NodeId(1), frame, now, mail);
        cluster.settle();
    }
    assert_eq!(cluster.nodes[1].0.shards()[1].status().last, before);
    assert_eq!(cluster.nodes[1].0.counters.refused_bad_request, 2);
}
