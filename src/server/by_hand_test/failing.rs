//! Disks whose syncs fail: at every sync of a short run the node ends with one line, the others go on, and nothing that
//! was acknowledged is lost, though every disk loses its power after that.

use std::time::Duration;

use raftkv_protocol::client::Operation;
use raftkv_protocol::types::ShardId;

use super::cluster::{CORES, Cluster, SHARDS};
use super::{expect_value, put};
use crate::error::Fatal;
use crate::limits::Limits;

/// The node whose disk fails.
const FAILING: u64 = 1;
/// The puts of a run.
const PUTS: usize = 20;
/// The puts after a node has ended.
const MORE: usize = 4;

fn key(number: usize) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; 700]
}

/// Puts a key through a node; whether that was acknowledged before the node ended, or a while had passed.
fn acknowledged(cluster: &mut Cluster, via: u64, number: usize) -> bool {
    let mut client = cluster.dial(via, None, &[]);
    let (key, value) = (key(number), value(number));
    client.send(7, put(&key, &value));
    let give_up_at = cluster.now + Duration::from_secs(10);
    while cluster.now < give_up_at && cluster.runs(via) {
        if let Some((_, refusal)) = client.replies().first() {
            return refusal.is_none();
        }
        cluster.step();
    }
    client.replies().first().is_some_and(|(_, refusal)| refusal.is_none())
}

/// The first start and a few puts through every node, while the so-manieth sync of one disk fails. What the node said
/// before it ended, and the puts that were acknowledged.
fn short_run(cluster: &mut Cluster) -> (Option<String>, Vec<usize>) {
    let mut end = None;
    for id in (1..=cluster.nodes()).rev() {
        if let Err(fatal) = cluster.try_start_node(id) {
            end = Some(told(&fatal));
        }
    }
    let give_up_at = cluster.now + Duration::from_secs(20);
    while cluster.now < give_up_at && cluster.runs(FAILING) && !cluster.has_leaders() {
        cluster.step();
    }
    let mut written = Vec::new();
    for number in 0..PUTS {
        let via = 1 + number as u64 % cluster.nodes();
        if cluster.runs(via) && acknowledged(cluster, via, number) {
            written.push(number);
        }
    }
    (end.or_else(|| cluster.end().map(told)), written)
}

/// The line of a process that ended because of a sync of its log, which must be of use.
fn told(fatal: &Fatal) -> String {
    let line = line_of(fatal);
    assert!(line.contains("cannot write the log"), "{line}");
    line
}

/// Of any sync.
fn line_of(fatal: &Fatal) -> String {
    let line = fatal.to_string();
    assert_eq!(fatal.exit_code(), 1, "{line}");
    for what in ["/simulated/", "Input/output error", "check the disk"] {
        assert!(line.contains(what), "{what}: {line}");
    }
    assert!(!line.contains('\n'), "{line}");
    line
}

/// Whether there was such a sync in the short run. If so, what must hold after it failed holds.
fn fails_at(nodes: u64, core: u16, sync: u64) -> bool {
    let mut cluster = Cluster::of(sync, nodes, Limits::default());
    cluster.may_end(FAILING);
    cluster.disk(FAILING, core).fail_sync(sync);
    let (end, mut written) = short_run(&mut cluster);
    let context = format!("sync {sync} of core {core}, {nodes} nodes");
    if end.is_none() {
        assert!(cluster.runs(FAILING), "{context}");
        assert_eq!(written.len(), PUTS, "{context}");
        return false;
    }
    assert!(!cluster.runs(FAILING), "{context}");
    if nodes > 1 {
        cluster.run_until("the others have leaders", Cluster::has_leaders);
        for number in PUTS..PUTS + MORE {
            assert!(acknowledged(&mut cluster, 2 + number as u64 % (nodes - 1), number), "{context}");
            written.push(number);
        }
    }
    (1..=nodes).for_each(|id| cluster.lose_power(id));
    (1..=nodes).for_each(|id| cluster.start_node(id));
    cluster.run_until("leaders", Cluster::has_leaders);
    for number in written {
        expect_value(&mut cluster, 1 + number as u64 % nodes, &key(number), &value(number));
    }
    true
}

/// Fails each sync of the run in turn; how many there are.
fn fail_each(nodes: u64, core: u16) -> u64 {
    (0..).find(|sync| !fails_at(nodes, core, *sync)).expect("a run ends")
}

// museum 38
#[test]
fn a_lone_node_ends_at_any_sync_that_fails_and_loses_nothing() {
    for core in 0..CORES {
        let syncs = fail_each(1, core);
        assert!(syncs > 8, "{syncs} syncs of core {core}");
    }
}

// museum 38
#[test]
fn one_of_three_ends_at_any_sync_that_fails_and_the_others_go_on() {
    for core in 0..CORES {
        let syncs = fail_each(3, core);
        assert!(syncs > 8, "{syncs} syncs of core {core}");
    }
}

// museum 38
#[test]
fn one_of_five_ends_at_any_sync_that_fails_and_the_others_go_on() {
    for core in 0..CORES {
        let syncs = fail_each(5, core);
        assert!(syncs > 8, "{syncs} syncs of core {core}");
    }
}

// museum 38
#[test]
fn a_node_ends_at_a_sync_of_a_snapshot_that_fails_and_the_others_go_on() {
    let mut cluster = Cluster::of(7, 3, Limits { log_tail_bytes: 0, ..Limits::default() });
    (1..=3).for_each(|id| cluster.start_node(id));
    cluster.run_until("leaders", Cluster::has_leaders);
    (0..PUTS).for_each(|number| assert!(acknowledged(&mut cluster, FAILING, number)));
    cluster.may_end(FAILING);
    (0..SHARDS).for_each(|shard| cluster.snapshot_disk(FAILING, ShardId(shard)).fail_sync(0));
    let mut client = cluster.dial(FAILING, None, &[]);
    client.send(7, Operation::Snapshot { wait_ms: 0 });
    cluster.run_until("the end of the node", |cluster| !cluster.runs(FAILING));
    let line = line_of(cluster.end().expect("it says why"));
    assert!(line.starts_with("cannot sync /simulated/writing-"), "{line}");
    cluster.run_until("the others have leaders", Cluster::has_leaders);
    (PUTS..PUTS + MORE).for_each(|number| assert!(acknowledged(&mut cluster, 2, number)));
    cluster.lose_power(FAILING);
    cluster.start_node(FAILING);
    cluster.run_until("leaders", Cluster::has_leaders);
    for number in 0..PUTS + MORE {
        expect_value(&mut cluster, FAILING, &key(number), &value(number));
    }
}
