//! Nodes die under load, one at a time and all at once: no acknowledged write is lost, and what was refused has not
//! happened.

use crate::support::cluster::Cluster;
use crate::support::history::Writers;

const KILLS: usize = 20;

/// The node that leads most shards.
fn busiest(cluster: &Cluster) -> u64 {
    let leaders = cluster.leaders();
    let led = |id: &u64| leaders.values().filter(|leader| *leader == id).count();
    cluster.running().into_iter().max_by_key(led).expect("some node runs")
}

#[test]
fn no_acknowledged_write_is_lost_when_leaders_are_killed_twenty_times() {
    let mut cluster = Cluster::start(3);
    let writers = Writers::start(&cluster, "key", 3, 8);
    for _ in 0..KILLS {
        writers.await_progress(100);
        cluster.kill_9(busiest(&cluster));
        cluster.await_leaders();
        writers.await_progress(50);
        cluster.restart_all();
    }
    writers.await_progress(100);
    let history = writers.stop();
    history.check(&cluster, &cluster.ids());
    cluster.await_convergence();
    // What is read does not depend on who happens to be up.
    for id in cluster.ids() {
        cluster.kill_9(id);
        cluster.await_leaders();
        history.check(&cluster, &cluster.running());
        cluster.restart_all();
    }
    println!("{KILLS} kills, {} writes without an outcome", history.unknown());
}

#[test]
fn no_acknowledged_write_is_lost_when_all_nodes_are_killed_at_once() {
    let mut cluster = Cluster::of(3).flag("--cores=2").start();
    for round in 0..4 {
        let writers = Writers::start(&cluster, &format!("round{round}"), 3, 8);
        writers.await_progress(500);
        cluster.kill_all();
        cluster.restart_all();
        writers.await_progress(100);
        let history = writers.stop();
        history.check(&cluster, &cluster.ids());
        cluster.kill_all();
        cluster.restart_all();
        history.check(&cluster, &cluster.ids());
        cluster.await_convergence();
    }
}

/// museum 15
#[test]
fn no_acknowledged_write_is_lost_when_a_single_node_is_killed() {
    let mut cluster = Cluster::of(1).flag("--segment-size=64KiB").start();
    let writers = Writers::start(&cluster, "key", 2, 16);
    for _ in 0..6 {
        writers.await_progress(500);
        cluster.kill_9(1);
        cluster.restart_all();
    }
    writers.await_progress(100);
    writers.stop().check(&cluster, &[1]);
}

/// A stop is no fault: leadership moves, and no write is left without an outcome for want of a leader.
#[test]
fn nodes_that_are_stopped_one_after_the_other_lose_nothing() {
    let mut cluster = Cluster::start(3);
    let writers = Writers::start(&cluster, "key", 3, 8);
    for id in [1, 2, 3, 1, 2, 3] {
        writers.await_progress(200);
        assert_eq!(cluster.stop(id).code, Some(0));
        cluster.await_leaders();
        writers.await_progress(100);
        cluster.restart_all();
    }
    let history = writers.stop();
    history.check(&cluster, &cluster.ids());
    cluster.await_convergence();
}
