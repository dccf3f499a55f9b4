//! A member of the cluster that stands still, or whose disk is no longer what it was.

use std::fs;
use std::path::{Path, PathBuf};

use raftkv_protocol::client::Operation;
use raftkv_protocol::types::ShardId;

use crate::support::cluster::{Cluster, SHARDS};
use crate::support::tools::{have_strace, server_with_fault};
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

/// Which shards of a node are being repaired; `None` if it does not answer.
fn repairing(cluster: &Cluster, node: u64) -> Option<Vec<ShardId>> {
    let statuses = cluster.statuses_of(&[node])?;
    let shards = statuses[&node].shards.iter().filter(|shard| shard.is_repairing);
    Some(shards.map(|shard| shard.id).collect())
}

#[track_caller]
fn await_repair(cluster: &Cluster, node: u64) {
    eventually(PATIENCE, "the node is repaired", || {
        let is_whole = repairing(cluster, node)?.is_empty() && !cluster.data_dir(node).join("damage").exists();
        is_whole.then_some(())
    });
}

/// A cluster of one core each whose logs have several segments, and what it holds.
fn filled() -> (Cluster, Vec<String>) {
    let cluster = Cluster::of(3).flag("--segment-size=64KiB").start();
    let client = cluster.client();
    let keys: Vec<String> = (0..60).map(|n| format!("key{n}")).collect();
    for key in &keys {
        client.put(key.as_str(), vec![b'v'; 4_000]).expect("written");
    }
    cluster.await_convergence();
    assert!(segments(&cluster.data_dir(3)).len() >= 3);
    (cluster, keys)
}

/// Many bytes of a segment are others than they were.
fn spoil(segment: &Path) {
    let mut bytes = fs::read(segment).expect("read");
    (10_000..40_000).step_by(1_000).for_each(|at| bytes[at] ^= 0x10);
    fs::write(segment, bytes).expect("written");
}

/// A segment loses its end.
fn shorten(segment: &Path, length: fn(usize) -> usize) {
    let bytes = fs::read(segment).expect("read");
    fs::write(segment, &bytes[..length(bytes.len())]).expect("written");
}

/// A node whose log has rotted or was cut off may not know what it acknowledged. It must not lead, vote, or make the
/// others forget: it gets back what it has lost first.
/// museum 42
#[test]
fn a_node_whose_log_is_damaged_repairs_itself_from_the_others() {
    let (mut cluster, keys) = filled();
    let client = cluster.client();
    type Choose = fn(usize) -> usize;
    type Damage = fn(&Path);
    let (middle, newest): (Choose, Choose) = (|count| count / 2, |count| count - 1);
    let remove: Damage = |segment| fs::remove_file(segment).expect("removed");
    // The newest is missed twice: where the log has gone on in it, and where a start has begun it.
    let damages: [(Choose, Damage); 6] = [
        (newest, remove),
        (newest, remove),
        (middle, spoil),
        (newest, |segment| shorten(segment, |_| 8_192)),
        (newest, |segment| shorten(segment, |length| length - 1)),
        (middle, remove),
    ];
    for (choose, damage) in damages {
        cluster.kill_all();
        let mut segments = segments(&cluster.data_dir(3));
        let file = segments.swap_remove(choose(segments.len()));
        damage(&file);
        // By itself it is nothing.
        cluster.start_node(3);
        let said = cluster.process(3).stderr();
        let name = file.file_name().expect("a file").to_string_lossy();
        assert!(said.contains(&*name) && said.contains("this node gets the rest from its peers"), "{said}");
        assert_eq!(repairing(&cluster, 3).map(|shards| shards.len()), Some(usize::from(SHARDS)));
        cluster.restart_all();
        await_repair(&cluster, 3);
        cluster.await_convergence();
    }
    // It counts again: with one other it serves everything.
    cluster.kill_9(1);
    cluster.await_leaders_among(&[2, 3]);
    for key in &keys {
        assert!(client.get(key.as_str()).expect("read").is_some(), "{key} is gone");
    }
}

/// Both need new logs.
#[test]
fn a_damaged_log_is_repaired_on_the_way_to_another_number_of_cores() {
    let (mut cluster, keys) = filled();
    cluster.kill_9(3);
    let segments = segments(&cluster.data_dir(3));
    spoil(&segments[segments.len() / 2]);
    cluster.set_flag("--cores=2");
    cluster.start_node(3);
    assert!(cluster.process(3).stderr().contains("this node gets the rest from its peers"));
    await_repair(&cluster, 3);
    cluster.await_convergence();
    let mut wire = cluster.wire(3);
    assert_eq!(wire.counter("log_salvages"), 1);
    assert!(keys.iter().all(|key| wire.get(key).is_some()));
}

/// Killed at each of the calls that rename, remove or make durable something while it saves what is sound of its log: the
/// next start knows of the damage, or finds the damaged log again.
/// museum 29, museum 42
#[test]
fn a_node_may_be_killed_at_any_step_while_it_saves_what_is_sound() {
    if !have_strace("a_node_may_be_killed_at_any_step_while_it_saves_what_is_sound") {
        return;
    }
    let (mut cluster, _) = filled();
    for (call, step) in [("rename", 1), ("unlinkat", 1), ("fsync", 3)] {
        for at in (1..=24).step_by(step) {
            cluster.kill_9(3);
            let segments = segments(&cluster.data_dir(3));
            let written = |path: &&PathBuf| fs::read(path).expect("read").iter().filter(|byte| **byte != 0).count();
            spoil(segments.iter().max_by_key(written).expect("there are some"));
            cluster.spawn_with(3, server_with_fault(call, &format!("signal=KILL:when={at}+")));
            let killed = eventually(PATIENCE, "the node is killed or listens", || {
                let process = cluster.process(3);
                let listens = process.stdout().contains("listening");
                (process.has_ended() || listens).then_some(!listens)
            });
            cluster.kill_9(3);
            cluster.start_node(3);
            let has_lost = repairing(&cluster, 3).is_some_and(|shards| !shards.is_empty());
            let said = cluster.process(3).stderr();
            assert!(has_lost || said.contains("is repaired") || !killed, "{call} {at}: it has forgotten: {said}");
            await_repair(&cluster, 3);
            if !killed {
                break;
            }
        }
    }
    cluster.await_convergence();
}

/// Nobody has what a single node has lost.
/// museum 42
#[test]
fn a_node_that_is_alone_refuses_a_damaged_log_and_says_what_can_be_done() {
    let mut cluster = Cluster::of(1).flag("--segment-size=64KiB").start();
    for n in 0..40 {
        cluster.wire(1).put(format!("key{n}"), [7; 4_000]);
    }
    cluster.kill_9(1);
    let segment = segments(&cluster.data_dir(1)).remove(0);
    let healthy = fs::read(&segment).expect("read");
    let mut bytes = healthy.clone();
    bytes[8_192] ^= 1;
    fs::write(&segment, bytes).expect("written");
    cluster.spawn(1);
    let ended = cluster.await_end(1);
    let line = format!(
        "raftkv-server: the log is corrupt: {} at offset 8192: the header of a batch is damaged; no other node has what \
         is lost: restore the file from a copy of this very state, or start a new cluster from a backup\n",
        segment.display()
    );
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), line.as_str()));
    fs::write(&segment, healthy).expect("written");
    let newest = segments(&cluster.data_dir(1)).pop().expect("a segment");
    let aside = newest.with_extension("aside");
    fs::rename(&newest, &aside).expect("moved");
    cluster.spawn(1);
    let ended = cluster.await_end(1);
    let missing = format!("{} is missing, in which ", newest.display());
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains(&missing) && ended.stderr.contains("no other node has what is lost"),
        "{}",
        ended.stderr
    );
    fs::rename(&aside, &newest).expect("moved back");
    cluster.restart_all();
    assert!(cluster.wire(1).get("key39").is_some());
}

#[test]
fn nodes_that_meet_for_the_first_time_make_no_fuss_about_it() {
    let mut cluster = Cluster::of(3).flag("--log-level=debug").start();
    let mut is_passing = false;
    for id in cluster.ids() {
        let log = cluster.process(id).stderr();
        let links: Vec<&str> = log.lines().filter(|line| line.contains("server::link: link to node")).collect();
        // Those that are not there yet are worth a word.
        let odd = |line: &&&str| line.contains(" WARN ") && !line.contains("Connection refused");
        assert_eq!(links.iter().find(odd), None, "{log}");
        is_passing |= links.iter().any(|line| line.contains("it has closed the link"));
    }
    assert!(is_passing, "they hang up on each other nevertheless");
}

#[test]
fn a_peer_that_goes_on_hanging_up_is_complained_about() {
    let mut cluster = Cluster::of(2).idle();
    let peer = std::net::TcpListener::bind(cluster.address(2)).expect("the address is free");
    peer.set_nonblocking(true).expect("it can be");
    cluster.start_node(1);
    let began = std::time::Instant::now();
    let log = eventually(PATIENCE, "it is complained about", || {
        while let Ok((mut socket, _)) = peer.accept() {
            // Read, so that the end of the connection comes as an end.
            let _ = std::io::Read::read(&mut socket, &mut [0; 1_024]);
        }
        let log = cluster.process(1).stderr();
        log.contains("it has closed the link").then_some(log)
    });
    assert!(log.lines().any(|line| line.contains(" WARN ") && line.contains("link to node 2")), "{log}");
    assert!(began.elapsed().as_secs() >= 1, "at first it may be a matter of moments");
}
