//! Disks that lose what they held, for the cluster of the tests, and what must hold in spite of it.

use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{Entry, EntryId, HardState, Index, NodeId};

use super::cluster::{Cluster, Disk};
use super::cluster_log::Log;

/// What is left on a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// The log up to here.
    pub(super) last: Index,
    /// Of all the terms and votes that were ever durable, those but the newest so many are there.
    pub(super) states_lost: usize,
    /// Whether the snapshots are there. Without them nothing is left of a log that starts after one.
    pub(super) snapshots: bool,
}

impl Cluster {
    /// Kills a replica whose disk then holds no more than this, and starts it again, marked as damaged.
    ///
    /// What its process has sent is still on its way to nodes whose links to it are cut, and to them only.
    pub(super) fn damage(&mut self, id: u64, rest: Rest, disk: Disk) {
        self.lose(id, rest);
        self.damaged.insert(id);
        let is_from = |message: &mut Message| message.from == NodeId(id);
        let sent: Vec<Message> = self.network.extract_if(.., is_from).collect();
        self.ghosts.retain(|ghost| ghost.to != NodeId(id));
        let is_reached = |message: &Message| self.cut.contains(&(message.to.0, id));
        self.ghosts.extend(sent.into_iter().filter(is_reached));
        self.start_again(id, disk);
        // Who stood for election and does not know it will not be elected: whoever has voted for it is free.
        let term = self.raft(id).term();
        self.votes.retain(|&(_, voted), &mut candidate| candidate != id || voted <= term);
    }

    fn lose(&mut self, id: u64, rest: Rest) {
        let node = self.node_mut(id);
        node.lost_logs.push(node.durable_log.clone());
        node.durable_log.entries.retain(|entry| entry.id.index <= rest.last);
        if !rest.snapshots {
            node.files.clear();
            if node.durable_log.start != EntryId::ZERO {
                node.durable_log = Log::default();
            }
        }
        let kept = node.past_states.len().saturating_sub(rest.states_lost).max(1);
        node.past_states.truncate(kept);
        node.durable_state = node.past_states.last().copied().unwrap_or(HardState::default());
    }

    /// The oldest message of a process that ended with a damaged disk reaches its receiver. `false` if there is none.
    pub(super) fn deliver_ghost(&mut self) -> bool {
        if self.ghosts.is_empty() {
            return false;
        }
        let ghost = self.ghosts.remove(0);
        self.hand_over(ghost);
        true
    }

    /// Whether a leader may count this node as one that has this entry on its disk, or had it when it said so on a link
    /// that is no more.
    pub(super) fn counts_as_holder(&self, leader: u64, holder: u64, entry: &Entry) -> bool {
        let node = self.node(holder);
        let has = |log: &Log| log.entry(entry.id.index) == Some(entry);
        has(&node.durable_log) || (self.cut.contains(&(leader, holder)) && node.lost_logs.iter().any(has))
    }

    /// One vote a term, over crashes and over what disks lose.
    pub(super) fn check_vote(&mut self, sent: &Message) {
        let candidate = match sent.body {
            Body::VoteReply { granted: true } => sent.to.0,
            Body::Vote { .. } => sent.from.0,
            _ => return,
        };
        let (voter, term) = (sent.from.0, sent.term);
        assert!(!self.damaged.contains(&voter), "a damaged replica votes: {}", self.raft(voter));
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(first, candidate, "n{voter} votes twice in term {term}: {}", self.raft(voter));
    }
}
