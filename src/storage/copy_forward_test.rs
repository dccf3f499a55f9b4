//! Entries that are written again at the log's end, so that they keep no old segment.

use raftkv_protocol::types::{EntryId, SnapshotId, Term};

use super::conformance_test::entry;
use super::log_by_hand::{A, B, BLOCK, Node, Rounds, SEGMENT};
use super::segment::segment_name;
use super::simulated_disk::SimulatedDisk;
use super::{CoreLog, FetchError, LogError, RecoveredShard, Space};

// rule 14
#[test]
fn entries_that_are_copied_forward_keep_nothing() {
    let mut node = Node::new();
    node.put(B, 1..=20);
    let last = node.put_until_segment(A, 1, 3);
    node.compact(A, last);
    node.log.copy_forward(B);
    node.settle();
    assert_eq!(node.log.stats().copied_forward, 1);
    node.bodies(B, 1, 20);
    node.log.copy_forward(B);
    let last = node.put_until_segment(A, last + 1, node.segments()[node.segments().len() - 1] + 1);
    assert!(node.segments()[0] > 2, "{:?}", node.segments());
    node.bodies(B, 1, 20);
    let mut after = node.after_crash();
    assert_eq!(after.recovered[1], RecoveredShard { entries: vec![(Term(1), 3_000); 20], ..RecoveredShard::default() });
    after.bodies(B, 1, 20);
    // They can be overwritten, copied again and compacted like any others.
    after.log.append(B, &mut vec![entry(15, 2, "instead of six")]);
    after.put_until_segment(A, last + 1, after.segments()[after.segments().len() - 1] + 1);
    after.log.copy_forward(B);
    after.settle();
    after.bodies(B, 1, 14);
    let mut after = after.after_crash();
    after.bodies(B, 1, 14);
    assert_eq!(after.fetch(B, 15, 15), Ok(vec![entry(15, 2, "instead of six")]));
    after.compact(B, 14);
    assert_eq!(after.fetch(B, 14, 15), Err(FetchError::Gone));
    assert_eq!(after.fetch(B, 15, 15), Ok(vec![entry(15, 2, "instead of six")]));
}

/// A log of shard B in the first segments, of which a copy begins.
fn copying() -> Node {
    let mut node = Node::new();
    node.put(B, 1..=40);
    node.put_until_segment(A, 1, 4);
    node.log.copy_forward(B);
    node
}

/// One more piece of what is copied is durable.
fn copy_piece(node: &mut Node) {
    let (before, mut rounds) = (node.log.last_batch(), Rounds::default());
    while node.log.last_batch() == before {
        rounds.next();
        node.log.flush();
        node.workers.read();
    }
    node.log.flush();
    while node.log.durable().expect("healthy") != node.log.last_batch() {
        rounds.next();
        node.log.flush();
        node.workers.sync();
        node.workers.allocate();
    }
}

// rule 14
#[test]
fn copies_that_are_not_complete_mean_nothing() {
    let mut node = copying();
    for _ in 0..3 {
        copy_piece(&mut node);
        assert_eq!(node.log.stats().copied_forward, 0);
        let mut after = node.after_crash();
        assert_eq!(after.recovered[1].entries.len(), 40);
        after.bodies(B, 1, 40);
        after.log.copy_forward(B);
        after.settle();
        assert_eq!(after.log.stats().copied_forward, 1, "another attempt");
        after.bodies(B, 1, 40);
        after.after_crash().bodies(B, 1, 40);
    }
}

// rule 14
#[test]
fn what_is_discarded_meanwhile_is_not_copied() {
    // Before, among and behind the copies that are there, and behind all that is to be copied.
    for index in [1, 3, 12, 30, 41] {
        let mut node = copying();
        copy_piece(&mut node);
        node.log.append(B, &mut vec![entry(index, 2, "new"), entry(index + 1, 2, "newer")]);
        node.settle();
        for mut node in [node.after_crash(), node] {
            if index > 1 {
                node.bodies(B, 1, index - 1);
            }
            let new = node.fetch(B, index, index + 1);
            assert_eq!(new, Ok(vec![entry(index, 2, "new"), entry(index + 1, 2, "newer")]));
        }
    }
}

// rule 14
#[test]
fn what_is_compacted_meanwhile_is_not_copied() {
    for start in [1, 4, 5, 6, 25, 40] {
        let mut node = copying();
        copy_piece(&mut node);
        node.log.compact(B, EntryId::new(start, 1), SnapshotId(start));
        node.settle();
        let copied = node.log.stats().copied_forward;
        assert_eq!(copied, u64::from(start < 40), "start {start}");
        if start < 40 {
            node.bodies(B, start + 1, 40);
            node.after_crash().bodies(B, start + 1, 40);
        }
        node.put(B, 41..=80);
        assert!(node.segments()[0] >= 4 || node.log.pinned_by().is_some_and(|(shard, _)| shard == A));
    }
}

#[test]
fn a_reset_ends_a_copy() {
    let mut node = copying();
    copy_piece(&mut node);
    node.log.flush();
    node.log.reset(B, EntryId::new(60, 1), SnapshotId(5));
    node.put(B, 61..=62);
    assert_eq!(node.log.stats().copied_forward, 0);
    node.bodies(B, 61, 62);
    let mut after = node.after_crash();
    assert_eq!((after.recovered[1].start, after.recovered[1].snapshot), (EntryId::new(60, 1), SnapshotId(5)));
    after.bodies(B, 61, 62);
}

#[test]
fn a_damaged_entry_is_not_copied() {
    let mut node = Node::new();
    node.put(B, 1..=3);
    node.put_until_segment(A, 1, 3);
    node.disk.edit(&segment_name(1), |bytes| bytes[3 * BLOCK + 200] ^= 1);
    node.log.copy_forward(B);
    let LogError(line) = node.try_settle().expect_err("the node must not go on");
    assert!(line.contains(&format!("/simulated/{} at offset 12288", segment_name(1))), "{line}");
    assert!(line.contains("entry 2 of shard 1") || line.contains("entry 1 of shard 1"), "{line}");
}

// museum 41, rule 17
#[test]
fn a_copy_takes_little_of_the_reserve() {
    for (entries, is_copied) in [(5, true), (40, false)] {
        let disk = SimulatedDisk::new(4);
        disk.set_capacity(Some(10 * SEGMENT));
        let mut node = Node::open(&disk).expect("space");
        node.put(B, 1..=entries);
        let (mut last, mut rounds) = (0, Rounds::default());
        while node.log.space() == Space::Plenty {
            rounds.next();
            last += 1;
            node.put(A, last..=last);
        }
        node.compact(A, last);
        node.log.copy_forward(B);
        node.settle();
        assert_eq!(node.log.stats().copied_forward, u64::from(is_copied));
        assert_eq!(node.log.space(), if is_copied { Space::Plenty } else { Space::ReserveOnly });
        assert!(!node.spares().is_empty(), "votes can be written");
        node.bodies(B, 1, entries);
        // With space it is tried again.
        disk.set_capacity(None);
        node.settle();
        node.log.copy_forward(B);
        node.settle();
        assert_eq!(node.log.stats().copied_forward, 1);
        node.after_crash().bodies(B, 1, entries);
    }
}
