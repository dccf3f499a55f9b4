//! Clients of gRPC that are greedy or slow: each is refused within its limit, and memory stays where it is.

use crate::support::cluster::Cluster;
use crate::support::http::http_address;
use crate::support::http2::{Http2, framed};
use crate::support::metrics::Page;
use crate::support::wait::{PATIENCE, eventually};

/// What one greedy call may cost, whatever of it is given back at its end.
const PEAK_BYTES_MAX: u64 = 16 << 20;

fn await_refusals(cluster: &Cluster, task: &str, code: &str, number: f64) {
    let labels = [("operation", task), ("face", "grpc"), ("result", code)];
    eventually(PATIENCE, "it is counted", || {
        (Page::of(cluster, 1).sum("raftkv_requests_total", &labels) >= number).then_some(())
    });
}

#[test]
fn a_batch_of_very_many_short_operations_takes_no_more_memory_than_its_bytes() {
    let mut cluster = Cluster::start(1);
    let mut http2 = Http2::connect(http_address(cluster.address(1)));
    let short = framed(&[0x0a, 0].repeat(10));
    assert!(http2.call(1, "/raftkv.v1.KV/Batch", &[]) && http2.body(1, &short));
    await_refusals(&cluster, "batch", "bad_request", 1.0);
    let before = cluster.process(1).peak_rss_bytes();
    // Each of them empty, which takes 2 bytes to say.
    let body = framed(&[0x0a, 0].repeat(600 << 10));
    assert!(http2.call(3, "/raftkv.v1.KV/Batch", &[]) && http2.body(3, &body));
    while !http2.frame().is_some_and(|frame| frame.stream == 3 && frame.is_last()) {}
    let grown = cluster.process(1).peak_rss_bytes() - before;
    assert!(grown < PEAK_BYTES_MAX, "the node had grown by {grown} bytes");
    await_refusals(&cluster, "batch", "too_large", 1.0);
}
