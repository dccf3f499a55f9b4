//! Clients of gRPC that are greedy or slow: each is refused within its limit, and memory stays where it is.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::http::http_address;
use crate::support::http2::{CANCEL, Http2, RST_STREAM, framed, http2};
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
    let mut http2 = http2(&cluster, 1);
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

/// The field 1, which holds bytes.
fn field_1(bytes: &[u8]) -> Vec<u8> {
    [&[0x0a, u8::try_from(bytes.len()).expect("short")], bytes].concat()
}

#[test]
fn what_is_refused_without_asking_the_node_is_counted() {
    let cluster = Cluster::start(1);
    let mut http2 = http2(&cluster, 1);
    let long = vec![0; 5 << 10];
    let refusals = || Page::of(&cluster, 1).sum("raftkv_refusals_total", &[]);
    let before = refusals();
    for (stream, (path, message, task, code)) in [1, 3, 5, 7].into_iter().zip([
        ("/raftkv.v1.KV/None", &b""[..], "other", "bad_request"),
        ("/none.v1.None/Get", &[], "other", "bad_request"),
        ("/grpc.health.v1.Health/Check", &field_1(b"none"), "health", "not_found"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &long, "reflection", "too_large"),
    ]) {
        let number = if stream == 3 { 2.0 } else { 1.0 };
        assert!(http2.call(stream, path, &[]) && http2.body(stream, &framed(message)));
        await_refusals(&cluster, task, code, number);
    }
    assert_eq!(refusals() - before, 3.0, "what is not found is no refusal");
}

#[test]
fn deadlines_hold_for_responses_that_their_clients_do_not_take() {
    let cluster = Cluster::start(1);
    cluster.wire(1).put("long", vec![7; 1 << 20]);
    let calls = [("/raftkv.v1.KV/Get", "long"), ("/raftkv.v1.KV/Scan", "l")];
    // Nothing is taken, less than a frame, and less than the message.
    for (round, window) in (1..).zip([0, 1_000, 500_000]) {
        let mut http2 = Http2::connect_with_window(http_address(cluster.address(1)), window);
        assert!(http2.take(0, 1 << 30));
        let started = Instant::now();
        for (stream, (path, key)) in [1, 3].into_iter().zip(calls) {
            let message = framed(&field_1(key.as_bytes()));
            assert!(http2.call(stream, path, &[("grpc-timeout", "300m")]) && http2.body(stream, &message));
        }
        for _ in 0..2 {
            let reset = std::iter::from_fn(|| http2.frame()).find(|frame| frame.kind == RST_STREAM).expect("an end");
            assert_eq!(reset.reason(), CANCEL);
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(20), "it took {took:?}");
        assert_eq!(cluster.wire(1).counter("grpc_deadlines"), 2 * round);
    }
    assert_eq!(cluster.wire(1).counter("http_streams_late"), 0);
}
