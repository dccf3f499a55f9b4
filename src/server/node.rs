//! What the cores of a node share. Nothing of it is on the data path but the leader table, which is a hint.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use raftkv_protocol::client::SlotTable;
use raftkv_protocol::hello::{FEATURE_BATCH, FEATURE_NEWS, FEATURE_SNAPSHOT};
use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId, ShardId, Term};

use crate::config::Config;
use crate::error::Fatal;
use crate::storage::SalvagedLog;
use crate::storage::data_dir::{DataDir, PeerCheck};

use super::admission::Admission;
use super::health::Health;
use super::records::{Record, Records};
use super::together::Together;
use super::vitals::Vitals;

/// Another node of the cluster.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// One node, as all its cores see it.
#[derive(Debug)]
pub struct Node {
    /// Its settings.
    pub config: Config,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its data directory's.
    pub incarnation: Incarnation,
    /// The other voters.
    pub peers: Vec<Peer>,
    /// The leaders as the shards' owners last knew them.
    pub leaders: LeaderTable,
    /// Open client connections.
    pub connections: AtomicUsize,
    /// Damaged logs of which only what was sound was kept at this start.
    pub log_salvages: AtomicU64,
    /// Accepted sockets that are open: clients, peers, and whoever has not said hello yet.
    pub sockets: AtomicUsize,
    /// More are closed at once, so that descriptors are left for logs and links.
    pub sockets_max: usize,
    /// Set when the node is to end: leadership is handed over and no new work begun.
    pub stopping: AtomicBool,
    /// Which nodes are admitted.
    pub admission: Admission,
    /// Cores of this node all of whose shards are ready.
    cores_ready: AtomicUsize,
    /// What the cores show of themselves.
    pub vitals: Vitals,
    /// How the nodes' disks do.
    pub health: Health,
    /// What the cores do once between them.
    pub together: Together,
    /// What is put on record while the node runs.
    pub records: Records,
    /// Where it is put on record. Locked while a file is written: no loop may wait for it.
    pub data_dir: Mutex<DataDir>,
}

impl Node {
    /// A node as it starts. `sockets_max` connections are accepted at once.
    #[must_use]
    pub fn new(config: Config, peers: Vec<Peer>, data_dir: DataDir, sockets_max: usize) -> Node {
        let known = |peer: &Peer| Some((peer.id, data_dir.incarnation_of(peer.id)?));
        Node {
            records: Records::new(peers.iter().filter_map(known).collect()),
            cluster: config.cluster_id(),
            incarnation: data_dir.incarnation(),
            admission: Admission::new(data_dir.is_admitted(), peers.iter().map(|peer| peer.id)),
            cores_ready: AtomicUsize::new(0),
            vitals: Vitals::new(config.cores),
            health: Health::new(config.cores, peers.iter().map(|peer| peer.id)),
            peers,
            together: Together::default(),
            leaders: LeaderTable::new(config.shards),
            connections: AtomicUsize::new(0),
            log_salvages: AtomicU64::new(0),
            sockets: AtomicUsize::new(0),
            sockets_max,
            stopping: AtomicBool::new(false),
            data_dir: Mutex::new(data_dir),
            config,
        }
    }

    /// What a hello or a welcome of a peer says of it.
    pub fn note_peer(&self, peer: NodeId, features: u64) {
        self.admission.note_peer(peer, features);
        self.health.note_features(peer, features);
    }

    /// What this node's hellos and welcomes say of it.
    #[must_use]
    pub fn features(&self) -> u64 {
        FEATURE_NEWS | FEATURE_SNAPSHOT | FEATURE_BATCH | self.admission.features()
    }

    /// The shards of a core, in the order of their ids.
    pub fn shards_of(&self, core: CoreId) -> impl Iterator<Item = ShardId> + use<> {
        shards_of(core, self.config.cores, self.config.shards)
    }

    /// The core that owns a shard.
    #[must_use]
    pub fn owner(&self, shard: ShardId) -> CoreId {
        CoreId(shard.0 % self.config.cores)
    }

    /// Who should lead a shard, so that leaders spread over the nodes.
    #[must_use]
    pub fn preferred_leader(&self, shard: ShardId) -> NodeId {
        let voters = &self.config.initial_cluster;
        voters[usize::from(shard.0) % voters.len()].0
    }

    /// The slot table as far as this node knows.
    #[must_use]
    pub fn slot_table(&self) -> SlotTable {
        let shards = (0..self.config.shards).map(ShardId);
        SlotTable {
            cluster: self.cluster,
            nodes: self.config.initial_cluster.clone(),
            leaders: shards.map(|shard| self.leaders.get(shard)).collect(),
        }
    }

    /// Remembers durably that every core's log is there. Must be called before the node votes or acknowledges anything.
    pub fn logs_have_begun(&self) -> Result<(), Fatal> {
        self.data_dir()?.logs_have_begun()
    }

    /// How long this process is bound by what earlier ones may have promised. What it may promise itself is on record when
    /// this returns.
    pub fn promised_before(&self) -> Result<Duration, Fatal> {
        let mut data_dir = self.data_dir()?;
        let longest = data_dir.promised()?.max(self.config.lease.unwrap_or_default());
        data_dir.will_promise(longest)?;
        Ok(longest)
    }

    /// Remembers durably that the shards of a log may have forgotten something. Must be called before the log is let go
    /// that was salvaged.
    pub fn remember_damage(&self, salvaged: &SalvagedLog, now_s: u64) -> Result<(), Fatal> {
        self.data_dir()?.mark_damaged(&salvaged.shards, &salvaged.damage, now_s)?;
        self.log_salvages.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// What this node remembers of itself and its peers.
    pub fn data_dir(&self) -> Result<MutexGuard<'_, DataDir>, Fatal> {
        self.data_dir.lock().map_err(|_| Fatal::failure("the data directory is in an unknown state"))
    }

    /// All shards of one more core have had a leader and have caught up with it. Whether it was the last core of a node
    /// that is not admitted yet: it is for the caller to have it admitted.
    #[must_use]
    pub fn core_is_ready(&self) -> bool {
        let ready = self.cores_ready.fetch_add(1, Ordering::AcqRel) + 1;
        ready == usize::from(self.config.cores) && !self.admission.is_admitted()
    }

    /// Admits the node, durably. Waits for the disk.
    ///
    /// # Errors
    /// If that cannot be put on record. It is not admitted then, and may be tried again.
    pub fn admit(&self) -> Result<(), Fatal> {
        self.data_dir()?.admit()?;
        self.admission.admit();
        Ok(())
    }

    /// Puts on record what the loops want, for as long as the process lives.
    pub fn keep_records(&self) {
        loop {
            self.records.wait();
            self.write_record();
        }
    }

    /// Puts the next thing on record that is wanted. Whether there was one. Waits for the disk.
    pub fn write_record(&self) -> bool {
        self.records.work(|record| self.write(record))
    }

    /// Of a peer, returns which data directory is on record now.
    fn write(&self, record: Record) -> Result<Option<Incarnation>, Fatal> {
        match record {
            Record::Peer(peer, incarnation) => match self.data_dir()?.record_peer(peer, incarnation)? {
                PeerCheck::Known | PeerCheck::Recorded => Ok(Some(incarnation)),
                PeerCheck::Changed { was } => Ok(Some(was)),
            },
            Record::Admitted => self.admit().map(|()| None),
            Record::Promised => self.data_dir()?.will_promise(self.config.lease.unwrap_or_default()).map(|()| None),
            Record::Healed(shard) => self.data_dir()?.mark_healed(shard).map(|()| None),
        }
    }

    /// Whether the node is to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The shards of one of so many cores, in the order of their ids.
pub(super) fn shards_of(core: CoreId, cores: u16, shards: u16) -> impl Iterator<Item = ShardId> + use<> {
    (core.0..shards).step_by(usize::from(cores)).map(ShardId)
}

/// Who leads which shard, as a hint for routing, and how long its values may be: each shard's owner writes, all cores
/// read.
#[derive(Debug)]
pub struct LeaderTable {
    leaders: Vec<Known>,
}

/// What is known of a shard.
#[derive(Debug, Default)]
struct Known {
    /// 0 if there is none.
    leader: AtomicU64,
    term: AtomicU64,
    entry_bytes_max: AtomicUsize,
}

impl LeaderTable {
    /// A table that knows nothing yet.
    #[must_use]
    pub fn new(shards: u16) -> LeaderTable {
        LeaderTable { leaders: (0..shards).map(|_| Known::default()).collect() }
    }

    /// The leader and the term in which it was known. The two may be of different moments.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> (Option<NodeId>, Term) {
        let known = &self.leaders[usize::from(shard.0)];
        let leader = known.leader.load(Ordering::Relaxed);
        ((leader != 0).then_some(NodeId(leader)), Term(known.term.load(Ordering::Relaxed)))
    }

    /// Only the shard's owner calls this. True if it is news.
    pub fn set(&self, shard: ShardId, leader: Option<NodeId>, term: Term) -> bool {
        let known = &self.leaders[usize::from(shard.0)];
        let leader = leader.map_or(0, |node| node.0);
        let news = known.leader.swap(leader, Ordering::Relaxed) != leader;
        known.term.store(term.0, Ordering::Relaxed);
        news
    }

    /// The longest entry of a shard that this node has seen since its start; no value of it is longer.
    #[must_use]
    pub fn entry_bytes_max(&self, shard: ShardId) -> usize {
        self.leaders[usize::from(shard.0)].entry_bytes_max.load(Ordering::Relaxed)
    }

    /// Only the shard's owner calls this.
    pub fn note_entry_bytes(&self, shard: ShardId, bytes: usize) {
        self.leaders[usize::from(shard.0)].entry_bytes_max.store(bytes, Ordering::Relaxed);
    }
}
