//! What an older side makes of a newer one.

use raftkv_protocol::client::{Answer, Code, HoldReason, Operation, Reply, Request, Role, SlotTable, SnapshotOutcome};
use raftkv_protocol::frame::{self, DecodeError, HEADER_LEN};
use raftkv_protocol::health::{DiskHealth, Verdict};
use raftkv_protocol::hello::{self, Hello, HelloRefusal, HelloReply, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{Health, PeerFrame, SNAPSHOT_CHUNK_MAX};
use raftkv_protocol::types::{ClusterId, EntryId, NodeId, RequestId, Term};

use crate::message::{AnyMessage, open};
use crate::samples;

/// Their last fields are left out.
const SHORTER: [&str; 5] =
    ["status_reply", "status_reply_gray", "status_reply_repairing", "heartbeat", "heartbeat_reply"];

/// The payload of a sample.
fn payload_of(name: &str) -> Vec<u8> {
    let (_, message) = samples::all().into_iter().find(|(sample, _)| sample == name).expect("a sample of this name");
    message.frame()[HEADER_LEN..].to_vec()
}

// rule 24
#[test]
fn what_follows_the_known_fields_is_skipped() {
    for (name, message) in samples::all().into_iter().filter(|(name, _)| !SHORTER.contains(&name.as_str())) {
        let bytes = message.frame();
        let (kind, payload) = open(&bytes);
        let newer = [payload, b"a newer field"].concat();
        assert_eq!(AnyMessage::decode(kind, &newer), Ok(message), "{name}");
    }
}

#[test]
fn list_elements_may_grow() {
    let mut payload = Vec::new();
    payload.extend(9_u64.to_le_bytes());
    payload.extend([0; 16]);
    payload.extend(5_u128.to_le_bytes());
    payload.extend(1_u32.to_le_bytes());
    payload.extend(16_u16.to_le_bytes());
    payload.extend(3_u64.to_le_bytes());
    payload.extend(3_u16.to_le_bytes());
    payload.extend(b"a:1");
    payload.extend(b"new");
    payload.extend(1_u32.to_le_bytes());
    payload.extend(17_u16.to_le_bytes());
    payload.extend(3_u64.to_le_bytes());
    payload.extend(8_u64.to_le_bytes());
    payload.push(0xff);
    let table = SlotTable {
        cluster: ClusterId(5),
        nodes: vec![(NodeId(3), "a:1".to_owned())],
        leaders: vec![(Some(NodeId(3)), Term(8))],
    };
    let reply = Reply { id: RequestId(9), at: EntryId::ZERO, result: Ok(Answer::Slots(table)) };
    assert_eq!(Reply::decode(kind::SLOTS_REPLY, &payload), Ok(reply));
}

#[test]
fn a_status_without_its_last_fields_tells_of_a_node_that_is_well() {
    let payload = payload_of("status_reply_gray");
    let status = |payload: &[u8]| match Reply::decode(kind::STATUS_REPLY, payload) {
        Ok(Reply { result: Ok(Answer::Status(status)), .. }) => *status,
        other => panic!("{other:?}"),
    };
    let gray = status(&payload);
    assert_eq!((gray.disk, gray.sync_ms), (DiskHealth::Slow, 1234));
    let older = status(&payload[..payload.len() - 9]);
    assert_eq!((older.disk, older.sync_ms), (DiskHealth::Healthy, 0));
    assert_eq!(older.shards, gray.shards);
    let held = status(&payload_of("status_reply_held"));
    assert_eq!((held.disk, held.holds.len(), gray.holds.len()), (DiskHealth::Healthy, 6, 0));
    assert!(status(&payload_of("status_reply")).shards.iter().all(|shard| shard.divergence.is_none()));
}

#[test]
fn a_replica_is_repaired_whether_or_not_it_serves() {
    let payload = payload_of("status_reply_repairing");
    let Ok(Reply { result: Ok(Answer::Status(status)), .. }) = Reply::decode(kind::STATUS_REPLY, &payload) else {
        panic!("no status");
    };
    let said: Vec<_> = status.shards.iter().map(|shard| (shard.is_repairing, shard.divergence.is_some())).collect();
    assert_eq!(said, [(true, false), (true, true), (false, false), (false, false), (false, false)]);
}

#[test]
fn an_unknown_health_is_a_bad_one_and_an_unknown_verdict_undecided() {
    let health = PeerFrame::decode(kind::HEALTH, &[7]);
    assert_eq!(health, Ok(PeerFrame::Health(Health { disk: DiskHealth::Slow })));
    assert!((0..4).all(|number| DiskHealth::from_u8(number) as u8 == number));
    let verdict_as = |number: u8| {
        let mut payload = payload_of("status_reply_gray");
        let hash = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_le_bytes();
        let end_of_hash = payload.windows(16).position(|bytes| bytes == hash).expect("the first shard's hash") + 16;
        payload[end_of_hash] = number;
        match Reply::decode(kind::STATUS_REPLY, &payload) {
            Ok(Reply { result: Ok(Answer::Status(status)), .. }) => status.shards[0].divergence.map(|why| why.verdict),
            other => panic!("{other:?}"),
        }
    };
    let known = [Verdict::Diverged, Verdict::Undecided, Verdict::Corrupt].map(Some);
    assert_eq!([1, 2, 3].map(verdict_as), known);
    assert_eq!(verdict_as(77), Some(Verdict::Undecided));
    assert_eq!(verdict_as(0), None, "there is none, and newer fields may follow");
}

#[test]
fn a_hello_of_any_version_shows_its_versions() {
    let newer = [b"RAFTKV\r\n".as_slice(), &7_u16.to_le_bytes(), &9_u16.to_le_bytes(), b"?"].concat();
    assert_eq!(Hello::versions(kind::HELLO, &newer), Ok((7, 9)));
    assert_eq!(Hello::decode(kind::HELLO, &newer), Err(DecodeError::Truncated("cluster")));
    assert_eq!(Hello::versions(kind::HELLO, b"GET / HTTP/1.1\r\n"), Err(DecodeError::Invalid("magic")));
    assert_eq!(Hello::versions(kind::PING, &newer), Err(DecodeError::Kind(kind::PING)));
}

// rule 24
#[test]
fn the_highest_common_version_is_spoken() {
    assert_eq!(hello::negotiate(VERSION_MIN, VERSION_MAX), Some(VERSION_MAX));
    assert_eq!(hello::negotiate(0, u16::MAX), Some(VERSION_MAX));
    assert_eq!(hello::negotiate(VERSION_MAX, VERSION_MAX + 5), Some(VERSION_MAX));
    assert_eq!(hello::negotiate(VERSION_MAX + 1, VERSION_MAX + 5), None);
    assert_eq!(hello::negotiate(0, VERSION_MIN - 1), None);
    assert_eq!(hello::negotiate(VERSION_MAX + 1, VERSION_MIN - 1), None);
}

#[test]
fn an_unknown_code_promises_nothing() {
    let mut payload = payload_of("refusal_not_found");
    for unknown in [0, 14, 0xff] {
        payload[24] = unknown;
        let reply = Reply::decode(kind::REFUSAL, &payload).expect("the reply stays readable");
        let code = reply.result.expect_err("a refusal").code;
        assert_eq!(code, Code::Timeout);
        assert!(code.maybe_applied() && !code.is_retryable());
    }
}

// rule 31
#[test]
fn no_code_both_may_have_been_applied_and_is_sent_again() {
    for code in Code::all() {
        assert!(!(code.maybe_applied() && code.is_retryable()), "{code}");
        assert_eq!(Code::from_u8(code as u8), Some(code));
    }
    assert_eq!(Code::all().count(), 13);
}

#[test]
fn an_unknown_reason_and_an_unknown_role_stay_readable() {
    let refused = HelloReply::decode(kind::HELLO_REFUSED, &[200, 2, 0, b'n', b'o']);
    assert_eq!(refused, Ok(HelloReply::Refused { reason: HelloRefusal::Other, message: "no" }));

    let mut payload = payload_of("status_reply");
    let hash = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_le_bytes();
    let end_of_first_shard = payload.windows(16).position(|bytes| bytes == hash).expect("the hash") + 16;
    payload[end_of_first_shard - 99 + 2] = 77;
    let reply = Reply::decode(kind::STATUS_REPLY, &payload).expect("the status stays readable");
    let Ok(Answer::Status(status)) = reply.result else { panic!("a status") };
    assert_eq!(status.shards[0].role, Role::Learner);
    assert_eq!(status.shards[1].role, Role::PreCandidate);
}

#[test]
fn an_unknown_reason_of_a_hold_is_none() {
    assert_eq!(HoldReason::from_u8(77), HoldReason::Pending);
    assert!((0..6).all(|number| HoldReason::from_u8(number) as u8 == number));
}

#[test]
fn an_unknown_outcome_of_a_snapshot_is_none() {
    let mut payload = payload_of("snapshot_reply");
    // Behind id, entry id, count and the first element's length and shard.
    payload[8 + 16 + 4 + 2 + 2] = 77;
    let Ok(Reply { result: Ok(Answer::Snapshots(snapshots)), .. }) = Reply::decode(kind::SNAPSHOT_REPLY, &payload)
    else {
        panic!("the answer stays readable")
    };
    assert_eq!(snapshots[0].outcome, SnapshotOutcome::Failed(String::new()));
    assert!(matches!(snapshots[1].outcome, SnapshotOutcome::Unchanged { .. }));
}

#[test]
fn a_request_that_cannot_be_read_can_still_be_refused_by_its_id() {
    let mut payload = payload_of("put");
    payload[8] = 9;
    assert_eq!(Request::decode(kind::PUT, &payload), Err(DecodeError::Invalid("condition")));
    assert_eq!(Request::id_of(&payload), Some(RequestId(1)));
    assert_eq!(Request::decode(0x3f, &payload), Err(DecodeError::Kind(0x3f)));
    assert_eq!(Request::id_of(&payload[..7]), None);
}

#[test]
fn only_what_concerns_one_shard_is_forwarded() {
    let mut payload = payload_of("forward_get");
    for kind in [kind::SLOTS, kind::STATUS, kind::PING, kind::SNAPSHOT, kind::APPEND] {
        payload[16] = kind;
        assert_eq!(PeerFrame::decode(kind::FORWARD, &payload), Err(DecodeError::Invalid("operation kind")));
    }
}

#[test]
fn entries_of_an_append_follow_each_other() {
    let head = 26 + 4 + 16 + 8 + 4;
    let append = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = payload_of("append");
        change(&mut payload);
        PeerFrame::decode(kind::APPEND, &payload).map(|_| ())
    };
    assert_eq!(append(&|_| ()), Ok(()));
    assert_eq!(append(&|payload| payload[head] = 1), Err(DecodeError::Invalid("entry term")));
    assert_eq!(append(&|payload| payload[head] = 4), Err(DecodeError::Invalid("entry term")));
    assert_eq!(append(&|payload| payload[head + 8] = 3), Err(DecodeError::Invalid("entry kind")));
    assert_eq!(append(&|payload| payload[30..38].fill(0xff)), Err(DecodeError::Invalid("prev")));
    assert_eq!(append(&|payload| payload[head - 4] = 4), Err(DecodeError::Truncated("entry term")));
}

#[test]
fn a_piece_of_a_snapshot_lies_within_its_file_and_within_its_limit() {
    let invalid = |field| Err(DecodeError::Invalid(field));
    let read = |length: u32| {
        let mut payload = payload_of("snapshot_read");
        payload[18..].copy_from_slice(&length.to_le_bytes());
        PeerFrame::decode(kind::SNAPSHOT_READ, &payload).map(|_| ())
    };
    let max = SNAPSHOT_CHUNK_MAX as u32;
    assert_eq!((read(1), read(max)), (Ok(()), Ok(())));
    assert_eq!(
        (read(0), read(max + 1), read(u32::MAX)),
        (invalid("length_max"), invalid("length_max"), invalid("length_max"))
    );

    // Head (18 bytes), result, total, length, piece. The golden piece of 5 bytes is the file's last.
    let chunk = |total: u64, piece: &[u8]| {
        let mut payload = payload_of("snapshot_chunk")[..19].to_vec();
        payload.extend(total.to_le_bytes());
        payload.extend((piece.len() as u32).to_le_bytes());
        payload.extend(piece);
        PeerFrame::decode(kind::SNAPSHOT_CHUNK, &payload).map(|_| ())
    };
    let end = 0x0004_0005;
    assert_eq!((chunk(end, b"piece"), chunk(u64::MAX, b"piece")), (Ok(()), Ok(())));
    assert_eq!((chunk(end - 1, b"piece"), chunk(0, b"")), (invalid("total"), invalid("total")));
    let longest = vec![0; SNAPSHOT_CHUNK_MAX + 1];
    assert_eq!(chunk(u64::MAX, &longest[1..]), Ok(()));
    assert_eq!((chunk(u64::MAX, &longest), chunk(end, b"")), (invalid("piece"), invalid("piece")));
    let mut payload = payload_of("snapshot_chunk_gone");
    payload[18] = 2;
    assert_eq!(PeerFrame::decode(kind::SNAPSHOT_CHUNK, &payload), Err(DecodeError::Invalid("result")));
}

#[test]
fn the_answers_of_yes_and_no_are_one_and_zero() {
    let mut payload = payload_of("vote_reply");
    *payload.last_mut().expect("a byte") = 2;
    assert_eq!(PeerFrame::decode(kind::VOTE_REPLY, &payload), Err(DecodeError::Invalid("granted")));
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let message = "ä".repeat(5000) + "b";
    let mut out = Vec::new();
    HelloReply::Refused { reason: HelloRefusal::Other, message: &format!("x{message}") }.encode(&mut out);
    let frame = frame::parse(&out, 10_000).expect("valid").expect("whole");
    let Ok(HelloReply::Refused { message: cut, .. }) = HelloReply::decode(frame.kind, frame.payload) else {
        panic!("a refusal")
    };
    assert_eq!(cut, format!("x{}", "ä".repeat(2047)));
}

#[test]
fn kinds_are_numbered_once_and_replies_follow_their_requests() {
    assert!(kind::ALL.is_sorted_by(|one, next| one.0 < next.0));
    for (number, name) in kind::ALL.into_iter().filter(|(number, _)| (0x10..0x40).contains(number)) {
        assert_eq!(kind::name(number + 0x40), Some(format!("{name}_reply").as_str()));
    }
    assert_eq!(kind::name(0xff), None);
}

#[test]
fn operations_print_without_their_values() {
    let put = Operation::Put { key: b"a\x00b", value: b"secret", condition: Default::default() };
    assert_eq!(put.to_string(), "put \"a\\x00b\" (6 bytes)");
    assert_eq!(Operation::Ping.to_string(), "ping");
}
