//! The syncer: places batches into segments and makes them durable.
//!
//! [`Syncer`] is the whole logic, driven one batch at a time; [`SyncerThread`] drives it. It keeps the state
//! of each shard as of the last batch, because every segment begins by restating it.
//!
//! The first failure is final: the file is never written or synced again, and every later call returns the failure.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use raftkv_protocol::types::ShardId;

use super::batch::{Batch, Placement};
use super::disk::{Access, Disk, DiskFile};
use super::record::{Head, Record, Seal, ShardState};
use super::segment::{BATCHES_AT, HEADER_BYTES, SegmentHeader, SegmentId, SegmentKey, segment_name};
use super::spares::{Pool, SpareSource};
use super::stats::Shared;
use super::{BatchNumber, IDLE, LogError, Wake};

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Sequence number of the segment.
    pub(crate) segment: u64,
    /// Offset of the batch in it.
    pub(crate) offset: u64,
}

/// Where the log ends: what a new segment continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    /// The last segment and where it ends. `None` before the first.
    pub(crate) seal: Option<Seal>,
    /// Of the last segment.
    pub(crate) epoch: u64,
    /// Of the last batch.
    pub(crate) number: u64,
    /// What is known of each shard there.
    pub(crate) shards: BTreeMap<ShardId, ShardState>,
}

struct Current {
    file: Box<dyn DiskFile>,
    key: SegmentKey,
    sequence: u64,
    size: u64,
    /// Where the next batch goes; everything before is durable.
    end: u64,
}

/// See the module.
pub(crate) struct Syncer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    current: Option<Current>,
    tip: Tip,
    /// The batch for what the syncer itself writes.
    own: Batch,
    /// Data was synced after the last watermark.
    unproven: bool,
    failed: Option<LogError>,
}

/// A watermark must always fit: without one the last data batch could not be told from a torn one.
const WATERMARK_BYTES: u64 = super::batch::BLOCK_BYTES;

impl Syncer {
    /// Goes on where the log ended: in a new segment that seals the last one and holds the `kept` batches, all of it
    /// durable when this returns. Tells where they lie now.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        mut tip: Tip,
        kept: &mut [Batch],
        spares: &mut dyn SpareSource,
    ) -> Result<(Syncer, Vec<Place>), LogError> {
        tip.epoch += 1;
        let own = Batch::new(BatchNumber::default());
        let mut syncer = Syncer { disk, shared, current: None, tip, own, unproven: false, failed: None };
        let places = syncer.begin_segment(kept, 0, spares)?;
        Ok((syncer, places))
    }

    /// Places a batch behind the last one; it is durable when this returns. Takes a spare if the segment is full.
    pub(crate) fn place_and_sync(
        &mut self,
        batch: &mut Batch,
        spares: &mut dyn SpareSource,
    ) -> Result<Place, LogError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let placed = self.make_room(batch.placed_bytes() + WATERMARK_BYTES, spares).and_then(|()| self.append(batch));
        match &placed {
            Ok(_) => self.unproven = true,
            Err(error) => self.failed = Some(error.clone()),
        }
        placed
    }

    /// Whether the last data batch is not proved durable by anything written after it.
    pub(crate) fn needs_watermark(&self) -> bool {
        self.unproven && self.failed.is_none()
    }

    /// Writes a watermark.
    pub(crate) fn watermark(&mut self) -> Result<(), LogError> {
        let mut own = std::mem::replace(&mut self.own, Batch::new(BatchNumber::default()));
        own.reuse(BatchNumber::default());
        own.push(&Record::Watermark);
        let appended = self.append(&mut own);
        self.own = own;
        self.unproven = false;
        appended.map(drop).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Writes the batch at the end of the current segment, where it fits, and syncs.
    fn append(&mut self, batch: &mut Batch) -> Result<Place, LogError> {
        let started = self.shared.sync_started();
        let current = self.current.as_mut().expect("a syncer is started with a segment");
        let ahead = if mutant!("durable-upto-ahead") { batch.placed_bytes() } else { 0 };
        let durable_upto = current.end + ahead;
        let placement = Placement { key: current.key, number: self.tip.number + 1, start: current.end, durable_upto };
        let place = Place { segment: current.sequence, offset: current.end };
        let bytes = finish(batch, &placement, &mut self.tip);
        let written = current
            .file
            .write_at(place.offset, bytes)
            .and_then(|()| if mutant!("sync-skipped") { Ok(()) } else { current.file.sync() })
            .or_else(|error| if mutant!("sync-error-ignored") { Ok(()) } else { Err(error) });
        let length = bytes.len();
        current.end += length as u64;
        self.shared.sync_ended(started);
        self.shared.batch_placed(length);
        written.map_err(|error| {
            LogError(format!(
                "cannot write the log {} at offset {}: {error}; check the disk, then start the node again",
                self.disk.path(&segment_name(place.segment)),
                place.offset
            ))
        })?;
        Ok(place)
    }

    fn make_room(&mut self, bytes: u64, spares: &mut dyn SpareSource) -> Result<(), LogError> {
        let current = self.current.as_ref().expect("a syncer is started with a segment");
        if current.end + bytes <= current.size {
            return Ok(());
        }
        self.tip.seal = Some(Seal { segment: current.key.id, sequence: current.sequence, cut: current.end });
        self.begin_segment(&mut [], bytes, spares).map(drop)
    }

    /// Takes a spare into use with `room` bytes to write. All that it begins with is durable before it gets its name.
    fn begin_segment(
        &mut self,
        kept: &mut [Batch],
        room: u64,
        spares: &mut dyn SpareSource,
    ) -> Result<Vec<Place>, LogError> {
        let sequence = self.tip.seal.map_or(1, |seal| seal.sequence + 1);
        let mut restatement = self.restatement();
        let begin = restatement.placed_bytes() + kept.iter().map(Batch::placed_bytes).sum::<u64>();
        let spare = spares.take(BATCHES_AT + begin + room.max(WATERMARK_BYTES))?;
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
        self.current = Some(current);
        self.shared.segment_begun();
        Ok(places)
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
            let bytes = finish(batch, &placement, &mut self.tip);
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
        // A whole block, as direct writes ask for; the rest of it is zeros already.
        let mut block = [0; BATCHES_AT as usize];
        block[..HEADER_BYTES].copy_from_slice(&header.encode());
        current.file.write_at(0, &block)?;
        if !mutant!("segment-named-early") {
            current.file.sync()?;
        }
        Ok(places)
    }

    fn restatement(&mut self) -> Batch {
        let mut batch = Batch::new(BatchNumber::default());
        if let Some(seal) = self.tip.seal {
            batch.push(&Record::Seal(seal));
        }
        for (&shard, &state) in &self.tip.shards {
            batch.push(&Record::Restate { shard, state });
            batch.set_hard_state(shard, state.hard_state);
        }
        batch
    }
}

/// Completes a batch and takes note of what it says of each shard.
fn finish<'a>(batch: &'a mut Batch, placement: &Placement, tip: &mut Tip) -> &'a [u8] {
    tip.number = placement.number;
    for (shard, hard_state) in batch.hard_states() {
        tip.shards.entry(*shard).or_default().hard_state = *hard_state;
    }
    batch.finish(placement, |head: &Head| {
        if head.is_entry() {
            tip.shards.entry(head.shard).or_default().last = head.id;
        } else if head.is_reset() {
            let state = tip.shards.entry(head.shard).or_default();
            (state.start, state.last) = (head.id, head.id);
        }
    })
}

/// What the loop asks of the syncer's thread.
pub(crate) enum Job {
    /// Make this durable.
    Batch(Batch),
    /// A clean stop: prove what was written, then end.
    Stop,
}

/// What the syncer's thread answers.
pub(crate) type Done = Result<(Batch, Place), LogError>;

/// The thread that drives a [`Syncer`]. It ends when this is dropped, or after [`Job::Stop`].
pub(super) struct SyncerThread {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl SyncerThread {
    pub(super) fn start(syncer: Syncer, spares: Pool, wake: Wake) -> io::Result<SyncerThread> {
        let (jobs, jobs_out) = unbounded();
        let (done_in, done) = unbounded();
        let drive = move || run(syncer, spares, &jobs_out, &done_in, &wake);
        let thread = thread::Builder::new().name("log-syncer".to_owned()).spawn(drive)?;
        Ok(SyncerThread { jobs: Some(jobs), done, thread: Some(thread) })
    }

    pub(super) fn send(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the channel is closed only on drop");
        // If the thread is gone, the closed channel of its answers says so.
        let _ = jobs.send(job);
    }

    /// The answers, one for each batch; after a failure, that.
    pub(super) fn done(&self) -> &Receiver<Done> {
        &self.done
    }

    pub(super) fn join(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl Drop for SyncerThread {
    fn drop(&mut self) {
        self.join();
    }
}

/// Drives the syncer until it is told to stop, or the loop is gone.
fn run(mut syncer: Syncer, mut spares: impl SpareSource, jobs: &Receiver<Job>, done: &Sender<Done>, wake: &Wake) {
    // The loop may be gone already; then nobody waits for the answer.
    let answer = |answer: Done| {
        let _ = done.send(answer);
        wake();
    };
    loop {
        let job = if syncer.needs_watermark() { jobs.recv_timeout(IDLE) } else { jobs.recv().map_err(Into::into) };
        match job {
            Ok(Job::Batch(mut batch)) => {
                let placed = syncer.place_and_sync(&mut batch, &mut spares);
                answer(placed.map(|place| (batch, place)));
            }
            Err(RecvTimeoutError::Timeout) => prove(&mut syncer, &answer),
            Ok(Job::Stop) => {
                prove(&mut syncer, &answer);
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn prove(syncer: &mut Syncer, answer: &impl Fn(Done)) {
    if syncer.needs_watermark()
        && let Err(error) = syncer.watermark()
    {
        answer(Err(error));
    }
}
