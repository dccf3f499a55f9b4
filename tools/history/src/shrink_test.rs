use super::history::History;
use super::key::Digest;
use super::operation::{Condition, Hint, Kind, Operation, Outcome};
use super::search::{Verdict, search};
use super::shrink::{shrink, with_dependents};

const STEPS: u64 = 1_000_000;

fn operation(times: (u64, u64), kind: Kind, outcome: Outcome) -> Operation {
    Operation { client: 1, key: b"k".to_vec(), kind, call: times.0, outcome, ret: times.1 }
}

fn put(times: (u64, u64), version: u64) -> Operation {
    let kind = Kind::Put { value: format!("v{version}").into_bytes(), condition: Condition::None };
    operation(times, kind, Outcome::Put { version })
}

fn open_put(call: u64, value: &str) -> Operation {
    operation((call, u64::MAX), Kind::Put { value: value.into(), condition: Condition::None }, Outcome::Unknown)
}

fn delete(times: (u64, u64), existed: bool) -> Operation {
    operation(
        times,
        Kind::Delete { condition: Condition::None },
        Outcome::Deleted { existed: Some(existed), index: None },
    )
}

fn read(times: (u64, u64), shown: Option<u64>) -> Operation {
    let shown = shown.map(|version| (version, format!("v{version}").into_bytes()));
    operation(times, Kind::Get, Outcome::Value(shown))
}

/// Shrinks; the calls of what is left. Nothing more can be left out of it.
fn shrunk(operations: &[Operation]) -> Vec<u64> {
    let history: History = operations.iter().cloned().collect();
    let operations = history.by_key().remove(&b"k"[..]).expect("one key");
    let digest = Digest::new(&operations, &|_| Hint::Unknown);
    let is_bad = |places: &[usize]| matches!(search(&digest.register_of(places), STEPS), Verdict::Contradiction { .. });
    let kept = shrink(&digest, STEPS);
    assert!(is_bad(&kept), "what is left is no contradiction");
    for at in 0..kept.len() {
        let dependent = with_dependents(&digest, &kept, at);
        let rest: Vec<usize> = (0..kept.len()).filter(|at| !dependent.contains(at)).map(|at| kept[at]).collect();
        assert!(!is_bad(&rest), "{} can be left out", operations[kept[at]]);
    }
    kept.iter().map(|at| operations[*at].call).collect()
}

#[test]
fn a_stale_read_is_shown_by_the_two_writes_and_the_read() {
    let mut operations: Vec<Operation> = (1..60).map(|n| put((10 * n, 10 * n + 1), n)).collect();
    operations.extend((1..60).map(|n| read((10 * n + 2, 10 * n + 3), Some(n))));
    operations.push(read((325, 326), Some(7)));
    let calls = shrunk(&operations);
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls[0] == 70 && (80..=320).contains(&calls[1]) && calls[2] == 325, "{calls:?}");
}

#[test]
fn what_may_explain_another_operation_stays() {
    // Without the delete, or without the first put, the rest would contradict itself for another reason.
    let operations = [put((1, 2), 1), delete((3, 4), true), read((5, 6), None), read((7, 8), Some(1))];
    assert_eq!(shrunk(&operations), [1, 3, 7]);
    // Any of the open puts could be what the delete has found.
    let operations =
        [open_put(1, "a"), open_put(2, "b"), read((3, 4), None), read((5, 6), Some(9)), delete((7, 8), true)];
    assert_eq!(shrunk(&operations), [5]);
    let operations = [open_put(1, "a"), delete((2, 3), true), delete((4, 5), true)];
    assert_eq!(shrunk(&operations), [1, 2, 4]);
}

#[test]
fn what_explains_only_what_explains_nothing_else_is_left_out() {
    let open_swap = |call, value: &str, version| {
        let kind = Kind::Put { value: value.into(), condition: Condition::Version(version) };
        operation((call, u64::MAX), kind, Outcome::Unknown)
    };
    let circle = [open_swap(1, "a", 21), open_swap(2, "b", 22), open_put(3, "c")];
    let stale = [put((11, 12), 1), put((13, 14), 2), read((15, 16), Some(1))];
    assert_eq!(shrunk(&[circle, stale].concat()), [11, 13, 15]);
}

#[test]
fn what_ended_before_a_write_began_is_not_explained_by_it() {
    let operations = [read((1, 2), Some(5)), put((3, 4), 5), put((5, 6), 6)];
    assert_eq!(shrunk(&operations), [1]);
}

#[test]
fn a_write_that_found_nothing_to_delete_is_only_a_look() {
    let operations = [delete((1, 2), false), delete((3, 4), false), put((5, 6), 1), delete((7, 8), false)];
    assert_eq!(shrunk(&operations), [5, 7]);
}
