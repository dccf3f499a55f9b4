//! HTTP clients that do not take what they have asked for, or take it slowly: what they may keep of the node, and for how long.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::greedy::{GROWTH_BYTES_MAX, all_are_gone, ends_small};
use crate::support::http::{Http, http, http_address, request};
use crate::support::http2::{CANCEL, Came, DATA, HEADERS, Http2, RST_STREAM, http2};
use crate::support::wait::{PATIENCE, eventually, pause};

const TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn readers_that_do_not_read_keep_no_more_than_their_share() {
    // However long they wait for room on a busy machine.
    let mut cluster = Cluster::of(1).flag("--core-reply-bytes-max=8MiB").flag("--request-timeout=1m").start();
    cluster.wire(1).put("long", vec![7; 1 << 20]);
    for headers in [&[][..], &[("accept", "application/json")]] {
        let mut readers: Vec<Http> = (0..100).map(|_| http(&cluster, 1)).collect();
        ends_small(&mut cluster, 2 * GROWTH_BYTES_MAX, |_| {
            for reader in &mut readers {
                reader.send(&request("GET", "/v1/kv/long", headers, b""));
            }
        });
        let statuses: Vec<u16> = readers.iter_mut().filter_map(|reader| Some(reader.response(false)?.status)).collect();
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{headers:?}: {statuses:?}");
        assert!(statuses.contains(&200), "{headers:?}");
    }
}

#[test]
fn reads_are_refused_while_too_much_lies_unread() {
    let cluster = Cluster::of(1).flag("--core-reply-bytes-max=8MiB").start();
    let mut wire = cluster.wire(1);
    wire.put("long", vec![7; 1 << 20]);
    let mut http = http(&cluster, 1);
    let mut read = || http.ask("GET", "/v1/kv/none", &[], b"");
    let mut greedy = Http2::connect_with_window(http_address(cluster.address(1)), 0);
    let mut streams = (1..).step_by(2);
    let refused = eventually(PATIENCE, "too much lies unread", || {
        assert!(greedy.get(streams.next().expect("a stream"), "/v1/kv/long"));
        Some(read()).filter(|response| response.status == 503)
    });
    assert!(refused.text().contains("leave too many replies unread"), "{}", refused.text());
    let counted = ["overloaded_replies", "refused_overloaded"].map(|name| wire.counter(name));
    assert!(counted[0] > 0 && counted[0] == counted[1], "{counted:?}");
    drop(greedy);
    eventually(PATIENCE, "there is room again", || (read().status == 404).then_some(()));
}

#[test]
fn a_response_that_its_reader_lets_wait_arrives_whole() {
    let cluster = Cluster::start(1);
    let value: Vec<u8> = (0..1 << 20).map(|at| (at >> 8) as u8).collect();
    cluster.wire(1).put("long", value.clone());
    let mut reader = http(&cluster, 1);
    const RESPONSES: usize = 16;
    reader.send(&request("GET", "/v1/kv/long", &[], b"").repeat(RESPONSES));
    pause(Duration::from_millis(600));
    for response in 0..RESPONSES {
        let body = reader.response(false).expect("a response").body;
        assert!(body == value, "response {response} has {} bytes", body.len());
    }
}

#[test]
fn clients_that_vanish_free_everything() {
    let flags = ["--request-timeout=1m", "--http-body-timeout=1m", "--core-http-body-bytes-max=2MiB"];
    let mut cluster = Cluster::of(3).flags(flags).start();
    cluster.kill_9(2);
    cluster.kill_9(3);
    // Nobody answers these while the test goes on, and there is no room for a further body beside these.
    let mut waiting: Vec<Http> = (0..50).map(|_| http(&cluster, 1)).collect();
    waiting.iter_mut().for_each(|http| http.send(&request("PUT", "/v1/kv/k", &[], b"v")));
    let mut sending: Vec<Http> = (0..2).map(|_| http(&cluster, 1)).collect();
    for http in &mut sending {
        http.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
        http.try_send(&vec![7; 999_999]);
    }
    let mut streams: Vec<Http2> = (0..10).map(|_| http2(&cluster, 1)).collect();
    streams.iter_mut().for_each(|http2| assert!(http2.get(1, "/v1/kv/k")));
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "all are there", || (wire.counter("http_requests") == 62).then_some(()));
    // It is read as a whole and then found to be no batch.
    let further = || {
        let mut http = http(&cluster, 1);
        http.try_send(&request("POST", "/v1/batch", &[], &vec![b' '; 1_000_000]));
        http.response(false).map(|response| response.status)
    };
    eventually(PATIENCE, "there is no room", || {
        further();
        (wire.counter("overloaded_bodies") > 0).then_some(())
    });
    waiting.into_iter().chain(sending).for_each(Http::reset);
    drop(streams);
    all_are_gone(&cluster);
    assert_eq!(further(), Some(400), "there is room again");
}

/// How long a response may wait for its client, where others are to be served meanwhile also on a busy machine.
const STALL: Duration = Duration::from_millis(1_500);

/// What an HTTP/2 client takes of each response before it says that it takes more: nothing, less than a frame, and less
/// than the response.
const WINDOWS: [u32; 3] = [0, 1_000, 500_000];

/// Another stream of the connection is served, and which streams end meanwhile before their time.
fn is_served_beside(http2: &mut Http2, stream: u32, ended: &mut BTreeSet<u32>) {
    assert!(http2.get(stream, "/livez") && http2.take(stream, 1_000), "the connection is open");
    loop {
        let frame = http2.frame().expect("the connection stays open");
        match frame.kind {
            RST_STREAM => {
                assert_eq!((frame.reason(), ended.insert(frame.stream)), (CANCEL, true), "{frame:?}");
            }
            _ if frame.stream == stream && frame.is_last() => return,
            HEADERS | DATA => assert!(!frame.is_last(), "{frame:?}"),
            _ => panic!("not expected: {frame:?}"),
        }
    }
}

#[test]
fn responses_that_an_http_2_client_does_not_take_are_ended() {
    let flags = ["--http-idle-timeout=1500ms", "--core-reply-bytes-max=8MiB"];
    let cluster = Cluster::of(1).flags(flags).start();
    cluster.wire(1).put("long", vec![7; 1 << 20]);
    for (window, expected) in WINDOWS.into_iter().zip([7, 14, 21]) {
        let mut http2 = Http2::connect_with_window(http_address(cluster.address(1)), window);
        assert!(http2.take(0, 1 << 30));
        let (started, mut ended) = (Instant::now(), BTreeSet::new());
        // Nearly all that the core keeps for its readers.
        for stream in (1..14).step_by(2) {
            assert!(http2.get(stream, "/v1/kv/long"));
        }
        for stream in (15..).step_by(2) {
            is_served_beside(&mut http2, stream, &mut ended);
            if ended.len() == 7 {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "only {ended:?} have ended");
            pause(STALL / 20);
        }
        assert!(started.elapsed() >= STALL);
        assert_eq!(ended, (1..14).step_by(2).collect());
        // What they held is given back, though the connection is still there.
        for _ in 0..4 {
            assert_eq!(http(&cluster, 1).ask("GET", "/v1/kv/long", &[], b"").status, 200);
        }
        assert_eq!(cluster.wire(1).counter("http_streams_late"), expected);
    }
}

#[test]
fn a_response_that_an_http_2_client_takes_slowly_comes_to_its_end() {
    let cluster = Cluster::of(1).flag("--http-idle-timeout=1500ms").start();
    cluster.wire(1).put("long", vec![7; 16 << 10]);
    let mut http2 = Http2::connect_with_window(http_address(cluster.address(1)), 0);
    assert!(http2.get(1, "/v1/kv/long"));
    let (mut taken, mut has_ended) = (0, false);
    let started = Instant::now();
    while !has_ended {
        assert!(started.elapsed() < PATIENCE, "only {taken} bytes have come");
        assert!(http2.take(1, 2 << 10));
        pause(STALL / 4);
        while let Came::Frame(frame) = http2.frame_within(Duration::from_millis(1)) {
            assert!(matches!(frame.kind, HEADERS | DATA), "{frame:?}");
            taken += if frame.kind == DATA { frame.payload.len() } else { 0 };
            has_ended |= frame.is_last();
        }
    }
    assert!(started.elapsed() > STALL);
    assert_eq!(taken, 16 << 10);
    assert_eq!(cluster.wire(1).counter("http_streams_late"), 0);
}

/// What is left of short responses goes with the connection, whatever else its client sends.
#[test]
fn an_http_2_connection_on_which_nothing_is_taken_is_closed() {
    let cluster = Cluster::of(1).flag("--http-idle-timeout=1s").flag("--http-header-timeout=1s").start();
    let mut http2 = Http2::connect_with_window(http_address(cluster.address(1)), 1);
    let started = Instant::now();
    for stream in (1..20).step_by(2) {
        assert!(http2.get(stream, "/livez"));
    }
    loop {
        // More bytes than an idle connection sends.
        (0..100).all(|_| http2.ping());
        match http2.frame_within(TIMEOUT / 8) {
            Came::End => break,
            Came::Frame(frame) => assert!(!frame.is_last(), "{frame:?}"),
            Came::Nothing => {}
        }
        assert!(started.elapsed() < PATIENCE, "it is not closed");
    }
    assert!(started.elapsed() >= TIMEOUT);
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 1);
    all_are_gone(&cluster);
}
