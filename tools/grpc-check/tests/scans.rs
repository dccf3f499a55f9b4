//! Streaming scans over gRPC: their order and end, and what one costs that nobody reads.

mod support;

use grpc_check::raftkv::{Item, ScanRequest};
use tonic::Code;

use support::cluster::Cluster;
use support::http::{Http, http_address};
use support::wait::{PATIENCE, eventually};
use support::{await_counter, kv, put, told};

/// A scan with this prefix.
fn prefix(prefix: &'static str) -> ScanRequest {
    ScanRequest { prefix: prefix.into(), ..ScanRequest::default() }
}

/// The pages of a scan, each with its keys.
async fn pages(cluster: &Cluster, request: ScanRequest) -> Vec<Vec<String>> {
    let mut stream = kv(cluster, 1).await.scan(request).await.expect("a stream").into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await.expect("a page or the end") {
        let key = |item: &Item| String::from_utf8(item.key.to_vec()).expect("the keys are text");
        pages.push(page.items.iter().map(key).collect());
    }
    pages
}

fn keys(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|n| format!("k{n:02}")).collect()
}

#[tokio::test]
async fn a_scan_goes_on_to_its_end_in_order() {
    let cluster = Cluster::of(3).flag("--scan-items-max=10").start();
    let mut kv = kv(&cluster, 2).await;
    for n in 0..35 {
        kv.put(put(format!("k{n:02}"), "v")).await.expect("written");
    }
    kv.put(put("other", "v")).await.expect("written");
    let all = pages(&cluster, prefix("k")).await;
    assert!(all.len() >= 4 && all.iter().all(|page| !page.is_empty() && page.len() <= 10), "{all:?}");
    assert_eq!(all.concat(), keys(0..35));
    let reverse = ScanRequest { reverse: true, ..prefix("k") };
    assert_eq!(pages(&cluster, reverse).await.concat(), keys((0..35).rev()));
    for limit in [1, 10, 11, 34] {
        let some = pages(&cluster, ScanRequest { limit: limit.into(), ..prefix("k") }).await;
        assert_eq!(some.concat(), keys(0..limit), "at most {limit}");
    }
    let behind = ScanRequest { cursor: "k31".into(), end: "k34".into(), ..prefix("k") };
    assert_eq!(pages(&cluster, behind).await.concat(), keys(32..34));
    let from = ScanRequest { start: "k33".into(), ..ScanRequest::default() };
    assert_eq!(pages(&cluster, from).await.concat(), ["k33", "k34", "other"]);
    assert_eq!(pages(&cluster, prefix("none")).await, Vec::<Vec<String>>::new());
}

/// How many pages the node has read for scans over gRPC.
fn pages_read(cluster: &Cluster) -> u64 {
    let page = Http::connect(http_address(cluster.address(1))).ask("GET", "/metrics", &[], b"");
    let found = page
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("raftkv_requests_total{operation=\"scan\",face=\"grpc\",result=\"ok\"} "));
    found.and_then(|count| count.parse().ok()).expect("scans are counted")
}

const LONG_ITEMS: u64 = 48;

/// A cluster with so much that it goes into many pages.
async fn filled(builder: support::cluster::Builder) -> Cluster {
    let cluster = builder.start();
    let mut kv = kv(&cluster, 1).await;
    for n in 0..LONG_ITEMS {
        kv.put(put(format!("long{n:02}"), vec![7; 1_000_000])).await.expect("written");
    }
    cluster
}

#[tokio::test]
async fn what_is_not_taken_is_not_read_and_who_goes_frees_it() {
    let cluster = filled(Cluster::of(1)).await;
    let mut client = kv(&cluster, 1).await;
    let mut stream = client.scan(prefix("long")).await.expect("a stream").into_inner();
    let first = stream.message().await.expect("a page").expect("a page");
    assert_eq!(first.items[0].key, "long00");
    // Whatever the client's window takes is sent, and then nothing more.
    let mut read = 0;
    eventually(PATIENCE, "nothing more is read", || {
        std::mem::replace(&mut read, pages_read(&cluster)).eq(&read).then_some(())
    });
    assert!(read < LONG_ITEMS / 2, "{read} pages of one key were read for one that was taken");
    let mut taken = first.items.len() as u64;
    while let Some(page) = stream.message().await.expect("it goes on") {
        taken += page.items.len() as u64;
    }
    assert_eq!(taken, LONG_ITEMS);

    let mut abandoned = client.scan(prefix("long")).await.expect("a stream").into_inner();
    abandoned.message().await.expect("a page");
    drop((abandoned, stream, client));
    await_counter(&cluster, 1, "http_connections_open", 0).await;
}

#[tokio::test]
async fn a_scan_ends_with_what_is_wrong() {
    let mut cluster = filled(Cluster::of(3).flag("--request-timeout=1s")).await;
    let mut stream = kv(&cluster, 1).await.scan(prefix("long")).await.expect("a stream").into_inner();
    stream.message().await.expect("a page");
    cluster.kill_9(2);
    cluster.kill_9(3);
    let status = loop {
        match stream.message().await {
            Ok(page) => assert!(page.is_some(), "it has come to its end without a majority"),
            Err(status) => break status,
        }
    };
    assert!([(Code::Unavailable, "no_leader"), (Code::DeadlineExceeded, "timeout")].contains(&told(&status)));
}
