//! Batches: all of it or nothing, conditions against what was there before, and their limits.

use raftkv_protocol::client::{BATCH_OPERATIONS_MAX, BatchOperation, Code, Condition};

use crate::run::{Case, Run, at, delete, put};

const KEY_BYTES_MAX: usize = 4 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;
const BATCH_BYTES_MAX: usize = 1280 << 10;

pub const CASES: &[Case] = &[
    ("a batch of everything", of_everything),
    ("a batch of one operation", of_one),
    ("conditions of a batch", conditions),
    ("a batch one of whose conditions does not hold", nothing_is_written),
    ("a batch over shards", cross_shard),
    ("a batch that makes no sense", no_sense),
    ("the most operations of a batch", most_operations),
    ("the most bytes of a batch", most_bytes),
];

fn of_everything(run: &mut Run<'_>) {
    let [new, old, gone, never] = ["new", "old", "gone", "never"].map(|name| run.tagged(name));
    let before = run.put(&old, "old");
    run.put(&gone, "gone");
    let none = Condition::None;
    let operations = [put(&new, b"1", none), put(&old, b"", none), delete(&gone, none), delete(&never, none)];
    let (version, deleted) = run.batch(&operations).expect("written");
    assert_eq!(deleted, [false, false, true, false]);
    let version = version.expect("something was put");
    assert!(version > before);
    assert_eq!(run.get(&new), Ok((version, b"1".to_vec())));
    assert_eq!(run.get(&old), Ok((version, Vec::new())));
    assert_eq!(run.get(&gone), Err(Code::NotFound));
    assert_eq!(run.get(&never), Err(Code::NotFound));
}

fn of_one(run: &mut Run<'_>) {
    let key = run.key("k");
    let (version, deleted) = run.batch(&[put(&key, b"v", Condition::Absent)]).expect("written");
    assert_eq!(deleted, [false]);
    assert_eq!(run.get(&key), Ok((version.expect("it was put"), b"v".to_vec())));
    assert_eq!(run.batch(&[delete(&key, Condition::Exists)]), Ok((None, vec![true])));
    assert_eq!(run.batch(&[delete(&key, Condition::None)]), Ok((None, vec![false])));
}

fn conditions(run: &mut Run<'_>) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| run.tagged(name));
    let version = run.put(&a, "a");
    run.put(&b, "b");
    let operations = [
        put(&a, b"1", at(version)),
        delete(&b, Condition::Exists),
        put(&c, b"1", Condition::Absent),
        delete(&d, Condition::Absent),
    ];
    let (written, deleted) = run.batch(&operations).expect("all conditions hold");
    assert_eq!(deleted, [false, true, false, false]);
    assert_eq!(run.get(&c), Ok((written.expect("something was put"), b"1".to_vec())));
    assert_eq!(run.batch(&operations), Err(Code::PreconditionFailed), "its own success");
}

fn nothing_is_written(run: &mut Run<'_>) {
    let [there, other, missing] = ["there", "other", "missing"].map(|name| run.tagged(name));
    let version = run.put(&there, "old");
    let wrong = [
        put(&there, b"no", Condition::Absent),
        delete(&there, at(version + 1_000_000)),
        put(&missing, b"no", Condition::Exists),
        delete(&missing, at(version)),
    ];
    for wrong in wrong {
        for operations in [[put(&other, b"no", Condition::None), wrong], [wrong, put(&other, b"no", Condition::None)]] {
            assert_eq!(run.batch(&operations), Err(Code::PreconditionFailed));
            assert_eq!(run.get(&other), Err(Code::NotFound));
            assert_eq!(run.get(&missing), Err(Code::NotFound));
            assert_eq!(run.get(&there), Ok((version, b"old".to_vec())));
        }
    }
}

fn cross_shard(run: &mut Run<'_>) {
    let [one, other] = run.keys_of_two_shards();
    let none = Condition::None;
    assert_eq!(run.batch(&[put(&one, b"", none), put(&other, b"", none)]), Err(Code::CrossShard));
    assert_eq!(run.batch(&[delete(&one, none), delete(&other, Condition::Exists)]), Err(Code::CrossShard));
    assert_eq!(run.get(&one), Err(Code::NotFound));
    assert_eq!(run.get(&other), Err(Code::NotFound));
}

fn no_sense(run: &mut Run<'_>) {
    let [a, b] = ["a", "b"].map(|name| run.tagged(name));
    let none = Condition::None;
    let mut too_long = run.tagged("");
    too_long.resize(KEY_BYTES_MAX + 1, b'k');
    let long_value = vec![b'v'; VALUE_BYTES_MAX + 1];
    assert_eq!(run.batch(&[]), Err(Code::BadRequest));
    assert_eq!(run.batch(&[put(&a, b"1", none), put(&b, b"", none), put(&a, b"2", none)]), Err(Code::BadRequest));
    assert_eq!(run.batch(&[put(&a, b"1", none), delete(&a, none)]), Err(Code::BadRequest));
    assert_eq!(run.batch(&[put(&a, b"1", none), put(b"", b"", none)]), Err(Code::BadRequest));
    assert_eq!(run.batch(&[put(&a, b"1", none), put(&too_long, b"", none)]), Err(Code::TooLarge));
    assert_eq!(run.batch(&[put(&a, b"1", none), put(&b, &long_value, none)]), Err(Code::TooLarge));
    assert_eq!(run.get(&a), Err(Code::NotFound));
}

fn most_operations(run: &mut Run<'_>) {
    let keys: Vec<Vec<u8>> = (0..=BATCH_OPERATIONS_MAX).map(|n| run.tagged(format!("{n:03}"))).collect();
    let puts: Vec<BatchOperation<'_>> = keys.iter().map(|key| put(key, b"v", Condition::None)).collect();
    assert_eq!(run.batch(&puts), Err(Code::TooLarge));
    assert_eq!(run.get(&keys[0]), Err(Code::NotFound));
    for count in [BATCH_OPERATIONS_MAX - 1, BATCH_OPERATIONS_MAX] {
        assert_eq!(run.batch(&puts[..count]).expect("written").1, vec![false; count]);
    }
    let deletes: Vec<BatchOperation<'_>> = keys.iter().map(|key| delete(key, Condition::None)).collect();
    let most = &deletes[..BATCH_OPERATIONS_MAX];
    assert_eq!(run.batch(most), Ok((None, vec![true; BATCH_OPERATIONS_MAX])));
}

fn most_bytes(run: &mut Run<'_>) {
    let [a, b] = ["a", "b"].map(|name| run.tagged(name));
    let half = BATCH_BYTES_MAX / 2;
    let value = vec![b'v'; half];
    let batch = |bytes: usize| {
        let rest = bytes - half - a.len() - b.len();
        [put(&a, &value, Condition::None), put(&b, &value[..rest], Condition::None)]
    };
    assert_eq!(run.batch(&batch(BATCH_BYTES_MAX + 1)), Err(Code::TooLarge));
    assert_eq!(run.get(&a), Err(Code::NotFound));
    let (version, _) = run.batch(&batch(BATCH_BYTES_MAX)).expect("written");
    assert_eq!(run.get(&a).expect("written"), (version.expect("it was put"), value.clone()));
}
