//! Which node leads which shard: brings leadership back to the preferred nodes, and hands all of it on before a stop.
//!
//! The preferred leader of shard *s* is `voters[s mod n]`, so that leaders spread over the nodes. Leadership goes back
//! only to a node that has kept up for a while, one shard a second, so that a node that flaps gets nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raftkv_protocol::types::{Index, NodeId};

use crate::shard::Shard;
use crate::socket::Network;
use crate::storage::CoreLog;

use super::io::Io;
use super::message::ReplyTo;
use super::node::Node;
use super::router::Router;

/// How often placement is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How often, while the node is being stopped.
const PERIOD_STOPPING: Duration = Duration::from_millis(20);
/// How long the preferred node must have kept up.
pub(super) const STEADY: Duration = Duration::from_secs(30);
/// The same for a node that lost leadership again each time that it got it.
const STEADY_MAX: Duration = Duration::from_secs(3_600);
/// A node that kept leadership for so long has earned it.
const KEPT: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Placement {
    node: Arc<Node>,
    next: Instant,
    /// By position of the shard in its core: since when the preferred node keeps up, and what was committed at the
    /// last look.
    steady: Vec<Option<(Instant, Index)>>,
    /// By position: what became of earlier transfers.
    trust: Vec<Trust>,
}

/// How long a preferred node must keep up before it gets leadership. A node that this one reaches may still be cut off
/// from the others: it cannot keep leadership, and the shard takes no writes until it is back here. So each time that
/// leadership comes back soon, the next transfer waits twice as long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    wait: Duration,
    given: Option<Instant>,
}

impl Default for Trust {
    fn default() -> Trust {
        Trust { wait: STEADY, given: None }
    }
}

impl Trust {
    /// How long it must have kept up.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// It gets leadership.
    pub(super) fn give(&mut self, now: Instant) {
        self.given = Some(now);
    }

    /// This node leads, perhaps again.
    pub(super) fn leads_here(&mut self, now: Instant) {
        if let Some(given) = self.given.take() {
            let kept = now.saturating_duration_since(given) >= KEPT;
            self.wait = if kept { STEADY } else { (self.wait * 2).min(STEADY_MAX) };
        }
    }
}

impl Placement {
    pub(super) fn new(node: Arc<Node>, now: Instant) -> Placement {
        Placement { node, next: now + PERIOD, steady: Vec::new(), trust: Vec::new() }
    }

    /// When placement wants to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.node.peers.is_empty()).then_some(self.next)
    }

    pub(super) fn tick<L: CoreLog, N: Network>(&mut self, now: Instant, router: &mut Router<L>, io: &Io<N>) {
        let stopping = self.node.is_stopping();
        if self.node.peers.is_empty() || (now < self.next && !(stopping && self.next > now + PERIOD_STOPPING)) {
            return;
        }
        self.next = now + if stopping { PERIOD_STOPPING } else { PERIOD };
        if stopping { self.hand_over_all(router, io) } else { self.spread(now, router, io) }
    }

    /// Gives every led shard to the peer that has most of its log.
    fn hand_over_all<L: CoreLog, N: Network>(&self, router: &mut Router<L>, io: &Io<N>) {
        for shard in router.shards_mut().iter_mut().filter(|shard| shard.leads() && !shard.raft().is_transferring()) {
            let reachable = io.links.iter().filter(|link| link.is_up()).map(|link| link.peer.id);
            let Some(heir) = reachable.max_by_key(|peer| shard.raft().matched(*peer)) else { return };
            log::debug!("handing leadership of shard {} to node {heir}", shard.id());
            hand_over(shard, heir);
        }
    }

    /// Begins at most one transfer of a shard to its preferred node.
    fn spread<L: CoreLog, N: Network>(&mut self, now: Instant, router: &mut Router<L>, io: &Io<N>) {
        self.steady.resize(router.shards().len(), None);
        self.trust.resize(router.shards().len(), Trust::default());
        let mut due = None;
        for (at, shard) in router.shards().iter().enumerate() {
            let preferred = self.node.preferred_leader(shard.id());
            if shard.leads() && !shard.raft().is_transferring() {
                self.trust[at].leads_here(now);
            }
            let up = io.links.iter().any(|link| link.peer.id == preferred && link.is_up());
            self.steady[at] = steady_since(shard, preferred, self.steady[at], now).filter(|_| up);
            let wait = self.trust[at].wait();
            if due.is_none() && self.steady[at].is_some_and(|(since, _)| now.saturating_duration_since(since) >= wait) {
                due = Some((at, preferred));
            }
        }
        if let Some((at, preferred)) = due
            && self.node.together.may_transfer(now)
        {
            self.steady[at] = None;
            self.trust[at].give(now);
            router.counters.transfers += 1;
            log::info!("handing leadership of shard {} back to node {preferred}", router.shards()[at].id());
            hand_over(&mut router.shards_mut()[at], preferred);
        }
    }
}

fn hand_over(shard: &mut Shard<ReplyTo>, heir: NodeId) {
    if shard.raft_mut().transfer(heir).is_err() {
        log::debug!("shard {} is no longer led here", shard.id());
    }
}

/// Since when `preferred` has had, at every look, what was committed at the look before.
pub(super) fn steady_since(
    shard: &Shard<ReplyTo>,
    preferred: NodeId,
    before: Option<(Instant, Index)>,
    now: Instant,
) -> Option<(Instant, Index)> {
    let matched = shard.raft().matched(preferred).filter(|_| shard.leads())?;
    let commit = shard.raft().commit();
    match before {
        Some((since, wanted)) if matched >= wanted => Some((since, commit)),
        _ => Some((now, commit)),
    }
}
