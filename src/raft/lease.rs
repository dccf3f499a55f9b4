//! Leases (Raft thesis §6.4.1): reads that a leader answers without a round, by the clock. Off unless asked for.
//!
//! **The promise.** Each answer to a heartbeat may carry one: for `lasts` the voter helps to elect nobody else. It grants no
//! vote and no pre-vote and does not stand for election itself, in whatever term, and whatever it hears of broken links.
//! It is bound from the moment at which the heartbeat came until `lasts` after the tick that followed, by its own clock. What
//! it has promised it must not forget: [`Leases::promised_before`] is the longest promise that an earlier process of this
//! node can have made, and for so long after its start it is bound as if it had just made it.
//!
//! **The lease.** A leader holds one as long as promises of a majority, its own among them, last. It counts each from when
//! it *sent* the heartbeat that was answered, which comes back in the promise, and for less than what was promised: two
//! clocks that are both wrong by the bound drift apart at twice the bound. So by the time that one promise of each majority
//! has run out on a voter's clock, the lease is over on the leader's. Nobody else can have been elected before that,
//! and so nobody else can have committed anything.
//!
//! **A read by the lease** takes the commit index, as a round does, and is served when that is applied. It is asked for with a
//! time that was read *after* the request came: at that moment nobody else had committed anything, and a state that
//! holds all that was committed then is right, however late the answer leaves. A time that was read before the request
//! would prove nothing: the process may have stood still in between, and another leader may have answered the same client.
//! Like a round, it waits for the first entry of the leader's own term to be committed.
//!
//! **Who must agree.** Nobody has to: only what was promised explicitly counts, and for as long as both sides have leases for.
//! A voter whose leases are off promises nothing, and a leader that finds no majority of promises starts a round instead.
//!
//! **Handing over.** The leader has no lease from the moment at which it is told to hand over. Once it has told the target to
//! stand for election it has none for the rest of its term, as that message may arrive at any later time. That is why
//! voters may waive what they have promised for an election that a leader has asked for: the leader of that term has no
//! lease, and those before it had none any more when it was elected.
//!
//! **Not covered:** a clock that is wrong by more than the bound, or that stood still while the world went on, as that of a
//! virtual machine that is frozen and does not notice.

use std::ops::Add;
use std::time::{Duration, Instant};

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message, Promise, ReadContext};
use raftkv_protocol::types::NodeId;

use super::{Raft, ReadId, ReadReady};

/// The settings. Without a duration nothing is promised and no lease is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// How long what this node promises lasts, and what it makes of longer promises. `None`: leases are off.
    pub duration: Option<Duration>,
    /// How much a clock may be too fast or too slow, in millionths.
    pub drift_ppm_max: u32,
    /// The longest promise that an earlier process of this node may have made.
    pub promised_before: Duration,
}

impl Leases {
    /// How long a voter keeps what it promises, by its own clock: what clocks are wrong by is for the leader to allow for.
    pub(super) fn kept(&self) -> Duration {
        let lasts = self.duration.unwrap_or_default();
        if mutant!("promise-allows-for-drift") { self.counted(lasts) } else { lasts }
    }

    /// How long a leader counts on a promise, from when it sent what was answered.
    fn counted(&self, lasts: Duration) -> Duration {
        let lasts = lasts.min(self.duration.unwrap_or_default());
        if mutant!("lease-ignores-drift") {
            return lasts;
        }
        // (1 - d) / (1 + d) is more than 1 - 2d.
        let apart = u128::from(self.drift_ppm_max) * if mutant!("lease-allows-for-one-clock") { 1 } else { 2 };
        let lost_ns = (lasts.as_nanos() * apart).div_ceil(1_000_000);
        lasts.saturating_sub(Duration::from_nanos(u64::try_from(lost_ns).unwrap_or(u64::MAX)))
    }
}

/// What a voter is bound by.
#[derive(Debug, Default)]
pub(super) struct Bond {
    /// Until then.
    until: Option<Instant>,
    /// A promise was made since the last tick, to be counted from the next.
    is_fresh: bool,
}

impl Bond {
    /// Bound as if the longest promise had been made just now.
    pub(super) fn after_start(now: Instant, promised_before: Duration) -> Bond {
        let is_free = promised_before.is_zero() || mutant!("restarted-voter-is-free");
        Bond { until: (!is_free).then(|| now + promised_before), is_fresh: false }
    }

    /// Whether it binds, as of the last tick.
    pub(super) fn binds(&self, now: Instant) -> bool {
        self.is_fresh || self.until.is_some_and(|until| now < until)
    }

    /// Until when it binds, if it does.
    pub(super) fn end(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// Turns what the input left behind into times.
    pub(super) fn settle(&mut self, now: Instant, lasts: Duration) {
        if std::mem::take(&mut self.is_fresh) {
            let until = now + lasts;
            self.until = Some(self.until.map_or(until, |before| before.max(until)));
        }
    }

    /// Whether `settle` has something to do.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_fresh
    }
}

/// What has come of leases at a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Reads that the lease has answered.
    pub served: u64,
    /// Reads that asked for it and waited for a round, as it was not held.
    pub fallen_back: u64,
    /// Votes and pre-votes that were not granted only because of a promise.
    pub votes_withheld: u64,
    /// Elections that this node has put off because of a promise.
    pub elections_put_off: u64,
    /// Leases that were held and given up to hand over.
    pub given_up: u64,
}

impl Add for LeaseCounts {
    type Output = LeaseCounts;

    fn add(self, other: LeaseCounts) -> LeaseCounts {
        LeaseCounts {
            served: self.served + other.served,
            fallen_back: self.fallen_back + other.fallen_back,
            votes_withheld: self.votes_withheld + other.votes_withheld,
            elections_put_off: self.elections_put_off + other.elections_put_off,
            given_up: self.given_up + other.given_up,
        }
    }
}

impl Raft {
    /// What has come of leases since the process started.
    pub fn lease_counts(&self) -> LeaseCounts {
        self.lease_counts
    }

    /// The settings, and what this process was bound by when it started.
    pub fn leases(&self) -> &Leases {
        &self.config.leases
    }

    /// Whether leases are on at this node.
    pub fn has_leases(&self) -> bool {
        self.config.leases.duration.is_some()
    }

    /// Whether this node may read by its lease at this time.
    pub fn holds_lease(&self, now: Instant) -> bool {
        let hands_over = (self.transfer.is_some() || self.has_stood_aside) && !mutant!("transfer-keeps-lease");
        self.role == Role::Leader
            && self.has_leases()
            && !hands_over
            && self.terms.term_at(self.commit) == Some(self.hard_state.term)
            && self.configuration.has_quorum(|node| self.is_promised_by(node, now))
    }

    fn is_promised_by(&self, node: NodeId, now: Instant) -> bool {
        // This node itself helps nobody as long as it leads.
        node == self.config.id
            || self.progress_of(node).is_some_and(|progress| progress.promised_until.is_some_and(|until| now < until))
    }

    /// Whether this node is bound by a promise, as of the last tick.
    pub fn is_bound(&self) -> bool {
        self.bond.binds(self.now)
    }

    /// Takes in a read that came before `now`, to be answered by the lease. `false` if none is held: it needs a round.
    pub fn read_by_lease(&mut self, read: ReadId, now: Instant) -> bool {
        let is_held = self.holds_lease(now);
        if is_held {
            self.lease_counts.served += 1;
            self.out.reads.push(ReadReady { read, index: self.commit });
        } else {
            self.lease_counts.fallen_back += u64::from(self.has_leases());
        }
        is_held
    }

    /// What a heartbeat says of when it was sent. Whatever happened since the last tick happened later.
    pub(super) fn sent_us(&self) -> u64 {
        if !self.has_leases() {
            return 0;
        }
        let since = self.now.saturating_duration_since(self.config.epoch).as_micros();
        u64::try_from(since).unwrap_or(0)
    }

    /// Makes a promise in answer to a heartbeat, if the leader has use for one.
    pub(super) fn make_promise(&mut self, sent_us: u64) -> Promise {
        let Some(duration) = self.config.leases.duration.filter(|_| sent_us > 0) else { return Promise::default() };
        self.bond.is_fresh = true;
        Promise { sent_us, lasts_us: u64::try_from(duration.as_micros()).unwrap_or(0) }
    }

    /// A voter's promise has come.
    pub(super) fn take_promise(&mut self, from: NodeId, context: ReadContext, promise: Promise) {
        let is_own = context.incarnation == self.config.incarnation && context.term == self.hard_state.term;
        let sent = self.config.epoch.checked_add(Duration::from_micros(promise.sent_us));
        let Some(sent) = sent.filter(|sent| is_own && promise.lasts_us > 0 && *sent <= self.now) else { return };
        let lasts = self.config.leases.counted(Duration::from_micros(promise.lasts_us));
        let from_when = if mutant!("lease-from-answer") { self.now } else { sent };
        if let Some(progress) = self.progress_mut(from) {
            progress.promised_until = progress.promised_until.max(Some(from_when + lasts));
        }
    }

    /// Whether a promise forbids what is asked: to help to elect somebody for whom this node has not voted already. What
    /// a leader itself has asked for is not forbidden.
    pub(super) fn is_forbidden(&self, message: &Message) -> bool {
        let (is_new, own) = (self.hard_state.vote != Some(message.from), self.hard_state.term);
        let helps = match message.body {
            Body::PreVote { .. } => message.term > own,
            Body::Vote { transfer, .. } => !transfer && (message.term > own || (message.term == own && is_new)),
            _ => false,
        };
        helps && self.is_bound() && !self.is_waived()
    }

    /// Nothing that this node hears sets it free.
    fn is_waived(&self) -> bool {
        mutant!("hint-waives-promise") && self.leader_link_lost
    }

    /// This node would stand for election. If a promise forbids it, it will when that has run out.
    pub(super) fn puts_off_election(&mut self) -> bool {
        let Some(end) = self.bond.end(self.now) else { return false };
        if self.is_waived() {
            return false;
        }
        self.lease_counts.elections_put_off += 1;
        self.timer.put_off(end);
        true
    }

    /// The lease ends before leadership is handed over.
    pub(super) fn give_lease_up(&mut self) {
        self.lease_counts.given_up += u64::from(self.holds_lease(self.now));
    }
}
