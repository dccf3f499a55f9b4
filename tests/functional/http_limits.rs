//! HTTP clients that are slow, greedy or hostile: each is refused within its limit, memory stays where it is, and nobody
//! else notices.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::http::{Http, http_address, request};
use crate::support::http2::{
    CANCEL, CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PREFACE, RST_STREAM, SETTINGS,
    get_block,
};
use crate::support::process::memory_bytes;
use crate::support::wait::{PATIENCE, eventually, pause};

const TIMEOUT: Duration = Duration::from_millis(400);
/// What a hundred hostile connections may cost.
const GROWTH_BYTES_MAX: u64 = 24 << 20;
/// Whoever waits for others does not wait so long, however busy the machine is.
const PROMPT: Duration = Duration::from_secs(10);

fn http(cluster: &Cluster) -> Http {
    Http::connect(http_address(cluster.address(1)))
}

/// Another client is served at once.
fn is_served(address: SocketAddr) {
    let started = Instant::now();
    assert_eq!(Http::connect(address).ask("GET", "/livez", &[], b"").status, 200);
    assert_eq!(Http::connect(address).ask("PUT", "/v1/kv/other", &[], b"v").status, 200);
    assert!(started.elapsed() < PROMPT, "it took {:?}", started.elapsed());
}

/// Has greedy clients at work, and looks that the node has not grown by more than `bytes_max` and serves others then.
#[track_caller]
fn ends_small(cluster: &mut Cluster, bytes_max: u64, greedy: impl FnOnce(&Cluster)) {
    let before = cluster.process(1).rss_bytes();
    greedy(cluster);
    is_served(http_address(cluster.address(1)));
    let grown = cluster.process(1).rss_bytes().saturating_sub(before);
    assert!(grown < bytes_max, "the node has grown by {grown} bytes");
}

/// Has hostile clients at work, and looks all the while that the node has not grown by more than `bytes_max` and serves
/// others.
#[track_caller]
fn stays_small(cluster: &mut Cluster, bytes_max: u64, hostile: impl FnOnce(&Cluster)) {
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

/// The other side sends the client away, whatever it says before.
fn await_goaway(http2: &mut Http2) {
    while http2.frame().is_some_and(|frame| frame.kind != GOAWAY) {}
}

fn all_are_gone(cluster: &Cluster) {
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "all connections are let go", || (wire.counter("http_connections_open") == 0).then_some(()));
}

#[test]
fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=400ms").start();
    let mut silent = http(&cluster);
    let mut slow = http(&cluster);
    let mut second = http(&cluster);
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
    silent = http(&cluster);
    assert_eq!(silent.ask("GET", "/livez", &[], b"").status, 200, "in time");
}

/// A connection of HTTP/2 that says these bytes behind its greeting, and answers to nothing.
fn http2_that_says(cluster: &Cluster, bytes: &[u8]) -> Http {
    let mut http = http(cluster);
    http.send(&[PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0], bytes].concat());
    http
}

#[test]
fn a_head_over_http_2_that_does_not_come_to_its_end_ends_the_connection() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=400ms").start();
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
    let mut http2 = Http2::connect(http_address(cluster.address(1)));
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
    let (idle, patience) = (Duration::from_secs(10), Duration::from_millis(500));
    let cluster = Cluster::of(1).flag("--http-idle-timeout=10s").flag("--http-header-timeout=500ms").start();
    let mut lively = Http2::connect(http_address(cluster.address(1)));
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
    let cluster = Cluster::of(1).flag("--http-body-timeout=400ms").start();
    let mut slow = http(&cluster);
    slow.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nabc");
    let refused = slow.response(false).expect("a response");
    assert_eq!(refused.status, 408);
    assert!(refused.text().contains("--http-body-timeout"), "{}", refused.text());
    assert_eq!(http(&cluster).ask("GET", "/v1/kv/k", &[], b"").status, 404, "nothing was written");
}

#[test]
fn a_connection_that_rests_too_long_is_closed() {
    let cluster = Cluster::of(1).flag("--http-idle-timeout=400ms").start();
    let mut http1 = http(&cluster);
    let mut http2 = Http2::connect(http_address(cluster.address(1)));
    let started = Instant::now();
    assert_eq!(http1.ask("GET", "/livez", &[], b"").status, 200);
    assert!(http2.get(1, "/livez"));
    assert_eq!(http2.response(1), b"ok\n");
    assert!(http1.ends_within(5 * TIMEOUT));
    let mut goodbyes = 0;
    while let Some(frame) = http2.frame() {
        assert_eq!(frame.kind, GOAWAY);
        goodbyes += 1;
    }
    assert!(goodbyes > 0, "it is told before it is closed");
    assert!(started.elapsed() >= TIMEOUT && started.elapsed() < 10 * TIMEOUT, "{:?}", started.elapsed());
    all_are_gone(&cluster);
}

/// However long the node has worked on what was asked on it.
#[test]
fn a_connection_rests_from_when_it_is_answered() {
    let mut cluster = Cluster::of(3).flag("--http-idle-timeout=2s").flag("--request-timeout=3s").start();
    cluster.kill_9(2);
    cluster.kill_9(3);
    let mut http = http(&cluster);
    assert_eq!(http.ask("GET", "/v1/kv/k", &[], b"").status, 503);
    pause(Duration::from_millis(1_300));
    assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    assert!(http.ends_within(PATIENCE));
}

#[test]
fn http_2_clients_that_fall_silent_are_let_go() {
    let flags = ["--http-header-timeout=400ms", "--http-idle-timeout=400ms"];
    let cluster = flags.into_iter().fold(Cluster::of(1), |cluster, flag| cluster.flag(flag)).start();
    for (round, said) in (1..).zip([&PREFACE[..1], &PREFACE[..12], &PREFACE[..23], PREFACE]) {
        let mut silent = http(&cluster);
        let started = Instant::now();
        silent.send(said);
        assert!(silent.ends_within(10 * TIMEOUT), "{} bytes of the preface", said.len());
        assert!(started.elapsed() >= TIMEOUT);
        assert_eq!(cluster.wire(1).counter("http_connections_late"), round);
    }
    all_are_gone(&cluster);
}

#[test]
fn values_are_taken_up_to_their_limit() {
    let cluster = Cluster::of(1).flag("--value-bytes-max=1000").start();
    for (bytes, status) in [(999, 200), (1_000, 200), (1_001, 413)] {
        assert_eq!(http(&cluster).ask("PUT", "/v1/kv/k", &[], &vec![7; bytes]).status, status, "{bytes} bytes");
        let mut chunked = b"PUT /v1/kv/c HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        chunked.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
        chunked.extend(vec![7; bytes]);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        let mut http = http(&cluster);
        http.send(&chunked);
        assert_eq!(http.response(false).expect("a response").status, status, "{bytes} bytes in chunks");
    }
    for key in [4_096, 4_097] {
        let path = format!("/v1/kv/{}", "k".repeat(key));
        let status = if key == 4_096 { 200 } else { 413 };
        assert_eq!(http(&cluster).ask("PUT", &path, &[], b"v").status, status, "a key of {key} bytes");
    }
}

#[test]
fn a_gigabyte_is_refused_before_it_comes() {
    let mut cluster = Cluster::start(1);
    let heads = ["", "expect: 100-continue\r\n"];
    let mut waiting: Vec<Http> = (0..50).map(|_| http(&cluster)).collect();
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
    let mut waiting: Vec<Http> = (0..4).map(|_| http(&cluster)).collect();
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
        let mut http = http(&cluster);
        let response = http.ask("GET", "/livez", &[("x-padding", &padding(bytes))], b"");
        assert_eq!(response.status, status, "a head with {bytes} bytes of padding");
    }
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        for _ in 0..50 {
            let mut flood = http(cluster);
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
        let mut kept = http(&cluster);
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
        for mut http in [kept, http(&cluster)] {
            http.send(&head_of(limit + 1));
            assert_eq!(http.response(false).expect("a response").status, 431, "{} bytes", limit + 1);
            assert!(http.ends_within(PATIENCE));
        }
        let mut http2 = Http2::connect(http_address(cluster.address(1)));
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
        assert_eq!(cluster.wire(1).counter("http_connections_broken"), 2);
    }
}

#[test]
fn http_2_clients_that_open_and_reset_streams_are_sent_away() {
    let mut cluster = Cluster::start(1);
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        for _ in 0..10 {
            let mut hostile = Http2::connect(http_address(cluster.address(1)));
            for n in 0..20_000 {
                if !(hostile.get(2 * n + 1, "/v1/kv/k") && hostile.reset(2 * n + 1)) {
                    break;
                }
            }
            // Answers that were under way come first.
            await_goaway(&mut hostile);
            is_served(http_address(cluster.address(1)));
        }
    });
    all_are_gone(&cluster);
    assert_eq!(cluster.wire(1).counter("http_floods"), 10);
}

#[test]
fn an_http_2_client_has_no_more_streams_than_it_may() {
    let cluster = Cluster::of(1).flag("--http-streams-max=4").start();
    let mut http2 = Http2::connect(http_address(cluster.address(1)));
    for n in 0..20 {
        assert!(http2.get(2 * n + 1, "/livez"));
    }
    let (mut served, mut refused) = (0, 0);
    while served + refused < 20 {
        match http2.frame().expect("it goes on").kind {
            HEADERS => served += 1,
            RST_STREAM => refused += 1,
            _ => {}
        }
    }
    assert!(served >= 4 && refused > 0, "{served} served, {refused} refused");
    assert_eq!(cluster.wire(1).counter("http_streams_refused"), refused);
    // Who does not heed that is sent away.
    for n in 20..1_000 {
        if !http2.get(2 * n + 1, "/livez") {
            break;
        }
    }
    await_goaway(&mut http2);
    is_served(http_address(cluster.address(1)));
    all_are_gone(&cluster);
    assert_eq!(cluster.wire(1).counter("http_floods"), 1);
}

#[test]
fn readers_that_do_not_read_keep_no_more_than_their_share() {
    // However long they wait for room on a busy machine.
    let mut cluster = Cluster::of(1).flag("--core-reply-bytes-max=8MiB").flag("--request-timeout=1m").start();
    cluster.wire(1).put("long", vec![7; 1 << 20]);
    for headers in [&[][..], &[("accept", "application/json")]] {
        let mut readers: Vec<Http> = (0..100).map(|_| http(&cluster)).collect();
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
    let mut http = http(&cluster);
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
fn clients_that_vanish_free_everything() {
    let flags = ["--request-timeout=1m", "--http-body-timeout=1m", "--core-http-body-bytes-max=2MiB"];
    let mut cluster = flags.into_iter().fold(Cluster::of(3), |cluster, flag| cluster.flag(flag)).start();
    cluster.kill_9(2);
    cluster.kill_9(3);
    // Nobody answers these while the test goes on, and there is no room for a further body beside these.
    let mut waiting: Vec<Http> = (0..50).map(|_| http(&cluster)).collect();
    waiting.iter_mut().for_each(|http| http.send(&request("PUT", "/v1/kv/k", &[], b"v")));
    let mut sending: Vec<Http> = (0..2).map(|_| http(&cluster)).collect();
    for http in &mut sending {
        http.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
        http.try_send(&vec![7; 999_999]);
    }
    let mut streams: Vec<Http2> = (0..10).map(|_| Http2::connect(http_address(cluster.address(1)))).collect();
    streams.iter_mut().for_each(|http2| assert!(http2.get(1, "/v1/kv/k")));
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "all are there", || (wire.counter("http_requests") == 62).then_some(()));
    // It is read as a whole and then found to be no batch.
    let further = || {
        let mut http = http(&cluster);
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

#[test]
fn connections_are_taken_up_to_the_limit_and_told_so_beyond() {
    let cluster = Cluster::of(1).flag("--connections-max=3").start();
    let mut kept: Vec<Http> = (0..3).map(|_| http(&cluster)).collect();
    for http in &mut kept {
        assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    }
    let mut one_more = http(&cluster);
    let refused = one_more.response(false).expect("a response");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("--connections-max"), "{}", refused.text());
    drop(kept);
    eventually(PATIENCE, "there is room again", || {
        let mut http = http(&cluster);
        http.try_send(&request("GET", "/livez", &[], b""));
        http.response(false).filter(|response| response.status == 200)
    });
}

#[test]
fn bytes_that_are_no_http_are_refused() {
    let cluster = Cluster::start(1);
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"GET\r\n\r\n", &[0; 100]]
    {
        let mut http = http(&cluster);
        http.send(bytes);
        if let Some(response) = http.response(false) {
            assert_eq!(response.status, 400, "{bytes:?}");
        }
        assert!(http.ends_within(PATIENCE), "{bytes:?}");
    }
    is_served(http_address(cluster.address(1)));
    all_are_gone(&cluster);
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
    let cluster = flags.into_iter().fold(Cluster::of(1), |cluster, flag| cluster.flag(flag)).start();
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
            assert_eq!(http(&cluster).ask("GET", "/v1/kv/long", &[], b"").status, 200);
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
    let cluster = Cluster::of(1).flag("--http-idle-timeout=400ms").flag("--http-header-timeout=400ms").start();
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

/// Connections of HTTP/1.1 that have been of use are at rest by then.
const AT_REST: Duration = Duration::from_millis(600);

#[test]
fn connections_that_rest_take_little_memory() {
    let mut cluster = Cluster::start(1);
    let open = |cluster: &Cluster| {
        let mut some: Vec<Http> = (0..100).map(|_| http(cluster)).collect();
        some.iter_mut().for_each(|http| assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200));
        pause(AT_REST);
        some
    };
    // These pay for what is made once.
    let first = open(&cluster);
    let before = cluster.process(1).rss_bytes();
    let mut resting: Vec<Http> = (0..5).flat_map(|_| open(&cluster)).collect();
    let each = cluster.process(1).rss_bytes().saturating_sub(before) / resting.len() as u64;
    assert!(each < 10 << 10, "a connection takes {each} bytes");
    for mut http in first.into_iter().chain(resting.drain(..)) {
        assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    }
}

/// Those of HTTP/2 keep h2's buffers and tables, of which a connection that was of little use touches a part.
#[test]
fn connections_of_http_2_that_rest_take_what_h2_has_for_them() {
    let mut cluster = Cluster::start(1);
    let open = |cluster: &Cluster| {
        let mut some: Vec<Http2> = (0..100).map(|_| Http2::connect(http_address(cluster.address(1)))).collect();
        some.iter_mut().for_each(|http2| assert!(http2.get(1, "/livez") && http2.response(1) == b"ok\n"));
        some
    };
    let first = open(&cluster);
    let before = cluster.process(1).rss_bytes();
    let mut resting: Vec<Http2> = (0..5).flat_map(|_| open(&cluster)).collect();
    let each = cluster.process(1).rss_bytes().saturating_sub(before) / resting.len() as u64;
    assert!(each < 28 << 10, "a connection takes {each} bytes");
    for mut http2 in first.into_iter().chain(resting.drain(..)) {
        assert!(http2.get(3, "/livez") && http2.response(3) == b"ok\n");
    }
}

#[test]
fn a_connection_goes_on_after_it_rested() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=400ms").start();
    let mut kept = http(&cluster);
    kept.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    pause(TIMEOUT / 8);
    kept.send(b"value");
    assert_eq!(kept.response(false).expect("a response").status, 200);
    // Longer than a head may take: none has begun.
    pause(3 * TIMEOUT);
    assert_eq!(kept.ask("GET", "/v1/kv/k", &[], b"").body, b"value");
    pause(AT_REST);
    kept.send(b"GET /v1/kv/k HTTP/1.1\r\n");
    pause(TIMEOUT / 2);
    kept.send(b"host: test\r\n\r\nGET /livez HTT");
    assert_eq!(kept.response(false).expect("a response").body, b"value");
    // The rest of this one does not come.
    let started = Instant::now();
    assert!(kept.ends_within(PATIENCE));
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 1);
    let mut ended = http(&cluster);
    assert_eq!(ended.ask("GET", "/livez", &[], b"").status, 200);
    pause(AT_REST);
    ended.end();
    assert!(ended.ends_within(PATIENCE), "a client that goes is let go");
    all_are_gone(&cluster);
}

#[test]
fn a_response_that_its_reader_lets_wait_arrives_whole() {
    let cluster = Cluster::start(1);
    let value: Vec<u8> = (0..1 << 20).map(|at| (at >> 8) as u8).collect();
    cluster.wire(1).put("long", value.clone());
    let mut reader = http(&cluster);
    const RESPONSES: usize = 16;
    reader.send(&request("GET", "/v1/kv/long", &[], b"").repeat(RESPONSES));
    pause(AT_REST);
    for response in 0..RESPONSES {
        let body = reader.response(false).expect("a response").body;
        assert!(body == value, "response {response} has {} bytes", body.len());
    }
}

/// How many hostile clients there are at a time.
const CLIENTS: usize = 100;

#[test]
fn heads_and_bodies_that_come_byte_by_byte_hold_nobody_up() {
    let flags = ["--http-header-timeout=1s", "--http-body-timeout=1s"];
    let mut cluster = flags.into_iter().fold(Cluster::of(1), |cluster, flag| cluster.flag(flag)).start();
    // Of each head and body more is announced than comes in time.
    let begun = [
        &b"GET /livez HTTP/1.1\r\nhost: te"[..],
        b"PUT /v1/kv/slow HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n",
        b"PUT /v1/kv/slow HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nf4240\r\n",
    ];
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        let mut slow: Vec<Http> = (0..CLIENTS).map(|_| http(cluster)).collect();
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

#[test]
fn http_2_clients_that_flood_streams_or_frames_are_sent_away() {
    type Flood = fn(&mut Http2, u32) -> bool;
    let floods: [(&str, Flood); 4] = [
        ("streams beyond the limit", |http2, n| http2.get(2 * n + 1, "/v1/kv/k")),
        ("requests that have no end", |http2, n| http2.post(2 * n + 1, "/v1/batch", &[])),
        ("a head that does not end", |http2, n| match n {
            0 => http2.begin_head(1),
            _ => http2.send(CONTINUATION, 0, 1, &[0; 1_000]),
        }),
        ("resets of what was never there", |http2, n| http2.reset(2 * n + 1)),
    ];
    for (what, flood) in floods {
        let mut cluster = Cluster::start(1);
        stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
            for _ in 0..10 {
                let mut hostile = Http2::connect(http_address(cluster.address(1)));
                let sent = (0..200_000).take_while(|n| flood(&mut hostile, *n)).count();
                assert!(sent < 200_000, "{what}: all of it is taken");
                await_goaway(&mut hostile);
            }
        });
        all_are_gone(&cluster);
    }
}
