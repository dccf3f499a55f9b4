use std::time::{Duration, Instant};

use raftkv_protocol::client::Code;
use raftkv_protocol::types::{CoreId, NodeId, ShardId};

use super::desk::Desk;
use super::message::{Origin, OwnedCall, ReplyTo};
use crate::limits::Limits;

const CORE: CoreId = CoreId(0);
const LEADER: NodeId = NodeId(2);

fn desk(now: Instant) -> Desk {
    let limits = Limits {
        core_parked_bytes_max: 1_000,
        core_forwarded_bytes_max: 1_000,
        core_scans_waiting_max: 3,
        core_scans_max: 1,
        ..Limits::default()
    };
    Desk::new(0, &limits, now)
}

fn call(bytes: usize, deadline: Instant) -> OwnedCall {
    let to = ReplyTo { core: CORE, origin: Origin::Gather { job: 0, shard: ShardId(0) } };
    OwnedCall { frame: vec![0; bytes], shard: ShardId(0), to, deadline }
}

#[test]
fn so_many_bytes_of_requests_wait_for_a_leader_and_no_more() {
    let now = Instant::now();
    let mut desk = desk(now);
    desk.park(call(400, now)).expect("400");
    desk.park(call(599, now)).expect("999 of 1,000");
    desk.park(call(2, now)).expect_err("1,001");
    desk.park(call(1, now)).expect("1,000 of 1,000");
    desk.park(call(1, now)).expect_err("full");
    desk.leaders_changed();
    assert_eq!(desk.take_retries(now).len(), 3);
    desk.park(call(1_000, now)).expect("tried again, they make room");
    assert_eq!(desk.expire(now).iter().map(|expired| expired.1).collect::<Vec<_>>(), [Code::NoLeader]);
    desk.park(call(1_000, now)).expect("given up, they make room");
}

#[test]
fn so_many_bytes_of_requests_wait_for_other_nodes_and_no_more() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let mut desk = desk(now);
    let first = desk.forward(CORE, LEADER, call(999, later));
    assert!(desk.may_forward(&call(1, now)), "1,000 of 1,000");
    assert!(!desk.may_forward(&call(2, now)), "1,001");
    desk.forward(CORE, LEADER, call(1, now));
    assert!(!desk.may_forward(&call(1, now)), "full");
    assert_eq!(desk.expire(now).iter().map(|expired| expired.1).collect::<Vec<_>>(), [Code::Timeout]);
    assert!(desk.may_forward(&call(1, now)), "given up, one makes room");
    assert!(desk.take_forward(first.serial).is_some());
    assert!(desk.may_forward(&call(1_000, now)), "answered, the other does");
    desk.forward(CORE, LEADER, call(1_000, later));
    assert_eq!(desk.take_forwards_to(LEADER).len(), 1);
    assert!(desk.may_forward(&call(1_000, now)), "as when the link breaks");
    assert!(desk.is_empty());
}

#[test]
fn so_many_scans_wait_and_no_more_nor_longer_than_their_deadline() {
    let now = Instant::now();
    let mut desk = desk(now);
    for waiting in 1..=3 {
        assert!(desk.queue_scan(call(1, now)).is_ok(), "{waiting} of 3");
    }
    assert!(desk.queue_scan(call(1, now)).is_err(), "4 of 3");
    assert!(desk.next_scan().is_some(), "there is room for one at a time");
    assert!(desk.queue_scan(call(1, now + Duration::from_secs(1))).is_ok(), "3 of 3");
    let expired = desk.expire(now);
    assert_eq!(expired.iter().map(|expired| expired.1).collect::<Vec<_>>(), [Code::Overloaded; 2]);
    assert!(!desk.is_empty(), "the last may wait longer");
}

#[test]
fn what_waits_counts_with_the_room_it_has() {
    let now = Instant::now();
    let mut desk = desk(now);
    let roomy = || {
        let mut call = call(1, now);
        call.frame.reserve_exact(999);
        call
    };
    desk.park(roomy()).expect("1,000 of 1,000");
    desk.park(call(1, now)).expect_err("full");
    desk.forward(CORE, LEADER, roomy());
    assert!(!desk.may_forward(&call(1, now)), "full");
}
