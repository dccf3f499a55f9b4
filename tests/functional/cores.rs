//! Nodes that are started with another number of cores than the last time.

use std::fs;

use crate::support::cluster::Cluster;
use crate::support::tools::{have_strace, server_with_fault};
use crate::support::wait::{PATIENCE, eventually};

/// Writes some keys of every shard and returns what must be there from now on.
fn fill(cluster: &Cluster, round: &str) -> Vec<(String, String)> {
    let mut wire = cluster.wire(cluster.running()[0]);
    let keys = (0..40).map(|n| format!("{round}/{n}"));
    keys.map(|key| {
        let value = format!("value of {key}");
        wire.put(&key, &value);
        (key, value)
    })
    .collect()
}

#[track_caller]
fn check(cluster: &Cluster, contents: &[(String, String)]) {
    for id in cluster.running() {
        let mut wire = cluster.wire(id);
        for (key, value) in contents {
            let found = wire.get(key).map(|(_, value)| value);
            assert_eq!(found.as_deref(), Some(value.as_bytes()), "{key} through node {id}");
        }
    }
}

#[test]
fn shards_move_to_the_logs_of_another_number_of_cores() {
    let mut cluster = Cluster::of(3).flag("--cores=1").flag("--segment-size=64KiB").start();
    let mut contents = fill(&cluster, "1 core");
    for cores in [3, 2, 6, 1] {
        cluster.set_flag(&format!("--cores={cores}"));
        for id in cluster.ids() {
            assert_eq!(cluster.stop(id).code, Some(0));
            cluster.restart_all();
        }
        check(&cluster, &contents);
        contents.extend(fill(&cluster, &format!("{cores} cores")));
        cluster.kill_all();
        cluster.restart_all();
        check(&cluster, &contents);
        for id in cluster.ids() {
            let logs = fs::read_dir(cluster.data_dir(id).join("logs")).expect("there are logs").count();
            assert_eq!(logs, cores, "node {id}");
            assert!(
                !cluster.data_dir(id).join("logs-next").exists() && !cluster.data_dir(id).join("logs-old").exists()
            );
        }
    }
    cluster.await_convergence();
}

/// Killed at each of the calls that rename, remove, make durable or create something while the shards move: the next
/// start, with either number of cores, finds everything.
#[test]
fn a_move_to_other_logs_may_be_killed_at_any_of_its_steps() {
    if !have_strace("a_move_to_other_logs_may_be_killed_at_any_of_its_steps") {
        return;
    }
    let mut cluster = Cluster::of(1).shards(4).flag("--cores=2").flag("--segment-size=64KiB").start();
    let mut contents = fill(&cluster, "first");
    let mut cores = 2;
    for (call, most) in [("rename", 24), ("unlinkat", 6), ("mkdir", 6), ("fsync", 24)] {
        for at in 1..=most {
            cluster.kill_all();
            let next = if cores == 2 { 3 } else { 2 };
            cluster.set_flag(&format!("--cores={next}"));
            cluster.spawn_with(1, server_with_fault(call, &format!("signal=KILL:when={at}+")));
            let killed = eventually(PATIENCE, "the node is killed or listens", || {
                let process = cluster.process(1);
                let listens = process.stdout().contains("listening");
                (process.has_ended() || listens).then_some(!listens)
            });
            cluster.kill_all();
            // Back to the old number half of the time: whether the switch had come or not.
            cores = if at % 2 == 0 { next } else { cores };
            cluster.set_flag(&format!("--cores={cores}"));
            cluster.restart_all();
            check(&cluster, &contents);
            if !killed {
                break;
            }
        }
        contents.extend(fill(&cluster, call));
    }
}
