//! A follower that lags behind what its leader has in memory, and reads of the leader's log that go wrong once.

use std::time::Duration;

use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{EntryId, Index, NodeId};

use super::shard_test::{Cluster, SHARD};
use crate::storage::{CoreLog, FetchError, Fetched};

/// The third node is away while entries are written, none of which the leader keeps in memory.
fn leave_behind(cluster: &mut Cluster, entries: u8) {
    cluster.cut = vec![2];
    for to in 0..entries {
        cluster.put(0, &[to; 20], u32::from(to)).unwrap();
        cluster.settle();
    }
    let last = cluster.nodes[0].shard.status().last.index;
    cluster.nodes[0].log.evict(SHARD, last);
    cluster.cut = vec![];
    cluster.nodes[0].shard.raft_mut().link_up(NodeId(3));
}

/// The first leads, the third is 60 entries behind.
fn with_a_straggler() -> Cluster {
    let mut cluster = Cluster::led_by_the_first();
    leave_behind(&mut cluster, 60);
    cluster
}

/// Lets the cluster go on until the leader has read entries for the follower, and takes them from its log.
fn next_fetch(cluster: &mut Cluster) -> Fetched {
    for _ in 0..100 {
        cluster.turn(0);
        if let Some(fetched) = cluster.nodes[0].log.fetched() {
            return fetched;
        }
        for at in 0..3 {
            cluster.deliver(at);
        }
        cluster.turn(1);
        cluster.turn(2);
    }
    panic!("nothing is read");
}

fn appends(sent: &[Message]) -> Vec<(EntryId, usize)> {
    let append = |message: &Message| match &message.body {
        Body::Append { prev, entries, .. } if message.to == NodeId(3) => Some((*prev, entries.len())),
        _ => None,
    };
    sent.iter().filter_map(append).collect()
}

// museum 14
#[test]
fn a_read_error_ends_the_node_and_sends_nothing() {
    let mut cluster = with_a_straggler();
    let mut fetched = next_fetch(&mut cluster);
    fetched.result = Err(FetchError::Corrupt("cannot read the log: an error".to_owned()));
    let leader = &mut cluster.nodes[0];
    leader.out.sent.clear();
    let fatal = leader.shard.fetched(fetched, &mut leader.log, &mut leader.out).expect_err("the node must end");
    assert!(fatal.to_string().contains("cannot read the log: an error"), "{fatal}");
    assert_eq!(appends(&leader.out.sent), [], "nothing is made up in place of what could not be read");
}

// museum 14
#[test]
fn entries_that_are_gone_once_are_not_skipped() {
    let mut cluster = with_a_straggler();
    for _ in 0..3 {
        let mut fetched = next_fetch(&mut cluster);
        fetched.result = Err(FetchError::Gone);
        let leader = &mut cluster.nodes[0];
        leader.out.sent.clear();
        leader.shard.fetched(fetched, &mut leader.log, &mut leader.out).unwrap();
        assert_eq!(appends(&leader.out.sent), [], "no append of what was not read");
        // A beat later the leader asks again.
        cluster.run(Duration::from_millis(250));
        let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
        assert_eq!(straggler.shard.status().last, leader.shard.status().last);
        assert_eq!(straggler.shard.status().state_hash, leader.shard.status().state_hash);
        assert_eq!(straggler.shard.raft().dropped_messages(), 0);
        leave_behind(&mut cluster, 5);
    }
}

// museum 14, museum 17
#[test]
fn a_follower_far_behind_is_brought_up_to_date_from_the_disk() {
    let mut cluster = with_a_straggler();
    let mut prevs: Vec<EntryId> = Vec::new();
    let mut carried = 0;
    for _ in 0..200 {
        cluster.turn(0);
        for (prev, entries) in appends(&cluster.nodes[0].out.sent) {
            assert!(entries == 0 || prev.index > Index(0), "an append of entries names what comes before them: {prev}");
            prevs.push(prev);
            carried += entries;
        }
        for at in 0..3 {
            cluster.deliver(at);
        }
        cluster.turn(1);
        cluster.turn(2);
    }
    assert!(prevs.len() > 4 && carried >= 60, "cut to size: {prevs:?}");
    let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(straggler.shard.status().last, leader.shard.status().last);
}

// museum 18
#[test]
fn what_is_being_read_for_a_follower_is_not_read_again() {
    let mut cluster = with_a_straggler();
    let slow = next_fetch(&mut cluster);
    let last = slow.fetch.last;
    // The disk takes its time. Beats pass, the follower answers them, and the leader probes again.
    for _ in 0..20 {
        cluster.now += Duration::from_millis(100);
        (0..3).for_each(|at| cluster.turn(at));
        assert!(cluster.nodes[0].log.fetched().is_none(), "{:?} is being read already", slow.fetch);
        for at in 0..3 {
            cluster.deliver(at);
        }
    }
    // On a new link the follower may be asked anew, since what was for the old link will not be answered.
    cluster.nodes[0].shard.raft_mut().link_up(NodeId(3));
    cluster.turn(0);
    let second = cluster.nodes[0].log.fetched().expect("read for the new link");
    for fetched in [slow, second] {
        let leader = &mut cluster.nodes[0];
        leader.shard.fetched(fetched, &mut leader.log, &mut leader.out).unwrap();
        assert_eq!(appends(&leader.out.sent).len(), 1);
        cluster.deliver(0);
    }
    cluster.settle();
    assert!(cluster.nodes[2].shard.status().last.index >= last);
    cluster.run(Duration::from_millis(250));
    let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(straggler.shard.status().last, leader.shard.status().last);
}
