//! HTTP/2 clients that flood a node with streams and frames: they are sent away, memory stays where it is, and nobody else
//! notices.

use crate::support::cluster::Cluster;
use crate::support::greedy::{GROWTH_BYTES_MAX, all_are_gone, is_served, stays_small};
use crate::support::http::http_address;
use crate::support::http2::{CONTINUATION, HEADERS, Http2, RST_STREAM, http2};

#[test]
fn http_2_clients_that_open_and_reset_streams_are_sent_away() {
    let mut cluster = Cluster::start(1);
    stays_small(&mut cluster, GROWTH_BYTES_MAX, |cluster| {
        for _ in 0..10 {
            let mut hostile = http2(cluster, 1);
            for n in 0..20_000 {
                if !(hostile.get(2 * n + 1, "/v1/kv/k") && hostile.reset(2 * n + 1)) {
                    break;
                }
            }
            // Answers that were under way come first.
            hostile.await_goaway();
            is_served(http_address(cluster.address(1)));
        }
    });
    all_are_gone(&cluster);
    assert_eq!(cluster.wire(1).counter("http_floods"), 10);
}

#[test]
fn an_http_2_client_has_no_more_streams_than_it_may() {
    let cluster = Cluster::of(1).flag("--http-streams-max=4").start();
    let mut http2 = http2(&cluster, 1);
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
    http2.await_goaway();
    is_served(http_address(cluster.address(1)));
    all_are_gone(&cluster);
    assert_eq!(cluster.wire(1).counter("http_floods"), 1);
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
                let mut hostile = http2(cluster, 1);
                let sent = (0..200_000).take_while(|n| flood(&mut hostile, *n)).count();
                assert!(sent < 200_000, "{what}: all of it is taken");
                hostile.await_goaway();
            }
        });
        all_are_gone(&cluster);
    }
}
