//! Snapshots back into states: step by step while the node runs, and all of it at a start.

use std::fmt;

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, Index, ShardId, Term};

use crate::state_machine::{Checkpoint, Restore, RestoreError};
use crate::storage::RecoveredShard;
use crate::storage::snapshot::{SnapshotError, SnapshotInfo, SnapshotReader, SnapshotStore};

use super::jobs::{Failure, Loaded};
use super::{STEP_BYTES, Stores};

/// Why a snapshot was not loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The file cannot be read, or is not what was written.
    File(SnapshotError),
    /// It is of a kind that this version does not know.
    Unknown(String),
    /// What was written is not the state that it says.
    State(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::File(error) => error.fmt(f),
            LoadError::Unknown(words) | LoadError::State(words) => f.write_str(words),
        }
    }
}

impl From<SnapshotError> for LoadError {
    fn from(error: SnapshotError) -> LoadError {
        LoadError::File(error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        match error {
            LoadError::File(error) => error.into(),
            LoadError::Unknown(words) | LoadError::State(words) => Failure::Failed(words),
        }
    }
}

impl LoadError {
    /// Whether the file will never be a state, whoever reads it when.
    fn is_damage(&self) -> bool {
        matches!(self, LoadError::State(_)) || matches!(self, LoadError::File(error) if error.is_damage())
    }

    /// Whether the disk would not give the file, which may be none the worse.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self, LoadError::File(SnapshotError::Disk { .. }))
    }

    /// Whether another version of the program could load it.
    fn is_unknown(&self) -> bool {
        matches!(self, LoadError::Unknown(_) | LoadError::File(SnapshotError::Newer { .. }))
    }
}

/// How far a load has come.
pub(super) enum Progress {
    /// There is more to load.
    More(Box<Load>),
    /// All of it is loaded.
    Whole(Box<Loaded>),
}

/// A snapshot that is being loaded.
#[derive(Debug)]
pub(super) struct Load {
    reader: SnapshotReader,
    restore: Restore,
    longest: usize,
}

pub(super) fn meta(info: SnapshotInfo) -> SnapshotMeta {
    SnapshotMeta { id: info.id, at: info.at, bytes: info.bytes }
}

impl Load {
    /// Opens the snapshot as of this entry.
    pub(super) fn begin(store: &SnapshotStore, at: EntryId) -> Result<Box<Load>, LoadError> {
        let reader = store.read(at)?;
        let words = |error: RestoreError| LoadError::Unknown(format!("the snapshot {}: {error}", reader.path()));
        let restore = Restore::new(at, &reader.header().hash_format).map_err(words)?;
        Ok(Box::new(Load { reader, restore, longest: 0 }))
    }

    /// The last entry in it.
    pub(super) fn at(&self) -> EntryId {
        self.reader.header().at
    }

    /// Takes the next items in.
    pub(super) fn step(mut self: Box<Self>) -> Result<Progress, LoadError> {
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            let Some(items) = self.reader.next_items()? else {
                return self.finish().map(Box::new).map(Progress::Whole);
            };
            for item in items {
                let item_bytes = item.key.len() + item.value.len();
                bytes += item_bytes;
                self.longest = self.longest.max(item_bytes);
                let pushed = self.restore.push(item.key, item.version, item.value);
                pushed.map_err(|error| LoadError::State(format!("the state is damaged: {error}")))?;
            }
        }
        Ok(Progress::More(self))
    }

    fn finish(self: Box<Self>) -> Result<Loaded, LoadError> {
        let Load { reader, restore, longest } = *self;
        let damaged = |error| LoadError::State(format!("the snapshot {} holds another state: {error}", reader.path()));
        let footer = reader.footer().ok_or_else(|| damaged(RestoreError("it has no footer".to_owned())))?;
        let checkpoints = footer.checkpoints.iter().map(|(index, hash)| Checkpoint { index: *index, hash: *hash });
        let machine = restore.finish(footer.hash, checkpoints).map_err(damaged)?;
        Ok(Loaded { meta: meta(reader.info()), machine, longest })
    }
}

/// What was found of a shard at a start.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest snapshot that is whole.
    pub loaded: Option<Loaded>,
    /// The one before it, if the log reaches back to it.
    pub older: Option<SnapshotMeta>,
}

/// Why a shard has no snapshot to begin with, as the program would print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfound {
    /// There may be one, which another version could read, or the disk at another time.
    Unreadable(String),
    /// There is none that the log goes on from.
    Gone(String),
}

/// Loads the newest snapshot of a shard that is whole and that its log goes on from.
pub fn find(stores: &Stores, shard: ShardId, log: &RecoveredShard) -> Result<Found, Unfound> {
    let Some(store) = stores.get(shard) else { return Ok(Found::default()) };
    let entries = store.list().map_err(|error| Unfound::Unreadable(error.to_string()))?;
    let mut unreadable = None;
    let usable: Vec<EntryId> = entries.iter().copied().filter(|at| at.index >= log.start.index).collect();
    for (position, at) in usable.iter().enumerate() {
        let loaded = match load(store, *at) {
            Ok(loaded) => loaded,
            Err(error) if error.is_unknown() => return Err(Unfound::Unreadable(error.to_string())),
            Err(error) => {
                log::warn!("shard {shard}: {error}; looking for an older one");
                if error.is_damage() {
                    set_aside(store, *at);
                } else {
                    unreadable.get_or_insert(error.to_string());
                }
                continue;
            }
        };
        // If the log does not go on from it, an installation was cut short: Raft starts the log anew behind it.
        let older = usable.get(position + 1).filter(|_| term_at(log, *at) == Some(at.term));
        let older = older.and_then(|older| store.info(*older).ok()).map(meta);
        return Ok(Found { loaded: Some(loaded), older });
    }
    if log.start == EntryId::ZERO {
        return Ok(Found::default());
    }
    if let Some(error) = unreadable {
        return Err(Unfound::Unreadable(error));
    }
    Err(Unfound::Gone(format!(
        "shard {shard} has no snapshot that its log goes on from: the log begins after entry {}, and {}",
        log.start,
        match entries.first() {
            Some(newest) => format!("the newest snapshot that was there is of entry {newest}"),
            None => "there is none".to_owned(),
        }
    )))
}

/// A snapshot that cannot be loaded must not be what the next start begins with.
pub(super) fn set_aside(store: &SnapshotStore, at: EntryId) {
    if let Err(error) = store.set_aside(at) {
        log::warn!("{error}");
    }
}

fn load(store: &SnapshotStore, at: EntryId) -> Result<Loaded, LoadError> {
    let mut load = Load::begin(store, at)?;
    loop {
        match load.step()? {
            Progress::Whole(loaded) => return Ok(*loaded),
            Progress::More(more) => load = more,
        }
    }
}

/// The term of the log's entry at the index of `at`, or of the one before its first.
fn term_at(log: &RecoveredShard, at: EntryId) -> Option<Term> {
    let Index(start) = log.start.index;
    match at.index.0.checked_sub(start)? {
        0 => Some(log.start.term),
        after => log.entries.get(usize::try_from(after).ok()? - 1).map(|(term, _)| *term),
    }
}
