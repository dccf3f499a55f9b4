//! What must hold of a replica after every step, and between one step and the next.
//!
//! Tests and the simulator run these after each input. They look at one replica only; what must hold between replicas
//! (one leader a term, committed entries never differ) is for whoever sees them all.

use std::time::Instant;

use raftkv_protocol::client::Role;
use raftkv_protocol::types::{EntryId, HardState, Index, NodeId};

use super::Raft;
use super::progress::{Progress, State};

/// What a step is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    hard_state: HardState,
    durable: HardState,
    role: Role,
    last: EntryId,
    /// The id of the entry at the commit index.
    commit: EntryId,
    applied: Index,
    verified: Index,
    start: Index,
    snapshot: Index,
    snapshots_replaced: u64,
    damaged: bool,
    links: u64,
    /// The transfer of leadership that goes on, if it is known when it is given up.
    transfer: Option<(NodeId, Instant)>,
}

/// How many links there have been.
fn links(raft: &Raft) -> u64 {
    raft.progress.iter().map(|progress| u64::from(progress.link)).sum()
}

fn transfer(raft: &Raft) -> Option<(NodeId, Instant)> {
    raft.transfer.and_then(|transfer| Some((transfer.to, transfer.deadline()?)))
}

impl Observed {
    /// Takes note of a replica before a step.
    pub fn of(raft: &Raft) -> Observed {
        Observed {
            hard_state: raft.hard_state,
            durable: raft.persistence.durable(),
            role: raft.role,
            last: raft.terms.last(),
            commit: raft.terms.id_at(raft.commit).unwrap_or_default(),
            applied: raft.applied,
            verified: raft.verified.upto,
            start: raft.terms.start().index,
            snapshot: raft.snapshot.map_or(Index(0), |snapshot| snapshot.at.index),
            snapshots_replaced: raft.snapshots_replaced,
            damaged: raft.is_damaged(),
            links: links(raft),
            transfer: transfer(raft),
        }
    }
}

/// Checks what must hold at any time.
///
/// # Panics
///
/// If it does not, with the replica's state.
pub fn check(raft: &Raft) {
    let last = raft.terms.last();
    assert!(raft.commit <= last.index, "commit beyond the log: {raft}");
    assert!(raft.applied <= raft.commit, "applied beyond commit: {raft}");
    assert!(raft.persistence.persisted() <= last.index, "persisted beyond the log: {raft}");
    assert!(last.term <= raft.hard_state.term, "an entry of a later term: {raft}");
    assert!(raft.verified.upto <= last.index, "verified beyond the log: {raft}");
    assert!(raft.persistence.durable().term <= raft.hard_state.term, "a later term on disk: {raft}");
    check_snapshot(raft);
    check_unsent_answers(raft);
    check_writes(raft);
    check_outgoing_entries(raft);
    check_role(raft);
}

/// start <= snapshot <= applied, and both are durable unless the log is just being reset. (applied <= commit <= last.)
fn check_snapshot(raft: &Raft) {
    let (start, persisted) = (raft.terms.start(), raft.persistence.persisted());
    let covered = raft.snapshot.map_or(EntryId::ZERO, |snapshot| snapshot.at);
    assert!(start.index <= covered.index, "the log starts after what the snapshot covers: {raft}");
    assert!(covered.index <= raft.applied, "a snapshot of what is not applied: {raft}");
    assert!(raft.terms.matches(covered), "the snapshot covers another log: {raft}");
    let reset = raft.out.reset.map(|(at, _)| at);
    assert!(reset.is_none_or(|at| at == start && start == covered), "reset to {reset:?}: {raft}");
    let is_resetting = reset.is_some() || raft.persistence.pending().any(|(_, last)| last.index >= start.index);
    let is_durable = covered.index <= persisted || (persisted == Index(0) && is_resetting);
    assert!(is_durable, "what the snapshot covers is not durable in the log: {raft}");
}

/// What waits for the disk does not grow with what peers say meanwhile: they ask four kinds of questions.
fn check_unsent_answers(raft: &Raft) {
    assert!(raft.unsent_answers.len() <= 4 * raft.progress.len(), "too many answers wait for the disk: {raft}");
}

/// Writes on their way are ascending and claim only what is still in the log, or nothing.
fn check_writes(raft: &Raft) {
    let mut before = None;
    for (write, last) in raft.persistence.pending() {
        assert!(before < Some(write), "writes out of order: {raft}");
        let claims = last != EntryId::ZERO;
        assert!(!claims || raft.terms.matches(last), "{write:?} claims {last}, which is not in the log: {raft}");
        before = Some(write);
    }
}

/// New entries are consecutive and end where the log ends.
fn check_outgoing_entries(raft: &Raft) {
    let ids = raft.out.append.iter().map(|entry| entry.id);
    for (id, index) in ids.rev().zip((1..=raft.terms.last().index.0).rev()) {
        assert_eq!(id.index, Index(index), "a gap in the new entries: {raft}");
        assert!(raft.terms.matches(id), "the new entry {id} is not in the log: {raft}");
    }
}

fn check_role(raft: &Raft) {
    let id = raft.config.id;
    let has_reads = raft.reads.counts() != (0, 0) || raft.read_round_in_flight();
    match raft.role {
        Role::Leader => {
            assert_eq!(raft.leader, Some(id), "a leader that follows: {raft}");
            assert_eq!(raft.hard_state, HardState { term: raft.hard_state.term, vote: Some(id) }, "{raft}");
            assert_eq!(raft.persistence.durable(), raft.hard_state, "a leader whose own vote is not durable: {raft}");
            assert_eq!(raft.terms.last().term, raft.hard_state.term, "a leader without a no-op: {raft}");
            raft.progress.iter().for_each(|progress| check_progress(raft, progress));
        }
        Role::Candidate => {
            assert_eq!(raft.hard_state.vote, Some(id), "a candidate that votes for another: {raft}");
            assert_eq!(raft.leader, None, "a candidate with a leader: {raft}");
        }
        Role::PreCandidate => {
            assert_eq!(raft.leader, None, "a pre-candidate with a leader: {raft}");
            assert!(!raft.is_bound(), "stands for election in spite of a promise: {raft}");
        }
        Role::Follower => assert_ne!(raft.leader, Some(id), "a follower that follows itself: {raft}"),
        Role::Learner => panic!("learner is no state of its own: {raft}"),
    }
    if raft.role != Role::Leader {
        assert!(!has_reads && raft.transfer.is_none(), "only a leader has reads and transfers: {raft}");
    }
    assert!(!raft.is_damaged() || raft.role == Role::Follower, "a damaged replica does more than follow: {raft}");
    if raft.read_round_in_flight() {
        assert_eq!(raft.terms.term_at(raft.commit), Some(raft.hard_state.term), "a round before the no-op: {raft}");
    }
}

fn check_progress(raft: &Raft, progress: &Progress) {
    let Progress { matched, next, state, inflight, .. } = progress;
    assert!(*matched < *next && *next <= raft.terms.last().index.next(), "matched < next <= last + 1: {raft}");
    assert!(inflight.len() <= raft.config.inflight_messages_max.max(1), "too many appends on their way: {raft}");
    let fits = inflight.bytes() <= raft.config.inflight_bytes_max || inflight.len() == 1;
    assert!(fits, "too many bytes on their way: {raft}");
    assert!(*state == State::Replicate || inflight.len() == 0, "only Replicate pipelines: {raft}");
    let lacks = *matched < raft.terms.start().index;
    assert!(!matches!(state, State::Snapshot { .. }) || lacks, "a snapshot for one who has what it covers: {raft}");
}

/// Checks what one step may do to a replica, or several in a row.
///
/// # Panics
///
/// If it did something else, with the replica's state after it.
pub fn check_step(before: &Observed, after: &Raft) {
    let (old, new) = (before.hard_state, after.hard_state);
    assert!(new.term >= old.term, "the term fell from {}: {after}", old.term);
    if new.term == old.term {
        assert!(old.vote.is_none() || new.vote == old.vote, "the vote changed from {:?}: {after}", old.vote);
        assert!(after.verified.upto >= before.verified, "verified fell in a term: {after}");
        let regained = before.role != Role::Leader && before.role != Role::Candidate && after.role == Role::Leader;
        assert!(!regained, "led the term without standing for it: {after}");
        if before.role == Role::Leader {
            assert!(after.terms.matches(before.last), "a leader overwrote {}: {after}", before.last);
            let goes_on = before.transfer.is_some() && before.transfer == transfer(after);
            assert!(!goes_on || after.terms.last() == before.last, "took something in while it handed over: {after}");
        }
    }
    assert!(after.persistence.durable().term >= before.durable.term, "the durable term fell: {after}");
    assert!(after.commit >= before.commit.index, "the commit index fell from {}: {after}", before.commit);
    let is_compacted = before.commit.index < after.terms.start().index;
    assert!(is_compacted || after.terms.matches(before.commit), "the committed {} changed: {after}", before.commit);
    assert!(after.applied >= before.applied, "applied fell from {}: {after}", before.applied);
    let (start, snapshot) = (after.terms.start().index, after.snapshot.map_or(Index(0), |snapshot| snapshot.at.index));
    assert!(start >= before.start, "the start of the log fell from {}: {after}", before.start);
    let is_replaced = after.snapshots_replaced > before.snapshots_replaced;
    assert!(snapshot >= before.snapshot || is_replaced, "the snapshot fell from {}: {after}", before.snapshot);
    check_damage(before, after);
    let is_reset = start > before.applied;
    let leads_on = before.role == Role::Leader && new.term == old.term;
    assert!(!is_reset || !leads_on, "a leader gave its log up: {after}");
    if after.role == Role::Leader && before.role == Role::Leader && after.commit > before.commit.index {
        let quorum = after.configuration.has_quorum(|node| after.reached(node) >= after.commit);
        // What was acknowledged on a link that is no more has counted, and is forgotten.
        assert!(quorum || links(after) != before.links, "committed without a majority: {after}");
        assert_eq!(after.terms.term_at(after.commit), Some(new.term), "committed an older term by counting: {after}");
    }
}

/// A damaged replica gives its vote to nobody but itself, and who is healed stays so.
fn check_damage(before: &Observed, after: &Raft) {
    assert!(before.damaged || !after.is_damaged(), "damaged while it runs: {after}");
    let (old, new) = (before.hard_state, after.hard_state);
    let is_kept = new.term == old.term && new.vote == old.vote;
    let is_own = new.vote.is_none_or(|node| node == after.config.id);
    assert!(!before.damaged || is_kept || is_own, "a damaged replica has voted: {after}");
}
