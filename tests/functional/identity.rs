//! Who may take part, and what it costs to wait.

use std::fs;
use std::time::Duration;

use raftkv::client::Role;
use raftkv_protocol::client::Code;

use crate::support::cluster::Cluster;
use crate::support::process::Process;
use crate::support::process::server;
use crate::support::wait::{PATIENCE, eventually, pause};
use crate::support::wire::{Wire, get, put};

/// As long as several elections would take.
const MANY_ELECTIONS: Duration = Duration::from_secs(4);

/// museum 34
// rule 22
#[test]
fn a_node_that_has_lost_its_disk_is_refused_and_does_not_vote() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=1s").start();
    let keys = cluster.keys_for_all_shards("key");
    let mut wire = cluster.wire(1);
    let versions: Vec<u64> = keys.iter().map(|key| wire.put(key, "value")).collect();
    cluster.kill_9(3);
    fs::remove_dir_all(cluster.data_dir(3)).expect("removed");
    cluster.start_node(3);
    for id in [1, 2] {
        eventually(PATIENCE, format!("node {id} says why node 3 may not stay"), || {
            let log = cluster.process(id).stderr();
            let line = log.lines().find(|line| line.contains("another data directory"))?;
            assert!(line.contains("node 3"), "{line}");
            Some(())
        });
    }
    // Node 1 alone, with the one that has forgotten, is no majority: nobody may lead, for as long as it lasts.
    cluster.await_leaders_among(&[1, 2]);
    cluster.kill_9(2);
    let mut wire = cluster.wire(1);
    let deadline = std::time::Instant::now() + MANY_ELECTIONS;
    while std::time::Instant::now() < deadline {
        for key in &keys {
            wire.submit(get(key.as_bytes())).expect("sent");
            wire.submit(put(key.as_bytes(), b"lost")).expect("sent");
        }
        for _ in 0..2 * keys.len() {
            let said = wire.reply().expect("readable").expect("a reply").said;
            let refused = matches!(said.code(), Some(Code::NotLeader | Code::NoLeader | Code::Timeout));
            assert!(refused, "served without a majority: {said:?}");
        }
    }
    let forgotten = cluster.wire(3).status();
    assert!(forgotten.shards.iter().all(|shard| shard.role != Role::Leader && shard.keys == 0), "{forgotten:?}");
    // With node 2 there is a majority of those who remember.
    cluster.start_node(2);
    cluster.await_leaders_among(&[1, 2]);
    let mut wire = cluster.wire(2);
    for (key, version) in keys.iter().zip(versions) {
        let (read_version, value) = wire.get(key).expect("nothing is lost");
        // Of the writes without an outcome some may have happened by now.
        assert!((read_version == version && value == b"value") || (read_version > version && value == b"lost"));
    }
}

/// Every core dials every other node, and dials again when it is refused; what they all meet is said once.
#[test]
fn what_all_cores_see_of_another_node_is_said_once() {
    let mut cluster = Cluster::of(3).flag("--cores=2").start();
    let lines = |cluster: &mut Cluster, words: [&str; 2]| -> usize {
        let log = cluster.process(1).stderr();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    for peer in ["link to node 2", "link to node 3"] {
        assert_eq!(lines(&mut cluster, [peer, "is up"]), 1);
    }
    cluster.kill_9(3);
    fs::remove_dir_all(cluster.data_dir(3)).expect("removed");
    cluster.start_node(3);
    let complaints = [["refused the hello", "another data directory"], ["link to node 3", "another data directory"]];
    for words in complaints {
        eventually(PATIENCE, format!("node 1 says {words:?}"), || (lines(&mut cluster, words) > 0).then_some(()));
    }
    let refused = cluster.wire(1).counter("hellos_refused");
    eventually(PATIENCE, "it was refused by each core, again and again", || {
        (cluster.wire(1).counter("hellos_refused") >= refused + 6).then_some(())
    });
    for words in complaints {
        assert_eq!(lines(&mut cluster, words), 1, "{words:?}");
    }
}

/// museum 49
#[test]
fn a_node_of_another_cluster_is_turned_away() {
    let mut cluster = Cluster::start(3);
    let version = cluster.wire(1).put("k", "v");
    cluster.kill_9(3);
    cluster.await_leaders();
    let args = cluster.args(3).into_iter().map(|arg| match arg.split_once('=') {
        Some(("--cluster-name", _)) => "--cluster-name=foreign".to_owned(),
        Some(("--data-dir", _)) => format!("--data-dir={}", cluster.files().join("foreign").display()),
        _ => arg,
    });
    let mut foreign = Process::spawn("foreign", server().args(args), cluster.files());
    foreign.await_listening();
    for (log, who) in [("this is cluster", "the foreigner"), ("refuse", "the foreigner")] {
        eventually(PATIENCE, format!("{who} is told"), || foreign.stderr().contains(log).then_some(()));
    }
    for id in [1, 2] {
        eventually(PATIENCE, format!("node {id} says so"), || {
            cluster.process(id).stderr().contains("this is cluster").then_some(())
        });
    }
    pause(Duration::from_secs(1));
    let mut stranger = Wire::connect(cluster.address(3)).expect("connects");
    let status = stranger.status();
    assert!(status.shards.iter().all(|shard| shard.role != Role::Leader && shard.keys == 0), "{status:?}");
    assert_eq!(cluster.wire(2).get("k"), Some((version, b"v".to_vec())));
    foreign.kill_9();
    cluster.restart_all();
    assert_eq!(cluster.wire(3).get("k"), Some((version, b"v".to_vec())));
}

#[test]
fn an_idle_cluster_uses_little_of_the_machine() {
    let mut cluster = Cluster::start(3);
    cluster.await_convergence();
    let ticks =
        |cluster: &mut Cluster| -> u64 { cluster.ids().into_iter().map(|id| cluster.process(id).cpu_ticks()).sum() };
    let before = ticks(&mut cluster);
    pause(Duration::from_secs(2));
    let used = ticks(&mut cluster) - before;
    assert!(used <= 60, "three idle nodes used {used} hundredths of a second in two seconds");
    let terms: Vec<u64> = cluster.wire(1).status().shards.iter().map(|shard| shard.term.0).collect();
    assert!(terms.iter().all(|term| *term < 10), "an idle cluster holds elections: {terms:?}");
}
