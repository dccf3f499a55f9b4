//! Writes under conditions: every condition on a key that is there and on one that is not.

use raftkv_protocol::client::{Code, Condition};

use crate::run::{Case, Run, at};

pub const CASES: &[Case] = &[
    ("conditions on a missing key", on_a_missing_key),
    ("conditions that hold", that_hold),
    ("conditions that do not hold", that_do_not_hold),
    ("a repeated write that meets its own success", own_success),
];

fn on_a_missing_key(run: &mut Run<'_>) {
    let key = run.key("k");
    for condition in [Condition::Exists, at(1), at(0), at(u64::MAX)] {
        assert_eq!(run.put_if(&key, "v", condition), Err(Code::PreconditionFailed), "{condition:?}");
        assert_eq!(run.delete_if(&key, condition), Err(Code::PreconditionFailed), "{condition:?}");
    }
    assert_eq!(run.delete_if(&key, Condition::Absent), Ok(false));
    assert_eq!(run.get(&key), Err(Code::NotFound));
}

fn that_hold(run: &mut Run<'_>) {
    let key = run.key("k");
    let first = run.put_if(&key, "one", Condition::Absent).expect("it is absent");
    let second = run.put_if(&key, "two", at(first)).expect("it has this version");
    let third = run.put_if(&key, "three", Condition::Exists).expect("it exists");
    assert!(first < second && second < third, "versions grow: {first}, {second}, {third}");
    assert_eq!(run.get(&key), Ok((third, b"three".to_vec())));
    assert_eq!(run.delete_if(&key, at(third)), Ok(true));
    assert_eq!(run.get(&key), Err(Code::NotFound));
    let again = run.put_if(&key, "", Condition::Absent).expect("it is absent again");
    assert!(again > third, "versions grow over a delete: {third}, then {again}");
    assert_eq!(run.delete_if(&key, Condition::Exists), Ok(true));
    assert_eq!(run.get(&key), Err(Code::NotFound));
}

fn that_do_not_hold(run: &mut Run<'_>) {
    let key = run.key("k");
    let old = run.put(&key, "old");
    let version = run.put(&key, "now");
    for condition in [Condition::Absent, at(old), at(version + 1_000_000), at(0)] {
        assert_eq!(run.put_if(&key, "no", condition), Err(Code::PreconditionFailed), "{condition:?}");
        assert_eq!(run.delete_if(&key, condition), Err(Code::PreconditionFailed), "{condition:?}");
        assert_eq!(run.get(&key), Ok((version, b"now".to_vec())), "{condition:?}");
    }
}

fn own_success(run: &mut Run<'_>) {
    let key = run.key("k");
    let first = run.put(&key, "one");
    let second = run.put_if(&key, "two", at(first)).expect("it has this version");
    assert_eq!(run.put_if(&key, "two", at(first)), Err(Code::PreconditionFailed));
    assert_eq!(run.get(&key), Ok((second, b"two".to_vec())), "reading tells whose write it was");
    assert_eq!(run.delete_if(&key, at(second)), Ok(true));
    assert_eq!(run.delete_if(&key, at(second)), Err(Code::PreconditionFailed));
}
