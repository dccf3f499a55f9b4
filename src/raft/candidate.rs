//! Standing for election: first a pre-vote that changes nothing (Raft thesis §9.6), then the vote (Raft paper §5.2).

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::Body;
use raftkv_protocol::types::{HardState, NodeId, Term};

use super::Raft;
use super::quorum::Outcome;

/// Who asked for an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// No leader was heard.
    Timeout,
    /// The leader hands over.
    Transfer,
}

/// Whether a node may be elected, as far as it is asked itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Candidacy {
    /// Like any other.
    #[default]
    Willing,
    /// If nobody else is: it waits until the others have had their time to stand.
    Reluctant,
    /// It never stands for election, not even if its leader asks for it.
    Never,
}

impl Raft {
    /// Says whether this node should lead. A node that leads already goes on.
    pub fn set_candidacy(&mut self, candidacy: Candidacy) {
        self.candidacy = candidacy;
        self.timer.set_late(candidacy == Candidacy::Reluctant);
    }

    /// Whether this node may be elected.
    pub(super) fn may_stand(&self) -> bool {
        self.configuration.is_voter(self.config.id) && self.candidacy != Candidacy::Never && !self.is_damaged()
    }

    /// The election timer fired.
    pub(super) fn stand_for_election(&mut self) {
        if !self.may_stand() {
            self.timer.restart();
            return;
        }
        self.timer.attempt();
        self.role = Role::PreCandidate;
        self.leader = None;
        self.votes.clear();
        self.ask_all_voters();
        self.count_pre_vote(self.config.id, true);
    }

    /// Starts an election in the next term.
    pub(super) fn campaign(&mut self, cause: Cause) {
        self.elections_started += 1;
        self.enter_term(Term(self.hard_state.term.0 + 1));
        self.hard_state.vote = Some(self.config.id);
        self.timer.attempt();
        self.role = Role::Candidate;
        self.cause = cause;
        self.votes.clear();
        self.ask_all_voters();
    }

    fn ask_all_voters(&mut self) {
        for at in 0..self.progress.len() {
            self.ask_for_vote(self.progress[at].node);
        }
    }

    /// Asks one voter, unless it has answered.
    pub(super) fn ask_for_vote(&mut self, to: NodeId) {
        if !self.configuration.is_voter(to) || self.votes.contains_key(&to) {
            return;
        }
        let last = self.terms.last();
        match self.role {
            Role::PreCandidate => self.send_at(to, Term(self.hard_state.term.0 + 1), Body::PreVote { last }),
            Role::Candidate => {
                let transfer = self.cause == Cause::Transfer || mutant!("own-election-told-as-asked-for");
                self.send_once_durable(to, Body::Vote { last, transfer });
            }
            Role::Follower | Role::Leader | Role::Learner => {}
        }
    }

    /// An answer to a pre-vote: granted ones carry the term that would be campaigned for.
    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        let expected = if granted { Term(self.hard_state.term.0 + 1) } else { self.hard_state.term };
        if term == expected {
            self.count_pre_vote(from, granted);
        }
    }

    fn count_pre_vote(&mut self, from: NodeId, granted: bool) {
        match self.count(from, granted) {
            Outcome::Won => self.campaign(Cause::Timeout),
            Outcome::Lost => self.become_follower(None),
            Outcome::Pending => {}
        }
    }

    /// An answer to a vote request of this term. The requests leave when the own vote is durable: before that nobody
    /// can have granted one, and a refusal answers a request of an earlier term.
    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        if self.persistence.durable() != self.hard_state {
            self.dropped_messages += u64::from(granted);
            return;
        }
        match self.count(from, granted) {
            Outcome::Won => self.become_leader(),
            Outcome::Lost => self.become_follower(None),
            Outcome::Pending => {}
        }
    }

    /// A candidate's own vote counts like any other: once it is durable.
    pub(super) fn count_own_vote(&mut self) {
        if self.persistence.durable() == self.hard_state && !self.votes.contains_key(&self.config.id) {
            self.on_vote_reply(self.config.id, true);
        }
    }

    fn count(&mut self, from: NodeId, granted: bool) -> Outcome {
        if granted {
            self.votes.insert(from, true);
        } else {
            // It may answer an earlier request; a vote that was granted stays granted.
            self.votes.entry(from).or_insert(false);
            self.timer.refused();
        }
        self.configuration.outcome(|node| self.votes.get(&node).copied())
    }

    /// Takes note of a later term: nobody leads it yet, as far as this node knows, and its vote is free.
    pub(super) fn enter_term(&mut self, term: Term) {
        debug_assert!(term > self.hard_state.term, "terms only rise");
        self.hard_state = HardState { term, vote: self.hard_state.vote.filter(|_| mutant!("vote-kept-across-terms")) };
        self.leader = None;
        self.leader_link_lost = false;
        self.timer.forget_leader();
        self.verified.forget();
        self.forget_announced();
        // Whoever waits for an answer of the term that was left asks again.
        self.unsent_answers.clear();
    }
}
