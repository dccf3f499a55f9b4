//! Takes down what a run has met, for the counts that a campaign is judged by.

use raftkv::storage::simulated_disk::SimulatedDisk;
use raftkv_protocol::types::CoreId;

use crate::oracle::Violation;
use crate::world::World;

impl World {
    pub(crate) fn note_recovery(&mut self, index: usize) -> Result<(), Violation> {
        let is_aside = |disk: &SimulatedDisk| disk.names().iter().any(|name| name.starts_with("damaged-"));
        if self.machines[index].snapshot_disks.iter().any(is_aside) {
            self.coverage.note("older snapshot took the place of a damaged one");
        }
        let has_rotted = self.machines[index].has_rotted;
        let Some(process) = self.machines[index].process() else { return Ok(()) };
        for core in 0..process.workers.len() {
            let Some(router) = process.node.router(CoreId(core as u16)) else { continue };
            let report = router.log().recovery();
            self.coverage.add("torn tail cut at recovery", u64::from(report.torn_bytes > 0));
            self.coverage.add("batches written again at recovery", report.batches_kept);
            self.coverage.add("flip that lost nothing told at recovery", report.blemishes);
            if report.blemishes > 0 && !has_rotted {
                let what = format!("node {}: {report:?}", index + 1);
                return Err(Violation::of("what a crash leaves is no blemish of the disk", what));
            }
        }
        Ok(())
    }

    pub(crate) fn count_what_happened(&mut self) {
        let stats = self.net.0.borrow().stats;
        self.coverage.add("segment arrived", stats.segments);
        self.coverage.add("frame lost", stats.frames_lost);
        self.coverage.add("frame doubled", stats.frames_doubled);
        self.coverage.add("frame overtaken", stats.frames_late);
        self.coverage.add("connection reset", stats.resets);
        self.coverage.add("kernel gave up on a connection", stats.given_up);
        self.coverage.add("segment waited for a cut", stats.held);
        self.coverage.add("write blocked", stats.blocked);
        self.coverage.add("entry committed", self.oracle.committed());
        for index in 0..self.machines.len() {
            self.count_node(index);
        }
    }

    /// What a node has counted, before it ends.
    pub(crate) fn count_node(&mut self, index: usize) {
        let Some(process) = self.machines[index].process() else { return };
        for core in 0..process.workers.len() {
            let Some(router) = process.node.router(CoreId(core as u16)) else { continue };
            let counters = &router.counters;
            self.coverage.add("raft message received", counters.raft_messages_received);
            self.coverage.add("request forwarded", counters.forwards_sent);
            self.coverage.add("write refused for want of space", counters.refused_no_space);
            self.coverage.add("write refused as too much waits", counters.refused_overloaded);
            self.coverage.add("request timed out at a node", counters.timeouts);
            self.coverage.add("vote withheld from an admitted node", counters.votes_withheld);
            self.coverage.add("leader that is not to be followed", counters.leaders_unheeded);
            self.coverage.add("disk found to be full", counters.disk_full);
            self.coverage.add("shard left a slow or full disk", counters.transfers_away);
            self.coverage.add("replica found to be wrong", counters.divergences);
            self.coverage.add("wrong state built anew", counters.states_rebuilt);
            self.coverage.add("wrong state built anew from another's snapshot", counters.states_rebuilt_from_others);
            self.coverage.add("state read again by the worker", counters.states_scrubbed);
            self.coverage.add("read served by a lease", counters.lease_reads);
            self.coverage.add("lease not held, read waited for a round", counters.lease_reads_fallen_back);
            self.coverage.add("vote withheld for a promise", counters.lease_votes_withheld);
            self.coverage.add("election put off for a promise", counters.lease_elections_put_off);
            self.coverage.add("lease given up to hand over", counters.leases_given_up);
            self.coverage.add("loop turned", counters.turns);
            self.coverage.add("snapshot taken", counters.snapshots_taken);
            self.coverage.add("snapshot failed", counters.snapshots_failed);
            self.coverage.add("snapshot installed", counters.snapshots_installed);
            self.coverage.add("bytes of snapshots sent", counters.snapshot_bytes_sent);
        }
    }
}
