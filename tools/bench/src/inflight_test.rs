use raftkv_protocol::types::RequestId;

use crate::inflight::Inflight;

#[test]
fn a_request_is_settled_once_and_only_under_its_own_id() {
    let mut inflight = Inflight::new(1);
    let first = inflight.begin(10).unwrap();
    assert!(!inflight.has_room());
    assert_eq!(inflight.begin(11), None);
    assert_eq!(inflight.settle(RequestId(first.0 + 1)), None, "no such place");
    assert_eq!(inflight.settle(first), Some(10));
    assert_eq!(inflight.settle(first), None);

    let second = inflight.begin(20).unwrap();
    assert_ne!(first, second);
    assert_eq!(inflight.settle(first), None, "the place is used again, the id is not");
    assert_eq!(inflight.settle(second), Some(20));
}

#[test]
fn expired_requests_free_their_places_and_late_replies_are_ignored() {
    let mut inflight = Inflight::new(3);
    let old = inflight.begin(10).unwrap();
    let young = inflight.begin(20).unwrap();
    let mut lost = Vec::new();
    inflight.expire(20, |since| lost.push(since));
    assert_eq!(lost, [10]);
    assert_eq!(inflight.waiting(), 1);
    assert_eq!(inflight.settle(old), None);
    assert_eq!(inflight.settle(young), Some(20));
    assert_eq!(inflight.waiting(), 0);
}
