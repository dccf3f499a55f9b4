//! Which nodes are *admitted*: every shard of theirs has had a leader, so that their log holds what was committed.
//!
//! A node that is not may be one that has lost its disk, and with it votes and entries that others count on. Those who
//! knew it before refuse it, but one that never met it cannot know. So such a node is careful by itself with peers that
//! are admitted:
//!
//! - It gives them no vote: together they might be a majority that has forgotten a committed entry.
//! - It follows them only after more than half of the others have welcomed it: a leader that knows of no other node
//!   under this id may be one that the others, together with this very node, have replaced long ago. In a cluster of
//!   three more than half are all, and nobody is left who could have counted a word that it has forgotten.
//!
//! A young cluster, in which nobody is admitted, elects its first leaders.

use std::sync::atomic::{AtomicBool, Ordering};

use raftkv_protocol::hello::FEATURE_ADMITTED;
use raftkv_protocol::peer::Body;
use raftkv_protocol::types::{EntryId, NodeId};

/// See the module.
#[derive(Debug)]
pub struct Admission {
    own: AtomicBool,
    peers: Vec<Known>,
}

/// What is known of a peer.
#[derive(Debug)]
struct Known {
    node: NodeId,
    admitted: AtomicBool,
    /// It has welcomed this process: it knows no other node under this id.
    has_welcomed: AtomicBool,
}

impl Admission {
    /// As the data directory remembers it; of the peers nothing is known yet.
    #[must_use]
    pub fn new(own: bool, peers: impl Iterator<Item = NodeId>) -> Admission {
        let unknown = |node| Known { node, admitted: AtomicBool::new(false), has_welcomed: AtomicBool::new(false) };
        Admission { own: AtomicBool::new(own), peers: peers.map(unknown).collect() }
    }

    /// Whether this node is admitted.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// It is, from now on. The data directory must know it before.
    pub fn admit(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether this node may listen to what a peer asks it for: its vote, or to follow.
    #[must_use]
    pub fn may_heed(&self, from: NodeId, body: &Body) -> bool {
        match body {
            // Who has lost part of its log asks for no more than the term, and gets no vote for it.
            Body::PreVote { last, .. } if *last == EntryId::ZERO => true,
            Body::PreVote { .. } | Body::Vote { .. } => self.may_vote_for(from) || mutant!("admission-ignored"),
            Body::Append { .. } | Body::Snapshot { .. } | Body::Heartbeat { .. } | Body::TimeoutNow => {
                self.may_follow(from) || mutant!("stranger-followed")
            }
            _ => true,
        }
    }

    fn may_vote_for(&self, candidate: NodeId) -> bool {
        self.is_admitted() || !self.is_peer_admitted(candidate)
    }

    fn may_follow(&self, leader: NodeId) -> bool {
        self.may_vote_for(leader) || self.is_vouched_for()
    }

    fn is_peer_admitted(&self, node: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.node == node && peer.admitted.load(Ordering::Relaxed))
    }

    /// Every majority that a node under this id was part of has a member among more than half of the others. Where
    /// fewer than those can be reached nothing is lost by waiting: they need this node's vote too, to have a leader.
    fn is_vouched_for(&self) -> bool {
        let welcomed = self.peers.iter().filter(|peer| peer.has_welcomed.load(Ordering::Relaxed)).count();
        welcomed * 2 > self.peers.len()
    }

    /// What a hello or a welcome of `node` says of it. Who is admitted stays so: a hello that says otherwise was written
    /// before, and was long on its way.
    pub fn note_peer(&self, node: NodeId, features: u64) {
        if features & FEATURE_ADMITTED != 0 {
            self.note_admitted(node);
        }
    }

    /// `node` is admitted.
    pub fn note_admitted(&self, node: NodeId) {
        if let Some(peer) = self.peers.iter().find(|peer| peer.node == node) {
            peer.admitted.store(true, Ordering::Relaxed);
        }
    }

    /// `node` has welcomed this node.
    pub fn note_welcome(&self, node: NodeId) {
        if let Some(peer) = self.peers.iter().find(|peer| peer.node == node) {
            peer.has_welcomed.store(true, Ordering::Relaxed);
        }
    }

    /// What this node's hellos and welcomes say of its admission.
    #[must_use]
    pub fn features(&self) -> u64 {
        if self.is_admitted() { FEATURE_ADMITTED } else { 0 }
    }
}
