//! Replication, acknowledgement and commitment: one test for each rule.

use std::time::Duration;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{AppendResult, Body};
use raftkv_protocol::types::{EntryId, EntryKind, Index, NodeId, Term};

use super::Outgoing;
use super::cluster::{BEAT, Cluster, Disk, T};
use super::invariants::{Observed, check_step};
use super::solo::{Solo, accepted, append, bodies, fresh, heartbeat, recovered, rejected};

/// A leader of term 2 with the log 1@1 2@2, its no-op 2@2 on its disk and 1@1 committed nowhere.
fn leader() -> Solo {
    let mut solo = recovered(3, 1, None, &[1]);
    solo.lead();
    solo.persist_all();
    solo
}

/// The same, with both followers known to have everything.
fn settled_leader() -> Solo {
    let mut solo = leader();
    solo.step(2, 2, accepted(2));
    solo.step(3, 2, accepted(2));
    assert_eq!(solo.raft.commit(), Index(2));
    solo
}

/// Where an append goes, its `prev`, and the indexes of its entries.
fn shape(outgoing: &Outgoing) -> (u64, u64, std::ops::Range<u64>) {
    let Body::Append { prev, .. } = outgoing.message.body else { panic!("not an append: {outgoing:?}") };
    (outgoing.message.to.0, prev.index.0, outgoing.entries.clone())
}

#[test]
fn a_new_leader_appends_a_noop_and_asks_where_the_logs_agree() {
    let mut solo = recovered(3, 1, None, &[1, 1]);
    let messages = solo.lead();
    assert_eq!(solo.raft.last(), EntryId::new(3, 2));
    assert_eq!(solo.raft.commit(), Index(0), "nothing is known to be committed");
    assert!(
        messages.iter().all(|message| matches!(message.body, Body::Append { prev, .. } if prev == EntryId::new(2, 1)))
    );
    assert_eq!(messages.len(), 2);
}

#[test]
fn an_append_needs_its_predecessor() {
    // §5.3, Log Matching.
    let mut solo = recovered(3, 4, None, &[1, 1, 4, 4]);
    for (prev, hint) in [((9, 4), (4, 4)), ((4, 3), (2, 1)), ((3, 2), (2, 1)), ((6, 2), (2, 1))] {
        let answers = solo.step(2, 4, append(prev, 0, &[(prev.0 + 1, 4)]));
        assert_eq!(bodies(&answers), [&rejected(prev.0, hint)], "after {prev:?}");
    }
    assert_eq!(solo.raft.last(), EntryId::new(4, 4), "a refused append changes nothing");
    assert!(solo.writes.is_empty());
}

// rule 10
#[test]
fn only_a_conflict_truncates() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1, 1]);
    solo.step(2, 2, append((1, 1), 0, &[(2, 1), (3, 1)]));
    assert_eq!(solo.raft.last(), EntryId::new(4, 1), "a late append of old entries");
    assert!(solo.writes.is_empty(), "what matches is not written again");
    solo.step(2, 2, append((2, 1), 0, &[(3, 1), (4, 2)]));
    assert_eq!(solo.raft.last(), EntryId::new(4, 2));
    let (_, waiting) = &solo.writes[0];
    assert!(waiting.is_empty() && solo.raft.persisted_index() == Index(3));
}

#[test]
fn committed_entries_are_never_truncated() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1]);
    solo.step(2, 2, append((3, 1), 2, &[]));
    assert_eq!(solo.raft.commit(), Index(2));
    assert!(solo.step(2, 2, append((1, 1), 2, &[(2, 2)])).is_empty());
    assert!(solo.step(2, 2, append((2, 2), 2, &[(3, 2)])).is_empty());
    assert_eq!((solo.raft.last(), solo.raft.dropped_messages()), (EntryId::new(3, 1), 2));
}

// rule 3
#[test]
fn acknowledged_is_what_is_verified_and_durable() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1]);
    // Three entries are durable, but this leader has vouched for two.
    assert_eq!(bodies(&solo.step(2, 2, append((1, 1), 0, &[(2, 1)]))), [&accepted(2)]);
    // It vouches for five, of which three are durable.
    assert_eq!(bodies(&solo.step(2, 2, append((3, 1), 0, &[(4, 2), (5, 2)]))), [&accepted(3)]);
    assert_eq!(bodies(&solo.persist()), [&accepted(5)]);
}

#[test]
fn one_acknowledgement_answers_many_appends() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 0, &[(2, 2)]));
    solo.step(2, 2, append((2, 2), 0, &[(3, 2)]));
    solo.step(2, 2, append((3, 2), 0, &[(4, 2)]));
    let newest = solo.writes.back().expect("three writes").0;
    let (_, answers) = solo.act(|raft| raft.persisted(newest));
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].message.body, accepted(4));
}

#[test]
fn a_doubled_append_is_acknowledged_when_its_entries_are_durable() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 0, &[(2, 2)]));
    assert!(solo.step(2, 2, append((1, 1), 0, &[(2, 2)])).is_empty(), "known, but not durable");
    assert_eq!(bodies(&solo.persist_all()), [&accepted(2)]);
    assert_eq!(bodies(&solo.step(2, 2, append((1, 1), 0, &[(2, 2)]))), [&accepted(2)], "known and durable");
}

// rule 1
#[test]
fn nothing_is_answered_in_a_term_that_is_not_durable() {
    let mut solo = recovered(3, 1, None, &[1]);
    assert!(solo.step(2, 2, append((1, 1), 0, &[])).is_empty());
    assert!(solo.step(2, 2, append((5, 2), 0, &[])).is_empty());
    assert!(solo.step(2, 2, heartbeat(0)).is_empty());
    assert_eq!(solo.persist_all().len(), 3);
}

// rule 2
#[test]
fn a_late_completion_does_not_vouch_for_an_entry_that_was_overwritten() {
    // museum 13: 10@3, then 10@4, then 10@3 again, here with index 2 and terms 1 and 2.
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 0, &[(2, 1)]));
    solo.step(3, 3, append((1, 1), 0, &[(2, 3)]));
    solo.step(2, 4, append((1, 1), 0, &[(2, 1)]));
    assert_eq!(solo.writes.len(), 3);
    assert!(solo.persist().is_empty());
    assert_eq!(solo.raft.persisted_index(), Index(1), "the disk may hold 2@3");
    assert!(solo.persist().is_empty());
    assert_eq!(solo.raft.persisted_index(), Index(1), "the disk holds 2@3");
    assert_eq!(bodies(&solo.persist()), [&accepted(2)]);
}

// rule 2
#[test]
fn truncation_takes_back_what_was_durable() {
    let mut solo = recovered(3, 2, None, &[1, 1, 1]);
    solo.step(2, 2, append((1, 1), 0, &[(2, 2)]));
    assert_eq!(solo.raft.persisted_index(), Index(1));
    solo.persist();
    assert_eq!(solo.raft.persisted_index(), Index(2));
}

#[test]
fn a_truncation_reaches_entries_that_were_not_handed_out_yet() {
    let mut solo = recovered(3, 1, None, &[1]);
    let message = |from: u64, term: u64, body| raftkv_protocol::peer::Message {
        shard: raftkv_protocol::types::ShardId(0),
        from: NodeId(from),
        to: NodeId(1),
        term: Term(term),
        body,
    };
    solo.act(|raft| {
        raft.step(message(2, 1, append((1, 1), 0, &[(2, 1), (3, 1)])));
        raft.step(message(3, 2, append((2, 1), 0, &[(3, 2), (4, 2)])));
    });
    assert_eq!(solo.log, [EntryId::new(1, 1), EntryId::new(2, 1), EntryId::new(3, 2), EntryId::new(4, 2)]);
}

// rule 3
#[test]
fn commit_goes_no_further_than_what_the_leader_verified() {
    // museum 12
    let mut solo = recovered(3, 2, None, &[1, 1, 1]);
    solo.step(2, 2, heartbeat(3));
    assert_eq!(solo.raft.commit(), Index(0), "nothing is verified in this term");
    solo.step(2, 2, append((1, 1), 3, &[]));
    assert_eq!(solo.raft.commit(), Index(1), "3@1 may not be the leader's");
    solo.step(2, 2, heartbeat(3));
    assert_eq!(solo.raft.commit(), Index(1));
    solo.step(2, 2, append((1, 1), 1, &[(2, 1)]));
    solo.step(2, 2, heartbeat(3));
    assert_eq!(solo.raft.commit(), Index(2));
}

// rule 3
#[test]
fn what_one_leader_verified_is_forgotten_in_the_next_term() {
    let mut solo = recovered(3, 2, None, &[1, 1]);
    solo.step(2, 2, append((1, 1), 0, &[(2, 1)]));
    solo.step(3, 3, heartbeat(2));
    assert_eq!(solo.raft.commit(), Index(0));
}

#[test]
fn an_older_term_is_not_committed_by_counting() {
    // museum 11, Raft paper figure 8: 2@2 is on a majority and may still be overwritten, until 3@4 is too.
    let mut solo = recovered(5, 3, None, &[1, 2]);
    solo.lead();
    solo.persist_all();
    assert_eq!(solo.raft.last(), EntryId::new(3, 4));
    solo.step(2, 4, accepted(2));
    solo.step(3, 4, accepted(2));
    assert_eq!(solo.raft.commit(), Index(0));
    solo.step(2, 4, accepted(3));
    solo.step(3, 4, accepted(3));
    assert_eq!(solo.raft.commit(), Index(3), "everything before it is committed with it");
}

// rule 1, 8
#[test]
fn a_leader_commits_without_its_own_disk() {
    let mut solo = leader();
    solo.propose(1);
    solo.step(2, 2, accepted(3));
    assert_eq!(solo.raft.commit(), Index(2), "node 2 alone is no majority");
    solo.step(3, 2, accepted(3));
    assert_eq!((solo.raft.commit(), solo.raft.persisted_index()), (Index(3), Index(2)));
}

/// A turn may bring an acknowledgement, and that its link was followed by another.
#[test]
fn what_was_acknowledged_before_its_link_broke_is_committed() {
    let mut solo = leader();
    let before = Observed::of(&solo.raft);
    solo.step(2, 2, accepted(2));
    solo.act(|raft| raft.link_up(NodeId(2)));
    assert_eq!((solo.raft.commit(), solo.raft.matched(NodeId(2))), (Index(2), Some(Index(0))));
    check_step(&before, &solo.raft);
}

#[test]
fn the_leaders_disk_counts_like_any_other() {
    let mut solo = leader();
    solo.propose(1);
    solo.step(2, 2, accepted(3));
    solo.persist();
    assert_eq!(solo.raft.commit(), Index(3));
}

#[test]
fn a_lone_node_commits_when_its_disk_has_it() {
    // museum 15
    let mut solo = recovered(1, 0, None, &[]);
    solo.tick();
    solo.persist_all();
    solo.propose(2);
    assert_eq!(solo.raft.commit(), Index(1));
    solo.persist();
    assert_eq!(solo.raft.commit(), Index(3));
    // Two writes are on their way, and the completion of the first says nothing of the second.
    solo.propose(1);
    solo.propose(1);
    assert_eq!(solo.raft.commit(), Index(3));
    solo.persist();
    assert_eq!(solo.raft.commit(), Index(4));
    solo.persist();
    assert_eq!(solo.raft.commit(), Index(5));
}

#[test]
fn appends_are_pipelined_and_cut_to_size() {
    // 100 bytes an append, 300 on the way to each follower.
    let mut solo = settled_leader();
    let shapes: Vec<_> = solo.propose(450).iter().map(shape).collect();
    let to_2 = [(2, 2, 3..103), (2, 102, 103..203), (2, 202, 203..303)];
    let to_3 = to_2.clone().map(|(_, prev, entries)| (3, prev, entries));
    assert_eq!(shapes, [to_2, to_3].concat());
    // museum 17: an acknowledgement opens the window.
    assert_eq!(solo.step(2, 2, accepted(150)).len(), 1);
    assert_eq!(solo.step(2, 2, accepted(303)).len(), 1);
}

#[test]
fn the_number_of_appends_on_the_way_is_limited() {
    let mut solo = settled_leader();
    for _ in 0..10 {
        assert_eq!(solo.propose(1).len(), 2);
    }
    assert!(solo.propose(1).is_empty());
    let next = solo.step(2, 2, accepted(5));
    assert_eq!(next.len(), 1, "what gathered meanwhile leaves as one");
}

#[test]
fn an_entry_over_the_limit_travels_alone() {
    let mut solo = settled_leader();
    let body = |bytes: usize| bytes::Bytes::from(vec![0; bytes]);
    let mut commands = vec![body(10), body(1_000), body(10), body(20)];
    let (_, first) = solo.act(|raft| raft.propose(EntryKind::Command, &mut commands));
    assert!(commands.is_empty());
    assert_eq!(first.iter().map(shape).next(), Some((2, 2, 3..4)));
    assert_eq!(first.len(), 2, "1,000 bytes wait until nothing else is on the way");
    let (_, second) = solo.act(|raft| {
        raft.step(raftkv_protocol::peer::Message {
            shard: raftkv_protocol::types::ShardId(0),
            from: NodeId(2),
            to: NodeId(1),
            term: Term(2),
            body: accepted(3),
        });
    });
    assert_eq!(second.iter().map(shape).collect::<Vec<_>>(), [(2, 3, 4..5)]);
    assert_eq!(solo.raft.uncommitted_bytes(), 1_040);
}

#[test]
fn a_probe_is_one_append_until_it_is_answered() {
    // museum 17
    let mut solo = leader();
    assert!(solo.propose(1).is_empty(), "the no-op is on its way to both");
    assert!(solo.pass(BEAT).iter().all(|message| matches!(message.body, Body::Heartbeat { .. })));
    let reply = Body::HeartbeatReply { context: Default::default(), promise: Default::default() };
    assert!(solo.step(2, 2, reply).is_empty());
    let again = solo.pass(BEAT);
    assert!(matches!(&again.last().expect("a probe").body, Body::Append { .. }), "{again:?}");
    assert_eq!(again.last().expect("a probe").to, NodeId(2));
}

#[test]
fn a_rejection_moves_the_probe_by_whole_terms() {
    let mut solo = recovered(3, 5, None, &[1, 1, 1, 4, 4, 5]);
    solo.lead();
    // The follower's log is 1@1 2@1 3@2 4@2 5@2 6@2: its last entry with a term of at most 5 is 6@2.
    let next = solo.step(2, 6, rejected(6, (6, 2)));
    let Body::Append { prev, .. } = next[0].body else { panic!("a probe") };
    assert_eq!(prev, EntryId::new(3, 1), "this log's last entry with a term of at most 2");
    assert!(solo.step(2, 6, rejected(6, (6, 2))).is_empty(), "a late answer to the first probe");
    let next = solo.step(2, 6, rejected(3, (2, 1)));
    let Body::Append { prev, .. } = next[0].body else { panic!("a probe") };
    assert_eq!(prev, EntryId::new(2, 1));
    solo.step(2, 6, accepted(7));
    assert_eq!(solo.raft.matched(NodeId(2)), Some(Index(7)));
}

#[test]
fn a_rejection_of_the_pipeline_falls_back_to_what_was_acknowledged() {
    let mut solo = settled_leader();
    solo.propose(1);
    solo.propose(1);
    let next = solo.step(2, 2, rejected(3, (2, 2)));
    let Body::Append { prev, .. } = next[0].body else { panic!("a probe") };
    assert_eq!(prev, EntryId::new(2, 2));
    assert!(solo.step(2, 2, rejected(1, (1, 1))).is_empty(), "older than what it acknowledged");
    assert_eq!(solo.raft.matched(NodeId(2)), Some(Index(2)));
}

// rule 23
#[test]
fn answers_of_an_earlier_link_do_not_count() {
    let mut solo = settled_leader();
    solo.propose(1);
    let (_, probe) = solo.act(|raft| raft.link_up(NodeId(2)));
    assert!(matches!(probe[0].message.body, Body::Append { link: 1, .. }));
    assert_eq!(shape(&probe[0]), (2, 2, 3..4), "from what was acknowledged");
    solo.step(2, 2, accepted(3));
    assert_eq!(solo.raft.matched(NodeId(2)), Some(Index(0)), "nothing was said on this link");
    solo.step(2, 2, Body::AppendReply { link: 1, result: AppendResult::Accepted { matched: Index(3) } });
    assert_eq!(solo.raft.matched(NodeId(2)), Some(Index(3)));
}

#[test]
fn a_probe_keeps_its_place_when_the_link_comes_up() {
    let mut solo = recovered(3, 1, None, &[1; 500]);
    solo.lead();
    let (_, probe) = solo.act(|raft| raft.link_up(NodeId(2)));
    assert_eq!(shape(&probe[0]), (2, 500, 501..502), "not the whole log again");
}

// rule 23
#[test]
fn a_follower_repeats_its_acknowledgement_when_its_link_comes_up() {
    let mut solo = recovered(3, 2, None, &[1]);
    solo.step(2, 2, append((1, 1), 0, &[]));
    let (_, again) = solo.act(|raft| raft.link_up(NodeId(2)));
    assert_eq!(again[0].message.body, accepted(1));
    let (_, other) = solo.act(|raft| raft.link_up(NodeId(3)));
    assert!(other.is_empty());
}

#[test]
fn entries_that_the_start_of_the_log_covers_are_taken_as_known() {
    let mut solo = super::solo::starting_after(EntryId::new(10, 1));
    solo.step(2, 1, append((8, 1), 0, &[(9, 1), (10, 1), (11, 1)]));
    assert_eq!(bodies(&solo.persist_all()), [&accepted(11)]);
    solo.step(2, 1, append((8, 1), 0, &[(9, 1)]));
    assert_eq!(solo.raft.last(), EntryId::new(11, 1));
}

#[test]
fn terms_and_commit_survive_a_leader_whose_disk_lags() {
    // The leader commits by its followers' disks and dies; what it acknowledged is still there.
    let mut cluster = Cluster::new(3, 3);
    cluster.elect(1);
    cluster.node_mut(1).disk = Disk::Held;
    cluster.propose(1, &["a", "b"]);
    cluster.settle();
    assert_eq!(cluster.raft(1).commit(), Index(3));
    cluster.restart(1, 0);
    cluster.isolate(1);
    cluster.run_until(3 * T, |cluster| cluster.leader().is_some_and(|leader| leader != 1));
    cluster.heal();
    cluster.run(2 * BEAT);
    assert_eq!(cluster.raft(1).commit(), Index(4));
    assert_eq!(cluster.node(1).log.entries[..3], cluster.node(2).log.entries[..3]);
}

#[test]
fn a_tail_that_nobody_else_has_gives_way_everywhere() {
    // museum 7: node 3 wins a term, and its no-op and a proposal reach nobody. Every replica converges afterwards.
    let mut cluster = Cluster::new(3, 5);
    cluster.elect(1);
    cluster.run(BEAT);
    cluster.act(1, |raft| raft.transfer(NodeId(3))).expect("it leads");
    while cluster.raft(3).role() != Role::Leader {
        cluster.deliver_one().expect("the transfer is under way");
    }
    cluster.isolate(3);
    cluster.propose(3, &["lost"]);
    assert_eq!(cluster.raft(3).last(), EntryId::new(3, 2));
    cluster.run_until(4 * T, |cluster| [1, 2].iter().any(|&id| cluster.raft(id).role() == Role::Leader));
    // The others write on, and the leader changes, so that the next one does not know where node 3's log departs.
    let leader = if cluster.raft(1).role() == Role::Leader { 1 } else { 2 };
    cluster.propose(leader, &["a", "b", "c"]);
    cluster.settle();
    cluster.act(leader, |raft| raft.transfer(NodeId(3 - leader))).expect("it leads");
    cluster.run(BEAT);
    assert_eq!((cluster.leader(), cluster.raft(3).last()), (Some(3 - leader), EntryId::new(3, 2)));
    cluster.heal();
    cluster.run(3 * BEAT);
    for node in cluster.nodes.values() {
        assert_eq!((node.raft.last(), node.raft.commit()), (EntryId::new(6, 4), Index(6)), "{}", node.raft);
    }
}

// rule 7
#[test]
fn all_shards_of_a_core_beat_together() {
    let mut solo = fresh();
    solo.pass(Duration::from_millis(33));
    solo.lead();
    solo.tick();
    assert!(solo.pass(Duration::from_millis(66)).is_empty());
    assert_eq!(solo.pass(Duration::from_millis(1)).len(), 2, "at a multiple of the heartbeat after the epoch");
    assert_eq!(solo.pass(Duration::from_millis(250)).len(), 2, "beats that were slept through are left out");
    assert_eq!(solo.pass(Duration::from_millis(50)).len(), 2);
}
