//! SIGHUP: the settings are read again, or the terminal has gone.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::cluster::{Cluster, fresh_addresses, temp_dir};
use crate::support::hanging_file::HangingFile;
use crate::support::process::{Process, is_alive, send_signal, server, through};
use crate::support::tools;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::Wire;

/// Waits for a line of the log that was not there before, and returns it.
#[track_caller]
fn next_line(process: &Process, seen: &mut usize, text: &str) -> String {
    eventually(PATIENCE, format!("`{text}` is logged"), || {
        let log = process.stderr();
        let line = log[*seen..].lines().find(|line| line.contains(text)).map(str::to_owned)?;
        *seen = log.len();
        Some(line)
    })
}

#[test]
fn the_log_level_changes_while_the_node_runs_and_other_changes_are_named() {
    let mut cluster = Cluster::of(1).idle();
    let file = cluster.files().join("raftkv.toml");
    let write = |text: &str| fs::write(&file, text).expect("written");
    write("log-level = \"warn\"\n");
    cluster.set_flag(&format!("--config={}", file.display()));
    cluster.start_node(1);
    cluster.await_leaders();
    let mut seen = 0;
    let process = cluster.process(1);
    assert!(!process.stderr().contains(" INFO "), "{}", process.stderr());

    write("log-level = \"debug\"\n");
    process.signal("HUP");
    let line = next_line(process, &mut seen, "raftkv.toml");
    assert!(line.contains(" INFO ") && line.ends_with("again: the log level is debug now"), "{line}");

    write("log-level = \"loud\"\n");
    process.signal("HUP");
    let line = next_line(process, &mut seen, "raftkv.toml");
    assert!(line.contains(" WARN ") && line.ends_with("; everything stays as it is"), "{line}");
    assert!(line.contains("raftkv.toml, line 1: ") && line.contains("--log-level"), "{line}");

    // What the command line says goes before the file, and is not changed by it.
    write("inflight-max = 7\nsegment-size = \"64MiB\"\nheartbeat = \"100ms\"\nlog-level = \"warn\"\n");
    process.signal("HUP");
    let line = next_line(process, &mut seen, "raftkv.toml");
    assert!(line.contains("the log level is warn now"), "{line}");
    assert!(line.ends_with("in force only after a restart: inflight-max"), "{line}");
    cluster.wire(1).put("still", "there");
}

#[test]
fn what_is_logged_stays_as_rust_log_says() {
    let dir = temp_dir();
    let file = dir.path().join("raftkv.toml");
    fs::write(&file, "log-level = \"error\"\nsegment-size = \"1MiB\"\n").expect("written");
    let mut command = server();
    command.current_dir(&dir).env("RUST_LOG", "info").arg("--config=raftkv.toml");
    command.arg(format!("--listen={}", fresh_addresses(1)[&1]));
    let mut process = Process::spawn("filtered", &mut command, dir.path());
    process.await_listening();
    process.signal("HUP");
    next_line(&process, &mut 0, "read raftkv.toml again: the log level stays as RUST_LOG says");
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let mut cluster = Cluster::start(1);
    cluster.process(1).signal("HUP");
    next_line(cluster.process(1), &mut 0, "there is no file to read (--config): nothing changes");
    cluster.wire(1).put("still", "there");
}

#[test]
fn a_node_that_cannot_read_its_settings_again_goes_on_and_stops_in_order() {
    let mut cluster = Cluster::of(1).idle();
    let file = cluster.files().join("raftkv.toml");
    fs::write(&file, "").expect("written");
    cluster.set_flag(&format!("--config={}", file.display()));
    cluster.start_node(1);
    cluster.await_leaders();
    let hanging = HangingFile::instead_of(&file);
    cluster.process(1).signal("HUP");
    let _read = hanging.await_reader();
    // It will be read once more when that is done.
    cluster.process(1).signal("HUP");
    cluster.wire(1).put("still", "there");
    assert_eq!(cluster.stop(1).code, Some(0));
}

/// A node that is no child of the test's. It is killed when this is dropped.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        if is_alive(self.0) {
            send_signal(self.0, "KILL");
        }
    }
}

/// A node on a terminal of its own, started by these words of a shell. The process is the terminal's other end.
fn on_a_terminal(before: &str, dir: &Path) -> (Process, Stray) {
    let address = fresh_addresses(1)[&1];
    let mut node = server();
    node.args([&format!("--listen={address}"), "--segment-size=1MiB", "--cores=1"]);
    let shell = format!("{before} \"$@\" 2>node.err");
    let mut inner = Command::new("sh");
    inner.args(["-c", &shell, "sh"]);
    let inner = through(inner, &node);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().expect("text")))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("exec {}", words.join(" ")), "/dev/null"]).current_dir(dir);
    for (name, _) in node.get_envs() {
        script.env_remove(name);
    }
    let terminal = Process::spawn("terminal", &mut script, dir);
    eventually(PATIENCE, "the node answers", || Wire::connect(address).ok());
    let [pid] = terminal.children()[..] else { panic!("one child: {:?}", terminal.children()) };
    (terminal, Stray(pid))
}

/// Whether there are terminals to be had.
fn have_terminals(test: &str) -> bool {
    tools::have(test, "script", Command::new("script").args(["-qec", "true", "/dev/null"]))
}

#[test]
fn a_node_stops_in_order_when_its_terminal_has_gone() {
    if !have_terminals("a_node_stops_in_order_when_its_terminal_has_gone") {
        return;
    }
    let dir = temp_dir();
    let log = || fs::read_to_string(dir.path().join("node.err")).unwrap_or_default();
    // Who runs the tests may have started them so that they outlive theirs.
    let (mut terminal, node) = on_a_terminal("exec env --default-signal=HUP", dir.path());
    send_signal(node.0, "HUP");
    eventually(PATIENCE, "while the terminal is there, settings are read", || {
        log().contains("nothing changes").then_some(())
    });
    terminal.kill_9();
    eventually(PATIENCE, "the node has ended", || (!is_alive(node.0)).then_some(()));
    assert!(log().lines().last().is_some_and(|line| line.ends_with("stopped")), "{}", log());
}

#[test]
fn a_node_that_is_to_outlive_its_terminal_does() {
    if !have_terminals("a_node_that_is_to_outlive_its_terminal_does") {
        return;
    }
    let dir = temp_dir();
    let (mut terminal, node) = on_a_terminal("trap \"\" HUP; exec", dir.path());
    terminal.kill_9();
    let log = || fs::read_to_string(dir.path().join("node.err")).unwrap_or_default();
    eventually(PATIENCE, "it has heard of it", || log().contains("nothing changes").then_some(()));
    assert!(is_alive(node.0));
    send_signal(node.0, "TERM");
    eventually(PATIENCE, "the node has ended", || (!is_alive(node.0)).then_some(()));
}
