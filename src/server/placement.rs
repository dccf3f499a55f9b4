//! Which node leads which shard: brings leadership back to the preferred nodes, and hands all of it on before a stop,
//! and from a node that should not lead.
//!
//! The preferred leader of shard *s* is `voters[s mod n]`, so that leaders spread over the nodes. Leadership goes back
//! only to a node that has kept up, and whose disk has been healthy, for a while, one shard a second, so that a node
//! that flaps gets nothing.
//!
//! A node whose disk is slow or full hands over all that it leads, at once, if a majority is left without it that does
//! better: nodes that have on their disks what this one sent a moment ago, and do not say that theirs are slow or full.
//! Where the same disk, or the same trouble, slows or fills all of them, nothing moves. A node whose state of a shard is wrong,
//! another than the majority's or corrupt, hands that shard to one whose state is not known to be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raftkv_protocol::health::DiskHealth;
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
/// How often, while the node should not lead what it leads.
const PERIOD_LEAVING: Duration = Duration::from_millis(100);
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
    /// When to look again, while the node should not lead what it leads.
    leave_at: Option<Instant>,
    /// By position, while the disk is slow or full: the end of the log at the last look, of the shards that were led then.
    sent: Vec<Option<Index>>,
    /// By position: who was last handed the shard. It did not take it if it is led here all the same.
    heirs: Vec<Option<NodeId>>,
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
        let (steady, trust, sent, heirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Placement { node, next: now + PERIOD, steady, trust, leave_at: None, sent, heirs }
    }

    /// When placement wants to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.node.peers.is_empty()).then(|| self.leave_at.map_or(self.next, |at| at.min(self.next)))
    }

    pub(super) fn tick<L: CoreLog, N: Network>(&mut self, now: Instant, router: &mut Router<L>, io: &Io<N>) {
        if self.node.peers.is_empty() {
            return;
        }
        let stopping = self.node.is_stopping();
        if !stopping {
            self.leave(now, router, io);
        }
        if now < self.next && !(stopping && self.next > now + PERIOD_STOPPING) {
            return;
        }
        self.next = now + if stopping { PERIOD_STOPPING } else { PERIOD };
        if stopping { self.hand_over_all(router, io) } else { self.spread(now, router, io) }
    }

    /// Gives every led shard to the peer that has most of its log, if possible one whose disk is well.
    fn hand_over_all<L: CoreLog, N: Network>(&self, router: &mut Router<L>, io: &Io<N>) {
        for shard in router.shards_mut().iter_mut().filter(|shard| shard.leads() && !shard.raft().is_transferring()) {
            let rank = |peer: &NodeId| {
                (shard.trusts(*peer), !self.node.health.of(*peer).is_bad(), shard.raft().matched(*peer))
            };
            let Some(heir) = reachable(io).max_by_key(rank) else { return };
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
            let may_lead = shard.trusts(preferred) && reachable(io).any(|peer| peer == preferred);
            self.steady[at] = steady_since(shard, preferred, self.steady[at], now).filter(|_| may_lead);
            let wait = self.trust[at].wait();
            let is_steady = self.steady[at].is_some_and(|(since, _)| now.saturating_duration_since(since) >= wait);
            if due.is_none() && is_steady && self.node.health.of(preferred) == DiskHealth::Healthy {
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

    /// Hands over what this node leads and should not.
    fn leave<L: CoreLog, N: Network>(&mut self, now: Instant, router: &mut Router<L>, io: &Io<N>) {
        let is_full = self.node.health.own() == DiskHealth::Full;
        let is_ill = is_full || self.node.health.stalls();
        if !is_ill {
            self.sent.clear();
        }
        let should_leave = |shard: &Shard<ReplyTo>| shard.leads() && (is_ill || shard.is_wrong());
        if !router.shards().iter().any(should_leave) {
            self.leave_at = None;
            return;
        }
        if self.leave_at.is_some_and(|at| now < at) {
            return;
        }
        self.leave_at = Some(now + PERIOD_LEAVING);
        self.sent.resize(router.shards().len(), None);
        self.heirs.resize(router.shards().len(), None);
        for at in 0..router.shards().len() {
            let shard = &router.shards()[at];
            let sent = shard.leads().then(|| shard.raft().last().index);
            let before = std::mem::replace(&mut self.sent[at], sent);
            if !should_leave(shard) || shard.raft().is_transferring() {
                continue;
            }
            let id = shard.id();
            let (heir, why) = match shard.is_wrong() {
                true => (self.heir_of_wrong(at, shard, io), "this node's state is wrong"),
                false if is_full => (self.heir_of_ill(at, shard, before, io), "this node's disk is full"),
                false => (self.heir_of_ill(at, shard, before, io), "this node's disk is slow"),
            };
            if let Some(heir) = heir {
                self.heirs[at] = Some(heir);
                router.counters.transfers_away += 1;
                log::info!("handing leadership of shard {id} to node {heir}: {why}");
                hand_over(&mut router.shards_mut()[at], heir);
            }
        }
    }

    /// Who takes over from a node whose disk is slow or full: of a majority that has on its disks what was `sent` at the
    /// look before, a node whose disk has been well for a while.
    fn heir_of_ill<N: Network>(
        &self,
        at: usize,
        shard: &Shard<ReplyTo>,
        sent: Option<Index>,
        io: &Io<N>,
    ) -> Option<NodeId> {
        let (sent, raft, health) = (sent?, shard.raft(), &self.node.health);
        let keeps_up =
            |peer: &NodeId| shard.trusts(*peer) && !health.of(*peer).is_bad() && raft.matched(*peer) >= Some(sent);
        let majority = raft.voters().len() / 2 + 1;
        if reachable(io).filter(keeps_up).count() < majority {
            return None;
        }
        let heirs = reachable(io).filter(keeps_up).filter(|peer| health.of(*peer) == DiskHealth::Healthy);
        heirs.max_by_key(|peer| (self.heirs[at] != Some(*peer), raft.matched(*peer)))
    }

    /// Who takes over from a node whose state of a shard is wrong: one of the majority, if that has been asked.
    fn heir_of_wrong<N: Network>(&self, at: usize, shard: &Shard<ReplyTo>, io: &Io<N>) -> Option<NodeId> {
        let rank = |peer: &NodeId| {
            let is_ill = self.node.health.of(*peer).is_bad();
            (self.heirs[at] != Some(*peer), !is_ill, shard.raft().matched(*peer))
        };
        reachable(io).filter(|peer| shard.trusts(*peer)).max_by_key(rank)
    }
}

/// The peers to which this core's links are up.
fn reachable<N: Network>(io: &Io<N>) -> impl Iterator<Item = NodeId> {
    io.links.iter().filter(|link| link.is_up()).map(|link| link.peer.id)
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
