//! What makes spares of space, or of segments that are not needed any more, and how many bytes all of them may take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Filling, SPARES_MAX, Spare, SpareSource};
use crate::storage::LogError;
use crate::storage::batch::BLOCK_BYTES;
use crate::storage::disk::{Access, Disk};
use crate::storage::segment::{FileState, SEGMENT_BYTES_MIN, allocating_name, segment_name, spare_name};
use crate::storage::tip::SegmentFile;

/// The bytes that the log's files may take together.
#[derive(Debug)]
pub(crate) struct Quota {
    max: AtomicU64,
    used: AtomicU64,
}

impl Quota {
    pub(crate) fn new(max: Option<u64>) -> Quota {
        Quota { max: AtomicU64::new(max.unwrap_or(u64::MAX)), used: AtomicU64::new(0) }
    }

    pub(crate) fn set_max(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn add_used(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn sub_used(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn allows(&self, bytes: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.max.load(Ordering::Relaxed)
    }
}

/// Makes spares.
pub(crate) struct SpareMaker {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segment_size: u64,
    pub(crate) quota: Arc<Quota>,
}

impl SpareMaker {
    /// Makes one of this size; calls `rest` after each piece of it.
    pub(crate) fn make(&self, size: u64, rest: &dyn Fn()) -> io::Result<Spare> {
        if !self.quota.allows(size) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the log's quota is used up"));
        }
        let tag = self.disk.fresh_id()? as u64;
        let (allocating, name) = (allocating_name(tag), spare_name(tag));
        self.disk.create_by_and_by(&allocating, size, rest)?;
        self.disk.rename(&allocating, &name)?;
        self.disk.sync_dir()?;
        self.quota.add_used(size);
        Ok(Spare { name, size, filling: Filling::Zeros })
    }

    /// Makes a spare of the log's oldest segment.
    pub(super) fn recycle(&self, segment: &SegmentFile) -> io::Result<Spare> {
        let name = spare_name(self.disk.fresh_id()? as u64);
        self.disk.rename(&segment_name(segment.sequence), &name)?;
        // Until then it may be found under its old name.
        self.disk.sync_dir()?;
        Ok(Spare { name, size: segment.size, filling: Filling::Remains })
    }

    /// Removes the log's oldest segment.
    pub(super) fn remove(&self, segment: &SegmentFile) -> io::Result<()> {
        self.disk.remove(&segment_name(segment.sequence))?;
        self.disk.sync_dir()?;
        self.quota.sub_used(segment.size);
        Ok(())
    }

    /// Finds the spares that an earlier process left behind and removes files that never became spares or have another
    /// size. Counts what the log's files take.
    pub(crate) fn adopt(&self) -> io::Result<Vec<Spare>> {
        let mut spares = Vec::new();
        for name in self.disk.list()? {
            let Some(state) = FileState::of(&name) else { continue };
            let size = self.disk.open(&name, Access::Read)?.size()?;
            match state {
                FileState::Segment(_) => self.quota.add_used(size),
                FileState::Spare if size == self.segment_size && spares.len() < SPARES_MAX => {
                    self.quota.add_used(size);
                    spares.push(Spare { name, size, filling: Filling::Remains });
                }
                FileState::Spare | FileState::Allocating => self.disk.remove(&name)?,
            }
        }
        if !spares.is_empty() {
            // A process that died between a segment's change of name and the sync of it would leave the old name there.
            self.disk.sync_dir()?;
        }
        Ok(spares)
    }
}

/// Where a start gets its segments from, before the allocator's thread runs: what an earlier process left behind, or
/// else the disk. It does not wait for space.
pub(crate) struct First {
    pub(super) maker: SpareMaker,
    pub(super) adopted: Vec<Spare>,
    pub(super) needless: Vec<SegmentFile>,
}

impl First {
    /// Adopts what is there.
    pub(crate) fn new(maker: SpareMaker) -> io::Result<First> {
        let adopted = maker.adopt()?;
        Ok(First { maker, adopted, needless: Vec::new() })
    }

    /// Whether the segment is one of those that will be let go.
    pub(crate) fn lets_go(&self, sequence: u64) -> bool {
        self.needless.iter().any(|segment| segment.sequence == sequence)
    }

    fn make(&mut self, size: u64) -> io::Result<Spare> {
        self.maker.make(size, &|| {}).or_else(|error| {
            // A spare that is too small is better given up than the start.
            let Some(given_up) = self.adopted.pop() else { return Err(error) };
            self.maker.disk.remove(&given_up.name)?;
            self.maker.quota.sub_used(given_up.size);
            self.maker.make(size, &|| {})
        })
    }

    /// Makes one of this size. If the disk has no room for it, makes a shorter one of half of what is left, as long as that
    /// takes what must be written at once, and as much again. The segment before it gives its unused end back when this one
    /// is in use: so a node can be started over and over on a disk that stays full.
    fn make_usual(&mut self, mut size: u64, size_min: u64) -> io::Result<Spare> {
        let least = (2 * size_min).max(SEGMENT_BYTES_MIN);
        let mut made = self.make(size);
        while let Err(error) = &made
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            size = size.min(self.maker.disk.free_bytes()?) / 2 / BLOCK_BYTES * BLOCK_BYTES;
            if size < least {
                break;
            }
            made = self.maker.make(size, &|| {});
        }
        made
    }
}

impl SpareSource for First {
    fn take(&mut self, size_min: u64) -> Result<Spare, LogError> {
        if size_min <= self.maker.segment_size
            && let Some(spare) = self.adopted.pop()
        {
            return Ok(spare);
        }
        let size = size_min.next_multiple_of(BLOCK_BYTES).max(self.maker.segment_size);
        self.make_usual(size, size_min).map_err(|error| {
            LogError(format!(
                "cannot allocate a log segment of {size} bytes in {}: {error}; free space there and start again",
                self.maker.disk.path("")
            ))
        })
    }

    fn kept_bytes(&self, _: u64) -> u64 {
        0
    }

    fn let_go(&mut self, needless: Vec<SegmentFile>) {
        self.needless.extend(needless);
    }
}
