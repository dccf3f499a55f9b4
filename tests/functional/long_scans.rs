//! Scans over REST that are longer than a page: one response, however long, that costs a page or two of memory, tells what
//! ends it, and ends with its client.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http::{Http, base64, http, http_address, request};
use crate::support::http2::{DATA, HEADERS, Http2, http2};
use crate::support::metrics::Page;
use crate::support::wait::{PATIENCE, eventually, pause};
use crate::support::wire::get;

/// Keys of a page in most of these tests.
const PAGE_ITEMS: usize = 10;
/// Two of them fill a page.
const LONG_VALUE_BYTES: usize = 500 << 10;
/// More than sockets and a page hold: whoever stops reading has not all of a scan of these.
const LONG_VALUES: usize = 64;
/// What a node may grow by while such a scan rests: a few pages.
const GROWTH_BYTES_MAX: u64 = 24 << 20;

fn name(n: usize) -> String {
    format!("k{n:03}")
}

fn put(cluster: &Cluster, keys: usize, value: &[u8]) {
    let mut wire = cluster.wire(1);
    for n in 0..keys {
        wire.put(name(n), value);
    }
}

/// The keys of a document, its cursor, and what it broke off with.
fn read(document: &[u8]) -> (Vec<String>, Option<String>, Option<String>) {
    let document: Value = serde_json::from_slice(document).expect("JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let items = document["items"].as_array().expect("items").iter();
    let keys = items.map(|item| text(&item["key"]).expect("a key")).collect();
    (keys, text(&document["cursor"]), text(&document["error"]["code"]))
}

fn keys(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|n| base64(name(n))).collect()
}

/// How many pages a node has answered over REST, with this result.
fn pages(cluster: &Cluster, result: &str) -> usize {
    let labels = [("operation", "scan"), ("face", "rest"), ("result", result)];
    Page::of(cluster, 1).sum("raftkv_requests_total", &labels) as usize
}

#[test]
fn a_scan_goes_on_over_pages_up_to_its_limit() {
    let cluster = Cluster::of(1).flag(&format!("--scan-items-max={PAGE_ITEMS}")).start();
    put(&cluster, 95, b"v");
    let (mut http, mut http2) = (http(&cluster, 1), http2(&cluster, 1));
    for (stream, (query, expected)) in (0..).zip([
        ("", 0..95),
        ("limit=0&prefix=k", 0..95),
        ("limit=1000", 0..95),
        ("limit=95", 0..95),
        ("limit=94", 0..94),
        ("limit=11", 0..11),
        ("limit=10", 0..10),
        ("limit=9", 0..9),
        ("start=k020&end=k055", 20..55),
        ("prefix=k09", 90..95),
        ("prefix=none", 0..0),
        ("page=true", 0..10),
        ("page=true&limit=20", 0..10),
        ("page=true&prefix=k09", 90..95),
    ]) {
        let path = format!("/v1/kv?{query}");
        let is_cut =
            query.contains("page=true") && expected.len() == PAGE_ITEMS || [94, 11, 10, 9].contains(&expected.end);
        let answer = http.ask("GET", &path, &[], b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{query}");
        let (found, cursor, error) = read(&answer.body);
        assert_eq!((found, cursor.is_some(), error), (keys(expected.clone()), is_cut, None), "{query}");
        // What fits into a page has a length.
        assert_eq!(
            answer.header("content-length").is_some(),
            expected.len() <= PAGE_ITEMS,
            "{query}: {:?}",
            answer.headers
        );
        assert!(http2.get(2 * stream + 1, &path));
        assert_eq!(http2.response(2 * stream + 1), answer.body, "{query}");
        let Some(cursor) = cursor else { continue };
        let rest = http.ask("GET", &format!("/v1/kv?cursor={cursor}"), &[], b"");
        assert_eq!(read(&rest.body), (keys(expected.end..95), None, None), "behind {query}");
    }
    let backwards = http.ask("GET", "/v1/kv?reverse=true&end=k090", &[], b"");
    assert_eq!(read(&backwards.body), (keys((0..90).rev()), None, None));
    assert_eq!(http.ask("HEAD", "/v1/kv", &[], b"").status, 200);
    assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200, "the connection goes on");
}

/// A cluster with more than a connection that nobody reads from holds.
fn long(cluster: Cluster) -> Cluster {
    put(&cluster, LONG_VALUES, &vec![7; LONG_VALUE_BYTES]);
    cluster
}

/// Asks for all, and reads the beginning.
fn begin(cluster: &Cluster) -> Http {
    let mut http = http(cluster, 1);
    http.send(&request("GET", "/v1/kv", &[], b""));
    assert_eq!(http.head().expect("a response").status, 200);
    http
}

/// Reads on; the keys, the cursor, and what the scan broke off with.
fn go_on(http: &mut Http) -> (Vec<String>, Option<String>, Option<String>) {
    let mut document = Vec::new();
    while let Some(chunk) = http.chunk().expect("the end of the document") {
        document.extend_from_slice(&chunk);
    }
    read(&document)
}

#[test]
fn a_page_that_nobody_takes_is_not_read() {
    let mut cluster = long(Cluster::start(1));
    let before = cluster.process(1).rss_bytes();
    let mut resting = begin(&cluster);
    // The window of a stream takes 64 KiB: another page is not asked for.
    let mut http2 = http2(&cluster, 1);
    assert!(http2.get(1, "/v1/kv"));
    while http2.frame().expect("a response").kind != DATA {}
    // Whoever reads meanwhile is served to the end, and costs no more than the pages of that.
    let path = format!("/v1/kv?limit={}", LONG_VALUES - 1);
    let whole = http(&cluster, 1).ask("GET", &path, &[], b"");
    assert_eq!(read(&whole.body).0.len(), LONG_VALUES - 1);
    drop(whole);
    // Those that rest have some in the buffers of their sockets.
    let (whole, read) = (LONG_VALUES / 2, pages(&cluster, "ok"));
    assert!(read < 2 * whole, "{read} pages were read");
    let grown = cluster.process(1).rss_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the node has grown by {grown} bytes");
    assert_eq!(go_on(&mut resting), (keys(0..LONG_VALUES), None, None));
    assert!(http2.reset(1));
}

#[test]
fn a_scan_ends_with_its_client() {
    let cluster = long(Cluster::start(1));
    let resting = begin(&cluster);
    let mut http2 = http2(&cluster, 1);
    assert!(http2.get(1, "/v1/kv"));
    while http2.frame().expect("a response").kind != DATA {}
    drop((resting, http2));
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "both are let go", || (wire.counter("http_connections_open") == 0).then_some(()));
    let read = pages(&cluster, "ok");
    assert!(read < LONG_VALUES / 2, "{read} pages were read for both");
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let idle_timeout = Duration::from_secs(2);
    let cluster = long(Cluster::of(1).flag("--http-idle-timeout=2s").start());
    let mut resting = begin(&cluster);
    let mut wire = cluster.wire(1);
    eventually(PATIENCE, "it is let go", || (wire.counter("http_connections_late") == 1).then_some(()));
    assert!(resting.ends_within(PATIENCE));
    // Whoever reads is not, though all of it takes longer by far.
    let started = Instant::now();
    let mut slow = begin(&cluster);
    let mut document = Vec::new();
    while let Some(chunk) = slow.chunk().expect("it goes on") {
        document.extend_from_slice(&chunk);
        pause(idle_timeout / 10);
    }
    let took = started.elapsed();
    assert!(took > 2 * idle_timeout, "it was read in {took:?}");
    assert_eq!(read(&document).0.len(), LONG_VALUES);
}

#[test]
fn a_scan_that_breaks_off_says_why_and_goes_on_behind_its_cursor() {
    let pages_of = format!("--scan-items-max={PAGE_ITEMS}");
    let mut cluster = Cluster::of(3).flag(&pages_of).flag("--request-timeout=1s").start();
    put(&cluster, 95, b"v");
    // The first page is there, and nothing of it is taken.
    let mut http2 = Http2::connect_with_window(http_address(cluster.address(1)), 0);
    assert!(http2.get(1, "/v1/kv"));
    let head = http2.frame().expect("a response");
    assert_eq!(head.kind, HEADERS);
    cluster.kill_9(2);
    cluster.kill_9(3);
    let refused = || cluster.wire(1).ask(get(b"k000")).said.code().is_some();
    eventually(PATIENCE, "the majority has gone", || refused().then_some(()));
    assert!(http2.take(1, 1 << 20));
    let mut document = Vec::new();
    loop {
        let frame = http2.frame().expect("the end of the document");
        document.extend_from_slice(&frame.payload);
        if frame.is_last() {
            break;
        }
    }
    let (first, cursor, error) = read(&document);
    assert_eq!((&first, error.as_deref()), (&keys(0..PAGE_ITEMS), Some("no_leader")));
    let cursor = cursor.expect("there is more");
    cluster.restart_all();
    let rest = http(&cluster, 1).ask("GET", &format!("/v1/kv?cursor={cursor}"), &[], b"");
    assert_eq!(read(&rest.body), (keys(PAGE_ITEMS..95), None, None));
    assert_eq!(pages(&cluster, "no_leader"), 1, "it is counted like one that had not begun");
}

#[test]
fn an_ordered_stop_does_not_wait_for_the_end_of_a_scan() {
    let mut cluster = long(Cluster::of(3).flag("--stop-timeout=1m").start());
    let mut scan = begin(&cluster);
    cluster.process(1).signal("TERM");
    cluster.await_stopping(1);
    let (found, cursor, error) = go_on(&mut scan);
    assert!(found.len() < LONG_VALUES, "{} keys", found.len());
    assert_eq!((cursor.is_some(), error.as_deref()), (true, Some("not_ready")));
    assert_eq!(cluster.await_end(1).code, Some(0));
}
