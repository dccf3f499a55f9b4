//! Stopping, killing and starting again.

use std::collections::BTreeMap;
use std::fs;

use raftkv_protocol::client::{Operation, Request};
use raftkv_protocol::types::RequestId;

use crate::support::cluster::{Cluster, fresh_addresses, temp_dir};
use crate::support::process::{Process, server};
use crate::support::wait::PATIENCE;
use crate::support::wire::{Said, Wire, delete, encoded, put};

type Contents = BTreeMap<String, Option<(u64, Vec<u8>)>>;

/// Writes some keys through a node, deletes some of them, and returns what must be there from now on.
fn fill(cluster: &Cluster, id: u64, prefix: &str) -> Contents {
    let mut wire = cluster.wire(id);
    let mut contents = Contents::new();
    for n in 0..60 {
        let (key, value) = (format!("{prefix}/{n}"), format!("value {n}").into_bytes());
        let version = wire.put(&key, &value);
        contents.insert(key, Some((version, value)));
    }
    for n in (0..60).step_by(7) {
        let key = format!("{prefix}/{n}");
        assert_eq!(wire.ask(delete(key.as_bytes())).said, Said::Deleted { existed: true });
        contents.insert(key, None);
    }
    contents
}

#[track_caller]
fn check(cluster: &Cluster, contents: &Contents) {
    for id in cluster.running() {
        let mut wire = cluster.wire(id);
        for (key, expected) in contents {
            assert_eq!(wire.get(key), *expected, "{key} through node {id}");
        }
    }
}

#[test]
fn everything_is_there_after_each_node_was_restarted_and_after_all_were() {
    restart_each_and_all(Cluster::start(3));
}

#[test]
fn loops_that_sync_themselves_keep_everything_too() {
    for log_io in ["--log-io=direct", "--log-io=buffered"] {
        restart_each_and_all(Cluster::of(3).flag(log_io).flag("--log-sync=inline").start());
    }
}

fn restart_each_and_all(mut cluster: Cluster) {
    let mut contents = fill(&cluster, 1, "before");
    for id in cluster.ids() {
        let ended = cluster.stop(id);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        cluster.await_leaders();
        contents.extend(fill(&cluster, cluster.running()[0], &format!("without {id}")));
        cluster.restart_all();
        check(&cluster, &contents);
    }
    for id in cluster.ids() {
        cluster.kill_9(id);
        cluster.await_leaders();
        contents.extend(fill(&cluster, cluster.running()[0], &format!("{id} killed")));
        cluster.restart_all();
        check(&cluster, &contents);
    }
    for id in cluster.ids() {
        assert_eq!(cluster.stop(id).code, Some(0));
    }
    cluster.restart_all();
    check(&cluster, &contents);
    cluster.kill_all();
    cluster.restart_all();
    check(&cluster, &contents);
    cluster.await_convergence();
}

#[test]
fn everything_is_there_after_a_single_node_was_stopped_and_killed() {
    let mut cluster = Cluster::start(1);
    let mut contents = fill(&cluster, 1, "first");
    assert_eq!(cluster.stop(1).code, Some(0));
    cluster.restart_all();
    check(&cluster, &contents);
    contents.extend(fill(&cluster, 1, "second"));
    cluster.kill_9(1);
    cluster.restart_all();
    check(&cluster, &contents);
}

/// More than fits into one segment, so that recovery has to follow the log from one to the next.
#[test]
fn a_log_of_many_segments_is_recovered() {
    let mut cluster = Cluster::of(1).flag("--segment-size=64KiB").start();
    let mut wire = cluster.wire(1);
    let mut contents = Contents::new();
    for n in 0..40 {
        let (key, value) = (format!("key{}", n % 30), vec![n; 20_000]);
        let version = wire.put(&key, &value);
        contents.insert(key, Some((version, value)));
    }
    let large = vec![7; 1 << 20];
    let version = wire.put("larger than a segment", &large);
    contents.insert("larger than a segment".to_owned(), Some((version, large)));
    assert!(wire.counter("log_segments") > 10);
    cluster.kill_9(1);
    cluster.restart_all();
    check(&cluster, &contents);
    assert_eq!(cluster.stop(1).code, Some(0));
    cluster.restart_all();
    check(&cluster, &contents);
}

#[test]
fn without_flags_it_is_one_durable_node_with_its_data_in_the_current_directory() {
    let dir = temp_dir();
    let address = fresh_addresses(1)[&1];
    let start = |name: &str| {
        // Port 7001 of 127.0.0.1, the default, may be somebody else's here; and 256 MiB of segments take their time.
        let mut command = server();
        command.current_dir(&dir).env("RAFTKV_LISTEN", address.to_string()).env("RAFTKV_SEGMENT_SIZE", "1MiB");
        let mut process = Process::spawn(name, &mut command, dir.path());
        let line = process.await_listening();
        assert!(line.contains("node=1") && line.contains(&format!("client={address}")), "{line}");
        assert!(line.contains("shards=12") && line.contains(&format!("pid={}", process.pid())), "{line}");
        process
    };
    let mut process = start("first");
    let version = Wire::connect(address).expect("connects").put("k", "v");
    process.kill_9();
    assert!(fs::exists(dir.path().join("data/node1/identity")).expect("can be asked"));
    let mut process = start("second");
    assert_eq!(Wire::connect(address).expect("connects").get("k"), Some((version, b"v".to_vec())));
    process.signal("INT");
    assert_eq!(process.await_end(PATIENCE).code, Some(0));
}

#[test]
fn a_stop_hands_leadership_over_and_answers_what_is_in_flight() {
    let mut cluster = Cluster::start(3);
    let key = cluster.keys_for_all_shards("key").remove(0);
    let leader = cluster.leader_of(&key);
    let terms = |cluster: &Cluster| -> Vec<u64> {
        let statuses = cluster.statuses().expect("all answer");
        let status = statuses.values().next().expect("some run");
        status.shards.iter().map(|shard| shard.term.0).collect()
    };
    let before = terms(&cluster);
    let mut wire = cluster.wire(leader);
    let mut requests = Vec::new();
    for n in 0..500 {
        requests.extend(encoded(|out| {
            let operation = put(key.as_bytes(), b"value");
            Request { id: RequestId(n), operation }.encode(out);
        }));
    }
    wire.send(&requests).expect("sent");
    let mut answered = vec![wire.reply().expect("readable").expect("a reply").id];
    cluster.process(leader).signal("TERM");
    while let Some(replied) = wire.reply().expect("readable") {
        assert!(matches!(replied.said, Said::Put), "request {} was answered {:?}", replied.id, replied.said);
        answered.push(replied.id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..500).collect::<Vec<_>>(), "each request has one reply");
    let ended = cluster.await_end(leader);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    cluster.await_leaders();
    for (shard, (before, after)) in before.iter().zip(terms(&cluster)).enumerate() {
        assert!(after <= before + 1, "shard {shard} went from term {before} to {after}: handed over, not fought over");
    }
    assert!(cluster.wire(cluster.running()[0]).get(&key).is_some());
}

#[test]
fn a_node_that_was_down_catches_up() {
    let mut cluster = Cluster::of(3).flag("--segment-size=64KiB").start();
    cluster.kill_9(3);
    cluster.await_leaders();
    let mut wire = cluster.wire(1);
    for n in 0..100u32 {
        wire.put(format!("key{n}"), n.to_le_bytes().repeat(2_000));
    }
    cluster.restart_all();
    cluster.await_convergence();
    let keys: u64 = cluster.wire(3).status().shards.iter().map(|shard| shard.keys).sum();
    assert_eq!(keys, 100);
    // It takes part again: it and one other are a majority.
    cluster.kill_9(1);
    cluster.await_leaders();
    let version = cluster.wire(3).put("after", "wards");
    assert_eq!(cluster.wire(2).get("after"), Some((version, b"wards".to_vec())));
    assert_eq!(cluster.wire(3).ask(Operation::Ping).said, Said::Pong);
}
