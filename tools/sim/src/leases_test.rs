//! What the promises that leases rest on make of what nodes say.

use raftkv_protocol::peer::{Body, Message, Promise, ReadContext};
use raftkv_protocol::types::{EntryId, Index, NodeId, ShardId, Term};

use crate::leases::{LeasePromises, draw_drift};
use crate::random::Random;

const SHARD: ShardId = ShardId(0);
const FORGED: &str = "who says that a leader has asked for its election was told so";
const BROKEN: &str = "who has promised to elect nobody else does not";

/// Three nodes. Node 1 leads term 1, and node 2 has just promised it something.
struct Listener(LeasePromises);

impl Listener {
    fn new() -> Listener {
        let mut listener = Listener(LeasePromises::new(100_000));
        let context = ReadContext::default();
        let asked = Body::Heartbeat { commit: Index(0), context, sent_us: 7 };
        assert_eq!(listener.hears(1, 2, 1, asked, 0), None);
        let promise = Promise { sent_us: 7, lasts_us: 550 };
        assert_eq!(listener.hears(2, 1, 1, Body::HeartbeatReply { context, promise }, 1), None);
        listener
    }

    /// What is wrong with this being said, if anything is.
    fn hears(&mut self, from: u64, to: u64, term: u64, body: Body, now_us: u64) -> Option<&'static str> {
        let message = Message { shard: SHARD, from: NodeId(from), to: NodeId(to), term: Term(term), body };
        self.0.told(&message, now_us * 1_000).err().map(|violation| violation.invariant)
    }

    fn stands(&mut self, node: u64, term: u64, transfer: bool, now_us: u64) -> Option<&'static str> {
        self.hears(node, 1, term, Body::Vote { last: EntryId::ZERO, transfer }, now_us)
    }

    fn votes(&mut self, node: u64, candidate: u64, term: u64, now_us: u64) -> Option<&'static str> {
        self.hears(node, candidate, term, Body::VoteReply { granted: true }, now_us)
    }
}

/// rule 6: until it has run out on the fastest clock, counted from when the heartbeat left.
#[test]
fn a_promise_binds() {
    let mut listener = Listener::new();
    assert_eq!(listener.stands(3, 2, false, 1), None, "node 3 has promised nothing");
    assert_eq!(listener.votes(2, 3, 2, 499), Some(BROKEN));
    assert_eq!(listener.stands(2, 2, false, 499), Some(BROKEN));
    assert_eq!(listener.votes(2, 3, 2, 500), None);
    assert_eq!(listener.stands(2, 3, false, 500), None);
}

/// rule 6: what is believed is that the leader has asked, and not that the candidate says so.
#[test]
fn a_promise_is_waived_only_for_whom_the_leader_has_told_to_stand() {
    let mut listener = Listener::new();
    assert_eq!(listener.stands(3, 2, true, 1), Some(FORGED));
    assert_eq!(listener.votes(2, 3, 2, 1), Some(BROKEN), "a word that was not true waives nothing");
    assert_eq!(listener.hears(1, 3, 1, Body::TimeoutNow, 1), None);
    assert_eq!(listener.votes(2, 3, 2, 1), Some(BROKEN), "it has not said that it was told");
    assert_eq!(listener.stands(3, 3, true, 1), Some(FORGED), "that was another term");
    assert_eq!(listener.stands(2, 2, true, 1), Some(FORGED), "that was another node");
    assert_eq!(listener.stands(3, 2, true, 1), None);
    assert_eq!(listener.votes(2, 3, 2, 1), None);
    assert_eq!(listener.votes(2, 1, 2, 1), Some(BROKEN));
}

#[test]
fn clocks_are_most_often_wrong_by_as_much_as_they_may_be() {
    let mut random = Random::new(3);
    let drifts: Vec<i64> = (0..3_000).map(|_| draw_drift(50_000, &mut random)).collect();
    assert!(drifts.iter().all(|drift| drift.abs() <= 50_000));
    let count = |wanted: &dyn Fn(i64) -> bool| drifts.iter().filter(|drift| wanted(**drift)).count();
    for end in [-50_000, 50_000] {
        assert!(count(&|drift| drift == end) > 800);
    }
    assert!(count(&|drift| drift.abs() < 50_000) > 800);
    assert_eq!(draw_drift(0, &mut random), 0);
}
