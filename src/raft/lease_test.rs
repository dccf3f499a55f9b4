//! Leases: one test for each rule. All times are those of the node's own clock.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message, Promise, ReadContext};
use raftkv_protocol::types::{EntryId, Incarnation, Index, NodeId, Term};

use super::cluster::{BEAT, T};
use super::solo::{Solo, accepted, append, bodies, fresh, heartbeat, pre_vote, vote, with};
use super::{Candidacy, LeaseCounts, Leases, ReadId, ReadReady, Ready};

/// What is promised.
const D: Duration = Duration::from_millis(500);
const MS: Duration = Duration::from_millis(1);
const YES: Body = Body::PreVoteReply { granted: true };
const NO: Body = Body::PreVoteReply { granted: false };

fn leases(drift_ppm_max: u32) -> Leases {
    Leases { duration: Some(D), drift_ppm_max, promised_before: Duration::ZERO }
}

/// Node 1 of three, with leases.
fn node() -> Solo {
    with(3, 0, None, &[], |config| config.leases = leases(0))
}

/// A leader of term 1 with leases that has just sent its first heartbeats, at the time that comes with it. Its no-op is
/// committed.
fn leader(drift_ppm_max: u32) -> (Solo, u64) {
    let mut solo = with(3, 0, None, &[], |config| config.leases = leases(drift_ppm_max));
    solo.pass(BEAT);
    solo.lead();
    solo.persist_all();
    solo.step(2, 1, accepted(1));
    solo.step(3, 1, accepted(1));
    solo.tick();
    let sent = beat(&mut solo);
    (solo, sent)
}

/// Time passes until heartbeats leave: when they say that they did.
fn beat(solo: &mut Solo) -> u64 {
    let messages = solo.pass(BEAT);
    let sent = messages.iter().find_map(|message| match message.body {
        Body::Heartbeat { sent_us, .. } => Some(sent_us),
        _ => None,
    });
    sent.expect("a beat is due")
}

fn promised(sent_us: u64, lasts: Duration) -> Body {
    let context = ReadContext { incarnation: Incarnation(9), term: Term(1), counter: 0 };
    let lasts_us = u64::try_from(lasts.as_micros()).unwrap();
    Body::HeartbeatReply { context, promise: Promise { sent_us, lasts_us } }
}

/// Whether a lease is held when so much time has passed since the last tick.
fn holds_after(solo: &mut Solo, time: Duration) -> bool {
    let now = solo.raft.now + time;
    solo.raft.holds_lease(now)
}

fn counts(solo: &Solo) -> LeaseCounts {
    solo.raft.lease_counts()
}

/// A heartbeat of a leader that wants promises.
fn asking(sent_us: u64) -> Body {
    Body::Heartbeat { commit: Index(0), context: ReadContext::default(), sent_us }
}

fn handed_over(last: (u64, u64)) -> Body {
    Body::Vote { last: EntryId::new(last.0, last.1), transfer: true }
}

// rule 6
#[test]
fn a_lease_counts_from_when_the_heartbeat_was_sent() {
    // museum 23
    let (mut solo, sent) = leader(0);
    assert!(!holds_after(&mut solo, Duration::ZERO), "nobody has promised anything");
    solo.pass(BEAT);
    solo.pass(BEAT);
    solo.step(2, 1, promised(sent, D));
    assert!(holds_after(&mut solo, D - 2 * BEAT - MS), "with its own promise that is a majority");
    assert!(!holds_after(&mut solo, D - 2 * BEAT), "the answer was on its way for two beats");
    let later = beat(&mut solo);
    solo.step(2, 1, promised(later, D));
    solo.step(2, 1, promised(sent, D));
    assert!(holds_after(&mut solo, D - MS), "an answer that was overtaken takes nothing back");
}

// rule 6
#[test]
fn both_clocks_may_be_wrong() {
    let (mut solo, sent) = leader(100_000);
    solo.step(3, 1, promised(sent, D));
    assert!(holds_after(&mut solo, D * 8 / 10 - MS));
    assert!(!holds_after(&mut solo, D * 8 / 10));
}

#[test]
fn the_shorter_of_both_settings_counts() {
    let (mut solo, sent) = leader(0);
    solo.step(2, 1, promised(sent, D / 5));
    assert!(holds_after(&mut solo, D / 5 - MS) && !holds_after(&mut solo, D / 5));
    solo.step(3, 1, promised(sent, 5 * D));
    assert!(holds_after(&mut solo, D - MS) && !holds_after(&mut solo, D));
}

#[test]
fn a_lease_needs_a_majority_of_promises() {
    let mut solo = with(5, 0, None, &[], |config| config.leases = leases(0));
    solo.lead();
    solo.persist_all();
    for peer in [2, 3, 4] {
        solo.step(peer, 1, accepted(1));
    }
    solo.pass(BEAT);
    let sent = beat(&mut solo);
    solo.step(2, 1, promised(sent, D));
    assert!(!holds_after(&mut solo, Duration::ZERO), "two of five");
    let later = beat(&mut solo);
    solo.step(3, 1, promised(later, D));
    assert!(holds_after(&mut solo, D - BEAT - MS), "three of five");
    assert!(!holds_after(&mut solo, D - BEAT), "until the first of them has run out");
}

#[test]
fn promises_that_prove_nothing_do_not_count() {
    let (mut solo, sent) = leader(0);
    let of = |incarnation, term| {
        let context = ReadContext { incarnation: Incarnation(incarnation), term: Term(term), counter: 0 };
        Body::HeartbeatReply { context, promise: Promise { sent_us: sent, lasts_us: 500_000 } }
    };
    for body in [of(8, 1), of(9, 0), promised(sent + 1, D), promised(sent, Duration::ZERO), promised(u64::MAX, D)] {
        solo.step(2, 1, body.clone());
        assert!(!holds_after(&mut solo, Duration::ZERO), "{body:?}");
    }
    solo.step(2, 1, promised(sent, D));
    assert!(holds_after(&mut solo, Duration::ZERO));
}

// rule 4
#[test]
fn a_lease_waits_for_an_entry_of_the_own_term() {
    let mut solo = node();
    solo.lead();
    solo.pass(BEAT);
    let sent = beat(&mut solo);
    solo.step(2, 1, promised(sent, D));
    assert!(!holds_after(&mut solo, Duration::ZERO));
    solo.persist_all();
    solo.step(2, 1, accepted(1));
    assert!(holds_after(&mut solo, Duration::ZERO));
}

#[test]
fn a_new_term_begins_without_promises() {
    let (mut solo, sent) = leader(0);
    solo.step(2, 1, promised(sent, D));
    solo.step(2, 2, append((1, 1), 2, &[(2, 2)]));
    assert_eq!((solo.raft.term(), solo.raft.commit()), (Term(2), Index(2)));
    assert!(!holds_after(&mut solo, Duration::ZERO), "it does not lead, although what was promised lasts");
    solo.persist_all();
    solo.lead();
    solo.persist_all();
    solo.step(3, 3, accepted(3));
    assert_eq!((solo.raft.role(), solo.raft.commit()), (Role::Leader, Index(3)));
    assert!(!holds_after(&mut solo, Duration::ZERO));
}

#[test]
fn a_read_by_the_lease_costs_nothing_and_another_one_a_round() {
    let (mut solo, sent) = leader(0);
    let now = solo.raft.now;
    assert!(!solo.raft.read_by_lease(ReadId(1), now));
    solo.step(2, 1, promised(sent, D));
    assert!(solo.raft.read_by_lease(ReadId(2), now + D - MS));
    assert!(!solo.raft.read_by_lease(ReadId(3), now + D), "it has run out");
    let mut ready = Ready::default();
    assert!(solo.raft.ready(&mut ready));
    assert_eq!(ready.reads, [ReadReady { read: ReadId(2), index: Index(1) }]);
    assert!(ready.messages.is_empty(), "{ready:?}");
    assert_eq!((counts(&solo).served, counts(&solo).fallen_back), (1, 2));
}

// rule 6
#[test]
fn nothing_is_promised_or_held_unless_leases_are_on() {
    let mut solo = fresh();
    assert_eq!(bodies(&solo.step(2, 1, asking(5))).len(), 0, "the new term is on its way to the disk");
    let context = ReadContext::default();
    let none = Body::HeartbeatReply { context, promise: Promise::default() };
    assert_eq!(bodies(&solo.persist_all()), [&none]);
    let mut solo = fresh();
    solo.pass(BEAT);
    solo.lead();
    solo.persist_all();
    solo.step(2, 1, accepted(1));
    solo.tick();
    assert_eq!(beat(&mut solo), 0, "it wants no promise");
    solo.step(2, 1, promised(1, D));
    assert!(!holds_after(&mut solo, Duration::ZERO));
    assert!(!solo.raft.read_by_lease(ReadId(1), solo.raft.now));
    assert_eq!(counts(&solo), LeaseCounts::default());
}

/// A follower of node 2 in term 1 that has just promised something.
fn bound() -> Solo {
    promising(node())
}

fn promising(mut solo: Solo) -> Solo {
    solo.step(2, 1, heartbeat(0));
    solo.persist_all();
    let answers = solo.step(2, 1, asking(5));
    let promise = Promise { sent_us: 5, lasts_us: 500_000 };
    assert_eq!(bodies(&answers), [&Body::HeartbeatReply { context: ReadContext::default(), promise }]);
    solo.tick();
    solo
}

/// rule 6: the time of the heartbeat is not known yet, and a hint may come with it that lifts all other loyalty.
#[test]
fn a_promise_binds_before_the_tick_that_it_is_counted_from() {
    for request in [pre_vote((0, 0)), vote((0, 0))] {
        let mut solo = node();
        solo.step(2, 1, heartbeat(0));
        solo.persist_all();
        solo.tick();
        assert!(!solo.raft.is_bound(), "that leader has no use for promises");
        solo.step(2, 1, asking(5));
        solo.act(|raft| raft.link_lost(NodeId(2)));
        assert!(solo.step(3, 2, request).is_empty());
        assert!(!bodies(&solo.tick()).contains(&&YES));
        assert!(solo.persist_all().is_empty());
        assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(1), None));
    }
}

/// What comes of a request at once, or when it was held until the next tick.
fn asked(solo: &mut Solo, term: u64, body: Body) -> Vec<Message> {
    let mut messages = solo.step(3, term, body);
    messages.extend(solo.tick());
    messages.extend(solo.persist_all());
    messages
}

// rule 6
#[test]
fn a_promise_withholds_votes_and_pre_votes_whatever_link_breaks() {
    // museum 23
    let mut solo = bound();
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.pass(D - MS);
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&NO]);
    assert!(asked(&mut solo, 2, vote((0, 0))).is_empty());
    assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(1), None));
    assert_eq!(counts(&solo).votes_withheld, 2);
    solo.pass(MS);
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&YES]);
    assert_eq!(bodies(&asked(&mut solo, 2, vote((0, 0)))), [&Body::VoteReply { granted: true }]);
}

/// It may have come to know of the next term by anything but a vote: the leader knows nothing of that.
#[test]
fn a_promise_withholds_the_vote_of_a_later_term_that_has_begun() {
    let mut solo = bound();
    solo.step(3, 2, Body::PreVoteReply { granted: false });
    assert_eq!((solo.raft.term(), solo.raft.leader()), (Term(2), None));
    assert_eq!(bodies(&asked(&mut solo, 2, vote((0, 0)))), [&Body::VoteReply { granted: false }]);
    assert_eq!(solo.raft.vote(), None);
    solo.pass(D);
    assert_eq!(bodies(&asked(&mut solo, 2, vote((0, 0)))), [&Body::VoteReply { granted: true }]);
}

/// The time at which the heartbeat came is known at the tick that follows: the tick before may be long ago.
#[test]
fn a_promise_binds_from_the_tick_after_the_heartbeat() {
    let mut solo = bound();
    solo.step(2, 1, asking(6));
    assert_eq!(solo.raft.deadline(), solo.raft.now, "a tick is due");
    assert!(solo.raft.is_bound());
    solo.pass(T);
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.pass(D - MS);
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&NO]);
    solo.pass(MS);
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&YES]);
}

// rule 6
#[test]
fn who_has_promised_stands_for_election_when_that_has_run_out() {
    let mut solo = bound();
    solo.act(|raft| raft.link_lost(NodeId(2)));
    for _ in 0..D.as_millis() - 1 {
        assert!(solo.pass(MS).is_empty());
        assert_eq!(solo.raft.role(), Role::Follower);
    }
    assert_eq!(counts(&solo).elections_put_off, 1);
    for _ in 0..21 {
        solo.pass(MS);
    }
    assert_eq!(solo.raft.role(), Role::PreCandidate, "the hint is not forgotten");
}

/// The others, who have promised the same, stand within 20 ms of that time.
#[test]
fn who_should_be_late_lets_the_others_stand_first_also_when_a_promise_has_run_out() {
    for seed in 0..50 {
        let mut solo = promising(with(3, 0, None, &[], |config| {
            config.leases = leases(0);
            config.seed = seed;
        }));
        solo.act(|raft| raft.set_candidacy(Candidacy::Reluctant));
        solo.act(|raft| raft.link_lost(NodeId(2)));
        solo.tick();
        solo.pass(D - MS);
        assert_eq!(counts(&solo).elections_put_off, 1);
        solo.pass(T / 4);
        assert_eq!(solo.raft.role(), Role::Follower, "seed {seed}");
        solo.pass(T / 4);
        assert_eq!(solo.raft.role(), Role::PreCandidate, "seed {seed}");
    }
}

// rule 6
#[test]
fn a_restarted_voter_waits_before_its_first_vote() {
    // museum 23
    let again = || {
        with(3, 1, None, &[], |config| {
            config.leases = Leases { promised_before: D, ..Leases::default() };
            config.preferred = true;
        })
    };
    let mut solo = again();
    solo.pass(D - MS);
    assert_eq!(solo.raft.role(), Role::Follower, "it would have stood for election by now");
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&NO]);
    assert!(asked(&mut solo, 2, vote((0, 0))).is_empty());
    assert_eq!(bodies(&asked(&mut solo, 1, vote((0, 0)))), [&Body::VoteReply { granted: false }]);
    assert_eq!((solo.raft.term(), solo.raft.vote()), (Term(1), None));
    solo.pass(MS);
    assert_eq!(bodies(&asked(&mut solo, 2, vote((0, 0)))), [&Body::VoteReply { granted: true }]);

    let mut solo = again();
    for _ in 0..D.as_millis() + 20 {
        solo.pass(MS);
    }
    assert_eq!(solo.raft.role(), Role::PreCandidate);
}

/// rule 6: an earlier process may have had leases that lasted longer.
#[test]
fn a_shorter_promise_takes_nothing_from_a_longer_one() {
    let mut solo = promising(with(3, 0, None, &[], |config| {
        config.leases = Leases { promised_before: 2 * D, ..leases(0) };
    }));
    solo.act(|raft| raft.link_lost(NodeId(2)));
    solo.pass(2 * D - MS);
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&NO]);
    solo.pass(MS);
    assert_eq!(bodies(&asked(&mut solo, 2, pre_vote((0, 0)))), [&YES]);
}

/// The answer may have been lost.
#[test]
fn a_vote_that_was_given_may_be_said_again_while_a_promise_lasts() {
    let mut solo = with(3, 1, Some(3), &[], |config| {
        config.leases = Leases { promised_before: D, ..leases(0) };
    });
    assert!(solo.raft.is_bound());
    assert_eq!(bodies(&asked(&mut solo, 1, vote((0, 0)))), [&Body::VoteReply { granted: true }]);
}

#[test]
fn who_is_alone_has_promised_nothing_and_always_holds_its_lease() {
    let mut solo = with(1, 0, None, &[], |config| {
        config.leases = Leases { promised_before: D, ..leases(0) };
    });
    solo.tick();
    solo.persist_all();
    assert!(holds_after(&mut solo, 100 * D));
}

// rule 6
#[test]
fn handing_over_ends_the_lease_first() {
    // museum 23
    let (mut solo, sent) = leader(0);
    solo.step(2, 1, promised(sent, D));
    solo.propose(1);
    solo.act(|raft| raft.transfer(NodeId(3))).0.expect("it leads");
    assert!(!holds_after(&mut solo, Duration::ZERO), "before the target is told");
    assert_eq!(counts(&solo).given_up, 1);
}

/// The message to the target may arrive at any later time.
#[test]
fn who_has_told_another_to_stand_has_no_lease_in_this_term() {
    // museum 23
    let (mut solo, sent) = leader(0);
    solo.step(2, 1, promised(sent, D));
    let (_, told) = solo.act(|raft| raft.transfer(NodeId(3)));
    assert_eq!(told.len(), 1, "the target has everything");
    for _ in 0..2 * T.as_millis() / BEAT.as_millis() {
        let sent = beat(&mut solo);
        solo.step(2, 1, promised(sent, D));
        solo.step(3, 1, promised(sent, D));
    }
    assert!(!solo.raft.is_transferring() && solo.raft.role() == Role::Leader);
    assert!(!holds_after(&mut solo, Duration::ZERO));
    solo.step(2, 2, append((1, 1), 1, &[]));
    solo.lead();
    solo.persist_all();
    solo.step(2, 3, accepted(2));
    solo.tick();
    let sent = beat(&mut solo);
    let context = ReadContext { incarnation: Incarnation(9), term: Term(3), counter: 0 };
    solo.step(2, 3, Body::HeartbeatReply { context, promise: Promise { sent_us: sent, lasts_us: 500_000 } });
    assert!(holds_after(&mut solo, Duration::ZERO), "that was another term");
}

#[test]
fn a_hand_over_that_came_to_nothing_before_the_target_was_told_is_forgotten() {
    let (mut solo, _) = leader(0);
    solo.propose(1);
    solo.act(|raft| raft.transfer(NodeId(3))).0.expect("it leads");
    for _ in 0..2 * T.as_millis() / BEAT.as_millis() {
        let sent = beat(&mut solo);
        solo.step(2, 1, promised(sent, D));
    }
    assert!(!solo.raft.is_transferring() && solo.raft.role() == Role::Leader);
    assert!(holds_after(&mut solo, Duration::ZERO));
}

/// The leader of that term has no lease, and those before it had none any more when it was elected.
#[test]
fn what_was_promised_is_waived_for_whom_the_leader_chose() {
    let mut solo = bound();
    assert_eq!(bodies(&asked(&mut solo, 2, handed_over((0, 0)))), [&Body::VoteReply { granted: true }]);

    let mut solo = bound();
    solo.step(2, 1, Body::TimeoutNow);
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(2)));
}
