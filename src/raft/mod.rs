//! The Raft consensus algorithm, sans-I/O.

mod ready;

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftkv_protocol::client::Role;
use raftkv_protocol::peer::Message;
use raftkv_protocol::types::{EntryId, EntryKind, HardState, Incarnation, Index, NodeId, ShardId, Term};

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
    /// For jitter.
    pub seed: u64,
    /// The most bytes of entries in one append, unless a single entry is longer.
    pub append_bytes_max: usize,
    /// The most unanswered bytes of entries to one follower.
    pub inflight_bytes_max: usize,
    /// The most unanswered appends to one follower.
    pub inflight_messages_max: usize,
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
pub struct Raft {}

#[expect(unused_variables, missing_docs, reason = "signatures only")]
impl Raft {
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Raft {
        unimplemented!()
    }
    /// The clock, after the turn's input was handed in.
    pub fn tick(&mut self, now: Instant) {
        unimplemented!()
    }
    /// When `tick` next has something to do.
    pub fn deadline(&self) -> Instant {
        unimplemented!()
    }
    pub fn step(&mut self, message: Message) {
        unimplemented!()
    }
    /// Drains `commands`, each one entry; returns the id of the first (the others follow, of the same term).
    pub fn propose(&mut self, kind: EntryKind, commands: &mut Vec<Bytes>) -> Result<EntryId, ProposeError> {
        unimplemented!()
    }
    /// Queues a linearizable read for the next round.
    pub fn read_index(&mut self, read: ReadId) -> Result<(), NotLeader> {
        unimplemented!()
    }
    /// Whether reads wait for a round to be started.
    pub fn reads_waiting(&self) -> bool {
        unimplemented!()
    }
    /// Whether a round is in flight: started, not confirmed, leadership not lost.
    pub fn read_round_in_flight(&self) -> bool {
        unimplemented!()
    }
    /// Starts the next read round for all queued reads, if there are any. (A core starts the rounds of all its shards together.)
    pub fn start_read_round(&mut self) {
        unimplemented!()
    }
    /// Everything up to and including this write is durable.
    pub fn persisted(&mut self, write: WriteId) {
        unimplemented!()
    }
    /// The state machine has applied up to here.
    pub fn applied(&mut self, index: Index) {
        unimplemented!()
    }
    /// The remote side closed the link on which this node's heartbeats came.
    pub fn link_lost(&mut self, from: NodeId) {
        unimplemented!()
    }
    /// The link to this node was established anew: what was sent before may be lost.
    pub fn link_up(&mut self, to: NodeId) {
        unimplemented!()
    }
    /// Hands leadership to a voter. Given up after an election timeout.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), NotLeader> {
        unimplemented!()
    }
    /// Collects what is to be done; `false` if nothing is. `ready` is cleared first and reused.
    pub fn ready(&mut self, ready: &mut Ready) -> bool {
        unimplemented!()
    }
    pub fn role(&self) -> Role {
        unimplemented!()
    }
    pub fn term(&self) -> Term {
        unimplemented!()
    }
    pub fn leader(&self) -> Option<NodeId> {
        unimplemented!()
    }
    pub fn commit(&self) -> Index {
        unimplemented!()
    }
    pub fn last(&self) -> EntryId {
        unimplemented!()
    }
    pub fn persisted_index(&self) -> Index {
        unimplemented!()
    }
    /// The term of an entry in the log, or of its start.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        unimplemented!()
    }
    /// The leader's view of a follower's log: matched up to here. `None` if not leading or not a voter.
    pub fn matched(&self, node: NodeId) -> Option<Index> {
        unimplemented!()
    }
    /// How many bytes of proposed entries are not committed yet.
    pub fn uncommitted_bytes(&self) -> usize {
        unimplemented!()
    }
}
