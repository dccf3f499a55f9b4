//! A process that is killed at any of its operations while its log goes on in another segment, is compacted and lets
//! segments go; with the power, or by itself.

use raftkv_protocol::types::{Entry, EntryId, Index, ShardId, SnapshotId};

use super::conformance_test::{entry, hard_state};
use super::log_by_hand::{A, B, Node};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{CoreLog, Fetch, LogError};

/// The entries of a run, in two shards by turns.
const ENTRIES: u64 = 60;
/// After each so many entries of shard A, the log lets go of what lies half as far back.
const COMPACTED_EVERY: u64 = 8;

fn body(shard: ShardId, index: u64) -> Entry {
    entry(index, 1, &format!("{shard}/{index}.").repeat(1500)[..6_000])
}

/// Makes everything durable that was added. An error if the disk ends it.
fn settle(node: &mut Node) -> Result<(), LogError> {
    node.log.flush();
    while node.log.durable()? < node.log.last_batch() {
        if !node.workers.can_sync() && !node.workers.allocate() {
            return Err(LogError("there is no space".to_owned()));
        }
        node.workers.sync();
        node.log.flush();
    }
    // Compaction is a note of its own; segments are let go and made beside the batches.
    node.workers.sync();
    while node.workers.can_allocate() && node.workers.allocate() {}
    node.log.durable().map(drop)
}

/// The last entry of a shard that a start has found; all from its start on can be read.
fn found(node: &mut Node, shard: ShardId, context: &str) -> u64 {
    let known = &node.recovered[usize::from(shard.0)];
    let (start, last) = (known.start.index.0, known.start.index.0 + known.entries.len() as u64);
    let mut next = start + 1;
    while next <= last {
        node.log.fetch(Fetch { shard, tag: 0, first: Index(next), last: Index(last), bytes_max: 1 << 20 });
        node.workers.read();
        for entry in node.log.fetched().expect("it was read").result.expect("what was found can be read") {
            assert_eq!(entry, body(shard, next), "{context}");
            next += 1;
        }
    }
    last
}

/// What was acknowledged: the last entries of both shards, the term, and where the log of A may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Acknowledged {
    last: [u64; 2],
    term: u64,
    compacted: u64,
}

/// The run, until the disk ends it. The acknowledgement before the one that is under way.
fn run(disk: &SimulatedDisk) -> (Acknowledged, Result<(), LogError>) {
    let mut told = Acknowledged::default();
    let mut all = || {
        let mut node = Node::open(disk)?;
        for number in 0..ENTRIES {
            let (shard, index) = if number % 2 == 0 { (A, number / 2 + 1) } else { (B, number / 2 + 1) };
            node.log.append(shard, &mut vec![body(shard, index)]);
            settle(&mut node)?;
            told.last[usize::from(shard.0)] = index;
            if shard == A && index % COMPACTED_EVERY == 0 {
                node.log.set_hard_state(A, hard_state(index, 2));
                settle(&mut node)?;
                told.term = index;
                // Whoever dies while it is taken in may find either.
                told.compacted = index - COMPACTED_EVERY / 2;
                for shard in [A, B] {
                    node.log.compact(shard, EntryId::new(told.compacted.min(index - 1), 1), SnapshotId(index));
                }
                settle(&mut node)?;
            }
        }
        Ok(())
    };
    let ended = all();
    (told, ended)
}

/// What a start on the disk finds: all that was acknowledged, and at most what was under way besides.
fn check(disk: &SimulatedDisk, told: Acknowledged, context: &str) -> u64 {
    let mut node = Node::open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    for shard in [A, B] {
        let (last, acknowledged) = (found(&mut node, shard, context), told.last[usize::from(shard.0)]);
        assert!(last == acknowledged || last == acknowledged + 1, "{context}: {last} of {acknowledged}");
        let start = node.recovered[usize::from(shard.0)].start.index.0;
        assert!(start <= told.compacted, "{context}: it begins behind {start}");
    }
    let term = node.recovered[0].hard_state.term.0;
    assert!(term == told.term || term == told.term + COMPACTED_EVERY, "{context}: term {term} of {}", told.term);
    settle(&mut node).unwrap_or_else(|error| panic!("{context}: {error}"));
    node.log.stats().oldest_segment
}

// museum 29, 30, 39, 40, rule 10, rule 14
#[test]
fn a_process_may_be_killed_at_any_operation_of_roll_and_compaction() {
    let mut oldest = 0;
    for operation in 0.. {
        let disk = SimulatedDisk::new(5);
        disk.die_at(operation);
        let (told, ended) = run(&disk);
        if !disk.is_off() {
            ended.expect("a healthy disk");
            assert!(operation > 150 && oldest > 3, "{operation} operations, segments from {oldest} on");
            return;
        }
        let random =
            |seed| Survivors::Random { seed: operation * 4 + seed, block: if seed % 2 == 0 { 512 } else { 4096 } };
        for survivors in [Survivors::None, Survivors::All, random(0), random(1)] {
            check(&disk.crash(survivors), told, &format!("no power at operation {operation}, {survivors:?}"));
        }
        disk.restart();
        oldest = check(&disk, told, &format!("killed at operation {operation}")).max(oldest);
        check(&disk.crash(Survivors::None), told, &format!("killed at operation {operation}, then no power"));
    }
}
