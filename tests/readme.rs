//! What the documents show is what happens: the walk-through of the README is run as it stands, and every flag that the
//! documents name exists.
//!
//! The README's addresses are moved to an address of this process's own. Whether the Rust example compiles is checked
//! with the doc-tests.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// A program of the workspace. Cargo builds only this package's for a test of this package.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_raftkv-server")).with_file_name(name);
    assert!(path.is_file(), "{} is not there: run `cargo build --workspace` first", path.display());
    path
}

/// Asks until there is an answer. Asking starts a process, which is pause enough.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
    }
}

/// A command of the walk-through, and what the README says that it prints.
struct Step {
    command: String,
    output: String,
}

/// What stands between a line that opens a fence with this word and the line that closes it.
fn fenced<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    let open = format!("\n```{word}\n");
    let starts = text.match_indices(&open).map(|(at, _)| at + open.len());
    starts.map(|at| &text[at..at + text[at..].find("\n```").expect("a fence is closed") + 1]).collect()
}

fn walk_through(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in fenced(readme, "console").into_iter().flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push(Step { command: command.to_owned(), output: String::new() }),
            None => steps.last_mut().expect("a command comes first").output += &format!("{line}\n"),
        }
    }
    steps
}

/// A local cluster as the README starts it. It ends with this value.
struct LocalCluster {
    address: String,
    launcher: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    restarted: Option<Child>,
    dir: tempfile::TempDir,
}

impl LocalCluster {
    /// The `attempt` chooses the address.
    fn start(attempt: u8) -> LocalCluster {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{high}.{}", 130 + attempt, low.max(1));
        let dir = tempfile::tempdir().unwrap();
        let mut launcher = Command::new(program("raftkv-server"))
            .args(["--local-cluster", "3", "--listen", &format!("{address}:7001"), "--segment-size", "1MiB"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(launcher.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut cluster = LocalCluster { address, launcher, lines, seen: Vec::new(), restarted: None, dir };
        cluster.line("the banner", "Ctrl-C stops all nodes.");
        cluster
    }

    /// The launcher's first line that holds `text`.
    fn line(&mut self, what: &str, text: &str) -> String {
        let mut at = 0;
        loop {
            if at == self.seen.len() {
                let next = self.lines.recv_timeout(PATIENCE);
                self.seen.push(next.unwrap_or_else(|_| panic!("waited in vain for {what}")));
            }
            if self.seen[at].contains(text) {
                return self.seen[at].clone();
            }
            at += 1;
        }
    }

    /// Runs a line of the README here, and gives what it prints in the README's words.
    fn run(&self, command: &str) -> String {
        let nc = program("raftkv-nc");
        let here = command.replace("target/release/raftkv-nc", &nc.display().to_string());
        // Towards a terminal it shows no progress either.
        let here = here.replace("127.0.0.1", &self.address).replace("curl ", "curl -sS ");
        let output = Command::new("sh").args(["-c", &format!("{here} 2>&1")]).output().unwrap();
        let mut printed = String::from_utf8(output.stdout).unwrap().replace(&self.address, "127.0.0.1");
        // The next prompt of a terminal shows on a line of its own, whatever ended the one before.
        if !printed.is_empty() && !printed.ends_with('\n') {
            printed.push('\n');
        }
        printed
    }

    /// Starts node 1 with the command that the launcher printed when it ended.
    fn restart_node1(&mut self) {
        let line = self.line("the end of node 1", "node1 ended");
        let (_, command) = line.split_once("in another terminal: ").unwrap();
        let mut words = command.split(' ');
        let node = Command::new(words.next().unwrap())
            .args(words)
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.restarted = Some(node.unwrap());
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for child in self.restarted.iter_mut().chain([&mut self.launcher]) {
            // It may have ended already. The launcher takes its nodes with it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The cluster id depends on the addresses.
fn without_cluster_id(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split_whitespace().find(is_id) {
        Some(id) => text.replace(id, "ID"),
        None => text.to_owned(),
    }
}

/// A cluster whose leaders are where the README shows them. On a machine with much else to do, a node may come so late
/// that others lead its shards first: then another cluster is tried.
fn cluster_as_shown(slots: &Step) -> LocalCluster {
    let shown = without_cluster_id(&slots.output);
    for attempt in 0..5 {
        let cluster = LocalCluster::start(attempt);
        let all_led = || Some(cluster.run(&slots.command)).filter(|table| !table.contains("no leader"));
        if without_cluster_id(&wait_for("leaders", all_led)) == shown {
            return cluster;
        }
    }
    panic!("no cluster started with the leaders that the README shows:\n{shown}");
}

#[test]
fn the_walk_through_prints_what_the_readme_shows() {
    let has_curl = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_curl {
        assert!(std::env::var_os("RAFTKV_REQUIRE_TOOLS").is_none(), "the walk-through needs curl");
        return println!("SKIPPED the walk-through: there is no curl");
    }
    let steps = walk_through(&read("README.md"));
    let slots = steps.iter().find(|step| step.command.ends_with(" slots")).expect("the leaders are shown");
    let mut cluster = cluster_as_shown(slots);
    let node1 = cluster.line("node 1's process id", "node1  ");
    let pid = node1.split_whitespace().skip_while(|word| *word != "pid").nth(1).unwrap().to_owned();
    // Those with grpcurl are run by `tools/grpc-check`.
    for step in steps.iter().filter(|step| !step.command.starts_with("grpcurl ")) {
        if step.command.starts_with("kill -9 ") {
            cluster.run(&format!("kill -9 {pid}"));
            continue;
        }
        if step.command.ends_with(" --stale") {
            cluster.restart_node1();
        }
        let shown = without_cluster_id(&step.output);
        let printed = || without_cluster_id(&cluster.run(&step.command));
        let is_curl_read = step.command.starts_with("curl http") || step.command.starts_with("curl \"");
        if is_curl_read || [" get ", " scan ", " slots"].iter().any(|read| step.command.contains(read)) {
            // A node that has just been started may still have to be found, and to catch up.
            wait_for(&format!("what the README shows of\n{}\n{shown}", step.command), || {
                Some(printed()).filter(|printed| *printed == shown)
            });
        } else {
            assert_eq!(printed(), shown, "{}", step.command);
        }
    }
}

#[test]
fn the_commands_for_the_tests_are_those_of_ci() {
    let tests =
        fenced(&read("README.md"), "sh").into_iter().find(|block| block.contains("cargo test")).unwrap().to_owned();
    assert!(read(".ci/run").contains(tests.trim()), "{tests}");
}

fn help(program_name: &str, args: &[&str]) -> String {
    let output = Command::new(program(program_name)).args(args).output().unwrap();
    assert!(output.status.success(), "{program_name} {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All words of a text that are written like flags.
fn flags(text: &str) -> BTreeSet<&str> {
    let starts =
        text.match_indices("--").filter(|(at, _)| !text[..*at].ends_with(|c: char| c == '-' || c.is_alphanumeric()));
    let flag = |(at, _): (usize, &str)| {
        let is_end = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let end = text[at + 2..].find(is_end).map_or(text.len(), |end| at + 2 + end);
        &text[at..end]
    };
    starts.map(flag).filter(|flag| flag[2..].starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn every_flag_that_the_documents_name_exists() {
    let texts = [
        help("raftkv-server", &["--help"]),
        help("raftkv-nc", &["--help"]),
        help("raftkv-nc", &["127.0.0.1:1", "help"]),
        help("raftkv-bench", &["--help"]),
        help("raftkv-bench", &["failover", "--help"]),
        help("raftkv-bench", &["null-server", "--help"]),
        help("raftkv-bench", &["restart", "--help"]),
        help("raftkv-bench", &["memory", "--help"]),
        help("raftkv-bench", &["snapshots", "--help"]),
        help("raftkv-bench", &["catch-up", "--help"]),
        help("raftkv-bench", &["overwrite", "--help"]),
        help("raftkv-bench", &["amplification", "--help"]),
        help("raftkv-sim", &["--help"]),
        help("raftkv-fuzz", &["--help"]),
        help("raftkv-fuzz", &["crash-images", "--help"]),
        help("raftkv-fuzz", &["flips", "--help"]),
        read("tools/compare"),
        read("tools/faces"),
        read("tools/durable-path"),
    ];
    let of_cargo = ["--bench", "--lib", "--open", "--profile", "--release", "--test", "--workspace"];
    // `--python_out` and `--grpc_python_out`.
    let of_protoc = ["--grpc", "--python"];
    let of_systemctl = ["--no-block"];
    let others = of_cargo.into_iter().chain(of_protoc).chain(of_systemctl);
    let known: BTreeSet<&str> = texts.iter().flat_map(|text| flags(text)).chain(others).collect();
    let documents = [
        "architecture.md",
        "configuration.md",
        "durable-path.md",
        "features.md",
        "grpc.md",
        "operations.md",
        "raftkv.toml",
        "rest.md",
    ];
    for document in documents.map(|name| format!("docs/{name}")).into_iter().chain(["README.md".to_owned()]) {
        let text = read(&document);
        let unknown: Vec<&str> = flags(&text).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{document} names {unknown:?}, which no program has");
    }
}

#[test]
fn flags_are_found_in_text() {
    let text = "`--a-b`=1 --c,--d=x --- -- |---| x--y --Z --e2";
    assert_eq!(flags(text), BTreeSet::from(["--a-b", "--c", "--d", "--e2"]));
}
