//! That all of a state is let go of, in portions, and nothing that others hold.

use bytes::Bytes;
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{Entry, EntryId, EntryKind};

use super::remains::Remains;
use super::{StateMachine, encode_put};

const KEYS: u32 = 5_000;
const VALUE: [u8; 93] = [7; 93];
/// What a key with its value counts for.
const BYTES: usize = 64 + 7 + VALUE.len();

fn put(machine: &mut StateMachine, key: u32) {
    let mut body = Vec::new();
    encode_put(format!("key{key:04}").as_bytes(), &VALUE, Condition::None, &mut body);
    let id = EntryId::new(machine.applied().0 + 1, 1);
    machine.apply(&Entry { id, kind: EntryKind::Command, body: Bytes::from(body) }).expect("a put applies");
}

fn filled() -> StateMachine {
    let mut machine = StateMachine::default();
    (0..KEYS).for_each(|key| put(&mut machine, key));
    machine
}

/// The portions in which everything goes.
fn portions(mut remains: Remains, bytes_max: usize) -> Vec<usize> {
    std::iter::from_fn(|| remains.let_go_some(bytes_max)).collect()
}

#[test]
fn all_of_a_state_goes_in_portions() {
    let portions = portions(filled().into(), 20 * BYTES);
    assert_eq!(portions.iter().sum::<usize>(), KEYS as usize * BYTES);
    assert!(portions.len() > 50, "{portions:?}");
    assert!(portions.iter().all(|bytes| *bytes <= (20 + 32) * BYTES), "and a leaf: {portions:?}");
}

#[test]
fn what_others_hold_is_left_alone() {
    let mut machine = filled();
    let snapshot = machine.snapshot();
    assert_eq!(portions(snapshot.into(), 0), [0; 0], "all of it");
    let snapshot = machine.snapshot();
    (0..100).for_each(|key| put(&mut machine, key));
    let replaced: usize = portions(snapshot.into(), 0).iter().sum();
    // The leaves that were written to, as far as they are.
    assert!((100 * BYTES..300 * BYTES).contains(&replaced), "{replaced}");
    let left = machine.snapshot();
    assert_eq!(left.iter().count() as u32, KEYS);
    assert!(left.iter().all(|(_, _, value)| value == VALUE));
}

/// Each is a piece of memory, however short.
#[test]
fn short_values_count_for_more_than_their_bytes() {
    let mut machine = StateMachine::default();
    for key in 0..KEYS {
        let mut body = Vec::new();
        encode_put(&key.to_be_bytes(), b"", Condition::None, &mut body);
        let id = EntryId::new(machine.applied().0 + 1, 1);
        machine.apply(&Entry { id, kind: EntryKind::Command, body: Bytes::from(body) }).expect("a put applies");
    }
    let portions = portions(machine.into(), 100 * 68);
    assert!(portions.len() >= KEYS as usize / (100 + 32), "{portions:?}");
}

#[test]
fn of_nothing_nothing_goes() {
    assert_eq!(portions(StateMachine::default().into(), 0), [0; 0]);
}
