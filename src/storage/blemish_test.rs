//! Bytes that mean nothing: a disk that changes one is named, and a crash that left one is not.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use raftkv_protocol::types::{EntryId, ShardId, SnapshotId};

use super::batch::{BLOCK_BYTES, BatchHeader, HardStateCopy};
use super::blemish::{Blemish, Spot, warning};
use super::conformance_test::{entry, hard_state};
use super::disk::{Disk, RealDisk};
use super::inspect::{Item, inspect_disk};
use super::log_by_hand::write_out;
use super::record::Record;
use super::segment::{BATCHES_AT, FileState, SegmentHeader, segment_name};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{CoreLog, FileLog, LogError, LogIo, Options, Workers, check, check_closely};

const A: ShardId = ShardId(0);
const SEGMENT: u64 = 64 << 10;

/// A log that is moved by hand.
struct Node {
    log: FileLog,
    workers: Workers,
    last: u64,
}

impl Node {
    fn open(disk: Arc<dyn Disk>) -> Result<Node, LogError> {
        let mut options = Options::new("unused", vec![A], Arc::new(|| {}));
        (options.segment_size, options.tail_bytes_max) = (SEGMENT, 0);
        let (log, recovered, workers) = FileLog::open_by_hand(disk, options)?;
        let last = recovered[0].start.index.0 + recovered[0].entries.len() as u64;
        Ok(Node { log, workers, last })
    }

    fn settle(&mut self) {
        write_out(&mut self.log, &self.workers);
        while self.workers.can_allocate() && self.workers.allocate() {}
    }

    /// An entry of so many bytes, alone in its batch or with a vote.
    fn put(&mut self, bytes: usize, vote: Option<u64>) {
        self.last += 1;
        if let Some(vote) = vote {
            self.log.set_hard_state(A, hard_state(1, vote));
        }
        self.log.append(A, &mut vec![entry(self.last, 1, &"x".repeat(bytes))]);
        self.settle();
    }

    fn newest(&self) -> u64 {
        self.log.stats().oldest_segment + self.log.stats().held_segments - 1
    }
}

fn blemishes(disk: &dyn Disk) -> Vec<Blemish> {
    check_closely(disk).expect("nothing is lost").1
}

/// A log of two segments; the first has batches of 3 and 4 blocks, the second of which holds a vote, and an unused end.
fn two_segments() -> SimulatedDisk {
    let disk = SimulatedDisk::new(5);
    let mut node = Node::open(Arc::new(disk.clone())).expect("an empty disk");
    node.put(10_000, None);
    node.put(6_000, Some(2));
    while node.newest() == 1 {
        node.put(13_000, None);
    }
    disk.crash(Survivors::None)
}

/// The header of the `number`-th batch of the first segment.
fn batch(disk: &SimulatedDisk, number: usize) -> BatchHeader {
    let bytes = disk.bytes(&segment_name(1));
    let key = SegmentHeader::decode(&bytes).expect("a segment").key;
    let mut at = BATCHES_AT;
    for _ in 0..number {
        at = BatchHeader::decode(&bytes[at as usize..], key, at).expect("a batch").end();
    }
    BatchHeader::decode(&bytes[at as usize..], key, at).expect("a batch")
}

/// What a walk for people shows.
fn walked(disk: &SimulatedDisk) -> Vec<Blemish> {
    let mut found = Vec::new();
    let walked = inspect_disk(disk, |item| {
        if let Item::Blemish(blemish) = item {
            found.push(blemish.clone());
        }
        ControlFlow::Continue(())
    });
    walked.expect("readable");
    found
}

// museum 42, rule 12
#[test]
fn a_byte_that_means_nothing_is_named_where_it_changed() {
    let disk = two_segments();
    let (whole, none) = check_closely(&disk).expect("healthy");
    assert_eq!((none.as_slice(), warning(&none)), (&[][..], None));
    let vote = batch(&disk, 2);
    let first_copy = vote.start + 56 + u64::from(vote.records);
    let second_copy = (first_copy + u64::from(vote.hard_states)).next_multiple_of(BLOCK_BYTES);
    let end = disk.bytes(&segment_name(1)).iter().rposition(|byte| *byte != 0).expect("not empty") as u64;
    let unused = end.next_multiple_of(BLOCK_BYTES);
    assert!(unused + BLOCK_BYTES < SEGMENT, "the segment has an unused end: {unused}");
    let spots = [
        (88, 88, Spot::HeaderPadding),
        (BATCHES_AT - 1, BATCHES_AT - 1, Spot::HeaderPadding),
        (first_copy, first_copy, Spot::HardState(HardStateCopy::First)),
        (first_copy + 30, first_copy, Spot::HardState(HardStateCopy::First)),
        (first_copy + u64::from(vote.hard_states), first_copy + u64::from(vote.hard_states), Spot::BatchPadding),
        (second_copy - 1, second_copy - 1, Spot::BatchPadding),
        (second_copy + 5, second_copy, Spot::HardState(HardStateCopy::Second)),
        (second_copy + u64::from(vote.hard_states), second_copy + u64::from(vote.hard_states), Spot::BatchPadding),
        (vote.end() - 1, vote.end() - 1, Spot::BatchPadding),
        (unused - BLOCK_BYTES + 5, unused - BLOCK_BYTES, Spot::Continued),
        (unused - BLOCK_BYTES + 60, unused - BLOCK_BYTES, Spot::Continued),
        (unused - 1, unused - 1, Spot::BatchPadding),
        (unused, unused, Spot::Unused),
        (SEGMENT - 1, SEGMENT - 1, Spot::Unused),
    ];
    for (at, offset, spot) in spots {
        let flipped = disk.fork();
        flipped.flip(&segment_name(1), at, 3);
        let expected = Blemish { path: flipped.path(&segment_name(1)), offset, spot };
        let (found, named) = check_closely(&flipped).expect("nothing is lost");
        assert_eq!((found, named.as_slice()), (whole.clone(), &[expected][..]), "byte {at}");
        assert_eq!(walked(&flipped), named, "byte {at}");
        let log = Node::open(Arc::new(flipped)).expect("nothing is lost").log;
        assert_eq!((log.recovery().blemishes, log.stats().blemishes), (1, 1), "byte {at}");
    }
}

#[test]
fn one_line_says_how_many_there_are_and_what_to_do() {
    let disk = two_segments();
    disk.flip(&segment_name(1), 200, 0);
    let first = format!("/simulated/{} at offset 200: ", segment_name(1));
    let one = warning(&blemishes(&disk)).expect("one");
    assert!(one.starts_with(&first) && one.ends_with("replace it soon") && !one.contains("more"), "{one}");
    disk.flip(&segment_name(1), SEGMENT - 9, 0);
    disk.flip(&segment_name(2), 4000, 0);
    let three = warning(&blemishes(&disk)).expect("three");
    assert!(three.starts_with(&first) && three.contains("(and 2 more such spots;"), "{three}");
}

/// Nobody needs what is not there, and a disk with a bad sector is to be told of.
#[test]
fn a_bad_sector_in_the_unused_end_is_a_blemish() {
    let disk = two_segments();
    let whole = check(&disk).expect("healthy");
    let block = (SEGMENT / BLOCK_BYTES - 1) as usize;
    disk.spoil_block(&segment_name(1), block);
    let (found, named) = check_closely(&disk).expect("nothing is lost");
    let offset = block as u64 * BLOCK_BYTES;
    assert_eq!(named, [Blemish { path: disk.path(&segment_name(1)), offset, spot: Spot::BadSector }]);
    assert_eq!(found, whole);
}

/// What is left of redundancy is made whole by the start that finds it lacking.
#[test]
fn a_damaged_copy_of_a_vote_is_written_anew_by_the_next_start() {
    let disk = two_segments();
    let vote = batch(&disk, 2);
    disk.flip(&segment_name(1), vote.start + 56 + u64::from(vote.records), 1);
    drop(Node::open(Arc::new(disk.clone())).expect("the other copy is right"));
    let mut votes = 0;
    inspect_disk(&disk, |item| {
        match item {
            Item::Segment { header, .. } if header.sequence == 3 => votes = 0,
            Item::Record { record: Record::HardState { hard_state: found, .. }, .. } if *found == hard_state(1, 2) => {
                votes += 1;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .expect("readable");
    assert_eq!(votes, 1, "the newest segment restates it");
    for at in (0..2).map(|block| BATCHES_AT + block * BLOCK_BYTES) {
        let rotten = disk.fork();
        rotten.edit(&segment_name(3), |bytes| bytes[at as usize + 56..][..4000].fill(0xee));
        let is_read = check(&rotten).is_ok_and(|shards| shards[&A].hard_state == hard_state(1, 2));
        assert_eq!(
            is_read,
            at != BATCHES_AT,
            "either block may be lost, the other holds a copy; records are there once"
        );
    }
}

/// The power goes at any operation of a start, and of what follows; also before what was cut is given back.
// rule 12
#[test]
fn what_a_crash_leaves_is_no_blemish() {
    // Of the first process: a later one finds spares, of which it does not know what they hold.
    let disk = SimulatedDisk::new(6);
    let mut node = Node::open(Arc::new(disk.clone())).expect("an empty disk");
    while node.newest() == 1 {
        node.put(10_000, Some(3));
    }
    node.log.append(A, &mut vec![entry(node.last + 1, 1, &"y".repeat(30_000))]);
    node.log.flush();
    disk.die_at(1);
    node.workers.sync();
    let mut left_behind = 0;
    for seed in 0..20 {
        let torn = disk.crash(Survivors::Random { seed, block: 512 });
        assert_eq!(blemishes(&torn), [], "seed {seed}");
        for operation in 0..16 {
            let dying = torn.fork();
            dying.die_at(operation);
            drop(Node::open(Arc::new(dying.clone())));
            for left in [dying.fork(), dying.crash(Survivors::Random { seed, block: 4096 })] {
                left.restart();
                assert_eq!(blemishes(&left), [], "seed {seed}, operation {operation}");
                // The next segment is there, and the one before was not cut yet.
                let has_next = left.names().contains(&segment_name(3));
                left_behind += u32::from(has_next && left.bytes(&segment_name(2)).len() as u64 == SEGMENT);
            }
        }
    }
    assert!(left_behind > 20, "{left_behind}");
}

/// Puts and lets go until files have been in use several times, with batches of ever other lengths.
fn recycled(disk: Arc<dyn Disk>) {
    let mut node = Node::open(Arc::clone(&disk)).expect("an empty directory");
    let mut newest = 1;
    for round in 0..120 {
        if newest < node.newest() {
            newest = node.newest();
            assert_eq!(blemishes(&*disk), [], "segment {newest}");
        }
        // Short ones fill a segment to its end, long ones leave of it what an earlier use wrote there.
        let bytes = if node.newest() % 4 < 2 { 3_000 } else { 17_000 };
        node.put(bytes + round, (round % 5 == 0).then_some(round as u64 + 1));
        if node.last.is_multiple_of(20) {
            node.log.compact(A, EntryId::new(node.last, 1), SnapshotId(node.last));
        }
    }
    assert!(node.newest() > 12, "{:?}", node.log.stats());
    node.log.close().expect("healthy");
}

/// However batches are written, they are whole blocks, and their padding is zeros also where other bytes were before.
#[test]
fn padding_is_zeros_in_files_that_were_in_use_before_whatever_wrote_them() {
    for io in [LogIo::Direct, LogIo::Buffered, LogIo::Map] {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(RealDisk::create(dir.path(), io).expect("a directory"));
        recycled(disk.clone());
        assert_eq!(blemishes(&*disk), [], "{io:?}");
        assert!(is_reused(dir.path()), "{io:?}");
        let names = disk.list().expect("readable");
        let newest = names.iter().filter(|name| matches!(FileState::of(name), Some(FileState::Segment(_)))).max();
        let path = dir.path().join(newest.expect("a log"));
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a segment");
        file.write_all_at(&[1], BATCHES_AT - 2).expect("writable");
        let expected = Blemish { path: path.display().to_string(), offset: BATCHES_AT - 2, spot: Spot::HeaderPadding };
        assert_eq!(blemishes(&*disk), [expected], "{io:?}");
    }
    let disk = SimulatedDisk::new(4);
    recycled(Arc::new(disk.clone()));
    assert_eq!(blemishes(&disk), []);
}

fn is_reused(dir: &Path) -> bool {
    let mut is_reused = false;
    let walked = inspect_disk(&RealDisk::read_only(dir), |item| {
        is_reused |= matches!(item, Item::Record { record: Record::Reused, .. });
        ControlFlow::Continue(())
    });
    walked.is_ok() && is_reused
}
