//! The few things that the log and snapshots do with files, behind a trait: one directory, and its files.
//!
//! [`RealDisk`] is the file system. Segments are written with direct writes that are durable when they return, with such
//! writes through the page cache, or through a memory map ([`LogIo`]); the bytes on disk are the same. Snapshots are
//! files that grow, written through the page cache. Everything is read with `pread`, never through a map, so that a short file is a short read and a bad sector
//! an error.
//!
//! A file is mapped only over its whole prefilled length, so that a store never meets a hole: on a full disk that would
//! be a SIGBUS. So would be a prefilled page that left the page cache before it was used, if the disk does not give it any more:
//! the kernel is asked for the pages before a store, and says what a store would die of.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use memmap2::{Advice, MmapMut};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

/// How batches reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogIo {
    /// Written past the page cache and durable when the write returns (`O_DIRECT` and `O_DSYNC`); where the file system
    /// has no way past the cache, through it.
    #[default]
    Direct,
    /// Written through the page cache and durable when the write returns (`pwritev2` with `RWF_DSYNC`).
    Buffered,
    /// Copied into the mapped segment, then one `fdatasync`.
    Map,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Placing batches into a prefilled file of this size.
    Place {
        /// Bytes.
        size: u64,
    },
    /// Writing a file from its beginning to its end, and reading what was written.
    Grow,
}

/// A directory of segments, or of snapshots.
pub trait Disk: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file of `size` zeros, written and durable; its name is not durable yet. One that is to grow has none.
    fn create(&self, name: &str, size: u64) -> io::Result<()>;
    /// The same for whoever need not hurry: `rest` is called after each piece of a file that comes in pieces.
    fn create_by_and_by(&self, name: &str, size: u64, rest: &dyn Fn()) -> io::Result<()> {
        let created = self.create(name, size);
        rest();
        created
    }
    /// Opens a file.
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file a name that no other has; not durable yet.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; not durable yet.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Shortens a file that nobody maps, and into which nobody writes meanwhile; durable when it returns, or the space
    /// would be lost with the power.
    fn truncate(&self, name: &str, size: u64) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// The first sync that failed here, in words, unless the disk was only full: also one that nobody waited for. The log knows
    /// by itself of those of its segments.
    fn failed_sync(&self) -> Option<String>;
    /// A number that was never drawn before, and is not 0.
    fn fresh_id(&self) -> io::Result<u128>;
    /// How many bytes more the files may have, as far as anybody knows: others write to the same disk.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The file's name as people should see it.
    fn path(&self, name: &str) -> String;
}

/// An open file.
pub trait DiskFile: Send {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads at `offset` until `buffer` is full or the file ends; returns how many bytes were read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`; durable at the latest after [`DiskFile::sync`]. Into a prefilled file only
    /// whole blocks are written, each in its place; one that grows takes any bytes at any offset up to its end.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable. After an error nothing may be assumed, and it must not be called again.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    log_io: LogIo,
    failed: FailedSync,
}

/// What is remembered of the first sync that fails. Clones are the same.
#[derive(Clone, Debug, Default)]
struct FailedSync(Arc<OnceLock<String>>);

impl FailedSync {
    fn note(&self, path: &Path, synced: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &synced
            && !is_full(error)
        {
            // The first says it all.
            let _ = self.0.set(format!("cannot sync {}: {error}", path.display()));
        }
        synced
    }
}

impl RealDisk {
    /// The log or the snapshots in `dir`, which is created if it does not exist.
    pub fn create(dir: &Path, log_io: LogIo) -> io::Result<RealDisk> {
        create_dir_durably(dir)?;
        Ok(RealDisk { dir: dir.to_owned(), log_io, failed: FailedSync::default() })
    }

    /// The log or the snapshots in `dir`, for reading only.
    #[must_use]
    pub fn read_only(dir: &Path) -> RealDisk {
        RealDisk { dir: dir.to_owned(), log_io: LogIo::default(), failed: FailedSync::default() }
    }
}

fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir_durably(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// Whether a disk has no room, which may pass. Whatever else it says is final: a sync that succeeds after one that failed
/// proves nothing.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Zeros are written in pieces of this size. Larger pieces make larger page-cache folios, and a store through the map
/// makes the whole folio dirty.
const PREFILL_BYTES: usize = 16 << 10;

/// Space is scarce where there is none for so many files like the one that is made.
const SCARCE: u64 = 16;

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            names.extend(file?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<()> {
        self.create_by_and_by(name, size, &|| {})
    }

    fn create_by_and_by(&self, name: &str, size: u64, rest: &dyn Fn()) -> io::Result<()> {
        let path = self.dir.join(name);
        let is_scarce = size > 0 && self.free_bytes()? / SCARCE < size;
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let reserved = if is_scarce { reserve(&file, size) } else { Ok(()) };
        let filled = reserved.and_then(|()| match self.log_io {
            LogIo::Map => prefill(&file, size, rest),
            LogIo::Direct | LogIo::Buffered => prefill_directly(&path, size, rest),
        });
        let filled = filled.and_then(|()| self.failed.note(&path, file.sync_all()));
        if filled.is_err() {
            // Whatever is left of it is removed at the next start.
            let _ = fs::remove_file(&path);
        }
        filled
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let path = self.dir.join(name);
        let writable = || OpenOptions::new().read(true).write(true).open(&path);
        let size = match access {
            Access::Read => return Ok(Box::new(ReadFile(File::open(&path)?))),
            Access::Grow => {
                let failed = self.failed.clone();
                return Ok(Box::new(GrowingFile { file: writable()?, path, unsynced: 0, failed }));
            }
            Access::Place { size } => size,
        };
        let file = writable()?;
        let found = file.metadata()?.len();
        if found != size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {found} bytes, not {size}")));
        }
        Ok(match self.log_io {
            LogIo::Map => Box::new(MappedFile::new(file)?),
            LogIo::Direct => Box::new(DirectFile::new(file, &path, size)?),
            LogIo::Buffered => Box::new(BufferedFile { file, size }),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(size)?;
        self.failed.note(&path, file.sync_all())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.failed.note(&self.dir, File::open(&self.dir)?.sync_all())
    }

    fn failed_sync(&self) -> Option<String> {
        self.failed.0.get().cloned()
    }

    fn fresh_id(&self) -> io::Result<u128> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u128::from_le_bytes(bytes).max(1))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// Takes the space of a file at once, where the file system can do that: to fill it takes a while, and others write to the same
/// disk. What is reserved and not written yet costs the journal something with the first write to each block: it is filled all
/// the same.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(error.into()),
        // The zeros take it, one after the other.
        _ => Ok(()),
    }
}

fn prefill(file: &File, size: u64, rest: &dyn Fn()) -> io::Result<()> {
    let zeros = [0; PREFILL_BYTES];
    let mut at = 0;
    while at < size {
        let length = (size - at).min(PREFILL_BYTES as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
        if at % PIECE_BYTES as u64 == 0 {
            rest();
        }
    }
    Ok(())
}

/// Writes of whole blocks need no page of the file in memory, so the zeros go past the page cache.
fn prefill_directly(path: &Path, size: u64, rest: &dyn Fn()) -> io::Result<()> {
    let file = open_direct(path, 0)?;
    let zeros = MmapMut::map_anon(PIECE_BYTES)?;
    let mut at = 0;
    while at < size {
        let length = (size - at).min(PIECE_BYTES as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
        rest();
    }
    Ok(())
}

/// Opens a file for writes that go past the page cache, or through it where the file system knows no other way.
fn open_direct(path: &Path, flags: i32) -> io::Result<File> {
    let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    match open(libc::O_DIRECT | flags) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => open(flags),
        opened => opened,
    }
}

fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn beyond_the_end(size: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("a write beyond the segment's {size} bytes"))
}

fn fits(offset: u64, length: usize, size: u64) -> bool {
    offset.checked_add(length as u64).is_some_and(|end| end <= size)
}

struct ReadFile(File);

impl DiskFile for ReadFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_at(&self.0, offset, buffer)
    }

    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }

    fn sync(&mut self) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }
}

struct MappedFile {
    file: File,
    map: MmapMut,
}

impl MappedFile {
    fn new(file: File) -> io::Result<MappedFile> {
        // SAFETY: the directory is locked by this process and no code of it shrinks a segment, so the mapped pages
        // exist as long as the map. All of the file was written before, so a store allocates nothing. Only the
        // syncer's thread has the map; others read the file with pread, which no Rust reference sees.
        let map = unsafe { MmapMut::map_mut(&file)? };
        Ok(MappedFile { file, map })
    }

    /// Has these pages ready to be written to, so that a store into them cannot fail.
    fn populate(&self, at: usize, length: usize) -> io::Result<()> {
        let populated = self.map.advise_range(Advice::PopulateWrite, at, length);
        let Err(error) = populated else { return Ok(()) };
        // The kernel does not say why there is no page, or it is older than 5.14 and cannot be asked: a read tells.
        let read = read_at(&self.file, at as u64, &mut vec![0; length])?;
        match error.raw_os_error() {
            Some(libc::EINVAL) if read == length => Ok(()),
            Some(libc::EFAULT | libc::EINVAL) => Err(io::Error::other(format!("no page of it for the bytes at {at}"))),
            _ => Err(error),
        }
    }
}

impl DiskFile for MappedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.map.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !fits(offset, bytes.len(), self.map.len() as u64) {
            return Err(beyond_the_end(self.map.len() as u64));
        }
        let at = offset as usize;
        self.populate(at, bytes.len())?;
        self.map[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Files are filled, and direct writes go through aligned memory, in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

struct DirectFile {
    /// For reading.
    file: File,
    /// For writing; a write is durable when it returns.
    durable: File,
    size: u64,
    /// Page-aligned, as direct writes ask for.
    piece: MmapMut,
}

impl DirectFile {
    fn new(file: File, path: &Path, size: u64) -> io::Result<DirectFile> {
        let durable = open_direct(path, libc::O_DSYNC)?;
        Ok(DirectFile { file, durable, size, piece: MmapMut::map_anon(PIECE_BYTES)? })
    }
}

impl DiskFile for DirectFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !fits(offset, bytes.len(), self.size) {
            return Err(beyond_the_end(self.size));
        }
        let mut at = offset;
        for bytes in bytes.chunks(PIECE_BYTES) {
            self.piece[..bytes.len()].copy_from_slice(bytes);
            self.durable.write_all_at(&self.piece[..bytes.len()], at)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct BufferedFile {
    file: File,
    size: u64,
}

impl DiskFile for BufferedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !fits(offset, bytes.len(), self.size) {
            return Err(beyond_the_end(self.size));
        }
        let mut written = 0;
        while written < bytes.len() {
            let rest = [IoSlice::new(&bytes[written..])];
            match pwritev2(&self.file, &rest, offset + written as u64, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A growing file is synced each time that so much was written. One sync of a whole snapshot would keep the disk busy
/// for seconds, and the log's syncs would wait behind it.
const SYNC_EVERY_BYTES: usize = 4 << 20;

struct GrowingFile {
    file: File,
    path: PathBuf,
    unsynced: usize,
    failed: FailedSync,
}

impl DiskFile for GrowingFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.unsynced += bytes.len();
        if self.unsynced < SYNC_EVERY_BYTES {
            return Ok(());
        }
        self.unsynced = 0;
        self.failed.note(&self.path, self.file.sync_data())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.failed.note(&self.path, self.file.sync_all())
    }
}
