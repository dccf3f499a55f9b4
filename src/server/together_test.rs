use std::net::IpAddr;
use std::time::{Duration, Instant};

use raftkv_protocol::types::NodeId;

use super::together::{COMPLAINT_PAUSE, TRANSFER_PAUSE, Together};

const A_MOMENT: Duration = Duration::from_millis(1);

#[test]
fn the_cores_of_a_node_begin_one_transfer_in_a_second() {
    let (cores, now) = (Together::default(), Instant::now());
    assert!(cores.may_transfer(now));
    assert!(!cores.may_transfer(now), "another core, in the same moment");
    assert!(!cores.may_transfer(now + TRANSFER_PAUSE - A_MOMENT));
    assert!(cores.may_transfer(now + TRANSFER_PAUSE));
    assert!(!cores.may_transfer(now + TRANSFER_PAUSE), "it counts from the last");
    assert!(cores.may_transfer(now + 2 * TRANSFER_PAUSE));
}

#[test]
fn what_all_cores_see_of_a_peer_is_said_once() {
    let cores = Together::default();
    let said: Vec<bool> = ["refused", "refused", "up", "up", "closed", "refused", "refused", "up"]
        .map(|words| cores.is_link_news(NodeId(2), words))
        .into();
    assert_eq!(said, [true, false, true, false, true, true, false, true]);
    assert!(cores.is_link_news(NodeId(3), "up"), "another peer");
}

#[test]
fn the_same_complaint_is_said_once_a_minute_and_another_at_once() {
    let (cores, now) = (Together::default(), Instant::now());
    let [here, there]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
    assert!(cores.is_worth_saying(here, "another cluster", now));
    assert!(!cores.is_worth_saying(here, "another cluster", now + COMPLAINT_PAUSE - A_MOMENT));
    assert!(cores.is_worth_saying(here, "another disk", now));
    assert!(cores.is_worth_saying(there, "another cluster", now));
    assert!(cores.is_worth_saying(here, "another cluster", now + COMPLAINT_PAUSE));
}

#[test]
fn complaints_without_end_are_not_remembered_without_end() {
    let (cores, now) = (Together::default(), Instant::now());
    let here: IpAddr = "10.0.0.1".parse().unwrap();
    for n in 0..256 {
        assert!(cores.is_worth_saying(here, &n.to_string(), now));
    }
    assert!(cores.is_worth_saying(here, "256", now));
    assert!(cores.is_worth_saying(here, "256", now), "said each time, as there is no room for it");
    assert!(!cores.is_worth_saying(here, "0", now));
    assert!(cores.is_worth_saying(here, "256", now + COMPLAINT_PAUSE));
    assert!(!cores.is_worth_saying(here, "256", now + COMPLAINT_PAUSE), "the others are forgotten");
}

// rule 21
#[test]
fn one_snapshot_is_taken_at_a_time() {
    let together = Together::default();
    assert!(together.may_snapshot());
    assert!(!together.may_snapshot());
    together.end_snapshot();
    assert!(together.may_snapshot());
}
