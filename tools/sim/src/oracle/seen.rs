//! What is known of one replica.

use raftkv::raft::Raft;
use raftkv::raft::invariants::Observed;
use raftkv_protocol::client::Role;
use raftkv_protocol::types::{EntryId, Index, NodeId, Term};

/// A replica as it was last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) role: Option<Role>,
    pub(super) term: Term,
    pub(super) commit: Index,
    pub(super) applied: Index,
    /// How often a state has taken the place of a wrong one.
    pub(super) rebuilds: u64,
    pub(super) writes_overtaken: u64,
    /// A read round of its was under way.
    pub(super) reading: bool,
    pub(super) last: EntryId,
    pub(super) vote: Option<NodeId>,
    /// The entry that the log begins behind, and the last one in the newest snapshot.
    pub(super) start: EntryId,
    pub(super) snapshot: Option<EntryId>,
    /// Applied by any process of this node.
    pub(super) applied_ever: Index,
    /// What its next state is compared with.
    pub(super) observed: Option<Observed>,
    /// More may be on its disk than is known.
    pub(super) unseen: bool,
    /// Term of each entry that counts as on its disk, by index: entry i at i - 1.
    pub(super) persisted: Vec<Term>,
    /// What its disk held before it lost something, each time until it is healed: a leader may have heard of it.
    pub(super) lost: Vec<Vec<Term>>,
    /// More may have been there when it did.
    pub(super) lost_unseen: bool,
    /// What it has to have on its disk when it is healed.
    pub(super) owes: EntryId,
}

impl Seen {
    /// Its disk has lost some of what it held, which is this.
    pub(super) fn loses(&mut self) -> &[Term] {
        self.lost_unseen |= self.unseen;
        self.lost.push(std::mem::take(&mut self.persisted));
        self.lost.last().expect("it was just added")
    }

    /// Its process has ended: what it remembers of itself starts anew, what it has on disk stays.
    pub(super) fn ends(&mut self) {
        let before = std::mem::take(self);
        *self = Seen {
            persisted: before.persisted,
            lost: before.lost,
            lost_unseen: before.lost_unseen,
            unseen: before.unseen,
            applied_ever: before.applied_ever,
            owes: before.owes,
            ..Seen::default()
        };
    }

    /// It has all of that again.
    pub(super) fn regains(&mut self) {
        (self.lost, self.lost_unseen) = (Vec::new(), false);
    }

    /// Whether an entry is on its disk, or was before the disk lost it, as far as anybody can know.
    pub(super) fn has_had(&self, index: u64, term: Term) -> bool {
        let mut logs = std::iter::once(&self.persisted).chain(&self.lost);
        self.unseen || self.lost_unseen || logs.any(|log| log.get(index as usize - 1) == Some(&term))
    }

    /// Whether nothing has changed that is looked at.
    pub(super) fn is_still(&self, raft: &Raft, applied: Index) -> bool {
        let persisted = persisted_index(raft);
        self.reading == raft.read_round_in_flight()
            && self.role == Some(raft.role())
            && (self.term, self.commit, self.applied) == (raft.term(), raft.commit(), applied)
            && (self.vote, self.last) == (raft.vote(), raft.last())
            && (self.start, self.snapshot) == (raft.start(), raft.snapshot().map(|snapshot| snapshot.at))
            && self.persisted.len() as u64 == persisted.0
            && (persisted.0 == 0 || self.persisted.last().copied() == raft.term_at(persisted))
    }

    pub(super) fn remember(&mut self, raft: &Raft, applied: Index) {
        (self.role, self.term, self.commit, self.applied) = (Some(raft.role()), raft.term(), raft.commit(), applied);
        (self.writes_overtaken, self.reading) = (raft.writes_overtaken(), raft.read_round_in_flight());
        (self.last, self.vote) = (raft.last(), raft.vote());
        (self.start, self.snapshot) = (raft.start(), raft.snapshot().map(|snapshot| snapshot.at));
        self.applied_ever = self.applied_ever.max(applied);
        (self.unseen, self.observed) = (false, Some(Observed::of(raft)));
    }
}

/// Up to where everything is on disk. What a log begins behind is in a snapshot, also while the note that it begins there
/// is on its way.
pub(super) fn persisted_index(raft: &Raft) -> Index {
    raft.persisted_index().max(raft.start().index)
}
