//! What the service manager that starts a node is told, and the unit that it is started by.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;

use crate::support::cluster::{Cluster, temp_dir};
use crate::support::hanging_file::HangingFile;
use crate::support::process::{run_to_end, server};
use crate::support::tools;
use crate::support::wait::{PATIENCE, eventually};

/// A service manager: what it was told, in the order in which it came.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn at(address: &SocketAddr) -> Manager {
        let socket = UnixDatagram::bind_addr(address).expect("a socket");
        socket.set_nonblocking(true).expect("it can be");
        Manager { socket, heard: Vec::new() }
    }

    /// Every line so far.
    fn listen(&mut self) -> &[String] {
        let mut buffer = [0; 4_096];
        while let Ok(bytes) = self.socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..bytes]);
            self.heard.extend(message.lines().map(str::to_owned));
        }
        &self.heard
    }

    fn has_heard(&mut self, text: &str) -> bool {
        self.listen().iter().any(|line| line.contains(text))
    }

    /// Waits until it has been told so. That, and what it was told before, is forgotten then.
    #[track_caller]
    fn await_line(&mut self, text: &str) {
        let at = eventually(PATIENCE, format!("the service manager is told {text}"), || {
            self.listen().iter().position(|line| line.contains(text))
        });
        self.heard.drain(..=at);
    }
}

/// The server, started by the service manager that listens there.
fn server_of(address: &str) -> Command {
    let mut command = server();
    command.env("NOTIFY_SOCKET", address);
    command
}

#[test]
fn a_node_is_ready_when_a_majority_is_there_and_it_has_caught_up() {
    // The path of a socket must be short.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let mut manager = Manager::at(&SocketAddr::from_pathname(&path).expect("an address"));
    let mut cluster = Cluster::of(3).idle();
    cluster.spawn_with(1, server_of(path.to_str().expect("text"))).await_listening();
    manager.await_line("6 shards have no known leader");
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.heard);
    cluster.start_node(2);
    manager.await_line("READY=1");
    cluster.await_leaders();
    cluster.process(1).signal("HUP");
    manager.await_line("RELOADING=1");
    manager.await_line("READY=1");
    // It loses its majority, and gets it back: it is the same service all the while. Before both are admitted that may
    // need the third node.
    cluster.running().into_iter().for_each(|id| cluster.await_admission(id));
    cluster.kill_9(2);
    manager.await_line("no known leader");
    cluster.start_node(2);
    manager.await_line("STATUS=serving");
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.heard);
    assert_eq!(cluster.stop(1).code, Some(0));
    manager.await_line("STOPPING=1");
}

#[test]
fn a_node_says_that_it_lives_as_often_as_it_is_wanted() {
    let name = format!("raftkv-test-{}", std::process::id());
    let mut manager = Manager::at(&SocketAddr::from_abstract_name(&name).expect("an address"));
    let mut cluster = Cluster::of(1).idle();
    let mut command = server_of(&format!("@{name}"));
    command.env("WATCHDOG_USEC", "100000");
    cluster.spawn_with(1, command).await_listening();
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    cluster.stop(1);

    // The variable may have been meant for another process.
    let mut command = server_of(&format!("@{name}"));
    command.env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1");
    manager.listen();
    manager.heard.clear();
    cluster.spawn_with(1, command).await_listening();
    eventually(PATIENCE, "it serves", || manager.has_heard("READY=1").then_some(()));
    cluster.stop(1);
    assert!(!manager.has_heard("WATCHDOG=1"), "{:?}", manager.heard);
}

#[test]
fn a_node_lives_while_it_cannot_read_its_settings_again() {
    let name = format!("raftkv-test-reload-{}", std::process::id());
    let mut manager = Manager::at(&SocketAddr::from_abstract_name(&name).expect("an address"));
    let mut cluster = Cluster::of(1).idle();
    let file = cluster.files().join("raftkv.toml");
    fs::write(&file, "").expect("written");
    cluster.set_flag(&format!("--config={}", file.display()));
    let mut command = server_of(&format!("@{name}"));
    command.env("WATCHDOG_USEC", "100000");
    cluster.spawn_with(1, command).await_listening();
    manager.await_line("READY=1");
    let hanging = HangingFile::instead_of(&file);
    cluster.process(1).signal("HUP");
    manager.await_line("RELOADING=1");
    let read = hanging.await_reader();
    manager.listen();
    manager.heard.clear();
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.heard);
    drop(read);
    manager.await_line("READY=1");
    cluster.stop(1);
}

#[test]
fn a_node_serves_without_a_service_manager_that_listens() {
    for address in ["/not/there", "nonsense", "@raftkv-test-nobody"] {
        let mut cluster = Cluster::of(1).idle();
        cluster.spawn_with(1, server_of(address)).await_listening();
        cluster.await_leaders();
        let log = cluster.process(1).stderr();
        assert!(log.contains("NOTIFY_SOCKET") && log.contains(address), "{log}");
    }
}

/// The unit with the program where it is here.
fn unit() -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/systemd/raftkv.service");
    let unit = fs::read_to_string(unit).expect("the unit is there");
    unit.replace("/usr/local/bin/raftkv-server", env!("CARGO_BIN_EXE_raftkv-server"))
}

#[test]
fn the_unit_starts_the_server_with_flags_that_there_are() {
    let dir = temp_dir();
    fs::write(dir.path().join("raftkv.toml"), "node-id = 1\n").expect("written");
    let unit = unit();
    let commands = unit.lines().filter_map(|line| {
        let (key, command) = line.split_once('=')?;
        (key.starts_with("Exec") && command.contains("raftkv-server")).then_some(command)
    });
    let commands: Vec<&str> = commands.collect();
    assert_eq!(commands.len(), 2, "{unit}");
    for command in commands {
        let command = command.replace("/etc/raftkv/", "").replace("%S", "state").replace(" --check-config", "");
        let args: Vec<&str> = command.split(' ').skip(1).chain(["--check-config"]).collect();
        let ended = run_to_end(&args, dir.path());
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn systemd_understands_the_unit() {
    let analyze = || Command::new("systemd-analyze");
    if !tools::have("systemd_understands_the_unit", "systemd-analyze", analyze().arg("--version")) {
        return;
    }
    let dir = temp_dir();
    let path = dir.path().join("raftkv.service");
    fs::write(&path, unit()).expect("written");
    let verified = analyze().args(["verify", "--man=no"]).arg(&path).output().expect("it runs");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("raftkv")).collect();
    assert!(verified.status.success() && about_ours.is_empty(), "{said}");
}
