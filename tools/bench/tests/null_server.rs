//! The load generator against null servers: real processes, real sockets.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_raftkv-bench");

/// Null servers that end with the test.
struct Cluster {
    addresses: Vec<String>,
    nodes: Vec<Child>,
}

impl Cluster {
    fn start(count: usize) -> Cluster {
        // Held until all ports are drawn, so that they differ.
        let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<String> = held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        drop(held);
        let members: Vec<String> = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}")).collect();
        let nodes = (1..=count).map(|id| start_node(id, &members.join(","))).collect();
        Cluster { addresses, nodes }
    }

    fn pids(&self) -> String {
        self.nodes.iter().map(|node| node.id().to_string()).collect::<Vec<_>>().join(",")
    }

    /// A small run with these flags too.
    fn bench(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(BENCH);
        command.args(["--endpoints", &self.addresses.join(","), "--conns", "6", "--keys", "2000", "--json"]);
        command.args(["--timeout", "5s"]).args(flags);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn start_node(id: usize, members: &str) -> Child {
    let mut node = Command::new(BENCH)
        .args(["null-server", "--node-id", &id.to_string(), "--cluster", members])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with(&format!("null server node={id} listen=127.0.0.1:")), "{line:?}");
    node
}

fn last_line(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// The number behind `"name": ` in a line of JSON.
fn number(json: &str, name: &str) -> f64 {
    let at = json.find(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("no {name} in {json:?}"));
    let rest = &json[at + name.len() + 4..];
    rest[..rest.find([',', '}']).unwrap()].parse().unwrap_or_else(|_| panic!("{name} is no number in {json}"))
}

/// The processor time that a process has used, in ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_ascii_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

/// Waits until the load has reached a node: it has used processor time.
fn wait_until_busy(node: &Child, ticks: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while cpu_ticks(node.id()) < ticks {
        assert!(Instant::now() < deadline, "the load does not reach the node");
        std::thread::yield_now();
    }
}

#[test]
fn every_workload_runs_without_errors() {
    let cluster = Cluster::start(3);
    for workload in ["put", "get", "mixed", "scan"] {
        let flags = ["--target", "null", "--workload", workload, "--threads", "2", "--pids", &cluster.pids()];
        let output = cluster.bench(&flags).args(["--warmup", "100ms", "--duration", "300ms"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let json = last_line(&output);
        assert!(json.contains(&format!("\"workload\": \"{workload}\"")), "{json}");
        assert!(number(&json, "ops") > 0.0 && number(&json, "errors") == 0.0, "{json}");
        assert!(json.contains("\"p50\": "), "{json}");
        assert!(number(&json, "p99") > 0.0 && number(&json, "p99") <= number(&json, "max"), "{json}");
        assert!(number(&json, "server_cpu_s") >= 0.0 && number(&json, "server_rss_bytes") > 0.0, "{json}");
    }
}

#[test]
fn keys_are_written_once_before_the_load() {
    let cluster = Cluster::start(3);
    let short = ["--workload", "get", "--warmup", "50ms", "--duration", "50ms"];
    let output = cluster.bench(&short).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("prefilling 2000 keys"), "{output:?}");
    let without = cluster.bench(&short).arg("--no-prefill").output().unwrap();
    assert!(without.status.success(), "{without:?}");
    assert!(!String::from_utf8_lossy(&without.stderr).contains("prefilling"), "{without:?}");
}

#[test]
fn an_open_loop_sends_exactly_what_was_asked_for() {
    let cluster = Cluster::start(1);
    let flags = ["--target", "null", "--rate", "2000", "--warmup", "100ms", "--duration", "300ms"];
    let json = last_line(&cluster.bench(&flags).output().unwrap());
    assert_eq!((number(&json, "ops"), number(&json, "errors")), (600.0, 0.0), "{json}");
}

#[test]
fn the_death_of_a_node_is_counted_and_survived() {
    let mut cluster = Cluster::start(3);
    let bench = cluster.bench(&["--target", "null", "--warmup", "0", "--duration", "2s"]).spawn().unwrap();
    wait_until_busy(&cluster.nodes[2], 2);
    cluster.nodes[2].kill().unwrap();
    let output = bench.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json = last_line(&output);
    assert!(number(&json, "disconnected") >= 2.0, "two of six connections went to node 3: {json}");
    assert!(number(&json, "connection_lost") >= 1.0, "they had requests in flight: {json}");
    assert!(number(&json, "ops") > 1_000.0, "{json}");
}

#[test]
fn an_interrupt_prints_what_there_is() {
    let cluster = Cluster::start(1);
    let bench = cluster.bench(&["--target", "null", "--warmup", "0", "--duration", "10m"]).spawn().unwrap();
    wait_until_busy(&cluster.nodes[0], 5);
    let interrupted = Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let output = bench.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json = last_line(&output);
    assert!(number(&json, "ops") > 0.0, "{json}");
    assert!((0.01..30.0).contains(&number(&json, "duration_s")), "{json}");
}

#[test]
fn nobody_there_is_one_clear_line() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = Command::new(BENCH).args(["--endpoints", &unused]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(&unused) && error.lines().count() == 1, "{error}");
    assert_eq!(Command::new(BENCH).args(["--conns", "0"]).output().unwrap().status.code(), Some(2));
}
