//! Crashes, rot and full disks, on a disk in memory: what was durable is found again or its loss is told, never hidden.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv_protocol::types::{EntryId, Index, ShardId, SnapshotId, Term};

use super::batch::{BLOCK_BYTES, Batch, BatchHeader, PlacedBatch, Placement};
use super::conformance_test::{entry, hard_state};
use super::disk::Disk;
use super::record::Record;
use super::replay::Replay;
use super::segment::{BATCHES_AT, SegmentHeader, segment_name};
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::spares::{First, Quota};
use super::start::start;
use super::stats::Shared;
use super::syncer::Syncer;
use super::{BatchNumber, LogError, RecoveredShard, newest, recovery};

const SHARDS: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(300)];
const SEGMENT: u64 = 64 << 10;

type Contents = BTreeMap<ShardId, RecoveredShard>;

/// A log without threads, with a model of what it holds.
struct Node {
    disk: SimulatedDisk,
    syncer: Syncer,
    spares: First,
    contents: Contents,
}

fn contents_of(mut replay: Replay) -> Contents {
    let contents = SHARDS.iter().map(|shard| (*shard, replay.take(*shard).0)).collect();
    assert_eq!(replay.left(), None);
    contents
}

/// What the log on a disk holds, without touching it.
fn read(disk: &SimulatedDisk) -> Result<Contents, LogError> {
    recovery::read(disk).map(|recovery| contents_of(recovery.replay))
}

impl Node {
    fn start(disk: &SimulatedDisk) -> Result<Node, LogError> {
        let disk_handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let started = start(&disk_handle, &Arc::new(Shared::new()), &Arc::new(Quota::new(None)), SEGMENT)?;
        let contents = contents_of(started.replay);
        Ok(Node { disk: disk.clone(), syncer: started.syncer, spares: started.spares, contents })
    }

    fn new() -> Node {
        Node::start(&SimulatedDisk::default()).expect("an empty disk makes an empty log")
    }

    fn put(&mut self, changes: &[Change]) -> Result<(), LogError> {
        self.put_model(changes);
        self.put_disk(changes)
    }

    fn put_model(&mut self, changes: &[Change]) {
        for change in changes {
            change.apply(&mut self.contents);
        }
    }

    fn put_disk(&mut self, changes: &[Change]) -> Result<(), LogError> {
        self.syncer.place_and_sync(&mut batch_of(changes), &mut self.spares).map(drop)
    }

    /// Writes batches of random changes.
    fn put_many(&mut self, batches: usize, random: &mut Random) {
        for _ in 0..batches {
            let changes = random_changes(&self.contents, random);
            self.put(&changes).expect("the disk is healthy");
        }
    }

    fn last_segment(&self) -> String {
        let names = self.disk.names();
        names.into_iter().rfind(|name| name.starts_with("segment-")).expect("a started log has a segment")
    }
}

#[derive(Clone, Debug)]
enum Change {
    /// Index, term and length of the body.
    Entry(ShardId, u64, u64, usize),
    /// Term and vote.
    HardState(ShardId, u64, u64),
    Reset(ShardId, u64, u64),
}

impl Change {
    fn apply(&self, contents: &mut Contents) {
        match *self {
            Change::Entry(shard, index, term, length) => {
                let known = contents.entry(shard).or_default();
                known.entries.truncate((index - known.start.index.0 - 1) as usize);
                known.entries.push((Term(term), length as u32));
            }
            Change::HardState(shard, term, vote) => {
                contents.entry(shard).or_default().hard_state = hard_state(term, vote);
            }
            Change::Reset(shard, index, term) => {
                let known = contents.entry(shard).or_default();
                known.start = EntryId::new(index, term);
                known.snapshot = SnapshotId(index + 1);
                known.entries.clear();
            }
        }
    }
}

fn batch_of(changes: &[Change]) -> Batch {
    let mut batch = Batch::new(BatchNumber(1));
    for change in changes {
        match *change {
            Change::Entry(shard, index, term, length) => {
                batch.push_entry(shard, &entry(index, term, &"e".repeat(length)));
            }
            Change::HardState(shard, term, vote) => batch.set_hard_state(shard, hard_state(term, vote)),
            Change::Reset(shard, index, term) => {
                let (start, snapshot) = (EntryId::new(index, term), SnapshotId(index + 1));
                batch.push(&Record::Reset { shard, start, snapshot });
            }
        }
    }
    batch
}

fn random_changes(contents: &Contents, random: &mut Random) -> Vec<Change> {
    let mut contents = contents.clone();
    let mut changes = Vec::new();
    for _ in 0..1 + random.below(6) {
        let shard = SHARDS[random.below(3) as usize];
        let known = &contents[&shard];
        let last = known.start.index.0 + known.entries.len() as u64;
        let term = known.hard_state.term.0.max(1);
        let change = match random.below(20) {
            0..3 => Change::HardState(shard, term + 1, random.below(4)),
            3 if !known.entries.is_empty() => {
                let index = last - random.below(known.entries.len().min(4) as u64);
                Change::Entry(shard, index, term, random.below(300) as usize)
            }
            4 => Change::Reset(shard, last + random.below(9), term),
            _ => Change::Entry(shard, last + 1, term, random.below(1500) as usize),
        };
        change.apply(&mut contents);
        changes.push(change);
    }
    changes
}

/// One batch of a bit of everything, two blocks of records and one of hard states.
fn last_batch(contents: &Contents) -> Vec<Change> {
    let next = |shard: ShardId| contents[&shard].start.index.0 + contents[&shard].entries.len() as u64 + 1;
    let (a, b) = (next(SHARDS[0]), next(SHARDS[1]));
    vec![
        Change::Entry(SHARDS[0], a, 90, 1000),
        Change::HardState(SHARDS[2], 91, 2),
        Change::Entry(SHARDS[1], b, 91, 3500),
        Change::Entry(SHARDS[0], a + 1, 90, 700),
    ]
}

/// A log of a few batches and a last one that was written but whose sync did not return.
struct Interrupted {
    disk: SimulatedDisk,
    segment: String,
    without: Contents,
    with: Contents,
    /// Where the last batch lies.
    start: usize,
    end: usize,
}

fn interrupted() -> Interrupted {
    let mut node = Node::new();
    node.put_many(4, &mut Random(7));
    let without = node.contents.clone();
    let segment = node.last_segment();
    let start = end_of_batches(&node.disk, &segment);
    let changes = last_batch(&without);
    node.put_model(&changes);
    node.disk.die_at(1);
    node.put_disk(&changes).expect_err("the power goes during the sync");
    let disk = node.disk.clone();
    let end = end_of_batches(&disk, &segment);
    assert_eq!(end - start, 3 * BLOCK_BYTES as usize);
    Interrupted { disk, segment, without, with: node.contents, start, end }
}

fn headers(disk: &SimulatedDisk, segment: &str) -> Vec<BatchHeader> {
    let bytes = disk.bytes(segment);
    let key = SegmentHeader::decode(&bytes).expect("a segment").key;
    let mut headers: Vec<BatchHeader> = Vec::new();
    let mut at = BATCHES_AT;
    while let Some(header) = bytes.get(at as usize..).and_then(|bytes| BatchHeader::decode(bytes, key, at)) {
        headers.push(header);
        at = header.end();
    }
    headers
}

fn end_of_batches(disk: &SimulatedDisk, segment: &str) -> usize {
    headers(disk, segment).last().map_or(BATCHES_AT, BatchHeader::end) as usize
}

// rule 12
#[test]
fn a_torn_tail_is_cut_wherever_it_tore() {
    let Interrupted { disk, segment, without, with, start, end } = interrupted();
    let whole = disk.fork();
    assert_eq!(read(&whole), Ok(with.clone()), "all of it arrived");
    let bytes = whole.bytes(&segment);
    let meaningful = bytes[start..end].iter().rposition(|byte| *byte != 0).expect("not empty") + start + 1;
    for torn_at in start..end {
        if bytes[torn_at] == 0 && torn_at % 64 != 0 {
            continue;
        }
        for left in [0, 0xa5] {
            if left != 0 && torn_at % 16 != 0 {
                continue;
            }
            whole.edit(&segment, |bytes| bytes[torn_at..end].fill(left));
            let found = read(&whole).expect("a torn tail is no corruption");
            // Torn in the second copy of the hard states: the first is enough.
            assert!(found == without || found == with, "torn at {torn_at}");
            assert!(found == without || torn_at > start + 5000, "torn at {torn_at}");
            assert!(found == with || torn_at < meaningful, "torn at {torn_at}");
            whole.edit(&segment, |torn| torn[torn_at..end].copy_from_slice(&bytes[torn_at..end]));
        }
    }
}

// museum 39
#[test]
fn any_blocks_of_the_last_batch_may_be_missing() {
    let interrupted = interrupted();
    let mut seen = [0; 2];
    for seed in 0..400 {
        let block = if seed % 2 == 0 { 512 } else { 4096 };
        let disk = interrupted.disk.crash(Survivors::Random { seed, block });
        let node = Node::start(&disk).expect("a torn tail is no corruption");
        let whole = node.contents == interrupted.with;
        assert!(whole || node.contents == interrupted.without, "seed {seed}");
        seen[usize::from(whole)] += 1;
        assert_eq!(read(&disk), Ok(node.contents), "seed {seed}: what was kept was kept for good");
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both happen: {seen:?}");
}

// museum 42, rule 12
#[test]
fn a_flipped_byte_is_never_silent() {
    let mut node = Node::new();
    node.put_many(30, &mut Random(3));
    node.syncer.watermark().expect("the disk is healthy");
    let contents = node.contents.clone();
    let segments: Vec<String> = node.disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect();
    assert!(segments.len() >= 2, "the log goes over a segment's end");
    let mut refused = 0;
    for (number, segment) in segments.iter().enumerate() {
        let proved = headers(&node.disk, segment).last().expect("a batch").start as usize;
        let end = if number + 1 < segments.len() { end_of_batches(&node.disk, segment) } else { proved };
        for at in (0..end).step_by(61) {
            let disk = node.disk.fork();
            disk.edit(segment, |bytes| bytes[at] ^= 0x10);
            match recovery::read(&disk) {
                Ok(read) => {
                    assert_eq!(read.report.blemishes, 1, "{segment} at {at}: not named");
                    assert_eq!(contents_of(read.replay), contents, "{segment} at {at}: silently changed");
                }
                Err(LogError(line)) => {
                    assert!(line.contains(&format!("/simulated/{segment} at offset ")), "{line}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 500, "most bytes matter: {refused}");
}

#[test]
fn corruption_names_file_offset_and_entry() {
    let mut node = Node::new();
    node.put(&[Change::Entry(SHARDS[1], 1, 3, 100), Change::Entry(SHARDS[1], 2, 3, 100)]).expect("healthy");
    let segment = node.last_segment();
    let start = end_of_batches(&node.disk, &segment) - BLOCK_BYTES as usize;
    node.syncer.watermark().expect("healthy");
    let record = start + super::batch::HEADER_BYTES + super::record::HEADER_BYTES + 100;
    node.disk.edit(&segment, |bytes| bytes[record + 60] ^= 1);
    let LogError(line) = read(&node.disk).expect_err("proved by the watermark");
    let expected =
        format!("/simulated/{segment} at offset {record}: a record's checksum does not match (entry 2@3 of shard 1)");
    assert!(line.contains(&expected), "{line}");
    assert!(!line.contains('\n'));
}

// rule 12
#[test]
fn a_flip_in_the_last_batch_is_a_torn_tail_only_without_a_watermark() {
    let interrupted = interrupted();
    let disk = interrupted.disk.fork();
    disk.edit(&interrupted.segment, |bytes| bytes[interrupted.start + 100] ^= 1);
    let found = newest(&disk).expect("readable").expect("there is a log");
    assert_eq!((found.name, found.durable_upto), (interrupted.segment, interrupted.start as u64));
    assert_eq!(read(&disk), Ok(interrupted.without), "nothing proves that it was ever durable");

    let mut node = Node::new();
    node.put(&[Change::Entry(SHARDS[0], 1, 1, 10)]).expect("healthy");
    let segment = node.last_segment();
    let end = end_of_batches(&node.disk, &segment);
    node.syncer.watermark().expect("healthy");
    node.disk.edit(&segment, |bytes| bytes[end - BLOCK_BYTES as usize + 60] ^= 1);
    let found = newest(&node.disk).expect("readable").expect("there is a log");
    assert_eq!((found.durable_upto, found.written_upto), (end as u64, end as u64 + BLOCK_BYTES));
    read(&node.disk).expect_err("the watermark proves it");
}

// rule 15
#[test]
fn hard_states_survive_the_loss_of_either_copy() {
    let mut node = Node::new();
    node.put(&[Change::HardState(SHARDS[0], 5, 2), Change::Entry(SHARDS[0], 1, 5, 10)]).expect("healthy");
    let contents = node.contents.clone();
    let segment = node.last_segment();
    let header = *headers(&node.disk, &segment).last().expect("a batch");
    node.syncer.watermark().expect("healthy");
    let first = header.start as usize + super::batch::HEADER_BYTES + header.records as usize;
    let second = header.start as usize + BLOCK_BYTES as usize;
    let flipped = |copies: &[usize]| {
        let disk = node.disk.fork();
        copies.iter().for_each(|at| disk.edit(&segment, |bytes| bytes[at + 30] ^= 1));
        read(&disk)
    };
    assert_eq!(flipped(&[first]), Ok(contents.clone()));
    assert_eq!(flipped(&[second]), Ok(contents));
    flipped(&[first, second]).expect_err("a vote is lost");
}

// museum 43, rule 13
#[test]
fn what_a_recycled_file_held_is_never_read() {
    let mut random = Random(11);
    let mut donor = Node::new();
    donor.put_many(12, &mut random);
    let old = donor.disk.bytes(&donor.last_segment());

    let disk = SimulatedDisk::default();
    for tag in 0..3 {
        disk.set_bytes(&format!("spare-{tag:016x}.log"), old.clone());
    }
    // The other life of the file: other ids.
    for _ in 0..100 {
        disk.fresh_id().expect("an id");
    }
    let mut node = Node::start(&disk).expect("spares hold nothing");
    assert_eq!(node.contents, Node::new().contents);
    for batches in 0..6 {
        assert_eq!(read(&disk), Ok(node.contents.clone()), "after {batches} batches");
        node.put_many(1, &mut random);
    }
    let disk = disk.crash(Survivors::None);
    assert_eq!(Node::start(&disk).expect("healthy").contents, node.contents);
}

/// Not even if the file gets the same batches at the same places again: the records of another batch number or
/// segment have other checksums.
// rule 13
#[test]
fn records_belong_to_their_segment_and_batch() {
    let mut node = Node::new();
    node.put(&[Change::Entry(SHARDS[0], 1, 1, 100)]).expect("healthy");
    let segment = node.last_segment();
    let header = *headers(&node.disk, &segment).last().expect("a batch");
    let bytes = node.disk.bytes(&segment);
    let key = SegmentHeader::decode(&bytes).expect("a segment").key;
    let bytes = &bytes[header.start as usize..header.end() as usize];
    let damaged = |header, key| PlacedBatch::new(header, key, bytes).records().any(|record| record.is_err());
    assert!(!damaged(header, key));
    assert!(damaged(BatchHeader { number: header.number + 1, ..header }, key));
    let mut other = key;
    other.epoch += 1;
    assert!(damaged(header, other));
    other = key;
    other.id.0 ^= 1;
    assert!(damaged(header, other));
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let mut node = Node::new();
    for index in 1..=40 {
        node.put(&[Change::Entry(SHARDS[0], index, 1, 3000)]).expect("healthy");
    }
    assert!(node.disk.names().len() >= 4);
    let lost = |sequence: u64| {
        let disk = node.disk.fork();
        disk.remove_quietly(&segment_name(sequence));
        read(&disk)
    };
    let LogError(line) = lost(2).expect_err("a hole");
    assert!(line.contains("segment-0000000000000002.log is missing"), "{line}");
    let LogError(line) = lost(1).expect_err("the restatement in segment 2 says what was there");
    assert!(line.contains("incomplete: entries 1 to "), "{line}");

    let other = Node::new();
    node.disk.set_bytes(&segment_name(2), other.disk.bytes(&segment_name(1)));
    let LogError(line) = read(&node.disk).expect_err("another log's");
    assert!(line.contains("sequence number 1"), "{line}");
}

/// No log counts this far; whoever writes such a number with a right checksum gets an error and no panic.
#[test]
fn after_the_greatest_number_of_a_batch_none_follows() {
    let node = Node::new();
    let segment = node.last_segment();
    let key = SegmentHeader::decode(&node.disk.bytes(&segment)).expect("a segment").key;
    let numbered = |number, start, durable_upto| {
        let mut batch = batch_of(&[Change::Entry(SHARDS[0], 1, 1, 10)]);
        batch.finish(&Placement { key, number, start, durable_upto }, |_| {}).to_vec()
    };
    for (proved, refused) in [(BATCHES_AT + 2 * BLOCK_BYTES, true), (BATCHES_AT + BLOCK_BYTES, false)] {
        let first = numbered(u64::MAX, BATCHES_AT, 0);
        let second = numbered(1, BATCHES_AT + BLOCK_BYTES, proved);
        node.disk
            .edit(&segment, |bytes| bytes[BATCHES_AT as usize..][..8192].copy_from_slice(&[first, second].concat()));
        assert_eq!(read(&node.disk).is_err(), refused);
    }
}

// rule 16
#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let mut node = Node::new();
    node.put_many(3, &mut Random(5));
    node.disk.set_unreadable(&node.last_segment(), true);
    let LogError(line) = read(&node.disk).expect_err("EIO");
    assert!(line.contains("cannot read the log /simulated/segment-0000000000000001.log"), "{line}");
}

#[test]
fn a_short_file_is_refused() {
    let interrupted = interrupted();
    let full = interrupted.disk.bytes(&interrupted.segment).len();
    for length in (0..full).step_by(512) {
        let disk = interrupted.disk.fork();
        disk.edit(&interrupted.segment, |bytes| bytes.truncate(length));
        let LogError(line) = read(&disk).expect_err("it may have held more");
        assert!(line.contains(&format!("/simulated/{} at offset ", interrupted.segment)), "cut to {length}: {line}");
    }
}

// museum 40
#[test]
fn a_segment_counts_only_once_its_name_is_durable() {
    let mut random = Random(21);
    let mut node = Node::new();
    let mut before = node.contents.clone();
    // The operations of a roll: take a spare (create, rename, sync the directory), write, sync, rename, sync.
    while node.disk.names().len() < 3 {
        before = node.contents.clone();
        let disk = node.disk.fork();
        let changes = random_changes(&node.contents, &mut random);
        node.put(&changes).expect("healthy");
        if node.disk.names().len() == disk.names().len() {
            continue;
        }
        for operation in 0..12 {
            let disk = disk.fork();
            let mut node = Node { disk: disk.clone(), ..Node::start(&disk).expect("healthy") };
            disk.die_at(operation);
            let put = node.put(&changes);
            for survivors in [Survivors::None, Survivors::All] {
                let found = read(&disk.crash(survivors)).expect("a crash is no corruption");
                assert!(found == node.contents || (put.is_err() && found == before), "operation {operation}");
            }
        }
    }
    assert_eq!(node.disk.names().len(), 3);
    assert_ne!(node.contents, before);
}

// rule 13
#[test]
fn a_start_may_die_at_any_operation() {
    let interrupted = interrupted();
    for seed in 0..12 {
        let first = interrupted.disk.crash(Survivors::Random { seed, block: 512 });
        let held = read(&first).expect("a torn tail is no corruption");
        for operation in 0.. {
            let disk = first.fork();
            disk.die_at(operation);
            let started = Node::start(&disk);
            let finished = started.is_ok() && disk.operations() <= operation;
            let again = disk.crash(Survivors::Random { seed: seed * 1000 + operation, block: 512 });
            let mut node = Node::start(&again).expect("a crash is no corruption");
            assert_eq!(node.contents, held, "seed {seed}, operation {operation}");
            node.put_many(2, &mut Random(seed));
            assert_eq!(read(&again.crash(Survivors::None)), Ok(node.contents));
            if finished {
                assert!(operation > 6, "a start writes, syncs and renames");
                break;
            }
        }
    }
}

/// Acknowledged batches survive crashes at random moments, one after the other.
#[test]
fn every_crash_keeps_what_was_acknowledged() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut disk = SimulatedDisk::default();
        let mut acknowledged = Node::new().contents;
        let mut attempted = acknowledged.clone();
        for life in 0..4 {
            let mut node = Node::start(&disk).expect("a crash is no corruption");
            assert!(node.contents == acknowledged || node.contents == attempted, "seed {seed}, life {life}");
            acknowledged = node.contents.clone();
            disk.die_at(random.below(60));
            loop {
                let changes = random_changes(&node.contents, &mut random);
                let put = node.put(&changes);
                attempted = node.contents.clone();
                if put.is_err() {
                    break;
                }
                acknowledged = node.contents.clone();
                if random.below(4) == 0 && node.syncer.watermark().is_err() {
                    break;
                }
            }
            disk = disk.crash(Survivors::Random { seed: random.next(), block: 512 });
        }
    }
}

// museum 38
#[test]
fn the_first_failed_sync_is_final() {
    let mut node = Node::new();
    node.put_many(2, &mut Random(1));
    let before = node.contents.clone();
    let changes = [Change::Entry(SHARDS[0], 1 + node.contents[&SHARDS[0]].entries.len() as u64, 1, 5)];
    let changes = if node.contents[&SHARDS[0]].start.index == Index(0) { changes.to_vec() } else { Vec::new() };
    assert!(!changes.is_empty());
    node.disk.fail_sync(0);
    let failed = node.put_disk(&changes).expect_err("EIO");
    assert!(failed.0.contains("/simulated/segment-0000000000000001.log at offset"), "{failed}");
    let (syncs, operations) = (node.disk.syncs(), node.disk.operations());
    for _ in 0..5 {
        assert_eq!(node.put_disk(&changes), Err(failed.clone()));
        assert!(!node.syncer.needs_watermark());
    }
    assert_eq!((node.disk.syncs(), node.disk.operations()), (syncs, operations), "the disk is left alone");
    assert_eq!(read(&node.disk.crash(Survivors::None)), Ok(before));
}

/// The page cache may hold what the disk does not: what a start finds unproved, it writes again.
// rule 13
#[test]
fn a_start_makes_durable_what_it_found() {
    let interrupted = interrupted();
    let disk = interrupted.disk.crash(Survivors::None);
    // As the page cache shows it: everything, though none of it is on the disk.
    let live = interrupted.disk.bytes(&interrupted.segment);
    let shown = disk.fork();
    shown.edit(&interrupted.segment, |bytes| *bytes = live);
    let node = Node::start(&shown).expect("healthy");
    assert_eq!(node.contents, interrupted.with);
    // Then the power goes, and the old segment is found without the batch.
    let after = shown.crash(Survivors::None);
    let on_disk = disk.bytes(&interrupted.segment);
    let cut = interrupted.start;
    after.edit(&interrupted.segment, |bytes| {
        let length = bytes.len();
        bytes[cut.min(length)..].copy_from_slice(&on_disk[cut.min(length)..length]);
    });
    assert_eq!(read(&after), Ok(interrupted.with));
}
