//! Limits as clients meet them: much is asked for at once, nothing is refused that need not be, and memory stays bounded.

use std::thread;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Code, Request, Scan};
use raftkv_protocol::types::RequestId;

use crate::support::cluster::Cluster;
use crate::support::history::Writers;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire, encoded, get, put};

const VALUE_BYTES: usize = 1 << 20;
/// What the replies of one connection may take, with its buffers: several times `--reply-bytes-max`.
const GROWTH_BYTES_MAX: u64 = 80 << 20;

/// Asks for so many long values at once and then reads the answers one by one.
fn read_long_values(wire: &mut Wire, keys: &[String], gets: u64) {
    let requests = encoded(|out| {
        for n in 0..gets {
            let key = keys[n as usize % keys.len()].as_bytes();
            Request { id: RequestId(n), operation: get(key) }.encode(out);
        }
    });
    wire.send(&requests).expect("sent");
    let mut answered = vec![false; gets as usize];
    for _ in 0..gets {
        let replied = wire.reply().expect("readable").expect("a reply");
        match replied.said {
            Said::Value { bytes, .. } => assert_eq!(bytes.len(), VALUE_BYTES),
            said => panic!("request {} was answered {said:?}", replied.id),
        }
        assert!(!std::mem::replace(&mut answered[replied.id as usize], true), "answered twice");
    }
}

#[test]
fn whoever_asks_for_many_long_values_and_reads_them_gets_them_all() {
    let mut cluster = Cluster::start(3);
    let keys: Vec<String> = (0..3).map(|n| format!("long{n}")).collect();
    let mut wire = cluster.wire(1);
    for key in &keys {
        wire.put(key, vec![7; VALUE_BYTES]);
    }
    cluster.await_convergence();
    // Some are led by the node that is asked, some by others.
    for (id, gets) in [(1, 1_000), (2, 200), (3, 200)] {
        // What it holds of the log and of the values is there before.
        let mut wire = cluster.wire(id);
        read_long_values(&mut wire, &keys, 3);
        let before: Vec<u64> = cluster.ids().into_iter().map(|id| cluster.process(id).rss_bytes()).collect();
        read_long_values(&mut wire, &keys, gets);
        for (id, before) in (1..).zip(before) {
            let grown = cluster.process(id).rss_bytes().saturating_sub(before);
            assert!(grown < GROWTH_BYTES_MAX, "node {id} has grown by {grown} bytes");
        }
        let counters = ["refused_overloaded", "replies_dropped", "timeouts"].map(|name| wire.counter(name));
        assert_eq!(counters, [0; 3], "node {id}");
        assert!(wire.counter("reads_paused") > 0, "the connection was read from later");
    }
}

#[test]
fn whoever_asks_for_many_long_pages_and_reads_them_gets_them_all() {
    let cluster = Cluster::start(1);
    let mut wire = cluster.wire(1);
    for n in 0..40 {
        wire.put(format!("key{n:02}"), vec![7; VALUE_BYTES / 20]);
    }
    for _ in 0..100 {
        wire.submit(raftkv_protocol::client::Operation::Scan(Scan::default())).expect("sent");
    }
    for _ in 0..100 {
        let Said::Page { items, more } = wire.reply().expect("readable").expect("a reply").said else {
            panic!("refused");
        };
        assert!(items.len() >= 19 && more, "{} items", items.len());
    }
    assert_eq!(wire.counter("refused_overloaded"), 0);
}

/// What nobody reads on many connections together is bounded, beyond what each may leave: further reads are refused,
/// and writes are not.
#[test]
fn a_core_whose_clients_do_not_read_refuses_reads() {
    let cluster = Cluster::of(1).flag("--core-reply-bytes-max=2MiB").flag("--reply-bytes-max=8MiB").start();
    let mut witness = cluster.wire(1);
    witness.put("long", vec![7; VALUE_BYTES]);
    let slow: Vec<Wire> = (0..8)
        .map(|_| {
            let mut wire = cluster.wire(1);
            for _ in 0..40 {
                wire.submit(get(b"long")).expect("sent");
            }
            wire
        })
        .collect();
    let refused = eventually(PATIENCE, "reads are refused", || {
        let said = witness.ask(get(b"long")).said;
        said.code().map(|code| (code, said))
    });
    assert_eq!(refused.0, Code::Overloaded, "{:?}", refused.1);
    witness.put("short", "value");
    assert!(witness.counter("overloaded_replies") > 0);
    assert_eq!(witness.counter("replies_dropped"), 0, "nothing was read in vain");
    drop(slow);
    eventually(PATIENCE, "there is room again", || {
        matches!(witness.ask(get(b"long")).said, Said::Value { .. }).then_some(())
    });
}

/// One connection that never stops asking, whatever it is told; how often it was answered and with what in between.
fn hammer(mut wire: Wire) -> (u64, u64) {
    let (mut written, mut refused) = (0, 0);
    while let Ok(replied) = wire.try_ask(put(b"hammered", b"value")) {
        match replied.said {
            Said::Put => written += 1,
            said if said.code() == Some(Code::NotReady) => refused += 1,
            said => panic!("{said:?}"),
        }
    }
    (written, refused)
}

#[test]
fn a_single_node_under_load_stops_at_once_and_forgets_nothing() {
    let mut cluster = Cluster::start(1);
    let writers = Writers::start(&cluster, "key", 4, 8);
    let hammers: Vec<_> = (0..4).map(|_| cluster.wire(1)).map(|wire| thread::spawn(|| hammer(wire))).collect();
    writers.await_progress(500);
    let told = Instant::now();
    let ended = cluster.stop(1);
    let took = told.elapsed();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(took < Duration::from_secs(2), "it took {took:?}: {}", ended.stderr);
    assert!(!ended.stderr.contains("not everything is answered"), "{}", ended.stderr);
    for hammer in hammers {
        let (written, refused) = hammer.join().expect("answered in time, or disconnected");
        assert!(written > 0 && refused > 0, "{written} written, {refused} refused");
    }
    cluster.restart_all();
    writers.await_progress(50);
    writers.stop().check(&cluster, &[1]);
}

/// Clients that do not follow the leader to where it has gone do not keep a node from stopping either.
#[test]
fn a_node_of_three_under_load_stops_at_once_and_forgets_nothing() {
    let mut cluster = Cluster::start(3);
    let writers = Writers::start(&cluster, "key", 4, 8);
    let hammers: Vec<_> = (0..4).map(|_| cluster.wire(2)).map(|wire| thread::spawn(|| hammer_any(wire))).collect();
    writers.await_progress(500);
    let told = Instant::now();
    let ended = cluster.stop(2);
    let took = told.elapsed();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(took < Duration::from_secs(3), "it took {took:?}: {}", ended.stderr);
    for hammer in hammers {
        assert!(hammer.join().expect("answered in time, or disconnected") > 0);
    }
    writers.await_progress(50);
    writers.stop().check(&cluster, &[1, 3]);
}

/// One connection that never stops asking, whatever it is told; how often it was answered.
fn hammer_any(mut wire: Wire) -> u64 {
    let mut answered = 0;
    while wire.try_ask(put(b"hammered", b"value")).is_ok() {
        answered += 1;
    }
    answered
}

/// Without a majority nothing can be finished nor handed over; the node has so much time to find that out.
#[test]
fn a_stop_that_cannot_be_orderly_ends_in_time() {
    for (timeout, least, most) in [("1s", 900, 2_500), ("3s", 2_900, 4_500)] {
        let mut cluster =
            Cluster::of(3).flag(&format!("--stop-timeout={timeout}")).flag("--request-timeout=20s").start();
        let leader = cluster.leader_of("key");
        for id in cluster.ids().into_iter().filter(|id| *id != leader) {
            cluster.process(id).pause();
        }
        let mut wire = cluster.wire(leader);
        wire.submit(put(b"key", b"value")).expect("sent");
        wire.ping();
        let told = Instant::now();
        let ended = cluster.stop(leader);
        let took = told.elapsed().as_millis();
        assert!((least..most).contains(&took), "{timeout}: it took {took} ms");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("not everything is answered"), "{}", ended.stderr);
        assert_eq!(wire.reply().expect("readable"), None, "the write has no outcome");
    }
}
