//! What becomes of segments that nothing needs any more: when they go, what keeps them, and that a log which lives long
//! takes no more space, on the disk and in memory, than one that is young.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, Index, ShardId, SnapshotId, Term};

use super::conformance_test::{entry, hard_state};
use super::inspect::{End, Item, inspect_disk};
use super::reader::{FetchJob, Reader};
use super::runs::Part;
use super::segment::{SegmentHeader, segment_name};
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::spares::{SPARES, SPARES_MAX};
use super::syncer::Place;
use super::{CoreLog, Fetch, FetchError, FileLog, LogError, Options, RecoveredShard, Space, Workers};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);
const SEGMENT: u64 = 64 << 10;
const BLOCK: usize = super::batch::BLOCK_BYTES as usize;
/// Bodies of this size, a batch each: about fifteen fill a segment.
const BODY: usize = 3_000;

/// Counts the rounds of a loop that waits for the log, so that a log which comes to no end fails its test.
#[derive(Default)]
struct Rounds(u32);

impl Rounds {
    fn next(&mut self) {
        self.0 += 1;
        assert!(self.0 < 10_000, "the log comes to no end");
    }
}

/// A log that is moved by hand.
struct Node {
    disk: SimulatedDisk,
    log: FileLog,
    workers: Workers,
    recovered: Vec<RecoveredShard>,
}

impl Node {
    fn open(disk: &SimulatedDisk) -> Result<Node, LogError> {
        let mut options = Options::new("unused", vec![A, B], Arc::new(|| {}));
        (options.segment_size, options.tail_bytes_max) = (SEGMENT, 0);
        let (log, recovered, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options)?;
        Ok(Node { disk: disk.clone(), log, workers, recovered })
    }

    fn new() -> Node {
        Node::open(&SimulatedDisk::new(3)).expect("an empty disk makes an empty log")
    }

    /// The log as it is found after the power went.
    fn after_crash(&self) -> Node {
        Node::open(&self.disk.crash(Survivors::None)).expect("a crash is no corruption")
    }

    /// Makes everything durable that was added, and lets the other workers come to an end.
    fn settle(&mut self) {
        self.try_settle().expect("the disk is healthy");
    }

    fn try_settle(&mut self) -> Result<(), LogError> {
        let mut rounds = Rounds::default();
        loop {
            rounds.next();
            self.log.flush();
            while self.workers.can_sync() {
                self.workers.sync();
            }
            while self.workers.can_allocate() && self.workers.allocate() {}
            while self.workers.can_read() {
                self.workers.read();
            }
            let last = self.log.last_batch();
            if self.log.durable()? == last {
                self.log.flush();
                if self.log.last_batch() == last && !self.workers.can_read() && !self.workers.can_sync() {
                    return self.log.durable().map(drop);
                }
            }
        }
    }

    /// Adds entries of term 1, each in a batch of its own.
    fn put(&mut self, shard: ShardId, indexes: RangeInclusive<u64>) {
        for index in indexes {
            self.log.append(shard, &mut vec![body(shard, index)]);
            self.settle();
        }
    }

    fn compact(&mut self, shard: ShardId, index: u64) {
        self.log.compact(shard, EntryId::new(index, 1), SnapshotId(index));
    }

    /// Puts of a shard until so many segments have begun.
    fn put_until_segment(&mut self, shard: ShardId, mut index: u64, segment: u64) -> u64 {
        let mut rounds = Rounds::default();
        while self.segments().last() != Some(&segment) {
            rounds.next();
            self.put(shard, index..=index);
            index += 1;
        }
        index - 1
    }

    fn segments(&self) -> Vec<u64> {
        let sequence =
            |name: &String| u64::from_str_radix(name.strip_prefix("segment-")?.strip_suffix(".log")?, 16).ok();
        self.disk.names().iter().filter_map(sequence).collect()
    }

    fn spares(&self) -> Vec<String> {
        self.disk.names().into_iter().filter(|name| name.starts_with("spare-")).collect()
    }

    fn fetch(&mut self, shard: ShardId, first: u64, last: u64) -> Result<Vec<Entry>, FetchError> {
        let mut entries: Vec<Entry> = Vec::new();
        while (entries.len() as u64) < last + 1 - first {
            let first = Index(first + entries.len() as u64);
            self.log.fetch(Fetch { shard, tag: 0, first, last: Index(last), bytes_max: 1 << 20 });
            self.workers.read();
            entries.extend(self.log.fetched().expect("it was read").result?);
        }
        Ok(entries)
    }

    fn bodies(&mut self, shard: ShardId, first: u64, last: u64) {
        let expected: Vec<Entry> = (first..=last).map(|index| body(shard, index)).collect();
        assert!(self.fetch(shard, first, last) == Ok(expected), "entries {first} to {last} of shard {shard}");
    }
}

fn body(shard: ShardId, index: u64) -> Entry {
    entry(index, 1, &format!("{shard}/{index}.").repeat(BODY)[..BODY])
}

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

#[test]
fn segments_become_spares_up_to_a_bound() {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 12);
    assert_eq!(node.spares().len(), SPARES);
    node.compact(A, last);
    node.put_until_segment(A, last + 1, 13);
    assert_eq!(node.segments(), [12, 13]);
    assert_eq!(node.spares().len(), SPARES_MAX);
    assert_eq!(node.disk.used(), (2 + SPARES_MAX as u64) * SEGMENT);
    let used: usize = node.spares().iter().filter(|name| node.disk.bytes(name)[..BLOCK] != [0; BLOCK]).count();
    assert_eq!(used, SPARES_MAX - SPARES + 1, "one of those that were made was taken");
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

/// Ten times the segments that it may hold go through the log.
// rule 14
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

/// A log of which segments 1 to 3 are let go by the next steps of the allocator.
fn about_to_let_go() -> Node {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 4);
    node.compact(A, last);
    node.log.set_hard_state(A, hard_state(1, 1));
    let (mut index, mut rounds) = (last, Rounds::default());
    loop {
        rounds.next();
        index += 1;
        node.log.append(A, &mut vec![body(A, index)]);
        node.log.flush();
        node.workers.sync();
        node.log.durable().expect("healthy");
        if node.segments().last() == Some(&5) {
            assert_eq!(node.segments(), [1, 2, 3, 4, 5]);
            return node;
        }
    }
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

/// The process dies between the change of a segment's name and the sync of the directory. What the next one writes into
/// the file must not be found under its old name.
// museum 40, 43, rule 14
#[test]
fn a_file_is_written_again_only_when_its_old_name_is_gone_for_good() {
    let expected = about_to_let_go().after_crash().recovered;
    let mut written = 0;
    for operation in 0.. {
        let node = about_to_let_go();
        node.disk.die_at(1);
        assert!(node.workers.can_allocate());
        node.workers.allocate();
        assert!(node.disk.is_off());
        node.disk.restart();
        // The next segment is made of this file.
        let is_recycled = |name: &String| node.disk.bytes(name)[..BLOCK] != [0; BLOCK];
        let (recycled, others): (Vec<String>, Vec<String>) = node.spares().into_iter().partition(is_recycled);
        others.iter().for_each(|name| node.disk.remove_quietly(name));
        let before = node.disk.bytes(&recycled[0]);
        node.disk.die_at(operation);
        let opened = Node::open(&node.disk).is_ok();
        written += u64::from(node.disk.names().contains(&recycled[0]) && node.disk.bytes(&recycled[0]) != before);
        for survivors in [Survivors::None, Survivors::Random { seed: operation, block: 512 }] {
            let after = Node::open(&node.disk.crash(survivors));
            assert_eq!(after.expect("no corruption").recovered, expected, "operation {operation}, {survivors:?}");
        }
        if !node.disk.is_off() {
            assert!(opened && operation > 4 && written > 2, "{written} of {operation}");
            break;
        }
    }
}

#[test]
fn after_a_failure_nothing_more_is_let_go_until_the_next_start() {
    for operation in 0..2 {
        let mut node = about_to_let_go();
        node.disk.fail_at(operation);
        node.settle();
        let names = node.disk.names();
        assert!(names.contains(&segment_name(2)) && names.contains(&segment_name(3)), "{names:?}");
        assert_eq!(names.contains(&segment_name(1)), operation == 0);
        let last = node.recovered[0].entries.len() as u64;
        assert_eq!(last, 0);
        let mut index =
            node.after_crash().recovered[0].start.index.0 + node.after_crash().recovered[0].entries.len() as u64;
        let mut rounds = Rounds::default();
        while node.segments().last() != Some(&7) {
            rounds.next();
            index += 1;
            node.put(A, index..=index);
            node.compact(A, index);
        }
        assert_eq!(node.segments().len(), 6 + usize::from(operation == 0), "the log goes on, and grows");
        let mut after = node.after_crash();
        after.settle();
        assert!(after.segments()[0] >= 6, "{:?}", after.segments());
    }
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

/// The reader itself never takes the bytes of a later segment for those of an earlier one, in whose file they are.
// museum 43, rule 13
#[test]
fn the_reader_knows_a_file_that_has_become_another_segment() {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 3);
    let woken = Arc::new(|| {});
    let (reader, mut worker) = Reader::new(Arc::new(node.disk.clone()), woken);
    let mut read = |offset: u64, index: u64| {
        let (first, last) = (Index(index), Index(index));
        let fetch = Fetch { shard: A, tag: 1, first, last, bytes_max: 1 << 20 };
        let part = Part { at: Place { segment: 1, offset }, first, last };
        reader.fetch(FetchJob { id: 1, fetch, parts: vec![part] });
        let job = worker.next().expect("it was asked");
        worker.work(&job);
        reader.fetched().expect("it was read").fetched.result
    };
    // The restatement has the first block, each entry the next.
    let offset = 2 * BLOCK as u64;
    assert_eq!(read(offset, 1), Ok(vec![body(A, 1)]));
    let other = node.disk.bytes(&segment_name(3));
    let header = SegmentHeader::decode(&other).expect("a segment");
    assert_eq!(header.sequence, 3);
    node.disk.edit(&segment_name(1), |bytes| *bytes = other);
    for index in 1..=last {
        let Err(FetchError::Corrupt(line)) = read(offset, index) else { panic!("entry {index} is not in segment 1") };
        assert!(line.contains("sequence number 3"), "{line}");
    }
    node.disk.remove_quietly(&segment_name(1));
    read(offset, 1).expect_err("the file is gone");
}

// museum 43
#[test]
fn what_a_file_held_before_is_no_torn_batch() {
    let mut node = about_to_let_go();
    node.settle();
    let index = node.after_crash().recovered[0].start.index.0 + node.after_crash().recovered[0].entries.len() as u64;
    // Those that were made come first.
    let last = node.put_until_segment(A, index + 1, 8);
    let after = node.after_crash();
    assert_eq!(after.log.recovery().torn_bytes, 0);
    let segment = segment_name(8);
    let used = node.disk.bytes(&segment).iter().rposition(|byte| *byte != 0).expect("it is not empty");
    assert!(used > 12 * BLOCK, "the file was in use before: {used}");

    node.log.append(A, &mut vec![entry(last + 1, 1, &"y".repeat(2 * BLOCK))]);
    node.log.flush();
    node.disk.die_at(1);
    node.workers.sync();
    let disk = node.disk.fork();
    let report = || Node::open(&disk.fork()).expect("no corruption").log.recovery();
    assert_eq!((report().batches_kept > 0, report().torn_bytes), (true, 0), "it arrived as a whole");
    let kept = report().batches_kept;
    let at = (0..16).rev().find(|block| {
        disk.bytes(&segment)[block * BLOCK..][..4] == *b"RKVB" && is_ours(&disk, &segment, block * BLOCK)
    });
    let at = at.expect("the batch") * BLOCK;
    disk.flip(&segment, (at + BLOCK) as u64, 0);
    assert_eq!((report().batches_kept, report().torn_bytes), (kept - 1, 3 * BLOCK as u64));
    disk.flip(&segment, at as u64, 0);
    assert_eq!(report().torn_bytes, 0, "without its header nothing tells it from what was there before");
}

fn is_ours(disk: &SimulatedDisk, segment: &str, at: usize) -> bool {
    let bytes = disk.bytes(segment);
    let key = SegmentHeader::decode(&bytes).expect("a segment").key;
    super::batch::BatchHeader::decode(&bytes[at..], key, at as u64).is_some()
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

/// Any order of everything, with all that is released reused at once: stale records never parse.
// museum 43
#[test]
fn records_of_earlier_lives_of_a_file_are_never_read() {
    let mut node = Node::new();
    let mut random = Random(8);
    let (mut last, mut start) = (0, 0);
    for step in 0..600 {
        last += 1;
        node.put(A, last..=last);
        if random.below(4) == 0 {
            start = last - random.below((last - start).min(3) + 1);
            node.compact(A, start);
        }
        if step % 20 == 0 {
            let after = node.after_crash();
            let RecoveredShard { start: found, entries, .. } = &after.recovered[0];
            assert!(found.index.0 <= start && found.index.0 + entries.len() as u64 == last, "step {step}");
        }
    }
    assert!(node.segments()[0] > 25, "{:?}", node.segments());
}
