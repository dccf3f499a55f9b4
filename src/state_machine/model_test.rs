//! The state machine against a `BTreeMap` that does the same without cleverness.

use std::collections::BTreeMap;

use proptest::prelude::*;
use raftkv_protocol::client::{Condition, Existed, Scan};
use raftkv_protocol::types::Index;

use super::command::{Change, Operation};
use super::state_machine_test::Replica;
use super::{Outcome, StateMachine};

type Model = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>, Condition),
    Delete(Vec<u8>, Condition),
    /// By key: a value or none, and the condition. More than one.
    Batch(BTreeMap<Vec<u8>, (Option<Vec<u8>>, Condition)>),
}

/// Few letters and lengths around the inline limit, so that keys meet, and are prefixes of each other.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop::sample::select(vec![0, b'a', u8::MAX]);
    prop_oneof![
        4 => prop::collection::vec(letter.clone(), 1..4),
        1 => (20..25usize, letter).prop_map(|(len, last)| [vec![b'a'; len], vec![last]].concat()),
    ]
}

fn bound() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![2 => Just(Vec::new()), 3 => key()]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(Condition::None),
        2 => (0..40u64).prop_map(|version| Condition::Version(Index(version))),
        1 => Just(Condition::Exists),
        1 => Just(Condition::Absent),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let change = (prop::option::of(prop::collection::vec(any::<u8>(), 0..30)), condition());
    let batch = prop::collection::btree_map(key(), change, 2..5);
    prop_oneof![
        3 => (key(), value, condition()).prop_map(|(key, value, condition)| Step::Put(key, value, condition)),
        1 => (key(), condition()).prop_map(|(key, condition)| Step::Delete(key, condition)),
        1 => batch.prop_map(Step::Batch),
    ]
}

fn holds(model: &Model, key: &[u8], condition: Condition) -> bool {
    match condition {
        Condition::None => true,
        Condition::Version(version) => model.get(key).map(|(current, _)| *current) == Some(version.0),
        Condition::Exists => model.contains_key(key),
        Condition::Absent => !model.contains_key(key),
    }
}

fn apply_to_model(model: &mut Model, index: u64, step: &Step) -> Outcome {
    match step {
        Step::Put(key, _, condition) | Step::Delete(key, condition) if !holds(model, key, *condition) => {
            Outcome::ConditionFailed
        }
        Step::Put(key, value, _) => {
            model.insert(key.clone(), (index, value.clone()));
            Outcome::Put
        }
        Step::Delete(key, _) => Outcome::Deleted { existed: model.remove(key).is_some() },
        Step::Batch(batch) => apply_batch_to_model(model, index, batch),
    }
}

fn apply_batch_to_model(
    model: &mut Model,
    index: u64,
    batch: &BTreeMap<Vec<u8>, (Option<Vec<u8>>, Condition)>,
) -> Outcome {
    if let Some(operation) = batch.iter().position(|(key, (_, condition))| !holds(model, key, *condition)) {
        return Outcome::BatchConditionFailed { operation };
    }
    let mut existed = 0;
    for (number, (key, (value, _))) in batch.iter().enumerate() {
        match value {
            Some(value) => _ = model.insert(key.clone(), (index, value.clone())),
            None => existed |= u128::from(model.remove(key).is_some()) << number,
        }
    }
    Outcome::Batch { existed: Existed(existed) }
}

fn apply_to_replica(replica: &mut Replica, step: &Step) -> Outcome {
    match step {
        Step::Put(key, value, condition) => replica.put(key, value, *condition),
        Step::Delete(key, condition) => replica.delete(key, *condition),
        Step::Batch(batch) => {
            let operations: Vec<Operation<'_>> = batch
                .iter()
                .map(|(key, (value, condition))| Operation {
                    key,
                    condition: *condition,
                    change: value.as_deref().map_or(Change::Delete, Change::Put),
                })
                .collect();
            replica.batch(&operations)
        }
    }
}

fn all_items(state: &StateMachine, scan: &Scan<'_>) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let mut items = Vec::new();
    state.scan(scan, |key, version, value| {
        items.push((key.to_vec(), version.0, value.to_vec()));
        true
    });
    items
}

/// What a scan says it returns, key by key.
fn wanted(scan: &Scan<'_>, key: &[u8]) -> bool {
    let after_cursor = if scan.reverse { key < scan.cursor } else { key > scan.cursor };
    key.starts_with(scan.prefix)
        && key >= scan.start
        && (scan.end.is_empty() || key < scan.end)
        && (scan.cursor.is_empty() || after_cursor)
}

proptest! {
    // rule 28
    #[test]
    fn does_what_the_model_does(
        steps in prop::collection::vec(step(), 1..120),
        (prefix, start, end, cursor) in (bound(), bound(), bound(), bound()),
        reverse: bool,
    ) {
        let mut replica = Replica::default();
        let mut model = Model::new();
        for (index, step) in (1..).zip(&steps) {
            prop_assert_eq!(apply_to_replica(&mut replica, step), apply_to_model(&mut model, index, step));
        }
        let state = &replica.state;
        prop_assert_eq!(state.keys(), model.len() as u64);
        prop_assert_eq!(state.bytes(), model.iter().map(|(k, (_, v))| (k.len() + v.len()) as u64).sum::<u64>());
        for (key, (version, value)) in &model {
            prop_assert_eq!(state.get(key), Some((Index(*version), &value[..])));
        }
        let scan = Scan { prefix: &prefix, start: &start, end: &end, cursor: &cursor, reverse, ..Scan::default() };
        let mut expected: Vec<_> =
            model.into_iter().filter(|(k, _)| wanted(&scan, k)).map(|(k, (version, v))| (k, version, v)).collect();
        if reverse {
            expected.reverse();
        }
        prop_assert_eq!(all_items(state, &scan), expected);
    }

    /// However a state came about, its hash is the same: built up by every step, or by what survived alone.
    #[test]
    fn the_hash_depends_on_the_state_alone(steps in prop::collection::vec(step(), 1..120)) {
        let mut replica = Replica::default();
        for step in &steps {
            apply_to_replica(&mut replica, step);
        }
        let mut shortest = Replica::default();
        let mut survivors = all_items(&replica.state, &Scan::default());
        survivors.sort_by_key(|(_, version, _)| *version);
        // What a batch has put has one version.
        for together in survivors.chunk_by(|one, other| one.1 == other.1) {
            while shortest.state.applied().next().0 < together[0].1 {
                shortest.delete(b"missing", Condition::Exists);
            }
            let put = |(key, _, value): &'_ (Vec<u8>, u64, Vec<u8>)| (key.clone(), (Some(value.clone()), Condition::None));
            apply_to_replica(&mut shortest, &Step::Batch(together.iter().map(put).collect()));
        }
        prop_assert_eq!(shortest.state.hash(), replica.state.hash());
    }
}
