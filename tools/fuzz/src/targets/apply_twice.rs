//! The same committed entries on two state machines: valid commands, mutated ones and garbage.
//!
//! Nothing panics: **no committed entry may be able to panic apply**. Both state machines, and a model that is a plain
//! map, come to the same outcomes, contents and versions; an entry that cannot be applied changes nothing. A snapshot
//! that was taken in the middle stays what it was. The hash depends on the state alone, not on the way to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftkv::state_machine::command::{Change, Command, Operation};
use raftkv::state_machine::{ApplyError, Outcome, Snapshot, StateMachine, encode_batch, encode_delete, encode_put};
use raftkv_protocol::client::{Condition, Existed, Scan};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index};

use crate::choices::Choices;
use crate::feedback::{Feedback, magnitude, named};

/// Steps of one input.
const STEPS_MAX: u64 = 40;

/// What is tested: the state machine, or in a test of these checks something that is broken.
pub trait Machine: Default {
    /// Applies the next committed entry.
    fn apply(&mut self, entry: &Entry) -> Result<Outcome, ApplyError>;
    /// Everything else is asked of this.
    fn state(&self) -> &StateMachine;
}

impl Machine for StateMachine {
    fn apply(&mut self, entry: &Entry) -> Result<Outcome, ApplyError> {
        StateMachine::apply(self, entry)
    }

    fn state(&self) -> &StateMachine {
        self
    }
}

/// The target.
pub fn run(data: &[u8], feedback: &mut Feedback) {
    run_with::<StateMachine>(data, feedback);
}

/// The same with another state machine as the second replica.
pub fn run_with<Second: Machine>(data: &[u8], feedback: &mut Feedback) {
    let mut choices = Choices::new(data);
    let snapshot_after = choices.below(STEPS_MAX);
    let mut replicas = Replicas::<Second>::default();
    for step in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        let entry = next_entry(&mut choices, replicas.model.applied);
        replicas.apply(&entry, feedback);
        if step == snapshot_after {
            replicas.snapshot = Some((replicas.first.snapshot(), replicas.model.map.clone()));
        }
    }
    replicas.check();
    feedback.saw_with(1, magnitude(replicas.model.map.len() as u64));
}

/// Two state machines and what they should be.
#[derive(Default)]
struct Replicas<Second> {
    first: StateMachine,
    second: Second,
    model: Model,
    snapshot: Option<(Snapshot, Map)>,
}

impl<Second: Machine> Replicas<Second> {
    fn apply(&mut self, entry: &Entry, feedback: &mut Feedback) {
        let outcome = self.first.apply(entry);
        assert_eq!(self.second.apply(entry), outcome, "two replicas differ in {entry:?}");
        let taken = outcome.as_ref().ok().copied();
        assert_eq!(self.model.apply(entry), taken, "another outcome than the model's: {outcome:?}");
        assert_eq!(self.second.state().hash(), self.first.hash(), "two replicas differ after {entry:?}");
        let feature = match &outcome {
            Ok(Outcome::Nothing) => 0,
            Ok(Outcome::Put) => 1,
            Ok(Outcome::Batch { existed }) => 5 + u64::from(existed.0.count_ones()),
            Ok(Outcome::BatchConditionFailed { operation }) => 100 + *operation as u64,
            Ok(Outcome::ConditionFailed) => 2,
            Ok(Outcome::Deleted { existed }) => 3 + u64::from(*existed),
            // Without the entry's id, which comes first.
            Err(ApplyError(words)) => named(words.split_once("applied").map_or(words, |(_, why)| why)),
        };
        feedback.saw_with(2, feature);
    }

    fn check(&self) {
        check_contents(&self.first, &self.model);
        check_contents(self.second.state(), &self.model);
        assert_eq!(self.rebuilt().hash(), self.first.hash(), "the hash depends on the way to the state");
        if let Some((snapshot, map)) = &self.snapshot {
            let held = snapshot.iter().map(|(key, version, value)| (key, version.0, value));
            assert!(held.eq(items(map)), "a snapshot changed after it was taken");
        }
    }

    /// A replica that was given only what is left, each key at the index that last wrote it.
    fn rebuilt(&self) -> StateMachine {
        let mut survivors: BTreeMap<u64, Vec<KeyAndValue<'_>>> = BTreeMap::new();
        for (key, version, value) in items(&self.model.map) {
            survivors.entry(version).or_default().push((key, value));
        }
        let mut state = StateMachine::default();
        for index in 1..=self.model.applied {
            let keys = survivors.remove(&index).unwrap_or_default();
            let put = |(key, value)| Operation { key, condition: Condition::None, change: Change::Put(value) };
            let operations: Vec<Operation<'_>> = keys.into_iter().map(put).collect();
            let mut body = Vec::new();
            let kind = match encode_batch(operations.iter().copied(), &mut body) {
                Ok(()) => EntryKind::Command,
                Err(_) => EntryKind::Noop,
            };
            let entry = Entry { id: EntryId::new(index, 1), kind, body: Bytes::from(body) };
            state.apply(&entry).expect("what is left can be put again");
        }
        state
    }
}

fn check_contents(state: &StateMachine, model: &Model) {
    let mut wanted = items(&model.map);
    state.scan(&Scan::default(), |key, version, value| {
        assert_eq!(Some((key, version.0, value)), wanted.next(), "other contents than the model's");
        true
    });
    assert_eq!(wanted.next(), None, "less than the model holds");
    let bytes: usize = model.map.iter().map(|(key, (_, value))| key.len() + value.len()).sum();
    let counts = (state.keys(), state.bytes(), state.applied().0);
    assert_eq!(counts, (model.map.len() as u64, bytes as u64, model.applied), "keys, bytes and index");
}

type KeyAndValue<'a> = (&'a [u8], &'a [u8]);

type Map = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

fn items(map: &Map) -> impl Iterator<Item = (&[u8], u64, &[u8])> {
    map.iter().map(|(key, (version, value))| (key.as_slice(), *version, value.as_slice()))
}

/// The state machine without cleverness.
#[derive(Default)]
struct Model {
    map: Map,
    applied: u64,
}

impl Model {
    /// `None` if the entry cannot be applied.
    fn apply(&mut self, entry: &Entry) -> Option<Outcome> {
        if entry.id.index.0 != self.applied + 1 {
            return None;
        }
        let outcome = match entry.kind {
            EntryKind::Command => self.command(&entry.body)?,
            EntryKind::Noop | EntryKind::Configuration => Outcome::Nothing,
        };
        self.applied += 1;
        Some(outcome)
    }

    fn command(&mut self, body: &[u8]) -> Option<Outcome> {
        let command = Command::decode(body).ok().filter(|command| command.session().is_none())?;
        let operations: Vec<Operation<'_>> = command.operations().collect();
        if let Some(operation) = operations.iter().position(|operation| !self.holds(operation)) {
            let is_batch = operations.len() > 1;
            return Some(if is_batch { Outcome::BatchConditionFailed { operation } } else { Outcome::ConditionFailed });
        }
        let (mut outcome, mut existed) = (Outcome::Put, Existed::default());
        for (number, operation) in operations.iter().enumerate() {
            let key = operation.key.to_vec();
            outcome = match operation.change {
                Change::Put(value) => {
                    self.map.insert(key, (self.applied + 1, value.to_vec()));
                    Outcome::Put
                }
                Change::Delete => Outcome::Deleted { existed: self.map.remove(&key).is_some() },
            };
            if outcome == (Outcome::Deleted { existed: true }) {
                existed.insert(number);
            }
        }
        Some(if operations.len() > 1 { Outcome::Batch { existed } } else { outcome })
    }

    fn holds(&self, operation: &Operation<'_>) -> bool {
        let version = self.map.get(operation.key).map(|(version, _)| *version);
        match operation.condition {
            Condition::None => true,
            Condition::Version(wanted) => version == Some(wanted.0),
            Condition::Exists => version.is_some(),
            Condition::Absent => version.is_none(),
        }
    }
}

/// Keys that meet, that are prefixes of each other, and around the length that a key is kept in place up to.
const KEYS: [&[u8]; 8] =
    [b"a", b"ab", b"b", b"\x00", b"\xff\xff", b"aaaaaaaaaaaaaaaaaaaaaa", b"aaaaaaaaaaaaaaaaaaaaaaa", b""];

fn next_entry(choices: &mut Choices<'_>, applied: u64) -> Entry {
    let mut body = Vec::new();
    let mut kind = EntryKind::Command;
    let mut index = applied + 1;
    match choices.below(16) {
        0..7 => put_valid(choices, &mut body),
        7..10 => put_batch(choices, &mut body),
        10..13 => {
            put_valid(choices, &mut body);
            damage(choices, &mut body);
        }
        13 => {
            let length = choices.below(48) as usize;
            body.extend_from_slice(choices.bytes(length));
        }
        14 => kind = if choices.below(2) == 0 { EntryKind::Noop } else { EntryKind::Configuration },
        _ => index = choices.number(),
    }
    Entry { id: EntryId::new(index, 1), kind, body: Bytes::from(body) }
}

fn put_valid(choices: &mut Choices<'_>, body: &mut Vec<u8>) {
    let operation = operation(choices);
    match operation.change {
        Change::Put(value) => encode_put(operation.key, value, operation.condition, body),
        Change::Delete => encode_delete(operation.key, operation.condition, body),
    }
}

/// A batch, also one whose operations name a key twice: that is refused before it is proposed, but a replica that finds
/// it in its log must do what the others do.
fn put_batch(choices: &mut Choices<'_>, body: &mut Vec<u8>) {
    let operations: Vec<Operation<'_>> = (0..1 + choices.below(4)).map(|_| operation(choices)).collect();
    if encode_batch(operations.iter().copied(), body).is_err() {
        let (head, mut one) = ([1, 0, operations.len() as u8, 0], Vec::new());
        body.extend_from_slice(&head);
        for operation in &operations {
            one.clear();
            encode_batch(std::iter::once(*operation), &mut one).expect("one operation names one key");
            body.extend_from_slice(&one[head.len()..]);
        }
    }
}

fn operation<'a>(choices: &mut Choices<'a>) -> Operation<'a> {
    let key = KEYS[choices.below(KEYS.len() as u64) as usize];
    let condition = match choices.below(8) {
        0..4 => Condition::None,
        4 => Condition::Exists,
        5 => Condition::Absent,
        _ => Condition::Version(Index(choices.number())),
    };
    let length = choices.below(64) as usize;
    let change = if length < 16 { Change::Delete } else { Change::Put(choices.bytes(length - 16)) };
    Operation { key, condition, change }
}

fn damage(choices: &mut Choices<'_>, body: &mut Vec<u8>) {
    for _ in 0..1 + choices.below(3) {
        let (at, value) = (choices.below(64) as usize, choices.byte());
        match body.get_mut(at) {
            Some(byte) => *byte = value,
            None if value < 128 => body.push(value),
            None => body.truncate(usize::from(value - 128)),
        }
    }
}

/// A few sequences that read, write, test and delete the same keys.
pub fn seeds() -> Vec<Vec<u8>> {
    let put = |key: u8, condition: u8| vec![0, key, condition, 20, b'v', b'a', b'l', key];
    let put_if_version = |key: u8, version: u8| vec![0, key, 6, version, 18, b'x', b'y'];
    let delete = |key: u8, condition: u8| vec![0, key, condition, 0];
    let batch = |keys: [u8; 3]| {
        let operations = keys.map(|key| vec![key, 0, 17, b'b']).concat();
        [vec![7, 2], operations].concat()
    };
    let damaged = |at: u8, value: u8| vec![10, 0, 0, 18, b'd', b'd', 0, at, value];
    let steps = [
        vec![put(0, 0), put(1, 0), put(0, 4), put(0, 5), delete(0, 0), delete(0, 0), put(0, 5)],
        vec![put(0, 0), put_if_version(0, 1), put_if_version(0, 1), put_if_version(0, 2), delete(0, 4)],
        vec![batch([0, 1, 2]), batch([3, 3, 4]), delete(1, 0), batch([5, 6, 7]), put(6, 4)],
        vec![put(0, 0), damaged(0, 2), damaged(1, 1), damaged(2, 0), damaged(2, 2), damaged(4, 9), damaged(5, 7)],
        vec![put(0, 0), vec![14, 0], vec![14, 1], vec![15, 3], vec![13, 4, 1, 2, 3, 4], put(1, 0)],
    ];
    steps.into_iter().map(|steps| [vec![2], steps.concat()].concat()).collect()
}
