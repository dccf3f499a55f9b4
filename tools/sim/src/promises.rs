//! What nodes have told each other, taken down as it left them: a word that was given binds, also after a crash, and
//! also if the disk has lost it. One word frees those to whom it was given: who stood for election and does not know it any
//! more will not be elected, and whoever has voted for it is free.
//!
//! - A node votes once a term, and only for a log at least as good as its own.
//! - Whoever leads a term was voted for by a majority.
//! - What a node has told others (its term, its vote) it still knows after a restart.
//! - A read round is confirmed by a majority that answered this very round.
//! - A node that has lost its disk has no say.
//! - A node that has lost part of its log keeps its word as well, as soon as it is healed. Before that it votes for nobody,
//!   and until all others have told it their terms it helps nobody to commit or to read.
//! - A request that is sent on has a name of its own, and is answered once, by the one to whom it was sent.
//! - An answer goes to the connection on which it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use raftkv::raft::Raft;
use raftkv_protocol::peer::{AppendResult, Body, ForwardId, Message};
use raftkv_protocol::types::{CoreId, EntryId, Index, NodeId, ShardId, Term};

use crate::agenda::HostId;
use crate::machine::node_id;
use crate::network::Told;
use crate::oracle::Violation;

/// What one replica has given its word for.
#[derive(Clone, Debug, Default)]
struct Given {
    /// The latest term in which it has acknowledged entries.
    acknowledged: Term,
    /// Whom it has voted for.
    votes: BTreeMap<Term, NodeId>,
    /// The latest term that it has told since its disk last lost something.
    term: Term,
    /// In this term and those before it votes for itself instead of those that it has forgotten.
    healed: Term,
    /// Read rounds of the term that it leads: those below this number are confirmed.
    rounds: (Term, u64),
}

impl Given {
    /// It has told this term.
    fn tells(&mut self, term: Term) {
        self.term = self.term.max(term);
    }

    /// The latest term in which it has promised anything to somebody who can still make use of it.
    fn latest(&self) -> Term {
        let voted = self.votes.last_key_value().map(|(term, _)| *term);
        self.acknowledged.max(voted.unwrap_or_default())
    }

    /// Whether the vote that a replica knows in its term is the one that it has cast there.
    fn knows_vote(&self, raft: &Raft, own: NodeId) -> bool {
        let Some(candidate) = self.votes.get(&raft.term()) else { return true };
        raft.vote() == Some(*candidate) || (raft.term() <= self.healed && raft.vote() == Some(own))
    }
}

/// A replica that is not healed.
#[derive(Clone, Debug, Default)]
struct Repair {
    /// Who has told it a term since its process started.
    told: BTreeSet<NodeId>,
    commit: Index,
}

/// See the module.
#[derive(Debug)]
pub struct Promises {
    nodes: usize,
    given: BTreeMap<(ShardId, NodeId), Given>,
    /// How the log of a candidate ended.
    asked: BTreeMap<(ShardId, Term, NodeId), EntryId>,
    /// Who voted for a candidate.
    votes: BTreeMap<(ShardId, Term, NodeId), BTreeSet<NodeId>>,
    /// Who answered a leader's read round.
    rounds: BTreeMap<(ShardId, NodeId, Term, u64), BTreeSet<NodeId>>,
    /// Nodes that lost their disk: they know nothing of what they promised.
    lost: BTreeSet<NodeId>,
    /// Those that are not healed.
    repairs: BTreeMap<(ShardId, NodeId), Repair>,
    /// Requests that were sent on, by who waits at which core and under which number: whose answer is awaited.
    forwards: BTreeMap<(HostId, CoreId, u64), Option<HostId>>,
}

impl Promises {
    /// Nobody has said anything.
    #[must_use]
    pub fn new(nodes: usize) -> Promises {
        Promises {
            nodes,
            given: BTreeMap::new(),
            asked: BTreeMap::new(),
            votes: BTreeMap::new(),
            rounds: BTreeMap::new(),
            lost: BTreeSet::new(),
            repairs: BTreeMap::new(),
            forwards: BTreeMap::new(),
        }
    }

    /// A machine got empty disks.
    pub fn lost(&mut self, node: usize) {
        self.lost.insert(node_id(node));
    }

    /// A replica has just started with less than its disk once held. Its promises bind, but whoever has voted for it when it
    /// stood in a term that it has forgotten is free.
    pub fn forgot(&mut self, node: usize, shard: ShardId, raft: &Raft) {
        let (own, known) = (node_id(node), raft.term());
        let is_void = |term: Term, candidate: NodeId| candidate == own && term > known;
        for ((of, _), given) in &mut self.given {
            if *of == shard {
                given.votes.retain(|term, candidate| !is_void(*term, *candidate));
            }
        }
        self.votes.retain(|(of, term, candidate), _| *of != shard || !is_void(*term, *candidate));
        self.asked.retain(|(of, term, candidate), _| *of != shard || !is_void(*term, *candidate));
        self.given.entry((shard, own)).or_default().term = Term(0);
    }

    /// A replica has just started and is not healed.
    pub fn repair_begins(&mut self, node: usize, shard: ShardId) {
        self.repairs.insert((shard, node_id(node)), Repair::default());
    }

    /// A replica after its turn, before what it has said is heard. Whether it has come to count as healed.
    pub fn note_repair(&mut self, node: usize, shard: ShardId, raft: &Raft) -> Result<bool, Violation> {
        let own = node_id(node);
        let Some(repair) = self.repairs.get_mut(&(shard, own)) else { return Ok(false) };
        repair.commit = raft.commit();
        if raft.is_damaged() {
            return Ok(false);
        }
        let told = repair.told.len();
        self.repairs.remove(&(shard, own));
        let given = self.given.entry((shard, own)).or_default();
        if told + 1 < self.nodes || raft.term() < given.latest() {
            let what = format!("shard {shard}: {told} others have told their terms; {given:?}; {}", raft.state_line());
            return Err(Violation::of("a healed node knows all terms in which it has promised anything", what));
        }
        given.healed = raft.term();
        Ok(true)
    }

    /// A replica has had the last turn of its process, and cannot be asked any more how far it knew entries to be committed.
    pub fn last_turn(&mut self, node: usize, shard: ShardId, committed: Index) {
        if let Some(repair) = self.repairs.get_mut(&(shard, node_id(node))) {
            repair.commit = repair.commit.max(committed);
        }
    }

    /// A process ended: a read round that it began it will not finish.
    pub fn ended(&mut self, node: usize) {
        for (_, given) in self.given.iter_mut().filter(|((_, of), _)| *of == node_id(node)) {
            given.rounds = (Term(0), 0);
        }
    }

    /// Something has left a node. Whether it was a vote.
    pub fn told(&mut self, told: &Told) -> Result<bool, Violation> {
        match *told {
            Told::Raft(ref message) => return self.promised(message),
            Told::Forward { from, to, id: ForwardId { core, serial } } => {
                if self.forwards.insert((from, core, serial), Some(to)).is_some() {
                    let what = format!("node {} has sent on two requests as {serial} of core {core}", from.0 + 1);
                    return Err(Violation::of("each request that is sent on has a name of its own", what));
                }
            }
            Told::ForwardReply { from, to, id: ForwardId { core, serial } } => {
                let asked = self.forwards.get_mut(&(to, core, serial)).and_then(Option::take);
                if asked != Some(from) {
                    let what = format!("node {} answers {serial} of core {core}, sent to {asked:?}", from.0 + 1);
                    return Err(Violation::of("a node answers what it was asked, once", what));
                }
            }
            Told::Unasked { from, id, asked, answer } => {
                let what = format!("node {}: kind {answer:#x} for request {id:?}, asked was {asked:?}", from.0 + 1);
                return Err(Violation::of("an answer goes to the connection that has asked", what));
            }
            Told::Nonsense { from } => {
                let what = format!("host {} says what is no frame", from.0 + 1);
                return Err(Violation::of("what is said can be understood", what));
            }
        }
        Ok(false)
    }

    fn promised(&mut self, message: &Message) -> Result<bool, Violation> {
        let Message { shard, from, to, term, .. } = *message;
        match &message.body {
            Body::Vote { last, .. } => {
                self.asked.entry((shard, term, from)).or_insert(*last);
                self.voted(shard, from, term, from)
            }
            Body::VoteReply { granted: true } => self.voted(shard, from, term, to),
            Body::PreVoteReply { granted } => {
                let is_repaired = self.repairs.contains_key(&(shard, to));
                if let Some(repair) = self.repairs.get_mut(&(shard, to)) {
                    repair.told.insert(from);
                }
                // Who repairs itself asks everybody for their terms with a pre-vote of term 1. Who has entered none grants it,
                // and it stands for nothing.
                if *granted && !(is_repaired && term == Term(1)) {
                    self.check_may_vote(shard, from, "would vote").map(|()| false)
                } else {
                    Ok(false)
                }
            }
            Body::AppendReply { result: AppendResult::Accepted { matched }, .. } => {
                self.check_is_heard(from, "acknowledges entries")?;
                self.check_may_help(shard, from, "acknowledges what is not committed", |repair| {
                    *matched > repair.commit
                })?;
                let given = self.given.entry((shard, from)).or_default();
                given.acknowledged = given.acknowledged.max(term);
                given.tells(term);
                Ok(false)
            }
            Body::HeartbeatReply { context, .. } if context.counter > 0 => {
                self.check_is_heard(from, "confirms a leader")?;
                self.check_may_help(shard, from, "confirms a leader", |_| true)?;
                self.rounds.entry((shard, to, context.term, context.counter)).or_default().insert(from);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn check_is_heard(&self, node: NodeId, what: &str) -> Result<(), Violation> {
        if self.lost.contains(&node) {
            return Err(Violation::of("a node that lost its disk has no say", format!("node {node} {what}")));
        }
        Ok(())
    }

    fn check_may_vote(&self, shard: ShardId, node: NodeId, what: &str) -> Result<(), Violation> {
        if self.repairs.contains_key(&(shard, node)) {
            let what = format!("shard {shard}: node {node} {what}");
            return Err(Violation::of("a damaged node votes for nobody", what));
        }
        self.check_is_heard(node, what)
    }

    /// Whoever may have forgotten a promise helps nobody before it can know of it.
    fn check_may_help(
        &self,
        shard: ShardId,
        node: NodeId,
        what: &str,
        helps: impl Fn(&Repair) -> bool,
    ) -> Result<(), Violation> {
        let Some(repair) = self.repairs.get(&(shard, node)) else { return Ok(()) };
        if repair.told.len() + 1 >= self.nodes || !helps(repair) {
            return Ok(());
        }
        let what = format!("shard {shard}: node {node} {what}: {repair:?}");
        Err(Violation::of("a damaged node helps nobody before it knows all terms", what))
    }

    fn voted(&mut self, shard: ShardId, voter: NodeId, term: Term, candidate: NodeId) -> Result<bool, Violation> {
        self.check_may_vote(shard, voter, "votes")?;
        if !self.asked.contains_key(&(shard, term, candidate)) {
            // The candidate has forgotten that it is one.
            return Ok(true);
        }
        let given = self.given.entry((shard, voter)).or_default();
        given.tells(term);
        let other = *given.votes.entry(term).or_insert(candidate);
        if other != candidate {
            let what = format!("shard {shard}: node {voter} voted for {other} and for {candidate} in term {term}");
            return Err(Violation::of("a node votes once a term", what));
        }
        self.votes.entry((shard, term, candidate)).or_default().insert(voter);
        Ok(true)
    }

    /// A replica has just started: what it said before, it knows. One that is not healed knows what it has said since it
    /// was damaged.
    pub fn check_start(&self, node: usize, shard: ShardId, raft: &Raft) -> Result<(), Violation> {
        let own = node_id(node);
        let Some(given) = self.given.get(&(shard, own)) else { return Ok(()) };
        let kept = raft.is_damaged() || (raft.term() >= given.latest() && given.knows_vote(raft, own));
        if (kept && raft.term() >= given.term) || self.lost.contains(&own) {
            return Ok(());
        }
        let what = format!("shard {shard}: before the start {given:?}, now {}", raft.state_line());
        Err(Violation::of("a node keeps its word over a restart", what))
    }

    /// A replica has just voted; `own` is the worse of the ends of its log before and after. A vote for itself compares
    /// nothing: it stands, or it is healed and counts as spent what it may have given before it was damaged.
    pub fn check_vote(&self, node: usize, shard: ShardId, raft: &Raft, own: EntryId) -> Result<(), Violation> {
        let Some(candidate) = raft.vote().filter(|candidate| *candidate != node_id(node)) else { return Ok(()) };
        let Some(last) = self.asked.get(&(shard, raft.term(), candidate)) else { return Ok(()) };
        if (last.term, last.index) >= (own.term, own.index) {
            return Ok(());
        }
        let what =
            format!("shard {shard}: the candidate's log ends at {last}, the voter's at {own}: {}", raft.state_line());
        Err(Violation::of("a node votes for no worse log than its own", what))
    }

    /// A replica has just become the leader.
    pub fn check_leader(&self, node: usize, shard: ShardId, raft: &Raft) -> Result<(), Violation> {
        let voters = self.votes.get(&(shard, raft.term(), node_id(node)));
        if self.nodes == 1 || voters.is_some_and(|voters| voters.len() * 2 > self.nodes) {
            return Ok(());
        }
        let what = format!("shard {shard}: {voters:?} of {} voted for {}", self.nodes, raft.state_line());
        Err(Violation::of("a majority votes for a leader", what))
    }

    /// A leader after its turn: the read rounds that it has finished were answered by a majority.
    pub fn check_rounds(&mut self, node: usize, shard: ShardId, raft: &Raft) -> Result<(), Violation> {
        let (begun, in_flight) = (raft.read_rounds(), raft.read_round_in_flight());
        let finished = begun.saturating_sub(u64::from(in_flight));
        let given = self.given.entry((shard, node_id(node))).or_default();
        let (of, before) = given.rounds;
        given.rounds = (raft.term(), finished);
        if in_flight && begun == 0 {
            return Err(Violation::of("each read round has a number of its own", raft.state_line()));
        }
        if of != raft.term() || self.nodes == 1 {
            return Ok(());
        }
        for round in before + 1..=finished {
            let answered = self.rounds.remove(&(shard, node_id(node), raft.term(), round));
            let answered = answered.map_or(0, |nodes| nodes.len());
            if (answered + 1) * 2 <= self.nodes {
                let what = format!("shard {shard}: {answered} others answered round {round} of {}", raft.state_line());
                return Err(Violation::of("a majority confirms a read round", what));
            }
        }
        Ok(())
    }
}
