//! What need not wait for the batch that is being synced, when that waits for space: terms and votes, and where logs start.
//!
//! All of it is in the batches too, in their order. What goes ahead only comes earlier: the syncer sees to it that a term
//! or vote that went ahead is not undone by a batch that was closed before.

use std::collections::BTreeMap;

use raftkv_protocol::types::{HardState, ShardId};

use super::FileLog;
use crate::storage::batch::Batch;
use crate::storage::syncer::{Ahead, Job, is_later};
use crate::storage::tip::Start;
use crate::storage::{CoreLog, Space};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GoesAhead {
    /// The newest terms and votes of batches that are not durable, as far as the syncer was not told of them yet.
    untold: BTreeMap<ShardId, HardState>,
    /// Those that are durable although their batches are not.
    durable: BTreeMap<ShardId, HardState>,
    /// Where logs start, at entries that are durable, as far as the syncer was not told yet.
    starts: BTreeMap<ShardId, Start>,
    /// The syncer was told that only the reserve is left.
    told_low: bool,
}

impl GoesAhead {
    pub(super) fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        self.untold.insert(shard, hard_state);
    }

    /// The shard's log begins anew.
    pub(super) fn forget_start(&mut self, shard: ShardId) {
        self.starts.remove(&shard);
    }

    /// What the batch holds is durable with it.
    pub(super) fn placed(&mut self, batch: &Batch) {
        for (shard, hard_state) in batch.hard_states() {
            for of in [&mut self.untold, &mut self.durable] {
                if of.get(shard).is_some_and(|known| !is_later(known, hard_state)) {
                    of.remove(shard);
                }
            }
        }
    }

    pub(super) fn went(&mut self, hard_states: Vec<(ShardId, HardState)>) {
        self.durable.extend(hard_states);
    }

    pub(super) fn hard_state(&self, shard: ShardId) -> Option<HardState> {
        self.durable.get(&shard).copied()
    }
}

impl FileLog {
    /// Where a log starts may go ahead if the entry there is durable: the syncer knows none that is not.
    pub(super) fn note_start(&mut self, start: Start) {
        let at = start.at.index;
        let batch = self.shards[&start.shard].locate(at, at).next().map(|part| part.at);
        if batch.is_some_and(|batch| batch <= self.durable_number()) {
            self.ahead.starts.insert(start.shard, start);
        } else {
            self.ahead.starts.remove(&start.shard);
        }
    }

    /// While a batch waits for space, tells the syncer what need not wait with it.
    pub(super) fn send_ahead(&mut self) {
        let ahead = &mut self.ahead;
        let is_empty = ahead.untold.is_empty() && ahead.starts.is_empty();
        if is_empty || !self.in_flight || self.shared.has_failed() || !self.waits_for_space() {
            return;
        }
        let starts = std::mem::take(&mut self.ahead.starts).into_values().collect();
        let hard_states = std::mem::take(&mut self.ahead.untold).into_iter().collect();
        self.syncer.send(Job::Ahead(Ahead { starts, hard_states }));
    }

    /// With nothing to write, the syncer hears here of what is no longer needed, and that space is short.
    pub(super) fn tell_starts(&mut self) {
        let starts = self.gathering.take_starts();
        self.ahead.starts.clear();
        let is_low = self.space() == Space::ReserveOnly;
        if !starts.is_empty() || (is_low && !self.ahead.told_low) {
            self.syncer.send(Job::Ahead(Ahead { starts, hard_states: Vec::new() }));
        }
        self.ahead.told_low = is_low;
    }
}
