//! What makes spares of space, or of segments that are not needed any more, and how many bytes all of them may take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Filling, SPARES_MAX, Spare};
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

    fn left(&self) -> u64 {
        self.max.load(Ordering::Relaxed).saturating_sub(self.used())
    }
}

/// Spares that an earlier process has left.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Of the size that segments have.
    pub(super) usual: Vec<Spare>,
    /// Too short for the pool; the longest is the last.
    pub(super) short: Vec<Spare>,
}

/// What some spares take together.
pub(super) fn bytes_of(spares: &[Spare]) -> u64 {
    spares.iter().map(|spare| spare.size).sum()
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
        if size > self.quota.left() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the log's quota is used up"));
        }
        let tag = self.disk.fresh_id()? as u64;
        let (allocating, name) = (allocating_name(tag), spare_name(tag));
        self.disk.create_by_and_by(&allocating, size, rest)?;
        let named = self.disk.rename(&allocating, &name).and_then(|()| self.disk.sync_dir());
        if let Err(error) = named {
            // The next attempt makes another.
            let _ = self.disk.remove(&name).or_else(|_| self.disk.remove(&allocating));
            return Err(error);
        }
        self.quota.add_used(size);
        Ok(Spare { name, size, filling: Filling::Zeros })
    }

    /// Makes one of at most so many bytes, if a segment can have so few.
    pub(super) fn make_short(&self, bytes: u64) -> io::Result<Option<Spare>> {
        let size = bytes / BLOCK_BYTES * BLOCK_BYTES;
        (size >= SEGMENT_BYTES_MIN).then(|| self.make(size, &|| {})).transpose()
    }

    /// Makes a spare of the log's oldest segment. Until the directory is synced it may be found under its old name.
    pub(super) fn rename(&self, segment: &SegmentFile) -> io::Result<Spare> {
        let name = spare_name(self.disk.fresh_id()? as u64);
        self.disk.rename(&segment_name(segment.sequence), &name)?;
        Ok(Spare { name, size: segment.size, filling: Filling::Remains })
    }

    /// Removes the log's oldest segment.
    pub(super) fn remove(&self, segment: &SegmentFile) -> io::Result<()> {
        match self.disk.remove(&segment_name(segment.sequence)) {
            // An earlier attempt did that, and the disk had no room to make it durable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.disk.sync_dir()?;
        self.quota.sub_used(segment.size);
        Ok(())
    }

    /// Bytes that a spare may have now.
    pub(super) fn room(&self) -> io::Result<u64> {
        Ok(self.disk.free_bytes()?.min(self.quota.left()))
    }

    /// Removes a spare; its space is free when this returns.
    pub(super) fn give_up(&self, spare: &Spare) -> io::Result<()> {
        self.disk.remove(&spare.name)?;
        self.quota.sub_used(spare.size);
        self.disk.sync_dir()
    }

    /// Removes all of these.
    pub(super) fn give_up_all(&self, spares: &mut Vec<Spare>) -> io::Result<()> {
        while let Some(spare) = spares.pop() {
            self.give_up(&spare)?;
        }
        Ok(())
    }

    /// Finds the spares that an earlier process left behind, and removes files that never became spares or are too many or
    /// too long. Counts what the log's files take.
    pub(super) fn adopt(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut useless = Vec::new();
        for name in self.disk.list()? {
            let Some(state) = FileState::of(&name) else { continue };
            let size = self.disk.open(&name, Access::Read)?.size()?;
            let spare = Spare { name, size, filling: Filling::Remains };
            match state {
                FileState::Segment(_) => self.quota.add_used(size),
                FileState::Spare if size == self.segment_size => found.usual.push(spare),
                FileState::Spare if (SEGMENT_BYTES_MIN..self.segment_size).contains(&size) => found.short.push(spare),
                FileState::Spare | FileState::Allocating => useless.push(spare),
            }
        }
        found.short.sort_by_key(|spare| std::cmp::Reverse(spare.size));
        for spares in [&mut found.usual, &mut found.short] {
            useless.extend(spares.drain(SPARES_MAX.min(spares.len())..));
            spares.iter().for_each(|spare| self.quota.add_used(spare.size));
        }
        found.short.reverse();
        useless.iter().try_for_each(|spare| self.disk.remove(&spare.name))?;
        // A process that died between a segment's change of name and the sync of it would leave the old name there. And what
        // was removed may be all the space there is.
        self.disk.sync_dir()?;
        Ok(found)
    }
}
