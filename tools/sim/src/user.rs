//! The clients: the real client library over the simulated network, and what they ask.

use std::time::{Duration, Instant};

use raftkv::client::by_hand::ByHand;
use raftkv::client::{Client, Condition, Consistency, Error, ErrorKind, Pending, Value, Version};
use raftkv::socket::Readiness;
use raftkv_history::{Kind, Outcome};

use crate::agenda::{LoopId, MILLISECOND};
use crate::network::{SharedNet, node_address};
use crate::plan::Plan;
use crate::random::Random;
use crate::socket::SimNetwork;

/// A request without an answer so far.
enum Waiting {
    Put(Pending<Version>),
    Delete(Pending<bool>),
    Get(Pending<Option<Value>>),
}

/// What came of a request.
pub struct Answered {
    /// Its place in the list of requests.
    pub request: usize,
    /// What the client was told.
    pub outcome: Outcome,
}

/// What a client asks.
pub struct Question {
    /// Of which key.
    pub key: Vec<u8>,
    /// What.
    pub kind: Kind,
    /// Whether any node may answer what it has, however old.
    pub stale: bool,
    /// How long it waits for an answer.
    pub timeout: Duration,
}

/// One client.
pub struct User {
    /// From 0 on.
    pub index: usize,
    /// Its loop.
    pub own: LoopId,
    client: ByHand<SimNetwork>,
    waiting: Vec<(usize, Waiting)>,
    lives: u64,
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
        User { index, own, client: connect(plan, net, own, now, random), waiting: Vec::new(), lives: 1 }
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
    pub fn ask(&mut self, request: usize, question: &Question, now: Instant) {
        let Question { key, kind, stale, timeout } = question;
        let client = &mut self.client;
        let waiting = match kind {
            Kind::Put { value, condition } => Waiting::Put(client.put_if(key, value, wire(condition), now, *timeout)),
            Kind::Delete { condition } => Waiting::Delete(client.delete_if(key, wire(condition), now, *timeout)),
            Kind::Get => {
                let consistency = if *stale { Consistency::Stale } else { Consistency::Linearizable };
                Waiting::Get(client.get_with(key, consistency, now, *timeout))
            }
        };
        self.waiting.push((request, waiting));
    }

    /// Takes a turn; tells what was answered.
    pub fn turn(&mut self, now: Instant, ready: &[Readiness]) -> Vec<Answered> {
        self.client.turn(now, ready);
        let mut answered = Vec::new();
        for (request, waiting) in std::mem::take(&mut self.waiting) {
            match waiting.look() {
                Ok(outcome) => answered.push(Answered { request, outcome }),
                Err(waiting) => self.waiting.push((request, waiting)),
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
    pub fn give_up(&mut self, plan: &Plan, net: &SharedNet, now: Instant, random: &mut Random) -> Vec<Answered> {
        self.lives += 1;
        self.client = connect(plan, net, self.own, now, random);
        let forgotten = std::mem::take(&mut self.waiting);
        forgotten.into_iter().map(|(request, _)| Answered { request, outcome: Outcome::Unknown }).collect()
    }
}

impl Waiting {
    fn look(self) -> Result<Outcome, Waiting> {
        match self {
            Waiting::Put(pending) => pending.try_wait().map(put_outcome).map_err(Waiting::Put),
            Waiting::Delete(pending) => pending.try_wait().map(delete_outcome).map_err(Waiting::Delete),
            Waiting::Get(pending) => pending.try_wait().map(get_outcome).map_err(Waiting::Get),
        }
    }
}

fn put_outcome(result: Result<Version, Error>) -> Outcome {
    result.map_or_else(|error| write_failed(&error), |version| Outcome::Put { version: version.0 })
}

fn delete_outcome(result: Result<bool, Error>) -> Outcome {
    result.map_or_else(|error| write_failed(&error), |existed| Outcome::Deleted { existed, index: None })
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

fn wire(condition: &raftkv_history::Condition) -> Condition {
    match condition {
        raftkv_history::Condition::None => Condition::None,
        raftkv_history::Condition::Version(version) => Condition::Version(raftkv_protocol::types::Index(*version)),
        raftkv_history::Condition::Exists => Condition::Exists,
        raftkv_history::Condition::Absent => Condition::Absent,
    }
}

/// What a client might ask next. Values are unique, so that each read names its write.
pub fn next_question(plan: &Plan, now: u64, unique: u64, seen: Option<u64>, random: &mut Random) -> Question {
    let key = key_of(now / plan.keys_live, random.below(plan.keys));
    let value = || {
        let mut value = unique.to_be_bytes().to_vec();
        value.resize(8 + unique.wrapping_mul(0x9e37_79b9) as usize % plan.value_max as usize, unique as u8);
        value
    };
    let condition = |random: &mut Random| match random.below(4) {
        0 => raftkv_history::Condition::Absent,
        1 => raftkv_history::Condition::Exists,
        _ => seen.map_or(raftkv_history::Condition::Exists, raftkv_history::Condition::Version),
    };
    let kind = match random.below(100) {
        0..40 => Kind::Put { value: value(), condition: raftkv_history::Condition::None },
        40..55 => Kind::Put { value: value(), condition: condition(random) },
        55..60 => Kind::Delete { condition: raftkv_history::Condition::None },
        60..64 => Kind::Delete { condition: condition(random) },
        _ => Kind::Get,
    };
    let timeout = Duration::from_nanos(random.skewed(200 * MILLISECOND, 8_000 * MILLISECOND));
    let stale = kind == Kind::Get && random.below(4) == 0;
    Question { key, kind, stale, timeout }
}

/// A key of a generation: later ones begin with nothing written.
#[must_use]
pub fn key_of(generation: u64, number: u64) -> Vec<u8> {
    format!("{generation}/{number}").into_bytes()
}
