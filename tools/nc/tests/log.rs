//! `raftkv-nc log DIR` on logs that the storage layer wrote.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use raftkv::state_machine::{encode_delete, encode_put};
use raftkv::storage::{CoreLog, FileLog, Options};
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, NodeId, ShardId, Term};

fn log(dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftkv-nc")).arg("log").arg(dir).output().unwrap()
}

fn printed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", std::str::from_utf8(&output.stderr).unwrap());
    std::str::from_utf8(&output.stdout).unwrap()
}

fn entry(index: u64, kind: EntryKind, encode: impl FnOnce(&mut Vec<u8>)) -> Entry {
    let mut body = Vec::new();
    encode(&mut body);
    Entry { id: EntryId::new(index, 2), kind, body: body.into() }
}

/// The log of shard 5, with a vote, a no-op, a put and a delete in it, all durable; it is open still.
fn written_log(dir: &Path) -> FileLog {
    let (wake, woken) = mpsc::channel();
    let wake = Arc::new(move || {
        // Nobody listens any more once everything is durable.
        let _ = wake.send(());
    });
    let options = Options { segment_size: 64 << 10, ..Options::new(dir, vec![ShardId(5)], wake) };
    let (mut log, _) = FileLog::open(options).unwrap();
    log.set_hard_state(ShardId(5), HardState { term: Term(2), vote: Some(NodeId(1)) });
    let mut entries = vec![
        entry(1, EntryKind::Noop, |_| ()),
        entry(2, EntryKind::Command, |out| encode_put(b"greeting", b"hello", Condition::None, out)),
        entry(3, EntryKind::Command, |out| encode_delete(b"greeting", Condition::Exists, out)),
    ];
    log.append(ShardId(5), &mut entries);
    let last = log.last_batch();
    log.flush();
    while log.durable().unwrap() < last {
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
        log.flush();
    }
    log
}

#[test]
fn every_record_is_printed_while_the_log_is_open_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let core = dir.path().join("logs/core-0");
    let open = written_log(&core);
    let output = log(dir.path());
    for part in [
        "segment 1 ",
        " the first\n",
        "  batch 1 at 4096 ",
        "shard 5 hard state term 2 vote 1\n",
        "shard 5 entry 1@2 no-op\n",
        "shard 5 entry 2@2 put \"greeting\" (5 bytes)",
        "shard 5 entry 3@2 delete \"greeting\"",
        ": no batch follows\n",
    ] {
        assert!(printed(&output).contains(part), "{part} in\n{}", printed(&output));
    }
    open.close().unwrap();
    let after = log(&core);
    let entries = |output| printed(output).lines().filter(|line| line.contains(" entry ")).map(str::to_owned);
    assert_eq!(entries(&output).collect::<Vec<_>>(), entries(&after).collect::<Vec<_>>());
}

#[test]
fn a_directory_without_a_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let output = log(&path);
        assert_eq!(output.status.code(), Some(1));
        let complaint = std::str::from_utf8(&output.stderr).unwrap();
        assert!(complaint.contains(path.to_str().unwrap()), "{complaint}");
    }
    let usage = Command::new(env!("CARGO_BIN_EXE_raftkv-nc")).arg("log").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
