//! Bytes that go wrong in memory are found, and nothing else is.

use proptest::prelude::*;
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{EntryKind, Index};

use super::command::{Change, Operation};
use super::state_hash::{CHECKPOINT_INTERVAL, ItemsHash};
use super::state_machine_test::Replica;
use super::{Corruption, Snapshot};

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

/// What happens to a state while it is read.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>),
    Delete(u8),
}

fn change() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..40u8, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(key, value)| Step::Put(key, value)),
        1 => (0..40u8).prop_map(Step::Delete),
    ]
}

fn take(replica: &mut Replica, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Put(key, value) => _ = replica.put(&[*key], value, Condition::None),
            Step::Delete(key) => _ = replica.delete(&[*key], Condition::None),
        }
    }
}

/// Reads what was handed out, and tells what it came to.
fn read(replica: &mut Replica, handed_out: &Snapshot) {
    let mut hash = ItemsHash::default();
    handed_out.iter().for_each(|(key, version, value)| hash.add(key, version, value));
    replica.state.scrubbed_as_of(handed_out.at().index, hash.value(), handed_out.hash());
}

// rule 20
#[test]
fn a_wrong_byte_of_a_large_state_is_found_as_of_the_next_checkpoint_by_whoever_reads_it() {
    for number in (0..4_900).step_by(700) {
        let mut replica = replica_with(4_900);
        assert!(replica.state.scrub_is_due() && replica.state.scrubbed() == Index(0));
        let handed_out = replica.state.begin_scrub();
        let sound = handed_out.at().index;
        read(&mut replica, &handed_out);
        assert!(!replica.state.scrub_is_due());
        assert_eq!((replica.state.scrubbed(), replica.state.corruption()), (sound, None));

        assert!(replica.state.flip_byte(&key(number)));
        next_checkpoint(&mut replica);
        assert!(replica.state.scrub_is_due());
        let handed_out = replica.state.begin_scrub();
        // What is put meanwhile is no business of that.
        replica.put(&key(number), b"another", Condition::None);
        read(&mut replica, &handed_out);
        let found = *replica.state.corruption().expect("it is found");
        let expected = Corruption { sound, at: handed_out.at().index, found: found.found, expected: handed_out.hash() };
        assert_eq!((found, found.at.0 - sound.0), (expected, CHECKPOINT_INTERVAL), "key {number}");
        assert_ne!(found.found, found.expected);
    }
}

#[test]
fn a_state_is_large_by_its_keys_or_its_bytes() {
    let is_large = |keys: u32, bytes: usize| {
        let mut replica = Replica::default();
        (0..keys).for_each(|number| _ = replica.put(&number.to_be_bytes(), &vec![7; bytes], Condition::None));
        next_checkpoint(&mut replica);
        let is_due = replica.state.scrub_is_due();
        assert_eq!(is_due, replica.state.scrubbed() < replica.state.applied(), "read at once, or due");
        is_due
    };
    assert!(!is_large(4_096, 1) && is_large(4_097, 1));
    assert!(!is_large(2, (1 << 19) - 4) && is_large(2, (1 << 19) - 3));
}

#[test]
fn a_state_that_has_become_small_is_due_no_more() {
    let mut replica = replica_with(4_097);
    assert!(replica.state.scrub_is_due());
    replica.delete(&key(1), Condition::None);
    next_checkpoint(&mut replica);
    assert!(!replica.state.scrub_is_due());
    assert_eq!(replica.state.scrubbed(), replica.state.applied());
}

proptest! {
    // rule 20
    #[test]
    fn a_state_that_changes_while_it_is_read_is_sound_unless_a_byte_of_it_is_not(
        before in prop::collection::vec(change(), 0..120),
        wrong in 0..40u8,
        after in prop::collection::vec(change(), 0..40),
    ) {
        let mut replica = Replica::default();
        take(&mut replica, &before);
        replica.put(&[wrong], b"another", Condition::None);
        let handed_out = replica.state.begin_scrub();
        take(&mut replica, &after);
        read(&mut replica, &handed_out);
        prop_assert_eq!((replica.state.scrubbed(), replica.state.corruption()), (handed_out.at().index, None));

        replica.put(&[wrong], b"it has a byte", Condition::None);
        prop_assert!(replica.state.flip_byte(&[wrong]));
        let handed_out = replica.state.begin_scrub();
        take(&mut replica, &after);
        read(&mut replica, &handed_out);
        prop_assert!(replica.state.corruption().is_some());
    }
}
