//! Batches over the binary protocol and over REST: all of it or nothing, on every node, within their limits.

use raftkv::client::{Batch, Condition, ErrorKind};
use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Code, Existed, Operation};

use crate::support::cluster::Cluster;
use crate::support::http::{Http, Response, base64, http};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire};

const OPERATIONS_MAX: usize = 128;

fn ask(wire: &mut Wire, operations: &[BatchOperation<'_>]) -> Said {
    let mut batch = BatchBuffer::default();
    operations.iter().for_each(|operation| batch.push(operation).expect("short keys"));
    wire.ask(Operation::Batch(batch.as_batch())).said
}

fn put<'a>(key: &'a str, value: &'a [u8], condition: Condition) -> BatchOperation<'a> {
    BatchOperation { key: key.as_bytes(), condition, change: Change::Put(value) }
}

fn delete(key: &str) -> BatchOperation<'_> {
    BatchOperation { key: key.as_bytes(), condition: Condition::None, change: Change::Delete }
}

// rule 18
#[test]
fn a_batch_through_any_node_takes_effect_as_a_whole_or_not_at_all() {
    let cluster = Cluster::start(3);
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        let [a, b, c] = ["a", "b", "c"].map(|name| format!("{{tag{id}}}:{name}"));
        wire.put(&b, "old");
        let batch = [put(&a, b"1", Condition::Absent), delete(&b), delete(&c)];
        assert_eq!(ask(&mut wire, &batch), Said::Batch { existed: Existed(0b010) });
        let (version, value) = wire.get(&a).expect("it was put");
        assert_eq!((value, wire.get(&b)), (b"1".to_vec(), None));
        let refused = ask(&mut wire, &[put(&c, b"2", Condition::None), put(&a, b"2", Condition::Absent)]);
        let Said::Refused { code: Code::PreconditionFailed, message, .. } = refused else { panic!("{refused:?}") };
        assert!(message.contains("operation 2 of 2"), "{message}");
        assert_eq!((wire.get(&a), wire.get(&c)), (Some((version, b"1".to_vec())), None));
    }
}

// rule 31
#[test]
fn a_batch_that_makes_no_sense_is_refused_and_the_connection_stays() {
    let cluster = Cluster::start(3);
    let mut wire = cluster.wire(1);
    let keys = cluster.keys_for_all_shards("k");
    let other = ask(&mut wire, &[put(&keys[0], b"", Condition::None), delete(&keys[1])]);
    let Said::Refused { code: Code::CrossShard, message, .. } = other else { panic!("{other:?}") };
    assert!(message.contains("tag"), "{message}");
    let twice = ask(&mut wire, &[put("{t}a", b"", Condition::None), delete("{t}b"), delete("{t}a")]);
    assert_eq!(twice.code(), Some(Code::BadRequest));
    assert_eq!(ask(&mut wire, &[]).code(), Some(Code::BadRequest));
    let many: Vec<String> = (0..=OPERATIONS_MAX).map(|n| format!("{{t}}{n}")).collect();
    for (count, code) in
        [(OPERATIONS_MAX - 1, None), (OPERATIONS_MAX, None), (OPERATIONS_MAX + 1, Some(Code::TooLarge))]
    {
        let puts: Vec<_> = many[..count].iter().map(|key| put(key, b"v", Condition::None)).collect();
        assert_eq!(ask(&mut wire, &puts).code(), code, "{count} operations");
    }
    let deletes: Vec<_> = many[..OPERATIONS_MAX].iter().map(|key| delete(key)).collect();
    assert_eq!(ask(&mut wire, &deletes), Said::Batch { existed: Existed(u128::MAX) });
    assert_eq!(wire.get(&keys[0]), None);
    assert_eq!(wire.counter("refused_cross_shard"), 1);
}

#[test]
fn the_longest_batch_reaches_every_node() {
    let cluster = Cluster::start(3);
    let value = vec![7; 640 << 10];
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        let longest = [put("{t}a", &value, Condition::None), put("{t}b", &value[8..], Condition::None)];
        assert_eq!(ask(&mut wire, &longest), Said::Batch { existed: Existed(0) });
        let longer = [put("{t}a", &value, Condition::None), put("{t}b", &value[7..], Condition::None)];
        assert_eq!(ask(&mut wire, &longer).code(), Some(Code::TooLarge));
    }
    cluster.await_convergence();
}

#[test]
fn a_batch_without_a_leader_is_a_definite_no() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=1s").start();
    cluster.kill_9(2);
    cluster.kill_9(3);
    let client = cluster.client();
    let is_refused = || {
        let error = client.batch(Batch::new().put("{t}a", "1").delete("{t}b")).expect_err("there is no majority");
        // What the old leader took in at first is of unknown outcome.
        !error.maybe_applied() && error.kind() == ErrorKind::NoLeader
    };
    // Each takes ten seconds. On a busy machine the deadline may fall on a reply that is under way.
    eventually(PATIENCE * 4, "a definite no", || is_refused().then_some(()));
    let body = r#"{"operations":[{"op":"delete","key":"aw=="}]}"#;
    refused(&batch(&mut http(&cluster, 1), "", body), 503, r#""code":"no_leader""#);
}

fn batch(http: &mut Http, query: &str, body: &str) -> Response {
    http.ask("POST", &format!("/v1/batch{query}"), &[("content-type", "application/json")], body.as_bytes())
}

#[track_caller]
fn refused(response: &Response, status: u16, words: &str) {
    assert_eq!((response.status, response.header("content-type")), (status, Some("application/problem+json")));
    assert!(response.text().contains(words), "{}", response.text());
}

// `e3R9YQ==` is {t}a, `e3R9Yg==` {t}b, `e3R9Yw==` {t}c.
#[test]
fn rest_takes_batches_on_every_node() {
    let cluster = Cluster::start(3);
    for id in cluster.ids() {
        let (mut http, mut wire) = (http(&cluster, id), cluster.wire(id));
        wire.ask(Operation::Delete { key: b"{t}a", condition: Condition::None });
        let version = wire.put("{t}b", "old");
        let body = format!(
            r#"{{"operations":[{{"op":"put","key":"e3R9YQ==","value":"MQ==","if_none_match":"*"}},
                {{"op":"delete","key":"e3R9Yg==","if_match":{version}}},{{"op":"delete","key":"e3R9Yw=="}}]}}"#
        );
        let answered = batch(&mut http, "", &body);
        assert_eq!(answered.status, 200, "{}", answered.text());
        let (written, value) = wire.get("{t}a").expect("it was put");
        assert_eq!((value, wire.get("{t}b")), (b"1".to_vec(), None));
        let results = format!(r#"{{"results":[{{"version":{written}}},{{"deleted":true}},{{"deleted":false}}]}}"#);
        assert_eq!(answered.text(), results);
        refused(&batch(&mut http, "", &body), 412, "operation 1 of 3");
        assert_eq!(wire.get("{t}a").map(|(version, _)| version), Some(written));
        let by_version = r#"{"operations":[{"op":"put","key":"e3R9YQ==","value":"","if_match":"VERSION"}]}"#;
        let right = batch(&mut http, "", &by_version.replace("VERSION", &written.to_string()));
        assert_eq!(right.status, 200, "{}", right.text());
        refused(
            &batch(&mut http, "", &by_version.replace("VERSION", &written.to_string())),
            412,
            "precondition_failed",
        );
        assert_eq!(batch(&mut http, "", &by_version.replace("VERSION", "*")).status, 200);
    }
}

#[test]
fn rest_writes_a_batch_over_shards_only_when_it_need_not_be_atomic() {
    let cluster = Cluster::start(3);
    let (mut http, mut wire) = (http(&cluster, 2), cluster.wire(2));
    let keys = cluster.keys_for_all_shards("k");
    let there = &keys[3];
    let before = wire.put(there, "old");
    let operation = |key: &String| {
        let (key, value) = (base64(key.as_bytes()), base64(b"new"));
        format!(r#"{{"op":"put","key":"{key}","value":"{value}","if_none_match":"*"}}"#)
    };
    let operations = keys.iter().map(operation).collect::<Vec<_>>().join(",");
    let body = |atomic: &str| format!(r#"{{{atomic}"operations":[{operations}]}}"#);
    for (query, atomic) in [("", ""), ("", r#""atomic":true,"#), ("?atomic=true", "")] {
        refused(&batch(&mut http, query, &body(atomic)), 400, r#""code":"cross_shard""#);
    }
    refused(&batch(&mut http, "?atomic=true", &body(r#""atomic":false,"#)), 400, "say it once");
    assert_eq!(keys.iter().filter(|key| wire.get(key).is_some()).count(), 1, "nothing was written");
    let answered = batch(&mut http, "?atomic=false", &body(""));
    assert_eq!(answered.status, 200, "{}", answered.text());
    for key in &keys {
        let (version, value) = wire.get(key).expect("it was put");
        if key == there {
            assert_eq!((version, value), (before, b"old".to_vec()));
        } else {
            assert_eq!(value, b"new");
        }
    }
    let results = answered.text();
    assert_eq!(results.matches(r#"{"version":"#).count(), keys.len() - 1, "{results}");
    let no = r#"{"status":412,"code":"precondition_failed","detail":"the condition of operation 1 of 1"#;
    assert_eq!(results.matches(no).count(), 1, "{results}");
    assert_eq!(
        results.split("},{").position(|result| result.contains("412")),
        Some(3),
        "in the order asked: {results}"
    );
    // Both ways of asking for it are the same.
    let again = batch(&mut http, "", &body(r#""atomic":false,"#));
    assert_eq!((again.status, again.text().matches("precondition_failed").count()), (200, keys.len()));
}

#[test]
fn rest_refuses_what_is_no_batch() {
    let cluster = Cluster::of(1).flag("--batch-operations-max=3").flag("--batch-bytes-max=1KiB").start();
    let mut http = http(&cluster, 1);
    let deletes = |count: usize| {
        let operation = |n: usize| format!(r#"{{"op":"delete","key":"{}"}}"#, base64(format!("{{t}}{n}").as_bytes()));
        format!(r#"{{"operations":[{}]}}"#, (0..count).map(operation).collect::<Vec<_>>().join(","))
    };
    for (count, status) in [(2, 200), (3, 200), (4, 413), (0, 400)] {
        for query in ["", "?atomic=false"] {
            assert_eq!(batch(&mut http, query, &deletes(count)).status, status, "{count} {query}");
        }
    }
    let value = |bytes: usize| {
        format!(r#"{{"operations":[{{"op":"put","key":"aw==","value":"{}"}}]}}"#, base64(vec![0; bytes]))
    };
    for (bytes, status) in [(1022, 200), (1023, 200), (1024, 413), (4096, 413)] {
        assert_eq!(batch(&mut http, "", &value(bytes)).status, status, "{bytes}");
    }
    for (body, words) in [
        ("", "the body is no batch"),
        ("[]", "the body is no batch"),
        (r#"{"operations":[{"op":"get","key":"aw=="}]}"#, "the body is no batch"),
        (r#"{"operations":[{"op":"put","key":"aw==","value":"","ttl":1}]}"#, "the body is no batch"),
        (r#"{"operations":[{"op":"put","key":"aw=="}]}"#, "operation 1: a put needs a `value`"),
        (r#"{"operations":[{"op":"delete","key":"aw==","value":""}]}"#, "operation 1: a delete has no `value`"),
        (r#"{"operations":[{"op":"delete","key":"a"}]}"#, "operation 1: the key is no base64"),
        (r#"{"operations":[{"op":"delete","key":""}]}"#, "the key is empty"),
        (r#"{"operations":[{"op":"delete","key":"aw==","if_match":"x"}]}"#, "`if_match` must be"),
        (r#"{"operations":[{"op":"delete","key":"aw==","if_match":1,"if_none_match":"*"}]}"#, "exclude each other"),
        (r#"{"operations":[{"op":"delete","key":"aw=="},{"op":"delete","key":"aw=="}]}"#, "twice"),
    ] {
        refused(&batch(&mut http, "", body), 400, words);
    }
    refused(&batch(&mut http, "?colour=1", &deletes(1)), 400, "no parameter `colour`");
    refused(&http.ask("GET", "/v1/batch", &[], b""), 405, "bad_request");
}
