//! A replica whose state is wrong builds it anew while it runs, as a start would: from its newest snapshot and
//! the log behind that.
//!
//! Until then none of its log may be let go of, as a sound state is built from it. So this is done when the log has grown too
//! long, once: a state that was built anew and differs again does so for what is in the log, or in the snapshot, and both are
//! needed by whoever looks for the reason.

use std::time::Instant;

use raftkv_protocol::types::Index;

use crate::state_machine::{Corruption, StateMachine};

use super::Shard;
use super::snapshots::Loaded;
use super::snapshotting::ENTRY_OVERHEAD_BYTES;

/// The most entries that are applied at a time to a state that is built anew.
pub(super) const APPLY_ANEW_MAX: u64 = 512;

impl<R: Copy> Shard<R> {
    /// Whether the state can be built anew and should be, and nothing else is about to take its place.
    #[must_use]
    pub fn may_rebuild(&self, now: Instant) -> bool {
        let newest = self.newest_snapshot().map_or(Index(0), |meta| meta.at.index);
        let should = self.is_wrong() && !self.is_rebuilt;
        should && self.raft.start().index <= newest && self.waiting.is_none() && self.compaction.may_try(now)
    }

    /// Whether the state was built anew, and no snapshot was taken of it since.
    #[must_use]
    pub fn is_rebuilt(&self) -> bool {
        self.is_rebuilt
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
        self.is_rebuilt = true;
        self.entry_bytes_max = self.entry_bytes_max.max(longest + ENTRY_OVERHEAD_BYTES);
        if !mutant!("rebuilt-state-shown-at-once") {
            self.ready_at = self.ready_at.map(|_| self.raft.commit());
        }
        let former = std::mem::replace(&mut self.machine, machine);
        self.catches_up_to = Some(former.applied());
        self.state_replaced(self.machine.applied());
        (true, former)
    }
}
