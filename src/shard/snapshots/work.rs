//! Long jobs, a step at a time.

use std::fmt;

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{Index, ShardId, SnapshotId};

use crate::state_machine::Snapshot;
use crate::state_machine::state_hash::{FORMAT, ItemsHash};
use crate::storage::snapshot::{Item, SnapshotError, SnapshotReader, SnapshotStore, SnapshotWriter};

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
    /// That was all, and this is to be told.
    Done(Done),
    /// That was all.
    Ended,
}

/// A step of looking through a snapshot. Whoever fetches it checks it too, and refuses it; but only here it can be replaced.
pub(super) fn check(shard: ShardId, mut reader: Box<SnapshotReader>) -> Stepped {
    let mut bytes = 0;
    while bytes < STEP_BYTES {
        match reader.next_items() {
            Ok(Some(items)) => bytes += items.map(|item| item.key.len() + item.value.len()).sum::<usize>(),
            Ok(None) => return Stepped::Ended,
            Err(error) => {
                log::warn!("shard {shard}: {error}");
                if !error.is_damage() {
                    // What the disk does not give now it may give later.
                    return Stepped::Ended;
                }
                return Stepped::Done(Done::Rotten { shard, id: reader.info().id });
            }
        }
    }
    Stepped::More(Work::Check(shard, reader))
}

/// A state on its way to the disk.
pub(super) struct Take {
    writer: Box<SnapshotWriter>,
    state: Snapshot,
    /// The last key that was written.
    last: Option<Vec<u8>>,
    /// Of what was written.
    hash: ItemsHash,
}

impl Take {
    pub(super) fn begin(store: &SnapshotStore, configuration: &[u8], state: Snapshot) -> Result<Take, Failure> {
        let writer = store.create(state.at(), FORMAT, configuration)?;
        Ok(Take { writer: Box::new(writer), state, last: None, hash: ItemsHash::default() })
    }

    pub(super) fn step(mut self, shard: ShardId) -> Stepped {
        let written = match self.write() {
            Ok(false) => return Stepped::More(Work::Take(shard, self)),
            Ok(true) if self.is_corrupt() => return Stepped::Done(self.corrupt(shard)),
            Ok(true) => self.finish(),
            Err(error) => Err(error),
        };
        Stepped::Done(match written {
            Ok(meta) => Done::Taken { shard, meta },
            Err(error) => Done::NotTaken { shard, failure: error.into() },
        })
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

    /// Makes the file durable under its name.
    fn finish(self) -> Result<SnapshotMeta, SnapshotError> {
        let Take { writer, state, .. } = self;
        let checkpoints = state.checkpoints().iter().map(|checkpoint| (checkpoint.index, checkpoint.hash)).collect();
        writer.finish(state.hash(), checkpoints).map(meta)
    }
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
