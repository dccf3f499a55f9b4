//! The status page at `/`: its headers, and what a real browser shows while nodes die and come back.

use std::path::{Path, PathBuf};

use crate::support::browser::Browser;
use crate::support::cluster::{Cluster, SHARDS};
use crate::support::http::{Http, Response, http, http_address};
use crate::support::wait::{PATIENCE, eventually};

fn url(cluster: &Cluster, id: u64) -> String {
    format!("http://{}/", http_address(cluster.address(id)))
}

fn policy(response: &Response) -> &str {
    response.header("content-security-policy").expect("a policy")
}

#[test]
fn the_page_comes_with_a_policy_and_is_sent_once() {
    let cluster = Cluster::of(1).flag("--ui-write").flag("--slow-sync=150ms").start();
    let mut http = http(&cluster, 1);
    let page = http.ask("GET", "/", &[], b"");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().starts_with("<!DOCTYPE html>") && page.text().ends_with("</html>\n"));
    for rule in ["default-src 'none'", "connect-src 'self'", "script-src 'sha256-", "frame-ancestors 'none'"] {
        assert!(policy(&page).contains(rule), "{rule} in {}", policy(&page));
    }
    for (name, value) in
        [("x-frame-options", "DENY"), ("x-content-type-options", "nosniff"), ("cache-control", "no-cache")]
    {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    let tag = page.header("etag").expect("a tag").to_owned();
    for tags in [tag.clone(), format!("\"x\", W/{tag}")] {
        let again = http.ask("GET", "/", &[("if-none-match", &tags)], b"");
        assert_eq!((again.status, again.header("etag"), again.body.len()), (304, Some(tag.as_str()), 0));
        assert_eq!(policy(&again), policy(&page));
    }
    assert_eq!(http.ask("GET", "/", &[("if-none-match", "\"x\"")], b"").body, page.body);
    let head = http.ask("HEAD", "/", &[], b"");
    assert_eq!(head.header("content-length"), Some(page.body.len().to_string().as_str()));
    assert_eq!(http.ask("PUT", "/", &[], b"x").status, 405);
    assert_eq!(http.ask("GET", "/v1/ui", &[], b"").text(), r#"{"write":true,"slow_sync_ms":150}"#);
}

/// Where a picture of the page is kept for people.
fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("status-page-{name}.png"))
}

fn take_picture(browser: &mut Browser, name: &str) {
    let file = picture(name);
    browser.screenshot(&file);
    println!("the page, {name}: {}", file.display());
}

fn put(http: &mut Http, keys: std::ops::Range<u32>) {
    for n in keys {
        assert_eq!(http.ask("PUT", &format!("/v1/kv/user/{n:04}"), &[], b"somebody").status, 200);
    }
}

/// The text of all cells of a column, as a JavaScript expression.
fn column(table: &str, at: usize) -> String {
    format!("[...document.querySelectorAll('#{table} tbody tr')].map((row) => row.cells[{at}].innerText)")
}

/// The greatest value of the first line of a plot, as a JavaScript expression.
fn peak(plot: &str) -> String {
    format!("Math.max(0, ...page.plots.{plot}.data[1])")
}

/// That nothing was wrong, but for connections that a node refused while it was down and conditions that did not hold, and
/// that nobody but the node was asked.
#[track_caller]
fn check(browser: &mut Browser, origin: &str) {
    let expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "a status of 412"];
    let is_expected = |words: &str| expected.iter().any(|error| words.contains(error));
    let mut complaints = browser.complaints();
    complaints.retain(|complaint| !(complaint.is_network && is_expected(&complaint.words)));
    assert!(complaints.is_empty(), "{complaints:#?}");
    let elsewhere: Vec<String> =
        browser.requests().into_iter().filter(|url| !url.starts_with(origin) && !url.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn a_browser_shows_the_cluster_and_goes_on_after_deaths() {
    const TEST: &str = "a_browser_shows_the_cluster_and_goes_on_after_deaths";
    // A disk that is slow while other tests run must not move leaders about.
    let mut cluster = Cluster::of(3).flag("--slow-sync=10s").start();
    let Some(mut browser) = Browser::start(TEST, cluster.files()) else { return };
    let origin = url(&cluster, 1);
    browser.open(&origin);

    // It renders: every shard with its leader, every node with its link.
    browser.await_true(&format!("{}.length === {SHARDS}", column("shards", 1)));
    browser.await_true(&format!("{}.every((leader) => /^node [123]$/.test(leader))", column("shards", 1)));
    browser.await_true(&format!("{}.join() === 'this node,up,up'", column("nodes", 2)));
    browser.await_true("document.querySelectorAll('#plots canvas').length === 4");

    // It follows: writes raise the rates, the latencies and the numbers of keys.
    put(&mut http(&cluster, 1), 0..300);
    browser.await_true(&format!("{} > 0 && {} > 0 && {} > 0", peak("rates"), peak("latency"), peak("syncs")));
    browser.await_true(&format!("{}.reduce((sum, keys) => sum + Number(keys), 0) === 300", column("shards", 9)));
    browser.value("document.getElementById('keys-prefix').value = 'user/00'");
    browser.value("document.getElementById('keys-form').requestSubmit()");
    browser.await_true(&format!("{}.length === 50", column("keys", 0)));
    browser.await_true(&format!("{}[49] === 'user/0049'", column("keys", 0)));
    browser.value("document.getElementById('keys-next').click()");
    browser.await_true(&format!("{}[49] === 'user/0099'", column("keys", 0)));
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    take_picture(&mut browser, "light");
    browser.set_dark(true);
    take_picture(&mut browser, "dark");

    // Another node dies, and its shards are led by others.
    cluster.kill_9(3);
    browser.await_true(&format!("{}.join() === 'this node,up,down'", column("nodes", 2)));
    browser.await_true(&format!("{}.every((leader) => /^node [12]$/.test(leader))", column("shards", 1)));
    browser.await_true("document.getElementById('events').innerText.includes('instead of node 3')");
    browser.await_true("document.getElementById('events').innerText.includes('the link to node 3 is down')");

    // The node itself dies: the page says so and keeps what it shows.
    cluster.kill_9(1);
    browser.await_true("document.getElementById('banner').innerText.includes('is not reachable since')");
    take_picture(&mut browser, "node-down");
    cluster.start_node(1);
    browser.await_true("document.getElementById('banner').hidden");
    browser.await_true("document.getElementById('events').innerText.includes('node 1 has started anew')");
    browser.await_true(&format!("{}.length === {SHARDS}", column("shards", 1)));
    // Counters that count from 0 again are no rates below it, or far above what there was.
    let rates =
        browser.value("page.plots.rates.data[1].every((rate) => rate === null || (rate >= 0 && rate < 100000))");
    assert_eq!(rates, true);
    take_picture(&mut browser, "after-deaths");
    check(&mut browser, &origin);
}

#[test]
fn slow_syncs_are_told_of() {
    const TEST: &str = "slow_syncs_are_told_of";
    // A sync in a hundred takes longer on any disk.
    let cluster = Cluster::of(1).flag("--slow-sync=1ms").start();
    let Some(mut browser) = Browser::start(TEST, cluster.files()) else { return };
    let origin = url(&cluster, 1);
    browser.open(&origin);
    browser.await_true(&format!("{}.length === {SHARDS}", column("shards", 1)));
    let mut http = http(&cluster, 1);
    eventually(PATIENCE, "the page tells of a slow sync", || {
        put(&mut http, 0..100);
        let events = browser.value("document.getElementById('events').innerText");
        events.as_str().is_some_and(|events| events.contains("slow: a sync of the log took longer than")).then_some(())
    });
    check(&mut browser, &origin);
}

#[test]
fn keys_and_values_are_never_markup_and_are_written_only_if_that_is_allowed() {
    const TEST: &str = "keys_and_values_are_never_markup_and_are_written_only_if_that_is_allowed";
    let markup = "<img src=x onerror=\"globalThis.run=1\"><script>globalThis.run=1</script>";
    let path = "/v1/kv/%3Cimg%20src%3Dx%20onerror%3D%22globalThis.run%3D1%22%3E";
    let mut cluster = Cluster::start(1);
    let Some(mut browser) = Browser::start(TEST, cluster.files()) else { return };
    let origin = url(&cluster, 1);
    let mut http = http(&cluster, 1);
    assert_eq!(http.ask("PUT", path, &[], markup.as_bytes()).status, 200);
    assert_eq!(http.ask("PUT", "/v1/kv/%00%ff", &[], b"\xff\x01").status, 200);
    browser.open(&origin);
    browser.await_true(&format!("{}.length === {SHARDS}", column("shards", 1)));
    browser.value("document.getElementById('keys-form').requestSubmit()");
    browser.await_true(&format!("{}.length === 2", column("keys", 0)));
    assert_eq!(browser.value(&format!("{}[0]", column("keys", 0))), "0x00ff");
    assert_eq!(browser.value(&format!("{}[0]", column("keys", 1))), "0xff01");
    assert_eq!(browser.value(&format!("{}[1]", column("keys", 1))), markup);
    browser.value("document.querySelectorAll('#keys button')[1].click()");
    assert_eq!(browser.value("document.getElementById('key-value').value"), markup);
    assert_eq!(browser.value("document.querySelectorAll('#keys img, #keys script, #key img, #key script').length"), 0);
    assert_eq!(browser.value("typeof globalThis.run"), "undefined");
    let buttons = "['keys-new', 'key-put', 'key-delete'].map((id) => document.getElementById(id).hidden).join()";
    assert_eq!(browser.value(buttons), "true,true,true");
    check(&mut browser, &origin);

    // The same node with the buttons.
    cluster.stop(1);
    cluster.set_flag("--ui-write=on");
    cluster.start_node(1);
    browser.await_true("!document.getElementById('keys-new').hidden");
    browser.value("document.getElementById('keys-new').click()");
    browser.value("document.getElementById('key-name').value = 'a/b ü'");
    browser.value("document.getElementById('key-value').value = 'new'");
    browser.value("document.getElementById('key').requestSubmit()");
    browser.await_true(&format!("{}.includes('a/b ü')", column("keys", 0)));
    assert_eq!(self::http(&cluster, 1).ask("GET", "/v1/kv/a/b%20%C3%BC", &[], b"").body, b"new");
    // Somebody else is faster: what was read is not written over.
    let choose = "[...document.querySelectorAll('#keys button')].find((key) => key.innerText === 'a/b ü').click()";
    browser.value(choose);
    assert_eq!(self::http(&cluster, 1).ask("PUT", "/v1/kv/a/b%20%C3%BC", &[], b"theirs").status, 200);
    browser.value("document.getElementById('key-value').value = 'mine'");
    browser.value("document.getElementById('key').requestSubmit()");
    browser.await_true("document.getElementById('key-fault').innerText.startsWith('nothing was written: ')");
    browser.value("document.getElementById('keys-form').requestSubmit()");
    browser.await_true(&format!("{}.includes('theirs')", column("keys", 1)));
    browser.value(choose);
    browser.value("globalThis.confirm = () => true");
    browser.value("document.getElementById('key-delete').click()");
    browser.await_true(&format!("!{}.includes('a/b ü')", column("keys", 0)));
    assert_eq!(self::http(&cluster, 1).ask("GET", "/v1/kv/a/b%20%C3%BC", &[], b"").status, 404);
    check(&mut browser, &origin);
}

/// A page of metrics.
fn scrape([a, up_to_2_ms, all]: [u32; 3], started: f64) -> String {
    format!(
        "# HELP a_total of \"quotes\" and {{braces}}\n\
         a_total{{kind=\"x\\\"}}\\\"y\",other=\"1\"}} {a}\n\
         a_total{{kind=\"z\"}} 4\n\
         t_bucket{{le=\"0.001\"}} 10\n\
         t_bucket{{le=\"0.002\"}} {up_to_2_ms}\n\
         t_bucket{{le=\"+Inf\"}} {all}\n\
         process_start_time_seconds {started}\n"
    )
}

#[test]
fn the_scripts_of_the_page_count_right() {
    const TEST: &str = "the_scripts_of_the_page_count_right";
    let cluster = Cluster::start(1);
    let Some(mut browser) = Browser::start(TEST, cluster.files()) else { return };
    let origin = url(&cluster, 1);
    browser.open(&origin);
    browser.await_true("document.querySelectorAll('#shards tbody tr').length > 0");
    for (name, clock_s, text) in [
        ("first", 0, scrape([3, 30, 40], 7.5)),
        ("later", 5, scrape([13, 130, 140], 7.5)),
        ("restarted", 5, scrape([13, 130, 140], 9.0)),
    ] {
        let text = serde_json::Value::from(text);
        browser.value(&format!("globalThis.{name} = {{ clock_s: {clock_s}, metrics: new Metrics({text}) }}; 0"));
    }
    let facts = [
        // What a scrape says.
        "first.metrics.sum('a_total') === 7",
        "first.metrics.sum('a_total', ({ other }) => other === '1') === 3",
        "first.metrics.all('none').length === 0",
        // Ten more in five seconds; nothing is known over a restart, nor at first.
        "rate(interval(first, later), 'a_total') === 2",
        "rate(interval(first, restarted), 'a_total') === null",
        "rate(interval(null, later), 'a_total') === null",
        // A hundred values between 1 and 2 ms.
        "quantile(grown(interval(first, later), 't'), 0.5) === 0.0015",
        "quantile(grown(interval(first, first), 't'), 0.5) === null",
        "quantile(grown(interval(first, restarted), 't'), 0.5) === null",
        // A quantile beyond the last bound is not known to be more than that.
        "quantile([[1, 0], [2, 0], [Infinity, 5]], 0.99) === 2",
        // How many are surely slower: only at the bounds of buckets.
        "JSON.stringify(above([[1, 5], [2, 8], [4, 9], [Infinity, 10]], 1.5)) === '{\"bound\":2,\"count\":2}'",
        "above([[1, 5], [Infinity, 10]], 3).count === 0",
        // Bytes as text and in paths.
        "asText(new Uint8Array([0xff])) === null && asHex(new Uint8Array([0, 0xff])) === '0x00ff'",
        "keyPath(new TextEncoder().encode('a/ü.%')) === '/v1/kv/a%2f%c3%bc%2e%25'",
        "(() => { try { keyPath(new TextEncoder().encode('..')); } catch { return true; } })()",
        "[milliseconds(null), milliseconds(0.00042), milliseconds(16.777)].join() === '–,0.42 ms,16.8 s'",
        "[bytes(0), bytes(1023), bytes(1536), bytes(1 << 30)].join() === '0 B,1023 B,1.5 KiB,1.0 GiB'",
    ];
    for fact in facts {
        assert_eq!(browser.value(fact), true, "{fact}");
    }
    check(&mut browser, &origin);
}
