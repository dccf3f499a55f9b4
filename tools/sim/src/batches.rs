//! Batches, in runs that have them: what clients ask, and what must hold of it.
//!
//! To the judges a batch is an operation on each of its keys, from the question to the answer. All puts of one write the
//! same value, by whose number it is known. That they took effect together counts besides:
//!
//! - What was refused, by a condition or otherwise, is never read, not even by a read that may be old.
//! - A batch without an answer took effect on all of its keys, at one index and before it was read under one of them; or
//!   some time, if a replica that had applied it was seen.
//! - Keys of several shards, or one key twice, are refused and never committed.
//!
//! And of every batch that a replica applies, its state shows all or nothing: see `oracle/batches.rs`.

use std::ops::Range;
use std::time::Duration;

use raftkv::client::{self, Batched, Error, ErrorKind};
use raftkv_history::{Condition, Kind, Operation, Outcome};
use raftkv_protocol::types::Slot;

use crate::agenda::MILLISECOND;
use crate::coverage::Coverage;
use crate::oracle::{Oracle, Violation};
use crate::plan::Plan;
use crate::random::Random;
use crate::transcript::{Transcript, Witness};
use crate::user::{Question, What, wire};

/// What a seed says of batches. It is drawn by itself: the rest of a run is drawn as if there were none.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// How many of a hundred requests are batches.
    pub percent: u64,
}

impl BatchPlan {
    /// One run in three has batches.
    #[must_use]
    pub fn draw(random: &mut Random) -> Option<BatchPlan> {
        let is_on = random.below(3) == 0;
        let percent = *random.pick(&[5, 15, 40]);
        is_on.then_some(BatchPlan { percent })
    }
}

/// Why a batch is to be refused whatever the keys hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its keys lie in two shards.
    OverShards,
    /// It names a key twice.
    KeyTwice,
}

/// A batch that a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchWish {
    /// What the value of its puts begins with.
    pub number: u64,
    /// Puts and deletes, at most one of them with a condition, and at least one of them a put.
    pub operations: Vec<(Vec<u8>, Kind)>,
    /// Whether it is to be refused.
    pub flaw: Option<Flaw>,
}

impl BatchWish {
    /// Of 2 to 5 keys that are in use, or that have the tag of one. `number` is no other request's, `seen` a version that
    /// somebody was told.
    #[must_use]
    pub fn draw(plan: &Plan, now: u64, number: u64, seen: Option<u64>, random: &mut Random) -> BatchWish {
        let generation = now / plan.keys_live;
        let count = random.between(2, 5) as usize;
        let mut in_use: Vec<Vec<u8>> = (0..plan.keys).map(|key| plan.key(generation, key)).collect();
        in_use.rotate_left(random.below(plan.keys) as usize);
        let shard = Slot::of(&in_use[0]).shard(plan.shards);
        let (mut keys, others): (Vec<_>, Vec<_>) =
            in_use.into_iter().partition(|key| Slot::of(key).shard(plan.shards) == shard);
        keys.truncate(if random.below(4) == 0 { 1 } else { count });
        for sibling in keys.len()..count {
            keys.push(plan.sibling(&keys[0], sibling as u64));
        }
        let flaw = match random.below(16) {
            0 => others.into_iter().next().map(|other| {
                keys[count - 1] = other;
                Flaw::OverShards
            }),
            1 => {
                keys[count - 1] = keys[0].clone();
                Some(Flaw::KeyTwice)
            }
            _ => None,
        };
        let operations = draw_operations(plan, keys, number, seen, random);
        BatchWish { number, operations, flaw }
    }

    /// What the client library is asked for.
    pub fn batch(&self) -> client::Batch {
        self.operations.iter().fold(client::Batch::new(), |batch, (key, kind)| match kind {
            Kind::Put { value, condition } => batch.put_if(key, value, wire(condition)),
            Kind::Delete { condition } => batch.delete_if(key, wire(condition)),
            Kind::Get => batch,
        })
    }
}

fn draw_operations(
    plan: &Plan,
    keys: Vec<Vec<u8>>,
    number: u64,
    seen: Option<u64>,
    random: &mut Random,
) -> Vec<(Vec<u8>, Kind)> {
    let count = keys.len() as u64;
    let (put, conditional) = (random.below(count) as usize, random.below(3 * count) as usize);
    let place = |(at, key): (usize, Vec<u8>)| {
        let condition = match random.below(3) {
            _ if at != conditional => Condition::None,
            0 => Condition::Absent,
            1 => Condition::Exists,
            _ => seen.map_or(Condition::Exists, Condition::Version),
        };
        let is_put = at == put || random.below(10) < 7;
        let kind = if is_put { Kind::Put { value: plan.value(number), condition } } else { Kind::Delete { condition } };
        (key, kind)
    };
    keys.into_iter().enumerate().map(place).collect()
}

/// A batch that a client might ask for next; see [`BatchWish::draw`].
#[must_use]
pub fn next_batch(plan: &Plan, now: u64, number: u64, seen: Option<u64>, random: &mut Random) -> Question {
    let what = What::Batch(BatchWish::draw(plan, now, number, seen, random));
    Question { what, timeout: Duration::from_nanos(random.skewed(200 * MILLISECOND, 8_000 * MILLISECOND)) }
}

/// What a client is told of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchAnswer {
    /// It took effect.
    Applied(Batched),
    /// Its condition does not hold.
    ConditionFailed,
    /// It is none that any server would take, for this reason.
    Flawed(Flaw),
    /// It had no effect, and never will.
    Failed,
    /// It may have happened.
    Unknown,
}

impl BatchAnswer {
    pub(crate) fn of(result: Result<Batched, Error>) -> BatchAnswer {
        match result {
            Ok(batched) => BatchAnswer::Applied(batched),
            Err(error) if error.maybe_applied() => BatchAnswer::Unknown,
            Err(error) => match error.kind() {
                ErrorKind::PreconditionFailed => BatchAnswer::ConditionFailed,
                ErrorKind::CrossShard => BatchAnswer::Flawed(Flaw::OverShards),
                ErrorKind::BadRequest => BatchAnswer::Flawed(Flaw::KeyTwice),
                _ => BatchAnswer::Failed,
            },
        }
    }

    /// Tells one answer from another.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            BatchAnswer::Applied(batched) => batched.version.0,
            _ => 0,
        }
    }

    fn happened(&self) -> &'static str {
        match self {
            BatchAnswer::Applied(_) => "batch applied",
            BatchAnswer::ConditionFailed => "batch refused by its condition",
            BatchAnswer::Flawed(Flaw::OverShards) => "batch over shards refused",
            BatchAnswer::Flawed(Flaw::KeyTwice) => "batch with a key twice refused",
            BatchAnswer::Failed => "batch refused",
            BatchAnswer::Unknown => UNKNOWN,
        }
    }
}

/// What happened to a batch of which nobody knows what became of it.
pub(crate) const UNKNOWN: &str = "batch of unknown outcome";

/// A batch that was asked for.
#[derive(Debug)]
pub(crate) struct AskedBatch {
    number: u64,
    flaw: Option<Flaw>,
    /// Its operations, by their places in the history.
    places: Range<usize>,
    /// What became of it, as far as anybody knows.
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Applied,
    Refused,
}

impl Transcript {
    pub(crate) fn asks_batch(&mut self, wish: &BatchWish, client: u32) -> usize {
        self.stamp += 1;
        let first = self.operations.len();
        for (key, kind) in &wish.operations {
            self.takes_down(key, kind, client);
        }
        let places = first..self.operations.len();
        self.batches.push(AskedBatch { number: wish.number, flaw: wish.flaw, places, fate: Fate::Unknown });
        self.batches.len() - 1
    }

    pub(crate) fn told_batch(
        &mut self,
        place: usize,
        answer: &BatchAnswer,
        witness: Witness<'_>,
    ) -> Result<(), Violation> {
        self.stamp += 1;
        witness.coverage.note(answer.happened());
        let batch = &mut self.batches[place];
        let operations = &mut self.operations[batch.places.clone()];
        let wrong = |invariant| {
            let what = format!("batch {} with {:?} is told {answer:?}", batch.number, batch.flaw);
            Err(Violation::of(invariant, what))
        };
        let is_conditional = operations.iter().any(|operation| operation.kind.condition() != Condition::None);
        match answer {
            BatchAnswer::Applied(_) | BatchAnswer::ConditionFailed if batch.flaw.is_some() => {
                return wrong("a batch over shards, or with a key twice, is refused");
            }
            BatchAnswer::ConditionFailed if !is_conditional => {
                return wrong("a batch has the condition that refuses it");
            }
            BatchAnswer::Flawed(flaw) if batch.flaw != Some(*flaw) => return wrong("a batch is refused for a reason"),
            BatchAnswer::Applied(batched) if batched.deleted.len() != operations.len() => {
                return wrong("a batch is answered for each operation");
            }
            BatchAnswer::Unknown => return Ok(()),
            BatchAnswer::Applied(_) => batch.fate = Fate::Applied,
            BatchAnswer::ConditionFailed | BatchAnswer::Flawed(_) | BatchAnswer::Failed => batch.fate = Fate::Refused,
        }
        for (number, operation) in operations.iter_mut().enumerate() {
            operation.ret = self.stamp;
            operation.outcome = match answer {
                BatchAnswer::Applied(batched) => {
                    took_effect(operation, batched.version.0, Some(batched.deleted[number]))
                }
                // Which of them have the condition is looked at when all is judged.
                BatchAnswer::ConditionFailed => Outcome::ConditionFailed,
                _ => Outcome::Failed,
            };
        }
        if let BatchAnswer::Applied(batched) = answer {
            self.last_version = Some(batched.version.0);
        }
        Ok(())
    }

    /// Decides batches without an answer whose fate shows elsewhere. What took effect anywhere took effect on all keys.
    ///
    /// # Errors
    /// If something shows of a batch that was refused, or if one that was acknowledged was not applied.
    pub(crate) fn settle_batches(&mut self, oracle: &Oracle, coverage: &mut Coverage) -> Result<(), Violation> {
        for batch in &mut self.batches {
            let AskedBatch { number, flaw, .. } = *batch;
            let entry = oracle.entry_of_put(number);
            let seen = self.shown.0.get(&number).copied();
            if flaw.is_some() && (entry.is_some() || seen.is_some()) {
                let what = format!("batch {number} with {flaw:?} is entry {entry:?}, and was read as {seen:?}");
                return Err(Violation::of("a batch over shards, or with a key twice, is refused", what));
            }
            let applied = entry.and_then(|(shard, index)| oracle.batch_applied(shard, index));
            match batch.fate {
                Fate::Refused if seen.is_some() || applied == Some(true) => {
                    let what = format!("batch {number} was refused, is entry {entry:?}, and was read as {seen:?}");
                    return Err(Violation::of("nothing of a batch that was refused is there", what));
                }
                Fate::Applied if applied == Some(false) => {
                    let what = format!("batch {number} was acknowledged; replicas have refused entry {entry:?}");
                    return Err(Violation::of("what a client is told of a batch is true", what));
                }
                Fate::Applied | Fate::Refused => continue,
                Fate::Unknown => {}
            }
            let applied_at = entry.filter(|_| applied == Some(true)).map(|(_, index)| (index, u64::MAX));
            if let Some((index, ret)) = seen.or(applied_at) {
                coverage.note("batch of unknown outcome found applied");
                batch.fate = Fate::Applied;
                for operation in &mut self.operations[batch.places.clone()] {
                    (operation.outcome, operation.ret) = (took_effect(operation, index, None), ret);
                }
            } else if flaw.is_some() || applied == Some(false) {
                batch.fate = Fate::Refused;
            }
        }
        Ok(())
    }

    /// What was refused as a whole had no effect on any key; that a condition did not hold says something of its own key only.
    pub(crate) fn strike_refused_batches(&mut self) {
        for batch in self.batches.iter().filter(|batch| batch.fate == Fate::Refused) {
            for operation in &mut self.operations[batch.places.clone()] {
                let is_telling = operation.outcome == Outcome::ConditionFailed;
                if !is_telling || operation.kind.condition() == Condition::None {
                    operation.outcome = Outcome::Failed;
                }
            }
        }
    }
}

fn took_effect(operation: &Operation, index: u64, existed: Option<bool>) -> Outcome {
    match operation.kind {
        Kind::Delete { .. } => Outcome::Deleted { existed, index: Some(index) },
        Kind::Put { .. } | Kind::Get => Outcome::Put { version: index },
    }
}
