//! A log's workers without threads: for simulations, in which nothing happens by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::reader::ReaderWorker;
use super::spares::{AllocatorWorker, Attempt, RETRY_AFTER};
use super::stepped::{InlineSyncer, SteppedSyncer};
use super::syncer::SyncerWorker;
use super::{IDLE, LogSync};

/// The workers of one log.
pub(super) struct Crew {
    pub(super) syncer: SyncerWorker,
    pub(super) allocator: AllocatorWorker,
    pub(super) reader: ReaderWorker,
}

/// What is moved by hand.
struct Hands {
    /// `None` if the loop itself moves it.
    syncer: Option<SteppedSyncer>,
    allocator: AllocatorWorker,
    reader: ReaderWorker,
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

    /// All of them; the syncer too, unless the loop is to move it itself: then that comes beside them.
    pub(super) fn new(crew: Crew, sync: LogSync) -> (Workers, Option<InlineSyncer>) {
        let Crew { syncer, allocator, reader } = crew;
        let (syncer, inline) = match sync {
            LogSync::Thread => (Some(SteppedSyncer::new(syncer)), None),
            LogSync::Inline => (None, Some(InlineSyncer::new(syncer))),
        };
        (Workers(Arc::new(Mutex::new(Hands { syncer, allocator, reader }))), inline)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        // Whoever caught the panic of a worker may go on to look at the others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch waits and there is space for it, or what need not wait for that: terms and votes, a note of what is no
    /// longer needed. A batch that lacks space is seen in [`FileLog::waits_for_space`](super::FileLog::waits_for_space) from
    /// then on.
    #[must_use]
    pub fn can_sync(&self) -> bool {
        self.hands().syncer.as_mut().is_some_and(SteppedSyncer::can_sync)
    }

    /// Places a batch, makes it durable and answers; or answers the failure, which is final. Or takes the note.
    pub fn sync(&self) {
        if let Some(syncer) = &mut self.hands().syncer {
            syncer.sync();
        }
    }

    /// Whether the last batch is not proved durable and no other waits, unless for space.
    #[must_use]
    pub fn can_prove(&self) -> bool {
        self.hands().syncer.as_mut().is_some_and(SteppedSyncer::can_prove)
    }

    /// Proves the last batch with a watermark, as the thread does after [`Workers::PROVE_AFTER`].
    pub fn prove(&self) {
        if let Some(syncer) = &mut self.hands().syncer {
            syncer.prove();
        }
    }

    /// Whether a spare is to be made, or a segment let go.
    #[must_use]
    pub fn can_allocate(&self) -> bool {
        self.hands().allocator.wants()
    }

    /// Lets a segment go or makes a spare. `false` if the disk has no room, then the thread would try again after
    /// [`Workers::RETRY_AFTER`], or if it has failed now, which is final.
    pub fn allocate(&self) -> bool {
        let allocator = &mut self.hands().allocator;
        !allocator.wants() || matches!(allocator.attempt(), Attempt::Done | Attempt::NoneWanted)
    }

    /// Whether a fetch waits.
    #[must_use]
    pub fn can_read(&self) -> bool {
        self.hands().reader.can_work()
    }

    /// Answers a fetch.
    pub fn read(&self) {
        let reader = &mut self.hands().reader;
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
