//! Answering those who stand for election, in whatever role.
//!
//! Stickiness (Raft thesis §4.2.3, §9.6): who heard from a leader within T, or leads, does not help to depose it. Two
//! things lift it: an election that the leader itself asked for (leadership transfer), and the news that the link on
//! which the leader's heartbeats came was closed by the other side. Whoever has promised a leader not to vote (`lease.rs`)
//! keeps to it whatever becomes of the link.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{EntryId, NodeId, Term};

use super::Raft;

impl Raft {
    /// Whether stickiness forbids to help depose the leader, as of the last tick.
    fn is_sticky(&self) -> bool {
        match self.role {
            Role::Leader => true,
            _ => self.leader.is_some() && !self.leader_link_lost && self.timer.heard_recently(self.now),
        }
    }

    /// Takes a request that stickiness or a promise forbids to grant. Whether it still does is a matter of time, and the time is
    /// known at the next tick: until then the request is kept. Gives back a request that can be judged now.
    pub(super) fn hold_if_bound(&mut self, message: Message) -> Option<Message> {
        let asks_to_depose = match message.body {
            Body::PreVote { .. } => message.term > self.hard_state.term,
            Body::Vote { transfer, .. } => message.term > self.hard_state.term && !transfer,
            _ => false,
        };
        let is_withheld = (asks_to_depose && self.is_sticky()) || self.is_forbidden(&message);
        if !is_withheld {
            return Some(message);
        }
        self.held_votes.retain(|held| held.from != message.from);
        self.held_votes.push(message);
        None
    }

    /// The time is known: judges what was held.
    pub(super) fn judge_held_votes(&mut self) {
        for message in std::mem::take(&mut self.held_votes) {
            let is_of_the_past = message.term <= self.hard_state.term;
            let is_forbidden = self.is_forbidden(&message);
            if !is_forbidden && (!self.is_sticky() || is_of_the_past) {
                self.handle(message);
                continue;
            }
            self.lease_counts.votes_withheld += u64::from(is_forbidden && (!self.is_sticky() || is_of_the_past));
            if is_of_the_past {
                self.respond(message.from, Body::VoteReply { granted: false });
            } else if let Body::PreVote { .. } = message.body {
                self.respond(message.from, Body::PreVoteReply { granted: false });
            }
            // A vote request is left unanswered: its sender would not look at an answer of a lower term.
        }
    }

    /// Would this node vote for the sender in `term`? Promises nothing and changes nothing.
    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: Term, last: EntryId) {
        if term > self.hard_state.term && self.is_up_to_date(last) && !self.is_damaged() {
            self.timer.yield_to_other();
            self.send_at(from, term, Body::PreVoteReply { granted: true });
        } else {
            self.respond(from, Body::PreVoteReply { granted: false });
        }
    }

    /// RequestVote of the own term: one vote a term, only for a log at least as good as the own (§5.2, §5.4.1).
    pub(super) fn on_vote(&mut self, from: NodeId, last: EntryId) {
        let is_free = match self.hard_state.vote {
            None => self.leader.is_none(),
            Some(node) => node == from || mutant!("vote-twice"),
        };
        if !is_free || !self.is_up_to_date(last) || (self.is_damaged() && !mutant!("votes-while-damaged")) {
            self.respond(from, Body::VoteReply { granted: false });
            return;
        }
        self.become_follower(self.leader);
        self.hard_state.vote = Some(from);
        self.timer.restart();
        if mutant!("vote-before-sync") {
            return self.send(from, Body::VoteReply { granted: true });
        }
        self.send_once_durable(from, Body::VoteReply { granted: true });
    }

    /// Whether a log that ends like this holds everything that this one can prove committed (§5.4.1).
    fn is_up_to_date(&self, last: EntryId) -> bool {
        let own = self.terms.last();
        (last.term, last.index) >= (own.term, own.index) || (mutant!("vote-for-shorter-log") && last.term == own.term)
    }
}
