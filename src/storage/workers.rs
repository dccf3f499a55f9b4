//! A log's workers without threads: for simulations, in which nothing happens by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::IDLE;
use super::reader::ReaderWorker;
use super::spares::{AllocatorWorker, Attempt, RETRY_AFTER};
use super::syncer::{Job, SyncerWorker};

/// The workers of one log.
pub(super) struct Crew {
    pub(super) syncer: SyncerWorker,
    pub(super) allocator: AllocatorWorker,
    pub(super) reader: ReaderWorker,
}

struct Hands {
    crew: Crew,
    /// What the syncer does next, taken from its channel to look at it.
    job: Option<Job>,
    /// The syncer was told to stop and did.
    stopped: bool,
}

impl Hands {
    fn peek(&mut self) {
        if self.job.is_none() && !self.stopped {
            self.job = self.crew.syncer.next();
        }
    }

    fn can_sync(&mut self) -> bool {
        self.peek();
        let Hands { crew, job, .. } = self;
        job.as_ref().is_some_and(|job| crew.syncer.can_work(job))
    }

    fn sync(&mut self) {
        if self.can_sync()
            && let Some(job) = self.job.take()
        {
            self.stopped = self.crew.syncer.work(job).is_break();
        }
    }

    fn can_prove(&mut self) -> bool {
        self.peek();
        self.job.is_none() && !self.stopped && self.crew.syncer.needs_watermark()
    }
}

/// The workers of a log that was opened by [`FileLog::open_by_hand`](super::FileLog::open_by_hand): each does one step when it is told, the same that
/// its thread would do, and answers and wakes the loop before the call returns. Clones move the same workers.
///
/// A step that cannot be done does nothing. [`Options::wake`](super::Options::wake) must not move workers itself.
#[derive(Clone)]
pub struct Workers(Arc<Mutex<Hands>>);

impl Workers {
    /// How long a syncer with nothing to do waits before it proves what it synced last.
    pub const PROVE_AFTER: Duration = IDLE;
    /// How long an allocator that was refused waits before it tries again, unless a spare is taken meanwhile.
    pub const RETRY_AFTER: Duration = RETRY_AFTER;

    pub(super) fn new(crew: Crew) -> Workers {
        Workers(Arc::new(Mutex::new(Hands { crew, job: None, stopped: false })))
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        // Whoever caught the panic of a worker may go on to look at the others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch waits and there is space for it, or a note of what is no longer needed. A batch that lacks space is
    /// seen in [`FileLog::waits_for_space`](super::FileLog::waits_for_space) from then on.
    #[must_use]
    pub fn can_sync(&self) -> bool {
        self.hands().can_sync()
    }

    /// Places a batch, makes it durable and answers; or answers the failure, which is final. Or takes the note.
    pub fn sync(&self) {
        self.hands().sync();
    }

    /// Whether the last batch is not proved durable and no other waits.
    #[must_use]
    pub fn can_prove(&self) -> bool {
        self.hands().can_prove()
    }

    /// Proves the last batch with a watermark, as the thread does after [`Workers::PROVE_AFTER`].
    pub fn prove(&self) {
        let mut hands = self.hands();
        if hands.can_prove() {
            hands.crew.syncer.prove();
        }
    }

    /// Whether a spare is to be made, or a segment let go.
    #[must_use]
    pub fn can_allocate(&self) -> bool {
        self.hands().crew.allocator.wants()
    }

    /// Lets a segment go or makes a spare. `false` if the disk has no room: then the thread would try again after
    /// [`Workers::RETRY_AFTER`].
    pub fn allocate(&self) -> bool {
        let allocator = &mut self.hands().crew.allocator;
        !allocator.wants() || allocator.attempt() != Attempt::Refused
    }

    /// Whether a fetch waits.
    #[must_use]
    pub fn can_read(&self) -> bool {
        self.hands().crew.reader.can_work()
    }

    /// Answers a fetch.
    pub fn read(&self) {
        let reader = &mut self.hands().crew.reader;
        if let Some(job) = reader.next() {
            reader.work(&job);
        }
    }

    /// A step towards the next answer of the syncer.
    pub(super) fn sync_or_allocate(&self) {
        if self.can_sync() {
            self.sync();
        } else {
            self.allocate();
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}
