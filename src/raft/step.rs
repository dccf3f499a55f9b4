//! What comes in from peers: what is not worth believing is dropped here, terms are compared, and the rest goes to
//! the one handler for its kind and the node's role. Also how messages go out.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{AppendResult, Body, Message, Promise, ReadContext, SnapshotMeta};
use raftkv_protocol::types::{Entry, EntryId, Index, NodeId, Term};

use super::damaged::tells_term;
use super::follower::Append;
use super::{Outgoing, Raft};

/// No honest run counts this far: a million a second for 140,000 years. Below it, no sum overflows.
const COUNTER_MAX: u64 = 1 << 62;

impl Raft {
    /// A message from a peer. Nonsense is counted and dropped, and never an error.
    pub fn step(&mut self, message: Message) {
        if !self.is_for_this_node(&message) || !is_sane(&message) {
            self.dropped_messages += 1;
            return;
        }
        if let Some(message) = self.hold_if_bound(message) {
            let told_by = tells_term(&message).then_some(message.from);
            self.handle(message);
            told_by.into_iter().for_each(|voter| self.note_told(voter));
        }
    }

    fn is_for_this_node(&self, message: &Message) -> bool {
        message.shard == self.config.shard
            && message.to == self.config.id
            && message.from != self.config.id
            && self.configuration.contains(message.from)
    }

    /// Compares the terms (§5.1), then lets the message be handled.
    pub(super) fn handle(&mut self, message: Message) {
        if message.term < self.hard_state.term {
            self.answer_from_the_past(&message);
            return;
        }
        // Pre-votes carry a term that nobody has entered yet.
        let is_hypothetical = matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { granted: true });
        let is_deaf = mutant!("leader-ignores-later-term") && self.role == Role::Leader;
        if message.term > self.hard_state.term && !is_hypothetical && !is_deaf {
            if let Body::PreVoteReply { .. } | Body::VoteReply { .. } = message.body {
                self.timer.refused();
            }
            self.become_follower(None);
            self.enter_term(message.term);
        }
        self.dispatch(message);
    }

    /// One handler for each kind of message and role.
    fn dispatch(&mut self, message: Message) {
        let Message { from, term, .. } = message;
        match (self.role, message.body) {
            (_, Body::PreVote { last }) => self.on_pre_vote(from, term, last),
            (_, Body::Vote { last, .. }) => self.on_vote(from, last),
            (Role::PreCandidate, Body::PreVoteReply { granted }) => self.on_pre_vote_reply(from, term, granted),
            (Role::Candidate, Body::VoteReply { granted }) => self.on_vote_reply(from, granted),
            (Role::Candidate, Body::PreVoteReply { granted: true }) if mutant!("pre-vote-counts-as-vote") => {
                self.on_vote_reply(from, true);
            }
            (Role::Leader, Body::AppendReply { link, result }) => self.on_append_reply(from, link, result),
            (Role::Leader, Body::HeartbeatReply { context, promise }) => {
                self.on_heartbeat_reply(from, context, promise);
            }
            (Role::Leader, Body::PreVoteReply { granted: false }) => self.on_refusal(from),
            // A second leader in one term: there is none.
            (Role::Leader, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. }) => {
                self.dropped_messages += 1;
            }
            (_, Body::Append { link, prev, commit, entries }) => {
                self.on_append(from, Append { link, prev, commit, entries });
            }
            (_, Body::Heartbeat { commit, context, sent_us }) => self.on_heartbeat(from, commit, context, sent_us),
            (_, Body::Snapshot { link, meta }) => self.on_snapshot_offer(from, link, meta),
            (Role::Follower, Body::TimeoutNow) => self.on_timeout_now(from),
            // Answers that come too late for the role that asked.
            (_, Body::PreVoteReply { .. } | Body::VoteReply { .. } | Body::AppendReply { .. }) => {}
            (_, Body::HeartbeatReply { .. } | Body::TimeoutNow) => {}
            _ => self.dropped_messages += 1,
        }
    }

    /// A request of an earlier term is refused in a way that tells its sender the term; answers are just late.
    fn answer_from_the_past(&mut self, message: &Message) {
        let body = match message.body {
            Body::PreVote { .. } => Body::PreVoteReply { granted: false },
            Body::Vote { .. } => Body::VoteReply { granted: false },
            Body::Append { link, prev, .. } => {
                Body::AppendReply { link, result: AppendResult::Rejected { prev: prev.index, hint: EntryId::ZERO } }
            }
            Body::Snapshot { link, meta } => {
                let prev = meta.at.index;
                Body::AppendReply { link, result: AppendResult::Rejected { prev, hint: EntryId::ZERO } }
            }
            Body::Heartbeat { .. } => {
                Body::HeartbeatReply { context: ReadContext::default(), promise: Promise::default() }
            }
            _ => return,
        };
        self.respond(message.from, body);
    }

    /// A message of this shard and node.
    pub(super) fn message(&self, to: NodeId, term: Term, body: Body) -> Message {
        Message { shard: self.config.shard, from: self.config.id, to, term, body }
    }

    /// Sends at once, with the own term.
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        self.send_at(to, self.hard_state.term, body);
    }

    /// Sends at once, with this term.
    pub(super) fn send_at(&mut self, to: NodeId, term: Term, body: Body) {
        let message = self.message(to, term, body);
        self.out.messages.push(Outgoing { message, entries: 0..0 });
    }

    /// Answers with the own term as soon as that is durable. Of the answers of one kind to one peer that wait for it,
    /// only the newest is kept: a disk may hang for long, and peers ask again and again.
    pub(super) fn respond(&mut self, to: NodeId, body: Body) {
        if self.persistence.durable().term == self.hard_state.term {
            return self.send(to, body);
        }
        let kind = std::mem::discriminant(&body);
        self.unsent_answers.retain(|(peer, other)| *peer != to || std::mem::discriminant(other) != kind);
        self.unsent_answers.push((to, body));
    }

    /// Sends the answers that have waited for the term to be durable.
    pub(super) fn send_durable_answers(&mut self) {
        if !self.unsent_answers.is_empty() && self.persistence.durable().term == self.hard_state.term {
            for (to, body) in std::mem::take(&mut self.unsent_answers) {
                self.send(to, body);
            }
        }
    }

    /// Sends what only holds when term and vote are durable.
    pub(super) fn send_once_durable(&mut self, to: NodeId, body: Body) {
        if self.persistence.durable() == self.hard_state {
            self.send(to, body);
        } else {
            let message = self.message(to, self.hard_state.term, body);
            self.out.after_sync.push(Outgoing { message, entries: 0..0 });
        }
    }
}

/// Whether a message can have come from an honest node, as far as the message alone shows.
fn is_sane(message: &Message) -> bool {
    let term = message.term;
    if term.0 > COUNTER_MAX {
        return false;
    }
    match &message.body {
        Body::PreVote { last } | Body::Vote { last, .. } => is_sane_id(*last) && last.term <= term && term.0 > 0,
        Body::Append { prev, commit, entries, .. } => {
            term.0 > 0 && is_sane_id(*prev) && commit.0 <= COUNTER_MAX && is_consecutive(*prev, entries, term)
        }
        Body::AppendReply { result: AppendResult::Rejected { prev, hint }, .. } => {
            prev.0 <= COUNTER_MAX && is_sane_id(*hint)
        }
        Body::AppendReply { result: AppendResult::Accepted { matched }, .. } => matched.0 <= COUNTER_MAX,
        Body::Heartbeat { commit, .. } => term.0 > 0 && commit.0 <= COUNTER_MAX,
        Body::TimeoutNow => term.0 > 0,
        Body::Snapshot { meta: SnapshotMeta { id, at, bytes }, .. } => {
            let is_named = id.0 > 0 && at.index.0 > 0 && *bytes <= COUNTER_MAX;
            term.0 > 0 && is_named && is_sane_id(*at) && at.term <= term
        }
        _ => true,
    }
}

/// Only the place before the first entry has index 0, and only it has term 0.
fn is_sane_id(id: EntryId) -> bool {
    (id == EntryId::ZERO || (id.index.0 > 0 && id.term.0 > 0)) && id.index.0 <= COUNTER_MAX && id.term.0 <= COUNTER_MAX
}

/// Whether the entries follow `prev` without a gap, with terms that never fall and never exceed the sender's.
fn is_consecutive(prev: EntryId, entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    for entry in entries {
        if entry.id.index != Index(before.index.0 + 1) || entry.id.term < before.term || entry.id.term.0 == 0 {
            return false;
        }
        before = entry.id;
    }
    before.term <= term
}
