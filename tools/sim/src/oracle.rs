//! Sees all replicas at once and judges after every turn: what no single replica can know of itself.
//!
//! - One leader a term. A new leader has every committed entry, unless a later term has had one already.
//! - What is committed never changes, and was on the disks of a majority when it first counted as committed, or had been
//!   there before a disk was damaged.
//! - Replicas that have applied the same index have the same state.
//! - Of one process, term, commit and applied never fall, but for applied when a wrong state is built anew. Raft's own
//!   invariants hold.
//! - What a salvaged log has lost of what was committed is back when its replica counts as healed.
//! - A snapshot is of a state that was committed. What a log begins behind is covered by one, and counts as being on disk.

mod batches;
mod seen;
mod snapshots;
mod writes;

#[cfg(test)]
mod seen_test;
#[cfg(test)]
mod writes_test;

use std::collections::{BTreeMap, BTreeSet};

use raftkv::raft::Raft;
use raftkv::raft::invariants;
use raftkv::server::message::ReplyTo;
use raftkv::shard::Shard;
use raftkv::storage::CoreLog;
use raftkv_history::Removal;
use raftkv_protocol::client::Role;
use raftkv_protocol::types::{EntryId, Index, ShardId, Slot, SnapshotId, Term};

use crate::coverage::Coverage;
use crate::leases::LeasePromises;
use crate::machine::node_id;
use crate::promises::Promises;
use crate::written::Written;

use self::seen::{Seen, persisted_index};
use self::snapshots::OnDisk;
pub use self::snapshots::Trust;

/// What must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// One.
    pub fn of(invariant: &'static str, what: impl Into<String>) -> Violation {
        Violation { invariant, what: what.into() }
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Who led which term.
    leaders: BTreeMap<Term, usize>,
    /// What is committed: the term of entry i at i - 1.
    committed: Vec<Term>,
    /// What entries hold.
    written: Written,
    /// Committed ones that nobody was seen with in memory.
    unread: u64,
    /// The state after each index at which somebody was seen.
    states: BTreeMap<Index, u128>,
    last_leader: Option<usize>,
    /// Who has taken which snapshot.
    takers: BTreeMap<SnapshotId, usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    shards: Vec<Known>,
    /// By shard and node.
    seen: Vec<Vec<Seen>>,
    /// By shard and node.
    on_disk: Vec<Vec<OnDisk>>,
    nodes: usize,
    /// Where a put is committed, by the number that its value begins with.
    puts: BTreeMap<u64, (ShardId, u64)>,
    /// Which put an entry is; none if it is another kind of entry.
    entries: BTreeMap<(ShardId, u64), Option<u64>>,
    /// What is committed of removals, by key.
    removals: BTreeMap<Vec<u8>, Vec<Removal>>,
    /// Whether batches have taken effect, as states show it.
    batches: BTreeMap<(ShardId, u64), bool>,
    /// What nodes told each other.
    pub(crate) promises: Promises,
    pub(crate) leases: LeasePromises,
    /// Nodes whose disk was damaged from outside, and that are not healed: what they had no longer counts.
    discounted: BTreeSet<usize>,
    /// Those that lost it as a whole.
    lost: BTreeSet<usize>,
}

impl Oracle {
    /// Knows nothing yet. Clocks drift up to so many millionths.
    #[must_use]
    pub fn new(nodes: usize, shards: u16, drift_ppm_max: u64) -> Oracle {
        let shards = usize::from(shards);
        Oracle {
            shards: (0..shards).map(|_| Known::default()).collect(),
            seen: vec![vec![Seen::default(); nodes]; shards],
            on_disk: vec![vec![OnDisk::default(); nodes]; shards],
            nodes,
            puts: BTreeMap::new(),
            entries: BTreeMap::new(),
            removals: BTreeMap::new(),
            batches: BTreeMap::new(),
            promises: Promises::new(nodes),
            leases: LeasePromises::new(drift_ppm_max),
            discounted: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards.len() as u16
    }

    /// The latest term of a shard that somebody has led.
    #[must_use]
    pub fn latest_led(&self, shard: ShardId) -> Term {
        self.shards[usize::from(shard.0)].leaders.last_key_value().map_or(Term(0), |(term, _)| *term)
    }

    /// Whose a key is.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        Slot::of(key).shard(self.shards())
    }

    /// A process has ended: what it remembers of itself starts anew, what it has on disk stays.
    pub fn ended(&mut self, node: usize) {
        self.seen.iter_mut().for_each(|shard| shard[node].ends());
        self.promises.ended(node);
    }

    /// A core stops in order, and its log is closed: what that makes durable is seen when it is back.
    pub fn stopping(&mut self, node: usize) {
        for shard in &mut self.seen {
            shard[node].unseen = true;
        }
    }

    /// A node's disk was damaged.
    pub fn discount(&mut self, node: usize) {
        self.discounted.insert(node);
    }

    /// A node's disk is lost, with all that the node knew.
    pub fn lost(&mut self, node: usize) {
        self.lost.insert(node);
        self.promises.lost(node);
        for seen in self.seen.iter_mut().map(|shard| &mut shard[node]) {
            seen.loses();
        }
        self.on_disk.iter_mut().for_each(|shard| shard[node] = OnDisk::default());
    }

    /// A node is healed, or its damage was none.
    pub fn count_again(&mut self, node: usize) {
        self.discounted.remove(&node);
        self.seen.iter_mut().for_each(|shard| shard[node].regains());
    }

    /// A process has just started, before its first turn. `is_less`: its log holds what was salvaged of it since the last
    /// one, and may have held more. Whatever of that is committed it will have back when it is healed.
    ///
    /// # Errors
    /// If the replica counts as healed and is not.
    pub fn started(
        &mut self,
        node: usize,
        shard: &Shard<ReplyTo>,
        is_less: bool,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let at = usize::from(shard.id().0);
        self.check_beginning(node, shard)?;
        if is_less {
            let committed = self.shards[at].committed.iter();
            let seen = &mut self.seen[at][node];
            let had = seen.loses();
            let common = had.iter().zip(committed).take_while(|(had, term)| had == term).count();
            let owes =
                EntryId { term: common.checked_sub(1).map_or(Term(0), |at| had[at]), index: Index(common as u64) };
            if owes.index > seen.owes.index {
                seen.owes = owes;
            }
            self.promises.forgot(node, shard.id(), shard.raft());
        }
        if shard.raft().is_damaged() {
            self.promises.repair_begins(node, shard.id());
            return Ok(());
        }
        self.note_repair(node, shard, coverage)
    }

    /// A core of a node has had its last turn. What it has said in it is not heard yet.
    pub fn last_turn(&mut self, node: usize) {
        for (shard, known) in (0..).map(ShardId).zip(&self.shards) {
            self.promises.last_turn(node, shard, Index(known.committed.len() as u64));
        }
    }

    /// Looks whether a replica has come to count as healed.
    ///
    /// # Errors
    /// If it has no right to.
    pub fn note_repair(
        &mut self,
        node: usize,
        shard: &Shard<ReplyTo>,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let raft = shard.raft();
        if !self.promises.note_repair(node, shard.id(), raft)? {
            return Ok(());
        }
        coverage.note("damage repaired from peers");
        let at = usize::from(shard.id().0);
        // It may have voted in the very turn in which it was healed.
        self.seen[at][node].observed = None;
        let owes = std::mem::take(&mut self.seen[at][node].owes);
        let has_it = persisted_index(raft) >= owes.index && self.term_of(at, raft, owes.index.0) == Some(owes.term);
        if owes == EntryId::ZERO || has_it {
            return Ok(());
        }
        let what = format!("shard {}: {owes} was committed, on disk, and lost; now {}", shard.id(), raft.state_line());
        Err(Violation::of("a healed node has everything back that was committed", what))
    }

    /// How many entries are committed, over all shards.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.shards.iter().map(|known| known.committed.len() as u64).sum()
    }

    /// Looks at a replica after its turn.
    pub fn observe(
        &mut self,
        node: usize,
        shard: &Shard<ReplyTo>,
        log: &impl CoreLog,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let raft = shard.raft();
        let at = usize::from(shard.id().0);
        if raft.role() == Role::Leader {
            self.promises.check_rounds(node, shard.id(), raft)?;
        }
        let before = &self.seen[at][node];
        let (role, term, commit) = (raft.role(), raft.term(), raft.commit());
        let status = shard.status();
        if before.is_still(raft, status.applied) {
            return Ok(());
        }
        invariants::check(raft);
        if let Some(observed) = &before.observed {
            invariants::check_step(observed, raft);
        }
        let (was_term, was_commit, was_applied, was_role) = (before.term, before.commit, before.applied, before.role);
        self.shards[at].written.look(shard.id(), raft, log, before.last)?;
        self.check_snapshot(at, node, raft, coverage)?;
        self.check_start(at, node, shard)?;
        let own = (before.last.term, before.last.index).min((raft.last().term, raft.last().index));
        if was_role.is_some() && (before.term, before.vote) != (term, raft.vote()) {
            self.promises.check_vote(node, shard.id(), raft, EntryId { term: own.0, index: own.1 })?;
        }
        let name = || format!("node {} shard {}", node + 1, shard.id());
        // A wrong state was built anew.
        let is_anew = shard.rebuilds() > before.rebuilds;
        if term < was_term || commit < was_commit || (status.applied < was_applied && !is_anew) {
            let what = format!(
                "{}: term {was_term} commit {was_commit} applied {was_applied}, then {term} {commit} {}",
                name(),
                status.applied
            );
            return Err(Violation::of("term, commit and applied never fall", what));
        }
        if self.note_persisted(at, node, shard) && was_role.is_some() {
            coverage.note("persisted suffix truncated");
        }
        let before = &self.seen[at][node];
        coverage.add("truncation overtook a write", raft.writes_overtaken() - before.writes_overtaken);
        if before.reading && role != Role::Leader {
            coverage.note("leader deposed in the middle of a read round");
        }
        if role == Role::Leader {
            if was_role != Some(Role::Leader) || term != was_term {
                self.promises.check_leader(node, shard.id(), raft)?;
                self.new_leader(at, node, shard, coverage)?;
            }
            self.check_matched(at, node, shard)?;
        }
        if commit > was_commit {
            self.new_commit(at, node, shard, Index(was_commit.0 + 1), commit)?;
        }
        if status.applied > was_applied {
            self.new_state(at, node, shard)?;
            self.check_batches(at, node, shard, was_applied)?;
        }
        self.seen[at][node].remember(raft, status.applied);
        self.seen[at][node].rebuilds = shard.rebuilds();
        Ok(())
    }

    /// The term of an entry of a replica: of one in its log, or of one that its snapshot covers.
    fn term_of(&self, at: usize, raft: &Raft, index: u64) -> Option<Term> {
        if index < raft.start().index.0 {
            return self.shards[at].committed.get((index as usize).checked_sub(1)?).copied();
        }
        raft.term_at(Index(index))
    }

    /// A replica that has just started knows what it has said, and has what counted as on its disk.
    fn check_start(&self, at: usize, node: usize, shard: &Shard<ReplyTo>) -> Result<(), Violation> {
        let (seen, raft) = (&self.seen[at][node], shard.raft());
        if seen.role.is_some() || self.lost.contains(&node) {
            return Ok(());
        }
        self.promises.check_start(node, shard.id(), raft)?;
        let committed = &self.shards[at].committed;
        let differs = |(position, term): (usize, &Term)| {
            // What was not committed may have been replaced in the very first turn.
            let is_committed = committed.get(position).is_some_and(|of| of == term);
            let now = self.term_of(at, raft, position as u64 + 1);
            now != Some(*term) && (is_committed || now.is_none())
        };
        match seen.persisted.iter().enumerate().position(differs) {
            Some(position) if !seen.unseen => {
                let (index, term) = (position + 1, seen.persisted[position]);
                let what = format!("shard {}: {index}@{term} was on disk, now {}", shard.id(), raft.state_line());
                Err(Violation::of("what counted as durable is there after a restart", what))
            }
            _ => Ok(()),
        }
    }

    /// What a leader takes for matched is on the follower's disk.
    fn check_matched(&self, at: usize, node: usize, shard: &Shard<ReplyTo>) -> Result<(), Violation> {
        let raft = shard.raft();
        for other in (0..self.nodes).filter(|other| *other != node && !self.discounted.contains(other)) {
            let seen = &self.seen[at][other];
            let matched = raft.matched(node_id(other)).unwrap_or_default();
            if matched == Index(0) || seen.unseen || seen.term > raft.term() {
                continue;
            }
            let has = seen.persisted.get(matched.0 as usize - 1).copied();
            if has.is_none() || has != self.term_of(at, raft, matched.0) {
                let what = format!(
                    "shard {}: node {} has {} entries on disk, the one at {matched} of term {has:?}; the leader: {}",
                    shard.id(),
                    other + 1,
                    seen.persisted.len(),
                    raft.state_line()
                );
                return Err(Violation::of("what a leader takes for matched is on the follower's disk", what));
            }
        }
        Ok(())
    }

    /// What every node of a shard has applied at some time; nothing if some disk was lost.
    #[must_use]
    pub fn applied_by_all(&self, shard: ShardId) -> u64 {
        let applied = self.seen[usize::from(shard.0)].iter().map(|seen| seen.applied_ever.0);
        if self.lost.is_empty() { applied.min().unwrap_or(0) } else { 0 }
    }

    /// Keeps the list of what is on a node's disk in step: everything up to the persisted index, with its terms.
    /// Whether something of it is no longer in the log.
    fn note_persisted(&mut self, at: usize, node: usize, shard: &Shard<ReplyTo>) -> bool {
        let raft = shard.raft();
        let persisted = persisted_index(raft).0 as usize;
        let mut list = std::mem::take(&mut self.seen[at][node].persisted);
        let before = list.len();
        list.truncate(persisted);
        let term_at = |index: usize| self.term_of(at, raft, index as u64).unwrap_or_default();
        while let Some(last) = list.last()
            && *last != term_at(list.len())
        {
            list.pop();
        }
        let truncated = list.len() < before;
        while list.len() < persisted {
            list.push(term_at(list.len() + 1));
        }
        self.seen[at][node].persisted = list;
        truncated
    }

    fn new_leader(
        &mut self,
        at: usize,
        node: usize,
        shard: &Shard<ReplyTo>,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let raft = shard.raft();
        let known = &mut self.shards[at];
        if let Some(other) = known.leaders.insert(raft.term(), node)
            && other != node
        {
            let what =
                format!("shard {}: nodes {} and {} both lead term {}", shard.id(), other + 1, node + 1, raft.term());
            return Err(Violation::of("one leader a term", what));
        }
        coverage.note("leader elected");
        if let Some(last) = known.last_leader.filter(|last| *last != node) {
            coverage.note("leader changed");
            if self.seen[at][last].last.index.0 > known.committed.len() as u64 {
                coverage.note("leader changed with appends in flight");
            }
        }
        known.last_leader = Some(node);
        // Whoever stood still with a majority's votes in its buffers leads a term that is over, and commits nothing.
        if known.leaders.keys().any(|term| *term > raft.term()) {
            coverage.note("leader of a term that was over");
            return Ok(());
        }
        let committed = known.committed.len() as u64;
        let last = known.committed.last().copied();
        let has = if committed > 0 { self.term_of(at, raft, committed) } else { None };
        if raft.last().index.0 < committed || has != last {
            let what = format!(
                "shard {}: node {} leads term {} with a log up to {}, but entry {committed}@{} is committed",
                shard.id(),
                node + 1,
                raft.term(),
                raft.last(),
                last.unwrap_or_default()
            );
            return Err(Violation::of("a leader has every committed entry", what));
        }
        Ok(())
    }

    fn new_commit(
        &mut self,
        at: usize,
        node: usize,
        shard: &Shard<ReplyTo>,
        first: Index,
        last: Index,
    ) -> Result<(), Violation> {
        let raft = shard.raft();
        // What a snapshot covers was looked at as a whole.
        for index in first.0.max(raft.start().index.0 + 1)..=last.0 {
            let term = raft.term_at(Index(index)).unwrap_or_default();
            match self.shards[at].committed.get(index as usize - 1) {
                Some(known) if *known == term => {}
                Some(known) => {
                    let what = format!(
                        "shard {}: entry {index} is committed as {index}@{known}, on node {} as {index}@{term}",
                        shard.id(),
                        node + 1
                    );
                    return Err(Violation::of("committed entries never change", what));
                }
                None => {
                    self.shards[at].committed.push(term);
                    self.check_majority(at, node, shard, index, term)?;
                    self.note_committed(shard.id(), EntryId { index: Index(index), term })?;
                }
            }
        }
        Ok(())
    }

    fn check_majority(
        &self,
        at: usize,
        node: usize,
        shard: &Shard<ReplyTo>,
        index: u64,
        term: Term,
    ) -> Result<(), Violation> {
        let has_had = |node: &usize| self.seen[at][*node].has_had(index, term);
        let holders: Vec<usize> = (0..self.nodes).filter(has_had).map(|node| node + 1).collect();
        if holders.len() * 2 > self.nodes {
            return Ok(());
        }
        let what = format!(
            "shard {}: node {} takes {index}@{term} for committed, but only nodes {holders:?} of {} have it on disk, or had",
            shard.id(),
            node + 1,
            self.nodes
        );
        Err(Violation::of("committed means durable on a majority", what))
    }

    fn new_state(&mut self, at: usize, node: usize, shard: &Shard<ReplyTo>) -> Result<(), Violation> {
        let status = shard.status();
        let states = &mut self.shards[at].states;
        let known = *states.entry(status.applied).or_insert(status.state_hash);
        if known != status.state_hash {
            let what = format!(
                "shard {}: after entry {} node {} has state {:032x}, another had {known:032x}",
                shard.id(),
                status.applied,
                node + 1,
                status.state_hash
            );
            return Err(Violation::of("equal state at equal applied index", what));
        }
        Ok(())
    }
}
