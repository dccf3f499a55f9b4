//! Entries of several shards in one batch: whoever reads one shard's reads no more of the batch than holds them.

use std::ops::Range;

use raftkv_protocol::types::{Entry, ShardId};

use super::conformance_test::entry;
use super::log_by_hand::{A, B, Node};
use super::simulated_disk::SimulatedDisk;
use super::{CoreLog, FetchError};

fn some(shard: ShardId, indexes: Range<u64>, term: u64) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, &format!("{shard}/{index}/{term}.").repeat(30))).collect()
}

/// One batch of several blocks, in which the entries of A lie on either side of those of B, and some of them twice.
fn shared_batch() -> (Node, Vec<Entry>, Vec<Entry>) {
    let mut node = Node::new();
    node.log.append(A, &mut some(A, 1..20, 1));
    node.log.append(B, &mut some(B, 1..20, 1));
    node.log.append(A, &mut some(A, 11..31, 2));
    node.settle();
    let of_a = [some(A, 1..11, 1), some(A, 11..31, 2)].concat();
    (node, of_a, some(B, 1..20, 1))
}

/// Flips a bit in the only place that holds this body.
fn damage(node: &Node, wanted: &Entry) {
    let segment = node.disk.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    node.disk.edit(&segment, |bytes| {
        let at = bytes.windows(wanted.body.len()).position(|body| body == &wanted.body[..]).expect("it was written");
        bytes[at] ^= 1;
    });
}

#[test]
fn every_range_of_a_shared_batch_is_read() {
    let (mut node, of_a, of_b) = shared_batch();
    for (shard, entries) in [(A, of_a), (B, of_b)] {
        for first in 0..entries.len() {
            for last in first..entries.len() {
                let read = node.fetch(shard, first as u64 + 1, last as u64 + 1);
                assert!(read.as_ref() == Ok(&entries[first..=last].to_vec()), "{first} to {last} of {shard}: {read:?}");
            }
        }
    }
}

#[test]
fn of_a_batch_only_what_is_wanted_is_read() {
    let (mut node, of_a, of_b) = shared_batch();
    damage(&node, &of_a[2]);
    assert_eq!(node.fetch(B, 1, 19), Ok(of_b.clone()), "the other shard's entries are not read");
    assert!(matches!(node.fetch(A, 1, 30), Err(FetchError::Corrupt(line)) if line.contains("shard 0")));

    let (mut node, _, of_b) = shared_batch();
    damage(&node, &of_b[18]);
    assert!(matches!(node.fetch(B, 1, 19), Err(FetchError::Corrupt(line)) if line.contains("shard 1")));
    assert!(matches!(node.fetch(A, 1, 30), Err(FetchError::Corrupt(_))), "it lies between the entries of A");
}

/// Also where one shard alone fills a large batch, as in a follower that lags.
#[test]
fn of_a_large_batch_only_a_part_is_read() {
    let mut node = Node::open_with(&SimulatedDisk::new(3), 4 << 20).expect("an empty disk makes an empty log");
    let mut batches = node.log.last_batch().0;
    node.log.append(A, &mut some(A, 1..1001, 1));
    batches += 1;
    node.settle();
    assert_eq!(node.log.last_batch().0, batches, "one batch");
    let entries = some(A, 1..1001, 1);
    damage(&node, &entries[900]);
    assert_eq!(node.fetch(A, 1, 600), Ok(entries[..600].to_vec()));
    assert!(matches!(node.fetch(A, 1, 1000), Err(FetchError::Corrupt(line)) if line.contains("shard 0")));
}

/// Entries that are written again keep their own place in the new batch.
#[test]
fn copies_in_a_shared_batch_are_read() {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 2);
    node.log.append(B, &mut some(B, 1..4, 1));
    node.log.copy_forward(A);
    node.log.flush();
    node.log.append(B, &mut some(B, 4..7, 1));
    node.log.append(A, &mut some(A, last + 1..last + 3, 1));
    node.settle();
    assert_eq!(node.log.stats().copied_forward, 1);
    node.bodies(A, 1, last);
    assert_eq!(node.fetch(A, last + 1, last + 2), Ok(some(A, last + 1..last + 3, 1)));
    assert_eq!(node.fetch(B, 1, 6), Ok(some(B, 1..7, 1)));
}
