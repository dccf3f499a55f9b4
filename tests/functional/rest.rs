//! The REST face: what each path does, on every node for every key.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::http::{Http, Response, base64, http_address, request};
use crate::support::http2::Http2;
use crate::support::metrics::Page;
use crate::support::tools::{have_strace, server_with_fault};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::put;

fn http(cluster: &Cluster, id: u64) -> Http {
    Http::connect(http_address(cluster.address(id)))
}

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

/// Whoever restarts what does not answer must not restart a node for a disk that hangs: that helps nobody.
#[test]
fn probes_are_answered_while_the_disk_hangs() {
    let test = "probes_are_answered_while_the_disk_hangs";
    if !have_strace(test) {
        return;
    }
    // Each sync, once the node is up. A tracer does not let go of a killed process sooner either.
    let hang = Duration::from_secs(5);
    let mut cluster = Cluster::of(1).flag("--log-io=map").flag("--log-sync=thread").idle();
    let faulty = server_with_fault("fdatasync", &format!("delay_enter={}:when=100+", hang.as_micros()));
    cluster.spawn_with(1, faulty).await_listening();
    let (mut wire, mut kept) = (cluster.wire(1), http(&cluster, 1));
    let mut probes_while_hung = 0;
    eventually(PATIENCE, "a sync hangs", || {
        wire.submit(put(b"k", b"v")).expect("sent");
        let hung = Page::of(&cluster, 1).sum("raftkv_log_sync_pending_seconds", &[]) > 0.5;
        for http in [&mut kept, &mut http(&cluster, 1)] {
            let asked = Instant::now();
            assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
            let ready = http.ask("GET", "/readyz", &[], b"").status;
            assert!([200, 503].contains(&ready), "{ready}");
            assert!(asked.elapsed() < Duration::from_secs(1), "the probes took {:?}", asked.elapsed());
        }
        probes_while_hung += u32::from(hung);
        (probes_while_hung == 10).then_some(())
    });
}

#[test]
fn http_2_is_spoken_with_prior_knowledge_on_the_same_port() {
    let cluster = Cluster::start(3);
    http(&cluster, 1).ask("PUT", "/v1/kv/color", &[], b"blue");
    let mut http2 = Http2::connect(http_address(cluster.address(2)));
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
fn an_ordered_stop_ends_connections_that_rest_and_lets_the_others_finish() {
    let mut cluster = Cluster::start(1);
    let mut resting = http(&cluster, 1);
    assert_eq!(resting.ask("GET", "/livez", &[], b"").status, 200);
    cluster.stop(1);
    assert_eq!(resting.response(false), None);
}
