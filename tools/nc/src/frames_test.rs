use raftkv_protocol::client::{Code, Condition, Operation, Refusal, Reply, Request};
use raftkv_protocol::hello::{Auth, Hello, HelloRole};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{Body, ChunkResult, Message, PeerFrame, SnapshotChunk, SnapshotMeta, SnapshotRead};
use raftkv_protocol::types::{
    ClusterId, CoreId, EntryId, Incarnation, Index, NodeId, RequestId, ShardId, SnapshotId, Term,
};

use super::frames::{Direction, hex_dump, print_all};

fn show(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    print_all(&mut out, Direction::Sent, bytes).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_is_shown_field_by_field_and_byte_by_byte() {
    let mut bytes = Vec::new();
    let operation = Operation::Put { key: b"k 1", value: b"\x00v", condition: Condition::Version(Index(5)) };
    Request { id: RequestId(3), operation }.encode(&mut bytes);
    let shown = show(&bytes);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], format!("> put, {} bytes", bytes.len()));
    for line in [
        "    kind         0x10",
        "    id           3",
        "    condition    version 5",
        "    key          \"k 1\"",
        "    value        \\x00v",
    ] {
        assert!(lines.contains(&line), "{line} in\n{shown}");
    }
    assert!(lines.last().unwrap().ends_with("|....v|"), "{shown}");
}

#[test]
fn a_refusal_names_its_code_and_the_leader() {
    let mut bytes = Vec::new();
    let refusal = Refusal { code: Code::NotLeader, leader: Some(NodeId(2)), message: "ask node 2" };
    Reply { id: RequestId(3), at: EntryId::ZERO, result: Err(refusal) }.encode(&mut bytes);
    let shown = show(&bytes);
    for part in ["> refusal", "at           0@0", "code         not_leader", "leader       2", "ask node 2"] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn a_snapshots_way_is_shown_without_its_bytes() {
    let (shard, id) = (ShardId(5), SnapshotId(0xabc));
    let meta = SnapshotMeta { id, at: EntryId::new(7, 2), bytes: 262_149 };
    let offer = Body::Snapshot { link: 3, meta };
    let chunk = |result| PeerFrame::SnapshotChunk(SnapshotChunk { shard, id, offset: 262_144, result });
    let frames = [
        PeerFrame::Message(Message { shard, from: NodeId(1), to: NodeId(2), term: Term(4), body: offer }),
        PeerFrame::SnapshotRead(SnapshotRead { shard, id, offset: 262_144, length_max: 4_096 }),
        chunk(ChunkResult::Ok { total: 262_149, bytes: b"piece" }),
        chunk(ChunkResult::Gone),
    ];
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    let role = HelloRole::Snapshots { node: NodeId(2), incarnation: Incarnation(9), core: CoreId(1) };
    let (cluster, auth) = (ClusterId(1), Auth::default());
    Hello { version_min: 1, version_max: 1, cluster, role, features: 0, auth }.encode(&mut bytes);
    let shown = show(&bytes);
    assert_eq!(shown.matches("snapshot     0000000000000abc").count(), 4, "{shown}");
    for part in [
        "> snapshot_offer",
        "at           7@2",
        "bytes        262149",
        "> snapshot_read",
        "length_max   4096",
        "> snapshot_chunk",
        "total        262149",
        "piece        5 bytes",
        "result       gone",
        "role         snapshots: node 2, core 1",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn unreadable_payloads_are_shown_as_bytes() {
    for kind in [kind::HELLO, kind::WELCOME, kind::PUT, kind::GET_REPLY, kind::APPEND, kind::SNAPSHOT_READ, 0xee] {
        let mut bytes = Vec::new();
        raftkv_protocol::frame::write(&mut bytes, kind, |out| out.push(0x41));
        let shown = show(&bytes);
        assert!(shown.contains("payload      1 bytes: "), "{shown}");
        assert!(shown.ends_with("A|\n"), "{shown}");
    }
}

#[test]
fn frames_in_a_row_are_shown_one_by_one_and_the_rest_as_bytes() {
    let mut bytes = Vec::new();
    for id in 1..=2 {
        Request { id: RequestId(id), operation: Operation::Ping }.encode(&mut bytes);
    }
    bytes.extend_from_slice(b"???");
    let shown = show(&bytes);
    assert_eq!(shown.matches("> ping, 17 bytes").count(), 2, "{shown}");
    assert!(shown.contains("> 3 bytes that are no frame"), "{shown}");
}

#[test]
fn the_dump_has_sixteen_bytes_a_line() {
    let mut out = Vec::new();
    hex_dump(&mut out, b"0123456789abcdef!").unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "    00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
         \x20   00000010  21                                                |!|\n"
    );
}
