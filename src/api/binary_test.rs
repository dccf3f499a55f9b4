use raftkv_protocol::client::{BatchBuffer, BatchOperation, Change, Code, Condition, Consistency, Operation};
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloRole, VERSION_MAX};
use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId};

use super::binary::{check, check_hello, check_versions};
use crate::limits::Limits;

fn put(key: usize, value: usize) -> Result<(), Code> {
    let (key, value) = (vec![b'k'; key], vec![b'v'; value]);
    let operation = Operation::Put { key: &key, value: &value, condition: Condition::None };
    check(&operation, &Limits::default()).map_err(|(code, _)| code)
}

// rule 27
#[test]
fn keys_and_values_are_held_to_their_limits_exactly() {
    let Limits { key_bytes_max, value_bytes_max, .. } = Limits::default();
    assert_eq!(put(0, 0), Err(Code::BadRequest));
    assert_eq!(put(1, 0), Ok(()));
    assert_eq!(put(key_bytes_max - 1, value_bytes_max - 1), Ok(()));
    assert_eq!(put(key_bytes_max, value_bytes_max), Ok(()));
    assert_eq!(put(key_bytes_max + 1, 0), Err(Code::TooLarge));
    assert_eq!(put(1, value_bytes_max + 1), Err(Code::TooLarge));
}

fn batch<'a>(operations: impl IntoIterator<Item = (&'a [u8], Change<'a>)>) -> Result<(), (Code, String)> {
    let mut batch = BatchBuffer::default();
    for (key, change) in operations {
        batch.push(&BatchOperation { key, condition: Condition::None, change }).expect("no key is that long");
    }
    check(&Operation::Batch(batch.as_batch()), &Limits::default())
}

// rule 18
#[test]
fn batches_are_held_to_their_limits_exactly() {
    let keys: Vec<[u8; 4]> = (0..200_u32).map(u32::to_be_bytes).collect();
    let deletes = |count: usize| batch(keys[..count].iter().map(|key| (&key[..], Change::Delete))).map_err(|no| no.0);
    assert_eq!(deletes(0), Err(Code::BadRequest));
    assert_eq!(deletes(1), Ok(()));
    let Limits { batch_operations_max, batch_bytes_max, value_bytes_max, key_bytes_max, .. } = Limits::default();
    assert_eq!(deletes(batch_operations_max - 1), Ok(()));
    assert_eq!(deletes(batch_operations_max), Ok(()));
    assert_eq!(deletes(batch_operations_max + 1), Err(Code::TooLarge));
    let value = vec![0; value_bytes_max + 1];
    for (spare, expected) in [(-1, Ok(())), (0, Ok(())), (1, Err(Code::TooLarge))] {
        let rest = (batch_bytes_max - value_bytes_max - 2).strict_add_signed(spare);
        let puts = [(&b"a"[..], Change::Put(&value[..value_bytes_max])), (b"b", Change::Put(&value[..rest]))];
        assert_eq!(batch(puts).map_err(|no| no.0), expected, "{spare}");
    }
    let one = |key: usize, value_len| batch([(&value[..key], Change::Put(&value[..value_len]))]).map_err(|no| no.0);
    assert_eq!(one(1, value_bytes_max + 1), Err(Code::TooLarge));
    assert_eq!(one(key_bytes_max + 1, 0), Err(Code::TooLarge));
    assert_eq!(one(0, 0), Err(Code::BadRequest));
}

// rule 18
#[test]
fn a_batch_names_each_key_once() {
    let twice = [(&b"a"[..], Change::Delete), (b"b", Change::Put(b"")), (b"a", Change::Put(b""))];
    let words = "the batch names the key \"a\" twice: each operation needs another";
    assert_eq!(batch(twice), Err((Code::BadRequest, words.to_owned())));
    assert_eq!(batch([(&b"a"[..], Change::Delete), (b"b", Change::Put(b""))]), Ok(()));
}

#[test]
fn a_refusal_names_the_limit() {
    let key = [b'k'; 5000];
    let get = Operation::Get { key: &key, consistency: Consistency::Linearizable };
    let (code, words) = check(&get, &Limits::default()).expect_err("too long");
    assert_eq!(code, Code::TooLarge);
    assert_eq!(words, "the key has 5000 bytes, the limit is 4096 (--key-bytes-max of the server)");
}

fn hello(version: u16, cluster: u128, role: HelloRole) -> Result<u16, HelloRefusal> {
    let hello = Hello {
        version_min: version,
        version_max: version,
        cluster: ClusterId(cluster),
        role,
        features: 0,
        auth: Auth::default(),
    };
    let version = check_versions(hello.version_min, hello.version_max).map_err(|(reason, _)| reason)?;
    check_hello(&hello, ClusterId(7), NodeId(1), |node| node.0 <= 3).map(|()| version).map_err(|(reason, _)| reason)
}

fn peer(node: u64) -> HelloRole {
    HelloRole::Peer { node: NodeId(node), incarnation: Incarnation(5), core: CoreId(0) }
}

fn fetching_peer(node: u64) -> HelloRole {
    HelloRole::Snapshots { node: NodeId(node), incarnation: Incarnation(5), core: CoreId(0) }
}

/// museum 49
// museum 51
#[test]
fn only_members_of_this_cluster_become_peers() {
    let client = HelloRole::Client { home: None };
    assert_eq!(hello(VERSION_MAX, 7, client), Ok(VERSION_MAX));
    assert_eq!(hello(VERSION_MAX, 0, client), Ok(VERSION_MAX));
    assert_eq!(hello(VERSION_MAX, 8, client), Err(HelloRefusal::Cluster));
    assert_eq!(hello(VERSION_MAX + 1, 7, client), Err(HelloRefusal::Version));
    for of in [peer, fetching_peer] {
        assert_eq!(hello(VERSION_MAX, 7, of(2)), Ok(VERSION_MAX));
        assert_eq!(hello(VERSION_MAX, 7, of(1)), Err(HelloRefusal::UnknownNode));
        assert_eq!(hello(VERSION_MAX, 7, of(4)), Err(HelloRefusal::UnknownNode));
        assert_eq!(hello(VERSION_MAX, 0, of(2)), Err(HelloRefusal::Cluster));
        assert_eq!(hello(VERSION_MAX, 8, of(2)), Err(HelloRefusal::Cluster));
    }
}
