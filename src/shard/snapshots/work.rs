//! Long jobs, a step at a time.

use std::convert::Infallible;

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{ShardId, SnapshotId};

use crate::state_machine::state_hash::{FORMAT, ItemsHash};
use crate::state_machine::{Remains, Snapshot};
use crate::storage::snapshot::{
    FileLength, Item, SnapshotError, SnapshotInfo, SnapshotReader, SnapshotStore, SnapshotWriter,
};

use super::jobs::{Done, Failure};
use super::load::{Load, meta};
use super::{STEP_BYTES, Stores};

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Failure {
        match error {
            SnapshotError::NoSpace { .. } | SnapshotError::NoRoom { .. } => Failure::NoSpace(error.to_string()),
            SnapshotError::Superseded { .. } => Failure::Superseded(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        }
    }
}

/// A long job.
pub(super) enum Work {
    /// A state is written.
    Take(ShardId, Take),
    /// One is measured: the disk may have no room for it.
    Measure(ShardId, Measure),
    /// One is to be written over an older one.
    MakeRoom(ShardId, MakeRoom),
    /// One is read.
    Scrub(ShardId, Walk),
    /// What an earlier process received of a snapshot is looked at.
    Resume(ShardId, SnapshotId),
    /// A snapshot that came from another node is loaded.
    Load(ShardId, SnapshotId, Box<Load>),
    /// A snapshot of this node is loaded.
    Reload(ShardId, SnapshotId, Box<Load>),
    /// A snapshot that another node is fetching is looked through.
    Check(ShardId, Box<SnapshotReader>),
    /// A state is let go of, with rests: what becomes free must not be much at a time.
    LetGo(Remains),
}

impl Work {
    /// Whether what comes of it is wanted some time, not soon: a snapshot of this node, or memory, or what is
    /// known of it.
    pub(super) fn is_paced(&self) -> bool {
        matches!(self, Work::Take(..) | Work::Measure(..) | Work::MakeRoom(..) | Work::Scrub(..) | Work::LetGo(..))
    }
}

/// What came of a step.
pub(super) enum Stepped {
    /// There is more to do.
    More(Work),
    /// The disk has no room for a state, it said.
    NoRoom(ShardId, Snapshot, Failure),
    /// That was all, and this is to be told.
    Done(Done),
    /// The same, and then a state is to be let go of.
    Over(Done, Remains),
    /// That was all.
    Ended,
}

/// A step of looking through a snapshot. Whoever fetches it checks it too, and refuses it; but only here it can be replaced.
pub(super) fn check(shard: ShardId, mut reader: Box<SnapshotReader>, stores: &Stores, spent: &mut usize) -> Stepped {
    let read = read_some(&mut reader, spent);
    if stores.is_condemned(shard, reader.info().id) {
        // Nobody gets any more of it, and it may have been written over while it was read.
        return Stepped::Ended;
    }
    match read {
        Ok(false) => Stepped::More(Work::Check(shard, reader)),
        Ok(true) => Stepped::Ended,
        Err(error) => {
            log::warn!("shard {shard}: {error}");
            if error.is_damage() {
                Stepped::Done(Done::Rotten { shard, id: reader.info().id })
            } else {
                // What the disk does not give now it may give later.
                Stepped::Ended
            }
        }
    }
}

/// A state that is gone through, a step's share at a time.
pub(super) struct Walk {
    state: Snapshot,
    /// The last key that was seen.
    last: Option<Vec<u8>>,
    /// Of what was seen.
    hash: ItemsHash,
}

impl Walk {
    pub(super) fn new(state: Snapshot) -> Walk {
        Walk { state, last: None, hash: ItemsHash::default() }
    }

    /// Sees the next items, as long as there is less than a step `spent`. Whether those were the last.
    fn visit_some<E>(
        &mut self,
        spent: &mut usize,
        mut visit: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut last = None;
        for (key, version, value) in self.state.iter_after(self.last.as_deref()) {
            visit(Item { key, version, value })?;
            self.hash.add(key, version, value);
            *spent += key.len() + value.len();
            if *spent >= STEP_BYTES {
                last = Some(key.to_vec());
                break;
            }
        }
        self.last = last;
        Ok(self.last.is_none())
    }

    /// Whether memory has not kept what was put there, of a state that was seen to its end. Such a file could not be loaded,
    /// and the log that could make it good would be let go of.
    fn is_corrupt(&self) -> bool {
        self.hash.value() != self.state.hash()
    }

    /// A step of a state that is read to see whether memory has kept it.
    pub(super) fn scrub(mut self, shard: ShardId, spent: &mut usize) -> Stepped {
        let Ok(is_all) = self.visit_some(spent, |_| Ok::<(), Infallible>(()));
        if !is_all {
            return Stepped::More(Work::Scrub(shard, self));
        }
        let (found, expected) = (self.hash.value(), self.state.hash());
        Stepped::Over(Done::Scrubbed { shard, at: self.state.at(), found, expected }, self.state.into())
    }

    fn corrupt(self, shard: ShardId) -> Stepped {
        let done = Done::Corrupt { shard, at: self.state.at(), found: self.hash.value(), expected: self.state.hash() };
        Stepped::Over(done, self.state.into())
    }
}

/// A state on its way to the disk.
pub(super) struct Take {
    writer: Box<SnapshotWriter>,
    walk: Walk,
    /// Nothing else is tried if the disk has no room here.
    is_last: bool,
}

impl Take {
    /// Begins a new file.
    pub(super) fn begin(
        shard: ShardId,
        store: &SnapshotStore,
        configuration: &[u8],
        state: Snapshot,
        is_last: bool,
    ) -> Stepped {
        match store.create(state.at(), FORMAT, configuration) {
            Ok(writer) => Stepped::More(Work::Take(shard, Take::with(writer, state, is_last))),
            Err(error) => not_taken(shard, state, error, is_last),
        }
    }

    fn with(writer: SnapshotWriter, state: Snapshot, is_last: bool) -> Take {
        Take { writer: Box::new(writer), walk: Walk::new(state), is_last }
    }

    pub(super) fn step(mut self, shard: ShardId, spent: &mut usize) -> Stepped {
        let written = match self.walk.visit_some(spent, |item| self.writer.push(item)) {
            Ok(false) => return Stepped::More(Work::Take(shard, self)),
            Ok(true) if self.walk.is_corrupt() => return self.walk.corrupt(shard),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        let Take { writer, walk: Walk { state, .. }, is_last } = self;
        // With the writer its file goes, unless it has got its name: before another is begun.
        match written.and_then(|()| finish(*writer, &state)) {
            Ok(meta) => Stepped::Over(Done::Taken { shard, meta }, state.into()),
            Err(error) => not_taken(shard, state, error, is_last),
        }
    }
}

/// Makes the file durable under its name.
fn finish(writer: SnapshotWriter, state: &Snapshot) -> Result<SnapshotMeta, SnapshotError> {
    let checkpoints = state.checkpoints().iter().map(|checkpoint| (checkpoint.index, checkpoint.hash)).collect();
    writer.finish(state.hash(), checkpoints).map(meta)
}

fn not_taken(shard: ShardId, state: Snapshot, error: SnapshotError, is_last: bool) -> Stepped {
    match Failure::from(error) {
        failure @ Failure::NoSpace(_) if !is_last => Stepped::NoRoom(shard, state, failure),
        failure => Stepped::Over(Done::NotTaken { shard, failure }, state.into()),
    }
}

/// A state for which the disk has no room, or is said to have none, is measured and compared with its hash before
/// anything is written. It goes over the oldest of the kept snapshots if that is as long: what is free beside it, others
/// take meanwhile. If that was begun by an earlier process, it goes where that was writing. What does not fit there, and was
/// not tried, goes where there is room for all of it.
pub(super) struct Measure {
    walk: Walk,
    /// Of the file that the state is to become.
    length: FileLength,
    /// What it came to as a new file, if that was tried.
    failure: Option<Failure>,
}

impl Measure {
    pub(super) fn begin(configuration: &[u8], state: Snapshot, failure: Option<Failure>) -> Measure {
        Measure { walk: Walk::new(state), length: FileLength::new(FORMAT, configuration), failure }
    }

    pub(super) fn step(
        mut self,
        shard: ShardId,
        store: &SnapshotStore,
        configuration: &[u8],
        spent: &mut usize,
    ) -> Stepped {
        let Ok(is_all) = self.walk.visit_some(spent, |item| {
            self.length.push(&item);
            Ok::<(), Infallible>(())
        });
        if !is_all {
            return Stepped::More(Work::Measure(shard, self));
        }
        if self.walk.is_corrupt() {
            return self.walk.corrupt(shard);
        }
        let Measure { walk: Walk { state, .. }, length, failure } = self;
        let bytes = length.finish(state.checkpoints().len());
        let failure = match (kept_with_room(store, bytes), failure) {
            (Ok(Some((newest, oldest))), _) => {
                return Stepped::More(Work::MakeRoom(shard, MakeRoom { newest, oldest, state }));
            }
            (Ok(None), failure) => match (store.create_in_spare(bytes, state.at(), FORMAT, configuration), failure) {
                (Ok(Some(writer)), _) => return Stepped::More(Work::Take(shard, Take::with(writer, state, true))),
                (Ok(None), None) => match store.check_room(state.at(), bytes) {
                    Ok(()) => return Take::begin(shard, store, configuration, state, true),
                    Err(error) => error.into(),
                },
                (Ok(None), Some(failure)) => failure,
                (Err(error), _) => error.into(),
            },
            (Err(error), _) => error.into(),
        };
        Stepped::Over(Done::NotTaken { shard, failure }, state.into())
    }
}

/// The newest and the oldest of the kept snapshots, if there are two and the oldest has so many bytes.
fn kept_with_room(
    store: &SnapshotStore,
    bytes: u64,
) -> Result<Option<(Box<SnapshotReader>, SnapshotInfo)>, SnapshotError> {
    let kept = store.list()?;
    let [newest, .., oldest] = kept[..] else { return Ok(None) };
    let oldest = store.info(oldest)?;
    if bytes <= oldest.bytes { Ok(Some((Box::new(store.read(newest)?), oldest))) } else { Ok(None) }
}

/// A state is written over the oldest of the kept snapshots once the newest has been read and is whole: until the state is
/// durable that one is the only one.
pub(super) struct MakeRoom {
    newest: Box<SnapshotReader>,
    oldest: SnapshotInfo,
    state: Snapshot,
}

impl MakeRoom {
    /// Reads a part of the newest snapshot, and then writes over the oldest.
    pub(super) fn step(
        mut self,
        shard: ShardId,
        store: &SnapshotStore,
        configuration: &[u8],
        spent: &mut usize,
    ) -> Stepped {
        match read_some(&mut self.newest, spent) {
            Ok(true) => {}
            Ok(false) => return Stepped::More(Work::MakeRoom(shard, self)),
            Err(error) => return Stepped::Over(Done::NotTaken { shard, failure: error.into() }, self.state.into()),
        }
        let (oldest, state) = (self.oldest.at, self.state);
        log::info!("shard {shard}: no space for a snapshot: writing it over the older one, that of entry {oldest}");
        match store.create_over(oldest, state.at(), FORMAT, configuration) {
            Ok(writer) => Stepped::More(Work::Take(shard, Take::with(writer, state, true))),
            Err(error) => Stepped::Over(Done::NotTaken { shard, failure: error.into() }, state.into()),
        }
    }

    /// What is written over.
    pub(super) fn oldest(&self) -> SnapshotId {
        self.oldest.id
    }
}

/// Reads the next items of a snapshot, as long as there is less than a step `spent`. Whether those were the last.
fn read_some(reader: &mut SnapshotReader, spent: &mut usize) -> Result<bool, SnapshotError> {
    while *spent < STEP_BYTES {
        match reader.next_items()? {
            Some(items) => *spent += items.map(|item| item.key.len() + item.value.len()).sum::<usize>(),
            None => return Ok(true),
        }
    }
    Ok(false)
}
