//! How a core finds that an ordered stop is complete.

use std::time::{Duration, Instant};

use super::core_loop::CoreLoop;
use super::link::Link;
use crate::shard::Shard;
use crate::socket::Network;

/// While it stops, a node that had no request for so long has no clients left that do not know where else to go.
const STOP_QUIET: Duration = Duration::from_millis(100);
/// While it stops, and nothing is led here: how long clients who go on asking are told so.
const STOP_GRACE: Duration = Duration::from_millis(500);

impl<N: Network> CoreLoop<N> {
    /// Whether an ordered stop has come to its end: nothing is led here, nobody waits, everything is written.
    pub(super) fn has_stopped(&mut self, now: Instant) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        if now >= stop_at {
            let patience = self.node.config.limits.stop_timeout;
            log::warn!("stopping although not everything is answered: {patience:?} have passed");
            return true;
        }
        let requests = self.router.counters.requests;
        if self.last_request.0 != requests || self.last_request.1.is_none() {
            self.last_request = (requests, Some(now));
        }
        // Where nobody can be reached there is nobody to hand leadership to.
        let has_heirs = self.io.links.iter().any(Link::is_up);
        if has_heirs && self.router.shards().iter().any(Shard::leads) {
            self.handed_over_at = None;
            return false;
        }
        let handed_over_at = *self.handed_over_at.get_or_insert(now);
        let is_quiet = self.io.clients_open == 0
            || self.last_request.1.is_some_and(|at| now.saturating_duration_since(at) >= STOP_QUIET)
            || now.saturating_duration_since(handed_over_at) >= STOP_GRACE;
        let is_idle = self.router.is_idle() && self.io.reads_waiting() == 0 && self.io.is_flushed();
        #[cfg(feature = "http")]
        let is_idle = is_idle && self.http.is_empty() && self.io.exchanges.is_empty();
        // What another core has asked meanwhile would be answered by nobody.
        is_quiet && is_idle && self.inbox.is_empty()
    }
}
