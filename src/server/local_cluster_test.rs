use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::local_cluster::{Colour, Event, Launcher, Output, shell_word, spawn};
use crate::config::{self, LocalCluster, Mode};
use crate::error::Fatal;

const DEADLINE: Duration = Duration::from_secs(20);

/// Says that it listens, and ends well when told to.
const OBEDIENT: &str = "trap 'echo ending; exit 0' TERM
    echo raftkv-server listening node=$0; while :; do sleep 0.02; done";

/// A cluster whose nodes are shells that run these scripts, with their node's name as `$0`.
fn cluster(scripts: &[&str]) -> LocalCluster {
    let args = vec![OsString::from(format!("--local-cluster={}", scripts.len())), "--data-dir=/not/there".into()];
    let Ok(Mode::LocalCluster(mut cluster)) = config::read(args, []).map(|reading| reading.mode) else {
        panic!("no cluster")
    };
    for (node, script) in cluster.nodes.iter_mut().zip(scripts) {
        node.args = vec!["-c".into(), script.into(), format!("node{}", node.config.node_id).into()];
    }
    cluster
}

/// A launcher in a thread of its own, and what it prints.
struct Running {
    events: Sender<Event>,
    printed: mpsc::Receiver<Vec<u8>>,
    text: String,
    launcher: JoinHandle<Result<(), Fatal>>,
}

struct Pipe(mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Running {
    fn start(exe: &'static str, cluster: LocalCluster) -> Running {
        let (events, inbox) = bounded(100);
        let (out, printed) = mpsc::channel();
        let launcher_events = events.clone();
        let launcher = thread::spawn(move || {
            let output = Output { out: Box::new(Pipe(out)), colour: Colour::Off };
            Launcher::new(PathBuf::from(exe), output, launcher_events).run(cluster, &inbox)
        });
        Running { events, printed, text: String::new(), launcher }
    }

    fn wait_for(&mut self, words: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.text.contains(words) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.printed.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|error| panic!("no `{words}` ({error}) in\n{}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// How it ended, and everything it has printed.
    fn end(mut self) -> (Result<(), String>, String) {
        let result = self.launcher.join().expect("no panic").map_err(|error| {
            assert_eq!(error.exit_code(), 1);
            error.to_string()
        });
        self.printed.iter().for_each(|bytes| self.text.push_str(&String::from_utf8_lossy(&bytes)));
        (result, self.text)
    }
}

#[test]
fn all_nodes_run_until_told_to_stop() {
    let mut running = Running::start("/bin/sh", cluster(&[OBEDIENT, OBEDIENT, OBEDIENT]));
    running.wait_for("3 nodes are up");
    running.wait_for("Ctrl-C stops all nodes");
    running.events.send(Event::Stop).expect("the launcher listens");
    let (result, text) = running.end();
    assert_eq!(result, Ok(()));
    for id in 1..=3 {
        assert!(text.contains(&format!("[node{id}] raftkv-server listening node=node{id}\n")), "{text}");
        assert!(text.contains(&format!("  node{id}  127.0.0.1:700{id}  pid ")), "{text}");
        assert!(text.contains(&format!("[node{id}] ending\n")), "{text}");
    }
    assert!(text.contains("raftkv-nc 127.0.0.1:7001 put greeting hello"), "{text}");
}

#[test]
fn one_node_that_cannot_start_stops_the_others() {
    let failing = "echo raftkv-server: port in use >&2; exit 1";
    let (result, text) = Running::start("/bin/sh", cluster(&[OBEDIENT, failing, OBEDIENT])).end();
    assert_eq!(result, Err("node2 did not start (exit status: 1): its last line says why".into()));
    assert!(text.contains("[node2] raftkv-server: port in use\n"), "{text}");
    assert!(!text.contains("nodes are up"), "{text}");
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let (result, _) = Running::start("/not/there", cluster(&[OBEDIENT, OBEDIENT])).end();
    let line = result.expect_err("it cannot start");
    assert!(line.starts_with("cannot start /not/there: "), "{line}");
}

#[test]
fn a_node_that_dies_is_reported_and_left_dead() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let flag = |id: u8| temp.path().join(format!("die{id}"));
    let mortal = format!(
        "echo raftkv-server listening node=$0; while [ ! -e {}/die${{0#node}} ]; do sleep 0.02; done; kill -9 $$",
        temp.path().display()
    );
    let mut running = Running::start("/bin/sh", cluster(&[&mortal, &mortal]));
    running.wait_for("2 nodes are up");
    fs::write(flag(2), "").expect("writes");
    running.wait_for(
        "[local-cluster] node2 ended: signal: 9 (SIGKILL); to start it again, in another terminal: /bin/sh -c ",
    );
    fs::write(flag(1), "").expect("writes");
    let (result, text) = running.end();
    assert_eq!(result, Err("all nodes have ended".into()));
    assert!(text.contains("[local-cluster] node1 ended: signal: 9"), "{text}");
}

#[test]
fn a_second_request_kills() {
    let stubborn = "trap '' TERM; echo raftkv-server listening node=$0; while :; do sleep 0.02; done";
    let mut running = Running::start("/bin/sh", cluster(&[stubborn]));
    running.wait_for("1 node is up");
    running.events.send(Event::Stop).expect("the launcher listens");
    running.wait_for("stopping all nodes");
    running.events.send(Event::Stop).expect("the launcher listens");
    let (result, text) = running.end();
    assert_eq!(result, Ok(()));
    assert!(text.contains("node1 ended: signal: 9"), "{text}");
}

#[test]
fn nothing_goes_on_when_nobody_reads() {
    let mut running = Running::start("/bin/sh", cluster(&[OBEDIENT]));
    running.wait_for("1 node is up");
    let Running { events, printed, launcher, .. } = running;
    drop(printed);
    let line = Event::Line(raftkv_protocol::types::NodeId(1), "into the void".into());
    events.send(line).expect("the launcher listens");
    assert!(launcher.join().expect("no panic").is_ok());
}

#[test]
fn no_child_outlives_its_launcher() {
    // The kernel looks at the thread that started the child; that of a killed process ends likewise.
    let launcher = thread::spawn(|| {
        let cluster = cluster(&["trap '' TERM; while :; do sleep 0.02; done"]);
        spawn(Path::new("/bin/sh"), &cluster.nodes[0]).expect("starts")
    });
    let mut child = launcher.join().expect("no panic");
    assert_eq!(child.wait().expect("waits").signal(), Some(libc::SIGKILL));
}

#[test]
fn commands_can_be_pasted_into_a_shell() {
    let shown = |word: &str| shell_word(word.as_ref());
    assert_eq!(shown("--listen=127.0.0.1:7001"), "--listen=127.0.0.1:7001");
    assert_eq!(shown("--data-dir=my data"), "'--data-dir=my data'");
    assert_eq!(shown("it's"), r"'it'\''s'");
    assert_eq!(shown("[::1]:7001"), "'[::1]:7001'");
    assert_eq!(shown(""), "''");
}
