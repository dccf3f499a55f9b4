//! The disk's part in a core's turn: looking how it does.

use std::time::Instant;

use raftkv_protocol::health::DiskHealth;

use super::core_loop::CoreLoop;
use super::disk_watch::HEALTHY_AFTER;
use crate::socket::Network;
use crate::storage::CoreLog as _;

impl<N: Network> CoreLoop<N> {
    /// Looks whether the disk keeps up and has room, and says so once when it does not, and once when it has for a while.
    pub(super) fn watch_disk(&mut self, now: Instant) {
        let before = (self.disk.health(), self.disk.stalls());
        self.disk.look(self.router.log().in_flight(), self.router.log().space(), now);
        self.node.health.note_sync(self.core(), self.disk.in_flight());
        let (health, stalls) = (self.disk.health(), self.disk.stalls());
        if (health, stalls) == before {
            return;
        }
        let budget = self.node.config.slow_sync;
        match self.node.health.note_core(self.core(), health, stalls) {
            (DiskHealth::Healthy | DiskHealth::Recovering | DiskHealth::Slow, DiskHealth::Full) => {
                self.router.counters.disk_full += 1;
                log::warn!(
                    "the disk of this node is full: the log of core {} has only its reserve left; shards are handed to \
                     nodes that have space, if a majority has",
                    self.core()
                );
            }
            (DiskHealth::Full, DiskHealth::Recovering) => {
                log::info!(
                    "the disk of this node has space again; it leads what it should after {HEALTHY_AFTER:?} of that"
                );
            }
            (DiskHealth::Healthy, DiskHealth::Slow) => {
                self.router.counters.disk_slow += 1;
                log::warn!(
                    "the disk of this node is slow: core {} waits for a sync of its log for longer than {budget:?} \
                     (--slow-sync); shards are handed to nodes that do better, if a majority does",
                    self.core()
                );
            }
            (DiskHealth::Recovering | DiskHealth::Slow | DiskHealth::Full, DiskHealth::Healthy) => {
                log::info!(
                    "the disk of this node is well again: it had space and no sync took {budget:?} for {HEALTHY_AFTER:?}"
                );
            }
            _ => {}
        }
        self.router.heed_disk();
        self.router.tell_peers(now, &mut self.io);
    }
}
