//! Snapshots that an administrator asks for: of all shards of the node, now.
//!
//! The core that is asked asks the others, as for a status. Each notes up to which entry its shards are to be covered,
//! begins what is needed one after the other, and answers when every shard is covered or its attempt has failed. Whoever
//! asked may be told *timeout* before; what was begun for it goes on, and counts against the number of such requests
//! until it is done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, ShardSnapshot, SnapshotOutcome};
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{CoreId, EntryId, Index, ShardId};

use crate::limits::{SNAPSHOT_REQUESTS_MAX, SNAPSHOT_WAIT_MAX};
use crate::shard::Outbox as _;
use crate::storage::CoreLog;

use super::message::{CoreMessage, ReplyTo};
use super::router::Router;
use super::transport::Transport;

/// A request for snapshots: the cores' parts so far.
#[derive(Debug)]
struct Question {
    /// Whoever waits still.
    to: Option<ReplyTo>,
    deadline: Instant,
    missing: u16,
    snapshots: Vec<ShardSnapshot>,
}

/// The requests for snapshots that one core has taken in.
#[derive(Debug, Default)]
pub(super) struct Questions {
    next: u64,
    jobs: BTreeMap<u64, Question>,
}

impl Questions {
    pub(super) fn has_room(&self) -> bool {
        self.jobs.len() < SNAPSHOT_REQUESTS_MAX
    }

    fn start(&mut self, to: ReplyTo, deadline: Instant, cores: u16) -> u64 {
        self.next += 1;
        self.jobs.insert(self.next, Question { to: Some(to), deadline, missing: cores, snapshots: Vec::new() });
        self.next
    }

    /// One core is done; the last one's part completes the answer for whoever waits still.
    fn part(&mut self, job: u64, snapshots: Vec<ShardSnapshot>) -> Option<(ReplyTo, Vec<ShardSnapshot>)> {
        let question = self.jobs.get_mut(&job)?;
        question.snapshots.extend(snapshots);
        question.missing -= 1;
        if question.missing > 0 && !mutant!("snapshots-told-in-part") {
            return None;
        }
        let mut question = self.jobs.remove(&job)?;
        question.snapshots.sort_by_key(|snapshot| snapshot.shard);
        Some((question.to?, question.snapshots))
    }

    /// Whoever has waited too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        self.take_askers(|question| question.deadline <= now)
    }

    /// All who wait: the node is being stopped.
    pub(super) fn give_up(&mut self) -> Vec<ReplyTo> {
        self.take_askers(|_| true)
    }

    fn take_askers(&mut self, is_due: impl Fn(&Question) -> bool) -> Vec<ReplyTo> {
        self.jobs.values_mut().filter(|question| is_due(question)).filter_map(|question| question.to.take()).collect()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.values().all(|question| question.to.is_none())
    }
}

/// What one request wants of a core's shards.
#[derive(Debug)]
struct Demand {
    core: CoreId,
    job: u64,
    /// Positions of shards, and up to which entry they are to be covered.
    missing: Vec<(usize, Index)>,
    done: Vec<ShardSnapshot>,
}

/// What requests want of a core's shards.
#[derive(Debug, Default)]
pub(super) struct Demands(Vec<Demand>);

impl Demands {
    /// Whether somebody waits for a snapshot of the shard in this position.
    pub(super) fn want(&self, at: usize) -> bool {
        self.0.iter().any(|demand| demand.missing.iter().any(|(missing, _)| *missing == at))
    }

    /// A snapshot of the shard in this position was taken.
    pub(super) fn taken(&mut self, at: usize, shard: ShardId, meta: SnapshotMeta, took: Duration) {
        let SnapshotMeta { at: entry, bytes, .. } = meta;
        self.settle(at, shard, &SnapshotOutcome::Taken { at: entry, bytes, took }, |wanted| {
            wanted <= entry.index || mutant!("earlier-snapshot-told")
        });
    }

    /// It could not be taken.
    pub(super) fn failed(&mut self, at: usize, shard: ShardId, why: &str) {
        self.settle(at, shard, &SnapshotOutcome::Failed(why.to_owned()), |_| true);
    }

    /// What has become of the shard in this position, for those whose wish fits.
    fn settle(&mut self, at: usize, shard: ShardId, outcome: &SnapshotOutcome, fits: impl Fn(Index) -> bool) {
        for demand in &mut self.0 {
            let before = demand.missing.len();
            demand.missing.retain(|(missing, wanted)| *missing != at || !fits(*wanted));
            if demand.missing.len() < before {
                demand.done.push(ShardSnapshot { shard, outcome: outcome.clone() });
            }
        }
    }

    /// Those of which nothing is missing any more.
    fn take_done(&mut self) -> Vec<Demand> {
        self.0.extract_if(.., |demand| demand.missing.is_empty()).collect()
    }
}

impl<L: CoreLog> Router<L> {
    /// A client wants all shards of the node snapshotted.
    pub(super) fn snapshots_asked(&mut self, wait_ms: u32, to: ReplyTo, now: Instant, transport: &mut impl Transport) {
        if self.node.is_stopping() {
            let message = "this node is being stopped; no snapshot was begun";
            return self.refuse(to, Code::NotReady, None, message, transport);
        }
        if !self.desk.snapshots.has_room() {
            self.counters.overloaded_snapshots += 1;
            let message = "too many requests for snapshots are not done yet; those that were begun go on";
            return self.refuse(to, Code::Overloaded, None, message, transport);
        }
        let wait = match wait_ms {
            0 => self.node.config.limits.request_timeout,
            millis => Duration::from_millis(u64::from(millis)).min(SNAPSHOT_WAIT_MAX),
        };
        let cores = self.node.config.cores;
        let job = self.desk.snapshots.start(to, now + wait, cores);
        for core in (0..cores).map(CoreId).filter(|core| *core != self.core) {
            transport.answer(core, CoreMessage::SnapshotsAsked { core: self.core, job });
        }
        self.demand_snapshots(self.core, job);
    }

    /// A core of this node, on behalf of a client, wants the shards of this core snapshotted as they are now.
    pub(super) fn demand_snapshots(&mut self, core: CoreId, job: u64) {
        // All of it at once: the allocator may take long for what it does not have ready.
        let shards = self.shards.len();
        let mut demand = Demand { core, job, missing: Vec::with_capacity(shards), done: Vec::with_capacity(shards) };
        for (at, shard) in self.shards.iter().enumerate() {
            let (wanted, newest) = (shard.applied(), shard.newest_snapshot());
            let (entry, bytes) = newest.map_or((EntryId::ZERO, 0), |meta| (meta.at, meta.bytes));
            if entry.index < wanted {
                demand.missing.push((at, wanted));
            } else {
                let outcome = SnapshotOutcome::Unchanged { at: entry, bytes };
                demand.done.push(ShardSnapshot { shard: shard.id(), outcome });
            }
        }
        self.snapshots.demands.0.push(demand);
    }

    /// A core of this node is done with its shards.
    pub(super) fn snapshots_part(&mut self, job: u64, snapshots: Vec<ShardSnapshot>, transport: &mut impl Transport) {
        if let Some((to, snapshots)) = self.desk.snapshots.part(job, snapshots) {
            self.exit(transport).reply(to, EntryId::ZERO, Ok(Answer::Snapshots(snapshots)));
        }
    }

    /// Answers the demands that are met, or cannot be.
    pub(super) fn settle_demands(&mut self, transport: &mut impl Transport) {
        let demands = &mut self.snapshots.demands;
        if demands.0.is_empty() {
            return;
        }
        for (at, shard) in self.shards.iter().enumerate() {
            if let Some(newest) = shard.newest_snapshot() {
                demands.taken(at, shard.id(), newest, Duration::ZERO);
            }
            if !shard.serves() {
                demands.failed(at, shard.id(), "this replica's state is another than that of others");
            }
        }
        for Demand { core, job, done, .. } in demands.take_done() {
            if core == self.core {
                self.snapshots_part(job, done, transport);
            } else {
                transport.answer(core, CoreMessage::SnapshotsPart { job, snapshots: done });
            }
        }
    }
}
