//! A damaged log: what is sound of it is kept, what it proves of votes is not forgotten, and it is itself left alone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raftkv_protocol::types::{EntryId, HardState, Index, ShardId, SnapshotId, Term};

use super::batch::{self, BLOCK_BYTES, BatchHeader};
use super::conformance_test::{entry, hard_state};
use super::disk::Disk;
use super::inspect::{Item, inspect_disk};
use super::log_by_hand::write_out;
use super::record::{Record, Seed, stamp};
use super::salvage::Salvage;
use super::segment::{BATCHES_AT, HEADER_BYTES, SegmentHeader, SegmentKey, segment_name};
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::{
    CoreLog, Fetch, FileLog, LogError, Options, RecoveredShard, SalvagedLog, Workers, begin_anew, check, check_closely,
    damage, salvage_log,
};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);
const C: ShardId = ShardId(7);
pub(super) const SHARDS: [ShardId; 3] = [A, B, C];

fn options() -> Options {
    Options {
        segment_size: 64 << 10,
        tail_bytes_max: 0,
        ..Options::new(Path::new("unused"), SHARDS.to_vec(), Arc::new(|| {}))
    }
}

/// A log without threads.
struct Node {
    log: FileLog,
    workers: Workers,
}

fn open(disk: &SimulatedDisk) -> Result<(Node, Vec<RecoveredShard>), LogError> {
    let (log, recovered, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options())?;
    Ok((Node { log, workers }, recovered))
}

impl Node {
    fn new(disk: &SimulatedDisk) -> Node {
        open(disk).expect("opens").0
    }

    fn settle(&mut self) {
        write_out(&mut self.log, &self.workers);
    }

    /// One entry, one batch, and the term's vote.
    fn put(&mut self, shard: ShardId, index: u64, term: u64, length: usize) {
        self.log.set_hard_state(shard, hard_state(term, 2));
        self.put_entry(shard, index, term, length);
    }

    fn put_entry(&mut self, shard: ShardId, index: u64, term: u64, length: usize) {
        self.log.append(shard, &mut vec![entry(index, term, &body(index, term, length))]);
        self.settle();
    }

    fn vote(&mut self, shard: ShardId, term: u64, vote: u64) {
        self.log.set_hard_state(shard, hard_state(term, vote));
        self.settle();
    }

    fn close(self) {
        self.log.close().expect("healthy");
    }

    fn bodies(&mut self, shard: ShardId, recovered: &RecoveredShard) -> Vec<Bytes> {
        let last = Index(recovered.start.index.0 + recovered.entries.len() as u64);
        let mut first = recovered.start.index.next();
        let mut bodies = Vec::new();
        while first <= last {
            self.log.fetch(Fetch { shard, tag: 0, first, last, bytes_max: 1 << 20 });
            self.workers.read();
            let entries = self.log.fetched().expect("was read").result.expect("is there");
            first = Index(first.0 + entries.len() as u64);
            bodies.extend(entries.into_iter().map(|entry| entry.body));
        }
        bodies
    }
}

/// Tells entries apart by their bodies too.
fn body(index: u64, term: u64, length: usize) -> String {
    let mut body = format!("{index}@{term} ");
    body.extend(std::iter::repeat_n('x', length));
    body
}

pub(super) fn segments(disk: &SimulatedDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

/// What is left of the log on a disk, by shard, and what is wrong with it; `None` if nothing is.
pub(super) fn salvage(disk: &SimulatedDisk) -> Option<(String, BTreeMap<ShardId, RecoveredShard>)> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (salvage, recovered) = Salvage::of(&disk, &SHARDS).expect("readable")?;
    assert_eq!(damage(&*disk).expect("readable").as_ref(), Some(&salvage.damage));
    Some((salvage.damage, SHARDS.into_iter().zip(recovered).collect()))
}

pub(super) fn contents(disk: &SimulatedDisk) -> BTreeMap<ShardId, RecoveredShard> {
    let mut found = check(disk).expect("sound");
    SHARDS.into_iter().map(|shard| (shard, found.remove(&shard).unwrap_or_default())).collect()
}

/// Where each entry's record ends, by shard and in order, in one segment of a sound log.
fn record_ends(disk: &SimulatedDisk, segment: &str) -> BTreeMap<ShardId, Vec<u64>> {
    let mut ends = BTreeMap::<ShardId, Vec<u64>>::new();
    let mut is_it = false;
    let walked = inspect_disk(disk, |item| {
        match item {
            Item::Segment { path, .. } => is_it = path.ends_with(segment),
            Item::Record { offset, record } if is_it => {
                if let Record::Entry { shard, .. } = record {
                    ends.entry(*shard).or_default().push(offset + record.encoded_bytes() as u64);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    walked.expect("readable");
    ends
}

/// A log of one short sealed segment with a bit of everything, nothing overwritten, and a second one.
pub(super) fn small() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let mut node = Node::new(&disk);
    node.log.append(A, &mut vec![entry(1, 1, "first"), entry(2, 1, "second")]);
    node.log.append(B, &mut vec![entry(1, 1, "alone")]);
    node.log.set_hard_state(A, hard_state(1, 2));
    node.settle();
    node.put(A, 3, 2, 200);
    node.log.set_hard_state(B, hard_state(4, 3));
    node.log.append(B, &mut vec![entry(2, 4, "more")]);
    node.log.append(A, &mut vec![entry(4, 2, "the last")]);
    node.settle();
    node.close();
    let mut node = Node::new(&disk);
    node.put(A, 5, 2, 10);
    node.put(C, 1, 3, 10);
    node.close();
    disk
}

// museum 42, rule 12
#[test]
fn a_flip_of_any_byte_of_a_sealed_segment_loses_nothing_before_it() {
    let disk = small();
    let whole = contents(&disk);
    let sealed = segments(&disk).remove(0);
    let ends = record_ends(&disk, &sealed);
    let bytes = disk.bytes(&sealed);
    let mut found = 0;
    for at in 0..bytes.len() {
        let is_padding = bytes[at..].iter().take(32).all(|byte| *byte == 0);
        if is_padding && at % 97 != 0 {
            continue;
        }
        let flipped = disk.fork();
        flipped.edit(&sealed, |bytes| bytes[at] ^= 0x40);
        let Some((line, left)) = salvage(&flipped) else {
            // Between the records, or in one of two copies of the hard states.
            assert_eq!(contents(&flipped), whole, "a flip at {at}");
            assert_eq!(check_closely(&flipped).expect("not damaged").1.len(), 1, "a flip at {at}");
            continue;
        };
        found += 1;
        assert!(line.contains(&format!("/simulated/{sealed} at offset ")) && !line.contains('\n'), "{line}");
        for shard in SHARDS {
            let before = |end: &&u64| at as u64 >= BATCHES_AT && **end <= at as u64;
            let expected = ends.get(&shard).map_or(0, |ends| ends.iter().filter(before).count());
            let RecoveredShard { hard_state, start, entries, .. } = &left[&shard];
            assert_eq!(entries[..], whole[&shard].entries[..expected], "shard {shard}, a flip at {at}");
            assert_eq!((*start, *hard_state), (EntryId::ZERO, whole[&shard].hard_state), "a flip at {at}");
        }
    }
    assert!(found > 500, "most bytes matter: {found}");
}

/// A log of several segments, as it is found after a clean stop.
pub(super) fn long() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let mut node = Node::new(&disk);
    for index in 1..=64 {
        node.put(A, index, 1 + index / 20, 3_000);
        if index % 3 == 0 {
            node.put(B, index / 3, 1, 100);
        }
        if index % 10 == 0 {
            node.vote(C, index, 1 + index % 3);
        }
    }
    node.close();
    assert!(segments(&disk).len() >= 4, "{:?}", disk.names());
    disk
}

pub(super) fn is_prefix(left: &RecoveredShard, whole: &RecoveredShard) -> bool {
    left.start == whole.start && whole.entries.starts_with(&left.entries)
}

// museum 42
#[test]
fn without_its_first_segment_a_log_keeps_what_it_proves_of_votes() {
    let disk = long();
    let whole = contents(&disk);
    disk.remove_quietly(&segments(&disk)[0]);
    let (line, left) = salvage(&disk).expect("it is missed");
    assert!(line.contains("the log is incomplete: entries 1 to "), "{line}");
    for shard in [A, B] {
        let nothing = RecoveredShard { hard_state: whole[&shard].hard_state, ..RecoveredShard::default() };
        assert_eq!(left[&shard], nothing);
    }
    assert_eq!(left[&C], whole[&C], "it has no entries to lose");
}

// museum 42
#[test]
fn without_a_segment_in_the_middle_a_log_keeps_what_is_before_and_the_votes_behind() {
    let disk = long();
    let whole = contents(&disk);
    let names = segments(&disk);
    let ends = record_ends(&disk, &names[0]);
    disk.remove_quietly(&names[1]);
    let (line, left) = salvage(&disk).expect("it is missed");
    assert_eq!(line, format!("the log is incomplete: /simulated/{} is missing", names[1]));
    for shard in SHARDS {
        let expected = ends.get(&shard).map_or(0, Vec::len);
        assert_eq!(left[&shard].entries[..], whole[&shard].entries[..expected]);
        assert_eq!(left[&shard].hard_state, whole[&shard].hard_state);
    }
    assert!(left[&A].entries.len() > 3 && !left[&B].entries.is_empty());
}

// museum 42
#[test]
fn of_a_segment_that_is_too_short_all_that_is_there_is_kept() {
    let disk = long();
    let whole = contents(&disk);
    let newest = segments(&disk).pop().expect("there are several");
    let size = disk.bytes(&newest).len();
    let mut kept = Vec::new();
    for length in (0..size).step_by(BLOCK_BYTES as usize).chain([size - 1]) {
        let short = disk.fork();
        short.edit(&newest, |bytes| bytes.truncate(length));
        let (line, left) = salvage(&short).expect("it is missed");
        assert!(line.contains(&format!("/simulated/{newest} at offset ")), "{line}");
        assert!(SHARDS.iter().all(|shard| is_prefix(&left[shard], &whole[shard])), "{length} bytes");
        kept.push(left[&A].entries.len());
    }
    assert!(kept.is_sorted() && kept[0] < kept[kept.len() - 1] && kept.ends_with(&[64]), "{kept:?}");
}

/// A write that went to another place, and a file that another one took the place of.
// museum 42, rule 13
#[test]
fn stale_bytes_are_kept_out() {
    let disk = long();
    let whole = contents(&disk);
    let names = segments(&disk);
    // Every batch has two blocks.
    for (from, to) in [(1, 3), (3, 7), (9, 5), (11, 1)] {
        let stale = disk.fork();
        let (from, to, block) = ((from * BLOCK_BYTES) as usize, (to * BLOCK_BYTES) as usize, BLOCK_BYTES as usize);
        stale.edit(&names[1], |bytes| bytes.copy_within(from..from + block, to));
        let (line, left) = salvage(&stale).expect("it is found");
        assert!(line.contains(&format!("/simulated/{} at offset {to}", names[1])), "{line}");
        assert!(SHARDS.iter().all(|shard| is_prefix(&left[shard], &whole[shard])));
        assert!(SHARDS.iter().all(|shard| left[shard].hard_state == whole[shard].hard_state));
    }
    let before = [&names[0], &names[1]].map(|name| record_ends(&disk, name)[&A].len());
    disk.set_bytes(&names[2], disk.bytes(&names[1]));
    let (line, left) = salvage(&disk).expect("it is found");
    assert!(line.contains("the segment's header has sequence number 2"), "{line}");
    assert_eq!(left[&A].entries[..], whole[&A].entries[..before[0] + before[1]]);
}

/// The id of a segment without a header is in the next one, so that its records can be checked all the same.
// rule 15
#[test]
fn the_votes_of_a_segment_without_a_header_are_found() {
    let disk = SimulatedDisk::default();
    let mut node = Node::new(&disk);
    node.put(A, 1, 1, 10);
    node.close();
    let mut node = Node::new(&disk);
    node.vote(B, 9, 3);
    node.close();
    let names = segments(&disk);
    Node::new(&disk).close();
    let third = segments(&disk).pop().expect("there are three");
    disk.edit(&names[1], |bytes| bytes[HEADER_BYTES - 1] ^= 1);
    // Nor what restates them.
    disk.edit(&third, |bytes| bytes[BATCHES_AT as usize..].fill(0xee));
    let (line, left) = salvage(&disk).expect("it is found");
    assert!(line.contains(&format!("/simulated/{} at offset 0", names[1])), "{line}");
    assert_eq!(left[&B].hard_state, hard_state(9, 3));
    assert_eq!(left[&A].entries, [(Term(1), 14)]);
}

/// In the term of the last entry behind the spot there was perhaps a vote, and perhaps not.
// rule 15
#[test]
fn an_entry_behind_the_spot_proves_its_term() {
    let disk = SimulatedDisk::default();
    let mut node = Node::new(&disk);
    node.put_entry(A, 1, 1, 10);
    let spot = disk.bytes(&segment_name(1)).chunks(BLOCK_BYTES as usize).rposition(|block| block[0] != 0);
    node.put_entry(A, 2, 5, 10);
    node.put_entry(C, 1, 6, 10);
    node.close();
    disk.edit(&segment_name(1), |bytes| bytes[spot.expect("a batch") * BLOCK_BYTES as usize] ^= 1);
    let (_, left) = salvage(&disk).expect("it is found");
    let term = |term| HardState { term: Term(term), vote: None };
    assert_eq!((left[&A].hard_state, left[&C].hard_state), (term(5), term(6)));
    assert!(SHARDS.iter().all(|shard| left[shard].entries.is_empty()));
}

/// Whatever is damaged, a shard is left as it was at some moment of its life, or empty.
// museum 42
#[test]
fn what_is_left_of_a_shard_is_what_it_was_once() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new(seed);
        let states = random_life(&disk, &mut random);
        let names = segments(&disk);
        let mut found = 0;
        for _ in 0..20 {
            let damaged = disk.fork();
            let name = &names[random.below(names.len() as u64) as usize];
            let size = disk.bytes(name).len() as u64;
            match random.below(4) {
                0 => damaged.remove_quietly(name),
                1 => damaged.edit(name, |bytes| bytes.truncate(random.below(size) as usize)),
                _ => damaged.edit(name, |bytes| {
                    let at = random.below(size) as usize;
                    bytes[at..(at + 300).min(size as usize)].fill(0x5a);
                }),
            }
            let Some((line, left)) = salvage(&damaged) else { continue };
            found += 1;
            for shard in SHARDS {
                let RecoveredShard { hard_state, start, entries, .. } = &left[&shard];
                let was = |state: &&RecoveredShard| (state.start, &state.entries) == (*start, entries);
                assert!(states[&shard].iter().any(|state| was(&state)), "seed {seed}: {line}: {:?}", left[&shard]);
                let last = states[&shard].last().expect("it had states");
                assert!(hard_state.term <= last.hard_state.term, "seed {seed}: {line}");
            }
        }
        assert!(found > 3, "seed {seed}");
    }
}

/// Appends, overwrites, resets and votes of all shards over several starts. Tells all that each shard ever was.
fn random_life(disk: &SimulatedDisk, random: &mut Random) -> BTreeMap<ShardId, Vec<RecoveredShard>> {
    let mut states: BTreeMap<_, _> = SHARDS.iter().map(|shard| (*shard, vec![RecoveredShard::default()])).collect();
    let mut node = Node::new(disk);
    for _ in 0..120 {
        let shard = SHARDS[random.below(3) as usize];
        let known = states.get_mut(&shard).expect("all are there");
        let mut now = known.last().expect("not empty").clone();
        let (last, term) = (now.start.index.0 + now.entries.len() as u64, now.hard_state.term.0);
        match random.below(12) {
            0 => {
                now.hard_state = hard_state(term + 1, random.below(4));
                node.log.set_hard_state(shard, now.hard_state);
            }
            1 => {
                (now.start, now.snapshot) = (EntryId::new(last + 5, term), SnapshotId(last + 1));
                now.entries.clear();
                node.log.reset(shard, now.start, now.snapshot);
            }
            2 => {
                node.close();
                node = Node::new(disk);
            }
            what => {
                let back = if what == 3 { random.below(4).min(now.entries.len() as u64) } else { 0 };
                let body = body(last + 1 - back, term, random.below(3_000) as usize);
                now.entries.truncate(now.entries.len() - back as usize);
                now.entries.push((Term(term), body.len() as u32));
                node.log.append(shard, &mut vec![entry(last + 1 - back, term, &body)]);
            }
        }
        known.push(now);
        if random.below(3) > 0 {
            node.settle();
        }
    }
    node.close();
    states
}

/// Writes what is left of one disk to another.
pub(super) fn rewrite(from: &SimulatedDisk, to: &SimulatedDisk) -> Result<Option<SalvagedLog>, LogError> {
    salvage_log(Arc::new(from.clone()), Arc::new(to.clone()), options())
}

fn damaged_in_the_middle() -> SimulatedDisk {
    let disk = long();
    disk.edit(&segments(&disk)[2], |bytes| bytes[9 * BLOCK_BYTES as usize + 100] ^= 1);
    disk
}

/// The new log is a log like any other, and the shards go on in it.
#[test]
fn what_is_sound_is_written_anew() {
    let disk = damaged_in_the_middle();
    let (line, left) = salvage(&disk).expect("it is found");
    let new = SimulatedDisk::new(5);
    let salvaged = rewrite(&disk, &new).expect("there is room").expect("it is damaged");
    assert_eq!(salvaged, SalvagedLog { shards: SHARDS.to_vec(), damage: line });
    assert_eq!(contents(&new), left);
    let (mut node, recovered) = open(&new).expect("a sound log");
    let entries = recovered[0].entries.clone();
    let expected: Vec<Bytes> =
        (1..).zip(&entries).map(|(index, (term, _))| Bytes::from(body(index, term.0, 3_000))).collect();
    assert!(expected.len() > 8, "{}", expected.len());
    assert_eq!(node.bodies(A, &recovered[0]), expected);
    node.put(A, expected.len() as u64 + 1, 70, 10);
    node.close();
    let (_, recovered) = open(&new).expect("a sound log");
    assert_eq!(recovered[0].entries.len(), expected.len() + 1);
}

#[test]
fn a_log_that_is_not_damaged_is_copied_whole() {
    let disk = long();
    let whole = contents(&disk);
    let new = SimulatedDisk::new(5);
    assert_eq!(rewrite(&disk, &new), Ok(None));
    assert_eq!(contents(&new), whole);
}

// museum 29
#[test]
fn a_crash_at_any_operation_of_a_salvage_leaves_the_damaged_log_as_it_was() {
    let disk = damaged_in_the_middle();
    let (_, left) = salvage(&disk).expect("it is found");
    let before: Vec<_> = disk.names().into_iter().map(|name| (disk.bytes(&name), name)).collect();
    let mut operations = 0;
    loop {
        let new = SimulatedDisk::new(5);
        new.die_at(operations);
        let rewritten = rewrite(&disk, &new);
        let now: Vec<_> = disk.names().into_iter().map(|name| (disk.bytes(&name), name)).collect();
        assert!(now == before, "the power goes at operation {operations}");
        if rewritten.is_ok() {
            // What is durable is all of it, before anybody is told that it is.
            assert_eq!(contents(&new.crash(Survivors::None)), left);
            break;
        }
        operations += 1;
    }
    assert!(operations > 20, "{operations}");
}

#[test]
fn a_salvage_without_room_says_so() {
    let disk = damaged_in_the_middle();
    let new = SimulatedDisk::new(5);
    new.set_capacity(Some(96 << 10));
    let LogError(line) = rewrite(&disk, &new).expect_err("there is none");
    assert!(line.contains("no room to write the logs anew in /simulated/"), "{line}");
}

/// Whatever is appended to a log that was begun anew lies behind that, wherever a crash comes.
#[test]
fn a_log_that_begins_anew_keeps_term_and_vote() {
    let disk = SimulatedDisk::default();
    let mut node = Node::new(&disk);
    node.log.reset(A, EntryId::new(500, 3), SnapshotId(9));
    node.put(A, 501, 4, 10);
    node.put(B, 1, 1, 10);
    node.close();
    let (mut node, mut recovered) = open(&disk).expect("opens");
    begin_anew(&mut node.log, A, &mut recovered[0]);
    let anew = RecoveredShard { hard_state: hard_state(4, 2), ..RecoveredShard::default() };
    assert_eq!(recovered[0], anew);
    assert_eq!(contents(&disk.crash(Survivors::None))[&A].start, EntryId::new(500, 3), "not yet");
    node.put(A, 1, 1, 10);
    drop(node);
    let found = contents(&disk.crash(Survivors::None));
    assert_eq!((found[&A].start, &found[&A].entries[..]), (EntryId::ZERO, &[(Term(1), 14)][..]));
    assert_eq!(found[&B].entries.len(), 1);
}

/// It holds what a later version of the program has written.
#[test]
fn a_segment_of_a_later_format_is_no_damaged_log() {
    let disk = long();
    disk.edit(&segments(&disk)[1], |bytes| {
        bytes[12] = 2;
        let checksum = crc32fast::hash(&bytes[12..HEADER_BYTES]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    });
    let LogError(line) = damage(&disk).expect_err("nobody here knows what it says");
    assert!(line.contains(" at offset 0: the segment has format 2, this version reads 1; start"), "{line}");
    rewrite(&disk, &SimulatedDisk::new(5)).expect_err("nobody here knows what it says");
}

/// Gives a record of a batch a kind that only a later version can have, with the checksum that it would have.
fn to_the_future(bytes: &mut [u8], key: SegmentKey, header: &BatchHeader, offset: usize) {
    let record = &mut bytes[header.start as usize + offset..];
    record[8] = 77;
    stamp(record, Seed::new(key, header.number));
}

/// Behind the last proof of what is durable too, where damage is cut: it is none.
#[test]
fn a_record_of_a_later_version_is_no_damage() {
    let disk = long();
    let names = segments(&disk);
    let newest = names.last().expect("it has segments");
    let proved = super::newest(&disk).expect("readable").expect("there is a log").durable_upto;
    for (name, is_last) in [(&names[1], false), (newest, true)] {
        for in_hard_states in [false, true] {
            let disk = disk.fork();
            disk.edit(name, |bytes| {
                let key = SegmentHeader::decode(bytes).expect("a segment").key;
                let mut batches = Vec::new();
                let mut at = BATCHES_AT;
                while let Some(header) = BatchHeader::decode(&bytes[at as usize..], key, at) {
                    at = header.end();
                    batches.push(header);
                }
                let with_votes = |header: &&BatchHeader| !in_hard_states || header.hard_states > 0;
                let found = if is_last { batches.iter().rfind(with_votes) } else { batches.iter().find(with_votes) };
                let header = found.expect("there is one");
                assert!(!is_last || in_hard_states || header.start >= proved, "nothing proves it durable");
                if in_hard_states {
                    let first = batch::HEADER_BYTES + header.records as usize;
                    let second = first.next_multiple_of(BLOCK_BYTES as usize);
                    to_the_future(bytes, key, header, second);
                    // The second copy is the one that is read: damage of the first does not make it less known.
                    bytes[header.start as usize + first + 20] ^= 1;
                } else {
                    to_the_future(bytes, key, header, batch::HEADER_BYTES);
                }
            });
            let before = (disk.names(), disk.bytes(name));
            let LogError(line) = damage(&disk).expect_err("nobody here knows what it says");
            assert!(line.contains(": a record of kind 77 is unknown to this version; start the version"), "{line}");
            assert_eq!(open(&disk).err(), Some(LogError(line)));
            rewrite(&disk, &SimulatedDisk::new(5)).expect_err("nobody here knows what it says");
            assert!((disk.names(), disk.bytes(name)) == before, "it is left as it is");
        }
    }
}

/// What cannot be read may be there still: the disk is to be looked at first.
#[test]
fn a_disk_that_cannot_be_read_is_no_damaged_log() {
    let disk = long();
    disk.set_unreadable(&segments(&disk)[1], true);
    let LogError(line) = damage(&disk).expect_err("nobody knows");
    assert!(line.contains("check the disk"), "{line}");
    let LogError(line) = rewrite(&disk, &SimulatedDisk::new(5)).expect_err("nobody knows");
    assert!(line.contains("check the disk"), "{line}");
}
