//! The clients: the real client library over the simulated network, and what they ask.

use std::time::{Duration, Instant};

use raftkv::client::by_hand::ByHand;
use raftkv::client::{
    Batched, Client, Condition, Consistency, Error, ErrorKind, Item, Page, Pending, ShardSnapshot, Value, Version,
};
use raftkv::socket::Readiness;
use raftkv_history::{Kind, Outcome};

use crate::agenda::{LoopId, MILLISECOND};
use crate::batches::{BatchAnswer, BatchWish};
use crate::machine::node_id;
use crate::network::{SharedNet, node_address};
use crate::plan::Plan;
use crate::random::Random;
use crate::scan::{Scan, Wish};
use crate::socket::SimNetwork;
use crate::transcript::Ticket;

/// A request without an answer so far.
enum Waiting {
    Put(Pending<Version>),
    Batch(Pending<Batched>),
    Delete(Pending<bool>),
    Get(Pending<Option<Value>>),
    Page(Pending<Page>),
    Snapshots(Pending<Vec<ShardSnapshot>>),
}

/// What came of a request.
pub struct Answered {
    /// Which.
    pub ticket: Ticket,
    /// What the client was told.
    pub answer: Answer,
}

/// What a client is told.
pub enum Answer {
    /// Of one key.
    Outcome(Outcome),
    /// Of a batch.
    Batch(BatchAnswer),
    /// Of many; none if the scan failed.
    Page(Option<Page>),
    /// Of a node's snapshots; none if it was refused or lost.
    Snapshots(Option<Vec<ShardSnapshot>>),
}

impl Answer {
    /// Tells one answer from another.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Answer::Outcome(Outcome::Put { version } | Outcome::Value(Some((version, _)))) => *version,
            Answer::Outcome(_) | Answer::Page(None) | Answer::Snapshots(None) => 0,
            Answer::Batch(answer) => answer.digest(),
            Answer::Snapshots(Some(snapshots)) => snapshots.len() as u64,
            Answer::Page(Some(page)) => {
                let mix = |digest: u64, item: &Item| digest.rotate_left(5).wrapping_mul(31) ^ item.version.0;
                page.items.iter().fold(1 + u64::from(page.cursor.is_some()), mix)
            }
        }
    }
}

/// What a client asks.
pub struct Question {
    /// What.
    pub what: What,
    /// How long it waits for an answer.
    pub timeout: Duration,
}

/// What is asked for.
pub enum What {
    /// One key.
    Key {
        /// Which.
        key: Vec<u8>,
        /// What is to be done with it.
        kind: Kind,
        /// Whether any node may answer what it has, however old.
        stale: bool,
    },
    /// Several keys together.
    Batch(BatchWish),
    /// The next page of a scan.
    Page(Scan),
    /// Snapshots of all shards of a node, by its index.
    Snapshots(usize),
}

/// One client.
pub struct User {
    /// From 0 on.
    pub index: usize,
    /// Its loop.
    pub own: LoopId,
    client: ByHand<SimNetwork>,
    waiting: Vec<(Ticket, Waiting)>,
    lives: u64,
    /// Reads that were asked for, if some of them are to be answered by leases.
    lease_reads: Option<u64>,
}

fn connect(plan: &Plan, net: &SharedNet, own: LoopId, now: Instant, random: &mut Random) -> ByHand<SimNetwork> {
    let mut endpoints: Vec<String> = (0..plan.nodes).map(|index| node_address(index).to_string()).collect();
    let first = random.below(plan.nodes as u64) as usize;
    endpoints.rotate_left(first);
    let builder = Client::builder()
        .endpoints(endpoints)
        .connect_timeout(Duration::from_millis(random.between(300, 1_500)))
        .silence_timeout(Duration::from_millis(random.between(600, 4_000)));
    ByHand::new(builder, net.for_loop(own), random.number(), now).expect("there are endpoints")
}

impl User {
    /// A client that has not asked anything.
    pub fn new(index: usize, plan: &Plan, net: &SharedNet, own: LoopId, now: Instant, random: &mut Random) -> User {
        let lease_reads = plan.leases.as_ref().map(|_| index as u64);
        User { index, own, client: connect(plan, net, own, now, random), waiting: Vec::new(), lives: 1, lease_reads }
    }

    /// How much it waits for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Its number in the history: a client that came back is another one.
    #[must_use]
    pub fn name(&self) -> u32 {
        (self.index as u64 * 1_000 + self.lives) as u32
    }

    /// Asks.
    pub fn ask(&mut self, ticket: Ticket, question: &Question, now: Instant) {
        let timeout = question.timeout;
        let fresh = self.next_consistency();
        let client = &mut self.client;
        let waiting = match &question.what {
            What::Page(scan) => Waiting::Page(client.scan(scan.options(fresh), now, timeout)),
            What::Batch(wish) => Waiting::Batch(client.batch(wish.batch(), now, timeout)),
            What::Snapshots(node) => Waiting::Snapshots(client.snapshot(node_id(*node), now, timeout)),
            What::Key { key, kind: Kind::Put { value, condition }, .. } => {
                Waiting::Put(client.put_if(key, value, wire(condition), now, timeout))
            }
            What::Key { key, kind: Kind::Delete { condition }, .. } => {
                Waiting::Delete(client.delete_if(key, wire(condition), now, timeout))
            }
            What::Key { key, kind: Kind::Get, stale } => {
                let consistency = if *stale { Consistency::Stale } else { fresh };
                Waiting::Get(client.get_with(key, consistency, now, timeout))
            }
        };
        self.waiting.push((ticket, waiting));
    }

    /// How a read is asked for that is to see everything that was acknowledged: where there are leases, mostly by them.
    fn next_consistency(&mut self) -> Consistency {
        let Some(asked) = &mut self.lease_reads else { return Consistency::Linearizable };
        *asked += 1;
        if asked.is_multiple_of(4) { Consistency::Linearizable } else { Consistency::Lease }
    }

    /// Takes a turn; tells what was answered.
    pub fn turn(&mut self, now: Instant, ready: &[Readiness]) -> Vec<Answered> {
        self.client.turn(now, ready);
        let mut answered = Vec::new();
        for (ticket, waiting) in std::mem::take(&mut self.waiting) {
            match waiting.look() {
                Ok(answer) => answered.push(Answered { ticket, answer }),
                Err(waiting) => self.waiting.push((ticket, waiting)),
            }
        }
        answered
    }

    /// When it wants its next turn.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        self.client.wake_at()
    }

    /// Goes away and comes back as another client; what it waited for is unknown to it.
    pub fn give_up(&mut self, plan: &Plan, net: &SharedNet, now: Instant, random: &mut Random) -> Vec<Ticket> {
        self.lives += 1;
        self.client = connect(plan, net, self.own, now, random);
        std::mem::take(&mut self.waiting).into_iter().map(|(ticket, _)| ticket).collect()
    }
}

impl Waiting {
    fn look(self) -> Result<Answer, Waiting> {
        match self {
            Waiting::Put(pending) => pending.try_wait().map(put_outcome).map(Answer::Outcome).map_err(Waiting::Put),
            Waiting::Delete(pending) => {
                pending.try_wait().map(delete_outcome).map(Answer::Outcome).map_err(Waiting::Delete)
            }
            Waiting::Get(pending) => pending.try_wait().map(get_outcome).map(Answer::Outcome).map_err(Waiting::Get),
            Waiting::Batch(pending) => {
                pending.try_wait().map(BatchAnswer::of).map(Answer::Batch).map_err(Waiting::Batch)
            }
            Waiting::Page(pending) => pending.try_wait().map(|page| Answer::Page(page.ok())).map_err(Waiting::Page),
            Waiting::Snapshots(pending) => {
                pending.try_wait().map(|snapshots| Answer::Snapshots(snapshots.ok())).map_err(Waiting::Snapshots)
            }
        }
    }
}

fn put_outcome(result: Result<Version, Error>) -> Outcome {
    result.map_or_else(|error| write_failed(&error), |version| Outcome::Put { version: version.0 })
}

fn delete_outcome(result: Result<bool, Error>) -> Outcome {
    result.map_or_else(|error| write_failed(&error), |existed| Outcome::Deleted { existed: Some(existed), index: None })
}

fn get_outcome(result: Result<Option<Value>, Error>) -> Outcome {
    match result {
        Ok(value) => Outcome::Value(value.map(|value| (value.version.0, value.bytes))),
        Err(_) => Outcome::Failed,
    }
}

fn write_failed(error: &Error) -> Outcome {
    if error.maybe_applied() {
        Outcome::Unknown
    } else if error.kind() == ErrorKind::PreconditionFailed {
        Outcome::ConditionFailed
    } else {
        Outcome::Failed
    }
}

/// A condition as the client library is told it.
pub(crate) fn wire(condition: &raftkv_history::Condition) -> Condition {
    match condition {
        raftkv_history::Condition::None => Condition::None,
        raftkv_history::Condition::Version(version) => Condition::Version(raftkv_protocol::types::Index(*version)),
        raftkv_history::Condition::Exists => Condition::Exists,
        raftkv_history::Condition::Absent => Condition::Absent,
    }
}

/// A condition as the log has it.
pub(crate) fn read_condition(condition: Condition) -> raftkv_history::Condition {
    match condition {
        Condition::None => raftkv_history::Condition::None,
        Condition::Version(version) => raftkv_history::Condition::Version(version.0),
        Condition::Exists => raftkv_history::Condition::Exists,
        Condition::Absent => raftkv_history::Condition::Absent,
    }
}

/// What a client might ask next. `unique` is no other request's, `seen` a version that somebody was told.
pub fn next_question(plan: &Plan, now: u64, unique: u64, seen: Option<u64>, random: &mut Random) -> Question {
    let what = if random.below(1_000) < plan.demands {
        What::Snapshots(random.below(plan.nodes as u64) as usize)
    } else if random.below(100) < plan.scans.percent {
        What::Page(Scan::of(Wish::draw(plan, now, random)))
    } else {
        let key = plan.key(now / plan.keys_live, random.below(plan.keys));
        let kind = next_kind(plan, unique, seen, random);
        let stale = kind == Kind::Get && random.below(4) == 0;
        What::Key { key, kind, stale }
    };
    Question { what, timeout: Duration::from_nanos(random.skewed(200 * MILLISECOND, 8_000 * MILLISECOND)) }
}

fn next_kind(plan: &Plan, unique: u64, seen: Option<u64>, random: &mut Random) -> Kind {
    let condition = |random: &mut Random| match random.below(4) {
        0 => raftkv_history::Condition::Absent,
        1 => raftkv_history::Condition::Exists,
        _ => seen.map_or(raftkv_history::Condition::Exists, raftkv_history::Condition::Version),
    };
    match random.below(100) {
        0..40 => Kind::Put { value: plan.value(unique), condition: raftkv_history::Condition::None },
        40..55 => Kind::Put { value: plan.value(unique), condition: condition(random) },
        55..60 => Kind::Delete { condition: raftkv_history::Condition::None },
        60..64 => Kind::Delete { condition: condition(random) },
        _ => Kind::Get,
    }
}
