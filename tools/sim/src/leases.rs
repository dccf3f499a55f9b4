//! Leases, in runs that have them: what is drawn for them, and what must hold.
//!
//! Clocks drift up to the bound that the nodes are told, machines stand still for longer than any lease, also in the
//! middle of a turn, and some nodes start without leases, or with shorter ones. Outside of what is promised, and so never
//! brought about: a clock that is wrong by more than the bound.
//!
//! - A node that has promised a leader to elect nobody else does not: it votes for nobody of a later term and stands for no
//!   election until the promise has run out on the fastest clock, over restarts too, but for an election that a leader has asked
//!   for. (Pre-votes may wait in a socket until the node is bound, and mean nothing then.)
//! - While a leader holds a lease nobody leads a later term. (So nobody else can have committed anything.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{CoreId, NodeId, ShardId, Term};

use crate::agenda::{Event, HostId, MILLISECOND};
use crate::machine::State;
use crate::oracle::Violation;
use crate::random::Random;
use crate::world::World;

/// What a seed says of leases. It is drawn by itself: the rest of a run is drawn as if there were none.
#[derive(Clone, Debug)]
pub struct LeasePlan {
    /// How long they last.
    pub duration: Duration,
    /// How many of a hundred starts are without them, or with leases of half the length.
    pub odd_starts: u64,
}

impl LeasePlan {
    /// Of the runs of this length of an election, one in three has leases.
    #[must_use]
    pub fn draw(random: &mut Random, election: Duration) -> Option<LeasePlan> {
        let is_on = random.below(3) == 0;
        let parts = *random.pick(&[3, 5, 8]);
        let odd_starts = *random.pick(&[0, 0, 20]);
        is_on.then_some(LeasePlan { duration: election * parts / 8, odd_starts })
    }

    /// What a node that starts is told.
    pub fn setting(&self, random: &mut Random) -> Option<Duration> {
        if random.below(100) >= self.odd_starts {
            return Some(self.duration);
        }
        // Not shorter than two beats, which are a quarter of an election.
        random.coin().then_some(self.duration * 3 / 4)
    }
}

/// What one replica has promised.
#[derive(Clone, Copy, Debug)]
struct Bound {
    term: Term,
    /// Until when, on the fastest clock that counts.
    until: u64,
}

/// What was promised to leaders, as it was heard.
#[derive(Debug, Default)]
pub struct LeasePromises {
    /// How much clocks drift at most, in millionths.
    drift_ppm_max: u64,
    /// When heartbeats left that ask for promises, by what they say of that.
    beats: BTreeMap<(ShardId, NodeId, Term, u64), u64>,
    bound: BTreeMap<(ShardId, NodeId), Bound>,
    /// Elections that leaders have asked for.
    handed_over: BTreeSet<(ShardId, Term, NodeId)>,
}

impl LeasePromises {
    /// Nobody has promised anything.
    #[must_use]
    pub fn new(drift_ppm_max: u64) -> LeasePromises {
        LeasePromises { drift_ppm_max, ..LeasePromises::default() }
    }

    /// A message has left a node.
    ///
    /// # Errors
    /// If its sender has promised not to send it.
    pub fn told(&mut self, message: &Message, now: u64) -> Result<(), Violation> {
        let Message { shard, from, to, term, .. } = *message;
        match message.body {
            Body::Heartbeat { sent_us, .. } if sent_us > 0 => {
                self.beats.entry((shard, from, term, sent_us)).or_insert(now);
            }
            Body::HeartbeatReply { promise, .. } if promise.lasts_us > 0 => {
                let Some(sent) = self.beats.get(&(shard, to, term, promise.sent_us)) else { return Ok(()) };
                let shortest =
                    u128::from(promise.lasts_us) * 1_000 * 1_000_000 / u128::from(1_000_000 + self.drift_ppm_max);
                let until = sent + shortest as u64;
                let bound = self.bound.entry((shard, from)).or_insert(Bound { term, until });
                (bound.term, bound.until) = (bound.term.max(term), bound.until.max(until));
            }
            Body::Vote { transfer: true, .. } => drop(self.handed_over.insert((shard, term, from))),
            Body::Vote { transfer: false, .. } => return self.check(message, "stands for election", now),
            Body::VoteReply { granted: true } if !self.handed_over.contains(&(shard, term, to)) => {
                return self.check(message, "votes", now);
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, message: &Message, what: &str, now: u64) -> Result<(), Violation> {
        let Message { shard, from, to, term, .. } = *message;
        let Some(bound) = self.bound.get(&(shard, from)) else { return Ok(()) };
        if now >= bound.until || term <= bound.term {
            return Ok(());
        }
        let what = format!("shard {shard}: node {from} {what} ({to}, term {term}) at {now}: {bound:?}");
        Err(Violation::of("who has promised to elect nobody else does not", what))
    }
}

impl World {
    /// A core has had a turn: of the shards that it leads, nobody holds a lease of an earlier term than somebody leads.
    pub(crate) fn check_leases_of(&self, index: usize, core: CoreId) -> Result<(), Violation> {
        let State::Up(process) = &self.machines[index].state else { return Ok(()) };
        let Some(router) = process.node.router(core).filter(|_| self.plan.leases.is_some()) else { return Ok(()) };
        let led = router.shards().iter().filter(|shard| shard.leads());
        led.map(|shard| shard.id()).try_for_each(|shard| self.check_leases(shard))
    }

    fn check_leases(&self, shard: ShardId) -> Result<(), Violation> {
        let (now, latest) = (self.now(), self.oracle.latest_led(shard));
        let core = CoreId(shard.0 % self.plan.cores);
        for machine in &self.machines {
            let State::Up(process) = &machine.state else { continue };
            let Some(router) = process.node.router(core) else { continue };
            let Some(held) = router.shards().iter().find(|held| held.id() == shard) else { continue };
            let raft = held.raft();
            if raft.role() != Role::Leader || raft.term() >= latest || !raft.holds_lease(machine.clock(now)) {
                continue;
            }
            let what = format!("shard {shard}: term {latest} has a leader; {}", raft.state_line());
            return Err(Violation::of("a held lease means that nobody else leads", what));
        }
        Ok(())
    }

    /// A node that stands still in a run with leases may do so in the middle of a turn, and may be out of the others' sight
    /// when it goes on: nothing but its clock tells it then that there is another leader.
    pub(crate) fn pause_with_lease(&mut self, node: usize, pause: u64) {
        if self.plan.leases.is_none() {
            return;
        }
        let since = self.now();
        let machine = &mut self.machines[node];
        if machine.lease_random.coin() {
            machine.stood_since.fill(Some(since));
        }
        if machine.lease_random.coin() {
            return;
        }
        let stays = pause + machine.lease_random.skewed(MILLISECOND, self.plan.election_timeout.as_nanos() as u64);
        let mut net = self.net.0.borrow_mut();
        for other in (0..self.plan.nodes).filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)].map(|(from, to)| (HostId(from), HostId(to))) {
                net.set_cut(from, to, true);
                net.agenda.after(stays, Event::Path { from, to, cut: false });
            }
        }
    }
}
