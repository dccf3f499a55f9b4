use raftkv_protocol::client::{Code, Condition, Consistency, Operation};
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
