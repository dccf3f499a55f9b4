//! What is left of a log that a start refuses.
//!
//! The log is read up to the first spot that is not what was written: bad bytes below W, a segment that is missing,
//! damaged, shorter than it was, or another log's. Every record before it is kept, and nothing behind it, but for one
//! thing: the greatest term and vote of each shard that any right record of the whole log proves. A shard of whose
//! entries the first are not there (the oldest segment is gone, or what made up for it lies behind the spot) keeps
//! nothing, and begins at 0@0.
//!
//! Whoever goes on with that has forgotten entries that it acknowledged, and perhaps votes. So all shards of the log are
//! damaged, as nobody knows whose records were lost, and that must be durable before the log is let go. The log itself is
//! read only.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, HardState, ShardId, SnapshotId, Term};

use super::batch::{BLOCK_BYTES, BatchHeader, HardStateCopy, PlacedBatch};
use super::disk::Disk;
use super::reader::{Care, Segments};
use super::record::Record;
use super::recovery::{self, Refusal, Segment};
use super::replay::Replay;
use super::runs::Part;
use super::segment::{BATCHES_AT, SegmentKey};
use super::syncer::Place;
use super::tail::ShardTail;
use super::{CoreLog, Fetch, LogError, RecoveredShard};

/// What is wrong with the log on a disk, in one line that names the place; `None` if a start would take it.
pub fn damage(disk: &dyn Disk) -> Result<Option<String>, LogError> {
    recovery::read_sound(disk).map(|(_, damage)| damage)
}

/// Begins a shard's log anew at 0@0, for one of which nothing can be used: its entries go on from a state that is nowhere
/// on this node. Term and vote stay. It is written with the next batch, before whatever is appended from now on. That the
/// shard is damaged must be on durable record already.
pub fn begin_anew(log: &mut impl CoreLog, shard: ShardId, recovered: &mut RecoveredShard) {
    log.reset(shard, EntryId::ZERO, SnapshotId(0));
    *recovered = RecoveredShard { hard_state: recovered.hard_state, ..RecoveredShard::default() };
}

/// What is left of a damaged log.
pub(super) struct Salvage {
    /// What is wrong with it, and where.
    pub(super) damage: String,
    segments: Segments,
    places: Vec<Place>,
    tails: BTreeMap<ShardId, ShardTail>,
}

impl Salvage {
    /// What is left of the log on a disk that holds these shards, and what it knows of each; `None` if a start would take
    /// the log as it is.
    pub(super) fn of(
        disk: &Arc<dyn Disk>,
        shards: &[ShardId],
    ) -> Result<Option<(Salvage, Vec<RecoveredShard>)>, LogError> {
        let (recovery, Some(damage)) = recovery::read_sound(&**disk)? else { return Ok(None) };
        let mut replay = recovery.replay;
        let proved = proved(&**disk)?;
        let mut recovered = Vec::with_capacity(shards.len());
        let mut tails = BTreeMap::new();
        for shard in shards {
            let (mut known, tail) = take_sound(&mut replay, *shard);
            known.hard_state = greatest(known.hard_state, proved.get(shard).copied().unwrap_or_default());
            recovered.push(known);
            tails.insert(*shard, tail);
        }
        if let Some(shard) = replay.left() {
            let path = disk.path("");
            return Err(LogError(format!(
                "{damage}; the log {path} also holds shard {shard}, which is not one of this core's"
            )));
        }
        let segments = Segments::new(Arc::clone(disk), Care::Sound);
        Ok(Some((Salvage { damage, segments, places: replay.take_places(), tails }, recovered)))
    }

    /// Entries of a shard from `first` on, at least one.
    pub(super) fn read(&mut self, fetch: &Fetch) -> Result<Vec<Entry>, LogError> {
        let place = |part: Part<_>| {
            let super::BatchNumber(number) = part.at;
            Part { at: self.places[number as usize - 1], first: part.first, last: part.last, extent: part.extent }
        };
        let tail = self.tails.get(&fetch.shard).expect("what is read was told to be there");
        let parts: Vec<Part<Place>> = tail.locate(fetch.first, fetch.last).map(place).collect();
        self.segments.read(fetch, &parts).map_err(LogError)
    }
}

/// What is known of a shard, if all its entries are there; else its term and vote.
fn take_sound(replay: &mut Replay, shard: ShardId) -> (RecoveredShard, ShardTail) {
    let is_whole = replay.missing_of(shard).is_none();
    let (known, tail) = replay.take(shard);
    if is_whole {
        return (known, tail);
    }
    (RecoveredShard { hard_state: known.hard_state, ..RecoveredShard::default() }, ShardTail::default())
}

/// The greatest term of each shard that any right record of the log proves, with the vote in it.
fn proved(disk: &dyn Disk) -> Result<BTreeMap<ShardId, HardState>, LogError> {
    let sequences = recovery::sequences(disk)?;
    let mut proved = BTreeMap::new();
    let mut next: Option<Segment> = None;
    for sequence in sequences.into_iter().rev() {
        let successor = next.take().filter(|next| next.header.sequence == sequence + 1);
        match Segment::open(disk, sequence) {
            Ok(segment) => {
                scan(&segment, segment.header.key, &mut proved)?;
                next = Some(segment);
            }
            Err(Refusal::Damaged(_)) => scan_headless(disk, sequence, successor.as_ref(), &mut proved)?,
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(proved)
}

/// The header of a segment is lost. The next one names its id; its epoch is that of the next one or the one before, as each
/// start begins a segment.
fn scan_headless(
    disk: &dyn Disk,
    sequence: u64,
    next: Option<&Segment>,
    proved: &mut BTreeMap<ShardId, HardState>,
) -> Result<(), LogError> {
    let Some((next, seal)) = next.and_then(|next| Some((next, next.header.predecessor?))) else { return Ok(()) };
    let epoch = next.header.key.epoch;
    for epoch in [Some(epoch), epoch.checked_sub(1)].into_iter().flatten() {
        let key = SegmentKey { id: seal.segment, epoch };
        let segment = Segment::open_headless(disk, sequence, key)?;
        scan(&segment, key, proved)?;
    }
    Ok(())
}

/// Looks for right batches wherever one may begin, and at every right record in them.
fn scan(segment: &Segment, key: SegmentKey, proved: &mut BTreeMap<ShardId, HardState>) -> Result<(), LogError> {
    let mut at = BATCHES_AT;
    while at < segment.size {
        let Some(header) = segment.batch_header(at)? else {
            at += BLOCK_BYTES;
            continue;
        };
        at = header.end();
        let bytes = batch_bytes(segment, &header)?;
        let batch = PlacedBatch::new(header, key, &bytes);
        let copies = [HardStateCopy::First, HardStateCopy::Second];
        let records = batch.records().chain(copies.into_iter().flat_map(|copy| batch.hard_states(copy)));
        for (shard, hard_state) in records.filter_map(|record| proves(&record.ok()?.1)) {
            let known = proved.entry(shard).or_default();
            *known = greatest(*known, hard_state);
        }
    }
    Ok(())
}

/// All bytes of a batch; zeros, which are no record, for those that the file does not have any more.
fn batch_bytes(segment: &Segment, header: &BatchHeader) -> Result<Vec<u8>, LogError> {
    let mut bytes = vec![0; header.length as usize];
    segment.read_at(header.start, &mut bytes)?;
    Ok(bytes)
}

/// The term that a record proves for a shard, and the vote in it if it says one.
fn proves(record: &Record<'_>) -> Option<(ShardId, HardState)> {
    let term = |shard: ShardId, term: Term| Some((shard, HardState { term, vote: None }));
    match *record {
        Record::HardState { shard, hard_state } => Some((shard, hard_state)),
        Record::Restate { shard, state } => Some((shard, state.hard_state)),
        Record::Entry { shard, id, .. } | Record::Copy { shard, id, .. } => term(shard, id.term),
        Record::Reset { shard, start, .. } => term(shard, start.term),
        Record::Copied { .. } | Record::Watermark | Record::Seal(_) | Record::Reused | Record::Continued { .. } => None,
    }
}

/// The later of two: in one term, the one that voted.
fn greatest(one: HardState, other: HardState) -> HardState {
    match one.term.cmp(&other.term) {
        Ordering::Greater => one,
        Ordering::Less => other,
        Ordering::Equal => HardState { vote: one.vote.or(other.vote), ..one },
    }
}
