use super::budget::{Debt, ReplyBytes, Room};
use crate::limits::Limits;

fn limits() -> Limits {
    Limits { inflight_max: 4, reply_bytes_max: 1_000, core_reply_bytes_max: 10_000, ..Limits::default() }
}

#[test]
fn a_connection_may_have_so_many_requests_in_flight() {
    let mut debt = Debt::default();
    for _ in 0..3 {
        debt.add(1);
    }
    assert!(debt.has_room(0, &limits()), "3 of 4");
    debt.add(1);
    assert!(!debt.has_room(0, &limits()), "4 of 4");
    debt.settle(1);
    assert!(debt.has_room(0, &limits()));
    assert!(!debt.is_settled());
    for _ in 0..3 {
        debt.settle(1);
    }
    assert!(debt.is_settled() && debt.charged_bytes() == 0);
}

#[test]
fn a_connection_is_charged_for_replies_that_wait_and_for_those_that_may_come() {
    let mut debt = Debt::default();
    debt.add(600);
    assert!(debt.has_room(399, &limits()), "999 of 1,000");
    assert!(!debt.has_room(400, &limits()), "1,000 of 1,000");
    assert!(!debt.has_room(401, &limits()));
    debt.settle(600);
    assert!(debt.has_room(999, &limits()) && !debt.has_room(1_000, &limits()));
}

#[test]
fn a_core_takes_reads_up_to_its_limit_then_waits_for_those_under_way() {
    let mut bytes = ReplyBytes::new(&limits());
    (bytes.unread, bytes.charged) = (4_000, 5_000);
    assert_eq!([999, 1_000, 1_001].map(|charge| bytes.room(charge)), [Room::Now, Room::Now, Room::Later]);
    // What nothing under way can make room for is taken all the same, one at a time.
    bytes.charged = 0;
    assert_eq!(bytes.room(20_000), Room::Now);
}

#[test]
fn a_core_whose_clients_do_not_read_takes_no_reads() {
    let mut bytes = ReplyBytes::new(&limits());
    assert_eq!(
        [9_999, 10_000, 10_001].map(|unread| {
            bytes.unread = unread;
            bytes.room(1)
        }),
        [Room::Now, Room::No, Room::No]
    );
}
