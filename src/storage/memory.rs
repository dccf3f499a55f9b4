//! A log in memory with two halves, for simulation and for the tests of the layers above: *live*, what was added, and
//! *durable*, what a crash leaves.

use std::collections::{BTreeMap, VecDeque};

use raftkv_protocol::types::{Entry, EntryId, HardState, Index, ShardId, SnapshotId};

use super::core_log::up_to_bytes;
use super::tip::Start;
use super::{BatchNumber, CoreLog, Fetch, FetchError, Fetched, LogError, RecoveredShard, Space};
use crate::metrics::figures::LogFigures;

/// When a batch that was flushed becomes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// At once.
    #[default]
    OnFlush,
    /// When [`MemoryLog::complete`] is called.
    Manual,
}

#[derive(Clone, Debug, Default)]
struct ShardLog {
    hard_state: HardState,
    start: EntryId,
    snapshot: SnapshotId,
    entries: Vec<Entry>,
}

impl ShardLog {
    fn last(&self) -> Index {
        Index(self.start.index.0 + self.entries.len() as u64)
    }

    fn append(&mut self, entry: Entry) {
        let index = entry.id.index;
        assert!(self.start.index < index && index <= self.last().next(), "entry {} does not follow", entry.id);
        self.entries.truncate((index.0 - self.start.index.0 - 1) as usize);
        self.entries.push(entry);
    }

    fn compact(&mut self, start: EntryId, snapshot: SnapshotId) {
        assert!(start.index <= self.last(), "a log that ends at {} cannot start after {start}", self.last());
        if start.index >= self.start.index {
            self.entries.drain(..(start.index.0 - self.start.index.0) as usize);
            (self.start, self.snapshot) = (start, snapshot);
        }
    }

    fn reset(&mut self, start: EntryId, snapshot: SnapshotId) {
        self.entries.clear();
        (self.start, self.snapshot) = (start, snapshot);
    }

    fn range(&self, first: Index, last: Index) -> Option<&[Entry]> {
        if first <= self.start.index || last > self.last() || last.next() < first {
            return None;
        }
        let at = |index: Index| (index.0 - self.start.index.0 - 1) as usize;
        Some(&self.entries[at(first)..at(last.next())])
    }

    fn recovered(&self) -> RecoveredShard {
        let entries = self.entries.iter().map(|entry| (entry.id.term, entry.body.len() as u32)).collect();
        RecoveredShard { hard_state: self.hard_state, start: self.start, snapshot: self.snapshot, entries }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Append(ShardId, Entry),
    HardState(ShardId, HardState),
    Reset(Start),
}

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryLog {
    live: BTreeMap<ShardId, ShardLog>,
    durable: BTreeMap<ShardId, ShardLog>,
    gathering: Vec<Change>,
    in_flight: Vec<Change>,
    /// Where logs start, to become durable with the gathering batch and with the one in flight.
    starts: Vec<Start>,
    starts_in_flight: Vec<Start>,
    completed: BatchNumber,
    completion: Completion,
    failed: Option<LogError>,
    full: bool,
    /// The last entry of each shard that is not in memory any more, as far as [`CoreLog::tail`] is concerned.
    evicted: BTreeMap<ShardId, Index>,
    fetched: VecDeque<Fetched>,
}

impl MemoryLog {
    /// An empty log of these shards.
    #[must_use]
    pub fn new(shards: &[ShardId], completion: Completion) -> MemoryLog {
        let empty: BTreeMap<_, _> = shards.iter().map(|shard| (*shard, ShardLog::default())).collect();
        MemoryLog { live: empty.clone(), durable: empty, completion, ..MemoryLog::default() }
    }

    /// The process dies: what was not durable is lost. Returns the log as it is found afterwards, shards in the order
    /// of their ids.
    #[must_use]
    pub fn crash(self) -> (MemoryLog, Vec<RecoveredShard>) {
        let recovered = self.durable.values().map(ShardLog::recovered).collect();
        let live = self.durable.clone();
        let log = MemoryLog { live, durable: self.durable, completion: self.completion, ..MemoryLog::default() };
        (log, recovered)
    }

    /// Makes the batch in flight durable. Returns whether there was one.
    pub fn complete(&mut self) -> bool {
        if self.in_flight.is_empty() || self.failed.is_some() {
            return false;
        }
        for change in self.in_flight.drain(..) {
            match change {
                Change::Append(shard, entry) => self.durable.entry(shard).or_default().append(entry),
                Change::HardState(shard, hard_state) => {
                    self.durable.entry(shard).or_default().hard_state = hard_state;
                }
                Change::Reset(Start { shard, at, snapshot }) => {
                    self.durable.entry(shard).or_default().reset(at, snapshot);
                }
            }
        }
        for Start { shard, at, snapshot } in self.starts_in_flight.drain(..) {
            self.durable.entry(shard).or_default().compact(at, snapshot);
        }
        self.completed.0 += 1;
        true
    }

    /// The disk hangs, or goes on.
    pub fn set_completion(&mut self, completion: Completion) {
        self.completion = completion;
    }

    /// The disk fails: [`CoreLog::durable`] says so from now on, and nothing more becomes durable.
    pub fn fail(&mut self, error: LogError) {
        self.failed.get_or_insert(error);
    }

    /// The disk is full, or has room again.
    pub fn set_space(&mut self, space: Space) {
        self.full = space == Space::ReserveOnly;
    }

    /// The shard's entries up to here are no longer in memory: they must be fetched.
    pub fn evict(&mut self, shard: ShardId, upto: Index) {
        self.evicted.insert(shard, upto);
    }

    fn shard(&self, shard: ShardId) -> &ShardLog {
        self.live.get(&shard).expect(KNOWN_SHARD)
    }
}

const KNOWN_SHARD: &str = "the log was made with every shard of its core";

impl CoreLog for MemoryLog {
    fn append(&mut self, shard: ShardId, entries: &mut Vec<Entry>) {
        let live = self.live.get_mut(&shard).expect(KNOWN_SHARD);
        for entry in entries.drain(..) {
            if let Some(upto) = self.evicted.get_mut(&shard) {
                *upto = entry.id.index.prev().min(*upto);
            }
            live.append(entry.clone());
            self.gathering.push(Change::Append(shard, entry));
        }
    }

    fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        self.live.get_mut(&shard).expect(KNOWN_SHARD).hard_state = hard_state;
        self.gathering.push(Change::HardState(shard, hard_state));
    }

    fn compact(&mut self, shard: ShardId, start: EntryId, snapshot: SnapshotId) {
        self.live.get_mut(&shard).expect(KNOWN_SHARD).compact(start, snapshot);
        self.starts.push(Start { shard, at: start, snapshot });
    }

    fn reset(&mut self, shard: ShardId, start: EntryId, snapshot: SnapshotId) {
        self.live.get_mut(&shard).expect(KNOWN_SHARD).reset(start, snapshot);
        self.evicted.remove(&shard);
        self.starts.retain(|earlier| earlier.shard != shard);
        self.gathering.push(Change::Reset(Start { shard, at: start, snapshot }));
    }

    fn copy_forward(&mut self, shard: ShardId) {
        // There is no place that an entry could keep.
        assert!(self.live.contains_key(&shard), "{KNOWN_SHARD}");
    }

    fn is_copying(&self, _shard: ShardId) -> bool {
        false
    }

    fn held_bytes(&self) -> u64 {
        0
    }

    fn pinned_by(&self) -> Option<(ShardId, u64)> {
        None
    }

    fn last_batch(&self) -> BatchNumber {
        let waiting = [&self.in_flight, &self.gathering].into_iter().filter(|batch| !batch.is_empty()).count();
        BatchNumber(self.completed.0 + waiting as u64)
    }

    fn flush(&mut self) {
        if !self.in_flight.is_empty() || self.failed.is_some() {
            return;
        }
        std::mem::swap(&mut self.in_flight, &mut self.gathering);
        if !self.in_flight.is_empty() {
            std::mem::swap(&mut self.starts_in_flight, &mut self.starts);
        }
        if self.completion == Completion::OnFlush {
            self.complete();
        }
    }

    fn durable(&mut self) -> Result<BatchNumber, LogError> {
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(self.completed),
        }
    }

    fn hard_state_ahead(&self, _shard: ShardId) -> Option<HardState> {
        None
    }

    fn tail(&self, shard: ShardId, first: Index, last: Index) -> Option<impl Iterator<Item = &Entry>> {
        let evicted = self.evicted.get(&shard).copied().unwrap_or_default();
        let in_memory = first > evicted || last < first;
        in_memory.then(|| self.live.get(&shard)?.range(first, last)).flatten().map(<[Entry]>::iter)
    }

    fn fetch(&mut self, fetch: Fetch) {
        let log = self.shard(fetch.shard);
        let wanted = log.range(fetch.first, fetch.last.min(log.last())).filter(|entries| !entries.is_empty());
        let result = wanted.map(|entries| up_to_bytes(entries.iter(), fetch.bytes_max)).ok_or(FetchError::Gone);
        self.fetched.push_back(Fetched { fetch, result });
    }

    fn fetched(&mut self) -> Option<Fetched> {
        let mut fetched = self.fetched.pop_front()?;
        if let Ok(entries) = &fetched.result {
            let log = self.shard(fetched.fetch.shard);
            let there =
                |entry: &Entry| log.range(entry.id.index, entry.id.index).is_some_and(|found| found[0] == *entry);
            if !entries.iter().all(there) {
                fetched.result = Err(FetchError::Gone);
            }
        }
        Some(fetched)
    }

    fn backlog_bytes(&self) -> usize {
        let bytes = |change: &Change| match change {
            Change::Append(_, entry) => entry.body.len(),
            Change::HardState(..) | Change::Reset(_) => 0,
        };
        self.in_flight.iter().chain(&self.gathering).map(bytes).sum()
    }

    fn space(&self) -> Space {
        if self.full { Space::ReserveOnly } else { Space::Plenty }
    }

    fn figures(&self) -> LogFigures {
        LogFigures::default()
    }
}
