//! The syncer: places batches into segments and makes them durable.
//!
//! [`Syncer`] is the whole logic, driven one batch at a time; [`SyncerWorker`] feeds it with what the loop asks for, on
//! a thread of its own, on the loop or by hand. The syncer keeps the state of each shard as of the last batch, because every segment
//! begins by restating it, and which segments hold entries that are needed. When it was restated, what nothing needs any
//! more is let go: the oldest segments, as far as no shard has an entry there behind the start that was just restated.
//!
//! A batch that has no place on a full disk waits, perhaps for hours. What must not wait with it is told apart and goes
//! *ahead* of it: terms and votes, and what sets segments free.
//!
//! The first failure is final: the file is never written or synced again, and every later call returns the failure.

mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use raftkv_protocol::types::{HardState, ShardId};

use super::batch::{Batch, Placement};
use super::disk::{Access, Disk, DiskFile};
use super::record::{Record, Seal};
use super::segment::{BATCHES_AT, HEADER_BYTES, SegmentHeader, SegmentId, SegmentKey, segment_name};
use super::spares::{Filling, Pool, SpareSource};
use super::stats::Shared;
use super::tip::{SegmentFile, Start, Tip};
use super::{BatchNumber, LogError};

pub(crate) use worker::{Ahead, Done, Job};
pub(super) use worker::{Answer, SyncerHandle, SyncerWorker};

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Sequence number of the segment.
    pub(crate) segment: u64,
    /// Offset of the batch in it.
    pub(crate) offset: u64,
}

struct Current {
    file: Box<dyn DiskFile>,
    key: SegmentKey,
    sequence: u64,
    size: u64,
    /// Where the next batch goes; everything before is durable.
    end: u64,
}

impl Current {
    fn file(&self) -> SegmentFile {
        SegmentFile { sequence: self.sequence, size: self.size }
    }
}

/// See the module.
pub(crate) struct Syncer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    current: Option<Current>,
    tip: Tip,
    /// Terms and votes that went ahead of the batch that holds them.
    ahead: BTreeMap<ShardId, HardState>,
    /// The batch for what the syncer itself writes.
    own: Batch,
    /// Data was synced after the last watermark.
    unproven: bool,
}

/// A watermark must always fit: without one the last data batch could not be told from a torn one.
const WATERMARK_BYTES: u64 = super::batch::BLOCK_BYTES;
/// So must what says, behind the cut, that the log goes on in another segment.
const CONTINUED_BYTES: u64 = super::batch::BLOCK_BYTES;

impl Syncer {
    /// Goes on where the log ended: in a new segment that seals the last one and holds the `kept` batches, all of it
    /// durable when this returns. Tells where they lie now. Lets go what is not needed.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        mut tip: Tip,
        kept: &mut [Batch],
        spares: &mut dyn SpareSource,
    ) -> Result<(Syncer, Vec<Place>), LogError> {
        tip.epoch += 1;
        let own = Batch::new(BatchNumber::default());
        let mut syncer = Syncer { disk, shared, current: None, tip, ahead: BTreeMap::new(), own, unproven: false };
        let places = syncer.begin_segment(kept, 0, spares)?;
        Ok((syncer, places))
    }

    /// Places a batch behind the last one; it is durable when this returns. Takes a spare if the segment is full.
    pub(crate) fn place_and_sync(
        &mut self,
        batch: &mut Batch,
        spares: &mut dyn SpareSource,
    ) -> Result<Place, LogError> {
        catch_up(batch, &mut self.ahead);
        self.place(batch, spares)
    }

    fn place(&mut self, batch: &mut Batch, spares: &mut dyn SpareSource) -> Result<Place, LogError> {
        if let Some(failed) = self.shared.failure() {
            return Err(failed.clone());
        }
        let placed = self.make_room(batch, spares).and_then(|()| self.append(batch));
        let place = placed.map_err(|error| self.shared.fail(error))?;
        self.unproven = true;
        if mutant!("released-before-restated") {
            spares.let_go(self.tip.take_needless());
        }
        Ok(place)
    }

    /// The least size of the file that is to be taken for this batch, if the current segment has no room for it.
    pub(crate) fn spare_wanted(&mut self, batch: &Batch, spares: &dyn SpareSource) -> Option<u64> {
        if self.shared.has_failed() || self.has_room_for(batch, spares) {
            return None;
        }
        self.seal_current();
        Some(segment_bytes(&self.beginning(Filling::Remains), &[], room_for(batch)))
    }

    /// Whether terms and votes can go ahead of a batch that waits, in the current segment or in this new one.
    pub(crate) fn can_go_ahead(&mut self, hard_states: &[(ShardId, HardState)], spares: &Pool) -> bool {
        !self.shared.has_failed()
            && (self.has_room(room_for(&batch_of(hard_states)))
                || self.roll_bytes().is_some_and(|bytes| spares.has(bytes)))
    }

    /// Writes terms and votes ahead of the batches that hold them. [`Syncer::can_go_ahead`] was asked before.
    pub(crate) fn go_ahead(
        &mut self,
        hard_states: &[(ShardId, HardState)],
        spares: &mut dyn SpareSource,
    ) -> Result<(), LogError> {
        self.place(&mut batch_of(hard_states), spares)?;
        // The batches that were closed before hold earlier ones.
        self.ahead.extend(hard_states.iter().copied());
        Ok(())
    }

    /// The last of the segments before the current one has another size now.
    pub(crate) fn trimmed(&mut self, segment: SegmentFile) {
        if let Some(last) = self.tip.sealed.back_mut().filter(|last| last.sequence == segment.sequence) {
            *last = segment;
        }
    }

    /// Takes note of what is no longer needed, apart from any batch.
    pub(crate) fn begin_after(&mut self, starts: &[Start]) {
        self.tip.begin_after(starts);
    }

    /// Whether a restatement would set segments free.
    pub(crate) fn has_needless(&self) -> bool {
        self.tip.has_needless() && !self.shared.has_failed()
    }

    /// Bytes of segments that a new segment would set free.
    pub(crate) fn needless_bytes(&self) -> u64 {
        self.tip.needless_bytes(self.current().file())
    }

    /// Restates what is known of the shards, if the current segment has room for that. Lets go what is not needed.
    pub(crate) fn restate(&mut self, spares: &mut dyn SpareSource) -> Result<bool, LogError> {
        let mut batch = Batch::new(BatchNumber::default());
        self.tip.restate(&mut batch);
        if !self.has_room(room_for(&batch)) {
            return Ok(false);
        }
        self.append(&mut batch).map_err(|error| self.shared.fail(error))?;
        self.unproven = true;
        spares.let_go(self.tip.take_needless());
        Ok(true)
    }

    /// Begins a new segment although the current one has room. Whether a spare of this size would do is told before.
    pub(crate) fn roll(&mut self, spares: &mut dyn SpareSource) -> Result<(), LogError> {
        self.seal_current();
        let begun = self.begin_segment(&mut [], 0, spares).map(drop);
        self.unproven = false;
        begun.map_err(|error| self.shared.fail(error))
    }

    /// The bytes that a new segment would take at least.
    pub(crate) fn roll_bytes(&mut self) -> Option<u64> {
        if self.shared.has_failed() {
            return None;
        }
        self.seal_current();
        Some(segment_bytes(&self.beginning(Filling::Remains), &[], 0))
    }

    /// Whether the last data batch is not proved durable by anything written after it.
    pub(crate) fn needs_watermark(&self) -> bool {
        self.unproven && !self.shared.has_failed()
    }

    /// Writes a watermark.
    pub(crate) fn watermark(&mut self) -> Result<(), LogError> {
        let mut own = std::mem::replace(&mut self.own, Batch::new(BatchNumber::default()));
        own.reuse(BatchNumber::default());
        own.push(&Record::Watermark);
        let appended = self.append(&mut own);
        self.own = own;
        self.unproven = false;
        appended.map(drop).map_err(|error| self.shared.fail(error))
    }

    /// Writes the batch at the end of the current segment, where it fits, and syncs.
    fn append(&mut self, batch: &mut Batch) -> Result<Place, LogError> {
        let started = self.shared.sync_started();
        let current = self.current.as_mut().expect("a syncer is started with a segment");
        let ahead = if mutant!("durable-upto-ahead") { batch.placed_bytes() } else { 0 };
        let durable_upto = current.end + ahead;
        let placement = Placement { key: current.key, number: self.tip.number + 1, start: current.end, durable_upto };
        let place = Place { segment: current.sequence, offset: current.end };
        let entries = batch.entries();
        let bytes = finish(batch, &placement, place.segment, &mut self.tip);
        let written = current
            .file
            .write_at(place.offset, bytes)
            .and_then(|()| if mutant!("sync-skipped") { Ok(()) } else { current.file.sync() })
            .or_else(|error| if mutant!("sync-retried") { current.file.sync() } else { Err(error) })
            .or_else(|error| if mutant!("sync-error-ignored") { Ok(()) } else { Err(error) });
        let length = bytes.len();
        current.end += length as u64;
        self.shared.sync_ended(started);
        self.shared.batch_placed(length);
        self.shared.batch_synced(length, entries);
        written.map_err(|error| self.cannot_write(place, &error))?;
        Ok(place)
    }

    fn make_room(&mut self, batch: &Batch, spares: &mut dyn SpareSource) -> Result<(), LogError> {
        if self.has_room_for(batch, spares) {
            return Ok(());
        }
        self.seal_current();
        self.begin_segment(&mut [], room_for(batch), spares).map(drop)
    }

    fn current(&self) -> &Current {
        self.current.as_ref().expect("a syncer is started with a segment")
    }

    fn has_room(&self, room: u64) -> bool {
        self.current().end + room <= self.current().size
    }

    fn has_room_for(&self, batch: &Batch, spares: &dyn SpareSource) -> bool {
        let kept = if batch.has_records() { spares.kept_bytes(self.current().size) } else { 0 };
        self.has_room(room_for(batch) + kept)
    }

    fn seal_current(&mut self) {
        let current = self.current();
        self.tip.seal = Some(Seal { segment: current.key.id, sequence: current.sequence, cut: current.end });
    }

    /// Takes a spare into use with `room` bytes to write. All that it begins with is durable before it gets its name.
    fn begin_segment(
        &mut self,
        kept: &mut [Batch],
        room: u64,
        spares: &mut dyn SpareSource,
    ) -> Result<Vec<Place>, LogError> {
        let sequence = self.tip.seal.map_or(1, |seal| seal.sequence + 1);
        let number = self.tip.number + 1;
        let spare = spares.take(segment_bytes(&self.beginning(Filling::Remains), kept, room))?;
        let mut restatement = self.beginning(spare.filling);
        let explain = |disk: &dyn Disk, doing: &str, error: io::Error| {
            let (file, name) = (disk.path(&spare.name), segment_name(sequence));
            LogError(format!("cannot {doing} {file} as {name}: {error}; check the disk, then start the node again"))
        };
        let disk = Arc::clone(&self.disk);
        let open = disk.fresh_id().and_then(|id| Ok((id, disk.open(&spare.name, Access::Place { size: spare.size })?)));
        let (id, file) = open.map_err(|error| explain(&*disk, "open the log segment", error))?;
        let key = SegmentKey { id: SegmentId(id), epoch: self.tip.epoch };
        let mut current = Current { file, key, sequence, size: spare.size, end: BATCHES_AT };
        let started = self.shared.sync_started();
        let written = self.write_beginning(&mut current, &mut restatement, kept);
        self.shared.sync_ended(started);
        let places = written.map_err(|error| explain(&*disk, "write the log segment", error))?;
        disk.rename(&spare.name, &segment_name(sequence))
            .and_then(|()| if mutant!("segment-name-unsynced") { Ok(()) } else { disk.sync_dir() })
            .map_err(|error| explain(&*disk, "rename the log segment", error))?;
        self.write_continued(current.key.id, sequence, number)?;
        self.shared.segment_begun(current.file());
        let sealed = self.current.replace(current);
        self.tip.sealed.extend(sealed.map(|sealed| sealed.file()));
        spares.let_go(self.tip.take_needless());
        Ok(places)
    }

    /// Says behind the cut of the segment that was sealed that the log goes on in the new one, which has its durable name.
    /// A start would not know otherwise, when that file is gone, that the log is longer. The number is the next of the
    /// sealed segment: whatever a crash leaves of this is no batch of the log.
    fn write_continued(&mut self, segment: SegmentId, sequence: u64, number: u64) -> Result<(), LogError> {
        // A process finds its first segment sealed: that one is shortened to its cut, which says the same.
        let Some(sealed) = &mut self.current else { return Ok(()) };
        let placement = Placement { key: sealed.key, number, start: sealed.end, durable_upto: sealed.end };
        let mut batch = Batch::new(BatchNumber::default());
        batch.push(&Record::Continued { sequence, segment });
        let started = self.shared.sync_started();
        let bytes = batch.finish(&placement, |_| {});
        let written = sealed.file.write_at(sealed.end, bytes).and_then(|()| sealed.file.sync());
        self.shared.sync_ended(started);
        self.shared.batch_placed(bytes.len());
        written.map_err(|error| self.cannot_write(Place { segment: sequence - 1, offset: placement.start }, &error))
    }

    fn cannot_write(&self, place: Place, error: &io::Error) -> LogError {
        LogError(format!(
            "cannot write the log {} at offset {}: {error}; check the disk, then start the node again",
            self.disk.path(&segment_name(place.segment)),
            place.offset
        ))
    }

    fn write_beginning(
        &mut self,
        current: &mut Current,
        restatement: &mut Batch,
        kept: &mut [Batch],
    ) -> io::Result<Vec<Place>> {
        let mut places = Vec::with_capacity(kept.len() + 1);
        for batch in std::iter::once(restatement).chain(kept) {
            let placement =
                Placement { key: current.key, number: self.tip.number + 1, start: current.end, durable_upto: 0 };
            let bytes = finish(batch, &placement, current.sequence, &mut self.tip);
            current.file.write_at(current.end, bytes)?;
            places.push(Place { segment: current.sequence, offset: current.end });
            current.end += bytes.len() as u64;
            self.shared.batch_placed(bytes.len());
        }
        places.remove(0);
        let header = SegmentHeader {
            key: current.key,
            sequence: current.sequence,
            size: current.size,
            durable_upto: current.end,
            predecessor: self.tip.seal,
        };
        // A whole block, as direct writes ask for.
        let mut block = [0; BATCHES_AT as usize];
        block[..HEADER_BYTES].copy_from_slice(&header.encode());
        current.file.write_at(0, &block)?;
        if !mutant!("segment-named-early") {
            current.file.sync()?;
        }
        Ok(places)
    }

    /// The first batch of the next segment, in a file that holds this.
    fn beginning(&self, filling: Filling) -> Batch {
        let mut batch = Batch::new(BatchNumber::default());
        if let Some(seal) = self.tip.seal {
            batch.push(&Record::Seal(seal));
        }
        self.tip.restate(&mut batch);
        if filling == Filling::Remains {
            batch.push(&Record::Reused);
        }
        batch
    }
}

/// A batch of hard states and nothing else.
fn batch_of(hard_states: &[(ShardId, HardState)]) -> Batch {
    let mut batch = Batch::new(BatchNumber::default());
    for (shard, hard_state) in hard_states {
        batch.set_hard_state(*shard, *hard_state);
    }
    batch
}

/// What went ahead of this batch must not be undone by it.
fn catch_up(batch: &mut Batch, ahead: &mut BTreeMap<ShardId, HardState>) {
    for (shard, hard_state) in batch.hard_states_mut() {
        let Some(gone) = ahead.get(shard) else { continue };
        if is_later(gone, hard_state) {
            *hard_state = *gone;
        } else {
            ahead.remove(shard);
        }
    }
}

/// Of one shard, whose term never falls, and whose vote in a term never changes.
pub(super) fn is_later(one: &HardState, other: &HardState) -> bool {
    (one.term, one.vote.is_some()) > (other.term, other.vote.is_some())
}

/// The bytes that must be left in a segment for a batch to be placed there.
fn room_for(batch: &Batch) -> u64 {
    batch.placed_bytes() + WATERMARK_BYTES + CONTINUED_BYTES
}

/// The bytes of a segment that begins with these batches and has room for more.
fn segment_bytes(restatement: &Batch, kept: &[Batch], room: u64) -> u64 {
    let begin = restatement.placed_bytes() + kept.iter().map(Batch::placed_bytes).sum::<u64>();
    BATCHES_AT + begin + room.max(WATERMARK_BYTES + CONTINUED_BYTES)
}

/// Completes a batch and takes note of what it says of each shard.
fn finish<'a>(batch: &'a mut Batch, placement: &Placement, segment: u64, tip: &mut Tip) -> &'a [u8] {
    tip.number = placement.number;
    for (shard, hard_state) in batch.hard_states() {
        tip.shards.entry(*shard).or_default().state.hard_state = *hard_state;
    }
    let starts = batch.take_starts();
    let bytes = batch.finish(placement, |record| tip.record(record, segment));
    tip.begin_after(&starts);
    bytes
}
