//! What the records say, taken one after the other: the state of each shard, and where its entries are.
//!
//! The oldest segment that is there begins in the middle of the log's life. Its first batch stands for what came before.
//! It may say that a shard has entries which lie in segments that were let go since: then a later restatement, a reset
//! or copies must make up for them. What nothing makes up for is missing.

use std::collections::BTreeMap;

use raftkv_protocol::types::{EntryId, HardState, Index, ShardId, SnapshotId, Term};

use super::record::{Record, ShardState};
use super::runs::Whereabouts;
use super::syncer::Place;
use super::tail::ShardTail;
use super::tip::ShardTip;
use super::{BatchNumber, RecoveredShard};

/// The term of an entry that was not seen.
const UNKNOWN: Term = Term(0);

/// One shard as far as the records were read.
#[derive(Debug, Default)]
struct ShardReplay {
    hard_state: HardState,
    start: EntryId,
    snapshot: SnapshotId,
    /// The entry before the first in `entries`, its term unknown if that was not told. It is `start`, unless the segments
    /// that held the entries in between were let go: then a later record must close the gap.
    base: EntryId,
    entries: Vec<(Term, u32)>,
    /// Entries up to `base` of which there are copies: they count as soon as the gap behind them is closed.
    below: BTreeMap<Index, (Term, u32)>,
    places: Whereabouts<BatchNumber>,
    /// What there are copies of, from `places.copies_first()` on.
    copies: Vec<(Term, u32)>,
}

impl ShardReplay {
    fn last(&self) -> EntryId {
        match self.entries.last() {
            None => self.base,
            Some((term, _)) => EntryId { index: Index(self.base.index.0 + self.entries.len() as u64), term: *term },
        }
    }

    fn state(&self) -> ShardState {
        ShardState { hard_state: self.hard_state, start: self.start, last: self.last(), snapshot: self.snapshot }
    }

    /// Where an entry behind `base` is in `entries`.
    fn position(&self, index: Index) -> usize {
        (index.0 - self.base.index.0 - 1) as usize
    }

    fn entry(&mut self, id: EntryId, body_bytes: u32, batch: BatchNumber) -> Result<(), String> {
        if id.index <= self.start.index || id.index.prev() > self.last().index {
            let (start, last) = (self.start, self.last());
            return Err(format!("entry {id} does not follow: the shard's log begins after {start} and ends at {last}"));
        }
        if mutant!("replay-keeps-overwritten") && id.index <= self.last().index {
            return Ok(());
        }
        if id.index <= self.base.index {
            self.entries.clear();
            self.below.split_off(&id.index);
            self.begin_with(id.index);
            self.join();
        }
        self.entries.truncate(self.position(id.index));
        self.entries.push((id.term, body_bytes));
        self.places.entry(id.index, batch);
        let copies_left = self.places.copies_first().map_or(0, |first| id.index.0.saturating_sub(first.0));
        self.copies.truncate(copies_left as usize);
        Ok(())
    }

    fn copy(&mut self, id: EntryId, body_bytes: u32, batch: BatchNumber) -> Result<(), String> {
        if id.index == Index(0) {
            return Err("a copy of no entry".to_owned());
        }
        if !self.places.copy(id.index, batch) {
            self.copies.clear();
        }
        self.copies.push((id.term, body_bytes));
        Ok(())
    }

    /// The copies take the place of what they are copies of. Whatever is not copied is missed later, if it is needed.
    fn copied(&mut self, first: Index, last: Index) -> Result<(), String> {
        let end = self.last().index;
        if let Some((first, last)) = self.places.copied(self.start.index, first, last.min(end)) {
            let copies = self.take_copies(first, last);
            for (index, copy) in (first.0..=last.0).map(Index).zip(copies) {
                let seen = (index > self.base.index).then(|| self.entries[self.position(index)]);
                match seen {
                    Some(entry) if entry != copy => {
                        return Err(format!("the copy of entry {index} differs from the entry: {copy:?}, {entry:?}"));
                    }
                    Some(_) => {}
                    None => drop(self.below.insert(index, copy)),
                }
            }
            self.places.use_copies((first, last), end);
            self.join();
        }
        self.places.drop_copies();
        self.copies.clear();
        Ok(())
    }

    /// The copies from `first` to `last`; all are given up.
    fn take_copies(&mut self, first: Index, last: Index) -> Vec<(Term, u32)> {
        let mut copies = std::mem::take(&mut self.copies);
        let before = self.places.copies_first().map_or(0, |begin| first.0 - begin.0);
        copies.drain(..before as usize);
        copies.truncate((last.0 - first.0 + 1) as usize);
        copies
    }

    /// The first entry of `entries` is this one.
    fn begin_with(&mut self, first: Index) {
        let index = first.prev();
        self.base = if index == self.start.index { self.start } else { EntryId { index, term: UNKNOWN } };
    }

    /// Puts in front of `entries` what lies there without a gap.
    fn join(&mut self) {
        let mut joined = Vec::new();
        while let Some(entry) = self.below.remove(&self.base.index) {
            joined.push(entry);
            self.begin_with(self.base.index);
        }
        self.entries.splice(..0, joined.into_iter().rev());
    }

    fn reset(&mut self, start: EntryId, snapshot: SnapshotId) {
        let hard_state = if mutant!("reset-forgets-vote") { HardState::default() } else { self.hard_state };
        *self = ShardReplay { hard_state, start, snapshot, base: start, ..ShardReplay::default() };
    }

    fn adopt(&mut self, state: &ShardState) {
        self.reset(state.start, state.snapshot);
        self.hard_state = state.hard_state;
        self.base = state.last;
    }

    /// Takes over a restatement that must say what the records before it said, but that the log may start later.
    fn confirm(&mut self, state: &ShardState) -> Result<(), String> {
        let known = self.state();
        if known.last != state.last || known.hard_state != state.hard_state || !self.may_start_after(state.start) {
            return Err(format!("the restatement {state:?} contradicts the records before it: {known:?}"));
        }
        if state.start.index >= self.base.index {
            let gone = (state.start.index.0 - self.base.index.0) as usize;
            self.entries.drain(..gone);
            self.base = state.start;
        }
        self.below.retain(|index, _| *index > state.start.index);
        self.start = state.start;
        self.snapshot = state.snapshot;
        self.places.compact(state.start.index, state.last.index);
        Ok(())
    }

    /// Whether the log may be said to start after this entry: it is not behind the end, does not come before the start,
    /// and has no other term than is known.
    fn may_start_after(&self, start: EntryId) -> bool {
        if start.index < self.start.index || start.index > self.last().index {
            return false;
        }
        let known = match start.index {
            index if index == self.start.index => self.start.term,
            index if index == self.base.index => self.base.term,
            index if index < self.base.index => self.below.get(&index).map_or(UNKNOWN, |(term, _)| *term),
            index => self.entries[self.position(index)].0,
        };
        known == UNKNOWN || known == start.term
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replay {
    shards: BTreeMap<ShardId, ShardReplay>,
    /// Of every batch that holds entries or copies; batch n is the n-th.
    places: Vec<Place>,
    /// The first batch of the oldest segment was read: later restatements must agree with what is known.
    has_begun: bool,
}

impl Replay {
    /// Takes the records of one batch but its hard states; each is told with the error that it caused.
    pub(super) fn batch<'a, E>(
        &mut self,
        place: Place,
        records: impl Iterator<Item = Result<(usize, Record<'a>), E>>,
        contradiction: impl Fn(usize, &Record<'a>, String) -> E,
    ) -> Result<(), E> {
        let mut number = None;
        for record in records {
            let (offset, record) = record?;
            if matches!(record, Record::Entry { .. } | Record::Copy { .. }) && number.is_none() {
                self.places.push(place);
                number = Some(BatchNumber(self.places.len() as u64));
            }
            self.record(&record, number.unwrap_or_default()).map_err(|what| contradiction(offset, &record, what))?;
        }
        self.has_begun = true;
        Ok(())
    }

    pub(super) fn hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        self.shard(shard).hard_state = hard_state;
    }

    fn shard(&mut self, shard: ShardId) -> &mut ShardReplay {
        self.shards.entry(shard).or_default()
    }

    fn record(&mut self, record: &Record<'_>, batch: BatchNumber) -> Result<(), String> {
        match *record {
            Record::Entry { shard, id, body, .. } => self.shard(shard).entry(id, body.len() as u32, batch)?,
            Record::Copy { shard, id, body, .. } => self.shard(shard).copy(id, body.len() as u32, batch)?,
            Record::Copied { shard, first, last } => self.shard(shard).copied(first, last)?,
            Record::Reset { shard, start, snapshot } => self.shard(shard).reset(start, snapshot),
            Record::Restate { shard, state } if self.has_begun => self.shard(shard).confirm(&state)?,
            Record::Restate { shard, state } => self.shard(shard).adopt(&state),
            Record::HardState { shard, hard_state } => self.hard_state(shard, hard_state),
            Record::Watermark | Record::Seal(_) | Record::Reused | Record::Continued { .. } => {}
        }
        Ok(())
    }

    /// What is known of every shard that was named.
    pub(super) fn tips(&self) -> BTreeMap<ShardId, ShardTip> {
        let segment = |batch: BatchNumber| self.places[batch.0 as usize - 1].segment;
        let tip = |replay: &ShardReplay| ShardTip { state: replay.state(), segments: replay.places.map(segment) };
        self.shards.iter().map(|(shard, replay)| (*shard, tip(replay))).collect()
    }

    /// Every shard that was named.
    pub(super) fn named(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    /// How many batches hold entries or copies so far.
    pub(super) fn batches(&self) -> usize {
        self.places.len()
    }

    /// Corrects where the batch is that was the `at`-th of these.
    pub(super) fn move_batch(&mut self, at: usize, place: Place) {
        self.places[at] = place;
    }

    /// A shard whose entries are not all there: which are missing.
    pub(super) fn missing(&self) -> Option<(ShardId, Index, Index)> {
        let mut gaps = self.shards.keys().filter_map(|shard| Some((*shard, self.missing_of(*shard)?)));
        gaps.next().map(|(shard, (first, last))| (shard, first, last))
    }

    /// The entries of a shard that are missing, if they are not all there.
    pub(super) fn missing_of(&self, shard: ShardId) -> Option<(Index, Index)> {
        let replay = self.shards.get(&shard)?;
        (replay.base.index > replay.start.index).then(|| (replay.start.index.next(), replay.base.index))
    }

    /// The places of the batches.
    pub(super) fn take_places(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.places)
    }

    /// Hands out what is known of a shard, and forgets it.
    pub(super) fn take(&mut self, shard: ShardId) -> (RecoveredShard, ShardTail) {
        let replay = self.shards.remove(&shard).unwrap_or_default();
        let last = replay.last().index;
        let ShardReplay { hard_state, start, snapshot, entries, places, .. } = replay;
        let tail = ShardTail::recovered(start.index, last, places.into_live());
        (RecoveredShard { hard_state, start, snapshot, entries }, tail)
    }

    /// A shard that was not taken yet and has something to lose.
    pub(super) fn left(&self) -> Option<ShardId> {
        self.shards.iter().find(|(_, replay)| replay.state() != ShardState::default()).map(|(shard, _)| *shard)
    }
}
