//! Logs that are compacted, reset and copied forward while they are written, on a simulated disk that dies at any moment
//! and keeps what it likes: compared with a model that forgets nothing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, HardState, Index, ShardId, SnapshotId};

use super::conformance_test::{entry, hard_state};
use super::inspect::{Item, inspect_disk};
use super::record::Record;
use super::segment::BATCHES_AT;
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::{
    BatchNumber, CoreLog, Fetch, FetchError, Fetched, FileLog, LogError, Options, RecoveredShard, Space, Workers,
};

const SHARDS: [ShardId; 3] = [ShardId(0), ShardId(1), ShardId(9)];
const SEGMENT: u64 = 64 << 10;
const BLOCK: usize = super::batch::BLOCK_BYTES as usize;

/// A shard, with all entries that it had since its log began.
#[derive(Clone, Debug, Default)]
struct Shard {
    hard_state: HardState,
    /// All that it had since the start, and from where on it was compacted: on a full disk they may get ahead of entries.
    hard_states: Vec<HardState>,
    compacted: Vec<(EntryId, SnapshotId)>,
    /// Where its log begins in memory, and where it began before that: a crash may find any of these. The last counts.
    starts: Vec<(EntryId, SnapshotId)>,
    /// The index before the first of `entries`.
    floor: u64,
    entries: Vec<Entry>,
}

impl Shard {
    fn start(&self) -> EntryId {
        self.starts.last().expect("a log begins somewhere").0
    }

    fn last(&self) -> u64 {
        self.floor + self.entries.len() as u64
    }

    fn id(&self, index: u64) -> EntryId {
        if index == self.start().index.0 { self.start() } else { self.entries[(index - self.floor) as usize - 1].id }
    }

    fn put(&mut self, entry: Entry) {
        self.entries.truncate((entry.id.index.0 - self.floor) as usize - 1);
        self.entries.push(entry);
    }

    fn reset(&mut self, start: EntryId, snapshot: SnapshotId) {
        (self.starts, self.floor) = (vec![(start, snapshot)], start.index.0);
        self.entries.clear();
    }

    fn range(&self, first: u64, last: u64) -> &[Entry] {
        &self.entries[(first - self.floor) as usize - 1..(last - self.floor) as usize]
    }

    /// Whether a later compaction may have got ahead.
    fn may_start_at(&self, known: &RecoveredShard, live: &Shard) -> bool {
        let start = known.start.index.0;
        let is_there = self.floor < start && start <= self.last() && self.id(start) == known.start;
        is_there && live.compacted.contains(&(known.start, known.snapshot))
    }

    /// What a start found of it: the same, but the log may begin earlier. Terms and votes, and where it starts, may have
    /// got ahead, towards what it was when it ended; a term and vote must have that was told to be durable.
    fn found(
        &self,
        (known, entries): &(RecoveredShard, Vec<Entry>),
        live: &Shard,
        told: Option<HardState>,
    ) -> Option<Shard> {
        let start = known.start.index.0;
        let at = |wanted: HardState| live.hard_states.iter().position(|hard_state| *hard_state == wanted);
        let least = at(self.hard_state).max(told.and_then(at));
        let is_it = at(known.hard_state) >= least
            && (self.starts.contains(&(known.start, known.snapshot)) || self.may_start_at(known, live))
            && start + entries.len() as u64 == self.last()
            && (start == self.last() || self.range(start + 1, self.last()) == entries);
        is_it.then(|| {
            let kept = self.entries[(start - self.floor) as usize..].to_vec();
            let starts = vec![(known.start, known.snapshot)];
            let hard_state = known.hard_state;
            Shard {
                hard_state,
                hard_states: vec![hard_state],
                compacted: Vec::new(),
                starts,
                floor: start,
                entries: kept,
            }
        })
    }
}

type Model = BTreeMap<ShardId, Arc<Shard>>;

/// How often what happened, to see that a test tests it.
#[derive(Clone, Copy, Debug, Default)]
struct Coverage {
    crashes: u64,
    let_go: u64,
    recycled: u64,
    copied: u64,
    resets: u64,
    later_starts: u64,
    fetches_gone: u64,
    full: u64,
    restated: u64,
    ahead: u64,
}

/// A log and what it must hold after each batch.
struct Node {
    disk: SimulatedDisk,
    log: FileLog,
    workers: Workers,
    model: Model,
    after: BTreeMap<BatchNumber, Model>,
    /// The newest batch that was told to be durable.
    durable: BatchNumber,
    coverage: Coverage,
}

fn options(tail_bytes_max: usize) -> Options {
    let mut options = Options::new("unused", SHARDS.to_vec(), Arc::new(|| {}));
    (options.segment_size, options.tail_bytes_max) = (SEGMENT, tail_bytes_max);
    options
}

/// The log on a disk and what it holds, all of it read.
struct Opened {
    log: FileLog,
    workers: Workers,
    shards: Vec<(RecoveredShard, Vec<Entry>)>,
}

fn open(disk: &SimulatedDisk, tail_bytes_max: usize) -> Result<Opened, LogError> {
    let (mut log, recovered, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options(tail_bytes_max))?;
    let mut shards = Vec::new();
    for (shard, known) in SHARDS.into_iter().zip(recovered) {
        let entries = read_all(&mut log, &workers, shard, &known);
        shards.push((known, entries));
    }
    Ok(Opened { log, workers, shards })
}

fn read_all(log: &mut FileLog, workers: &Workers, shard: ShardId, known: &RecoveredShard) -> Vec<Entry> {
    let last = known.start.index.0 + known.entries.len() as u64;
    let mut entries: Vec<Entry> = Vec::new();
    while entries.len() < known.entries.len() {
        let first = Index(known.start.index.0 + 1 + entries.len() as u64);
        log.fetch(Fetch { shard, tag: 0, first, last: Index(last), bytes_max: 1 << 20 });
        workers.read();
        let fetched = log.fetched().expect("it was read");
        entries.extend(fetched.result.expect("what recovery found can be read"));
    }
    let heads = entries.iter().map(|entry| (entry.id.term, entry.body.len() as u32));
    assert!(heads.eq(known.entries.iter().copied()));
    entries
}

impl Node {
    fn new(seed: u64) -> Node {
        let disk = SimulatedDisk::new(seed);
        let (starts, hard_states) = (vec![(EntryId::ZERO, SnapshotId(0))], vec![HardState::default()]);
        let begin = Shard { starts, hard_states, ..Shard::default() };
        let model = SHARDS.iter().map(|shard| (*shard, Arc::new(begin.clone()))).collect();
        let opened = open(&disk, 20_000).expect("an empty disk makes an empty log");
        Node::with(disk, opened, model, Coverage::default())
    }

    fn with(disk: SimulatedDisk, opened: Opened, model: Model, coverage: Coverage) -> Node {
        let Opened { log, workers, .. } = opened;
        let durable = log.last_batch();
        let after = BTreeMap::from([(durable, model.clone())]);
        Node { disk, log, workers, model, after, durable, coverage }
    }

    /// Starts again on a disk: what it holds must be what was told to be durable, or that with the batch that was in
    /// flight.
    fn start_again(self, disk: SimulatedDisk, tail_bytes_max: usize) -> Result<Node, String> {
        let opened = open(&disk, tail_bytes_max).map_err(|LogError(line)| line)?;
        let next = BatchNumber(self.durable.0 + 1);
        let candidates = [self.durable, next].map(|batch| self.model_after(batch));
        let found = |model: &Model| -> Option<Model> {
            let shards = model.iter().zip(&opened.shards);
            shards
                .map(|((shard, known), recovered)| {
                    let told = self.log.hard_state_ahead(*shard);
                    Some((*shard, Arc::new(known.found(recovered, &self.model[shard], told)?)))
                })
                .collect()
        };
        let Some(model) = candidates.into_iter().find_map(found) else {
            let shown: Vec<_> = opened.shards.iter().map(|(known, _)| known).collect();
            let heads =
                |entries: &[Entry]| entries.iter().map(|entry| (entry.id, entry.body.len())).collect::<Vec<_>>();
            let expected = candidates.map(|model| {
                let shards = model.values();
                shards.map(|it| (it.hard_state, it.starts.clone(), it.floor, heads(&it.entries))).collect::<Vec<_>>()
            });
            return Err(format!("found {shown:?}, expected {expected:?}"));
        };
        Ok(Node::with(disk, opened, model, self.coverage))
    }

    fn shard(&mut self, shard: ShardId) -> &mut Shard {
        Arc::make_mut(self.model.get_mut(&shard).expect("a known shard"))
    }

    /// What the log holds after a batch. Those of which nothing is known hold copies only.
    fn model_after(&self, batch: BatchNumber) -> &Model {
        self.after.range(..=batch).next_back().expect("the newest durable batch is remembered").1
    }

    fn remember(&mut self) {
        self.after.insert(self.log.last_batch(), self.model.clone());
    }

    fn put(&mut self, shard: ShardId, index: u64, bytes: usize) {
        let term = self.model[&shard].hard_state.term.0 + 1;
        let body = format!("{shard}/{index}@{term} ").repeat(bytes / 6 + 1);
        let entry = entry(index, term, &body[..bytes]);
        self.log.append(shard, &mut vec![entry.clone()]);
        self.shard(shard).put(entry);
        self.remember();
    }

    fn compact(&mut self, shard: ShardId, to: u64, snapshot: u64) {
        let start = self.model[&shard].id(to);
        self.log.compact(shard, start, SnapshotId(snapshot));
        self.shard(shard).starts.push((start, SnapshotId(snapshot)));
        self.shard(shard).compacted.push((start, SnapshotId(snapshot)));
        self.remember();
    }

    fn reset(&mut self, shard: ShardId, start: EntryId, snapshot: u64) {
        self.log.reset(shard, start, SnapshotId(snapshot));
        self.shard(shard).reset(start, SnapshotId(snapshot));
        self.coverage.resets += 1;
        self.remember();
    }

    fn fetch(&mut self, shard: ShardId, random: &mut Random) {
        let (start, last) = (self.model[&shard].start().index.0, self.model[&shard].last());
        if start < last {
            let first = start + 1 + random.below(last - start);
            let bytes_max = random.below(20_000) as usize;
            self.log.fetch(Fetch { shard, tag: 1, first: Index(first), last: Index(last), bytes_max });
        }
    }

    /// What was fetched must be what the log holds now, whatever has happened since it was asked for.
    fn check_fetched(&mut self) {
        while let Some(Fetched { fetch, result }) = self.log.fetched() {
            match result {
                Ok(entries) => {
                    assert!(!entries.is_empty(), "{fetch:?}");
                    let first = fetch.first.0;
                    let expected = self.model[&fetch.shard].range(first, first + entries.len() as u64 - 1);
                    assert_eq!(entries, expected, "{fetch:?}");
                    assert!(self.model[&fetch.shard].start().index < fetch.first);
                }
                Err(FetchError::Gone) => self.coverage.fetches_gone += 1,
                Err(FetchError::Corrupt(line)) => assert!(self.disk.is_off(), "{line}"),
            }
        }
    }

    /// Does something, chosen at random.
    fn step(&mut self, random: &mut Random) {
        let shard = SHARDS[random.below(SHARDS.len() as u64) as usize];
        let known = Arc::clone(&self.model[&shard]);
        let (start, last) = (known.start().index.0, known.last());
        match random.below(32) {
            0..7 => self.put(shard, last + 1, random.below(9000) as usize),
            7 => self.put(shard, last + 1 - random.below((last - start).min(4) + 1), random.below(500) as usize),
            8 => {
                let next = hard_state(known.hard_state.term.0 + 1, random.below(4));
                self.log.set_hard_state(shard, next);
                self.shard(shard).hard_state = next;
                self.shard(shard).hard_states.push(next);
                self.coverage.ahead += u64::from(self.log.hard_state_ahead(shard).is_some());
                self.remember();
            }
            9..12 if start < last => self.compact(shard, start + 1 + random.below(last - start), random.next()),
            12 if random.below(4) == 0 => {
                let id = EntryId::new(last + random.below(5), known.hard_state.term.0 + 1);
                self.reset(shard, id, random.next());
            }
            13 => {
                self.log.copy_forward(shard);
                self.remember();
            }
            14 => self.fetch(shard, random),
            15..17 => self.workers.read(),
            17 => self.workers.prove(),
            18 if random.below(3) == 0 => self.disk.set_full(random.below(2) == 0),
            18..22 => drop(self.workers.allocate()),
            22..27 => self.workers.sync(),
            _ => {
                self.log.flush();
                self.remember();
            }
        }
        self.check_fetched();
    }

    fn look(&mut self) -> Result<(), LogError> {
        self.durable = self.log.durable()?;
        let newest = self.after.range(..=self.durable).next_back().map(|(batch, _)| *batch);
        self.after = self.after.split_off(&newest.expect("the newest durable batch is remembered"));
        Ok(())
    }

    fn run(&mut self, steps: u64, random: &mut Random) -> Result<(), LogError> {
        for _ in 0..steps {
            self.step(random);
            self.look()?;
        }
        Ok(())
    }

    /// Makes everything durable that was added.
    fn settle(&mut self) {
        self.disk.set_full(false);
        for _ in 0..10_000 {
            self.log.flush();
            self.remember();
            self.workers.read();
            if !self.workers.can_sync() {
                assert!(self.workers.allocate(), "there is space");
            }
            self.workers.sync();
            self.look().expect("the disk is healthy");
            if self.durable >= self.log.last_batch() {
                return;
            }
        }
        panic!("the log comes to no end");
    }

    /// Counts what the log has done so far.
    fn count(&mut self) {
        let names = self.disk.names();
        let oldest = names.iter().find(|name| name.starts_with("segment-")).expect("there is one");
        self.coverage.let_go += u64::from(!oldest.ends_with("0001.log"));
        let is_recycled = |name: &&String| name.starts_with("spare-") && self.disk.bytes(name)[..BLOCK] != [0; BLOCK];
        self.coverage.recycled += names.iter().filter(is_recycled).count() as u64;
        let later = |shard: &&Arc<Shard>| shard.starts.len() > 1;
        self.coverage.later_starts += self.model.values().filter(later).count() as u64;
        self.coverage.copied += self.log.stats().copied_forward;
        self.coverage.crashes += 1;
        self.coverage.full += u64::from(self.log.space() == Space::ReserveOnly);
        self.coverage.restated += restated_within_segments(&self.disk.fork());
    }
}

/// How many restatements there are but those that segments begin with.
fn restated_within_segments(disk: &SimulatedDisk) -> u64 {
    let (mut begins, mut restated) = (true, 0);
    inspect_disk(disk, |item| {
        match item {
            Item::Batch { header } => begins = header.start == BATCHES_AT,
            Item::Record { record: Record::Restate { .. }, .. } if !begins => restated += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .expect("the directory can be listed");
    restated
}

fn survivors(random: &mut Random) -> Survivors {
    match random.below(8) {
        0 => Survivors::None,
        1 => Survivors::All,
        kind => Survivors::Random { seed: random.next(), block: if kind % 2 == 0 { 512 } else { 4096 } },
    }
}

/// Either the power goes, or only the process dies.
fn die(disk: &SimulatedDisk, random: &mut Random) {
    if random.below(4) > 0 {
        disk.crash_in_place(survivors(random));
    } else {
        disk.restart();
    }
}

/// A start that dies in the middle, or soon after it.
fn die_at_start(disk: &SimulatedDisk, random: &mut Random) {
    disk.die_at(random.below(25));
    if let Ok((_log, _, workers)) = FileLog::open_by_hand(Arc::new(disk.clone()), options(0)) {
        for _ in 0..random.below(6) {
            workers.allocate();
        }
    }
    die(disk, random);
}

/// A few lives of a log, each of which ends in a crash at any operation, or of the process only.
fn run(seed: u64) -> Coverage {
    let mut random = Random(seed);
    let mut node = Node::new(seed);
    for life in 0..3 {
        if random.below(4) > 0 {
            node.disk.die_at(random.below(140));
        }
        let steps = 60 + random.below(120);
        // The power going is the only failure there is.
        if let Err(error) = node.run(steps, &mut random) {
            assert!(node.disk.is_off(), "seed {seed}, life {life}: {error}");
        }
        node.count();
        let disk = node.disk.clone();
        die(&disk, &mut random);
        disk.set_full(false);
        if random.below(3) == 0 {
            die_at_start(&disk, &mut random);
        }
        let tail_bytes_max = if random.below(2) == 0 { 0 } else { 20_000 };
        let again = node.start_again(disk, tail_bytes_max);
        node = again.unwrap_or_else(|what| panic!("seed {seed}, life {life}: {what}"));
    }
    node.settle();
    node.count();
    let disk = node.disk.crash(Survivors::None);
    let expected = node.model.clone();
    let coverage = node.coverage;
    let found = node.start_again(disk, 0).unwrap_or_else(|what| panic!("seed {seed}, at the end: {what}"));
    for (shard, known) in &found.model {
        assert_eq!(known.last(), expected[shard].last(), "seed {seed}");
    }
    coverage
}

// museum 29, 30, 43, rule 10, rule 14
#[test]
fn what_is_needed_survives_crashes_between_appends_compactions_resets_and_copies() {
    let mut sum = Coverage::default();
    for seed in 0..SEEDS {
        let coverage = run(seed);
        let Coverage { crashes, let_go, recycled, copied, resets, later_starts, fetches_gone, full, restated, ahead } =
            coverage;
        sum.crashes += crashes;
        sum.let_go += let_go;
        sum.recycled += recycled;
        sum.copied += copied;
        sum.resets += resets;
        sum.later_starts += later_starts;
        sum.fetches_gone += fetches_gone;
        sum.full += full;
        sum.restated += restated;
        sum.ahead += ahead;
    }
    let often =
        [sum.let_go, sum.recycled, sum.copied, sum.resets, sum.later_starts, sum.fetches_gone, sum.full, sum.restated];
    assert!(often.iter().all(|times| *times > SEEDS / 10) && sum.ahead > SEEDS / 100, "{sum:?}");
}

const SEEDS: u64 = 2_000;
