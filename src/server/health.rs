//! How the disks of the nodes do: this one's, as its cores see it, and the others', as they tell it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raftkv_protocol::health::DiskHealth;
use raftkv_protocol::hello::{FEATURE_BATCH, FEATURE_NEWS};
use raftkv_protocol::types::{CoreId, NodeId};

/// What is known of a peer.
#[derive(Debug)]
struct PeerHealth {
    id: NodeId,
    disk: AtomicU8,
    /// It reads what it is told of this node.
    reads_news: AtomicBool,
    takes_batches: AtomicBool,
}

/// See the module. The cores of a node share it: their logs lie on one disk, and a node whose disk hangs should lead
/// nothing on any of them.
#[derive(Debug)]
pub struct Health {
    /// By core: how its log's disk does, and whether it holds the core up now. Locked when that changes.
    cores: Mutex<Vec<(DiskHealth, bool)>>,
    /// The worst of the cores.
    own: AtomicU8,
    /// Some core is held up.
    stalls: AtomicBool,
    /// By core: for how many milliseconds its sync in flight has taken.
    syncs_ms: Vec<AtomicU64>,
    /// Shards of this node that are being repaired.
    repairing: AtomicUsize,
    peers: Vec<PeerHealth>,
}

impl Health {
    /// Of a node with so many cores and these peers; all is taken to be well.
    #[must_use]
    pub fn new(cores: u16, peers: impl Iterator<Item = NodeId>) -> Health {
        let peer = |id| PeerHealth {
            id,
            disk: AtomicU8::new(0),
            reads_news: AtomicBool::new(false),
            takes_batches: AtomicBool::new(false),
        };
        Health {
            cores: Mutex::new(vec![(DiskHealth::Healthy, false); usize::from(cores)]),
            own: AtomicU8::new(0),
            stalls: AtomicBool::new(false),
            syncs_ms: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            repairing: AtomicUsize::new(0),
            peers: peers.map(peer).collect(),
        }
    }

    /// How this node's disk does.
    #[must_use]
    pub fn own(&self) -> DiskHealth {
        DiskHealth::from_u8(self.own.load(Ordering::Relaxed))
    }

    /// How this node's disk does, as the others are told. One from which a log has lost something counts as slow until
    /// that is repaired, so that nothing is handed to this node meanwhile.
    #[must_use]
    pub fn told(&self) -> DiskHealth {
        if self.repairing.load(Ordering::Relaxed) > 0 { self.own().max(DiskHealth::Slow) } else { self.own() }
    }

    /// A core has this many shards to be repaired.
    pub(super) fn repairs_begin(&self, shards: usize) {
        self.repairing.fetch_add(shards, Ordering::Relaxed);
    }

    /// One of these shards is repaired.
    pub(super) fn repair_ends(&self) {
        self.repairing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether this node's disk holds it up now.
    #[must_use]
    pub fn stalls(&self) -> bool {
        self.stalls.load(Ordering::Relaxed)
    }

    /// What a core has found out. Returns how the node did before and does now.
    pub(super) fn note_core(&self, core: CoreId, disk: DiskHealth, stalls: bool) -> (DiskHealth, DiskHealth) {
        let mut cores = self.lock();
        let before = self.own();
        cores[usize::from(core.0)] = (disk, stalls);
        let worst = cores.iter().map(|(disk, _)| *disk).max().unwrap_or_default();
        self.own.store(worst as u8, Ordering::Relaxed);
        self.stalls.store(cores.iter().any(|(_, stalls)| *stalls), Ordering::Relaxed);
        (before, worst)
    }

    /// For how long a core's sync in flight has taken.
    pub(super) fn note_sync(&self, core: CoreId, in_flight: Option<Duration>) {
        let millis = in_flight.map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let known = &self.syncs_ms[usize::from(core.0)];
        // Mostly it is the same: the other cores need not fetch it anew.
        if known.load(Ordering::Relaxed) != millis {
            known.store(millis, Ordering::Relaxed);
        }
    }

    /// For how many milliseconds the longest sync in flight has taken, as of the cores' last turns.
    #[must_use]
    pub fn sync_ms(&self) -> u64 {
        self.syncs_ms.iter().map(|millis| millis.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// How a peer's disk does, as it was last told; one that tells nothing is well.
    #[must_use]
    pub fn of(&self, peer: NodeId) -> DiskHealth {
        self.peer(peer).map_or(DiskHealth::Healthy, |peer| DiskHealth::from_u8(peer.disk.load(Ordering::Relaxed)))
    }

    /// Whether a majority of the nodes has room on its disks for what a leader here takes in, if this one has. Of a node that is
    /// away that counts which it told last: it may be back in a moment.
    #[must_use]
    pub fn majority_has_space(&self) -> bool {
        let is_full = |peer: &&PeerHealth| peer.disk.load(Ordering::Relaxed) == DiskHealth::Full as u8;
        self.peers.iter().filter(is_full).count() <= self.peers.len() / 2
    }

    /// What a peer tells of itself.
    pub fn note_peer(&self, peer: NodeId, disk: DiskHealth) {
        if let Some(peer) = self.peer(peer) {
            peer.disk.store(disk as u8, Ordering::Relaxed);
        }
    }

    /// What a hello or a welcome of a peer says of it.
    pub fn note_features(&self, peer: NodeId, features: u64) {
        if let Some(peer) = self.peer(peer) {
            peer.reads_news.store(features & FEATURE_NEWS != 0, Ordering::Relaxed);
            peer.takes_batches.store(features & FEATURE_BATCH != 0, Ordering::Relaxed);
        }
    }

    /// Whether a peer reads what it is told of this node.
    #[must_use]
    pub fn reads_news(&self, peer: NodeId) -> bool {
        self.peer(peer).is_some_and(|peer| peer.reads_news.load(Ordering::Relaxed))
    }

    /// Whether batches may be sent on to a peer.
    #[must_use]
    pub fn takes_batches(&self, peer: NodeId) -> bool {
        self.peer(peer).is_some_and(|peer| peer.takes_batches.load(Ordering::Relaxed))
    }

    fn peer(&self, id: NodeId) -> Option<&PeerHealth> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// Whatever another core did before it panicked, it left this whole.
    fn lock(&self) -> MutexGuard<'_, Vec<(DiskHealth, bool)>> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
