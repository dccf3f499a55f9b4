//! One core's share of a node without its sockets: finds out who serves a request, hands it there, and brings the reply back.
//!
//! The router owns the core's shards and their log. It is told the time and handed decoded frames; what it says leaves
//! through a [`Transport`]. Whatever a turn brings in is taken in first, then [`Router::finish_turn`] drives each
//! touched shard once. Because no socket and no clock is in here, a simulator can run it as it is.
//!
//! A request goes to the shard's leader: here, on another core of this node, or on another node, to which it is
//! forwarded at most once. Where no leader is known, or the one that was asked says a definite *no*, the request is
//! parked until a leader shows up or its deadline passes.

mod dispatch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, Operation, Refusal};
use raftkv_protocol::frame;
use raftkv_protocol::peer::{Body, Forward, Message, PeerFrame};
use raftkv_protocol::types::{CoreId, EntryId, NodeId, ShardId, Slot};

use crate::error::Fatal;
use crate::metrics::Counters;
use crate::metrics::figures::Measures;
use crate::metrics::requests::Requests;
use crate::metrics::stopwatch::Stopwatch;
use crate::shard::snapshots::Snapshots;
use crate::shard::{Outbox, Shard};
use crate::storage::CoreLog;

use super::calls::{decode_reply, is_read};
use super::desk::Desk;
use super::exit::Exit;
use super::message::{CoreMessage, Origin, ReplyTo};
use super::news::Told;
use super::node::Node;
use super::snapshots::SnapshotDesk;
use super::transport::Transport;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(50);
/// After so long a read round no longer keeps the other shards' reads waiting.
const ROUND_PATIENCE: Duration = Duration::from_millis(20);

/// What whoever forwarded a request is told.
pub(super) const NOT_LED_HERE: &str = "this node does not lead the key's shard; nothing was written";

/// A request on its way to whoever serves it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What is asked.
    pub operation: Operation<'a>,
    /// The shard it is for.
    pub shard: ShardId,
    /// Who waits.
    pub to: ReplyTo,
    /// Until when.
    pub deadline: Instant,
}

/// One core of a node.
#[derive(Debug)]
pub struct Router<L> {
    pub(super) node: Arc<Node>,
    pub(super) core: CoreId,
    pub(super) shards: Vec<Shard<ReplyTo>>,
    /// By position in `shards`: has something to do this turn.
    pub(super) touched: Vec<bool>,
    pub(super) log: L,
    pub(super) desk: Desk,
    pub(super) snapshots: SnapshotDesk,
    round_started: Instant,
    next_sweep: Instant,
    /// Bytes of writes that wait for a majority, in all shards: as of the last turn, and taken in since.
    uncommitted_bytes: usize,
    pub(super) told: Told,
    /// The node's disk is not well: it leads only what nobody else does.
    pub(super) is_reluctant: bool,
    /// What this core counts.
    pub counters: Counters,
    /// What became of the requests that came to this core.
    pub(super) requests: Box<Requests>,
    /// What this core measures.
    pub(super) measures: Box<Measures>,
    /// What it measures its own work with: whoever owns the router says whether there is one.
    pub(super) stopwatch: Stopwatch,
}

impl<L: CoreLog> Router<L> {
    /// A core with its shards, in the order of their ids, and their log. `serial` is where the names of forwarded
    /// requests begin: drawn at random, so that answers meant for an earlier process meet nobody. `snapshots` is the
    /// core's end of its snapshot worker.
    pub fn new(
        node: Arc<Node>,
        core: CoreId,
        shards: Vec<Shard<ReplyTo>>,
        log: L,
        snapshots: Snapshots,
        serial: u64,
        now: Instant,
    ) -> Self {
        let touched = vec![true; shards.len()];
        let desk = Desk::new(serial, &node.config.limits, now);
        let told = Told::new(&node.peers, shards.len(), node.config.heartbeat, now);
        let snapshots = SnapshotDesk::new(snapshots, &node.config.limits, now);
        Router {
            told,
            is_reluctant: false,
            node,
            core,
            shards,
            touched,
            log,
            desk,
            snapshots,
            round_started: now,
            next_sweep: now + SWEEP,
            uncommitted_bytes: 0,
            counters: Counters::default(),
            requests: Box::default(),
            measures: Box::default(),
            stopwatch: Stopwatch::default(),
        }
    }

    /// The core's shards, to look at.
    #[must_use]
    pub fn shards(&self) -> &[Shard<ReplyTo>] {
        &self.shards
    }

    /// The core's shards, to hand leadership on; the shards are driven at the end of the turn.
    pub fn shards_mut(&mut self) -> &mut [Shard<ReplyTo>] {
        self.touched.fill(true);
        &mut self.shards
    }

    /// The core's log, to look at.
    #[must_use]
    pub fn log(&self) -> &L {
        &self.log
    }

    /// The core's log, for whoever moves it by hand.
    pub fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    /// Ends the router; the log is to be closed.
    #[must_use]
    pub fn into_log(self) -> L {
        self.log
    }

    /// Begins a turn, before anything is taken in.
    pub fn begin_turn(&mut self, now: Instant) {
        self.desk.set_now(now);
    }

    /// Takes in a client's request that passed the limits.
    pub fn request(&mut self, operation: Operation<'_>, to: ReplyTo, now: Instant, transport: &mut impl Transport) {
        self.counters.requests += 1;
        if self.node.is_stopping() && self.node.config.initial_cluster.len() == 1 {
            let message = "this node is being stopped; nothing was read or written";
            return self.refuse(to, Code::NotReady, None, message, transport);
        }
        let deadline = now + self.node.config.limits.request_timeout;
        match operation {
            Operation::Put { key, .. } | Operation::Delete { key, .. } | Operation::Get { key, .. } => {
                let shard = Slot::of(key).shard(self.node.config.shards);
                self.call(Call { operation, shard, to, deadline }, transport);
            }
            Operation::Batch(batch) => self.batch(batch, to, deadline, transport),
            Operation::Scan(scan) => self.scan(scan, to, deadline, transport),
            Operation::Slots => {
                let table = self.node.slot_table();
                self.exit(transport).reply(to, EntryId::ZERO, Ok(Answer::Slots(table)));
            }
            Operation::Status => self.look(to, deadline, transport),
            Operation::Ping => self.exit(transport).reply(to, EntryId::ZERO, Ok(Answer::Pong)),
            Operation::Snapshot { wait_ms } => self.snapshots_asked(wait_ms, to, now, transport),
            _ => self.refuse(to, Code::BadRequest, None, "this server does not know the operation", transport),
        }
    }

    /// Takes in a frame of a peer's link.
    pub fn peer_frame(
        &mut self,
        from: NodeId,
        peer_frame: PeerFrame<'_>,
        now: Instant,
        transport: &mut impl Transport,
    ) {
        match peer_frame {
            PeerFrame::Message(message) => self.raft_message(from, message, transport),
            PeerFrame::Forward(Forward { id, shard, operation, timeout_ms }) => {
                if shard.0 >= self.node.config.shards {
                    self.counters.messages_bad += 1;
                    return;
                }
                let patience =
                    Duration::from_millis(u64::from(timeout_ms)).min(self.node.config.limits.request_timeout);
                let to = ReplyTo { core: self.core, origin: Origin::Peer { node: from, id } };
                self.call(Call { operation, shard, to, deadline: now + patience }, transport);
            }
            PeerFrame::ForwardReply(reply) if reply.id.core == self.core => self.forward_reply(reply, transport),
            PeerFrame::ForwardReply(reply) => {
                let core = CoreId(reply.id.core.0 % self.node.config.cores);
                let mut bytes = Vec::new();
                PeerFrame::ForwardReply(reply).encode(&mut bytes);
                transport.answer(core, CoreMessage::ForwardReply(bytes));
            }
            PeerFrame::Health(health) => self.node.health.note_peer(from, health.disk),
            PeerFrame::Checkpoints(checkpoints) => self.take_checkpoints(from, &checkpoints, transport),
            _ => self.counters.messages_bad += 1,
        }
    }

    /// Takes in what another core of this node says.
    pub fn core_message(&mut self, message: CoreMessage, transport: &mut impl Transport) {
        match message {
            CoreMessage::Call(call) => self.owned_call(&call, transport),
            CoreMessage::Reply { origin, frame } => {
                let Some(reply) = decode_reply(&frame) else { return };
                let to = ReplyTo { core: self.core, origin };
                self.exit(transport).reply(to, reply.at, reply.result);
            }
            CoreMessage::Raft(message) => self.raft_message(message.from, message, transport),
            CoreMessage::ForwardReply(bytes) => {
                if let Ok(Some(found)) = frame::parse(&bytes, frame::PEER_FRAME_MAX)
                    && let Ok(PeerFrame::ForwardReply(reply)) = PeerFrame::decode(found.kind, found.payload)
                {
                    self.forward_reply(reply, transport);
                }
            }
            CoreMessage::LinkLost(node) => self.link_lost(node),
            CoreMessage::Checkpoints { from, checkpoints } => {
                checkpoints.into_iter().for_each(|checkpoint| self.note_checkpoint(from, checkpoint));
            }
            CoreMessage::SnapshotRotten(shard, id) => self.snapshot_rotten(shard, id),
            CoreMessage::SnapshotsAsked { core, job } => self.demand_snapshots(core, job),
            CoreMessage::SnapshotsPart { job, snapshots } => self.snapshots_part(job, snapshots, transport),
            CoreMessage::StatusAsked { core, job, wanted } => {
                let status = Box::new(self.own_status(wanted));
                transport.answer(core, CoreMessage::StatusPart { job, status });
            }
            CoreMessage::StatusPart { job, status } => self.status_part(job, *status, transport),
        }
    }

    /// The remote side closed a link on which this core's messages from `node` came.
    pub fn link_lost(&mut self, node: NodeId) {
        for shard in &mut self.shards {
            shard.raft_mut().link_lost(node);
        }
        self.touched.fill(true);
    }

    /// This core's own link to `node` is up, after it was down.
    pub fn link_up(&mut self, node: NodeId) {
        self.told.link_up(node);
        for shard in &mut self.shards {
            shard.raft_mut().link_up(node);
        }
        self.touched.fill(true);
    }

    /// This core's own link to `node` broke. Whatever was forwarded on it may or may not have arrived: a write is
    /// unknown and never sent again, a read is.
    pub fn link_down(&mut self, node: NodeId, transport: &mut impl Transport) {
        self.told.link_down(node);
        for forwarded in self.desk.take_forwards_to(node) {
            if is_read(&forwarded.call.frame) {
                self.exit(transport).park(forwarded.call);
            } else {
                let message = "the link to the leader broke before it answered; the write may or may not take effect";
                self.refuse(forwarded.call.to, Code::Timeout, None, message, transport);
            }
        }
    }

    /// Ends a turn whose input is drained, `now` being read after that: ticks, starts read rounds, drives every touched shard, hands the log's
    /// batch over. An error ends the node.
    pub fn finish_turn(&mut self, now: Instant, transport: &mut impl Transport) -> Result<(), Fatal> {
        let read_by = if mutant!("lease-judged-before-reading") { self.desk.now() } else { now };
        if let Some(words) = self.snapshots.worker.failure().or_else(|| self.node.records.failure()) {
            return Err(Fatal::failure(words));
        }
        while let Some(fetched) = self.log.fetched() {
            let at = self.position(fetched.fetch.shard);
            let (shard, log, mut exit) = self.parts(at, transport);
            shard.fetched(fetched, log, &mut exit)?;
            self.touched[at] = true;
        }
        self.take_snapshot_results(now, transport);
        self.settle_snapshots(now, transport);
        for (shard, touched) in self.shards.iter_mut().zip(&mut self.touched) {
            if shard.raft().deadline() <= now {
                shard.raft_mut().tick(now);
                *touched = true;
            }
            *touched |= shard.awaits_disk() || shard.has_more_to_apply();
        }
        self.heed_disk();
        self.sweep(now, transport);
        self.retry_parked(now, transport);
        self.serve_by_leases(read_by, transport);
        self.start_read_rounds(now);
        self.drive_touched(transport)?;
        self.compare_states(now);
        // A shard whose leadership was just confirmed, or that has just committed the first entry of its term, may have
        // made room for the next round; its heartbeats leave in this turn.
        self.start_read_rounds(now);
        self.drive_touched(transport)?;
        self.finish_scans(transport);
        self.gather_figures(transport);
        self.tend_snapshots(now, transport);
        self.uncommitted_bytes = self.shards.iter().map(Shard::uncommitted_bytes).sum();
        self.tell_peers(now, transport);
        self.log.flush();
        Ok(())
    }

    /// Whether the next turn must not wait: something was left undone.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.touched.iter().any(|touched| *touched)
            || self.shards.iter().any(Shard::has_more_to_apply)
            || self.desk.has_retries()
            || self.desk.gathers.has_finished()
            || self.snapshots.is_busy()
    }

    /// When the next turn is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let ticks = self.shards.iter().map(|shard| shard.raft().deadline());
        let sweep =
            if self.desk.is_empty() && self.shards.iter().all(Shard::is_idle) { None } else { Some(self.next_sweep) };
        // Reads that a hanging round of another shard holds up start theirs then.
        let reads_wait = self.shards.iter().any(|shard| shard.raft().reads_waiting());
        let round = reads_wait.then(|| self.round_started + ROUND_PATIENCE);
        let compare = self.shards.iter().filter_map(Shard::compare_at);
        let news =
            self.told.deadline().into_iter().chain(compare).chain(self.snapshots.deadline()).chain(self.scrub_at());
        ticks.chain(sweep).chain(round).chain(self.desk.retry_at()).chain(news).min().unwrap_or(self.next_sweep)
    }

    /// Whether nobody waits for an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.desk.is_empty() && self.shards.iter().all(|shard| shard.is_idle() && !shard.awaits_disk())
    }

    fn raft_message(&mut self, from: NodeId, message: Message, transport: &mut impl Transport) {
        let in_range = message.shard.0 < self.node.config.shards;
        if message.from != from || message.to != self.node.config.node_id || !in_range {
            self.counters.messages_bad += 1;
            return;
        }
        self.counters.raft_messages_received += 1;
        if !self.node.admission.may_heed(from, &message.body) {
            let asks_for_vote = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
            self.counters.votes_withheld += u64::from(asks_for_vote);
            self.counters.leaders_unheeded += u64::from(!asks_for_vote);
            return;
        }
        let owner = self.node.owner(message.shard);
        if owner == self.core {
            let at = self.position(message.shard);
            self.shards[at].step(message);
            self.touched[at] = true;
        } else if transport.core(owner, CoreMessage::Raft(message)).is_err() {
            self.counters.inbox_full += 1;
        }
    }

    /// Gives up on whatever has waited past its deadline.
    fn sweep(&mut self, now: Instant, transport: &mut impl Transport) {
        self.desk.set_now(now);
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        for at in 0..self.shards.len() {
            let (shard, _, mut exit) = self.parts(at, transport);
            shard.expire(now, &mut exit);
        }
        if self.node.is_stopping() {
            for to in self.desk.snapshots.give_up() {
                let message = "this node is being stopped; snapshots that are not written yet will not be";
                self.refuse(to, Code::NotReady, None, message, transport);
            }
        }
        for (to, code, message) in self.desk.expire(now) {
            self.counters.overloaded_scans += u64::from(code == Code::Overloaded);
            self.refuse(to, code, None, message, transport);
        }
    }

    /// One round at a time for all shards of the core: what comes meanwhile waits for the next.
    fn start_read_rounds(&mut self, now: Instant) {
        let in_flight = self.shards.iter().any(|shard| shard.raft().read_round_in_flight());
        if in_flight && now.saturating_duration_since(self.round_started) < ROUND_PATIENCE {
            return;
        }
        for (shard, touched) in self.shards.iter_mut().zip(&mut self.touched) {
            if shard.raft().reads_waiting() {
                shard.raft_mut().start_read_round();
                self.counters.read_rounds += 1;
                self.round_started = now;
                *touched = true;
            }
        }
    }

    /// Answers reads that ask for it by the lease of the shard's leader. All of them came before `now`. Those of a leader
    /// that holds none wait for a round.
    fn serve_by_leases(&mut self, now: Instant, transport: &mut impl Transport) {
        for at in 0..self.shards.len() {
            let (shard, _, mut exit) = self.parts(at, transport);
            if shard.has_lease_reads() {
                shard.serve_by_lease(now, &mut exit);
                self.touched[at] = true;
            }
        }
    }

    fn drive_touched(&mut self, transport: &mut impl Transport) -> Result<(), Fatal> {
        for at in 0..self.shards.len() {
            if std::mem::take(&mut self.touched[at]) {
                let (shard, log, mut exit) = self.parts(at, transport);
                shard.drive(log, &mut exit)?;
                self.publish(at);
            }
        }
        Ok(())
    }

    /// What the other cores want to know of a shard.
    fn publish(&mut self, at: usize) {
        let raft = self.shards[at].raft();
        if self.node.leaders.set(self.shards[at].id(), raft.leader(), raft.term()) {
            self.desk.leaders_changed();
            self.counters.leader_changes += u64::from(raft.leader().is_some());
        }
        self.node.leaders.note_entry_bytes(self.shards[at].id(), self.shards[at].entry_bytes_max());
        self.told.reached(at, self.shards[at].newest_checkpoint());
    }

    /// Answers a request with a refusal.
    pub fn refuse(
        &mut self,
        to: ReplyTo,
        code: Code,
        leader: Option<NodeId>,
        message: &str,
        transport: &mut impl Transport,
    ) {
        self.exit(transport).reply(to, EntryId::ZERO, Err(Refusal { code, leader, message }));
    }

    /// The position of an own shard: the core owns every `cores`-th.
    pub(super) fn position(&self, shard: ShardId) -> usize {
        usize::from(shard.0 / self.node.config.cores)
    }

    pub(super) fn exit<'a, T: Transport>(&'a mut self, transport: &'a mut T) -> Exit<'a, T> {
        let (core, link_bytes_max) = (self.core, self.node.config.limits.link_bytes_max);
        let (counters, requests) = (&mut self.counters, &mut *self.requests);
        Exit { core, link_bytes_max, desk: &mut self.desk, counters, requests, transport }
    }

    pub(super) fn parts<'a, T: Transport>(
        &'a mut self,
        at: usize,
        transport: &'a mut T,
    ) -> (&'a mut Shard<ReplyTo>, &'a mut L, Exit<'a, T>) {
        let (core, link_bytes_max) = (self.core, self.node.config.limits.link_bytes_max);
        let (counters, requests) = (&mut self.counters, &mut *self.requests);
        let exit = Exit { core, link_bytes_max, desk: &mut self.desk, counters, requests, transport };
        (&mut self.shards[at], &mut self.log, exit)
    }
}
