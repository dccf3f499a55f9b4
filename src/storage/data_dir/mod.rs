//! The directory that makes a node: who it is, what it remembers of its peers, and where everything else lies.
//!
//! ```text
//! data/node1/
//!   LOCK                 locked while a process uses the directory; holds its pid
//!   identity             cluster, node, incarnation, shards, cores: written when the directory is born
//!   peers                each peer's incarnation, as this node first met it
//!   damage               the shards that may have forgotten something; absent if there is none
//!   logs/core-0/…        one log per core; logs-next and logs-old while another number of cores is switched to
//!   snapshots/shard-0/…
//! ```
//!
//! **Invariants.**
//! - One process at a time uses a directory.
//! - A directory belongs to one node of one cluster for ever, and says so before it holds anything else. Started as
//!   anybody else it is refused: two nodes on one history, or one node on two, would vote twice.
//! - The incarnation is drawn at random when the directory is born. A node that has lost its directory comes back
//!   with another one, and its peers, who have recorded the old one, know that it may have forgotten votes.
//! - A shard whose log was damaged stands in `damage` until it has everything back.
//!
//! It must not know what lies in logs and snapshots.

mod damage;
mod switch;
mod text_file;

#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod data_dir_test;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use raftkv_protocol::types::{ClusterId, CoreId, Incarnation, NodeId, ShardId};

use super::segment::FileState;
use crate::error::Fatal;
use text_file::Fields;

pub use damage::{ShardDamage, recorded_damage};

const IDENTITY: &str = "identity";
const PEERS: &str = "peers";
const DAMAGE: &str = "damage";
/// The field of the identity that says that every log had a segment once.
const LOGS_BEGUN: &str = "logs-begun";
/// The field of the identity that says that every shard has had a leader.
const ADMITTED: &str = "admitted";
/// The field of the identity that says how long the promises of leases last that this node makes, in microseconds.
const PROMISED: &str = "promised-us";

/// How often a lock that somebody holds is tried again, and how long after each time.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Who a node is, as its settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The cluster's name, as it went into its id.
    pub cluster_name: String,
    /// The cluster's members and addresses, as they went into its id.
    pub members: Vec<(NodeId, String)>,
    /// The cluster's Raft groups.
    pub shards: u16,
    /// The node.
    pub node: NodeId,
    /// The node's event loops, each with its own log.
    pub cores: u16,
}

/// What a node knew of a peer's incarnation before it was told of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCheck {
    /// This very one.
    Known,
    /// Nothing; it is on record now.
    Recorded,
    /// Another one: the peer has lost its disk. The record stays.
    Changed {
        /// The one on record.
        was: Incarnation,
    },
}

/// A node's data directory, open and locked as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    incarnation: Incarnation,
    is_new: bool,
    identity: Fields,
    peers: BTreeMap<NodeId, Incarnation>,
    damage: BTreeMap<ShardId, ShardDamage>,
    /// How many cores wrote the logs, if not as many as there are now.
    cores_before: Option<u16>,
    _lock: File,
}

impl DataDir {
    /// Opens the directory of this node, or makes it. Refuses one that is in use, damaged, or another node's.
    pub fn open(path: &Path, identity: &Identity) -> Result<DataDir, Fatal> {
        let mut dir = DataDir::open_with(path, identity, draw_incarnation)?;
        dir.finish_switch()?;
        for core in (0..dir.cores_before.unwrap_or(identity.cores)).map(CoreId) {
            create_dir(&dir.log_dir(core))?;
            dir.check_log(core)?;
        }
        Ok(dir)
    }

    /// The same for a node whose logs are elsewhere, as those of a simulated one are: whether they are still there is
    /// for others to say. One that is made draws its incarnation with `draw`.
    pub fn open_without_logs(
        path: &Path,
        identity: &Identity,
        draw: impl FnOnce() -> Result<Incarnation, Fatal>,
    ) -> Result<DataDir, Fatal> {
        let dir = DataDir::open_with(path, identity, draw)?;
        match dir.cores_before {
            None => Ok(dir),
            Some(before) => Err(Fatal::failure(format!(
                "data directory {} was started with --cores {before}, now {}: its logs are elsewhere and cannot be moved",
                path.display(),
                identity.cores
            ))),
        }
    }

    fn open_with(
        path: &Path,
        identity: &Identity,
        draw: impl FnOnce() -> Result<Incarnation, Fatal>,
    ) -> Result<DataDir, Fatal> {
        create_dir(path)?;
        let lock = lock(path)?;
        let file = path.join(IDENTITY);
        let (fields, is_new) = match text_file::read(&file, IDENTITY)? {
            Some(fields) => (fields, false),
            None => (give_birth(path, identity, draw)?, true),
        };
        let recorded = Recorded::from_fields(&file, &fields)?;
        let incarnation = recognise(path, &recorded, identity)?;
        let cores_before = Some(recorded.cores).filter(|cores| *cores != identity.cores);
        let peers = read_peers(&path.join(PEERS))?;
        let damage = damage::read(&path.join(DAMAGE))?;
        let path = path.to_owned();
        Ok(DataDir { path, incarnation, is_new, identity: fields, peers, damage, cores_before, _lock: lock })
    }

    /// Remembers durably that every log has begun: from now on a log without segments is a lost one. Must be called
    /// before the node votes or acknowledges anything.
    pub fn logs_have_begun(&mut self) -> Result<(), Fatal> {
        self.mark(LOGS_BEGUN)
    }

    /// Whether every shard of the node has had a leader since the directory was born.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.identity.contains_key(ADMITTED)
    }

    /// Remembers durably that every shard of the node has had a leader and has caught up with it. If it cannot, nothing
    /// has changed.
    pub fn admit(&mut self) -> Result<(), Fatal> {
        self.mark(ADMITTED)
    }

    /// How long the longest promise lasts that a process of this node may have made.
    pub fn promised(&self) -> Result<Duration, Fatal> {
        let Some(text) = self.identity.get(PROMISED) else { return Ok(Duration::ZERO) };
        let file = self.path.join(IDENTITY);
        text.parse()
            .map(Duration::from_micros)
            .map_err(|_| text_file::damaged(&file, &format!("`{PROMISED} = {text}` makes no sense")))
    }

    /// Remembers durably how long promises last that are made from now on. Must be called before the first of them, and to
    /// shorten it only when none can last any more that was longer. If it cannot, nothing has changed.
    pub fn will_promise(&mut self, lasts: Duration) -> Result<(), Fatal> {
        if self.promised()? == lasts {
            return Ok(());
        }
        let mut identity = self.identity.clone();
        identity.remove(PROMISED);
        if !lasts.is_zero() {
            identity.insert(PROMISED.to_owned(), lasts.as_micros().to_string());
        }
        text_file::write(&self.path.join(IDENTITY), IDENTITY, &identity)?;
        self.identity = identity;
        Ok(())
    }

    fn mark(&mut self, field: &str) -> Result<(), Fatal> {
        if self.identity.contains_key(field) {
            return Ok(());
        }
        let mut identity = self.identity.clone();
        identity.insert(field.to_owned(), "yes".to_owned());
        text_file::write(&self.path.join(IDENTITY), IDENTITY, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// A log that has begun has a segment. One that has none was removed, with votes and entries that others count on.
    fn check_log(&self, core: CoreId) -> Result<(), Fatal> {
        let dir = self.log_dir(core);
        let is_segment = |name: &str| matches!(FileState::of(name), Some(FileState::Segment(_)));
        let mut files = fs::read_dir(&dir)
            .map_err(|error| Fatal::failure(format!("cannot read directory {}: {error}", dir.display())))?;
        let has_segment = files.any(|file| file.is_ok_and(|file| file.file_name().to_str().is_some_and(is_segment)));
        if has_segment || !self.identity.contains_key(LOGS_BEGUN) {
            return Ok(());
        }
        Err(Fatal::failure(format!(
            "the log in {} is gone, and with it votes and entries that the cluster counts on: bring it \
             back; a node without it must not vote under this id",
            dir.display()
        )))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Drawn when the directory was born.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether it was born just now. One that was born earlier may still be empty: that is for its logs to say.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the log of a core lies. The directory exists.
    #[must_use]
    pub fn log_dir(&self, core: CoreId) -> PathBuf {
        log_dir(&self.path, core)
    }

    /// Where the snapshots of a shard lie. The directory may not exist yet.
    #[must_use]
    pub fn snapshot_dir(&self, shard: ShardId) -> PathBuf {
        snapshot_dir(&self.path, shard)
    }

    /// The incarnation on record for a peer.
    #[must_use]
    pub fn incarnation_of(&self, peer: NodeId) -> Option<Incarnation> {
        self.peers.get(&peer).copied()
    }

    /// Compares a peer's incarnation with the record, and records it if there is none. Must be called before the
    /// peer's first vote or acknowledgement counts; the record is durable when this returns.
    pub fn record_peer(&mut self, peer: NodeId, incarnation: Incarnation) -> Result<PeerCheck, Fatal> {
        match self.incarnation_of(peer) {
            Some(was) if was == incarnation => return Ok(PeerCheck::Known),
            Some(was) => return Ok(PeerCheck::Changed { was }),
            None => {}
        }
        let mut peers = self.peers.clone();
        peers.insert(peer, incarnation);
        let fields = peers.iter().map(|(node, incarnation)| (node.to_string(), hex(*incarnation))).collect();
        text_file::write(&self.path.join(PEERS), PEERS, &fields)?;
        self.peers = peers;
        Ok(PeerCheck::Recorded)
    }
}

/// Where a data directory has the log of a core.
#[must_use]
pub fn log_dir(path: &Path, core: CoreId) -> PathBuf {
    path.join(format!("logs/core-{core}"))
}

/// Where a data directory has the snapshots of a shard.
#[must_use]
pub fn snapshot_dir(path: &Path, shard: ShardId) -> PathBuf {
    path.join(format!("snapshots/shard-{shard}"))
}

/// With how many cores a data directory was last started; `None` if there is none. For a node that is not told how many.
pub fn recorded_cores(path: &Path) -> Result<Option<u16>, Fatal> {
    Ok(recorded_identity(path)?.map(|recorded| recorded.cores))
}

/// What a data directory says of whose it is, for those who are not its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedIdentity {
    /// The cluster's id, as it is written.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// The cluster's Raft groups.
    pub shards: u16,
    /// The node's event loops, each with its own log.
    pub cores: u16,
    /// Drawn when the directory was born.
    pub incarnation: Incarnation,
    /// Whether every log has a segment, or had one.
    pub logs_have_begun: bool,
    /// The directory that has the log of each core, whatever a switch to another number of them has come to.
    pub logs: PathBuf,
}

/// Reads whose a data directory is, without using it; `None` if it is nobody's.
pub fn recorded_identity(path: &Path) -> Result<Option<RecordedIdentity>, Fatal> {
    let file = path.join(IDENTITY);
    let Some(fields) = text_file::read(&file, IDENTITY)? else { return Ok(None) };
    let Recorded { cluster, node, shards, cores, incarnation, .. } = Recorded::from_fields(&file, &fields)?;
    let logs_have_begun = fields.contains_key(LOGS_BEGUN);
    let logs = path.join(switch::logs(path, &fields));
    Ok(Some(RecordedIdentity { cluster, node: NodeId(node), shards, cores, incarnation, logs_have_begun, logs }))
}

/// Reads what a data directory remembers of the node's peers, without using it.
pub fn recorded_peers(path: &Path) -> Result<BTreeMap<NodeId, Incarnation>, Fatal> {
    read_peers(&path.join(PEERS))
}

/// What the identity file says. Of what went into the cluster's id it holds the words, to say what differs.
struct Recorded {
    cluster: String,
    cluster_name: String,
    members: String,
    shards: u16,
    node: u64,
    cores: u16,
    incarnation: Incarnation,
}

impl Recorded {
    fn from_fields(file: &Path, fields: &Fields) -> Result<Recorded, Fatal> {
        let text = |name: &str| {
            let missing = || text_file::damaged(file, &format!("it has no `{name}`"));
            fields.get(name).map(String::as_str).ok_or_else(missing)
        };
        fn number<N: FromStr>(file: &Path, name: &str, text: &str) -> Result<N, Fatal> {
            text.parse().map_err(|_| text_file::damaged(file, &format!("`{name} = {text}` makes no sense")))
        }
        Ok(Recorded {
            cluster: text("cluster-id")?.to_owned(),
            cluster_name: text("cluster-name")?.to_owned(),
            members: text("initial-cluster")?.to_owned(),
            shards: number(file, "shards", text("shards")?)?,
            node: number(file, "node-id", text("node-id")?)?,
            cores: number(file, "cores", text("cores")?)?,
            incarnation: parse_incarnation(file, text("incarnation")?)?,
        })
    }

    fn of(identity: &Identity, incarnation: Incarnation) -> Recorded {
        let members: Vec<String> = identity.members.iter().map(|(node, address)| format!("{node}={address}")).collect();
        Recorded {
            cluster: identity.cluster.to_string(),
            // Whatever the words hold, each stays on its line of the file.
            cluster_name: identity.cluster_name.escape_debug().to_string(),
            members: members.join(",").escape_debug().to_string(),
            shards: identity.shards,
            node: identity.node.0,
            cores: identity.cores,
            incarnation,
        }
    }

    fn into_fields(self) -> Fields {
        [
            ("cluster-id", self.cluster),
            ("cluster-name", self.cluster_name),
            ("initial-cluster", self.members),
            ("shards", self.shards.to_string()),
            ("node-id", self.node.to_string()),
            ("cores", self.cores.to_string()),
            ("incarnation", hex(self.incarnation)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// The incarnation on record, if the directory is this node's.
fn recognise(path: &Path, recorded: &Recorded, identity: &Identity) -> Result<Incarnation, Fatal> {
    let now = Recorded::of(identity, recorded.incarnation);
    let refuse = |why: String| Err(Fatal::failure(format!("data directory {} {why}", path.display())));
    if recorded.cluster != now.cluster {
        return refuse(format!(
            "belongs to another cluster: {}; start with the old settings or choose another --data-dir",
            differences(recorded, &now)
        ));
    }
    if recorded.node != now.node {
        return refuse(format!(
            "belongs to node {}, not to node {}: check --node-id and --data-dir",
            recorded.node, now.node
        ));
    }
    Ok(recorded.incarnation)
}

fn differences(recorded: &Recorded, now: &Recorded) -> String {
    let words = [
        ("--cluster-name", recorded.cluster_name.clone(), now.cluster_name.clone()),
        ("--initial-cluster", recorded.members.clone(), now.members.clone()),
        ("--shards", recorded.shards.to_string(), now.shards.to_string()),
    ];
    let mut texts: Vec<String> = words
        .iter()
        .filter(|(_, was, is)| was != is)
        .map(|(name, was, is)| format!("{name} was {was}, is {is}"))
        .collect();
    if texts.is_empty() {
        texts.push(format!("its cluster id was {}, is {}", recorded.cluster, now.cluster));
    }
    texts.join(", ")
}

/// Makes an empty directory this node's.
fn give_birth(
    path: &Path,
    identity: &Identity,
    draw: impl FnOnce() -> Result<Incarnation, Fatal>,
) -> Result<Fields, Fatal> {
    // The identity is durable before anything else is written: what lies here without it is the rest of a node.
    if let Some(rest) =
        [PEERS, DAMAGE, "logs", "logs-next", "snapshots"].into_iter().find(|name| path.join(name).exists())
    {
        return Err(Fatal::failure(format!(
            "data directory {} holds `{rest}` but no `{IDENTITY}`: restore that file from a backup, \
             or choose another --data-dir",
            path.display()
        )));
    }
    let incarnation = draw()?;
    let fields = Recorded::of(identity, incarnation).into_fields();
    text_file::write(&path.join(IDENTITY), IDENTITY, &fields)?;
    Ok(fields)
}

fn draw_incarnation() -> Result<Incarnation, Fatal> {
    let mut bytes = [0; 8];
    let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    drawn.map_err(|error| Fatal::failure(format!("cannot read /dev/urandom: {error}")))?;
    Ok(Incarnation(u64::from_le_bytes(bytes)))
}

fn read_peers(file: &Path) -> Result<BTreeMap<NodeId, Incarnation>, Fatal> {
    let fields = text_file::read(file, PEERS)?.unwrap_or_default();
    let peers = fields.iter().map(|(name, value)| {
        let node = name.parse().map_err(|_| text_file::damaged(file, &format!("`{name}` is no node id")))?;
        Ok((NodeId(node), parse_incarnation(file, value)?))
    });
    peers.collect()
}

fn parse_incarnation(file: &Path, text: &str) -> Result<Incarnation, Fatal> {
    let damaged = |_| text_file::damaged(file, &format!("incarnation `{text}` makes no sense"));
    u64::from_str_radix(text, 16).map(Incarnation).map_err(damaged)
}

fn hex(incarnation: Incarnation) -> String {
    format!("{:016x}", incarnation.0)
}

/// Makes a directory and those above it, durably. What exists already is left alone.
fn create_dir(path: &Path) -> Result<(), Fatal> {
    let fatal = |why: &dyn std::fmt::Display| {
        Fatal::failure(format!("cannot create directory {}: {why}; check --data-dir", path.display()))
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(Fatal::failure(format!("{} is no directory; check --data-dir", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fatal(&error)),
    }
    create_dir(text_file::parent(path))?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fatal(&error)),
        _ => {}
    }
    text_file::sync_parent(path)
}

/// Takes the directory's lock, which the kernel gives back when the file is closed, however the process ends.
fn lock(path: &Path) -> Result<File, Fatal> {
    let file = path.join("LOCK");
    let cannot = |error: &io::Error| {
        Fatal::failure(format!("cannot use data directory {}: {}: {error}", path.display(), file.display()))
    };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
    let mut lock = opened.map_err(|error| cannot(&error))?;
    match lock_soon(&lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
        Err(TryLockError::Error(error)) => return Err(cannot(&error)),
    }
    // For people only: a full disk is no reason not to start.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

/// Takes the lock, and waits a moment for it: its process may be ending right now, and whatever that process has started holds
/// the lock too until it runs a program of its own.
#[expect(clippy::disallowed_methods, reason = "the pause between two tries")]
fn lock_soon(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            locked => return locked,
        }
    }
    lock.try_lock()
}

fn in_use(path: &Path, lock: &mut File) -> Fatal {
    let mut holder = String::new();
    let pid = lock.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse::<u32>().ok());
    let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    Fatal::failure(format!(
        "data directory {} is in use by {who}: stop it, or choose another --data-dir",
        path.display()
    ))
}
