//! What the cores of a node are made of, and how they are told to stop: the same for threads that run them and for
//! hands that turn them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use raftkv_protocol::types::{CoreId, Incarnation, ShardId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::Fatal;
use crate::event_loop::{Capacity, Inbox, InboxSender, Wake, inbox};
use crate::limits;
use crate::raft::{self, Raft};
use crate::shard::snapshots::{Found, SnapshotWorker, Snapshots, Stores, Unfound, find, snapshot_worker};
use crate::shard::{Beginning, Shard};
use crate::storage::{self, FileLog, RecoveredShard, SalvagedLog};

use super::io::Post;
use super::logs;
use super::message::ReplyTo;
use super::node::Node;
use super::router::Router;

/// Messages that may wait for a core.
const INBOX_MESSAGES: usize = 16 << 10;
/// Sockets beyond the clients' limit that are accepted: peers, and whoever has not said hello yet.
const SOCKETS_BESIDE_CLIENTS: usize = 1_024;
/// Unanswered bytes of entries to one follower of one shard.
const INFLIGHT_BYTES_MAX: usize = 8 << 20;
/// Unanswered appends to one follower of one shard.
const INFLIGHT_MESSAGES_MAX: usize = 256;

/// How many sockets are accepted at once, where descriptors abound.
pub(super) fn sockets_max(limits: &limits::Limits) -> usize {
    limits.connections_max.saturating_add(SOCKETS_BESIDE_CLIENTS)
}

/// The two ends of a core's inbox.
pub(super) fn mailbox<S>(limits: &limits::Limits, wake: Wake) -> (InboxSender<Post<S>>, Inbox<Post<S>>) {
    let capacity =
        Capacity { messages: INBOX_MESSAGES, bytes: limits.core_inbox_bytes_max, bytes_of: Post::request_bytes };
    inbox(capacity, wake)
}

/// What a core's disk holds.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) log: FileLog,
    /// By position: what the log holds of a shard.
    pub(super) recovered: Vec<RecoveredShard>,
    /// By position: its newest snapshot.
    pub(super) found: Vec<Found>,
}

/// What was found of a shard's snapshots, or why nothing was that can be gone on from.
pub(super) type FoundOrGone = Result<Found, String>;

/// Loads the newest snapshot of each shard of a core.
pub(super) fn find_snapshots(
    node: &Node,
    core: CoreId,
    recovered: &[RecoveredShard],
    stores: &Stores,
) -> Result<Vec<FoundOrGone>, Fatal> {
    let find = |(shard, recovered)| match find(stores, shard, recovered) {
        Ok(found) => Ok(Ok(found)),
        Err(Unfound::Gone(words)) => Ok(Err(words)),
        Err(Unfound::Unreadable(words)) => Err(Fatal::failure(words)),
    };
    node.shards_of(core).zip(recovered).map(find).collect()
}

/// What a core's disk holds. A shard whose snapshots are gone begins anew, and gets all of it from its peers; `now_s` is
/// for people.
pub(super) fn stored(
    node: &Node,
    core: CoreId,
    (mut log, mut recovered): (FileLog, Vec<RecoveredShard>),
    found: Vec<FoundOrGone>,
    now_s: u64,
) -> Result<Stored, Fatal> {
    let mut begin = |((shard, recovered), found): ((ShardId, &mut RecoveredShard), FoundOrGone)| match found {
        Ok(found) => Ok(found),
        Err(words) if node.peers.is_empty() => Err(logs::alone(&words)),
        Err(words) => {
            log::warn!("{words}; this node gets the shard from its peers: until it has it, it votes for nobody there");
            node.remember_damage(&SalvagedLog { shards: vec![shard], damage: words }, now_s)?;
            storage::begin_anew(&mut log, shard, recovered);
            Ok(Found::default())
        }
    };
    let shards = node.shards_of(core).zip(&mut recovered).zip(found);
    let found = shards.map(&mut begin).collect::<Result<_, Fatal>>()?;
    Ok(Stored { log, recovered, found })
}

/// A worker for a core's snapshots, and the core's end of it.
pub(super) fn snapshots(node: &Node, stores: &Stores, wake: Wake) -> (Snapshots, SnapshotWorker) {
    let mut voters: Vec<u64> = node.config.initial_cluster.iter().map(|(id, _)| id.0).collect();
    voters.sort_unstable();
    let voters = voters.into_iter().flat_map(u64::to_le_bytes).collect();
    snapshot_worker(stores.clone(), voters, node.config.limits.snapshot_write_rate, wake)
}

/// A core's router with its shards as they were recovered. Everything random in it comes from `seed`, and shards that
/// count their heartbeats from the same `epoch` send them together.
pub(super) fn router(
    node: &Arc<Node>,
    core: CoreId,
    stored: Stored,
    snapshots: Snapshots,
    seed: u64,
    epoch: Instant,
) -> Result<Router<FileLog>, Fatal> {
    let damage = node.data_dir()?.damage().clone();
    if node.peers.is_empty() && !damage.is_empty() {
        return Err(Fatal::failure(format!(
            "data directory {} has lost part of its log (see `damage` there), and no other node has it: restore the \
             directory from a copy, or start a new cluster from a backup",
            node.config.data_dir.display()
        )));
    }
    let leases = raft::Leases {
        duration: node.config.lease,
        drift_ppm_max: node.config.clock_drift_ppm_max,
        promised_before: node.promised_before()?,
    };
    let Stored { log, recovered, found } = stored;
    let shards = node.shards_of(core).zip(recovered.into_iter().zip(found)).map(|(id, (recovered, found))| {
        let damaged = damage.contains_key(&id);
        shard(node, id, Held { recovered, found, damaged, leases }, seed, epoch)
    });
    let shards = shards.collect();
    // Answers to what an earlier process has forwarded must meet nobody.
    let serial = draw(seed, b"forwards");
    Ok(Router::new(Arc::clone(node), core, shards, log, snapshots, serial, epoch))
}

/// What the disk holds of a shard.
struct Held {
    recovered: RecoveredShard,
    found: Found,
    /// It may have held more.
    damaged: bool,
    leases: raft::Leases,
}

fn shard(node: &Node, id: ShardId, held: Held, seed: u64, epoch: Instant) -> Shard<ReplyTo> {
    let Held { recovered, found, damaged, leases } = held;
    let beginning = Beginning::new(found, &recovered, node.config.limits.log_tail_bytes);
    let RecoveredShard { hard_state, start, entries, .. } = recovered;
    let config = raft::Config {
        id: node.config.node_id,
        shard: id,
        voters: node.config.initial_cluster.iter().map(|(id, _)| *id).collect(),
        incarnation: Incarnation(draw(seed, b"incarnation")),
        heartbeat: node.config.heartbeat,
        election_timeout: node.config.election_timeout,
        epoch,
        seed: draw(seed, &id.0.to_le_bytes()),
        append_bytes_max: limits::APPEND_BYTES_MAX,
        inflight_bytes_max: INFLIGHT_BYTES_MAX,
        inflight_messages_max: INFLIGHT_MESSAGES_MAX,
        leases,
        preferred: node.preferred_leader(id) == node.config.node_id,
    };
    let recovered = raft::Recovered { hard_state, start, entries, snapshot: beginning.snapshot(), damaged };
    let raft = Raft::new(config, recovered, epoch);
    Shard::new(id, raft, node.config.limits.uncommitted_bytes_max).begun_with(beginning)
}

/// The random number that a seed holds for one purpose.
fn draw(seed: u64, purpose: &[u8]) -> u64 {
    xxh3_64_with_seed(purpose, seed)
}

/// Asks all cores to hand leadership over, finish what is in flight, and end.
pub(super) fn ask_to_stop<S>(node: &Node, posts: &[InboxSender<Post<S>>]) {
    node.stopping.store(true, Ordering::Relaxed);
    for post in posts {
        post.answer(Post::Stop);
    }
}
