//! Faults of all kinds in random order. One seed is one order of faults: `RAFTKV_CHAOS_SEED` repeats it, and
//! `RAFTKV_CHAOS_FAULTS` makes it longer.

use std::time::Duration;

use crate::counters::count_through;
use crate::support::clients::Clients;
use crate::support::cluster::{Cluster, SHARDS};
use crate::support::history::Writers;
use crate::support::random::{Random, setting};
use crate::support::wait::pause;

/// One fault and its end.
fn strike(cluster: &mut Cluster, random: &mut Random) -> String {
    let id = random.pick(&cluster.ids());
    let other = random.pick(&cluster.ids());
    let length = Duration::from_millis(random.pick(&[10, 100, 600, 1_200]));
    match random.below(8) {
        0 | 1 => {
            cluster.kill_9(id);
            pause(length);
            format!("node {id} killed for {length:?}")
        }
        2 => {
            cluster.kill_9(id);
            if other != id {
                cluster.kill_9(other);
            }
            pause(length);
            format!("nodes {id} and {other} killed for {length:?}")
        }
        3 => {
            cluster.kill_all();
            "all nodes killed".to_owned()
        }
        4 => {
            let ended = cluster.stop(id);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            pause(length);
            format!("node {id} stopped for {length:?}")
        }
        5 | 6 => {
            cluster.process(id).pause();
            pause(length);
            cluster.process(id).resume();
            format!("node {id} paused for {length:?}")
        }
        _ => {
            cluster.process(id).pause();
            cluster.process(other).pause();
            pause(length);
            cluster.process(id).resume();
            if random.below(2) == 0 {
                cluster.kill_9(other);
                return format!("nodes {id} and {other} paused for {length:?}, {other} killed then");
            }
            cluster.process(other).resume();
            format!("nodes {id} and {other} paused for {length:?}")
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_repeated_whatever_happens() {
    let mut random = Random::seeded("RAFTKV_CHAOS_SEED");
    let faults: u32 = setting("RAFTKV_CHAOS_FAULTS").unwrap_or(12);
    let cores = format!("--cores={}", random.pick(&[1, 2, 3]));
    let segments = format!("--segment-size={}", random.pick(&["64KiB", "1MiB"]));
    let snapshots = format!("--snapshot-log-bytes={}", random.pick(&["4KiB", "32KiB", "64MiB"]));
    let nodes = random.pick(&[3, 3, 5]);
    let flags = [&*cores, &segments, &snapshots, "--log-tail-bytes=0", "--core-log-bytes-max=512KiB"];
    let mut cluster = Cluster::of(nodes).flags(flags).start();
    println!("{nodes} nodes, {flags:?}");
    count_through(&mut cluster, 3, |cluster, await_progress| {
        let writers = Writers::start(cluster, "key", 2, 8);
        let clients = Clients::start(cluster, "shared", 3, Duration::from_secs(3), &mut random);
        for fault in 0..faults {
            let story = strike(cluster, &mut random);
            println!("fault {fault}: {story}");
            cluster.restart_all();
            await_progress();
            writers.await_progress(20);
            clients.await_progress(20);
        }
        let history = writers.stop();
        history.check(cluster, &cluster.ids());
        let mut record = clients.stop();
        record.read_all(cluster, &cluster.ids());
        record.check(SHARDS);
    });
    cluster.await_convergence();
}
