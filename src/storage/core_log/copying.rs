//! Entries that are written again at the log's end, so that the segments which hold them can go although the shard's log
//! cannot start later.
//!
//! What is copied are all entries of the shard that lie in segments before the current one. They are written as *copies*,
//! a piece with each batch, and mean nothing until the record behind the last of them says that they are complete: a crash
//! in between leaves the originals in force, and entries that come meanwhile go on as ever. When that record is durable
//! the copies are the entries, and the old places are not needed any more.
//!
//! Whatever discards entries meanwhile shortens what is to be copied; replay does the same with the copies that it has
//! read.

use raftkv_protocol::types::{Entry, Index, ShardId};

use super::{FileLog, For};
use crate::storage::record::{Record, entry_bytes};
use crate::storage::runs::{Extent, Part, Runs};
use crate::storage::tail::ShardTail;
use crate::storage::{BatchNumber, CoreLog, Fetch, FetchError, Fetched, LogError, Space};

/// Bytes of bodies that are copied with one batch.
const PIECE_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next piece can be added.
    Copies,
    /// The next piece is being read.
    Reads(u64),
    /// All is written when this batch is durable.
    Ends(BatchNumber),
    /// It would take too much of the reserve.
    Declined,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Copying {
    /// The first entry that is copied.
    first: Index,
    /// The first that is not copied yet.
    next: Index,
    /// The last that is to be copied.
    last: Index,
    /// Where the copies are.
    copies: Runs<BatchNumber>,
    bytes: usize,
    stage: Stage,
}

impl Copying {
    fn new(first: Index, last: Index) -> Copying {
        Copying { first, next: first, last, copies: Runs::default(), bytes: 0, stage: Stage::Copies }
    }
}

impl FileLog {
    /// Begins to copy, unless there is nothing to copy or it has begun already.
    pub(super) fn begin_copy(&mut self, shard: ShardId) {
        let begun = self.copying.get(&shard).map(|copying| copying.stage);
        if begun.is_some_and(|stage| stage != Stage::Declined || self.space() == Space::ReserveOnly) {
            return;
        }
        if let Some((first, last)) = self.in_old_segments(&self.shards[&shard]) {
            self.copying.insert(shard, Copying::new(first, last));
        }
    }

    /// Whether the shard's entries are being copied.
    pub(super) fn is_copied(&self, shard: ShardId) -> bool {
        self.copying.get(&shard).is_some_and(|copying| copying.stage != Stage::Declined)
    }

    /// The first and the last entry that lie in segments before the current one.
    fn in_old_segments(&self, tail: &ShardTail) -> Option<(Index, Index)> {
        let current = self.held.current();
        let is_old = |part: &Part<BatchNumber>| self.places.get(part.at).is_some_and(|place| place.segment < current);
        let mut old = tail.locate(tail.start(), tail.last()).filter(is_old);
        let first = old.next()?;
        Some((first.first, old.last().unwrap_or(first).last))
    }

    /// Adds a piece of each shard that is being copied to the gathering batch, or asks the reader for it.
    pub(super) fn copy_some(&mut self) {
        if self.copying.is_empty() || self.shared.has_failed() {
            return;
        }
        let shards: Vec<ShardId> = self.copying.keys().copied().collect();
        for shard in shards {
            self.copy_piece(shard);
        }
    }

    fn copy_piece(&mut self, shard: ShardId) {
        let is_low = self.space() == Space::ReserveOnly;
        let Some(copying) = self.copying.get_mut(&shard).filter(|copying| copying.stage == Stage::Copies) else {
            return;
        };
        // One piece with each batch: what is gathered is in memory.
        if copying.copies.last_place() == Some(self.gathering.number()) {
            return;
        }
        if is_low && copying.bytes > self.batch_bytes_max {
            copying.stage = Stage::Declined;
            return;
        }
        let (first, last) = (copying.next, copying.last);
        if first > last {
            return self.add_copies(shard, &[]);
        }
        let bytes_max = PIECE_BYTES.min(self.batch_bytes_max / 2);
        let in_memory = self.shards[&shard].range_from(first);
        let is_wanted = |entry: &&Entry| entry.id.index <= last;
        match in_memory.map(|entries| super::up_to_bytes(entries.take_while(is_wanted), bytes_max)) {
            Some(piece) => self.add_copies(shard, &piece),
            None => {
                let job = self.read(Fetch { shard, tag: 0, first, last, bytes_max }, For::Copy);
                self.set_stage(shard, Stage::Reads(job));
            }
        }
    }

    fn set_stage(&mut self, shard: ShardId, stage: Stage) {
        if let Some(copying) = self.copying.get_mut(&shard) {
            copying.stage = stage;
        }
    }

    /// Takes a piece that was read.
    pub(super) fn copy_read(&mut self, job: u64, Fetched { fetch, result }: Fetched) {
        let is_current = |copying: &Copying| copying.stage == Stage::Reads(job);
        if !self.copying.get(&fetch.shard).is_some_and(is_current) {
            return;
        }
        self.set_stage(fetch.shard, Stage::Copies);
        match result {
            Ok(entries) => self.add_copies(fetch.shard, &entries),
            // Some of it was discarded: the next attempt asks for what is left.
            Err(FetchError::Gone) => {}
            Err(FetchError::Corrupt(what)) => {
                self.shared.fail(LogError(what));
            }
        }
    }

    fn add_copies(&mut self, shard: ShardId, entries: &[Entry]) {
        let Some(mut copying) = self.copying.remove(&shard) else { return };
        for entry in entries {
            self.make_room(entry_bytes(entry));
            let from = self.gathering.gathered_bytes();
            self.gathering.push_copy(shard, entry);
            let extent = Extent::new(from..self.gathering.gathered_bytes());
            copying.copies.push(entry.id.index, self.gathering.number(), extent);
            copying.bytes += entry_bytes(entry);
            copying.next = entry.id.index.next();
        }
        if copying.next > copying.last || mutant!("copied-in-part") {
            let complete = Record::Copied { shard, first: copying.first, last: copying.last };
            self.make_room(complete.encoded_bytes());
            self.gathering.push(&complete);
            copying.stage = Stage::Ends(self.gathering.number());
        }
        self.copying.insert(shard, copying);
    }

    /// Where everything is durable, the copies are the entries from now on.
    pub(super) fn use_copies(&mut self) {
        let durable = self.durable_number();
        let is_complete = |copying: &Copying| matches!(copying.stage, Stage::Ends(batch) if batch <= durable);
        while let Some(shard) = self.copying.iter().find(|(_, copying)| is_complete(copying)).map(|(shard, _)| *shard) {
            let Some(Copying { first, last, copies, .. }) = self.copying.remove(&shard) else { return };
            self.copied_forward += 1;
            self.shard(shard).relocate(first, last, copies);
            self.void_fetches(shard, |fetch| fetch.first <= last && first <= fetch.last);
        }
    }

    /// The shard's entries from `from` on were discarded.
    pub(super) fn copy_discarded(&mut self, shard: ShardId, from: Index) {
        let Some(copying) = self.copying.get_mut(&shard) else { return };
        if from <= copying.first {
            self.copying.remove(&shard);
        } else if from <= copying.last {
            copying.last = from.prev();
            copying.next = copying.next.min(from);
            copying.copies.truncate(from);
        }
    }

    /// The shard's log starts after `start`.
    pub(super) fn copy_compacted(&mut self, shard: ShardId, start: Index) {
        let Some(copying) = self.copying.get_mut(&shard) else { return };
        if copying.last <= start {
            self.copying.remove(&shard);
        } else if copying.next <= start {
            *copying = Copying::new(start.next(), copying.last);
        } else if copying.first <= start {
            copying.copies.compact(start, copying.next.prev());
            copying.first = start.next();
        }
    }
}
