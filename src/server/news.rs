//! What a core tells its peers of this node and what it is told by them: how disks do, and the hashes of replicas.
//!
//! News of the disk leave at once. Checkpoints of all shards leave together, not more often than heartbeats do, each
//! once on a link; when a link is up anew, those that are remembered are told again.

use std::time::{Duration, Instant};

use raftkv_protocol::health::{DiskHealth, Verdict};
use raftkv_protocol::peer::{Checkpoints, Health, PeerFrame, ShardCheckpoint};
use raftkv_protocol::types::{CoreId, Index, NodeId, ShardId};

use crate::shard::{News, Shard};
use crate::state_machine::{Checkpoint, HASH_FORMAT};
use crate::storage::CoreLog;

use super::message::{CoreMessage, ReplyTo};
use super::node::Peer;
use super::router::Router;
use super::transport::Transport;

/// Checkpoints in one frame.
const CHECKPOINTS_MAX: usize = 1_024;

/// What one peer was told on the link that is up.
#[derive(Debug)]
struct ToldPeer {
    id: NodeId,
    is_up: bool,
    disk: Option<DiskHealth>,
    /// By position of the shard: up to which index.
    checkpoints: Vec<Index>,
}

/// What the peers of a core were told.
#[derive(Debug)]
pub(super) struct Told {
    peers: Vec<ToldPeer>,
    /// By position of the shard: its newest checkpoint.
    newest: Vec<Index>,
    /// There are checkpoints that somebody was not told.
    is_owing: bool,
    next: Instant,
    pause: Duration,
}

impl Told {
    /// Nobody was told anything. Checkpoints are told with so much time between.
    pub(super) fn new(peers: &[Peer], shards: usize, pause: Duration, now: Instant) -> Told {
        let peer =
            |peer: &Peer| ToldPeer { id: peer.id, is_up: false, disk: None, checkpoints: vec![Index(0); shards] };
        let peers = peers.iter().map(peer).collect();
        Told { peers, newest: vec![Index(0); shards], is_owing: false, next: now, pause }
    }

    pub(super) fn link_up(&mut self, peer: NodeId) {
        for told in self.peers.iter_mut().filter(|told| told.id == peer) {
            (told.is_up, told.disk) = (true, None);
            told.checkpoints.fill(Index(0));
            self.is_owing = true;
        }
    }

    pub(super) fn link_down(&mut self, peer: NodeId) {
        self.peers.iter_mut().filter(|told| told.id == peer).for_each(|told| told.is_up = false);
    }

    /// Whether the link to each peer is up.
    pub(super) fn links(&self) -> Vec<(NodeId, bool)> {
        self.peers.iter().map(|peer| (peer.id, peer.is_up)).collect()
    }

    /// The newest checkpoint of the shard in this position.
    pub(super) fn reached(&mut self, at: usize, newest: Index) {
        if self.newest[at] != newest {
            self.newest[at] = newest;
            self.is_owing = true;
        }
    }

    /// The shard in this position reaches its checkpoints again, and each may be another.
    pub(super) fn anew(&mut self, at: usize) {
        self.newest[at] = Index(0);
        self.peers.iter_mut().for_each(|peer| peer.checkpoints[at] = Index(0));
    }

    /// When there is something to tell.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.is_owing.then_some(self.next)
    }
}

impl ToldPeer {
    fn tell_disk(&mut self, disk: DiskHealth, transport: &mut impl Transport) {
        if self.disk != Some(disk)
            && let Some(out) = transport.peer(self.id)
        {
            PeerFrame::Health(Health { disk }).encode(out);
            self.disk = Some(disk);
        }
    }

    /// Tells what it was not told yet. `false` if the link is full.
    fn tell_checkpoints(&mut self, shards: &[Shard<ReplyTo>], transport: &mut impl Transport) -> bool {
        let untold = |(shard, upto): (&Shard<ReplyTo>, &Index)| {
            let id = shard.id();
            let checkpoint = move |Checkpoint { index, hash }| ShardCheckpoint { shard: id, index, hash };
            shard.checkpoints_after(*upto).map(checkpoint).collect::<Vec<_>>()
        };
        let untold: Vec<ShardCheckpoint> = shards.iter().zip(&self.checkpoints).flat_map(untold).collect();
        for checkpoints in untold.chunks(CHECKPOINTS_MAX) {
            let Some(out) = transport.peer(self.id) else { return false };
            let checkpoints = checkpoints.to_vec();
            PeerFrame::Checkpoints(Checkpoints { format: HASH_FORMAT, checkpoints }).encode(out);
        }
        for (upto, shard) in self.checkpoints.iter_mut().zip(shards) {
            *upto = shard.newest_checkpoint();
        }
        true
    }
}

impl<L: CoreLog> Router<L> {
    /// Tells the peers what they do not know yet.
    pub(super) fn tell_peers(&mut self, now: Instant, transport: &mut impl Transport) {
        let disk = self.node.health.told();
        let is_beat = self.told.deadline().is_some_and(|at| at <= now);
        if is_beat {
            self.told.is_owing = false;
            self.told.next = now + self.told.pause;
        }
        for peer in self.told.peers.iter_mut().filter(|peer| peer.is_up && self.node.health.reads_news(peer.id)) {
            peer.tell_disk(disk, transport);
            if is_beat && !peer.tell_checkpoints(&self.shards, transport) {
                self.told.is_owing = true;
            }
        }
    }

    /// A peer tells the hashes of its replicas. Those of other cores' shards are handed on.
    pub(super) fn take_checkpoints(&mut self, from: NodeId, told: &Checkpoints, transport: &mut impl Transport) {
        if told.format != HASH_FORMAT {
            return;
        }
        let mut others: Vec<(CoreId, Vec<ShardCheckpoint>)> = Vec::new();
        for &checkpoint in &told.checkpoints {
            if checkpoint.shard.0 >= self.node.config.shards {
                self.counters.messages_bad += 1;
                continue;
            }
            let owner = self.node.owner(checkpoint.shard);
            if owner == self.core {
                self.note_checkpoint(from, checkpoint);
            } else if let Some((_, checkpoints)) = others.iter_mut().find(|(core, _)| *core == owner) {
                checkpoints.push(checkpoint);
            } else {
                others.push((owner, vec![checkpoint]));
            }
        }
        for (owner, checkpoints) in others {
            if transport.core(owner, CoreMessage::Checkpoints { from, checkpoints }).is_err() {
                self.counters.inbox_full += 1;
            }
        }
    }

    /// A peer tells the hash of its replica of an own shard.
    pub(super) fn note_checkpoint(&mut self, from: NodeId, told: ShardCheckpoint) {
        let ShardCheckpoint { shard, index, hash } = told;
        let at = self.position(shard);
        self.shards[at].told(from, Checkpoint { index, hash });
        self.counters.checkpoints_received += 1;
    }

    /// Compares what peers have told with the own states, and says what was found.
    pub(super) fn compare_states(&mut self, now: Instant) {
        for at in 0..self.shards.len() {
            for news in self.shards[at].compare(now) {
                self.heed_news(at, news);
            }
        }
    }

    /// Says what was found of the shard in this position, and does what follows.
    pub(super) fn heed_news(&mut self, at: usize, news: News) {
        self.touched[at] = true;
        let shard = &mut self.shards[at];
        say(shard.id(), news);
        let (News::Found(found) | News::Replaced(found)) = news else { return };
        self.counters.divergences += 1;
        if found.verdict == Verdict::Diverged {
            let wrong = shard.distrust_snapshots(found.agreed);
            wrong.into_iter().for_each(|meta| self.snapshots.set_aside(shard.id(), meta));
        }
    }

    /// A node whose disk is slow or full leads only what nobody else does.
    pub(super) fn heed_disk(&mut self) {
        let is_reluctant = self.node.health.own().is_bad();
        if std::mem::replace(&mut self.is_reluctant, is_reluctant) != is_reluctant {
            self.shards.iter_mut().for_each(|shard| shard.set_reluctant(is_reluctant));
        }
    }
}

fn say(shard: ShardId, news: News) {
    match news {
        News::Found(found) if found.verdict == Verdict::Diverged => log::error!(
            "shard {shard}: this node's state is not the majority's: they were alike at index {} and differ at index \
             {}, where the hash is {:032x} here and {:032x} there; this node does not serve the shard any more: start \
             it again, so that it builds its state anew",
            found.agreed,
            found.differs,
            found.own,
            found.other
        ),
        News::Found(found) if found.verdict == Verdict::Corrupt => log::error!(
            "shard {shard}: this node's memory does not hold what was written to it: it did at index {}, and at index {} the \
             hash of the state is {:032x} and should be {:032x}; this node takes no snapshot and does not serve the shard \
             any more: start it again, so that it builds its state anew, and test the memory of the machine",
            found.agreed,
            found.differs,
            found.own,
            found.other
        ),
        News::Replaced(found) => log::error!(
            "shard {shard}: this node's memory did not hold what was written to it: it did at index {}, and at index {} the \
             hash of the state was {:032x} and should have been {:032x}; a snapshot of another node has taken the place of \
             that state: test the memory of the machine",
            found.agreed,
            found.differs,
            found.own,
            found.other
        ),
        News::Found(found) => log::error!(
            "shard {shard}: the nodes' states differ and no majority has the same: they were alike at index {} and \
             differ at index {}, where the hash is {:032x} here and {:032x} elsewhere; nobody serves the shard until \
             a majority does: start the nodes again, one after the other",
            found.agreed,
            found.differs,
            found.own,
            found.other
        ),
        News::Settled => log::warn!("shard {shard}: a majority has this node's state; it serves the shard again"),
        News::Stranger { peer, index, own, other } => log::warn!(
            "shard {shard}: the state of node {peer} is not the majority's: at index {index} its hash is {other:032x}, \
             here it is {own:032x}"
        ),
    }
}
