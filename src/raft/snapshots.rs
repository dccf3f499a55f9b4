//! Snapshots (Raft paper §7): what of the log a snapshot stands for, and how a follower comes by one.
//!
//! The core knows a snapshot by its name and by the last entry that it covers. Files, state machines and how the bytes
//! travel are the caller's.
//!
//! **The log's start** moves up only to what a durable snapshot covers, and what is durable in the log itself: a leader
//! may commit and apply what its own disk does not have yet.
//!
//! **A leader** offers its newest snapshot to a follower whose next entry is no longer in the log, once and then with
//! every beat that follows an answered heartbeat. Nothing else goes there but heartbeats, until the follower says that
//! its log reaches the start of this one. A follower that has all that is in it is told of it once, so that it knows where
//! there is one should its own state turn out to be wrong.
//!
//! **A follower** that is offered a snapshot mostly needs it. But if its log holds the very entry that the snapshot ends
//! with, the logs agree up to there, and all of it is committed: there is nothing to install, and what follows in the
//! log stays. Else the caller is asked to fetch it ([`Ready::install`](super::Ready::install)), and tells when it has
//! ([`Raft::restore`]). Only then does the log give way, and the same question is asked again: the log may have caught up
//! meanwhile, under another leader even, and what was acknowledged of it must stay.

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, SnapshotMeta};
use raftkv_protocol::types::{EntryId, Index, NodeId};

use super::Raft;
use super::progress::Progress;
use super::terms::Terms;

impl Raft {
    /// A snapshot of what this node has applied is durable: followers are offered it from now on, and the log may be
    /// compacted up to it. `false`, and nothing changes, if there is one of a later entry, or if the log is not durable
    /// up to there (a leader may commit without its own disk): then it is told again when it is.
    pub fn snapshot_taken(&mut self, meta: SnapshotMeta) -> bool {
        let index = meta.at.index;
        let is_durable = index <= self.applied.min(self.persistence.persisted()) && self.terms.matches(meta.at);
        let is_newest = self.snapshot.is_none_or(|known| index >= known.at.index);
        if is_durable && is_newest {
            self.snapshot = Some(meta);
        }
        is_durable && is_newest
    }

    /// The newest snapshot is this, though an earlier one was known: that has turned out not to be what it should. `false`, and
    /// nothing changes, if the log does not go on from it.
    pub fn snapshot_replaced(&mut self, meta: SnapshotMeta) -> bool {
        let is_durable = meta.at.index <= self.applied.min(self.persistence.persisted());
        let goes_on = meta.at.index >= self.terms.start().index && self.terms.matches(meta.at);
        if is_durable && goes_on {
            self.snapshot = Some(meta);
            self.snapshots_replaced += 1;
        }
        is_durable && goes_on
    }

    /// Lets the log start after this entry, and forgets what comes before. `false`, and nothing changes, unless it is
    /// an entry of the log that the snapshot covers: then it is applied, and durable here.
    pub fn compact(&mut self, start: EntryId) -> bool {
        let covered = self.snapshot.map_or(Index(0), |snapshot| snapshot.at.index);
        let may_start = start.index > self.terms.start().index && start.index <= covered && self.terms.matches(start);
        if may_start {
            self.terms.compact(start);
        }
        may_start
    }

    /// Where the log should go on to begin at the latest, as long as there is room for it: with the snapshots that followers
    /// are fetching now they can go on from there. A log that begins later when they have come has them fetch another.
    #[must_use]
    pub fn awaited_from(&self) -> Option<Index> {
        let followers = self.progress.iter().filter(|_| self.role == Role::Leader);
        followers.filter_map(Progress::awaits_from).min()
    }

    /// A snapshot that was fetched is durable and loaded. If it is still ahead of what is committed here, it takes the
    /// place of the log up to its last entry, and of all of the log unless that holds this very entry. Returns whether
    /// the state machine is to be that of the snapshot from now on: everything up to there counts as applied.
    ///
    /// `false`, and nothing changes, if it is not ahead, or if this node is not a follower now: then the snapshot can be
    /// told again when it is, or with the next offer.
    pub fn restore(&mut self, meta: SnapshotMeta) -> bool {
        let at = meta.at;
        let is_ahead = at.index > self.commit && at.term <= self.hard_state.term;
        if self.role != Role::Follower || !is_ahead || self.contradicts(at) {
            return false;
        }
        if !self.terms.matches(at) {
            self.discard_log(meta);
        }
        self.commit = at.index;
        self.applied = at.index;
        // If the log was kept and is not durable up to there yet, the caller tells again when it is.
        self.snapshot_taken(meta);
        // It is committed, and therefore in the log of this term's leader, whoever that is.
        self.verified.covers(at.index);
        true
    }

    /// Starts an empty log after a snapshot. Nothing of it is durable until the write that says so is.
    pub(super) fn discard_log(&mut self, meta: SnapshotMeta) {
        self.terms = Terms::new(meta.at, &[]);
        self.persistence.reset();
        self.out.append.clear();
        self.out.reset = Some((meta.at, meta.id)).filter(|_| !mutant!("reset-not-written"));
        self.snapshot = Some(meta);
    }

    /// InstallSnapshot (§7), without the snapshot: that is fetched if need be.
    pub(super) fn on_snapshot_offer(&mut self, from: NodeId, link: u32, meta: SnapshotMeta) {
        if !self.follow(from) {
            return;
        }
        let at = meta.at;
        if self.contradicts(at) {
            self.dropped_messages += 1;
            return;
        }
        if self.terms.matches(at) {
            // Both logs hold it, so they agree up to it (§5.3), and a snapshot covers committed entries only.
            self.commit = self.commit.max(at.index);
        }
        if at.index <= self.commit || mutant!("offer-taken-for-done") {
            // Everything that is committed here is in the log of this term's leader.
            self.verified.offer_came(link, self.commit);
            self.out.notice = Some((from, meta));
        } else {
            self.verified.offer_waits(link);
            self.out.install = Some((from, meta));
        }
    }

    /// Whether no honest leader has a snapshot that ends with this entry: what is committed never differs, nor does
    /// what this term's leader has shown to be in its log, and terms never fall along a log.
    fn contradicts(&self, at: EntryId) -> bool {
        let known = self.commit.max(self.verified.upto);
        if at.index <= known {
            self.terms.term_at(at.index).is_some_and(|term| term != at.term)
        } else {
            self.terms.term_at(known).is_some_and(|term| term > at.term)
        }
    }

    /// What the follower needs next is no longer in the log: it is offered the snapshot.
    pub(super) fn offer_snapshot(&mut self, at: usize) {
        debug_assert!(self.snapshot.is_some(), "a log that was compacted without a snapshot: {self}");
        if let Some(meta) = self.snapshot {
            self.progress[at].needs_snapshot(meta.at.index);
        }
        self.send_offer(at);
    }

    /// The follower is told of the newest snapshot, if there is one.
    pub(super) fn send_offer(&mut self, at: usize) {
        if let Some(meta) = self.snapshot {
            let Progress { node, link, .. } = self.progress[at];
            self.send(node, Body::Snapshot { link, meta });
        }
    }
}
