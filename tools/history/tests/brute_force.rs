//! On small histories the search agrees with a trial of every order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use raftkv_history::{
    Condition, Hint, History, Kind, Limits, Operation, Outcome, Removal, Violation, check, check_with_hints,
    check_with_log,
};

/// A key's version and value, where it exists.
type State = Option<(u64, Vec<u8>)>;
/// A version that nobody names.
const UNSEEN: u64 = 1_000;

fn holds(condition: Condition, state: &State) -> bool {
    match condition {
        Condition::None => true,
        Condition::Version(version) => state.as_ref().is_some_and(|(current, _)| *current == version),
        Condition::Exists => state.is_some(),
        Condition::Absent => state.is_none(),
    }
}

/// The states in which an operation may leave the key, each with the version that it gave without saying so.
fn effects(operation: &Operation, state: &State, free: &BTreeSet<u64>) -> Vec<(State, Option<u64>)> {
    let condition = operation.kind.condition();
    let same = vec![(state.clone(), None)];
    match (&operation.kind, &operation.outcome) {
        (Kind::Get, Outcome::Value(shown)) if shown == state => same,
        (_, Outcome::ConditionFailed) if !holds(condition, state) => same,
        (_, Outcome::Value(_) | Outcome::ConditionFailed) => Vec::new(),
        _ if !holds(condition, state) => Vec::new(),
        (Kind::Put { value, .. }, Outcome::Put { version }) => vec![(Some((*version, value.clone())), None)],
        (Kind::Put { value, .. }, _) => {
            free.iter().map(|version| (Some((*version, value.clone())), Some(*version))).collect()
        }
        (_, Outcome::Deleted { existed: Some(existed), .. }) if *existed != state.is_some() => Vec::new(),
        _ => vec![(None, None)],
    }
}

/// The versions that a put without an outcome may give.
fn free_versions(operations: &[Operation], value: &[u8]) -> BTreeSet<u64> {
    let is_free = |version: &u64| {
        let returned = operations.iter().any(|other| other.outcome == Outcome::Put { version: *version });
        let shows = |other: &Operation| match &other.outcome {
            Outcome::Value(Some((shown, value))) if shown == version => Some(value.clone()),
            _ => None,
        };
        let shown: Vec<Vec<u8>> = operations.iter().filter_map(shows).collect();
        !returned && (shown.is_empty() || shown.iter().any(|shown| shown == value))
    };
    (0..5).chain([UNSEEN]).filter(is_free).collect()
}

struct Trial<'a> {
    operations: &'a [Operation],
    free: Vec<BTreeSet<u64>>,
}

impl Trial<'_> {
    /// Whether there is an order of the operations that are left, those without an outcome in it or not.
    fn goes_on(&self, left: &[usize], state: &State, given: &BTreeSet<u64>) -> bool {
        let ended = |at: &&usize| self.operations[**at].outcome != Outcome::Unknown;
        if left.iter().filter(ended).count() == 0 {
            return true;
        }
        left.iter().any(|at| {
            let next = &self.operations[*at];
            let must_wait = left.iter().filter(ended).any(|other| self.operations[*other].ret < next.call);
            let rest: Vec<usize> = left.iter().copied().filter(|other| other != at).collect();
            let free = self.free[*at].iter().filter(|version| **version == UNSEEN || !given.contains(version));
            !must_wait
                && effects(next, state, &free.copied().collect()).into_iter().any(|(after, gave)| {
                    let given = given.iter().copied().chain(gave).collect();
                    self.goes_on(&rest, &after, &given)
                })
        })
    }
}

fn has_an_order(operations: &[Operation]) -> bool {
    let free = |operation: &Operation| match &operation.kind {
        Kind::Put { value, .. } => free_versions(operations, value),
        _ => BTreeSet::new(),
    };
    let trial = Trial { operations, free: operations.iter().map(free).collect() };
    let counts = |at: &usize| match operations[*at].outcome {
        Outcome::Failed => false,
        Outcome::Unknown => operations[*at].kind.is_write(),
        _ => true,
    };
    let all: Vec<usize> = (0..operations.len()).filter(counts).collect();
    trial.goes_on(&all, &None, &BTreeSet::new())
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![
        3 => Just(Condition::None),
        2 => (1..5_u64).prop_map(Condition::Version),
        1 => Just(Condition::Exists),
        1 => Just(Condition::Absent),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec()), Just(b"c".to_vec())]
}

/// `open` tells how often a write has no outcome.
fn puts(open: u32) -> impl Strategy<Value = (Kind, Outcome)> {
    let outcomes = prop_oneof![
        4 => (1..5_u64).prop_map(|version| Outcome::Put { version }),
        open => Just(Outcome::Unknown),
        1 => Just(Outcome::ConditionFailed),
        1 => Just(Outcome::Failed),
    ];
    (values(), conditions(), outcomes).prop_map(|(value, condition, outcome)| (Kind::Put { value, condition }, outcome))
}

fn deletes(open: u32) -> impl Strategy<Value = (Kind, Outcome)> {
    let outcomes = prop_oneof![
        4 => any::<Option<bool>>().prop_map(|existed| Outcome::Deleted { existed, index: None }),
        open => Just(Outcome::Unknown),
        1 => Just(Outcome::ConditionFailed),
    ];
    (conditions(), outcomes).prop_map(|(condition, outcome)| (Kind::Delete { condition }, outcome))
}

fn gets() -> impl Strategy<Value = (Kind, Outcome)> {
    let outcomes = prop_oneof![
        6 => (1..5_u64, values()).prop_map(|shown| Outcome::Value(Some(shown))),
        2 => Just(Outcome::Value(None)),
        1 => Just(Outcome::Unknown),
    ];
    outcomes.prop_map(|outcome| (Kind::Get, outcome))
}

fn operations(open: u32) -> impl Strategy<Value = Operation> {
    let said = prop_oneof![4 => puts(open), 2 => deletes(open), 4 => gets()];
    (said, 0..10_u64, 0..6_u64).prop_map(|((kind, outcome), call, length)| {
        let ret = if outcome == Outcome::Unknown { u64::MAX } else { call + length };
        Operation { client: 0, key: b"k".to_vec(), kind, call, outcome, ret }
    })
}

/// Decides nothing, whatever it says.
fn wrong_hint(operation: &Operation) -> Hint {
    match operation.call * 7 % 5 {
        0 => Hint::Never,
        1 => Hint::Unknown,
        place => Hint::At(place),
    }
}

/// The same of a log.
fn wrong_removals(operations: &[Operation]) -> Vec<Removal> {
    let removals = operations.iter().filter(|operation| operation.call % 3 != 0);
    let removal = |operation: &Operation| Removal { index: operation.call, condition: operation.kind.condition() };
    removals.map(removal).collect()
}

fn agree(operations: Vec<Operation>) -> Result<bool, TestCaseError> {
    let expected = has_an_order(&operations);
    let history: History = operations.iter().cloned().collect();
    // What is said to have come first is mostly wrong here, and decides nothing.
    let hinted = check_with_hints(&history, &Limits::default(), wrong_hint);
    prop_assert_eq!(hinted.is_ok(), expected, "with hints: {:#?}", operations);
    let logged = check_with_log(&history, &Limits::default(), wrong_hint, |_| wrong_removals(&operations));
    prop_assert_eq!(logged.is_ok(), expected, "with a log: {:#?}", operations);
    match check(&history, &Limits::default()) {
        Ok(_) => prop_assert!(expected, "found good: {operations:#?}"),
        Err(Violation::NotLinearizable { counter_example, .. }) => {
            prop_assert!(!expected, "found bad: {operations:#?}");
            prop_assert!(!has_an_order(&counter_example), "no counter-example: {counter_example:#?}");
        }
        Err(other) => prop_assert!(false, "{other}"),
    }
    Ok(expected)
}

/// Both kinds must come up often; small histories are mostly bad by chance.
fn agree_on(cases: u32, histories: impl Strategy<Value = Vec<Operation>>) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let (good, bad) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let result = runner.run(&histories, |operations| {
        let count = if agree(operations)? { &good } else { &bad };
        count.set(count.get() + 1);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(good.get() > cases / 20 && bad.get() > cases / 20, "{} good, {} bad", good.get(), bad.get());
}

#[test]
fn the_search_agrees_with_a_trial_of_every_order() {
    agree_on(6_000, prop::collection::vec(operations(3), 1..=6));
}

#[test]
fn the_search_agrees_with_a_trial_of_every_order_where_most_writes_have_no_outcome() {
    agree_on(3_000, prop::collection::vec(operations(12), 6..=8));
}
