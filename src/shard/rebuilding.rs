//! A replica whose state is wrong builds it anew while it runs, as a start would: from its newest snapshot and
//! the log behind that.
//!
//! Until then none of its log may be let go of, as a sound state is built from it. So this is done when the log has grown too
//! long. A state that was built anew and is outvoted again is so for what is in the log, or in the snapshot: the next
//! begins with a snapshot of the leader, as does one of a replica that has none of its own from which its log goes on, or
//! cannot read it. The leader tells of each that it takes (see [`crate::raft`]). Of a leader that is known to differ none is
//! taken; what it is not known to have wrong is found at the next checkpoint, as ever.

use std::time::Instant;

use raftkv_protocol::health::Verdict;
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{Index, NodeId};

use crate::state_machine::{Corruption, Snapshot, StateMachine};

use super::snapshots::Loaded;
use super::snapshotting::ENTRY_OVERHEAD_BYTES;
use super::{Outbox, Shard};

/// The most entries that are applied at a time to a state that is built anew.
pub(super) const APPLY_ANEW_MAX: u64 = 512;
/// How often the disk may not give the own snapshot before that of the leader is taken instead, if there is one.
const RELOADS_MAX: u32 = 3;

impl<R: Copy> Shard<R> {
    /// Whether the state should be built anew from what this node has, and nothing else is about to take its place.
    #[must_use]
    pub fn may_rebuild(&self, now: Instant) -> bool {
        let newest = self.newest_snapshot().map_or(Index(0), |meta| meta.at.index);
        let first_choice = !self.is_rebuilt && self.reloads_failed < RELOADS_MAX;
        let only_choice = (!self.is_rebuilt || self.is_corrupt()) && self.snapshot_elsewhere().is_none();
        let should = self.is_wrong() && (first_choice || only_choice);
        should && self.raft.start().index <= newest && self.waiting.is_none() && self.compaction.may_try(now)
    }

    /// The snapshot of another node from which the state should be built anew, as what this node has does not do.
    #[must_use]
    pub fn rebuilds_from(&self, now: Instant) -> Option<(NodeId, SnapshotMeta)> {
        let is_free = self.is_wrong() && self.waiting.is_none() && self.compaction.may_try(now);
        self.snapshot_elsewhere().filter(|_| is_free && !self.may_rebuild(now))
    }

    fn snapshot_elsewhere(&self) -> Option<(NodeId, SnapshotMeta)> {
        self.elsewhere.filter(|(node, meta)| self.trusts(*node) && self.goes_on_from(meta))
    }

    /// Whether this node's log goes on from a snapshot of what is committed here, which is newer than its own.
    fn goes_on_from(&self, meta: &SnapshotMeta) -> bool {
        let is_newer = self.newest_snapshot().is_none_or(|own| own.at.index < meta.at.index);
        is_newer && meta.at.index <= self.raft.commit() && self.raft.term_at(meta.at.index) == Some(meta.at.term)
    }

    /// Whether a snapshot that was fetched may take the place of a state that is wrong.
    pub(super) fn replaces_wrong(&self, meta: &SnapshotMeta) -> bool {
        self.is_wrong() && self.goes_on_from(meta)
    }

    fn is_corrupt(&self) -> bool {
        self.comparison.divergence().is_some_and(|found| found.verdict == Verdict::Corrupt)
    }

    /// The disk does not give this node's newest snapshot, from which the state was to be built anew.
    pub fn reload_failed(&mut self, now: Instant) {
        self.reloads_failed += 1;
        self.snapshot_failed(now);
    }

    /// How often a state was built anew since the start.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// Takes the state for wrong, as if memory had not kept it, for simulations.
    pub fn doubt_state(&mut self) {
        let at = self.machine.applied();
        self.state_corrupt(&Corruption { sound: at, at, found: !self.machine.hash(), expected: self.machine.hash() });
    }

    /// Whether the state is built anew and has not come to where the former was. It does not lead before, nor is it snapshotted,
    /// and it applies less in a turn than after a start: this node serves meanwhile.
    pub(super) fn is_catching_up(&self) -> bool {
        self.catches_up_to.is_some()
    }

    /// Goes back to what is usual once the state has come to where the former was.
    pub(super) fn note_caught_up(&mut self) {
        if self.catches_up_to.take_if(|upto| *upto <= self.machine.applied()).is_some() {
            self.choose_candidacy();
        }
    }

    /// Puts a state in the place of a wrong one: that of the newest snapshot, or an empty one. What has been applied since is
    /// applied once more, and nothing is served before.
    ///
    /// Returns whether it does so, and the state that is of no use any more, the former or this one, to be dropped elsewhere.
    pub fn rebuild(&mut self, from: Option<Loaded>, now: Instant) -> (bool, StateMachine) {
        let of = from.as_ref().map(|loaded| loaded.meta.id);
        let (machine, longest) = from.map(|loaded| (loaded.machine, loaded.longest)).unwrap_or_default();
        let is_newest = of == self.newest_snapshot().map(|meta| meta.id);
        if !is_newest || !self.may_rebuild(now) {
            return (false, machine);
        }
        if self.is_rebuilt {
            // Its memory will not get better by itself.
            self.compaction.failed(now);
        }
        (self.is_rebuilt, self.reloads_failed) = (true, 0);
        (true, self.replace_wrong(machine, longest))
    }

    /// The same with a snapshot that was fetched from another node, and is this node's newest from now on. It may have come
    /// further than the former state.
    ///
    /// Returns the former state, and a snapshot that was begun and is not worth writing any more.
    pub(super) fn rebuild_from_fetched(
        &mut self,
        loaded: Loaded,
        out: &mut impl Outbox<R>,
    ) -> (Option<StateMachine>, Option<Box<Snapshot>>) {
        let Loaded { meta, machine, longest } = loaded;
        let former = self.replace_wrong(machine, longest);
        (self.is_rebuilt, self.reloads_failed) = (false, 0);
        self.skip_writes(meta.at.index, out);
        self.raft.applied(meta.at.index);
        let begun = self.compaction.installed(meta, false);
        self.compaction.urge();
        self.remind_of_snapshot();
        (Some(former), begun)
    }

    fn replace_wrong(&mut self, machine: StateMachine, longest: usize) -> StateMachine {
        self.rebuilds += 1;
        self.entry_bytes_max = self.entry_bytes_max.max(longest + ENTRY_OVERHEAD_BYTES);
        if !mutant!("rebuilt-state-shown-at-once") {
            self.ready_at = self.ready_at.map(|_| self.raft.commit());
        }
        let former = std::mem::replace(&mut self.machine, machine);
        self.catches_up_to = self.catches_up_to.max(Some(former.applied()));
        self.state_replaced(self.machine.applied());
        former
    }
}
