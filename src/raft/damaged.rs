//! A replica whose disk has lost what it once held: how it becomes a full one again without endangering anybody.
//!
//! What it comes back with is true, and may be less than what it has written: entries that it has acknowledged, terms
//! that it has entered and votes that it has cast may be missing at the end. At most a minority may be in this state at
//! a time, from the loss until the replica has healed. It makes up for two losses, and each binds it until then.
//!
//! **Promises.** Whoever votes in a term, or answers its leader, promises to acknowledge nothing and to confirm no read
//! of an earlier one. To keep a promise that it has forgotten the replica asks every other voter for its term, with a
//! pre-vote that nobody grants (`QUESTION`). A candidate's term is durable before it asks for votes, and a leader's at
//! a majority: so the greatest of these terms is no earlier than any that was promised to somebody who can still make
//! use of it, and the answers have brought the replica into it. Until all have answered
//! - it acknowledges no entry beyond what is committed anyway (that lets the leader bring it up to date and cannot
//!   commit anything), and its answers to heartbeats confirm no read (`Raft::knows_its_promises`). Else a leader that
//!   was deposed with this replica's vote could commit, or read, with its help once more.
//!
//! **Entries.** An entry may be committed because this replica had it. Until it has all of these back
//! - it votes for nobody and stands for nothing. So whoever is elected has the votes of a majority without it, one of
//!   whom has the entry and votes only for who has it too; a minority of such replicas always leaves a majority without.
//!
//! It has them back when its log is durable up to a commit index that the leader of its present term has announced since
//! the start, if the entry there is of this term, and all promises are known. For every leader that has ever counted an
//! acknowledgement from before the loss has told its term since, over a new link, and has forgotten the acknowledgement
//! when that link came up (`Progress::link_up`). What it had committed with it by then is
//! - of an earlier term than the present one: then it comes before the first entry of the present leader's own;
//! - of the present term: then it is at or before the index that was announced over the new link. An append announces
//!   all that is committed. A heartbeat announces less if this replica has acknowledged less; but before it acknowledges
//!   anything an append has come, whose index is kept unless no entry of the present term was committed when it left;
//! - not of a later term, as that leader has told its term.
//!
//! **Healed** it votes, but not in the present term, where it may have voted already: it takes a vote for itself there,
//! unless its disk knows of another. It counts as healed when that is durable.
//!
//! **What the links must do for this.** Nothing that was sent to a process reaches the next one of the same node.
//! Nothing that a process has sent is handled by a peer after that peer's link to the node's next process is up.
//! Otherwise a request for votes from before the loss could still be granted afterwards, for a log that is lost, and
//! the grant count for the same node in the same term when it stands again.
//!
//! **What that costs.** If one other voter never answers, the replica stays as it is: it gets and holds what is committed,
//! and counts for nothing. That cannot be had for less. The answers of a majority of the others would tell the term of every
//! leader that was *elected* with its vote, but not that of a candidate that has this vote and does not know yet that it
//! has: of five voters, `s` stands in term 7, the vote that the replica gives it arrives at `s` and is not looked at, and `s` and
//! the replica stop. The replica loses the vote, comes back, and hears of term 6 from all others. Would it acknowledge what the
//! leader of term 6 sends, so that an entry is committed with it and one other, then `s` could go on, be granted the vote of a
//! voter that has not got the entry, and be elected without it by these two votes and its own. Only `s` itself can say
//! that this does not come: when it has told its term over a link to the replica's present process, it has looked at all that an
//! earlier one has sent.

use std::fmt;
use std::time::Instant;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{EntryId, Index, NodeId, Term};

use super::Raft;

/// The term of a question for the term: the lowest that there is. It is later than that of a node that has entered
/// none, and may be granted there, which tells as much. Everybody else refuses it like any that is not later than the own
/// term: at once, whoever leads, and with nothing changed.
const QUESTION: Term = Term(1);

/// What a damaged replica knows of what it has lost.
#[derive(Debug)]
pub(super) struct Damage {
    /// The other voters that have not told their term since the start, ascending.
    silent: Vec<NodeId>,
    /// When they are asked again; at the next tick if not set.
    ask_at: Option<Instant>,
    /// A commit index that this term's leader has announced. One that may prove enough is kept until it does.
    announced: Option<Index>,
    /// The term in which everything was made up for: the replica is healed once that is durable.
    healing: Option<Term>,
}

impl Damage {
    /// Nothing is known yet.
    ///
    /// # Panics
    ///
    /// If there is no other voter.
    pub(super) fn new(id: NodeId, voters: &[NodeId]) -> Damage {
        let mut silent: Vec<NodeId> = voters.iter().copied().filter(|&voter| voter != id).collect();
        silent.sort_unstable();
        silent.dedup();
        assert!(!silent.is_empty(), "n{id} is damaged and alone: nobody knows what it has lost");
        Damage { silent, ask_at: None, announced: None, healing: None }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(" damaged")?;
        for (at, voter) in self.silent.iter().enumerate() {
            write!(f, "{}{voter}", if at > 0 { "," } else { " silent=" })?;
        }
        Ok(())
    }
}

/// Whether a message says what its sender's term is, in answer to a question.
pub(super) fn tells_term(message: &Message) -> bool {
    match message.body {
        Body::PreVoteReply { granted } => !granted || message.term == QUESTION,
        _ => false,
    }
}

impl Raft {
    /// Whether this replica has lost something and has not made up for it yet. It turns `false` for good, with a
    /// `Ready`, when what makes up for it is durable: before that the loss must not be forgotten over a restart.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// Whether this replica can have promised nothing that its term does not say.
    pub(super) fn knows_its_promises(&self) -> bool {
        self.damage.as_ref().is_none_or(|damage| damage.silent.is_empty())
    }

    /// Asks a voter for its term, if it has not told it.
    pub(super) fn ask_for_term(&mut self, voter: NodeId) {
        if self.damage.as_ref().is_some_and(|damage| damage.silent.contains(&voter)) {
            self.send_at(voter, QUESTION, Body::PreVote { last: EntryId::ZERO });
        }
    }

    /// Asks those who are silent, once in an election timeout.
    pub(super) fn tick_damage(&mut self) {
        let now = self.now;
        let Some(damage) = &mut self.damage else { return };
        if damage.ask_at.is_none_or(|at| at <= now) {
            damage.ask_at = Some(now + self.config.election_timeout);
            for voter in damage.silent.clone() {
                self.ask_for_term(voter);
            }
        }
    }

    /// When those who are silent are to be asked again, if there are any.
    pub(super) fn ask_again_at(&self) -> Option<Instant> {
        let damage = self.damage.as_ref().filter(|damage| !damage.silent.is_empty())?;
        Some(damage.ask_at.unwrap_or(self.now))
    }

    /// A voter has told its term, and the own one is no earlier.
    pub(super) fn note_told(&mut self, voter: NodeId) {
        if let Some(damage) = &mut self.damage {
            damage.silent.retain(|&silent| silent != voter);
        }
    }

    /// This term's leader has announced its commit index. Any that it announces will do: one that the log has yet to
    /// reach is kept, or the goal would move on for as long as there are writes.
    pub(super) fn note_announced(&mut self, commit: Index) {
        let (own, reached) = (self.hard_state.term, self.commit);
        let terms = &self.terms;
        let Some(damage) = &mut self.damage else { return };
        let may_prove_enough = |index: Index| index > reached || terms.term_at(index) == Some(own);
        if !damage.announced.is_some_and(may_prove_enough) {
            damage.announced = Some(commit);
        }
    }

    /// Another term: its leader has announced nothing.
    pub(super) fn forget_announced(&mut self) {
        if let Some(damage) = &mut self.damage {
            damage.announced = None;
        }
    }

    /// Whether every entry is back, and durable, that can have been committed with the help of what was lost.
    fn has_everything_back(&self) -> bool {
        let announced = self.damage.as_ref().and_then(|damage| damage.announced);
        announced.is_some_and(|index| {
            let is_own_term = self.terms.term_at(index) == Some(self.hard_state.term) || mutant!("heals-at-older-term");
            is_own_term && index <= self.commit.min(self.persistence.persisted())
        })
    }

    /// Makes up for the damage if everything for it is there, and ends it when that is durable.
    pub(super) fn try_to_heal(&mut self) {
        if self.damage.is_none() {
            return;
        }
        debug_assert_eq!(self.role, Role::Follower, "a damaged replica does nothing but follow: {self}");
        if (self.knows_its_promises() || mutant!("heals-without-fence")) && self.has_everything_back() {
            self.hard_state.vote.get_or_insert(self.config.id);
            let term = self.hard_state.term;
            self.damage.iter_mut().for_each(|damage| _ = damage.healing.get_or_insert(term));
        }
        let durable = self.persistence.durable();
        let healing = self.damage.as_ref().and_then(|damage| damage.healing);
        if healing.is_some_and(|term| durable.term > term || (durable.term == term && durable.vote.is_some())) {
            self.damage = None;
        }
    }
}
