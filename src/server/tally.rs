//! What a core counts that others know: its sockets, its log, its repairs.

use std::sync::atomic::Ordering;

use raftkv_protocol::types::CoreId;

use crate::raft::LeaseCounts;
use crate::socket::Network;

use super::core_loop::CoreLoop;

impl<N: Network> CoreLoop<N> {
    /// Brings the core's counters up to date.
    pub(super) fn gather_counters(&mut self) {
        #[cfg(feature = "http")]
        self.http.count(&mut self.router.counters, &mut self.router.requests);
        self.router.counters.replies_dropped = self.io.replies_dropped;
        self.router.counters.connections_open = self.io.clients_open;
        self.count_leases();
        let stats = self.router.log().stats();
        // They are the node's: one core tells them.
        let is_first = self.core() == CoreId(0);
        let counters = &mut self.router.counters;
        counters.shards_repairing = self.repairs.count() as u64;
        counters.log_salvages = if is_first { self.node.log_salvages.load(Ordering::Relaxed) } else { 0 };
        counters.log_blemishes = stats.blemishes;
        counters.log_syncs = stats.syncs;
        counters.log_bytes_written = stats.bytes;
        counters.log_sync_us_total = stats.sync_latency_sum_us;
        counters.log_sync_us_max = stats.sync_latency_max_us;
        counters.log_segments = stats.segments;
        counters.log_segments_held = stats.held_segments;
        counters.log_disk_bytes = stats.disk_bytes;
        counters.log_space_waits = stats.space_waits;
        counters.log_memory_bytes = stats.memory_bytes;
        counters.turn_us_max = self.router.measures.longest_turn.greatest();
    }

    fn count_leases(&mut self) {
        let counts = self.router.shards().iter().map(|shard| shard.raft().lease_counts());
        let sum = counts.fold(LeaseCounts::default(), |sum, of| sum + of);
        let counters = &mut self.router.counters;
        counters.lease_reads = sum.served;
        counters.lease_reads_fallen_back = sum.fallen_back;
        counters.lease_votes_withheld = sum.votes_withheld;
        counters.lease_elections_put_off = sum.elections_put_off;
        counters.leases_given_up = sum.given_up;
    }
}
