//! The description of the REST API: that it is served, names every path and no other, and promises what is answered.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::http::{Http, http, http_address};
use crate::support::openapi::{DOCUMENT, OpenApi};

const ROUTERS: &str = concat!(include_str!("../../src/api/rest/mod.rs"), include_str!("../../src/api/rest/ui/mod.rs"));
const REFERENCE: &str = include_str!("../../docs/rest.md");

#[test]
fn every_node_serves_the_description() {
    let cluster = Cluster::start(1);
    let mut http = http(&cluster, 1);
    let answer = http.ask("GET", "/openapi.json", &[], b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.text(), DOCUMENT);
    let document: Value = serde_json::from_str(answer.text()).expect("it is JSON");
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&"3.1.0".into(), &env!("CARGO_PKG_VERSION").into())
    );
}

/// Every reference of the document leads somewhere, and everything that can be referred to is.
#[test]
fn references_of_the_description_are_whole() {
    fn gather<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| gather(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, found)),
            _ => {}
        }
    }
    let api = OpenApi::new();
    let mut found = BTreeSet::new();
    gather(&api.0, &mut found);
    let components = api.0["components"].as_object().expect("components").iter();
    let known: Vec<String> = components
        .flat_map(|(kind, all)| all.as_object().expect("components").keys().map(move |name| (kind, name)))
        .map(|(kind, name)| format!("#/components/{kind}/{name}"))
        .collect();
    assert_eq!(found, known.iter().map(String::as_str).collect());
}

#[test]
fn the_description_names_every_path_of_the_router_and_no_other() {
    let api = OpenApi::new();
    let routes = ROUTERS.split(".route(\"").skip(1).filter_map(|rest| rest.split_once("\", "));
    // What is behind the last slash is a key: this route says that there is none.
    let routes = routes.filter(|(path, _)| *path != "/v1/kv/");
    let named = |method: &str, handlers: &str| handlers.contains(&format!("{method}("));
    let mut expected = BTreeSet::new();
    for (path, rest) in routes {
        let handlers = rest.lines().next().expect("a line");
        let path = path.replace("{*key}", "{key}");
        expected.extend(
            ["get", "put", "post", "delete"]
                .into_iter()
                .filter(|method| named(method, handlers))
                .map(|method| (method, path.clone())),
        );
    }
    expected.insert(("head", "/v1/kv/{key}".to_owned()));
    let described = api.operations().into_iter().map(|(method, path, _)| (method, path.to_owned())).collect();
    assert_eq!(expected, described);
}

#[test]
fn the_reference_and_the_description_know_the_same() {
    let api = OpenApi::new();
    for (method, path, operation) in api.operations() {
        assert!(REFERENCE.contains(&format!("`{} {path}", method.to_uppercase())), "{method} {path}");
        let own = operation["parameters"].as_array().into_iter().flatten();
        for parameter in own.map(|parameter| api.resolve(parameter)) {
            let name = parameter["name"].as_str().expect("a name");
            assert!(REFERENCE.contains(name), "{method} {path} takes {name}, which docs/rest.md does not tell");
        }
    }
    let (_, table) = REFERENCE.split_once("| status | `code` | meaning |").expect("the refusals");
    let (table, _) = table.split_once("\n\n").expect("the end of the table");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let told: BTreeSet<u16> =
        cells.flat_map(|cell| cell.split(", ")).filter_map(|status| status.parse().ok()).collect();
    let described: BTreeSet<u16> = api.operations().into_iter().flat_map(|(_, _, it)| OpenApi::statuses(it)).collect();
    // 405 is the answer to what is no operation; 431 is told below the table.
    let described = described.into_iter().filter(|status| *status >= 400 && *status != 431);
    assert_eq!(described.collect::<BTreeSet<_>>(), told.into_iter().filter(|status| *status != 405).collect());
    for code in api.0["components"]["schemas"]["Code"]["enum"].as_array().expect("codes") {
        assert!(table.contains(code.as_str().expect("text")), "{code}");
    }
}

/// Method, path as it is described, path as it is asked for, headers, body, and the status of the answer.
type Call<'a> = (&'a str, &'a str, &'a str, Headers<'a>, &'a [u8], u16);
type Headers<'a> = &'a [(&'a str, &'a str)];

#[test]
fn what_is_answered_is_described() {
    let cluster = Cluster::of(1).flag("--value-bytes-max=1KiB").start();
    let mut http = http(&cluster, 1);
    let api = OpenApi::new();
    let long_key = format!("/v1/kv/{}", "k".repeat(4_097));
    let delete = r#"{"operations":[{"op":"delete","key":"aw==","if_match":"*"}]}"#;
    let twice = r#"{"operations":[{"op":"delete","key":"aw=="},{"op":"delete","key":"aw=="}]}"#;
    let long = format!(r#"{{"operations":[{}{{}}]}}"#, r#"{"op":"delete","key":"aw=="},"#.repeat(200));
    let none: Headers<'_> = &[];
    let key = "/v1/kv/{key}";
    let calls: &[Call<'_>] = &[
        ("PUT", key, "/v1/kv/k", none, b"v", 200),
        ("PUT", key, "/v1/kv/k?x", none, b"v", 400),
        ("PUT", key, "/v1/kv/k", &[("if-none-match", "*")], b"v", 412),
        ("PUT", key, "/v1/kv/k", none, &[0; 2_000], 413),
        ("GET", key, "/v1/kv/k", none, b"", 200),
        ("GET", key, "/v1/kv/k", &[("accept", "application/json")], b"", 200),
        ("GET", key, "/v1/kv/k", &[("if-none-match", "*")], b"", 304),
        ("GET", key, "/v1/kv/k?consistency=x", none, b"", 400),
        ("GET", key, "/v1/kv/none", none, b"", 404),
        ("GET", key, &long_key, none, b"", 413),
        ("HEAD", key, "/v1/kv/k", none, b"", 200),
        ("HEAD", key, "/v1/kv/k", &[("if-none-match", "*")], b"", 304),
        ("HEAD", key, "/v1/kv/k?x", none, b"", 400),
        ("HEAD", key, "/v1/kv/none", none, b"", 404),
        ("HEAD", key, &long_key, none, b"", 413),
        ("POST", "/v1/batch", "/v1/batch", none, delete.as_bytes(), 200),
        ("POST", "/v1/batch", "/v1/batch", none, delete.as_bytes(), 412),
        ("POST", "/v1/batch", "/v1/batch", none, twice.as_bytes(), 400),
        ("POST", "/v1/batch", "/v1/batch", none, long.as_bytes(), 413),
        ("DELETE", key, "/v1/kv/k", &[("if-match", "\"1\"")], b"", 412),
        ("DELETE", key, "/v1/kv/k", none, b"", 200),
        ("DELETE", key, "/v1/kv/k?x", none, b"", 400),
        ("DELETE", key, &long_key, none, b"", 413),
        ("GET", "/v1/kv", "/v1/kv", none, b"", 200),
        ("GET", "/v1/kv", "/v1/kv?limit=0&page", none, b"", 200),
        ("GET", "/v1/kv", "/v1/kv?limit=x", none, b"", 400),
        ("GET", "/v1/kv", &long_key.replace("/v1/kv/", "/v1/kv?start="), none, b"", 413),
        ("GET", "/v1/status", "/v1/status", none, b"", 200),
        ("GET", "/v1/status", "/v1/status?x", none, b"", 400),
        ("GET", "/v1/cluster", "/v1/cluster", none, b"", 200),
        ("GET", "/v1/cluster", "/v1/cluster?x", none, b"", 400),
        ("GET", "/", "/", none, b"", 200),
        ("GET", "/", "/", &[("if-none-match", "*")], b"", 200),
        ("GET", "/v1/ui", "/v1/ui", none, b"", 200),
        ("GET", "/metrics", "/metrics", none, b"", 200),
        ("GET", "/metrics", "/metrics", &[("accept", "application/openmetrics-text")], b"", 200),
        ("GET", "/metrics", "/metrics?x", none, b"", 400),
        ("GET", "/livez", "/livez?verbose", none, b"", 200),
        ("GET", "/livez", "/livez?x", none, b"", 400),
        ("GET", "/readyz", "/readyz?verbose=x", none, b"", 400),
        ("GET", "/openapi.json", "/openapi.json", none, b"", 200),
        ("GET", "/openapi.json", "/openapi.json?x", none, b"", 400),
    ];
    for (method, path, asked, headers, body, status) in calls {
        let answer = http.ask(method, asked, headers, body);
        assert_eq!(answer.status, *status, "{method} {asked}: {answer:?}");
        api.check(method, path, &answer);
        if answer.header("connection") == Some("close") {
            http = Http::connect(http_address(cluster.address(1)));
        }
    }
}
