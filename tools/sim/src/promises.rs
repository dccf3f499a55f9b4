//! What nodes have told each other, taken down as it left them: a word that was given binds, also after a crash.
//!
//! - A node votes once a term, and only for a log at least as good as its own.
//! - Whoever leads a term was voted for by a majority.
//! - What a node has told others (its term, its vote) it still knows after a restart.
//! - A read round is confirmed by a majority that answered this very round.
//! - A node that has lost its disk has no say.
//! - A request that is sent on has a name of its own, and is answered once, by the one to whom it was sent.
//! - An answer goes to the connection on which it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use raftkv::raft::Raft;
use raftkv_protocol::peer::{AppendResult, Body, ForwardId, Message};
use raftkv_protocol::types::{CoreId, EntryId, NodeId, ShardId, Term};

use crate::agenda::HostId;
use crate::machine::node_id;
use crate::network::Told;
use crate::oracle::Violation;

/// What one replica has given its word for.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    term: Term,
    vote: Option<(Term, NodeId)>,
    /// Read rounds of the term that it leads: those below this number are confirmed.
    rounds: (Term, u64),
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
            forwards: BTreeMap::new(),
        }
    }

    /// A machine got empty disks.
    pub fn lost(&mut self, node: usize) {
        self.lost.insert(node_id(node));
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
            Body::PreVoteReply { granted: true } => self.check_is_heard(from, "would vote").map(|()| false),
            Body::AppendReply { result: AppendResult::Accepted { .. }, .. } => {
                self.check_is_heard(from, "acknowledges entries")?;
                let given = self.given.entry((shard, from)).or_default();
                given.term = given.term.max(term);
                Ok(false)
            }
            Body::HeartbeatReply { context } if context.counter > 0 => {
                self.check_is_heard(from, "confirms a leader")?;
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

    fn voted(&mut self, shard: ShardId, voter: NodeId, term: Term, candidate: NodeId) -> Result<bool, Violation> {
        self.check_is_heard(voter, "votes")?;
        let given = self.given.entry((shard, voter)).or_default();
        given.term = given.term.max(term);
        match given.vote {
            Some((of, other)) if of == term && other != candidate => {
                let what = format!("shard {shard}: node {voter} voted for {other} and for {candidate} in term {term}");
                return Err(Violation::of("a node votes once a term", what));
            }
            Some((of, _)) if of >= term => {}
            _ => given.vote = Some((term, candidate)),
        }
        self.votes.entry((shard, term, candidate)).or_default().insert(voter);
        Ok(true)
    }

    /// A replica has just started: what it said before, it knows.
    pub fn check_start(&self, node: usize, shard: ShardId, raft: &Raft) -> Result<(), Violation> {
        let Some(given) = self.given.get(&(shard, node_id(node))) else { return Ok(()) };
        let kept = match given.vote {
            Some((term, candidate)) if term == raft.term() => raft.vote() == Some(candidate),
            _ => raft.term() >= given.term,
        };
        if kept || self.lost.contains(&node_id(node)) {
            return Ok(());
        }
        let what = format!("shard {shard}: before the start {given:?}, now {}", raft.state_line());
        Err(Violation::of("a node keeps its word over a restart", what))
    }

    /// A replica has just voted; `own` is the worse of the ends of its log before and after.
    pub fn check_vote(&self, shard: ShardId, raft: &Raft, own: EntryId) -> Result<(), Violation> {
        let Some(candidate) = raft.vote() else { return Ok(()) };
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
