//! `raftkv-nc log DIR` on logs that the storage layer wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};

use raftkv::state_machine::encode_put;
use raftkv::storage::{CoreLog, FileLog, Options};
use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{EntryId, EntryKind, ShardId, SnapshotId};

mod support;

fn log(dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftkv-nc")).arg("log").arg(dir).output().unwrap()
}

fn printed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", std::str::from_utf8(&output.stderr).unwrap());
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn every_record_is_printed_while_the_log_is_open_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let core = dir.path().join("logs/core-0");
    let open = support::written_log(&core, ShardId(5));
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

/// A core's log of which the first segments were let go: the first shard was compacted as it went, the second was reset
/// and its only entry copied forward.
fn compacted_log(dir: &Path, compacted: ShardId, reset: ShardId) -> FileLog {
    let (wake, woken) = mpsc::channel();
    let wake = Arc::new(move || {
        // Nobody listens any more once everything is durable.
        let _ = wake.send(());
    });
    let options = Options { segment_size: 64 << 10, ..Options::new(dir, vec![compacted, reset], wake) };
    let (mut log, _) = FileLog::open(options).unwrap();
    log.reset(reset, EntryId::new(9, 1), SnapshotId(0xabc));
    log.append(reset, &mut vec![support::entry(10, EntryKind::Noop, |_| ())]);
    for index in 1..=9 {
        let put = |out: &mut Vec<u8>| encode_put(b"key", &[7; 30_000], Condition::None, out);
        log.append(compacted, &mut vec![support::entry(index, EntryKind::Command, put)]);
        support::settle(&mut log, &woken);
        if index == 4 {
            log.copy_forward(reset);
        }
        if index > 1 {
            log.compact(compacted, EntryId::new(index - 1, 2), SnapshotId(0xdef));
        }
    }
    while log.stats().oldest_segment < 3 {
        woken.recv_timeout(support::PATIENCE).unwrap();
        log.flush();
    }
    log
}

/// A log whose first segments were let go, and which holds a reset and copies.
#[test]
fn a_log_that_has_lost_its_first_segments_is_printed_from_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    compacted_log(dir.path(), ShardId(5), ShardId(6)).close().unwrap();
    let output = log(dir.path());
    let first = printed(&output).lines().next().unwrap();
    assert!(first.starts_with("segment ") && first.contains(" after segment "), "{first}");
    for part in [
        "shard 6 copy of entry 10@2 no-op\n",
        "shard 6 copied: the entries 10 to 10 are their copies now\n",
        " snapshot 0000000000000def\n",
        " start 9@1 last 10@2 snapshot 0000000000000abc\n",
        ": the next segment goes on from here\n",
    ] {
        assert!(printed(&output).contains(part), "{part} in\n{}", printed(&output));
    }
    assert!(!printed(&output).contains("segment-0000000000000001.log"), "{}", printed(&output));
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

/// What a start refuses is not shown as if it were all.
#[test]
fn a_log_of_which_something_is_missing_or_damaged_is_printed_and_ends_as_failed() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 3] = [
        ("it is missing, and so are all up to segment ", |segment| fs::remove_file(segment).unwrap()),
        ("a record's checksum does not match", |segment| flip(segment, 4096 + 56 + 20)),
        ("the segment's header is damaged", |segment| flip(segment, 20)),
    ];
    for (what, spoil) in spoils {
        let dir = tempfile::tempdir().unwrap();
        compacted_log(dir.path(), ShardId(5), ShardId(6)).close().unwrap();
        let mut segments: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
        segments.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("segment-"));
        segments.sort();
        assert!(segments.len() >= 3, "{segments:?}");
        spoil(&segments[1]);
        let output = log(dir.path());
        let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{printed}");
        let damaged: Vec<&str> = printed.lines().filter(|line| line.starts_with("DAMAGED, end of ")).collect();
        assert!(damaged.len() == 1 && damaged[0].contains(segments[1].to_str().unwrap()), "{damaged:?}");
        assert!(damaged[0].contains(what), "{damaged:?}");
        assert!(complaint.contains(": 1 spots of the log are DAMAGED; "), "{complaint}");
        assert!(printed.contains(&format!(" {} ", segments[2].display())), "the rest is printed too");
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}
