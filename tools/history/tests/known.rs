//! Histories of which it is known whether they are good, and what the judges say of them.

mod support;

use raftkv_history::{
    Condition, Hint, History, Kind, Limits, Operation, Outcome, Removal, Summary, Violation, check, check_indexes,
    check_shard_indexes, check_with_hints, check_with_log,
};

use support::Random;
use support::model::{Entry, Load, good, good_with_log};
use support::spoil::{FAULTS, Fault, spoil};

const HISTORIES: u64 = 200;

fn judge(history: &History) -> Result<Summary, Violation> {
    check(history, &Limits::default())
}

/// From one client to eight, with nothing given up or much of it.
fn load(seed: u64) -> Load {
    let clients = 1 + (seed % 8) as u32;
    Load {
        clients,
        keys: 1 + (seed % 3) as usize,
        operations: 20 + (seed % 120) as usize,
        given_up: (seed % 7) as usize,
    }
}

#[test]
fn two_hundred_good_histories_are_found_good() {
    let mut unknown = 0;
    for seed in 0..HISTORIES {
        let history = good(seed, load(seed));
        let summary = judge(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        check_indexes(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        check_shard_indexes(&history, |_| 0).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        unknown += summary.unknown;
    }
    assert!(unknown > 300, "only {unknown} writes without an outcome");
}

#[test]
fn two_hundred_bad_histories_are_found_bad() {
    let mut spoiled = [0; FAULTS.len()];
    let mut shown_by = Vec::new();
    let mut seed = 0;
    while spoiled.iter().sum::<u64>() < HISTORIES {
        seed += 1;
        assert!(seed < 10 * HISTORIES, "too few histories can be spoiled: {spoiled:?}");
        let which = seed as usize % FAULTS.len();
        let (fault, mut random) = (FAULTS[which], Random(seed));
        let Some(history) = spoil(&good(seed, load(seed)), fault, &mut random) else { continue };
        spoiled[which] += 1;
        let violation = judge(&history).expect_err("spoiled");
        let text = violation.to_string();
        let Violation::NotLinearizable { counter_example, .. } = violation else { panic!("seed {seed}: {text}") };
        assert!(counter_example.len() <= 25, "seed {seed}: {fault:?} is shown by\n{text}");
        shown_by.push(counter_example.len());
        let small: History = counter_example.into_iter().collect();
        let again = judge(&small);
        assert!(matches!(again, Err(Violation::NotLinearizable { .. })), "seed {seed}: {fault:?} {again:?}");
        // A read of nothing shows no index.
        if fault != Fault::LostWrite && fault != Fault::ReadAfterDelete {
            assert!(matches!(check_indexes(&history), Err(Violation::Index(_))), "seed {seed}: {fault:?}");
        }
    }
    assert!(spoiled.iter().all(|count| *count >= 15), "{spoiled:?} of {FAULTS:?}");
    shown_by.sort_unstable();
    assert!(shown_by[shown_by.len() / 2] <= 3, "half of the counter-examples are longer: {shown_by:?}");
}

/// Where the log has a put; values are put once.
fn hint(log: &[Entry], operation: &Operation) -> Hint {
    match (&operation.kind, &operation.outcome) {
        (_, Outcome::Put { version: index } | Outcome::Deleted { index: Some(index), .. }) => Hint::At(*index),
        (Kind::Put { .. }, _) => {
            let entry = log.iter().find(|entry| entry.kind == operation.kind);
            entry.map_or(Hint::Never, |entry| Hint::At(entry.index))
        }
        _ => Hint::Unknown,
    }
}

fn removals(log: &[Entry], key: &[u8]) -> Vec<Removal> {
    let of_key = log.iter().filter(|entry| entry.key == key);
    let removal = |entry: &Entry| match entry.kind {
        Kind::Delete { condition } => Some(Removal { index: entry.index, condition }),
        _ => None,
    };
    of_key.filter_map(removal).collect()
}

fn judge_with_log(history: &History, log: &[Entry], steps: u64) -> Result<Summary, Violation> {
    check_with_log(history, &Limits { steps }, |one| hint(log, one), |key| removals(log, key))
}

#[test]
fn a_log_puts_no_delete_before_its_call() {
    let delete = Kind::Delete { condition: Condition::None };
    let removal = Entry { index: 2, key: b"k".to_vec(), kind: delete.clone() };
    let log = [Entry { index: 1, key: b"k".to_vec(), kind: put("a") }, removal];
    let judge = |call, (ret, outcome): (u64, Outcome)| {
        let operations = [
            operation(1, (1, 2), put("a"), Outcome::Put { version: 1 }),
            operation(2, (3, 5), Kind::Get, Outcome::Value(None)),
            operation(3, (call, ret), delete.clone(), outcome),
        ];
        judge_with_log(&history(&operations), &log, 100)
    };
    let deleted = Outcome::Deleted { existed: Some(true), index: None };
    for told in [(NEVER, Outcome::Unknown), (9, deleted)] {
        judge(4, told.clone()).expect("good");
        assert!(matches!(judge(6, told), Err(Violation::NotLinearizable { .. })));
    }
}

/// Where a third of all calls is given up: a step for each operation, however many outcomes are unknown.
#[test]
fn two_hundred_good_histories_are_explained_by_their_logs_without_a_search() {
    let mut too_hard = 0;
    for seed in 0..HISTORIES {
        let load = Load { clients: 8, keys: 1, operations: 300, given_up: 60 };
        let (history, log) = good_with_log(seed, load);
        let steps = history.len() as u64;
        judge_with_log(&history, &log, steps).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let searched = check_with_hints(&history, &Limits { steps }, |one| hint(&log, one));
        too_hard += u64::from(searched.is_err());
    }
    assert!(too_hard > HISTORIES / 4, "the search finds all but {too_hard} as fast");
}

#[test]
fn no_log_explains_a_bad_history() {
    let mut spoiled = 0;
    for seed in 1..2 * HISTORIES {
        let (history, log) = good_with_log(seed, load(seed));
        let (fault, mut random) = (FAULTS[seed as usize % FAULTS.len()], Random(seed));
        let Some(bad) = spoil(&history, fault, &mut random) else { continue };
        spoiled += 1;
        let verdict = judge_with_log(&bad, &log, Limits::default().steps);
        assert!(matches!(verdict, Err(Violation::NotLinearizable { .. })), "seed {seed}: {fault:?} {verdict:?}");
    }
    assert!(spoiled >= HISTORIES, "only {spoiled}");
}

/// Fifty keys, eight clients, ten thousand operations: the search hardly ever goes back.
#[test]
fn ten_thousand_operations_take_few_steps() {
    let history = good(1, Load { clients: 8, keys: 50, operations: 10_000, given_up: 2 });
    assert_eq!(history.len(), 10_000);
    let summary = judge(&history).expect("good");
    assert!(summary.steps < 20_000, "{summary}");
    assert!(summary.unknown > 50, "{summary}");
    check_indexes(&history).expect("good");
    check_shard_indexes(&history, |_| 0).expect("good");

    let one_key = good(2, Load { clients: 8, keys: 1, operations: 10_000, given_up: 0 });
    let summary = judge(&one_key).expect("good");
    assert!(summary.steps < 20_000, "{summary}");
}

fn operation(client: u32, times: (u64, u64), kind: Kind, outcome: Outcome) -> Operation {
    Operation { client, key: b"k".to_vec(), kind, call: times.0, outcome, ret: times.1 }
}

fn put_if(value: &str, condition: Condition) -> Kind {
    Kind::Put { value: value.into(), condition }
}

fn put(value: &str) -> Kind {
    put_if(value, Condition::None)
}

fn shows(version: u64, value: &str) -> Outcome {
    Outcome::Value(Some((version, value.into())))
}

fn history(operations: &[Operation]) -> History {
    operations.iter().cloned().collect()
}

const NEVER: u64 = u64::MAX;

/// Writes wait for their commit until nobody waits for them any more, while reads go on and show nothing; then all are
/// committed. Many make each other possible, and none of them anything else: the search tries every chain of them before
/// the put that comes behind. Seed 37225 of the simulator.
fn held_up() -> (History, Vec<Entry>) {
    let kinds = (0..48).map(|n| match n {
        7 | 13 | 21 => Kind::Delete { condition: Condition::Exists },
        29 => Kind::Delete { condition: Condition::None },
        n if n % 5 == 0 => put_if(&n.to_string(), Condition::Version(300 + n)),
        n if n % 9 == 0 => put_if(&n.to_string(), Condition::Absent),
        n => put(&n.to_string()),
    });
    let (mut operations, mut log) = (Vec::new(), Vec::new());
    for (n, kind) in (0..).zip(kinds) {
        operations.push(operation(1, (4 * n, NEVER), kind.clone(), Outcome::Unknown));
        operations.push(operation(2, (4 * n + 1, 4 * n + 2), Kind::Get, Outcome::Value(None)));
        log.push(Entry { index: 10 + n, key: b"k".to_vec(), kind });
    }
    let kind = put_if("refused", Condition::Version(2));
    log.push(Entry { index: 70, key: b"k".to_vec(), kind: kind.clone() });
    operations.push(operation(3, (200, 220), kind, Outcome::ConditionFailed));
    log.push(Entry { index: 71, key: b"k".to_vec(), kind: put("last") });
    operations.push(operation(3, (201, 221), put("last"), Outcome::Put { version: 71 }));
    operations.push(operation(2, (222, 223), Kind::Get, shows(71, "last")));
    (history(&operations), log)
}

#[test]
fn writes_that_are_held_up_while_reads_go_on_are_judged_by_the_log() {
    let (good, log) = held_up();
    let searched = check_with_hints(&good, &Limits { steps: 10_000 }, |one| hint(&log, one));
    assert!(matches!(searched, Err(Violation::TooHard { .. })), "{searched:?}");
    let summary = judge_with_log(&good, &log, 200).expect("good");
    assert_eq!((summary.operations, summary.unknown), (99, 48));
    let with_reads = |shown: &[Outcome]| {
        let read = |(n, shown): (u64, &Outcome)| operation(4, (224 + 2 * n, 225 + 2 * n), Kind::Get, shown.clone());
        let reads: Vec<Operation> = (0..).zip(shown).map(read).collect();
        history(&[good.operations(), &reads[..]].concat())
    };
    let (last, earlier) = (shows(71, "last"), shows(57, "47"));
    judge_with_log(&with_reads(&[last.clone(), last.clone()]), &log, 200).expect("good");
    assert!(judge_with_log(&with_reads(&[earlier, last]), &log, 10_000).is_err());
    assert!(judge_with_log(&with_reads(&[shows(71, "another")]), &log, 10_000).is_err());
}

#[test]
fn a_log_that_does_not_explain_a_history_decides_nothing() {
    let operations = [
        operation(1, (1, NEVER), put("a"), Outcome::Unknown),
        operation(2, (2, 3), put("b"), Outcome::Put { version: 2 }),
        operation(2, (4, 5), Kind::Get, shows(3, "a")),
    ];
    let entry = |index, value| Entry { index, key: b"k".to_vec(), kind: put(value) };
    for log in [vec![entry(1, "a"), entry(2, "b")], vec![entry(2, "b")], vec![entry(2, "b"), entry(3, "a")]] {
        let summary = judge_with_log(&history(&operations), &log, 100).expect("good");
        assert_eq!((summary.operations, summary.unknown), (3, 1));
    }
}

#[test]
fn a_search_that_would_take_too_long_is_a_violation_of_its_own() {
    // Twenty deletes that may have happened, twenty puts that did, all at once, and a read that nothing explains.
    let mut operations = Vec::new();
    for n in 0..20 {
        operations.push(operation(n, (0, NEVER), Kind::Delete { condition: Condition::None }, Outcome::Unknown));
        let version = u64::from(n) + 1;
        operations.push(operation(n, (0, 100), put(&n.to_string()), Outcome::Put { version }));
    }
    operations.push(operation(30, (101, 102), Kind::Get, shows(50, "0")));
    let limits = Limits { steps: 1_000 };
    match check(&history(&operations), &limits) {
        Err(violation @ Violation::TooHard { steps: 1_000, operations: 41, unknown: 20, .. }) => {
            let text = violation.to_string();
            assert!(text.contains("41 operations, 20 of them") && text.contains("1000 steps"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_without_an_outcome_happens_once_or_never() {
    // When it was given up says nothing.
    let open = operation(1, (0, 7), put("a"), Outcome::Unknown);
    let read = |at, outcome| operation(2, (at, at + 1), Kind::Get, outcome);
    let written = operation(3, (20, 25), put("b"), Outcome::Put { version: 9 });
    let nothing = Outcome::Value(None);
    for (reads, linearizable) in [
        (vec![read(10, nothing.clone()), read(30, shows(9, "b"))], true),
        (vec![read(10, shows(4, "a")), read(30, shows(9, "b"))], true),
        (vec![read(10, nothing.clone()), read(30, shows(12, "a"))], true),
        (vec![read(10, nothing.clone()), read(30, shows(9, "b")), read(40, shows(12, "a"))], true),
        (vec![read(10, shows(4, "a")), read(30, shows(12, "a"))], false),
        (vec![read(10, shows(4, "a")), read(30, shows(4, "a"))], false),
        (vec![read(10, shows(4, "a")), read(12, shows(5, "a"))], false),
        (vec![read(10, shows(4, "a")), read(12, nothing)], false),
    ] {
        let mut operations = vec![open.clone(), written.clone()];
        operations.extend(reads);
        assert_eq!(judge(&history(&operations)).is_ok(), linearizable, "{operations:#?}");
    }
}

/// If the delete goes first, the conditional put needs the open one, which the last read then misses. The other way
/// round it is left; both orders lead through the same state.
#[test]
fn what_one_order_has_spent_is_left_in_another() {
    let deleted = Outcome::Deleted { existed: Some(true), index: None };
    let operations = [
        operation(1, (0, NEVER), put("open"), Outcome::Unknown),
        operation(2, (1, 2), put("first"), Outcome::Put { version: 1 }),
        operation(2, (3, 6), Kind::Delete { condition: Condition::None }, deleted),
        operation(3, (3, 6), put_if("second", Condition::Exists), Outcome::Put { version: 3 }),
        operation(2, (7, 8), put("third"), Outcome::Put { version: 9 }),
        operation(2, (11, 12), Kind::Get, shows(10, "open")),
    ];
    assert_eq!(judge(&history(&operations)).map(|summary| summary.operations), Ok(6));
}

#[test]
fn two_writes_without_an_outcome_never_share_a_version() {
    let open = |value| operation(1, (0, NEVER), put(value), Outcome::Unknown);
    let swap =
        |client, version| operation(client, (5, 6), put_if("c", Condition::Version(4)), Outcome::Put { version });
    assert!(judge(&history(&[open("a"), open("b"), swap(2, 5)])).is_ok());
    assert!(judge(&history(&[open("a"), open("b"), swap(2, 5), swap(3, 6)])).is_err());
}

#[test]
fn what_failed_and_what_was_not_answered_says_nothing() {
    let written = operation(1, (0, 1), put("a"), Outcome::Put { version: 4 });
    let failed = operation(2, (2, 3), put("b"), Outcome::Failed);
    let unanswered = operation(3, (4, NEVER), Kind::Get, Outcome::Unknown);
    let read = |outcome| operation(4, (10, 11), Kind::Get, outcome);
    let summary = judge(&history(&[written.clone(), failed.clone(), unanswered, read(shows(4, "a"))])).expect("good");
    assert_eq!((summary.keys, summary.operations, summary.unknown), (1, 2, 0));
    assert!(judge(&history(&[written, failed, read(shows(5, "b"))])).is_err());
}

#[test]
fn a_failed_condition_did_not_hold_at_its_turn() {
    let written = operation(1, (0, 1), put("a"), Outcome::Put { version: 4 });
    let refused = |condition| operation(2, (2, 3), put_if("b", condition), Outcome::ConditionFailed);
    for (condition, linearizable) in [
        (Condition::Absent, true),
        (Condition::Version(3), true),
        (Condition::Version(4), false),
        (Condition::Exists, false),
        (Condition::None, false),
    ] {
        let judged = judge(&history(&[written.clone(), refused(condition)]));
        assert_eq!(judged.is_ok(), linearizable, "{condition:?}: {judged:?}");
    }
}

#[test]
fn a_counter_example_is_shown_line_by_line() {
    let operations = [
        operation(1, (1, 2), put("old"), Outcome::Put { version: 4 }),
        operation(1, (3, 4), put("new"), Outcome::Put { version: 5 }),
        operation(2, (3, 8), Kind::Get, shows(5, "new")),
        operation(3, (5, 9), Kind::Delete { condition: Condition::Version(3) }, Outcome::ConditionFailed),
        operation(2, (6, 7), Kind::Get, shows(4, "old")),
        operation(1, (10, NEVER), put("later"), Outcome::Unknown),
    ];
    let violation = judge(&history(&operations)).expect_err("a stale read");
    let lines: Vec<String> = violation.to_string().lines().map(str::to_owned).collect();
    let expected = [
        "key \"k\" is not linearizable: in the best order 2 of 3 operations fit, after which the key is \"new\" @5, \
         and that fits none that may be next",
        "  client 1 [1, 2] put \"k\" = \"old\": written @4",
        "  client 1 [3, 4] put \"k\" = \"new\": written @5",
        "  client 2 [6, 7] get \"k\": \"old\" @4",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_nobody_can_have_recorded_is_refused() {
    let never = operation(1, (5, 4), Kind::Get, Outcome::Value(None));
    let strange = operation(1, (1, 2), Kind::Get, Outcome::Put { version: 1 });
    for (operation, why) in [(never, "ended before it began"), (strange, "none of its kind")] {
        let history = history(&[operation]);
        for judged in [judge(&history).map(drop), check_indexes(&history), check_shard_indexes(&history, |_| 0)] {
            let Err(Violation::Malformed(what)) = judged else { panic!("{judged:?}") };
            assert!(what.contains(why), "{what}");
        }
    }
}

/// Each with the words that the violation begins with, or none if there is none.
#[test]
fn indexes_are_judged_one_rule_at_a_time() {
    let written = |times, value, version| operation(1, times, put(value), Outcome::Put { version });
    let deleted = |times, index| {
        let outcome = Outcome::Deleted { existed: Some(true), index };
        operation(2, times, Kind::Delete { condition: Condition::None }, outcome)
    };
    let read = |times, version, value| operation(3, times, Kind::Get, shows(version, value));
    let swapped = |times, version, index| {
        operation(4, times, put_if("s", Condition::Version(version)), Outcome::Put { version: index })
    };
    let deleted_if = |times, version| {
        let condition = Condition::Version(version);
        operation(2, times, Kind::Delete { condition }, Outcome::Deleted { existed: Some(true), index: None })
    };
    let open = |call, value| operation(5, (call, NEVER), put(value), Outcome::Unknown);
    let cases = [
        (vec![written((1, 2), "a", 4), written((1, 2), "b", 4)], "two writes with one index"),
        (vec![written((1, 2), "a", 4), written((3, 4), "b", 3)], "an index fell"),
        (vec![written((1, 3), "a", 4), written((3, 4), "b", 3)], ""),
        (vec![written((1, 2), "a", 4), written((3, 4), "b", 5), read((5, 6), 4, "a")], "an index fell"),
        (vec![written((1, 2), "a", 4), deleted((3, 4), Some(5)), read((5, 6), 4, "a")], "an index fell"),
        (vec![written((1, 2), "a", 4), deleted((3, 4), None), read((5, 6), 4, "a")], ""),
        (vec![written((1, 2), "a", 4), read((1, 3), 4, "b")], "a read shows what the write of that index did not"),
        (vec![deleted((1, 2), Some(4)), read((1, 3), 4, "b")], "a read shows what the write of that index did not"),
        (vec![read((1, 2), 4, "a"), written((3, 4), "a", 4)], "a read shows what the write of that index did not"),
        (vec![read((1, 2), 4, "a")], "a read shows what nobody wrote"),
        (vec![read((1, 2), 4, "a"), open(3, "a")], "a read shows what nobody wrote"),
        (vec![open(0, "a"), read((1, 2), 4, "a"), read((1, 2), 4, "a")], ""),
        (vec![open(0, "a"), open(0, "b"), read((1, 2), 4, "a"), read((1, 2), 4, "b")], "two values of one version"),
        (vec![open(0, "a"), read((1, 2), 4, "a"), read((3, 4), 5, "a")], "a put took effect more than once"),
        (vec![open(0, "a"), open(9, "a"), read((1, 2), 4, "a"), read((3, 4), 5, "a")], "a put took effect more than"),
        (vec![open(0, "a"), open(2, "a"), read((1, 2), 4, "a"), read((3, 4), 5, "a")], ""),
        (vec![written((1, 2), "a", 4), swapped((1, 3), 4, 6)], ""),
        (vec![written((1, 2), "a", 4), swapped((1, 3), 4, 4 - 1)], "a write took place before the version"),
        (vec![written((1, 2), "a", 4), swapped((1, 3), 3, 6)], "a condition was met by a version that nobody wrote"),
        (vec![written((1, 2), "a", 4), open(0, "b"), swapped((1, 3), 5, 6)], ""),
        (vec![written((1, 2), "a", 4), open(0, "b"), swapped((1, 3), 3, 6)], "a version changed although"),
        (vec![deleted((1, 2), Some(4)), swapped((1, 3), 4, 6)], "a condition was met by what is no version"),
        (vec![swapped((1, 2), 4, 6), written((3, 4), "a", 4)], "a condition was met by what is no version"),
        (vec![written((1, 2), "a", 4), swapped((1, 3), 4, 6), swapped((1, 4), 4, 7)], "a version changed although"),
        (vec![written((1, 2), "a", 4), written((1, 2), "b", 5), deleted_if((3, 4), 4)], "an index fell"),
    ];
    for (operations, begins) in cases {
        match check_indexes(&history(&operations)) {
            Ok(()) => assert_eq!(begins, "", "{operations:#?}"),
            Err(violation) => {
                let text = violation.to_string();
                assert!(!begins.is_empty() && text.starts_with(begins), "{text}\n{operations:#?}");
            }
        }
    }
}

#[test]
fn keys_of_a_shard_share_its_indexes() {
    let written = |key: &str, times, version| Operation {
        key: key.into(),
        ..operation(1, times, put(key), Outcome::Put { version })
    };
    let read = |key: &str, times, version| Operation {
        key: key.into(),
        ..operation(1, times, Kind::Get, shows(version, key))
    };
    let one = |_: &[u8]| 0;
    let by_key = |key: &[u8]| u16::from(key[0]);

    let twice = history(&[written("a", (1, 2), 4), written("b", (1, 2), 4)]);
    let fell = history(&[written("a", (1, 2), 4), written("b", (3, 4), 3)]);
    let fell_after_read = history(&[written("a", (1, 9), 4), read("a", (2, 3), 4), written("b", (4, 5), 3)]);
    for (history, begins) in [(twice, "one index on two keys"), (fell, "an index fell"), (fell_after_read, "an index")]
    {
        check_indexes(&history).expect("each key is good");
        check_shard_indexes(&history, by_key).expect("each shard is good");
        let violation = check_shard_indexes(&history, one).expect_err("one shard is not").to_string();
        assert!(violation.starts_with(begins), "{violation}");
    }
    // A read of one key says nothing of the other's writes.
    let good = history(&[written("b", (1, 2), 3), written("a", (3, 4), 4), read("b", (5, 6), 3)]);
    check_shard_indexes(&good, one).expect("good");
}
