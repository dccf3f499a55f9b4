//! What is told of a record before, while and after it is written.

use std::collections::BTreeMap;

use raftkv_protocol::types::{Incarnation, NodeId, ShardId};

use super::records::{Outcome, Record, Records};
use crate::error::Fatal;

fn records() -> Records {
    Records::new(BTreeMap::from([(NodeId(2), Incarnation(20))]))
}

#[test]
fn a_record_counts_when_it_is_durable_and_not_before() {
    let records = records();
    let healed = Record::Healed(ShardId(3));
    assert_eq!(records.want(healed), Outcome::Pending);
    assert_eq!(records.want(Record::Admitted), Outcome::Pending);
    assert_eq!(records.want(healed), Outcome::Pending, "it is wanted once");
    assert!(records.work(|record| {
        assert_eq!(record, healed);
        assert_eq!(records.want(healed), Outcome::Pending, "it is being written, and nobody waits");
        Ok(None)
    }));
    assert_eq!(records.want(healed), Outcome::Durable);
    assert!(records.work(|record| Err(Fatal::failure(format!("cannot write {record:?}")))));
    assert!(!records.work(|record| panic!("nobody wants {record:?}")));
    assert_eq!(records.want(Record::Admitted), Outcome::Failed("cannot write Admitted".to_owned()));
    assert_eq!(records.want(Record::Admitted), Outcome::Pending, "it is tried again");
    assert!(records.work(|_| Ok(None)));
    assert_eq!(records.want(Record::Admitted), Outcome::Durable);
}

#[test]
fn a_peer_is_known_when_it_is_on_record() {
    let records = records();
    assert_eq!(records.peer(NodeId(2)), Some(Incarnation(20)));
    assert_eq!(records.want(Record::Peer(NodeId(3), Incarnation(30))), Outcome::Pending);
    // Whatever comes in its name meanwhile: the first one counts, and nothing gathers.
    (31..100).for_each(|other| drop(records.want(Record::Peer(NodeId(3), Incarnation(other)))));
    assert_eq!(records.peer(NodeId(3)), None);
    assert!(records.work(|record| {
        assert_eq!(record, Record::Peer(NodeId(3), Incarnation(30)));
        assert_eq!(records.peer(NodeId(3)), None, "it is not durable yet");
        Ok(Some(Incarnation(30)))
    }));
    assert_eq!(records.peer(NodeId(3)), Some(Incarnation(30)));
    assert!(!records.work(|record| panic!("nobody wants {record:?}")));
    assert_eq!(records.want(Record::Peer(NodeId(4), Incarnation(40))), Outcome::Pending);
    assert!(records.work(|_| Err(Fatal::failure("full"))));
    assert_eq!(records.want(Record::Peer(NodeId(4), Incarnation(40))), Outcome::Failed("full".to_owned()));
    assert_eq!(records.peer(NodeId(4)), None);
}

// museum 38
#[test]
fn a_sync_that_failed_ends_the_node_and_nothing_else_does() {
    let records = records();
    for (error, failure) in [
        (Fatal::failure("cannot write PEERS: too many open files"), None),
        (Fatal::failed_sync("cannot sync PEERS: an error"), Some("cannot sync PEERS: an error")),
    ] {
        drop(records.want(Record::Admitted));
        drop(records.want(Record::Admitted));
        assert!(records.work(|_| Err(error)));
        assert_eq!(records.failure(), failure);
    }
}
