//! Directories as the log writes them, and what is known of them: where everything lies, and what the log held after each
//! batch. They are the same in every process.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use raftkv::storage::batch::{self, BLOCK_BYTES, BatchHeader, HardStateCopy, PlacedBatch};
use raftkv::storage::record::Record;
use raftkv::storage::segment::{BATCHES_AT, SEGMENT_BYTES_MIN, SegmentHeader};
use raftkv::storage::{CoreLog, FileLog, Options, RecoveredShard};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, SnapshotId, Term};

use super::Contents;
use super::recorder::Recorder;
use crate::random::Random;

/// All of them. They are written when they are first needed.
pub(super) static IMAGES: LazyLock<Vec<Image>> =
    LazyLock::new(|| STORIES.iter().enumerate().map(|(number, story)| image(number, story)).collect());

const SHARDS: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(300)];

/// What happens to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A batch of data, and at once the next step.
    Data,
    /// The same with bodies of several blocks.
    Large,
    /// Nothing for a while: the log writes a watermark.
    Idle,
    /// The power goes, and the log starts again.
    Crash,
    /// A batch that resets a shard.
    Reset,
    /// What a shard has in old segments is written again.
    Forward,
}

use Step::{Crash, Data, Forward, Idle, Large, Reset};

/// Each image's steps, and whether its files had an earlier life.
const STORIES: [(&[Step], bool); 7] = [
    (&[Data, Data, Idle, Large, Data], false),
    (&[Data, Data, Data, Crash, Data, Idle, Data, Data], false),
    (&[Data, Idle, Crash, Data, Crash, Data, Data, Idle], false),
    (&[Data, Large, Crash, Data, Data, Idle, Data], true),
    (&[Data, Data, Reset, Data, Idle, Reset, Data, Data], false),
    (&[Data, Large, Data, Crash, Data, Forward, Data, Idle, Data], false),
    // More batches than a segment holds.
    (&[Data, Data, Data, Data, Data, Data, Data, Data, Data, Data, Data, Data, Data, Data, Data, Data], false),
];

/// A directory and what is known of it.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) segments: Vec<Segment>,
    /// What the log held after so many batches, counted through all segments. The first is that of an empty log.
    pub(super) states: Vec<Contents>,
    bodies: HashMap<(ShardId, EntryId), Vec<u8>>,
}

/// A file of it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) bytes: Vec<u8>,
    /// See [`SegmentHeader::durable_upto`].
    pub(super) durable_upto: u64,
    /// Up to where the segment is part of the log.
    pub(super) batches: Vec<Batch>,
}

/// Where a batch and its parts lie in the file.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) durable_upto: u64,
    pub(super) records: Range<usize>,
    /// Of the hard states.
    pub(super) first_copy: Range<usize>,
    pub(super) second_copy: Range<usize>,
    is_watermark: bool,
}

impl Image {
    /// Whether such an entry was ever written.
    pub(super) fn wrote(&self, shard: ShardId, id: EntryId, body: &[u8]) -> bool {
        self.bodies.get(&(shard, id)).is_some_and(|written| written == body)
    }
}

/// The log's syncer writes a watermark when it was idle for 10 ms, also because the machine was busy with something else.
/// Then the story is told again.
fn image(number: usize, (steps, is_recycled): &(&[Step], bool)) -> Image {
    for _ in 0..ATTEMPTS_MAX {
        let mut teller = Teller::new(number, *is_recycled);
        steps.iter().for_each(|step| teller.step(*step));
        if let Some(image) = teller.finish(steps) {
            return image;
        }
    }
    panic!("the machine is too busy to write image {number}: each time the log was idle where it should not be");
}

/// Writes one directory.
struct Teller {
    disk: Recorder,
    log: FileLog,
    synced: Receiver<()>,
    woken: Receiver<()>,
    recycled: Vec<u8>,
    random: Random,
    contents: Contents,
    bodies: HashMap<(ShardId, EntryId), Vec<u8>>,
    /// How many lives the log had before this one.
    lives: u128,
}

impl Teller {
    fn new(number: usize, is_recycled: bool) -> Teller {
        let ids = (number as u128 + 1) << 32;
        let recycled = if is_recycled { earlier_life(ids) } else { Vec::new() };
        let (disk, log, synced, woken) = open(BTreeMap::new(), ids, recycled.clone());
        let contents = SHARDS.iter().map(|shard| (*shard, RecoveredShard::default())).collect();
        let (random, bodies) = (Random::new(number as u64), HashMap::new());
        Teller { disk, log, synced, woken, recycled, random, contents, bodies, lives: ids }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Data => {
                let changes = 1 + self.random.below(4);
                self.write(changes, 150);
            }
            Step::Large => self.write(3, 5_000),
            Step::Idle => self.wait_for_watermark(),
            Step::Crash => self.crash(),
            Step::Reset => self.reset(),
            Step::Forward => self.copy_forward(),
        }
    }

    /// Adds random changes and waits until they are durable.
    fn write(&mut self, changes: usize, bytes_max: usize) {
        for _ in 0..changes {
            self.change(bytes_max);
        }
        let batch = self.log.last_batch();
        self.log.flush();
        while self.log.durable().expect("the disk is healthy") < batch {
            self.woken.recv_timeout(PATIENCE).expect("the log answers");
        }
    }

    fn change(&mut self, bytes_max: usize) {
        let shard = SHARDS[self.random.below(SHARDS.len())];
        let known = self.contents.get_mut(&shard).expect("all shards are known");
        let last = known.start.index.0 + known.entries.len() as u64;
        let term = known.hard_state.term.0.max(1);
        // A new term may overwrite the last entries; an old one never does.
        let (term, index) = if self.random.one_in(4) {
            let vote = Some(NodeId(self.random.below(4) as u64)).filter(|node| node.0 > 0);
            known.hard_state = HardState { term: Term(term + 1), vote };
            self.log.set_hard_state(shard, known.hard_state);
            (term + 1, last + 1 - self.random.below(known.entries.len().min(2) + 1) as u64)
        } else {
            (term, last + 1)
        };
        if self.random.one_in(8) {
            return;
        }
        let id = EntryId::new(index, term);
        let mut body = format!("{shard}/{id}/{}", self.random.next_u64()).into_bytes();
        body.resize(body.len() + self.random.below(bytes_max), b'.');
        known.entries.truncate((index - known.start.index.0) as usize - 1);
        known.entries.push((Term(term), body.len() as u32));
        self.bodies.insert((shard, id), body.clone());
        self.log.append(shard, &mut vec![Entry { id, kind: EntryKind::Command, body: Bytes::from(body) }]);
    }

    fn reset(&mut self) {
        let shard = SHARDS[self.random.below(SHARDS.len())];
        let known = self.contents.get_mut(&shard).expect("all shards are known");
        let last = known.start.index.0 + known.entries.len() as u64;
        known.start = EntryId::new(last + self.random.below(3) as u64, known.hard_state.term.0.max(1));
        known.snapshot = SnapshotId(self.random.next_u64());
        known.entries.clear();
        self.log.reset(shard, known.start, known.snapshot);
        self.write(0, 0);
    }

    fn copy_forward(&mut self) {
        let (shard, _) = self.log.pinned_by().expect("a shard has entries in an old segment");
        self.log.copy_forward(shard);
        loop {
            self.log.flush();
            if self.log.stats().copied_forward > 0 {
                return;
            }
            self.woken.recv_timeout(PATIENCE).expect("the log answers");
        }
    }

    fn wait_for_watermark(&mut self) {
        let ends_with_watermark = |disk: &Recorder| {
            let segments = survey(disk.segments());
            segments.last().and_then(|segment| segment.batches.last()).is_some_and(|batch| batch.is_watermark)
        };
        while !ends_with_watermark(&self.disk) {
            self.synced.recv_timeout(PATIENCE).expect("the log writes a watermark");
        }
    }

    /// What the files hold now is all that the next start finds.
    fn crash(&mut self) {
        self.lives += 1 << 16;
        let files = self.disk.segments();
        (self.disk, self.log, self.synced, self.woken) = open(files, self.lives, self.recycled.clone());
    }

    /// The image, unless it has other batches than the story says.
    fn finish(self, steps: &[Step]) -> Option<Image> {
        let segments = survey(self.disk.segments());
        let (states, watermarks) = replay(&segments);
        let wanted = steps.iter().filter(|step| **step == Idle).count();
        if watermarks != wanted {
            return None;
        }
        let mut contents = self.contents;
        contents.retain(|_, shard| *shard != RecoveredShard::default());
        assert_eq!(states.last(), Some(&contents), "the image holds what was written");
        Some(Image { segments, states, bodies: self.bodies })
    }
}

/// How often a story is told at most.
const ATTEMPTS_MAX: usize = 2_000;
/// How long the log may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(
    files: BTreeMap<String, Vec<u8>>,
    ids: u128,
    recycled: Vec<u8>,
) -> (Recorder, FileLog, Receiver<()>, Receiver<()>) {
    let (sync, synced) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let disk = Recorder::new(files, ids, recycled, sync);
    let wake = Arc::new(move || {
        // Nobody listens any more when an image is finished.
        let _ = wake.send(());
    });
    let mut options = Options::new("", SHARDS.to_vec(), wake);
    options.segment_size = SEGMENT_BYTES_MIN;
    let (log, _) = FileLog::open_on(Arc::new(disk.clone()), options).expect("the disk is healthy");
    (disk, log, synced, woken)
}

/// A whole segment of another log.
fn earlier_life(ids: u128) -> Vec<u8> {
    let (disk, mut log, _synced, woken) = open(BTreeMap::new(), ids << 32, Vec::new());
    for index in 1..=12 {
        let body = Bytes::from(vec![b'o'; 40 * index as usize]);
        log.append(SHARDS[0], &mut vec![Entry { id: EntryId::new(index, 1), kind: EntryKind::Command, body }]);
        let batch = log.last_batch();
        log.flush();
        while log.durable().expect("the disk is healthy") < batch {
            woken.recv_timeout(PATIENCE).expect("the log answers");
        }
    }
    disk.segments().into_values().next().expect("a log has a segment")
}

/// Finds every batch of a healthy directory. The unused ends of the files are left out but for a few blocks, unless there
/// is something in them; the last file must have its whole length.
fn survey(files: BTreeMap<String, Vec<u8>>) -> Vec<Segment> {
    let files: Vec<Vec<u8>> = files.into_values().collect();
    let headers: Vec<SegmentHeader> =
        files.iter().map(|bytes| SegmentHeader::decode(bytes).expect("a healthy segment")).collect();
    let cuts = headers.iter().skip(1).map(|next| next.predecessor.map_or(0, |seal| seal.cut)).chain([u64::MAX]);
    let surveyed = files.into_iter().zip(&headers).zip(cuts);
    surveyed.map(|((bytes, header), cut)| survey_segment(bytes, header, cut)).collect()
}

fn survey_segment(mut bytes: Vec<u8>, header: &SegmentHeader, cut: u64) -> Segment {
    let mut batches = Vec::new();
    let mut at = BATCHES_AT;
    while at < cut
        && let Some(found) = bytes.get(at as usize..).and_then(|bytes| BatchHeader::decode(bytes, header.key, at))
    {
        batches.push(locate(&found, header, &bytes));
        at = found.end();
    }
    if cut < u64::MAX {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        bytes.truncate((used + 1).next_multiple_of(BLOCK_BYTES as usize) + 2 * BLOCK_BYTES as usize);
    }
    Segment { sequence: header.sequence, bytes, durable_upto: header.durable_upto, batches }
}

fn locate(found: &BatchHeader, header: &SegmentHeader, bytes: &[u8]) -> Batch {
    let (start, end) = (found.start as usize, found.end() as usize);
    let records = start + batch::HEADER_BYTES;
    let first = records + found.records as usize;
    let length = found.hard_states as usize;
    let second = (first + length).next_multiple_of(BLOCK_BYTES as usize);
    let placed = PlacedBatch::new(*found, header.key, &bytes[start..end]);
    Batch {
        start,
        end,
        durable_upto: found.durable_upto,
        records: records..first,
        first_copy: first..first + length,
        second_copy: second..second + length,
        is_watermark: placed.records().any(|record| matches!(record, Ok((_, Record::Watermark)))),
    }
}

/// The contents after each batch, and how many batches are watermarks.
fn replay(segments: &[Segment]) -> (Vec<Contents>, usize) {
    let mut states = vec![Contents::new()];
    let mut contents = Contents::new();
    let mut watermarks = 0;
    for segment in segments {
        let key = SegmentHeader::decode(&segment.bytes).expect("a healthy segment").key;
        for batch in &segment.batches {
            let header = BatchHeader::decode(&segment.bytes[batch.start..], key, batch.start as u64);
            let header = header.expect("it was decoded before");
            let placed = PlacedBatch::new(header, key, &segment.bytes[batch.start..batch.end]);
            for record in placed.records().chain(placed.hard_states(HardStateCopy::First)) {
                replay_record(&mut contents, &record.expect("a healthy batch").1);
            }
            states.push(contents.clone());
            watermarks += usize::from(batch.is_watermark);
        }
    }
    (states, watermarks)
}

fn replay_record(contents: &mut Contents, record: &Record<'_>) {
    match *record {
        Record::Entry { shard, id, body, .. } => {
            let known = contents.entry(shard).or_default();
            known.entries.truncate((id.index.0 - known.start.index.0) as usize - 1);
            known.entries.push((id.term, body.len() as u32));
            let last = known.start.index.0 + known.entries.len() as u64;
            assert_eq!(Index(last), id.index, "entries follow each other");
        }
        Record::HardState { shard, hard_state } => contents.entry(shard).or_default().hard_state = hard_state,
        Record::Reset { shard, start, snapshot } => {
            let known = contents.entry(shard).or_default();
            (known.start, known.snapshot) = (start, snapshot);
            known.entries.clear();
        }
        // They say again what is known, or where it is.
        Record::Restate { .. } | Record::Seal(_) | Record::Watermark | Record::Reused => {}
        Record::Copy { .. } | Record::Copied { .. } | Record::Continued { .. } => {}
    }
}
