use bytes::Bytes;
use proptest::prelude::*;
use raftkv_protocol::client::{Condition, Existed, Scan};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index};
use xxhash_rust::xxh3::xxh3_128;

use super::command::{Change, Operation, encode_batch, encode_head, encode_operation};
use super::command_test::random_body;
use super::state_hash::{CHECKPOINT_INTERVAL, CHECKPOINTS_KEPT};
use super::{ApplyError, Checkpoint, Outcome, Snapshot, StateMachine, encode_delete, encode_put};

/// A state machine with the log position kept beside it.
#[derive(Default)]
pub struct Replica {
    pub state: StateMachine,
    last: Index,
}

impl Replica {
    pub fn apply_body(&mut self, kind: EntryKind, body: Vec<u8>) -> Result<Outcome, ApplyError> {
        let id = EntryId::new(self.last.next().0, 3);
        let outcome = self.state.apply(&Entry { id, kind, body: Bytes::from(body) })?;
        self.last = id.index;
        Ok(outcome)
    }

    pub fn put(&mut self, key: &[u8], value: &[u8], condition: Condition) -> Outcome {
        let mut body = Vec::new();
        encode_put(key, value, condition, &mut body);
        self.apply_body(EntryKind::Command, body).expect("a valid put")
    }

    pub fn delete(&mut self, key: &[u8], condition: Condition) -> Outcome {
        let mut body = Vec::new();
        encode_delete(key, condition, &mut body);
        self.apply_body(EntryKind::Command, body).expect("a valid delete")
    }

    /// Another one, whose state is made of a snapshot of this one's.
    pub fn clone_through<E: std::fmt::Debug>(
        &self,
        restored: impl FnOnce(&Snapshot) -> Result<StateMachine, E>,
    ) -> Replica {
        Replica { state: restored(&self.state.snapshot()).expect("a right snapshot"), last: self.last }
    }

    pub fn batch(&mut self, operations: &[Operation<'_>]) -> Outcome {
        let mut body = Vec::new();
        encode_batch(operations.iter().copied(), &mut body).expect("different keys");
        self.apply_body(EntryKind::Command, body).expect("a valid batch")
    }

    fn value(&self, key: &[u8]) -> Option<(u64, Vec<u8>)> {
        self.state.get(key).map(|(version, value)| (version.0, value.to_vec()))
    }
}

fn keys_of(state: &StateMachine, scan: &Scan<'_>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    state.scan(scan, |key, _, _| {
        keys.push(key.to_vec());
        true
    });
    keys
}

#[test]
fn a_version_is_the_index_of_the_entry_that_wrote() {
    let mut replica = Replica::default();
    assert_eq!(replica.apply_body(EntryKind::Noop, Vec::new()), Ok(Outcome::Nothing));
    assert_eq!(replica.put(b"k", b"one", Condition::None), Outcome::Put);
    assert_eq!(replica.put(b"other", b"", Condition::None), Outcome::Put);
    assert_eq!(replica.value(b"k"), Some((2, b"one".to_vec())));
    assert_eq!(replica.put(b"k", b"two", Condition::None), Outcome::Put);
    assert_eq!(replica.value(b"k"), Some((4, b"two".to_vec())));
    assert_eq!(replica.value(b"other"), Some((3, Vec::new())));
    assert_eq!((replica.state.keys(), replica.state.bytes(), replica.state.applied()), (2, 1 + 3 + 5, Index(4)));
}

#[test]
fn a_delete_says_whether_the_key_existed() {
    let mut replica = Replica::default();
    assert_eq!(replica.delete(b"k", Condition::None), Outcome::Deleted { existed: false });
    replica.put(b"k", b"v", Condition::None);
    assert_eq!(replica.delete(b"k", Condition::None), Outcome::Deleted { existed: true });
    assert_eq!(replica.delete(b"k", Condition::None), Outcome::Deleted { existed: false });
    assert_eq!((replica.value(b"k"), replica.state.keys(), replica.state.bytes()), (None, 0, 0));
}

// rule 32
#[test]
fn conditions_are_checked_when_applied() {
    let version = |index| Condition::Version(Index(index));
    let mut replica = Replica::default();
    assert_eq!(replica.put(b"k", b"", Condition::Exists), Outcome::ConditionFailed);
    assert_eq!(replica.put(b"k", b"", version(0)), Outcome::ConditionFailed);
    assert_eq!(replica.put(b"k", b"a", Condition::Absent), Outcome::Put);
    assert_eq!(replica.put(b"k", b"b", Condition::Absent), Outcome::ConditionFailed);
    assert_eq!(replica.put(b"k", b"c", version(2)), Outcome::ConditionFailed);
    assert_eq!(replica.put(b"k", b"d", version(3)), Outcome::Put);
    assert_eq!(replica.put(b"k", b"e", Condition::Exists), Outcome::Put);
    assert_eq!(replica.delete(b"k", version(3)), Outcome::ConditionFailed);
    assert_eq!(replica.value(b"k"), Some((7, b"e".to_vec())));
    assert_eq!(replica.delete(b"k", version(7)), Outcome::Deleted { existed: true });
    assert_eq!(replica.delete(b"k", version(7)), Outcome::ConditionFailed);
    assert_eq!(replica.delete(b"k", Condition::Absent), Outcome::Deleted { existed: false });
}

// rule 18
#[test]
fn a_batch_takes_place_as_a_whole_or_not_at_all() {
    let put = |key, value, condition| Operation { key, condition, change: Change::Put(value) };
    let delete = |key, condition| Operation { key, condition, change: Change::Delete };
    let mut replica = Replica::default();
    replica.put(b"b", b"old", Condition::None);
    let before = replica.state.hash();
    let failing = [put(b"a", b"1", Condition::None), delete(b"b", Condition::Absent)];
    assert_eq!(replica.batch(&failing), Outcome::BatchConditionFailed { operation: 1 });
    assert_eq!((replica.value(b"a"), replica.state.hash()), (None, before));
    let holding = [put(b"a", b"1", Condition::Absent), delete(b"b", Condition::Exists)];
    assert_eq!(replica.batch(&holding), Outcome::Batch { existed: Existed(0b10) });
    assert_eq!((replica.value(b"a"), replica.value(b"b")), (Some((3, b"1".to_vec())), None));
}

#[test]
fn a_committed_batch_that_names_a_key_twice_applies_in_order() {
    let mut body = Vec::new();
    encode_head(None, 2, &mut body);
    for value in [b"first", b"later"] {
        encode_operation(&Operation { key: b"k", condition: Condition::Absent, change: Change::Put(value) }, &mut body);
    }
    let mut replica = Replica::default();
    assert_eq!(replica.apply_body(EntryKind::Command, body), Ok(Outcome::Batch { existed: Existed(0) }));
    assert_eq!(replica.value(b"k"), Some((1, b"later".to_vec())));
    let mut plain = Replica::default();
    plain.put(b"k", b"later", Condition::None);
    assert_eq!((replica.state.hash(), replica.state.bytes()), (plain.state.hash(), plain.state.bytes()));
}

#[test]
fn entries_apply_only_in_order() {
    let mut replica = Replica::default();
    replica.put(b"k", b"v", Condition::None);
    for index in [0, 1, 3, u64::MAX] {
        let entry = Entry { id: EntryId::new(index, 3), kind: EntryKind::Noop, body: Bytes::new() };
        let expected = format!("entry {index}@3 cannot be applied after 1@3");
        assert_eq!(replica.state.apply(&entry), Err(ApplyError(expected)));
    }
    assert_eq!(replica.state.applied(), Index(1));
}

// rule 19
#[test]
fn what_is_not_understood_stops_the_node_and_changes_nothing() {
    let mut replica = Replica::default();
    replica.put(b"k", b"v", Condition::None);
    let before = replica.state.hash();
    let error = replica.apply_body(EntryKind::Command, vec![9]).expect_err("a later format");
    assert_eq!(
        error.to_string(),
        "committed entry 2@3 cannot be applied: format version 9 is unknown to this server; \
         start a server that knows it"
    );
    let mut in_session = Vec::new();
    encode_head(Some(super::command::Session { client: 1, serial: 1 }), 1, &mut in_session);
    let operation = Operation { key: b"k", condition: Condition::None, change: Change::Delete };
    encode_operation(&operation, &mut in_session);
    let error = replica.apply_body(EntryKind::Command, in_session).expect_err("sessions do not exist yet");
    assert!(error.to_string().contains("2@3") && error.to_string().contains("sessions"), "{error}");
    assert_eq!((replica.state.applied(), replica.state.hash()), (Index(1), before));
}

// museum 54
#[test]
fn lengths_over_the_limits_apply_once_committed() {
    let mut replica = Replica::default();
    let key = vec![b'k'; 1 << 20];
    let value = vec![b'v'; 3 << 20];
    assert_eq!(replica.put(&key, &value, Condition::None), Outcome::Put);
    assert_eq!(replica.put(b"", b"empty", Condition::None), Outcome::Put);
    assert_eq!(replica.value(&key), Some((1, value)));
    assert_eq!(replica.value(b""), Some((2, b"empty".to_vec())));
    assert_eq!(keys_of(&replica.state, &Scan::default()), [vec![], key]);
}

// rule 21
#[test]
fn values_do_not_keep_the_entry_alive() {
    let mut body = Vec::new();
    encode_put(b"a key that is too long to be inline", b"value", Condition::None, &mut body);
    let buffer = Bytes::from(body);
    let mut state = StateMachine::default();
    let entry = Entry { id: EntryId::new(1, 1), kind: EntryKind::Command, body: buffer.clone() };
    state.apply(&entry).expect("a valid put");
    drop(entry);
    assert!(buffer.is_unique());
}

#[test]
fn a_scan_stops_when_told() {
    let mut replica = Replica::default();
    for key in [b"a", b"b", b"c"] {
        replica.put(key, b"", Condition::None);
    }
    let mut seen = Vec::new();
    replica.state.scan(&Scan::default(), |key, version, _| {
        seen.push((key.to_vec(), version.0));
        seen.len() < 2
    });
    assert_eq!(seen, [(b"a".to_vec(), 1), (b"b".to_vec(), 2)]);
}

// rule 28
#[test]
fn a_scan_takes_the_tightest_of_its_bounds() {
    let mut replica = Replica::default();
    for key in [&b"a"[..], b"ab", b"ac", b"b", b"\xff", b"\xff\xff", b"\xff\xff\x01"] {
        replica.put(key, b"", Condition::None);
    }
    let scan = |scan: Scan<'_>| keys_of(&replica.state, &scan);
    let of = Scan::default();
    assert_eq!(scan(Scan { prefix: b"a", ..of }), [&b"a"[..], b"ab", b"ac"]);
    assert_eq!(scan(Scan { prefix: b"a", start: b"ab", end: b"ac", ..of }), [b"ab"]);
    assert_eq!(scan(Scan { prefix: b"a", reverse: true, cursor: b"ac", ..of }), [&b"ab"[..], b"a"]);
    assert_eq!(scan(Scan { start: b"ab", end: b"b", reverse: true, ..of }), [b"ac", b"ab"]);
    assert_eq!(scan(Scan { prefix: b"\xff\xff", ..of }), [&b"\xff\xff"[..], b"\xff\xff\x01"]);
    assert_eq!(scan(Scan { prefix: b"\xff\xff", reverse: true, ..of }), [&b"\xff\xff\x01"[..], b"\xff\xff"]);
    assert_eq!(scan(Scan { cursor: b"b", ..of }), [&b"\xff"[..], b"\xff\xff", b"\xff\xff\x01"]);
    assert_eq!(scan(Scan { start: b"b", cursor: b"a", ..of }).len(), 4);
    assert!(scan(Scan { start: b"b", end: b"a", ..of }).is_empty());
    assert!(scan(Scan { start: b"b", end: b"b", ..of }).is_empty());
    assert!(scan(Scan { prefix: b"a", start: b"b", ..of }).is_empty());
    assert!(scan(Scan { cursor: b"b", end: b"b", ..of }).is_empty());
    assert!(scan(Scan { cursor: b"a", reverse: true, ..of }).is_empty());
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut replica = Replica::default();
    replica.put(b"a", b"1", Condition::None);
    replica.put(b"b", b"2", Condition::None);
    let snapshot = replica.state.snapshot();
    let hash = replica.state.hash();
    // As long as the old value: without the snapshot it would be written over where it lies.
    replica.put(b"a", b"9", Condition::None);
    replica.put(b"a", b"changed", Condition::None);
    replica.delete(b"b", Condition::None);
    replica.put(b"c", b"new", Condition::None);
    let items: Vec<_> = snapshot.iter().map(|(key, version, value)| (key, version.0, value)).collect();
    assert_eq!(items, [(&b"a"[..], 1, &b"1"[..]), (b"b", 2, b"2")]);
    assert_eq!((snapshot.at(), snapshot.keys(), snapshot.hash()), (EntryId::new(2, 3), 2, hash));
}

// rule 20
#[test]
fn the_hash_is_part_of_the_format() {
    let mut replica = Replica::default();
    let empty = replica.state.hash();
    replica.put(b"key", b"value", Condition::None);
    let one = replica.state.hash();
    replica.put(b"a key that is too long to be inline", &[7; 1_000], Condition::None);
    let two = replica.state.hash();
    assert_eq!([empty, one, two], GOLDEN_HASHES);
    // As the format's description says, in one piece.
    assert_eq!(one.wrapping_sub(empty), xxh3_128(b"\x01\x03\0\0\0keyvalue\x01\0\0\0\0\0\0\0"));
    replica.delete(b"key", Condition::None);
    replica.delete(b"a key that is too long to be inline", Condition::None);
    assert_eq!(replica.state.hash(), empty);
}

/// Replicas of different versions compare their hashes: these never change.
const GOLDEN_HASHES: [u128; 3] = [
    0x4fc13901_2f6ccdb0_28159a51_a903ed51,
    0x632db7cd_784573e6_03370211_3fdf173d,
    0x523caa1c_4cc5e927_471592ad_5dfc7178,
];

// rule 20
#[test]
fn checkpoints_are_kept_for_the_latest_multiples() {
    let mut replica = Replica::default();
    let mut expected = Vec::new();
    for index in 1..=CHECKPOINT_INTERVAL * (CHECKPOINTS_KEPT as u64 + 2) + 1 {
        // Every kind of outcome counts as applied.
        match index % 3 {
            0 => replica.put(b"k", &index.to_le_bytes(), Condition::None),
            1 => replica.put(b"k", b"", Condition::Absent),
            _ => replica.delete(b"missing", Condition::None),
        };
        if index % CHECKPOINT_INTERVAL == 0 {
            expected.push(Checkpoint { index: Index(index), hash: replica.state.hash() });
        }
    }
    let kept: Vec<Checkpoint> = replica.state.checkpoints().collect();
    assert_eq!(kept, expected[2..]);
}

// rule 20
#[test]
fn a_byte_that_goes_wrong_comes_to_light_when_its_key_is_written_again() {
    let mut replicas = [Replica::default(), Replica::default()];
    for replica in &mut replicas {
        replica.put(b"k", b"right", Condition::None);
        replica.put(b"other", b"value", Condition::None);
    }
    let [good, bad] = &mut replicas;
    assert!(bad.state.flip_byte(b"k") && !bad.state.flip_byte(b"missing"));
    assert_ne!(bad.value(b"k"), good.value(b"k"));
    bad.put(b"other", b"newer", Condition::None);
    good.put(b"other", b"newer", Condition::None);
    assert_eq!(bad.state.hash(), good.state.hash(), "nobody has looked at the key");
    bad.put(b"k", b"newer", Condition::None);
    good.put(b"k", b"newer", Condition::None);
    assert_eq!(bad.value(b"k"), good.value(b"k"));
    assert_ne!(bad.state.hash(), good.state.hash(), "and it stays so");
}

proptest! {
    // museum 54
    #[test]
    fn no_committed_entry_panics_apply(bodies in prop::collection::vec(random_body(), 1..8)) {
        let mut replicas = [Replica::default(), Replica::default()];
        for body in bodies {
            let before = (replicas[0].state.applied(), replicas[0].state.hash());
            let [one, two] = replicas.each_mut().map(|r| r.apply_body(EntryKind::Command, body.clone()));
            prop_assert_eq!(&one, &two);
            prop_assert_eq!(replicas[0].state.hash(), replicas[1].state.hash());
            if one.is_err() {
                prop_assert_eq!((replicas[0].state.applied(), replicas[0].state.hash()), before);
            }
        }
    }
}
