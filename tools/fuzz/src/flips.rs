//! Flips in files that were written to their end: a sealed segment of 64 KiB and a snapshot of 64 KiB. Every byte of them
//! is changed, and none may go unnoticed.
//!
//! In a segment three kinds of bytes are told apart. What a batch *holds*, its header and records, and the segment's
//! header, is refused, with file and offset. Of the two *copies* of term and vote either may be damaged, and the *gaps* up
//! to the next block hold nothing: the log is read as it was, and the spot is named as a blemish. A snapshot has neither
//! copies nor gaps.
//!
//! A log that was not sealed has an *end*, which a crash may have torn: its last data batch is refused like all others if
//! a watermark follows. Without one it is cut as a whole, as nothing proves that it ever was durable; the entries before
//! it stay.

use std::sync::Arc;

use bytes::Bytes;
use raftkv::storage::batch::{BLOCK_BYTES, BatchHeader, HEADER_BYTES};
use raftkv::storage::blemish::Blemish;
use raftkv::storage::segment::{self, BATCHES_AT, SEGMENT_BYTES_MIN, SegmentHeader, segment_name};
use raftkv::storage::simulated_disk::{SimulatedDisk, Survivors};
use raftkv::storage::snapshot::{Item, SnapshotStore};
use raftkv::storage::{CoreLog, FileLog, Options, RecoveredShard, Space, Workers, check_closely, record};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, Term};

use crate::random::Random;

const SHARD: ShardId = ShardId(3);
const FILE_BYTES: u64 = SEGMENT_BYTES_MIN;

/// Which bytes are changed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// One byte of so many, chosen by the seed.
    pub every: u64,
    /// Decides which bytes, and which bit of each.
    pub seed: u64,
    /// Changes each bit of a byte, one after the other, and all together, instead of one of them.
    pub all_bits: bool,
}

/// What became of the changes to one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes that were changed.
    pub bytes: u64,
    /// Changes.
    pub flips: u64,
    /// Refused, with file and offset.
    pub refused: u64,
    /// In one of two copies: named, and read from the other.
    pub in_a_copy: u64,
    /// Where nothing stands: named, and nothing was lost.
    pub in_a_gap: u64,
    /// In what may be torn, and cut.
    pub cut: u64,
    /// Where nothing stands in what may be torn: it was written again, as it was.
    pub mended: u64,
}

impl Tally {
    /// Changes that somebody is told of.
    #[must_use]
    pub fn detected(&self) -> u64 {
        self.refused + self.in_a_copy + self.in_a_gap
    }
}

/// The changes to one file that were not noticed.
pub type Unnoticed = Vec<String>;

/// What a byte of a segment means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Held,
    Copy,
    Gap,
    /// Of a batch that nothing proves.
    Torn,
}

/// What the log holds, as a start finds it, and where it is blemished.
type Found = (RecoveredShard, Vec<Blemish>);

/// A log that is written by hand.
struct Writer {
    disk: SimulatedDisk,
    log: FileLog,
    workers: Workers,
    last: u64,
}

impl Writer {
    fn new() -> Writer {
        let disk = SimulatedDisk::new(7);
        let mut options = Options::new("simulated", vec![SHARD], Arc::new(|| {}));
        options.segment_size = FILE_BYTES;
        let (log, _, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options).expect("an empty disk");
        Writer { disk, log, workers, last: 0 }
    }

    fn sync(&mut self) {
        self.log.flush();
        while self.workers.can_allocate() && self.workers.allocate() {}
        self.workers.sync();
        assert_eq!(self.log.durable().expect("a healthy disk"), self.log.last_batch());
        assert_eq!(self.log.space(), Space::Plenty);
    }

    /// An entry whose batch has so many blocks, and a gap of so many bytes behind it.
    fn put(&mut self, blocks: u64, gap: u64) {
        self.last += 1;
        let bytes = blocks * BLOCK_BYTES - gap - (HEADER_BYTES + record::HEADER_BYTES) as u64;
        let mut random = Random::new(self.last);
        let body: Bytes = (0..bytes).map(|_| random.next_u64() as u8).collect();
        let id = EntryId::new(self.last, 1);
        self.log.append(SHARD, &mut vec![Entry { id, kind: EntryKind::Command, body }]);
        self.sync();
    }

    fn vote(&mut self) {
        self.log.set_hard_state(SHARD, HardState { term: Term(1), vote: Some(NodeId(2)) });
        self.sync();
    }

    fn segments(&self) -> usize {
        self.disk.names().iter().filter(|name| name.starts_with("segment-")).count()
    }
}

/// A log whose first segment is sealed and full to its last byte, and what it holds.
fn sealed() -> (SimulatedDisk, Found) {
    let mut writer = Writer::new();
    writer.vote();
    // The header, the restatement and the vote have four blocks; the watermark gets one, what says that the log goes on
    // the last.
    (0..4).for_each(|_| writer.put(1, 0));
    writer.put(3, 0);
    writer.put(2, 1200);
    writer.put(1, 17);
    writer.workers.prove();
    assert_eq!(writer.segments(), 1);
    writer.put(1, 0);
    assert_eq!(writer.segments(), 2);
    let found = found(&writer.disk).expect("a healthy disk");
    (writer.disk.crash(Survivors::None), found)
}

fn found(disk: &SimulatedDisk) -> Result<Found, String> {
    let (mut shards, blemishes) = check_closely(disk).map_err(|error| error.to_string())?;
    let shard = shards.remove(&SHARD).ok_or_else(|| "the shard is gone".to_owned())?;
    Ok((shard, blemishes))
}

/// What each byte of a segment means, up to the end of its batches. Behind `proved` a batch may be torn. The one at `cut`
/// says that the log goes on in the next segment, which says so too.
fn meanings(bytes: &[u8], proved: u64, cut: u64) -> Vec<Meaning> {
    let header = SegmentHeader::decode(bytes).expect("a segment");
    let mut meanings = vec![Meaning::Held; segment::HEADER_BYTES];
    meanings.resize(BATCHES_AT as usize, Meaning::Gap);
    while let Some(batch) = bytes.get(meanings.len()..) {
        let start = meanings.len();
        let Some(batch) = BatchHeader::decode(batch, header.key, start as u64) else { break };
        if batch.start >= proved {
            meanings.resize(batch.end() as usize, Meaning::Torn);
            continue;
        }
        let (records, copy) = (HEADER_BYTES + batch.records as usize, batch.hard_states as usize);
        meanings.resize(start + records, if batch.start < cut { Meaning::Held } else { Meaning::Copy });
        meanings.resize(start + records + copy, Meaning::Copy);
        meanings.resize(meanings.len().next_multiple_of(BLOCK_BYTES as usize), Meaning::Gap);
        meanings.resize(meanings.len() + copy, Meaning::Copy);
        meanings.resize(batch.end() as usize, Meaning::Gap);
    }
    meanings
}

/// Where the second segment says that the first ends; what is behind the file's end if there is none.
fn cut_of(disk: &SimulatedDisk) -> u64 {
    let second = segment_name(2);
    let is_there = disk.names().contains(&second);
    let header = is_there.then(|| SegmentHeader::decode(&disk.bytes(&second)).expect("a segment"));
    header.and_then(|header| header.predecessor).map_or(FILE_BYTES, |seal| seal.cut)
}

/// The bits to change together: one, or each alone and then all.
fn masks(plan: &Plan, random: &mut Random) -> Vec<u8> {
    let one = 1 << random.below(8);
    if plan.all_bits { (0..8).map(|bit| 1 << bit).chain([0xff]).collect() } else { vec![one] }
}

/// Changes bytes of a file one after the other; `look` tells of each byte what became of it.
fn each(
    disk: &SimulatedDisk,
    name: &str,
    bytes: u64,
    plan: &Plan,
    look: &mut dyn FnMut(u64, &mut Tally) -> Result<(), String>,
) -> (Tally, Unnoticed) {
    let mut random = Random::new(plan.seed);
    let (mut tally, mut unnoticed) = (Tally::default(), Unnoticed::new());
    for group in (0..bytes).step_by(plan.every as usize) {
        let at = group + random.below(plan.every.min(bytes - group) as usize) as u64;
        tally.bytes += 1;
        for mask in masks(plan, &mut random) {
            let flip = || (0..8).filter(|bit| mask >> bit & 1 == 1).for_each(|bit| disk.flip(name, at, bit));
            flip();
            tally.flips += 1;
            if let Err(line) = look(at, &mut tally) {
                unnoticed.push(format!("{name}, byte {at}, changed by {mask:#04x}: {line}"));
            }
            flip();
        }
    }
    (tally, unnoticed)
}

/// Whether a refusal names the file and a place in it.
fn is_told(line: &str, name: &str) -> bool {
    line.contains(&format!("{name} at offset ")) && !line.contains('\n')
}

/// Whether a log holds what it held, and the changed byte is named: in a gap by its own place, in a copy by its record's.
fn is_named(found: &Found, whole: &Found, name: &str, at: u64, meaning: Meaning) -> bool {
    let [blemish] = found.1.as_slice() else { return false };
    let is_there = if meaning == Meaning::Gap { blemish.offset == at } else { blemish.offset <= at };
    found.0 == whole.0 && is_there && is_told(&blemish.to_string(), name)
}

/// Changes bytes of a log up to the end of its batches, and compares what a start finds with what each byte means.
fn flip_log(disk: &SimulatedDisk, proved: u64, whole: &Found, cut: &Found, plan: &Plan) -> (Tally, Unnoticed) {
    let name = segment_name(1);
    let meanings = meanings(&disk.bytes(&name), proved, cut_of(disk));
    each(disk, &name, meanings.len() as u64, plan, &mut |at, tally| {
        let meaning = meanings[at as usize];
        match (found(disk), meaning) {
            (Err(line), Meaning::Held) if is_told(&line, &name) => tally.refused += 1,
            (Ok(found), Meaning::Copy) if is_named(&found, whole, &name, at, meaning) => tally.in_a_copy += 1,
            (Ok(found), Meaning::Gap) if is_named(&found, whole, &name, at, meaning) => tally.in_a_gap += 1,
            (Ok(found), Meaning::Torn) if found == *cut => tally.cut += 1,
            (Ok(found), Meaning::Torn) if found == *whole => tally.mended += 1,
            (Err(line), _) => return Err(format!("{meaning:?}: {line}")),
            (Ok((found, blemishes)), _) => {
                return Err(format!("{meaning:?}: read with {} entries, blemishes {blemishes:?}", found.entries.len()));
            }
        }
        Ok(())
    })
}

/// Every byte of a sealed segment of 64 KiB, which are all in use.
#[must_use]
pub fn segment(plan: &Plan) -> (Tally, Unnoticed) {
    let (disk, whole) = sealed();
    let end = meanings(&disk.bytes(&segment_name(1)), FILE_BYTES, FILE_BYTES).len() as u64;
    assert_eq!(end, FILE_BYTES, "the segment is full");
    flip_log(&disk, FILE_BYTES, &whole, &whole, plan)
}

/// Every byte of the last batches of a log that was not sealed; with a watermark behind the last data, or without.
#[must_use]
pub fn tail(has_watermark: bool, plan: &Plan) -> (Tally, Unnoticed) {
    let mut writer = Writer::new();
    writer.vote();
    writer.put(1, 300);
    let before = found(&writer.disk).expect("a healthy disk");
    let proved = meanings(&writer.disk.bytes(&segment_name(1)), FILE_BYTES, FILE_BYTES).len() as u64;
    writer.put(2, 900);
    let whole = found(&writer.disk).expect("a healthy disk");
    let end = meanings(&writer.disk.bytes(&segment_name(1)), FILE_BYTES, FILE_BYTES).len() as u64;
    if !has_watermark {
        return flip_log(&writer.disk, proved, &whole, &before, plan);
    }
    writer.workers.prove();
    flip_log(&writer.disk, end, &whole, &whole, plan)
}

/// Every byte of a snapshot of 64 KiB.
#[must_use]
pub fn snapshot(plan: &Plan) -> (Tally, Unnoticed) {
    let at = EntryId::new(30, 2);
    let write = |last: usize| {
        let disk = SimulatedDisk::new(9);
        let store = SnapshotStore::open(Arc::new(disk.clone()), SHARD).expect("an empty disk");
        let mut writer = store.create(at, b"hash", b"voters").expect("a healthy disk");
        let mut random = Random::new(1);
        for (number, length) in [300, 9_000, 0, 30_000, last].into_iter().enumerate() {
            let value: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
            let (key, version) = (format!("key {number}").into_bytes(), Index(number as u64 + 1));
            writer.push(Item { key: &key, version, value: &value }).expect("a healthy disk");
        }
        let info = writer.finish(5, vec![(Index(1024), 6)]).expect("a healthy disk");
        (disk, store, info)
    };
    let least = write(20_000).2.bytes;
    let (disk, store, info) = write(20_000 + (FILE_BYTES - least) as usize);
    assert_eq!(info.bytes, FILE_BYTES, "the snapshot has 64 KiB");
    let name = disk.names().pop().expect("one file");
    let read = || -> Result<(), String> {
        let mut reader = store.read(at).map_err(|error| error.to_string())?;
        while reader.next_items().map_err(|error| error.to_string())?.is_some() {}
        Ok(())
    };
    read().expect("it is whole");
    each(&disk, &name, FILE_BYTES, plan, &mut |_, tally| match read() {
        Err(line) if is_told(&line, &name) => {
            tally.refused += 1;
            Ok(())
        }
        Err(line) => Err(line),
        Ok(()) => Err("read to its end".to_owned()),
    })
}
