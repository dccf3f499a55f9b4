//! Bytes that are not the protocol, and frames that say what they must not: that connection is closed, with a typed
//! error where one can be sent; it is counted, and nobody else notices.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use raftkv_protocol::client::{Code, Operation, Reply, Request};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Auth, Hello, HelloRole};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{Body, Message, PeerFrame};
use raftkv_protocol::types::{ClusterId, EntryId, NodeId, RequestId, ShardId, Term};

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::{Said, Wire, client_hello, encoded, peer_hello};

fn raw_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    encoded(|out| frame::write(out, kind, |out| out.extend_from_slice(payload)))
}

/// A frame header that announces so many bytes in all.
fn header_of(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes - 4).expect("fits");
    [&length.to_le_bytes()[..], &[0; 5]].concat()
}

fn with_bad_crc(mut frame: Vec<u8>) -> Vec<u8> {
    frame[4] ^= 1;
    frame
}

fn client_hello_bytes(change: impl FnOnce(&mut Hello<'_>)) -> Vec<u8> {
    let mut hello = client_hello();
    change(&mut hello);
    encoded(|out| hello.encode(out))
}

/// A hello of a version whose fields after the versions nobody here knows.
fn hello_of_the_future() -> Vec<u8> {
    raw_frame(kind::HELLO, b"RAFTKV\r\n\x09\x00\x0c\x00in version 9 all is different")
}

/// The counters that wrong bytes move.
fn wrongs(wire: &mut Wire) -> BTreeMap<&'static str, u64> {
    ["hellos_refused", "frames_bad", "messages_bad"].map(|name| (name, wire.counter(name))).into()
}

/// Sends bytes instead of a hello; what the refusal says, and that the connection ends after it.
fn refused(address: SocketAddr, bytes: &[u8]) -> (&'static str, String) {
    let mut wire = Wire::dial(address).expect("connects");
    wire.send(bytes).expect("sent");
    let refusal = wire.greeting().expect("a refusal").expect_err("not welcome");
    assert_eq!(wire.frame().expect("readable"), None, "closed after the refusal");
    refusal
}

// museum 51
#[test]
fn what_is_no_hello_of_this_cluster_is_refused_with_its_reason() {
    let cluster = Cluster::start(3);
    let address = cluster.address(1);
    let mut witness = cluster.wire(1);
    let own = witness.status().cluster;
    let other = ClusterId(own.0 ^ 1);
    let before = wrongs(&mut witness);
    let magic_at = frame::HEADER_LEN;
    let mut wrong_magic = client_hello_bytes(|_| ())[magic_at..].to_vec();
    wrong_magic[0] = b'r';
    let wrong_magic = raw_frame(kind::HELLO, &wrong_magic);

    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "malformed"),
        ("bytes of 0xff", vec![0xff; 64], "malformed"),
        ("zeros", vec![0; 64], "malformed"),
        ("a wrong checksum", with_bad_crc(client_hello_bytes(|_| ())), "malformed"),
        ("a length over the cap", header_of(CLIENT_FRAME_MAX + 1), "malformed"),
        ("the greatest length", vec![0xff, 0xff, 0xff, 0xff], "malformed"),
        ("a wrong magic", wrong_magic, "malformed"),
        ("a request before the hello", raw_frame(kind::PING, &7u64.to_le_bytes()), "malformed"),
        ("a cut hello", raw_frame(kind::HELLO, &client_hello_bytes(|_| ())[magic_at..40]), "malformed"),
        ("a newer version", client_hello_bytes(|hello| (hello.version_min, hello.version_max) = (2, 7)), "version"),
        ("an older version", client_hello_bytes(|hello| (hello.version_min, hello.version_max) = (0, 0)), "version"),
        ("a version with other fields", hello_of_the_future(), "version"),
        ("a client of another cluster", client_hello_bytes(|hello| hello.cluster = other), "cluster"),
        ("a peer of another cluster", encoded(|out| peer_hello(other, 2, 1).encode(out)), "cluster"),
        ("a peer of no cluster", encoded(|out| peer_hello(ClusterId(0), 2, 1).encode(out)), "cluster"),
        ("a peer with an unknown id", encoded(|out| peer_hello(own, 4, 1).encode(out)), "unknown_node"),
        ("a peer with this node's id", encoded(|out| peer_hello(own, 1, 1).encode(out)), "unknown_node"),
        ("a peer with another disk", encoded(|out| peer_hello(own, 2, 1).encode(out)), "incarnation"),
        (
            "an unknown way to authenticate",
            client_hello_bytes(|hello| hello.auth = Auth { method: 9, nonce: b"n", mac: b"m" }),
            "unauthorized",
        ),
    ];
    let count = cases.len() as u64;
    for (what, bytes, reason) in cases {
        let (told, words) = refused(address, &bytes);
        assert_eq!(told, reason, "{what}: {words}");
        assert!(!words.is_empty(), "{what}");
    }
    let after = wrongs(&mut witness);
    assert_eq!(after["hellos_refused"], before["hellos_refused"] + count);
    let version = witness.put("k", "v");
    assert_eq!(cluster.wire(2).get("k"), Some((version, b"v".to_vec())), "the others do not notice");
}

// museum 51
#[test]
fn wrong_bytes_of_a_client_close_its_connection_only() {
    let cluster = Cluster::start(3);
    let mut witness = cluster.wire(1);
    let a_get = encoded(|out| {
        let operation = Operation::Get { key: b"k", consistency: Default::default() };
        Request { id: RequestId(1), operation }.encode(out);
    });
    let vote = Message {
        shard: ShardId(0),
        from: NodeId(2),
        to: NodeId(1),
        term: Term(1_000),
        body: Body::Vote { last: EntryId::new(1_000, 999), transfer: true },
    };
    let with_payload = |kind: u8, rest: &[u8]| raw_frame(kind, &[&1u64.to_le_bytes()[..], rest].concat());
    let cases: Vec<(&str, Vec<u8>, Code, &str)> = vec![
        ("a wrong checksum", with_bad_crc(a_get), Code::BadRequest, "frames_bad"),
        ("a length over the cap", header_of(CLIENT_FRAME_MAX + 1), Code::TooLarge, "frames_bad"),
        ("a length below the header's", vec![0; 9], Code::TooLarge, "frames_bad"),
        ("an unknown kind", with_payload(0xee, b"?"), Code::BadRequest, "messages_bad"),
        ("a second hello", client_hello_bytes(|_| ()), Code::BadRequest, "messages_bad"),
        ("a cut get", with_payload(kind::GET, b"\x00\x05\x00ke"), Code::BadRequest, "messages_bad"),
        ("an impossible consistency", with_payload(kind::GET, b"\x09\x01\x00k"), Code::BadRequest, "messages_bad"),
        ("an impossible condition", with_payload(kind::DELETE, b"\x09\x01\x00k"), Code::BadRequest, "messages_bad"),
        ("a reply", with_payload(kind::PING_REPLY, &[0; 16]), Code::BadRequest, "messages_bad"),
        ("a vote", encoded(|out| PeerFrame::Message(vote.clone()).encode(out)), Code::BadRequest, "messages_bad"),
    ];
    let terms = |wire: &mut Wire| -> Vec<Term> { wire.status().shards.iter().map(|shard| shard.term).collect() };
    let terms_before = terms(&mut witness);
    for (what, bytes, code, counter) in cases {
        let before = wrongs(&mut witness);
        let mut wire = cluster.wire(1);
        let version = wire.put("k", "v");
        wire.send(&bytes).expect("sent");
        let (reply_kind, payload) = wire.frame().expect("readable").unwrap_or_else(|| panic!("{what}: no last words"));
        let reply = Reply::decode(reply_kind, &payload).expect("a reply");
        let refusal = reply.result.expect_err("not served");
        assert_eq!(refusal.code, code, "{what}: {}", refusal.message);
        assert_eq!(wire.frame().expect("readable"), None, "{what}: closed after the refusal");
        let after = wrongs(&mut witness);
        let grown: Vec<&str> = before.keys().copied().filter(|name| after[name] > before[name]).collect();
        assert_eq!(grown, [counter], "{what}");
        assert_eq!(witness.get("k"), Some((version, b"v".to_vec())), "{what}: the others do not notice");
    }
    assert_eq!(terms(&mut witness), terms_before, "a client's vote counts for nothing");
}

/// What a node's peers say goes through the same eyes.
// museum 51
#[test]
fn wrong_bytes_of_a_peer_close_its_connection_only() {
    let mut cluster = Cluster::start(3);
    let key = "key";
    let version = cluster.wire(1).put(key, "value");
    let mut witness = cluster.wire(1);
    let own = witness.status().cluster;
    let incarnation = cluster.wire(2).status().incarnation.0;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a wrong checksum", with_bad_crc(raw_frame(kind::HEARTBEAT, &[0; 64]))),
        ("a length over the cap", header_of(PEER_FRAME_MAX + 1)),
        ("a client's request", raw_frame(kind::PING, &1u64.to_le_bytes())),
        ("an unknown kind", raw_frame(0xee, b"?")),
        ("a cut append", raw_frame(kind::APPEND, &[0; 20])),
        ("zeros", vec![0; 100]),
    ];
    for (what, bytes) in cases {
        let before: u64 = wrongs(&mut witness).values().sum();
        let mut wire = Wire::dial(cluster.address(1)).expect("connects");
        wire.greet(&peer_hello(own, 2, incarnation)).expect("an answer").expect("node 2 is welcome");
        wire.send(&bytes).expect("sent");
        assert_eq!(wire.frame().expect("readable"), None, "{what}: closed");
        assert_eq!(wrongs(&mut witness).values().sum::<u64>(), before + 1, "{what}: counted");
    }
    // Well-formed nonsense: a shard, a sender and a receiver that it cannot be. It is dropped and the link stays.
    let mut wire = Wire::dial(cluster.address(1)).expect("connects");
    wire.greet(&peer_hello(own, 2, incarnation)).expect("an answer").expect("node 2 is welcome");
    let before = witness.counter("messages_bad");
    for (shard, from, to) in [(6, 2, 1), (u16::MAX, 2, 1), (0, 3, 1), (0, 9, 1), (0, 2, 3)] {
        let (shard, from, to) = (ShardId(shard), NodeId(from), NodeId(to));
        let body = Body::Vote { last: EntryId::new(1_000, 999), transfer: true };
        let message = Message { shard, from, to, term: Term(1_000), body };
        wire.send(&encoded(|out| PeerFrame::Message(message).encode(out))).expect("sent");
    }
    eventually(PATIENCE, "the nonsense is counted", || (witness.counter("messages_bad") == before + 5).then_some(()));
    drop(wire);
    for id in cluster.ids() {
        assert!(!cluster.process(id).has_ended(), "node {id} has ended");
        assert_eq!(cluster.wire(id).get(key), Some((version, b"value".to_vec())));
        assert!(cluster.wire(id).status().shards.iter().all(|shard| shard.term < Term(1_000)));
    }
}

/// Frames that are right in themselves, with every byte of some flipped: no answer but a refusal or a reply, and the
/// node lives.
#[test]
fn no_flipped_byte_ends_a_node() {
    let mut cluster = Cluster::start(1);
    let request = encoded(|out| {
        let operation = Operation::Put { key: b"key", value: b"value", condition: Default::default() };
        Request { id: RequestId(1), operation }.encode(out);
    });
    for at in frame::HEADER_LEN..request.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut payload = request[frame::HEADER_LEN..].to_vec();
            payload[at - frame::HEADER_LEN] ^= flip;
            let mut wire = cluster.wire(1);
            wire.send(&raw_frame(kind::PUT, &payload)).expect("sent");
            wire.finish_sending();
            let replied = wire.reply().expect("readable").expect("a reply or a refusal");
            assert!(matches!(replied.said, Said::Put | Said::Refused { .. }), "{replied:?}");
            assert_eq!(wire.frame().expect("readable"), None);
        }
    }
    assert!(!cluster.process(1).has_ended());
    cluster.wire(1).put("still", "there");
}

// rule 24
#[test]
fn a_hello_may_name_any_home_shard() {
    let cluster = Cluster::of(1).flag("--cores=3").start();
    for home in [0, 1, 2, 5, 6, 4_000, u16::MAX - 1] {
        let mut wire = Wire::dial(cluster.address(1)).expect("connects");
        let role = HelloRole::Client { home: Some(ShardId(home)) };
        wire.greet(&Hello { role, ..client_hello() }).expect("an answer").expect("welcome");
        for key in cluster.keys_for_all_shards("key") {
            let version = wire.put(&key, format!("from {home}"));
            assert_eq!(wire.get(&key), Some((version, format!("from {home}").into_bytes())));
        }
    }
}
