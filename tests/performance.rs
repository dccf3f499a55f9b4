//! That nothing has become slower by an order of magnitude: floors so low that they hold in any profile, on a busy
//! machine too. What the server reaches is measured with `raftkv-bench`; see `docs/benchmarks.md`.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use raftkv::client::Status;

use support::cluster::Cluster;
use support::wire::{Said, Wire, put};

const CONNECTIONS: usize = 64;
const INFLIGHT: usize = 4;
const DURATION: Duration = Duration::from_secs(2);

/// A hundredth of what a build without optimisation reaches on two cores that have little else to do.
const PUTS_PER_SECOND_MIN: f64 = 300.0;
/// Of all nodes together; forty times what such a build takes.
const CPU_US_PER_PUT_MAX: f64 = 1_000.0;
/// A put that waits so long has met an election or a stall.
const LATENCY_MAX: Duration = Duration::from_secs(2);

/// Puts on one connection, so many in flight; how many, and the longest that one took.
fn load(mut wire: Wire, key: &str) -> (u64, Duration) {
    let value = [7; 128];
    let end = Instant::now() + DURATION;
    let (mut puts, mut longest) = (0, Duration::ZERO);
    while Instant::now() < end {
        let sent = Instant::now();
        for _ in 0..INFLIGHT {
            wire.submit(put(key.as_bytes(), &value)).expect("sent");
        }
        for _ in 0..INFLIGHT {
            let said = wire.reply().expect("readable").expect("a reply").said;
            assert_eq!(said, Said::Put);
            puts += 1;
        }
        longest = longest.max(sent.elapsed());
    }
    (puts, longest)
}

fn counter(status: &Status, name: &str) -> u64 {
    status.counters.iter().find(|(counter, _)| counter == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

fn terms(status: &Status) -> Vec<u64> {
    status.shards.iter().map(|shard| shard.term.0).collect()
}

#[test]
fn three_nodes_under_load_write_batches_and_keep_their_leaders() {
    let mut cluster = Cluster::start(3);
    cluster.await_convergence();
    let keys = cluster.keys_for_all_shards("key");
    let leaders: Vec<u64> = keys.iter().map(|key| cluster.leader_of(key)).collect();
    let before = cluster.statuses().expect("all answer");
    let ticks = |cluster: &mut Cluster| -> u64 { (1..=3).map(|id| cluster.process(id).cpu_ticks()).sum() };
    let ticks_before = ticks(&mut cluster);
    let started = Instant::now();
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (key, wire) = (keys[n % keys.len()].clone(), cluster.wire(leaders[n % keys.len()]));
            thread::spawn(move || load(wire, &key))
        })
        .collect();
    let loads: Vec<(u64, Duration)> = threads.into_iter().map(|thread| thread.join().expect("no error")).collect();
    let seconds = started.elapsed().as_secs_f64();
    let puts: u64 = loads.iter().map(|(puts, _)| puts).sum();
    let longest = loads.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
    // A tick is a hundredth of a second.
    let cpu_us = (ticks(&mut cluster) - ticks_before) as f64 * 1e4 / puts as f64;
    let after = cluster.statuses().expect("all answer");
    println!("{:.0} puts/s, {cpu_us:.0} µs of CPU each, the slowest after {longest:?}", puts as f64 / seconds);

    assert!(puts as f64 / seconds > PUTS_PER_SECOND_MIN, "{puts} puts in {seconds} s");
    assert!(cpu_us < CPU_US_PER_PUT_MAX, "{cpu_us} µs of CPU for a put");
    assert!(longest < LATENCY_MAX, "{longest:?}");
    for (id, after) in &after {
        let before = &before[id];
        assert_eq!(terms(after), terms(before), "node {id} has seen an election");
        for refusals in ["refused_overloaded", "refused_not_leader", "refused_no_leader", "timeouts"] {
            assert_eq!(counter(after, refusals), counter(before, refusals), "{refusals} of node {id}");
        }
        let syncs = counter(after, "log_syncs") - counter(before, "log_syncs");
        println!("node {id}: {syncs} syncs, {:.2} for a put", syncs as f64 / puts as f64);
        assert!(syncs < puts, "node {id} made {syncs} syncs for {puts} puts");
    }
}
