use proptest::prelude::*;
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::Index;

use super::command::{
    Change, Command, CommandError, InvalidBatch, Operation, Session, describe, encode_batch, encode_delete,
    encode_head, encode_operation, encode_put,
};

/// `name = hex` lines; added to, never edited: committed logs hold these bytes.
const GOLDEN: &str = include_str!("testdata/commands.hex");

fn put<'a>(key: &'a [u8], value: &'a [u8], condition: Condition) -> Operation<'a> {
    Operation { key, condition, change: Change::Put(value) }
}

fn delete(key: &[u8], condition: Condition) -> Operation<'_> {
    Operation { key, condition, change: Change::Delete }
}

fn encode(session: Option<Session>, operations: &[Operation<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_head(session, operations.len() as u16, &mut out);
    operations.iter().for_each(|operation| encode_operation(operation, &mut out));
    out
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

// rule 19
#[test]
fn every_variant_has_its_golden_bytes() {
    let version = Condition::Version(Index(0x0102));
    let session = Some(Session { client: 0x0a, serial: 0x0b });
    let cases: [(&str, Option<Session>, Vec<Operation<'_>>); 9] = [
        ("put", None, vec![put(b"key", b"value", Condition::None)]),
        ("put_empty_value", None, vec![put(b"k", b"", Condition::None)]),
        ("put_if_version", None, vec![put(b"k", b"v", version)]),
        ("put_if_exists", None, vec![put(b"k", b"v", Condition::Exists)]),
        ("put_if_absent", None, vec![put(b"k", b"v", Condition::Absent)]),
        ("delete", None, vec![delete(b"key", Condition::None)]),
        ("delete_if_version", None, vec![delete(b"k", version)]),
        ("batch", None, vec![put(b"a", b"1", Condition::None), delete(b"b", Condition::Exists)]),
        ("put_in_session", session, vec![put(b"k", b"v", Condition::None)]),
    ];
    let golden: Vec<(&str, Vec<u8>)> = GOLDEN
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" = ").expect("name = hex"))
        .map(|(name, hex)| (name, unhex(hex)))
        .collect();
    assert_eq!(golden.len(), cases.len());
    for ((name, session, operations), (golden_name, bytes)) in cases.iter().zip(&golden) {
        assert_eq!(name, golden_name);
        assert_eq!(&encode(*session, operations), bytes, "{name}");
        let command = Command::decode(bytes).expect(name);
        assert_eq!(command.session(), *session, "{name}");
        assert_eq!(&command.operations().collect::<Vec<_>>(), operations, "{name}");
    }
}

#[test]
fn the_short_cuts_encode_the_same_commands() {
    let mut out = b"before".to_vec();
    encode_put(b"k", b"v", Condition::Absent, &mut out);
    assert_eq!(out.strip_prefix(b"before"), Some(&encode(None, &[put(b"k", b"v", Condition::Absent)])[..]));
    out.clear();
    encode_delete(b"k", Condition::None, &mut out);
    assert_eq!(out, encode(None, &[delete(b"k", Condition::None)]));
    out.clear();
    let batch = [put(b"a", b"", Condition::None), put(b"b", b"", Condition::None)];
    assert_eq!(encode_batch(batch.iter().copied(), &mut out), Ok(()));
    assert_eq!(out, encode(None, &batch));
}

// rule 18
#[test]
fn a_batch_needs_operations_on_different_keys() {
    let mut out = Vec::new();
    let twice = [put(b"a", b"1", Condition::None), delete(b"b", Condition::None), delete(b"a", Condition::None)];
    assert_eq!(encode_batch(twice.iter().copied(), &mut out), Err(InvalidBatch));
    assert_eq!(encode_batch([].into_iter(), &mut out), Err(InvalidBatch));
    let keys: Vec<[u8; 4]> = (0..=u32::from(u16::MAX)).map(u32::to_be_bytes).collect();
    let many: Vec<Operation<'_>> = keys.iter().map(|key| delete(key, Condition::None)).collect();
    assert_eq!(encode_batch(many.iter().copied(), &mut out), Err(InvalidBatch));
    assert!(out.is_empty());
    assert_eq!(encode_batch(many[1..].iter().copied(), &mut out), Ok(()));
}

#[test]
fn what_is_unknown_is_named() {
    let good = encode(None, &[put(b"k", b"v", Condition::None)]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Command::decode(&bytes).expect_err("unknown")
    };
    assert_eq!(with(0, 2), CommandError::Version(2));
    assert_eq!(with(1, 0b110), CommandError::Flags(0b110));
    assert_eq!(with(2, 0), CommandError::Empty);
    assert_eq!(with(2, 2), CommandError::Short);
    assert_eq!(with(4, 3), CommandError::Kind(3));
    assert_eq!(with(5, 4), CommandError::Condition(4));
    let mut long = good.clone();
    long.push(0);
    assert_eq!(Command::decode(&long).expect_err("long"), CommandError::Long);
}

#[test]
fn every_beginning_of_a_command_is_too_short() {
    let session = Some(Session { client: 1, serial: 2 });
    let bytes = encode(session, &[put(b"k", b"v", Condition::Version(Index(3))), delete(b"l", Condition::None)]);
    for len in 0..bytes.len() {
        assert_eq!(Command::decode(&bytes[..len]).expect_err("short"), CommandError::Short, "{len} bytes");
    }
}

#[test]
fn describes_commands_for_people() {
    let text = |operations: &[Operation<'_>]| describe(&encode(None, operations));
    assert_eq!(text(&[put(b"k", &[0; 128], Condition::None)]), r#"put "k" (128 bytes)"#);
    assert_eq!(text(&[put(b"\xff\"", b"", Condition::Absent)]), r#"put "\xff\"" (0 bytes) if absent"#);
    assert_eq!(text(&[delete(b"k", Condition::Version(Index(7)))]), r#"delete "k" if version 7"#);
    assert_eq!(
        text(&[put(b"a", b"1", Condition::None), delete(b"b", Condition::Exists)]),
        r#"batch of 2: put "a" (1 bytes), delete "b" if it exists"#
    );
    let many = [b"a", b"b", b"c", b"d", b"e"].map(|key| delete(key, Condition::None));
    assert_eq!(text(&many), r#"batch of 5: delete "a", delete "b", delete "c", delete "d", …"#);
    assert_eq!(text(&[delete(&[b'x'; 65], Condition::None)]), format!("delete \"{}…\"", "x".repeat(64)));
    let session = Session { client: 0xabc, serial: 9 };
    assert_eq!(
        describe(&encode(Some(session), &[delete(b"k", Condition::None)])),
        r#"delete "k" by client 0000000000000abc serial 9"#
    );
    assert_eq!(describe(b""), "unreadable command: it ends too early");
    assert_eq!(describe(&[9]), "unreadable command: format version 9 is unknown to this server");
}

proptest! {
    #[test]
    fn decoding_random_bytes_never_panics(bytes in random_body()) {
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert!(command.operations().count() > 0);
        }
        prop_assert!(!describe(&bytes).is_empty());
    }
}

/// Bytes that often get past the first checks.
pub fn random_body() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..64);
    let small = prop::collection::vec(0..4u8, 0..64);
    let headed = (0..3u8, 0..4u8, small.clone()).prop_map(|(flags, count, rest)| {
        let mut bytes = vec![1, flags, count, 0];
        bytes.extend(rest);
        bytes
    });
    let damaged = (any::<prop::sample::Index>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(at, byte, key)| {
            let mut bytes = encode(None, &[put(&key, &key, Condition::Exists), delete(&key, Condition::None)]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        },
    );
    prop_oneof![noise, small, headed, damaged]
}
