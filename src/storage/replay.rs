//! What the records say, taken one after the other: the state of each shard, and where its entries are.

use std::collections::{BTreeMap, VecDeque};

use raftkv_protocol::types::{EntryId, HardState, Index, ShardId, Term};

use super::record::{Record, ShardState};
use super::syncer::Place;
use super::tail::{Run, ShardTail};
use super::{BatchNumber, RecoveredShard};

/// One shard as far as the records were read.
#[derive(Debug, Default)]
struct ShardReplay {
    hard_state: HardState,
    start: EntryId,
    snapshot: u64,
    /// The entry before the first in `entries`. It is `start`, unless the segments that held the entries in between
    /// were let go: then a later record must move `start` here.
    base: EntryId,
    entries: Vec<(Term, u32)>,
    runs: VecDeque<Run>,
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

    fn entry(&mut self, id: EntryId, body_bytes: u32, batch: BatchNumber) -> Result<(), String> {
        if id.index <= self.start.index || id.index.prev() > self.last().index {
            let (start, last) = (self.start, self.last());
            return Err(format!("entry {id} does not follow: the shard's log begins after {start} and ends at {last}"));
        }
        if mutant!("replay-keeps-overwritten") && id.index <= self.last().index {
            return Ok(());
        }
        if id.index <= self.base.index {
            self.base = EntryId { index: id.index.prev(), term: Term(0) };
        }
        self.entries.truncate((id.index.0 - self.base.index.0 - 1) as usize);
        while self.runs.back().is_some_and(|run| run.first >= id.index) {
            self.runs.pop_back();
        }
        if self.runs.back().is_none_or(|run| run.batch != batch) {
            self.runs.push_back(Run { first: id.index, batch });
        }
        self.entries.push((id.term, body_bytes));
        Ok(())
    }

    fn adopt(&mut self, state: &ShardState) {
        self.hard_state = state.hard_state;
        self.start = state.start;
        self.snapshot = state.snapshot;
        self.base = state.last;
    }

    /// Takes over a restatement that must say what the records before it said.
    fn confirm(&mut self, state: &ShardState) -> Result<(), String> {
        let known = self.state();
        if known.last != state.last || known.hard_state != state.hard_state || known.start != state.start {
            return Err(format!("the restatement {state:?} contradicts the records before it: {known:?}"));
        }
        self.snapshot = state.snapshot;
        Ok(())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replay {
    shards: BTreeMap<ShardId, ShardReplay>,
    /// Of every batch that holds entries; batch n is the n-th.
    places: Vec<Place>,
    /// The oldest segment was read: later restatements must agree with what is known.
    beyond_oldest: bool,
}

impl Replay {
    pub(super) fn end_of_segment(&mut self) {
        self.beyond_oldest = true;
    }

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
            if matches!(record, Record::Entry { .. }) && number.is_none() {
                self.places.push(place);
                number = Some(BatchNumber(self.places.len() as u64));
            }
            self.record(&record, number.unwrap_or_default()).map_err(|what| contradiction(offset, &record, what))?;
        }
        Ok(())
    }

    pub(super) fn hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        self.shards.entry(shard).or_default().hard_state = hard_state;
    }

    fn record(&mut self, record: &Record<'_>, batch: BatchNumber) -> Result<(), String> {
        match *record {
            Record::Entry { shard, id, body, .. } => {
                self.shards.entry(shard).or_default().entry(id, body.len() as u32, batch)
            }
            Record::Reset { shard, start } => {
                let replay = self.shards.entry(shard).or_default();
                (replay.start, replay.base) = (start, start);
                replay.entries.clear();
                replay.runs.clear();
                Ok(())
            }
            Record::Restate { shard, state } if self.beyond_oldest => {
                self.shards.entry(shard).or_default().confirm(&state)
            }
            Record::Restate { shard, state } => {
                self.shards.entry(shard).or_default().adopt(&state);
                Ok(())
            }
            Record::HardState { shard, hard_state } => {
                self.hard_state(shard, hard_state);
                Ok(())
            }
            Record::Watermark | Record::Seal(_) => Ok(()),
        }
    }

    /// The state of every shard that was named.
    pub(super) fn states(&self) -> BTreeMap<ShardId, ShardState> {
        self.shards.iter().map(|(shard, replay)| (*shard, replay.state())).collect()
    }

    /// How many batches hold entries so far.
    pub(super) fn batches(&self) -> usize {
        self.places.len()
    }

    /// Corrects where the batch is that was the `at`-th with entries.
    pub(super) fn move_batch(&mut self, at: usize, place: Place) {
        self.places[at] = place;
    }

    /// A shard whose entries are not all there: which are missing.
    pub(super) fn missing(&self) -> Option<(ShardId, Index, Index)> {
        let mut gaps = self.shards.iter().filter(|(_, replay)| replay.base.index > replay.start.index);
        gaps.next().map(|(shard, replay)| (*shard, replay.start.index.next(), replay.base.index))
    }

    /// The places of the batches.
    pub(super) fn take_places(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.places)
    }

    /// Hands out what is known of a shard, and forgets it.
    pub(super) fn take(&mut self, shard: ShardId) -> (RecoveredShard, ShardTail) {
        let replay = self.shards.remove(&shard).unwrap_or_default();
        let tail = ShardTail::recovered(replay.start.index, replay.last().index, replay.runs);
        (RecoveredShard { hard_state: replay.hard_state, start: replay.start, entries: replay.entries }, tail)
    }

    /// A shard that was not taken yet and has something to lose.
    pub(super) fn left(&self) -> Option<ShardId> {
        self.shards.iter().find(|(_, replay)| replay.state() != ShardState::default()).map(|(shard, _)| *shard)
    }
}
