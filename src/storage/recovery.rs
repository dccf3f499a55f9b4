//! Reads a log after a start, and tells a torn tail from corruption.
//!
//! Every batch's header says up to where the segment was durable when it was written, a segment's header says where its
//! predecessor ends. W, the greatest position that anything proves durable, divides the last segment: bad bytes below
//! W are corruption, and the log is refused; at or above W they are what a crash left of the last batch, and are cut.
//! To find W, everything up to the end of the segment is searched for headers.
//!
//! A record that is right, and that this version does not know, is neither: a later version has written it, and the log is
//! refused on both sides of W, for that version to read.
//!
//! What is right at or above W is *kept*: it may have been acknowledged, but the page cache may hold what the disk does
//! not. It is handed out for the next segment, which seals this one at W. Nothing is changed here.
//!
//! A corrupt log is read up to the first spot that is not what was written, for whoever can get back what is lost
//! ([`salvage`](super::salvage)).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use raftkv_protocol::types::{EntryId, HardState, ShardId};

use super::batch::{BLOCK_BYTES, Batch, BatchHeader, Damage, HardStateCopy, PlacedBatch};
use super::blemish::{Blemish, Search, Spot, has_data, is_end_known, is_zeros, says_continued};
use super::disk::{Access, Disk, DiskFile};
use super::given::read_given;
use super::record::{self, Record, Seal};
use super::replay::Replay;
use super::segment::{self, BATCHES_AT, BadHeader, FileState, SegmentHeader, SegmentKey, segment_name};
use super::syncer::Place;
use super::tip::{SegmentFile, Tip};
use super::{BatchNumber, LogError, RecoveredShard, batch};

/// A batch at or above W.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) batch: Batch,
    /// Its place among the batches with entries, if it has entries.
    pub(super) numbered: Option<usize>,
}

/// What a start met in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments that were read.
    pub segments: u64,
    /// Batches that nothing proved durable, and that were whole: they were written again.
    pub batches_kept: u64,
    /// Bytes behind the last whole batch that a crash left of unfinished ones, and that were cut. In a file that was in
    /// use before they are told from what is left of that by the header of their batch.
    pub torn_bytes: u64,
    /// Spots that are not what was written, though nothing was lost there.
    pub blemishes: u64,
}

/// Why a log cannot be read to its end.
pub(super) enum Refusal {
    /// Something is not what was written, or is missing: what and where.
    Damaged(String),
    /// Anything else, from which nothing follows for what the log held.
    Other(LogError),
}

/// What a log held.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// All records, the kept ones included.
    pub(super) replay: Replay,
    /// Where the log ends: at W.
    pub(super) tip: Tip,
    /// Where the segments end that a start has sealed. Nothing behind that is of use to anybody.
    pub(super) ends: Vec<Seal>,
    /// What must be written again behind `tip`.
    pub(super) kept: Vec<Kept>,
    pub(super) report: RecoveryReport,
    /// What is not as it was written, though nothing was lost there.
    pub(super) blemishes: Vec<Blemish>,
    /// The file of the segment that was read last was in use before.
    is_reused: bool,
    /// The segment that was read last says that the log goes on in this one.
    continued_in: Option<u64>,
}

/// What the log on a disk holds, by shard, as the next start would find it. Nothing is changed.
pub fn check(disk: &dyn Disk) -> Result<BTreeMap<ShardId, RecoveredShard>, LogError> {
    check_closely(disk).map(|(shards, _)| shards)
}

/// The same, with the spots that are not what was written although nothing was lost there.
pub fn check_closely(disk: &dyn Disk) -> Result<(BTreeMap<ShardId, RecoveredShard>, Vec<Blemish>), LogError> {
    let Recovery { mut replay, blemishes, .. } = read(disk)?;
    Ok((replay.named().into_iter().map(|shard| (shard, replay.take(shard).0)).collect(), blemishes))
}

/// The segment at the end of a log, and how far it was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its file.
    pub name: String,
    /// Everything before this offset is proved durable: a start refuses it if it is damaged.
    pub durable_upto: u64,
    /// Behind this offset there are only zeros.
    pub written_upto: u64,
}

/// The segment at the end of the log on a disk, as the next start would find it; `None` if there is no log.
pub fn newest(disk: &dyn Disk) -> Result<Option<Newest>, LogError> {
    let mut segments = Vec::new();
    open_chain(disk, &mut segments)?;
    let Some(segment) = segments.pop() else { return Ok(None) };
    let Extent { durable_upto, written_upto } = segment.extent()?;
    Ok(Some(Newest { name: segment_name(segment.header.sequence), durable_upto, written_upto }))
}

/// Reads the whole log.
pub(super) fn read(disk: &dyn Disk) -> Result<Recovery, LogError> {
    let (recovery, damage) = read_sound(disk)?;
    damage.map_or(Ok(recovery), |what| Err(Refusal::Damaged(what).into()))
}

/// Reads the log up to the first spot that is not what was written, and tells that spot. Of entries that are missing
/// before what is there [`Replay::missing`] knows.
pub(super) fn read_sound(disk: &dyn Disk) -> Result<(Recovery, Option<String>), LogError> {
    let mut segments = Vec::new();
    let chain = match open_chain(disk, &mut segments) {
        Err(Refusal::Other(error)) => return Err(error),
        chain => chain,
    };
    let mut recovery = Recovery::default();
    recovery.report.segments = segments.len() as u64;
    recovery.tip.sealed = segments.iter().map(Segment::as_file).collect();
    recovery.ends = segments.windows(2).filter_map(|pair| end_by_start(&pair[0], &pair[1])).collect();
    let read = recovery.read_segments(&segments, chain.is_ok());
    recovery.report.blemishes = recovery.blemishes.len() as u64;
    match read.and(chain).and_then(|()| recovery.check_begin(&segments)) {
        Ok(()) => Ok((recovery, None)),
        Err(Refusal::Damaged(what)) => Ok((recovery, Some(what))),
        Err(Refusal::Other(error)) => Err(error),
    }
}

impl From<Refusal> for LogError {
    fn from(refusal: Refusal) -> LogError {
        match refusal {
            Refusal::Damaged(what) => LogError(format!("{what}; {WHAT_TO_DO}")),
            Refusal::Other(error) => error,
        }
    }
}

const WHAT_TO_DO: &str = "restore the file: the node must not go on with a shorter log";

/// The search for headers reads this much at a time.
const SEARCH_BYTES: u64 = 1 << 20;

/// How far a segment was used.
struct Extent {
    /// W: everything before it is proved durable.
    durable_upto: u64,
    /// Everything behind it is zeros.
    written_upto: u64,
}

/// A segment that is part of the log.
pub(super) struct Segment {
    path: String,
    file: Box<dyn DiskFile>,
    pub(super) size: u64,
    pub(super) header: SegmentHeader,
    /// Where the disk did not give a block, and what it said.
    bad: RefCell<BadBlocks>,
}

/// By offset.
type BadBlocks = BTreeMap<u64, String>;

/// The sequence numbers of the segments that are there, in order.
pub(super) fn sequences(disk: &dyn Disk) -> Result<Vec<u64>, LogError> {
    let names = disk.list().map_err(|error| cannot_read(&disk.path(""), &error))?;
    let sequence = |name: &String| match FileState::of(name) {
        Some(FileState::Segment(sequence)) => Some(sequence),
        _ => None,
    };
    let mut sequences: Vec<u64> = names.iter().filter_map(sequence).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// Opens the segments in order, as far as each continues the one before it.
fn open_chain(disk: &dyn Disk, segments: &mut Vec<Segment>) -> Result<(), Refusal> {
    for sequence in sequences(disk).map_err(Refusal::Other)? {
        if let Some(previous) = segments.last()
            && previous.header.sequence + 1 != sequence
        {
            let missing = disk.path(&segment_name(previous.header.sequence + 1));
            return Err(Refusal::Damaged(format!("the log is incomplete: {missing} is missing")));
        }
        let segment = Segment::open(disk, sequence)?;
        if let Some(previous) = segments.last() {
            check_chain(previous, &segment)?;
        }
        segments.push(segment);
    }
    Ok(())
}

fn check_chain(previous: &Segment, next: &Segment) -> Result<(), Refusal> {
    let seals_it = |seal: &Seal| seal.segment == previous.header.key.id && seal.cut >= BATCHES_AT;
    if !next.header.predecessor.as_ref().is_some_and(seals_it) {
        let what = format!("it does not continue {}", previous.path);
        return Err(corrupt(&next.path, 0, &what, None));
    }
    Ok(())
}

/// Where a segment ends, if another process than the one that wrote it has sealed it.
fn end_by_start(sealed: &Segment, next: &Segment) -> Option<Seal> {
    next.header.predecessor.filter(|_| sealed.header.key.epoch != next.header.key.epoch)
}

impl Segment {
    pub(super) fn open(disk: &dyn Disk, sequence: u64) -> Result<Segment, Refusal> {
        let name = segment_name(sequence);
        let path = disk.path(&name);
        let mut bytes = [0; segment::HEADER_BYTES];
        let mut bad = BadBlocks::new();
        let read = disk.open(&name, Access::Read).and_then(|file| {
            let length = read_given(&*file, 0, &mut bytes, |at, error| drop(bad.insert(at, error.to_string())))?;
            Ok((length, file.size()?, file))
        });
        let (length, size, file) = read.map_err(|error| unreadable(&path, &error))?;
        let header = SegmentHeader::decode(&bytes[..length]).map_err(|wrong| match wrong {
            BadHeader::Damaged => with_bad(corrupt(&path, 0, &wrong.to_string(), None), &bad),
            BadHeader::Version(_) => of_a_later_version(&path, 0, &wrong),
        })?;
        if header.sequence != sequence {
            let what = format!("the segment's header has sequence number {}", header.sequence);
            return Err(corrupt(&path, 0, &what, None));
        }
        Ok(Segment { path, file, size, header, bad: RefCell::new(bad) })
    }

    /// A segment whose header is lost, with this key.
    pub(super) fn open_headless(disk: &dyn Disk, sequence: u64, key: SegmentKey) -> Result<Segment, Refusal> {
        let name = segment_name(sequence);
        let path = disk.path(&name);
        let opened = disk.open(&name, Access::Read).and_then(|file| Ok((file.size()?, file)));
        let (size, file) = opened.map_err(|error| unreadable(&path, &error))?;
        let header = SegmentHeader { key, sequence, size, durable_upto: BATCHES_AT, predecessor: None };
        Ok(Segment { path, file, size, header, bad: RefCell::default() })
    }

    fn as_file(&self) -> SegmentFile {
        SegmentFile { sequence: self.header.sequence, size: self.size }
    }

    /// The batch header at `at`, if there is a right one.
    pub(super) fn batch_header(&self, at: u64) -> Result<Option<BatchHeader>, Refusal> {
        let mut bytes = [0; batch::HEADER_BYTES];
        let length = self.read_at(at, &mut bytes)?;
        Ok(BatchHeader::decode(&bytes[..length], self.header.key, at))
    }

    /// Reads at an offset; zeros where the disk does not give a block, which is noted.
    pub(super) fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Refusal> {
        let note = |at, error: &io::Error| drop(self.bad.borrow_mut().insert(at, error.to_string()));
        read_given(&*self.file, at, buffer, note).map_err(|error| unreadable(&self.path, &error))
    }

    /// All bytes of a batch, unless the file ends before.
    fn batch_bytes<'b>(&self, header: &BatchHeader, buffer: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, Refusal> {
        if header.end() > self.size {
            return Ok(None);
        }
        let length = header.length as usize;
        if buffer.len() < length {
            *buffer = vec![0; length];
        }
        let read = self.read_at(header.start, &mut buffer[..length])?;
        Ok((read == length).then_some(&buffer[..length]))
    }

    fn extent(&self) -> Result<Extent, Refusal> {
        let mut upto = self.header.durable_upto;
        let mut at = BATCHES_AT;
        while let Some(header) = self.batch_header(at)? {
            upto = upto.max(header.durable_upto);
            at = header.end();
        }
        let mut written_upto = at;
        let mut chunk = vec![0; self.size.saturating_sub(at).min(SEARCH_BYTES) as usize];
        while at < self.size {
            let length = self.read_at(at, &mut chunk)?;
            for block in chunk[..length].chunks(BLOCK_BYTES as usize) {
                let header = BatchHeader::decode(block, self.header.key, at);
                upto = upto.max(header.map_or(0, |header| header.durable_upto));
                at += BLOCK_BYTES;
                if !is_zeros(block) {
                    written_upto = at;
                }
            }
            if length < chunk.len() {
                break;
            }
        }
        Ok(Extent { durable_upto: upto, written_upto })
    }

    /// Names what is wrong below W.
    fn corrupt_at(&self, at: u64, what: &str) -> Refusal {
        let mut head = [0; batch::HEADER_BYTES + record::HEADER_BYTES];
        let length = self.read_at(at, &mut head).unwrap_or(0);
        let entry = head[..length].get(batch::HEADER_BYTES..).and_then(record::claimed_entry);
        corrupt(&self.path, at, what, entry)
    }

    /// Why a batch cannot be read. What a later version has written is not damaged, and must not be cut or let go.
    fn refuse(&self, header: &BatchHeader, damage: &Damage) -> Refusal {
        let at = header.start + damage.offset as u64;
        if damage.is_unknown() {
            return of_a_later_version(&self.path, at, &damage.what);
        }
        corrupt(&self.path, at, &damage.what.to_string(), damage.entry)
    }
}

impl Recovery {
    /// Reads segments that form a chain. Of the last one nothing says where it ends: it is the end of the log, or where
    /// the chain breaks.
    fn read_segments(&mut self, segments: &[Segment], is_whole: bool) -> Result<(), Refusal> {
        for (at, segment) in segments.iter().enumerate() {
            let read = match segments.get(at + 1) {
                Some(next) => self.read_sealed(segment, next),
                None if is_whole => self.read_last(segment),
                None => self.read_end(segment),
            };
            self.judge_bad(segment, read)?;
        }
        Ok(())
    }

    /// Of a segment that was read, the disk may not have given some blocks. What was there below W was not missed, or is
    /// named already. At or above W something may have been that proves more to be durable.
    fn judge_bad(&mut self, segment: &Segment, read: Result<(), Refusal>) -> Result<(), Refusal> {
        let bad = segment.bad.borrow();
        read.map_err(|refusal| with_bad(refusal, &bad))?;
        let is_last = |seal: &&Seal| seal.segment == segment.header.key.id;
        let durable_upto = self.tip.seal.as_ref().filter(is_last).map_or(u64::MAX, |seal| seal.cut);
        if let Some((at, error)) = bad.range(durable_upto..).next() {
            return Err(corrupt(&segment.path, *at, &format!("the disk does not give this block: {error}"), None));
        }
        let blemish = |at: &u64| Blemish { path: segment.path.clone(), offset: *at, spot: Spot::BadSector };
        self.blemishes.extend(bad.keys().map(blemish));
        Ok(())
    }

    /// What the oldest segment says was before it must be made up for.
    fn check_begin(&self, segments: &[Segment]) -> Result<(), Refusal> {
        let Some((shard, first, last)) = self.replay.missing() else { return Ok(()) };
        let oldest = segments.first().map_or_else(String::new, |segment| segment.path.clone());
        Err(Refusal::Damaged(format!(
            "the log is incomplete: entries {first} to {last} of shard {shard} lie in a segment before {oldest}, which \
             is missing"
        )))
    }

    fn read_sealed(&mut self, segment: &Segment, next: &Segment) -> Result<(), Refusal> {
        let seal = next.header.predecessor.expect("the chain was checked");
        self.read_durable(segment, seal.cut)?;
        if is_end_known(&segment.header, &next.header, self.is_reused) {
            let mut search = Search::new(&segment.path);
            let continued =
                search.continued(&*segment.file, &segment.header, seal.cut, has_data(&*next.file, &next.header));
            let searched = continued.and_then(|at| search.unused(&*segment.file, at));
            searched.map_err(|error| unreadable(&segment.path, &error))?;
            self.blemishes.extend(search.take_found());
        }
        Ok(())
    }

    fn read_last(&mut self, segment: &Segment) -> Result<(), Refusal> {
        let read = self.read_end(segment);
        if segment.size < segment.header.size && !matches!(read, Err(Refusal::Other(_))) {
            // It had its full size before it got its name, and only a later segment makes it shorter. What was cut off
            // may have held acknowledged entries, and with them what proves that they were there.
            let what = format!("the file has {} bytes, it had {}", segment.size, segment.header.size);
            return Err(corrupt(&segment.path, segment.size, &what, None));
        }
        match (&read, self.continued_in) {
            (Ok(()), Some(sequence)) => {
                let missing = segment.path.replace(&segment_name(segment.header.sequence), &segment_name(sequence));
                let what = format!("the log is incomplete: {missing} is missing, in which {} goes on", segment.path);
                Err(Refusal::Damaged(what))
            }
            _ => read,
        }
    }

    fn read_end(&mut self, segment: &Segment) -> Result<(), Refusal> {
        let Extent { durable_upto: upto, written_upto } = segment.extent()?;
        self.read_durable(segment, upto)?;
        let header = &segment.header;
        self.tip.seal = Some(Seal { segment: header.key.id, sequence: header.sequence, cut: upto });
        self.tip.epoch = header.key.epoch;
        self.tip.shards = self.replay.tips();
        let end = self.read_kept(segment, upto)?;
        self.report.batches_kept = self.kept.len() as u64;
        let torn_upto = match segment.batch_header(end)? {
            Some(torn) if self.is_reused => torn.end().min(segment.size),
            None if self.is_reused => end,
            _ => written_upto,
        };
        self.report.torn_bytes = torn_upto.saturating_sub(end);
        Ok(())
    }

    /// Replays what must be right.
    fn read_durable(&mut self, segment: &Segment, upto: u64) -> Result<(), Refusal> {
        let mut at = BATCHES_AT;
        let mut buffer = vec![0; BATCHES_AT as usize];
        let mut search = Search::new(&segment.path);
        let length = segment.read_at(0, &mut buffer)?;
        search.first_block(&buffer[..length]);
        while at < upto {
            let Some(header) = segment.batch_header(at)? else {
                if mutant!("corruption-cut") {
                    break;
                }
                return Err(segment.corrupt_at(at, "the header of a batch is damaged"));
            };
            let follows = self.tip.number == 0 || Some(header.number) == self.tip.number.checked_add(1);
            if !follows || header.end() > upto {
                return Err(segment.corrupt_at(at, "a batch is not the one that belongs here"));
            }
            let Some(bytes) = segment.batch_bytes(&header, &mut buffer)? else {
                return Err(segment.corrupt_at(at, "the file ends inside a batch"));
            };
            let batch = PlacedBatch::new(header, segment.header.key, bytes);
            self.replay_batch(segment, &header, &batch, hard_states(&batch))?;
            search.batch(&header, &batch);
            if at == BATCHES_AT {
                check_seal(segment, &batch)?;
                self.is_reused = batch.records().any(|record| matches!(record, Ok((_, Record::Reused))));
            }
            self.tip.number = header.number;
            at = header.end();
        }
        self.blemishes.extend(search.take_found());
        Ok(())
    }

    fn replay_batch(
        &mut self,
        segment: &Segment,
        header: &BatchHeader,
        batch: &PlacedBatch<'_>,
        hard_states: Result<Vec<(ShardId, HardState)>, Damage>,
    ) -> Result<(), Refusal> {
        let records = batch.records().map(|record| record.map_err(|damage| segment.refuse(header, &damage)));
        let place = Place { segment: segment.header.sequence, offset: header.start };
        self.replay.batch(place, records, |offset, record, what| {
            let entry = match record {
                Record::Entry { shard, id, .. } => Some((*shard, *id)),
                _ => None,
            };
            corrupt(&segment.path, header.start + offset as u64, &what, entry)
        })?;
        for (shard, hard_state) in hard_states.map_err(|damage| segment.refuse(header, &damage))? {
            self.replay.hard_state(shard, hard_state);
        }
        Ok(())
    }

    /// Keeps what is right at or above W, up to the first bad byte; tells where it ends.
    fn read_kept(&mut self, segment: &Segment, upto: u64) -> Result<u64, Refusal> {
        let mut at = upto;
        let mut number = self.tip.number;
        let mut buffer = Vec::new();
        while let Some(header) = segment.batch_header(at)? {
            if mutant!("last-batch-cut") {
                break;
            }
            let Some(bytes) = segment.batch_bytes(&header, &mut buffer)? else { break };
            let batch = PlacedBatch::new(header, segment.header.key, bytes);
            if Some(header.number) != number.checked_add(1) {
                break;
            }
            let checked = batch.records().try_for_each(|record| record.map(drop)).and_then(|()| hard_states(&batch));
            let hard_states = match checked {
                Ok(hard_states) => hard_states,
                Err(damage) if damage.is_unknown() => return Err(segment.refuse(&header, &damage)),
                Err(_) => break,
            };
            self.continued_in = says_continued(&batch);
            if self.continued_in.is_some() {
                break;
            }
            let numbered = self.replay.batches();
            self.replay_batch(segment, &header, &batch, Ok(hard_states.clone()))?;
            let mut kept = Batch::new(BatchNumber::default());
            kept.push_encoded(batch.record_bytes());
            for (shard, hard_state) in hard_states {
                kept.set_hard_state(shard, hard_state);
            }
            self.kept.push(Kept { batch: kept, numbered: (self.replay.batches() > numbered).then_some(numbered) });
            number = header.number;
            at = header.end();
        }
        Ok(at)
    }
}

/// The first batch of a segment repeats the seal that is in the segment's header.
fn check_seal(segment: &Segment, batch: &PlacedBatch<'_>) -> Result<(), Refusal> {
    let seal = batch.records().find_map(|record| match record {
        Ok((_, Record::Seal(seal))) => Some(seal),
        _ => None,
    });
    if seal != segment.header.predecessor {
        let what = "the seal in the segment is not the one in its header";
        return Err(corrupt(&segment.path, BATCHES_AT, what, None));
    }
    Ok(())
}

/// The hard states of a batch, from the first copy that is right.
fn hard_states(batch: &PlacedBatch<'_>) -> Result<Vec<(ShardId, HardState)>, Damage> {
    let read = |copy| {
        let mut hard_states = Vec::new();
        for record in batch.hard_states(copy) {
            if let (_, Record::HardState { shard, hard_state }) = record? {
                hard_states.push((shard, hard_state));
            }
        }
        Ok(hard_states)
    };
    read(HardStateCopy::Second).or_else(|second: Damage| {
        read(HardStateCopy::First).map_err(|first: Damage| if second.is_unknown() { second } else { first })
    })
}

/// A refusal, with what the disk said about blocks that it did not give.
fn with_bad(refusal: Refusal, bad: &BadBlocks) -> Refusal {
    match (refusal, bad.first_key_value()) {
        (Refusal::Damaged(what), Some((at, error))) => {
            Refusal::Damaged(format!("{what}; the disk does not give the block at offset {at}: {error}"))
        }
        (refusal, _) => refusal,
    }
}

fn of_a_later_version(path: &str, offset: u64, what: &dyn fmt::Display) -> Refusal {
    Refusal::Other(LogError(format!("cannot read {path} at offset {offset}: {what}; start the version that wrote it")))
}

fn unreadable(path: &str, error: &io::Error) -> Refusal {
    Refusal::Other(cannot_read(path, error))
}

fn cannot_read(path: &str, error: &io::Error) -> LogError {
    LogError(format!("cannot read the log {path}: {error}; check the disk"))
}

fn corrupt(path: &str, offset: u64, what: &str, entry: Option<(ShardId, EntryId)>) -> Refusal {
    let entry = entry.map_or_else(String::new, |(shard, id)| format!(" (entry {id} of shard {shard})"));
    Refusal::Damaged(format!("the log is corrupt: {path} at offset {offset}: {what}{entry}"))
}
