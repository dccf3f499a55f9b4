//! A replica whose disk has lost what it held: one test for each rule. Node 1 of three is the damaged one.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message, ReadContext};
use raftkv_protocol::types::{EntryId, HardState, Incarnation, Index, NodeId, Term};

use super::candidate::Cause;
use super::cluster::{BEAT, Cluster, Disk, T};
use super::cluster_damage::Rest;
use super::solo::{Solo, accepted, append, bodies, damaged, fresh, heartbeat, pre_vote, recovered, vote};

const REFUSED: Body = Body::PreVoteReply { granted: false };
const GRANTED: Body = Body::PreVoteReply { granted: true };

/// The voters that are asked for their terms, and nothing else is sent.
fn asked(messages: &[Message]) -> Vec<u64> {
    let question = pre_vote((0, 0));
    assert!(messages.iter().all(|message| message.body == question && message.term == Term(1)), "{messages:?}");
    messages.iter().map(|message| message.to.0).collect()
}

/// Everybody tells this term.
fn all_tell(solo: &mut Solo, term: u64) {
    solo.step(2, term, REFUSED);
    solo.step(3, term, REFUSED);
}

/// A damaged replica in term 2 with the log 1@1 2@2, of which leader 2 has announced 2@2 as committed. Its promises are
/// not known.
fn caught_up() -> Solo {
    let mut solo = damaged(3, 2, None, &[1, 2]);
    solo.step(2, 2, append((2, 2), 2, &[]));
    solo
}

// rule 15
#[test]
fn nobody_gets_the_vote_of_a_damaged_replica() {
    let mut solo = damaged(3, 2, None, &[1]);
    assert_eq!(bodies(&solo.step(2, 3, pre_vote((9, 2)))), [&REFUSED]);
    solo.step(2, 3, vote((9, 2)));
    assert_eq!(bodies(&solo.persist_all()), [&Body::VoteReply { granted: false }]);
    assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(3), None));
}

// rule 15
#[test]
fn a_damaged_replica_never_stands() {
    let mut solo = damaged(3, 2, None, &[1]);
    solo.tick();
    for _ in 0..5 {
        asked(&solo.pass(T));
    }
    solo.step(2, 2, heartbeat(0));
    assert_eq!(bodies(&solo.step(2, 2, Body::TimeoutNow)), [&REFUSED]);
    assert_eq!((solo.raft.role(), solo.raft.term(), solo.raft.elections_started()), (Role::Follower, Term(2), 0));
}

#[test]
fn every_other_voter_is_asked_for_its_term_until_it_tells_it() {
    let mut solo = damaged(5, 2, None, &[1]);
    assert_eq!(asked(&solo.tick()), [2, 3, 4, 5]);
    assert!(solo.tick().is_empty());
    solo.step(3, 2, REFUSED);
    solo.step(4, 1, REFUSED);
    // A leader that is heard does not put it off.
    let mut again = Vec::new();
    for _ in 0..8 {
        solo.step(2, 2, heartbeat(0));
        again.extend(solo.pass(BEAT));
    }
    assert_eq!(asked(&again), [2, 5]);
    let (_, on_link) = solo.act(|raft| raft.link_up(NodeId(5)));
    assert_eq!(on_link[0].message.body, pre_vote((0, 0)));
    assert!(solo.act(|raft| raft.link_up(NodeId(3))).1.is_empty(), "it has told its term");
    assert!(solo.raft.state_line().ends_with("damaged silent=2,5"), "{}", solo.raft);
    solo.step(2, 2, REFUSED);
    solo.step(5, 2, REFUSED);
    assert!(solo.raft.is_damaged() && solo.raft.state_line().ends_with("damaged"), "{}", solo.raft);
    assert!(solo.pass(2 * T).is_empty());
}

#[test]
fn who_is_asked_tells_its_term_at_once_and_nothing_changes() {
    let question = || pre_vote((0, 0));
    // A leader, a follower that heard its leader, one that lost it, and one with a shorter log than any: empty.
    let mut leader = recovered(3, 2, None, &[1]);
    leader.lead();
    leader.persist_all();
    let mut loyal = recovered(3, 2, None, &[1]);
    loyal.step(3, 2, heartbeat(0));
    let mut hinted = recovered(3, 2, None, &[1]);
    hinted.step(3, 2, heartbeat(0));
    hinted.act(|raft| raft.link_lost(NodeId(3)));
    let empty = recovered(3, 2, None, &[]);
    for mut solo in [leader, loyal, hinted, empty] {
        let before = (solo.raft.state_line(), solo.raft.deadline());
        let answer = solo.step(2, 1, question());
        assert_eq!((bodies(&answer), answer[0].term), (vec![&REFUSED], solo.raft.term()));
        assert_eq!((solo.raft.state_line(), solo.raft.deadline()), before);
    }
    // Term 0 is told by a grant of term 1.
    let mut solo = fresh();
    let answer = solo.step(2, 1, question());
    assert_eq!((bodies(&answer), answer[0].term), (vec![&GRANTED], Term(1)));
    assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(0), None));
}

#[test]
fn a_term_of_zero_is_told_by_a_grant_and_other_grants_tell_nothing() {
    let mut solo = damaged(3, 0, None, &[]);
    solo.step(2, 7, GRANTED);
    assert!(solo.raft.state_line().ends_with("silent=2,3"), "{}", solo.raft);
    solo.step(2, 1, GRANTED);
    assert!(solo.raft.state_line().ends_with("silent=3"), "{}", solo.raft);
    assert_eq!(solo.raft.term(), Term(0));
}

// rule 3
#[test]
fn until_its_promises_are_known_it_acknowledges_what_is_committed_anyway() {
    let mut solo = damaged(3, 2, None, &[1, 2]);
    assert!(solo.step(2, 2, append((2, 2), 0, &[(3, 2), (4, 2)])).is_empty());
    assert!(solo.persist_all().is_empty(), "nothing of it is committed");
    assert_eq!(bodies(&solo.step(2, 2, append((4, 2), 3, &[]))), [&accepted(3)]);
    assert_eq!(bodies(&solo.step(2, 2, append((4, 2), 4, &[]))), [&accepted(4)]);
    solo.step(2, 2, append((4, 2), 4, &[(5, 2)]));
    assert!(solo.persist_all().is_empty());
    assert!(solo.step(2, 2, REFUSED).is_empty());
    assert_eq!(bodies(&solo.step(3, 2, REFUSED)), [&accepted(5)], "now it knows them");
}

// rule 4
#[test]
fn until_its_promises_are_known_it_confirms_no_read() {
    let round = ReadContext { incarnation: Incarnation(4), term: Term(2), counter: 7 };
    let asks = || Body::Heartbeat { commit: Index(0), context: round, sent_us: 0 };
    let mut solo = damaged(3, 2, None, &[1]);
    let lives = Body::HeartbeatReply { context: ReadContext::default(), promise: Default::default() };
    assert_eq!(bodies(&solo.step(2, 2, asks())), [&lives]);
    all_tell(&mut solo, 2);
    assert_eq!(
        bodies(&solo.step(2, 2, asks())),
        [&Body::HeartbeatReply { context: round, promise: Default::default() }]
    );
}

// rule 15
#[test]
fn it_heals_when_all_have_told_their_terms_and_everything_is_back() {
    let mut solo = caught_up();
    solo.step(2, 2, REFUSED);
    assert!(solo.raft.is_damaged() && solo.raft.vote().is_none(), "node 3 is silent");
    solo.step(3, 1, REFUSED);
    assert_eq!(solo.raft.vote(), Some(NodeId(1)), "nobody else gets its vote in this term");
    assert!(solo.raft.is_damaged(), "a restart would forget it");
    solo.persist_all();
    assert!(!solo.raft.is_damaged());
    solo.step(3, 2, vote((9, 2)));
    assert_eq!(solo.raft.vote(), Some(NodeId(1)));
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.step(3, 3, vote((9, 2)));
    assert_eq!((bodies(&solo.persist_all()), solo.raft.term()), (vec![&Body::VoteReply { granted: true }], Term(3)));
}

// rule 15
#[test]
fn a_vote_that_its_disk_knows_of_stays() {
    let mut solo = damaged(3, 2, Some(2), &[1, 2]);
    solo.step(2, 2, append((2, 2), 2, &[]));
    all_tell(&mut solo, 2);
    assert!(!solo.raft.is_damaged(), "it is on its disk");
    assert_eq!((solo.raft.vote(), solo.writes.len()), (Some(NodeId(2)), 0));
}

// rule 15
#[test]
fn a_commit_index_of_an_earlier_term_proves_nothing() {
    let mut solo = damaged(3, 2, None, &[1, 1]);
    all_tell(&mut solo, 2);
    solo.step(2, 2, append((2, 1), 2, &[(3, 2)]));
    solo.persist_all();
    assert!(solo.raft.is_damaged(), "2@1 is committed, and more may be");
    solo.step(2, 2, heartbeat(3));
    solo.persist_all();
    assert!(!solo.raft.is_damaged());
}

// rule 15
#[test]
fn what_is_announced_is_to_be_durable_here() {
    let mut solo = damaged(3, 2, None, &[1]);
    all_tell(&mut solo, 2);
    solo.step(2, 2, append((1, 1), 3, &[(2, 2), (3, 2)]));
    assert_eq!((solo.raft.commit(), solo.raft.vote()), (Index(3), None));
    solo.persist();
    assert_eq!(solo.raft.vote(), Some(NodeId(1)));
    solo.persist_all();
    assert!(!solo.raft.is_damaged());
}

/// Else it would not heal as long as there are writes.
#[test]
fn the_goal_does_not_move_on_while_more_is_committed() {
    let mut solo = damaged(3, 2, None, &[1]);
    all_tell(&mut solo, 2);
    solo.step(2, 2, append((1, 1), 4, &[(2, 2), (3, 2)]));
    solo.step(2, 2, append((3, 2), 9, &[(4, 2), (5, 2)]));
    solo.step(2, 2, append((5, 2), 30, &[(6, 2), (7, 2)]));
    assert_eq!(solo.raft.vote(), None);
    solo.persist();
    assert_eq!(solo.raft.vote(), None, "4@2 is on its way to the disk");
    solo.persist();
    assert_eq!(solo.raft.vote(), Some(NodeId(1)));
}

// rule 15
#[test]
fn a_later_term_that_is_told_takes_the_word_of_the_earlier_leader() {
    let mut solo = caught_up();
    solo.step(2, 2, REFUSED);
    solo.step(3, 4, REFUSED);
    solo.persist_all();
    assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(4), None));
    assert!(solo.raft.is_damaged(), "the leader of term 2 knows nothing of what was committed since");
    solo.step(3, 4, append((2, 2), 3, &[(3, 4)]));
    solo.persist_all();
    assert_eq!((solo.raft.vote(), solo.raft.is_damaged()), (Some(NodeId(1)), false));
}

// rule 15
#[test]
fn what_the_leader_of_an_earlier_term_announced_is_no_goal() {
    let mut solo = damaged(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 3, &[]));
    all_tell(&mut solo, 3);
    solo.step(3, 3, append((1, 1), 9, &[(2, 3), (3, 3), (4, 3)]));
    solo.persist_all();
    assert_eq!(solo.raft.commit(), Index(4));
    assert!(solo.raft.is_damaged(), "the leader of term 3 has committed 9 entries");
}

#[test]
fn a_later_term_does_not_undo_what_was_made_up_for() {
    let mut solo = caught_up();
    all_tell(&mut solo, 2);
    assert_eq!(solo.raft.vote(), Some(NodeId(1)));
    solo.step(3, 5, heartbeat(0));
    assert!(solo.raft.is_damaged(), "neither term is durable");
    solo.persist();
    assert_eq!((solo.raft.is_damaged(), solo.raft.term(), solo.raft.vote()), (false, Term(5), None));
}

#[test]
#[should_panic(expected = "n1 is damaged and alone")]
fn a_damaged_replica_without_peers_is_refused() {
    damaged(1, 2, None, &[1]);
}

/// What a process has asked is not granted when the next one of its node may be there.
// rule 23
#[test]
fn what_was_asked_before_the_link_came_up_is_asked_again_or_not_at_all() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(3, 2, heartbeat(0));
    solo.tick();
    assert!(solo.step(2, 5, vote((9, 2))).is_empty(), "kept: it heard its leader");
    solo.act(|raft| raft.link_up(NodeId(2)));
    solo.act(|raft| raft.link_lost(NodeId(3)));
    solo.tick();
    assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(2), None));
    // A refusal that waits for the disk answers what was asked before.
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(3, 4, heartbeat(0));
    solo.step(2, 3, pre_vote((0, 0)));
    solo.act(|raft| raft.link_up(NodeId(2)));
    assert!(solo.persist_all().iter().all(|message| message.to == NodeId(3)));
}

/// Everything but the last entries of the log.
fn all_but(cluster: &Cluster, id: u64, entries: u64) -> Rest {
    Rest { last: Index(cluster.raft(id).last().index.0 - entries), states_lost: 0, snapshots: true }
}

// museum 42
#[test]
fn an_acknowledgement_from_before_the_loss_commits_nothing_after_it() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect(1);
    cluster.run(BEAT);
    cluster.isolate(2);
    cluster.node_mut(1).disk = Disk::Held;
    cluster.propose(1, &["a"]);
    cluster.settle();
    assert_eq!(cluster.raft(1).matched(NodeId(3)), Some(Index(2)));
    // Node 3 has acknowledged 2@1, which the leader's disk does not have yet, and loses it.
    let rest = all_but(&cluster, 3, 1);
    cluster.cut(1, 3);
    cluster.cut(3, 1);
    cluster.damage(3, rest, Disk::Prompt);
    cluster.mend(1, 3);
    cluster.persist(1, usize::MAX);
    assert_eq!(cluster.raft(1).commit(), Index(1), "node 1 alone has it");
    cluster.heal();
    cluster.run_until(T, |cluster| !cluster.raft(3).is_damaged());
    cluster.run_until(T, |cluster| cluster.nodes.values().all(|node| node.raft.commit() == Index(2)));
}

// museum 42
#[test]
fn a_damaged_leader_follows_and_gets_everything_back() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect(1);
    cluster.propose(1, &["a", "b"]);
    cluster.run(BEAT);
    let rest = Rest { last: Index(1), states_lost: 9, snapshots: true };
    cluster.damage(1, rest, Disk::Prompt);
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).last()), (Term(1), EntryId::new(1, 1)));
    cluster.run_until(4 * T, |cluster| !cluster.raft(1).is_damaged());
    assert_ne!(cluster.leader(), Some(1));
    assert!(cluster.raft(1).term() > Term(1) && cluster.raft(1).commit() > Index(3));
    let healed = HardState { term: cluster.raft(1).term(), vote: Some(NodeId(1)) };
    assert_eq!(cluster.raft(1).persistence.durable(), healed);
    let leader = cluster.leader().expect("it announced its commit index");
    cluster.act(leader, |raft| raft.transfer(NodeId(1))).expect("it leads");
    cluster.run_until(T, |cluster| cluster.leader() == Some(1));
}

/// Why the links must bring nothing of a process once the next one of its node is heard: node 3 stands for election with
/// 3@1 and loses that and the term before its request reaches node 2. It heals, as 3@1 is not committed yet, and stands in
/// the same term again, without it.
// rule 23
#[test]
#[should_panic(expected = "elected without the committed")]
fn a_request_from_before_the_loss_must_not_be_granted_after_it() {
    let mut cluster = Cluster::with(3, |config| config.append_bytes_max = 1);
    cluster.elect(1);
    cluster.propose(1, &["a"]);
    cluster.run(BEAT);
    cluster.node_mut(1).disk = Disk::Held;
    cluster.cut(2, 1);
    cluster.cut(3, 1);
    cluster.propose(1, &["b"]);
    cluster.settle();
    cluster.act(3, |raft| raft.campaign(Cause::Transfer));
    let is_to_2 = |message: &&Message| message.to == NodeId(2);
    let request = cluster.network.iter().find(is_to_2).cloned().expect("it asks for votes");
    cluster.damage(3, Rest { last: Index(1), states_lost: 1, snapshots: true }, Disk::Prompt);
    cluster.mend(3, 1);
    while cluster.raft(3).is_damaged() {
        cluster.tick_due();
        cluster.deliver_one().expect("it is on its way to health");
    }
    assert_eq!((cluster.raft(3).term(), cluster.raft(3).last()), (Term(1), EntryId::new(2, 1)));
    cluster.isolate(3);
    cluster.mend(2, 1);
    cluster.run(2 * BEAT);
    cluster.persist(1, usize::MAX);
    cluster.run(2 * BEAT);
    assert_eq!(cluster.raft(1).commit(), Index(3));
    cluster.act(3, |raft| raft.campaign(Cause::Transfer));
    cluster.heal();
    cluster.network.clear();
    cluster.hand_over(request);
    cluster.settle();
}

#[test]
fn leadership_is_not_handed_to_a_damaged_replica() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect(1);
    cluster.run(BEAT);
    cluster.isolate(2);
    let rest = all_but(&cluster, 3, 0);
    cluster.damage(3, rest, Disk::Prompt);
    cluster.run(BEAT);
    cluster.act(1, |raft| raft.transfer(NodeId(3))).expect("it leads");
    assert!(cluster.raft(1).is_transferring());
    cluster.settle();
    assert!(!cluster.raft(1).is_transferring(), "it is refused at once");
    assert_eq!((cluster.leader(), cluster.raft(1).term()), (Some(1), Term(1)));
    assert!(cluster.raft(3).is_damaged());
}
