//! A node whose cores are turned by hand, in one thread, over any network and any disks: what a simulator runs.
//!
//! It is the node that [`run`](super::run) starts: the same loops, routers, shards and logs. Only what moves it is
//! handed in: what time it is, which sockets are ready, where the log is, and one seed for each core's randomness.
//! The same things handed in give the same node, byte for byte.
//!
//! What it asks of whoever turns it is what a poll does for a thread:
//!
//! - A core is turned when its `wake` was called, when a socket of its network is ready, and at the latest when
//!   [`NodeByHand::wake_at`] says so.
//! - Readiness is told once, as [`Network`] describes it, in any order and as late as one likes. Whatever is told for
//!   a token that means nothing any more is ignored.
//! - What a core wants of its snapshots happens when [`NodeByHand::snapshots`] is moved, one step at a time.
//! - What a turn wants put on record in the data directory is written after it, and is found in the next.
//! - Time does not go back.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use raftkv_protocol::types::{CoreId, Incarnation};

use crate::config::Config;
use crate::error::Fatal;
use crate::event_loop::{Clock, InboxSender, Wake};
use crate::shard::snapshots::{SnapshotHands, Stores};
use crate::socket::{Network, Readiness};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::Disk;
use crate::storage::{self, FileLog, LogError, Options, RecoveredShard};

use super::assembly::{ask_to_stop, find_snapshots, mailbox, router, snapshots, sockets_max, stored};
use super::core_loop::{CoreLoop, Parts, Turn};
use super::io::Post;
use super::logs;
use super::node::{Node, Peer};
use super::router::Router;

pub use super::io::LISTENER;

/// What one core is made of.
pub struct CoreParts<N> {
    /// Where its sockets come from. It announces connections to accept under [`LISTENER`].
    pub network: N,
    /// Its log, opened with [`Node::shards_of`] this core.
    pub log: FileLog,
    /// What the log held.
    pub recovered: Vec<RecoveredShard>,
    /// Called when the core should be turned soon: another core of the node has something for it.
    pub wake: Wake,
    /// Where all randomness of the core comes from: times of elections, names of read rounds and of forwarded calls.
    pub seed: u64,
}

impl<N: fmt::Debug> fmt::Debug for CoreParts<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreParts").field("network", &self.network).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The core goes on.
    GoesOn,
    /// An ordered stop has come to its end in this core, but for its log: [`NodeByHand::end`].
    Ended,
}

/// A running node. Dropping it, with the [`Node`] that it was started from, is a crash of its process: the data
/// directory can be opened again.
pub struct NodeByHand<N: Network> {
    node: Arc<Node>,
    /// Those that were not taken apart.
    pub(super) cores: Vec<Option<CoreLoop<N>>>,
    snapshots: Vec<SnapshotHands>,
    posts: Vec<InboxSender<Post<N::Socket>>>,
    /// Nothing is put on record, as if the disk hung.
    holds_records: bool,
}

impl<N: Network> fmt::Debug for NodeByHand<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeByHand").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Opens a node in its data directory, where its logs are not: they come with [`CoreParts`]. A directory that is born
/// now gets this incarnation.
pub fn open(config: Config, peers: Vec<Peer>, incarnation: Incarnation) -> Result<Arc<Node>, Fatal> {
    let data_dir = DataDir::open_without_logs(&config.data_dir, &config.identity(), || Ok(incarnation))?;
    let sockets_max = sockets_max(&config.limits);
    Ok(Arc::new(Node::new(config, peers, data_dir, sockets_max)))
}

/// Looks whether a core's log is damaged; if so, writes what is sound of it to another disk, and remembers durably what it
/// may have lost. From then on the log is on that disk. Tells what is wrong with the old one, `None` if nothing is.
/// `now_s` is for people.
pub fn salvage(
    node: &Node,
    from: Arc<dyn Disk>,
    to: Arc<dyn Disk>,
    options: Options,
    now_s: u64,
) -> Result<Option<String>, Fatal> {
    let fatal = |error: LogError| Fatal::failure(error.to_string());
    let Some(damage) = storage::damage(&*from).map_err(fatal)? else { return Ok(None) };
    if node.peers.is_empty() {
        return Err(logs::alone(&damage));
    }
    let salvaged = storage::salvage_log(from, to, options).map_err(fatal)?;
    salvaged.iter().try_for_each(|log| node.remember_damage(log, now_s))?;
    Ok(Some(damage))
}

impl<N: Network> NodeByHand<N> {
    /// Starts all cores of a node, in the order of their ids, from their logs and from the snapshots of its shards.
    /// Nothing happens before the first turn, which is due now.
    pub fn start(
        node: Arc<Node>,
        cores: Vec<CoreParts<N>>,
        stores: &Stores,
        now: Instant,
    ) -> Result<NodeByHand<N>, Fatal> {
        assert_eq!(cores.len(), usize::from(node.config.cores), "a node starts with all its cores");
        node.logs_have_begun()?;
        let limits = &node.config.limits;
        let mailboxes = cores.iter().map(|core| mailbox(limits, Arc::clone(&core.wake)));
        let (posts, inboxes): (Vec<_>, Vec<_>) = mailboxes.unzip();
        let (mut started, mut hands) = (Vec::new(), Vec::new());
        for ((core, parts), inbox) in (0..).map(CoreId).zip(cores).zip(inboxes) {
            let CoreParts { network, log, recovered, wake, seed } = parts;
            let found = find_snapshots(&node, core, &recovered, stores)?;
            let (snapshots, worker) = snapshots(&node, stores, Arc::clone(&wake));
            hands.push(SnapshotHands::new(worker));
            let stored = stored(&node, core, (log, recovered), found, 0)?;
            let router = router(&node, core, stored, snapshots, seed, now)?;
            let parts = Parts { node: Arc::clone(&node), core, network, inbox, posts: posts.clone(), router, wake };
            started.push(Some(CoreLoop::new(parts, Clock::by_hand(now))));
        }
        Ok(NodeByHand { node, cores: started, snapshots: hands, posts, holds_records: false })
    }

    /// What moves the snapshot worker of a core, which does nothing by itself.
    #[must_use]
    pub fn snapshots(&self, core: CoreId) -> &SnapshotHands {
        &self.snapshots[usize::from(core.0)]
    }

    /// Turns a core once, all of it at the same instant. An error ends the node: it is to be dropped.
    ///
    /// # Panics
    ///
    /// If the core has ended.
    pub fn turn(&mut self, core: CoreId, now: Instant, ready: &[Readiness]) -> Result<Progress, Fatal> {
        self.running(core).set_time(now);
        self.turn_ready(core, ready)
    }

    /// The same, but the process stands still in the middle: its clock shows these times, one each time that it is read, and the
    /// last of them from then on. It is read when the turn begins, when the sockets were read, when those of HTTP were read, and
    /// when the turn ends.
    pub fn turn_pausing(&mut self, core: CoreId, times: &[Instant], ready: &[Readiness]) -> Result<Progress, Fatal> {
        self.running(core).set_readings(times);
        self.turn_ready(core, ready)
    }

    fn running(&mut self, core: CoreId) -> &mut CoreLoop<N> {
        self.cores[usize::from(core.0)].as_mut().expect("a core that has ended is not turned")
    }

    fn turn_ready(&mut self, core: CoreId, ready: &[Readiness]) -> Result<Progress, Fatal> {
        let place = &mut self.cores[usize::from(core.0)];
        let running = place.as_mut().expect("it was there above");
        let turned = running.turn(ready.iter().copied());
        while !self.holds_records && self.node.write_record() {}
        match turned? {
            Turn::GoesOn => Ok(Progress::GoesOn),
            Turn::Ended => Ok(Progress::Ended),
        }
    }

    /// Takes a core apart whose last turn is over. What is left is to close its log.
    ///
    /// # Panics
    ///
    /// If that was done.
    pub fn end(&mut self, core: CoreId) -> FileLog {
        self.cores[usize::from(core.0)].take().expect("a core ends once").into_log()
    }

    /// Whether nothing is put on record from now on, as if the disk hung under these files.
    pub fn hold_records(&mut self, holds: bool) {
        self.holds_records = holds;
    }

    /// When a core is to be turned at the latest if nothing comes in before; `None` once it has ended.
    #[must_use]
    pub fn wake_at(&self, core: CoreId) -> Option<Instant> {
        self.cores[usize::from(core.0)].as_ref().map(CoreLoop::wake_at)
    }

    /// Tells the node to stop in order, as the signal does. Each core ends in a turn of its own.
    pub fn stop(&mut self) {
        ask_to_stop(&self.node, &self.posts);
    }

    /// A core's router, to look at its shards, counters and log; `None` once the core has ended.
    #[must_use]
    pub fn router(&self, core: CoreId) -> Option<&Router<FileLog>> {
        self.cores[usize::from(core.0)].as_ref().map(|core| &core.router)
    }

    /// A core's router, to interfere with it; `None` once the core has ended.
    pub fn router_mut(&mut self, core: CoreId) -> Option<&mut Router<FileLog>> {
        self.cores[usize::from(core.0)].as_mut().map(|core| &mut core.router)
    }

    /// What the cores share.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}
