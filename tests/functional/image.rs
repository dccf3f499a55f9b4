//! The image that the Dockerfile describes starts the server with settings that there are, and asks after its health with
//! a command that works.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::cluster::{Cluster, temp_dir};
use crate::support::process::{Process, server};
use crate::support::wait::PATIENCE;

fn dockerfile() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).expect("it is there")
}

/// The words of an instruction in its form as a list.
fn words<'t>(dockerfile: &'t str, instruction: &str) -> Vec<&'t str> {
    let line = dockerfile.lines().rev().find(|line| line.starts_with(instruction)).expect("the instruction is there");
    let list = line.split_once('[').and_then(|(_, list)| list.strip_suffix(']')).expect("it is a list");
    list.split(", ").map(|word| word.trim_matches('"')).collect()
}

#[test]
fn the_image_starts_a_node_with_settings_that_there_are() {
    let (dockerfile, dir) = (dockerfile(), temp_dir());
    let env = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).expect("variables");
    let start = |args: &[&str]| {
        let mut command = server();
        command.current_dir(&dir).envs(env.split(' ').filter_map(|pair| pair.split_once('=')));
        command.args(args).arg("--check-config");
        Process::spawn("image", &mut command, dir.path()).await_end(PATIENCE)
    };
    assert_eq!(words(&dockerfile, "ENTRYPOINT"), ["/usr/local/bin/raftkv-server"]);
    let alone = start(&words(&dockerfile, "CMD"));
    assert_eq!(alone.code, Some(0), "{}", alone.stderr);
    let of_two = start(&["--node-id=2", "--initial-cluster=1=127.0.0.1:7001,2=127.0.0.1:7002"]);
    assert_eq!(of_two.code, Some(0), "{}", of_two.stderr);
}

#[test]
fn the_image_s_health_check_tells_a_node_that_answers() {
    let program = Path::new(env!("CARGO_BIN_EXE_raftkv-server")).with_file_name("raftkv-nc");
    assert!(program.is_file(), "{} is not there: run `cargo build --workspace` first", program.display());
    let mut cluster = Cluster::start(1);
    let address = cluster.address(1).to_string();
    let dockerfile = dockerfile();
    let check = words(&dockerfile, "HEALTHCHECK");
    assert_eq!(check[0], "/usr/local/bin/raftkv-nc");
    let is_well = || {
        let args = check[1..].iter().map(|word| if *word == "127.0.0.1:7001" { &*address } else { *word });
        Command::new(&program).args(args).output().expect("it runs").status.success()
    };
    assert!(is_well());
    cluster.kill_9(1);
    assert!(!is_well());
}
