//! Elections: one test for each rule of the paper and of this implementation.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, ReadContext};
use raftkv_protocol::types::{EntryId, HardState, Index, NodeId, Term};

use super::Candidacy;
use super::cluster::{BEAT, Cluster, Disk, T};
use super::solo::{Solo, append, bodies, fresh, heartbeat, pre_vote, recovered, vote, with};

const YES: Body = Body::VoteReply { granted: true };
const NO: Body = Body::VoteReply { granted: false };
const PRE_YES: Body = Body::PreVoteReply { granted: true };
const PRE_NO: Body = Body::PreVoteReply { granted: false };

/// A follower of node 2 in term 1 that has just heard from it, all of it durable.
fn follower_of_2() -> Solo {
    let mut solo = recovered(3, 1, Some(2), &[1]);
    solo.step(2, 1, heartbeat(0));
    solo.tick();
    solo
}

#[test]
fn a_fresh_cluster_elects_one_leader_and_commits_its_noop() {
    let mut cluster = Cluster::new(3, 1);
    cluster.run_until(2 * T, |cluster| cluster.leader().is_some());
    cluster.run(2 * BEAT);
    for node in cluster.nodes.values() {
        assert_eq!(node.raft.commit(), Index(1), "{}", node.raft);
        assert_eq!(node.raft.leader().map(|leader| leader.0), cluster.leader());
    }
}

#[test]
fn a_lone_node_leads_at_once_but_not_before_its_vote_is_durable() {
    // museum 15
    let mut cluster = Cluster::new(1, 1);
    cluster.node_mut(1).disk = Disk::Held;
    cluster.tick_due();
    assert_eq!(cluster.raft(1).role(), Role::Candidate);
    cluster.persist(1, 1);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    assert_eq!(cluster.raft(1).commit(), Index(0), "committed before it was durable");
    cluster.persist(1, 1);
    assert_eq!(cluster.raft(1).commit(), Index(1));
}

// museum 1
#[test]
fn one_vote_a_term() {
    let mut solo = fresh();
    solo.step(2, 1, vote((0, 0)));
    assert_eq!(bodies(&solo.persist()), [&YES]);
    assert_eq!(bodies(&solo.step(3, 1, vote((9, 1)))), [&NO]);
    assert_eq!(bodies(&solo.step(2, 1, vote((0, 0)))), [&YES], "the same candidate may ask again");
}

#[test]
fn the_vote_is_kept_when_the_role_changes_in_its_term() {
    // museum 1
    let mut solo = fresh();
    solo.step(2, 1, vote((0, 0)));
    solo.persist_all();
    solo.step(2, 1, append((0, 0), 0, &[(1, 1)]));
    solo.persist_all();
    solo.tick();
    solo.pass(2 * T);
    assert_eq!(solo.raft.role(), Role::PreCandidate);
    assert_eq!(bodies(&solo.step(3, 1, vote((9, 1)))), [&NO]);

    let mut leader = fresh();
    leader.lead();
    leader.pass(T);
    leader.pass(T);
    assert_eq!(leader.raft.role(), Role::Follower, "nobody was heard");
    assert_eq!(bodies(&leader.step(3, 1, vote((9, 1)))), [&NO], "it voted for itself");
}

#[test]
fn a_doubled_vote_request_does_not_make_forget_the_leader() {
    let mut solo = fresh();
    solo.step(2, 1, vote((0, 0)));
    solo.persist_all();
    solo.step(2, 1, heartbeat(0));
    assert_eq!(bodies(&solo.step(2, 1, vote((0, 0)))), [&YES]);
    assert_eq!(solo.raft.leader(), Some(NodeId(2)));
}

// rule 1
#[test]
fn a_vote_leaves_when_it_is_durable() {
    // museum 2
    let mut solo = fresh();
    assert!(solo.step(2, 1, vote((0, 0))).is_empty());
    assert!(solo.step(2, 1, vote((0, 0))).is_empty(), "asked again, the answer waits again");
    assert_eq!(bodies(&solo.persist()), [&YES]);
}

#[test]
fn a_log_ahead_of_the_recovered_term_proves_a_term_without_a_vote() {
    // museum 3
    let mut solo = recovered(3, 2, Some(2), &[1, 5]);
    assert_eq!(solo.raft.hard_state, HardState { term: Term(5), vote: None });
    solo.tick();
    assert_eq!(solo.writes.len(), 1, "the later term is written down");
}

#[test]
fn a_recovered_vote_still_counts() {
    let mut solo = recovered(3, 4, Some(2), &[1]);
    assert_eq!(bodies(&solo.step(3, 4, vote((9, 4)))), [&NO]);
    assert_eq!(bodies(&solo.step(2, 4, vote((9, 4)))), [&YES]);
}

#[test]
fn only_a_log_at_least_as_good_gets_the_vote() {
    // §5.4.1: the later last term is better; in the same term, the longer log.
    for (last, answer) in [((9, 1), NO), ((2, 2), NO), ((3, 2), YES), ((4, 2), YES), ((1, 3), YES)] {
        let mut solo = recovered(3, 3, None, &[1, 2, 2]);
        let mut answers = solo.step(2, 4, vote(last));
        answers.extend(solo.persist_all());
        assert_eq!(bodies(&answers), [&answer], "a candidate whose log ends with {last:?}");
        let pre = solo.step(2, 5, pre_vote(last));
        assert_eq!(bodies(&pre), [if answer == YES { &PRE_YES } else { &PRE_NO }]);
    }
}

#[test]
fn a_pre_vote_changes_no_term_and_casts_no_vote() {
    let mut solo = fresh();
    let answers = solo.step(2, 8, pre_vote((0, 0)));
    assert_eq!((bodies(&answers), answers[0].term), (vec![&PRE_YES], Term(8)));
    assert_eq!(solo.raft.hard_state, HardState::default());
    assert!(solo.writes.is_empty());
    let asked = solo.pass(2 * T);
    assert_eq!(bodies(&asked), [&pre_vote((0, 0)), &pre_vote((0, 0))]);
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::PreCandidate, Term(0)));
}

// rule 1
#[test]
fn vote_requests_and_the_own_vote_wait_for_the_disk() {
    let mut solo = fresh();
    solo.pass(2 * T);
    assert!(solo.step(2, 1, PRE_YES).is_empty());
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(1)));
    solo.step(2, 1, YES);
    assert_eq!(solo.raft.role(), Role::Candidate, "an answer to a request that has not left");
    assert_eq!(solo.raft.dropped_messages(), 1);
    assert_eq!(bodies(&solo.persist()), [&vote((0, 0)), &vote((0, 0))]);
    solo.step(2, 1, YES);
    assert_eq!(solo.raft.role(), Role::Leader);
}

#[test]
fn a_candidate_of_five_needs_three_votes() {
    let mut solo = recovered(5, 0, None, &[]);
    solo.pass(2 * T);
    solo.step(2, 1, PRE_YES);
    solo.step(2, 1, PRE_YES);
    assert_eq!(solo.raft.role(), Role::PreCandidate, "the same voter twice");
    solo.step(3, 1, PRE_YES);
    solo.persist();
    solo.step(4, 1, YES);
    solo.step(5, 1, NO);
    assert_eq!(solo.raft.role(), Role::Candidate);
    solo.step(3, 1, YES);
    assert_eq!(solo.raft.role(), Role::Leader);
}

#[test]
fn a_candidate_that_hears_the_leader_of_its_term_follows() {
    let mut solo = fresh();
    solo.pass(2 * T);
    solo.step(2, 1, PRE_YES);
    solo.persist();
    solo.step(3, 1, heartbeat(0));
    assert_eq!((solo.raft.role(), solo.raft.leader()), (Role::Follower, Some(NodeId(3))));
}

#[test]
fn a_later_term_in_any_message_makes_a_follower() {
    for body in [
        heartbeat(0),
        append((0, 0), 0, &[]),
        NO,
        Body::HeartbeatReply { context: ReadContext::default(), promise: Default::default() },
    ] {
        let mut solo = fresh();
        solo.lead();
        solo.step(2, 7, body);
        assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Follower, Term(7)));
    }
}

#[test]
fn who_hears_a_leader_does_not_help_to_depose_it() {
    let mut solo = follower_of_2();
    solo.pass(T - Duration::from_millis(1));
    assert!(solo.step(3, 2, vote((9, 1))).is_empty());
    assert!(solo.tick().is_empty(), "a vote request is left unanswered");
    assert!(solo.step(3, 2, pre_vote((9, 1))).is_empty(), "the time is judged at the tick");
    assert_eq!(bodies(&solo.tick()), [&PRE_NO]);
    assert_eq!((solo.raft.term(), solo.raft.leader()), (Term(1), Some(NodeId(2))));
}

// rule 7
#[test]
fn stickiness_ends_after_t_even_if_the_request_came_before_the_tick() {
    let mut solo = follower_of_2();
    solo.step(3, 2, pre_vote((9, 1)));
    assert_eq!(bodies(&solo.pass(T)), [&PRE_YES]);
    solo.step(2, 1, heartbeat(0));
    solo.tick();
    solo.step(3, 2, vote((9, 1)));
    solo.pass(T);
    assert_eq!(bodies(&solo.persist()), [&YES]);
}

#[test]
fn a_leader_is_sticky_too() {
    let mut solo = fresh();
    solo.lead();
    solo.step(3, 2, vote((9, 1)));
    assert!(solo.tick().is_empty());
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Leader, Term(1)));
}

#[test]
fn stickiness_does_not_hold_up_a_transfer() {
    let mut solo = follower_of_2();
    solo.step(3, 2, Body::Vote { last: EntryId::new(1, 1), transfer: true });
    assert_eq!(bodies(&solo.persist()), [&YES]);
}

#[test]
fn the_sender_of_an_old_term_learns_the_new_one_once_it_is_durable() {
    // museum 4
    let requests = [pre_vote((9, 1)), vote((9, 1)), append((0, 0), 0, &[]), heartbeat(0)];
    for (at, request) in requests.into_iter().enumerate() {
        let mut solo = fresh();
        solo.step(3, 5, heartbeat(0));
        assert!(solo.step(2, 1, request).is_empty(), "term 5 is not durable yet");
        let answers = solo.persist_all();
        assert!(answers.iter().any(|answer| answer.to == NodeId(2) && answer.term == Term(5)), "request {at}");
    }
}

#[test]
fn a_refused_pre_vote_teaches_the_later_term() {
    // museum 4
    let mut solo = fresh();
    solo.pass(2 * T);
    solo.step(2, 6, PRE_NO);
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Follower, Term(6)));
    solo.persist();
    solo.tick();
    solo.pass(2 * T);
    solo.step(2, 7, PRE_YES);
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(7)));
}

// rule 9
#[test]
fn a_node_without_a_vote_votes_when_asked_and_never_stands() {
    // museum 8, museum 9
    let mut solo = with(3, 0, None, &[], |config| config.voters = vec![NodeId(2), NodeId(3), NodeId(4)]);
    assert_eq!(solo.raft.role(), Role::Learner);
    solo.step(2, 1, vote((0, 0)));
    assert_eq!(bodies(&solo.persist()), [&YES]);
    solo.step(2, 1, append((0, 0), 0, &[]));
    solo.tick();
    for input in [Body::TimeoutNow, heartbeat(0)] {
        solo.step(2, 1, input);
    }
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.tick();
    for _ in 0..20 {
        assert!(solo.pass(T).is_empty());
    }
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Learner, Term(1)));
}

#[test]
fn a_node_that_must_not_lead_never_stands_and_votes_as_ever() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.set_candidacy(Candidacy::Never));
    let refusal = Body::PreVoteReply { granted: false };
    assert_eq!(bodies(&solo.step(2, 1, Body::TimeoutNow)), [&refusal], "its leader need not wait for it");
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.tick();
    for _ in 0..20 {
        assert!(solo.pass(T).is_empty());
    }
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Follower, Term(1)));
    solo.step(3, 2, vote((1, 1)));
    assert_eq!(bodies(&solo.persist()), [&YES]);
    solo.act(|raft| raft.set_candidacy(Candidacy::Willing));
    solo.tick();
    solo.pass(2 * T);
    assert_eq!(solo.raft.role(), Role::PreCandidate);
}

#[test]
fn a_reluctant_node_stands_when_the_others_have_had_their_time() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.set_candidacy(Candidacy::Reluctant));
    solo.step(2, 1, heartbeat(0));
    solo.tick();
    assert!(solo.pass(T * 3 / 2 - Duration::from_millis(1)).is_empty());
    assert_eq!(bodies(&solo.pass(T / 2)), [&pre_vote((1, 1)), &pre_vote((1, 1))]);
    // If the leader itself asks, nobody else should stand.
    let mut solo = follower_of_2();
    solo.act(|raft| raft.set_candidacy(Candidacy::Reluctant));
    solo.step(2, 1, Body::TimeoutNow);
    assert_eq!(solo.raft.role(), Role::Candidate);
}

// rule 7
#[test]
fn a_process_that_slept_hears_its_input_before_it_judges() {
    let mut solo = follower_of_2();
    solo.step(2, 1, heartbeat(0));
    solo.pass(10 * T);
    assert_eq!(solo.raft.role(), Role::Follower);
    solo.pass(2 * T);
    assert_eq!(solo.raft.role(), Role::PreCandidate);
}

// rule 5
#[test]
fn a_broken_link_counts_only_for_the_leader_of_this_term() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.link_lost(NodeId(3)));
    solo.tick();
    assert!(solo.pass(Duration::from_millis(100)).is_empty(), "node 3 does not lead");
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.tick();
    let asked = solo.pass(Duration::from_millis(20));
    assert_eq!(bodies(&asked), [&pre_vote((1, 1)), &pre_vote((1, 1))]);
}

// rule 5
#[test]
fn who_saw_the_link_break_grants_at_once() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.link_lost(NodeId(2)));
    assert_eq!(bodies(&solo.step(3, 2, pre_vote((1, 1)))), [&PRE_YES]);
    solo.step(3, 2, vote((1, 1)));
    assert_eq!(bodies(&solo.persist()), [&YES]);
}

#[test]
fn a_hinted_follower_lets_the_one_it_granted_go_first() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.tick();
    solo.step(3, 2, pre_vote((1, 1)));
    solo.tick();
    assert!(solo.pass(Duration::from_millis(14)).is_empty());
    assert_eq!(solo.pass(Duration::from_millis(16)).len(), 2, "but not for long");
}

#[test]
fn a_word_of_the_leader_cancels_the_hint() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.step(2, 1, heartbeat(0));
    solo.tick();
    assert!(solo.pass(Duration::from_millis(100)).is_empty());
    solo.step(3, 2, pre_vote((9, 1)));
    assert_eq!(bodies(&solo.tick()), [&PRE_NO], "sticky again");
}

// rule 5
#[test]
fn a_hinted_follower_retries_five_times_and_then_in_its_own_time() {
    let mut solo = follower_of_2();
    solo.act(|raft| raft.link_lost(NodeId(2)));
    let (mut attempts, mut quick) = (0, 0);
    let mut since = Duration::ZERO;
    for _ in 0..1_000 {
        since += Duration::from_millis(1);
        if solo.pass(Duration::from_millis(1)).is_empty() {
            continue;
        }
        attempts += 1;
        quick += u32::from(attempts > 1 && since <= Duration::from_millis(31));
        assert!(attempts == 1 || since >= Duration::from_millis(15), "too soon: {since:?}");
        since = Duration::ZERO;
        solo.step(2, 1, PRE_NO);
        solo.step(3, 1, PRE_NO);
    }
    assert_eq!((attempts, quick), (6, 5));
    assert_eq!(solo.raft.term(), Term(1));
}

// rule 5
#[test]
fn a_single_cut_link_changes_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, seed);
        cluster.elect(1);
        cluster.run(BEAT);
        cluster.cut(1, 2);
        cluster.act(2, |raft| raft.link_lost(NodeId(1)));
        cluster.run(5 * T);
        assert_eq!((cluster.leader(), cluster.raft(3).term()), (Some(1), Term(1)));
        cluster.heal();
        cluster.run(2 * BEAT);
        assert_eq!(cluster.raft(2).leader(), Some(NodeId(1)));
    }
}

#[test]
fn a_dead_leader_whose_links_closed_is_replaced_within_milliseconds() {
    let mut waits: Vec<Duration> = Vec::new();
    for seed in 0..100 {
        let mut cluster = Cluster::new(3, seed);
        cluster.elect(1);
        cluster.run(BEAT);
        cluster.isolate(1);
        cluster.act(2, |raft| raft.link_lost(NodeId(1)));
        cluster.act(3, |raft| raft.link_lost(NodeId(1)));
        let start = cluster.time;
        cluster.run_until(T, |cluster| cluster.leader() != Some(1));
        waits.push(cluster.time - start);
    }
    waits.sort();
    assert!(waits[50] <= Duration::from_millis(15), "median {:?}", waits[50]);
    assert!(waits[99] <= Duration::from_millis(120), "longest {:?}", waits[99]);
}

#[test]
fn a_silent_leader_is_replaced_within_two_election_timeouts() {
    for seed in 0..30 {
        let mut cluster = Cluster::new(3, seed);
        cluster.elect(1);
        cluster.run(BEAT);
        cluster.isolate(1);
        cluster.run_until(2 * T, |cluster| cluster.raft(2).term() > Term(1) && cluster.leader() != Some(1));
    }
}

// rule 7
#[test]
fn a_leader_that_hears_nobody_steps_down_and_stops_answering() {
    let mut solo = fresh();
    solo.lead();
    solo.pass(Duration::from_millis(1));
    solo.pass(T);
    assert_eq!((solo.raft.role(), solo.raft.leader()), (Role::Follower, None));
}

#[test]
fn a_leader_that_slept_does_not_hold_the_silence_against_the_others() {
    let mut solo = fresh();
    solo.lead();
    solo.tick();
    solo.pass(10 * T);
    assert_eq!(solo.raft.role(), Role::Leader);
    for _ in 0..7 {
        solo.pass(BEAT);
        assert_eq!(solo.raft.role(), Role::Leader);
    }
    solo.pass(BEAT);
    assert_eq!(solo.raft.role(), Role::Follower);
}

#[test]
fn a_link_that_comes_up_repeats_the_question() {
    let mut solo = fresh();
    solo.pass(2 * T);
    solo.step(2, 0, PRE_NO);
    let (_, again) = solo.act(|raft| raft.link_up(NodeId(3)));
    assert_eq!(again.len(), 1);
    let (_, answered) = solo.act(|raft| raft.link_up(NodeId(2)));
    assert!(answered.is_empty(), "node 2 has answered");
}

#[test]
fn a_vote_counts_even_if_a_refusal_of_an_earlier_request_came_first() {
    let mut solo = fresh();
    solo.pass(2 * T);
    solo.step(2, 1, PRE_YES);
    solo.step(2, 1, NO);
    solo.persist();
    solo.step(2, 1, NO);
    solo.step(2, 1, YES);
    assert_eq!((solo.raft.role(), solo.raft.dropped_messages()), (Role::Leader, 0));
}
