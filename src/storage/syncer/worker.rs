//! Who feeds a [`Syncer`] with what the loop asks for: a thread of its own, the loop, or hands.

use std::io;
use std::ops::ControlFlow;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use raftkv_protocol::types::{HardState, ShardId};

use super::{Place, Syncer};
use crate::storage::batch::Batch;
use crate::storage::spares::{Pool, Purpose};
use crate::storage::tip::Start;
use crate::storage::{IDLE, LogError, Wake};

/// What need not wait for the batch that is being placed, or that waits for a place.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Nothing before these is needed any more. Nothing is written for it, unless the disk is full and that sets space
    /// free.
    pub(crate) starts: Vec<Start>,
    /// Terms and votes of batches that are not placed.
    pub(crate) hard_states: Vec<(ShardId, HardState)>,
}

/// What the loop asks of the syncer.
pub(crate) enum Job {
    /// Make this durable.
    Batch(Batch),
    /// Take note of this, also while a batch waits. It is answered when it has hard states and they are durable, unless
    /// the batches that hold them are first.
    Ahead(Ahead),
    /// A clean stop: prove what was written, then end.
    Stop,
}

/// What the syncer has done.
pub(crate) enum Done {
    /// The batch is durable there.
    Placed(Batch, Place),
    /// These are durable, ahead of the batches that hold them.
    WentAhead(Vec<(ShardId, HardState)>),
}

/// What the syncer answers.
pub(crate) type Answer = Result<Done, LogError>;

/// A [`Syncer`] at work: takes jobs, answers them and wakes the loop.
pub(in crate::storage) struct SyncerWorker {
    syncer: Syncer,
    spares: Pool,
    jobs: Receiver<Job>,
    done: Sender<Answer>,
    wake: Wake,
    /// What is to go ahead of the batch that waits for a place.
    ahead: Vec<(ShardId, HardState)>,
}

impl SyncerWorker {
    /// Works until it is told to stop, or the loop is gone.
    fn run(mut self) {
        loop {
            let job = match self.needs_watermark() {
                true => self.jobs.recv_timeout(IDLE),
                false => self.jobs.recv().map_err(Into::into),
            };
            match job {
                Ok(job) => {
                    if self.wait_for_place(&job).is_break() || self.work(job).is_break() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.prove(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Waits until the job can be done, and does meanwhile what need not wait. Breaks if the log is closed.
    fn wait_for_place(&mut self, job: &Job) -> ControlFlow<()> {
        let mut is_told = false;
        while !self.can_work(job) {
            self.retry_ahead();
            if !std::mem::replace(&mut is_told, true) {
                // The loop may have something that need not wait.
                (self.wake)();
            }
            select! {
                recv(self.spares.attempts()) -> attempted => if attempted.is_err() {
                    self.answer(Err(LogError("the log was closed while a batch waited for space".to_owned())));
                    return ControlFlow::Break(());
                },
                recv(self.jobs) -> job => match job {
                    Ok(Job::Ahead(ahead)) => self.note_ahead(ahead),
                    // One batch at a time comes, and the log does not stop before it is placed.
                    Ok(Job::Batch(_) | Job::Stop) | Err(_) => return ControlFlow::Break(()),
                },
                recv(self.idle()) -> _ => self.prove(),
            }
        }
        ControlFlow::Continue(())
    }

    /// Tells when it is time for a watermark, if nothing else comes before.
    fn idle(&self) -> Receiver<Instant> {
        if self.needs_watermark() { crossbeam_channel::after(IDLE) } else { crossbeam_channel::never() }
    }

    /// The next job, if one waits.
    pub(in crate::storage) fn next(&self) -> Option<Job> {
        self.jobs.try_recv().ok()
    }

    /// Whether the job can be done without waiting for space. While it cannot, the log says so.
    pub(in crate::storage) fn can_work(&mut self, job: &Job) -> bool {
        let Job::Batch(batch) = job else { return true };
        let purpose = if batch.has_records() { Purpose::Entries } else { Purpose::HardStates };
        let wanted = self.syncer.spare_wanted(batch, &self.spares);
        self.spares.is_ready(wanted, purpose)
    }

    /// Does a job; breaks after the last.
    pub(in crate::storage) fn work(&mut self, job: Job) -> ControlFlow<()> {
        match job {
            Job::Batch(mut batch) => {
                let placed = self.syncer.place_and_sync(&mut batch, &mut self.spares);
                // What did not get ahead of it comes with it, or with the next.
                self.ahead.clear();
                self.answer(placed.map(|place| Done::Placed(batch, place)));
                self.make_space(Rolling::ForMoreThanItTakes);
                ControlFlow::Continue(())
            }
            Job::Ahead(ahead) => {
                self.syncer.begin_after(&ahead.starts);
                self.make_space(Rolling::ForMoreThanItTakes);
                ControlFlow::Continue(())
            }
            Job::Stop => {
                self.prove();
                ControlFlow::Break(())
            }
        }
    }

    /// Takes note of what need not wait for the batch that has no place.
    pub(in crate::storage) fn note_ahead(&mut self, Ahead { starts, hard_states }: Ahead) {
        self.syncer.begin_after(&starts);
        self.make_space(Rolling::ForWhatItTakes);
        self.ahead.retain(|(shard, _)| hard_states.iter().all(|(later, _)| later != shard));
        self.ahead.extend(hard_states);
        self.retry_ahead();
    }

    /// Whether terms and votes wait that can go ahead of the batch that has no place.
    pub(in crate::storage) fn can_go_ahead(&mut self) -> bool {
        !self.ahead.is_empty() && self.syncer.can_go_ahead(&self.ahead, &self.spares)
    }

    /// Lets terms and votes go ahead, if they can.
    pub(in crate::storage) fn retry_ahead(&mut self) {
        if self.can_go_ahead() {
            let hard_states = std::mem::take(&mut self.ahead);
            let gone = self.syncer.go_ahead(&hard_states, &mut self.spares);
            self.answer(gone.map(|()| Done::WentAhead(hard_states)));
        }
    }

    /// While only the reserve is left, little is written, and the next segment may never begin. So what is known is restated
    /// for no other reason than to set segments free: in the current one, or in a new one that sets more free than it
    /// takes, or as much if a batch waits for it.
    fn make_space(&mut self, rolling: Rolling) {
        if !self.spares.is_low() || !self.syncer.has_needless() {
            return;
        }
        let made = match self.syncer.restate(&mut self.spares) {
            Ok(false) if self.pays_to_roll(rolling) => self.syncer.roll(&mut self.spares),
            restated => restated.map(drop),
        };
        if let Err(error) = made {
            self.answer(Err(error));
        }
    }

    fn pays_to_roll(&mut self, rolling: Rolling) -> bool {
        let segments = match rolling {
            Rolling::ForMoreThanItTakes => 2,
            Rolling::ForWhatItTakes => 1,
        };
        self.syncer.needless_bytes() >= segments * self.spares.segment_size()
            && self.syncer.roll_bytes().is_some_and(|bytes| self.spares.has(bytes))
    }

    /// Waits until there may be space for the job that cannot be done, though not for long.
    pub(in crate::storage) fn await_space(&self, patience: Duration) {
        self.spares.await_one(patience);
    }

    pub(in crate::storage) fn needs_watermark(&self) -> bool {
        self.syncer.needs_watermark()
    }

    /// Writes a watermark if the last batch needs one.
    pub(in crate::storage) fn prove(&mut self) {
        if self.needs_watermark()
            && let Err(error) = self.syncer.watermark()
        {
            self.answer(Err(error));
        }
    }

    fn answer(&self, answer: Answer) {
        // The loop may be gone already; then nobody waits for the answer.
        let _ = self.done.send(answer);
        (self.wake)();
    }
}

/// When a segment is begun for nothing but to set others free.
#[derive(Clone, Copy, Debug)]
enum Rolling {
    /// If that sets free more than one.
    ForMoreThanItTakes,
    /// If that sets one free: it has room at its beginning, for whoever waits.
    ForWhatItTakes,
}

/// The loop's side of a [`SyncerWorker`]. If that has a thread, it ends when this is dropped, or after [`Job::Stop`].
pub(in crate::storage) struct SyncerHandle {
    jobs: Option<Sender<Job>>,
    done: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl SyncerHandle {
    pub(in crate::storage) fn new(syncer: Syncer, spares: Pool, wake: Wake) -> (SyncerHandle, SyncerWorker) {
        let (jobs, jobs_out) = unbounded();
        let (done_in, done) = unbounded();
        let worker = SyncerWorker { syncer, spares, jobs: jobs_out, done: done_in, wake, ahead: Vec::new() };
        (SyncerHandle { jobs: Some(jobs), done, thread: None }, worker)
    }

    /// Gives the worker a thread.
    pub(in crate::storage) fn spawn(&mut self, worker: SyncerWorker) -> io::Result<()> {
        let thread = thread::Builder::new().name("log-syncer".to_owned()).spawn(move || worker.run())?;
        self.thread = Some(thread);
        Ok(())
    }

    pub(in crate::storage) fn send(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the channel is closed only on drop");
        // If the worker is gone, the closed channel of its answers says so.
        let _ = jobs.send(job);
    }

    /// The answers, one for each batch, besides those for what went ahead; after a failure, that.
    pub(in crate::storage) fn done(&self) -> &Receiver<Answer> {
        &self.done
    }

    pub(in crate::storage) fn join(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl Drop for SyncerHandle {
    fn drop(&mut self) {
        self.join();
    }
}
