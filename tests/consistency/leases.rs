//! Reads by leases of real processes, whose clocks are real: they are never stale, whatever stands still or dies.

use std::time::{Duration, Instant};

use raftkv_protocol::client::{Code, Consistency, Operation, Request};
use raftkv_protocol::types::RequestId;

use crate::reads::others;
use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire, encoded};

const LEASE: Duration = Duration::from_millis(600);

fn lease_get(key: &[u8]) -> Operation<'_> {
    Operation::Get { key, consistency: Consistency::Lease }
}

fn cluster() -> Cluster {
    Cluster::of(3).flag("--lease=600ms").start()
}

/// Until the node answers reads of the key by its lease.
fn await_lease(wire: &mut Wire, key: &str) {
    eventually(PATIENCE, "the leader holds a lease", || {
        let before = wire.counter("lease_reads");
        wire.ask(lease_get(key.as_bytes()));
        (wire.counter("lease_reads") > before).then_some(())
    });
}

/// museum 23: a lease does not outlive a pause. Reads that have come meanwhile are judged by the time at which they are read.
#[test]
fn a_leader_that_was_paused_and_replaced_reads_nothing_stale_by_its_lease() {
    let mut cluster = cluster();
    let key = "key";
    cluster.wire(1).put(key, "0");
    for round in 1..=4 {
        let old = cluster.leader_of(key);
        let mut to_old = cluster.wire(old);
        await_lease(&mut to_old, key);
        // With a first byte that is there before the peers' messages, the requests are looked at before them.
        let first = encoded(|out| Request { id: RequestId(0), operation: lease_get(key.as_bytes()) }.encode(out));
        cluster.process(old).pause();
        to_old.send(&first[..1]).expect("sent");
        let alive = others(&cluster, old);
        cluster.await_leaders_among(&alive);
        let value = round.to_string();
        let version = cluster.wire(alive[0]).put(key, &value);
        to_old.send(&first[1..]).expect("sent");
        for _ in 0..20 {
            to_old.submit(lease_get(key.as_bytes())).expect("sent");
        }
        cluster.process(old).resume();
        for _ in 0..=20 {
            match to_old.reply().expect("readable").expect("a reply").said {
                Said::Value { version: read, bytes } => {
                    assert_eq!((read, bytes), (version, value.clone().into_bytes()), "round {round}");
                }
                said => assert!(matches!(said.code(), Some(Code::NotLeader | Code::NoLeader)), "{said:?}"),
            }
        }
        cluster.await_leaders();
    }
    cluster.await_convergence();
}

/// rule 6: the broken links tell everybody at once that the leader has died, and they keep what they have promised.
#[test]
fn a_leader_that_is_killed_is_replaced_when_its_lease_has_run_out() {
    let mut cluster = cluster();
    let key = "key";
    let version = cluster.wire(1).put(key, "value");
    let old = cluster.leader_of(key);
    await_lease(&mut cluster.wire(old), key);
    let alive = others(&cluster, old);
    let killed = Instant::now();
    cluster.kill_9(old);
    cluster.await_leaders_among(&alive);
    let took = killed.elapsed();
    // The last heartbeat was answered up to a beat before, and earlier where the leader stood still at its end.
    assert!(took >= LEASE / 2, "{took:?}");
    let withheld = |id: &u64| cluster.wire(*id).counter("lease_elections_put_off");
    assert!(alive.iter().map(withheld).sum::<u64>() > 0, "somebody would have stood before");
    let said = cluster.wire(alive[0]).ask(lease_get(key.as_bytes())).said;
    assert_eq!(said, Said::Value { version, bytes: b"value".to_vec() });
}

/// rule 6: only what was promised counts: a node that is started without leases leaves the leader without a majority of promises, and
/// remembers what it has promised before.
#[test]
fn nodes_with_other_settings_are_no_danger() {
    let mut cluster = cluster();
    let key = "key";
    let version = cluster.wire(1).put(key, "value");
    let identity =
        |cluster: &Cluster, id| std::fs::read_to_string(cluster.data_dir(id).join("identity")).expect("a file");
    assert!(identity(&cluster, 1).contains("promised-us = 600000"));
    cluster.kill_all();
    cluster.set_flag("--lease=off");
    cluster.restart_all();
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        assert_eq!(wire.ask(lease_get(key.as_bytes())).said, Said::Value { version, bytes: b"value".to_vec() });
        assert_eq!(wire.counter("lease_reads"), 0);
        eventually(PATIENCE, "the promises are forgotten", || {
            (!identity(&cluster, id).contains("promised-us")).then_some(())
        });
    }
}
