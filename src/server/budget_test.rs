use raftkv_protocol::client::{Answer, Existed, Reply};
use raftkv_protocol::types::{EntryId, Index, RequestId};

use super::budget::{Debt, room};
use super::message::Charge;
use crate::limits::Limits;

fn limits() -> Limits {
    Limits { inflight_max: 4, reply_bytes_max: 1_000, ..Limits::default() }
}

#[test]
fn a_connection_may_have_so_many_requests_in_flight() {
    let mut debt = Debt::default();
    for _ in 0..3 {
        debt.add(Charge::Read(1));
    }
    assert!(debt.has_room(0, &limits()), "3 of 4");
    debt.add(Charge::Read(1));
    assert!(!debt.has_room(0, &limits()), "4 of 4");
    debt.settle(Charge::Read(1));
    assert!(debt.has_room(0, &limits()));
    assert!(!debt.is_settled());
    for _ in 0..3 {
        debt.settle(Charge::Read(1));
    }
    assert!(debt.is_settled() && debt.charged_bytes() == 0 && debt.reads() == 0);
}

#[test]
fn a_connection_is_charged_for_replies_that_wait_and_for_those_that_may_come() {
    let mut debt = Debt::default();
    debt.add(Charge::Other(600));
    assert!(debt.has_room(399, &limits()), "999 of 1,000");
    assert!(!debt.has_room(400, &limits()), "1,000 of 1,000");
    assert!(!debt.has_room(401, &limits()));
    debt.settle(Charge::Other(600));
    assert!(debt.has_room(999, &limits()) && !debt.has_room(1_000, &limits()));
}

/// Room that an answer does not fill is room among the values, which then lie further apart.
#[test]
fn the_answer_to_a_write_fills_its_room_and_does_not_outgrow_it() {
    let writes = [Answer::Put, Answer::Deleted { existed: true }, Answer::Batch { existed: Existed(u128::MAX) }];
    for answer in writes.into_iter().chain([Answer::Value { version: Index(1), value: &[7; 128] }]) {
        let result = Ok(answer);
        let room = room(&result);
        let mut frame = Vec::new();
        Reply { id: RequestId(1), at: EntryId::ZERO, result }.encode(&mut frame);
        assert!((frame.len()..frame.len() + 24).contains(&room), "{room} for {}", frame.len());
    }
}
