//! The log moved by hand on a simulated disk: every crash, every failure and a full disk, at every operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, HardState, Index, ShardId};

use super::conformance_test::{entry, hard_state};
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::{BatchNumber, CoreLog, Fetch, FileLog, LogError, Options, RecoveredShard, RecoveryReport, Space, Workers};

const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];
const SEGMENT: u64 = 64 << 10;

type Contents = BTreeMap<ShardId, (HardState, Vec<Entry>)>;

/// A log, and what it must hold after each batch.
struct Node {
    disk: SimulatedDisk,
    log: FileLog,
    workers: Workers,
    contents: Contents,
    after: BTreeMap<BatchNumber, Contents>,
    /// The newest batch that was told to be durable.
    durable: BatchNumber,
}

impl Node {
    /// Opens a log, reads all of it and says what it held.
    fn open(disk: &SimulatedDisk) -> Result<Node, LogError> {
        Node::open_with(disk, SEGMENT)
    }

    fn open_with(disk: &SimulatedDisk, segment: u64) -> Result<Node, LogError> {
        let mut options = Options::new("unused", SHARDS.to_vec(), Arc::new(|| {}));
        (options.segment_size, options.tail_bytes_max) = (segment, 0);
        let (mut log, recovered, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options)?;
        let mut contents = Contents::new();
        for (shard, known) in SHARDS.into_iter().zip(recovered) {
            let entries = read_all(&mut log, &workers, shard, &known);
            contents.insert(shard, (known.hard_state, entries));
        }
        let durable = log.last_batch();
        let after = BTreeMap::from([(durable, contents.clone())]);
        Ok(Node { disk: disk.clone(), log, workers, contents, after, durable })
    }

    fn put(&mut self, shard: ShardId, index: u64, term: u64, bytes: usize) {
        let body = format!("{index}@{term} ").repeat(bytes / 4 + 1);
        let entry = entry(index, term, &body[..bytes]);
        self.log.append(shard, &mut vec![entry.clone()]);
        let (_, entries) = self.contents.get_mut(&shard).expect("a known shard");
        entries.truncate(index as usize - 1);
        entries.push(entry);
        self.remember();
    }

    fn set_hard_state(&mut self, shard: ShardId, hard_state: HardState) {
        self.log.set_hard_state(shard, hard_state);
        self.contents.get_mut(&shard).expect("a known shard").0 = hard_state;
        self.remember();
    }

    fn remember(&mut self) {
        self.after.insert(self.log.last_batch(), self.contents.clone());
    }

    /// Does something, chosen at random.
    fn step(&mut self, random: &mut Random) {
        let shard = SHARDS[random.below(2) as usize];
        let (known, entries) = &self.contents[&shard];
        let (term, last) = (known.term.0, entries.len() as u64);
        match random.below(16) {
            0..4 => self.put(shard, last + 1, term + 1, random.below(9000) as usize),
            4 => self.put(shard, 1 + last.saturating_sub(random.below(3)), term + 1, random.below(500) as usize),
            5 => self.set_hard_state(shard, hard_state(term + 1, random.below(4))),
            6..9 => self.log.flush(),
            9..13 => self.workers.sync(),
            13..15 => drop(self.workers.allocate()),
            _ => self.workers.prove(),
        }
    }

    fn look(&mut self) -> Result<(), LogError> {
        self.durable = self.log.durable()?;
        self.after = self.after.split_off(&self.durable);
        Ok(())
    }

    fn run(&mut self, steps: usize, random: &mut Random) -> Result<(), LogError> {
        for _ in 0..steps {
            self.step(random);
            self.look()?;
        }
        Ok(())
    }

    /// Makes everything durable that was added, with spares as they are needed.
    fn settle(&mut self) -> Result<(), LogError> {
        let last = self.log.last_batch();
        while self.durable < last {
            self.log.flush();
            if !self.workers.can_sync() {
                assert!(self.workers.allocate(), "there is space");
            }
            self.workers.sync();
            self.look()?;
        }
        Ok(())
    }

    /// Whether a crash may leave this: what was told to be durable, or that with the batch that was in flight.
    fn may_leave(&self, found: &Contents) -> bool {
        let next = BatchNumber(self.durable.0 + 1);
        [self.durable, next].iter().any(|batch| self.after.get(batch) == Some(found))
    }
}

fn read_all(log: &mut FileLog, workers: &Workers, shard: ShardId, known: &RecoveredShard) -> Vec<Entry> {
    assert_eq!(known.start, EntryId::ZERO);
    let mut entries: Vec<Entry> = Vec::new();
    while entries.len() < known.entries.len() {
        let (first, last) = (Index(entries.len() as u64 + 1), Index(known.entries.len() as u64));
        log.fetch(Fetch { shard, tag: 0, first, last, bytes_max: 1 << 20 });
        assert!(workers.can_read(), "nothing is in memory after a start");
        workers.read();
        let fetched = log.fetched().expect("it was read");
        entries.extend(fetched.result.expect("what recovery found can be read"));
    }
    let heads = entries.iter().map(|entry| (entry.id.term, entry.body.len() as u32));
    assert!(heads.eq(known.entries.iter().copied()));
    entries
}

const STEPS: usize = 330;

/// A run of the log that ends at a fault that `plan` brings about.
fn run_until(plan: impl FnOnce(&SimulatedDisk)) -> (Node, Result<(), LogError>) {
    let disk = SimulatedDisk::new(1);
    let mut node = Node::open(&disk).expect("an empty disk makes an empty log");
    plan(&disk);
    let ended = node.run(STEPS, &mut Random(2));
    (node, ended)
}

/// None, all, and so many random ones of each size of blocks.
fn survivors(operation: u64, random: u64) -> impl Iterator<Item = Survivors> {
    let both = move |seed| [512, 4096].map(|block| Survivors::Random { seed: operation * 1000 + seed, block });
    [Survivors::None, Survivors::All].into_iter().chain((0..random).flat_map(both))
}

// museum 39, 40
#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_durable() {
    let (mut operations, mut segments, mut torn, mut cut, mut kept) = (0, 0, 0, 0, 0);
    for operation in 0.. {
        let (node, ended) = run_until(|disk| disk.die_at(operation));
        if !node.disk.is_off() {
            ended.expect("a healthy disk");
            break;
        }
        operations += 1;
        for survivors in survivors(operation, 20) {
            let disk = node.disk.crash(survivors);
            torn += u64::from(disk.last_crash().blocks_torn > 0);
            let found =
                Node::open(&disk).unwrap_or_else(|error| panic!("operation {operation}, {survivors:?}: {error}"));
            assert!(node.may_leave(&found.contents), "operation {operation}, {survivors:?}");
            let report = found.log.recovery();
            cut += u64::from(report.torn_bytes > 0);
            kept += u64::from(report.batches_kept > 0);
            segments = report.segments.max(segments);
            if survivors == Survivors::None {
                assert_eq!(found.contents, node.after[&node.durable], "operation {operation}");
            }
        }
    }
    assert!(operations > 150 && segments > 4, "{operations} operations, {segments} segments");
    assert!(torn > 100 && cut > 100 && kept > 100, "{torn} torn, {cut} cut, {kept} kept");
}

/// The process dies, the page cache stays: the next start finds more than is durable, and must make it so.
#[test]
fn what_a_start_found_stays_found() {
    for operation in (0..).step_by(3) {
        let (node, _) = run_until(|disk| disk.die_at(operation));
        if !node.disk.is_off() {
            assert!(operation > 150);
            break;
        }
        node.disk.restart();
        let mut found = Node::open(&node.disk).expect("no corruption");
        assert!(node.may_leave(&found.contents), "operation {operation}");
        let after = Node::open(&node.disk.crash(Survivors::None)).expect("no corruption");
        assert_eq!(after.contents, found.contents, "operation {operation}");
        found.put(SHARDS[0], found.contents[&SHARDS[0]].1.len() as u64 + 1, 999, 100);
        found.settle().expect("healthy");
        let after = Node::open(&node.disk.crash(Survivors::None)).expect("no corruption");
        assert_eq!(after.contents, found.contents, "operation {operation}");
    }
}

/// What must hold after a failure, of whatever operation.
fn check_failed(mut node: Node, failed: &LogError, what: &str) {
    assert!(failed.0.contains("/simulated/") && !failed.0.contains('\n'), "{failed}");
    let before = node.disk.operations();
    for shard in SHARDS {
        node.set_hard_state(shard, hard_state(900, 1));
        node.log.flush();
        node.workers.sync();
        node.workers.prove();
        assert_eq!(node.log.durable().as_ref(), Err(failed), "{what}");
    }
    assert_eq!(node.disk.operations(), before, "{what}: the disk is left alone");
    for survivors in survivors(before, 3) {
        let found = Node::open(&node.disk.crash(survivors)).expect("no corruption");
        assert!(node.may_leave(&found.contents), "{what}, {survivors:?}");
    }
    let disk = node.disk.clone();
    assert_eq!(node.log.close().as_ref(), Err(failed));
    assert_eq!(disk.operations(), before, "{what}: not even when it closes");
}

// museum 38
#[test]
fn any_failed_sync_is_final() {
    let mut failures = 0;
    for sync in 0.. {
        let (node, ended) = run_until(|disk| disk.fail_sync(sync));
        let Err(failed) = ended else { break };
        check_failed(node, &failed, &format!("sync {sync}"));
        failures += 1;
    }
    assert!(failures > 40, "{failures}");
}

/// What the allocator does too: only that a disk is full passes.
#[test]
fn any_failed_operation_is_final() {
    let mut ended = 0;
    for operation in 0.. {
        let mut begun = 0;
        let (node, run) = run_until(|disk| {
            begun = disk.operations();
            disk.fail_at(operation);
        });
        if node.disk.operations() <= begun + operation {
            break;
        }
        let failed = run.expect_err("an operation has failed");
        check_failed(node, &failed, &format!("operation {operation}"));
        ended += 1;
    }
    assert!(ended > 110, "{ended}");
}

#[test]
fn one_seed_is_one_disk() {
    let image = || {
        let (node, ended) = run_until(|_| {});
        ended.expect("healthy");
        node.disk.names().into_iter().map(|name| (node.disk.bytes(&name), name)).collect::<Vec<_>>()
    };
    let first = image();
    assert!(first.len() > 6);
    assert!(first == image());
}

fn spares(disk: &SimulatedDisk) -> usize {
    disk.names().iter().filter(|name| name.starts_with("spare-")).count()
}

/// Puts until only the reserve is left, on a disk of 8 segments.
fn filled(segment: u64) -> Node {
    let disk = SimulatedDisk::new(4);
    disk.set_capacity(Some(8 * segment));
    let mut node = Node::open_with(&disk, segment).expect("space");
    while node.log.space() == Space::Plenty {
        let last = node.contents[&SHARDS[0]].1.len() as u64;
        assert!(last < 200, "the disk is small");
        node.put(SHARDS[0], last + 1, 1, segment as usize / 20);
        node.log.flush();
        node.workers.sync();
        while node.workers.can_allocate() && node.workers.allocate() {}
        node.look().expect("a full disk fails nothing");
    }
    node
}

// museum 41
#[test]
fn a_full_disk_refuses_then_waits_and_goes_on_when_there_is_space() {
    let mut node = filled(SEGMENT);
    assert_eq!(spares(&node.disk), 2, "the reserve is whole");
    assert_eq!(node.disk.used(), 8 * SEGMENT);
    assert!(!node.log.waits_for_space() && node.workers.can_allocate() && !node.workers.allocate());
    let mut votes = 0;
    let blocked = loop {
        let term = node.contents[&SHARDS[1]].0.term.0 + 1;
        node.set_hard_state(SHARDS[1], hard_state(term, 2));
        node.log.flush();
        if !node.workers.can_sync() {
            break node.log.last_batch();
        }
        votes += 1;
        node.workers.sync();
        node.look().expect("a full disk fails nothing");
    };
    assert!(votes > 10, "the reserve is there to be used: {votes}");
    assert!(node.log.waits_for_space() && spares(&node.disk) == 0);
    let operations = node.disk.operations();
    node.workers.sync();
    assert_eq!(node.disk.operations(), operations, "a batch without a place changes nothing");
    assert!(!node.workers.allocate());
    node.disk.set_capacity(None);
    assert!(node.workers.allocate() && node.workers.can_sync());
    assert!(!node.log.waits_for_space());
    assert_eq!(node.log.space(), Space::ReserveOnly, "until there is more than the reserve");
    node.workers.sync();
    assert_eq!(node.log.durable(), Ok(blocked));
    while node.workers.can_allocate() {
        assert!(node.workers.allocate());
    }
    assert_eq!(node.log.space(), Space::Plenty);
    let contents = node.contents.clone();
    node.log.close().expect("healthy");
    assert_eq!(Node::open(&node.disk.crash(Survivors::None)).expect("healthy").contents, contents);
}

/// To fill a segment takes long, most of all on a disk that is full before its end. What is put meanwhile must not use up
/// the reserve: votes would wait behind it, and the node could not start again.
// museum 41, rule 17
#[test]
fn the_reserve_is_not_touched_before_it_is_known_that_the_disk_is_full() {
    let disk = SimulatedDisk::new(4);
    let mut node = Node::open(&disk).expect("space");
    while node.workers.can_allocate() {
        assert!(node.workers.allocate());
    }
    disk.set_full(true);
    for index in 1..=200 {
        node.put(SHARDS[0], index, 1, 3000);
        node.log.flush();
        node.workers.sync();
        node.look().expect("a full disk fails nothing");
    }
    assert_eq!((spares(&disk), node.log.space()), (2, Space::Plenty));
    assert!(node.log.waits_for_space() && !node.workers.can_sync());
    assert!(node.log.in_flight().is_some(), "if the disk hangs, this batch shows it");
    assert!(!node.workers.allocate(), "the disk is full");
    assert_eq!(node.log.space(), Space::ReserveOnly);
    assert!(node.workers.can_sync(), "what was taken in may have it");
    let durable = node.after[&node.durable].clone();
    drop(node);
    disk.restart();
    let node = Node::open(&disk).expect("it starts with no byte free");
    assert_eq!(node.contents, durable);
}

/// The power goes and comes back, and nothing is lost: with the space that there is the node starts, and votes.
fn restart_on_full(node: Node, segment: u64, start: u64) -> Node {
    let (contents, disk) = (node.contents.clone(), node.disk.clone());
    drop(node);
    disk.crash_in_place(Survivors::Random { seed: start, block: 512 });
    let mut node = Node::open_with(&disk, segment).unwrap_or_else(|error| panic!("start {start}: {error}"));
    assert_eq!(node.contents, contents);
    while node.workers.can_allocate() && node.workers.allocate() {}
    assert!(disk.used() <= 8 * segment);
    node.set_hard_state(SHARDS[0], hard_state(start + 10, 1));
    node.settle().expect("a vote fits");
    node
}

// museum 41
#[test]
fn a_node_starts_again_and_again_with_no_byte_free() {
    let segment = 16 * SEGMENT;
    let mut node = filled(segment);
    node.settle().expect("the reserve takes it");
    for start in 0..20 {
        node = restart_on_full(node, segment, start);
    }
}

/// Others take every byte that is free between two starts. Its spares are used up, and what the segments of earlier starts
/// give back is never quite one more.
// museum 41, rule 17
#[test]
fn a_node_starts_again_and_again_on_a_disk_that_others_fill() {
    let segment = 8 * SEGMENT;
    let mut node = filled(segment);
    node.settle().expect("the reserve takes it");
    let mut without_spare = 0;
    for start in 0..30 {
        let disk = node.disk.clone();
        let is_usual = |name: &&String| name.starts_with("spare-") && disk.bytes(name).len() as u64 == segment;
        without_spare += u32::from(disk.names().iter().filter(is_usual).count() == 0);
        disk.set_capacity(Some(disk.used()));
        node = restart_on_full(node, segment, start);
        let next = node.contents[&SHARDS[0]].1.len() as u64 + 1;
        node.put(SHARDS[0], next, start + 10, 0);
        node.settle().expect("the first entry of a leader fits");
    }
    assert!(without_spare > 3, "some starts have none: {without_spare}");
    // What was laid by goes when there is space.
    node.disk.set_capacity(None);
    let (contents, disk) = (node.contents.clone(), node.disk.clone());
    drop(node);
    disk.restart();
    let mut node = Node::open_with(&disk, segment).expect("space");
    while node.workers.can_allocate() {
        assert!(node.workers.allocate());
    }
    assert_eq!((node.contents.clone(), node.log.space()), (contents, Space::Plenty));
    let left = node.disk.names().into_iter().filter(|name| name.starts_with("spare-"));
    assert_eq!(left.map(|name| node.disk.bytes(&name).len() as u64).collect::<Vec<_>>(), [segment; 3]);
    let next = node.contents[&SHARDS[0]].1.len() as u64 + 1;
    node.put(SHARDS[0], next, 100, 2 * SEGMENT as usize);
    node.settle().expect("healthy");
}

/// What a start that ended too early had not given back, and what it was making of it, the next one finds.
// museum 41, rule 17
#[test]
fn a_start_on_a_full_disk_that_ends_anywhere_leaves_room_for_the_next() {
    let segment = 8 * SEGMENT;
    for starts in [2, 5, 8] {
        let mut node = filled(segment);
        node.settle().expect("the reserve takes it");
        for start in 0..starts {
            node.disk.set_capacity(Some(node.disk.used()));
            node = restart_on_full(node, segment, start);
        }
        let (contents, before) = (node.contents.clone(), node.disk.clone());
        drop(node);
        before.crash_in_place(Survivors::Random { seed: starts, block: 512 });
        before.set_capacity(Some(before.used()));
        let operations = (0..).take_while(|operation| {
            let disk = before.fork();
            disk.die_at(*operation);
            drop(super::log_by_hand::Node::open_with(&disk, segment));
            let is_off = disk.is_off();
            disk.crash_in_place(Survivors::Random { seed: *operation, block: 512 });
            let again = Node::open_with(&disk, segment);
            let again = again.unwrap_or_else(|error| panic!("{starts} starts, then operation {operation}: {error}"));
            assert_eq!(again.contents, contents);
            is_off
        });
        assert!(operations.count() > 6);
    }
}

#[test]
fn a_full_disk_does_not_hold_up_a_close() {
    let mut node = filled(SEGMENT);
    let last = node.contents[&SHARDS[0]].1.len() as u64;
    for index in last + 1..last + 100 {
        node.put(SHARDS[0], index, 1, 3000);
    }
    let LogError(line) = node.log.close().expect_err("the batch has no place");
    assert!(line.contains("the disk is full"), "{line}");
}

#[test]
fn a_close_looks_once_more_whether_the_disk_is_full() {
    let mut node = filled(SEGMENT);
    let last = node.contents[&SHARDS[0]].1.len() as u64;
    for index in last + 1..last + 100 {
        node.put(SHARDS[0], index, 1, 3000);
        node.log.flush();
        node.workers.sync();
        node.look().expect("a full disk fails nothing");
    }
    assert!(node.log.waits_for_space() && node.log.space() == Space::ReserveOnly);
    node.disk.set_capacity(None);
    node.log.close().expect("there is space again, which nobody has seen yet");
    assert_eq!(Node::open(&node.disk.fork()).expect("healthy").contents, node.contents);
}

#[test]
fn a_close_proves_the_last_batch_and_nothing_happens_after_it() {
    let disk = SimulatedDisk::new(1);
    let mut node = Node::open(&disk).expect("healthy");
    node.put(SHARDS[0], 1, 1, 10);
    assert!(!node.workers.can_sync(), "nothing was flushed");
    let workers = node.workers.clone();
    node.log.close().expect("a clean stop");
    assert!(!workers.can_sync() && !workers.can_prove());
    let operations = disk.operations();
    workers.sync();
    workers.prove();
    assert_eq!(disk.operations(), operations);
    let proved = Node::open(&disk.fork()).expect("healthy");
    assert_eq!(proved.contents, node.contents);
    assert_eq!(proved.log.recovery().batches_kept, 1, "the watermark");
    // The restatement has the first block, the entry the second: a flip there must be seen as corruption.
    disk.flip("segment-0000000000000001.log", 2 * 4096 + 60, 0);
    let LogError(line) = Node::open(&disk).err().expect("corrupt");
    assert!(line.contains("at offset 8248"), "{line}");
}

#[test]
fn an_idle_syncer_proves_what_it_synced_last() {
    let mut node = Node::open(&SimulatedDisk::new(1)).expect("healthy");
    assert!(!node.workers.can_prove(), "a start leaves nothing to prove");
    node.put(SHARDS[0], 1, 1, 10);
    node.log.flush();
    assert!(!node.workers.can_prove(), "a batch waits");
    node.workers.sync();
    assert!(node.workers.can_prove() && !node.workers.can_sync());
    node.workers.prove();
    assert!(!node.workers.can_prove());
    node.disk.flip("segment-0000000000000001.log", 2 * 4096 + 60, 0);
    assert!(Node::open(&node.disk.fork()).is_err(), "the flip is corruption");
}

#[test]
fn an_entry_larger_than_a_segment_waits_for_a_larger_one() {
    let mut node = Node::open(&SimulatedDisk::new(1)).expect("healthy");
    while node.workers.can_allocate() {
        assert!(node.workers.allocate());
    }
    node.put(SHARDS[0], 1, 1, 3 * SEGMENT as usize);
    node.log.flush();
    assert!(!node.workers.can_sync() && node.log.waits_for_space());
    assert!(node.workers.can_allocate() && node.workers.allocate() && !node.workers.can_allocate());
    assert!(node.workers.can_sync() && !node.log.waits_for_space());
    node.workers.sync();
    assert_eq!(node.log.durable(), Ok(node.log.last_batch()));
    assert_eq!(Node::open(&node.disk.crash(Survivors::None)).expect("healthy").contents, node.contents);
}

#[test]
fn a_start_reports_what_it_met() {
    let mut node = Node::open(&SimulatedDisk::new(1)).expect("healthy");
    node.put(SHARDS[0], 1, 1, 10);
    node.settle().expect("healthy");
    node.put(SHARDS[0], 2, 1, 10_000);
    node.log.flush();
    node.disk.die_at(1);
    node.workers.sync();
    let disk = node.disk.fork();
    let report = || Node::open(&disk.fork()).expect("no corruption").log.recovery();
    let met = |batches_kept, torn_bytes| RecoveryReport { segments: 1, batches_kept, torn_bytes, blemishes: 0 };
    assert_eq!(report(), met(1, 0), "the last batch arrived");
    // The header, the restatement, the first batch, then the second of three blocks.
    disk.flip("segment-0000000000000001.log", 4 * 4096, 0);
    assert_eq!(report(), met(0, 3 * 4096), "its header proves the one before");
    disk.flip("segment-0000000000000001.log", 3 * 4096, 0);
    assert_eq!(report(), met(1, 3 * 4096), "nothing proves the one before, and it is whole");
}
