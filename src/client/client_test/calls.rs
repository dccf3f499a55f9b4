//! What calls return when nothing breaks, and where requests go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raftkv_protocol::client::{
    Answer, Change, Code, Existed, Item as WireItem, Operation, Page as WirePage, Request, Status,
};
use raftkv_protocol::types::{EntryId, Index, NodeId, Slot, Term};

use super::fake_node::FakeNode;
use super::scripted::{Next, SharedTable, answer, lock, refuse, table_of};
use super::{connect, eventually};
use crate::client::{Batch, Batched, Condition, Consistency, ErrorKind, Item, ScanOptions, Value};

type Map = Arc<Mutex<BTreeMap<Vec<u8>, (Index, Vec<u8>)>>>;

/// A node that keeps a map, without conditions; every key holds at most 3 bytes in a page of at most 2 items.
fn map_node(id: u64, table: &SharedTable) -> FakeNode {
    let map: Map = Arc::default();
    let mut versions = 0..;
    let versions = Mutex::new(move || EntryId::new(versions.next().unwrap() + 1, 1));
    FakeNode::start(id, table, move |request, out| {
        let mut map = lock(&map);
        let at = lock(&versions)();
        match request.operation {
            Operation::Put { key, value, .. } => {
                map.insert(key.to_vec(), (at.index, value.to_vec()));
                answer(out, request.id, at, Answer::Put);
            }
            Operation::Delete { key, .. } => {
                let existed = map.remove(key).is_some();
                answer(out, request.id, at, Answer::Deleted { existed });
            }
            Operation::Batch(batch) => {
                let mut existed = Existed::default();
                for (number, operation) in batch.operations().enumerate() {
                    match operation.change {
                        Change::Put(value) => _ = map.insert(operation.key.to_vec(), (at.index, value.to_vec())),
                        Change::Delete if map.remove(operation.key).is_some() => existed.insert(number),
                        Change::Delete => {}
                    }
                }
                answer(out, request.id, at, Answer::Batch { existed });
            }
            Operation::Get { key, .. } => match map.get(key) {
                Some((version, value)) => {
                    answer(out, request.id, at, Answer::Value { version: *version, value });
                }
                None => refuse(out, request.id, Code::NotFound, None),
            },
            Operation::Scan(scan) => {
                let mut after = map.iter().filter(|(key, _)| key.starts_with(scan.prefix) && &key[..] > scan.cursor);
                let items: Vec<_> = after
                    .by_ref()
                    .take(2)
                    .map(|(key, (version, value))| WireItem { key, version: *version, value })
                    .collect();
                let page = WirePage { items, more: after.next().is_some() };
                answer(out, request.id, at, Answer::Page(page));
            }
            Operation::Ping => answer(out, request.id, EntryId::ZERO, Answer::Pong),
            _ => {
                let status = Status { node: NodeId(id), ..Status::default() };
                answer(out, request.id, EntryId::ZERO, Answer::Status(Box::new(status)));
            }
        }
        Next::Go
    })
}

#[test]
fn calls_read_what_they_wrote() {
    let node = map_node(1, &table_of(3));
    let client = connect(&[&node]);
    let version = client.put(b"k", b"v").unwrap();
    assert_eq!(client.get(b"k").unwrap(), Some(Value { version, bytes: b"v".to_vec() }));
    assert_eq!(client.get_with(b"k", Consistency::Stale).unwrap().unwrap().version, version);
    assert!(client.delete(b"k").unwrap());
    assert!(!client.delete(b"k").unwrap());
    assert_eq!(client.get(b"k").unwrap(), None);
    client.ping().unwrap();
    assert_eq!(client.slots().unwrap().leaders.len(), 3);
}

#[test]
fn a_batch_tells_its_version_and_which_keys_it_has_removed() {
    let node = map_node(1, &table_of(1));
    let client = connect(&[&node]);
    client.put("b", "old").unwrap();
    let batch = Batch::new().put("a", "1").delete("b").delete("c").put_if("d", "", Condition::Absent);
    assert_eq!((batch.len(), batch.is_empty(), Batch::new().is_empty()), (4, false, true));
    let Batched { version, deleted } = client.batch(batch).unwrap();
    assert_eq!(deleted, [false, true, false, false]);
    assert_eq!(client.get("a").unwrap(), Some(Value { version, bytes: b"1".to_vec() }));
    assert_eq!(client.get("b").unwrap(), None);
}

#[test]
fn values_larger_than_any_buffer_come_back_whole() {
    let node = map_node(1, &table_of(1));
    let client = connect(&[&node]);
    let value: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    client.put("big", &value).unwrap();
    assert_eq!(client.get("big").unwrap().unwrap().bytes, value);
    client.put("small", "s").unwrap();
    assert_eq!(client.get("small").unwrap().unwrap().bytes, b"s");
}

#[test]
fn a_request_that_no_frame_can_carry_never_leaves() {
    let node = map_node(1, &table_of(1));
    let client = connect(&[&node]);
    for error in [
        client.put("k", vec![0; 3 << 19]).unwrap_err(),
        client.get(vec![0; 1 << 16]).unwrap_err(),
        client.scan(ScanOptions::all().end(vec![0; 1 << 16])).unwrap_err(),
        client.batch(Batch::new().put("k", "").delete(vec![0; 1 << 16])).unwrap_err(),
        client.batch(Batch::new().put("a", vec![0; 1 << 20]).put("b", vec![0; 1 << 19])).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::TooLarge, false));
    }
    assert_eq!(node.requests(), 0);
}

#[test]
fn a_scan_goes_on_from_page_to_page() {
    let node = map_node(1, &table_of(1));
    let client = connect(&[&node]);
    for key in ["a1", "a2", "a3", "a4", "a5", "b"] {
        client.put(key, key).unwrap();
    }
    let pages: Vec<Vec<Item>> = client
        .scan_all(ScanOptions::prefix("a"))
        .map(|page| page.map(|page| page.items))
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    let keys: Vec<_> = pages.iter().flatten().map(|item| String::from_utf8(item.key.clone()).unwrap()).collect();
    assert_eq!(keys, ["a1", "a2", "a3", "a4", "a5"]);
    assert_eq!(client.scan(ScanOptions::prefix("a").cursor("a5")).unwrap().cursor, None);
}

#[test]
fn options_of_a_request_arrive() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let node = FakeNode::start(1, &table_of(1), move |request: &Request<'_>, out| {
        lock(&record).push(format!("{:?}", request.operation));
        refuse(out, request.id, Code::PreconditionFailed, None);
        Next::Go
    });
    let client = connect(&[&node]);
    let error = client.put_if("k", "v", Condition::Version(Index(4))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
    assert!(!error.maybe_applied() && !error.is_retryable());
    client.delete_if("k", Condition::Exists).unwrap_err();
    client.batch(Batch::new().put_if("k", "v", Condition::Exists).delete_if("l", Condition::Absent)).unwrap_err();
    client.scan(ScanOptions::range("b", "d").reverse().limit(9).consistency(Consistency::Lease)).unwrap_err();
    let seen = lock(&seen).join("\n");
    for part in
        ["Version(Index(4))", "condition: Exists", "start: [98]", "end: [100]", "limit: 9", "reverse: true", "Lease"]
    {
        assert!(seen.contains(part), "{part} in\n{seen}");
    }
}

#[test]
fn each_key_goes_to_its_leader() {
    let table = table_of(2);
    let (one, two) = (map_node(1, &table), map_node(2, &table));
    lock(&table).leaders = vec![(Some(NodeId(1)), Term(1)), (Some(NodeId(2)), Term(1))];
    let client = connect(&[&one]);
    let keys: Vec<String> = (0..40).map(|n| format!("key {n}")).collect();
    let of_one = keys.iter().filter(|key| Slot::of(key.as_bytes()).shard(2).0 == 0).count();
    assert!(of_one > 0 && of_one < keys.len(), "both shards have keys");
    for key in &keys {
        client.put(key, "v").unwrap();
    }
    assert_eq!((one.requests(), two.requests()), (of_one, keys.len() - of_one));
}

#[test]
fn several_connections_share_a_nodes_shards() {
    let node = map_node(1, &table_of(8));
    let client = super::builder(&[&node]).connections_per_node(3).connect().unwrap();
    for n in 0..50 {
        client.put(format!("key {n}"), "v").unwrap();
    }
    assert_eq!(node.open_connections(), 3);
}

#[test]
fn stale_reads_are_spread() {
    let table = table_of(1);
    let nodes = [map_node(1, &table), map_node(2, &table), map_node(3, &table)];
    let client = connect(&[&nodes[0]]);
    for _ in 0..9 {
        assert_eq!(client.get_with("k", Consistency::Stale).unwrap(), None);
    }
    assert!(nodes.iter().all(|node| node.requests() >= 2), "{:?}", nodes.map(|node| node.requests()));
}

#[test]
fn status_asks_the_node_that_is_meant() {
    let table = table_of(1);
    let (one, two) = (map_node(1, &table), map_node(2, &table));
    let client = connect(&[&one]);
    assert_eq!(client.status(NodeId(2)).unwrap().node, NodeId(2));
    assert_eq!(client.status(two.endpoint()).unwrap().node, NodeId(2));
    assert_eq!(client.status(one.endpoint().as_str()).unwrap().node, NodeId(1));
    let error = client.status(NodeId(9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    assert!(error.message().contains("no node 9"), "{error}");
}

#[test]
fn a_node_known_by_a_host_name_is_one_node() {
    let table = table_of(1);
    let node = map_node(1, &table);
    let client = crate::client::Client::connect(format!("localhost:{}", node.address.port())).unwrap();
    client.put("k", "v").unwrap();
    assert_eq!(node.open_connections(), 1);
}

#[test]
fn the_last_client_dropped_closes_the_connections() {
    let node = map_node(1, &table_of(1));
    let client = connect(&[&node]);
    let pipeline = client.pipeline();
    assert_eq!(node.open_connections(), 1);
    drop(client);
    pipeline.put("k", "v").unwrap().wait().unwrap();
    drop(pipeline);
    eventually("the node sees the connection end", || node.open_connections() == 0);
}
