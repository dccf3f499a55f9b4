//! The worker.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, after, never, select, unbounded};
use raftkv_protocol::types::{EntryId, ShardId, SnapshotId};

use crate::storage::Wake;
use crate::storage::snapshot::{SnapshotFile, SnapshotInfo, SnapshotReceiver, SnapshotStore};

use super::STEP_BYTES;
use super::jobs::{Done, Failure, Job};
use super::load::{Load, LoadError, Progress, set_aside};
use super::loop_end::{Parcels, Snapshots};
use super::stores::{Sound, Stores};
use super::work::{MakeRoom, Measure, Stepped, Take, Walk, Work, check};

/// Files of snapshots that are kept open for other nodes, so that one which is removed meanwhile can be fetched to its end.
const OPEN_FILES_MAX: usize = 16;
/// An open file goes when so many snapshots were taken since somebody has read from it: it may keep a disk full that was
/// removed long ago.
const OPEN_SNAPSHOTS_MAX: u32 = 16;

/// So many times faster than one is written down a state is let go of: that takes no disk and little time, only it must not
/// be much at a time.
const LET_GO_FASTER: usize = 4;
/// And so many times faster one is read: what is written meanwhile to a state that somebody reads must be put elsewhere.
const READ_FASTER: usize = 16;
/// How long a worker rests before it looks whether it is to hurry now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A worker for a core, and the core's end of it. `configuration` is what the snapshots say of the voters; `rate` is how
/// many bytes of keys and values are written down in a second at most, by a thread that need not hurry; `wake` is called
/// when something is done.
#[must_use]
pub fn snapshot_worker(stores: Stores, configuration: Vec<u8>, rate: u64, wake: Wake) -> (Snapshots, SnapshotWorker) {
    let (done_in, done) = unbounded();
    let (loop_end, jobs) = Snapshots::new(done);
    let worker = SnapshotWorker {
        stores,
        configuration,
        jobs,
        done: done_in,
        wake,
        rate,
        rest: None,
        hurry: Arc::clone(&loop_end.hurry),
        failure: Arc::clone(&loop_end.failure),
        work: VecDeque::new(),
        receiving: BTreeMap::new(),
        open: VecDeque::new(),
    };
    (loop_end, worker)
}

/// A file from which other nodes fetch.
struct OpenFile {
    shard: ShardId,
    file: SnapshotFile,
    /// When somebody has read from it.
    sound: Sound,
    /// Snapshots that were taken since.
    age: u32,
}

/// See the module.
pub struct SnapshotWorker {
    stores: Stores,
    configuration: Vec<u8>,
    jobs: Parcels,
    done: Sender<Done>,
    wake: Wake,
    /// Bytes of a state that a thread writes down in a second, unless it is to hurry. Puts share disk and cores with it:
    /// without a rest they would wait for it, and it is wanted some time, not soon.
    rate: u64,
    /// Comes at the end of a rest. Until then nothing is written down, whatever else is done, unless it is to hurry.
    rest: Option<Receiver<Instant>>,
    hurry: Arc<AtomicBool>,
    failure: Arc<OnceLock<String>>,
    /// Long jobs. They take turns.
    work: VecDeque<Work>,
    receiving: BTreeMap<ShardId, SnapshotReceiver>,
    /// The latest used last.
    open: VecDeque<OpenFile>,
}

/// How soon a worker is to be done, see [`Snapshots::hurry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When nobody else wants disk and processors.
    Steady,
    /// As soon as it can.
    Hurried,
}

/// How long a step of a worker may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A piece is read or written.
    Short,
    /// A part of a long job.
    Long,
}

impl SnapshotWorker {
    /// Works at this pace. Returns the worker when it is to go on at the other one; `None` when the loop is gone, or to go.
    #[must_use]
    pub fn run(mut self, pace: Pace) -> Option<SnapshotWorker> {
        while !self.has_failed() && self.pace() == pace {
            let may_write = pace == Pace::Hurried || self.has_rested();
            let next = self.work.iter().position(|work| may_write || !work.is_paced());
            let job = match next {
                Some(_) => self.jobs.try_next(),
                None if self.work.is_empty() => self.jobs.next(),
                None => self.next_while_resting(),
            };
            match (job, next) {
                (Ok(job), _) => self.begin(job),
                (Err(TryRecvError::Disconnected), _) => return None,
                (Err(TryRecvError::Empty), next) => {
                    let written = next.map_or(0, |next| self.step(next));
                    if written > 0 {
                        self.rest = Some(after(Duration::from_secs_f64(written as f64 / self.rate as f64)));
                    }
                }
            }
        }
        self.failure.get().is_none().then_some(self)
    }

    /// Whether a sync has failed. The next one would prove nothing: the node is to end, and nothing more is done here.
    fn has_failed(&self) -> bool {
        let Some(words) = self.stores.failed_sync() else { return false };
        if self.failure.set(format!("{words}; check the disk, then start the node again")).is_ok() {
            (self.wake)();
        }
        true
    }

    fn pace(&self) -> Pace {
        if self.hurry.load(Ordering::Relaxed) { Pace::Hurried } else { Pace::Steady }
    }

    fn has_rested(&mut self) -> bool {
        if self.rest.as_ref().is_some_and(|end| end.try_recv().is_ok()) {
            self.rest = None;
        }
        self.rest.is_none()
    }

    /// The next job, if one comes before the rest is over, or it is time to look whether it is.
    fn next_while_resting(&mut self) -> Result<Job, TryRecvError> {
        let end = self.rest.take().unwrap_or_else(never);
        let job = select! {
            recv(self.jobs.jobs) -> parcel => match parcel {
                Ok(parcel) => Ok(self.jobs.open(parcel)),
                Err(_) => Err(TryRecvError::Disconnected),
            },
            recv(end) -> _ => return Err(TryRecvError::Empty),
            default(LOOK_AGAIN) => Err(TryRecvError::Empty),
        };
        self.rest = Some(end);
        job
    }

    /// What it would do next.
    fn next_effort(&self) -> Option<Effort> {
        match (self.jobs.jobs.is_empty(), self.work.is_empty()) {
            _ if self.has_failed() => None,
            (false, _) => Some(Effort::Short),
            (true, false) => Some(Effort::Long),
            (true, true) => None,
        }
    }

    /// Does something, if there is something to do.
    fn work(&mut self) {
        match self.jobs.try_next() {
            _ if self.has_failed() => {}
            Ok(job) => self.begin(job),
            Err(_) if self.work.is_empty() => {}
            // Nobody waits for whoever is moved by hand.
            Err(_) => drop(self.step(0)),
        }
    }

    /// Does a short job; puts a long one behind the others.
    fn begin(&mut self, job: Job) {
        match job {
            Job::Take { shard, state, is_full: true } => {
                self.work.push_back(Work::Measure(shard, Measure::begin(&self.configuration, state, None)));
            }
            Job::Take { shard, state, is_full: false } => {
                let begun = self.in_store(shard, |store, voters| Take::begin(shard, store, voters, state, false));
                self.note(begun);
            }
            Job::Read { piece_for, shard, id, offset, length_max } => {
                let piece = self.read(shard, id, offset, length_max);
                self.tell(Done::Piece { piece_for, shard, id, offset, piece });
            }
            Job::Receive { shard, meta } => {
                let info = SnapshotInfo { id: meta.id, at: meta.at, bytes: meta.bytes };
                // Whatever was received of another one is let go first.
                self.receiving.remove(&shard);
                if self.stores.get(shard).is_some_and(|store| store.info(meta.at).is_ok_and(|found| found == info)) {
                    // All that is missing is that it is loaded: the disk did not give it the last time.
                    return self.tell(Done::Received { shard, id: meta.id, upto: meta.bytes });
                }
                match self.store(shard).and_then(|store| Ok(store.receive(info)?)) {
                    Ok(receiver) => {
                        self.receiving.insert(shard, receiver);
                        self.work.push_back(Work::Resume(shard, meta.id));
                    }
                    Err(failure) => self.tell(Done::NotInstalled { shard, id: meta.id, failure }),
                }
            }
            Job::Write { shard, id, offset, bytes } => self.write(shard, id, offset, &bytes),
            Job::Install { shard, id } => match self.publish(shard, id) {
                Ok(load) => self.work.push_back(Work::Load(shard, id, load)),
                Err(failure) => self.tell(Done::NotInstalled { shard, id, failure }),
            },
            Job::Reload { shard, meta } => {
                let begun = match self.store(shard) {
                    Ok(store) => match Load::begin(store, meta.at) {
                        Ok(load) => Stepped::More(Work::Reload(shard, meta.id, load)),
                        Err(error) => self.not_reloaded(shard, meta.id, error),
                    },
                    Err(failure) => Stepped::Done(Done::NotReloaded { shard, failure }),
                };
                self.note(begun);
            }
            // The file stays until there is another snapshot: the same may be offered again.
            Job::Abandon { shard, id } => drop(self.take_receiver(shard, id)),
            Job::SetAside { shard, meta } => {
                self.condemn(shard, meta.id);
                if let Some(store) = self.stores.get(shard) {
                    set_aside(store, meta.at);
                }
            }
            Job::Scrub { shard, state } => self.work.push_back(Work::Scrub(shard, Walk::new(state))),
            Job::LetGo(remains) => self.work.push_back(Work::LetGo(remains)),
        }
    }

    /// A step of the long job with this number. The bytes of keys and values after which a thread rests.
    fn step(&mut self, number: usize) -> usize {
        let Some(work) = self.work.remove(number) else { return 0 };
        let is_paced = work.is_paced();
        let mut spent = 0;
        let stepped = match work {
            Work::Resume(shard, id) => self.resume(shard, id),
            Work::Load(shard, id, load) => self.load(shard, id, load),
            Work::Reload(shard, id, load) => self.reload(shard, id, load),
            Work::Take(shard, take) => take.step(shard, &mut spent),
            Work::Measure(shard, measure) => {
                self.in_store(shard, |store, voters| measure.step(shard, store, voters, &mut spent))
            }
            Work::MakeRoom(shard, room) => self.make_room(shard, room, &mut spent),
            Work::Check(shard, reader) => check(shard, reader, &self.stores, &mut spent),
            Work::Scrub(shard, walk) => {
                let mut read = 0;
                let stepped = walk.scrub(shard, &mut read);
                spent += read / READ_FASTER;
                stepped
            }
            Work::LetGo(mut remains) => match remains.let_go_some(STEP_BYTES) {
                Some(bytes) => {
                    spent += bytes / LET_GO_FASTER;
                    Stepped::More(Work::LetGo(remains))
                }
                None => Stepped::Ended,
            },
        };
        self.note(stepped);
        if is_paced { spent } else { 0 }
    }

    /// What has come of a step.
    fn note(&mut self, stepped: Stepped) {
        match stepped {
            Stepped::More(work) => self.work.push_back(work),
            Stepped::NoRoom(shard, state, failure) => {
                let measure = Measure::begin(&self.configuration, state, Some(failure));
                self.work.push_back(Work::Measure(shard, measure));
            }
            Stepped::Over(done, remains) => {
                self.note(Stepped::Done(done));
                self.work.push_back(Work::LetGo(remains));
            }
            Stepped::Done(done) => {
                match done {
                    Done::Rotten { shard, id } => self.condemn(shard, id),
                    Done::Taken { .. } => self.age_open_files(),
                    _ => {}
                }
                self.tell(done);
            }
            Stepped::Ended => {}
        }
    }

    /// A step of what becomes a snapshot of this node, with the directory and the voters.
    fn in_store(&self, shard: ShardId, step: impl FnOnce(&SnapshotStore, &[u8]) -> Stepped) -> Stepped {
        match self.store(shard) {
            Ok(store) => step(store, &self.configuration),
            Err(failure) => Stepped::Done(Done::NotTaken { shard, failure }),
        }
    }

    /// Makes room for a state, as far as one step goes.
    fn make_room(&mut self, shard: ShardId, room: MakeRoom, spent: &mut usize) -> Stepped {
        let oldest = room.oldest();
        let stepped = self.in_store(shard, |store, voters| room.step(shard, store, voters, spent));
        if matches!(stepped, Stepped::More(Work::Take(..))) {
            // It is written over in the next step: whoever fetches it gets no more of it.
            self.condemn(shard, oldest);
        }
        stepped
    }

    fn tell(&self, done: Done) {
        if self.has_failed() {
            return;
        }
        // The loop may be gone already; then nobody waits for the answer.
        let _ = self.done.send(done);
        (self.wake)();
    }

    fn store(&self, shard: ShardId) -> Result<&SnapshotStore, Failure> {
        self.stores.get(shard).ok_or_else(|| Failure::Failed(format!("there is no shard {shard}")))
    }

    /// The size of a snapshot's file, and a piece of it.
    fn read(&mut self, shard: ShardId, id: SnapshotId, offset: u64, length_max: usize) -> Option<(u64, Vec<u8>)> {
        let file = self.open(shard, id)?;
        let total = file.info().bytes;
        let length = usize::try_from(total.checked_sub(offset)?).unwrap_or(usize::MAX).min(length_max);
        let mut bytes = vec![0; length];
        let read = file.read(offset, &mut bytes);
        if offset + length as u64 == total {
            // Whoever fetches has all of it now, or most of it.
            self.open.pop_back();
        }
        match read {
            Ok(read) if read == length => Some((total, bytes)),
            Ok(_) => None,
            Err(error) => {
                log::warn!("shard {shard}: {error}");
                None
            }
        }
    }

    /// The file of a snapshot. It stays open for a while, as more of it will be asked for.
    fn open(&mut self, shard: ShardId, id: SnapshotId) -> Option<&SnapshotFile> {
        let Some(sound) = self.stores.sound(shard, id) else {
            self.close(shard, id);
            return None;
        };
        let known = self.open.iter().position(|open| open.shard == shard && open.file.info().id == id);
        let file = match known.and_then(|at| self.open.remove(at)) {
            Some(open) if self.stores.remembers(open.sound) => open.file,
            // It may be one of those that were condemned.
            _ => self.open_anew(shard, id)?,
        };
        if self.open.len() == OPEN_FILES_MAX {
            self.open.pop_front();
        }
        self.open.push_back(OpenFile { shard, file, sound, age: 0 });
        self.open.back().map(|open| &open.file)
    }

    /// Nobody gets any more of a snapshot.
    fn condemn(&mut self, shard: ShardId, id: SnapshotId) {
        self.stores.condemn(shard, id);
        self.close(shard, id);
    }

    fn close(&mut self, shard: ShardId, id: SnapshotId) {
        self.open.retain(|open| open.shard != shard || open.file.info().id != id);
    }

    /// A snapshot was taken.
    fn age_open_files(&mut self) {
        self.open.iter_mut().for_each(|open| open.age += 1);
        self.open.retain(|open| open.age <= OPEN_SNAPSHOTS_MAX);
    }

    /// Opens the file of a snapshot, and sees to it that all of it is looked at.
    fn open_anew(&mut self, shard: ShardId, id: SnapshotId) -> Option<SnapshotFile> {
        let store = self.stores.get(shard)?;
        let found = store.find(id).and_then(|file| match file {
            Some(file) => Ok(Some((store.read(file.info().at)?, file))),
            None => Ok(None),
        });
        match found {
            Ok(Some((reader, file))) => {
                self.work.push_back(Work::Check(shard, Box::new(reader)));
                Some(file)
            }
            Ok(None) => {
                if store.has_unnamed().unwrap_or(false) {
                    // If it is this one, the shard takes another; if not, it has none of this name any more.
                    self.note(Stepped::Done(Done::Rotten { shard, id }));
                }
                None
            }
            Err(error) => {
                log::warn!("shard {shard}: {error}");
                None
            }
        }
    }

    fn take_receiver(&mut self, shard: ShardId, id: SnapshotId) -> Option<SnapshotReceiver> {
        let is_same = self.receiving.get(&shard).is_some_and(|receiver| receiver.info().id == id);
        if is_same { self.receiving.remove(&shard) } else { None }
    }

    /// Looks at a part of what an earlier process has received.
    fn resume(&mut self, shard: ShardId, id: SnapshotId) -> Stepped {
        let Some(receiver) = self.receiving.get_mut(&shard).filter(|receiver| receiver.info().id == id) else {
            return Stepped::Ended;
        };
        match receiver.resume() {
            Ok(None) => Stepped::More(Work::Resume(shard, id)),
            Ok(Some(upto)) => Stepped::Done(Done::Received { shard, id, upto }),
            Err(error) => {
                self.receiving.remove(&shard);
                Stepped::Done(Done::NotInstalled { shard, id, failure: error.into() })
            }
        }
    }

    fn write(&mut self, shard: ShardId, id: SnapshotId, offset: u64, bytes: &[u8]) {
        let Some(receiver) = self.receiving.get_mut(&shard).filter(|receiver| receiver.info().id == id) else { return };
        match receiver.write(offset, bytes) {
            Ok(()) => self.tell(Done::Received { shard, id, upto: offset + bytes.len() as u64 }),
            Err(error) => {
                self.receiving.remove(&shard);
                self.tell(Done::NotInstalled { shard, id, failure: error.into() });
            }
        }
    }

    /// All of a snapshot is there: makes it durable under its name.
    fn publish(&mut self, shard: ShardId, id: SnapshotId) -> Result<Box<Load>, Failure> {
        let receiver = self.take_receiver(shard, id);
        let store = self.store(shard)?;
        let at = match receiver {
            Some(receiver) => receiver.finish()?.at,
            None => {
                let published = store.find(id)?;
                published.ok_or_else(|| Failure::Failed(format!("nothing was received of snapshot {id}")))?.info().at
            }
        };
        self.stores.acquit(shard, id);
        Load::begin(store, at).map_err(|error| self.not_loaded(shard, at, error))
    }

    /// A snapshot is durable under its name, and cannot be loaded. If that is the disk's fault it is loaded another time;
    /// else the next start must not find it.
    fn not_loaded(&self, shard: ShardId, at: EntryId, error: LoadError) -> Failure {
        if !error.is_of_disk()
            && let Some(store) = self.stores.get(shard)
        {
            set_aside(store, at);
        }
        error.into()
    }

    fn load(&mut self, shard: ShardId, id: SnapshotId, load: Box<Load>) -> Stepped {
        let at = load.at();
        match load.step() {
            Ok(Progress::More(load)) => Stepped::More(Work::Load(shard, id, load)),
            Ok(Progress::Whole(loaded)) => Stepped::Done(Done::Installed { shard, loaded }),
            Err(error) => {
                let failure = self.not_loaded(shard, at, error);
                Stepped::Done(Done::NotInstalled { shard, id, failure })
            }
        }
    }

    fn reload(&mut self, shard: ShardId, id: SnapshotId, load: Box<Load>) -> Stepped {
        match load.step() {
            Ok(Progress::More(load)) => Stepped::More(Work::Reload(shard, id, load)),
            Ok(Progress::Whole(loaded)) => Stepped::Done(Done::Reloaded { shard, loaded }),
            Err(error) => self.not_reloaded(shard, id, error),
        }
    }

    /// A snapshot of this node cannot be loaded.
    fn not_reloaded(&self, shard: ShardId, id: SnapshotId, error: LoadError) -> Stepped {
        if error.is_of_disk() {
            return Stepped::Done(Done::NotReloaded { shard, failure: error.into() });
        }
        log::warn!("shard {shard}: {error}");
        Stepped::Done(Done::Rotten { shard, id })
    }
}

impl fmt::Debug for SnapshotWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWorker").field("work", &self.work.len()).finish_non_exhaustive()
    }
}

/// A worker without a thread, for simulations: it does one step when it is told, answers and wakes the loop before the
/// call returns. Clones move the same worker.
#[derive(Clone, Debug)]
pub struct SnapshotHands(Arc<Mutex<SnapshotWorker>>);

impl SnapshotHands {
    /// Hands for a worker.
    #[must_use]
    pub fn new(worker: SnapshotWorker) -> SnapshotHands {
        SnapshotHands(Arc::new(Mutex::new(worker)))
    }

    fn worker(&self) -> MutexGuard<'_, SnapshotWorker> {
        // Whoever caught the panic of a worker may go on to look at the others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it would do next; `None` if there is nothing to do.
    #[must_use]
    pub fn next_effort(&self) -> Option<Effort> {
        self.worker().next_effort()
    }

    /// Does it.
    pub fn work(&self) {
        self.worker().work();
    }
}
