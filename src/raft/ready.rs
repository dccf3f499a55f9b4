//! What the Raft core wants done, in the order in which it must be done.

use std::ops::Range;

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Message, SnapshotMeta};
use raftkv_protocol::types::{Entry, EntryId, HardState, Index, NodeId, SnapshotId};

use super::Raft;

/// Names what one [`Ready`] wrote; monotone per shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The caller's name for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadId(pub u64);

/// A read whose leadership was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// Which.
    pub read: ReadId,
    /// It may be served once this is applied.
    pub index: Index,
}

/// A message to send. If it is an append, its entries are empty and named by `entries`; whoever encodes it fills them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// For an append: the indexes of its entries, end exclusive. Empty otherwise.
    pub entries: Range<u64>,
}

/// What is to be done, top to bottom.
#[derive(Debug, Default)]
pub struct Ready {
    /// Write this term and vote to the log.
    pub hard_state: Option<HardState>,
    /// Discard the shard's log: it starts after this entry, which this snapshot ends with.
    pub reset: Option<(EntryId, SnapshotId)>,
    /// Append these to the log; the first discards everything from its index on.
    pub append: Vec<Entry>,
    /// The name of what this ready writes, if it writes anything or has `after_sync` messages: told back by
    /// `Raft::persisted` when it and everything before it is durable.
    pub write: Option<WriteId>,
    /// These may leave now.
    pub messages: Vec<Outgoing>,
    /// These leave after `write` is durable, or at least its term and vote and those before.
    pub after_sync: Vec<Outgoing>,
    /// Apply up to here.
    pub commit: Index,
    /// These reads may be served when their index is applied.
    pub reads: Vec<ReadReady>,
    /// These reads will never be confirmed: leadership was lost.
    pub reads_dropped: Vec<ReadId>,
    /// This node is offering this snapshot, and this replica needs one: fetch it, then call `Raft::restore`. It is
    /// offered again, or a newer one is, by this node or another, until that was done: whoever is at it already may go
    /// on with what it has begun, and whoever failed begins anew.
    pub install: Option<(NodeId, SnapshotMeta)>,
    /// This node has this snapshot, and this replica has all that is in it.
    pub notice: Option<(NodeId, SnapshotMeta)>,
}

impl Ready {
    /// Empties it and keeps its memory.
    fn clear(&mut self) {
        self.hard_state = None;
        self.reset = None;
        self.append.clear();
        self.write = None;
        self.messages.clear();
        self.after_sync.clear();
        self.reads.clear();
        self.reads_dropped.clear();
        self.install = None;
        self.notice = None;
    }

    fn is_idle(&self) -> bool {
        let has_reads = !self.reads.is_empty() || !self.reads_dropped.is_empty();
        self.write.is_none()
            && self.messages.is_empty()
            && !has_reads
            && self.install.is_none()
            && self.notice.is_none()
    }
}

/// What gathers for the next [`Ready`].
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The log starts anew, before `append`.
    pub(super) reset: Option<(EntryId, SnapshotId)>,
    /// New entries, consecutive, the last one the end of the log.
    pub(super) append: Vec<Entry>,
    /// May leave at once.
    pub(super) messages: Vec<Outgoing>,
    /// Wait for what has been written when they leave.
    pub(super) after_sync: Vec<Outgoing>,
    pub(super) reads: Vec<ReadReady>,
    pub(super) reads_dropped: Vec<ReadId>,
    /// The newest offer of a snapshot that is needed.
    pub(super) install: Option<(NodeId, SnapshotMeta)>,
    /// The newest that is not.
    pub(super) notice: Option<(NodeId, SnapshotMeta)>,
    /// The commit index that was handed out last.
    commit: Index,
}

impl Raft {
    /// Collects what is to be done; `false` if nothing is. `ready` is cleared first and reused.
    pub fn ready(&mut self, ready: &mut Ready) -> bool {
        ready.clear();
        self.send_durable_answers();
        self.try_to_heal();
        match self.role {
            Role::Leader => self.send_appends(),
            _ => self.acknowledge(),
        }
        let out = &mut self.out;
        std::mem::swap(&mut out.append, &mut ready.append);
        std::mem::swap(&mut out.messages, &mut ready.messages);
        std::mem::swap(&mut out.after_sync, &mut ready.after_sync);
        std::mem::swap(&mut out.reads, &mut ready.reads);
        std::mem::swap(&mut out.reads_dropped, &mut ready.reads_dropped);
        ready.install = out.install.take().filter(|(_, meta)| meta.at.index > self.commit);
        ready.notice = out.notice.take();
        ready.reset = out.reset.take();
        ready.hard_state = self.persistence.take_unwritten(self.hard_state);
        let has_records = ready.hard_state.is_some() || ready.reset.is_some() || !ready.append.is_empty();
        if has_records || !ready.after_sync.is_empty() {
            ready.write = Some(self.persistence.begin(self.terms.last()));
        }
        ready.commit = self.commit;
        let committed = std::mem::replace(&mut self.out.commit, self.commit) != self.commit;
        committed || !ready.is_idle()
    }

    /// Everything up to and including this write is durable.
    pub fn persisted(&mut self, write: WriteId) {
        self.persistence.complete(write);
        match self.role {
            Role::Leader => {
                self.advance_commit();
                self.hand_over_if_ready();
            }
            Role::Candidate => self.count_own_vote(),
            Role::Follower | Role::PreCandidate | Role::Learner => {}
        }
    }

    /// This term and vote are durable, ahead of the entries that were written before them. Returns the last write whose
    /// `after_sync` messages may leave, if it is not persisted yet: what they promise is a vote and no entry.
    pub fn hard_state_persisted(&mut self, hard_state: HardState) -> Option<WriteId> {
        let write = self.persistence.went_ahead(hard_state);
        if self.role == Role::Candidate {
            self.count_own_vote();
        }
        write
    }
}
