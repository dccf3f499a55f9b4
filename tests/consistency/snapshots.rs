//! Nodes that are killed while snapshots are taken, fetched and installed: nothing that was acknowledged is lost.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::history::Writers;
use crate::support::random::{Random, setting};
use crate::support::tools::{have_strace, server_with_fault};
use crate::support::wait::{PATIENCE, eventually, pause};

/// Snapshots every few entries, and logs that reach back to nothing else.
fn eager(nodes: u64) -> Cluster {
    Cluster::of(nodes)
        .shards(2)
        .flag("--segment-size=64KiB")
        .flag("--snapshot-log-bytes=4KiB")
        .flag("--log-tail-bytes=0")
        .flag("--core-log-bytes-max=256KiB")
        .start()
}

/// One seed is one order of deaths: `RAFTKV_SNAPSHOT_SEED` repeats it, `RAFTKV_SNAPSHOT_DEATHS` makes it longer.
// museum 27, 29, 30
#[test]
fn nodes_that_die_at_any_moment_of_taking_and_installing_come_back_whole() {
    let mut random = Random::seeded("RAFTKV_SNAPSHOT_SEED");
    let deaths: u32 = setting("RAFTKV_SNAPSHOT_DEATHS").unwrap_or(15);
    let mut cluster = eager(3);
    let writers = Writers::start(&cluster, "key", 2, 8);
    let mut installed = 0;
    for death in 0..deaths {
        let id = random.pick(&cluster.ids());
        cluster.kill_9(id);
        cluster.await_leaders();
        // Enough for the others' logs to go on without it.
        writers.await_progress(random.pick(&[10, 400, 400]));
        cluster.start_node(id);
        if random.below(3) > 0 {
            // In the middle of catching up.
            pause(Duration::from_millis(random.below(60)));
            cluster.kill_9(id);
            cluster.start_node(id);
        }
        cluster.await_leaders();
        writers.await_progress(20);
        installed += cluster.wire(id).counter("snapshots_installed");
        println!("death {death}: node {id}, {installed} snapshots installed so far");
    }
    eventually(PATIENCE, "a node catches up by a snapshot", || {
        if installed > 0 {
            return Some(());
        }
        installed += cluster.ids().into_iter().map(|id| cluster.wire(id).counter("snapshots_installed")).sum::<u64>();
        None
    });
    let history = writers.stop();
    history.check(&cluster, &cluster.ids());
    cluster.await_convergence();
    cluster.kill_all();
    cluster.restart_all();
    history.check(&cluster, &cluster.ids());
}

/// The system calls by which a snapshot gets its name, each of them the last that a node makes.
// museum 29, rule 10
#[test]
fn a_node_that_is_killed_inside_a_system_call_of_a_snapshot_starts_again_with_everything() {
    let test = "a_node_that_is_killed_inside_a_system_call_of_a_snapshot_starts_again_with_everything";
    if !have_strace(test) {
        return;
    }
    let mut cluster = eager(1);
    let writers = Writers::start(&cluster, "key", 2, 8);
    writers.await_progress(400);
    for (call, at) in [("rename", 1), ("rename", 4), ("fsync", 6), ("fsync", 9), ("unlink", 1), ("unlink", 2)] {
        cluster.kill_9(1);
        cluster.spawn_with(1, server_with_fault(call, &format!("signal=KILL:when={at}+")));
        assert_eq!(cluster.await_end(1).code, None, "killed at {call} {at}");
        cluster.restart_all();
        writers.await_progress(100);
    }
    let history = writers.stop();
    history.check(&cluster, &[1]);
    cluster.kill_9(1);
    cluster.restart_all();
    history.check(&cluster, &[1]);
}
