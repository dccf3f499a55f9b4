//! A syncer without a thread, which does one step when it is told.

use super::IDLE;
use super::syncer::{Ahead, Job, SyncerWorker};

use std::time::{Duration, Instant};

/// See the module.
pub(super) struct SteppedSyncer {
    worker: SyncerWorker,
    /// What it does next, taken from its channel to look at it.
    job: Option<Job>,
    /// What it does before that, as that waits for a place.
    ahead: Option<Ahead>,
    /// It was told to stop and did.
    stopped: bool,
}

impl SteppedSyncer {
    pub(super) fn new(worker: SyncerWorker) -> SteppedSyncer {
        SteppedSyncer { worker, job: None, ahead: None, stopped: false }
    }

    fn peek(&mut self) {
        if self.job.is_none() && !self.stopped {
            self.job = self.worker.next();
        }
    }

    /// Whether a job waits and there is space for it, or something that need not wait for that. While there is none, the
    /// log says so.
    pub(super) fn can_sync(&mut self) -> bool {
        self.peek();
        let Some(job) = &self.job else { return false };
        if self.worker.can_work(job) {
            return true;
        }
        if self.ahead.is_none()
            && let Some(Job::Ahead(ahead)) = self.worker.next()
        {
            self.ahead = Some(ahead);
        }
        self.ahead.is_some() || self.worker.can_go_ahead()
    }

    /// Does the job that waits, if it can be done, or what need not wait for it. Whether anything was done.
    pub(super) fn sync(&mut self) -> bool {
        if !self.can_sync() {
            return false;
        }
        if let Some(ahead) = self.ahead.take() {
            self.worker.note_ahead(ahead);
        } else if let Some(job) = self.job.take_if(|job| self.worker.can_work(job)) {
            self.stopped = self.worker.work(job).is_break();
        } else {
            self.worker.retry_ahead();
        }
        true
    }

    /// Whether the last batch is not proved durable and there is nothing to do.
    pub(super) fn can_prove(&mut self) -> bool {
        !self.stopped && self.worker.needs_watermark() && !self.can_sync()
    }

    /// Proves the last batch with a watermark, if that is to be done.
    pub(super) fn prove(&mut self) {
        if self.can_prove() {
            self.worker.prove();
        }
    }
}

/// A log's syncer on the loop itself: with [`LogSync::Inline`](super::LogSync::Inline) it does at the end of a turn what
/// its thread would do meanwhile.
pub(super) struct InlineSyncer {
    syncer: SteppedSyncer,
    /// When the last batch is to be proved, if nothing comes before.
    prove_at: Option<Instant>,
}

impl InlineSyncer {
    pub(super) fn new(worker: SyncerWorker) -> InlineSyncer {
        InlineSyncer { syncer: SteppedSyncer::new(worker), prove_at: None }
    }

    /// Does what waits, as far as there is space for it, or proves a log that has been idle. Whether there was anything.
    pub(super) fn work(&mut self, now: Instant) -> bool {
        let worked = self.sync_all();
        if worked || !self.syncer.can_prove() {
            self.prove_at = None;
            return worked;
        }
        let is_due = *self.prove_at.get_or_insert(now + IDLE) <= now;
        if is_due {
            self.prove_at = None;
            self.syncer.prove();
        }
        is_due
    }

    /// Does what waits, as far as there is space for it. Whether there was anything.
    pub(super) fn sync_all(&mut self) -> bool {
        let mut any = false;
        while self.syncer.sync() {
            any = true;
        }
        any
    }

    /// When there is something to do although nothing has come.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.prove_at
    }

    /// Waits until there may be space for what waits, though not for long.
    pub(super) fn await_space(&self, patience: Duration) {
        self.syncer.worker.await_space(patience);
    }
}
