//! Links that carry one way only, or connect some and not others: somebody who is connected to a majority leads, and
//! whoever is not disturbs nobody.

use raftkv_protocol::client::Role;
use raftkv_protocol::types::{Index, Term};

use super::cluster::{BEAT, Cluster, T};

/// A cluster whose node 1 has led for a while, and which has lost these links since.
fn with_cuts(size: u64, seed: u64, cuts: &[(u64, u64)]) -> Cluster {
    let mut cluster = Cluster::new(size, seed);
    cluster.elect(1);
    cluster.run(BEAT);
    for &(from, to) in cuts {
        cluster.cut(from, to);
    }
    cluster
}

/// Every link, both ways, but those between these pairs.
fn all_but(size: u64, kept: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let links = (1..=size).flat_map(|from| (1..=size).map(move |to| (from, to)));
    links.filter(|&(from, to)| from != to && !kept.contains(&(from, to)) && !kept.contains(&(to, from))).collect()
}

/// How many elections were held, by all nodes together.
fn elections(cluster: &Cluster) -> u64 {
    cluster.nodes.values().map(|node| node.raft.elections_started()).sum()
}

/// The terms of all nodes.
fn terms(cluster: &Cluster) -> Vec<Term> {
    cluster.nodes.values().map(|node| node.raft.term()).collect()
}

/// `leader` leads, commits, confirms a read, and stays in office for a long time, without one more election.
#[track_caller]
fn assert_settled(cluster: &mut Cluster, leader: u64, read: u64) {
    let (before, term) = (elections(cluster), cluster.raft(leader).term());
    // As long as nothing is written, everybody's log is as good as anybody's.
    cluster.run(10 * T);
    for _ in 0..5 {
        let last = cluster.propose(leader, &["x"]);
        assert!(cluster.read(leader, read));
        cluster.run(4 * T);
        assert!(cluster.raft(leader).commit() >= last.index, "nothing is committed: {}", cluster.raft(leader));
        assert!(cluster.node(leader).reads.iter().any(|ready| ready.read.0 == read), "no read is served");
    }
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
    assert_eq!(elections(cluster), before, "{:?}", cluster.lines());
}

/// The links are mended: everybody follows the leader that there is, and nobody's term rises above its own.
#[track_caller]
fn assert_quiet_return(cluster: &mut Cluster, leader: u64) {
    let (before, term) = (elections(cluster), cluster.raft(leader).term());
    cluster.heal();
    cluster.run(4 * BEAT);
    assert_eq!(terms(cluster), vec![term; cluster.nodes.len()]);
    assert_eq!((cluster.leader(), elections(cluster)), (Some(leader), before), "the return deposed somebody");
    let last = cluster.raft(leader).last();
    for node in cluster.nodes.values() {
        assert_eq!((node.raft.last(), node.raft.commit()), (last, last.index), "{}", node.raft);
    }
}

// museum 5
#[test]
fn a_follower_that_only_another_follower_hears_disturbs_nobody() {
    for seed in 0..6 {
        let mut cluster = with_cuts(3, seed, &[(1, 3), (3, 1)]);
        assert_settled(&mut cluster, 1, 71);
        assert_eq!(terms(&cluster), [Term(1); 3], "pre-votes raise no term");
        assert_quiet_return(&mut cluster, 1);
    }
}

// museum 5
#[test]
fn a_node_that_reaches_a_majority_leads_where_others_do_not() {
    // A star around node 2; a chain, of which the three inner nodes reach a majority. The old leader is at the rim.
    let star = [(2, 1), (2, 3), (2, 4), (2, 5)];
    let chain = [(1, 2), (2, 3), (3, 4), (4, 5)];
    for (seed, kept, able) in (0..6).flat_map(|seed| [(seed, &star, &[2][..]), (seed, &chain, &[2, 3, 4])]) {
        let mut cluster = with_cuts(5, seed, &all_but(5, kept));
        cluster.run_until(12 * T, |cluster| {
            cluster.leader().is_some_and(|leader| able.contains(&leader)) && cluster.raft(1).role() != Role::Leader
        });
        cluster.run(T);
        let leader = cluster.leader().expect("just seen");
        assert_settled(&mut cluster, leader, 71);
        assert_quiet_return(&mut cluster, leader);
    }
}

// museum 6
#[test]
fn a_leader_whose_links_carry_one_way_only_is_replaced_and_serves_nothing() {
    let sends_only = [(2, 1), (3, 1)];
    let hears_only = [(1, 2), (1, 3)];
    for (seed, cuts) in (0..6).flat_map(|seed| [(seed, &sends_only), (seed, &hears_only)]) {
        let mut cluster = with_cuts(3, seed, cuts);
        assert!(cluster.read(1, 71));
        cluster.propose(1, &["unheard"]);
        cluster.run_until(6 * T, |cluster| cluster.raft(1).role() != Role::Leader && cluster.leader().is_some());
        assert!(cluster.node(1).reads.is_empty(), "a read was confirmed by nobody");
        let leader = cluster.leader().expect("just seen");
        cluster.run(T);
        assert_settled(&mut cluster, leader, 72);
        assert_quiet_return(&mut cluster, leader);
    }
}

// museum 6
#[test]
fn a_follower_whose_links_carry_one_way_only_disturbs_nobody() {
    let sends_only = [(1, 3), (2, 3)];
    let hears_only = [(3, 1), (3, 2)];
    for (seed, cuts) in (0..6).flat_map(|seed| [(seed, &sends_only), (seed, &hears_only)]) {
        let mut cluster = with_cuts(3, seed, cuts);
        // As TCP would say it: the ends that hear nothing lose their links.
        cluster.act(3, |raft| raft.link_lost(raftkv_protocol::types::NodeId(1)));
        assert_settled(&mut cluster, 1, 71);
        assert!(cluster.raft(1).commit() > Index(1));
        assert_quiet_return(&mut cluster, 1);
    }
}
