//! Requests on their way between nodes, and what a router takes in and what not: once each, in whatever order, within
//! limits, and from whoever may say it.

use std::time::Duration;

use raftkv_protocol::client::{Answer, Code, Condition, Operation, Reply};
use raftkv_protocol::peer::{Body, Forward, ForwardId, ForwardReply, Message, PeerFrame, ReadContext};
use raftkv_protocol::types::{CoreId, EntryId, Index, NodeId, RequestId, ShardId, Term};

use super::router_test::{Cluster, SHARDS, Told, key_of};
use crate::limits::Limits;

/// How far node `at`'s log of a shard goes.
fn last(cluster: &Cluster, at: u64, shard: usize) -> Index {
    cluster.nodes[at as usize - 1].0.shards()[shard].status().last.index
}

/// Begins to hand a shard over.
fn transfer(cluster: &mut Cluster, shard: usize, from: u64, to: u64) {
    let raft = cluster.nodes[from as usize - 1].0.shards_mut()[shard].raft_mut();
    raft.transfer(NodeId(to)).expect("it leads");
}

/// A frame on the link from another node.
fn frame(cluster: &mut Cluster, to: u64, from: u64, peer_frame: PeerFrame<'_>) {
    let now = cluster.now;
    let (router, mail) = &mut cluster.nodes[to as usize - 1];
    router.peer_frame(NodeId(from), peer_frame, now, mail);
}

// rule 25
#[test]
fn a_forwarded_request_goes_no_further_and_its_origin_tries_again() {
    let mut cluster = Cluster::with_leaders();
    // Shard 1 goes from node 2 to node 3, and node 1 hears nothing of it.
    cluster.link_down(3, 1);
    transfer(&mut cluster, 1, 2, 3);
    cluster.settle();
    assert!(cluster.nodes[2].0.shards()[1].leads());
    let before = last(&cluster, 3, 1);
    cluster.put(1, 1, &key_of(1, 0));
    cluster.settle();
    assert_eq!(cluster.told(1), [], "a definite no is no answer while there is time");
    let sent = |cluster: &Cluster, at: usize| cluster.nodes[at].0.counters.forwards_sent;
    assert!(sent(&cluster, 0) > 0 && sent(&cluster, 1) == 0, "node 2 sends it no further");
    assert_eq!(cluster.nodes[1].0.counters.forwards_served, sent(&cluster, 0), "it says no instead");
    cluster.link_up(3, 1);
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.told(1), [(1, Told::Done)]);
    assert_eq!(last(&cluster, 3, 1), before.next(), "written once");
}

// museum 16, rule 25
#[test]
fn a_forwarded_write_whose_answer_is_lost_is_unknown_and_takes_place_once() {
    for broken in [true, false] {
        let mut cluster = Cluster::with_leaders();
        let before = last(&cluster, 2, 1);
        cluster.put(1, 1, &key_of(1, 0));
        cluster.deliver(1);
        cluster.link_down(2, 1);
        cluster.settle();
        assert_eq!(cluster.nodes[1].0.shards()[1].status().commit, before.next(), "it is committed");
        assert_eq!(cluster.told(1), []);
        if broken {
            cluster.link_down(1, 2);
            assert_eq!(cluster.told(1), [(1, Told::No(Code::Timeout))], "the link is gone");
            cluster.link_up(1, 2);
        }
        cluster.run(Limits::default().request_timeout + Duration::from_millis(100));
        let expected = if broken { vec![] } else { vec![(1, Told::No(Code::Timeout))] };
        assert_eq!(cluster.told(1), expected, "nobody answers in time");
        cluster.link_up(2, 1);
        cluster.run(Duration::from_millis(500));
        assert_eq!(last(&cluster, 2, 1), before.next(), "written once");
        assert_eq!(cluster.told(1), [], "answered once");
    }
}

// museum 16, rule 25
#[test]
fn an_answer_to_an_earlier_process_meets_nobody() {
    let mut cluster = Cluster::with_leaders();
    cluster.put(1, 1, &key_of(1, 0));
    for serial in [0, 1, 999, 1_001, u64::MAX] {
        let reply = Reply { id: RequestId(0), at: EntryId::ZERO, result: Ok(Answer::Put) };
        let id = ForwardId { core: CoreId(0), serial };
        frame(&mut cluster, 1, 2, PeerFrame::ForwardReply(ForwardReply { id, reply }));
    }
    assert_eq!(cluster.told(1), [], "the write was not even sent");
    cluster.settle();
    assert_eq!(cluster.told(1), [(1, Told::Done)]);
}

// rule 26
#[test]
fn a_request_does_not_wait_for_those_before_it() {
    let mut cluster = Cluster::with_leaders();
    cluster.link_down(2, 1);
    cluster.put(1, 1, &key_of(1, 0));
    cluster.put(1, 2, &key_of(0, 0));
    cluster.ask(1, 3, Operation::Ping);
    cluster.settle();
    assert_eq!(cluster.told(1), [(3, Told::Done), (2, Told::Done)], "the first is still on its way");
}

// rule 4
#[test]
fn one_read_round_at_a_time_covers_all_shards_of_a_core() {
    let mut cluster = Cluster::with_leaders();
    transfer(&mut cluster, 1, 2, 1);
    transfer(&mut cluster, 2, 3, 1);
    cluster.run(Duration::from_millis(200));
    let rounds = |cluster: &Cluster| -> Vec<bool> {
        cluster.nodes[0].0.shards().iter().map(|shard| shard.leads() && shard.raft().read_round_in_flight()).collect()
    };
    cluster.get(1, 1, &key_of(0, 0));
    cluster.turn(1);
    assert_eq!(rounds(&cluster), [true, false, false]);
    for (request, shard) in [(2, 1), (3, 2), (4, 0)] {
        cluster.get(1, request, &key_of(shard, 0));
    }
    cluster.turn(1);
    assert_eq!(rounds(&cluster), [true, false, false], "they join the next round");
    // The answers to the first round, and no others.
    for id in [1, 2, 3] {
        cluster.deliver(id);
        cluster.turn(id % 3 + 1);
    }
    (0..6).for_each(|_| {
        if cluster.told(1).is_empty() {
            for id in [2, 3] {
                cluster.turn(id);
                cluster.deliver(id);
            }
            cluster.turn(1);
        }
    });
    assert_eq!(rounds(&cluster), [true, true, true], "one round for all that waited");
    cluster.settle();
    assert_eq!(cluster.told(1).len(), 3);
}

// museum 51, rule 23
#[test]
fn a_link_speaks_for_the_node_at_its_other_end_only() {
    let mut cluster = Cluster::with_leaders();
    let before = cluster.nodes[0].0.counters.messages_bad;
    let terms = |cluster: &Cluster| -> Vec<Term> {
        cluster.nodes[0].0.shards().iter().map(|shard| shard.raft().term()).collect()
    };
    let terms_before = terms(&cluster);
    let context = ReadContext::default();
    let bodies = [
        Body::Vote { last: EntryId::new(1_000, 999), transfer: true },
        Body::Append { link: 0, prev: EntryId::ZERO, commit: Index(9), entries: Vec::new() },
        Body::Heartbeat { commit: Index(9), context, sent_us: 0 },
    ];
    let forged = [(0, 3, 1), (1, 3, 1), (0, 9, 1), (0, 1, 1), (0, 2, 3), (SHARDS, 2, 1), (u16::MAX, 2, 1)];
    for ((shard, from, to), body) in forged.into_iter().flat_map(|names| bodies.clone().map(|body| (names, body))) {
        let (shard, from, to) = (ShardId(shard), NodeId(from), NodeId(to));
        frame(&mut cluster, 1, 2, PeerFrame::Message(Message { shard, from, to, term: Term(1_000), body }));
    }
    let operation = Operation::Put { key: b"key", value: b"value", condition: Condition::None };
    let id = ForwardId { core: CoreId(0), serial: 7 };
    frame(&mut cluster, 1, 2, PeerFrame::Forward(Forward { id, shard: ShardId(SHARDS), operation, timeout_ms: 100 }));
    assert_eq!(cluster.nodes[0].0.counters.messages_bad, before + 3 * 7 + 1, "each is counted");
    cluster.run(Duration::from_millis(300));
    assert_eq!(terms(&cluster), terms_before);
    assert!(cluster.nodes[0].0.shards()[0].leads());
}
