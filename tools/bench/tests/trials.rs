//! Every trial once, with few keys and short, on clusters of real processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const BENCH: &str = env!("CARGO_BIN_EXE_raftkv-bench");
/// Small files and few shards, so that few keys fill them.
const SMALL: [&str; 4] = ["--shards", "2", "--cores", "1"];

/// The server. Cargo builds only this package's programs for a test of this package.
fn server() -> PathBuf {
    let path = Path::new(BENCH).with_file_name("raftkv-server");
    assert!(path.is_file(), "{} is not there: run `cargo build --workspace` first", path.display());
    path
}

/// A trial whose data lies in `dir`.
fn trial(dir: &TempDir, flags: &[&str], server_flags: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    command.args(flags).arg("--server").arg(server()).arg("--dir").arg(dir.path()).arg("--json");
    command.arg("--").args(SMALL).args(server_flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a trial prints that succeeds: lines, the last of which is JSON. Nothing is left of its data.
fn run(flags: &[&str], server_flags: &[&str]) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    let output = trial(&dir, flags, server_flags).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "data is left");
    lines(&output)
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

/// The number behind `"name": ` in a line of JSON.
fn number(json: &str, name: &str) -> f64 {
    let at = json.find(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("no {name} in {json:?}"));
    let rest = &json[at + name.len() + 4..];
    rest[..rest.find([',', '}']).unwrap()].parse().unwrap_or_else(|_| panic!("{name} is no number in {json}"))
}

/// The numbers of the list behind `"name": `.
fn numbers(json: &str, name: &str) -> Vec<f64> {
    let at = json.find(&format!("\"{name}\": [")).unwrap_or_else(|| panic!("no {name} in {json:?}"));
    let rest = &json[at + name.len() + 5..];
    rest[..rest.find(']').unwrap()].split(", ").map(|number| number.parse().unwrap()).collect()
}

#[test]
fn killed_nodes_are_asked_until_they_answer() {
    let flags = ["restart", "--keys", "1000", "--trials", "1", "--log-bytes", "32KiB"];
    let lines = run(&flags, &["--segment-size", "256KiB"]);
    let json = lines.last().unwrap();
    assert!(lines[0].starts_with("start   0: ") && lines[1].starts_with("start   1: "), "{lines:?}");
    let behind = numbers(json, "log_bytes_behind_snapshots");
    // A record less than was asked for at the most, on each node.
    assert!(behind.len() == 3 && behind.iter().all(|&bytes| bytes > f64::from((32 << 10) - 186)), "{json}");
    assert_eq!(numbers(json, "trials_s"), [number(json, "median_s")]);
    assert!((0.001..60.0).contains(&number(json, "max_s")), "{json}");
}

#[test]
fn memory_is_that_of_each_node() {
    let flags = ["memory", "--keys", "4000", "--value-bytes", "1024", "--still", "500ms", "--order", "random"];
    let lines = run(&flags, &["--segment-size", "256KiB"]);
    let json = lines.last().unwrap();
    assert_eq!(json.matches("\"rss_bytes\"").count(), 3 * (3 + 1), "{json}");
    // Each key is in memory once at least; a debug build and its allocator may take much more.
    assert!((1_000.0..20_000.0).contains(&number(json, "bytes_per_key")), "{json}");
    assert!(number(json, "bytes_per_key_started_again") > 1_000.0, "{json}");
    assert!(number(json, "peak_bytes") >= number(json, "rss_bytes"), "{json}");
}

#[test]
fn snapshots_are_taken_in_one_phase_and_not_in_the_other() {
    let flags = ["snapshots", "--keys", "1000", "--pairs", "1", "--duration", "700ms", "--warmup", "200ms"];
    let more = ["--conns", "4", "--inflight", "2"];
    let lines = run(&[&flags[..], &more].concat(), &["--segment-size", "256KiB"]);
    let json = lines.last().unwrap();
    assert!(number(json, "snapshots_taken") > 0.0, "{json}");
    let rate = number(json, "rate");
    assert!(rate > 0.0 && rate <= number(json, "puts_per_s_max") / 2.0, "{json}");
    assert!(number(json, "snapshot_hold_us_max") > 0.0 && number(json, "turn_us_max") > 0.0, "{json}");
    let ratio = numbers(json, "p99_us_with")[0] / numbers(json, "p99_us_without")[0];
    assert!((ratio - number(json, "ratio_median")).abs() < 0.01, "{json}");
}

#[test]
fn a_node_that_was_away_fetches_snapshots() {
    let flags = ["catch-up", "--keys", "1500", "--duration", "500ms", "--warmup", "100ms"];
    let lines = run(&[&flags[..], &["--conns", "4", "--inflight", "2"]].concat(), &["--segment-size", "256KiB"]);
    let json = lines.last().unwrap();
    assert!(number(json, "snapshots_installed") >= 1.0 && number(json, "snapshot_bytes") > 1_000.0, "{json}");
    assert!(number(json, "caught_up_s") > 0.0, "{json}");
    assert_eq!(number(json, "snapshot_bytes_per_s_max"), f64::from(8 << 20), "{json}");
    assert!(number(json, "snapshot_hold_us_max") > 0.0, "{json}");
    for rate in ["puts_per_s_whole", "puts_per_s_away", "puts_per_s_during", "puts_per_s_after"] {
        assert!(number(json, rate) > 0.0, "{rate} in {json}");
    }
}

#[test]
fn overwrites_stay_within_the_bound() {
    let flags = ["overwrite", "--keys", "100", "--minutes", "0.05", "--segment-size", "128KiB", "--conns", "4"];
    let bound = ["--log-tail-bytes", "16KiB", "--snapshot-log-bytes", "16KiB", "--core-log-bytes-max"];
    let lines = run(&[&flags[..], &bound, &["16MiB"]].concat(), &[]);
    let json = lines.last().unwrap();
    assert!(
        lines[0].starts_with("bound of a node's logs: 17.0 MiB = 1 cores x (16.0 MiB of log + 8 files of 0.1 MiB)")
    );
    assert!(json.contains("\"held\": true") && number(json, "puts") > 0.0 && number(json, "samples") >= 3.0, "{json}");
    let most = numbers(json, "log_bytes_max");
    // Four files are there from the beginning.
    assert!(most.len() == 3 && most.iter().all(|&bytes| bytes >= f64::from(4 * (128 << 10))), "{json}");
}

#[test]
fn logs_that_grow_beyond_their_bound_fail_the_trial() {
    let dir = TempDir::new().unwrap();
    let flags = ["overwrite", "--keys", "100", "--minutes", "0.05", "--segment-size", "128KiB", "--conns", "4"];
    let mut bench = trial(&dir, &[&flags[..], &["--core-log-bytes-max", "16MiB"]].concat(), &[]).spawn().unwrap();
    let mut stdout = BufReader::new(bench.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let cluster = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    // A file that no node has made, as large as no log may be; sparse, so that it costs nothing.
    let alien = fs::File::create(cluster.join("node2/logs/core-0/alien.log")).unwrap();
    alien.set_len(64 << 30).unwrap();
    let rest: Vec<String> = stdout.lines().map(Result::unwrap).collect();
    assert_eq!(bench.wait().unwrap().code(), Some(1), "{rest:?}");
    let json = rest.last().unwrap();
    assert!(json.contains("\"held\": false"), "{json}");
    let most = numbers(json, "log_bytes_max");
    assert!(most[1] > f64::from(1u32 << 31) && most[0] < most[1] && most[2] < most[1], "{json}");
}

#[test]
fn amplification_is_its_parts() {
    let flags = ["amplification", "--keys", "200", "--duration", "1s", "--conns", "4", "--inflight", "2"];
    let lines = run(&flags, &["--segment-size", "256KiB", "--snapshot-log-bytes", "32KiB"]);
    let json = lines.last().unwrap();
    assert_eq!(number(json, "user_bytes"), number(json, "puts") * 144.0, "{json}");
    let names = ["log_records", "batch_heads", "batch_padding", "segment_prefill", "snapshots", "rest"];
    let parts: f64 = names.iter().map(|name| number(json, name)).sum();
    let whole = number(json, "amplification_of_a_node");
    assert!(
        (parts - whole).abs() < 0.01 && (number(json, "amplification_of_all") - 3.0 * whole).abs() < 0.01,
        "{json}"
    );
    // 186 bytes of record for 144 of key and value; a batch is a whole block however little is in it.
    assert!((number(json, "log_records") - 186.0 / 144.0).abs() < 0.001, "{json}");
    assert!(number(json, "batch_padding") > 0.0 && number(json, "snapshots") > 0.0, "{json}");
}

#[test]
fn an_interrupt_leaves_no_process_and_no_data() {
    let dir = TempDir::new().unwrap();
    let mut bench = trial(&dir, &["overwrite", "--keys", "100", "--minutes", "10"], &[]).spawn().unwrap();
    let mut stdout = BufReader::new(bench.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.starts_with("bound of a node's logs: "), "{line}");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", bench.id())).unwrap();
    let children: Vec<&str> = children.split_ascii_whitespace().collect();
    assert_eq!(children.len(), 3, "{children:?}");
    let interrupted = Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && bench.wait().unwrap().code().is_some());
    for child in children {
        assert!(!Path::new("/proc").join(child).exists(), "node {child} is left");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "data is left");
}

#[test]
fn a_server_that_is_not_there_is_one_clear_line() {
    let dir = TempDir::new().unwrap();
    let output =
        Command::new(BENCH).args(["memory", "--server", "no-such-server", "--dir"]).arg(dir.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.lines().last().unwrap().starts_with("raftkv-bench: no-such-server: "), "{error}");
}
