//! Peers and disks that do not answer for long: nothing grows while they do not, and nobody else waits.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, ReadContext};
use raftkv_protocol::types::{EntryId, HardState, Incarnation, Index, NodeId, Term};

use super::cluster::{BEAT, Cluster, Disk, T};
use super::solo::{accepted, append, bodies, fresh, heartbeat, recovered, rejected, vote};

/// A heartbeat of this read round.
fn round(counter: u64) -> Body {
    let context = ReadContext { incarnation: Incarnation(2), term: Term(1), counter };
    Body::Heartbeat { commit: Index(0), context, sent_us: 0 }
}

// museum 18
#[test]
fn a_follower_that_is_gone_costs_a_leader_what_may_be_on_its_way_and_no_more() {
    let mut solo = fresh();
    solo.lead();
    solo.persist_all();
    solo.step(2, 1, accepted(1));
    solo.step(3, 1, accepted(1));
    let mut sent = 0;
    for last in 2..2_000 {
        let to_3 = |appends: Vec<super::Outgoing>| appends.iter().filter(|one| one.message.to.0 == 3).count();
        sent += to_3(solo.propose(1));
        solo.persist_all();
        solo.step(2, 1, accepted(last));
        if last % 50 == 0 {
            let beat = solo.pass(BEAT);
            sent += beat.iter().filter(|one| one.to.0 == 3 && matches!(one.body, Body::Append { .. })).count();
        }
    }
    assert_eq!(solo.raft.commit(), Index(1_999));
    assert_eq!(sent, 10, "as many appends as may be on their way, none of them again");
    let progress = solo.raft.progress_of(raftkv_protocol::types::NodeId(3)).expect("a member");
    assert_eq!((progress.inflight.len(), progress.inflight.bytes()), (10, 10));
    assert_eq!(solo.raft.uncommitted_bytes(), 0);
}

// museum 18, rule 1
#[test]
fn what_waits_for_a_disk_that_hangs_does_not_grow_with_what_peers_ask() {
    let mut solo = recovered(3, 1, None, &[]);
    for counter in 1..=1_000 {
        assert!(solo.step(2, 2, round(counter)).is_empty(), "term 2 is not durable");
        assert!(solo.step(2, 2, append((7, 1), 0, &[])).is_empty());
        assert!(solo.step(3, 1, heartbeat(0)).is_empty());
        assert!(solo.step(3, 2, vote((0, 0))).is_empty());
    }
    assert_eq!(solo.writes.len(), 1, "the term, and nothing else");
    let answers: Vec<(u64, Body)> = solo.persist().into_iter().map(|answer| (answer.to.0, answer.body)).collect();
    let newest = ReadContext { incarnation: Incarnation(2), term: Term(1), counter: 1_000 };
    assert!(
        answers.contains(&(2, Body::HeartbeatReply { context: newest, promise: Default::default() })),
        "{answers:?}"
    );
    assert!(answers.contains(&(2, rejected(7, (0, 0)))), "{answers:?}");
    assert_eq!(answers.len(), 4, "one of each kind to each peer: {answers:?}");
}

#[test]
fn an_answer_that_waited_does_not_leave_in_another_term() {
    let mut solo = fresh();
    solo.step(2, 1, round(1));
    solo.step(3, 2, heartbeat(0));
    assert_eq!(solo.writes.len(), 2);
    assert!(solo.persist().is_empty(), "term 1 is durable, but left already");
    let answers = solo.persist();
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].to.0, answers[0].term), (3, Term(2)));
}

// museum 44, rule 8
#[test]
fn a_leader_whose_disk_hangs_holds_nobody_up_and_vouches_for_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, seed);
        cluster.elect(1);
        cluster.run(BEAT);
        cluster.node_mut(1).disk = Disk::Held;
        for _ in 0..20 {
            let first = cluster.propose(1, &["a", "b"]);
            cluster.run(BEAT);
            assert!(cluster.raft(1).commit() > first.index, "the others' disks are a majority");
            assert!(cluster.raft(1).persisted_index() < first.index);
        }
        // What it has not made durable it must not vouch for either, as a follower of somebody else.
        cluster.act(1, |raft| raft.transfer(raftkv_protocol::types::NodeId(2))).expect("it leads");
        cluster.run_until(T, |cluster| cluster.raft(2).role() == Role::Leader);
        cluster.run(T);
        assert_eq!(cluster.raft(2).matched(raftkv_protocol::types::NodeId(1)), Some(Index(0)));
        cluster.node_mut(1).disk = Disk::Prompt;
        cluster.persist(1, usize::MAX);
        cluster.run(2 * BEAT);
        let last = cluster.raft(2).last();
        assert_eq!((cluster.raft(1).last(), cluster.raft(1).persisted_index()), (last, last.index));
    }
}

// museum 44
#[test]
fn a_candidate_whose_disk_hangs_does_not_win() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect(1);
    cluster.run(BEAT);
    cluster.node_mut(2).disk = Disk::Held;
    cluster.isolate(1);
    cluster.time += T;
    cluster.campaign(2);
    cluster.settle();
    assert_eq!((cluster.raft(2).role(), cluster.raft(3).term()), (Role::Candidate, Term(1)), "nobody was asked yet");
    cluster.run_until(4 * T, |cluster| cluster.raft(3).role() != Role::Follower);
    // Node 3 cannot win alone either, as node 2's vote waits for its disk. It can as soon as the disk is back.
    cluster.run(2 * T);
    assert!([2, 3].iter().all(|&id| cluster.raft(id).role() != Role::Leader));
    cluster.node_mut(2).disk = Disk::Prompt;
    cluster.persist(2, usize::MAX);
    cluster.run_until(4 * T, |cluster| [2, 3].iter().any(|&id| cluster.raft(id).role() == Role::Leader));
}

/// On a full disk entries wait for hours; terms and votes go ahead of them.
// museum 41, rule 1, rule 2
#[test]
fn a_vote_that_is_durable_ahead_of_entries_counts_and_they_do_not() {
    let mut solo = recovered(3, 1, None, &[1]);
    solo.step(2, 1, append((1, 1), 1, &[(2, 1), (3, 1)]));
    assert_eq!(solo.writes.len(), 1, "the entries");
    assert!(solo.step(3, 2, Body::Vote { last: EntryId::new(3, 1), transfer: true }).is_empty());
    let durable = HardState { term: Term(2), vote: Some(NodeId(3)) };
    let (upto, _) = solo.act(|raft| raft.hard_state_persisted(durable));
    assert_eq!(upto, Some(solo.writes[1].0));
    assert_eq!(bodies(&solo.writes[1].1), [&Body::VoteReply { granted: true }], "it may leave");
    assert_eq!(solo.raft.persisted_index(), Index(1));
    // Term 1's write comes back: it must not take term 2 back.
    solo.persist();
    assert_eq!(solo.raft.persisted_index(), Index(3));
    let answers = solo.step(3, 2, heartbeat(0));
    assert_eq!(answers.len(), 1, "the term of the answer is durable");

    // An own vote counts as well.
    let mut solo = recovered(3, 1, None, &[1]);
    solo.step(2, 1, append((1, 1), 1, &[(2, 1)]));
    solo.act(|raft| raft.timer.fire_now());
    solo.tick();
    solo.step(3, 2, Body::PreVoteReply { granted: true });
    solo.act(|raft| raft.hard_state_persisted(HardState { term: Term(2), vote: Some(NodeId(1)) }));
    solo.step(3, 2, Body::VoteReply { granted: true });
    assert_eq!((solo.raft.role(), solo.raft.persisted_index()), (Role::Leader, Index(1)));
    assert_eq!(solo.raft.hard_state_persisted(HardState { term: Term(9), vote: None }), None, "no write holds that");
}
