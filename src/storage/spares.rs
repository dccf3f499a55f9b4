//! Segments ahead: files that are durable in their whole length before they are needed. And segments behind: those that
//! nothing needs any more become spares again, or are removed.
//!
//! A thread of its own keeps [`SPARES`] of them in a pool, so that filling a file never delays a sync. When the disk is
//! full it says so (ordinary writes are refused while only [`RESERVED`] are left) and tries again by itself. While it does
//! not know yet whether the disk is full, whoever would take one of these waits.
//!
//! The last spare, and the end of the segment that is written to when no more than that is left, are for terms, votes and
//! starts, and for what sets segments free. Entries wait for more: a node that can get no space for hours can vote.
//!
//! Segments go one by one, oldest first, each for good before the next: whatever a crash leaves is a chain. The new name
//! of a spare is durable before anything is written into it. Any error but that the disk is full ends the log: nobody knows
//! which names the disk holds, and where a sync of the directory has failed, the next one proves nothing. The next start looks.

mod allocator;
mod first;
mod maker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::LogError;
use super::batch::BLOCK_BYTES;
use super::stats::Shared;
use super::tip::SegmentFile;

#[cfg(test)]
pub(super) use allocator::CALM_AFTER_START;
pub(super) use allocator::{Allocator, AllocatorWorker, Attempt, RETRY_AFTER};
pub(super) use first::First;
pub(super) use maker::{Quota, SpareMaker};

/// Spares kept for what must be written even when the disk is full.
pub(crate) const RESERVED: usize = 2;
/// Spares that no entry is written into.
const LAST: usize = 1;
/// Spares that are made.
pub(crate) const SPARES: usize = RESERVED + 1;
/// Spares kept, if segments become spares again: what is let go at once is used up little by little.
pub(crate) const SPARES_MAX: usize = SPARES + 3;

/// What a spare holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    Zeros,
    /// Zeros, or whatever is left from an earlier use.
    Remains,
}

/// A file that waits to become a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) filling: Filling,
}

/// Where the syncer gets its next segment, and where the oldest ones go.
pub(crate) trait SpareSource: Send {
    /// A file of at least this many bytes.
    fn take(&mut self, size_min: u64) -> Result<Spare, LogError>;

    /// Bytes at the end of the current segment, which has this size, that no entry is written into now: a quarter of it if
    /// the last spare is what comes next, half of it if none is left.
    fn kept_bytes(&self, size: u64) -> u64;

    /// These segments are not needed any more, oldest first. If a file was taken, it is a segment now, durably.
    fn let_go(&mut self, needless: Vec<SegmentFile>);
}

/// What a segment is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Entries, and what comes with them.
    Entries,
    /// Nothing but terms and votes.
    HardStates,
}

pub(super) enum Request {
    /// These segments can go, and a spare may have been taken.
    LetGo(Vec<SegmentFile>),
    /// One of this size is wanted, for an entry that is larger than a segment.
    Larger(u64),
    /// The log waits for one of the usual size.
    Usual,
}

/// The pool's side that the syncer has.
pub(crate) struct Pool {
    spares: Receiver<Spare>,
    larger: Receiver<Spare>,
    /// The allocator has attempted something since the last look.
    attempts: Receiver<()>,
    requests: Sender<Request>,
    segment_size: u64,
    /// A larger one was asked for and not taken yet.
    asked: bool,
    /// The log waits for one of the usual size, and has said so.
    hurries: bool,
    /// There was more than the reserve once.
    was_filled: bool,
    shared: Arc<Shared>,
}

impl SpareSource for Pool {
    fn take(&mut self, size_min: u64) -> Result<Spare, LogError> {
        let is_usual = size_min <= self.segment_size;
        let spare = if is_usual { self.spares.try_recv() } else { self.larger.try_recv() };
        self.asked &= is_usual;
        self.hurries &= !is_usual;
        // Whoever takes one has looked whether it is there, and nobody else takes any.
        spare.map_err(|_| LogError("the log's allocator ended unexpectedly".to_owned()))
    }

    fn kept_bytes(&self, size: u64) -> u64 {
        let size = size.min(self.segment_size);
        match self.spares.len() {
            // A leader's first entry must find room, or a node whose disk is full after its start answers no read.
            0 if self.was_filled || self.is_low() => (size / 2).next_multiple_of(BLOCK_BYTES),
            ..=LAST => (size / 4).next_multiple_of(BLOCK_BYTES),
            _ => 0,
        }
    }

    fn let_go(&mut self, needless: Vec<SegmentFile>) {
        // The allocator is gone only when the log is being closed; then no spare is needed, and the next start lets go.
        let _ = self.requests.send(Request::LetGo(needless));
    }
}

impl Pool {
    /// Whether only the reserve is left.
    pub(super) fn is_low(&self) -> bool {
        self.shared.reserve_only.load(Ordering::Relaxed)
    }

    /// Whether the next spare may be taken. The reserve may not while nobody knows whether the disk is full: to fill a
    /// segment takes long, most of all where it fails in the end, and puts that were taken meanwhile would use it up.
    fn may_take(&mut self, purpose: Purpose) -> bool {
        let left = self.spares.len();
        self.was_filled |= left > RESERVED;
        let kept = if purpose == Purpose::Entries { LAST } else { 0 };
        left > RESERVED || (left > kept && (!self.was_filled || self.is_low()))
    }

    /// Whether a file of at least this many bytes is there.
    pub(super) fn has(&self, size_min: u64) -> bool {
        size_min <= self.segment_size && !self.spares.is_empty()
    }

    /// Bytes of a spare.
    pub(super) fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Whether a file of at least so many bytes, if one is wanted, can be taken now. While it cannot, the log waits for
    /// space.
    pub(super) fn is_ready(&mut self, wanted: Option<u64>, purpose: Purpose) -> bool {
        let ready = match wanted {
            None => true,
            Some(size_min) if size_min <= self.segment_size => self.may_take(purpose) || self.hurry(),
            Some(size_min) => {
                self.ask_for(size_min);
                !self.larger.is_empty()
            }
        };
        self.shared.set_waits_for_space(!ready);
        ready
    }

    /// Tells that the allocator has attempted something. Every attempt is told after it, so that none is missed.
    pub(super) fn attempts(&self) -> &Receiver<()> {
        &self.attempts
    }

    /// Waits until what was wanted last may be there, though not for long.
    pub(super) fn await_one(&self, patience: Duration) {
        // Whoever waits looks again in either case.
        let _ = self.attempts.recv_timeout(patience);
    }

    /// Tells the allocator that the log waits; says that no spare may be taken.
    fn hurry(&mut self) -> bool {
        if !std::mem::replace(&mut self.hurries, true) {
            // The allocator is gone only when the log is being closed; then no spare is needed.
            let _ = self.requests.send(Request::Usual);
        }
        false
    }

    fn ask_for(&mut self, size: u64) {
        if !self.asked {
            self.asked = true;
            // The allocator is gone only when the log is being closed; then no spare is needed.
            let _ = self.requests.send(Request::Larger(size));
        }
    }
}
