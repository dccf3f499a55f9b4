use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use raftkv_protocol::types::{ClusterId, CoreId, NodeId, ShardId};
use tempfile::TempDir;

use super::text_file;
use super::{DataDir, Identity, ShardDamage, recorded_damage};

const WHAT: &str = "the log is corrupt: data/node1/logs/core-0/segment-0000000000000002.log at offset 24632: a record's \
                    checksum does not match (entry 2@1 of shard 2)";

fn identity(cores: u16) -> Identity {
    Identity {
        cluster: ClusterId(0xabc),
        cluster_name: "raftkv".into(),
        members: vec![(NodeId(1), "a:7001".into()), (NodeId(2), "b:7001".into())],
        shards: 12,
        node: NodeId(1),
        cores,
    }
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(path: &Path) -> DataDir {
    DataDir::open(path, &identity(2)).expect("opens")
}

fn refusal(path: &Path) -> String {
    let error = DataDir::open(path, &identity(2)).expect_err("refused");
    assert_eq!(error.exit_code(), 1);
    let line = error.to_string();
    assert_eq!(recorded_damage(path).expect_err("refused").to_string(), line);
    line.replace(&path.display().to_string(), "DIR")
}

fn found(since_s: u64, what: &str) -> ShardDamage {
    ShardDamage { since_s, what: what.into() }
}

// museum 42
#[test]
fn damage_is_remembered_until_each_shard_is_healed() {
    let temp = temp();
    let mut dir = open(temp.path());
    assert!(dir.damage().is_empty());
    dir.mark_damaged(&[ShardId(0), ShardId(10)], WHAT, 1_795_908_318).expect("writes");
    dir.mark_damaged(&[ShardId(3)], "two\nlines", 1_795_908_320).expect("writes");
    let mut expected = BTreeMap::from([
        (ShardId(0), found(1_795_908_318, WHAT)),
        (ShardId(3), found(1_795_908_320, "two lines")),
        (ShardId(10), found(1_795_908_318, WHAT)),
    ]);
    assert_eq!(recorded_damage(temp.path()).expect("it is in use"), expected);
    for shard in [10, 0, 3].map(ShardId) {
        drop(dir);
        dir = open(temp.path());
        assert_eq!(dir.damage(), &expected, "a start finds it again");
        dir.mark_healed(shard).expect("writes");
        dir.mark_healed(ShardId(11)).expect("it was not damaged");
        expected.remove(&shard);
        assert_eq!(recorded_damage(temp.path()).expect("it is in use"), expected);
    }
    assert!(!temp.path().join("damage").exists());
    drop(dir);
    assert!(open(temp.path()).damage().is_empty());
}

/// Wherever a crash cuts off the way from a damaged log to a salvaged one, the next start knows of the damage before it
/// could find a log without it.
// museum 29, museum 42
#[test]
fn the_damage_is_known_before_the_log_is_let_go() {
    type CutOff = fn(&Path);
    let cut_off: [(&str, CutOff); 4] = [
        ("before the first rename", |_| ()),
        ("between the renames", |path| fs::rename(path.join("logs"), path.join("logs-old")).expect("renames")),
        ("before the old logs were removed", |path| {
            fs::rename(path.join("logs"), path.join("logs-old")).expect("renames");
            fs::rename(path.join("logs-next"), path.join("logs")).expect("renames");
        }),
        ("before the mark of the switch was", |path| {
            fs::remove_dir_all(path.join("logs")).expect("removes");
            fs::rename(path.join("logs-next"), path.join("logs")).expect("renames");
        }),
    ];
    let is_new = |dir: &DataDir| dir.log_dir(CoreId(0)).join("new").exists();
    for (when, cut_off) in cut_off {
        let temp = temp();
        let mut dir = open(temp.path());
        for core in [0, 1].map(CoreId) {
            fs::write(dir.next_log_dir(core).expect("a directory").join("new"), "").expect("writes");
        }
        dir.mark_damaged(&[ShardId(0)], WHAT, 1).expect("writes");
        dir.decide_switch(2).expect("decides");
        drop(dir);
        cut_off(temp.path());
        let again = open(temp.path());
        assert!(is_new(&again) && again.damage().contains_key(&ShardId(0)), "{when}");
    }
    let temp = temp();
    let mut dir = open(temp.path());
    fs::write(dir.next_log_dir(CoreId(0)).expect("a directory").join("new"), "").expect("writes");
    dir.mark_damaged(&[ShardId(0)], WHAT, 1).expect("writes");
    drop(dir);
    let again = open(temp.path());
    assert!(!is_new(&again) && again.damage().contains_key(&ShardId(0)), "not decided");
}

#[test]
fn a_mark_that_cannot_be_written_is_an_error() {
    let temp = temp();
    let mut dir = open(temp.path());
    fs::create_dir(temp.path().join("damage.tmp")).expect("is in the way");
    let error = dir.mark_damaged(&[ShardId(0)], WHAT, 1).expect_err("cannot be written");
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert!(dir.damage().is_empty());
}

#[test]
fn a_mark_that_is_itself_damaged_is_refused() {
    let temp = temp();
    open(temp.path()).mark_damaged(&[ShardId(0), ShardId(4)], WHAT, 7).expect("writes");
    let file = temp.path().join("damage");
    let good = fs::read(&file).expect("reads");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&file, &bad).expect("writes");
        let line = refusal(temp.path());
        assert!(line.starts_with("DIR/damage is damaged (") || line.contains("has format version"), "{at}: {line}");
    }
    for length in 0..good.len() {
        fs::write(&file, &good[..length]).expect("writes");
        assert!(refusal(temp.path()).starts_with("DIR/damage is damaged ("), "{length} bytes");
    }
    for (name, value) in [("shard-x", "1 what"), ("shard-0", "yesterday what"), ("shard-0", "1")] {
        let fields = [(name.to_owned(), value.to_owned())].into();
        text_file::write(&file, "damage", &fields).expect("writes");
        let line = refusal(temp.path());
        assert!(line.starts_with(&format!("DIR/damage is damaged (`{name} = {value}` makes no sense)")), "{line}");
    }
    let newer = String::from_utf8(good).expect("text").replacen("damage 1", "damage 2", 1);
    fs::write(&file, newer).expect("writes");
    assert_eq!(
        refusal(temp.path()),
        "DIR/damage has format version 2, this server knows up to 1: start the version that wrote it"
    );
}

#[test]
fn the_mark_is_a_format() {
    let golden = include_str!("testdata/damage.txt");
    let temp = temp();
    let mut dir = open(temp.path());
    dir.mark_damaged(&[ShardId(0), ShardId(2)], WHAT, 1_795_908_318).expect("writes");
    let file = temp.path().join("damage");
    assert_eq!(fs::read_to_string(&file).expect("reads"), golden);
    drop(dir);
    // A field that a later version may add.
    let mut fields = text_file::parse("damage", golden).expect("parses");
    fields.insert("told".into(), "nobody".into());
    text_file::write(&file, "damage", &fields).expect("writes");
    assert_eq!(open(temp.path()).damage().keys().copied().collect::<Vec<_>>(), [ShardId(0), ShardId(2)]);
}
