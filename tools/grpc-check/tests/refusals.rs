//! Calls that no client of gRPC should make, deadlines, and clients that flood a node: each is refused, and nobody else
//! notices.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grpc_check::raftkv::ScanRequest;
use tonic::Code;

use support::cluster::Cluster;
use support::raw::{Outcome, call, connect, finish, framed, head};
use support::{await_counter, get, kv, put};

const PUT: &str = "/raftkv.v1.KV/Put";

fn told(outcome: &Outcome) -> (Option<Code>, &str) {
    assert_eq!(outcome.http, 200, "{outcome:?}");
    let status = outcome.status.as_ref();
    (status.map(|(code, _)| Code::from(*code)), status.map_or("", |(_, code)| code))
}

/// Another client is served.
async fn is_served(cluster: &Cluster) {
    let mut kv = kv(cluster, 1).await;
    kv.put(put("other", "v")).await.expect("written");
    assert_eq!(kv.get(get("other")).await.expect("found").into_inner().value, "v");
}

#[tokio::test]
async fn what_is_no_call_is_refused() {
    let cluster = Cluster::start(1);
    let whole = framed(&put("k", "v"));
    let bad = (Some(Code::InvalidArgument), "bad_request");
    let unknown = (Some(Code::Unimplemented), "bad_request");
    let large = (Some(Code::ResourceExhausted), "too_large");
    let prefix = |flag: u8, length: u32| Bytes::from([&[flag][..], &length.to_be_bytes(), b"ab"].concat());
    for (what, body, expected) in [
        ("nothing", Bytes::new(), bad),
        ("half a prefix", whole.slice(..3), bad),
        ("half a message", whole.slice(..7), bad),
        ("another message", Bytes::from_static(b"\0\0\0\0\x02\xff\xff"), bad),
        ("a gigabyte", prefix(0, 1 << 30), large),
        ("all that can be announced", prefix(0, u32::MAX), large),
        ("compressed without a name", prefix(1, 2), bad),
        ("neither compressed nor not", prefix(7, 2), bad),
    ] {
        let outcome = call(&cluster, PUT, &[], body).await;
        assert_eq!(told(&outcome), expected, "{what}: {outcome:?}");
        assert!(!outcome.message.is_empty(), "{what}");
    }
    let zipped = call(&cluster, PUT, &[("grpc-encoding", "gzip")], whole.clone()).await;
    assert_eq!(told(&zipped), unknown, "{zipped:?}");
    for path in ["/raftkv.v1.KV/Pot", "/raftkv.v2.KV/Put", "/raftkv.v1.KV", "/"] {
        let outcome = call(&cluster, path, &[], whole.clone()).await;
        assert_eq!(told(&outcome), unknown, "{path}: {outcome:?}");
    }
    for kind in ["application/grpc+json", "application/grpc-web", "application/grpcx"] {
        let outcome = call(&cluster, PUT, &[("content-type", kind)], whole.clone()).await;
        assert_eq!((outcome.http, outcome.status), (415, None), "{kind}");
    }
    let rest = call(&cluster, PUT, &[("content-type", "text/plain")], whole.clone()).await;
    assert_eq!((rest.http, rest.status), (404, None), "whatever is no gRPC is for REST");
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
        let outcome = call(&cluster, PUT, &[("content-type", kind)], whole.clone()).await;
        assert_eq!(told(&outcome).0, Some(Code::Ok), "{kind}");
    }
    is_served(&cluster).await;
}

#[tokio::test]
async fn deadlines_hold() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=20s").start();
    let body = framed(&put("k", "v"));
    for wrong in ["", "1", "S", "1s", "-1S", "100000000m", "1 S"] {
        let outcome = call(&cluster, PUT, &[("grpc-timeout", wrong)], body.clone()).await;
        assert_eq!(told(&outcome), (Some(Code::InvalidArgument), "bad_request"), "`{wrong}`");
        assert!(outcome.message.contains("grpc-timeout"), "{outcome:?}");
    }
    for enough in ["5000000u", "99999999H"] {
        let outcome = call(&cluster, PUT, &[("grpc-timeout", enough)], body.clone()).await;
        assert_eq!(told(&outcome).0, Some(Code::Ok), "`{enough}`");
    }
    let late = (Some(Code::DeadlineExceeded), "timeout");
    assert_eq!(told(&call(&cluster, PUT, &[("grpc-timeout", "0m")], body.clone()).await), late);
    cluster.kill_9(2);
    cluster.kill_9(3);
    for (path, body) in [(PUT, body), ("/raftkv.v1.KV/Scan", framed(&ScanRequest::default()))] {
        let started = Instant::now();
        let outcome = call(&cluster, path, &[("grpc-timeout", "300m")], body).await;
        assert_eq!(told(&outcome), late, "{path}");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{path} took {took:?}");
    }
}

#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_is_refused() {
    let cluster = Cluster::of(1).flag("--http-body-timeout=1s").start();
    let mut streams = connect(&cluster, 1).await.ready().await.expect("there is room");
    let (response, mut sending) = streams.send_request(head(PUT, &[]), false).expect("sent");
    sending.send_data(framed(&put("k", "v")).slice(..6), false).expect("sent");
    let outcome = finish(response.await.expect("a response")).await;
    assert_eq!(told(&outcome), (Some(Code::InvalidArgument), "bad_request"));
    assert!(outcome.message.contains("--http-body-timeout"), "{outcome:?}");
    kv(&cluster, 1).await.get(get("k")).await.expect_err("nothing was written");
}

#[tokio::test]
async fn messages_on_their_way_take_no_more_memory_than_they_may() {
    let cluster = Cluster::of(1).flag("--core-http-body-bytes-max=2MiB").start();
    let body = framed(&put("k", vec![7; 900_000]));
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut streams = connect(&cluster, 1).await.ready().await.expect("there is room");
        let (response, mut sending) = streams.send_request(head(PUT, &[]), false).expect("sent");
        sending.send_data(body.slice(..body.len() - 1), false).expect("sent");
        waiting.push((streams, response, sending));
    }
    await_counter(&cluster, 1, "overloaded_bodies", 2).await;
    let mut codes = Vec::new();
    for (_streams, response, mut sending) in waiting {
        // Those that were refused take nothing more.
        drop(sending.send_data(body.slice(body.len() - 1..), true));
        codes.push(told(&finish(response.await.expect("a response")).await).1.to_owned());
    }
    codes.sort_unstable();
    assert_eq!(codes, ["", "", "overloaded", "overloaded"]);
}

#[tokio::test]
async fn calls_that_are_begun_and_taken_back_end_the_connection() {
    let mut cluster = Cluster::start(1);
    let before = cluster.process(1).rss_bytes();
    for _ in 0..5 {
        let streams = connect(&cluster, 1).await;
        let mut broken = false;
        for _ in 0..20_000 {
            let Ok(mut ready) = streams.clone().ready().await else {
                broken = true;
                break;
            };
            let Ok((response, sending)) = ready.send_request(head(PUT, &[]), false) else {
                broken = true;
                break;
            };
            drop((response, sending));
            tokio::task::yield_now().await;
        }
        assert!(broken, "whoever takes back so many calls is sent away");
        is_served(&cluster).await;
    }
    let grown = cluster.process(1).rss_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "the node has grown by {grown} bytes");
    await_counter(&cluster, 1, "http_connections_open", 0).await;
}
