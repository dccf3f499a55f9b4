//! A log on a simulated disk that tests move by hand, and what they fill it with.

use std::ops::RangeInclusive;
use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, Index, ShardId, SnapshotId};

use super::conformance_test::{entry, hard_state};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{CoreLog, Fetch, FetchError, FileLog, LogError, Options, RecoveredShard, Workers};

pub(super) const A: ShardId = ShardId(0);
pub(super) const B: ShardId = ShardId(1);
pub(super) const SEGMENT: u64 = 64 << 10;
pub(super) const BLOCK: usize = super::batch::BLOCK_BYTES as usize;
/// Bodies of this size, a batch each: about fifteen fill a segment.
pub(super) const BODY: usize = 3_000;

/// Counts the rounds of a loop that waits for the log, so that a log which comes to no end fails its test.
#[derive(Default)]
pub(super) struct Rounds(u32);

impl Rounds {
    pub(super) fn next(&mut self) {
        self.0 += 1;
        assert!(self.0 < 10_000, "the log comes to no end");
    }
}

/// A log that is moved by hand.
pub(super) struct Node {
    pub(super) disk: SimulatedDisk,
    pub(super) log: FileLog,
    pub(super) workers: Workers,
    pub(super) recovered: Vec<RecoveredShard>,
}

impl Node {
    pub(super) fn open(disk: &SimulatedDisk) -> Result<Node, LogError> {
        Node::open_with(disk, SEGMENT)
    }

    /// A log of two shards with segments of this size, of which nothing durable stays in memory.
    pub(super) fn open_with(disk: &SimulatedDisk, segment_size: u64) -> Result<Node, LogError> {
        let mut options = Options::new("unused", vec![A, B], Arc::new(|| {}));
        (options.segment_size, options.tail_bytes_max) = (segment_size, 0);
        let (log, recovered, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options)?;
        Ok(Node { disk: disk.clone(), log, workers, recovered })
    }

    pub(super) fn new() -> Node {
        Node::open(&SimulatedDisk::new(3)).expect("an empty disk makes an empty log")
    }

    /// The log as it is found after the power went.
    pub(super) fn after_crash(&self) -> Node {
        Node::open(&self.disk.crash(Survivors::None)).expect("a crash is no corruption")
    }

    /// Makes everything durable that was added, and lets the other workers come to an end.
    pub(super) fn settle(&mut self) {
        self.try_settle().expect("the disk is healthy");
    }

    pub(super) fn try_settle(&mut self) -> Result<(), LogError> {
        let mut rounds = Rounds::default();
        loop {
            rounds.next();
            self.log.flush();
            while self.workers.can_sync() {
                self.workers.sync();
            }
            while self.workers.can_allocate() && self.workers.allocate() {}
            while self.workers.can_read() {
                self.workers.read();
            }
            let last = self.log.last_batch();
            if self.log.durable()? == last {
                self.log.flush();
                if self.log.last_batch() == last && !self.workers.can_read() && !self.workers.can_sync() {
                    return self.log.durable().map(drop);
                }
            }
        }
    }

    /// Adds entries of term 1, each in a batch of its own.
    pub(super) fn put(&mut self, shard: ShardId, indexes: RangeInclusive<u64>) {
        for index in indexes {
            self.log.append(shard, &mut vec![body(shard, index)]);
            self.settle();
        }
    }

    pub(super) fn compact(&mut self, shard: ShardId, index: u64) {
        self.log.compact(shard, EntryId::new(index, 1), SnapshotId(index));
    }

    /// Puts of a shard until so many segments have begun.
    pub(super) fn put_until_segment(&mut self, shard: ShardId, mut index: u64, segment: u64) -> u64 {
        let mut rounds = Rounds::default();
        while self.segments().last() != Some(&segment) {
            rounds.next();
            self.put(shard, index..=index);
            index += 1;
        }
        index - 1
    }

    pub(super) fn segments(&self) -> Vec<u64> {
        let sequence =
            |name: &String| u64::from_str_radix(name.strip_prefix("segment-")?.strip_suffix(".log")?, 16).ok();
        self.disk.names().iter().filter_map(sequence).collect()
    }

    pub(super) fn spares(&self) -> Vec<String> {
        self.disk.names().into_iter().filter(|name| name.starts_with("spare-")).collect()
    }

    pub(super) fn fetch(&mut self, shard: ShardId, first: u64, last: u64) -> Result<Vec<Entry>, FetchError> {
        let mut entries: Vec<Entry> = Vec::new();
        while (entries.len() as u64) < last + 1 - first {
            let first = Index(first + entries.len() as u64);
            self.log.fetch(Fetch { shard, tag: 0, first, last: Index(last), bytes_max: 1 << 20 });
            self.workers.read();
            entries.extend(self.log.fetched().expect("it was read").result?);
        }
        Ok(entries)
    }

    pub(super) fn bodies(&mut self, shard: ShardId, first: u64, last: u64) {
        let expected: Vec<Entry> = (first..=last).map(|index| body(shard, index)).collect();
        assert!(self.fetch(shard, first, last) == Ok(expected), "entries {first} to {last} of shard {shard}");
    }
}

pub(super) fn body(shard: ShardId, index: u64) -> Entry {
    entry(index, 1, &format!("{shard}/{index}.").repeat(BODY)[..BODY])
}

/// A log of which segments 1 to 3 are let go by the next steps of the allocator.
pub(super) fn about_to_let_go() -> Node {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 4);
    node.compact(A, last);
    node.log.set_hard_state(A, hard_state(1, 1));
    let (mut index, mut rounds) = (last, Rounds::default());
    loop {
        rounds.next();
        index += 1;
        node.log.append(A, &mut vec![body(A, index)]);
        node.log.flush();
        node.workers.sync();
        node.log.durable().expect("healthy");
        if node.segments().last() == Some(&5) {
            assert_eq!(node.segments(), [1, 2, 3, 4, 5]);
            return node;
        }
    }
}

/// Makes everything durable that was added to a log on a healthy disk.
pub(super) fn write_out(log: &mut FileLog, workers: &Workers) {
    log.flush();
    while log.durable().expect("healthy") < log.last_batch() {
        workers.sync();
        workers.allocate();
        log.flush();
    }
}
