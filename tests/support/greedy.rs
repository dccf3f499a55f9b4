//! Clients over HTTP that take what they can get: what they may cost a node, and that it serves others meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::http::{Http, http_address};
use super::process::memory_bytes;
use super::wait::{PATIENCE, eventually, pause};

/// What a hundred of them may cost.
pub const GROWTH_BYTES_MAX: u64 = 24 << 20;
/// Whoever waits for others does not wait so long, however busy the machine is.
const PROMPT: Duration = Duration::from_secs(10);

/// Another client is served at once.
pub fn is_served(address: SocketAddr) {
    let started = Instant::now();
    assert_eq!(Http::connect(address).ask("GET", "/livez", &[], b"").status, 200);
    assert_eq!(Http::connect(address).ask("PUT", "/v1/kv/other", &[], b"v").status, 200);
    assert!(started.elapsed() < PROMPT, "it took {:?}", started.elapsed());
}

/// Has greedy clients at work, and looks that the node has not grown by more than `bytes_max` and serves others then.
#[track_caller]
pub fn ends_small(cluster: &mut Cluster, bytes_max: u64, greedy: impl FnOnce(&Cluster)) {
    let before = cluster.process(1).rss_bytes();
    greedy(cluster);
    is_served(http_address(cluster.address(1)));
    let grown = cluster.process(1).rss_bytes().saturating_sub(before);
    assert!(grown < bytes_max, "the node has grown by {grown} bytes");
}

/// Has hostile clients at work, and looks all the while that the node has not grown by more than `bytes_max` and serves
/// others.
#[track_caller]
pub fn stays_small(cluster: &mut Cluster, bytes_max: u64, hostile: impl FnOnce(&Cluster)) {
    let (address, pid) = (http_address(cluster.address(1)), cluster.process(1).pid());
    let rss_bytes = move || memory_bytes(pid, "VmRSS:");
    let (before, at_work) = (rss_bytes(), Arc::new(()));
    let hold = Arc::downgrade(&at_work);
    let watch = thread::spawn(move || {
        let mut most = before;
        loop {
            let is_last = hold.strong_count() == 0;
            is_served(address);
            most = most.max(rss_bytes());
            if is_last {
                return most;
            }
            pause(Duration::from_millis(20));
        }
    });
    hostile(cluster);
    drop(at_work);
    let most = watch.join().expect("another client is served");
    assert!(most - before < bytes_max, "the node had grown by {} bytes", most - before);
}

/// Waits until no connection over HTTP is left.
pub fn all_are_gone(cluster: &Cluster) {
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "all connections are let go", || (wire.counter("http_connections_open") == 0).then_some(()));
}
