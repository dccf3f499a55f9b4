use std::path::Path;

use raftkv_protocol::types::NodeId;

use super::config_test::{read_with, refusal};
use super::{Config, LocalCluster, Mode, available_cores, read};

fn plan(args: &[&str], env: &[(&str, &str)]) -> LocalCluster {
    match read_with(args, env).expect("valid") {
        Mode::LocalCluster(cluster) => cluster,
        other => panic!("no cluster: {other:?}"),
    }
}

fn texts(args: &[std::ffi::OsString]) -> Vec<&str> {
    args.iter().map(|arg| arg.to_str().expect("text")).collect()
}

#[test]
fn three_nodes_divide_the_machine() {
    // The default is where whoever runs the tests may have data, with a number of cores.
    let dirs = plan(&["--local-cluster=3", "--cores=1"], &[]).nodes.into_iter().map(|node| node.config.data_dir);
    assert!(dirs.eq((1..=3).map(|id| Path::new("./data").join(format!("node{id}")))));
    let cluster = plan(&["--local-cluster=3", "--data-dir=/nowhere"], &[]);
    let members = [7001, 7002, 7003].map(|port| format!("127.0.0.1:{port}"));
    for ((id, node), address) in (1..).zip(&cluster.nodes).zip(&members) {
        let config = &node.config;
        assert_eq!(config.node_id, NodeId(id));
        assert_eq!(&config.advertise, address);
        assert_eq!(config.listen.to_string(), *address);
        assert_eq!(config.data_dir, Path::new("/nowhere").join(format!("node{id}")));
        assert_eq!(config.initial_cluster.len(), 3);
        assert_eq!(config.cores, (available_cores() / 3).clamp(1, 12));
        assert_eq!(config.segment_size, 8 << 20);
    }
    assert_eq!(cluster.nodes.len(), 3);
    let cores = format!("--cores={}", (available_cores() / 3).clamp(1, 12));
    assert_eq!(
        texts(&cluster.nodes[1].args),
        [
            "--node-id=2",
            "--listen=127.0.0.1:7002",
            "--initial-cluster=1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003",
            "--data-dir=/nowhere/node2",
            &cores,
            "--segment-size=8388608",
        ]
    );
}

#[test]
fn what_is_not_about_one_node_is_handed_on() {
    let args = ["--local-cluster=2", "--listen=localhost:8001", "--data-dir=/tmp/x", "--cores=2", "--shards=4"];
    let cluster = plan(&args, &[("RAFTKV_HEARTBEAT", "50ms"), ("RAFTKV_SEGMENT_SIZE", "64KiB")]);
    assert_eq!(
        texts(&cluster.nodes[0].args),
        [
            "--node-id=1",
            "--listen=localhost:8001",
            "--initial-cluster=1=localhost:8001,2=localhost:8002",
            "--data-dir=/tmp/x/node1",
            "--cores=2",
            "--segment-size=65536",
            "--heartbeat=50ms",
            "--shards=4",
        ]
    );
}

#[test]
fn a_child_understands_what_the_launcher_planned() {
    let args = ["--local-cluster=3", "--shards=5", "--log-io=direct", "--value-bytes-max=1KiB", "--log-level=warn"];
    for node in plan(&args, &[("RAFTKV_CLUSTER_NAME", "trial")]).nodes {
        let Mode::Node(child) = read(node.args, []).expect("valid").mode else { panic!("no node") };
        let shown = |config: &Config| format!("{config:?}");
        assert_eq!(shown(&child), shown(&node.config));
    }
}

#[test]
fn what_the_launcher_chooses_cannot_be_given() {
    for name in ["node-id", "advertise", "initial-cluster"] {
        let value = if name == "node-id" { "2" } else { "1=a:1" };
        assert_eq!(
            refusal(&["--local-cluster=3", &format!("--{name}={value}")]),
            format!("--local-cluster chooses --{name} for each node; leave it out")
        );
    }
    assert_eq!(
        refusal(&["--local-cluster=3", "--listen=127.0.0.1:65534"]),
        "--listen 127.0.0.1:65534 leaves no room for the ports of 3 nodes"
    );
    assert_eq!(
        refusal(&["--local-cluster=10"]),
        "invalid value '10' for '--local-cluster <N>': 10 is not in 1..=9; see --help"
    );
    assert!(refusal(&["--local-cluster=3", "--cores=9", "--shards=8"]).starts_with("--cores 9 is more than"));
}

#[test]
fn nodes_listen_for_http_on_ports_of_their_own() {
    let http = |args: &[&str]| {
        let cluster = plan(args, &[]);
        let listen = cluster.nodes.iter().map(|node| node.config.http_listen.map(|address| address.to_string()));
        listen.collect::<Vec<_>>()
    };
    let ports = |ports: [u16; 2]| ports.map(|port| Some(format!("127.0.0.1:{port}"))).to_vec();
    assert_eq!(http(&["--local-cluster=2"]), ports([8001, 8002]));
    assert_eq!(http(&["--local-cluster=2", "--http-listen=127.0.0.1:9000"]), ports([9000, 9001]));
    assert_eq!(http(&["--local-cluster=2", "--http-listen=off"]), [None, None]);
    let cluster = plan(&["--local-cluster=2", "--http-listen=127.0.0.1:9000"], &[]);
    assert!(texts(&cluster.nodes[1].args).contains(&"--http-listen=127.0.0.1:9001"));
    let refused = refusal(&["--local-cluster=2", "--http-listen=127.0.0.1:65535"]);
    assert!(refused.contains("--http-listen"), "{refused}");
}
