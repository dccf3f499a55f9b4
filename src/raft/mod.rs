//! The Raft consensus algorithm, sans-I/O.
//!
//! One [`Raft`] is one replica of one group. It is a deterministic state machine: messages ([`Raft::step`]), the clock
//! ([`Raft::tick`]), proposals, reads and completions of writes go in, and one reused [`Ready`] comes out that says
//! what is to be written, sent, applied and answered, in the order in which that must happen. It knows no file, socket,
//! clock, thread or source of randomness; it keeps no entry bodies (they pass through to the log) but only the term
//! and the size of each entry. The same inputs give the same outputs, on every machine.
//!
//! # The protocol
//!
//! Section numbers are those of the extended Raft paper (Ongaro and Ousterhout, 2014), or of Ongaro's thesis where said.
//!
//! **Elections** (§5.2, §5.4.1). Time is divided into terms, each with at most one leader. A follower that hears
//! nothing for a random wait in [T, 1.5 T) first asks in a *pre-vote* whether it could win (thesis §9.6) and changes no
//! term for it, so that a node that comes back from a partition disturbs nobody. With a majority of yeses it enters the
//! next term, votes for itself and asks for votes. A voter votes once a term, and only for a log at least as good as
//! its own. Whoever heard from a leader within T does not help to depose it (*stickiness*), and a leader that does not
//! hear from a majority within T steps down (*check-quorum*).
//!
//! **A broken link** is a hint. When the remote side closes the link on which the leader's heartbeats came
//! ([`Raft::link_lost`]) the leader's process most likely died. A follower then gives up its stickiness for this leader
//! and asks for pre-votes within 20 ms, a few times if need be. The other voters hold on to theirs unless they lost their own
//! link: a majority that lost the leader replaces it within milliseconds, and a single cut link changes nothing.
//!
//! **Replication** (§5.3). The leader appends what is proposed to its log and sends it to the followers at once, while
//! its own disk writes; appends are pipelined within limits of bytes and messages (`progress.rs`). Each names the entry
//! before its first; a follower whose log differs there refuses and says where the logs may still agree, and both sides
//! skip whole terms to find the place. Entries that match are never written again; only a conflict truncates.
//!
//! **Commitment** (§5.3, §5.4.2). An entry is committed when a majority has it on disk, and it or an entry after it is
//! of the leader's own term. The leader's disk counts like any other. A new leader appends an empty entry to get there.
//!
//! **Durability.** What a response promises must be durable before it leaves. Votes and requests for them are handed
//! out as `after_sync` of a named write. An answer that carries a term that is not durable yet waits until it is
//! (`step.rs`). Append acknowledgements are made only from what is durable when they leave (`follower.rs`); completions
//! of writes are protected against truncation and regrowth of the log in between (`persistence.rs`). Appends, heartbeats and
//! pre-votes promise nothing and leave at once: a leader's term is durable since its election.
//!
//! **Snapshots** (§7). The state machine's owner takes snapshots of what is applied; the log may then start later
//! ([`Raft::compact`]). A follower that needs what is no longer in the log is offered the newest snapshot. The bytes do
//! not pass through here: the follower's owner fetches them, and tells when the snapshot is durable and loaded
//! ([`Raft::restore`]), whereupon the log is discarded and starts after it, unless it has what the snapshot covers
//! (`snapshots.rs`). The offer is answered like an append, when the new start of the log is durable.
//!
//! **Reads** (thesis §6.4) are linearizable without the log: one round of heartbeats confirms the leadership for all
//! reads that wait (`reads.rs`).
//!
//! **Leases** (thesis §6.4.1), where they are on, let a leader read without a round for as long as a majority has promised
//! to elect nobody else (`lease.rs`).
//!
//! **Handing over** (thesis §3.10): the leader brings the target up to date, takes no proposals meanwhile, and tells it
//! to stand for election at once when everything is committed.
//!
//! **A damaged disk** ([`Recovered::damaged`]) may have lost entries, terms and votes that this node has answered for. Until
//! its peers have made up for that it elects nobody, and what it says does not count (`damaged.rs`).
//!
//! **Who should not lead** is told from outside ([`Raft::set_candidacy`]): a node that leads only if nobody else does
//! waits longer before it stands for election, and one that must not lead never stands. Votes are given as ever.
//!
//! # Not implemented
//!
//! Membership changes (§6): the configuration is static, though votes and quorums are already counted over joint
//! configurations and learners (`quorum.rs`). Client sessions (§8) belong to the state machine.

#![deny(clippy::iter_over_hash_type)]

mod candidate;
mod damaged;
mod follower;
pub mod invariants;
mod leader;
mod lease;
mod persistence;
mod progress;
mod quorum;
mod reads;
mod ready;
mod snapshots;
mod status;
mod step;
mod terms;
mod timing;
mod voter;

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod cluster_damage;
#[cfg(test)]
mod cluster_log;
#[cfg(test)]
mod damaged_test;
#[cfg(test)]
mod election_test;
#[cfg(test)]
mod hostile_test;
#[cfg(test)]
mod lease_test;
#[cfg(test)]
mod links_test;
#[cfg(test)]
mod quorum_test;
#[cfg(test)]
mod random_test;
#[cfg(test)]
mod read_test;
#[cfg(test)]
mod replication_test;
#[cfg(test)]
mod script_test;
#[cfg(test)]
mod slow_test;
#[cfg(test)]
mod snapshots_test;
#[cfg(test)]
mod solo;
#[cfg(test)]
mod terms_test;
#[cfg(test)]
mod timing_test;
#[cfg(test)]
mod transfer_test;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftkv_protocol::client::Role;
use raftkv_protocol::peer::{Body, Message, SnapshotMeta};
use raftkv_protocol::types::{Entry, EntryId, HardState, Incarnation, Index, NodeId, ShardId, Term};

use candidate::Cause;
use damaged::Damage;
use follower::Verified;
use leader::{LeaderTimes, Transfer};
use lease::Bond;
use persistence::Persistence;
use progress::Progress;
use quorum::Configuration;
use reads::Reads;
use ready::Outbox;
use terms::Terms;
use timing::ElectionTimer;

pub use candidate::Candidacy;
pub use lease::{LeaseCounts, Leases};
pub use ready::{Outgoing, ReadId, ReadReady, Ready, WriteId};

/// What a Raft instance is told when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// The group.
    pub shard: ShardId,
    /// The voters, this node among them.
    pub voters: Vec<NodeId>,
    /// Fresh at every start of the process; part of every read context.
    pub incarnation: Incarnation,
    /// How often a leader sends heartbeats. All shards of a core send on the same beat: multiples of this after `epoch`.
    pub heartbeat: Duration,
    /// T: waits are drawn from [T, 1.5 T); stickiness and check-quorum use T.
    pub election_timeout: Duration,
    /// Where the beat is counted from.
    pub epoch: Instant,
    /// This node should lead if nobody does: its first wait after the start is drawn from [T/4, T/2) instead.
    pub preferred: bool,
    /// For jitter.
    pub seed: u64,
    /// The most bytes of entries in one append, unless a single entry is longer.
    pub append_bytes_max: usize,
    /// The most unanswered bytes of entries to one follower.
    pub inflight_bytes_max: usize,
    /// The most unanswered appends to one follower.
    pub inflight_messages_max: usize,
    /// Whether reads are answered by the clock.
    pub leases: Leases,
}

/// What the log remembered.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The durable term and vote.
    pub hard_state: HardState,
    /// The entry before the first in the log (0@0 without a snapshot).
    pub start: EntryId,
    /// Term and body size of every entry after `start`, in order, all durable.
    pub entries: Vec<(Term, u32)>,
    /// The snapshot that the state machine was loaded from, `None` if it is empty. It covers at least what comes before
    /// the log; if the log does not hold its last entry (the node ended while it was being installed), the log is
    /// discarded, and starts after it.
    pub snapshot: Option<SnapshotMeta>,
    /// All of this may be less than what this node has once written: acknowledged entries, votes and terms may be
    /// missing at the end. It repairs itself with the help of its peers (`damaged.rs`); who has none cannot.
    pub damaged: bool,
}

/// Why a proposal was not accepted: it never entered the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// This node does not lead; this one does, if known.
    NotLeader(Option<NodeId>),
    /// Leadership is being handed to this node.
    Transferring(NodeId),
}

/// This node does not lead; this one does, if known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeader(pub Option<NodeId>);

/// One replica of one Raft group.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    configuration: Configuration,
    /// The clock of the last tick.
    now: Instant,

    /// Term and vote, durable or not.
    hard_state: HardState,
    /// The log, durable or not.
    terms: Terms,
    persistence: Persistence,
    commit: Index,
    applied: Index,
    /// The newest snapshot. The log starts after an entry that it covers.
    snapshot: Option<SnapshotMeta>,
    /// How often an earlier one has taken its place.
    snapshots_replaced: u64,

    /// Never `Learner`: that is a follower without a vote.
    role: Role,
    /// Who leads this term.
    leader: Option<NodeId>,
    /// The leader's link was closed by the other side, and nothing was heard from it since.
    leader_link_lost: bool,
    timer: ElectionTimer,
    /// What this node has promised to leaders.
    bond: Bond,
    /// Requests to depose the leader that came since the last tick: at most one of each peer.
    held_votes: Vec<Message>,
    /// As a follower: what of this log is known to be the leader's.
    verified: Verified,
    /// Answers of this term, to these peers, that wait for it to be durable: at most one of a kind to each.
    unsent_answers: Vec<(NodeId, Body)>,

    /// As a (pre-)candidate: who answered what, and why there is an election.
    votes: BTreeMap<NodeId, bool>,
    cause: Cause,
    candidacy: Candidacy,

    /// As a leader: its view of every other member, ascending by node.
    progress: Vec<Progress>,
    leader_times: LeaderTimes,
    reads: Reads,
    transfer: Option<Transfer>,
    /// It has told another node to stand for election in this term.
    has_stood_aside: bool,
    lease_counts: LeaseCounts,
    uncommitted_bytes: usize,

    /// What is still to be made up for, if the disk has lost something.
    damage: Option<Damage>,

    out: Outbox,
    dropped_messages: u64,
    elections_started: u64,
}

impl Raft {
    /// A replica as it comes back from its disk: a follower, for now.
    ///
    /// # Panics
    ///
    /// If the log begins after what the snapshot covers: the state in between is not there, and would be missed. If the
    /// replica is damaged and has no peers: nobody can tell it what it has lost.
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Raft {
        let Recovered { hard_state, start, entries, snapshot, damaged } = recovered;
        let covered = snapshot.map_or(EntryId::ZERO, |snapshot| snapshot.at);
        assert!(start.index <= covered.index, "the log begins after {start}, the state ends with {covered}");
        let terms = Terms::new(start, &entries);
        let last = terms.last();
        // A vote belongs to its term. What is ahead of it proves a later term, in which this node did not vote.
        let term = last.term.max(covered.term);
        let term_or_later = if term > hard_state.term { HardState { term, vote: None } } else { hard_state };
        let configuration = Configuration::new(&config.voters, &[], &[]);
        let damage = damaged.then(|| Damage::new(config.id, &config.voters));
        let peers = configuration.members().into_iter().filter(|&node| node != config.id);
        let seed = config.seed ^ config.id.0.rotate_left(32) ^ u64::from(config.shard.0);
        let mut raft = Raft {
            now,
            hard_state: term_or_later,
            persistence: Persistence::new(last.index, hard_state),
            commit: if mutant!("restart-commits-all") { last.index.max(covered.index) } else { covered.index },
            applied: covered.index,
            snapshot,
            snapshots_replaced: 0,
            role: Role::Follower,
            leader: None,
            leader_link_lost: false,
            timer: ElectionTimer::new(config.election_timeout, seed, now),
            bond: Bond::after_start(now, config.leases.promised_before),
            held_votes: Vec::new(),
            verified: Verified::default(),
            unsent_answers: Vec::new(),
            votes: BTreeMap::new(),
            cause: Cause::Timeout,
            candidacy: Candidacy::Willing,
            progress: peers.map(Progress::new).collect(),
            leader_times: LeaderTimes::default(),
            reads: Reads::default(),
            transfer: None,
            has_stood_aside: false,
            lease_counts: LeaseCounts::default(),
            uncommitted_bytes: 0,
            damage,
            out: Outbox::default(),
            dropped_messages: 0,
            elections_started: 0,
            terms,
            configuration,
            config,
        };
        if let Some(meta) = snapshot
            && !raft.terms.matches(meta.at)
            && !mutant!("cut-short-install-ignored")
        {
            raft.discard_log(meta);
        }
        if raft.progress.is_empty() {
            // Nobody else could lead, and nobody was promised anything.
            raft.bond = Bond::default();
            raft.timer.fire_now();
        } else if raft.config.preferred {
            raft.timer.go_first();
        }
        raft
    }

    /// The clock, after the turn's input was handed in.
    pub fn tick(&mut self, now: Instant) {
        let was_paused = now.saturating_duration_since(self.now) > self.config.election_timeout;
        self.now = self.now.max(now);
        self.timer.settle(self.now);
        self.bond.settle(self.now, self.config.leases.kept());
        self.judge_held_votes();
        self.timer.settle(self.now);
        self.tick_damage();
        if self.role == Role::Leader {
            self.tick_leader(was_paused);
        } else if self.timer.is_due(self.now) && !self.puts_off_election() {
            self.stand_for_election();
        }
        self.timer.settle(self.now);
    }

    /// When `tick` next has something to do. In the past if input came since the last tick that waits for the time.
    pub fn deadline(&self) -> Instant {
        if self.timer.is_unsettled() || self.bond.is_unsettled() || !self.held_votes.is_empty() {
            return self.now;
        }
        if self.role != Role::Leader {
            let at = self.timer.deadline();
            return self.ask_again_at().map_or(at, |again| again.min(at));
        }
        let Some(earliest) = self.leader_times.earliest() else { return self.now };
        match self.transfer {
            Some(transfer) => transfer.deadline().map_or(self.now, |at| at.min(earliest)),
            None => earliest,
        }
    }

    /// The state machine has applied up to here.
    pub fn applied(&mut self, index: Index) {
        debug_assert!(index <= self.commit, "applied {index} beyond commit {}", self.commit);
        self.applied = self.applied.max(index);
    }

    /// The link to this node was established anew: what was sent before may be lost, and what it has said before may
    /// have been forgotten there since.
    pub fn link_up(&mut self, to: NodeId) {
        self.held_votes.retain(|held| held.from != to);
        self.unsent_answers.retain(|(peer, _)| *peer != to);
        if let Some(progress) = self.progress_mut(to) {
            progress.link_up();
        }
        if self.leader == Some(to) {
            self.verified.link_up();
        }
        self.ask_for_vote(to);
        self.ask_for_term(to);
    }

    /// Adds an entry to the end of the log, whoever made it.
    fn append_entry(&mut self, entry: Entry) {
        let size = u32::try_from(entry.body.len()).unwrap_or(u32::MAX);
        let id = self.terms.push(entry.id.term, size);
        debug_assert_eq!(id, entry.id, "entries are appended at the end");
        self.out.append.push(entry);
    }

    fn position(&self, node: NodeId) -> Option<usize> {
        self.progress.binary_search_by_key(&node, |progress| progress.node).ok()
    }

    fn progress_of(&self, node: NodeId) -> Option<&Progress> {
        self.position(node).map(|at| &self.progress[at])
    }

    fn progress_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.position(node).map(|at| &mut self.progress[at])
    }
}
