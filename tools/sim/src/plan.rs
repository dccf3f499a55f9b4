//! What one run is made of. Each seed draws its own cluster, its own load, and its own classes of faults: most runs
//! have only some of them, as faults of one kind may hide what those of another would show (swarm testing).

use std::fmt;
use std::time::Duration;

use crate::agenda::{HostId, MICROSECOND, MILLISECOND, SECOND};
use crate::batches::BatchPlan;
use crate::leases::LeasePlan;
use crate::memory::MemoryPlan;
use crate::network::{Net, NetPlan};
use crate::random::Random;
use crate::slow_apply::ApplyPlan;

/// A kind of fault that the nemesis may bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nodes on two sides hear nothing of each other.
    Partition,
    /// One node is cut off.
    Isolate,
    /// One way between two nodes is cut.
    OneWay,
    /// A node can send but not hear, or hear but not send.
    HalfOpen,
    /// Some pairs of nodes are cut, in no pattern.
    Partial,
    /// Ways are cut one after the other and mended in another order.
    Swizzle,
    /// A way is slow.
    SlowPath,
    /// A node is cut off with others, is back before them, and is given leadership.
    Comeback,
    /// Connections of a node are forgotten by a box on the way, and reset.
    Reset,
    /// A node is told to hand over what it leads.
    HandOver,
    /// A process is killed; what it wrote is with the kernel.
    Kill,
    /// A machine loses power; what was not synced is lost, or half of it.
    PowerLoss,
    /// A machine goes down as soon as a vote of its node is on its way.
    AfterVote,
    /// Every machine loses power at once.
    Blackout,
    /// A node is told to stop, as an operator does.
    Stop,
    /// A process stands still for longer than an election takes.
    Pause,
    /// Syncs take long.
    SlowDisk,
    /// Syncs do not return for a while.
    HungDisk,
    /// A sync fails.
    SyncError,
    /// A disk is full.
    FullDisk,
    /// Something that is done with the file of a snapshot fails.
    SnapshotError,
    /// A bit of a segment flips.
    Rot,
    /// A segment becomes shorter.
    ShortSegment,
    /// A bit of the newest snapshot flips.
    SnapshotRot,
    /// A machine comes back with an empty disk.
    LostDisk,
    /// A client goes away with requests unanswered, and comes back as another.
    GiveUp,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 26] = [
        Fault::Partition,
        Fault::Isolate,
        Fault::OneWay,
        Fault::HalfOpen,
        Fault::Partial,
        Fault::Swizzle,
        Fault::SlowPath,
        Fault::Comeback,
        Fault::Reset,
        Fault::HandOver,
        Fault::Kill,
        Fault::PowerLoss,
        Fault::AfterVote,
        Fault::Blackout,
        Fault::Stop,
        Fault::Pause,
        Fault::SlowDisk,
        Fault::HungDisk,
        Fault::SyncError,
        Fault::FullDisk,
        Fault::Rot,
        Fault::ShortSegment,
        Fault::LostDisk,
        Fault::GiveUp,
        Fault::SnapshotError,
        Fault::SnapshotRot,
    ];

    /// For people and for the counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Partition => "partition",
            Fault::Isolate => "isolate",
            Fault::OneWay => "one way cut",
            Fault::HalfOpen => "half open",
            Fault::Partial => "partial partition",
            Fault::Swizzle => "swizzle",
            Fault::SlowPath => "slow path",
            Fault::Comeback => "comeback",
            Fault::Reset => "connections reset",
            Fault::HandOver => "leadership handed over",
            Fault::Kill => "kill",
            Fault::PowerLoss => "power loss",
            Fault::AfterVote => "crash after a vote",
            Fault::Blackout => "blackout",
            Fault::Stop => "stop",
            Fault::Pause => "pause",
            Fault::SlowDisk => "slow disk",
            Fault::HungDisk => "hung disk",
            Fault::SyncError => "sync error",
            Fault::FullDisk => "full disk",
            Fault::SnapshotError => "snapshot error",
            Fault::Rot => "bit rot",
            Fault::ShortSegment => "short segment",
            Fault::SnapshotRot => "bit rot in a snapshot",
            Fault::LostDisk => "lost disk",
            Fault::GiveUp => "client gives up",
        }
    }
}

/// How clients scan, and what nodes allow them.
#[derive(Clone, Debug)]
pub struct ScanPlan {
    /// How many of a hundred requests are scans.
    pub percent: u64,
    /// The most items of a page; half of it at every other node.
    pub items_max: usize,
    /// The most bytes of a page; half of it at every other node.
    pub bytes_max: usize,
    /// The most scans of a core at a time.
    pub at_once_max: usize,
}

/// The number that a value begins with.
#[must_use]
pub fn number_in(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Voters.
    pub nodes: usize,
    /// Event loops of each node.
    pub cores: u16,
    /// Raft groups.
    pub shards: u16,
    /// Clients.
    pub clients: usize,
    /// Requests that a client has in flight at most.
    pub inflight: usize,
    /// Keys at one time; they are replaced by fresh ones now and then.
    pub keys: u64,
    /// How long keys are used, in nanoseconds.
    pub keys_live: u64,
    /// Most keys of one time lie in one shard.
    pub lopsided: bool,
    /// The longest pause of a client between two requests.
    pub think_max: u64,
    /// The longest value.
    pub value_max: u64,
    /// Scans.
    pub scans: ScanPlan,
    /// How long the faults go on.
    pub duration: u64,
    /// The longest pause between two acts of the nemesis.
    pub nemesis_pause_max: u64,
    /// Its acts.
    pub faults: Vec<Fault>,
    /// Two nodes that do not meet before one of them comes back with an empty disk, or there is peace.
    pub strangers: Option<(usize, usize)>,
    /// Clients, and nodes that they do not reach: others have to send on what they ask.
    pub barred: Vec<(usize, usize)>,
    /// The network.
    pub net: NetPlan,
    /// Whether single frames have faults.
    pub frame_faults: bool,
    /// How many of a thousand requests are for snapshots of all shards of a node.
    pub demands: u64,
    /// The loops themselves sync their logs, and stand still meanwhile.
    pub inline: bool,
    /// The shortest and the longest time of a sync.
    pub sync: (u64, u64),
    /// Of the log.
    pub segment_size: u64,
    /// Durable entries kept in memory, in bytes: few, so that followers are served from disk.
    pub tail_bytes_max: usize,
    /// Uncommitted bytes of a shard.
    pub uncommitted_bytes_max: usize,
    /// What is old or new after a power loss: sectors or pages.
    pub torn_block: usize,
    /// How much faster or slower a node's clock runs, in millionths.
    pub drift_max: u64,
    /// How long nodes try to answer a request; every other one has half the patience.
    pub request_timeout: Duration,
    /// Bytes of entries after which a shard is snapshotted: few, so that there are many snapshots.
    pub snapshot_log_bytes: u64,
    /// Bytes of entries that stay in the log for followers that lag.
    pub log_tail_bytes: u64,
    /// Bytes of a core's log above which shards that hold on to old segments are pushed.
    pub core_log_bytes_max: u64,
    /// Bytes of snapshots that a core takes in a second.
    pub snapshot_rate: u64,
    /// Timers of the nodes.
    pub heartbeat: Duration,
    /// See the heartbeat.
    pub election_timeout: Duration,
    /// Leases, if there are any.
    pub leases: Option<LeasePlan>,
    /// Batches, if there are any.
    pub batches: Option<BatchPlan>,
    /// Slow replicas, if there are any.
    pub slow_apply: Option<ApplyPlan>,
    /// Memory that is not to be trusted, if there is any.
    pub memory: Option<MemoryPlan>,
}

impl Plan {
    /// What the seed says.
    #[must_use]
    pub fn draw(random: &mut Random) -> Plan {
        let nodes = *random.pick(&[1, 3, 3, 3, 3, 3, 5, 5, 7]);
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| random.below(100) < 35).collect();
        let election = *random.pick(&[800, 800, 800, 400, 1_500]);
        let (clients, inflight) = (random.between(2, 6), *random.pick(&[1, 1, 2, 4]));
        // Few at a time on one key: the search for an order takes exponentially long otherwise.
        let keys = random.between(1, 24).max(clients * inflight / 2);
        let shards = *random.pick(&[1, 2, 3, 4, 6]);
        Plan {
            nodes,
            cores: *random.pick(&[1, 1, 1, 2]),
            shards,
            clients: clients as usize,
            inflight: inflight as usize,
            keys,
            keys_live: random.between(1, 8) * SECOND,
            lopsided: random.below(3) == 0,
            think_max: *random.pick(&[2 * MILLISECOND, 10 * MILLISECOND, 40 * MILLISECOND]),
            value_max: *random.pick(&[16, 128, 1_024, 16 << 10]),
            scans: draw_scans(random),
            duration: random.between(3, 9) * SECOND,
            nemesis_pause_max: *random.pick(&[SECOND / 2, SECOND, 3 * SECOND]),
            strangers: draw_strangers(nodes, shards, &faults, random),
            barred: draw_barred(clients as usize, nodes, random),
            faults,
            net: draw_net(random),
            frame_faults: random.below(100) < 40,
            demands: *random.pick(&[0, 5, 5, 20]),
            inline: random.below(4) == 0,
            sync: *random.pick(&[
                (50 * MICROSECOND, 400 * MICROSECOND),
                (200 * MICROSECOND, 4 * MILLISECOND),
                (MILLISECOND, 40 * MILLISECOND),
            ]),
            segment_size: *random.pick(&[64 << 10, 64 << 10, 256 << 10]),
            tail_bytes_max: *random.pick(&[1 << 10, 16 << 10, 64 << 20]),
            uncommitted_bytes_max: *random.pick(&[2 << 20, 64 << 20]),
            torn_block: *random.pick(&[512, 4_096]),
            drift_max: *random.pick(&[0, 0, 500, 50_000]),
            request_timeout: Duration::from_millis(*random.pick(&[250, 1_000, 5_000])),
            snapshot_log_bytes: *random.pick(&[500, 500, 2_000, 2_000, 20_000, 64 << 20]),
            log_tail_bytes: *random.pick(&[0, 0, 1_000, 64 << 20]),
            core_log_bytes_max: *random.pick(&[256 << 10, 512 << 10, 4 << 30]),
            snapshot_rate: *random.pick(&[256 << 10, 64 << 20]),
            heartbeat: Duration::from_millis(election / 8),
            election_timeout: Duration::from_millis(election),
            leases: None,
            batches: None,
            slow_apply: None,
            memory: None,
        }
    }

    /// A key of a generation: later ones begin with nothing written.
    #[must_use]
    pub fn key(&self, generation: u64, number: u64) -> Vec<u8> {
        let tag = if self.lopsided && !number.is_multiple_of(4) { format!("{{{generation}}}") } else { String::new() };
        format!("{generation}/{number}{tag}").into_bytes()
    }

    /// Another key of the same shard: it has the same tag, or the key itself as its tag.
    #[must_use]
    pub fn sibling(&self, key: &[u8], number: u64) -> Vec<u8> {
        let key = String::from_utf8_lossy(key);
        let (stem, tag) = key.split_once('{').unwrap_or((&key, &key));
        format!("{stem}.{number}{{{}}}", tag.trim_end_matches('}')).into_bytes()
    }

    /// The value that the put with this number writes. Values are unique, so that each read names its write.
    #[must_use]
    pub fn value(&self, number: u64) -> Vec<u8> {
        let mut value = number.to_be_bytes().to_vec();
        value.resize(self.value_bytes(number), number as u8);
        value
    }

    fn value_bytes(&self, number: u64) -> usize {
        8 + number.wrapping_mul(0x9e37_79b9) as usize % self.value_max as usize
    }

    /// Whether a value is what the put of the number that it begins with wrote, to the last byte.
    #[must_use]
    pub fn is_whole(&self, value: &[u8]) -> bool {
        number_in(value).is_some_and(|number| {
            value.len() == self.value_bytes(number) && value[8..].iter().all(|byte| *byte == number as u8)
        })
    }

    /// Firewalls, before anybody has dialled.
    pub fn bar(&self, net: &mut Net) {
        if let Some((one, other)) = self.strangers {
            net.bar(HostId(one), HostId(other));
            net.bar(HostId(other), HostId(one));
        }
        for (client, node) in &self.barred {
            net.bar(HostId(self.nodes + client), HostId(*node));
        }
    }

    /// The longest that a cluster without faults may take to agree again: ten election timeouts.
    #[must_use]
    pub fn patience(&self) -> u64 {
        10 * u64::try_from(self.election_timeout.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn draw_scans(random: &mut Random) -> ScanPlan {
    ScanPlan {
        percent: *random.pick(&[0, 2, 5, 10]),
        items_max: *random.pick(&[3, 1_000, 1_000, 1_000]),
        bytes_max: *random.pick(&[512, 4 << 10, 1 << 20, 1 << 20]),
        at_once_max: *random.pick(&[1, 16]),
    }
}

/// Neither is to lead by the rule of placement: the other would hear of no leader, and never be admitted.
fn draw_strangers(nodes: usize, shards: u16, faults: &[Fault], random: &mut Random) -> Option<(usize, usize)> {
    let followers = nodes.checked_sub(usize::from(shards)).filter(|followers| *followers >= 2)? as u64;
    if !faults.contains(&Fault::LostDisk) || random.below(4) == 0 {
        return None;
    }
    let one = random.below(followers);
    let other = (one + 1 + random.below(followers - 1)) % followers;
    Some((nodes - 1 - one as usize, nodes - 1 - other as usize))
}

/// Each client reaches some node.
fn draw_barred(clients: usize, nodes: usize, random: &mut Random) -> Vec<(usize, usize)> {
    if random.below(4) > 0 {
        return Vec::new();
    }
    let mut barred = Vec::new();
    for client in 0..clients {
        let open = random.below(nodes as u64) as usize;
        barred.extend((0..nodes).filter(|node| *node != open && random.coin()).map(|node| (client, node)));
    }
    barred
}

fn draw_net(random: &mut Random) -> NetPlan {
    let (delay_min, delay_max) = *random.pick(&[
        (30 * MICROSECOND, 300 * MICROSECOND),
        (100 * MICROSECOND, 5 * MILLISECOND),
        (MILLISECOND, 30 * MILLISECOND),
    ]);
    let fate = |random: &mut Random| *random.pick(&[0, 1_000, 10_000, 50_000]);
    NetPlan {
        delay_min,
        delay_max,
        // A small window over a long way would be slower than any network is.
        window: *random.pick(&[if delay_max > MILLISECOND { 256 << 10 } else { 8 << 10 }, 64 << 10, 1 << 20]),
        lost: fate(random),
        doubled: fate(random),
        overtaking: fate(random),
        late_max: *random.pick(&[5 * MILLISECOND, 100 * MILLISECOND, 2 * SECOND]),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<&str> = self.faults.iter().map(|fault| fault.name()).collect();
        write!(
            f,
            "{} nodes of {} cores, {} shards, {} clients x {}, {} keys{}, {} % scans, {} s, election {:?}, \
             syncs {}up to {} us, network up to {} us{}{}{}{}, snapshots every {} bytes, tails of {}, logs of {}{}{}; {}",
            self.nodes,
            self.cores,
            self.shards,
            self.clients,
            self.inflight,
            self.keys,
            if self.lopsided { ", lopsided" } else { "" },
            self.scans.percent,
            self.duration / SECOND,
            self.election_timeout,
            if self.inline { "inline, " } else { "" },
            self.sync.1 / MICROSECOND,
            self.net.delay_max / MICROSECOND,
            if self.frame_faults { ", frames with faults" } else { "" },
            self.leases.as_ref().map_or(String::new(), |leases| format!(", leases of {:?}", leases.duration)),
            if self.slow_apply.is_some() { ", slow replicas" } else { "" },
            if self.memory.is_some() { ", bad memory" } else { "" },
            self.snapshot_log_bytes,
            self.log_tail_bytes,
            self.core_log_bytes_max,
            self.strangers.map_or(String::new(), |(a, b)| format!(", {} and {} strangers", a + 1, b + 1)),
            if self.barred.is_empty() { "" } else { ", clients barred" },
            if faults.is_empty() { "no faults".to_owned() } else { faults.join(", ") },
        )
    }
}
