//! Reads a snapshot: its items, or its bytes.

use std::fmt;

use super::decoder::{Decoder, Step};
use super::{Footer, Header, Items, PIECE_BYTES, SnapshotError, SnapshotInfo};
use crate::storage::disk::{Access, Disk, DiskFile};
use crate::storage::given::is_bad_sector;

/// A snapshot's items, block by block, each checked before it is given out. Only the footer says that all of them came:
/// what was made of them is worth nothing without it.
pub struct SnapshotReader {
    input: Input,
    header: Header,
    size: u64,
}

impl SnapshotReader {
    /// Opens any file, whose header must be right.
    pub fn open(disk: &dyn Disk, name: &str) -> Result<SnapshotReader, SnapshotError> {
        let path = disk.path(name);
        let opened = disk.open(name, Access::Read).and_then(|file| Ok((file.size()?, file)));
        let (size, file) = opened.map_err(|error| SnapshotError::disk(&path, error))?;
        let mut input = Input { file, path, decoder: Decoder::default(), read: 0, piece: vec![0; PIECE_BYTES] };
        input.step()?;
        let header = input.decoder.header().cloned().ok_or_else(|| input.cut_off())?;
        Ok(SnapshotReader { input, header, size })
    }

    /// The file's name as people should see it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.input.path
    }

    /// What the file says before its items.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What tells it from other snapshots.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo { id: self.header.id, at: self.header.at, bytes: self.size }
    }

    /// The items of the next block; `None` at the end, when every byte of the file was checked. Reads no more than a
    /// piece of the file, or one long block.
    pub fn next_items(&mut self) -> Result<Option<Items<'_>>, SnapshotError> {
        while let Some(step) = self.input.step()? {
            if step == Step::Items {
                return Ok(Some(self.input.decoder.items()));
            }
        }
        Ok(None)
    }

    /// What the file says behind its items; `None` until they have been read.
    #[must_use]
    pub fn footer(&self) -> Option<&Footer> {
        self.input.decoder.footer()
    }

    /// The bytes of the file.
    pub(super) fn into_file(self) -> SnapshotFile {
        SnapshotFile { info: self.info(), path: self.input.path, file: self.input.file }
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotReader {{ {}, {:?}, read: {} }}", self.input.path, self.info(), self.input.read)
    }
}

/// A file that is fed to a decoder, a piece at a time.
struct Input {
    file: Box<dyn DiskFile>,
    path: String,
    decoder: Decoder,
    /// The bytes that the decoder was given.
    read: u64,
    piece: Vec<u8>,
}

impl Input {
    /// The decoder's next step that brings something; `None` at the end of a whole file.
    fn step(&mut self) -> Result<Option<Step>, SnapshotError> {
        loop {
            match self.decoder.step().map_err(|bad| SnapshotError::bad(&self.path, bad))? {
                Step::Starved => {}
                step => return Ok(Some(step)),
            }
            let read = self.file.read_at(self.read, &mut self.piece);
            let read = read.or_else(|error| {
                // Twice, like the blocks of a log.
                if is_bad_sector(&*self.file, &error) {
                    self.file.read_at(self.read, &mut self.piece)
                } else {
                    Err(error)
                }
            });
            let read = read.map_err(|error| match is_bad_sector(&*self.file, &error) {
                true => self.damaged("the disk does not give what follows here: it has a bad sector"),
                false => SnapshotError::disk(&self.path, error),
            })?;
            if read == 0 {
                return if self.decoder.footer().is_some() { Ok(None) } else { Err(self.cut_off()) };
            }
            self.decoder.feed(&self.piece[..read]);
            self.read += read as u64;
        }
    }

    fn cut_off(&self) -> SnapshotError {
        self.damaged("the file ends before its footer")
    }

    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), offset: self.read, what }
    }
}

/// A snapshot's file, to be sent to a peer. It is not checked again: whoever gets it does that.
pub struct SnapshotFile {
    info: SnapshotInfo,
    path: String,
    file: Box<dyn DiskFile>,
}

impl SnapshotFile {
    /// What tells it from other snapshots.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        self.info
    }

    /// Reads the bytes at `offset` until `buffer` is full or the file ends; returns how many that are.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SnapshotError> {
        self.file.read_at(offset, buffer).map_err(|error| SnapshotError::disk(&self.path, error))
    }
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotFile {{ {}, {:?} }}", self.path, self.info)
    }
}
