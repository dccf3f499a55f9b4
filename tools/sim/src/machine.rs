//! One machine: its disks, its clock, and the node that runs on it or does not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raftkv::config::{Config, LogIo, LogSync};
use raftkv::error::Fatal;
use raftkv::limits::Limits;
use raftkv::server::by_hand::{self, CoreParts, NodeByHand};
use raftkv::server::node::{Node, Peer};
use raftkv::shard::snapshots::{Effort, Stores};
use raftkv::storage::disk::Disk;
use raftkv::storage::simulated_disk::{SimulatedDisk, Survivors};
use raftkv::storage::{self, FileLog, Options, Workers};
use raftkv_protocol::types::{CoreId, Incarnation, NodeId, ShardId};

use crate::agenda::{LoopId, MILLISECOND, Work};
use crate::damage::{DamagedFile, Flip, Harm};
use crate::leases;
use crate::network::{SharedNet, node_address};
use crate::plan::Plan;
use crate::random::Random;
use crate::socket::SimNetwork;

/// The node that runs on a machine.
pub struct Process {
    /// The node.
    pub node: NodeByHand<SimNetwork>,
    /// What its logs' threads would do, by core.
    pub workers: Vec<Workers>,
    /// Set when a core is to look, by core.
    woken: Vec<Arc<AtomicBool>>,
}

/// What may come of a machine.
pub enum State {
    /// The node runs.
    Up(Box<Process>),
    /// It can be started.
    Down,
    /// It will not come back in this run: its log was damaged, nobody else has what it held, and it said so.
    Gone,
}

/// See the module.
pub struct Machine {
    /// From 0 on; node ids count from 1.
    pub index: usize,
    /// By core.
    pub disks: Vec<SimulatedDisk>,
    /// Where the snapshots of each shard lie.
    pub snapshot_disks: Vec<SimulatedDisk>,
    /// By core.
    pub loops: Vec<LoopId>,
    /// What runs.
    pub state: State,
    /// Counts the starts.
    pub boot: u64,
    /// Stands still.
    pub paused: bool,
    /// Syncs do not return.
    pub hung: bool,
    /// Syncs take up to so much longer.
    pub slow: u64,
    /// Crashes in the middle of its next sync; with the power, or only the process.
    pub is_doomed: Option<bool>,
    /// Crashes as soon as a vote has left it.
    pub dies_of_vote: bool,
    /// Its node was admitted when its last process ended.
    was_admitted: bool,
    /// What its disks have suffered.
    pub harm: Harm,
    /// Shards whose logs were salvaged since a node last started.
    pub salvaged: Vec<ShardId>,
    /// The last start ended in the middle of a salvage.
    pub was_cut_short: bool,
    /// Bits that have flipped since the last start.
    pub flips: Vec<Flip>,
    /// A bit of these disks has flipped once, or a file lost its end.
    pub has_rotted: bool,
    /// The files of its logs that were damaged since a node last started.
    pub damaged: Vec<DamagedFile>,
    /// Its node is the only one.
    pub is_alone: bool,
    /// A snapshot was damaged: no second one is, or none may be left.
    pub snapshot_damaged: bool,
    /// By core and kind of work: it is under way.
    busy: Vec<[bool; 5]>,
    /// By core: until when it stands still, as it syncs its log itself; 0 if it does not.
    syncs_until: Vec<u64>,
    /// By core: when it may apply something again, on a machine that is slow at that.
    pub applies_at: Vec<u64>,
    /// By core: it stood still since then, in the middle of a turn that it is now to take.
    pub stood_since: Vec<Option<u64>>,
    /// What has to do with leases is drawn here.
    pub lease_random: Random,
    /// How long leases last at the node that was started last.
    lease: Option<Duration>,
    /// How much faster the clock runs, in millionths; may be negative.
    pub drift: i64,
    /// And that, in a run with leases.
    pub drift_random: Random,
    dir: PathBuf,
    epoch: Instant,
}

/// The longest that a disk takes to allocate a segment, unless it is slow.
pub const ALLOCATION_MAX: u64 = 20 * MILLISECOND;

/// More syncs than any run has.
const NEVER: u64 = 1 << 60;

/// What a salvage does to its new disk is done after so many operations, more or less.
const SALVAGE_OPERATIONS: u64 = 24;

fn slot(work: Work) -> usize {
    match work {
        Work::Sync => 0,
        Work::Prove => 1,
        Work::Allocate => 2,
        Work::Read => 3,
        Work::Snapshot => 4,
    }
}

impl Machine {
    /// A machine with empty disks.
    pub fn new(
        index: usize,
        plan: &Plan,
        loops: Vec<LoopId>,
        dir: &Path,
        epoch: Instant,
        random: &mut Random,
    ) -> Machine {
        Machine {
            index,
            disks: loops.iter().map(|_| SimulatedDisk::new(random.number())).collect(),
            snapshot_disks: (0..plan.shards).map(|_| SimulatedDisk::new(random.number())).collect(),
            busy: vec![[false; 5]; loops.len()],
            syncs_until: vec![0; loops.len()],
            applies_at: vec![0; loops.len()],
            stood_since: vec![None; loops.len()],
            lease_random: Random::new(0),
            lease: None,
            loops,
            state: State::Down,
            boot: 0,
            paused: false,
            hung: false,
            slow: 0,
            is_doomed: None,
            dies_of_vote: false,
            was_admitted: false,
            harm: Harm::None,
            salvaged: Vec::new(),
            was_cut_short: false,
            flips: Vec::new(),
            has_rotted: false,
            damaged: Vec::new(),
            is_alone: plan.nodes == 1,
            snapshot_damaged: false,
            drift: draw_drift(plan, random),
            drift_random: Random::new(0),
            dir: dir.join(format!("node{}-0", index + 1)),
            epoch,
        }
    }

    /// What runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        if let State::Up(process) = &mut self.state { Some(process) } else { None }
    }

    /// Whether something runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether some of its disks take nothing more.
    #[must_use]
    pub fn has_full_disk(&self) -> bool {
        self.disks.iter().chain(&self.snapshot_disks).any(SimulatedDisk::is_full)
    }

    /// Whether its node is admitted, or was when it ran last.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        match &self.state {
            State::Up(process) => process.node.node().admission.is_admitted(),
            State::Down | State::Gone => self.was_admitted,
        }
    }

    /// Whether its node, which has just started, is bound by what an earlier process may have promised.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        let State::Up(process) = &self.state else { return false };
        let router = process.node.router(CoreId(0));
        router.is_some_and(|router| router.shards().iter().any(|shard| shard.raft().is_bound()))
    }

    /// Whether its data directory says that it has lost something.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        let State::Up(process) = &self.state else { return false };
        process.node.node().data_dir().is_ok_and(|data_dir| !data_dir.damage().is_empty())
    }

    /// What its clock shows.
    #[must_use]
    pub fn clock(&self, now: u64) -> Instant {
        let gained = i128::from(now) * i128::from(self.drift) / 1_000_000;
        self.epoch + Duration::from_nanos((i128::from(now) + gained) as u64)
    }

    /// When its clock shows so much.
    #[must_use]
    pub fn when(&self, clock: Instant) -> u64 {
        let shown = clock.saturating_duration_since(self.epoch).as_nanos() as i128;
        ((shown * 1_000_000).div_euclid(1_000_000 + i128::from(self.drift)) + 1) as u64
    }

    /// Starts the node. An error is what the program would print before it ends. A start that salvages a log is cut short
    /// now and then if faults go on.
    pub fn start(
        &mut self,
        plan: &Plan,
        net: &SharedNet,
        now: u64,
        is_faulty: bool,
        random: &mut Random,
    ) -> Result<(), Fatal> {
        self.boot += 1;
        self.busy = vec![[false; 5]; self.loops.len()];
        self.syncs_until = vec![0; self.loops.len()];
        self.stood_since = vec![None; self.loops.len()];
        self.applies_at = vec![0; self.loops.len()];
        self.lease = plan.leases.as_ref().and_then(|leases| leases.setting(&mut self.lease_random));
        self.drift = draw_drift(plan, random);
        if plan.leases.is_some() {
            self.drift = leases::draw_drift(plan.drift_max, &mut self.drift_random);
        }
        let now_shown = self.clock(now);
        let peers = (0..plan.nodes).filter(|index| *index != self.index);
        let peers = peers.map(|index| Peer { id: node_id(index), address: node_address(index) }).collect();
        let node = by_hand::open(self.config(plan), peers, Incarnation(random.number()))?;
        let mut cores = Vec::new();
        let mut workers = Vec::new();
        let mut woken = Vec::new();
        for (at, own) in self.loops.clone().into_iter().enumerate() {
            let core = CoreId(at as u16);
            let flag = Arc::new(AtomicBool::new(false));
            let wake: Arc<dyn Fn() + Send + Sync> = {
                let flag = Arc::clone(&flag);
                Arc::new(move || flag.store(true, Ordering::Relaxed))
            };
            let shards = node.shards_of(core).collect();
            let mut options = Options::new("simulated", shards, Arc::clone(&wake));
            options.segment_size = plan.segment_size;
            options.tail_bytes_max = plan.tail_bytes_max;
            options.sync = if plan.inline { storage::LogSync::Inline } else { storage::LogSync::Thread };
            let opened = match FileLog::open_by_hand(Arc::new(self.disks[at].clone()), options.clone()) {
                Err(error) if !self.salvage(&node, at, &options, is_faulty, random)? => Err(error),
                Err(_) => FileLog::open_by_hand(Arc::new(self.disks[at].clone()), options),
                opened => opened,
            };
            let (log, recovered, hands) = opened.map_err(|error| Fatal::failure(error.to_string()))?;
            workers.push(hands);
            woken.push(flag);
            cores.push(CoreParts { network: net.for_loop(own), log, recovered, wake, seed: random.number() });
        }
        let disk_of = |shard: ShardId| Ok(Arc::new(self.snapshot_disks[usize::from(shard.0)].clone()) as Arc<dyn Disk>);
        let stores = Stores::open((0..plan.shards).map(ShardId), disk_of).map_err(Fatal::failure)?;
        let node = NodeByHand::start(node, cores, &stores, now_shown)?;
        self.state = State::Up(Box::new(Process { node, workers, woken }));
        Ok(())
    }

    /// Brings what is sound of a core's log to another disk, if it is damaged. Whether it was.
    fn salvage(
        &mut self,
        node: &Node,
        core: usize,
        options: &Options,
        is_faulty: bool,
        random: &mut Random,
    ) -> Result<bool, Fatal> {
        let next = SimulatedDisk::new(random.number());
        let end = if is_faulty { random.below(8) } else { NEVER };
        if end == 0 {
            next.die_at(random.below(SALVAGE_OPERATIONS));
        }
        let (from, to) = (Arc::new(self.disks[core].clone()), Arc::new(next.clone()));
        let salvaged = by_hand::salvage(node, from, to, options.clone(), 0);
        // Or between the mark of the damage and the switch to the new log.
        if next.is_off() || (end == 1 && matches!(salvaged, Ok(Some(_)))) {
            self.was_cut_short = true;
            return Err(Fatal::failure("cut short while it salvaged a log".to_owned()));
        }
        let is_damaged = salvaged?.is_some();
        if is_damaged {
            next.restart();
            self.disks[core] = next;
            self.salvaged.extend(&options.shards);
        }
        Ok(is_damaged)
    }

    fn config(&self, plan: &Plan) -> Config {
        let address = |index: usize| -> SocketAddr { node_address(index) };
        Config {
            node_id: node_id(self.index),
            listen: address(self.index),
            http_listen: None,
            ui_write: false,
            advertise: address(self.index).to_string(),
            data_dir: self.dir.clone(),
            initial_cluster: (0..plan.nodes).map(|index| (node_id(index), address(index).to_string())).collect(),
            shards: plan.shards,
            cores: plan.cores,
            heartbeat: plan.heartbeat,
            election_timeout: plan.election_timeout,
            cluster_name: "simulation".to_owned(),
            segment_size: plan.segment_size,
            log_io: LogIo::default(),
            log_sync: if plan.inline { LogSync::Inline } else { LogSync::Thread },
            slow_sync: Duration::from_millis(200),
            lease: self.lease,
            clock_drift_ppm_max: plan.drift_max as u32,
            log_level: log::LevelFilter::Off,
            limits: Limits {
                uncommitted_bytes_max: plan.uncommitted_bytes_max,
                request_timeout: plan.request_timeout / (1 + self.index as u32 % 2),
                snapshot_log_bytes: plan.snapshot_log_bytes,
                log_tail_bytes: plan.log_tail_bytes,
                core_log_bytes_max: plan.core_log_bytes_max,
                snapshot_rate: plan.snapshot_rate,
                scan_items_max: plan.scans.items_max / (1 + self.index % 2),
                scan_bytes_max: plan.scans.bytes_max / (1 + self.index % 2),
                core_scans_max: plan.scans.at_once_max,
                ..Limits::default()
            },
        }
    }

    /// The cores that were woken from inside since the last look.
    pub fn take_woken(&mut self) -> Vec<LoopId> {
        let State::Up(process) = &self.state else { return Vec::new() };
        let woken = process.woken.iter().zip(&self.loops).filter(|(flag, _)| flag.swap(false, Ordering::Relaxed));
        woken.map(|(_, own)| *own).collect()
    }

    /// When a core that is syncing its log, and does nothing else meanwhile, is to be looked at again.
    #[must_use]
    pub fn stands_until(&self, core: usize, now: u64) -> Option<u64> {
        match self.syncs_until[core] {
            0 => None,
            _ if self.hung => Some(now + 20 * MILLISECOND),
            until => Some(until).filter(|until| *until > now),
        }
    }

    /// A core is about to take a turn, at the end of which it may sync its log. Whoever is doomed dies in the middle of
    /// that. Returns what is to be told afterwards.
    pub fn before_turn(&mut self, core: usize, plan: &Plan, random: &mut Random) -> u64 {
        self.syncs_until[core] = 0;
        let disk = &self.disks[core];
        if plan.inline && self.is_doomed.is_some() {
            let operations = if random.below(4) == 0 { 8 } else { 2 };
            disk.die_at(random.below(operations));
        }
        disk.operations()
    }

    /// It has: if it has synced, it stands still until that is done, and what was to leave before has left. Whether it died
    /// of it.
    pub fn after_turn(&mut self, core: usize, before: u64, plan: &Plan, now: u64, random: &mut Random) -> bool {
        let disk = &self.disks[core];
        if !plan.inline || disk.is_off() {
            return disk.is_off();
        }
        disk.die_at(NEVER);
        if disk.operations() > before {
            self.syncs_until[core] = now + random.skewed(plan.sync.0, plan.sync.1) + random.below(self.slow + 1);
        }
        false
    }

    /// What the logs' threads would begin now, and how long it takes.
    pub fn begin_work(&mut self, plan: &Plan, random: &mut Random) -> Vec<(usize, Work, u64)> {
        let State::Up(process) = &self.state else { return Vec::new() };
        let mut begun = Vec::new();
        for (core, workers) in process.workers.iter().enumerate() {
            let extra = random.below(self.slow + 1);
            let sync = random.skewed(plan.sync.0, plan.sync.1) + extra;
            let effort = process.node.snapshots(CoreId(core as u16)).next_effort();
            let snapshot = match effort {
                Some(Effort::Long) => random.skewed(MILLISECOND / 10, 20 * MILLISECOND) + extra,
                _ => random.skewed(MILLISECOND / 20, 2 * MILLISECOND) + extra,
            };
            let wants = [
                (Work::Sync, workers.can_sync(), sync),
                (Work::Prove, workers.can_prove() && !workers.can_sync(), 10 * MILLISECOND + sync),
                (Work::Allocate, workers.can_allocate(), random.between(MILLISECOND, ALLOCATION_MAX) + extra),
                (Work::Read, workers.can_read(), random.skewed(MILLISECOND / 20, 5 * MILLISECOND) + extra),
                (Work::Snapshot, effort.is_some(), snapshot),
            ];
            for (work, wanted, takes) in wants {
                let busy = &mut self.busy[core][slot(work)];
                if wanted && !*busy {
                    *busy = true;
                    begun.push((core, work, takes));
                }
            }
        }
        begun
    }

    /// Does it.
    pub fn work(&mut self, core: usize, work: Work) {
        self.busy[core][slot(work)] = false;
        let State::Up(process) = &self.state else { return };
        let workers = &process.workers[core];
        match work {
            Work::Sync if workers.can_sync() => workers.sync(),
            Work::Prove if workers.can_prove() && !workers.can_sync() => workers.prove(),
            Work::Allocate if workers.can_allocate() => drop(workers.allocate()),
            Work::Read if workers.can_read() => workers.read(),
            Work::Snapshot => process.node.snapshots(CoreId(core as u16)).work(),
            _ => {}
        }
    }

    /// The process is gone from one moment to the next; with the power, if it fails, goes what was not synced.
    pub fn crash(&mut self, plan: &Plan, power_fails: bool, random: &mut Random) {
        if let State::Up(process) = &self.state {
            for (workers, disk) in process.workers.iter().zip(&self.disks) {
                // A sync that is under way ends in the middle of its writing.
                if workers.can_sync() && random.below(8) > 0 {
                    let operations = if random.below(4) == 0 { 8 } else { 2 };
                    disk.die_at(random.below(operations));
                    workers.sync();
                }
            }
            for core in 0..process.workers.len() {
                // And so does what is being done with a snapshot.
                let snapshots = process.node.snapshots(CoreId(core as u16));
                if snapshots.next_effort().is_some() && random.below(8) > 0 {
                    let operations = random.below(6);
                    self.snapshot_disks.iter().for_each(|disk| disk.die_at(operations));
                    snapshots.work();
                }
            }
        }
        self.ended();
        for disk in self.disks.iter().chain(&self.snapshot_disks).filter(|_| power_fails) {
            let survivors = match random.below(4) {
                0 => Survivors::None,
                _ => Survivors::Random { seed: random.number(), block: plan.torn_block },
            };
            disk.crash_in_place(survivors);
        }
    }

    /// The process is no more; the machine goes on.
    pub fn ended(&mut self) {
        self.was_admitted = self.is_admitted();
        self.state = State::Down;
        self.paused = false;
        self.is_doomed = None;
        for disk in self.disks.iter().chain(&self.snapshot_disks) {
            disk.restart();
        }
    }

    /// No fault that was planned for later comes any more.
    pub fn forgive(&mut self) {
        self.is_doomed = None;
        self.dies_of_vote = false;
        for disk in &self.disks {
            disk.fail_sync(NEVER);
        }
        for disk in &self.snapshot_disks {
            disk.fail_at(NEVER);
        }
    }

    /// The machine gets empty disks.
    pub fn lose_disk(&mut self, random: &mut Random) {
        (self.harm, self.was_admitted, self.has_rotted) = (Harm::Lost, false, false);
        let fresh = format!("node{}-{}", self.index + 1, self.boot);
        self.dir.set_file_name(fresh);
        for disk in self.disks.iter_mut().chain(&mut self.snapshot_disks) {
            *disk = SimulatedDisk::new(random.number());
        }
    }
}

/// Node ids count from 1.
#[must_use]
pub fn node_id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

fn draw_drift(plan: &Plan, random: &mut Random) -> i64 {
    random.between(0, 2 * plan.drift_max) as i64 - plan.drift_max as i64
}
