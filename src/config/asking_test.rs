//! What can be asked of the settings: `--check-config` and `--print-config`; and what the environment may hold.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::config_test::{line, node, read_with, refusal, write};
use super::{Config, Mode, names, read};

fn printed(args: &[&str], env: &[(&str, &str)]) -> String {
    match read_with(args, env).expect("valid") {
        Mode::Print(text) => text,
        other => panic!("{other:?}"),
    }
}

/// The line of a setting in what was printed: the setting, and where it comes from.
fn line_of<'t>(text: &'t str, name: &str) -> (&'t str, &'t str) {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} = "))).expect("it is printed");
    let (setting, origin) = line.split_once("  # ").expect("an origin");
    (setting.trim_end(), origin)
}

#[test]
fn every_setting_is_printed_with_where_it_comes_from() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let file = write(temp.path(), "# nodes\nnode-id = 2\nheartbeat = \"30ms\"\nshards = 0x10\n");
    let env = [("RAFTKV_CLUSTER_NAME", "env"), ("RAFTKV_HEARTBEAT", "20ms"), ("RAFTKV_CORES", "3")];
    let text = printed(&["--print-config", "--config", &file, "--cores=2"], &env);
    assert_eq!(line_of(&text, "node-id"), ("node-id = 2", &*format!("{file}, line 2")));
    assert_eq!(line_of(&text, "shards"), ("shards = 16", &*format!("{file}, line 4")));
    assert_eq!(line_of(&text, "heartbeat"), ("heartbeat = \"20ms\"", "environment, RAFTKV_HEARTBEAT"));
    assert_eq!(line_of(&text, "cluster-name"), ("cluster-name = \"env\"", "environment, RAFTKV_CLUSTER_NAME"));
    assert_eq!(line_of(&text, "cores"), ("cores = 2", "flag"));
    assert_eq!(line_of(&text, "election-timeout"), ("election-timeout = \"800ms\"", "default"));
    assert_eq!(line_of(&text, "data-dir"), ("data-dir = \"./data/node2\"", "default"));
    assert_eq!(line_of(&text, "http-listen"), ("http-listen = \"127.0.0.1:8001\"", "default"));
    let shown: BTreeSet<String> = text.lines().filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect();
    let mut all = names::settings();
    all.remove("local-cluster");
    assert_eq!(shown, all);
}

#[test]
fn what_is_printed_gives_the_same_node() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    for args in [
        &["--data-dir=/nowhere"][..],
        &["--node-id=2", "--listen=0.0.0.0:9002", "--initial-cluster=1=a:1,2=b:2,3=[::1]:3", "--http-listen=off"],
        &["--node-id=18446744073709551615", "--cluster-name=007", "--listen=localhost:7005"],
        &["--data-dir=/var/lib/with \"quotes\" and \\", "--log-level=WARN", "--log-io=map", "--log-tail-bytes=0"],
        &["--listen=0.0.0.0:7001", "--advertise=db1:7001", "--request-timeout=2m", "--core-log-bytes-max=5368709120"],
    ] {
        let asked: Vec<&str> = args.iter().copied().chain(["--print-config"]).collect();
        let file = write(temp.path(), &printed(&asked, &[]));
        let show = |config: Config| format!("{config:?}");
        assert_eq!(show(node(&["--config", &file])), show(node(args)), "{args:?}");
    }
}

#[test]
fn settings_that_mean_something_else_have_changed() {
    let settings = |args: &[&str]| {
        let args = args.iter().map(OsString::from).chain([OsString::from("--data-dir=/nowhere")]);
        read(args.collect(), []).expect("valid").settings
    };
    let before = settings(&["--heartbeat=100ms", "--segment-size=1MiB", "--log-level=info"]);
    let same = settings(&["--segment-size=1048576", "--log-level=INFO", "--request-timeout=5000ms"]);
    assert_eq!(same.changed(&before), Vec::<String>::new());
    // By default others follow from where it listens.
    let other = settings(&["--heartbeat=99ms", "--segment-size=1MiB", "--listen=127.0.0.1:7002"]);
    assert_eq!(other.changed(&before), ["advertise", "heartbeat", "http-listen", "initial-cluster", "listen"]);
    assert_eq!(before.changed(&other), other.changed(&before));
}

#[test]
fn what_no_file_can_hold_is_not_printed() {
    let data_dir = OsStr::from_bytes(b"--data-dir=/data/\xff").to_owned();
    let refused = read(vec![OsString::from("--print-config"), data_dir], []).expect_err("refused");
    assert_eq!(line(refused), "--data-dir /data/\u{fffd} is not UTF-8, which a settings file must be");
    assert_eq!(
        refusal(&["--print-config", "--local-cluster=3", "--data-dir=/nowhere"]),
        "--print-config prints the settings of one node: leave --local-cluster out"
    );
}

#[test]
fn settings_are_checked_as_a_start_would() {
    assert_eq!(
        printed(&["--check-config", "--initial-cluster=1=127.0.0.1:1,2=127.0.0.1:2", "--cluster-name=orders"], &[]),
        "the settings are right: node 1 of 2 of the cluster orders\n"
    );
    let several = printed(&["--check-config", "--local-cluster=3", "--data-dir=/nowhere"], &[]);
    assert_eq!(several, "the settings are right: 3 nodes on this machine\n");
    for args in [
        &["--check-config", "--shards=0"][..],
        &["--check-config", "--heartbeat=500ms", "--election-timeout=999ms"],
        &["--check-config", "--config=/not/there.toml"],
        &["--check-config", "--print-config"],
        &["--check-config", "--local-cluster=3", "--listen=127.0.0.1:65534"],
    ] {
        assert_ne!(refusal(args), "");
    }
    // A peer whose name nobody knows: a start fails as well.
    let unknown = refusal(&["--check-config", "--initial-cluster=1=127.0.0.1:1,2=no.such.host.invalid:2"]);
    assert!(unknown.starts_with("--initial-cluster: node 2 at no.such.host.invalid:2: "), "{unknown}");
}

#[test]
fn a_variable_that_was_probably_meant_for_a_setting_is_refused() {
    for (variable, meant) in [
        ("RAFTKV_SHRADS", "RAFTKV_SHARDS"),
        ("RAFTKV_NODEID", "RAFTKV_NODE_ID"),
        ("RAFTKV_SNAPSHOT_RATES", "RAFTKV_SNAPSHOT_RATE"),
        ("RAFTKV_node_id", "RAFTKV_NODE_ID"),
    ] {
        let refused = line(read_with(&[], &[(variable, "1")]).expect_err("refused"));
        assert_eq!(refused, format!("the environment has {variable}, which is no setting; did you mean {meant}?"));
    }
}

#[test]
fn other_variables_are_ignored_and_named() {
    let env =
        [("RAFTKV_SERVICE_HOST", "10.0.0.1"), ("RAFTKV_PORT_7001_TCP", "x"), ("RAFTKV_SHARDS", "3"), ("RAFTK", "")];
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    let reading = read(vec!["--data-dir=/nowhere".into()], env).expect("valid");
    let Mode::Node(config) = reading.mode else { panic!("no node") };
    assert_eq!(config.shards, 3);
    assert_eq!(
        reading.warnings,
        [
            "the environment has RAFTKV_PORT_7001_TCP, which is no setting: it is ignored",
            "the environment has RAFTKV_SERVICE_HOST, which is no setting: it is ignored",
        ]
    );
}
