//! HTTP clients that are slow to say what they want, or fall silent within it: each is let go within its time, and nobody
//! else notices.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::greedy::{GROWTH_BYTES_MAX, all_are_gone, stays_small};
use crate::support::http::{Http, http};
use crate::support::http2::{
    CONTINUATION, Came, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, get_block, http2,
};
use crate::support::wait::{PATIENCE, pause};

/// Longer than a busy machine holds up a client between two of its steps.
const TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=1s").start();
    let mut silent = http(&cluster, 1);
    let mut slow = http(&cluster, 1);
    let mut second = http(&cluster, 1);
    assert_eq!(second.ask("GET", "/livez", &[], b"").status, 200);
    let started = Instant::now();
    slow.send(b"GET /livez HTTP/1.1\r\nhost: te");
    second.send(b"GET /liv");
    // Byte by byte, for longer than the whole may take.
    for byte in b"st\r\nx-a: b" {
        if !slow.try_send(&[*byte]) {
            break;
        }
        pause(TIMEOUT / 5);
    }
    assert!(slow.ends_within(TIMEOUT));
    for (name, mut http) in [("the silent", silent), ("the second head", second)] {
        assert!(http.ends_within(3 * TIMEOUT), "{name}");
    }
    assert!(started.elapsed() >= TIMEOUT);
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 3);
    silent = http(&cluster, 1);
    assert_eq!(silent.ask("GET", "/livez", &[], b"").status, 200, "in time");
}

/// A connection of HTTP/2 that says these bytes behind its greeting, and answers to nothing.
fn http2_that_says(cluster: &Cluster, bytes: &[u8]) -> Http {
    let mut http = http(cluster, 1);
    http.send(&[PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0], bytes].concat());
    http
}

#[test]
fn a_head_over_http_2_that_does_not_come_to_its_end_ends_the_connection() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=1s").start();
    let block = get_block("/livez");
    let length = u8::try_from(block.len()).expect("a short block");
    let started = Instant::now();
    // All of a frame, but not all of the head; and a frame that is longer than what comes of it.
    let mut without_end =
        http2_that_says(&cluster, &[&[0, 0, length, HEADERS, END_STREAM, 0, 0, 0, 1][..], &block[..]].concat());
    let announced = [0, 1, 0, HEADERS, END_STREAM | END_HEADERS, 0, 0, 0, 1];
    let mut cut_short = http2_that_says(&cluster, &[&announced[..], &block[..]].concat());
    let mut slow = http2_that_says(&cluster, &announced);
    for _ in 0..20 {
        if !slow.try_send(&[0x82]) {
            break;
        }
        pause(TIMEOUT / 5);
    }
    for (name, http) in [("slow", &mut slow), ("cut short", &mut cut_short), ("without an end", &mut without_end)] {
        assert!(http.ends_within(PATIENCE), "{name}");
    }
    assert!(started.elapsed() >= TIMEOUT);
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 3);
}

#[test]
fn heads_over_http_2_that_come_to_their_ends_may_go_on_for_long() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=5s").start();
    let mut http2 = http2(&cluster, 1);
    let block = get_block("/livez");
    let (first, rest) = block.split_at(2);
    // Nothing else may come within a head, and settings are acknowledged as they come.
    assert!(http2.get(1, "/livez") && http2.response(1) == b"ok\n");
    assert!(http2.send(HEADERS, END_STREAM, 3, first));
    // Each takes a part of the time that it has, and the next begins with the last byte of it.
    for stream in (3..10).step_by(2) {
        pause(Duration::from_millis(1_500));
        assert!(http2.send(CONTINUATION, END_HEADERS, stream, rest));
        assert!(http2.send(HEADERS, END_STREAM, stream + 2, first));
        assert_eq!(http2.response(stream), b"ok\n");
    }
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 0);
}

#[test]
fn a_client_that_does_not_answer_to_a_ping_is_let_go() {
    let (idle, patience) = (Duration::from_secs(10), Duration::from_secs(2));
    let cluster = Cluster::of(1).flag("--http-idle-timeout=10s").flag("--http-header-timeout=2s").start();
    let mut lively = http2(&cluster, 1);
    // It answers to pings for longer than the other one is kept.
    let lively = thread::spawn(move || (lively.frame_within(idle * 4 / 5), lively));
    let mut dead = http2_that_says(&cluster, &[]);
    let started = Instant::now();
    assert!(dead.ends_within(PATIENCE));
    let took = started.elapsed();
    assert!(took >= idle / 2 && took < idle, "it took {took:?}, a ping is to be answered within {patience:?}");
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 1);
    let (came, mut lively) = lively.join().expect("it has waited");
    assert_eq!(came, Came::Nothing);
    assert!(lively.get(1, "/livez"));
    assert_eq!(lively.response(1), b"ok\n");
}

#[test]
fn a_body_that_does_not_come_to_its_end_is_refused() {
    let cluster = Cluster::of(1).flag("--http-body-timeout=1s").start();
    let mut slow = http(&cluster, 1);
    slow.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nabc");
    let refused = slow.response(false).expect("a response");
    assert_eq!(refused.status, 408);
    assert!(refused.text().contains("--http-body-timeout"), "{}", refused.text());
    assert_eq!(http(&cluster, 1).ask("GET", "/v1/kv/k", &[], b"").status, 404, "nothing was written");
}

#[test]
fn http_2_clients_that_fall_silent_are_let_go() {
    let flags = ["--http-header-timeout=1s", "--http-idle-timeout=1s"];
    let cluster = Cluster::of(1).flags(flags).start();
    for (round, said) in (1..).zip([&PREFACE[..1], &PREFACE[..12], &PREFACE[..23], PREFACE]) {
        let mut silent = http(&cluster, 1);
        let started = Instant::now();
        silent.send(said);
        assert!(silent.ends_within(10 * TIMEOUT), "{} bytes of the preface", said.len());
        assert!(started.elapsed() >= TIMEOUT);
        assert_eq!(cluster.wire(1).counter("http_connections_late"), round);
    }
    all_are_gone(&cluster);
}

/// How many hostile clients there are at a time.
const CLIENTS: usize = 100;

#[test]
fn heads_and_bodies_that_come_byte_by_byte_hold_nobody_up() {
    let flags = ["--http-header-timeout=1s", "--http-body-timeout=1s"];
    let mut cluster = Cluster::of(1).flags(flags).start();
    // Of each head and body more is announced than comes in time.
    let begun = [
        &b"GET /livez HTTP/1.1\r\nhost: te"[..],
        b"PUT /v1/kv/slow HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n",
        b"PUT /v1/kv/slow HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nf4240\r\n",
    ];
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        let mut slow: Vec<Http> = (0..CLIENTS).map(|_| http(cluster, 1)).collect();
        for (n, http) in slow.iter_mut().enumerate() {
            http.send(begun[n % begun.len()]);
        }
        for _ in 0..PATIENCE.as_millis() / 100 {
            slow.retain_mut(|http| http.try_send(b"x"));
            if slow.is_empty() {
                break;
            }
            pause(Duration::from_millis(100));
        }
        assert!(slow.is_empty(), "{} slow clients are still served", slow.len());
    });
    all_are_gone(&cluster);
    let mut wire = cluster.wire(1);
    assert!(wire.get("slow").is_none(), "nothing was written");
    let [heads, bodies] = ["http_connections_late", "http_bodies_late"].map(|name| wire.counter(name));
    assert_eq!((heads, bodies), (34, 66));
}
