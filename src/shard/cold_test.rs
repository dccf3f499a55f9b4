//! A follower that lags behind what its leader has in memory, and reads of the leader's log that go wrong once.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use raftkv_protocol::peer::{AppendResult, Body, Message};
use raftkv_protocol::types::{EntryId, Index, NodeId};

use super::shard_test::{Cluster, SHARD};
use crate::storage::{CoreLog, FetchError, Fetched};

/// Reads that have come back and were not handed in.
type Slow = VecDeque<Fetched>;

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
    // What was for the old link leaves no more, however often it was asked for.
    for (fetched, sent) in [(slow, 0), (second, 1)] {
        let leader = &mut cluster.nodes[0];
        leader.shard.fetched(fetched, &mut leader.log, &mut leader.out).unwrap();
        assert_eq!(appends(&leader.out.sent).len(), sent);
        assert!(leader.log.fetched().is_none(), "nothing is read again");
        cluster.deliver(0);
    }
    cluster.settle();
    assert!(cluster.nodes[2].shard.status().last.index >= last);
    cluster.run(Duration::from_millis(250));
    let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(straggler.shard.status().last, leader.shard.status().last);
}

/// What is written while a follower catches up is in memory, and what comes before it is being read: in any other order the
/// follower would refuse it, and everything on its way would be read again.
// museum 18
#[test]
fn no_append_overtakes_entries_that_are_being_read() {
    let mut cluster = with_a_straggler();
    let (mut slow, mut sent) = (VecDeque::new(), Vec::new());
    for round in 0..120_u8 {
        if round % 3 == 0
            && let Some(fetched) = slow.pop_front()
        {
            let leader = &mut cluster.nodes[0];
            leader.shard.fetched(fetched, &mut leader.log, &mut leader.out).unwrap();
        }
        if round < 40 {
            cluster.put(0, &[round; 20], 100 + u32::from(round)).unwrap();
        }
        cluster.turn(0);
        slow.extend(std::iter::from_fn(|| cluster.nodes[0].log.fetched()));
        sent.extend(appends(&cluster.nodes[0].out.sent).into_iter().filter(|(_, entries)| *entries > 0));
        for at in 0..3 {
            cluster.deliver(at);
        }
        cluster.turn(1);
        cluster.turn(2);
    }
    let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(straggler.shard.status().last, leader.shard.status().last);
    let distinct: BTreeSet<Index> = sent.iter().map(|(prev, _)| prev.index).collect();
    assert_eq!(distinct.len(), sent.len(), "some were sent again: {sent:?}");
    assert!(sent.iter().map(|(_, entries)| entries).sum::<usize>() >= 100, "{sent:?}");
}

/// The leader takes a turn, and what it reads is held back.
fn turn_leader(cluster: &mut Cluster, slow: &mut Slow) {
    cluster.turn(0);
    slow.extend(std::iter::from_fn(|| cluster.nodes[0].log.fetched()));
}

fn hand_in(cluster: &mut Cluster, fetched: Fetched) {
    let leader = &mut cluster.nodes[0];
    leader.shard.fetched(fetched, &mut leader.log, &mut leader.out).unwrap();
}

/// Everything on its way arrives, and the others answer.
fn exchange(cluster: &mut Cluster) {
    for at in 0..3 {
        cluster.deliver(at);
    }
    cluster.turn(1);
    cluster.turn(2);
    cluster.deliver(2);
}

/// The leader pipelines what the third lacks, and all of it is being read; by an entry of its link.
fn with_a_window() -> (Cluster, Slow) {
    let (mut cluster, mut slow) = (with_a_straggler(), Slow::new());
    let probe = next_fetch(&mut cluster);
    hand_in(&mut cluster, probe);
    exchange(&mut cluster);
    turn_leader(&mut cluster, &mut slow);
    assert!(!slow.is_empty(), "more than one append is on its way");
    (cluster, slow)
}

/// The third tells the leader, on the link of its latest append, that its log is alike up to here.
fn accept(cluster: &mut Cluster, matched: Index) {
    let term = cluster.nodes[0].shard.raft().term();
    let body = Body::AppendReply { link: 1, result: AppendResult::Accepted { matched } };
    cluster.nodes[0].shard.step(Message { shard: SHARD, from: NodeId(3), to: NodeId(1), term, body });
}

/// A snapshot has brought it everything, and the disk of the leader hangs.
// museum 18
#[test]
fn what_is_in_memory_does_not_wait_for_a_read_that_nobody_needs_any_more() {
    let (mut cluster, mut slow) = with_a_window();
    let last = cluster.nodes[0].shard.status().last;
    accept(&mut cluster, last.index);
    cluster.nodes[0].out.sent.clear();
    cluster.put(0, b"new", 1).unwrap();
    turn_leader(&mut cluster, &mut slow);
    assert_eq!(appends(&cluster.nodes[0].out.sent), [(last, 1)]);
}

/// Part of what is being read is there already, and what comes behind it is in memory.
// museum 18
#[test]
fn what_comes_behind_a_read_that_nobody_needs_any_more_leaves_with_the_next_question() {
    let (mut cluster, mut slow) = with_a_window();
    let last = cluster.nodes[0].shard.status().last;
    cluster.nodes[0].out.sent.clear();
    cluster.put(0, b"new", 1).unwrap();
    turn_leader(&mut cluster, &mut slow);
    assert_eq!(appends(&cluster.nodes[0].out.sent), [], "it waits for what comes before it");
    accept(&mut cluster, last.index);
    cluster.put(0, b"newer", 2).unwrap();
    turn_leader(&mut cluster, &mut slow);
    let next = EntryId { index: last.index.next(), term: last.term };
    assert_eq!(appends(&cluster.nodes[0].out.sent), [(last, 1), (next, 1)]);
}

/// The read ends at what was not durable, or after as many batches as it may read from.
// museum 18
#[test]
fn of_a_read_that_ended_early_the_rest_leaves_next() {
    let (mut cluster, mut slow) = (with_a_straggler(), Slow::new());
    let (mut sent, mut short) = (Vec::new(), 0);
    for _ in 0..400 {
        if let Some(mut fetched) = slow.pop_front() {
            if let Ok(entries) = &mut fetched.result {
                short += usize::from(entries.len() > 2);
                entries.truncate(2);
            }
            hand_in(&mut cluster, fetched);
            // What of it is read next takes its time too: the follower answers first.
            slow.extend(std::iter::from_fn(|| cluster.nodes[0].log.fetched()));
        }
        turn_leader(&mut cluster, &mut slow);
        sent.extend(appends(&cluster.nodes[0].out.sent).into_iter().filter(|(_, entries)| *entries > 0));
        exchange(&mut cluster);
    }
    let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(straggler.shard.status().last, leader.shard.status().last);
    assert!(short > 5, "{short} reads ended early");
    let distinct: BTreeSet<Index> = sent.iter().map(|(prev, _)| prev.index).collect();
    // The rest of the first read is on its way when the follower has told where the logs agree, and Raft begins there.
    assert!(sent.len() - distinct.len() <= 1, "some were sent again: {sent:?}");
}

/// It was in memory when it was put behind another.
#[test]
fn what_has_left_the_memory_while_it_waited_is_read_before_what_comes_behind() {
    let (mut cluster, mut slow) = with_a_window();
    let last = cluster.nodes[0].shard.status().last;
    for value in [b"one", b"two"] {
        cluster.put(0, value, 1).unwrap();
        turn_leader(&mut cluster, &mut slow);
        exchange(&mut cluster);
    }
    let newest = cluster.nodes[0].shard.status().last;
    cluster.nodes[0].log.evict(SHARD, newest.index);
    cluster.nodes[0].out.sent.clear();
    let mut sent = Vec::new();
    for _ in 0..50 {
        if let Some(fetched) = slow.pop_front() {
            hand_in(&mut cluster, fetched);
        }
        turn_leader(&mut cluster, &mut slow);
        sent.extend(appends(&cluster.nodes[0].out.sent).into_iter().filter(|(_, entries)| *entries > 0));
        exchange(&mut cluster);
    }
    let behind: Vec<EntryId> = sent.iter().map(|(prev, _)| *prev).filter(|prev| prev.index >= last.index).collect();
    let next = EntryId { index: last.index.next(), term: last.term };
    assert_eq!(behind, [last, next], "{sent:?}");
    assert_eq!(cluster.nodes[2].shard.status().last, newest);
}

/// The log was compacted while it was read.
// museum 14
#[test]
fn what_comes_behind_entries_that_are_gone_is_not_sent_either() {
    let (mut cluster, mut slow) = with_a_window();
    cluster.put(0, b"new", 1).unwrap();
    turn_leader(&mut cluster, &mut slow);
    cluster.nodes[0].out.sent.clear();
    let mut first = slow.pop_front().expect("more than one");
    first.result = Err(FetchError::Gone);
    hand_in(&mut cluster, first);
    for fetched in std::mem::take(&mut slow) {
        hand_in(&mut cluster, fetched);
    }
    assert_eq!(appends(&cluster.nodes[0].out.sent), [], "the follower would refuse them");
    cluster.run(Duration::from_millis(500));
    let [leader, _, straggler] = &cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(straggler.shard.status().last, leader.shard.status().last);
}

/// A beat later the leader asks what of all this has arrived.
#[test]
fn nobody_is_asked_about_what_has_not_left() {
    let (mut cluster, mut slow) = with_a_window();
    cluster.nodes[0].out.sent.clear();
    for _ in 0..10 {
        cluster.now += Duration::from_millis(100);
        turn_leader(&mut cluster, &mut slow);
        assert_eq!(appends(&cluster.nodes[0].out.sent), []);
        exchange(&mut cluster);
    }
}
