//! The metrics: what a page says, in both formats, and that the manual lists what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::cluster::Cluster;
use crate::support::http::{Http, http, http_address, request};
use crate::support::http2::{HEADERS, Http2};
use crate::support::metrics::{Family, Format, Page, labels_of};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{get, put};

const MANUAL: &str = include_str!("../../docs/metrics.md");

/// What the manual says of a metric: type, unit, labels, meaning.
type Listed = (String, String, BTreeSet<String>, String);

fn listed() -> BTreeMap<String, Listed> {
    let mut listed = BTreeMap::new();
    for row in MANUAL.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, meaning] = cells[..] else { panic!("five cells: {row}") };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(|label| label.replace('`', "")).collect();
        let found = (kind.to_owned(), unit.to_owned(), labels, meaning.to_owned());
        assert!(listed.insert(name.replace('`', ""), found).is_none(), "twice: {row}");
    }
    listed
}

fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))).unwrap_or("")
}

/// The pages of all nodes as one: a metric has the series that it has anywhere.
fn all_pages(cluster: &Cluster) -> BTreeMap<String, Family> {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    for node in cluster.ids() {
        for (name, family) in Page::of(cluster, node).0 {
            match all.get_mut(&name) {
                Some(known) => known.series.extend(family.series),
                None => drop(all.insert(name, family)),
            }
        }
    }
    all
}

#[test]
fn the_manual_lists_every_metric_and_no_other() {
    let cluster = Cluster::start(3);
    cluster.await_leaders();
    // What is told of requests is told of those that there were.
    let mut wire = cluster.wire(1);
    wire.put("k", "v");
    let mut http = http(&cluster, 1);
    assert_eq!(http.ask("GET", "/v1/kv/none", &[], b"").status, 404);
    assert_eq!(http.ask("GET", "/metrics", &[], b"").status, 200);
    let (listed, found) = (listed(), all_pages(&cluster));
    let names = |all: &BTreeMap<String, Family>| all.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(listed.keys().cloned().collect::<BTreeSet<_>>(), names(&found));
    for (name, (kind, unit_listed, labels, meaning)) in listed {
        let family = &found[&name];
        assert_eq!((&family.kind, &family.help, unit(&name)), (&kind, &meaning, unit_listed.as_str()), "{name}");
        // All but one have series, be it for what was done before, and each of these has the labels that are listed.
        assert_eq!(family.series.is_empty(), name == "raftkv_log_held_bytes", "{name}");
        for series in family.series.keys() {
            assert_eq!(labels_of(series), labels.iter().map(String::as_str).collect(), "{name}: {series:?}");
        }
    }
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let cluster = Cluster::start(1);
    let mut http = http(&cluster, 1);
    // The first scrape makes the series of scrapes.
    assert_eq!(http.ask("HEAD", "/metrics", &[], b"").status, 200);
    let classic = http.ask("GET", "/metrics", &[], b"");
    assert_eq!(classic.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = http.ask("GET", "/metrics", &[("accept", accept)], b"");
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let (classic, open) =
        (Page::read(classic.text(), Format::Prometheus), Page::read(open.text(), Format::OpenMetrics));
    let series =
        |page: &Page| page.0.values().flat_map(|family| family.series.keys().cloned()).collect::<BTreeSet<_>>();
    let (classic, open) = (series(&classic), series(&open));
    let differing: Vec<_> = classic.symmetric_difference(&open).collect();
    assert!(differing.is_empty(), "they say the same of the same: {differing:?}");
    assert_eq!(http.ask("GET", "/metrics?name=x", &[], b"").status, 400);
    assert_eq!(http.ask("POST", "/metrics", &[], b"").status, 405);
}

#[test]
fn a_scrape_finds_itself_among_the_requests() {
    let cluster = Cluster::start(1);
    let mut http = http(&cluster, 1);
    for scrapes in 1..=3 {
        let page = http.ask("GET", "/metrics", &[], b"");
        let page = Page::read(page.text(), Format::Prometheus);
        assert_eq!(page.sum("raftkv_http_requests_total", &[]), f64::from(scrapes));
    }
}

/// The third may have its metrics when one of the others has taken its own.
#[test]
fn so_many_metrics_are_on_their_way_and_no_more() {
    let cluster = Cluster::of(1).flag("--core-scrapes-max=2").start();
    // Nothing of a body may come before this side says so.
    let mut http2 = Http2::connect_with_window(http_address(cluster.address(1)), 0);
    let mut heads = Vec::new();
    for stream in [1, 3, 5] {
        assert!(http2.get(stream, "/metrics"));
        let head = http2.frame().expect("a response");
        assert_eq!((head.kind, head.stream), (HEADERS, stream));
        // The status 200 has an index of its own.
        heads.push(head.payload[0] == 0x88);
    }
    assert_eq!(heads, [true, true, false]);
    let mut http = http(&cluster, 1);
    let refused = http.ask("GET", "/metrics", &[], b"");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("--core-scrapes-max"), "{}", refused.text());
    assert_eq!(["overloaded_scrapes", "refused_overloaded"].map(|name| cluster.wire(1).counter(name)), [2, 2]);
    assert!(http2.reset(1));
    let page = eventually(PATIENCE, "there is room again", || {
        let answer = http.ask("GET", "/metrics", &[], b"");
        (answer.status == 200).then_some(answer)
    });
    let page = Page::read(page.text(), Format::Prometheus);
    assert!(page.sum("raftkv_limit_hits_total", &[("limit", "scrapes")]) >= 2.0);
    assert!(answered(&page, "metrics", "rest", "overloaded") >= 2.0);
}

#[test]
fn many_who_ask_at_once_for_metrics_are_answered_together() {
    let mut cluster = Cluster::start(1);
    let asked = request("GET", "/metrics", &[], b"");
    let mut others: Vec<Http> = (0..50).map(|_| http(&cluster, 1)).collect();
    let mut http = http(&cluster, 1);
    // The node has none of them before it has all.
    cluster.process(1).pause();
    others.iter_mut().for_each(|other| other.send(&asked));
    cluster.process(1).resume();
    for other in &mut others {
        assert_eq!(other.response(false).expect("a response").status, 200);
    }
    let page = http.ask("GET", "/metrics", &[], b"");
    let page = Page::read(page.text(), Format::Prometheus);
    assert_eq!(answered(&page, "metrics", "rest", "ok"), 50.0);
    let gathered = page.sum("raftkv_scrapes_gathered_total", &[]);
    assert!((2.0..10.0).contains(&gathered), "they were gathered {gathered} times");
}

/// How many requests of one kind a node has answered in one way.
fn answered(page: &Page, operation: &str, face: &str, result: &str) -> f64 {
    page.sum("raftkv_requests_total", &[("operation", operation), ("face", face), ("result", result)])
}

#[test]
fn requests_are_counted_where_they_were_asked() {
    let cluster = Cluster::start(3);
    cluster.await_leaders();
    let (mut wire, mut puts) = (cluster.wire(1), http(&cluster, 1));
    let before = Page::of(&cluster, 1);
    // All shards, so that some are led here and some elsewhere.
    for n in 0..100 {
        wire.put(format!("b{n}"), "value");
    }
    for n in 0..50 {
        assert_eq!(puts.ask("PUT", &format!("/v1/kv/r{n}"), &[], b"value").status, 200);
    }
    let (too_long, long_key) = (vec![0; (1 << 20) + 1], format!("/v1/kv/{}", "k".repeat(4_097)));
    assert!(wire.ask(put(b"k", &too_long)).said.code().is_some());
    assert!(wire.ask(get(b"nothing")).said.code().is_some());
    assert_eq!(puts.ask("PUT", "/v1/kv/k", &[], &too_long).status, 413);
    let mut http = http(&cluster, 1);
    assert_eq!(http.ask("GET", &long_key, &[], b"").status, 413);
    assert_eq!(http.ask("GET", "/v1/kv/nothing", &[], b"").status, 404);
    assert_eq!(http.ask("GET", "/v1/kv?limit=x", &[], b"").status, 400);
    assert_eq!(http.ask("GET", "/v1/kv?limit=5", &[], b"").status, 200);
    let after = Page::of(&cluster, 1);
    for (operation, face, result, expected) in [
        ("put", "binary", "ok", 100.0),
        ("put", "rest", "ok", 50.0),
        ("put", "binary", "too_large", 1.0),
        ("put", "rest", "too_large", 1.0),
        ("get", "binary", "not_found", 1.0),
        ("get", "rest", "not_found", 1.0),
        ("get", "rest", "too_large", 1.0),
        ("scan", "rest", "bad_request", 1.0),
        ("scan", "rest", "ok", 1.0),
        ("scan", "binary", "ok", 0.0),
    ] {
        let grown = answered(&after, operation, face, result) - answered(&before, operation, face, result);
        assert_eq!(grown, expected, "{operation} {face} {result}");
    }
    // Whoever has refused: the node that was asked, or its face.
    for (code, expected) in [("too_large", 3.0), ("bad_request", 1.0)] {
        let of = |page: &Page| page.sum("raftkv_refusals_total", &[("code", code)]);
        assert_eq!(of(&after) - of(&before), expected, "{code}");
    }
    // What was refused before the node was asked took no time.
    for (operation, face, asked) in [("put", "binary", 101.0), ("put", "rest", 50.0), ("get", "rest", 2.0)] {
        let of = |name: &str| after.sum(name, &[("operation", operation), ("face", face)]);
        assert_eq!(of("raftkv_request_seconds_count"), asked, "{operation} {face}");
        let mean = of("raftkv_request_seconds_sum") / asked;
        assert!(mean > 0.0 && mean < 5.0, "{operation} {face} took {mean} s");
    }
    let page = Page::of(&cluster, 1);
    assert!(answered(&page, "metrics", "rest", "ok") > answered(&after, "metrics", "rest", "ok"));
    for (name, family) in after.0.iter().filter(|(_, family)| ["counter", "histogram"].contains(&family.kind.as_str()))
    {
        for (series, value) in &family.series {
            assert!(page.0[name].series[series] >= *value, "{series:?} falls");
        }
    }
}

#[test]
fn what_is_measured_fits_what_was_done() {
    let cluster = Cluster::of(3).flag("--cores=2").start();
    cluster.await_leaders();
    let mut wire = cluster.wire(2);
    for n in 0..200 {
        wire.put(format!("k{n}"), vec![7; 100]);
        wire.get(format!("k{n}"));
    }
    let keys = |page: &Page| page.sum("raftkv_shard_keys", &[]);
    let pages = || cluster.ids().into_iter().map(|node| Page::of(&cluster, node)).collect::<Vec<_>>();
    let pages = eventually(PATIENCE, "every node has every key", || {
        Some(pages()).filter(|pages| pages.iter().all(|page| keys(page) == 200.0))
    });
    for page in &pages {
        assert!(page.sum("raftkv_shard_data_bytes", &[]) >= 200.0 * 100.0);
        let entries = page.sum("raftkv_log_batch_entries_sum", &[]);
        assert!(entries >= 200.0, "{entries}");
        assert!(
            page.sum("raftkv_log_sync_seconds_count", &[]) > 0.0 && page.sum("raftkv_log_sync_seconds_sum", &[]) > 0.0
        );
        assert!(page.sum("raftkv_log_batch_bytes_sum", &[]) <= page.sum("raftkv_log_written_bytes_total", &[]));
        for core in ["0", "1"] {
            let of = |name| page.sum(name, &[("core", core)]);
            assert!(of("raftkv_core_turns_total") > 0.0 && of("raftkv_core_busy_seconds_total") > 0.0);
            let up = page.sum("process_start_time_seconds", &[]);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
            assert!(up < now + 1.0 && of("raftkv_core_busy_seconds_total") < now - up + 1.0);
        }
        let of_process = ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"];
        assert!(of_process.iter().all(|name| page.sum(name, &[]) > 0.0));
        assert!(page.sum("process_open_fds", &[]) <= page.sum("process_max_fds", &[]));
    }
    // Each shard has one leader, which knows two followers.
    let shards = pages[0].0["raftkv_shard_term"].series.len() as f64;
    let all = |name: &str, labels: &[(&str, &str)]| pages.iter().map(|page| page.sum(name, labels)).sum::<f64>();
    assert_eq!(all("raftkv_shard_role", &[("role", "leader")]), shards);
    assert_eq!(all("raftkv_shard_role", &[]), 3.0 * shards, "each replica has one role");
    let lags = pages.iter().map(|page| page.0["raftkv_shard_follower_lag_entries"].series.len());
    assert_eq!(lags.sum::<usize>() as f64, 2.0 * shards);
    assert!(all("raftkv_shard_elections_total", &[]) >= shards);
    assert!(all("raftkv_leader_changes_total", &[]) >= 3.0 * shards);
    assert!(all("raftkv_read_rounds_total", &[]) > 0.0);
    assert_eq!(all("raftkv_shard_proposals_failed_total", &[]), 0.0);
}

#[test]
fn a_link_is_down_while_the_other_node_is() {
    let mut cluster = Cluster::start(3);
    let await_links = |cluster: &Cluster, up: [f64; 2]| {
        eventually(PATIENCE, format!("the links of node 1 are {up:?}"), || {
            let page = Page::of(cluster, 1);
            let links = ["2", "3"].map(|node| page.sum("raftkv_link_up", &[("core", "0"), ("node", node)]));
            (links == up).then_some(())
        });
    };
    await_links(&cluster, [1.0, 1.0]);
    cluster.kill_9(3);
    await_links(&cluster, [1.0, 0.0]);
    cluster.start_node(3);
    await_links(&cluster, [1.0, 1.0]);
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let listed = listed();
    let manual = include_str!("../../docs/operations.md");
    let (dashboard, alerts) =
        (include_str!("../../tools/monitoring/dashboard.json"), include_str!("../../tools/monitoring/alerts.yml"));
    for text in [dashboard, alerts] {
        let words = text.split(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_');
        let names: BTreeSet<&str> =
            words.filter(|word| word.starts_with("raftkv_") || word.starts_with("process_")).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            let is_part = |part: &str| {
                let whole = name.strip_suffix(part).and_then(|whole| listed.get(whole));
                whole.is_some_and(|(kind, ..)| kind == "histogram")
            };
            assert!(listed.contains_key(name) || ["_bucket", "_sum", "_count"].into_iter().any(is_part), "{name}");
        }
    }
    for alert in alerts.lines().filter_map(|line| line.split_once("- alert: ")) {
        assert!(manual.contains(&format!("| `{}` |", alert.1)), "the manual tells what {} means", alert.1);
    }
}
