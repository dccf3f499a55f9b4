//! `raftkv-nc log DIR` on logs that the storage layer wrote.

use std::path::Path;
use std::process::{Command, Output};

use raftkv_protocol::types::ShardId;

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
