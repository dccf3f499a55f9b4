use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Condition, Consistency};
use raftkv_protocol::types::Index;

use raftkv_nc::arguments::HELP;

use super::command::{Command, Scan, ShowVersion, parse};
use super::words;

fn read(line: &str) -> Result<Command, String> {
    parse(words::split(line.as_bytes()).unwrap())
}

#[test]
fn every_command_is_understood() {
    let (key, value) = (b"k".to_vec(), b"v w".to_vec());
    let put = |condition| Command::Put { key: key.clone(), value: value.clone(), condition };
    assert_eq!(read(r#"put k "v w""#), Ok(put(Condition::None)));
    assert_eq!(read(r#"put k "v w" --if-version 7"#), Ok(put(Condition::Version(Index(7)))));
    assert_eq!(read(r#"put k "v w" --if-absent"#), Ok(put(Condition::Absent)));
    let get = |consistency, version| Command::Get { key: key.clone(), consistency, version };
    assert_eq!(read("get k"), Ok(get(Consistency::Linearizable, ShowVersion::No)));
    assert_eq!(read("get k --stale --version"), Ok(get(Consistency::Stale, ShowVersion::Yes)));
    assert_eq!(read("del k --if-exists"), Ok(Command::Delete { key, condition: Condition::Exists }));
    assert_eq!(read("scan"), Ok(Command::Scan(Scan::default())));
    let scan = Scan {
        prefix: b"a".to_vec(),
        start: b"ab".to_vec(),
        end: b"ac".to_vec(),
        cursor: b"abc".to_vec(),
        limit: Some(3),
        reverse: true,
        consistency: Consistency::Lease,
    };
    let line = "scan --start ab --end ac a --cursor abc --limit 3 --reverse --lease";
    assert_eq!(read(line), Ok(Command::Scan(scan)));
    assert_eq!(read("raw 00 ff 1 a"), Ok(Command::Raw(vec![0, 255, 26])));
    for (line, command) in [
        ("slots", Command::Slots),
        ("status", Command::Status),
        ("ping", Command::Ping),
        ("snapshot", Command::Snapshot),
        ("help", Command::Help),
    ] {
        assert_eq!(read(line), Ok(command));
    }
}

#[test]
fn the_operations_of_a_batch_follow_each_other() {
    let version = Condition::Version(Index(7));
    let operations = [
        BatchOperation { key: b"{t}a", condition: Condition::Absent, change: Change::Put(b"1") },
        BatchOperation { key: b"del", condition: Condition::None, change: Change::Delete },
        BatchOperation { key: b"put", condition: version, change: Change::Delete },
        BatchOperation { key: b"{t}c", condition: Condition::None, change: Change::Put(b"") },
    ];
    let mut batch = BatchBuffer::default();
    operations.iter().for_each(|operation| batch.push(operation).unwrap());
    let line = r#"batch put {t}a 1 --if-absent del del delete put --if-version 7 put {t}c "" "#;
    assert_eq!(read(line), Ok(Command::Batch(batch)));
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (line, reason) in [
        ("batch", "an operation is missing"),
        ("batch get k", "no operation of a batch"),
        ("batch put k", "a value is missing"),
        ("batch del k v", "no operation of a batch"),
        ("batch put k v --if-exists --if-absent", "one condition"),
        ("batch put k v --fresh", "unknown option"),
        ("put k v w", "does not belong"),
        ("", "a command is missing"),
        ("frobnicate", "unknown command"),
        ("put k", "a value is missing"),
        ("get", "a key is missing"),
        ("put k v --if-version x", "not a version"),
        ("put k v --if-exists --if-absent", "one condition"),
        ("get k --fresh", "unknown option"),
        ("scan a b", "does not belong"),
        ("scan --limit many", "not a number"),
        ("ping pong", "does not belong"),
        ("snapshot data/node1", "does not belong"),
        ("raw 0", "whole number of bytes"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
    let long = "k".repeat(70_000);
    assert!(read(&format!("get {long}")).unwrap_err().contains("does not fit"));
}

#[test]
fn help_names_every_command() {
    for name in ["put", "get", "del", "batch", "scan", "slots", "status", "ping", "snapshot", "raw", "help"] {
        assert!(HELP.contains(&format!("\n  {name}")), "{name}");
    }
}

#[test]
fn help_fits_a_terminal_of_80_columns() {
    for line in HELP.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
