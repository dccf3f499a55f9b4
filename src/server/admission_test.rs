use raftkv_protocol::hello::FEATURE_ADMITTED;
use raftkv_protocol::peer::{Body, ReadContext, SnapshotMeta};
use raftkv_protocol::types::{EntryId, Index, NodeId, SnapshotId};

use super::admission::Admission;

/// Whatever makes a follower of a node.
fn of_a_leader() -> [Body; 4] {
    let meta = SnapshotMeta { id: SnapshotId(1), at: EntryId::new(9, 1), bytes: 100 };
    [
        Body::Append { link: 1, prev: EntryId::ZERO, commit: Index(0), entries: Vec::new() },
        Body::Snapshot { link: 1, meta },
        Body::Heartbeat { commit: Index(0), context: ReadContext::default(), sent_us: 0 },
        Body::TimeoutNow,
    ]
}

/// Its term is told to whoever repairs itself; its vote is another matter.
#[test]
fn a_node_without_a_past_tells_its_term() {
    let peer = NodeId(2);
    let admission = Admission::new(false, [NodeId(1), peer].into_iter());
    admission.note_peer(peer, FEATURE_ADMITTED);
    let heeds = |body| admission.may_heed(peer, &body);
    let last = EntryId::new(7, 1);
    assert!(heeds(Body::PreVote { last: EntryId::ZERO }));
    assert!(!heeds(Body::PreVote { last }));
    assert!(!heeds(Body::Vote { last: EntryId::ZERO, transfer: false }));
}

// museum 34, rule 22
#[test]
fn a_node_without_a_past_follows_nobody_in_any_way_before_most_others_have_welcomed_it() {
    let leader = NodeId(2);
    let admission = Admission::new(false, [NodeId(1), leader].into_iter());
    let heeds = |admission: &Admission| of_a_leader().map(|body| admission.may_heed(leader, &body));
    assert_eq!(heeds(&admission), [true; 4], "the cluster may be as young as this node");
    admission.note_peer(leader, FEATURE_ADMITTED);
    admission.note_welcome(leader);
    assert_eq!(heeds(&admission), [false; 4]);
    admission.note_welcome(NodeId(1));
    assert_eq!(heeds(&admission), [true; 4]);
}

// museum 34, rule 22
#[test]
fn a_hello_of_before_does_not_take_back_that_its_node_is_admitted() {
    let leader = NodeId(2);
    let admission = Admission::new(false, [NodeId(1), leader].into_iter());
    admission.note_peer(leader, FEATURE_ADMITTED);
    admission.note_peer(leader, 0);
    assert!(!admission.may_heed(leader, &Body::Vote { last: EntryId::new(7, 1), transfer: false }));
}
