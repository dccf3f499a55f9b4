//! HTTP connections on which nothing happens: what they take meanwhile, how long they may rest, and that they go on.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::greedy::all_are_gone;
use crate::support::http::{Http, http};
use crate::support::http2::{GOAWAY, Http2, http2};
use crate::support::wait::{PATIENCE, pause};

const TIMEOUT: Duration = Duration::from_secs(1);

/// Connections of HTTP/1.1 that have been of use are at rest by then.
const AT_REST: Duration = Duration::from_millis(600);

#[test]
fn a_connection_that_rests_too_long_is_closed() {
    let cluster = Cluster::of(1).flag("--http-idle-timeout=1s").start();
    let mut http1 = http(&cluster, 1);
    let mut http2 = http2(&cluster, 1);
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
    let mut http = http(&cluster, 1);
    assert_eq!(http.ask("GET", "/v1/kv/k", &[], b"").status, 503);
    pause(Duration::from_millis(1_300));
    assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    assert!(http.ends_within(PATIENCE));
}

/// What a connection takes, of many that are at rest, and all of them.
fn bytes_each<C>(cluster: &mut Cluster, open: impl Fn(&Cluster) -> C, settle: impl Fn()) -> (u64, Vec<C>) {
    let some = |cluster: &Cluster| {
        let some: Vec<C> = (0..100).map(|_| open(cluster)).collect();
        settle();
        some
    };
    // The first pay for what is made once.
    let mut all = some(cluster);
    let before = cluster.process(1).rss_bytes();
    let counted: Vec<C> = (0..5).flat_map(|_| some(cluster)).collect();
    let each = cluster.process(1).rss_bytes().saturating_sub(before) / counted.len() as u64;
    all.extend(counted);
    (each, all)
}

#[test]
fn connections_that_rest_take_little_memory() {
    let mut cluster = Cluster::start(1);
    let lives = |http: &mut Http| assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    let open = |cluster: &Cluster| {
        let mut http = http(cluster, 1);
        lives(&mut http);
        http
    };
    let (each, mut all) = bytes_each(&mut cluster, open, || pause(AT_REST));
    assert!(each < 10 << 10, "a connection takes {each} bytes");
    all.iter_mut().for_each(lives);
}

/// Those of HTTP/2 keep h2's buffers and tables, of which a connection that was of little use touches a part.
#[test]
fn connections_of_http_2_that_rest_take_what_h2_has_for_them() {
    let mut cluster = Cluster::start(1);
    let lives = |http2: &mut Http2, stream| assert!(http2.get(stream, "/livez") && http2.response(stream) == b"ok\n");
    let open = |cluster: &Cluster| {
        let mut http2 = http2(cluster, 1);
        lives(&mut http2, 1);
        http2
    };
    let (each, mut all) = bytes_each(&mut cluster, open, || ());
    assert!(each < 28 << 10, "a connection takes {each} bytes");
    all.iter_mut().for_each(|http2| lives(http2, 3));
}

#[test]
fn a_connection_goes_on_after_it_rested() {
    let cluster = Cluster::of(1).flag("--http-header-timeout=1s").start();
    let mut kept = http(&cluster, 1);
    kept.send(b"PUT /v1/kv/k HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    pause(TIMEOUT / 8);
    kept.send(b"value");
    assert_eq!(kept.response(false).expect("a response").status, 200);
    // Longer than a head may take: none has begun.
    pause(3 * TIMEOUT);
    assert_eq!(kept.ask("GET", "/v1/kv/k", &[], b"").body, b"value");
    pause(AT_REST);
    kept.send(b"GET /v1/kv/k HTTP/1.1\r\n");
    pause(TIMEOUT / 4);
    kept.send(b"host: test\r\n\r\nGET /livez HTT");
    assert_eq!(kept.response(false).expect("a response").body, b"value");
    // The rest of this one does not come.
    let started = Instant::now();
    assert!(kept.ends_within(PATIENCE));
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    assert_eq!(cluster.wire(1).counter("http_connections_late"), 1);
    let mut ended = http(&cluster, 1);
    assert_eq!(ended.ask("GET", "/livez", &[], b"").status, 200);
    pause(AT_REST);
    ended.end();
    assert!(ended.ends_within(PATIENCE), "a client that goes is let go");
    all_are_gone(&cluster);
}
