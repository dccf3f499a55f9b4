//! Every operation against one node and three, through every node, so that most requests are forwarded.

use std::collections::BTreeMap;

use raftkv::client::{Condition, ErrorKind, Item, NodeId, Role, ScanOptions};
use raftkv_protocol::client::{Code, Operation, Scan};
use raftkv_protocol::types::Index;

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire, delete, get, put, stale_get};

const KEY_BYTES_MAX: usize = 4 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;

#[track_caller]
fn put_if(wire: &mut Wire, key: &str, value: &str, condition: Condition) -> Result<u64, Code> {
    let replied = wire.ask(Operation::Put { key: key.as_bytes(), value: value.as_bytes(), condition });
    match replied.said {
        Said::Put => Ok(replied.at.index.0),
        said => Err(said.code().unwrap_or_else(|| panic!("no answer to a put: {said:?}"))),
    }
}

#[track_caller]
fn delete_if(wire: &mut Wire, key: &str, condition: Condition) -> Result<bool, Code> {
    match wire.ask(Operation::Delete { key: key.as_bytes(), condition }).said {
        Said::Deleted { existed } => Ok(existed),
        said => Err(said.code().unwrap_or_else(|| panic!("no answer to a delete: {said:?}"))),
    }
}

/// One key's life, from absent to absent.
fn exercise(wire: &mut Wire, key: &str) {
    assert_eq!(wire.get(key), None);
    let first = wire.put(key, "one");
    assert_eq!(wire.get(key), Some((first, b"one".to_vec())));
    let second = wire.put(key, "two");
    assert!(second > first, "versions grow: {first}, then {second}");
    assert_eq!(wire.get(key), Some((second, b"two".to_vec())));

    assert_eq!(put_if(wire, key, "no", Condition::Absent), Err(Code::PreconditionFailed));
    assert_eq!(put_if(wire, key, "no", Condition::Version(Index(first))), Err(Code::PreconditionFailed));
    assert_eq!(delete_if(wire, key, Condition::Version(Index(first))), Err(Code::PreconditionFailed));
    assert_eq!(delete_if(wire, key, Condition::Absent), Err(Code::PreconditionFailed));
    assert_eq!(wire.get(key), Some((second, b"two".to_vec())), "what was refused must not have happened");

    let third = put_if(wire, key, "three", Condition::Version(Index(second))).expect("the version is right");
    let fourth = put_if(wire, key, "four", Condition::Exists).expect("the key exists");
    assert!(fourth > third && third > second);
    assert_eq!(wire.get(key), Some((fourth, b"four".to_vec())));

    assert_eq!(delete_if(wire, key, Condition::Version(Index(fourth))), Ok(true));
    assert_eq!(wire.get(key), None);
    assert_eq!(wire.ask(delete(key.as_bytes())).said, Said::Deleted { existed: false });
    assert_eq!(put_if(wire, key, "no", Condition::Exists), Err(Code::PreconditionFailed));
    let again = put_if(wire, key, "again", Condition::Absent).expect("the key is absent");
    assert!(again > fourth, "versions grow over a delete: {fourth}, then {again}");
    assert_eq!(delete_if(wire, key, Condition::Exists), Ok(true));
}

fn exercise_every_shard_through_every_node(cluster: &Cluster) {
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        for key in cluster.keys_for_all_shards("key") {
            exercise(&mut wire, &key);
        }
        let led = cluster.leaders().values().filter(|leader| **leader == id).count();
        let forwarded = wire.counter("forwards_sent");
        assert_eq!(forwarded > 0, led < 6, "node {id} leads {led} of 6 shards and forwarded {forwarded} requests");
    }
}

#[test]
fn one_node_serves_every_operation() {
    exercise_every_shard_through_every_node(&Cluster::start(1));
}

#[test]
fn each_of_three_nodes_serves_every_operation_on_every_shard() {
    exercise_every_shard_through_every_node(&Cluster::start(3));
}

/// Connections, shards and peers' links lie on different cores, and nodes may differ in their number.
#[test]
fn nodes_of_several_cores_serve_every_operation_on_every_shard() {
    let mut cluster = Cluster::of(3).flag("--cores=3").idle();
    cluster.spawn(1);
    cluster.spawn(3);
    cluster.set_flag("--cores=2");
    cluster.restart_all();
    exercise_every_shard_through_every_node(&cluster);
}

#[test]
fn values_and_keys_of_every_allowed_length_are_served_and_longer_ones_refused_by_name() {
    let cluster = Cluster::start(3);
    let longest_key = vec![b'k'; KEY_BYTES_MAX];
    let longest_value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    let too_long = [longest_value.as_slice(), b"x"].concat();
    let too_long_key = [longest_key.as_slice(), b"k"].concat();
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        let empty = wire.put("empty", "");
        assert_eq!(wire.get("empty"), Some((empty, Vec::new())));
        for value in [&longest_value[..], &longest_value[..VALUE_BYTES_MAX - 1]] {
            let version = wire.put(&longest_key, value);
            let (read_version, read) = wire.get(&longest_key).expect("just written");
            assert!(read_version == version && read == value, "{} bytes came back as {}", value.len(), read.len());
        }
        let before = wire.counter("refused_too_large");
        for (operation, limit) in [
            (put(b"k", &too_long), VALUE_BYTES_MAX),
            (put(&too_long_key, b""), KEY_BYTES_MAX),
            (get(&too_long_key), KEY_BYTES_MAX),
            (stale_get(&too_long_key), KEY_BYTES_MAX),
            (delete(&too_long_key), KEY_BYTES_MAX),
            (Operation::Scan(Scan { prefix: &too_long_key, ..Scan::default() }), KEY_BYTES_MAX),
        ] {
            let Said::Refused { code, message, .. } = wire.ask(operation).said else { panic!("served") };
            assert_eq!(code, Code::TooLarge);
            assert!(message.contains(&limit.to_string()), "the limit {limit} is not named: {message}");
        }
        assert_eq!(wire.counter("refused_too_large"), before + 6);
        assert_eq!(wire.get("k"), None, "what was refused must not have happened");
    }
}

#[test]
fn an_empty_key_is_a_bad_request() {
    let cluster = Cluster::start(1);
    let mut wire = cluster.wire(1);
    for operation in [put(b"", b"v"), get(b""), stale_get(b""), delete(b"")] {
        assert_eq!(wire.ask(operation).said.code(), Some(Code::BadRequest));
    }
    assert_eq!(wire.counter("refused_bad_request"), 4);
    let version = wire.put("k", "v");
    assert_eq!(wire.get("k"), Some((version, b"v".to_vec())), "the connection stays usable");
}

/// What scans are compared with.
type Model = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

fn expected(model: &Model, scan: &Scan<'_>) -> Vec<Item> {
    let wanted =
        |key: &[u8]| key.starts_with(scan.prefix) && key >= scan.start && (scan.end.is_empty() || key < scan.end);
    let items = model.iter().filter(|(key, _)| wanted(key));
    let own = |(key, (version, value)): (&Vec<u8>, &(u64, Vec<u8>))| Item {
        key: key.clone(),
        version: Index(*version),
        value: value.clone(),
    };
    if scan.reverse { items.rev().map(own).collect() } else { items.map(own).collect() }
}

/// All pages of a scan, one after the other.
fn pages(wire: &mut Wire, scan: &Scan<'_>) -> Vec<Item> {
    let mut all: Vec<Item> = Vec::new();
    loop {
        let cursor = all.last().map_or(Vec::new(), |item| item.key.clone());
        let (items, more) = wire.scan(Scan { cursor: &cursor, ..*scan });
        assert!(!(more && items.is_empty()), "an empty page cannot be followed by another");
        assert!(scan.limit == 0 || items.len() <= scan.limit as usize);
        all.extend(items);
        if !more {
            return all;
        }
        assert!(all.len() <= 10_000, "the scan does not end");
    }
}

#[test]
fn scans_are_ordered_and_complete_over_all_shards_through_every_node() {
    let cluster = Cluster::start(3);
    let mut model = Model::new();
    let mut wire = cluster.wire(1);
    let keys = (0..150u32).flat_map(|n| [format!("a/{n:03}"), format!("b/{}", n % 40)]);
    let odd: [&[u8]; 4] = [b"\x00", b"a/", b"a0", b"\xff\xff"];
    for key in keys.map(String::into_bytes).chain(odd.map(<[u8]>::to_vec)) {
        let value = key.repeat(2);
        let version = wire.put(&key, &value);
        model.insert(key, (version, value));
    }
    let all = Scan::default();
    let scans = [
        all,
        Scan { prefix: b"a/", ..all },
        Scan { prefix: b"b/1", ..all },
        Scan { prefix: b"\xff", ..all },
        Scan { prefix: b"nothing", ..all },
        Scan { start: b"a/050", end: b"a/100", ..all },
        Scan { start: b"a/149", ..all },
        Scan { end: b"a/001", ..all },
        Scan { prefix: b"a/", start: b"a/140", end: b"b", ..all },
        Scan { start: b"b", end: b"a", ..all },
    ];
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        for scan in scans {
            for (reverse, limit) in [(false, 0), (true, 0), (false, 7), (true, 7), (false, 1)] {
                let scan = Scan { reverse, limit, ..scan };
                let expected = expected(&model, &scan);
                if limit == 1 && expected.len() > 60 {
                    continue;
                }
                assert!(pages(&mut wire, &scan) == expected, "through node {id}: {scan:?}");
            }
        }
    }
    wire.ask(delete(b"a/007"));
    assert_eq!(wire.scan(Scan { prefix: b"a/007", ..all }), (Vec::new(), false));
}

#[test]
fn a_page_is_bounded_in_bytes_but_holds_at_least_one_item() {
    let cluster = Cluster::of(1).flag("--scan-bytes-max=10000").start();
    let mut wire = cluster.wire(1);
    let value = vec![b'v'; 4_000];
    for n in 0..10 {
        wire.put(format!("key{n}"), &value);
    }
    wire.put("large", vec![b'l'; 50_000]);
    let (items, more) = wire.scan(Scan::default());
    assert!(more && items.len() == 2, "{} items of 4 kB in a page of 10 kB", items.len());
    assert_eq!(pages(&mut wire, &Scan::default()).len(), 11);
    let (items, more) = wire.scan(Scan { prefix: b"large", ..Scan::default() });
    assert!(!more && items.len() == 1);
}

#[test]
fn every_node_answers_stale_reads_by_itself() {
    let cluster = Cluster::start(3);
    let mut wire = cluster.wire(1);
    let keys = cluster.keys_for_all_shards("key");
    let versions: Vec<u64> = keys.iter().map(|key| wire.put(key, "value")).collect();
    cluster.await_convergence();
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        let before = wire.counter("forwards_sent");
        for (key, version) in keys.iter().zip(&versions) {
            let said = wire.ask(stale_get(key.as_bytes())).said;
            assert_eq!(said, Said::Value { version: *version, bytes: b"value".to_vec() });
        }
        assert_eq!(wire.counter("forwards_sent"), before, "a stale read is never forwarded");
    }
}

#[test]
fn slots_status_and_ping_tell_the_truth() {
    let cluster = Cluster::start(3);
    let leaders = cluster.leaders();
    let addresses: Vec<(NodeId, String)> =
        cluster.ids().into_iter().map(|id| (NodeId(id), cluster.address(id).to_string())).collect();
    let mut clusters = Vec::new();
    for id in cluster.ids() {
        let mut wire = cluster.wire(id);
        assert_eq!(wire.ask(Operation::Ping).said, Said::Pong);
        let Said::Slots(table) = wire.ask(Operation::Slots).said else { panic!("no slots") };
        assert_eq!(table.nodes, addresses);
        let told: Vec<Option<NodeId>> = table.leaders.iter().map(|(leader, _)| *leader).collect();
        let known: Vec<Option<NodeId>> = leaders.values().map(|leader| Some(NodeId(*leader))).collect();
        assert_eq!(told, known);
        let status = wire.status();
        assert_eq!((status.node, &status.nodes), (NodeId(id), &addresses));
        assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(status.shards.len(), 6);
        for shard in &status.shards {
            let expected = if leaders[&shard.id] == id { Role::Leader } else { Role::Follower };
            assert_eq!(shard.role, expected);
            assert!(shard.term.0 >= 1 && shard.applied <= shard.commit && shard.commit <= shard.last.index);
        }
        assert!(status.counters.iter().any(|(name, value)| name == "connections_open" && *value >= 1));
        clusters.push((status.cluster, table.cluster));
    }
    assert!(clusters.iter().all(|ids| *ids == (clusters[0].0, clusters[0].0)), "{clusters:?}");
}

// rule 30
#[test]
fn leaders_spread_over_the_nodes() {
    let cluster = Cluster::start(3);
    eventually(PATIENCE, "every node leads two of six shards", || {
        let leaders = cluster.leaders();
        let led = |id: u64| leaders.values().filter(|leader| **leader == id).count();
        cluster.ids().into_iter().all(|id| led(id) == 2).then_some(())
    });
}

#[test]
fn the_client_library_serves_every_operation() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let version = client.put("user/1", "Ada").expect("written");
    let value = client.get("user/1").expect("read").expect("exists");
    assert_eq!((value.version, value.bytes.as_slice()), (version, &b"Ada"[..]));
    assert_eq!(client.get("user/2").expect("read"), None);
    let error = client.put_if("user/1", "Eve", Condition::Absent).expect_err("exists");
    assert!(error.kind() == ErrorKind::PreconditionFailed && !error.maybe_applied());
    let newer = client.put_if("user/1", "Ada L.", Condition::Version(version)).expect("written");
    assert!(newer > version);
    for n in 0..50 {
        client.put(format!("item/{n:02}"), n.to_string()).expect("written");
    }
    let pages: Vec<_> =
        client.scan_all(ScanOptions::prefix("item/").limit(20)).map(|page| page.expect("read")).collect();
    let keys: Vec<Vec<u8>> = pages.iter().flat_map(|page| page.items.iter().map(|item| item.key.clone())).collect();
    assert_eq!(keys, (0..50).map(|n| format!("item/{n:02}").into_bytes()).collect::<Vec<_>>());
    assert!(client.delete("user/1").expect("deleted"));
    assert!(!client.delete("user/1").expect("deleted"));
    let error = client.put("", "v").expect_err("the key is empty");
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    let error = client.put("k", vec![0; VALUE_BYTES_MAX + 1]).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    for id in cluster.ids() {
        assert_eq!(client.status(NodeId(id)).expect("answers").node, NodeId(id));
    }
    assert_eq!(client.slots().expect("answers").leaders.len(), 6);
    client.ping().expect("answers");
}
