//! The REST face: what each path does, on every node for every key.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::http::{Http, Response, base64, http, request};
use crate::support::http2::{DATA, END_STREAM, GOAWAY, HEADERS, Http2, http2};
use crate::support::metrics::Page;
use crate::support::wait::{PATIENCE, eventually, pause};

fn code(response: &Response) -> (u16, Option<&str>) {
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
    let code = response.text().split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
    (response.status, code)
}

#[test]
fn keys_and_values_may_be_any_bytes() {
    let cluster = Cluster::start(1);
    let (mut http, mut wire) = (http(&cluster, 1), cluster.wire(1));
    let value: Vec<u8> = (0..=255).collect();
    let paths = ["/v1/kv/a%00%ff%2Fb", "/v1/kv/with/slashes/", "/v1/kv/%20", "/v1/kv/%25+x"];
    let keys: [&[u8]; 4] = [b"a\0\xff/b", b"with/slashes/", b" ", b"%+x"];
    for (path, key) in paths.into_iter().zip(keys) {
        assert_eq!(http.ask("PUT", path, &[], &value).status, 200);
        assert_eq!(http.ask("GET", path, &[], b"").body, value);
        assert_eq!(wire.get(key).map(|(_, value)| value).as_ref(), Some(&value), "{path}");
    }
    assert_eq!(http.ask("PUT", "/v1/kv/empty", &[], b"").status, 200);
    assert_eq!(http.ask("GET", "/v1/kv/empty", &[], b"").body, b"");
}

// rule 32
#[test]
fn conditions_are_entity_tags() {
    let cluster = Cluster::start(1);
    let mut http = http(&cluster, 1);
    let only_new = [("if-none-match", "*")];
    let created = http.ask("PUT", "/v1/kv/k", &only_new, b"1");
    assert_eq!(created.status, 200);
    assert_eq!(code(&http.ask("PUT", "/v1/kv/k", &only_new, b"2")), (412, Some("precondition_failed")));
    let tag = created.header("etag").expect("a version").to_owned();
    let changed = http.ask("PUT", "/v1/kv/k", &[("if-match", &tag)], b"3");
    assert_eq!(changed.status, 200);
    assert_eq!(code(&http.ask("PUT", "/v1/kv/k", &[("if-match", &tag)], b"4")), (412, Some("precondition_failed")));
    assert_eq!(code(&http.ask("DELETE", "/v1/kv/k", &[("if-match", &tag)], b"")), (412, Some("precondition_failed")));
    let tag = changed.header("etag").expect("a version").to_owned();
    assert_eq!(http.ask("GET", "/v1/kv/k", &[("if-none-match", &tag)], b"").status, 304);
    assert_eq!(http.ask("GET", "/v1/kv/k", &[], b"").body, b"3");
    assert_eq!(http.ask("DELETE", "/v1/kv/k", &[("if-match", &tag)], b"").text(), "{\"deleted\":true}");
    assert_eq!(http.ask("DELETE", "/v1/kv/k", &[], b"").text(), "{\"deleted\":false}");
    assert_eq!(code(&http.ask("PUT", "/v1/kv/k", &[("if-match", "*")], b"5")), (412, Some("precondition_failed")));
    for wrong in [[("if-match", "3")], [("if-match", "\"x\"")], [("if-match", "W/\"3\"")], [("if-none-match", "\"3\"")]]
    {
        assert_eq!(code(&http.ask("PUT", "/v1/kv/k", &wrong, b"6")), (400, Some("bad_request")), "{wrong:?}");
    }
    assert_eq!(code(&http.ask("GET", "/v1/kv/k", &[], b"")), (404, Some("not_found")));
}

#[test]
fn a_single_key_may_be_asked_for_as_json_and_its_head_alone() {
    let cluster = Cluster::start(1);
    let mut http = http(&cluster, 1);
    http.ask("PUT", "/v1/kv/color", &[], b"blue");
    let version = http.ask("GET", "/v1/kv/color", &[], b"").header("etag").expect("a version").replace('"', "");
    let json = http.ask("GET", "/v1/kv/color", &[("accept", "application/json")], b"");
    assert_eq!(json.text(), format!("{{\"key\":\"Y29sb3I=\",\"value\":\"Ymx1ZQ==\",\"version\":{version}}}"));
    let head = http.ask("HEAD", "/v1/kv/color", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    assert_eq!(http.ask("HEAD", "/v1/kv/none", &[], b"").status, 404);
    assert_eq!(http.ask("GET", "/v1/kv/color?consistency=stale", &[], b"").body, b"blue");
    assert_eq!(code(&http.ask("GET", "/v1/kv/color?consistency=fresh", &[], b"")), (400, Some("bad_request")));
    assert_eq!(code(&http.ask("GET", "/v1/kv/color?colour=1", &[], b"")), (400, Some("bad_request")));
}

/// The keys of a page, still encoded, and its cursor.
fn page(response: &Response) -> (Vec<String>, Option<String>) {
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    let keys = response.text().split("{\"key\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let cursor = response.text().rsplit("\"cursor\":").next().and_then(|cursor| cursor.strip_suffix('}'));
    let cursor = cursor.filter(|cursor| *cursor != "null").map(|cursor| cursor.replace('"', ""));
    (keys.map(str::to_owned).collect(), cursor)
}

#[test]
fn scans_go_page_by_page_in_both_directions() {
    let cluster = Cluster::start(3);
    let mut http = http(&cluster, 2);
    for n in 0..25 {
        http.ask("PUT", &format!("/v1/kv/k{n:02}"), &[], b"v");
    }
    http.ask("PUT", "/v1/kv/other", &[], b"v");
    for reverse in ["false", "true"] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let behind = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let path = format!("/v1/kv?prefix=k&limit=10&reverse={reverse}{behind}");
            let (keys, next) = page(&http.ask("GET", &path, &[], b""));
            assert!(!keys.is_empty() && keys.len() <= 10);
            seen.extend(keys);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        if reverse == "true" {
            seen.reverse();
        }
        let expected: Vec<String> = (0..25).map(|n| base64(format!("k{n:02}").as_bytes())).collect();
        assert_eq!(seen, expected);
    }
    assert_eq!(page(&http.ask("GET", "/v1/kv?start=k03&end=k05", &[], b"")).0, ["azAz", "azA0"]);
    for wrong in ["limit=-1", "limit=x", "page=2", "reverse=maybe", "cursor=%21", "consistency=x", "perfix=k"] {
        assert_eq!(code(&http.ask("GET", &format!("/v1/kv?{wrong}"), &[], b"")), (400, Some("bad_request")), "{wrong}");
    }
}

#[test]
fn the_node_tells_of_itself() {
    let cluster = Cluster::start(3);
    let mut http = http(&cluster, 3);
    let status = http.ask("GET", "/v1/status", &[], b"");
    for part in ["\"node_id\":3", "\"cluster_id\":\"", "\"role\":\"", "\"state_hash\":\"", "\"members\":[{\"id\":1"] {
        assert!(status.text().contains(part), "{part} in {}", status.text());
    }
    let table = http.ask("GET", "/v1/cluster", &[], b"");
    assert!(table.text().contains("\"shards\":[{\"id\":0,\"leader\":"), "{}", table.text());
    assert_eq!(http.ask("GET", "/livez", &[], b"").text(), "ok\n");
    eventually(PATIENCE, "the node is ready", || (http.ask("GET", "/readyz", &[], b"").status == 200).then_some(()));
    assert!(http.ask("GET", "/readyz?verbose", &[], b"").text().contains("[+] core-0/leaders ok\n"));
}

#[test]
fn a_node_without_a_majority_is_alive_and_not_ready_and_says_why() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=500ms").start();
    let mut http = http(&cluster, 1);
    cluster.kill_9(2);
    cluster.kill_9(3);
    eventually(PATIENCE, "it notices, and says what", || {
        let ready = http.ask("GET", "/readyz", &[], b"");
        (ready.status == 503 && ready.text().contains("[-] core-0/leaders: ")).then_some(())
    });
    assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
    let refused = http.ask("PUT", "/v1/kv/k", &[], b"v");
    assert!([(503, Some("no_leader")), (504, Some("timeout"))].contains(&code(&refused)), "{refused:?}");
    if refused.status == 503 {
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
}

#[test]
fn requests_are_pipelined_and_connections_kept() {
    let cluster = Cluster::start(3);
    let mut http = http(&cluster, 1);
    let mut burst = Vec::new();
    for n in 0..200 {
        burst.extend(request("PUT", &format!("/v1/kv/p{n}"), &[], format!("{n}").as_bytes()));
        burst.extend(request("GET", &format!("/v1/kv/p{n}"), &[], b""));
    }
    http.send(&burst);
    for n in 0..200 {
        assert_eq!(http.response(false).expect("a response").status, 200);
        assert_eq!(http.response(false).expect("a response").text(), n.to_string());
    }
}

#[test]
fn whoever_half_closes_gets_the_answers() {
    let cluster = Cluster::start(3);
    let mut http = http(&cluster, 1);
    http.send(&request("PUT", "/v1/kv/k", &[], b"v"));
    http.send(&request("GET", "/v1/kv/k", &[], b""));
    http.end();
    assert_eq!(http.response(false).expect("a response").status, 200);
    assert_eq!(http.response(false).expect("a response").text(), "v");
    assert_eq!(http.response(false), None);
}

#[test]
fn http_2_is_spoken_with_prior_knowledge_on_the_same_port() {
    let cluster = Cluster::start(3);
    http(&cluster, 1).ask("PUT", "/v1/kv/color", &[], b"blue");
    let mut http2 = http2(&cluster, 2);
    for stream in [1, 3, 5] {
        assert!(http2.get(stream, "/v1/kv/color"));
        assert_eq!(http2.response(stream), b"blue");
    }
    let mut long = http(&cluster, 1);
    long.ask("PUT", "/v1/kv/long", &[], &vec![7; 60_000]);
    assert!(http2.get(7, "/v1/kv/long"));
    assert_eq!(http2.response(7).len(), 60_000);
}

#[test]
fn what_there_is_not_is_told() {
    let cluster = Cluster::start(1);
    let mut http = http(&cluster, 1);
    assert_eq!(code(&http.ask("GET", "/v2/kv/k", &[], b"")), (404, Some("bad_request")));
    let post = http.ask("POST", "/v1/kv/k", &[], b"");
    assert_eq!((code(&post), post.header("allow")), ((405, Some("bad_request")), Some("GET,HEAD,PUT,DELETE")));
    assert_eq!(code(&http.ask("GET", "/v1/kv/", &[], b"")), (400, Some("bad_request")));
    assert_eq!(code(&http.ask("PUT", "/v1/kv/k?x=1", &[], b"v")), (400, Some("bad_request")));
}

#[test]
fn an_ordered_stop_ends_connections_that_rest() {
    let mut cluster = Cluster::start(1);
    let mut resting = http(&cluster, 1);
    assert_eq!(resting.ask("GET", "/livez", &[], b"").status, 200);
    cluster.stop(1);
    assert_eq!(resting.response(false), None);
}

/// Takes the responses to the streams of a connection, until it is ended.
fn statuses_are_200(http2: &mut Http2) -> BTreeSet<u32> {
    let mut streams = BTreeSet::new();
    while let Some(frame) = http2.frame() {
        match frame.kind {
            HEADERS => assert!(frame.payload[0] == 0x88 && streams.insert(frame.stream), "{frame:?}"),
            DATA | GOAWAY => {}
            _ => panic!("not expected: {frame:?}"),
        }
    }
    streams
}

/// Requests that wait for the other nodes when the stop begins, and such whose bodies come after the shards were handed
/// over.
#[test]
fn an_ordered_stop_answers_what_is_in_flight() {
    let flags = ["--election-timeout=3s", "--stop-timeout=20s"];
    let mut cluster = Cluster::of(3).flags(flags).start();
    cluster.wire(1).put("k", "v");
    let leader = cluster.leader_of("k");
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let mut wire = cluster.wire(leader);
    let before = wire.counter("http_requests");
    let mut late = http(&cluster, leader);
    late.send(b"PUT /v1/kv/late HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nval");
    let batch = format!("{{\"operations\":[{{\"op\":\"put\",\"key\":\"{}\",\"value\":\"\"}}]}}", base64("late/2"));
    let (first, rest) = batch.as_bytes().split_at(20);
    let mut http2 = http2(&cluster, leader);
    assert!(http2.post(1, "/v1/batch", &[]) && http2.send(DATA, 0, 1, first));
    others.iter().for_each(|id| cluster.process(*id).pause());
    let mut waiting: Vec<Http> = (0..10).map(|_| http(&cluster, leader)).collect();
    waiting.iter_mut().for_each(|http| http.send(&request("PUT", "/v1/kv/k", &[], b"w")));
    assert!((3..23).step_by(2).all(|stream| http2.get(stream, "/v1/kv/k")));
    eventually(PATIENCE, "all are there", || (wire.counter("http_requests") == before + 22).then_some(()));
    cluster.process(leader).signal("TERM");
    cluster.await_stopping(leader);
    others.iter().for_each(|id| cluster.process(*id).resume());
    for http in &mut waiting {
        assert_eq!(http.response(false).expect("a response").status, 200);
        assert_eq!(http.response(false), None, "and the connection is ended");
    }
    cluster.await_leaders_among(&others);
    // Longer than it goes on for clients who ask although nothing is led here.
    pause(Duration::from_secs(2));
    assert!(!cluster.process(leader).has_ended(), "two requests are not answered");
    late.send(b"ue");
    assert_eq!(late.response(false).expect("a response").status, 200);
    assert!(http2.send(DATA, END_STREAM, 1, rest));
    assert_eq!(statuses_are_200(&mut http2), (1..23).step_by(2).collect());
    assert_eq!(cluster.await_end(leader).code, Some(0));
    let mut wire = cluster.wire(others[0]);
    assert_eq!(wire.get("late").map(|(_, value)| value), Some(b"value".to_vec()));
    assert!(wire.get("late/2").is_some());
}

/// What was written behind a leader's back takes the place of what it had proposed.
#[test]
fn a_write_that_was_overwritten_names_the_leader() {
    let flags = ["--election-timeout=3s", "--request-timeout=1m"];
    let mut cluster = Cluster::of(3).flags(flags).start();
    let old = cluster.leader_of("k");
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    others.iter().for_each(|id| cluster.kill_9(*id));
    let last = |cluster: &Cluster| Page::of(cluster, old).sum("raftkv_shard_last_index", &[]);
    let before = last(&cluster);
    let mut asked = http(&cluster, old);
    asked.send(&request("PUT", "/v1/kv/k", &[], b"lost"));
    eventually(PATIENCE, "it is proposed", || (last(&cluster) > before).then_some(()));
    cluster.process(old).pause();
    others.iter().for_each(|id| cluster.start_node(*id));
    cluster.await_leaders_among(&others);
    cluster.wire(others[0]).put("k", "new");
    cluster.process(old).resume();
    let refused = asked.response(false).expect("a response");
    assert_eq!(code(&refused), (503, Some("not_leader")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let leader = cluster.leader_of("k");
    assert!(refused.text().contains(&format!("\"leader\":{leader}")), "{}", refused.text());
    assert_eq!(http(&cluster, old).ask("GET", "/v1/kv/k", &[], b"").body, b"new");
}

#[test]
fn where_no_leader_is_a_node_that_was_none_says_so() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=500ms").start();
    let key =
        cluster.keys_for_all_shards("k").into_iter().find(|key| cluster.leader_of(key) == 2).expect("it leads some");
    cluster.kill_9(2);
    cluster.kill_9(3);
    let mut http = http(&cluster, 1);
    eventually(PATIENCE, "it knows no leader", || {
        let ready = http.ask("GET", "/readyz", &[], b"");
        ready.text().contains("[-] core-0/leaders: 6 shards").then_some(())
    });
    let mut wire = cluster.wire(1);
    let before = wire.counter("refused_no_leader");
    for method in ["GET", "PUT", "DELETE"] {
        let refused = http.ask(method, &format!("/v1/kv/{key}"), &[], b"");
        assert_eq!(code(&refused), (503, Some("no_leader")), "{method}");
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert!(!refused.text().contains("\"leader\":"), "{}", refused.text());
    }
    assert_eq!(wire.counter("refused_no_leader"), before + 3);
}
