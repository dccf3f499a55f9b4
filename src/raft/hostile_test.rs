//! Nonsense from peers: it is counted and dropped, and nothing panics.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{AppendResult, Body, Message, ReadContext, SnapshotMeta};
use raftkv_protocol::types::{EntryId, Incarnation, Index, NodeId, ShardId, Term};

use super::Ready;
use super::invariants::{Observed, check, check_step};
use super::solo::{
    Solo, accepted, append, damaged, fresh, heartbeat, meta, offer, pre_vote, recovered, rejected, vote,
};
use super::timing::SplitMix;

const MAX: u64 = u64::MAX;

#[test]
fn messages_that_make_no_sense_are_counted_and_change_nothing() {
    let nonsense = [
        append((1, 1), 0, &[(3, 1)]),
        append((1, 1), 0, &[(2, 1), (2, 1)]),
        append((1, 1), 0, &[(2, 9)]),
        append((1, 1), 0, &[(2, 2), (3, 1)]),
        append((1, 9), 0, &[]),
        append((0, 1), 0, &[]),
        append((1, 0), 0, &[]),
        append((MAX, 1), 0, &[]),
        append((1, 1), MAX, &[]),
        append((MAX, 1), 0, &[(0, 1)]),
        heartbeat(MAX),
        vote((MAX, 1)),
        vote((1, MAX)),
        pre_vote((1, MAX)),
        accepted(MAX),
        rejected(MAX, (0, 0)),
        rejected(1, (MAX, 1)),
        offer(0, (2, 1)),
        offer(1, (0, 0)),
        offer(1, (0, 1)),
        offer(1, (2, 0)),
        offer(1, (2, 4)),
        offer(1, (MAX, 1)),
        Body::Snapshot { link: 0, meta: SnapshotMeta { bytes: MAX, ..meta(1, (2, 1)) } },
    ];
    for (count, body) in (1..).zip(nonsense) {
        let mut solo = recovered(3, 3, None, &[1]);
        let text = format!("{body:?}");
        assert!(solo.step(2, 3, body).is_empty(), "{text}");
        assert_eq!((solo.raft.dropped_messages(), solo.raft.leader()), (1, None), "number {count}: {text}");
        assert!(solo.writes.is_empty() && solo.installs.is_empty(), "{text}");
    }
}

// museum 51, rule 23
#[test]
fn messages_of_others_are_counted_and_change_nothing() {
    let honest = Message { shard: ShardId(0), from: NodeId(2), to: NodeId(1), term: Term(5), body: heartbeat(0) };
    let strangers = [
        Message { shard: ShardId(1), ..honest.clone() },
        Message { from: NodeId(9), ..honest.clone() },
        Message { from: NodeId(1), ..honest.clone() },
        Message { to: NodeId(2), ..honest.clone() },
        Message { term: Term(MAX), ..honest.clone() },
        Message { term: Term(0), ..honest },
    ];
    let mut solo = fresh();
    for (count, stranger) in (1..).zip(strangers) {
        let text = format!("{stranger:?}");
        solo.act(|raft| raft.step(stranger));
        assert_eq!((solo.raft.dropped_messages(), solo.raft.term()), (count, Term(0)), "{text}");
    }
}

#[test]
fn a_second_leader_in_one_term_is_not_believed() {
    let mut solo = fresh();
    solo.step(2, 1, append((0, 0), 0, &[(1, 1)]));
    solo.step(3, 1, append((0, 0), 0, &[]));
    solo.step(3, 1, heartbeat(0));
    assert_eq!((solo.raft.leader(), solo.raft.dropped_messages()), (Some(NodeId(2)), 2));
    let mut leader = fresh();
    leader.lead();
    leader.step(3, 1, heartbeat(0));
    leader.step(3, 1, append((0, 0), 0, &[(1, 1)]));
    leader.step(3, 1, offer(1, (5, 1)));
    assert_eq!((leader.raft.role(), leader.raft.dropped_messages()), (Role::Leader, 3));
    assert!(leader.installs.is_empty());
}

#[test]
fn a_snapshot_that_contradicts_what_is_known_is_not_believed() {
    let mut solo = recovered(3, 3, None, &[1, 2, 2, 2]);
    solo.step(2, 3, append((3, 2), 2, &[]));
    // 2@2 is committed, 3@2 is the leader's, and terms never fall.
    for at in [(1, 2), (2, 1), (3, 3), (4, 1), (9, 1)] {
        assert!(solo.step(2, 3, offer(1, at)).is_empty(), "{at:?}");
    }
    assert_eq!((solo.raft.dropped_messages(), solo.raft.commit()), (5, Index(2)));
    assert!(solo.installs.is_empty());
}

#[test]
fn a_leader_does_not_believe_in_entries_that_it_does_not_have() {
    let mut solo = fresh();
    solo.lead();
    solo.step(2, 1, accepted(2));
    solo.step(2, 1, rejected(7, (3, 1)));
    assert_eq!((solo.raft.commit(), solo.raft.dropped_messages()), (Index(0), 2));
}

/// A number near those that matter.
fn number(random: &mut SplitMix) -> u64 {
    match random.next() % 16 {
        0 => MAX,
        1 => MAX - 1,
        2 => 1 << 62,
        _ => random.next() % 6,
    }
}

fn id(random: &mut SplitMix) -> (u64, u64) {
    (number(random), number(random))
}

fn any_body(random: &mut SplitMix) -> Body {
    let granted = random.next().is_multiple_of(2);
    let link = (random.next() % 2) as u32;
    match random.next() % 11 {
        0 => pre_vote(id(random)),
        1 => Body::PreVoteReply { granted },
        2 => vote(id(random)),
        3 => Body::VoteReply { granted },
        4 | 5 => {
            let prev = id(random);
            // Mostly consecutive, so that some get through.
            let start = if granted { prev.0.wrapping_add(1) } else { number(random) };
            let ids: Vec<(u64, u64)> =
                (0..random.next() % 4).map(|at| (start.wrapping_add(at), prev.1.max(random.next() % 4))).collect();
            append(prev, number(random), &ids)
        }
        6 => Body::AppendReply { link, result: AppendResult::Accepted { matched: Index(number(random)) } },
        7 => {
            let (index, term) = id(random);
            let hint = EntryId::new(index, term);
            Body::AppendReply { link, result: AppendResult::Rejected { prev: Index(number(random)), hint } }
        }
        8 => {
            let context =
                ReadContext { incarnation: Incarnation(9), term: Term(number(random)), counter: random.next() % 3 };
            if granted {
                Body::HeartbeatReply { context, promise: Default::default() }
            } else {
                Body::Heartbeat { commit: Index(number(random)), context, sent_us: 0 }
            }
        }
        9 => Body::TimeoutNow,
        _ => any_offer(random),
    }
}

fn any_offer(random: &mut SplitMix) -> Body {
    // Names from 0 on; often an entry that may follow what is there.
    let at = (number(random), 1 + random.next() % 3);
    offer(random.next() % 3, at)
}

/// One input of any kind.
fn any_input(solo: &mut Solo, random: &mut SplitMix) {
    let node = NodeId(random.next() % 5);
    match random.next() % 28 {
        0 => drop(solo.pass(std::time::Duration::from_millis(random.next() % 900))),
        1 => drop(solo.act(|raft| raft.link_lost(node))),
        2 => drop(solo.act(|raft| raft.link_up(node))),
        3 => drop(solo.act(|raft| raft.transfer(node))),
        4 => drop(solo.act(|raft| raft.read_index(super::ReadId(1)))),
        5 => drop(solo.act(|raft| raft.start_read_round())),
        6 => drop(solo.act(|raft| raft.propose(raftkv_protocol::types::EntryKind::Command, &mut vec!["x".into()]))),
        7..10 => drop((!solo.writes.is_empty()).then(|| solo.persist())),
        10 => solo.act(|raft| raft.applied(raft.commit())).0,
        11 => take_snapshot(solo, random),
        12 => {
            let start = any_of_log(solo, random);
            solo.act(|raft| raft.compact(start));
        }
        13 => restore(solo, random),
        _ => {
            // Terms rise slowly: mostly the own one.
            let term = match random.next() % 8 {
                0 => Term(number(random)),
                1 => Term(solo.raft.term().0 + 1),
                _ => solo.raft.term(),
            };
            let (shard, to, body) = (ShardId(0), NodeId(1), any_body(random));
            solo.act(|raft| raft.step(Message { shard, from: node, to, term, body }));
        }
    }
}

/// An entry of the log, or nearly.
fn any_of_log(solo: &Solo, random: &mut SplitMix) -> EntryId {
    let index = Index(random.next() % (solo.raft.last().index.0 + 2));
    EntryId { index, term: solo.raft.term_at(index).unwrap_or(Term(random.next() % 3)) }
}

fn take_snapshot(solo: &mut Solo, random: &mut SplitMix) {
    let EntryId { index, term } = any_of_log(solo, random);
    solo.act(|raft| raft.snapshot_taken(meta(1 + random.next() % 9, (index.0, term.0))));
}

/// Any of the snapshots that were asked for: liars have made them up.
fn restore(solo: &mut Solo, random: &mut SplitMix) {
    let count = solo.installs.len().max(1);
    let Some(&(_, meta)) = solo.installs.get(random.next() as usize % count) else { return };
    solo.act(|raft| raft.restore(meta));
}

#[test]
fn no_sequence_of_messages_breaks_a_replica() {
    let (mut led, mut followed, mut committed) = (0, 0, 0);
    let (mut compacted, mut reset, mut told) = (0, 0, 0);
    for seed in 0..500 {
        println!("seed {seed}");
        let mut random = SplitMix(seed);
        let has_lost = seed % 5 == 0;
        let mut solo = if has_lost { damaged(3, 2, None, &[1, 2]) } else { recovered(3, 2, None, &[1, 2]) };
        for _ in 0..300 {
            any_input(&mut solo, &mut random);
            led += u32::from(solo.raft.role() == Role::Leader);
            followed += u32::from(solo.raft.leader().is_some_and(|leader| leader != NodeId(1)));
            committed += u32::from(solo.raft.commit() > Index(0));
        }
        told += u32::from(has_lost && solo.raft.knows_its_promises());
        reset += solo.resets.len();
        compacted += usize::from(solo.resets.is_empty() && solo.raft.start() != EntryId::ZERO);
        let before = Observed::of(&solo.raft);
        assert!(!solo.raft.ready(&mut Ready::default()), "a drained replica wants nothing: {}", solo.raft);
        check(&solo.raft);
        check_step(&before, &solo.raft);
    }
    assert!(led > 1_000 && followed > 1_000 && committed > 1_000, "shallow: {led} {followed} {committed}");
    assert!(compacted > 10 && reset > 50, "shallow: {compacted} compacted, {reset} resets");
    assert!(told > 5 && told < 95, "shallow: {told} know their promises");
}
