//! A member of the cluster that stands still, or whose disk is no longer what it was.

use std::fs;
use std::path::{Path, PathBuf};

use raftkv_protocol::client::Operation;

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, put};

/// museum 18
#[test]
fn a_follower_that_stands_still_costs_its_leader_bounded_memory() {
    const VALUE_BYTES: usize = 1 << 20;
    const VALUES: usize = 220;
    // What is kept for followers in memory, on the link and in flight, and as much again of what an allocator keeps.
    const GROWTH_MAX: u64 = 160 << 20;
    let mut cluster = Cluster::of(3).flag("--segment-size=16MiB").start();
    let key = "key";
    let leader = cluster.leader_of(key);
    let follower = cluster.ids().into_iter().find(|id| *id != leader).expect("there are three");
    let mut wire = cluster.wire(leader);
    let value = vec![7; VALUE_BYTES];
    wire.put(key, &value);
    let before = cluster.process(leader).rss_bytes();
    cluster.process(follower).pause();
    for _ in 0..VALUES {
        assert_eq!(wire.ask(put(key.as_bytes(), &value)).said, Said::Put);
    }
    let grown = cluster.process(leader).rss_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more after {} that a follower did not take", VALUES * VALUE_BYTES);
    // It comes back, and is brought up to date from the leader's disk.
    cluster.process(follower).resume();
    cluster.await_convergence();
    assert_eq!(wire.ask(Operation::Ping).said, Said::Pong);
}

/// The files of a node's log that are part of it, oldest first.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir.join("logs/core-0")).expect("the log's directory can be listed");
    let paths = files.map(|file| file.expect("can be listed").path());
    let is_segment =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"));
    let mut segments: Vec<PathBuf> = paths.filter(is_segment).collect();
    segments.sort();
    segments
}

/// A node whose log has rotted or was cut off may not know what it acknowledged. It must not lead, vote, or make the
/// others forget: it does not start, and says why.
/// museum 42
#[test]
fn a_node_whose_log_is_damaged_does_not_take_part() {
    let mut cluster = Cluster::of(3).flag("--segment-size=64KiB").start();
    let client = cluster.client();
    let keys: Vec<String> = (0..60).map(|n| format!("key{n}")).collect();
    for key in &keys {
        client.put(key.as_str(), vec![b'v'; 4_000]).expect("written");
    }
    cluster.await_convergence();
    cluster.kill_all();
    let segments = segments(&cluster.data_dir(3));
    assert!(segments.len() >= 3, "{segments:?}");
    let (middle, newest) = (&segments[segments.len() / 2], &segments[segments.len() - 1]);
    let (healthy_middle, healthy_newest) = (fs::read(middle).expect("read"), fs::read(newest).expect("read"));
    let mut flipped = healthy_middle.clone();
    (10_000..40_000).step_by(1_000).for_each(|at| flipped[at] ^= 0x10);
    let damages: [(&Path, Vec<u8>); 3] = [
        (middle, flipped),
        (newest, healthy_newest[..8_192].to_vec()),
        (newest, healthy_newest[..healthy_newest.len() - 1].to_vec()),
    ];
    for (path, damaged) in damages {
        fs::write(middle, &healthy_middle).expect("written");
        fs::write(newest, &healthy_newest).expect("written");
        fs::write(path, damaged).expect("written");
        cluster.spawn(3);
        let ended = cluster.await_end(3);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let name = path.file_name().expect("a file").to_string_lossy();
        assert!(ended.stderr.contains("the log is corrupt") && ended.stderr.contains(&*name), "{}", ended.stderr);
    }
    for id in [1, 2] {
        cluster.start_node(id);
    }
    cluster.await_leaders_among(&[1, 2]);
    for key in &keys {
        assert!(client.get(key.as_str()).expect("read").is_some(), "{key} is gone");
    }
    // With its file restored it is a member like any other.
    fs::write(newest, &healthy_newest).expect("written");
    cluster.restart_all();
    cluster.await_convergence();
    eventually(PATIENCE, "node 3 serves", || cluster.wire(3).get(&keys[0]));
}
