//! Linearizable reads: one test for each rule.

use raftkv_protocol::peer::{Body, Message, ReadContext};
use raftkv_protocol::types::{Incarnation, Index, NodeId, Term};

use super::cluster::{BEAT, Cluster, T};
use super::solo::{Solo, accepted, fresh, recovered};
use super::{NotLeader, ReadId, ReadReady, Ready};

/// A leader of term 1 whose no-op is committed.
fn leader() -> Solo {
    let mut solo = fresh();
    solo.lead();
    solo.persist_all();
    solo.step(2, 1, accepted(1));
    solo.step(3, 1, accepted(1));
    solo.tick();
    solo
}

fn context(counter: u64) -> ReadContext {
    ReadContext { incarnation: Incarnation(9), term: Term(1), counter }
}

fn ask(solo: &mut Solo, read: u64) {
    solo.act(|raft| raft.read_index(ReadId(read))).0.expect("it leads");
}

/// Starts a round; the contexts that leave.
fn start(solo: &mut Solo) -> Vec<ReadContext> {
    let (_, messages) = solo.act(|raft| raft.start_read_round());
    let context = |message: &Message| match message.body {
        Body::Heartbeat { context, .. } => context,
        _ => panic!("not a heartbeat: {message:?}"),
    };
    messages.iter().map(|outgoing| context(&outgoing.message)).collect()
}

/// An answer, and the reads that it confirms.
fn answer(solo: &mut Solo, from: u64, context: ReadContext) -> Vec<ReadReady> {
    let (shard, to, term) = (raftkv_protocol::types::ShardId(0), NodeId(1), solo.raft.term());
    let body = Body::HeartbeatReply { context, promise: Default::default() };
    solo.raft.step(Message { shard, from: NodeId(from), to, term, body });
    let mut ready = Ready::default();
    solo.raft.ready(&mut ready);
    ready.reads
}

#[test]
fn a_majority_confirms_all_reads_of_a_round() {
    let mut solo = leader();
    ask(&mut solo, 1);
    ask(&mut solo, 2);
    assert!(solo.raft.reads_waiting() && !solo.raft.read_round_in_flight());
    assert_eq!(start(&mut solo), [context(1), context(1)]);
    assert!(!solo.raft.reads_waiting() && solo.raft.read_round_in_flight());
    let ready = [1, 2].map(|read| ReadReady { read: ReadId(read), index: Index(1) });
    assert_eq!(answer(&mut solo, 2, context(1)), ready);
    assert!(answer(&mut solo, 3, context(1)).is_empty(), "once is enough");
}

// rule 4
#[test]
fn later_reads_join_the_next_round() {
    let mut solo = leader();
    ask(&mut solo, 1);
    start(&mut solo);
    ask(&mut solo, 2);
    assert!(start(&mut solo).is_empty(), "one round at a time");
    assert_eq!(answer(&mut solo, 2, context(1)).len(), 1);
    assert!(solo.raft.reads_waiting());
    assert_eq!(start(&mut solo), [context(2), context(2)]);
}

// rule 4
#[test]
fn only_answers_to_this_very_round_confirm_it() {
    // museum 21
    let mut solo = leader();
    ask(&mut solo, 1);
    start(&mut solo);
    answer(&mut solo, 2, context(1));
    ask(&mut solo, 2);
    start(&mut solo);
    let others = [
        context(1),
        context(0),
        context(3),
        ReadContext { incarnation: Incarnation(8), ..context(2) },
        ReadContext { term: Term(0), ..context(2) },
        ReadContext::default(),
    ];
    for other in others {
        assert!(answer(&mut solo, 2, other).is_empty() && answer(&mut solo, 3, other).is_empty(), "{other:?}");
    }
    assert_eq!(answer(&mut solo, 3, context(2)).len(), 1);
}

// rule 4
#[test]
fn no_read_before_an_entry_of_the_own_term_is_committed() {
    // museum 19
    let mut solo = recovered(3, 1, None, &[1, 1]);
    solo.lead();
    solo.persist_all();
    ask(&mut solo, 1);
    assert!(!solo.raft.reads_waiting());
    assert!(start(&mut solo).is_empty());
    solo.step(2, 2, accepted(3));
    assert!(solo.raft.reads_waiting());
    assert_eq!(start(&mut solo).len(), 2);
}

// rule 4
#[test]
fn the_read_index_is_the_commit_index_at_the_start_of_the_round() {
    // museum 20
    let mut solo = leader();
    ask(&mut solo, 1);
    start(&mut solo);
    solo.propose(3);
    solo.step(2, 1, accepted(4));
    solo.step(3, 1, accepted(4));
    assert_eq!(solo.raft.commit(), Index(4));
    assert_eq!(answer(&mut solo, 2, context(1)), [ReadReady { read: ReadId(1), index: Index(1) }]);
}

#[test]
fn an_unanswered_round_is_asked_again_with_the_beat() {
    let mut solo = leader();
    ask(&mut solo, 1);
    start(&mut solo);
    let beats = solo.pass(BEAT);
    let again =
        |message: &Message| matches!(message.body, Body::Heartbeat { context: asked, .. } if asked == context(1));
    assert!(beats.len() == 2 && beats.iter().all(again), "{beats:?}");
    answer(&mut solo, 2, context(1));
    let beats = solo.pass(BEAT);
    let idle =
        |message: &Message| matches!(message.body, Body::Heartbeat { context: asked, .. } if asked == context(0));
    assert!(beats.len() == 2 && beats.iter().all(idle), "{beats:?}");
}

#[test]
fn reads_end_with_the_leadership() {
    let mut solo = leader();
    ask(&mut solo, 1);
    start(&mut solo);
    ask(&mut solo, 2);
    let body = Body::Heartbeat { commit: Index(0), context: ReadContext::default(), sent_us: 0 };
    let shard = raftkv_protocol::types::ShardId(0);
    solo.raft.step(Message { shard, from: NodeId(2), to: NodeId(1), term: Term(2), body });
    let mut ready = Ready::default();
    assert!(solo.raft.ready(&mut ready));
    assert_eq!(ready.reads_dropped, [ReadId(1), ReadId(2)]);
    assert!(!solo.raft.read_round_in_flight() && !solo.raft.reads_waiting());
    assert_eq!(solo.raft.read_index(ReadId(3)), Err(NotLeader(Some(NodeId(2)))));
}

#[test]
fn a_lone_node_confirms_itself() {
    let mut solo = recovered(1, 0, None, &[]);
    solo.tick();
    solo.persist_all();
    ask(&mut solo, 1);
    solo.raft.start_read_round();
    let mut ready = Ready::default();
    assert!(solo.raft.ready(&mut ready));
    assert_eq!(ready.reads, [ReadReady { read: ReadId(1), index: Index(1) }]);
}

#[test]
fn rounds_are_numbered_on_over_terms() {
    let mut solo = leader();
    ask(&mut solo, 1);
    start(&mut solo);
    solo.step(2, 2, Body::Heartbeat { commit: Index(0), context: ReadContext::default(), sent_us: 0 });
    solo.lead();
    solo.persist_all();
    solo.step(2, 3, accepted(2));
    ask(&mut solo, 2);
    assert_eq!(start(&mut solo)[0], ReadContext { incarnation: Incarnation(9), term: Term(3), counter: 2 });
}

#[test]
fn a_minority_never_answers_a_read() {
    // museum 22
    let mut cluster = Cluster::new(5, 2);
    cluster.elect(1);
    cluster.run(BEAT);
    for id in [3, 4, 5] {
        cluster.isolate(id);
    }
    assert!(cluster.read(1, 71));
    cluster.run(3 * T);
    assert!(cluster.node(1).reads.is_empty());
    assert_eq!(cluster.node(1).reads_dropped, [ReadId(71)]);
}
