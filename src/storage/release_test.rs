//! When segments go that nothing needs any more, what keeps them, and that a log which lives long takes no more space, on
//! the disk and in memory, than one that is young.

use std::ops::ControlFlow;

use raftkv_protocol::types::{EntryId, Index, SnapshotId};

use super::conformance_test::{entry, hard_state};
use super::disk::Disk;
use super::inspect::{End, Item, inspect_disk};
use super::log_by_hand::{A, B, Node, Rounds, SEGMENT, about_to_let_go, body};
use super::segment::segment_name;
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::spares::SPARES_MAX;
use super::{CoreLog, Fetch, FetchError, LogError, Space};

// rule 14
#[test]
fn a_segment_goes_when_a_later_one_says_that_nothing_needs_it() {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 4);
    assert_eq!(node.segments(), [1, 2, 3, 4], "all is needed");
    assert_eq!(node.log.pinned_by(), Some((A, 3 * SEGMENT)));
    node.compact(A, last);
    node.settle();
    assert_eq!(node.segments(), [1, 2, 3, 4], "no segment says so yet: a crash finds the old start");
    assert_eq!(node.after_crash().recovered[0].entries.len() as u64, last);
    assert_eq!(node.log.pinned_by(), None);
    let last = node.put_until_segment(A, last + 1, 5);
    assert_eq!(node.segments(), [4, 5], "what comes behind the start is in the fourth");
    let stats = node.log.stats();
    assert_eq!((stats.held_segments, stats.held_bytes, stats.oldest_segment), (2, 2 * SEGMENT, 4));
    assert_eq!(stats.disk_bytes, node.disk.used());
    let mut after = node.after_crash();
    let start = after.recovered[0].start;
    assert_eq!(after.recovered[0].snapshot, SnapshotId(start.index.0));
    assert_eq!(start.index.0 + after.recovered[0].entries.len() as u64, last);
    after.bodies(A, start.index.0 + 1, last);
    assert_eq!(after.fetch(A, start.index.0, last), Err(FetchError::Gone));
}

// rule 14
#[test]
fn a_segment_without_entries_goes_with_the_next_one() {
    let mut node = Node::new();
    for term in 1..=20 {
        node.log.set_hard_state(A, hard_state(term, 2));
        node.settle();
        let disk = node.disk.clone();
        drop(node);
        disk.crash_in_place(Survivors::None);
        node = Node::open(&disk).expect("a crash is no corruption");
        node.settle();
        assert_eq!(node.recovered[0].hard_state, hard_state(term, 2));
    }
    assert_eq!(node.segments(), [21]);
    assert!(node.disk.used() <= (1 + SPARES_MAX as u64) * SEGMENT, "{:?}", node.disk.names());
}

// rule 14
#[test]
fn a_shard_that_stays_behind_keeps_the_segments_and_is_named() {
    let mut node = Node::new();
    node.put(B, 1..=2);
    let last = node.put_until_segment(A, 1, 3);
    assert_eq!(node.log.pinned_by(), Some((B, 0)), "the other one needs the first segment too");
    node.compact(A, last);
    assert_eq!(node.log.pinned_by(), Some((B, 2 * SEGMENT)));
    let last = node.put_until_segment(A, last + 1, 5);
    assert_eq!(node.segments(), [1, 2, 3, 4, 5]);
    assert_eq!(node.log.stats().pinned_by, Some((B, 2 * SEGMENT)));
    node.compact(B, 2);
    assert_eq!(node.log.pinned_by(), Some((A, 2 * SEGMENT)));
    node.put_until_segment(A, last + 1, 6);
    assert_eq!(node.segments(), [3, 4, 5, 6]);
}

/// Ten times the segments that it may hold go through the log.
// rule 14, museum 18
#[test]
fn a_log_under_endless_overwrites_stays_bounded() {
    let mut node = Node::new();
    let (mut disk_max, mut index_max) = (0, 0);
    // Shard B has no quorum: it neither grows nor can it be compacted.
    node.put(B, 1..=5);
    for index in 1..=2_000 {
        node.put(A, index..=index);
        if index % 40 == 0 {
            node.compact(A, index - 20);
        }
        if node.log.stats().held_bytes > 6 * SEGMENT
            && let Some((shard @ B, _)) = node.log.pinned_by()
        {
            node.log.copy_forward(shard);
        }
        disk_max = node.disk.used().max(disk_max);
        index_max = node.log.index_size().max(index_max);
    }
    let taken = node.log.stats().segments;
    assert!(taken > 120, "{taken} segments");
    assert!(disk_max <= (10 + SPARES_MAX as u64) * SEGMENT, "{} segments", disk_max / SEGMENT);
    assert!(index_max < 400, "{index_max} places and runs");
    assert!(node.log.stats().copied_forward > 10);
    node.bodies(B, 1, 5);
    let mut after = node.after_crash();
    after.bodies(B, 1, 5);
    assert!(after.recovered[0].start.index.0 >= 1_900);
}

/// Votes, and entries that are overwritten again and again, leave nothing behind in memory either.
#[test]
fn what_is_remembered_of_batches_is_bounded() {
    let mut node = Node::new();
    for term in 1..=1_500 {
        match term % 3 {
            0 => node.log.set_hard_state(A, hard_state(term, 1)),
            1 => node.log.append(A, &mut vec![entry(1, term, "one"), entry(2, term, "two")]),
            _ => node.log.append(B, &mut vec![entry(term / 3 + 1, term, "more and more")]),
        }
        if term % 300 == 0 {
            node.log.compact(B, EntryId::new(term / 3, term - 1), SnapshotId(term));
        }
        node.settle();
        assert!(node.log.index_size() <= 310 + 110, "term {term}: {}", node.log.index_size());
    }
}

/// Puts until only the reserve is left, on a disk of eight segments.
fn full() -> (Node, u64) {
    let disk = SimulatedDisk::new(4);
    disk.set_capacity(Some(8 * SEGMENT));
    let mut node = Node::open(&disk).expect("space");
    let mut last = 0;
    while node.log.space() == Space::Plenty {
        last += 1;
        node.put(A, last..=last);
        assert!(last < 200, "the disk is small");
    }
    assert_eq!(node.segments(), [1, 2, 3, 4, 5, 6]);
    (node, last)
}

// museum 41, rule 14, rule 17
#[test]
fn a_full_disk_takes_puts_again_when_segments_can_go() {
    let (mut node, last) = full();
    node.compact(A, last - 30);
    node.settle();
    assert_eq!(node.log.space(), Space::Plenty, "it was restated what is needed, though nothing was written");
    assert_eq!(node.disk.used(), 8 * SEGMENT);
    assert_eq!(node.segments(), [3, 4, 5, 6]);
    for node in [node.after_crash(), node.after_crash().after_crash()] {
        assert_eq!(node.recovered[0].start, EntryId::new(last - 30, 1), "it counts from then on");
    }
    for index in last + 1..last + 400 {
        node.put(A, index..=index);
        node.compact(A, index - 30);
        node.settle();
        assert_eq!(node.log.space(), Space::Plenty, "entry {index}");
    }
    node.after_crash().bodies(A, last + 380, last + 399);
}

// museum 41, rule 17
#[test]
fn a_new_segment_is_not_begun_for_less_than_it_takes() {
    let (mut node, mut last) = full();
    let batches = node.log.stats().batches;
    node.compact(A, 5);
    node.settle();
    assert_eq!(node.log.stats().batches, batches, "nothing could go");
    // Until the current segment has no room for a restatement.
    node.put(A, last + 1..=last + 10);
    last += 10;
    node.compact(A, 20);
    node.settle();
    assert_eq!(node.segments(), [1, 2, 3, 4, 5, 6], "one segment could go, one would be taken");
    assert_eq!((node.log.space(), node.spares().len()), (Space::ReserveOnly, 2));
    node.compact(A, 30);
    node.settle();
    assert_eq!((node.log.space(), node.spares().len()), (Space::Plenty, 3));
    node.bodies(A, 31, last);
}

/// The start moves before it is known that the disk is full, and nothing is written afterwards.
// museum 41, rule 17
#[test]
fn a_disk_that_fills_up_lets_go_what_was_compacted_before() {
    let disk = SimulatedDisk::new(4);
    disk.set_capacity(Some(8 * SEGMENT));
    let mut node = Node::open(&disk).expect("space");
    let (mut last, mut rounds) = (node.put_until_segment(A, 1, 5), Rounds::default());
    while node.segments().last() != Some(&6) {
        rounds.next();
        last += 1;
        node.log.append(A, &mut vec![body(A, last)]);
        node.log.flush();
        node.workers.sync();
        node.log.durable().expect("healthy");
    }
    node.compact(A, last);
    node.log.flush();
    node.workers.sync();
    assert_eq!((node.log.space(), node.segments().len()), (Space::Plenty, 6));
    assert!(!node.workers.allocate(), "the disk is full");
    assert_eq!(node.log.space(), Space::ReserveOnly);
    node.settle();
    assert_eq!((node.log.space(), node.segments()), (Space::Plenty, vec![6]));
}

// museum 30, rule 14
#[test]
fn whatever_a_crash_leaves_of_letting_go_is_a_log() {
    let expected = about_to_let_go().after_crash().recovered;
    let mut left = Vec::new();
    for operation in 0.. {
        let node = about_to_let_go();
        node.disk.die_at(operation);
        while node.workers.can_allocate() && node.workers.allocate() && !node.disk.is_off() {}
        for seed in 0..12 {
            let survivors = match seed {
                0 => Survivors::None,
                1 => Survivors::All,
                _ => Survivors::Random { seed, block: 512 },
            };
            let mut after = Node::open(&node.disk.crash(survivors)).expect("a crash is no corruption");
            assert_eq!(after.recovered, expected, "operation {operation}, {survivors:?}");
            left.push(after.log.recovery().segments);
            after.settle();
            assert_eq!(after.segments(), [4, 5, 6], "a start lets go what it finds");
        }
        if !node.disk.is_off() {
            assert!(operation >= 6, "three names change, each for good");
            break;
        }
    }
    left.sort_unstable();
    left.dedup();
    assert_eq!(left, [2, 3, 4, 5]);
}

/// Nobody knows which names the disk holds then.
// museum 38
#[test]
fn a_failure_to_let_go_ends_the_log() {
    for operation in 0..2 {
        let mut node = about_to_let_go();
        node.disk.fail_at(operation);
        let LogError(line) = node.try_settle().expect_err("the disk failed");
        let named = format!("cannot let go of the log segment {}: ", node.disk.path(&segment_name(1)));
        assert!(line.starts_with(&named) && line.ends_with("; check the disk, then start the node again"), "{line}");
        assert!(!node.workers.can_allocate(), "nothing more goes");
        let names = node.disk.names();
        assert!(names.contains(&segment_name(2)) && names.contains(&segment_name(3)), "{names:?}");
        assert_eq!(names.contains(&segment_name(1)), operation == 0);
        let mut after = node.after_crash();
        assert_eq!(after.recovered, node.after_crash().recovered);
        after.settle();
        assert_eq!(after.segments(), [4, 5, 6], "a start lets go what it finds");
    }
}

/// Some file systems need space to make a change of names durable. What was begun then is gone on with.
// museum 41
#[test]
fn a_segment_whose_new_name_finds_no_space_goes_when_there_is_some() {
    let mut node = about_to_let_go();
    node.disk.refuse_dir_syncs(true);
    for _ in 0..3 {
        assert!(node.workers.can_allocate() && !node.workers.allocate(), "there is no space");
    }
    assert!(!node.disk.names().contains(&segment_name(1)), "it has another name, or none");
    node.disk.refuse_dir_syncs(false);
    node.settle();
    assert_eq!(node.segments(), [4, 5]);
    assert_eq!(node.log.stats().disk_bytes, node.disk.used());
    let mut after = node.after_crash();
    assert_eq!(after.recovered, node.after_crash().recovered);
    after.settle();
}

/// A fetch is under way, or its answer was not picked up, when the segment goes and its file becomes another one.
// rule 14
#[test]
fn what_is_let_go_while_it_is_read_is_gone() {
    for is_read_before in [true, false] {
        let mut node = Node::new();
        let last = node.put_until_segment(A, 1, 3);
        node.log.fetch(Fetch { shard: A, tag: 5, first: Index(2), last: Index(4), bytes_max: 1 << 20 });
        if is_read_before {
            node.workers.read();
        }
        node.compact(A, last);
        let (mut index, mut rounds) = (last, Rounds::default());
        while node.segments().last() != Some(&12) {
            rounds.next();
            index += 1;
            node.log.append(A, &mut vec![body(A, index)]);
            node.log.flush();
            node.workers.sync();
            while node.workers.can_allocate() && node.workers.allocate() {}
            node.log.durable().expect("healthy");
            node.compact(A, index);
        }
        node.workers.read();
        let fetched = node.log.fetched().expect("it was read");
        assert_eq!((fetched.fetch.tag, fetched.result), (5, Err(FetchError::Gone)));
    }
}

#[test]
fn inspection_begins_with_the_oldest_segment_there_is() {
    let mut node = about_to_let_go();
    node.settle();
    let (mut segments, mut entries, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    inspect_disk(&node.disk, |item| {
        match item {
            Item::Segment { header, .. } => {
                segments.push((header.sequence, header.predecessor.map(|seal| seal.sequence)))
            }
            Item::Record { record: super::record::Record::Entry { id, .. }, .. } => entries.push(id.index.0),
            Item::End { reason, .. } => ends.push(matches!(reason, End::Sealed | End::NoBatch)),
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .expect("readable");
    assert_eq!(segments, [(4, Some(3)), (5, Some(4))]);
    assert!(entries.windows(2).all(|two| two[0] + 1 == two[1]) && entries[0] > 1, "{entries:?}");
    assert_eq!(ends, [true, true]);
}
