//! The loop's side of the log: the gathering batch, the newest entries of each shard in memory, and the index.
//!
//! Nothing here waits: batches and fetches travel to the syncer and the reader over channels, their answers are picked
//! up by [`CoreLog::durable`], [`CoreLog::flush`] and [`CoreLog::fetched`]. These workers have threads of their own, or
//! are moved by hand; only [`FileLog::sync_inline`] does the syncer's work on the loop itself. A worker sends its answer first and wakes the loop afterwards, so that no wake-up is lost.

mod ahead;
mod copying;
mod fetches;
mod held;
mod options;
mod reclaim;
#[cfg(test)]
mod reclaim_test;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, TryRecvError};
use raftkv_protocol::types::{Entry, EntryId, HardState, Index, ShardId, SnapshotId};

use super::batch::Batch;
use super::disk::{Disk, RealDisk};
use super::reader::Reader;
use super::record::{Record, entry_bytes};
use super::recovery::RecoveryReport;
use super::replay::Replay;
use super::runs::Extent;
use super::segment::SEGMENT_BYTES_MIN;
use super::spares::{Allocator, AllocatorWorker, Quota};
use super::start::{Started, start};
use super::stats::{LogStats, Shared};
use super::stepped::InlineSyncer;
use super::syncer::{Answer, Done, Job, SyncerHandle};
use super::tail::{ShardTail, entry_memory_bytes};
use super::tip::Start;
use super::workers::{Crew, Workers};
use super::{BatchNumber, CoreLog, Fetch, FetchError, Fetched, LogError, RecoveredShard, Space, Wake};
use crate::metrics::figures::LogFigures;

use ahead::GoesAhead;
use copying::Copying;
use fetches::{For, PendingFetch};
use held::{Held, Places};

pub use options::{LogSync, Options};

/// A batch is closed before it exceeds this, or half a segment if that is less.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Batch buffers kept for reuse: one gathers, one is in flight, one is on its way back.
const BUFFERS_KEPT: usize = 3;
/// How often a closing log looks whether its last batch waits for space.
const CLOSE_POLL: Duration = Duration::from_millis(50);

/// The log of one core on disk.
pub struct FileLog {
    shards: BTreeMap<ShardId, ShardTail>,
    places: Places,
    /// The segments that there are.
    held: Held,
    gathering: Batch,
    /// Batches that were closed because they were full, oldest first.
    full: VecDeque<Batch>,
    buffers: Vec<Batch>,
    batch_bytes_max: usize,
    in_flight: bool,
    /// Bytes of records in each closed batch that is not durable, oldest first.
    backlog: VecDeque<usize>,
    /// Of the entries in memory, those that are to be reclaimed included.
    tail_bytes: usize,
    /// The shards of which entries are in memory that are not in the log any more.
    reclaimable: BTreeSet<ShardId>,
    tail_bytes_max: usize,
    /// The last fetch that was given to the reader.
    last_fetch: u64,
    pending: BTreeMap<u64, PendingFetch>,
    finished: VecDeque<Fetched>,
    /// Shards whose oldest entries are being written again.
    copying: BTreeMap<ShardId, Copying>,
    /// How often that was completed.
    copied_forward: u64,
    /// What need not wait for the batch that is being synced.
    ahead: GoesAhead,
    shared: Arc<Shared>,
    quota: Arc<Quota>,
    wake: Wake,
    report: RecoveryReport,
    /// The workers, if they have no threads.
    by_hand: Option<Workers>,
    /// The syncer, if the loop moves it.
    inline: Option<InlineSyncer>,
    // The order matters to drop: the allocator lets a waiting syncer go, so it ends first.
    allocator: Option<Allocator>,
    syncer: SyncerHandle,
    reader: Reader,
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLog")
            .field("shards", &self.shards.keys())
            .field("durable", &self.durable_number())
            .field("in_flight", &self.in_flight)
            .field("failed", &self.shared.failure())
            .finish_non_exhaustive()
    }
}

impl FileLog {
    /// Opens or creates the log and reads all of it. What it held is durable when this returns; the shards come in the
    /// order of [`Options::shards`].
    pub fn open(options: Options) -> Result<(FileLog, Vec<RecoveredShard>), LogError> {
        let disk = RealDisk::create(&options.dir, options.io)
            .map_err(|error| LogError(format!("cannot use the log directory {}: {error}", options.dir.display())))?;
        FileLog::open_on(Arc::new(disk), options)
    }

    /// The same on any disk; `options.dir` and `options.io` do not matter.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<(FileLog, Vec<RecoveredShard>), LogError> {
        let sync = options.sync;
        let (mut log, recovered, crew) = FileLog::open_with_crew(disk, options)?;
        log.spawn(crew, sync).map_err(|error| LogError(format!("cannot start the log's threads: {error}")))?;
        Ok((log, recovered))
    }

    /// The same without threads: the log's workers do their work only when they are told. A log that is dropped does
    /// nothing more, like a process that dies. With [`LogSync::Inline`] the syncer is not among them.
    pub fn open_by_hand(
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> Result<(FileLog, Vec<RecoveredShard>, Workers), LogError> {
        let sync = options.sync;
        let (mut log, recovered, crew) = FileLog::open_with_crew(disk, options)?;
        let (workers, inline) = Workers::new(crew, sync);
        (log.by_hand, log.inline) = (Some(workers.clone()), inline);
        Ok((log, recovered, workers))
    }

    /// The log, and its workers that nobody moves yet.
    fn open_with_crew(disk: Arc<dyn Disk>, options: Options) -> Result<(FileLog, Vec<RecoveredShard>, Crew), LogError> {
        check_segment_size(options.segment_size)?;
        let shared = Arc::new(Shared::new());
        let quota = Arc::new(Quota::new(options.max_bytes));
        let Started { mut replay, syncer, spares, segments, report } =
            start(&disk, &shared, &quota, options.segment_size)?;
        let places = Places::new(replay.take_places());
        let (recovered, shards) = take_shards(&mut replay, &options.shards, &disk.path(""))?;
        let wake = options.wake;
        let (allocator, pool) = AllocatorWorker::new(spares, Arc::clone(&shared), Arc::clone(&wake));
        let wake_syncer = match options.sync {
            LogSync::Thread => Arc::clone(&wake),
            // The loop knows already.
            LogSync::Inline => Arc::new(|| {}),
        };
        let (syncer, syncer_worker) = SyncerHandle::new(syncer, pool, wake_syncer);
        let (reader, reader_worker) = Reader::new(disk, Arc::clone(&wake));
        let crew = Crew { syncer: syncer_worker, allocator, reader: reader_worker };
        let mut log = FileLog {
            gathering: Batch::new(BatchNumber(places.last().0 + 1)),
            shards,
            places,
            held: Held::new(segments),
            full: VecDeque::new(),
            buffers: Vec::new(),
            batch_bytes_max: BATCH_BYTES_MAX.min(options.segment_size / 2) as usize,
            in_flight: false,
            backlog: VecDeque::new(),
            tail_bytes: 0,
            reclaimable: BTreeSet::new(),
            tail_bytes_max: options.tail_bytes_max,
            last_fetch: 0,
            pending: BTreeMap::new(),
            finished: VecDeque::new(),
            copying: BTreeMap::new(),
            copied_forward: 0,
            ahead: GoesAhead::default(),
            shared,
            quota,
            wake,
            report,
            by_hand: None,
            inline: None,
            allocator: None,
            syncer,
            reader,
        };
        log.collect();
        log.forget_places();
        Ok((log, recovered, crew))
    }

    /// Gives each worker a thread, but for a syncer that the loop moves.
    fn spawn(&mut self, crew: Crew, sync: LogSync) -> std::io::Result<()> {
        self.allocator = Some(Allocator::spawn(crew.allocator)?);
        match sync {
            LogSync::Thread => self.syncer.spawn(crew.syncer)?,
            LogSync::Inline => self.inline = Some(InlineSyncer::new(crew.syncer)),
        }
        self.reader.spawn(crew.reader)
    }

    /// A clean stop: makes everything durable that was added, proves it with a watermark, and ends the workers.
    pub fn close(mut self) -> Result<(), LogError> {
        // What is known of the disk may be a while old: it is asked once more.
        let refusals = self.shared.refusals();
        self.copying.clear();
        self.flush();
        while self.in_flight && !self.shared.has_failed() {
            if self.waits_for_space() && self.space() == Space::ReserveOnly && self.shared.refusals() > refusals {
                return Err(LogError("the disk is full: the last batch of the log was not written".to_owned()));
            }
            self.await_syncer();
            self.flush();
        }
        self.syncer.send(Job::Stop);
        if let Some(workers) = &self.by_hand {
            workers.sync();
        }
        if let Some(inline) = &mut self.inline {
            inline.sync_all();
        }
        self.syncer.join();
        self.collect();
        self.shared.failure().map_or(Ok(()), |failed| Err(failed.clone()))
    }

    /// With [`LogSync::Inline`], places what was flushed and makes it durable, or proves a log that was idle: the loop
    /// stands still meanwhile. To be called at the end of each turn, after all else. What has no space yet waits, and
    /// the loop is woken when there is some. Whether anything was done: then [`CoreLog::durable`] may have news.
    pub fn sync_inline(&mut self, now: Instant) -> bool {
        let worked = self.inline.as_mut().is_some_and(|inline| inline.work(now));
        self.send_ahead();
        worked || self.inline.as_mut().is_some_and(InlineSyncer::sync_all)
    }

    /// When [`FileLog::sync_inline`] is to be called at the latest, though nothing has come.
    #[must_use]
    pub fn sync_inline_at(&self) -> Option<Instant> {
        self.inline.as_ref()?.deadline()
    }

    /// Waits for the syncer's next answer, though not for long; or moves it by hand.
    fn await_syncer(&mut self) {
        if self.inline.as_mut().is_some_and(InlineSyncer::sync_all) {
            return;
        }
        match (&self.by_hand, &self.inline) {
            (Some(workers), _) => return workers.sync_or_allocate(),
            (None, Some(inline)) => return inline.await_space(CLOSE_POLL),
            (None, None) => {}
        }
        let answer = self.syncer.done().recv_timeout(CLOSE_POLL);
        match answer {
            Ok(done) => self.complete(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.syncer_gone(),
        }
    }

    /// What the start met in the log.
    #[must_use]
    pub fn recovery(&self) -> RecoveryReport {
        self.report
    }

    /// What the log has counted, and what it takes on the disk.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            disk_bytes: self.quota.used(),
            memory_bytes: self.tail_bytes as u64,
            held_segments: self.held.count(),
            held_bytes: self.held.bytes(),
            oldest_segment: self.held.oldest(),
            copied_forward: self.copied_forward,
            blemishes: self.report.blemishes,
            pinned_by: self.pinned_by(),
            ..self.shared.stats()
        }
    }

    /// The batch that the syncer has and that is not durable yet; `None` also while it waits for space on a full disk. One
    /// that waits while a segment is made for it is as late as one whose sync hangs.
    #[must_use]
    pub fn in_flight(&self) -> Option<BatchNumber> {
        let is_stuck = self.waits_for_space() && self.space() == Space::ReserveOnly;
        let is_syncing = self.in_flight && !is_stuck;
        is_syncing.then(|| BatchNumber(self.durable_number().0 + 1))
    }

    /// Since when a write or sync is in flight, if one is: how a loop sees that the disk hangs.
    #[must_use]
    pub fn sync_since(&self) -> Option<Instant> {
        self.shared.sync_since()
    }

    /// Whether a batch waits for a segment: the reserve is used up, or it is not known yet whether the disk is full.
    #[must_use]
    pub fn waits_for_space(&self) -> bool {
        self.shared.waits_for_space()
    }

    /// Changes [`Options::max_bytes`].
    pub fn set_max_bytes(&self, max_bytes: Option<u64>) {
        self.quota.set_max(max_bytes);
    }

    fn durable_number(&self) -> BatchNumber {
        self.places.last()
    }

    /// Picks up what the syncer has finished, and how the segments have changed.
    fn collect(&mut self) {
        loop {
            match self.syncer.done().try_recv() {
                Ok(done) => self.complete(done),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    if self.in_flight {
                        self.syncer_gone();
                    }
                    break;
                }
            }
        }
        while let Some(change) = self.shared.next_change() {
            self.held.note(change);
        }
    }

    fn complete(&mut self, answer: Answer) {
        match answer {
            Ok(Done::Placed(batch, place)) => {
                debug_assert_eq!(batch.number(), BatchNumber(self.durable_number().0 + 1));
                self.ahead.placed(&batch);
                self.places.push(place);
                self.in_flight = false;
                self.backlog.pop_front();
                if self.buffers.len() < BUFFERS_KEPT {
                    self.buffers.push(batch);
                }
                self.use_copies();
                self.evict();
                self.forget_places();
            }
            Ok(Done::WentAhead(hard_states)) => self.ahead.went(hard_states),
            // That is on record already, unless the log was closed meanwhile.
            Err(error) => drop(self.shared.fail(error)),
        }
    }

    fn syncer_gone(&mut self) {
        self.shared.fail(LogError("the log's syncer ended unexpectedly".to_owned()));
    }

    /// Closes the gathering batch.
    fn rotate(&mut self) -> Batch {
        let number = BatchNumber(self.gathering.number().0 + 1);
        let mut next = self.buffers.pop().unwrap_or_else(|| Batch::new(number));
        next.reuse(number);
        self.backlog.push_back(self.gathering.gathered_bytes());
        std::mem::replace(&mut self.gathering, next)
    }

    /// Closes the gathering batch if it is too full for so many bytes of records.
    fn make_room(&mut self, bytes: usize) {
        if self.gathering.gathered_bytes() + bytes > self.batch_bytes_max && !self.gathering.is_empty() {
            let full = self.rotate();
            self.full.push_back(full);
        }
    }

    fn push(&mut self, shard: ShardId, entry: Entry) {
        self.make_room(entry_bytes(&entry));
        let from = self.gathering.gathered_bytes();
        self.gathering.push_entry(shard, &entry);
        let extent = Extent::new(from..self.gathering.gathered_bytes());
        self.tail_bytes += entry_memory_bytes(&entry);
        let batch = self.gathering.number();
        self.shard(shard).push(entry, batch, extent);
    }

    fn shard(&mut self, shard: ShardId) -> &mut ShardTail {
        self.shards.get_mut(&shard).expect(KNOWN_SHARD)
    }

    /// Forgets the oldest durable batches until the entries of the rest fit. What nobody can ask for goes first.
    fn evict(&mut self) {
        while self.tail_bytes > self.tail_bytes_max {
            if self.is_reclaimable() {
                self.reclaim_some();
                continue;
            }
            let oldest = self.shards.values().filter_map(ShardTail::oldest_in_memory).min();
            let Some(batch) = oldest.filter(|batch| *batch <= self.durable_number()) else { return };
            self.tail_bytes -= self.shards.values_mut().map(|tail| tail.evict(batch)).sum::<usize>();
        }
    }

    /// Forgets where the oldest batches are that hold no entry of the log any more.
    fn forget_places(&mut self) {
        let oldest = self.shards.values().filter_map(ShardTail::oldest_batch).min();
        self.places.forget_before(oldest.unwrap_or(self.gathering.number()));
    }
}

const KNOWN_SHARD: &str = "the log was opened with every shard of its core";

impl CoreLog for FileLog {
    fn append(&mut self, shard: ShardId, entries: &mut Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.id.index) else { return };
        if first <= self.shard(shard).last() {
            self.tail_bytes -= self.shard(shard).truncate(first);
            self.void_fetches(shard, |fetch| fetch.last >= first);
            self.copy_discarded(shard, first);
        }
        for entry in entries.drain(..) {
            self.push(shard, entry);
        }
    }

    fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        assert!(self.shards.contains_key(&shard), "{KNOWN_SHARD}");
        if self.gathering.is_empty() || !mutant!("hard-state-dropped") {
            self.gathering.set_hard_state(shard, hard_state);
            self.ahead.set_hard_state(shard, hard_state);
        }
    }

    fn compact(&mut self, shard: ShardId, start: EntryId, snapshot: SnapshotId) {
        if start.index < self.shards[&shard].start() {
            return;
        }
        self.note_start(Start { shard, at: start, snapshot });
        self.shard(shard).compact(start.index);
        self.note_reclaimable(shard);
        self.void_fetches(shard, |fetch| fetch.first <= start.index);
        self.copy_compacted(shard, start.index);
        self.gathering.set_start(Start { shard, at: start, snapshot });
        self.forget_places();
    }

    fn reset(&mut self, shard: ShardId, start: EntryId, snapshot: SnapshotId) {
        self.shard(shard).reset(start.index);
        self.note_reclaimable(shard);
        self.void_fetches(shard, |_| true);
        self.copying.remove(&shard);
        let record = Record::Reset { shard, start, snapshot };
        self.make_room(record.encoded_bytes());
        self.gathering.forget_start(shard);
        self.ahead.forget_start(shard);
        self.gathering.push(&record);
        self.forget_places();
    }

    fn copy_forward(&mut self, shard: ShardId) {
        assert!(self.shards.contains_key(&shard), "{KNOWN_SHARD}");
        self.begin_copy(shard);
    }

    fn is_copying(&self, shard: ShardId) -> bool {
        self.is_copied(shard)
    }

    fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }

    fn pinned_by(&self) -> Option<(ShardId, u64)> {
        self.find_pinning()
    }

    fn last_batch(&self) -> BatchNumber {
        let gathering = self.gathering.number();
        if self.gathering.is_empty() { BatchNumber(gathering.0 - 1) } else { gathering }
    }

    fn flush(&mut self) {
        self.collect();
        self.collect_reads();
        self.copy_some();
        if self.in_flight || self.shared.has_failed() {
            return self.send_ahead();
        }
        let batch = match self.full.pop_front() {
            Some(full) => full,
            None if self.gathering.is_empty() => return self.tell_starts(),
            None => self.rotate(),
        };
        self.in_flight = true;
        self.syncer.send(Job::Batch(batch));
    }

    fn durable(&mut self) -> Result<BatchNumber, LogError> {
        self.collect();
        match self.shared.failure() {
            Some(failed) => Err(failed.clone()),
            None => Ok(self.durable_number()),
        }
    }

    fn hard_state_ahead(&self, shard: ShardId) -> Option<HardState> {
        self.ahead.hard_state(shard)
    }

    fn tail(&self, shard: ShardId, first: Index, last: Index) -> Option<impl Iterator<Item = &Entry>> {
        self.shards.get(&shard)?.range(first, last)
    }

    fn fetch(&mut self, fetch: Fetch) {
        let tail = self.shards.get(&fetch.shard).expect(KNOWN_SHARD);
        if !tail.contains(fetch.first) || fetch.last < fetch.first {
            return self.finish_fetch(fetch, Err(FetchError::Gone));
        }
        let is_wanted = |entry: &&Entry| entry.id.index <= fetch.last;
        let in_memory = tail.range_from(fetch.first);
        match in_memory.map(|entries| up_to_bytes(entries.take_while(is_wanted), fetch.bytes_max)) {
            Some(entries) => self.finish_fetch(fetch, Ok(entries)),
            None => drop(self.read(fetch, For::Caller)),
        }
    }

    fn fetched(&mut self) -> Option<Fetched> {
        self.collect_reads();
        self.finished.pop_front()
    }

    fn backlog_bytes(&self) -> usize {
        let gathering = if self.gathering.is_empty() { 0 } else { self.gathering.gathered_bytes() };
        self.backlog.iter().sum::<usize>() + gathering
    }

    fn space(&self) -> Space {
        if self.shared.reserve_only.load(Ordering::Relaxed) { Space::ReserveOnly } else { Space::Plenty }
    }

    fn figures(&self) -> LogFigures {
        LogFigures {
            backlog_bytes: self.backlog_bytes() as u64,
            spare_bytes: self.quota.used().saturating_sub(self.held.bytes()),
            ..self.shared.figures()
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.allocator = None;
    }
}

/// As many entries as fit, at least one.
pub(super) fn up_to_bytes<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: usize) -> Vec<Entry> {
    let mut taken: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.body.len();
        if bytes > bytes_max && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

fn check_segment_size(size: u64) -> Result<(), LogError> {
    if size < SEGMENT_BYTES_MIN || !size.is_multiple_of(super::batch::BLOCK_BYTES) {
        return Err(LogError(format!(
            "a segment of {size} bytes: it takes a multiple of 4096, at least {SEGMENT_BYTES_MIN}"
        )));
    }
    Ok(())
}

fn take_shards(
    replay: &mut Replay,
    shards: &[ShardId],
    path: &str,
) -> Result<(Vec<RecoveredShard>, BTreeMap<ShardId, ShardTail>), LogError> {
    let mut recovered = Vec::with_capacity(shards.len());
    let mut tails = BTreeMap::new();
    for &shard in shards {
        let (known, tail) = replay.take(shard);
        recovered.push(known);
        tails.insert(shard, tail);
    }
    match replay.left() {
        Some(shard) => Err(LogError(format!(
            "the log {path} holds shard {shard}, which is not one of this core's: start with the same --cores as before"
        ))),
        None => Ok((recovered, tails)),
    }
}
