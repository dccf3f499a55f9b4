//! One core of a node: its log and its shards' snapshots, moved by hand, and all that a start must find of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use raftkv::storage::snapshot::{SnapshotInfo, SnapshotStore};
use raftkv::storage::{BatchNumber, CoreLog, Fetch, FileLog, Options, RecoveredShard, RecoveryReport, Space, Workers};
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, SnapshotId, Term};

use super::SHARDS;
use super::disks::Disks;
use super::model::{Kept, Logs, ShardLog};
use super::snapshots::{Offer, Receiving, Taking, check};
use crate::random::Random;

const SEGMENT_BYTES: u64 = 64 << 10;

/// What a start finds, all of it read.
pub(super) struct Opened {
    log: FileLog,
    workers: Workers,
    stores: Vec<SnapshotStore>,
    pub(super) shards: Vec<(RecoveredShard, Vec<Entry>)>,
    /// By shard, newest first.
    pub(super) snapshots: Vec<Vec<(EntryId, SnapshotId)>>,
}

impl Opened {
    /// Starts, as the server does. An error is what it would say.
    pub(super) fn open(disks: &Disks) -> Result<Opened, String> {
        let mut options = Options::new("simulated", SHARDS.to_vec(), Arc::new(|| {}));
        (options.segment_size, options.tail_bytes_max) = (SEGMENT_BYTES, 0);
        let opened = FileLog::open_by_hand(Arc::new(disks.log().clone()), options);
        let (mut log, recovered, workers) = opened.map_err(|error| error.to_string())?;
        let mut shards = Vec::new();
        for (shard, known) in SHARDS.into_iter().zip(recovered) {
            let entries = read_all(&mut log, &workers, shard, &known)?;
            shards.push((known, entries));
        }
        let mut stores = Vec::new();
        let mut snapshots = Vec::new();
        for (number, shard) in SHARDS.into_iter().enumerate() {
            let disk = Arc::new(disks.snapshots(number).clone());
            let store = SnapshotStore::open(disk, shard).map_err(|error| error.to_string())?;
            let found = store.list().map_err(|error| error.to_string())?;
            let whole = found.into_iter().map(|at| check(&store, shard, at).map(|info| (info.at, info.id)));
            snapshots.push(whole.collect::<Result<Vec<_>, String>>()?);
            stores.push(store);
        }
        Ok(Opened { log, workers, stores, shards, snapshots })
    }

    pub(super) fn report(&self) -> RecoveryReport {
        self.log.recovery()
    }
}

fn read_all(
    log: &mut FileLog,
    workers: &Workers,
    shard: ShardId,
    known: &RecoveredShard,
) -> Result<Vec<Entry>, String> {
    let last = known.start.index.0 + known.entries.len() as u64;
    let mut entries: Vec<Entry> = Vec::new();
    while entries.len() < known.entries.len() {
        let first = Index(known.start.index.0 + 1 + entries.len() as u64);
        log.fetch(Fetch { shard, tag: 0, first, last: Index(last), bytes_max: 1 << 20 });
        workers.read();
        let fetched = log.fetched().ok_or("a fetch is not answered")?;
        entries.extend(fetched.result.map_err(|error| format!("what recovery found cannot be read: {error:?}"))?);
    }
    let heads = entries.iter().map(|entry| (entry.id.term, entry.body.len() as u32));
    if !heads.eq(known.entries.iter().copied()) {
        return Err(format!("shard {shard}: what is read is not what recovery found"));
    }
    Ok(entries)
}

/// What a start must find.
#[derive(Clone)]
pub(super) struct Memory {
    /// What the logs hold after each batch.
    pub(super) after: BTreeMap<BatchNumber, Logs>,
    /// The newest batch that was told to be durable.
    pub(super) durable: BatchNumber,
    /// Terms and votes that were told to be durable although their batches are not.
    pub(super) ahead: BTreeMap<ShardId, HardState>,
    /// By shard.
    pub(super) kept: Vec<Kept>,
    /// Where each shard's log was made to start anew.
    pub(super) resets: Vec<Vec<EntryId>>,
}

impl Memory {
    /// What the logs hold after a batch. Those of which nothing is known hold copies only.
    pub(super) fn logs_after(&self, batch: BatchNumber) -> &Logs {
        self.after.range(..=batch).next_back().expect("the newest durable batch is remembered").1
    }
}

/// What a shard is doing about snapshots.
enum Activity {
    Taking(Taking),
    Receiving(Receiving),
}

/// What goes on with a shard beside its log.
#[derive(Default)]
struct Desk {
    activity: Option<Activity>,
    /// Up to here no entry is ever replaced.
    committed: u64,
    /// What a peer has offered and is not received yet.
    offer: Option<Offer>,
}

/// What a run has done, to see that it tests what it should.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deeds {
    pub(super) taken: u64,
    pub(super) received: u64,
    pub(super) resumed: u64,
    pub(super) compacted: u64,
    pub(super) reset: u64,
    pub(super) reset_at_start: u64,
    pub(super) copied: u64,
    pub(super) let_go: u64,
}

/// See the module.
pub(super) struct Node {
    log: FileLog,
    workers: Workers,
    stores: Vec<SnapshotStore>,
    logs: Logs,
    desks: Vec<Desk>,
    pub(super) memory: Memory,
    /// The latest term that anybody has used.
    term: u64,
    pub(super) deeds: Deeds,
}

/// What a process leaves to the next besides its disks.
pub(super) struct Legacy {
    offers: Vec<Option<Offer>>,
    term: u64,
}

impl Legacy {
    pub(super) fn none() -> Legacy {
        Legacy { offers: SHARDS.iter().map(|_| None).collect(), term: 0 }
    }
}

impl Node {
    /// Goes on with what a start has found.
    pub(super) fn start(opened: Opened, logs: Logs, resets: Vec<Vec<EntryId>>, legacy: Legacy) -> Node {
        let Opened { log, workers, stores, snapshots, .. } = opened;
        let durable = log.last_batch();
        let kept = snapshots.into_iter().map(|mut taken| {
            taken.truncate(2);
            Kept { taken, finishing: None }
        });
        let after = BTreeMap::from([(durable, logs.clone())]);
        let memory = Memory { after, durable, ahead: BTreeMap::new(), kept: kept.collect(), resets };
        let desks = legacy.offers.into_iter().map(|offer| Desk { offer, ..Desk::default() }).collect();
        let (term, deeds) = (legacy.term, Deeds::default());
        let mut node = Node { log, workers, stores, logs, desks, memory, term, deeds };
        (0..SHARDS.len()).for_each(|shard| node.make_log_follow_snapshot(shard));
        node
    }

    /// As at the server's start: a snapshot that the log does not hold takes its place.
    fn make_log_follow_snapshot(&mut self, shard: usize) {
        let newest = self.memory.kept[shard].taken.first().copied();
        self.desks[shard].committed = self.logs[&SHARDS[shard]].start().index.0;
        let Some((at, id)) = newest else { return };
        self.desks[shard].committed = at.index.0;
        if self.logs[&SHARDS[shard]].id(at.index.0) == Some(at) {
            self.compact(shard);
        } else {
            self.reset(shard, at, id);
            self.deeds.reset_at_start += 1;
        }
    }

    pub(super) fn legacy(self) -> Legacy {
        Legacy { offers: self.desks.into_iter().map(|desk| desk.offer).collect(), term: self.term }
    }

    fn shard(&mut self, shard: usize) -> &mut ShardLog {
        Arc::make_mut(self.logs.get_mut(&SHARDS[shard]).expect("a known shard"))
    }

    fn remember(&mut self) {
        self.memory.after.insert(self.log.last_batch(), self.logs.clone());
    }

    fn next_term(&mut self) -> u64 {
        self.term += 1;
        self.term
    }

    fn put(&mut self, shard: usize, index: u64, bytes: usize) {
        let term = self.term.max(1);
        let body = format!("{shard}/{index}@{term} ").repeat(bytes / 6 + 1);
        let body = Bytes::copy_from_slice(&body.as_bytes()[..bytes]);
        let entry = Entry { id: EntryId::new(index, term), kind: EntryKind::Command, body };
        self.log.append(SHARDS[shard], &mut vec![entry.clone()]);
        self.shard(shard).put(entry);
        self.remember();
    }

    fn put_next(&mut self, shard: usize, bytes: usize) {
        let next = self.logs[&SHARDS[shard]].last() + 1;
        self.put(shard, next, bytes);
    }

    /// Another leader's entry takes the place of one that is not committed.
    fn replace(&mut self, shard: usize, random: &mut Random) {
        if let Some(index) = self.uncommitted(shard, random) {
            self.next_term();
            self.put(shard, index, random.below(600));
        }
    }

    fn uncommitted(&self, shard: usize, random: &mut Random) -> Option<u64> {
        let (committed, last) = (self.desks[shard].committed, self.logs[&SHARDS[shard]].last());
        some_in(committed + 1..=last, random)
    }

    fn vote(&mut self, shard: usize, random: &mut Random) {
        let vote = random.one_in(2).then(|| NodeId(1 + random.below(3) as u64));
        let hard_state = HardState { term: Term(self.next_term()), vote };
        self.log.set_hard_state(SHARDS[shard], hard_state);
        self.shard(shard).vote(hard_state);
        self.remember();
    }

    /// Lets the log go behind the older of the two snapshots.
    fn compact(&mut self, shard: usize) {
        let Some((older, id)) = self.memory.kept[shard].taken.get(1).copied() else { return };
        let log = &self.logs[&SHARDS[shard]];
        if log.start().index < older.index && log.id(older.index.0) == Some(older) {
            self.log.compact(SHARDS[shard], older, id);
            self.shard(shard).compact(older, id);
            self.deeds.compacted += 1;
            self.remember();
        }
    }

    fn reset(&mut self, shard: usize, at: EntryId, id: SnapshotId) {
        self.log.reset(SHARDS[shard], at, id);
        self.shard(shard).reset(at, id);
        self.memory.resets[shard].push(at);
        self.deeds.reset += 1;
        self.remember();
    }

    /// Begins to take or to receive a snapshot, or goes on with it.
    fn move_snapshot(&mut self, shard: usize, random: &mut Random) -> Result<(), String> {
        match self.desks[shard].activity.take() {
            None => self.begin_snapshot(shard, random)?,
            Some(Activity::Taking(mut taking)) if !taking.is_whole() => {
                taking.step().map_err(|error| error.to_string())?;
                self.desks[shard].activity = Some(Activity::Taking(taking));
            }
            Some(Activity::Receiving(mut receiving)) if !receiving.is_whole() => {
                receiving.step().map_err(|error| error.to_string())?;
                self.deeds.resumed += u64::from(std::mem::take(&mut receiving.resumed) > 0);
                self.desks[shard].activity = Some(Activity::Receiving(receiving));
            }
            Some(Activity::Taking(taking)) => {
                self.memory.kept[shard].finishing = Some(taking.at);
                let info = taking.finish().map_err(|error| error.to_string())?;
                self.took(shard, info);
                self.deeds.taken += 1;
            }
            Some(Activity::Receiving(receiving)) => {
                self.memory.kept[shard].finishing = Some(receiving.offer.info.at);
                let info = receiving.finish().map_err(|error| error.to_string())?;
                self.took(shard, info);
                self.deeds.received += 1;
                self.desks[shard].offer = None;
                self.reset(shard, info.at, info.id);
            }
        }
        Ok(())
    }

    fn took(&mut self, shard: usize, info: SnapshotInfo) {
        self.memory.kept[shard].took(info.at, info.id);
        self.desks[shard].committed = info.at.index.0;
        self.compact(shard);
    }

    fn begin_snapshot(&mut self, shard: usize, random: &mut Random) -> Result<(), String> {
        let store = self.stores[shard].clone();
        if self.desks[shard].offer.is_none() && random.one_in(4) {
            let last = self.logs[&SHARDS[shard]].last();
            let index = self.uncommitted(shard, random).filter(|_| random.one_in(3));
            let at = EntryId::new(index.unwrap_or(last + 1 + random.below(6) as u64), self.next_term());
            self.desks[shard].offer = Some(Offer::new(SHARDS[shard], at, random.next_u64()));
        }
        if let Some(offer) = self.desks[shard].offer.clone() {
            if offer.info.at.index.0 <= self.desks[shard].committed {
                // What was committed meanwhile is more than it holds.
                self.desks[shard].offer = None;
                return Ok(());
            }
            let chunk = 1 + random.below(100_000);
            let receiving = Receiving::begin(&store, offer, chunk).map_err(|error| error.to_string())?;
            self.desks[shard].activity = Some(Activity::Receiving(receiving));
        } else if let Some(at) = self.durable_entry(shard, random) {
            self.desks[shard].committed = at.index.0;
            let taking = Taking::begin(&store, SHARDS[shard], at).map_err(|error| error.to_string())?;
            self.desks[shard].activity = Some(Activity::Taking(taking));
        }
        Ok(())
    }

    /// Some entry behind the newest snapshot that is durable and still there.
    fn durable_entry(&self, shard: usize, random: &mut Random) -> Option<EntryId> {
        let durable = &self.memory.logs_after(self.memory.durable)[&SHARDS[shard]];
        let now = &self.logs[&SHARDS[shard]];
        let newest = self.memory.kept[shard].newest().index.0.max(durable.start().index.0).max(now.start().index.0);
        let index = some_in(newest + 1..=durable.last().min(now.last()), random)?;
        durable.id(index).filter(|at| now.id(index) == Some(*at))
    }

    /// Does something, chosen at random. The power may go meanwhile.
    pub(super) fn step(&mut self, random: &mut Random) -> Result<(), String> {
        let shard = random.below(SHARDS.len());
        match random.below(32) {
            0..7 if self.log.space() == Space::Plenty => self.put_next(shard, random.below(9000)),
            7 => self.replace(shard, random),
            8 => self.vote(shard, random),
            9 => {
                self.log.copy_forward(SHARDS[shard]);
                self.remember();
            }
            10 => self.workers.prove(),
            11 => self.workers.read(),
            12..18 => self.move_snapshot(shard, random)?,
            18..22 => drop(self.workers.allocate()),
            22..27 => self.workers.sync(),
            _ => {
                self.log.flush();
                self.remember();
            }
        }
        self.look()
    }

    /// Learns what is durable.
    fn look(&mut self) -> Result<(), String> {
        self.memory.durable = self.log.durable().map_err(|error| error.to_string())?;
        let ahead = SHARDS.iter().filter_map(|shard| Some((*shard, self.log.hard_state_ahead(*shard)?)));
        self.memory.ahead = ahead.collect();
        let newest = self.memory.after.range(..=self.memory.durable).next_back().map(|(batch, _)| *batch);
        self.memory.after = self.memory.after.split_off(&newest.expect("the newest durable batch is remembered"));
        Ok(())
    }

    /// Makes everything durable that was added, and an entry of each shard besides.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        (0..SHARDS.len()).for_each(|shard| self.put_next(shard, 700));
        for _ in 0..10_000 {
            self.log.flush();
            self.remember();
            self.workers.read();
            if !self.workers.can_sync() {
                self.workers.allocate();
            }
            self.workers.sync();
            self.look()?;
            if self.memory.durable >= self.log.last_batch() {
                return Ok(());
            }
        }
        Err("the log comes to no end".to_owned())
    }

    /// Counts what the log has done by itself.
    pub(super) fn count(&mut self) {
        let stats = self.log.stats();
        self.deeds.copied += stats.copied_forward;
        self.deeds.let_go += u64::from(stats.oldest_segment > 1);
    }
}

fn some_in(range: RangeInclusive<u64>, random: &mut Random) -> Option<u64> {
    let width = (range.end() + 1).checked_sub(*range.start()).filter(|width| *width > 0)?;
    Some(range.start() + random.below(width as usize) as u64)
}
