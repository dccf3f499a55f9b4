//! The thread that keeps the pool filled, and lets segments go.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

use super::first::First;
use super::maker::{SpareMaker, bytes_of};
use super::{Pool, RESERVED, Request, SPARES, SPARES_MAX, Spare};
use crate::storage::disk::is_full;
use crate::storage::segment::{SEGMENT_BYTES_MIN, segment_name};
use crate::storage::stats::Shared;
use crate::storage::tip::SegmentFile;
use crate::storage::{LogError, Wake};

/// How long to wait before another attempt to allocate.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long the disk is left to what a start has to read and to sync, unless the reserve is not there or the log waits.
pub(crate) const CALM_AFTER_START: Duration = Duration::from_secs(2);

/// How long a thread rests after each mebibyte of a spare, unless the log waits or the reserve is not there: about 64 MiB
/// are filled in a second. All at once, the segments of a node's cores and of its neighbours on a disk would hold up the
/// log for a tenth of a second, and it needs the next one only when this one is full.
const REST: Duration = Duration::from_millis(15);

/// The allocator's thread. It ends when this is dropped.
pub(crate) struct Allocator {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Allocator {
    pub(crate) fn spawn(worker: AllocatorWorker) -> io::Result<Allocator> {
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
pub(crate) enum Attempt {
    Done,
    /// There are enough, and nothing can go.
    NoneWanted,
    /// The disk has no room. The next attempt is due after [`RETRY_AFTER`], or when a spare is taken.
    Refused,
    /// The disk failed, and the log ends.
    Failed,
}

/// Keeps the pool filled and lets segments go, on a thread of its own or by hand.
pub(crate) struct AllocatorWorker {
    maker: SpareMaker,
    shared: Arc<Shared>,
    wake: Wake,
    pub(crate) requests: Receiver<Request>,
    spares: Sender<Spare>,
    larger: Sender<Spare>,
    attempts: Sender<()>,
    /// For the next start, as long as there are not enough of the usual size; the longest is the last.
    short: Vec<Spare>,
    /// Sizes asked for and not made yet.
    wanted: Vec<u64>,
    /// Segments that are not needed any more, oldest first.
    needless: VecDeque<SegmentFile>,
    /// The oldest of them under its new name, which is not durable: the disk had no room to make it so.
    renamed: Option<Spare>,
    /// That the disk has no room was said.
    is_told: bool,
    /// Ends when the log is being closed, if this is a thread.
    pub(crate) alive: Option<Receiver<()>>,
}

impl AllocatorWorker {
    /// An allocator with these spares in the pool, and the pool's other side.
    pub(crate) fn new(first: First, shared: Arc<Shared>, wake: Wake) -> (AllocatorWorker, Pool) {
        let First { maker, adopted, short, needless } = first;
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
            short,
            renamed: None,
            wanted: Vec::new(),
            needless: needless.into(),
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
                Attempt::Failed => return,
            };
        }
    }

    pub(crate) fn first_attempt_after(&self) -> Duration {
        if self.spares.len() < RESERVED { Duration::ZERO } else { CALM_AFTER_START }
    }

    fn note(&mut self, request: Request) {
        match request {
            Request::LetGo(needless) => self.needless.extend(needless),
            Request::Larger(size) => self.wanted.push(size),
            // It is tried next in any case.
            Request::Usual => {}
        }
    }

    /// Whether an attempt would do something.
    pub(crate) fn wants(&mut self) -> bool {
        while let Ok(request) = self.requests.try_recv() {
            self.note(request);
        }
        let is_idle = self.needless.is_empty() && self.wanted.is_empty() && self.short.is_empty();
        !self.shared.has_failed() && (!is_idle || self.spares.len() < SPARES)
    }

    /// Lets a segment go, or makes a spare, if there is one to let go, or one is wanted.
    pub(crate) fn attempt(&mut self) -> Attempt {
        let attempt = match self.try_attempt() {
            Ok(attempt) => attempt,
            Err(error) if is_full(&error) => {
                self.refused(&error);
                Attempt::Refused
            }
            Err(error) => {
                self.failed(&error);
                Attempt::Failed
            }
        };
        self.tell_space(attempt == Attempt::Refused);
        // One that was not looked at yet says as much as two.
        let _ = self.attempts.try_send(());
        attempt
    }

    fn try_attempt(&mut self) -> io::Result<Attempt> {
        if let Some(&segment) = self.needless.front() {
            self.let_go(&segment)?;
            self.needless.pop_front();
            self.shared.segment_gone(segment.sequence);
            (self.wake)();
            return Ok(Attempt::Done);
        }
        if self.make_one()? {
            // A loop that syncs itself has perhaps waited for it.
            (self.wake)();
            return Ok(Attempt::Done);
        }
        if self.short.is_empty() {
            return Ok(Attempt::NoneWanted);
        }
        self.maker.give_up_all(&mut self.short)?;
        Ok(Attempt::Done)
    }

    /// A segment of the usual size becomes a spare, unless there are enough or space is needed for a larger one. A shorter one
    /// is kept for the next start while there is no other.
    fn let_go(&mut self, segment: &SegmentFile) -> io::Result<()> {
        let is_usual = segment.size == self.maker.segment_size;
        let is_short = (SEGMENT_BYTES_MIN..self.maker.segment_size).contains(&segment.size);
        let has_room = self.spares.len() < SPARES_MAX;
        let keeps_short = is_short && self.spares.is_empty() && self.short.len() < SPARES_MAX;
        let is_kept = self.wanted.is_empty() && (is_usual && has_room || keeps_short);
        if self.renamed.is_none() && !is_kept {
            return self.maker.remove(segment);
        }
        let spare = self.recycle(segment)?;
        if is_usual && has_room {
            // The syncer is gone only when the log is being closed.
            let _ = self.spares.send(spare);
        } else {
            self.short.push(spare);
            self.short.sort_by_key(|spare| spare.size);
        }
        Ok(())
    }

    /// Gives the segment its new name, unless an earlier attempt did, and makes that durable.
    fn recycle(&mut self, segment: &SegmentFile) -> io::Result<Spare> {
        let spare = match self.renamed.take() {
            Some(spare) => spare,
            None => self.maker.rename(segment)?,
        };
        match self.maker.disk.sync_dir() {
            Ok(()) => Ok(spare),
            Err(error) => {
                self.renamed = Some(spare);
                Err(error)
            }
        }
    }

    /// Makes what is wanted most; `false` if nothing is.
    fn make_one(&mut self) -> io::Result<bool> {
        let larger = self.wanted.first().copied();
        if larger.is_none() && self.spares.len() >= SPARES {
            return Ok(false);
        }
        let size = larger.unwrap_or(self.maker.segment_size);
        let spare = match self.maker.make(size, &|| self.rest()) {
            Err(error) if is_full(&error) && self.short_makes_room(size)? => self.make_of_short(size)?,
            made => made?,
        };
        // The syncer is gone only when the log is being closed.
        if larger.is_some() {
            self.wanted.remove(0);
            let _ = self.larger.send(spare);
        } else {
            let _ = self.spares.send(spare);
        }
        Ok(true)
    }

    /// Whether there is room for so many bytes, but for the short spares. The next start must find one or a usual one.
    fn short_makes_room(&self, size: u64) -> io::Result<bool> {
        let is_left = self.wanted.is_empty() || !self.spares.is_empty();
        let short = bytes_of(&self.short);
        Ok(is_left && short > 0 && self.maker.room()? + short >= size)
    }

    /// Makes one in the place of the short spares. If somebody else is faster, what is left becomes a short one again.
    fn make_of_short(&mut self, size: u64) -> io::Result<Spare> {
        let short = bytes_of(&self.short);
        self.maker.give_up_all(&mut self.short)?;
        self.maker.make(size, &|| {}).or_else(|error| {
            let free = self.maker.room()?.min(short);
            self.short.extend(self.maker.make_short(free / 8 * 7)?);
            Err(error)
        })
    }

    /// Between two pieces of a spare: the log's writes share the disk with them.
    pub(crate) fn rest(&self) {
        let is_wanted = !self.wanted.is_empty() || self.spares.len() < RESERVED || self.shared.waits_for_space();
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

    /// Nobody knows which names and bytes the disk holds now. The syncer may have relied on a sync that failed here.
    fn failed(&self, error: &io::Error) {
        let path = |name: &str| self.maker.disk.path(name);
        let what = match self.needless.front() {
            Some(segment) => format!("let go of the log segment {}", path(&segment_name(segment.sequence))),
            None => format!("allocate a log segment in {}", path("")),
        };
        self.shared.fail(LogError(format!("cannot {what}: {error}; check the disk, then start the node again")));
        (self.wake)();
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
