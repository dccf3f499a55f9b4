//! What keeps a core's log longer than it should be, and which shards have no new snapshot: for the status.

use std::collections::BTreeSet;

use raftkv_protocol::client::{HoldReason, LogHold};
use raftkv_protocol::types::{Index, ShardId};

use crate::storage::{CoreLog, Space};

use super::router::Router;

impl<L: CoreLog> Router<L> {
    /// The shard that holds on to the oldest segment of a log over its budget, or of one whose disk is full, and the shards
    /// whose last snapshot failed.
    pub(super) fn log_holds(&self) -> Vec<LogHold> {
        let (log_bytes, log_bytes_max) = (self.log.held_bytes(), self.node.config.limits.core_log_bytes_max);
        let is_full = self.log.space() == Space::ReserveOnly;
        let pinned_by = self.log.pinned_by();
        let pinning = pinned_by.filter(|(_, bytes)| log_bytes > log_bytes_max || (is_full && *bytes > 0));
        let failures = self.snapshots.failures();
        let shards: BTreeSet<ShardId> = failures.keys().copied().chain(pinning.map(|(shard, _)| shard)).collect();
        let hold = |shard| LogHold {
            core: self.core,
            log_bytes,
            log_bytes_max,
            shard,
            bytes: pinning.filter(|(pinning, _)| *pinning == shard).map_or(0, |(_, bytes)| bytes),
            reason: self.hold_reason(shard),
            message: failures.get(&shard).cloned().unwrap_or_default(),
        };
        shards.into_iter().map(hold).collect()
    }

    /// Why a shard's log does not start later.
    fn hold_reason(&self, id: ShardId) -> HoldReason {
        let shard = &self.shards[self.position(id)];
        let raft = shard.raft();
        let is_covered = shard.applied() <= shard.newest_snapshot().map_or(Index(0), |meta| meta.at.index);
        if !shard.serves() {
            HoldReason::Diverged
        } else if shard.is_taking_snapshot() {
            HoldReason::Snapshotting
        } else if self.log.is_copying(id) {
            HoldReason::Copying
        } else if self.snapshots.failures().contains_key(&id) {
            HoldReason::Failed
        } else if is_covered && raft.last().index > raft.commit() {
            HoldReason::NoQuorum
        } else {
            HoldReason::Pending
        }
    }
}
