use proptest::prelude::*;
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{EntryId, Index};

use super::state_hash::{CHECKPOINT_INTERVAL, CHECKPOINTS_KEPT, FORMAT, ItemsHash};
use super::state_machine_test::Replica;
use super::{Checkpoint, Restore, RestoreError, Snapshot, StateMachine};

/// A state machine from what a snapshot holds.
fn restored(snapshot: &Snapshot) -> Result<StateMachine, RestoreError> {
    let mut restore = Restore::new(snapshot.at(), FORMAT)?;
    for (key, version, value) in snapshot.iter() {
        restore.push(key, version, value)?;
    }
    restore.finish(snapshot.hash(), snapshot.checkpoints().to_vec())
}

fn refusal(result: Result<impl Sized, RestoreError>) -> String {
    match result {
        Err(RestoreError(why)) => why,
        Ok(_) => panic!("it was not refused"),
    }
}

/// Everything that can be seen of a state: items, entry, counts, hash, checkpoints.
type Seen = (Vec<(Vec<u8>, Index, Vec<u8>)>, Index, (u64, u64), u128, Vec<Checkpoint>);

fn seen(state: &StateMachine) -> Seen {
    let items: Vec<(Vec<u8>, Index, Vec<u8>)> =
        state.snapshot().iter().map(|(key, version, value)| (key.to_vec(), version, value.to_vec())).collect();
    let checkpoints: Vec<Checkpoint> = state.checkpoints().collect();
    (items, state.applied(), (state.keys(), state.bytes()), state.hash(), checkpoints)
}

// rule 20
#[test]
fn a_restored_state_is_the_one_that_was_and_goes_on_alike() {
    let mut replica = Replica::default();
    for write in 0..CHECKPOINT_INTERVAL * (CHECKPOINTS_KEPT as u64 + 2) + 100 {
        let key = format!("key {} of a length that is not stored in place", write % 300);
        match write % 7 {
            0 => replica.delete(key.as_bytes(), Condition::None),
            _ => replica.put(key.as_bytes(), &write.to_le_bytes(), Condition::None),
        };
    }
    let mut copy = replica.clone_through(restored);
    assert_eq!(seen(&copy.state), seen(&replica.state));
    assert_eq!(copy.state.checkpoints().count(), CHECKPOINTS_KEPT);
    for write in 0..CHECKPOINT_INTERVAL {
        let key = format!("key {}", write % 9);
        assert_eq!(
            copy.put(key.as_bytes(), &[1], Condition::Absent),
            replica.put(key.as_bytes(), &[1], Condition::Absent)
        );
    }
    assert_eq!(seen(&copy.state), seen(&replica.state));
}

#[test]
fn a_large_state_is_restored() {
    let mut replica = Replica::default();
    for key in 0..10_000u32 {
        replica.put(&key.to_be_bytes(), &key.to_le_bytes(), Condition::None);
    }
    let mut copy = replica.clone_through(restored);
    assert_eq!(seen(&copy.state), seen(&replica.state));
    copy.put(b"another", b"value", Condition::Absent);
    assert_eq!(copy.state.keys(), 10_001);
}

#[test]
fn an_empty_state_is_restored() {
    let empty = restored(&StateMachine::default().snapshot()).expect("nothing is something");
    assert_eq!(seen(&empty), seen(&StateMachine::default()));
}

#[test]
fn what_does_not_make_up_the_state_is_refused() {
    let mut replica = Replica::default();
    for key in ["a", "b", "c"] {
        replica.put(key.as_bytes(), b"value", Condition::None);
    }
    let snapshot = replica.state.snapshot();
    let begin = || Restore::new(snapshot.at(), FORMAT).expect("the format");

    let mut restore = begin();
    for (key, version, value) in snapshot.iter().skip(1) {
        restore.push(key, version, value).expect("right");
    }
    assert!(refusal(restore.finish(snapshot.hash(), [])).contains("state hash"), "a key is missing");

    let mut restore = begin();
    restore.push(b"a", Index(1), b"value").expect("right");
    assert!(refusal(restore.push(b"a", Index(1), b"value")).contains("\"a\" is there twice"));
    assert!(refusal(begin().push(b"d", Index(4), b"value")).contains("version 4"), "later than the state");
    assert!(refusal(Restore::new(EntryId::new(3, 3), b"raftkv state 2")).contains("`raftkv state 2`"));
}

#[test]
fn checkpoints_that_make_no_sense_are_refused() {
    let hash = StateMachine::default().hash();
    let at = EntryId::new(3 * CHECKPOINT_INTERVAL + 5, 1);
    let finish = |indexes: &[u64]| {
        let checkpoints = indexes.iter().map(|index| Checkpoint { index: Index(*index), hash: 7 });
        Restore::new(at, FORMAT).expect("the format").finish(hash, checkpoints.collect::<Vec<_>>())
    };
    let interval = CHECKPOINT_INTERVAL;
    assert_eq!(finish(&[interval, 3 * interval]).expect("right").checkpoints().count(), 2);
    for wrong in [&[0][..], &[interval + 1], &[interval, interval], &[2 * interval, interval], &[4 * interval]] {
        assert!(refusal(finish(wrong)).contains("checkpoint"), "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_snapshot_is_read_the_same_in_one_go_and_in_many(keys in prop::collection::vec("[a-c]{0,30}", 0..80)) {
        let mut replica = Replica::default();
        for key in &keys {
            replica.put(key.as_bytes(), key.as_bytes(), Condition::None);
        }
        let snapshot = replica.state.snapshot();
        let mut hash = ItemsHash::default();
        let mut last: Option<Vec<u8>> = None;
        for (key, version, value) in snapshot.iter() {
            let next = match &last {
                None => snapshot.iter().next(),
                Some(last) => snapshot.iter_after(Some(last)).next(),
            };
            prop_assert_eq!(next, Some((key, version, value)));
            hash.add(key, version, value);
            last = Some(key.to_vec());
        }
        prop_assert!(last.is_none_or(|last| snapshot.iter_after(Some(&last)).next().is_none()));
        prop_assert_eq!(hash.value(), snapshot.hash());
    }
}
