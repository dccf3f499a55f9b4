use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;
use log::LevelFilter;
use raftkv_protocol::types::{ClusterId, NodeId};

use super::flags::Flags;
use super::{Config, LogIo, LogSync, Mode, names, read, units};
use crate::error::Fatal;
use crate::limits::Limits;
use crate::storage::data_dir::{DataDir, Identity};

/// Reads settings with the environment given and nothing else of the real one.
pub fn read_with(args: &[&str], env: &[(&str, &str)]) -> Result<Mode, Fatal> {
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    read(args.iter().map(OsString::from).collect(), env).map(|reading| reading.mode)
}

/// The one node that these flags make.
pub fn node(args: &[&str]) -> Config {
    match read_with(args, &[]).expect("valid") {
        Mode::Node(config) => *config,
        other => panic!("no node: {other:?}"),
    }
}

/// The one line with which settings are refused.
pub fn refusal(args: &[&str]) -> String {
    line(read_with(args, &[]).expect_err("refused"))
}

/// The one line of a refusal.
pub fn line(error: Fatal) -> String {
    assert_eq!(error.exit_code(), 2);
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

/// A settings file in `dir`.
pub fn write(dir: &Path, toml: &str) -> String {
    let file = dir.join("raftkv.toml");
    fs::write(&file, toml).expect("writes");
    file.to_str().expect("text").to_owned()
}

#[test]
fn without_flags_it_is_a_single_durable_node() {
    let config = node(&[]);
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.listen, "127.0.0.1:7001".parse().expect("an address"));
    assert_eq!(config.advertise, "127.0.0.1:7001");
    assert_eq!(config.data_dir, PathBuf::from("./data/node1"));
    assert_eq!(config.initial_cluster, [(NodeId(1), "127.0.0.1:7001".to_owned())]);
    assert_eq!((config.shards, config.cluster_name.as_str()), (12, "raftkv"));
    assert!((1..=12).contains(&config.cores));
    assert_eq!(config.heartbeat, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_millis(800));
    assert_eq!((config.segment_size, config.log_io, config.log_level), (64 << 20, LogIo::Direct, LevelFilter::Info));
    assert_eq!((config.log_sync, config.slow_sync), (LogSync::Thread, Duration::from_millis(200)));
    assert_eq!((config.lease, config.clock_drift_ppm_max), (None, 100_000));
    assert!(!config.ui_write);
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn every_flag_is_understood() {
    let config = node(&[
        "--node-id=2",
        "--listen=127.0.0.1:9002",
        "--data-dir=/var/lib/raftkv",
        "--initial-cluster=3=c:9003,1=a:9001,2=[::1]:9002",
        "--shards=24",
        "--cores=3",
        "--heartbeat=50ms",
        "--election-timeout=1s",
        "--lease=600ms",
        "--clock-drift-max=200",
        "--cluster-name=orders.eu-1",
        "--segment-size=64KiB",
        "--log-io=map",
        "--log-sync=inline",
        "--ui-write=on",
        "--slow-sync=300ms",
        "--log-level=debug",
    ]);
    assert_eq!(config.node_id, NodeId(2));
    assert_eq!(config.advertise, "[::1]:9002");
    let members = [(1, "a:9001"), (2, "[::1]:9002"), (3, "c:9003")].map(|(id, at)| (NodeId(id), at.to_owned()));
    assert_eq!(config.initial_cluster, members);
    assert_eq!((config.shards, config.cores), (24, 3));
    assert_eq!(config.heartbeat, Duration::from_millis(50));
    assert_eq!(config.election_timeout, Duration::from_secs(1));
    assert_eq!((config.lease, config.clock_drift_ppm_max), (Some(Duration::from_millis(600)), 200));
    assert_eq!((config.segment_size, config.log_io, config.log_level), (64 << 10, LogIo::Map, LevelFilter::Debug));
    assert_eq!((config.log_sync, config.slow_sync), (LogSync::Inline, Duration::from_millis(300)));
    assert!(config.ui_write && node(&["--ui-write"]).ui_write && !node(&["--ui-write=off"]).ui_write);
}

/// Every limit, with another value than its default.
const LIMITS: &[&str] = &[
    "--key-bytes-max=1KiB",
    "--value-bytes-max=64KiB",
    "--batch-operations-max=9",
    "--batch-bytes-max=60KiB",
    "--scan-items-max=10",
    "--scan-bytes-max=1000",
    "--connections-max=7",
    "--inflight-max=8",
    "--reply-bytes-max=100KiB",
    "--uncommitted-bytes-max=128KiB",
    "--core-uncommitted-bytes-max=129KiB",
    "--core-backlog-bytes-max=130KiB",
    "--core-parked-bytes-max=131KiB",
    "--core-forwarded-bytes-max=132KiB",
    "--core-inbox-bytes-max=133KiB",
    "--core-reply-bytes-max=134KiB",
    "--core-scans-max=2",
    "--core-scans-waiting-max=3",
    "--core-scrapes-max=4",
    "--link-bytes-max=5MiB",
    "--snapshot-log-bytes=1MiB",
    "--log-tail-bytes=0",
    "--core-log-bytes-max=1GiB",
    "--core-log-memory-max=9MiB",
    "--snapshot-rate=2MiB",
    "--snapshot-write-rate=3MiB",
    "--scrub-rate=5MiB",
    "--snapshot-timeout=1m",
    "--http-header-bytes-max=9KiB",
    "--http-header-timeout=2s",
    "--http-body-timeout=3s",
    "--http-idle-timeout=4s",
    "--http-streams-max=5",
    "--core-http-body-bytes-max=135KiB",
    "--hello-timeout=1s",
    "--request-timeout=2m",
    "--stop-timeout=10s",
];

#[test]
fn every_limit_is_understood() {
    let config = node(LIMITS);
    let limits = Limits {
        key_bytes_max: 1 << 10,
        value_bytes_max: 64 << 10,
        batch_operations_max: 9,
        batch_bytes_max: 60 << 10,
        scan_items_max: 10,
        scan_bytes_max: 1_000,
        connections_max: 7,
        inflight_max: 8,
        reply_bytes_max: 100 << 10,
        uncommitted_bytes_max: 128 << 10,
        core_uncommitted_bytes_max: 129 << 10,
        core_backlog_bytes_max: 130 << 10,
        core_parked_bytes_max: 131 << 10,
        core_forwarded_bytes_max: 132 << 10,
        core_inbox_bytes_max: 133 << 10,
        core_reply_bytes_max: 134 << 10,
        core_scans_max: 2,
        core_scans_waiting_max: 3,
        core_scrapes_max: 4,
        link_bytes_max: 5 << 20,
        snapshot_log_bytes: 1 << 20,
        log_tail_bytes: 0,
        core_log_bytes_max: 1 << 30,
        core_log_memory_max: 9 << 20,
        snapshot_rate: 2 << 20,
        snapshot_write_rate: 3 << 20,
        scrub_rate: 5 << 20,
        snapshot_timeout: Duration::from_secs(60),
        http_header_bytes_max: 9 << 10,
        http_header_timeout: Duration::from_secs(2),
        http_body_timeout: Duration::from_secs(3),
        http_idle_timeout: Duration::from_secs(4),
        http_streams_max: 5,
        core_http_body_bytes_max: 135 << 10,
        hello_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(120),
        stop_timeout: Duration::from_secs(10),
    };
    assert_eq!(config.limits, limits);
}

#[test]
fn the_log_s_ways_are_understood_wherever_they_are_set() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let file = write(temp.path(), "log-io = \"buffered\"\nlog-sync = \"inline\"\n");
    let from_file = node(&["--config", &file]);
    let env = [("RAFTKV_LOG_IO", "buffered"), ("RAFTKV_LOG_SYNC", "inline")];
    let Mode::Node(from_env) = read_with(&[], &env).expect("valid") else { panic!("no node") };
    for config in [&from_file, &from_env] {
        assert_eq!((config.log_io, config.log_sync), (LogIo::Buffered, LogSync::Inline));
    }
}

#[test]
fn http_is_a_thousand_ports_above_unless_it_is_set() {
    let http = |args: &[&str]| node(args).http_listen.map(|address| address.to_string());
    assert_eq!(http(&[]).as_deref(), Some("127.0.0.1:8001"));
    assert_eq!(http(&["--listen=127.0.0.1:64535"]).as_deref(), Some("127.0.0.1:65535"));
    assert_eq!(http(&["--listen=127.0.0.1:64536", "--http-listen=127.0.0.2:80"]).as_deref(), Some("127.0.0.2:80"));
    assert_eq!(http(&["--http-listen=off"]), None);
    let refused = refusal(&["--listen=127.0.0.1:64536"]);
    assert!(refused.contains("--http-listen"), "{refused}");
}

#[test]
fn a_host_name_to_listen_on_is_looked_up() {
    let config = node(&["--listen=localhost:7005"]);
    assert!(config.listen.ip().is_loopback());
    assert_eq!(config.listen.port(), 7005);
    assert_eq!(config.advertise, "localhost:7005");
}

#[test]
fn it_may_listen_elsewhere_than_it_is_reached() {
    let config = node(&["--listen=0.0.0.0:7001", "--advertise=db1:7001"]);
    assert_eq!(config.advertise, "db1:7001");
    assert_eq!(config.initial_cluster, [(NodeId(1), "db1:7001".to_owned())]);
    let config = node(&["--listen=0.0.0.0:7001", "--initial-cluster=1=db1:8001,2=db2:8001"]);
    assert_eq!((config.advertise.as_str(), config.listen.port()), ("db1:8001", 7001));
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let file =
        write(temp.path(), "shards = 3\nheartbeat = \"30ms\"\ncluster-name = \"file\"\ndata-dir = \"/nowhere\"\n");
    let env = [("RAFTKV_CLUSTER_NAME", "env"), ("RAFTKV_HEARTBEAT", "20ms")];
    let all = read_with(&["--config", &file, "--cluster-name", "flag"], &env).expect("valid");
    let Mode::Node(config) = all else { panic!("no node") };
    assert_eq!(config.cluster_name, "flag");
    assert_eq!(config.heartbeat, Duration::from_millis(20));
    assert_eq!(config.shards, 3);
    assert_eq!(config.election_timeout, Duration::from_millis(800));
}

#[test]
fn the_file_may_be_named_in_the_environment() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let file = write(temp.path(), "node-id = 4");
    let Mode::Node(config) = read_with(&[], &[("RAFTKV_CONFIG", &file)]).expect("valid") else { panic!("no node") };
    assert_eq!(config.data_dir, PathBuf::from("./data/node4"));
}

#[test]
fn wrong_values_say_where_they_come_from() {
    let refused = read_with(&[], &[("RAFTKV_SHARDS", "x")]).expect_err("refused");
    assert_eq!(
        line(refused),
        "environment, RAFTKV_SHARDS: invalid value 'x' for '--shards <N>': invalid digit found in string; see --help"
    );
    let temp = tempfile::tempdir().expect("a temporary directory");
    let file = write(temp.path(), "node-id = 2\n\nshards = 0");
    let shown = refusal(&["--config", &file]);
    assert_eq!(
        shown,
        format!("{file}, line 3: invalid value '0' for '--shards <N>': 0 is not in 1..=4096; see --help")
    );
}

#[test]
fn a_wrong_file_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let refused = |toml: &str| {
        let file = write(temp.path(), toml);
        refusal(&["--config", &file]).replace(&file, "FILE")
    };
    assert_eq!(refused("shrads = 3"), "FILE, line 1: there is no setting `shrads`; did you mean `shards`?");
    assert_eq!(refused("node_id = 3"), "FILE, line 1: there is no setting `node_id`; did you mean `node-id`?");
    assert_eq!(refused("colour = \"red\""), "FILE, line 1: there is no setting `colour`");
    assert_eq!(refused("config = \"other\""), "FILE, line 1: there is no setting `config`");
    assert_eq!(refused("help = 1"), "FILE, line 1: there is no setting `help`");
    assert_eq!(refused("shards = true"), "FILE, line 1: `shards` must be a number or a string in quotes");
    assert_eq!(refused("[shards]\nn = 1"), "FILE, line 1: `shards` must be a number or a string in quotes");
    let syntax = refused("shards = 3\nheartbeat = 30ms\n");
    assert!(syntax.starts_with("FILE, line 2: "), "{syntax}");
    let missing = refusal(&["--config", "/not/there.toml"]);
    assert!(missing.starts_with("cannot read --config /not/there.toml: "), "{missing}");
}

#[test]
fn wrong_flags_are_refused_in_one_line() {
    for (args, expected) in [
        (&["--shrads=3"][..], "unexpected argument '--shrads' found; did you mean --shards?"),
        (&["start"], "unexpected argument 'start' found; see --help"),
        (&["--shards"], "a value is required for '--shards <N>' but none was supplied; see --help"),
        (&["--shards=3", "--shards=4"], "the argument '--shards <N>' cannot be used multiple times; see --help"),
        (
            &["--node-id=0"],
            "invalid value '0' for '--node-id <ID>': write a whole number from 1 to 18446744073709551615, \
             another for each node; see --help",
        ),
        (
            &["--log-level=loud"],
            "invalid value 'loud' for '--log-level <LEVEL>': write off, error, warn, info, debug or trace; see --help",
        ),
        (&["--shards=0"], "invalid value '0' for '--shards <N>': 0 is not in 1..=4096; see --help"),
        (&["--shards=4097"], "invalid value '4097' for '--shards <N>': 4097 is not in 1..=4096; see --help"),
        (&["--cores=0"], "invalid value '0' for '--cores <N>': 0 is not in 1..=65535; see --help"),
        (&["--log-io=mmap"], "invalid value 'mmap' for '--log-io <WAY>'; it may be direct, buffered, map"),
        (&["--log-sync=loop"], "invalid value 'loop' for '--log-sync <WHO>'; it may be thread, inline"),
        (
            &["--heartbeat=100"],
            "invalid value '100' for '--heartbeat <TIME>': write a duration like 250ms, 1s or 2m; see --help",
        ),
        (
            &["--segment-size=64MB"],
            "invalid value '64MB' for '--segment-size <SIZE>': write a size like 1024, 64KiB or 64MiB; see --help",
        ),
    ] {
        assert_eq!(refusal(args), expected);
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (args, expected) in [
        (
            &["--node-id=4", "--initial-cluster=1=a:1,2=b:1"][..],
            "--node-id 4 is not in --initial-cluster; add 4=HOST:PORT to it",
        ),
        (&["--initial-cluster=1=a:1,1=b:1"], "--initial-cluster names node 1 twice; every node needs its own id"),
        (
            &["--initial-cluster=1=a:1,2=a:1"],
            "--initial-cluster gives nodes 1 and 2 the same address a:1; every node needs its own",
        ),
        (&["--initial-cluster=1=a:1,b:1"], "--initial-cluster: `b:1` is not ID=HOST:PORT with an id of at least 1"),
        (&["--initial-cluster=0=a:1"], "--initial-cluster: `0=a:1` is not ID=HOST:PORT with an id of at least 1"),
        (&["--initial-cluster=1=a"], "--initial-cluster `a` is not HOST:PORT with a port from 1 to 65535"),
        (&["--listen=7001"], "--listen `7001` is not HOST:PORT with a port from 1 to 65535"),
        (&["--listen=:7001"], "--listen `:7001` is not HOST:PORT with a port from 1 to 65535"),
        (&["--listen=::1:7001"], "--listen `::1:7001` is not HOST:PORT with a port from 1 to 65535"),
        (&["--listen=127.0.0.1:0"], "--listen `127.0.0.1:0` is not HOST:PORT with a port from 1 to 65535"),
        (
            &["--listen=0.0.0.0:7001"],
            "--listen 0.0.0.0:7001 is no address that others can dial; set --advertise HOST:PORT",
        ),
        (
            &["--advertise=x:1", "--initial-cluster=1=a:1"],
            "--advertise x:1 differs from 1=a:1 in --initial-cluster; the others dial what the list says, \
             so leave --advertise out",
        ),
        (
            &["--cores=4", "--shards=3"],
            "--cores 4 is more than --shards 3: a core without a shard would idle; use at most 3 cores",
        ),
        (
            &["--heartbeat=500ms", "--election-timeout=999ms"],
            "--election-timeout 999ms must be at least twice --heartbeat 500ms, or one late heartbeat unseats a leader",
        ),
        (
            &["--lease=199ms"],
            "--lease 199ms must be from twice --heartbeat, 200ms, so that one late heartbeat does not end it, to \
             --election-timeout, 800ms",
        ),
        (
            &["--heartbeat=50ms", "--election-timeout=400ms", "--lease=401ms"],
            "--lease 401ms must be from twice --heartbeat, 100ms, so that one late heartbeat does not end it, to \
             --election-timeout, 400ms",
        ),
        (&["--segment-size=60KiB"], "--segment-size 60KiB must be from 64KiB to 1GiB and a multiple of 4KiB"),
        (&["--segment-size=2GiB"], "--segment-size 2GiB must be from 64KiB to 1GiB and a multiple of 4KiB"),
        (&["--segment-size=65537"], "--segment-size 65537 must be from 64KiB to 1GiB and a multiple of 4KiB"),
        (&["--cluster-name=a b"], "--cluster-name `a b` must be 1 to 64 letters, digits, dots, dashes or underscores"),
    ] {
        assert_eq!(refusal(args), expected);
    }
    let unknown = refusal(&["--listen=no.such.host.invalid:7001"]);
    assert!(unknown.starts_with("--listen no.such.host.invalid:7001: "), "{unknown}");
}

#[test]
fn limits_that_nothing_would_fit_in_are_refused() {
    for (args, expected) in [
        (&["--key-bytes-max=5000"][..], "--key-bytes-max 5000 must be from 1 to 4096"),
        (&["--value-bytes-max=1048577"], "--value-bytes-max 1048577 must be from 1 to 1048576"),
        (&["--batch-bytes-max=1310721"], "--batch-bytes-max 1310721 must be from 1 to 1310720"),
        (&["--scan-bytes-max=0"], "--scan-bytes-max 0 must be from 1 to 1048576"),
        (
            &["--reply-bytes-max=1MiB"],
            "--reply-bytes-max 1048576 must be at least 1081600, or the longest reply would never fit",
        ),
        (
            &["--uncommitted-bytes-max=1MiB"],
            "--uncommitted-bytes-max 1048576 must be at least 1315840, or the longest write would never fit",
        ),
        (
            &["--core-reply-bytes-max=1081599"],
            "--core-reply-bytes-max 1081599 must be at least 1081600, or the longest reply would never fit",
        ),
        (
            &["--core-parked-bytes-max=1315839"],
            "--core-parked-bytes-max 1315839 must be at least 1315840, or the longest write would never fit",
        ),
        (
            &["--link-bytes-max=4730879"],
            "--link-bytes-max 4730879 must be at least 4730880, or appends and answers between nodes would never fit",
        ),
        (
            &["--snapshot-log-bytes=4095"],
            "--snapshot-log-bytes 4095 must be at least 4096, or a node would do little else",
        ),
        (
            &["--core-log-bytes-max=262143"],
            "--core-log-bytes-max 262143 must be at least 262144, or a log could not go on",
        ),
        (
            &["--snapshot-write-rate=262143"],
            "--snapshot-write-rate 262143 must be at least 262144, or no snapshot would be done",
        ),
        (
            &["--scrub-rate=65535"],
            "--scrub-rate 65535 must be at least 65536, or bad memory would stay unseen for days",
        ),
        (&["--snapshot-rate=262143"], "--snapshot-rate 262143 must be at least 262144, or no follower would catch up"),
    ] {
        assert_eq!(refusal(args), expected);
    }
}

#[test]
fn the_limits_of_values_are_inclusive() {
    for args in [
        ["--heartbeat=400ms", "--election-timeout=800ms"],
        ["--segment-size=1GiB", "--shards=4096"],
        ["--segment-size=65536", "--shards=1"],
        ["--cores=3", "--shards=3"],
        ["--reply-bytes-max=1081600", "--uncommitted-bytes-max=1315840"],
        ["--core-reply-bytes-max=1081600", "--core-parked-bytes-max=1315840"],
        ["--core-uncommitted-bytes-max=1315840", "--core-backlog-bytes-max=1315840"],
        ["--core-forwarded-bytes-max=1315840", "--core-inbox-bytes-max=1315840"],
        ["--link-bytes-max=4730880", "--core-scans-max=1"],
        ["--batch-operations-max=128", "--batch-bytes-max=1310720"],
        ["--batch-operations-max=1", "--batch-bytes-max=1"],
        ["--snapshot-log-bytes=4096", "--log-tail-bytes=0"],
        ["--core-log-bytes-max=262144", "--snapshot-rate=262144"],
        ["--core-log-bytes-max=262144", "--snapshot-write-rate=262144"],
        ["--core-log-bytes-max=262144", "--scrub-rate=65536"],
        ["--lease=200ms", "--clock-drift-max=0"],
        ["--lease=800ms", "--clock-drift-max=100000"],
    ] {
        // Not that of whoever runs the tests: it may hold a number of cores.
        read_with(&[args[0], args[1], "--data-dir=/nowhere"], &[]).expect("valid");
    }
}

#[test]
fn a_node_keeps_the_cores_that_its_data_was_born_with() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let identity = Identity {
        cluster: ClusterId(1),
        cluster_name: "raftkv".into(),
        members: Vec::new(),
        shards: 12,
        node: NodeId(1),
        cores: 11,
    };
    drop(DataDir::open(temp.path(), &identity).expect("opens"));
    let data_dir = temp.path().to_str().expect("text");
    assert_eq!(node(&["--data-dir", data_dir]).cores, 11);
    assert_eq!(node(&["--data-dir", data_dir, "--cores=2"]).cores, 2);
}

#[test]
fn help_and_version_are_printed() {
    let printed = |args: &[&str]| match read_with(args, &[("RAFTKV_SHARDS", "x")]).expect("prints") {
        Mode::Print(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(printed(&["--version"]), format!("raftkv-server {}\n", env!("CARGO_PKG_VERSION")));
    let help = printed(&["--help"]);
    for name in names::flags() {
        let is_shown = [" ", "["].iter().any(|end| help.contains(&format!("--{name}{end}")));
        assert!(is_shown, "--{name} is not in\n{help}");
    }
    assert!(help.contains("--node-id 3 --listen 10.0.0.3:7001 --initial-cluster $ALL"));
}

#[test]
fn the_parser_is_consistent() {
    Flags::command().debug_assert();
    assert_eq!(names::variable("node-id"), "RAFTKV_NODE_ID");
}

#[test]
fn durations_and_sizes_have_units() {
    let ms = |text| units::duration(text).map(|duration| duration.as_millis()).ok();
    assert_eq!(["1ms", "2s", "3m", "24h"].map(ms), [Some(1), Some(2_000), Some(180_000), Some(86_400_000)]);
    assert_eq!(["", "5", "ms", "-1s", "1.5s", "1 s", "0s", "25h", "99999999999999999999s"].map(ms), [None; 9]);
    let size = |text| units::size(text).ok();
    assert_eq!(["0", "7", "8B", "1KiB", "2MiB", "3GiB"].map(size), [0, 7, 8, 1 << 10, 2 << 20, 3 << 30].map(Some));
    assert_eq!(["", "1K", "1kib", "1.5MiB", "-1", "17179869184GiB"].map(size), [None; 6]);
    assert_eq!([0, 1_000, 64 << 10, 3 << 29].map(units::show_size), ["0", "1000", "64KiB", "1536MiB"]);
    let durations = [999, 2_000, 90_000, 7_200_000].map(|ms| units::show_duration(Duration::from_millis(ms)));
    assert_eq!(durations, ["999ms", "2s", "90s", "2h"]);
}

#[test]
fn the_sample_file_shows_every_default() {
    let sample = include_str!("../../docs/raftkv.toml");
    let settings: Vec<&str> =
        sample.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| line.contains(" = ")).collect();
    let temp = tempfile::tempdir().expect("a temporary directory");
    let config = node(&["--config", &write(temp.path(), &settings.join("\n"))]);
    assert_eq!(format!("{config:?}"), format!("{:?}", node(&["--cores=1"])));
    let mut shown: Vec<&str> = settings.iter().filter_map(|line| line.split(' ').next()).collect();
    shown.sort_unstable();
    let names = names::settings();
    let all: Vec<&String> = names.iter().filter(|name| *name != "local-cluster").collect();
    assert_eq!(shown, all, "docs/raftkv.toml shows every setting once, with its default");
}

#[test]
fn the_manual_names_every_limit() {
    let manual = include_str!("../../docs/operations.md");
    let limits = manual.split("\n## ").find(|chapter| chapter.starts_with("Limits\n")).expect("a chapter");
    let command = Flags::command();
    let is_limit = |arg: &&clap::Arg| arg.get_help_heading().is_some_and(|heading| heading.starts_with("Limits"));
    let flags: Vec<&str> = command.get_arguments().filter(is_limit).filter_map(clap::Arg::get_long).collect();
    assert!(flags.len() >= 20, "{flags:?}");
    for flag in flags {
        assert!(limits.contains(&format!("`--{flag}`")), "--{flag} is not in the chapter on limits");
    }
}
