//! REST over HTTP/1.1.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use raftkv::client::Item;
use raftkv_protocol::client::{Batch, Change, Code, Condition, Consistency, Operation, Scan};
use serde_json::{Value, json};

use crate::binary::sorted;
use crate::face::{Face, More, NodeState, Outcome, Page, ShardState};
use crate::support::http::{Http, Response, http_address, request};
use crate::support::openapi::OpenApi;

/// The longest value: one that is announced as longer is refused before it is sent.
const VALUE_BYTES_MAX: usize = 1 << 20;

pub struct Rest {
    node: u64,
    address: SocketAddr,
    http: Http,
    /// What it promises.
    api: OpenApi,
}

impl Rest {
    pub fn connect(node: u64, listen: SocketAddr) -> Rest {
        let address = http_address(listen);
        Rest { node, address, http: Http::connect(address), api: OpenApi::new() }
    }

    fn put(&mut self, key: &[u8], value: &[u8], condition: Condition) -> Response {
        let headers = headers(condition);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if value.len() <= VALUE_BYTES_MAX {
            return self.http.ask("PUT", &path(key), &headers, value);
        }
        let whole = request("PUT", &path(key), &headers, value);
        self.http.send(&whole[..whole.len() - value.len()]);
        let refused = self.http.response(false).expect("a response");
        self.http = Http::connect(self.address);
        refused
    }

    fn delete(&mut self, key: &[u8], condition: Condition) -> Response {
        let headers = headers(condition);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.http.ask("DELETE", &path(key), &headers, b"")
    }
}

impl Face for Rest {
    fn name(&self) -> String {
        format!("REST by way of node {}", self.node)
    }

    fn ask(&mut self, operation: Operation<'_>) -> Outcome {
        let response = match operation {
            Operation::Put { key, value, condition } => self.put(key, value, condition),
            Operation::Delete { key, condition } => self.delete(key, condition),
            Operation::Batch(batch) => self.http.ask(
                "POST",
                "/v1/batch",
                &[],
                json!({ "operations": operations(batch) }).to_string().as_bytes(),
            ),
            Operation::Get { key, consistency } => {
                self.http.ask("GET", &format!("{}?consistency={}", path(key), name(consistency)), &[], b"")
            }
            Operation::Scan(scan) => self.http.ask("GET", &format!("{}&page=true", scan_path(&scan)), &[], b""),
            operation => panic!("no case asks for {operation:?}"),
        };
        let (method, path) = match operation {
            Operation::Put { .. } => ("PUT", "/v1/kv/{key}"),
            Operation::Delete { .. } => ("DELETE", "/v1/kv/{key}"),
            Operation::Batch(_) => ("POST", "/v1/batch"),
            Operation::Get { .. } => ("GET", "/v1/kv/{key}"),
            _ => ("GET", "/v1/kv"),
        };
        self.api.check(method, path, &response);
        if response.status != 200 {
            return Outcome::Refused(refusal(&response));
        }
        match operation {
            Operation::Put { .. } => {
                let version = body(&response)["version"].as_u64().expect("a version");
                assert_eq!(response.header("etag"), Some(format!("\"{version}\"").as_str()));
                Outcome::Put { version }
            }
            Operation::Delete { .. } => {
                Outcome::Deleted { existed: body(&response)["deleted"].as_bool().expect("a flag") }
            }
            Operation::Batch(batch) => batched(batch, &body(&response)),
            Operation::Get { .. } => {
                let tag = response.header("etag").expect("a version").trim_matches('"');
                Outcome::Value { version: tag.parse().expect("a number"), bytes: response.body }
            }
            _ => Outcome::Page(page(&body(&response))),
        }
    }

    fn whole(&mut self, scan: &Scan<'_>) -> Vec<Item> {
        page(&body(&self.http.ask("GET", &scan_path(scan), &[], b""))).items
    }

    fn status(&mut self) -> NodeState {
        state(&body(&self.http.ask("GET", "/v1/status", &[], b"")))
    }
}

fn path(key: &[u8]) -> String {
    format!("/v1/kv/{}", percent_encode(key, NON_ALPHANUMERIC))
}

fn headers(condition: Condition) -> Vec<(&'static str, String)> {
    match condition {
        Condition::None => vec![],
        Condition::Version(version) => vec![("if-match", format!("\"{version}\""))],
        Condition::Exists => vec![("if-match", "*".to_owned())],
        Condition::Absent => vec![("if-none-match", "*".to_owned())],
    }
}

fn name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Lease => "lease",
        Consistency::Stale => "stale",
    }
}

fn operations(batch: Batch<'_>) -> Vec<Value> {
    let written = batch.operations().map(|operation| {
        let mut written = json!({ "op": "delete", "key": STANDARD.encode(operation.key) });
        if let Change::Put(value) = operation.change {
            written["op"] = "put".into();
            written["value"] = STANDARD.encode(value).into();
        }
        match operation.condition {
            Condition::None => {}
            Condition::Version(version) => written["if_match"] = version.0.into(),
            Condition::Exists => written["if_match"] = "*".into(),
            Condition::Absent => written["if_none_match"] = "*".into(),
        }
        written
    });
    written.collect()
}

fn batched(batch: Batch<'_>, body: &Value) -> Outcome {
    let results = body["results"].as_array().expect("results");
    assert_eq!(results.len(), batch.len());
    let mut versions = results.iter().filter_map(|result| result["version"].as_u64());
    let version = versions.next();
    assert!(versions.all(|other| Some(other) == version), "one entry has one index: {body}");
    for (operation, result) in batch.operations().zip(results) {
        let kind = if matches!(operation.change, Change::Put(_)) { "version" } else { "deleted" };
        assert!(result.get(kind).is_some(), "{kind} of {result}");
    }
    Outcome::Batch { version, deleted: results.iter().map(|result| result["deleted"] == true).collect() }
}

fn scan_path(scan: &Scan<'_>) -> String {
    let (reverse, consistency, limit) = (scan.reverse, name(scan.consistency), scan.limit);
    let mut path = format!("/v1/kv?reverse={reverse}&consistency={consistency}&limit={limit}");
    for (name, bound) in [("prefix", scan.prefix), ("start", scan.start), ("end", scan.end), ("cursor", scan.cursor)] {
        if !bound.is_empty() {
            path.push_str(&format!("&{name}={}", percent_encode(bound, NON_ALPHANUMERIC)));
        }
    }
    path
}

fn page(body: &Value) -> Page {
    let decoded = |text: &Value| STANDARD.decode(text.as_str().expect("text")).expect("base64");
    let item = |item: &Value| Item {
        key: decoded(&item["key"]),
        version: raftkv_protocol::types::Index(item["version"].as_u64().expect("a version")),
        value: decoded(&item["value"]),
    };
    let more = match &body["cursor"] {
        Value::Null => More::No,
        cursor => More::Yes(cursor.as_str().expect("text").as_bytes().to_vec()),
    };
    Page { items: body["items"].as_array().expect("items").iter().map(item).collect(), more }
}

fn body(response: &Response) -> Value {
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    serde_json::from_slice(&response.body).expect("JSON")
}

/// The code of a refusal, which has the status that docs/rest.md gives it.
fn refusal(response: &Response) -> Code {
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
    let problem: Value = serde_json::from_slice(&response.body).expect("JSON");
    let name = problem["code"].as_str().expect("a code");
    let code = Code::all().find(|code| code.name() == name).unwrap_or_else(|| panic!("no code is named {name}"));
    let status = match name {
        "bad_request" | "cross_shard" => 400,
        "not_found" => 404,
        "precondition_failed" => 412,
        "too_large" => 413,
        "timeout" => 504,
        "no_space" => 507,
        _ => 503,
    };
    assert_eq!((response.status, &problem["status"]), (status, &json!(status)), "{problem}");
    assert_eq!(problem["type"], format!("urn:raftkv:problem:{name}"));
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    assert_eq!(response.header("retry-after").is_some(), status == 503, "{response:?}");
    code
}

fn state(status: &Value) -> NodeState {
    let number = |value: &Value| value.as_u64().expect("a number");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let shard = |shard: &Value| ShardState {
        id: number(&shard["id"]),
        role: text(&shard["role"]),
        term: number(&shard["term"]),
        leader: shard["leader"].as_u64(),
        commit: number(&shard["commit"]),
        applied: number(&shard["applied"]),
        persisted: number(&shard["persisted"]),
        last_index: number(&shard["last_index"]),
        last_term: number(&shard["last_term"]),
        snapshot_index: number(&shard["snapshot_index"]),
        keys: number(&shard["keys"]),
        state_hash: u128::from_str_radix(&text(&shard["state_hash"]), 16).expect("hexadecimal"),
        is_repairing: shard["repairing"] == true,
        is_diverged: !shard["diverged"].is_null(),
    };
    NodeState {
        cluster: text(&status["cluster_id"]),
        node: number(&status["node_id"]),
        incarnation: text(&status["incarnation"]),
        version: text(&status["version"]),
        disk: text(&status["disk"]),
        members: list(&status["members"])
            .iter()
            .map(|member| (number(&member["id"]), text(&member["address"])))
            .collect(),
        shards: list(&status["shards"]).iter().map(shard).collect(),
        counters: sorted(status["counters"].as_object().expect("counters").keys().cloned()),
    }
}
