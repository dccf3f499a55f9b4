//! `raftkv-nc snapshot` and `raftkv-nc check` on directories that the storage layer wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::SystemTime;

use raftkv::state_machine::state_hash::{FORMAT, ItemsHash};
use raftkv::storage::data_dir::{DataDir, Identity};
use raftkv::storage::disk::{LogIo, RealDisk};
use raftkv::storage::snapshot::{Item, SnapshotStore, snapshot_name};
use raftkv_protocol::types::{ClusterId, CoreId, EntryId, Incarnation, Index, NodeId, ShardId};
use tempfile::TempDir;

mod support;

fn nc(words: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftkv-nc")).arg(words[0]).arg(path).args(&words[1..]).output().unwrap()
}

/// What it printed, and what it complained about, when it ended with this code.
fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
    let (printed, complaint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{printed}{complaint}");
    (printed, complaint)
}

/// Takes a snapshot of these keys. `hash` makes what it says of the state's hash of what that is.
fn take(dir: &Path, shard: u16, at: EntryId, keys: &[&str], hash: impl FnOnce(u128) -> u128) -> PathBuf {
    let disk = RealDisk::create(dir, LogIo::default()).unwrap();
    let store = SnapshotStore::open(Arc::new(disk), ShardId(shard)).unwrap();
    let mut writer = store.create(at, FORMAT, b"voters").unwrap();
    let mut sum = ItemsHash::default();
    for (key, version) in keys.iter().zip(1..) {
        let item = Item { key: key.as_bytes(), version: Index(version), value: b"a value" };
        sum.add(item.key, item.version, item.value);
        writer.push(item).unwrap();
    }
    writer.finish(hash(sum.value()), vec![(Index(1024), 0xabc)]).unwrap();
    dir.join(snapshot_name(at))
}

/// A node's data directory, in use: two logs, and snapshots of two shards.
fn data_dir() -> (TempDir, DataDir, Vec<PathBuf>) {
    let temp = tempfile::tempdir().unwrap();
    let identity = Identity {
        cluster: ClusterId(0xabc),
        cluster_name: "raftkv".into(),
        members: vec![(NodeId(1), "a:7001".into()), (NodeId(2), "b:7001".into())],
        shards: 4,
        node: NodeId(1),
        cores: 2,
    };
    let mut dir = DataDir::open(temp.path(), &identity).unwrap();
    dir.record_peer(NodeId(2), Incarnation(7)).unwrap();
    for core in 0..2 {
        support::written_log(&dir.log_dir(CoreId(core)), ShardId(core)).close().unwrap();
    }
    dir.logs_have_begun().unwrap();
    let snapshots = [(0, EntryId::new(9, 2)), (3, EntryId::new(7, 1)), (3, EntryId::new(8, 2))];
    let take =
        |(shard, at)| take(&dir.snapshot_dir(ShardId(shard)), shard, at, &["a", "key of three words"], |hash| hash);
    let files = snapshots.map(take).to_vec();
    (temp, dir, files)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_snapshot_is_printed_with_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = take(dir.path(), 3, EntryId::new(500, 7), &["a", "key of three words"], |hash| hash);
    let (printed, _) = ended(&nc(&["snapshot"], &file), 0);
    for part in [
        &*format!("snapshot {} {} bytes\n", file.display(), fs::metadata(&file).unwrap().len()),
        "  shard 3 as of 500@7 id ",
        " format 1, raftkv state 1, configuration 6 bytes\n",
        "  hash after 1024: 00000000000000000000000000000abc\n",
        "  2 keys, 33 bytes of keys and values, hash ",
        ": all of it is right\n",
    ] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
    assert!(!printed.contains("a value"));
    let (printed, _) = ended(&nc(&["snapshot", "--items"], &file), 0);
    assert!(printed.contains("\n    a @1 \"a value\"\n    \"key of three words\" @2 \"a value\"\n"), "{printed}");
}

#[test]
fn all_snapshots_of_a_directory_are_printed_and_the_damaged_one_is_named() {
    let (temp, _in_use, files) = data_dir();
    let (printed, _) = ended(&nc(&["snapshot"], temp.path()), 0);
    let order: Vec<usize> = files.iter().map(|file| printed.find(file.to_str().unwrap()).unwrap()).collect();
    assert!(order.is_sorted(), "{printed}");
    flip(&files[1], 100);
    for dir in [temp.path(), files[1].parent().unwrap()] {
        let (printed, complaint) = ended(&nc(&["snapshot"], dir), 1);
        assert!(complaint.contains(&format!("{} at offset ", files[1].display())), "{complaint}");
        assert!(printed.contains(&format!("snapshot {}", files[2].display())), "the others are printed: {printed}");
    }
}

#[test]
fn a_hash_that_the_items_do_not_make_up_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = take(dir.path(), 3, EntryId::new(500, 7), &["a"], |hash| hash + 1);
    let (_, complaint) = ended(&nc(&["snapshot"], &file), 1);
    assert!(complaint.contains("its items make up the state hash"), "{complaint}");
}

#[test]
fn what_is_no_snapshot_is_refused_and_bad_usage_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "these are some notes, and no snapshot").unwrap();
    for path in [dir.path().to_owned(), dir.path().join("missing"), text] {
        let (printed, complaint) = ended(&nc(&["snapshot"], &path), 1);
        assert!(printed.is_empty() && complaint.contains(path.to_str().unwrap()), "{complaint}");
    }
    for words in [&["snapshot", "more", "words"][..], &["check", "more"]] {
        ended(&nc(words, dir.path()), 2);
    }
}

#[test]
fn a_right_directory_passes_the_check() {
    let (temp, _in_use, files) = data_dir();
    let (printed, _) = ended(&nc(&["check"], temp.path()), 0);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2 + 2 + files.len(), "{printed}");
    assert!(lines.iter().all(|line| line.contains(": right: ")), "{printed}");
    for part in [
        "/identity: right: node 1 of cluster 00000000000000000000000000000abc, shards 4, cores 2, incarnation ",
        "/peers: right: 1 on record",
        "/logs/core-1: right: shards 1, entries 3",
        ".snap: right: as of 8@2, 2 keys, hash ",
    ] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
}

#[test]
fn the_check_tells_what_is_being_repaired() {
    let (temp, mut in_use, _) = data_dir();
    in_use.mark_damaged(&[ShardId(0), ShardId(2)], "the log is corrupt: somewhere", 1_795_908_318).unwrap();
    let (printed, _) = ended(&nc(&["check"], temp.path()), 0);
    let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("damage ")).collect();
    let line = |shard: u16| {
        let file = temp.path().join("damage");
        let found = "is being repaired, found 1795908318 s after 1970: the log is corrupt: somewhere";
        format!("damage {}: right: shard {shard} {found}", file.display())
    };
    assert_eq!(lines, [line(0), line(2)]);
    flip(&temp.path().join("damage"), 20);
    let (printed, _) = ended(&nc(&["check"], temp.path()), 1);
    assert!(printed.contains("/damage: DAMAGED: ") && printed.contains("its checksum is wrong"), "{printed}");
}

#[test]
fn the_check_names_bytes_that_changed_where_nothing_is_lost() {
    let (temp, _in_use, _) = data_dir();
    let segment = temp.path().join("logs/core-0/segment-0000000000000001.log");
    flip(&segment, 200);
    let named = format!("BLEMISH: {} at offset 200: there should be zeros", segment.display());
    let (printed, complaint) = ended(&nc(&["check"], temp.path()), 1);
    assert!(printed.contains(&named) && !printed.contains("DAMAGED"), "{printed}");
    assert!(complaint.contains(": 1 spots are not what was written; nothing is lost there"), "{complaint}");
    let (printed, _) = ended(&nc(&["log"], temp.path()), 0);
    assert!(printed.contains(&named), "{printed}");
}

#[test]
fn the_check_names_every_part_that_is_damaged() {
    let (temp, _in_use, files) = data_dir();
    let path = |name: &str| temp.path().join(name);
    let segment = path("logs/core-0/segment-0000000000000001.log");
    type Spoil = fn(&Path);
    let damage: [(PathBuf, Spoil); 4] = [
        (path("identity"), |file| flip(file, 30)),
        (path("peers"), |file| fs::write(file, "raftkv peers 1\n").unwrap()),
        (segment, |file| flip(file, 20)),
        (files[2].clone(), |file| flip(file, 150)),
    ];
    for (file, spoil) in &damage {
        let before = fs::read(file).unwrap();
        spoil(file);
        let (printed, complaint) = ended(&nc(&["check"], temp.path()), 1);
        let bad: Vec<&str> = printed.lines().filter(|line| line.contains(": DAMAGED: ")).collect();
        assert!(bad.len() == 1 && bad[0].contains(file.to_str().unwrap()), "{}:\n{printed}", file.display());
        assert!(complaint.contains(": 1 of 7 parts are damaged"), "{complaint}");
        fs::write(file, before).unwrap();
    }
    fs::remove_dir_all(path("logs/core-1")).unwrap();
    let (printed, _) = ended(&nc(&["check"], temp.path()), 1);
    assert!(printed.contains("logs/core-1: DAMAGED: the log is gone"), "{printed}");
    let (printed, _) = ended(&nc(&["check"], &path("nowhere")), 1);
    assert!(printed.contains("nowhere/identity: DAMAGED: it is missing"), "{printed}");
}

/// Names, bytes, and when each was changed, of every file below a directory.
fn files_below(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let changed = entry.metadata().unwrap().modified().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
            files.insert(entry.path(), (Vec::new(), changed));
        } else {
            files.insert(entry.path(), (fs::read(entry.path()).unwrap(), changed));
        }
    }
    files
}

#[test]
fn whoever_looks_changes_nothing() {
    let (temp, _in_use, files) = data_dir();
    // Also where something is to be mended or removed at the next start.
    flip(&files[0], 150);
    let unfinished = files[0].with_file_name("writing-0000000000000001.snap");
    for left in [temp.path().join("logs/core-0/allocating-0000000000000001.log"), unfinished] {
        fs::write(left, "half of something").unwrap();
    }
    let before = files_below(temp.path());
    for words in [&["check"][..], &["log"], &["snapshot"]] {
        assert!(nc(words, temp.path()).status.code().is_some());
        assert!(files_below(temp.path()) == before, "{words:?}");
    }
}
