//! Leadership transfer: one test for each rule.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::Body;
use raftkv_protocol::types::{EntryId, EntryKind, Index, NodeId, Term};

use super::cluster::{BEAT, Cluster, T};
use super::solo::{Solo, accepted, bodies, fresh, heartbeat};
use super::{NotLeader, ProposeError};

/// A leader of term 1 whose no-op everybody has.
fn leader() -> Solo {
    let mut solo = fresh();
    solo.lead();
    solo.persist_all();
    solo.step(2, 1, accepted(1));
    solo.step(3, 1, accepted(1));
    solo
}

fn transfer(solo: &mut Solo, to: u64) -> Vec<Body> {
    let (result, messages) = solo.act(|raft| raft.transfer(NodeId(to)));
    result.expect("it leads");
    messages.into_iter().map(|outgoing| outgoing.message.body).collect()
}

#[test]
fn a_target_that_has_everything_is_told_at_once() {
    let mut solo = leader();
    assert_eq!(transfer(&mut solo, 2), [Body::TimeoutNow]);
    assert!(transfer(&mut solo, 2).is_empty(), "once");
    assert!(solo.raft.is_transferring());
}

#[test]
fn a_target_that_lags_is_brought_up_to_date_first() {
    let mut solo = leader();
    solo.propose(2);
    assert!(transfer(&mut solo, 2).is_empty());
    assert!(solo.step(3, 1, accepted(3)).is_empty());
    assert!(solo.step(2, 1, accepted(2)).is_empty());
    assert_eq!(bodies(&solo.step(2, 1, accepted(3))), [&Body::TimeoutNow]);
}

/// A leader whose disk hangs would hear of it as a follower only when its new term is durable.
// museum 44
#[test]
fn a_target_is_told_when_nothing_waits_for_this_leader_any_more() {
    let mut solo = leader();
    solo.propose(1);
    assert!(transfer(&mut solo, 2).is_empty());
    assert!(solo.step(2, 1, accepted(2)).is_empty(), "nobody else has it on disk");
    assert_eq!(bodies(&solo.step(3, 1, accepted(2))), [&Body::TimeoutNow]);
    assert_eq!(solo.raft.commit(), Index(2));

    let mut solo = leader();
    solo.propose(1);
    transfer(&mut solo, 2);
    assert!(solo.step(2, 1, accepted(2)).is_empty());
    assert_eq!(bodies(&solo.persist()), [&Body::TimeoutNow], "the own disk counts too");
}

#[test]
fn proposals_are_refused_meanwhile_and_taken_again_after_t() {
    let mut solo = leader();
    transfer(&mut solo, 2);
    solo.tick();
    let mut commands = vec![bytes::Bytes::from_static(b"x")];
    let (refused, _) = solo.act(|raft| raft.propose(EntryKind::Command, &mut commands));
    assert_eq!(refused, Err(ProposeError::Transferring(NodeId(2))));
    assert_eq!(commands.len(), 1, "what is refused is not taken");
    for _ in 0..8 {
        assert!(solo.raft.is_transferring());
        solo.pass(BEAT);
        solo.step(2, 1, accepted(1));
    }
    assert!(!solo.raft.is_transferring());
    solo.propose(1);
}

#[test]
fn a_target_that_refuses_is_not_waited_for() {
    let mut solo = leader();
    let refusal = || Body::PreVoteReply { granted: false };
    transfer(&mut solo, 2);
    solo.step(3, 1, refusal());
    assert!(solo.raft.is_transferring(), "it is another's");
    solo.step(2, 1, refusal());
    assert!(!solo.raft.is_transferring());
    solo.propose(1);
    transfer(&mut solo, 2);
    solo.step(2, 1, refusal());
    assert!(solo.raft.is_transferring(), "it was not told to stand yet");
}

#[test]
fn only_a_leader_hands_over_and_only_to_another_voter() {
    let mut solo = fresh();
    assert_eq!(solo.raft.transfer(NodeId(2)), Err(NotLeader(None)));
    let mut solo = leader();
    for to in [1, 9] {
        assert!(transfer(&mut solo, to).is_empty());
        assert!(!solo.raft.is_transferring());
    }
}

#[test]
fn the_target_stands_at_once_without_a_pre_vote() {
    let mut solo = fresh();
    solo.step(2, 1, heartbeat(0));
    solo.persist_all();
    solo.step(2, 1, Body::TimeoutNow);
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(2)));
    let asked = Body::Vote { last: EntryId::ZERO, transfer: true };
    assert_eq!(bodies(&solo.persist()), [&asked, &asked]);
}

#[test]
fn timeout_now_counts_only_from_the_leader_of_this_term() {
    let mut solo = fresh();
    solo.step(2, 2, heartbeat(0));
    solo.persist_all();
    solo.step(3, 2, Body::TimeoutNow);
    solo.step(2, 1, Body::TimeoutNow);
    solo.step(3, 3, Body::TimeoutNow);
    assert_eq!((solo.raft.role(), solo.raft.elections_started()), (Role::Follower, 0));
}

#[test]
fn leadership_moves_within_milliseconds_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3, 4);
    cluster.elect(1);
    cluster.propose(1, &["a", "b"]);
    cluster.act(1, |raft| raft.transfer(NodeId(3))).expect("it leads");
    cluster.run_until(BEAT, |cluster| cluster.raft(3).role() == Role::Leader);
    cluster.run(2 * BEAT);
    assert!(cluster.nodes.values().all(|node| node.raft.commit() == Index(4)));
    assert!(cluster.time < T, "no timer ran out");
}

// museum 20, rule 4
#[test]
fn a_read_right_after_a_transfer_sees_what_the_old_leader_acknowledged() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, seed);
        cluster.elect(1);
        cluster.run(BEAT);
        let first = cluster.propose(1, &["a", "b", "c"]);
        cluster.settle();
        assert!(cluster.raft(1).commit() == first.index.next().next() && cluster.raft(2).commit() < first.index);
        cluster.act(1, |raft| raft.transfer(NodeId(2))).expect("it leads");
        while cluster.raft(2).role() != Role::Leader {
            cluster.deliver_one().expect("the transfer is under way");
        }
        assert!(cluster.raft(2).commit() < first.index, "the new leader knows less than was acknowledged");
        assert!(cluster.read(2, 72));
        assert!(!cluster.raft(2).read_round_in_flight(), "nothing of its own term is committed");
        cluster.settle();
        assert!(cluster.raft(2).reads_waiting());
        assert!(cluster.read(2, 73));
        cluster.settle();
        // The cluster compares the index of each read with what was committed anywhere when it was asked for.
        let served: Vec<u64> = cluster.node(2).reads.iter().map(|ready| ready.read.0).collect();
        assert_eq!(served, [72, 73]);
        assert!(cluster.node(2).reads.iter().all(|ready| ready.index > first.index));
    }
}
