//! Where a start gets its segment from, before the allocator's thread runs, and what it lays by for the next one where the
//! disk is full.
//!
//! A start takes a spare, and the segment of its predecessor gives back what it had not used. On a full disk that is all the
//! space there is, and whoever else writes to the disk would have it in no time: so, if no spare is left, it becomes one again
//! at once, and what is not enough for one a *short* spare, which only a start may take. So a node can be started over and over
//! on a disk that stays full.

use std::io;

use super::maker::{Found, SpareMaker, bytes_of};
use super::{Spare, SpareSource};
use crate::storage::LogError;
use crate::storage::batch::BLOCK_BYTES;
use crate::storage::disk::is_full;
use crate::storage::segment::SEGMENT_BYTES_MIN;
use crate::storage::tip::SegmentFile;

/// What an earlier process left behind, or else the disk. It does not wait for space.
pub(crate) struct First {
    pub(super) maker: SpareMaker,
    pub(super) adopted: Vec<Spare>,
    /// The longest is the last.
    pub(super) short: Vec<Spare>,
    pub(super) needless: Vec<SegmentFile>,
}

impl First {
    /// Adopts what is there.
    pub(crate) fn new(maker: SpareMaker) -> io::Result<First> {
        let Found { usual, short } = maker.adopt()?;
        Ok(First { maker, adopted: usual, short, needless: Vec::new() })
    }

    /// Whether the segment is one of those that will be let go.
    pub(crate) fn lets_go(&self, sequence: u64) -> bool {
        self.needless.iter().any(|segment| segment.sequence == sequence)
    }

    /// Keeps bytes that were given back for the next start, unless there is a spare for it or the disk has room for one.
    pub(crate) fn lay_by(&mut self, given_back: u64) -> io::Result<()> {
        match self.try_lay_by(given_back) {
            // Somebody else was faster. The allocator tells whether the disk is full.
            Err(error) if is_full(&error) => {
                log::debug!("cannot lay a spare by in {}: {error}", self.maker.disk.path(""));
                Ok(())
            }
            laid_by => laid_by,
        }
    }

    fn try_lay_by(&mut self, given_back: u64) -> io::Result<()> {
        let usual = self.maker.segment_size;
        let free = self.maker.room()?;
        if !self.adopted.is_empty() || free >= usual {
            return Ok(());
        }
        let short = bytes_of(&self.short);
        let mut ours = given_back;
        if free.max(ours) + short >= usual {
            ours += short;
            self.maker.give_up_all(&mut self.short)?;
            match self.maker.make(usual, &|| {}) {
                Ok(spare) => {
                    self.adopted.push(spare);
                    ours = ours.saturating_sub(usual);
                }
                Err(error) if !is_full(&error) => return Err(error),
                Err(_) => {}
            }
        }
        let ours = ours.min(usual - BLOCK_BYTES);
        let free = ours.min(self.maker.room()?);
        // What is free is what everybody may have: the superuser may have more. And a file system may need some for itself.
        for bytes in [ours, free, free / 8 * 7] {
            match self.maker.make_short(bytes) {
                Err(error) if is_full(&error) => {}
                made => {
                    self.short.extend(made?);
                    break;
                }
            }
        }
        Ok(())
    }

    fn make(&mut self, size: u64) -> io::Result<Spare> {
        self.maker.make(size, &|| {}).or_else(|error| {
            // A spare that is too small is better given up than the start.
            let Some(given_up) = self.adopted.pop() else { return Err(error) };
            self.maker.give_up(&given_up)?;
            self.maker.make(size, &|| {})
        })
    }

    /// Makes one of this size. If the disk has no room for it, takes a short one that holds what must be written at once, and
    /// as much again; or makes one of half of what is left.
    fn make_usual(&mut self, mut size: u64, size_min: u64) -> io::Result<Spare> {
        let least = (2 * size_min).next_multiple_of(BLOCK_BYTES).max(SEGMENT_BYTES_MIN);
        let mut made = self.make(size);
        if made.as_ref().is_err_and(is_full) {
            if let Some(short) = self.short.pop_if(|spare| spare.size >= least) {
                return Ok(short);
            }
            let short = bytes_of(&self.short);
            if short > 0 && self.maker.room()? + short >= least.min(size) {
                self.maker.give_up_all(&mut self.short)?;
                made = self.make(size);
            }
        }
        while made.as_ref().is_err_and(is_full) && size > least {
            let free = self.maker.room()?;
            let most = if free < least { size } else { size.min(free) };
            size = (most / 2 / BLOCK_BYTES * BLOCK_BYTES).max(least);
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
