//! Snapshots and the start of the log: one test for each rule.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{AppendResult, Body, Message, ReadContext};
use raftkv_protocol::types::{EntryId, Index, NodeId, ShardId, SnapshotId, Term};

use super::Ready;
use super::cluster::{BEAT, T};
use super::solo::{
    Solo, accepted, append, bodies, fresh, heartbeat, meta, offer, recovered, rejected, starting_after, vote,
    with_snapshot,
};

/// The same message as from another link than the first.
fn on_link(link: u32, body: Body) -> Body {
    match body {
        Body::Snapshot { meta, .. } => Body::Snapshot { link, meta },
        Body::AppendReply { result, .. } => Body::AppendReply { link, result },
        other => other,
    }
}

fn applied(solo: &mut Solo, index: u64) {
    solo.act(|raft| raft.applied(Index(index)));
}

fn snapshot_taken(solo: &mut Solo, id: u64, at: (u64, u64)) -> bool {
    solo.act(|raft| raft.snapshot_taken(meta(id, at))).0
}

fn compact(solo: &mut Solo, start: (u64, u64)) -> bool {
    solo.act(|raft| raft.compact(EntryId::new(start.0, start.1))).0
}

/// What is sent at once, and whether the snapshot took effect.
fn restore(solo: &mut Solo, id: u64, at: (u64, u64)) -> (bool, Vec<Message>) {
    let (restored, messages) = solo.act(|raft| raft.restore(meta(id, at)));
    (restored, messages.into_iter().map(|outgoing| outgoing.message).collect())
}

/// A leader of term 2 whose log starts after 10@1, as snapshot 1 covers it, and ends with its no-op 15@2. It knows
/// nothing of the others.
fn compacted_leader() -> Solo {
    let mut solo = with_snapshot(EntryId::new(10, 1), &[1, 1, 1, 1], meta(1, (10, 1)));
    solo.lead();
    solo.persist_all();
    solo
}

/// The same, and node 2 has been offered the snapshot.
fn offering_leader() -> Solo {
    let mut solo = compacted_leader();
    let offered = solo.step(2, 2, rejected(14, (3, 1)));
    assert_eq!(bodies(&offered), [&offer(1, (10, 1))]);
    solo
}

/// A leader of term 2 with the log 1@1 to 6@2, of which node 3 has all and node 2 has 2@2; what comes after is on its
/// way there. The log starts after 5@2.
fn leader_that_compacted() -> Solo {
    let mut solo = recovered(3, 1, None, &[1]);
    solo.lead();
    solo.step(2, 2, accepted(2));
    solo.propose(4);
    solo.persist_all();
    solo.step(3, 2, accepted(6));
    applied(&mut solo, 6);
    assert!(snapshot_taken(&mut solo, 1, (6, 2)) && compact(&mut solo, (5, 2)));
    assert!(solo.raft.state_line().contains("2:2>7 replicate inflight=1"), "{}", solo.raft);
    solo
}

fn sent_to_2(messages: &[Message]) -> Vec<&Body> {
    messages.iter().filter(|message| message.to == NodeId(2)).map(|message| &message.body).collect()
}

#[test]
fn a_log_starts_after_an_applied_entry_that_a_snapshot_covers() {
    let mut solo = recovered(3, 1, None, &[1; 6]);
    solo.step(2, 1, append((6, 1), 4, &[]));
    assert!(!compact(&mut solo, (2, 1)), "there is no snapshot");
    assert!(!snapshot_taken(&mut solo, 1, (4, 1)), "it is committed, and not applied");
    applied(&mut solo, 4);
    assert!(!snapshot_taken(&mut solo, 1, (5, 1)) && !snapshot_taken(&mut solo, 1, (4, 2)));
    assert!(snapshot_taken(&mut solo, 1, (3, 1)));
    assert!(!snapshot_taken(&mut solo, 2, (2, 1)), "there is a newer one");
    for start in [(4, 1), (3, 2), (2, 2), (0, 0)] {
        assert!(!compact(&mut solo, start), "{start:?}");
    }
    assert!(compact(&mut solo, (2, 1)));
    assert_eq!((solo.raft.start(), solo.raft.last()), (EntryId::new(2, 1), EntryId::new(6, 1)));
    assert!(!compact(&mut solo, (2, 1)) && !compact(&mut solo, (1, 1)), "only forwards");
    assert!(compact(&mut solo, (3, 1)));
    assert_eq!((solo.raft.term_at(Index(3)), solo.raft.term_at(Index(2))), (Some(Term(1)), None));
}

#[test]
fn all_of_a_log_may_be_compacted() {
    let mut solo = recovered(1, 0, None, &[]);
    solo.tick();
    solo.persist_all();
    solo.propose(3);
    solo.persist_all();
    applied(&mut solo, 4);
    assert!(snapshot_taken(&mut solo, 1, (4, 1)) && compact(&mut solo, (4, 1)));
    assert_eq!((solo.raft.start(), solo.raft.last()), (EntryId::new(4, 1), EntryId::new(4, 1)));
    solo.propose(1);
    solo.persist_all();
    assert_eq!((solo.raft.last(), solo.raft.commit()), (EntryId::new(5, 1), Index(5)));
}

// rule 8
#[test]
fn a_leaders_snapshot_waits_for_its_own_disk() {
    let mut solo = recovered(3, 1, None, &[1]);
    solo.lead();
    solo.persist_all();
    solo.propose(2);
    solo.step(2, 2, accepted(4));
    solo.step(3, 2, accepted(4));
    assert_eq!((solo.raft.commit(), solo.raft.persisted_index()), (Index(4), Index(2)));
    applied(&mut solo, 4);
    assert!(!snapshot_taken(&mut solo, 1, (4, 2)), "the log may come back without 4@2");
    assert!(snapshot_taken(&mut solo, 2, (2, 2)));
    solo.persist_all();
    assert!(snapshot_taken(&mut solo, 1, (4, 2)));
    assert_eq!(solo.raft.snapshot(), Some(meta(1, (4, 2))));
}

#[test]
fn after_a_start_the_snapshot_is_committed_and_applied() {
    let solo = with_snapshot(EntryId::new(2, 1), &[1, 1, 2], meta(7, (4, 1)));
    assert_eq!((solo.raft.commit(), solo.raft.applied), (Index(4), Index(4)));
    assert_eq!((solo.raft.start(), solo.raft.last()), (EntryId::new(2, 1), EntryId::new(5, 2)));
    assert_eq!((solo.raft.persisted_index(), solo.raft.snapshot()), (Index(5), Some(meta(7, (4, 1)))));
}

// museum 29, rule 10
#[test]
fn a_snapshot_that_the_log_does_not_hold_takes_its_place_at_the_start() {
    // The node ended after the snapshot was put in its place and before the log was reset: the log is short of it, or
    // holds another entry there.
    for (at, terms) in [((9, 2), vec![1, 1]), ((2, 2), vec![1, 3, 3]), ((2, 2), vec![1, 1, 1])] {
        let mut solo = with_snapshot(EntryId::ZERO, &terms, meta(7, at));
        solo.tick();
        let start = EntryId::new(at.0, at.1);
        assert_eq!(solo.resets, [(start, SnapshotId(7))]);
        assert_eq!((solo.raft.start(), solo.raft.last(), solo.raft.commit()), (start, start, start.index));
        assert!(solo.raft.term() >= start.term, "the snapshot proves its term");
        // What the disk holds of the old log vouches for nothing.
        let term = solo.raft.term().0;
        assert!(solo.step(2, term, append(at, 0, &[])).is_empty());
        assert_eq!(bodies(&solo.persist_all()), [&accepted(at.0)]);
    }
}

#[test]
#[should_panic(expected = "the log begins after 5@2, the state ends with 4@1")]
fn a_log_that_begins_after_what_the_state_holds_is_no_start() {
    with_snapshot(EntryId::new(5, 2), &[2], meta(1, (4, 1)));
}

#[test]
fn a_follower_that_needs_what_the_log_no_longer_has_is_offered_a_snapshot_once_a_beat_while_it_lives() {
    let mut solo = offering_leader();
    assert!(solo.raft.state_line().contains("2:0>4 snapshot"), "{}", solo.raft);
    assert!(solo.propose(1).is_empty(), "it gets no appends, and node 3 is being asked");
    let is_heartbeat = |body: &&Body| matches!(body, Body::Heartbeat { .. });
    solo.tick();
    let beat = solo.pass(BEAT);
    assert!(!beat.is_empty() && bodies(&beat).iter().all(is_heartbeat), "it has not answered: {beat:?}");
    for _ in 0..3 {
        solo.step(2, 2, Body::HeartbeatReply { context: ReadContext::default(), promise: Default::default() });
        let beat = solo.pass(BEAT);
        let to_2 = sent_to_2(&beat);
        assert_eq!((to_2.len(), to_2[0]), (2, &offer(1, (10, 1))), "{beat:?}");
        assert!(is_heartbeat(&to_2[1]), "{beat:?}");
    }
    assert_eq!(sent_to_2(&solo.pass(BEAT)).len(), 1, "no answer since");
}

#[test]
fn a_follower_that_has_what_is_in_a_snapshot_is_told_of_it_once_on_a_link() {
    let mut solo = recovered(3, 1, None, &[1]);
    solo.lead();
    solo.propose(4);
    solo.persist_all();
    solo.step(2, 2, accepted(5));
    solo.step(3, 2, accepted(6));
    applied(&mut solo, 6);
    assert!(snapshot_taken(&mut solo, 1, (6, 2)));
    let told = |solo: &mut Solo| {
        solo.step(2, 2, Body::HeartbeatReply { context: ReadContext::default(), promise: Default::default() });
        let beat = solo.pass(BEAT);
        sent_to_2(&beat).into_iter().filter(|body| matches!(body, Body::Snapshot { .. })).cloned().collect::<Vec<_>>()
    };
    solo.tick();
    solo.pass(BEAT);
    assert_eq!(told(&mut solo), [], "it does not have the last entry of it");
    solo.step(2, 2, accepted(6));
    assert_eq!(told(&mut solo), [offer(1, (6, 2))]);
    assert!(solo.raft.state_line().contains("2:6>7 replicate"), "{}", solo.raft);
    assert_eq!(told(&mut solo), []);
    solo.act(|raft| raft.link_up(NodeId(2)));
    assert_eq!(told(&mut solo), [], "what it has is not known");
    solo.step(2, 2, on_link(1, accepted(6)));
    assert_eq!(told(&mut solo), [on_link(1, offer(1, (6, 2)))]);
    assert_eq!(told(&mut solo), []);
}

#[test]
fn whoever_has_what_is_in_a_snapshot_knows_where_there_is_one() {
    let mut solo = recovered(3, 1, None, &[1; 6]);
    let notice = |solo: &mut Solo, id, at| {
        let mut ready = Ready::default();
        solo.raft.step(message(2, 1, offer(id, at)));
        solo.raft.ready(&mut ready);
        assert_eq!(ready.install.is_some(), at.0 > 6);
        ready.notice
    };
    assert_eq!(notice(&mut solo, 7, (4, 1)), Some((NodeId(2), meta(7, (4, 1)))));
    assert_eq!(notice(&mut solo, 8, (9, 1)), None, "that is to be installed");
}

#[test]
fn a_hint_from_before_the_start_of_the_log_needs_no_more_probes() {
    let mut solo = compacted_leader();
    // Its log ends with 12@1: that is compared. Its log ends with 9@1: nothing there can be.
    let probe = solo.step(2, 2, rejected(14, (12, 1)));
    assert!(matches!(probe[0].body, Body::Append { prev, .. } if prev == EntryId::new(12, 1)), "{probe:?}");
    assert_eq!(bodies(&solo.step(2, 2, rejected(12, (9, 1)))), [&offer(1, (10, 1))]);
    // One whose log ends where this one starts needs no snapshot.
    let probe = solo.step(3, 2, rejected(14, (10, 1)));
    assert!(matches!(probe[0].body, Body::Append { prev, .. } if prev == EntryId::new(10, 1)), "{probe:?}");
}

#[test]
fn appends_go_on_when_the_follower_reaches_the_start_of_the_log() {
    let mut solo = offering_leader();
    assert!(solo.step(2, 2, accepted(9)).is_empty(), "still short of it, and offered again with the next beat");
    assert!(solo.raft.state_line().contains("2:9>10 snapshot"), "{}", solo.raft);
    let next = solo.act(|raft| raft.step(message(2, 2, accepted(10)))).1;
    assert!(matches!(next[0].message.body, Body::Append { prev, .. } if prev == EntryId::new(10, 1)));
    assert_eq!((next.len(), next[0].entries.clone()), (1, 11..16));
    assert!(solo.raft.state_line().contains("2:10>16 replicate inflight=1"), "{}", solo.raft);
}

// rule 23
#[test]
fn a_new_link_is_offered_the_snapshot_anew() {
    let mut solo = offering_leader();
    let (_, offered) = solo.act(|raft| raft.link_up(NodeId(2)));
    assert_eq!(offered.len(), 1);
    assert_eq!(offered[0].message.body, on_link(1, offer(1, (10, 1))));
    assert!(solo.step(2, 2, accepted(10)).is_empty(), "the answer to an offer on the link before");
    assert_eq!(solo.raft.matched(NodeId(2)), Some(Index(0)));
    assert_eq!(solo.step(2, 2, on_link(1, accepted(10))).len(), 1);
    assert_eq!(solo.raft.matched(NodeId(2)), Some(Index(10)));
}

#[test]
fn a_refusal_takes_an_offer_back_if_the_log_reaches_back_to_its_hint() {
    let mut solo = offering_leader();
    assert!(solo.step(2, 2, rejected(14, (3, 1))).is_empty(), "a late answer that says what is known");
    let probe = solo.step(2, 2, rejected(14, (12, 1)));
    assert!(matches!(probe[0].body, Body::Append { prev, .. } if prev == EntryId::new(12, 1)), "{probe:?}");
}

// museum 17
#[test]
fn a_slow_follower_gets_on_after_the_log_was_compacted() {
    // Its acknowledgements are behind the start of the log, what is sent next is not.
    let mut solo = leader_that_compacted();
    assert!(solo.step(2, 2, accepted(4)).is_empty());
    let next = solo.propose(1);
    assert_eq!(next.iter().filter(|one| one.message.to == NodeId(2)).count(), 1, "{next:?}");
    solo.step(2, 2, accepted(7));
    assert!(solo.raft.state_line().contains("2:7>8 replicate"), "{}", solo.raft);
}

// museum 17
#[test]
fn a_pipeline_that_broke_goes_on_where_the_follower_is_if_the_log_reaches_back_there() {
    let refused_at = |hint| leader_that_compacted().step(2, 2, rejected(6, hint));
    let probe = refused_at((5, 2));
    assert!(matches!(probe[0].body, Body::Append { prev, .. } if prev == EntryId::new(5, 2)), "{probe:?}");
    assert_eq!(bodies(&refused_at((4, 2))), [&offer(1, (6, 2))]);
}

#[test]
fn a_probe_that_the_compaction_overtook_becomes_an_offer() {
    let mut solo = recovered(3, 1, None, &[1]);
    solo.lead();
    solo.propose(3);
    solo.persist_all();
    solo.step(3, 2, accepted(5));
    applied(&mut solo, 5);
    assert!(snapshot_taken(&mut solo, 1, (5, 2)) && compact(&mut solo, (4, 2)));
    assert!(solo.raft.state_line().contains("2:0>2 probe sent"), "{}", solo.raft);
    assert_eq!(bodies(&solo.step(2, 2, accepted(1))), [&offer(1, (5, 2))], "2@2 is gone");
}

#[test]
fn the_newest_snapshot_is_offered() {
    let mut solo = offering_leader();
    solo.step(3, 2, accepted(15));
    applied(&mut solo, 15);
    assert!(snapshot_taken(&mut solo, 2, (15, 2)));
    solo.tick();
    solo.pass(BEAT);
    solo.step(2, 2, Body::HeartbeatReply { context: ReadContext::default(), promise: Default::default() });
    assert_eq!(sent_to_2(&solo.pass(BEAT))[0], &offer(2, (15, 2)));
    // The one that it was offered first is good enough.
    assert_eq!(solo.step(2, 2, accepted(10)).len(), 1);
}

// museum 31
#[test]
fn a_leader_with_nothing_left_of_its_log_but_the_noop_brings_everybody_up_to_date() {
    let mut solo = starting_after(EntryId::new(10, 1));
    solo.lead();
    solo.persist_all();
    for node in [2, 3] {
        assert_eq!(bodies(&solo.step(node, 2, rejected(10, (0, 0)))), [&offer(1, (10, 1))]);
        let next = solo.act(|raft| raft.step(message(node, 2, accepted(10)))).1;
        assert_eq!(next[0].entries, 11..12);
        solo.step(node, 2, accepted(11));
    }
    assert_eq!(solo.raft.commit(), Index(11));
}

/// Else a follower in an idle cluster would wait for the next write to know that it is up to date.
#[test]
fn whoever_has_everything_from_a_snapshot_hears_the_commit_index_however_many_answers_come_at_once() {
    // 12 is what an older snapshot brought.
    for answers in [[15, 15], [12, 15]] {
        let mut solo = offering_leader();
        let sent = solo.act(|raft| answers.map(|index| raft.step(message(2, 2, accepted(index)))));
        let sent: Vec<Message> = sent.1.into_iter().map(|outgoing| outgoing.message).collect();
        assert_eq!(bodies(&sent), [&append((15, 2), 15, &[])], "{answers:?}");
    }
}

#[test]
fn leadership_is_not_handed_to_a_follower_that_is_being_sent_a_snapshot() {
    let mut solo = offering_leader();
    solo.act(|raft| raft.transfer(NodeId(2))).0.expect("it leads");
    for matched in [9, 10, 14] {
        let sent = solo.step(2, 2, accepted(matched));
        assert!(!bodies(&sent).contains(&&Body::TimeoutNow), "at {matched} of 15");
    }
    assert_eq!(bodies(&solo.step(2, 2, accepted(15))), [&Body::TimeoutNow]);
}

#[test]
fn a_snapshot_that_is_needed_is_asked_for_with_every_offer() {
    let mut solo = recovered(3, 2, None, &[1, 1]);
    assert!(solo.step(2, 2, offer(7, (5, 2))).is_empty(), "there is nothing to acknowledge yet");
    assert_eq!(solo.installs, [(NodeId(2), meta(7, (5, 2)))]);
    assert_eq!(solo.raft.leader(), Some(NodeId(2)));
    assert!(solo.writes.is_empty() && solo.raft.last() == EntryId::new(2, 1), "the log stays until it is there");
    solo.step(2, 2, offer(7, (5, 2)));
    assert_eq!(solo.installs.len(), 2, "whoever has begun goes on, whoever failed begins anew");
    solo.act(|raft| {
        raft.step(message(2, 2, offer(7, (5, 2))));
        raft.step(message(2, 2, offer(8, (6, 2))));
    });
    assert_eq!(solo.installs[2..], [(NodeId(2), meta(8, (6, 2)))], "the newest of a turn");
}

#[test]
fn an_offer_is_a_sign_of_life() {
    let mut solo = recovered(3, 2, None, &[1]);
    for _ in 0..40 {
        solo.step(2, 2, offer(7, (5, 2)));
        assert!(solo.pass(T / 2).is_empty());
    }
    assert_eq!((solo.raft.role(), solo.raft.leader()), (Role::Follower, Some(NodeId(2))));
}

#[test]
fn an_offer_of_an_earlier_term_is_refused_with_the_later_one() {
    let mut solo = recovered(3, 3, None, &[1]);
    let refused = solo.step(2, 2, offer(7, (5, 2)));
    assert_eq!((bodies(&refused), refused[0].term), (vec![&rejected(5, (0, 0))], Term(3)));
    assert!(solo.installs.is_empty() && solo.raft.leader().is_none());
    // As the leader of term 2 it hears so and steps down.
    let mut leader = offering_leader();
    leader.step(2, 3, rejected(10, (0, 0)));
    assert_eq!((leader.raft.role(), leader.raft.term()), (Role::Follower, Term(3)));
}

// rule 3
#[test]
fn a_snapshot_of_what_is_committed_here_is_answered_from_what_is_durable() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1, 1]);
    solo.step(2, 2, append((4, 1), 4, &[(5, 2), (6, 2)]));
    for _ in 0..2 {
        // Committed are 4, durable are 4, verified are 6.
        assert_eq!(bodies(&solo.step(2, 2, offer(7, (3, 1)))), [&accepted(4)], "each time it is asked");
    }
    assert_eq!(bodies(&solo.persist_all()), [&accepted(6)]);
    // Another leader has verified nothing yet: it has what is committed.
    solo.step(3, 3, heartbeat(0));
    solo.persist_all();
    assert_eq!(bodies(&solo.step(3, 3, offer(7, (3, 1)))), [&accepted(4)]);
    assert!(solo.installs.is_empty());
}

// museum 26
#[test]
fn a_snapshot_up_to_an_entry_that_the_log_holds_commits_it_and_leaves_the_log_alone() {
    let mut solo = recovered(3, 2, None, &[1, 1, 2, 2]);
    assert_eq!(bodies(&solo.step(2, 2, offer(7, (3, 2)))), [&accepted(3)]);
    assert_eq!((solo.raft.commit(), solo.raft.last()), (Index(3), EntryId::new(4, 2)));
    assert!(solo.installs.is_empty() && solo.resets.is_empty() && solo.writes.is_empty());
}

// museum 26, rule 10
#[test]
fn a_snapshot_up_to_an_entry_that_the_log_has_otherwise_takes_its_place_once() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1, 1]);
    assert!(solo.step(2, 2, offer(7, (3, 2))).is_empty());
    assert_eq!(solo.installs.len(), 1);
    let (restored, sent) = restore(&mut solo, 7, (3, 2));
    assert!(restored && sent.is_empty(), "nothing is acknowledged before the reset is durable: {sent:?}");
    let start = EntryId::new(3, 2);
    assert_eq!(solo.resets, [(start, SnapshotId(7))]);
    assert_eq!((solo.raft.start(), solo.raft.last()), (start, start), "the conflicting tail is gone");
    assert_eq!((solo.raft.commit(), solo.raft.applied, solo.raft.persisted_index()), (Index(3), Index(3), Index(0)));
    assert!(solo.step(2, 2, offer(7, (3, 2))).is_empty(), "nor when it is asked again");
    assert_eq!(bodies(&solo.persist_all()), [&accepted(3)]);
    assert_eq!(bodies(&solo.step(2, 2, offer(7, (3, 2)))), [&accepted(3)]);
    assert_eq!(solo.installs.len(), 1, "it is not asked for again");
    assert_eq!(solo.raft.snapshot(), Some(meta(7, (3, 2))), "and may be offered to others");
    solo.step(2, 2, append((3, 2), 3, &[(4, 2)]));
    assert_eq!(bodies(&solo.persist_all()), [&accepted(4)]);
}

// rule 2
#[test]
fn writes_from_before_a_reset_vouch_for_nothing() {
    // museum 13: the old log and the new one have the same indexes.
    let mut solo = recovered(3, 2, None, &[1, 1]);
    solo.step(2, 2, append((2, 1), 0, &[(3, 1), (4, 1), (5, 1)]));
    solo.step(3, 3, offer(7, (4, 2)));
    assert!(restore(&mut solo, 7, (4, 2)).0);
    solo.step(3, 3, append((4, 2), 4, &[(5, 2), (6, 3)]));
    assert_eq!(solo.writes.len(), 4, "3@1 to 5@1, term 3, the reset, 5@2 and 6@3");
    for _ in 0..2 {
        assert!(solo.persist().is_empty());
        assert_eq!(solo.raft.persisted_index(), Index(0), "the disk holds the old log");
    }
    assert_eq!(bodies(&solo.persist()), [&accepted(4)]);
    assert_eq!(bodies(&solo.persist()), [&accepted(6)]);
    assert_eq!(solo.raft.writes_overtaken(), 2);
}

// rule 2
#[test]
fn a_second_snapshot_overtakes_the_reset_of_the_first() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, offer(7, (4, 2)));
    assert!(restore(&mut solo, 7, (4, 2)).0);
    solo.step(2, 2, offer(8, (9, 2)));
    assert!(restore(&mut solo, 8, (9, 2)).0);
    assert_eq!(solo.resets, [(EntryId::new(4, 2), SnapshotId(7)), (EntryId::new(9, 2), SnapshotId(8))]);
    assert!(solo.persist().is_empty(), "the log starts after 9@2, and the disk does not know");
    assert_eq!(bodies(&solo.persist()), [&accepted(9)]);
}

#[test]
fn two_snapshots_in_one_turn_are_one_reset() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 1, &[]));
    solo.act(|raft| {
        raft.step(message(2, 2, append((1, 1), 1, &[(2, 2)])));
        assert!(raft.restore(meta(7, (4, 2))));
        raft.step(message(2, 2, append((4, 2), 4, &[(5, 2)])));
        assert!(raft.restore(meta(8, (9, 2))));
        raft.step(message(2, 2, append((9, 2), 9, &[(10, 2)])));
    });
    assert_eq!(solo.resets, [(EntryId::new(9, 2), SnapshotId(8))]);
    assert_eq!(bodies(&solo.persist()), [&accepted(10)]);
}

#[test]
fn a_snapshot_that_comes_too_late_or_at_a_bad_time_changes_nothing() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1]);
    solo.step(2, 2, append((3, 1), 2, &[]));
    assert!(!restore(&mut solo, 7, (2, 1)).0, "committed meanwhile");
    assert!(!restore(&mut solo, 7, (9, 3)).0, "of a term that this node has not heard of");
    assert!(!restore(&mut solo, 7, (3, 2)).0, "3@1 is the leader's");
    solo.tick();
    solo.pass(2 * T);
    assert_eq!(solo.raft.role(), Role::PreCandidate);
    assert!(!restore(&mut solo, 7, (9, 2)).0, "a node that stands for election");
    for voter in [2, 3] {
        solo.step(voter, 3, Body::PreVoteReply { granted: true });
    }
    assert_eq!(solo.raft.role(), Role::Candidate);
    assert!(!restore(&mut solo, 7, (9, 2)).0);
    solo.persist_all();
    solo.step(3, 3, Body::VoteReply { granted: true });
    assert_eq!(solo.raft.role(), Role::Leader);
    assert!(!restore(&mut solo, 7, (9, 2)).0, "a leader's log is never replaced");
    assert_eq!((solo.raft.commit(), solo.raft.last()), (Index(2), EntryId::new(4, 3)));
    assert!(solo.resets.is_empty());
}

// museum 28
#[test]
fn what_was_acknowledged_while_a_snapshot_was_fetched_stays() {
    // The leader changes; the next one still has the entries, and this node's acknowledgement of them may count.
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, offer(7, (4, 2)));
    solo.step(3, 3, append((1, 1), 1, &[(2, 2), (3, 2), (4, 2), (5, 2), (6, 3)]));
    assert_eq!(bodies(&solo.persist_all()), [&accepted(6)]);
    assert_eq!(solo.raft.commit(), Index(1));
    assert!(restore(&mut solo, 7, (4, 2)).0, "the state machine may be that of the snapshot");
    assert_eq!((solo.raft.commit(), solo.raft.applied), (Index(4), Index(4)));
    assert_eq!((solo.raft.start(), solo.raft.last()), (EntryId::ZERO, EntryId::new(6, 3)));
    assert_eq!((solo.raft.persisted_index(), solo.raft.snapshot()), (Index(6), Some(meta(7, (4, 2)))));
    assert!(solo.resets.is_empty());
}

// rule 8
#[test]
fn a_restored_snapshot_within_the_log_waits_for_the_disk_like_any_other() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 1, &[(2, 2), (3, 2)]));
    assert!(restore(&mut solo, 7, (3, 2)).0);
    assert_eq!((solo.raft.snapshot(), solo.raft.last()), (None, EntryId::new(3, 2)));
    solo.persist_all();
    assert!(snapshot_taken(&mut solo, 7, (3, 2)));
}

#[test]
fn a_snapshot_of_an_old_leader_is_as_good_and_the_next_one_hears_of_it() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, on_link(4, offer(7, (4, 2))));
    solo.step(3, 3, heartbeat(0));
    assert!(restore(&mut solo, 7, (4, 2)).0);
    let sent = solo.persist_all();
    let told = sent.iter().find(|message| message.body == accepted(4)).expect("an acknowledgement");
    assert_eq!((told.to, told.term), (NodeId(3), Term(3)));
    assert_eq!(bodies(&solo.step(3, 3, on_link(2, offer(9, (3, 2))))), [&on_link(2, accepted(4))]);
}

#[test]
fn the_answer_names_the_link_of_the_newest_offer() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 0, &[]));
    solo.step(2, 2, on_link(3, offer(7, (4, 2))));
    solo.step(2, 2, on_link(5, offer(7, (4, 2))));
    assert!(restore(&mut solo, 7, (4, 2)).0);
    let result = AppendResult::Accepted { matched: Index(4) };
    assert_eq!(bodies(&solo.persist_all()), [&Body::AppendReply { link: 5, result }]);
}

// §5.4.1
#[test]
fn an_empty_log_votes_by_where_it_starts() {
    let mut solo = starting_after(EntryId::new(10, 2));
    assert_eq!(bodies(&solo.step(2, 3, vote((9, 2)))), Vec::<&Body>::new(), "the term is not durable");
    assert_eq!(bodies(&solo.persist_all()), [&Body::VoteReply { granted: false }]);
    solo.step(3, 3, vote((10, 2)));
    assert_eq!(bodies(&solo.persist_all()), [&Body::VoteReply { granted: true }]);
}

#[test]
fn appends_of_what_the_start_covers_are_known_after_a_reset_too() {
    let mut solo = fresh();
    solo.step(2, 2, offer(7, (4, 2)));
    assert!(restore(&mut solo, 7, (4, 2)).0);
    solo.persist_all();
    // Sent before the leader compacted its log.
    let answers = solo.step(2, 2, append((1, 1), 4, &[(2, 1), (3, 2), (4, 2), (5, 2)]));
    assert!(answers.is_empty(), "4 is acknowledged, 5 is not durable");
    assert_eq!(solo.log, [EntryId::new(5, 2)]);
    assert_eq!(bodies(&solo.persist_all()), [&accepted(5)]);
}

fn message(from: u64, term: u64, body: Body) -> Message {
    Message { shard: ShardId(0), from: NodeId(from), to: NodeId(1), term: Term(term), body }
}
