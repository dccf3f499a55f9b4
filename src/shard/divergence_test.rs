//! Who is found to differ, from when on, and what of it changes with what comes later.

use std::time::{Duration, Instant};

use raftkv_protocol::health::{Divergence, Verdict};
use raftkv_protocol::types::{Index, NodeId};

use super::divergence::{Comparison, News, PATIENCE};
use crate::state_machine::{CHECKPOINTS_KEPT, Checkpoint, Corruption};

/// A replica among others, its own checkpoints, and the time.
struct Replica {
    comparison: Comparison,
    own: Vec<Checkpoint>,
    now: Instant,
}

fn checkpoint(index: u64, hash: u128) -> Checkpoint {
    Checkpoint { index: Index(index), hash }
}

impl Replica {
    /// One of so many.
    fn of(voters: usize) -> Replica {
        Replica { comparison: Comparison::new(voters), own: Vec::new(), now: Instant::now() }
    }

    fn judge(&mut self) -> Vec<News> {
        self.comparison.judge(&self.own, self.now)
    }

    fn reach(&mut self, index: u64, hash: u128) -> Vec<News> {
        self.own.push(checkpoint(index, hash));
        self.comparison.reached(self.own.last().copied());
        assert!(self.comparison.is_due(self.now));
        self.judge()
    }

    fn told(&mut self, peer: u64, index: u64, hash: u128) -> Vec<News> {
        self.comparison.told(NodeId(peer), checkpoint(index, hash));
        assert!(self.comparison.is_due(self.now));
        self.judge()
    }

    fn wait(&mut self, time: Duration) -> Vec<News> {
        self.now += time;
        if self.comparison.is_due(self.now) { self.judge() } else { Vec::new() }
    }

    fn serves(&self) -> bool {
        self.comparison.serves()
    }
}

fn found(verdict: Verdict, agreed: u64, differs: u64, own: u128, other: u128) -> Vec<News> {
    vec![News::Found(Divergence { verdict, agreed: Index(agreed), differs: Index(differs), own, other })]
}

fn stranger(peer: u64, index: u64, own: u128, other: u128) -> Vec<News> {
    vec![News::Stranger { peer: NodeId(peer), index: Index(index), own, other }]
}

// rule 20
#[test]
fn replicas_that_are_alike_have_nothing_to_say() {
    let mut replica = Replica::of(3);
    for n in 1..200 {
        assert!(replica.reach(n * 1_024, n.into()).is_empty());
        assert!(replica.told(2, n * 1_024, n.into()).is_empty());
        assert!(replica.told(3, n * 1_024, n.into()).is_empty());
    }
    assert!(replica.serves() && replica.comparison.deadline().is_none());
    assert!(!replica.comparison.is_due(replica.now), "until there is something new");
}

// rule 20
#[test]
fn a_replica_that_is_outvoted_has_diverged_between_two_indexes() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 7);
    replica.told(2, 1_024, 7);
    replica.reach(2_048, 9);
    assert!(replica.told(2, 2_048, 8).is_empty(), "one against one: the third decides");
    assert!(replica.serves());
    assert_eq!(replica.told(3, 2_048, 8), found(Verdict::Diverged, 1_024, 2_048, 9, 8));
    assert!(replica.comparison.is_wrong());
    assert!(!replica.comparison.is_stranger(NodeId(2)), "it is part of the majority");
}

#[test]
fn a_verdict_by_a_majority_stays_whatever_comes_later() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 9);
    replica.told(2, 1_024, 8);
    assert_eq!(replica.told(3, 1_024, 8), found(Verdict::Diverged, 0, 1_024, 9, 8));
    replica.reach(2_048, 1);
    assert!(replica.told(2, 2_048, 1).is_empty());
    assert!(replica.told(3, 2_048, 1).is_empty());
    assert!(replica.wait(Duration::from_secs(100)).is_empty());
    assert!(replica.comparison.is_wrong());
}

/// They were told of before this replica came there.
#[test]
fn a_replica_that_lags_finds_out_when_it_gets_there() {
    let mut replica = Replica::of(3);
    for (index, hash) in [(1_024, 1), (2_048, 2), (3_072, 3)] {
        assert!(replica.told(2, index, hash).is_empty());
        assert!(replica.told(3, index, hash).is_empty());
    }
    assert!(replica.reach(1_024, 1).is_empty());
    assert_eq!(replica.reach(2_048, 99), found(Verdict::Diverged, 1_024, 2_048, 99, 2));
}

#[test]
fn the_first_difference_is_named_though_it_was_decided_later() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 7);
    replica.told(2, 1_024, 7);
    replica.reach(2_048, 9);
    replica.told(2, 2_048, 8);
    replica.reach(3_072, 19);
    replica.told(2, 3_072, 18);
    assert_eq!(replica.told(3, 3_072, 18), found(Verdict::Diverged, 1_024, 2_048, 9, 8));
}

// rule 20
#[test]
fn who_is_part_of_a_majority_serves_and_names_who_is_not() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 7);
    assert!(replica.told(2, 1_024, 6).is_empty(), "not before it is known who is right");
    assert_eq!(replica.told(3, 1_024, 7), stranger(2, 1_024, 7, 6));
    assert!(replica.serves() && replica.comparison.deadline().is_none());
    assert!(replica.comparison.is_stranger(NodeId(2)) && !replica.comparison.is_stranger(NodeId(3)));
    // It is said once, and holds as long as nothing else is heard.
    for n in 2..10 {
        assert!(replica.reach(n * 1_024, 7).is_empty());
        assert!(replica.told(2, n * 1_024, 6).is_empty());
        assert!(replica.comparison.is_stranger(NodeId(2)));
        assert!(replica.told(3, n * 1_024, 7).is_empty());
    }
}

#[test]
fn a_replica_that_was_built_anew_is_no_stranger_any_more() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 7);
    replica.told(3, 1_024, 7);
    assert_eq!(replica.told(2, 1_024, 6), stranger(2, 1_024, 7, 6));
    assert!(replica.told(2, 1_024, 7).is_empty());
    assert!(!replica.comparison.is_stranger(NodeId(2)));
}

// rule 20
#[test]
fn where_three_differ_nobody_is_right_at_once() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 1);
    replica.told(2, 1_024, 1);
    replica.reach(2_048, 1);
    replica.told(2, 2_048, 2);
    assert_eq!(replica.told(3, 2_048, 3), found(Verdict::Undecided, 1_024, 2_048, 1, 3));
    assert!(!replica.serves() && !replica.comparison.is_wrong());
    // One of them was started again.
    assert_eq!(replica.told(3, 2_048, 1), [&[News::Settled][..], &stranger(2, 2_048, 1, 2)].concat());
    assert!(replica.serves());
}

#[test]
fn an_undecided_replica_can_turn_out_to_be_the_wrong_one() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 1);
    replica.told(2, 1_024, 2);
    replica.told(3, 1_024, 3);
    assert_eq!(replica.told(3, 1_024, 2), found(Verdict::Diverged, 0, 1_024, 1, 2));
}

#[test]
fn of_two_nodes_neither_is_right() {
    let mut replica = Replica::of(2);
    replica.reach(1_024, 1);
    assert_eq!(replica.told(2, 1_024, 2), found(Verdict::Undecided, 0, 1_024, 1, 2));
    assert_eq!(replica.told(2, 1_024, 1), [News::Settled]);
}

#[test]
fn a_node_alone_is_its_own_majority() {
    let mut replica = Replica::of(1);
    for n in 1..5 {
        assert!(replica.reach(n * 1_024, n.into()).is_empty());
    }
    assert!(replica.serves());
}

/// The third is down: it may decide, but is not waited for without end.
#[test]
fn a_difference_waits_for_the_voter_that_decides_it() {
    let mut replica = Replica::of(3);
    replica.reach(1_024, 1);
    assert!(replica.told(2, 1_024, 2).is_empty());
    assert_eq!(replica.comparison.deadline(), Some(replica.now + PATIENCE));
    assert!(replica.wait(PATIENCE - Duration::from_millis(1)).is_empty());
    assert!(replica.serves());
    assert_eq!(replica.wait(Duration::from_millis(1)), found(Verdict::Undecided, 0, 1_024, 1, 2));
    assert_eq!(replica.comparison.deadline(), None);
    assert_eq!(replica.told(3, 1_024, 1), [&[News::Settled][..], &stranger(2, 1_024, 1, 2)].concat());
    // The next time the wait is as long.
    replica.reach(2_048, 1);
    assert!(replica.told(3, 2_048, 5).is_empty());
    assert_eq!(replica.comparison.deadline(), Some(replica.now + PATIENCE));
}

#[test]
fn of_five_it_takes_three() {
    let mut replica = Replica::of(5);
    replica.reach(1_024, 1);
    assert!(replica.told(2, 1_024, 2).is_empty());
    assert!(replica.told(3, 1_024, 2).is_empty());
    assert!(replica.told(4, 1_024, 1).is_empty(), "two against two, and one is missing");
    assert_eq!(replica.told(5, 1_024, 2), found(Verdict::Diverged, 0, 1_024, 1, 2));

    let mut replica = Replica::of(5);
    replica.reach(1_024, 1);
    replica.told(2, 1_024, 2);
    replica.told(3, 1_024, 2);
    replica.told(4, 1_024, 1);
    assert_eq!(replica.told(5, 1_024, 3), found(Verdict::Undecided, 0, 1_024, 1, 2), "two, two and one");

    let mut replica = Replica::of(5);
    replica.reach(1_024, 1);
    replica.told(2, 1_024, 2);
    replica.told(3, 1_024, 3);
    replica.told(4, 1_024, 1);
    let news = replica.told(5, 1_024, 1);
    assert_eq!(news, [stranger(2, 1_024, 1, 2), stranger(3, 1_024, 1, 3)].concat());
}

/// A peer that tells whatever it likes takes no more than its share.
#[test]
fn of_each_peer_the_newest_are_kept() {
    let mut replica = Replica::of(3);
    for n in 0..2 * CHECKPOINTS_KEPT as u64 {
        replica.told(2, n * 1_024, 0);
    }
    let oldest = CHECKPOINTS_KEPT as u64 * 1_024;
    replica.told(3, oldest - 1_024, 0);
    assert!(replica.reach(oldest - 1_024, 9).is_empty(), "of node 2 it is forgotten");
    replica.told(3, oldest, 0);
    assert_eq!(replica.reach(oldest, 9), found(Verdict::Diverged, 0, oldest - 1_024, 9, 0));
}

/// Its memory is none the better for it.
// museum 48
#[test]
fn a_corrupt_state_is_told_even_if_another_has_taken_its_place() {
    let corruption = Corruption { sound: Index(1_024), at: Index(1_500), found: 3, expected: 4 };
    let told = |verdict: fn(Divergence) -> News| {
        let (agreed, differs) = (corruption.sound, corruption.at);
        vec![verdict(Divergence { verdict: Verdict::Corrupt, agreed, differs, own: 3, other: 4 })]
    };
    let mut replica = Replica::of(3);
    replica.comparison.corrupt(&corruption);
    assert!(!replica.serves());
    assert_eq!((replica.judge(), replica.judge()), (told(News::Found), Vec::new()));
    replica.comparison.state_replaced(Index(0));
    assert!(replica.serves());
    assert!(replica.judge().is_empty(), "it was told");
    replica.comparison.corrupt(&corruption);
    replica.comparison.state_replaced(Index(0));
    assert!(replica.serves() && replica.comparison.is_due(replica.now));
    assert_eq!((replica.judge(), replica.judge()), (told(News::Replaced), Vec::new()));
    replica.comparison.was_corrupt(&corruption);
    assert!(replica.serves() && replica.comparison.is_due(replica.now));
    assert_eq!(replica.judge(), told(News::Replaced));
}

/// It comes to where others were long ago, and whoever waits for it is answered in the same turn.
// rule 20
#[test]
fn nothing_is_shown_of_a_state_that_has_come_to_where_a_majority_had_another_hash() {
    let mut replica = Replica::of(3);
    for (index, hash) in [(1_024, 1), (2_048, 2)] {
        (2..=3).for_each(|peer| assert!(replica.told(peer, index, hash).is_empty()));
    }
    replica.comparison.passed(checkpoint(1_024, 1));
    assert!(replica.serves(), "it is like them");
    assert!(replica.reach(1_024, 1).is_empty());
    replica.comparison.passed(checkpoint(2_048, 7));
    assert!(!replica.serves() && replica.comparison.divergence().is_none(), "before it is judged");
    assert_eq!(replica.reach(2_048, 7), found(Verdict::Diverged, 1_024, 2_048, 7, 2));
    assert!(!replica.serves());
}

/// The snapshot that it begins from is no later than what was agreed, and is not to be taken for wrong with what differs next.
// rule 20
#[test]
fn what_was_agreed_up_to_the_snapshot_stays_agreed_when_a_state_is_built_anew() {
    let differing = (CHECKPOINTS_KEPT as u64 + 8) * 1_024;
    for (sound, agreed) in [(512, 512), (0, 0), (4_000, 1_024)] {
        let mut replica = Replica::of(3);
        assert!(replica.reach(1_024, 1).is_empty());
        assert!(replica.told(2, 1_024, 1).is_empty());
        replica.own.clear();
        replica.comparison.state_replaced(Index(sound));
        (2..=3).for_each(|peer| drop(replica.told(peer, differing, 9)));
        assert_eq!(replica.reach(differing, 7), found(Verdict::Diverged, agreed, differing, 7, 9));
    }
}
