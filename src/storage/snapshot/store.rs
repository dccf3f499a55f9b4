//! The directory of one shard's snapshots.

use std::fmt;
use std::sync::Arc;

use raftkv_protocol::types::{EntryId, ShardId, SnapshotId};

use super::format::{FileState, damaged_name, receiving_name, snapshot_name, spare_name, writing_name};
use super::unfinished::{Abandoned, Unfinished};
use super::{Header, SnapshotError, SnapshotFile, SnapshotInfo, SnapshotReader, SnapshotReceiver, SnapshotWriter};
use crate::storage::disk::{Access, Disk};

/// How many snapshots are kept.
const KEPT: usize = 2;

/// See the module. Clones are the same directory.
#[derive(Clone)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    shard: ShardId,
}

impl SnapshotStore {
    /// Opens the directory after a start: makes durable the names that are there, and removes what nobody will go on
    /// with. Nothing in the directory may be in use.
    pub fn open(disk: Arc<dyn Disk>, shard: ShardId) -> Result<SnapshotStore, SnapshotError> {
        let store = SnapshotStore::read_only(disk, shard);
        // A process that died between a change of names and the sync of the directory left names that may be lost yet.
        store.disk.sync_dir().map_err(|error| store.directory_error(error))?;
        let newest = store.list()?.first().copied();
        let spare = store.keep_room().unwrap_or_else(|error| {
            log::warn!("{error}");
            None
        });
        store.remove_if(|name, state| match state {
            FileState::Writing | FileState::Spare => Some(name) != spare.as_deref(),
            FileState::Receiving(_) => match SnapshotReader::open(&*store.disk, name) {
                Ok(reader) => newest.is_some_and(|newest| is_superseded(reader.header().at, newest)),
                Err(_) => true,
            },
            FileState::Snapshot(_) | FileState::Damaged => false,
        });
        Ok(store)
    }

    /// What an earlier process was writing over its older snapshot is the only room that a full disk has for the next: it
    /// becomes a spare, or stays one. Its name.
    fn keep_room(&self) -> Result<Option<String>, SnapshotError> {
        let [newest] = self.list()?[..] else { return Ok(None) };
        let newest = self.size(&snapshot_name(newest))?;
        let Some((name, bytes)) = self.longest_left(|state| matches!(state, FileState::Writing | FileState::Spare))?
        else {
            return Ok(None);
        };
        let free = self.free_bytes()?;
        if bytes < newest / 2 || newest <= free {
            return Ok(None);
        }
        if FileState::of(&name) == Some(FileState::Spare) {
            return Ok(Some(name));
        }
        let spare = spare_name(self.fresh_id()?);
        let renamed = self.disk.rename(&name, &spare).and_then(|()| self.disk.sync_dir());
        renamed.map_err(|error| SnapshotError::disk(&self.disk.path(&name), error))?;
        Ok(Some(spare))
    }

    /// The longest of the files that are in such a state, and its bytes.
    fn longest_left(&self, is_one: impl Fn(FileState) -> bool) -> Result<Option<(String, u64)>, SnapshotError> {
        let mut names = self.disk.list().map_err(|error| self.directory_error(error))?;
        names.retain(|name| FileState::of(name).is_some_and(&is_one));
        let sized = names.into_iter().map(|name| self.size(&name).map(|bytes| (name, bytes)));
        Ok(sized.collect::<Result<Vec<_>, _>>()?.into_iter().max_by_key(|(_, bytes)| *bytes))
    }

    /// The directory as it is, for reading only: while it is in use, or after.
    #[must_use]
    pub fn read_only(disk: Arc<dyn Disk>, shard: ShardId) -> SnapshotStore {
        SnapshotStore { disk, shard }
    }

    /// The last entries of all snapshots that are there, newest first.
    pub fn list(&self) -> Result<Vec<EntryId>, SnapshotError> {
        let names = self.disk.list().map_err(|error| self.directory_error(error))?;
        let entry = |name: &String| match FileState::of(name) {
            Some(FileState::Snapshot(at)) => Some(at),
            _ => None,
        };
        let mut entries: Vec<EntryId> = names.iter().filter_map(entry).collect();
        entries.sort_by_key(|at| std::cmp::Reverse((at.index, at.term)));
        Ok(entries)
    }

    /// Opens a snapshot that is there. Its header is right, and says what its name says.
    pub fn read(&self, at: EntryId) -> Result<SnapshotReader, SnapshotError> {
        let name = snapshot_name(at);
        let reader = SnapshotReader::open(&*self.disk, &name)?;
        if (reader.header().shard, reader.header().at) != (self.shard, at) {
            return Err(self.damaged(&name, "it is the snapshot of another shard or entry"));
        }
        Ok(reader)
    }

    /// Id and size of a snapshot that is there.
    pub fn info(&self, at: EntryId) -> Result<SnapshotInfo, SnapshotError> {
        Ok(self.read(at)?.info())
    }

    /// The bytes of the snapshot with this id, for a peer. They can be read as long as this is held, even if the
    /// snapshot is removed meanwhile. `None` if it is not there, or cannot be read.
    pub fn find(&self, id: SnapshotId) -> Result<Option<SnapshotFile>, SnapshotError> {
        for at in self.list()? {
            match self.read(at) {
                Ok(reader) if reader.header().id == id => return Ok(Some(reader.into_file())),
                Ok(_) => {}
                Err(error) => log::warn!("{error}"),
            }
        }
        Ok(None)
    }

    /// Whether the header of one of them is damaged, so that nobody can say which snapshot that is.
    pub fn has_unnamed(&self) -> Result<bool, SnapshotError> {
        let is_damaged = |at: EntryId| matches!(self.read(at), Err(SnapshotError::Damaged { .. }));
        Ok(self.list()?.into_iter().any(is_damaged))
    }

    /// Takes a snapshot that was found damaged out of the list. Its file is kept until the next snapshot is durable, for
    /// people to look at.
    pub fn set_aside(&self, at: EntryId) -> Result<(), SnapshotError> {
        let (from, to) = (snapshot_name(at), damaged_name(at));
        self.remove_if(|name, _| *name == *to);
        let renamed = self.disk.rename(&from, &to).and_then(|()| self.disk.sync_dir());
        renamed.map_err(|error| SnapshotError::disk(&self.disk.path(&from), error))
    }

    /// Begins a snapshot of this node's state as of an entry. `hash_format` names the format of the state hash,
    /// `configuration` holds the voters as of that entry.
    pub fn create(
        &self,
        at: EntryId,
        hash_format: &[u8],
        configuration: &[u8],
    ) -> Result<SnapshotWriter, SnapshotError> {
        let header = self.new_header(at, hash_format, configuration)?;
        let file = Unfinished::create(Arc::clone(&self.disk), writing_name(header.id), Abandoned::Removed)?;
        SnapshotWriter::new(self.clone(), file, header)
    }

    /// The same where `oldest` lies, a snapshot that is there: for a disk that has no room for another. It is gone from now on,
    /// whatever becomes of the new one. Whoever gives that up leaves the room for the next.
    pub fn create_over(
        &self,
        oldest: EntryId,
        at: EntryId,
        hash_format: &[u8],
        configuration: &[u8],
    ) -> Result<SnapshotWriter, SnapshotError> {
        self.create_in(&snapshot_name(oldest), at, hash_format, configuration)
    }

    /// The same in the room that is left of one that was never finished. `None` if there is none, or if it and what is free
    /// beside it have fewer bytes than these.
    pub fn create_in_spare(
        &self,
        bytes: u64,
        at: EntryId,
        hash_format: &[u8],
        configuration: &[u8],
    ) -> Result<Option<SnapshotWriter>, SnapshotError> {
        let left = self.longest_left(|state| state == FileState::Spare)?;
        let free = self.free_bytes()?;
        let Some((name, _)) = left.filter(|(_, room)| bytes <= free.saturating_add(*room)) else { return Ok(None) };
        self.create_in(&name, at, hash_format, configuration).map(Some)
    }

    fn create_in(
        &self,
        from: &str,
        at: EntryId,
        hash_format: &[u8],
        configuration: &[u8],
    ) -> Result<SnapshotWriter, SnapshotError> {
        let header = self.new_header(at, hash_format, configuration)?;
        let to = writing_name(header.id);
        // Before a byte of it changes its name must not be that of a whole snapshot any more.
        self.disk.rename(from, &to).map_err(|error| SnapshotError::disk(&self.disk.path(from), error))?;
        let synced = self.disk.sync_dir().map_err(|error| self.directory_error(error));
        match synced.and_then(|()| Unfinished::open(Arc::clone(&self.disk), to.clone(), Abandoned::Room(header.id))) {
            Ok(file) => SnapshotWriter::new(self.clone(), file, header),
            Err(error) => {
                // What has failed here may fail again, and the disk is full. Whatever is left is removed at the next start.
                let _ = self.disk.remove(&to).and_then(|()| self.disk.sync_dir());
                Err(error)
            }
        }
    }

    fn new_header(&self, at: EntryId, hash_format: &[u8], configuration: &[u8]) -> Result<Header, SnapshotError> {
        self.check_newer(at)?;
        let id = self.fresh_id()?;
        let (hash_format, configuration) = (hash_format.to_vec(), configuration.to_vec());
        Ok(Header { id, shard: self.shard, at, hash_format, configuration })
    }

    fn fresh_id(&self) -> Result<SnapshotId, SnapshotError> {
        let id = self.disk.fresh_id().map_err(|error| self.directory_error(error))?;
        // An id is never 0, and half of one practically never.
        Ok(SnapshotId((id as u64).max(1)))
    }

    /// The first sync that failed here, in words, if the disk was not only full. Nothing that is written later may be trusted.
    #[must_use]
    pub fn failed_sync(&self) -> Option<String> {
        self.disk.failed_sync()
    }

    /// Refuses the snapshot of an entry, of so many bytes, if the disk has less room.
    pub fn check_room(&self, at: EntryId, bytes: u64) -> Result<(), SnapshotError> {
        self.check_room_of(&snapshot_name(at), bytes)
    }

    /// Begins to take a snapshot from a peer, or goes on where an earlier process had come to. What was received of other
    /// snapshots is removed. Refused if the disk has less room than is missing of it.
    pub fn receive(&self, info: SnapshotInfo) -> Result<SnapshotReceiver, SnapshotError> {
        self.check_newer(info.at)?;
        let name = receiving_name(info.id);
        self.remove_if(|other, state| matches!(state, FileState::Receiving(_)) && *other != *name);
        let names = self.disk.list().map_err(|error| self.directory_error(error))?;
        let disk = Arc::clone(&self.disk);
        let is_there = names.contains(&name);
        let missing = info.bytes - if is_there { self.size(&name)?.min(info.bytes) } else { 0 };
        let is_left = |state| matches!(state, FileState::Spare | FileState::Damaged);
        let room = self.bytes_of(&names, is_left)?;
        let free = self.free_bytes()?;
        if missing > free && missing <= free.saturating_add(room) {
            // What comes is newer than what the room was kept for, and than what was set aside to be looked at.
            self.remove_if(|_, state| is_left(state));
        }
        self.check_room_of(&name, missing)?;
        let file = match is_there {
            true => Unfinished::open(disk, name, Abandoned::Kept)?,
            false => Unfinished::create(disk, name, Abandoned::Kept)?,
        };
        Ok(SnapshotReceiver::new(self.clone(), file, self.shard, info))
    }

    /// Makes a whole file durable under the name of its snapshot, and lets go of older ones.
    pub(super) fn publish(&self, mut file: Unfinished, info: SnapshotInfo) -> Result<(), SnapshotError> {
        if let Err(error) = self.check_newer(info.at) {
            file.give_up();
            if self.list().is_ok_and(|kept| kept.len() >= KEPT) {
                // What was written over another has become a spare, and the next one has the room of the older.
                self.remove_if(|_, state| state == FileState::Spare);
            }
            return Err(error);
        }
        if !mutant!("snapshot-named-early") {
            file.sync()?;
        }
        let name = snapshot_name(info.at);
        if let Err(error) = self.disk.rename(file.name(), &name) {
            let error = SnapshotError::disk(&file.path(), error);
            file.give_up();
            return Err(error);
        }
        file.close();
        let synced = if mutant!("snapshot-name-unsynced") { Ok(()) } else { self.disk.sync_dir() };
        if let Err(error) = synced {
            // Under this name it would count as durable.
            let _ = self.disk.remove(&name);
            return Err(SnapshotError::disk(&self.disk.path(&name), error));
        }
        self.remove_older(info.at);
        Ok(())
    }

    /// What a new snapshot makes useless. It is none the worse for what cannot be removed.
    fn remove_older(&self, newest: EntryId) {
        let kept = match self.list() {
            Ok(entries) => {
                entries.into_iter().take(if mutant!("one-snapshot-kept") { 1 } else { KEPT }).collect::<Vec<_>>()
            }
            Err(error) => return log::warn!("{error}"),
        };
        self.remove_if(|name, state| match state {
            FileState::Snapshot(at) => !kept.contains(&at),
            FileState::Damaged | FileState::Spare => true,
            FileState::Writing => false,
            // What has not come far enough to say as of when it is, is left to the next start.
            FileState::Receiving(_) => {
                SnapshotReader::open(&*self.disk, name).is_ok_and(|reader| is_superseded(reader.header().at, newest))
            }
        });
    }

    fn check_newer(&self, at: EntryId) -> Result<(), SnapshotError> {
        match self.list()?.first() {
            Some(newest) if is_superseded(at, *newest) => Err(SnapshotError::Superseded { by: *newest }),
            _ => Ok(()),
        }
    }

    /// So that nobody fetches gigabytes for which there is no room.
    fn check_room_of(&self, name: &str, bytes: u64) -> Result<(), SnapshotError> {
        let free = self.free_bytes()?;
        if bytes > free { Err(SnapshotError::NoRoom { path: self.disk.path(name), bytes, free }) } else { Ok(()) }
    }

    fn free_bytes(&self) -> Result<u64, SnapshotError> {
        self.disk.free_bytes().map_err(|error| self.directory_error(error))
    }

    /// The bytes of the files in these states, all together.
    fn bytes_of(&self, names: &[String], is_counted: impl Fn(FileState) -> bool) -> Result<u64, SnapshotError> {
        let counted = names.iter().filter(|name| FileState::of(name).is_some_and(&is_counted));
        counted.map(|name| self.size(name)).sum()
    }

    fn size(&self, name: &str) -> Result<u64, SnapshotError> {
        let size = self.disk.open(name, Access::Read).and_then(|file| file.size());
        size.map_err(|error| SnapshotError::disk(&self.disk.path(name), error))
    }

    /// Removes files. What fails is said and left to the next start.
    fn remove_if(&self, is_useless: impl Fn(&str, FileState) -> bool) {
        let remove = || {
            let mut names = self.disk.list()?;
            names.retain(|name| FileState::of(name).is_some_and(|state| is_useless(name, state)));
            if names.is_empty() {
                return Ok(());
            }
            names.iter().try_for_each(|name| self.disk.remove(name))?;
            self.disk.sync_dir()
        };
        if let Err(error) = remove() {
            log::warn!("cannot remove old snapshots in {}: {error}", self.disk.path(""));
        }
    }

    fn directory_error(&self, error: std::io::Error) -> SnapshotError {
        SnapshotError::disk(&self.disk.path(""), error)
    }

    fn damaged(&self, name: &str, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.disk.path(name), offset: 0, what }
    }
}

/// Whether nothing is gained by a snapshot where there is this other one.
fn is_superseded(at: EntryId, by: EntryId) -> bool {
    at.index <= by.index
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotStore {{ shard: {}, {} }}", self.shard, self.disk.path(""))
    }
}
