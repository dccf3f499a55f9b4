//! Limits of what a client over HTTP may send, and of how many may come: each is refused just beyond it, and memory stays
//! where it is.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::greedy::{GROWTH_BYTES_MAX, all_are_gone, is_served, stays_small};
use crate::support::http::{Http, http, http_address, request};
use crate::support::http2::{HEADERS, Http2, RST_STREAM, http2};
use crate::support::wait::{PATIENCE, eventually, pause};

const TIMEOUT: Duration = Duration::from_millis(400);

#[test]
fn values_are_taken_up_to_their_limit() {
    let cluster = Cluster::of(1).flag("--value-bytes-max=1000").start();
    for (bytes, status) in [(999, 200), (1_000, 200), (1_001, 413)] {
        assert_eq!(http(&cluster, 1).ask("PUT", "/v1/kv/k", &[], &vec![7; bytes]).status, status, "{bytes} bytes");
        let mut chunked = b"PUT /v1/kv/c HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        chunked.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
        chunked.extend(vec![7; bytes]);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        let mut http = http(&cluster, 1);
        http.send(&chunked);
        assert_eq!(http.response(false).expect("a response").status, status, "{bytes} bytes in chunks");
    }
    for key in [4_096, 4_097] {
        let path = format!("/v1/kv/{}", "k".repeat(key));
        let status = if key == 4_096 { 200 } else { 413 };
        assert_eq!(http(&cluster, 1).ask("PUT", &path, &[], b"v").status, status, "a key of {key} bytes");
    }
}

#[test]
fn a_gigabyte_is_refused_before_it_comes() {
    let mut cluster = Cluster::start(1);
    let heads = ["", "expect: 100-continue\r\n"];
    let mut waiting: Vec<Http> = (0..50).map(|_| http(&cluster, 1)).collect();
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |_| {
        for (n, http) in waiting.iter_mut().enumerate() {
            let expect = heads[n % 2];
            let head = format!("PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 1073741824\r\n{expect}\r\n");
            http.send(head.as_bytes());
            let refused = http.response(false).expect("a response");
            assert_eq!(refused.status, 413, "{refused:?}");
        }
    });
}

#[test]
fn bodies_on_their_way_take_no_more_memory_than_they_may() {
    let cluster = Cluster::of(1).flag("--core-http-body-bytes-max=2MiB").start();
    let mut waiting: Vec<Http> = (0..4).map(|_| http(&cluster, 1)).collect();
    for http in &mut waiting {
        http.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
        http.try_send(&vec![7; 999_999]);
    }
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "two have no room", || (wire.counter("overloaded_bodies") == 2).then_some(()));
    let mut statuses = Vec::new();
    for http in &mut waiting {
        http.try_send(&[7]);
        let response = http.response(false).expect("a response");
        if response.status == 503 {
            assert!(response.text().contains("--core-http-body-bytes-max"), "{}", response.text());
        }
        statuses.push(response.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
}

#[test]
fn heads_are_taken_up_to_their_limit() {
    let mut cluster = Cluster::start(1);
    let padding = |bytes: usize| "x".repeat(bytes);
    for (bytes, status) in [(15_000, 200), (17_000, 431)] {
        let mut http = http(&cluster, 1);
        let response = http.ask("GET", "/livez", &[("x-padding", &padding(bytes))], b"");
        assert_eq!(response.status, status, "a head with {bytes} bytes of padding");
    }
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        for _ in 0..50 {
            let mut flood = http(cluster, 1);
            flood.send(b"GET /livez HTTP/1.1\r\nhost: test\r\n");
            for n in 0..10_000 {
                if !flood.try_send(format!("x-{n}: {}\r\n", padding(100)).as_bytes()) {
                    break;
                }
            }
        }
    });
    all_are_gone(&cluster);
}

/// A request whose head has so many bytes.
fn head_of(bytes: usize) -> Vec<u8> {
    let (start, end) = (&b"GET /livez HTTP/1.1\r\nhost: test\r\nx: "[..], &b"\r\n\r\n"[..]);
    [start, &vec![b'p'; bytes - start.len() - end.len()][..], end].concat()
}

#[test]
fn a_head_of_just_the_limit_is_served_and_a_longer_one_is_not() {
    for limit in [16 << 10, 20_000] {
        let cluster = Cluster::of(1).flag(&format!("--http-header-bytes-max={limit}")).start();
        let mut kept = http(&cluster, 1);
        for bytes in [limit - 1, limit] {
            kept.send(&head_of(bytes));
            assert_eq!(kept.response(false).expect("a response").status, 200, "{bytes} bytes");
            let head = head_of(bytes);
            let (first, rest) = head.split_at(bytes / 3);
            kept.send(first);
            pause(TIMEOUT / 8);
            kept.send(rest);
            assert_eq!(kept.response(false).expect("a response").status, 200, "{bytes} bytes in two pieces");
        }
        // However the bytes come, and whatever was before.
        for mut http in [kept, http(&cluster, 1)] {
            http.send(&head_of(limit + 1));
            assert_eq!(http.response(false).expect("a response").status, 431, "{} bytes", limit + 1);
            assert!(http.ends_within(PATIENCE));
        }
        let mut http2 = http2(&cluster, 1);
        for (stream, bytes) in [(1, limit - 1), (3, limit), (7, limit)] {
            assert!(http2.get_with_fields_of(stream, "/livez", bytes));
            assert_eq!(http2.response(stream), b"ok\n", "{bytes} bytes");
            if stream == 3 {
                assert!(http2.get_with_fields_of(5, "/livez", limit + 1));
                let frame = http2.frame().expect("a response");
                // The digits of 431 in Huffman's code (RFC 7541, Appendix B).
                let has_status = frame.payload.windows(4).any(|bytes| bytes == [0x83, 0x69, 0x90, 0xff]);
                assert!(frame.kind == HEADERS && frame.is_last() && has_status, "{frame:?}");
            }
        }
        let mut wire = cluster.wire(1);
        assert_eq!(wire.counter("http_connections_broken"), 2);
        // What h2 answers by itself is seen only where it takes a stream back whose body is to come.
        assert_eq!(wire.counter("http_streams_broken"), 0);
        assert!(http2.begin_with_fields_of(9, "/livez", limit + 1));
        while http2.frame().expect("it is taken back").kind != RST_STREAM {}
        assert_eq!(wire.counter("http_streams_broken"), 1);
    }
}

#[test]
fn connections_are_taken_up_to_the_limit_and_told_so_beyond() {
    let cluster = Cluster::of(1).flag("--connections-max=3").start();
    let mut kept: Vec<Http> = (0..3).map(|_| http(&cluster, 1)).collect();
    for http in &mut kept {
        assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    }
    let mut one_more = http(&cluster, 1);
    let refused = one_more.response(false).expect("a response");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("--connections-max"), "{}", refused.text());
    drop(kept);
    eventually(PATIENCE, "there is room again", || {
        let mut http = http(&cluster, 1);
        http.try_send(&request("GET", "/livez", &[], b""));
        http.response(false).filter(|response| response.status == 200)
    });
}

#[test]
fn bytes_that_are_no_http_are_refused() {
    let cluster = Cluster::start(1);
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"GET\r\n\r\n", &[0; 100]]
    {
        let mut http = http(&cluster, 1);
        http.send(bytes);
        if let Some(response) = http.response(false) {
            assert_eq!(response.status, 400, "{bytes:?}");
        }
        assert!(http.ends_within(PATIENCE), "{bytes:?}");
    }
    is_served(http_address(cluster.address(1)));
    all_are_gone(&cluster);
}

#[test]
fn a_gigabyte_over_http_2_is_refused_before_it_comes() {
    let mut cluster = Cluster::start(1);
    let address = http_address(cluster.address(1));
    let mut waiting: Vec<Http2> = (0..50).map(|_| Http2::connect(address)).collect();
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        for http2 in &mut waiting {
            assert!(http2.post(1, "/v1/batch", &[("content-length", "1073741824")]));
            // The client goes on for as long as it is let.
            assert!(!http2.body(1, &vec![b' '; 8 << 20]), "all of it is taken");
        }
        let mut wire = cluster.wire(1);
        assert_eq!(wire.counter("http_refused_4xx"), 50);
    });
}
