use std::sync::Arc;

use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index, ShardId, SnapshotId};

use super::reclaim::AT_A_TIME;
use super::{FileLog, Options};
use crate::storage::simulated_disk::SimulatedDisk;
use crate::storage::tail::entry_memory_bytes;
use crate::storage::{CoreLog, Workers};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);
const COUNT: usize = 5 * AT_A_TIME / 2;
const LAST: Index = Index(COUNT as u64);

fn open(tail_bytes_max: usize) -> (FileLog, Workers) {
    let mut options = Options::new("unused", vec![A, B], Arc::new(|| {}));
    options.tail_bytes_max = tail_bytes_max;
    let (log, _, workers) = FileLog::open_by_hand(Arc::new(SimulatedDisk::new(1)), options).expect("an empty disk");
    (log, workers)
}

fn entry(index: u64) -> Entry {
    Entry { id: EntryId::new(index, 1), kind: EntryKind::Command, body: vec![7; 100].into() }
}

fn append(log: &mut FileLog, shard: ShardId, first: u64, count: usize) {
    log.append(shard, &mut (first..).take(count).map(entry).collect());
}

/// Entries in memory, in the log or not.
fn in_memory(log: &FileLog) -> usize {
    log.stats().memory_bytes as usize / entry_memory_bytes(&entry(1))
}

/// How many entries are reclaimed, and what is left then.
fn reclaim_all(log: &mut FileLog) -> Vec<usize> {
    let mut left = vec![in_memory(log)];
    while log.is_reclaimable() {
        log.reclaim_some();
        left.push(in_memory(log));
    }
    left.windows(2).map(|pair| pair[0] - pair[1]).collect()
}

#[test]
fn compacted_entries_are_gone_at_once_and_their_memory_in_pieces() {
    let (mut log, _workers) = open(usize::MAX);
    append(&mut log, A, 1, COUNT);
    append(&mut log, B, 1, 5);
    log.compact(A, EntryId { index: LAST.prev(), term: entry(1).id.term }, SnapshotId(1));
    log.reset(B, EntryId::new(9, 1), SnapshotId(2));
    assert!(log.tail(A, LAST.prev(), LAST).is_none() && log.tail(B, Index(5), Index(5)).is_none());
    assert_eq!(log.tail(A, LAST, LAST).expect("it is in memory").collect::<Vec<_>>(), [&entry(LAST.0)]);
    assert_eq!(in_memory(&log), COUNT + 5, "what is not given back yet counts");
    assert_eq!(reclaim_all(&mut log), [AT_A_TIME, AT_A_TIME, COUNT - 1 - 2 * AT_A_TIME, 5]);
    assert_eq!(in_memory(&log), 1);
    log.reclaim_some();
    assert_eq!(in_memory(&log), 1);
}

#[test]
fn the_log_goes_on_while_memory_is_reclaimed() {
    let (mut log, _workers) = open(usize::MAX);
    append(&mut log, A, 1, COUNT);
    log.compact(A, EntryId::new(LAST.0 - 10, 1), SnapshotId(1));
    log.reclaim_some();
    append(&mut log, A, LAST.0 - 5, 20);
    let tail = log.tail(A, Index(LAST.0 - 9), Index(LAST.0 + 14)).expect("all of it is in memory");
    assert!(tail.map(|entry| entry.id.index.0).eq(LAST.0 - 9..=LAST.0 + 14));
    log.compact(A, EntryId::new(LAST.0 + 4, 1), SnapshotId(2));
    assert_eq!(in_memory(&log), COUNT - AT_A_TIME + 14);
    log.reset(A, EntryId::new(1_000_000, 1), SnapshotId(3));
    append(&mut log, A, 1_000_001, 1);
    assert_eq!(reclaim_all(&mut log).iter().sum::<usize>(), COUNT - AT_A_TIME + 14);
    assert!(log.tail(A, Index(1_000_001), Index(1_000_001)).expect("it is in memory").eq([&entry(1_000_001)]));
}

#[test]
fn what_nobody_can_ask_for_makes_room_before_what_somebody_may() {
    let bytes = |count: usize| count * entry_memory_bytes(&entry(1));
    let (mut log, workers) = open(bytes(COUNT + AT_A_TIME));
    append(&mut log, A, 1, COUNT);
    log.flush();
    workers.sync();
    log.durable().expect("healthy");
    log.compact(A, EntryId::new(2 * AT_A_TIME as u64, 1), SnapshotId(1));
    append(&mut log, B, 1, 2 * AT_A_TIME);
    log.flush();
    workers.sync();
    log.durable().expect("healthy");
    assert_eq!(in_memory(&log), COUNT + AT_A_TIME, "no more than there may be");
    assert!(log.tail(A, Index(2 * AT_A_TIME as u64 + 1), LAST).is_some(), "what is in the log has stayed");
    assert_eq!(reclaim_all(&mut log), [AT_A_TIME]);
}
