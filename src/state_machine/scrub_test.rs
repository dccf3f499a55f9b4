//! Bytes that go wrong in memory are found, and nothing else is.

use proptest::prelude::*;
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{EntryKind, Index};

use super::command::{Change, Operation};
use super::scrub::Share;
use super::state_hash::CHECKPOINT_INTERVAL;
use super::state_machine_test::Replica;
use super::{Corruption, StateMachine};

fn key(number: u32) -> [u8; 8] {
    xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()).to_be_bytes()
}

/// A replica with so many keys, as of the first checkpoint at which it has them.
fn replica_with(keys: u32) -> Replica {
    let mut replica = Replica::default();
    let numbers: Vec<u32> = (0..keys).collect();
    for numbers in numbers.chunks(100) {
        let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
        let puts =
            keys.iter().map(|key| Operation { key, condition: Condition::None, change: Change::Put(b"a value") });
        replica.batch(&puts.collect::<Vec<_>>());
    }
    next_checkpoint(&mut replica);
    replica
}

fn noop(replica: &mut Replica) {
    replica.apply_body(EntryKind::Noop, Vec::new()).expect("it does nothing");
}

/// Applies entries that change nothing.
fn next_checkpoint(replica: &mut Replica) {
    noop(replica);
    while !replica.state.applied().0.is_multiple_of(CHECKPOINT_INTERVAL) {
        noop(replica);
    }
}

// rule 20
#[test]
fn a_wrong_byte_of_a_small_state_is_found_at_the_next_checkpoint_wherever_it_is() {
    for number in (0..4_096).step_by(273) {
        let mut replica = replica_with(4_096);
        let (sound, expected) = (replica.state.applied(), replica.state.hash());
        assert_eq!(replica.state.scrubbed(), sound);
        noop(&mut replica);
        assert!(replica.state.flip_byte(&key(number)));
        while replica.state.applied().0 + 1 < sound.0 + CHECKPOINT_INTERVAL {
            noop(&mut replica);
            assert_eq!(replica.state.corruption(), None);
        }
        noop(&mut replica);
        let found = *replica.state.corruption().expect("it is found");
        assert_eq!((found.sound, found.at, found.expected), (sound, Index(sound.0 + CHECKPOINT_INTERVAL), expected));
        assert_ne!(found.found, expected);
        // What was found first is what counts.
        next_checkpoint(&mut replica);
        assert_eq!(replica.state.corruption(), Some(&found));
    }
}

// rule 20
#[test]
fn a_wrong_byte_of_a_large_state_is_found_within_twice_as_many_checkpoints_as_it_has_slices() {
    const SLICES: u64 = 10;
    for (number, after) in (0..4_900).step_by(700).zip(0..) {
        let mut replica = replica_with(4_900);
        (0..after).for_each(|_| next_checkpoint(&mut replica));
        let flipped = replica.state.applied();
        assert!(replica.state.flip_byte(&key(number)));
        let mut checkpoints = 0;
        while replica.state.corruption().is_none() {
            assert!(checkpoints < 2 * SLICES, "key {number}");
            checkpoints += 1;
            next_checkpoint(&mut replica);
        }
        let Corruption { sound, at, .. } = *replica.state.corruption().expect("it is found");
        assert!(sound <= flipped && flipped < at, "{sound} {flipped} {at}");
        assert!(at.0 - sound.0 <= 2 * SLICES * CHECKPOINT_INTERVAL);
    }
}

#[test]
fn long_values_make_short_slices() {
    let mut replica = Replica::default();
    for number in 0..6 {
        replica.put(&key(number), &vec![7; 600_000], Condition::None);
    }
    // Two at a time.
    for checkpoints in 1..=3 {
        assert_eq!(replica.state.scrubbed(), Index(0), "{checkpoints}");
        next_checkpoint(&mut replica);
    }
    assert_eq!(replica.state.scrubbed(), Index(CHECKPOINT_INTERVAL));
    assert!(replica.state.flip_byte(&key(3)));
    (0..3).for_each(|_| next_checkpoint(&mut replica));
    assert!(replica.state.corruption().is_some());
}

/// What happens to a state while it is read.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>),
    Delete(u8),
    Read { keys: u64, bytes: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..40u8, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(key, value)| Step::Put(key, value)),
        1 => (0..40u8).prop_map(Step::Delete),
        3 => (1..5u64, 1..400u64).prop_map(|(keys, bytes)| Step::Read { keys, bytes }),
    ]
}

fn read(state: &mut StateMachine, keys: u64, bytes: u64) {
    let (at, hash) = (state.applied(), state.hash());
    state.scrub.read(&state.map, Share { keys, bytes }, at, hash);
}

fn take(replica: &mut Replica, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Put(key, value) => _ = replica.put(&[*key], value, Condition::None),
            Step::Delete(key) => _ = replica.delete(&[*key], Condition::None),
            Step::Read { keys, bytes } => read(&mut replica.state, *keys, *bytes),
        }
    }
}

proptest! {
    // rule 20
    #[test]
    fn a_state_that_changes_while_it_is_read_is_sound_unless_a_byte_of_it_is_not(
        before in prop::collection::vec(step(), 0..120),
        wrong in 0..40u8,
        after in prop::collection::vec(step(), 0..40),
    ) {
        let mut replica = Replica::default();
        replica.put(&[wrong], b"it has a byte", Condition::None);
        take(&mut replica, &before);
        replica.put(&[wrong], b"another", Condition::None);
        read(&mut replica.state, 2, 1_000);
        prop_assert_eq!(replica.state.corruption(), None);
        let sound = replica.state.scrubbed();

        prop_assert!(replica.state.flip_byte(&[wrong]));
        take(&mut replica, &after);
        // What is under way, and then all of it.
        (0..2).for_each(|_| read(&mut replica.state, u64::MAX, u64::MAX));
        let found = replica.state.corruption().copied();
        prop_assert!(found.is_some_and(|found| found.sound >= sound && found.found != found.expected));
    }
}
