//! Keys and values over gRPC: what each method does, on every node for every key, and what is refused.

mod support;

use grpc_check::raftkv::compare_and_set_request::Change;
use grpc_check::raftkv::condition::Kind;
use grpc_check::raftkv::{
    BatchOperation, BatchRequest, CompareAndSetRequest, Condition, Consistency, DeleteRequest, GetRequest, ScanRequest,
    StatusRequest, batch_operation,
};
use tonic::Code;

use support::cluster::Cluster;
use support::http::{Http, http_address};
use support::{get, kv, nodes, put, told};

#[tokio::test]
async fn every_node_serves_every_key() {
    let cluster = Cluster::start(3);
    for writer in cluster.ids() {
        let mut kv = kv(&cluster, writer).await;
        let mut versions = Vec::new();
        for n in 0..20 {
            let written = kv.put(put(format!("key{n}"), format!("{writer}/{n}"))).await.expect("written").into_inner();
            versions.push(written.version);
        }
        for reader in cluster.ids() {
            let mut kv = self::kv(&cluster, reader).await;
            for (n, version) in versions.iter().enumerate() {
                let found = kv.get(get(format!("key{n}"))).await.expect("found").into_inner();
                assert_eq!((&found.value[..], found.version), (format!("{writer}/{n}").as_bytes(), *version));
            }
        }
    }
}

#[tokio::test]
async fn keys_are_removed_and_found_no_more() {
    let cluster = Cluster::start(1);
    let mut kv = kv(&cluster, 1).await;
    let missing = kv.get(get("k")).await.expect_err("there is none");
    assert_eq!(told(&missing), (Code::NotFound, "not_found"));
    kv.put(put("k", "")).await.expect("written");
    assert_eq!(kv.get(get("k")).await.expect("found").into_inner().value, "");
    for expected in [true, false] {
        let removed = kv.delete(DeleteRequest { key: "k".into() }).await.expect("removed").into_inner();
        assert_eq!(removed.deleted, expected);
    }
    assert_eq!(told(&kv.get(get("k")).await.expect_err("there is none")), (Code::NotFound, "not_found"));
}

fn cas(kind: Option<Kind>, change: Option<Change>) -> CompareAndSetRequest {
    CompareAndSetRequest { key: "k".into(), condition: kind.map(|kind| Condition { kind: Some(kind) }), change }
}

#[tokio::test]
async fn writes_take_place_if_their_condition_holds() {
    let cluster = Cluster::start(3);
    let mut kv = kv(&cluster, 2).await;
    let value = |text: &'static str| Some(Change::Value(text.into()));
    let failed = (Code::FailedPrecondition, "precondition_failed");
    for kind in [Kind::Exists(true), Kind::Version(1)] {
        let refused = kv.compare_and_set(cas(Some(kind), value("1"))).await.expect_err("there is no such key");
        assert_eq!(told(&refused), failed);
    }
    let made = kv.compare_and_set(cas(Some(Kind::Exists(false)), value("1"))).await.expect("made").into_inner();
    let again = kv.compare_and_set(cas(Some(Kind::Exists(false)), value("2"))).await.expect_err("it is there");
    assert_eq!(told(&again), failed);
    let found = kv.get(get("k")).await.expect("found").into_inner();
    assert_eq!((&found.value[..], found.version), (&b"1"[..], made.version));
    let next = kv.compare_and_set(cas(Some(Kind::Version(made.version)), value("2"))).await.expect("set").into_inner();
    assert!(next.version > made.version);
    let old = kv.compare_and_set(cas(Some(Kind::Version(made.version)), Some(Change::Delete(true)))).await;
    assert_eq!(told(&old.expect_err("another version")), failed);
    kv.compare_and_set(cas(Some(Kind::Exists(true)), value("3"))).await.expect("set");
    assert_eq!(kv.get(get("k")).await.expect("found").into_inner().value, "3");
    kv.compare_and_set(cas(Some(Kind::Exists(true)), Some(Change::Delete(true)))).await.expect("removed");
    assert_eq!(told(&kv.get(get("k")).await.expect_err("removed")), (Code::NotFound, "not_found"));
}

fn change(key: &'static str, kind: Option<Kind>, change: batch_operation::Change) -> BatchOperation {
    BatchOperation { key: key.into(), condition: kind.map(|kind| Condition { kind: Some(kind) }), change: Some(change) }
}

#[tokio::test]
async fn batches_take_effect_as_a_whole_or_not_at_all() {
    use batch_operation::Change::{Delete, Value};
    let cluster = Cluster::of(3).flag("--batch-operations-max=3").start();
    let mut kv = kv(&cluster, 3).await;
    let batch = |operations: &[BatchOperation]| BatchRequest { operations: operations.to_vec() };
    let absent = Some(Kind::Exists(false));
    let first = [change("{t}a", absent, Value("1".into())), change("{t}b", None, Delete(true))];
    let written = kv.batch(batch(&first)).await.expect("written").into_inner();
    assert_eq!(written.deleted, [false, false]);
    assert_eq!(kv.get(get("{t}a")).await.expect("found").into_inner().version, written.version);
    let failed = [change("{t}c", None, Value("1".into())), change("{t}a", absent, Value("2".into()))];
    let refused = kv.batch(batch(&failed)).await.expect_err("a condition does not hold");
    assert_eq!(told(&refused), (Code::FailedPrecondition, "precondition_failed"));
    kv.get(get("{t}c")).await.expect_err("nothing of it has taken effect");
    let version = Some(Kind::Version(written.version));
    let second = [change("{t}c", None, Value("1".into())), change("{t}a", version, Delete(true))];
    assert_eq!(kv.batch(batch(&second)).await.expect("written").into_inner().deleted, [false, true]);

    let keys = ["a", "b", "c", "d"].map(|key| change(key, None, Value("v".into())));
    let bad = (Code::InvalidArgument, "bad_request");
    for (operations, expected) in [
        (&keys[..3], (Code::InvalidArgument, "cross_shard")),
        (&keys[..], (Code::ResourceExhausted, "too_large")),
        (&[], bad),
        (&[first[0].clone(), first[0].clone()], bad),
        (&[change("a", None, Delete(false))], bad),
        (&[BatchOperation { change: None, ..keys[0].clone() }], bad),
        (&[BatchOperation { condition: Some(Condition { kind: None }), ..keys[0].clone() }], bad),
        (&[BatchOperation { key: vec![7; 70_000].into(), ..keys[0].clone() }], (Code::ResourceExhausted, "too_large")),
    ] {
        let refused = kv.batch(batch(operations)).await.expect_err("it makes no sense");
        assert_eq!(told(&refused), expected, "{operations:?}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let cluster = Cluster::of(1).flag("--value-bytes-max=1000").start();
    let mut kv = kv(&cluster, 1).await;
    let bad = (Code::InvalidArgument, "bad_request");
    let large = (Code::ResourceExhausted, "too_large");
    let exists = Some(Kind::Exists(true));
    for request in [
        cas(None, Some(Change::Value("v".into()))),
        cas(exists, None),
        cas(exists, Some(Change::Delete(false))),
        CompareAndSetRequest { condition: Some(Condition { kind: None }), ..cas(None, Some(Change::Delete(true))) },
    ] {
        assert_eq!(told(&kv.compare_and_set(request).await.expect_err("it makes no sense")), bad);
    }
    assert_eq!(told(&kv.put(put("", "v")).await.expect_err("no key")), bad);
    assert_eq!(told(&kv.get(get("")).await.expect_err("no key")), bad);
    let request = GetRequest { key: "k".into(), consistency: 3 };
    assert_eq!(told(&kv.get(request).await.expect_err("no such consistency")), bad);
    let request = ScanRequest { consistency: -1, ..ScanRequest::default() };
    assert_eq!(told(&kv.scan(request).await.expect_err("no such consistency")), bad);
    for (key, value, expected) in [
        (4_096, 1_000, None),
        (4_097, 1, Some(large)),
        (1, 1_001, Some(large)),
        // Over the limit of messages, so that nobody looks into it.
        (1, 100_000, Some(large)),
    ] {
        let outcome = kv.put(put(vec![b'k'; key], vec![7; value])).await;
        assert_eq!(outcome.as_ref().err().map(told), expected, "{key} and {value} bytes");
    }
}

#[tokio::test]
async fn reads_are_as_fresh_as_they_are_asked_to_be() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=1s").start();
    kv(&cluster, 1).await.put(put("k", "v")).await.expect("written");
    cluster.await_convergence();
    let mut kv = kv(&cluster, 1).await;
    let request = |consistency: Consistency| GetRequest { key: "k".into(), consistency: consistency.into() };
    for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::Stale] {
        assert_eq!(kv.get(request(consistency)).await.expect("found").into_inner().value, "v");
    }
    cluster.kill_9(2);
    cluster.kill_9(3);
    assert_eq!(kv.get(request(Consistency::Stale)).await.expect("found").into_inner().value, "v");
    let refused = kv.get(request(Consistency::Linearizable)).await.expect_err("there is no majority");
    assert!([(Code::Unavailable, "no_leader"), (Code::DeadlineExceeded, "timeout")].contains(&told(&refused)));
}

#[tokio::test]
async fn the_node_tells_of_itself() {
    let cluster = Cluster::start(3);
    let mut kv = kv(&cluster, 3).await;
    kv.put(put("k", "v")).await.expect("written");
    kv.get(get("none")).await.expect_err("there is none");
    let status = nodes(&cluster, 3).await.status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.node_id, status.members.len(), status.shards.len()), (3, 3, 6));
    assert_eq!(status.members[0].address, cluster.address(1).to_string());
    assert!(status.shards.iter().all(|shard| shard.leader.is_some() && shard.state_hash.len() == 16), "{status:?}");
    assert_eq!(status.counters["http_requests"], 3);
    let page = Http::connect(http_address(cluster.address(3))).ask("GET", "/metrics", &[], b"");
    for (operation, result) in [("put", "ok"), ("get", "not_found"), ("status", "ok")] {
        let line = format!("raftkv_requests_total{{operation=\"{operation}\",face=\"grpc\",result=\"{result}\"}} 1");
        assert!(page.text().contains(&line), "{line}: {}", page.text());
    }
}
