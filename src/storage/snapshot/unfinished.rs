//! A file that is no snapshot yet.

use std::fmt;
use std::io;
use std::sync::Arc;

use raftkv_protocol::types::SnapshotId;

use super::SnapshotError;
use super::format::spare_name;
use crate::storage::disk::{Access, Disk, DiskFile, is_full};

/// What becomes of a file that nobody goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It is removed.
    Removed,
    /// It stays, for a later start to go on with.
    Kept,
    /// It becomes the spare of this name: all the room that a full disk has for another.
    Room(SnapshotId),
}

/// See the module. After the first failure the file is gone, as nobody can know what a failed write or sync left in it; if the
/// disk was only full, it may become a spare.
pub(super) struct Unfinished {
    disk: Arc<dyn Disk>,
    name: String,
    /// `None` once it was given up.
    file: Option<Box<dyn DiskFile>>,
    abandoned: Abandoned,
}

impl Unfinished {
    /// A new, empty file.
    pub(super) fn create(disk: Arc<dyn Disk>, name: String, abandoned: Abandoned) -> Result<Unfinished, SnapshotError> {
        disk.create(&name, 0).map_err(|error| SnapshotError::disk(&disk.path(&name), error))?;
        Unfinished::open(disk, name, abandoned)
    }

    /// One that is there.
    pub(super) fn open(disk: Arc<dyn Disk>, name: String, abandoned: Abandoned) -> Result<Unfinished, SnapshotError> {
        match disk.open(&name, Access::Grow) {
            Ok(file) => Ok(Unfinished { disk, name, file: Some(file), abandoned }),
            Err(error) => Err(SnapshotError::disk(&disk.path(&name), error)),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The file's name as people should see it.
    pub(super) fn path(&self) -> String {
        self.disk.path(&self.name)
    }

    pub(super) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, SnapshotError> {
        self.attempt(|file| file.read_at(offset, buffer))
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.attempt(|file| file.write_at(offset, bytes))
    }

    pub(super) fn sync(&mut self) -> Result<(), SnapshotError> {
        self.attempt(|file| file.sync())
    }

    pub(super) fn size(&mut self) -> Result<u64, SnapshotError> {
        self.attempt(|file| file.size())
    }

    /// Cuts off what lies behind an offset.
    pub(super) fn truncate(&mut self, size: u64) -> Result<(), SnapshotError> {
        let (disk, name) = (Arc::clone(&self.disk), self.name.clone());
        self.attempt(|_| disk.truncate(&name, size))
    }

    fn attempt<T>(&mut self, attempt: impl FnOnce(&mut dyn DiskFile) -> io::Result<T>) -> Result<T, SnapshotError> {
        let file = self.file.as_deref_mut().ok_or(SnapshotError::Ended)?;
        attempt(file).map_err(|error| {
            if !is_full(&error) && matches!(self.abandoned, Abandoned::Room(_)) {
                self.abandoned = Abandoned::Removed;
            }
            self.give_up();
            SnapshotError::disk(&self.path(), error)
        })
    }

    /// Removes the file, or makes it a spare.
    pub(super) fn give_up(&mut self) {
        if self.file.take().is_some() {
            let gone = match self.abandoned {
                Abandoned::Room(id) => self.disk.rename(&self.name, &spare_name(id)),
                Abandoned::Removed | Abandoned::Kept => self.disk.remove(&self.name),
            };
            // Whatever is left the next start looks at.
            let _ = gone.and_then(|()| self.disk.sync_dir());
        }
    }

    /// Closes the file, which goes on under another name.
    pub(super) fn close(mut self) {
        self.file = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.abandoned != Abandoned::Kept {
            self.give_up();
        }
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unfinished {{ {}, is_open: {} }}", self.name, self.file.is_some())
    }
}
