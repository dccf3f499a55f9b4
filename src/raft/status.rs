//! What can be asked of a Raft replica without changing it.

use std::fmt;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, Index, NodeId, Term};

use super::Raft;

impl Raft {
    /// What the node is to the group. A node without a vote follows as a learner.
    pub fn role(&self) -> Role {
        match self.role {
            Role::Follower if !self.configuration.is_voter(self.config.id) => Role::Learner,
            role => role,
        }
    }

    /// The voters, this node among them.
    pub fn voters(&self) -> &[NodeId] {
        &self.config.voters
    }

    /// The latest term seen.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Who got this node's vote in this term.
    pub fn vote(&self) -> Option<NodeId> {
        self.hard_state.vote
    }

    /// Who leads this term, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Committed up to here.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The end of the log, durable or not.
    pub fn last(&self) -> EntryId {
        self.terms.last()
    }

    /// The entry before the first in the log.
    pub fn start(&self) -> EntryId {
        self.terms.start()
    }

    /// The newest snapshot: what a follower is offered that needs what was before the start of the log.
    pub fn snapshot(&self) -> Option<SnapshotMeta> {
        self.snapshot
    }

    /// The own log is durable up to here; 0 while it is on its way to the disk that the log starts anew.
    pub fn persisted_index(&self) -> Index {
        self.persistence.persisted()
    }

    /// The term of an entry in the log, or of its start.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.terms.term_at(index)
    }

    /// The leader's view of a follower's log: matched up to here. `None` if not leading or not a follower.
    pub fn matched(&self, node: NodeId) -> Option<Index> {
        match self.role {
            Role::Leader => self.progress_of(node).map(|progress| progress.matched),
            _ => None,
        }
    }

    /// How many bytes of entries this leader has not committed yet; 0 for the others.
    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// How many messages made no sense and were dropped.
    pub fn dropped_messages(&self) -> u64 {
        self.dropped_messages
    }

    /// How often a truncation has overtaken a write on its way to the disk, so that its completion says less than it
    /// would have: the case in which a naive count acknowledges what is no longer there.
    #[must_use]
    pub fn writes_overtaken(&self) -> u64 {
        self.persistence.overtaken()
    }

    /// How many elections this node has stood in; pre-votes do not count.
    pub fn elections_started(&self) -> u64 {
        self.elections_started
    }

    /// The whole state in one line, as in
    /// `n1@3 leader last=7@3 persisted=6@3 commit=6 applied=5 progress={2:6>7 replicate, 3:4>5 probe}`.
    pub fn state_line(&self) -> String {
        self.to_string()
    }

    fn fmt_leader(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(" progress={")?;
        for (at, progress) in self.progress.iter().enumerate() {
            write!(f, "{}{progress}", if at > 0 { ", " } else { "" })?;
        }
        f.write_str("}")?;
        let (queued, waiting) = self.reads.counts();
        if queued + waiting > 0 {
            write!(f, " reads={queued}+{waiting}")?;
        }
        self.transfer.map_or(Ok(()), |transfer| write!(f, " transfer={}", transfer.to))
    }
}

impl fmt::Display for Raft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role() {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
            Role::Learner => "learner",
        };
        write!(f, "n{}@{} {role} last={}", self.config.id, self.hard_state.term, self.terms.last())?;
        let persisted = self.terms.id_at(self.persistence.persisted()).unwrap_or_default();
        write!(f, " persisted={persisted} commit={} applied={}", self.commit, self.applied)?;
        if let Some(snapshot) = self.snapshot {
            write!(f, " start={} snapshot={}", self.terms.start(), snapshot.at)?;
        }
        if self.role == Role::Leader {
            return self.fmt_leader(f);
        }
        if let Some(leader) = self.leader {
            write!(f, " leader={leader}")?;
        }
        if let Some(vote) = self.hard_state.vote {
            write!(f, " vote={vote}")?;
        }
        self.damage.as_ref().map_or(Ok(()), |damage| write!(f, "{damage}"))
    }
}
