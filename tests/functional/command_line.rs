//! How the program starts, refuses to start, and runs a cluster of its own on one machine.

use std::fs;
use std::path::Path;

use raftkv::client::Client;

use crate::support::cluster::{Cluster, fresh_addresses, temp_dir};
use crate::support::process::{Ended, Process, is_alive, run_to_end, send_signal, server};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::Wire;

/// The one line with which the program ended, without its prefix.
#[track_caller]
fn last_words(ended: &Ended, code: i32) -> String {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let words = lines.iter().filter_map(|line| line.strip_prefix("raftkv-server: ")).collect::<Vec<_>>();
    assert_eq!(words.len(), 1, "one line says why: {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "nothing was announced");
    words[0].to_owned()
}

#[track_caller]
fn assert_names(words: &str, names: &[&str]) {
    for name in names {
        assert!(words.contains(name), "`{name}` is not named: {words}");
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let dir = temp_dir();
    let file = dir.path().join("raftkv.toml");
    fs::write(&file, "shrads = 3\n").expect("written");
    let file = file.to_str().expect("text");
    for (args, names) in [
        (&["--shrads=3"][..], &["--shrads", "--shards"][..]),
        (&["--listen=7001"], &["--listen", "7001"]),
        (&["--node-id=4", "--initial-cluster=1=127.0.0.1:1"], &["--node-id 4", "--initial-cluster"]),
        (&["--config", file], &["raftkv.toml", "shrads", "shards"]),
        (&["--config=/not/there"], &["/not/there"]),
        (&["--segment-size=1"], &["--segment-size"]),
    ] {
        let ended = run_to_end(args, dir.path());
        assert_names(&last_words(&ended, 2), names);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    assert!(!dir.path().join("data").exists(), "wrong usage leaves nothing behind");
}

#[test]
fn help_and_version_are_printed_and_nothing_is_started() {
    let dir = temp_dir();
    let help = run_to_end(&["--help"], dir.path());
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert_names(&help.stdout, &["--listen", "--initial-cluster", "--local-cluster", "RAFTKV_NODE_ID"]);
    let version = run_to_end(&["--version"], dir.path());
    assert_eq!((version.code, version.stdout.trim()), (Some(0), concat!("raftkv-server ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn settings_are_checked_and_printed_and_nothing_is_touched() {
    // Whoever checks the settings of a node that runs disturbs nothing.
    let mut cluster = Cluster::start(1);
    let mut args = cluster.args(1);
    args.push("--check-config".to_owned());
    let checked = run_to_end(&args, cluster.files());
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    assert_eq!(checked.stdout, "the settings are right: node 1 of 1 of the cluster test\n");
    *args.last_mut().expect("just pushed") = "--print-config".to_owned();
    let printed = run_to_end(&args, cluster.files());
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    // What was printed starts the same node.
    assert_eq!(cluster.stop(1).code, Some(0));
    fs::write(cluster.files().join("printed.toml"), printed.stdout).expect("written");
    let mut command = server();
    command.current_dir(cluster.files()).arg("--config=printed.toml");
    let line = Process::spawn("printed", &mut command, cluster.files()).await_listening();
    assert_names(&line, &["node=1", &format!("client={}", cluster.address(1)), "shards=6", "cores=1"]);

    let dir = temp_dir();
    let refused = run_to_end(&["--check-config", "--segment-size=1"], dir.path());
    assert_names(&last_words(&refused, 2), &["--segment-size"]);
    assert_eq!(run_to_end(&["--check-config"], dir.path()).code, Some(0));
    assert!(!dir.path().join("data").exists(), "nothing is left behind");
}

#[test]
fn a_variable_that_is_no_setting_is_refused_if_one_was_meant_and_else_named() {
    let dir = temp_dir();
    let mut command = server();
    command.current_dir(&dir).env("RAFTKV_SHRADS", "3");
    let ended = Process::spawn("meant", &mut command, dir.path()).await_end(PATIENCE);
    assert_names(&last_words(&ended, 2), &["RAFTKV_SHRADS", "RAFTKV_SHARDS"]);
    let mut command = server();
    command.current_dir(&dir).env("RAFTKV_SERVICE_HOST", "10.0.0.1");
    command.args([&format!("--listen={}", fresh_addresses(1)[&1]), "--segment-size=1MiB"]);
    let mut process = Process::spawn("other", &mut command, dir.path());
    process.await_listening();
    eventually(PATIENCE, "it is named", || process.stderr().contains("RAFTKV_SERVICE_HOST").then_some(()));
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file() {
    let dir = temp_dir();
    let address = fresh_addresses(1)[&1];
    fs::write(dir.path().join("raftkv.toml"), "shards = 3\nnode-id = 5\nsegment-size = \"1MiB\"\n").expect("written");
    let mut command = server();
    command.current_dir(&dir).args(["--config=raftkv.toml", &format!("--listen={address}"), "--cores=1"]);
    command.env("RAFTKV_SHARDS", "4").env("RAFTKV_CORES", "3");
    let mut process = Process::spawn("layers", &mut command, dir.path());
    assert_names(&process.await_listening(), &["node=5", "shards=4", "cores=1"]);
    let status = Wire::connect(address).expect("connects").status();
    assert_eq!((status.node.0, status.shards.len()), (5, 4));
}

#[test]
fn an_address_in_use_is_one_line_and_exit_code_1() {
    let cluster = Cluster::start(1);
    let mut args = cluster.args(1);
    args.push("--data-dir=other".to_owned());
    args.remove(3);
    let words = last_words(&run_to_end(&args, cluster.files()), 1);
    assert_names(&words, &["cannot listen", &cluster.address(1).to_string(), "--listen"]);
    cluster.wire(1).put("still", "there");
}

/// The arguments of node 1 of this cluster, with one of them changed, on an address that is free.
fn changed(cluster: &Cluster, flag: &str, value: &str) -> Vec<String> {
    let mut args = cluster.args(1);
    let own = args.iter_mut().find(|arg| arg.starts_with(&format!("{flag}="))).expect("the flag is given");
    *own = format!("{flag}={value}");
    args
}

#[test]
fn a_data_directory_in_use_is_one_line_and_exit_code_1() {
    let mut cluster = Cluster::start(1);
    let free = fresh_addresses(1)[&1].to_string();
    let mut args = changed(&cluster, "--listen", &free);
    args.push(format!("--advertise={}", cluster.address(1)));
    let words = last_words(&run_to_end(&args, cluster.files()), 1);
    let holder = format!("in use by process {}", cluster.process(1).pid());
    assert_names(&words, &[&cluster.data_dir(1).display().to_string(), &holder, "--data-dir"]);
    cluster.wire(1).put("still", "there");
}

#[test]
fn a_data_directory_of_somebody_else_is_one_line_and_exit_code_1() {
    let mut cluster = Cluster::start(1);
    let version = cluster.wire(1).put("k", "v");
    assert_eq!(cluster.stop(1).code, Some(0));
    let dir = cluster.data_dir(1).display().to_string();
    for (flag, value, names) in [
        ("--cluster-name", "other", &["--cluster-name", "test", "other"][..]),
        ("--shards", "7", &["--shards", "6", "7"]),
    ] {
        let words = last_words(&run_to_end(&changed(&cluster, flag, value), cluster.files()), 1);
        assert_names(&words, &[&dir, "another cluster"]);
        assert_names(&words, names);
    }
    let mut three = Cluster::of(3).idle();
    three.start_node(1);
    three.stop(1);
    let mut as_node_2 = three.args(2);
    as_node_2.push(format!("--data-dir={}", three.data_dir(1).display()));
    as_node_2.remove(3);
    let words = last_words(&run_to_end(&as_node_2, three.files()), 1);
    assert_names(&words, &["belongs to node 1, not to node 2"]);
    // Nothing of this has done any harm.
    cluster.restart_all();
    assert_eq!(cluster.wire(1).get("k"), Some((version, b"v".to_vec())));
}

#[test]
fn a_data_directory_that_cannot_be_made_is_one_line_and_exit_code_1() {
    let cluster = Cluster::of(1).idle();
    fs::write(cluster.files().join("file"), "").expect("written");
    let under_a_file = cluster.files().join("file/data").display().to_string();
    let words = last_words(&run_to_end(&changed(&cluster, "--data-dir", &under_a_file), cluster.files()), 1);
    assert_names(&words, &["file", "--data-dir"]);
}

/// A local cluster of three, and the process ids of its nodes.
fn local_cluster(dir: &Path) -> (Process, Vec<u32>, Vec<String>) {
    let first = fresh_addresses(1)[&1];
    let mut command = server();
    command.current_dir(dir).args(["--local-cluster=3", "--segment-size=1MiB", &format!("--listen={first}")]);
    let mut process = Process::spawn("local", &mut command, dir);
    eventually(PATIENCE, "three nodes listen", || {
        assert!(!process.has_ended(), "{}", process.stderr());
        (process.stdout().matches("raftkv-server listening ").count() == 3).then_some(())
    });
    let nodes = process.children();
    let endpoints: Vec<String> = (0..3).map(|node| format!("{}:{}", first.ip(), first.port() + node)).collect();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    (process, nodes, endpoints)
}

#[test]
fn a_local_cluster_serves_says_what_to_try_and_ends_with_all_its_nodes() {
    let dir = temp_dir();
    let (mut process, nodes, endpoints) = local_cluster(dir.path());
    let banner = eventually(PATIENCE, "a banner", || {
        let text = process.stdout();
        text.contains("raftkv-nc").then_some(text)
    });
    assert_names(&banner, &[&endpoints[0], "put"]);
    let client = Client::builder().endpoints(&endpoints).connect().expect("connects");
    let version = client.put("k", "v").expect("written");
    for endpoint in &endpoints {
        let mut wire = Wire::connect(endpoint.parse().expect("an address")).expect("connects");
        assert_eq!(wire.get("k"), Some((version.0, b"v".to_vec())));
    }
    for id in 1..=3 {
        assert!(dir.path().join(format!("data/node{id}/identity")).exists());
    }
    process.signal("INT");
    assert_eq!(process.await_end(PATIENCE).code, Some(0));
    assert!(nodes.iter().all(|pid| !is_alive(*pid)), "no node outlives the launcher");
}

#[test]
fn no_node_of_a_local_cluster_outlives_a_killed_launcher() {
    let dir = temp_dir();
    let (mut process, nodes, _) = local_cluster(dir.path());
    process.kill_9();
    eventually(PATIENCE, "the nodes have ended", || nodes.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn a_local_cluster_goes_on_when_one_of_its_nodes_dies() {
    let dir = temp_dir();
    let (mut process, nodes, endpoints) = local_cluster(dir.path());
    let client = Client::builder().endpoints(&endpoints).connect().expect("connects");
    let version = client.put("k", "v").expect("written");
    send_signal(nodes[1], "KILL");
    eventually(PATIENCE, "the launcher says so", || process.stdout().contains("node2 ended").then_some(()));
    assert_eq!(client.get("k").expect("read").expect("exists").version, version);
    assert!(!process.has_ended());
    process.signal("TERM");
    assert_eq!(process.await_end(PATIENCE).code, Some(0));
}
