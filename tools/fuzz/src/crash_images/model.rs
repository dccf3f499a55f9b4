//! What a shard must have: its log, as the log's own tests do it, and its snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv::storage::RecoveredShard;
use raftkv_protocol::types::{Entry, EntryId, HardState, ShardId, SnapshotId};

/// The log of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardLog {
    pub(super) hard_state: HardState,
    /// All that it had in this life, and from where on it was compacted: on a full disk they may get ahead of entries.
    hard_states: Vec<HardState>,
    compacted: Vec<(EntryId, SnapshotId)>,
    /// Where it begins in memory, and where it began before that: a crash may find any of these. The last counts.
    pub(super) starts: Vec<(EntryId, SnapshotId)>,
    /// The index before the first of `entries`.
    floor: u64,
    entries: Vec<Entry>,
}

impl ShardLog {
    /// A log that never held anything.
    pub(super) fn empty() -> ShardLog {
        let (starts, hard_states) = (vec![(EntryId::ZERO, SnapshotId(0))], vec![HardState::default()]);
        ShardLog { starts, hard_states, ..ShardLog::default() }
    }

    pub(super) fn start(&self) -> EntryId {
        self.starts.last().expect("a log begins somewhere").0
    }

    pub(super) fn last(&self) -> u64 {
        self.floor + self.entries.len() as u64
    }

    /// The entry with this index, which is the start or lies behind it; `None` if the log ends before it.
    pub(super) fn id(&self, index: u64) -> Option<EntryId> {
        let start = self.start();
        if index == start.index.0 {
            return Some(start);
        }
        self.entries.get((index - self.floor) as usize - 1).map(|entry| entry.id)
    }

    pub(super) fn put(&mut self, entry: Entry) {
        self.entries.truncate((entry.id.index.0 - self.floor) as usize - 1);
        self.entries.push(entry);
    }

    pub(super) fn compact(&mut self, start: EntryId, snapshot: SnapshotId) {
        self.starts.push((start, snapshot));
        self.compacted.push((start, snapshot));
    }

    pub(super) fn vote(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.hard_states.push(hard_state);
    }

    pub(super) fn reset(&mut self, start: EntryId, snapshot: SnapshotId) {
        (self.starts, self.floor) = (vec![(start, snapshot)], start.index.0);
        self.entries.clear();
    }

    /// Whether a later compaction may have got ahead.
    fn may_start_at(&self, known: &RecoveredShard, live: &ShardLog) -> bool {
        let start = known.start.index.0;
        let is_there = self.start().index.0 < start && start <= self.last() && self.id(start) == Some(known.start);
        is_there && live.compacted.contains(&(known.start, known.snapshot))
    }

    /// What a start found of it: the same, but the log may begin earlier. Terms and votes, and where it starts, may have
    /// got ahead, towards what it was when the process ended; a term and vote must have that was `told` to be durable.
    pub(super) fn found(
        &self,
        known: &RecoveredShard,
        entries: &[Entry],
        live: &ShardLog,
        told: Option<HardState>,
    ) -> Option<ShardLog> {
        let start = known.start.index.0;
        let at = |wanted: HardState| live.hard_states.iter().position(|hard_state| *hard_state == wanted);
        let least = at(self.hard_state).max(told.and_then(at));
        let is_it = at(known.hard_state) >= least
            && (self.starts.contains(&(known.start, known.snapshot)) || self.may_start_at(known, live))
            && start + entries.len() as u64 == self.last()
            && self.entries[(start - self.floor) as usize..] == *entries;
        is_it.then(|| {
            let starts = vec![(known.start, known.snapshot)];
            let hard_state = known.hard_state;
            let (hard_states, compacted) = (vec![hard_state], Vec::new());
            ShardLog { hard_state, hard_states, compacted, starts, floor: start, entries: entries.to_vec() }
        })
    }

    /// In a few words.
    pub(super) fn told(&self) -> String {
        let (start, last) = (self.start(), self.last());
        let hard_state = self.hard_state;
        format!("starts after {start}, ends with index {last}, {hard_state:?}")
    }
}

/// The logs of all shards.
pub(super) type Logs = BTreeMap<ShardId, Arc<ShardLog>>;

/// The snapshots of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Those that count as taken: the newest two, newest first.
    pub(super) taken: Vec<(EntryId, SnapshotId)>,
    /// The one that was about to get its name.
    pub(super) finishing: Option<EntryId>,
}

impl Kept {
    pub(super) fn newest(&self) -> EntryId {
        self.taken.first().map_or(EntryId::ZERO, |(at, _)| *at)
    }

    pub(super) fn took(&mut self, at: EntryId, id: SnapshotId) {
        self.taken.insert(0, (at, id));
        self.taken.truncate(2);
        self.finishing = None;
    }

    /// Whether a start may find these, newest first. There may be more: their removal was not durable.
    pub(super) fn may_be(&self, found: &[(EntryId, SnapshotId)]) -> Result<(), String> {
        let is_new = found.first().is_some_and(|(at, _)| Some(*at) == self.finishing && self.newest() != *at);
        let rest = &found[usize::from(is_new)..];
        // A new one that is there has made the older of the two useless.
        let needed = &self.taken[..self.taken.len().min(if is_new { 1 } else { 2 })];
        if rest.starts_with(needed) {
            return Ok(());
        }
        Err(format!("the snapshots {found:?}, expected {:?}, and perhaps {:?}", self.taken, self.finishing))
    }
}

/// Snapshot and log must go on from each other without a gap, from each of the newest two snapshots.
pub(super) fn check_pair(start: EntryId, found: &[(EntryId, SnapshotId)], resets: &[EntryId]) -> Result<(), String> {
    if start.index.0 == 0 {
        return Ok(());
    }
    let reaches = |nth: usize| found.get(nth).is_none_or(|(at, _)| at.index >= start.index);
    let Some((newest, _)) = found.first() else {
        return Err(format!("the log starts after {start}, and there is no snapshot"));
    };
    // One that came from a peer has nothing in common with the log before it.
    let is_reset = *newest == start && resets.contains(&start);
    if reaches(0) && (is_reset || reaches(1)) {
        return Ok(());
    }
    Err(format!("a gap: the log starts after {start}, the snapshots are {found:?}"))
}
