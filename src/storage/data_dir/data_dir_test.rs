use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId, ShardId};
use tempfile::TempDir;

use super::text_file::{self, ParseError};
use super::{DataDir, Identity, PeerCheck, RecordedIdentity, recorded_cores, recorded_identity, recorded_peers};

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0xabc),
        cluster_name: "raftkv".into(),
        members: vec![(NodeId(1), "a:7001".into()), (NodeId(2), "b:7001".into())],
        shards: 12,
        node: NodeId(1),
        cores: 2,
    }
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(path: &Path) -> DataDir {
    DataDir::open(path, &identity()).expect("opens")
}

/// The one line with which opening is refused, without the directory's own name.
fn refusal(path: &Path, identity: &Identity) -> String {
    let error = DataDir::open(path, identity).expect_err("refused");
    assert_eq!(error.exit_code(), 1);
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line.replace(&path.display().to_string(), "DIR")
}

fn edit(file: &Path, edit: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(file).expect("reads");
    fs::write(file, edit(text)).expect("writes");
}

#[test]
fn a_directory_keeps_what_it_was_born_with() {
    let temp = temp();
    let path = temp.path().join("not/there/yet");
    assert_eq!(recorded_cores(&path).expect("nothing there"), None);
    let born = open(&path);
    assert!(born.is_new());
    let incarnation = born.incarnation();
    drop(born);
    let again = open(&path);
    assert!(!again.is_new());
    assert_eq!(again.incarnation(), incarnation);
    assert_eq!(recorded_cores(&path).expect("reads"), Some(2));
}

/// As on a full disk.
#[test]
fn what_could_not_be_put_on_record_does_not_count_and_may_be_tried_again() {
    let temp = temp();
    let mut dir = open(temp.path());
    let in_the_way = ["identity.tmp", "peers.tmp"].map(|name| temp.path().join(name));
    in_the_way.iter().for_each(|path| fs::create_dir(path).expect("a directory can be made"));
    for _ in 0..2 {
        dir.admit().expect_err("the file cannot be written");
        assert!(!dir.is_admitted());
        dir.record_peer(NodeId(2), Incarnation(7)).expect_err("the file cannot be written");
        assert_eq!(dir.incarnation_of(NodeId(2)), None);
    }
    in_the_way.iter().for_each(|path| fs::remove_dir(path).expect("it goes"));
    dir.admit().expect("it is admitted");
    assert_eq!(dir.record_peer(NodeId(2), Incarnation(7)).expect("it is recorded"), PeerCheck::Recorded);
    drop(dir);
    let again = open(temp.path());
    assert!(again.is_admitted());
    assert_eq!(again.incarnation_of(NodeId(2)), Some(Incarnation(7)));
}

// rule 6
#[test]
fn what_was_promised_is_remembered() {
    let temp = temp();
    let lasts = Duration::from_millis(600);
    let mut dir = open(temp.path());
    assert_eq!(dir.promised().expect("readable"), Duration::ZERO);
    dir.will_promise(lasts).expect("written");
    drop(dir);
    let mut dir = open(temp.path());
    assert_eq!(dir.promised().expect("readable"), lasts);
    dir.will_promise(Duration::ZERO).expect("written");
    drop(dir);
    assert_eq!(open(temp.path()).promised().expect("readable"), Duration::ZERO);
}

#[test]
fn others_can_read_whose_a_directory_is() {
    let temp = temp();
    assert_eq!(recorded_identity(temp.path()).expect("nothing there"), None);
    assert_eq!(recorded_peers(temp.path()).expect("nothing there"), BTreeMap::new());
    let mut dir = open(temp.path());
    dir.record_peer(NodeId(2), Incarnation(7)).expect("writes");
    let mut expected = RecordedIdentity {
        cluster: identity().cluster.to_string(),
        node: NodeId(1),
        shards: 12,
        cores: 2,
        incarnation: dir.incarnation(),
        logs_have_begun: false,
        logs: temp.path().join("logs"),
    };
    assert_eq!(recorded_identity(temp.path()).expect("it is in use"), Some(expected.clone()));
    dir.logs_have_begun().expect("writes");
    expected.logs_have_begun = true;
    assert_eq!(recorded_identity(temp.path()).expect("it is in use"), Some(expected));
    assert_eq!(recorded_peers(temp.path()).expect("it is in use"), BTreeMap::from([(NodeId(2), Incarnation(7))]));
    edit(&temp.path().join("peers"), |text| text.replace("2 = ", "3 = "));
    recorded_peers(temp.path()).expect_err("damaged");
}

#[test]
fn directories_differ_in_their_incarnations() {
    let (one, two) = (temp(), temp());
    assert_ne!(open(one.path()).incarnation(), open(two.path()).incarnation());
}

#[test]
fn everything_has_its_place() {
    let temp = temp();
    let dir = open(temp.path());
    assert_eq!(dir.path(), temp.path());
    assert_eq!(dir.log_dir(CoreId(1)), temp.path().join("logs/core-1"));
    assert_eq!(dir.snapshot_dir(ShardId(3)), temp.path().join("snapshots/shard-3"));
    assert!(dir.log_dir(CoreId(0)).is_dir() && dir.log_dir(CoreId(1)).is_dir());
    assert!(!dir.log_dir(CoreId(2)).exists());
}

#[test]
fn a_process_that_is_ending_is_waited_for() {
    let temp = temp();
    let holder = open(temp.path());
    let ends = std::thread::spawn(move || {
        // Comes when the other is waiting for it.
        let _ = crossbeam_channel::after(std::time::Duration::from_millis(100)).recv();
        drop(holder);
    });
    drop(open(temp.path()));
    ends.join().expect("it ends");
}

#[test]
fn one_process_at_a_time() {
    let temp = temp();
    let holder = open(temp.path());
    assert_eq!(
        refusal(temp.path(), &identity()),
        format!(
            "data directory DIR is in use by process {}: stop it, or choose another --data-dir",
            std::process::id()
        )
    );
    drop(holder);
    open(temp.path());
}

#[test]
fn another_clusters_directory_is_refused() {
    let temp = temp();
    drop(open(temp.path()));
    let other = |change: fn(&mut Identity)| {
        let mut other = Identity { cluster: ClusterId(0xdef), ..identity() };
        change(&mut other);
        refusal(temp.path(), &other)
    };
    let refused = |what: &str| {
        format!(
            "data directory DIR belongs to another cluster: {what}; \
             start with the old settings or choose another --data-dir"
        )
    };
    assert_eq!(other(|id| id.shards = 6), refused("--shards was 12, is 6"));
    assert_eq!(
        other(|id| {
            id.cluster_name = "two\nlines".into();
            id.members.truncate(1);
        }),
        refused("--cluster-name was raftkv, is two\\nlines, --initial-cluster was 1=a:7001,2=b:7001, is 1=a:7001")
    );
    let id = |id: u128| ClusterId(id).to_string();
    assert_eq!(other(|_| {}), refused(&format!("its cluster id was {}, is {}", id(0xabc), id(0xdef))));
}

#[test]
fn another_nodes_directory_is_refused() {
    let temp = temp();
    drop(open(temp.path()));
    assert_eq!(
        refusal(temp.path(), &Identity { node: NodeId(2), ..identity() }),
        "data directory DIR belongs to node 1, not to node 2: check --node-id and --data-dir"
    );
}

/// Whatever step of a switch to other logs was the last before a crash: the next start has the old ones or the new ones.
#[test]
fn a_switch_of_logs_is_finished_wherever_it_was_cut_off() {
    let names = |path: &Path| {
        let logs = fs::read_dir(path.join("logs")).expect("there are logs");
        let mut names: Vec<String> =
            logs.map(|file| file.expect("reads").file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    };
    type CutOff = fn(&Path);
    let cut_off: [(&str, CutOff); 4] = [
        ("before the first rename", |_| ()),
        ("between the renames", |path| fs::rename(path.join("logs"), path.join("logs-old")).expect("renames")),
        ("before the old logs were removed", |path| {
            fs::rename(path.join("logs"), path.join("logs-old")).expect("renames");
            fs::rename(path.join("logs-next"), path.join("logs")).expect("renames");
        }),
        ("before the mark was", |path| {
            fs::remove_dir_all(path.join("logs")).expect("removes");
            fs::rename(path.join("logs-next"), path.join("logs")).expect("renames");
        }),
    ];
    for (when, cut_off) in cut_off {
        let temp = temp();
        drop(open(temp.path()));
        let wanted = Identity { cores: 3, ..identity() };
        let mut dir = DataDir::open(temp.path(), &wanted).expect("opens");
        assert_eq!(dir.cores_before(), Some(2));
        for core in 0..3 {
            dir.next_log_dir(CoreId(core)).expect("a directory");
        }
        dir.decide_switch(3).expect("decides");
        drop(dir);
        cut_off(temp.path());
        let logs = recorded_identity(temp.path()).expect("reads").expect("it is there").logs;
        assert!(logs.join("core-2").exists(), "{when}: whoever looks without starting finds the new ones");
        let again = DataDir::open(temp.path(), &wanted).expect("opens");
        assert_eq!(again.cores_before(), None, "{when}");
        assert_eq!(names(temp.path()), ["core-0", "core-1", "core-2"], "{when}");
        assert!(!temp.path().join("logs-next").exists() && !temp.path().join("logs-old").exists(), "{when}");
        drop(again);
        assert_eq!(recorded_cores(temp.path()).expect("reads"), Some(3));
    }
}

#[test]
fn logs_that_were_not_switched_to_are_forgotten() {
    let temp = temp();
    drop(open(temp.path()));
    let dir = DataDir::open(temp.path(), &Identity { cores: 1, ..identity() }).expect("opens");
    assert_eq!(dir.cores_before(), Some(2));
    dir.next_log_dir(CoreId(0)).expect("a directory");
    drop(dir);
    assert_eq!(open(temp.path()).cores_before(), None);
    assert!(!temp.path().join("logs-next").exists());
    assert!(temp.path().join("logs/core-1").exists());
}

#[test]
fn logs_that_are_elsewhere_are_not_moved() {
    let temp = temp();
    drop(open(temp.path()));
    let refused = DataDir::open_without_logs(temp.path(), &Identity { cores: 1, ..identity() }, || Ok(Incarnation(1)));
    let line = refused.expect_err("refused").to_string();
    assert!(line.contains("was started with --cores 2, now 1"), "{line}");
}

#[test]
fn every_flipped_bit_of_the_identity_is_found() {
    let temp = temp();
    drop(open(temp.path()));
    let file = temp.path().join("identity");
    let good = fs::read(&file).expect("reads");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, &bad).expect("writes");
        let line = refusal(temp.path(), &identity());
        assert!(line.contains("is damaged") || line.contains("has format version"), "bit {bit}: {line}");
    }
    for len in 0..good.len() {
        fs::write(&file, &good[..len]).expect("writes");
        let line = refusal(temp.path(), &identity());
        assert!(line.starts_with("DIR/identity is damaged ("), "{len} bytes: {line}");
    }
    fs::write(&file, &good).expect("writes");
    open(temp.path());
}

#[test]
fn a_newer_format_is_refused() {
    let temp = temp();
    drop(open(temp.path()));
    edit(&temp.path().join("identity"), |text| text.replacen("identity 1", "identity 2", 1));
    assert_eq!(
        refusal(temp.path(), &identity()),
        "DIR/identity has format version 2, this server knows up to 1: start the version that wrote it"
    );
    assert!(recorded_cores(temp.path()).is_err());
}

#[test]
fn a_whole_file_without_a_value_it_needs_is_refused() {
    let temp = temp();
    drop(open(temp.path()));
    let file = temp.path().join("identity");
    for (name, value, expected) in [
        ("cores", None, "DIR/identity is damaged (it has no `cores`)"),
        ("shards", Some("x"), "DIR/identity is damaged (`shards = x` makes no sense)"),
        ("incarnation", Some("-"), "DIR/identity is damaged (incarnation `-` makes no sense)"),
    ] {
        let good = text_file::read(&file, "identity").expect("reads").expect("exists");
        let mut fields = good.clone();
        fields.remove(name);
        if let Some(value) = value {
            fields.insert(name.into(), value.into());
        }
        text_file::write(&file, "identity", &fields).expect("writes");
        let line = refusal(temp.path(), &identity());
        assert!(line.starts_with(expected), "{line}");
        text_file::write(&file, "identity", &good).expect("writes");
    }
    open(temp.path());
}

#[test]
fn what_cannot_be_a_data_directory_is_refused() {
    let temp = temp();
    let file = temp.path().join("file");
    fs::write(&file, "").expect("writes");
    assert_eq!(refusal(&file, &identity()), "DIR is no directory; check --data-dir");
    let below = refusal(&file.join("below"), &identity());
    assert!(below.starts_with("cannot create directory DIR: "), "{below}");
    // Nobody, root included, makes files or directories in these.
    let read_only = refusal(Path::new("/sys"), &identity());
    assert!(read_only.starts_with("cannot use data directory DIR: DIR/LOCK: "), "{read_only}");
    let uncreatable = refusal(Path::new("/proc/data"), &identity());
    assert!(uncreatable.starts_with("cannot create directory DIR: "), "{uncreatable}");
}

#[test]
fn the_rest_of_a_node_without_identity_is_refused() {
    let temp = temp();
    drop(open(temp.path()));
    fs::remove_file(temp.path().join("identity")).expect("removes");
    assert_eq!(
        refusal(temp.path(), &identity()),
        "data directory DIR holds `logs` but no `identity`: restore that file from a backup, \
         or choose another --data-dir"
    );
}

#[test]
fn a_crash_before_the_rename_leaves_no_trace() {
    let temp = temp();
    fs::write(temp.path().join("identity.tmp"), "half an ident").expect("writes");
    let mut dir = open(temp.path());
    assert!(dir.is_new());
    dir.record_peer(NodeId(2), Incarnation(5)).expect("records");
    drop(dir);
    fs::write(temp.path().join("identity.tmp"), "half an ident").expect("writes");
    fs::write(temp.path().join("peers.tmp"), "half of th").expect("writes");
    let dir = open(temp.path());
    assert!(!dir.is_new());
    assert_eq!(dir.incarnation_of(NodeId(2)), Some(Incarnation(5)));
}

#[test]
fn a_crash_after_birth_leaves_a_directory_that_opens() {
    let temp = temp();
    drop(open(temp.path()));
    fs::remove_dir_all(temp.path().join("logs")).expect("removes");
    assert!(open(temp.path()).log_dir(CoreId(1)).is_dir());
}

// museum 34, rule 22
#[test]
fn a_peers_first_incarnation_is_remembered() {
    let temp = temp();
    let mut dir = open(temp.path());
    assert_eq!(dir.incarnation_of(NodeId(2)), None);
    let mut record = |node, incarnation| dir.record_peer(NodeId(node), Incarnation(incarnation)).expect("records");
    assert_eq!(record(2, 0xa), PeerCheck::Recorded);
    assert_eq!(record(3, u64::MAX), PeerCheck::Recorded);
    assert_eq!(record(2, 0xa), PeerCheck::Known);
    assert_eq!(record(2, 0xb), PeerCheck::Changed { was: Incarnation(0xa) });
    drop(dir);
    let mut dir = open(temp.path());
    assert_eq!(dir.incarnation_of(NodeId(2)), Some(Incarnation(0xa)));
    assert_eq!(dir.incarnation_of(NodeId(3)), Some(Incarnation(u64::MAX)));
    let changed = dir.record_peer(NodeId(2), Incarnation(0xb)).expect("compares");
    assert_eq!(changed, PeerCheck::Changed { was: Incarnation(0xa) });
}

#[test]
fn a_peer_that_cannot_be_recorded_stays_unknown() {
    let temp = temp();
    let mut dir = open(temp.path());
    fs::create_dir(temp.path().join("peers.tmp")).expect("is in the way");
    let error = dir.record_peer(NodeId(2), Incarnation(1)).expect_err("cannot be written");
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert_eq!(dir.incarnation_of(NodeId(2)), None);
}

#[test]
fn damaged_peers_are_refused() {
    let temp = temp();
    let mut dir = open(temp.path());
    dir.record_peer(NodeId(2), Incarnation(0xa)).expect("records");
    drop(dir);
    let file = temp.path().join("peers");
    edit(&file, |text| text.replacen("2 = ", "4 = ", 1));
    assert!(refusal(temp.path(), &identity()).starts_with("DIR/peers is damaged (its checksum is wrong)"));
    fs::write(&file, [0xff, 0xfe]).expect("writes");
    assert!(refusal(temp.path(), &identity()).starts_with("DIR/peers is damaged (it is no text)"));
}

#[test]
fn the_text_is_a_format() {
    let golden = include_str!("testdata/identity.txt");
    let fields = text_file::parse("identity", golden).expect("parses");
    assert_eq!(fields.get("node-id").map(String::as_str), Some("1"));
    let temp = temp();
    let file = temp.path().join("identity");
    text_file::write(&file, "identity", &fields).expect("writes");
    assert_eq!(fs::read_to_string(&file).expect("reads"), golden);
    assert_eq!(text_file::parse("peers", golden), Err(ParseError::Damaged("its first line is wrong")));
}

// museum 34: whoever has lost its log may have voted and acknowledged what it no longer knows.
#[test]
fn a_log_that_has_begun_and_is_gone_is_refused() {
    let temp = temp();
    let mut dir = open(temp.path());
    let segment = |core| dir.log_dir(CoreId(core)).join(crate::storage::segment::segment_name(1));
    let (first, second) = (segment(0), segment(1));
    dir.logs_have_begun().expect("records");
    drop(dir);
    let line = refusal(temp.path(), &identity());
    assert!(line.starts_with("the log in DIR/logs/core-0 is gone"), "{line}");
    for file in [&first, &second] {
        fs::write(file, "").expect("writes");
    }
    drop(open(temp.path()));
    fs::remove_dir_all(second.parent().expect("a directory")).expect("removes");
    let line = refusal(temp.path(), &identity());
    assert!(line.starts_with("the log in DIR/logs/core-1 is gone"), "{line}");
}
