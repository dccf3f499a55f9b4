//! Elections: one test for each rule.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::types::{Index, NodeId, Term};

use super::cluster::{Cluster, Disk, T};

#[test]
fn a_fresh_cluster_elects_one_leader_and_commits_its_noop() {
    let mut cluster = Cluster::new(3, 1);
    cluster.run_until(2 * T, |cluster| cluster.leader().is_some());
    cluster.run(2 * super::cluster::BEAT);
    for node in cluster.nodes.values() {
        assert_eq!(node.raft.commit(), Index(1), "{}", node.raft.state_line());
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
    assert_eq!(cluster.raft(1).commit(), Index(0));
    cluster.persist(1, 1);
    assert_eq!(cluster.raft(1).commit(), Index(1));
}

#[test]
fn a_dead_leader_whose_links_closed_is_replaced_within_milliseconds() {
    let mut cluster = Cluster::new(3, 7);
    cluster.elect(1);
    cluster.isolate(1);
    for id in [2, 3] {
        cluster.act(id, |raft| raft.link_lost(NodeId(1)));
    }
    cluster.run_until(Duration::from_millis(80), |cluster| cluster.leader() != Some(1));
    assert_eq!(cluster.raft(cluster.leader().expect("just found")).term(), Term(2));
}

#[test]
fn replication_reaches_everybody() {
    let mut cluster = Cluster::new(3, 7);
    cluster.elect(2);
    cluster.propose(2, &["a", "b"]);
    cluster.settle();
    assert_eq!(cluster.raft(2).commit(), Index(3));
    cluster.run(super::cluster::BEAT);
    assert_eq!(cluster.raft(1).commit(), Index(3));
    assert_eq!(cluster.node(1).log, cluster.node(3).log);
}
