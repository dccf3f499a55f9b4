//! Leases, in runs that have them: what is drawn for them, and what must hold.
//!
//! Clocks drift up to the bound that the nodes are told, most of them by just that, machines stand still for longer than any
//! lease, also in the middle of a turn, and some nodes start without leases, or with shorter ones. Outside of what is
//! promised, and so never brought about: a clock that is wrong by more than the bound.
//!
//! - A node that has promised a leader to elect nobody else does not: it votes for nobody of a later term and stands for no
//!   election until the promise has run out on the fastest clock, over restarts too, but for an election that a leader has asked
//!   for. (Pre-votes may wait in a socket until the node is bound, and mean nothing then.)
//! - Who says that a leader has asked for its election was told so by a node of the term before.
//! - A lease is over before the promises that it rests on can have run out on any clock.
//! - A lease that answers a read is held at a time that was read after the request.
//! - While a leader holds a lease nobody leads a later term. (So nobody else can have committed anything.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raftkv::limits::CLOCK_DRIFT_PPM_MAX;
use raftkv::server::message::ReplyTo;
use raftkv::shard::Shard;
use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{CoreId, NodeId, ShardId, Term};

use crate::agenda::{Event, HostId, MILLISECOND};
use crate::machine::{Machine, State, node_id};
use crate::oracle::Violation;
use crate::random::Random;
use crate::world::World;

/// What a seed says of leases. It is drawn by itself: the rest of a run is drawn as if there were none, but for its clocks.
#[derive(Clone, Debug)]
pub struct LeasePlan {
    /// How long they last.
    pub duration: Duration,
    /// How many of a hundred starts are without them, or with leases of half the length.
    pub odd_starts: u64,
    /// How much faster or slower clocks run, in millionths, if it is as much as nodes expect unless they are told otherwise.
    pub drift_max: Option<u64>,
}

impl LeasePlan {
    /// Of the runs of this length of an election, one in three has leases.
    #[must_use]
    pub fn draw(random: &mut Random, election: Duration) -> Option<LeasePlan> {
        let is_on = random.below(3) == 0;
        let parts = *random.pick(&[3, 5, 8]);
        let odd_starts = *random.pick(&[0, 0, 20]);
        let drift_max = random.coin().then(|| u64::from(CLOCK_DRIFT_PPM_MAX));
        is_on.then_some(LeasePlan { duration: election * parts / 8, odd_starts, drift_max })
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

/// How much faster a clock runs in a run with leases, from this start of its node to the next: most often as much as it may, or as much
/// slower.
pub fn draw_drift(drift_max: u64, random: &mut Random) -> i64 {
    let (end, any) = (drift_max as i64, random.between(0, 2 * drift_max) as i64);
    *random.pick(&[-end, end, any - end])
}

/// Whether a clock is as slow as it may be while so many others that a lease may rest on them are as fast as they may be.
fn are_at_opposite_ends(machines: &[Machine], slow: usize, drift_max: u64) -> bool {
    let end = drift_max as i64;
    let fast = machines.iter().filter(|machine| machine.drift == end).count();
    end > 0 && machines[slow].drift == -end && fast >= machines.len() / 2
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
    /// Reads that each replica's leases have answered since its process started.
    served: BTreeMap<(ShardId, NodeId), u64>,
    /// Who was told to stand for election, and in which term it would.
    told_to_stand: BTreeSet<(ShardId, Term, NodeId)>,
    /// Who has said so to its voters.
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
            Body::TimeoutNow => drop(self.told_to_stand.insert((shard, Term(term.0 + 1), to))),
            Body::Vote { transfer: true, .. } if self.told_to_stand.contains(&(shard, term, from)) => {
                self.handed_over.insert((shard, term, from));
            }
            Body::Vote { transfer: true, .. } => {
                let what = format!("shard {shard}: node {from} stands in term {term}");
                return Err(Violation::of("who says that a leader has asked for its election was told so", what));
            }
            Body::Vote { transfer: false, .. } => return self.check(message, "stands for election", now),
            Body::VoteReply { granted: true } if !self.handed_over.contains(&(shard, term, to)) => {
                return self.check(message, "votes", now);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes note of how many reads a replica's leases have answered. Whether it is more than before.
    fn has_served(&mut self, shard: ShardId, node: NodeId, served: u64) -> bool {
        let before = self.served.insert((shard, node), served).unwrap_or(0);
        served > before
    }

    /// Until when the other nodes of a majority have promised, on the fastest clock, to elect nobody but this leader.
    fn promised_until(&self, shard: ShardId, leader: NodeId, nodes: usize) -> u64 {
        let others = (0..nodes).map(node_id).filter(|node| *node != leader);
        let bound = others.map(|node| self.bound.get(&(shard, node)).map_or(0, |bound| bound.until));
        let mut until: Vec<u64> = bound.collect();
        until.sort_unstable_by(|one, other| other.cmp(one));
        until.get((nodes / 2).wrapping_sub(1)).copied().unwrap_or(u64::MAX)
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
    pub(crate) fn check_leases_of(&mut self, index: usize, core: CoreId) -> Result<(), Violation> {
        let now = self.now();
        let State::Up(process) = &self.machines[index].state else { return Ok(()) };
        let Some(router) = process.node.router(core).filter(|_| self.plan.leases.is_some()) else { return Ok(()) };
        for led in router.shards().iter().filter(|shard| shard.leads()) {
            let raft = led.raft();
            let served = self.oracle.leases.has_served(led.id(), node_id(index), raft.lease_counts().served);
            let is_close = served && are_at_opposite_ends(&self.machines, index, self.plan.drift_max);
            self.coverage.add("lease held by the slowest clock on the word of the fastest", u64::from(is_close));
            if served && !raft.is_transferring() && !raft.holds_lease(self.machines[index].clock(now)) {
                let what = format!("shard {}: {}", led.id(), raft.state_line());
                return Err(Violation::of("a lease that answers reads is held", what));
            }
            self.check_lease_end(index, led)?;
            self.check_leases(led.id())?;
        }
        Ok(())
    }

    /// A lease is over on the leader's clock when the first promise of a majority may run out on the clock of who made it.
    fn check_lease_end(&self, index: usize, led: &Shard<ReplyTo>) -> Result<(), Violation> {
        let until = self.oracle.leases.promised_until(led.id(), node_id(index), self.plan.nodes);
        let end = until.max(self.now());
        if self.plan.nodes == 1 || !led.raft().holds_lease(self.machines[index].clock(end)) {
            return Ok(());
        }
        let what = format!("shard {}: promised until {until}, held at {end}: {}", led.id(), led.raft().state_line());
        Err(Violation::of("a lease ends before the promises that it rests on", what))
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
