//! Long jobs, a step at a time.

use std::fmt;

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{Index, ShardId, SnapshotId};

use crate::state_machine::Snapshot;
use crate::state_machine::state_hash::{FORMAT, ItemsHash};
use crate::storage::snapshot::{
    FileLength, Item, SnapshotError, SnapshotInfo, SnapshotReader, SnapshotStore, SnapshotWriter,
};

use super::STEP_BYTES;
use super::jobs::{Done, Failure};
use super::load::{Load, meta};

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
    /// The disk has no room for it.
    MakeRoom(ShardId, MakeRoom),
    /// What an earlier process received of a snapshot is looked at.
    Resume(ShardId, SnapshotId),
    /// A snapshot that came from another node is loaded.
    Load(ShardId, SnapshotId, Box<Load>),
    /// A snapshot that another node is fetching is looked through.
    Check(ShardId, Box<SnapshotReader>),
    /// A state is let go.
    Drop(Box<dyn fmt::Debug + Send>),
}

/// What came of a step.
pub(super) enum Stepped {
    /// There is more to do.
    More(Work),
    /// The disk has no room for a state, it said.
    NoRoom(ShardId, Snapshot, Failure),
    /// That was all, and this is to be told.
    Done(Done),
    /// That was all.
    Ended,
}

/// A step of looking through a snapshot. Whoever fetches it checks it too, and refuses it; but only here it can be replaced.
pub(super) fn check(shard: ShardId, mut reader: Box<SnapshotReader>) -> Stepped {
    match read_some(&mut reader) {
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

/// A state on its way to the disk.
pub(super) struct Take {
    writer: Box<SnapshotWriter>,
    state: Snapshot,
    /// The last key that was written.
    last: Option<Vec<u8>>,
    /// Of what was written.
    hash: ItemsHash,
    /// It is written over another.
    is_over: bool,
}

impl Take {
    /// Begins a new file.
    pub(super) fn begin(shard: ShardId, store: &SnapshotStore, configuration: &[u8], state: Snapshot) -> Stepped {
        match store.create(state.at(), FORMAT, configuration) {
            Ok(writer) => Stepped::More(Work::Take(shard, Take::with(writer, state, false))),
            Err(error) => not_taken(shard, state, error, false),
        }
    }

    fn with(writer: SnapshotWriter, state: Snapshot, is_over: bool) -> Take {
        Take { writer: Box::new(writer), state, last: None, hash: ItemsHash::default(), is_over }
    }

    pub(super) fn step(mut self, shard: ShardId) -> Stepped {
        let written = match self.write() {
            Ok(false) => return Stepped::More(Work::Take(shard, self)),
            Ok(true) if self.is_corrupt() => return Stepped::Done(self.corrupt(shard)),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        let Take { writer, state, is_over, .. } = self;
        // With the writer its file goes, unless it has got its name: before another is begun.
        match written.and_then(|()| finish(*writer, &state)) {
            Ok(meta) => Stepped::Done(Done::Taken { shard, meta }),
            Err(error) => not_taken(shard, state, error, is_over),
        }
    }

    /// Writes the next items. Whether all are written.
    fn write(&mut self) -> Result<bool, SnapshotError> {
        let last = match &self.last {
            None => write_some(&mut self.writer, &mut self.hash, self.state.iter())?,
            Some(last) => write_some(&mut self.writer, &mut self.hash, self.state.iter_after(last))?,
        };
        let is_all = last.is_none();
        self.last = last.map(<[u8]>::to_vec);
        Ok(is_all)
    }

    /// Whether memory has not kept what was put there. Such a file could not be loaded, and the log that could make it good
    /// would be let go of.
    fn is_corrupt(&self) -> bool {
        self.hash.value() != self.state.hash()
    }

    /// Gives the file up.
    fn corrupt(self, shard: ShardId) -> Done {
        Done::Corrupt { shard, at: self.state.at(), found: self.hash.value(), expected: self.state.hash() }
    }
}

/// Makes the file durable under its name.
fn finish(writer: SnapshotWriter, state: &Snapshot) -> Result<SnapshotMeta, SnapshotError> {
    let checkpoints = state.checkpoints().iter().map(|checkpoint| (checkpoint.index, checkpoint.hash)).collect();
    writer.finish(state.hash(), checkpoints).map(meta)
}

fn not_taken(shard: ShardId, state: Snapshot, error: SnapshotError, is_over: bool) -> Stepped {
    match Failure::from(error) {
        failure @ Failure::NoSpace(_) if !is_over => Stepped::NoRoom(shard, state, failure),
        failure => Stepped::Done(Done::NotTaken { shard, failure }),
    }
}

/// A state for which the disk has no room waits for the oldest of the kept snapshots, over which it is written if that is as
/// long, and once the newest has been read and is whole: until the state is durable that one is the only one.
pub(super) struct MakeRoom {
    newest: Box<SnapshotReader>,
    oldest: SnapshotInfo,
    state: Snapshot,
    /// Of the file that the state is to become, up to the last key that was measured; `None` when it is known to fit.
    measured: Option<(FileLength, Option<Vec<u8>>)>,
    /// What it came to without.
    failure: Failure,
}

impl MakeRoom {
    /// Looks whether there are two.
    pub(super) fn begin(store: &SnapshotStore, state: Snapshot, failure: Failure) -> Result<MakeRoom, Failure> {
        let kept = store.list()?;
        let [newest, .., oldest] = kept[..] else { return Err(failure) };
        let (newest, oldest) = (Box::new(store.read(newest)?), store.info(oldest)?);
        let measured = Some((FileLength::new(newest.header()), None));
        Ok(MakeRoom { newest, oldest, state, measured, failure })
    }

    /// Measures a part of the state, then reads a part of the newest snapshot, and then writes over the oldest.
    pub(super) fn step(mut self, shard: ShardId, store: &SnapshotStore, configuration: &[u8]) -> Stepped {
        let prepared = match self.measured.take() {
            Some((length, last)) => self.measure(length, last, store),
            None => read_some(&mut self.newest).map_err(Failure::from),
        };
        match prepared {
            Ok(true) => {}
            Ok(false) => return Stepped::More(Work::MakeRoom(shard, self)),
            Err(failure) => return Stepped::Done(Done::NotTaken { shard, failure }),
        }
        let (oldest, state) = (self.oldest.at, self.state);
        log::info!("shard {shard}: no space for a snapshot: writing it over the older one, that of entry {oldest}");
        match store.create_over(oldest, state.at(), FORMAT, configuration) {
            Ok(writer) => Stepped::More(Work::Take(shard, Take::with(writer, state, true))),
            Err(error) => Stepped::Done(Done::NotTaken { shard, failure: error.into() }),
        }
    }

    /// Measures a step's share of the state. Fails if its file would be longer than there is room for.
    fn measure(
        &mut self,
        mut length: FileLength,
        last: Option<Vec<u8>>,
        store: &SnapshotStore,
    ) -> Result<bool, Failure> {
        let last = match &last {
            None => measure_some(&mut length, self.state.iter()),
            Some(last) => measure_some(&mut length, self.state.iter_after(last)),
        };
        match last.map(<[u8]>::to_vec) {
            Some(last) => self.measured = Some((length, Some(last))),
            None if length.finish(self.state.checkpoints().len()) <= self.oldest.bytes + store.free_bytes()? => {}
            None => return Err(self.failure.clone()),
        }
        Ok(false)
    }

    /// What is written over.
    pub(super) fn oldest(&self) -> SnapshotId {
        self.oldest.id
    }
}

/// Measures items up to a step's share. The last of them, if there may be more.
fn measure_some<'s>(
    length: &mut FileLength,
    items: impl Iterator<Item = (&'s [u8], Index, &'s [u8])>,
) -> Option<&'s [u8]> {
    let mut bytes = 0;
    for (key, version, value) in items {
        length.push(&Item { key, version, value });
        bytes += key.len() + value.len();
        if bytes >= STEP_BYTES {
            return Some(key);
        }
    }
    None
}

/// Reads a step's share of a snapshot. Whether that was the last.
fn read_some(reader: &mut SnapshotReader) -> Result<bool, SnapshotError> {
    let mut bytes = 0;
    while bytes < STEP_BYTES {
        match reader.next_items()? {
            Some(items) => bytes += items.map(|item| item.key.len() + item.value.len()).sum::<usize>(),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Writes items up to a step's share. The last of them, if there may be more.
fn write_some<'s>(
    writer: &mut SnapshotWriter,
    hash: &mut ItemsHash,
    items: impl Iterator<Item = (&'s [u8], Index, &'s [u8])>,
) -> Result<Option<&'s [u8]>, SnapshotError> {
    let mut bytes = 0;
    for (key, version, value) in items {
        writer.push(Item { key, version, value })?;
        hash.add(key, version, value);
        bytes += key.len() + value.len();
        if bytes >= STEP_BYTES {
            return Ok(Some(key));
        }
    }
    Ok(None)
}
