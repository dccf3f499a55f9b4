//! Sees all replicas at once and judges after every turn: what no single replica can know of itself.
//!
//! - One leader a term. A new leader has every committed entry.
//! - What is committed never changes, and was on the disks of a majority when it first counted as committed.
//! - Replicas that have applied the same index have the same state.
//! - Of one process, term, commit and applied never fall. Raft's own invariants hold.

use std::collections::{BTreeMap, BTreeSet};

use raftkv::raft::invariants::{self, Observed};
use raftkv::server::message::ReplyTo;
use raftkv::shard::Shard;
use raftkv::storage::CoreLog;
use raftkv_protocol::client::Role;
use raftkv_protocol::types::{Index, Term};
use xxhash_rust::xxh3::xxh3_64;

use crate::coverage::Coverage;

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

/// A replica as it was last seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    role: Option<Role>,
    term: Term,
    commit: Index,
    applied: Index,
    last: Index,
    writes_overtaken: u64,
    /// A read round of its was under way.
    reading: bool,
    /// What its next state is compared with.
    observed: Option<Observed>,
    /// More may be on its disk than is known.
    unseen: bool,
    /// Term of each entry that counts as on its disk, by index: entry i at i - 1.
    persisted: Vec<Term>,
}

#[derive(Debug, Default)]
struct Known {
    /// Who led which term.
    leaders: BTreeMap<Term, usize>,
    /// What is committed: entry i at i - 1, its term and a hash of its body if it was seen.
    committed: Vec<(Term, Option<u64>)>,
    /// The state after each index at which somebody was seen.
    states: BTreeMap<Index, u128>,
    last_leader: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    shards: Vec<Known>,
    /// By shard and node.
    seen: Vec<Vec<Seen>>,
    nodes: usize,
    /// Nodes whose disk was damaged from outside: what they had no longer counts.
    discounted: BTreeSet<usize>,
}

impl Oracle {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(nodes: usize, shards: u16) -> Oracle {
        let shards = usize::from(shards);
        Oracle {
            shards: (0..shards).map(|_| Known::default()).collect(),
            seen: vec![vec![Seen::default(); nodes]; shards],
            nodes,
            discounted: BTreeSet::new(),
        }
    }

    /// A process has ended: what it remembers of itself starts anew, what it has on disk stays.
    pub fn ended(&mut self, node: usize) {
        for shard in &mut self.seen {
            let seen = &mut shard[node];
            let persisted = std::mem::take(&mut seen.persisted);
            *seen = Seen { persisted, unseen: seen.unseen, ..Seen::default() };
        }
    }

    /// A core stops in order. Its last turn is not looked at: what it made durable then is seen when it is back.
    pub fn stopping(&mut self, node: usize) {
        for shard in &mut self.seen {
            shard[node].unseen = true;
        }
    }

    /// A node's disk was damaged or lost.
    pub fn discount(&mut self, node: usize) {
        self.discounted.insert(node);
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
        let before = &self.seen[at][node];
        let (role, term, commit) = (raft.role(), raft.term(), raft.commit());
        let status = shard.status();
        let persisted = raft.persisted_index();
        let unchanged = before.reading == raft.read_round_in_flight()
            && before.role == Some(role)
            && (before.term, before.commit, before.applied) == (term, commit, status.applied)
            && before.persisted.len() as u64 == persisted.0
            && (persisted.0 == 0 || before.persisted.last().copied() == raft.term_at(persisted));
        if unchanged {
            return Ok(());
        }
        invariants::check(raft);
        if let Some(observed) = &before.observed {
            invariants::check_step(observed, raft);
        }
        let (was_term, was_commit, was_applied, was_role) = (before.term, before.commit, before.applied, before.role);
        let name = || format!("node {} shard {}", node + 1, shard.id());
        if term < was_term || commit < was_commit || status.applied < was_applied {
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
        if role == Role::Leader && (was_role != Some(Role::Leader) || term != was_term) {
            self.new_leader(at, node, shard, coverage)?;
        }
        if commit > was_commit {
            self.new_commit(at, node, shard, log, Index(was_commit.0 + 1), commit)?;
        }
        if status.applied > was_applied {
            self.new_state(at, node, shard)?;
        }
        let seen = &mut self.seen[at][node];
        (seen.role, seen.term, seen.commit, seen.applied) = (Some(role), term, commit, status.applied);
        (seen.writes_overtaken, seen.reading) = (raft.writes_overtaken(), raft.read_round_in_flight());
        (seen.last, seen.unseen, seen.observed) = (raft.last().index, false, Some(Observed::of(raft)));
        Ok(())
    }

    /// Keeps the list of what is on a node's disk in step: everything up to the persisted index, with its terms.
    /// Whether something of it is no longer in the log.
    fn note_persisted(&mut self, at: usize, node: usize, shard: &Shard<ReplyTo>) -> bool {
        let raft = shard.raft();
        let persisted = raft.persisted_index().0 as usize;
        let list = &mut self.seen[at][node].persisted;
        let before = list.len();
        list.truncate(persisted);
        let term_at = |index: usize| raft.term_at(Index(index as u64)).unwrap_or_default();
        while let Some(last) = list.last()
            && *last != term_at(list.len())
        {
            list.pop();
        }
        let truncated = list.len() < before;
        while list.len() < persisted {
            list.push(term_at(list.len() + 1));
        }
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
            if self.seen[at][last].last.0 > known.committed.len() as u64 {
                coverage.note("leader changed with appends in flight");
            }
        }
        known.last_leader = Some(node);
        let committed = known.committed.len() as u64;
        let last = known.committed.last().map(|(term, _)| *term);
        if raft.last().index.0 < committed || (committed > 0 && raft.term_at(Index(committed)) != last) {
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
        log: &impl CoreLog,
        first: Index,
        last: Index,
    ) -> Result<(), Violation> {
        let raft = shard.raft();
        let mut bodies: BTreeMap<u64, u64> = BTreeMap::new();
        if let Some(tail) = log.tail(shard.id(), first, last) {
            bodies.extend(tail.map(|entry| (entry.id.index.0, xxh3_64(&entry.body) ^ entry.kind as u64)));
        }
        for index in first.0..=last.0 {
            let term = raft.term_at(Index(index)).unwrap_or_default();
            let body = bodies.get(&index).copied();
            let known = &mut self.shards[at].committed;
            match known.get_mut(index as usize - 1) {
                Some((known_term, known_body)) => {
                    let same_body = body.is_none() || known_body.is_none() || *known_body == body;
                    if *known_term != term || !same_body {
                        let what = format!(
                            "shard {}: entry {index} is committed as {index}@{known_term}, on node {} as {index}@{term}{}",
                            shard.id(),
                            node + 1,
                            if same_body { "" } else { " with another body" }
                        );
                        return Err(Violation::of("committed entries never change", what));
                    }
                    *known_body = known_body.or(body);
                }
                None => {
                    known.push((term, body));
                    self.check_majority(at, node, shard, index, term)?;
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
        let has = |node: &usize| {
            let seen = &self.seen[at][*node];
            seen.unseen || seen.persisted.get(index as usize - 1) == Some(&term)
        };
        let holders: Vec<usize> = (0..self.nodes).filter(has).map(|node| node + 1).collect();
        if holders.len() * 2 > self.nodes || !self.discounted.is_empty() {
            return Ok(());
        }
        let what = format!(
            "shard {}: node {} takes {index}@{term} for committed, but only nodes {holders:?} of {} have it on disk",
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
