//! The loop's side of the log: the gathering batch, the newest entries of each shard in memory, and the index.
//!
//! Nothing here waits: batches and fetches travel to the syncer and the reader over channels, their answers are picked
//! up by [`CoreLog::durable`], [`CoreLog::flush`] and [`CoreLog::fetched`]. These workers have threads of their own, or
//! are moved by hand. A worker sends its answer first and wakes the loop afterwards, so that no wake-up is lost.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, TryRecvError};
use raftkv_protocol::types::{Entry, EntryId, HardState, Index, ShardId, SnapshotId};

use super::batch::Batch;
use super::disk::{Disk, LogIo, RealDisk};
use super::reader::{FetchJob, Part, Reader};
use super::record::{Record, entry_bytes};
use super::recovery::RecoveryReport;
use super::replay::Replay;
use super::segment::{SEGMENT_BYTES, SEGMENT_BYTES_MIN};
use super::spares::{Allocator, AllocatorWorker, Quota};
use super::start::{Started, start};
use super::stats::{LogStats, Shared};
use super::syncer::{Done, Job, Place, SyncerHandle};
use super::tail::{ShardTail, entry_memory_bytes};
use super::workers::{Crew, Workers};
use super::{BatchNumber, CoreLog, Fetch, FetchError, Fetched, LogError, RecoveredShard, Space, Wake};

/// The default of [`Options::tail_bytes_max`].
const TAIL_BYTES_MAX: usize = 64 << 20;

/// A batch is closed before it exceeds this, or half a segment if that is less.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Batch buffers kept for reuse: one gathers, one is in flight, one is on its way back.
const BUFFERS_KEPT: usize = 3;
/// Batches that one fetch reads from at most.
const FETCH_PARTS_MAX: usize = 1024;
/// How often a closing log looks whether its last batch waits for space.
const CLOSE_POLL: Duration = Duration::from_millis(50);

/// How to open a log.
#[derive(Clone)]
pub struct Options {
    /// The directory; created if it does not exist.
    pub dir: PathBuf,
    /// The shards of the core.
    pub shards: Vec<ShardId>,
    /// Bytes of a segment, a multiple of 4,096 and at least 64 KiB. An entry larger than that gets a larger segment.
    pub segment_size: u64,
    /// The most bytes of durable entries that stay in memory.
    pub tail_bytes_max: usize,
    /// How batches reach the disk.
    pub io: LogIo,
    /// The most bytes that all files of the log may take together; `None` for as many as the disk has.
    pub max_bytes: Option<u64>,
    /// Called by the log's workers when the loop should look.
    pub wake: Wake,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, shards: Vec<ShardId>, wake: Wake) -> Options {
        Options {
            dir: dir.into(),
            shards,
            segment_size: SEGMENT_BYTES,
            tail_bytes_max: TAIL_BYTES_MAX,
            io: LogIo::default(),
            max_bytes: None,
            wake,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("dir", &self.dir).field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// A fetch that is being read.
#[derive(Debug)]
struct PendingFetch {
    fetch: Fetch,
    /// Some of what it reads was discarded meanwhile.
    gone: bool,
}

/// The log of one core on disk.
pub struct FileLog {
    shards: BTreeMap<ShardId, ShardTail>,
    /// Where batch n is, for each n from 1 on that is durable.
    places: Vec<Place>,
    gathering: Batch,
    /// Batches that were closed because they were full, oldest first.
    full: VecDeque<Batch>,
    buffers: Vec<Batch>,
    batch_bytes_max: usize,
    in_flight: bool,
    /// Bytes of records in each closed batch that is not durable, oldest first.
    backlog: VecDeque<usize>,
    failed: Option<LogError>,
    /// Runs in memory, oldest first.
    evictable: VecDeque<(BatchNumber, ShardId)>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    pending: Vec<PendingFetch>,
    finished: VecDeque<Fetched>,
    shared: Arc<Shared>,
    quota: Arc<Quota>,
    wake: Wake,
    report: RecoveryReport,
    /// The workers, if they have no threads.
    by_hand: Option<Workers>,
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
            .field("failed", &self.failed)
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
        let (mut log, recovered, crew) = FileLog::open_with_crew(disk, options)?;
        log.spawn(crew).map_err(|error| LogError(format!("cannot start the log's threads: {error}")))?;
        Ok((log, recovered))
    }

    /// The same without threads: the log's workers do their work only when they are told. A log that is dropped does
    /// nothing more, like a process that dies.
    pub fn open_by_hand(
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> Result<(FileLog, Vec<RecoveredShard>, Workers), LogError> {
        let (mut log, recovered, crew) = FileLog::open_with_crew(disk, options)?;
        let workers = Workers::new(crew);
        log.by_hand = Some(workers.clone());
        Ok((log, recovered, workers))
    }

    /// The log, and its workers that nobody moves yet.
    fn open_with_crew(disk: Arc<dyn Disk>, options: Options) -> Result<(FileLog, Vec<RecoveredShard>, Crew), LogError> {
        check_segment_size(options.segment_size)?;
        let shared = Arc::new(Shared::new());
        let quota = Arc::new(Quota::new(options.max_bytes));
        let Started { mut replay, syncer, spares, report } = start(&disk, &shared, &quota, options.segment_size)?;
        let places = replay.take_places();
        let (recovered, shards) = take_shards(&mut replay, &options.shards, &disk.path(""))?;
        let wake = options.wake;
        let (allocator, pool) = AllocatorWorker::new(spares, Arc::clone(&shared), Arc::clone(&wake));
        let (syncer, syncer_worker) = SyncerHandle::new(syncer, pool, Arc::clone(&wake));
        let (reader, reader_worker) = Reader::new(disk, Arc::clone(&wake));
        let crew = Crew { syncer: syncer_worker, allocator, reader: reader_worker };
        let log = FileLog {
            gathering: Batch::new(BatchNumber(places.len() as u64 + 1)),
            shards,
            places,
            full: VecDeque::new(),
            buffers: Vec::new(),
            batch_bytes_max: BATCH_BYTES_MAX.min(options.segment_size / 2) as usize,
            in_flight: false,
            backlog: VecDeque::new(),
            failed: None,
            evictable: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max: options.tail_bytes_max,
            pending: Vec::new(),
            finished: VecDeque::new(),
            shared,
            quota,
            wake,
            report,
            by_hand: None,
            allocator: None,
            syncer,
            reader,
        };
        Ok((log, recovered, crew))
    }

    /// Gives each worker a thread.
    fn spawn(&mut self, crew: Crew) -> std::io::Result<()> {
        self.allocator = Some(Allocator::spawn(crew.allocator)?);
        self.syncer.spawn(crew.syncer)?;
        self.reader.spawn(crew.reader)
    }

    /// A clean stop: makes everything durable that was added, proves it with a watermark, and ends the workers.
    pub fn close(mut self) -> Result<(), LogError> {
        self.flush();
        while self.in_flight && self.failed.is_none() {
            if self.waits_for_space() && self.space() == Space::ReserveOnly {
                return Err(LogError("the disk is full: the last batch of the log was not written".to_owned()));
            }
            self.await_syncer();
            self.flush();
        }
        self.syncer.send(Job::Stop);
        if let Some(workers) = &self.by_hand {
            workers.sync();
        }
        self.syncer.join();
        self.collect();
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Waits for the syncer's next answer, though not for long; or moves it by hand.
    fn await_syncer(&mut self) {
        if let Some(workers) = &self.by_hand {
            return workers.sync_or_allocate();
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

    /// What the log has counted.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }

    /// The batch that the syncer has and that is not durable yet; `None` also while it waits for space.
    #[must_use]
    pub fn in_flight(&self) -> Option<BatchNumber> {
        let is_syncing = self.in_flight && !self.waits_for_space();
        is_syncing.then(|| BatchNumber(self.durable_number().0 + 1))
    }

    /// Since when a write or sync is in flight, if one is: how a loop sees that the disk hangs.
    #[must_use]
    pub fn sync_since(&self) -> Option<Instant> {
        self.shared.sync_since()
    }

    /// Whether a batch waits because the disk is full and the reserve used up.
    #[must_use]
    pub fn waits_for_space(&self) -> bool {
        self.shared.waits_for_space.load(Ordering::Relaxed)
    }

    /// Changes [`Options::max_bytes`].
    pub fn set_max_bytes(&self, max_bytes: Option<u64>) {
        self.quota.set_max(max_bytes);
    }

    fn durable_number(&self) -> BatchNumber {
        BatchNumber(self.places.len() as u64)
    }

    /// Picks up what the syncer has finished.
    fn collect(&mut self) {
        loop {
            match self.syncer.done().try_recv() {
                Ok(done) => self.complete(done),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    if self.in_flight {
                        self.syncer_gone();
                    }
                    return;
                }
            }
        }
    }

    fn complete(&mut self, done: Done) {
        match done {
            Ok((batch, place)) => {
                debug_assert_eq!(batch.number(), BatchNumber(self.places.len() as u64 + 1));
                self.places.push(place);
                self.in_flight = false;
                self.backlog.pop_front();
                if self.buffers.len() < BUFFERS_KEPT {
                    self.buffers.push(batch);
                }
                self.evict();
            }
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }

    fn syncer_gone(&mut self) {
        self.failed.get_or_insert_with(|| LogError("the log's syncer ended unexpectedly".to_owned()));
    }

    /// Closes the gathering batch.
    fn rotate(&mut self) -> Batch {
        let number = BatchNumber(self.gathering.number().0 + 1);
        let mut next = self.buffers.pop().unwrap_or_else(|| Batch::new(number));
        next.reuse(number);
        self.backlog.push_back(self.gathering.gathered_bytes());
        std::mem::replace(&mut self.gathering, next)
    }

    fn push(&mut self, shard: ShardId, entry: Entry) {
        if self.gathering.gathered_bytes() + entry_bytes(&entry) > self.batch_bytes_max && !self.gathering.is_empty() {
            let full = self.rotate();
            self.full.push_back(full);
        }
        self.gathering.push_entry(shard, &entry);
        self.tail_bytes += entry_memory_bytes(&entry);
        let batch = self.gathering.number();
        let tail = self.shards.get_mut(&shard).expect(KNOWN_SHARD);
        if tail.push(entry, batch) {
            self.evictable.push_back((batch, shard));
        }
    }

    /// Forgets the oldest durable entries until the rest fits.
    fn evict(&mut self) {
        while self.tail_bytes > self.tail_bytes_max {
            let Some(&(batch, shard)) = self.evictable.front() else { return };
            if batch > self.durable_number() {
                return;
            }
            self.evictable.pop_front();
            self.tail_bytes -= self.shards.get_mut(&shard).expect(KNOWN_SHARD).evict(batch);
        }
    }

    fn finish_fetch(&mut self, fetch: Fetch, result: Result<Vec<Entry>, FetchError>) {
        self.finished.push_back(Fetched { fetch, result });
        (self.wake)();
    }
}

const KNOWN_SHARD: &str = "the log was opened with every shard of its core";

impl CoreLog for FileLog {
    fn append(&mut self, shard: ShardId, entries: &mut Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.id.index) else { return };
        let tail = self.shards.get_mut(&shard).expect(KNOWN_SHARD);
        if first <= tail.last() {
            self.tail_bytes -= tail.truncate(first);
            for pending in &mut self.pending {
                pending.gone |= pending.fetch.shard == shard && pending.fetch.last >= first;
            }
        }
        for entry in entries.drain(..) {
            self.push(shard, entry);
        }
    }

    fn reset(&mut self, shard: ShardId, start: EntryId, _snapshot: SnapshotId) {
        let tail = self.shards.get_mut(&shard).expect(KNOWN_SHARD);
        self.tail_bytes -= tail.reset(start.index);
        for pending in self.pending.iter_mut().filter(|pending| pending.fetch.shard == shard) {
            pending.gone = true;
        }
        self.gathering.push(&Record::Reset { shard, start });
    }

    fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        assert!(self.shards.contains_key(&shard), "{KNOWN_SHARD}");
        if self.gathering.is_empty() || !mutant!("hard-state-dropped") {
            self.gathering.set_hard_state(shard, hard_state);
        }
    }

    fn last_batch(&self) -> BatchNumber {
        let gathering = self.gathering.number();
        if self.gathering.is_empty() { BatchNumber(gathering.0 - 1) } else { gathering }
    }

    fn flush(&mut self) {
        self.collect();
        if self.in_flight || self.failed.is_some() {
            return;
        }
        let batch = match self.full.pop_front() {
            Some(full) => full,
            None if self.gathering.is_empty() => return,
            None => self.rotate(),
        };
        self.in_flight = true;
        self.syncer.send(Job::Batch(batch));
    }

    fn durable(&mut self) -> Result<BatchNumber, LogError> {
        self.collect();
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(self.durable_number()),
        }
    }

    fn tail(&self, shard: ShardId, first: Index, last: Index) -> Option<impl Iterator<Item = &Entry>> {
        self.shards.get(&shard)?.range(first, last)
    }

    fn fetch(&mut self, fetch: Fetch) {
        let tail = self.shards.get(&fetch.shard).expect(KNOWN_SHARD);
        if !tail.contains(fetch.first) || fetch.last < fetch.first {
            return self.finish_fetch(fetch, Err(FetchError::Gone));
        }
        if let Some(in_memory) = tail.range_from(fetch.first) {
            let wanted = in_memory.take_while(|entry| entry.id.index <= fetch.last);
            return self.finish_fetch(fetch, Ok(up_to_bytes(wanted, fetch.bytes_max)));
        }
        let place_of = |batch: BatchNumber| self.places.get(batch.0 as usize - 1).copied();
        let parts = tail
            .locate(fetch.first, fetch.last)
            .map_while(|(batch, first, last)| Some(Part { place: place_of(batch)?, first, last }))
            .take(FETCH_PARTS_MAX)
            .collect();
        self.pending.push(PendingFetch { fetch, gone: false });
        self.reader.fetch(FetchJob { fetch, parts });
    }

    fn fetched(&mut self) -> Option<Fetched> {
        if let Some(finished) = self.finished.pop_front() {
            return Some(finished);
        }
        let mut fetched = self.reader.fetched()?;
        let at = self.pending.iter().position(|pending| pending.fetch == fetched.fetch);
        let pending = self.pending.remove(at.expect("only what is pending is read"));
        if pending.gone {
            fetched.result = Err(FetchError::Gone);
        }
        Some(fetched)
    }

    fn backlog_bytes(&self) -> usize {
        let gathering = if self.gathering.is_empty() { 0 } else { self.gathering.gathered_bytes() };
        self.backlog.iter().sum::<usize>() + gathering
    }

    fn space(&self) -> Space {
        if self.shared.reserve_only.load(Ordering::Relaxed) { Space::ReserveOnly } else { Space::Plenty }
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
