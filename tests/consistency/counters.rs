//! Conditional writes from several clients at once: nothing is lost, nothing happens twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use raftkv::client::{Client, Condition, ErrorKind};

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};

const COUNTER: &str = "counter";

/// What one client knows of its increments.
#[derive(Debug, Default)]
struct Increments {
    /// The values that it was told it has written.
    acknowledged: BTreeSet<u64>,
    /// Values that it may have written.
    unknown: BTreeSet<u64>,
}

/// Reads the counter and writes one more, on condition that nobody else did.
fn increment(client: &Client, known: &mut Increments) {
    let Ok(Some(value)) = client.get(COUNTER) else { return };
    let next = 1 + String::from_utf8_lossy(&value.bytes).parse::<u64>().expect("a number");
    match client.put_if(COUNTER, next.to_string(), Condition::Version(value.version)) {
        Ok(version) => {
            assert!(version > value.version, "versions grow");
            known.acknowledged.insert(next);
        }
        Err(error) if error.maybe_applied() => {
            known.unknown.insert(next);
        }
        Err(error) => {
            let refused = error.kind() == ErrorKind::PreconditionFailed || error.is_retryable();
            assert!(refused, "neither refused nor unknown: {error}");
        }
    }
}

/// Increments from several clients while `faults` happen; then the accounts are settled.
pub fn count_through(cluster: &mut Cluster, clients: usize, faults: impl FnOnce(&mut Cluster, &dyn Fn())) {
    cluster.client().put(COUNTER, "0").expect("written");
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let spawn = |_| {
        let client = cluster.client();
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        thread::spawn(move || {
            let mut known = Increments::default();
            while !stop.load(Ordering::Relaxed) {
                let before = known.acknowledged.len();
                increment(&client, &mut known);
                acknowledged.fetch_add((known.acknowledged.len() - before) as u64, Ordering::Relaxed);
            }
            known
        })
    };
    let threads: Vec<JoinHandle<Increments>> = (0..clients).map(spawn).collect();
    let await_progress = || {
        let goal = acknowledged.load(Ordering::Relaxed) + 50;
        eventually(PATIENCE, "50 more increments", || (acknowledged.load(Ordering::Relaxed) >= goal).then_some(()));
    };
    await_progress();
    faults(cluster, &await_progress);
    await_progress();
    stop.store(true, Ordering::Relaxed);
    let known: Vec<Increments> = threads.into_iter().map(|thread| thread.join().expect("no surprise")).collect();
    settle(cluster, &known);
}

fn settle(cluster: &Cluster, known: &[Increments]) {
    let value = cluster.client().get(COUNTER).expect("read").expect("exists");
    let last: u64 = String::from_utf8_lossy(&value.bytes).parse().expect("a number");
    let mut acknowledged = BTreeSet::new();
    for value in known.iter().flat_map(|client| &client.acknowledged) {
        assert!(acknowledged.insert(*value), "two clients were told that they have written {value}");
    }
    let unknown: BTreeSet<u64> = known.iter().flat_map(|client| client.unknown.iter().copied()).collect();
    for value in 1..=last {
        let told = acknowledged.contains(&value) || unknown.contains(&value);
        assert!(told, "{value} was written by a client that was told it had not");
    }
    assert!(acknowledged.iter().all(|value| *value <= last), "increments were lost: the counter is {last}");
    println!("{last} increments, {} acknowledged, {} without an outcome", acknowledged.len(), unknown.len());
}

// rule 32
#[test]
fn concurrent_conditional_writes_are_neither_lost_nor_repeated() {
    let mut cluster = Cluster::start(3);
    count_through(&mut cluster, 4, |_, await_progress| await_progress());
}

/// museum 45
#[test]
fn conditional_writes_are_neither_lost_nor_repeated_when_leaders_are_killed() {
    let mut cluster = Cluster::start(3);
    count_through(&mut cluster, 4, |cluster, await_progress| {
        for _ in 0..6 {
            cluster.kill_9(cluster.leader_of(COUNTER));
            cluster.await_leaders();
            await_progress();
            cluster.restart_all();
            await_progress();
        }
    });
}

/// Leadership that comes and goes leaves writes of earlier leaderships waiting.
#[test]
fn conditional_writes_are_neither_lost_nor_repeated_when_leaders_are_paused() {
    let mut cluster = Cluster::of(3).flag("--cores=2").start();
    count_through(&mut cluster, 4, |cluster, await_progress| {
        for _ in 0..4 {
            let leader = cluster.leader_of(COUNTER);
            cluster.process(leader).pause();
            let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
            cluster.await_leaders_among(&others);
            cluster.process(leader).resume();
            cluster.await_leaders();
            await_progress();
        }
    });
}
