//! What a node knows of its own disk and of the others'.

use std::time::Duration;

use raftkv_protocol::health::DiskHealth::{Full, Healthy, Recovering, Slow};
use raftkv_protocol::hello::{FEATURE_ADMITTED, FEATURE_NEWS};
use raftkv_protocol::types::{CoreId, NodeId};

use super::health::Health;

fn health() -> Health {
    Health::new(3, [2, 3].map(NodeId).into_iter())
}

#[test]
fn a_node_is_as_well_as_the_worst_of_its_cores() {
    let health = health();
    assert_eq!(health.note_core(CoreId(0), Healthy, false), (Healthy, Healthy));
    assert_eq!(health.note_core(CoreId(1), Slow, true), (Healthy, Slow));
    assert_eq!(health.note_core(CoreId(2), Slow, true), (Slow, Slow));
    assert_eq!(health.note_core(CoreId(1), Recovering, false), (Slow, Slow));
    assert_eq!(health.note_core(CoreId(2), Recovering, false), (Slow, Recovering));
    assert_eq!(health.note_core(CoreId(1), Healthy, false), (Recovering, Recovering));
    assert_eq!(health.note_core(CoreId(2), Healthy, false), (Recovering, Healthy));
    assert_eq!(health.own(), Healthy);
    health.note_core(CoreId(1), Full, false);
    assert_eq!(health.note_core(CoreId(2), Slow, true), (Full, Full));
}

#[test]
fn a_node_is_held_up_as_long_as_one_of_its_cores_is() {
    let health = health();
    assert!(!health.stalls());
    health.note_core(CoreId(0), Slow, true);
    health.note_core(CoreId(1), Slow, true);
    health.note_core(CoreId(0), Slow, false);
    assert!(health.stalls());
    health.note_core(CoreId(1), Slow, false);
    assert!(!health.stalls());
}

#[test]
fn the_longest_sync_in_flight_is_told() {
    let health = health();
    assert_eq!(health.sync_ms(), 0);
    health.note_sync(CoreId(0), Some(Duration::from_millis(7)));
    health.note_sync(CoreId(2), Some(Duration::from_millis(1_234)));
    assert_eq!(health.sync_ms(), 1_234);
    health.note_sync(CoreId(2), None);
    assert_eq!(health.sync_ms(), 7);
}

#[test]
fn a_node_that_is_being_repaired_tells_that_it_is_slow_unless_it_is_worse() {
    let health = health();
    health.repairs_begin(1);
    assert_eq!((health.own(), health.told()), (Healthy, Slow));
    health.note_core(CoreId(1), Full, false);
    assert_eq!(health.told(), Full, "others count on it for no space");
    health.repair_ends();
    health.note_core(CoreId(1), Healthy, false);
    assert_eq!(health.told(), Healthy);
}

#[test]
fn a_peer_is_as_it_was_last_told_and_well_before() {
    let health = health();
    assert_eq!(health.of(NodeId(2)), Healthy);
    health.note_peer(NodeId(2), Slow);
    health.note_peer(NodeId(9), Slow);
    assert_eq!([2, 3, 9].map(|node| health.of(NodeId(node))), [Slow, Healthy, Healthy]);
    health.note_peer(NodeId(2), Recovering);
    assert_eq!(health.of(NodeId(2)), Recovering);
}

// rule 24
#[test]
fn only_who_has_announced_to_read_news_is_told_them() {
    let health = health();
    assert!(!health.reads_news(NodeId(2)));
    health.note_features(NodeId(2), FEATURE_ADMITTED | FEATURE_NEWS);
    assert!(health.reads_news(NodeId(2)) && !health.reads_news(NodeId(3)));
    health.note_features(NodeId(2), FEATURE_ADMITTED);
    assert!(!health.reads_news(NodeId(2)), "an older version took its place");
}

#[test]
fn a_majority_has_space_or_not() {
    for (peers, full_at) in [(0, None), (1, Some(1)), (2, Some(2)), (3, Some(2)), (4, Some(3))] {
        let ids = |count: u64| (2..2 + count).map(NodeId);
        let health = Health::new(1, ids(peers));
        let mut known = (0..=peers).map(|full| {
            ids(full).for_each(|peer| health.note_peer(peer, Full));
            health.majority_has_space()
        });
        assert_eq!(known.position(|has_space| !has_space), full_at, "{peers} peers");
        ids(peers).take(1).for_each(|peer| health.note_peer(peer, Recovering));
        assert!(peers > 2 || health.majority_has_space(), "{peers} peers, and one has space again");
    }
}
