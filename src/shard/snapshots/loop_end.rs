//! The loop's end of a snapshot worker, and how jobs get from there to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

#[cfg(test)]
use crossbeam_channel::unbounded;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use super::jobs::{Done, Job};

/// Jobs that the channel has room for.
const JOBS_MAX: usize = 1_024;
/// Boxes that there are from the start. More are made when so many jobs wait.
const BOXES: usize = 32;

/// A job on its way; or none, on its way back.
type Parcel = Box<Option<Job>>;

/// The loop's end.
#[derive(Debug)]
pub struct Snapshots {
    /// Has all of its room from the start, as have the boxes, which come back: the loop may not wait for an allocator that
    /// sorts thousands of freed pieces before it gives one of a size that it does not have ready.
    jobs: Sender<Parcel>,
    empty: Receiver<Parcel>,
    /// For which the channel has no room.
    waiting: RefCell<VecDeque<Parcel>>,
    done: Receiver<Done>,
    pub(super) hurry: Arc<AtomicBool>,
    pub(super) failure: Arc<OnceLock<String>>,
}

impl Snapshots {
    /// Gives the worker something to do.
    pub fn send(&self, job: Job) {
        let mut parcel = self.empty.try_recv().unwrap_or_default();
        *parcel = Some(job);
        self.waiting.borrow_mut().push_back(parcel);
        self.send_waiting();
    }

    /// Sends what waits, as far as the channel has room.
    fn send_waiting(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(parcel) = waiting.pop_front() {
            match self.jobs.try_send(parcel) {
                Ok(()) => {}
                Err(TrySendError::Full(parcel)) => return waiting.push_front(parcel),
                // A worker is gone only if it panicked, which was printed, or if nobody moves it: then nothing is answered.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Whether the worker is to write states down as fast as it can: the log waits for it.
    pub fn hurry(&self, hurry: bool) {
        self.hurry.store(hurry, Ordering::Relaxed);
    }

    /// The next thing that is done.
    pub fn done(&self) -> Option<Done> {
        self.send_waiting();
        self.done.try_recv().ok()
    }

    /// Whether something is done that was not fetched.
    #[must_use]
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Why the worker has ended: a sync has failed. So must the node, in one line.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// A loop's end whose jobs somebody else sees and answers.
    #[cfg(test)]
    pub(crate) fn with_ends() -> (Snapshots, Receiver<Parcel>, Sender<Done>) {
        let (done_in, done) = unbounded();
        let (loop_end, Parcels { jobs, .. }) = Snapshots::new(done);
        (loop_end, jobs, done_in)
    }

    pub(super) fn new(done: Receiver<Done>) -> (Snapshots, Parcels) {
        let (jobs, jobs_out) = bounded(JOBS_MAX);
        let (empty_in, empty) = bounded(JOBS_MAX);
        (0..BOXES).for_each(|_| _ = empty_in.try_send(Parcel::default()));
        let waiting = RefCell::new(VecDeque::with_capacity(1));
        let loop_end = Snapshots { jobs, empty, waiting, done, hurry: Arc::default(), failure: Arc::default() };
        (loop_end, Parcels { jobs: jobs_out, empty: empty_in })
    }
}

/// The worker's end of the jobs.
pub(super) struct Parcels {
    pub(super) jobs: Receiver<Parcel>,
    empty: Sender<Parcel>,
}

impl Parcels {
    pub(super) fn open(&self, mut parcel: Parcel) -> Job {
        let job = parcel.take().expect("the loop sends no empty ones");
        // More than there is room for are dropped.
        let _ = self.empty.try_send(parcel);
        job
    }

    /// The next job, which is waited for.
    pub(super) fn next(&self) -> Result<Job, TryRecvError> {
        let parcel = self.jobs.recv().map_err(|_| TryRecvError::Disconnected)?;
        Ok(self.open(parcel))
    }

    /// The next job, if there is one.
    pub(super) fn try_next(&self) -> Result<Job, TryRecvError> {
        Ok(self.open(self.jobs.try_recv()?))
    }
}
