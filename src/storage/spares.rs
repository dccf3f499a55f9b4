//! Segments ahead: files that are durable in their whole length before they are needed. And segments behind: those that
//! nothing needs any more become spares again, or are removed.
//!
//! A thread of its own keeps [`SPARES`] of them in a pool, so that filling a file never delays a sync. When the disk is
//! full it says so (ordinary writes are refused while only [`RESERVED`] are left) and tries again by itself. While it does
//! not know yet whether the disk is full, whoever would take one of these waits.
//!
//! The last spare, and the end of the segment that is written to when no more than that is left, are for terms, votes and
//! starts, and for what sets segments free. Entries wait for more: a node that can get no space for hours can vote.
//!
//! Segments go one by one, oldest first, each for good before the next: whatever a crash leaves is a chain. The new name
//! of a spare is durable before anything is written into it. After an error of that nothing more is let go in this life,
//! as nobody knows which names the disk holds; the next start looks.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

use super::batch::BLOCK_BYTES;
use super::disk::{Access, Disk};
use super::segment::{FileState, SEGMENT_BYTES_MIN, allocating_name, segment_name, spare_name};
use super::stats::Shared;
use super::tip::SegmentFile;
use super::{LogError, Wake};

/// Spares kept for what must be written even when the disk is full.
pub(crate) const RESERVED: usize = 2;
/// Spares that no entry is written into.
const LAST: usize = 1;
/// Spares that are made.
pub(crate) const SPARES: usize = RESERVED + 1;
/// Spares kept, if segments become spares again: what is let go at once is used up little by little.
pub(crate) const SPARES_MAX: usize = SPARES + 3;

/// How long to wait before another attempt to allocate.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long the disk is left to what a start has to read and to sync, unless the reserve is not there or the log waits.
pub(super) const CALM_AFTER_START: Duration = Duration::from_secs(2);

/// How long a thread rests after each mebibyte of a spare, unless the log waits or the reserve is not there: about 64 MiB
/// are filled in a second. All at once, the segments of a node's cores and of its neighbours on a disk would hold up the
/// log for a tenth of a second, and it needs the next one only when this one is full.
const REST: Duration = Duration::from_millis(15);

/// What a spare holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    Zeros,
    /// Zeros, or whatever is left from an earlier use.
    Remains,
}

/// A file that waits to become a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) filling: Filling,
}

/// Where the syncer gets its next segment, and where the oldest ones go.
pub(crate) trait SpareSource: Send {
    /// A file of at least this many bytes.
    fn take(&mut self, size_min: u64) -> Result<Spare, LogError>;

    /// Bytes at the end of the current segment, which has this size, that no entry is written into now: a quarter of it if
    /// the last spare is what comes next, half of it if none is left.
    fn kept_bytes(&self, size: u64) -> u64;

    /// These segments are not needed any more, oldest first. If a file was taken, it is a segment now, durably.
    fn let_go(&mut self, needless: Vec<SegmentFile>);
}

/// The bytes that the log's files may take together.
#[derive(Debug)]
pub(crate) struct Quota {
    max: AtomicU64,
    used: AtomicU64,
}

impl Quota {
    pub(crate) fn new(max: Option<u64>) -> Quota {
        Quota { max: AtomicU64::new(max.unwrap_or(u64::MAX)), used: AtomicU64::new(0) }
    }

    pub(crate) fn set_max(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn add_used(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn sub_used(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn allows(&self, bytes: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.max.load(Ordering::Relaxed)
    }
}

/// Makes spares.
pub(crate) struct SpareMaker {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segment_size: u64,
    pub(crate) quota: Arc<Quota>,
}

impl SpareMaker {
    /// Makes one of this size; calls `rest` after each piece of it.
    pub(crate) fn make(&self, size: u64, rest: &dyn Fn()) -> io::Result<Spare> {
        if !self.quota.allows(size) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the log's quota is used up"));
        }
        let tag = self.disk.fresh_id()? as u64;
        let (allocating, name) = (allocating_name(tag), spare_name(tag));
        self.disk.create_by_and_by(&allocating, size, rest)?;
        self.disk.rename(&allocating, &name)?;
        self.disk.sync_dir()?;
        self.quota.add_used(size);
        Ok(Spare { name, size, filling: Filling::Zeros })
    }

    /// Makes a spare of the log's oldest segment.
    fn recycle(&self, segment: &SegmentFile) -> io::Result<Spare> {
        let name = spare_name(self.disk.fresh_id()? as u64);
        self.disk.rename(&segment_name(segment.sequence), &name)?;
        // Until then it may be found under its old name.
        self.disk.sync_dir()?;
        Ok(Spare { name, size: segment.size, filling: Filling::Remains })
    }

    /// Removes the log's oldest segment.
    fn remove(&self, segment: &SegmentFile) -> io::Result<()> {
        self.disk.remove(&segment_name(segment.sequence))?;
        self.disk.sync_dir()?;
        self.quota.sub_used(segment.size);
        Ok(())
    }

    /// Finds the spares that an earlier process left behind and removes files that never became spares or have another
    /// size. Counts what the log's files take.
    pub(crate) fn adopt(&self) -> io::Result<Vec<Spare>> {
        let mut spares = Vec::new();
        for name in self.disk.list()? {
            let Some(state) = FileState::of(&name) else { continue };
            let size = self.disk.open(&name, Access::Read)?.size()?;
            match state {
                FileState::Segment(_) => self.quota.add_used(size),
                FileState::Spare if size == self.segment_size && spares.len() < SPARES_MAX => {
                    self.quota.add_used(size);
                    spares.push(Spare { name, size, filling: Filling::Remains });
                }
                FileState::Spare | FileState::Allocating => self.disk.remove(&name)?,
            }
        }
        if !spares.is_empty() {
            // A process that died between a segment's change of name and the sync of it would leave the old name there.
            self.disk.sync_dir()?;
        }
        Ok(spares)
    }
}

/// Where a start gets its segments from, before the allocator's thread runs: what an earlier process left behind, or
/// else the disk. It does not wait for space.
pub(crate) struct First {
    maker: SpareMaker,
    adopted: Vec<Spare>,
    needless: Vec<SegmentFile>,
}

impl First {
    /// Adopts what is there.
    pub(crate) fn new(maker: SpareMaker) -> io::Result<First> {
        let adopted = maker.adopt()?;
        Ok(First { maker, adopted, needless: Vec::new() })
    }

    /// Whether the segment is one of those that will be let go.
    pub(crate) fn lets_go(&self, sequence: u64) -> bool {
        self.needless.iter().any(|segment| segment.sequence == sequence)
    }

    fn make(&mut self, size: u64) -> io::Result<Spare> {
        self.maker.make(size, &|| {}).or_else(|error| {
            // A spare that is too small is better given up than the start.
            let Some(given_up) = self.adopted.pop() else { return Err(error) };
            self.maker.disk.remove(&given_up.name)?;
            self.maker.quota.sub_used(given_up.size);
            self.maker.make(size, &|| {})
        })
    }

    /// Makes one of this size. If the disk has no room for it, makes a shorter one of half of what is left, as long as that
    /// takes what must be written at once, and as much again. The segment before it gives its unused end back when this one
    /// is in use: so a node can be started over and over on a disk that stays full.
    fn make_usual(&mut self, mut size: u64, size_min: u64) -> io::Result<Spare> {
        let least = (2 * size_min).max(SEGMENT_BYTES_MIN);
        let mut made = self.make(size);
        while let Err(error) = &made
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            size = size.min(self.maker.disk.free_bytes()?) / 2 / BLOCK_BYTES * BLOCK_BYTES;
            if size < least {
                break;
            }
            made = self.maker.make(size, &|| {});
        }
        made
    }
}

impl SpareSource for First {
    fn take(&mut self, size_min: u64) -> Result<Spare, LogError> {
        if size_min <= self.maker.segment_size
            && let Some(spare) = self.adopted.pop()
        {
            return Ok(spare);
        }
        let size = size_min.next_multiple_of(BLOCK_BYTES).max(self.maker.segment_size);
        self.make_usual(size, size_min).map_err(|error| {
            LogError(format!(
                "cannot allocate a log segment of {size} bytes in {}: {error}; free space there and start again",
                self.maker.disk.path("")
            ))
        })
    }

    fn kept_bytes(&self, _: u64) -> u64 {
        0
    }

    fn let_go(&mut self, needless: Vec<SegmentFile>) {
        self.needless.extend(needless);
    }
}

/// What a segment is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Entries, and what comes with them.
    Entries,
    /// Nothing but terms and votes.
    HardStates,
}

pub(super) enum Request {
    /// These segments can go, and a spare may have been taken.
    LetGo(Vec<SegmentFile>),
    /// One of this size is wanted, for an entry that is larger than a segment.
    Larger(u64),
    /// The log waits for one of the usual size.
    Usual,
}

/// The pool's side that the syncer has.
pub(crate) struct Pool {
    spares: Receiver<Spare>,
    larger: Receiver<Spare>,
    /// The allocator has attempted something since the last look.
    attempts: Receiver<()>,
    requests: Sender<Request>,
    segment_size: u64,
    /// A larger one was asked for and not taken yet.
    asked: bool,
    /// The log waits for one of the usual size, and has said so.
    hurries: bool,
    /// There was more than the reserve once.
    was_filled: bool,
    shared: Arc<Shared>,
}

impl SpareSource for Pool {
    fn take(&mut self, size_min: u64) -> Result<Spare, LogError> {
        let is_usual = size_min <= self.segment_size;
        let spare = if is_usual { self.spares.try_recv() } else { self.larger.try_recv() };
        self.asked &= is_usual;
        self.hurries &= !is_usual;
        // Whoever takes one has looked whether it is there, and nobody else takes any.
        spare.map_err(|_| LogError("the log's allocator ended unexpectedly".to_owned()))
    }

    fn kept_bytes(&self, size: u64) -> u64 {
        let size = size.min(self.segment_size);
        match self.spares.len() {
            // A leader's first entry must find room, or a node whose disk is full after its start answers no read.
            0 if self.was_filled || self.is_low() => (size / 2).next_multiple_of(BLOCK_BYTES),
            ..=LAST => (size / 4).next_multiple_of(BLOCK_BYTES),
            _ => 0,
        }
    }

    fn let_go(&mut self, needless: Vec<SegmentFile>) {
        // The allocator is gone only when the log is being closed; then no spare is needed, and the next start lets go.
        let _ = self.requests.send(Request::LetGo(needless));
    }
}

impl Pool {
    /// Whether only the reserve is left.
    pub(super) fn is_low(&self) -> bool {
        self.shared.reserve_only.load(Ordering::Relaxed)
    }

    /// Whether the next spare may be taken. The reserve may not while nobody knows whether the disk is full: to fill a
    /// segment takes long, most of all where it fails in the end, and puts that were taken meanwhile would use it up.
    fn may_take(&mut self, purpose: Purpose) -> bool {
        let left = self.spares.len();
        self.was_filled |= left > RESERVED;
        let kept = if purpose == Purpose::Entries { LAST } else { 0 };
        left > RESERVED || (left > kept && (!self.was_filled || self.is_low()))
    }

    /// Whether a file of at least this many bytes is there.
    pub(super) fn has(&self, size_min: u64) -> bool {
        size_min <= self.segment_size && !self.spares.is_empty()
    }

    /// Bytes of a spare.
    pub(super) fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Whether a file of at least so many bytes, if one is wanted, can be taken now. While it cannot, the log waits for
    /// space.
    pub(super) fn is_ready(&mut self, wanted: Option<u64>, purpose: Purpose) -> bool {
        let ready = match wanted {
            None => true,
            Some(size_min) if size_min <= self.segment_size => self.may_take(purpose) || self.hurry(),
            Some(size_min) => {
                self.ask_for(size_min);
                !self.larger.is_empty()
            }
        };
        self.shared.set_waits_for_space(!ready);
        ready
    }

    /// Tells that the allocator has attempted something. Every attempt is told after it, so that none is missed.
    pub(super) fn attempts(&self) -> &Receiver<()> {
        &self.attempts
    }

    /// Waits until what was wanted last may be there, though not for long.
    pub(super) fn await_one(&self, patience: Duration) {
        // Whoever waits looks again in either case.
        let _ = self.attempts.recv_timeout(patience);
    }

    /// Tells the allocator that the log waits; says that no spare may be taken.
    fn hurry(&mut self) -> bool {
        if !std::mem::replace(&mut self.hurries, true) {
            // The allocator is gone only when the log is being closed; then no spare is needed.
            let _ = self.requests.send(Request::Usual);
        }
        false
    }

    fn ask_for(&mut self, size: u64) {
        if !self.asked {
            self.asked = true;
            // The allocator is gone only when the log is being closed; then no spare is needed.
            let _ = self.requests.send(Request::Larger(size));
        }
    }
}

/// The allocator's thread. It ends when this is dropped.
pub(crate) struct Allocator {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Allocator {
    pub(super) fn spawn(worker: AllocatorWorker) -> io::Result<Allocator> {
        let (alive, alive_out) = bounded(0);
        let thread = thread::Builder::new().name("log-allocator".to_owned()).spawn(move || worker.run(&alive_out))?;
        Ok(Allocator { alive: Some(alive), thread: Some(thread) })
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

/// What came of an attempt to make a spare, or to let a segment go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Done,
    /// There are enough, and nothing can go.
    NoneWanted,
    /// The disk has no room. The next attempt is due after [`RETRY_AFTER`], or when a spare is taken.
    Refused,
}

/// Keeps the pool filled and lets segments go, on a thread of its own or by hand.
pub(super) struct AllocatorWorker {
    maker: SpareMaker,
    shared: Arc<Shared>,
    wake: Wake,
    pub(super) requests: Receiver<Request>,
    spares: Sender<Spare>,
    larger: Sender<Spare>,
    attempts: Sender<()>,
    /// Sizes asked for and not made yet.
    wanted: Vec<u64>,
    /// Segments that are not needed any more, oldest first. Nothing more comes after an error.
    needless: VecDeque<SegmentFile>,
    /// Letting go failed.
    stuck: bool,
    /// That the disk has no room was said.
    is_told: bool,
    /// Ends when the log is being closed, if this is a thread.
    pub(super) alive: Option<Receiver<()>>,
}

impl AllocatorWorker {
    /// An allocator with these spares in the pool, and the pool's other side.
    pub(super) fn new(first: First, shared: Arc<Shared>, wake: Wake) -> (AllocatorWorker, Pool) {
        let First { maker, adopted, needless } = first;
        let (spares_in, spares) = bounded(SPARES_MAX);
        let (larger_in, larger) = unbounded();
        let (attempts_in, attempts) = bounded(1);
        let (requests, requests_out) = unbounded();
        for spare in adopted {
            // No more were adopted than the pool holds.
            let _ = spares_in.try_send(spare);
        }
        let segment_size = maker.segment_size;
        let pool = Pool {
            spares,
            larger,
            attempts,
            requests,
            segment_size,
            asked: false,
            hurries: false,
            was_filled: false,
            shared: Arc::clone(&shared),
        };
        let worker = AllocatorWorker {
            maker,
            shared,
            wake,
            requests: requests_out,
            spares: spares_in,
            larger: larger_in,
            attempts: attempts_in,
            wanted: Vec::new(),
            needless: needless.into(),
            stuck: false,
            is_told: false,
            alive: None,
        };
        (worker, pool)
    }

    fn run(mut self, alive: &Receiver<()>) {
        self.alive = Some(alive.clone());
        let requests = self.requests.clone();
        let mut retry_after = Some(self.first_attempt_after());
        loop {
            let timer = retry_after.map_or_else(crossbeam_channel::never, crossbeam_channel::after);
            select! {
                recv(alive) -> _ => return,
                recv(timer) -> _ => {}
                recv(requests) -> request => match request {
                    Ok(request) => self.note(request),
                    Err(_) => return,
                },
            }
            retry_after = match self.attempt() {
                Attempt::Done => Some(Duration::ZERO),
                Attempt::NoneWanted => None,
                Attempt::Refused => Some(RETRY_AFTER),
            };
        }
    }

    pub(super) fn first_attempt_after(&self) -> Duration {
        if self.spares.len() < RESERVED { Duration::ZERO } else { CALM_AFTER_START }
    }

    fn note(&mut self, request: Request) {
        match request {
            Request::LetGo(needless) if self.stuck => drop(needless),
            Request::LetGo(needless) => self.needless.extend(needless),
            Request::Larger(size) => self.wanted.push(size),
            // It is tried next in any case.
            Request::Usual => {}
        }
    }

    /// Whether an attempt would do something.
    pub(super) fn wants(&mut self) -> bool {
        while let Ok(request) = self.requests.try_recv() {
            self.note(request);
        }
        !self.needless.is_empty() || !self.wanted.is_empty() || self.spares.len() < SPARES
    }

    /// Lets a segment go, or makes a spare, if there is one to let go, or one is wanted.
    pub(super) fn attempt(&mut self) -> Attempt {
        let attempt = self.attempt_one();
        // One that was not looked at yet says as much as two.
        let _ = self.attempts.try_send(());
        attempt
    }

    fn attempt_one(&mut self) -> Attempt {
        if let Some(segment) = self.needless.pop_front() {
            self.let_go(&segment);
            self.tell_space(false);
            return Attempt::Done;
        }
        let attempt = match self.make_one() {
            Ok(true) => {
                // A loop that syncs itself has perhaps waited for it.
                (self.wake)();
                Attempt::Done
            }
            Ok(false) => Attempt::NoneWanted,
            Err(error) => {
                self.refused(&error);
                Attempt::Refused
            }
        };
        self.tell_space(attempt == Attempt::Refused);
        attempt
    }

    /// A segment of the usual size becomes a spare, unless there are enough or space is needed for a larger one.
    fn let_go(&mut self, segment: &SegmentFile) {
        let is_wanted = self.spares.len() < SPARES_MAX && self.wanted.is_empty();
        let gone = if segment.size == self.maker.segment_size && is_wanted {
            self.maker.recycle(segment).map(|spare| {
                // The syncer is gone only when the log is being closed.
                let _ = self.spares.send(spare);
            })
        } else {
            self.maker.remove(segment)
        };
        match gone {
            Ok(()) => self.shared.segment_gone(segment.sequence),
            Err(error) => {
                let path = self.maker.disk.path(&segment_name(segment.sequence));
                log::warn!("cannot let go of the log segment {path}: {error}; the log grows until the next start");
                self.needless.clear();
                self.stuck = true;
            }
        }
        (self.wake)();
    }

    /// Makes what is wanted most; `false` if nothing is.
    fn make_one(&mut self) -> io::Result<bool> {
        if let Some(&size) = self.wanted.first() {
            let spare = self.maker.make(size, &|| {})?;
            self.wanted.remove(0);
            // The syncer is gone only when the log is being closed.
            let _ = self.larger.send(spare);
            return Ok(true);
        }
        if self.spares.len() >= SPARES {
            return Ok(false);
        }
        let spare = self.maker.make(self.maker.segment_size, &|| self.rest())?;
        let _ = self.spares.send(spare);
        Ok(true)
    }

    /// Between two pieces of a spare: the log's writes share the disk with them.
    pub(super) fn rest(&self) {
        let is_wanted = self.spares.len() < RESERVED || self.shared.waits_for_space();
        if let Some(alive) = self.alive.as_ref().filter(|_| !is_wanted) {
            // Nothing comes, but the end.
            let _ = alive.recv_timeout(REST);
        }
    }

    fn refused(&mut self, error: &io::Error) {
        self.shared.add_refusal();
        if !std::mem::replace(&mut self.is_told, true) {
            log::warn!("cannot allocate a log segment in {}: {error}", self.maker.disk.path(""));
        }
    }

    fn tell_space(&mut self, refused: bool) {
        let before = self.shared.reserve_only.load(Ordering::Relaxed);
        let reserve_only = refused || (before && self.spares.len() <= RESERVED);
        if reserve_only != before {
            self.shared.reserve_only.store(reserve_only, Ordering::Relaxed);
            if !reserve_only && std::mem::take(&mut self.is_told) {
                log::info!("log segments can be allocated again in {}: puts are taken", self.maker.disk.path(""));
            }
            (self.wake)();
        }
    }
}
