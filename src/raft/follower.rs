//! Following a leader: its appends, its heartbeats, its wish to hand over, and the loss of its link.
//!
//! **What a follower acknowledges** is min(persisted, verified), where `verified` is the last index up to which an
//! append of the *current* term has shown this log to match the leader's. An acknowledgement is made when it is sent,
//! from what is durable then, and never earlier: there is none to be taken back when a truncation comes between, and
//! one answers all appends that came in meanwhile.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{AppendResult, Body, Promise, ReadContext};
use raftkv_protocol::types::{Entry, EntryId, Index, NodeId};

use super::Raft;
use super::candidate::Cause;

/// How far this log is known to match that of the current term's leader, and what of that was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verified {
    /// Up to here.
    pub(super) upto: Index,
    /// The leader's link on which the last append came.
    link: u32,
    /// What was last acknowledged on that link, or durable when its first append came.
    acknowledged: Index,
    /// An append has come that is not fully acknowledged.
    is_owed: bool,
}

impl Verified {
    /// Another term: nothing is known of its leader's log.
    pub(super) fn forget(&mut self) {
        if !mutant!("verified-kept-across-terms") {
            *self = Verified::default();
        }
    }

    /// The log is the leader's up to here, because all of that is committed. Somebody waits to hear of it.
    pub(super) fn covers(&mut self, upto: Index) {
        self.upto = self.upto.max(upto);
        self.is_owed = true;
    }

    /// A snapshot was offered that is not needed, as the log is the leader's up to here. It is offered again until it
    /// hears so: what of that is durable is said at once.
    pub(super) fn offer_came(&mut self, link: u32, upto: Index) {
        self.covers(upto);
        self.link = link;
        self.acknowledged = Index(0);
    }

    /// A snapshot was offered that is needed: the answer to this link follows when it is installed.
    pub(super) fn offer_waits(&mut self, link: u32) {
        self.link = link;
    }

    /// What was acknowledged may be lost: it is said again.
    pub(super) fn link_up(&mut self) {
        self.is_owed |= self.upto > Index(0);
    }

    fn append_came(&mut self, link: u32, upto: Index, persisted: Index) {
        let is_first = link != self.link || self.upto == Index(0);
        self.link = link;
        self.upto = self.upto.max(upto);
        self.is_owed = true;
        if is_first {
            // The leader probes: half an answer would make it send the other half again.
            self.acknowledged = persisted.min(self.upto);
        }
    }
}

/// An append as it came.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) link: u32,
    pub(super) prev: EntryId,
    pub(super) commit: Index,
    pub(super) entries: Vec<Entry>,
}

impl Raft {
    /// Gives up whatever else the node was in this term. The vote stays: it was cast.
    pub(super) fn become_follower(&mut self, leader: Option<NodeId>) {
        match self.role {
            Role::Follower | Role::Learner => {}
            Role::Leader => self.stop_leading(),
            Role::Candidate | Role::PreCandidate => self.timer.restart_unless_retrying(),
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();
        if mutant!("vote-lost-on-role-change") {
            self.hard_state.vote = None;
        }
    }

    /// A message that only the leader of this term sends came from this node. `false` if another one leads.
    pub(super) fn follow(&mut self, leader: NodeId) -> bool {
        if self.leader.is_some_and(|known| known != leader) {
            self.dropped_messages += 1;
            return false;
        }
        self.become_follower(Some(leader));
        self.leader_link_lost = false;
        self.timer.heard();
        true
    }

    /// AppendEntries (Raft paper §5.3).
    pub(super) fn on_append(&mut self, from: NodeId, append: Append) {
        if !self.follow(from) {
            return;
        }
        let Append { link, prev, commit, entries } = append;
        self.note_announced(commit);
        let end = Index(prev.index.0 + entries.len() as u64);
        let is_there = mutant!("previous-term-unchecked") && prev.index <= self.terms.last().index;
        if prev.index >= self.terms.start().index && !self.terms.matches(prev) && !is_there {
            if prev.index <= self.commit {
                // Committed entries never differ from a leader's: this is none.
                self.dropped_messages += 1;
                return;
            }
            let hint = if mutant!("hint-past-conflict") { self.terms.last() } else { self.terms.last_compatible(prev) };
            self.respond(from, Body::AppendReply { link, result: AppendResult::Rejected { prev: prev.index, hint } });
            return;
        }
        if !self.append_missing(entries) {
            self.dropped_messages += 1;
            return;
        }
        self.verified.append_came(link, end, self.persistence.persisted());
        self.commit = self.commit.max(commit.min(end));
    }

    /// Appends those that the log lacks; a conflicting entry goes, with all that follow it. `false`, and nothing has
    /// changed, if a committed entry would go, or one that this very leader has sent.
    fn append_missing(&mut self, mut entries: Vec<Entry>) -> bool {
        let (start, last) = (self.terms.start().index, self.terms.last().index);
        let is_known = |entry: &Entry| {
            // What the start covers is committed, and every leader has it.
            let is_same = mutant!("conflict-kept") || self.terms.matches(entry.id);
            entry.id.index < start || (entry.id.index <= last && is_same)
        };
        let known = entries.iter().take_while(|entry| is_known(entry) && !mutant!("matching-entries-cut")).count();
        let Some(first) = entries.get(known).map(|entry| entry.id.index) else { return true };
        if first <= self.commit.max(self.verified.upto) {
            return false;
        }
        if first <= last {
            self.truncate_from(first);
        }
        for entry in entries.drain(known..) {
            self.append_entry(entry);
        }
        true
    }

    /// Discards the end of the log from `first` on, also where it is still on its way to the disk.
    fn truncate_from(&mut self, first: Index) {
        self.terms.truncate_from(first);
        self.persistence.truncated(self.terms.last());
        let keep = self.out.append.partition_point(|entry| entry.id.index < first);
        self.out.append.truncate(keep);
    }

    /// A heartbeat. Its commit index holds for what this term's leader has shown to match.
    pub(super) fn on_heartbeat(&mut self, from: NodeId, commit: Index, context: ReadContext, sent_us: u64) {
        if !self.follow(from) {
            return;
        }
        self.note_announced(commit);
        self.commit = self.commit.max(commit.min(self.verified.upto));
        let confirms = self.knows_its_promises() || mutant!("damaged-confirms-reads");
        let (context, promise) =
            if confirms { (context, self.make_promise(sent_us)) } else { (ReadContext::default(), Promise::default()) };
        self.respond(from, Body::HeartbeatReply { context, promise });
    }

    /// Sends the acknowledgement that is owed, if there is something new to say or nothing more to wait for.
    pub(super) fn acknowledge(&mut self) {
        if !self.verified.is_owed || self.persistence.durable().term != self.hard_state.term {
            return;
        }
        let Some(leader) = self.leader else { return };
        let persisted =
            if mutant!("unsynced-acknowledged") { self.verified.upto } else { self.persistence.persisted() };
        let counts = self.knows_its_promises() || mutant!("damaged-acknowledges-all");
        let countable = if counts { self.verified.upto } else { self.commit };
        let matched = persisted.min(self.verified.upto).min(countable);
        let is_complete = matched == self.verified.upto;
        if is_complete || matched > self.verified.acknowledged {
            self.verified.acknowledged = matched;
            self.verified.is_owed = !is_complete;
            let result = AppendResult::Accepted { matched };
            self.send(leader, Body::AppendReply { link: self.verified.link, result });
        }
    }

    /// The leader hands over: stands for election at once, without a pre-vote (Raft thesis §3.10). Who must not stand
    /// says so as it would to a question of the leader's whether to stand: in words that every leader understands.
    pub(super) fn on_timeout_now(&mut self, from: NodeId) {
        if self.leader != Some(from) {
            return;
        }
        if self.may_stand() {
            self.campaign(Cause::Transfer);
        } else {
            self.respond(from, Body::PreVoteReply { granted: false });
        }
    }

    /// The remote side closed the link on which this node's heartbeats came. If that was the leader, its process is
    /// most likely gone: this node stops protecting it and soon asks the others what they think.
    pub fn link_lost(&mut self, from: NodeId) {
        if self.role != Role::Follower || self.leader != Some(from) || self.leader_link_lost {
            return;
        }
        self.leader_link_lost = true;
        self.timer.hint();
    }
}
