//! The log whose loop syncs by itself: nothing happens but when it is told, and it never waits for a segment.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use raftkv_protocol::types::{Index, ShardId, Term};

use super::conformance_test::entry;
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{BatchNumber, CoreLog, FileLog, IDLE, LogError, LogSync, Options, RecoveredShard, Space, Workers};

const A: ShardId = ShardId(0);
const SEGMENT: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> (Options, Receiver<()>) {
    let (wake, woken) = bounded(1);
    let wake = Arc::new(move || {
        // A full channel wakes as well.
        let _ = wake.try_send(());
    });
    let options = Options::new(Path::new("unused"), vec![A], wake);
    (Options { segment_size: SEGMENT, sync: LogSync::Inline, ..options }, woken)
}

/// With threads for all else.
fn open(disk: &SimulatedDisk) -> Result<(FileLog, Vec<RecoveredShard>, Receiver<()>), LogError> {
    let (options, woken) = options();
    FileLog::open_on(Arc::new(disk.clone()), options).map(|(log, recovered)| (log, recovered, woken))
}

/// With all else moved by hand.
fn open_by_hand(disk: &SimulatedDisk) -> (FileLog, Workers, Receiver<()>) {
    let (options, woken) = options();
    let (log, _, workers) = FileLog::open_by_hand(Arc::new(disk.clone()), options).expect("healthy");
    (log, workers, woken)
}

/// Adds an entry and hands it over.
fn put(log: &mut FileLog, index: u64, bytes: usize) -> BatchNumber {
    log.append(A, &mut vec![entry(index, 1, &"x".repeat(bytes))]);
    log.flush();
    log.last_batch()
}

/// Puts until a batch finds no segment: that batch, and the index of the last entry.
fn put_until_it_waits(log: &mut FileLog, now: Instant) -> (BatchNumber, u64) {
    for index in 1..100 {
        let batch = put(log, index, 9_000);
        if !log.sync_inline(now) {
            return (batch, index);
        }
        assert_eq!(log.durable(), Ok(batch));
    }
    panic!("the segments are never used up");
}

// museum 15
#[test]
fn nothing_is_synced_before_the_loop_does_it() {
    let disk = SimulatedDisk::default();
    let (mut log, _, _) = open(&disk).expect("healthy");
    let now = Instant::now();
    assert!(!log.sync_inline(now), "there is nothing to do");
    let batch = put(&mut log, 1, 100);
    let batches = log.stats().batches;
    assert_eq!((log.in_flight(), log.durable()), (Some(batch), Ok(BatchNumber(batch.0 - 1))));
    assert!(log.sync_inline(now));
    assert_eq!(log.stats().batches, batches + 1);
    assert_eq!(log.in_flight(), Some(batch), "the loop has not looked yet");
    assert_eq!((log.durable(), log.in_flight()), (Ok(batch), None));
    drop(log);
    let (_, recovered, _) = open(&disk.crash(Survivors::None)).expect("healthy");
    assert_eq!(recovered[0].entries, [(Term(1), 100)]);
}

// museum 38, rule 17
#[test]
fn the_first_failed_sync_is_final() {
    let disk = SimulatedDisk::default();
    let (mut log, workers, _) = open_by_hand(&disk);
    while workers.can_allocate() {
        assert!(workers.allocate());
    }
    let now = Instant::now();
    put(&mut log, 1, 100);
    assert!(log.sync_inline(now));
    log.durable().expect("healthy");
    disk.fail_sync(0);
    put(&mut log, 2, 100);
    assert!(log.sync_inline(now));
    let failed = log.durable().expect_err("EIO");
    assert!(failed.0.contains("cannot write the log /simulated/segment-"), "{failed}");
    let syncs = disk.syncs();
    put(&mut log, 3, 100);
    for after in [Duration::ZERO, IDLE, 2 * IDLE] {
        assert!(!log.sync_inline(now + after));
        assert_eq!(log.durable(), Err(failed.clone()));
    }
    assert_eq!(log.close(), Err(failed));
    assert_eq!(disk.syncs(), syncs, "the failed file is left alone");
}

// rule 12
#[test]
fn an_idle_log_proves_its_last_batch_when_it_is_time() {
    let disk = SimulatedDisk::default();
    let (mut log, _workers, _) = open_by_hand(&disk);
    let start = Instant::now();
    assert!(!log.sync_inline(start) && log.sync_inline_at().is_none(), "there is nothing to prove");
    let mut begun = start;
    for index in 1..=3 {
        // Each comes before it is time to prove the one before.
        put(&mut log, index, 100);
        assert!(log.sync_inline(begun));
        log.durable().expect("healthy");
        assert!(!log.sync_inline(begun));
        assert_eq!(log.sync_inline_at(), Some(begun + IDLE));
        begun += IDLE / 2;
        assert!(!log.sync_inline(begun));
    }
    let batches = log.stats().batches;
    assert!(log.sync_inline(begun + IDLE / 2));
    assert_eq!((log.stats().batches, log.sync_inline_at()), (batches + 1, None));
    assert!(!log.sync_inline(begun + 2 * IDLE), "it is proved");
    drop(log);
    let segment = disk.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    // The restatement has the first block, the entries those after it: a flip in the last must be seen as corruption.
    disk.edit(&segment, |bytes| bytes[4 * 4096 + 60] ^= 1);
    assert!(open(&disk).is_err(), "the flip is corruption");
}

// museum 41, rule 16
#[test]
fn a_loop_goes_on_while_a_batch_waits_for_a_segment() {
    let disk = SimulatedDisk::default();
    let (mut log, workers, woken) = open_by_hand(&disk);
    let now = Instant::now();
    let (batch, index) = put_until_it_waits(&mut log, now);
    assert!(log.waits_for_space());
    assert_eq!(log.in_flight(), Some(batch), "if the disk hangs while the segment is made, this batch shows it");
    assert_eq!(log.durable(), Ok(BatchNumber(batch.0 - 1)));
    assert!(log.tail(A, Index(index), Index(index)).is_some(), "what waits is served from memory");
    assert!(woken.try_recv().is_err());
    for _ in 0..2 {
        assert!(!log.sync_inline(now), "the last spare is not for entries");
        assert!(workers.allocate());
        assert!(woken.try_recv().is_ok(), "the loop is woken when there is a segment");
    }
    assert!(log.sync_inline(now) && !log.waits_for_space());
    assert_eq!(log.durable(), Ok(batch));

    let large = put(&mut log, index + 1, 3 * SEGMENT as usize);
    assert!(!log.sync_inline(now));
    while !log.sync_inline(now) {
        assert!(workers.can_allocate() && workers.allocate(), "a larger one is asked for");
    }
    assert_eq!(log.durable(), Ok(large));
    log.close().expect("healthy");
    let (_, recovered, _) = open(&disk).expect("healthy");
    assert_eq!(recovered[0].entries.len() as u64, index + 1);
}

// museum 41, rule 17
#[test]
fn a_full_disk_leaves_the_loop_alone_and_wakes_it_when_space_returns() {
    let disk = SimulatedDisk::default();
    let (mut log, _, woken) = open(&disk).expect("healthy");
    disk.set_full(true);
    let (batch, index) = put_until_it_waits(&mut log, Instant::now());
    while log.space() == Space::Plenty {
        woken.recv_timeout(PATIENCE).expect("the allocator tells that the disk is full");
    }
    disk.set_full(false);
    while log.durable() != Ok(batch) {
        if !log.sync_inline(Instant::now()) {
            woken.recv_timeout(PATIENCE).expect("the allocator wakes the loop");
        }
    }
    log.close().expect("healthy");
    let (_, recovered, _) = open(&disk).expect("healthy");
    assert_eq!(recovered[0].entries.len() as u64, index);
}

#[test]
fn a_closing_log_waits_for_a_segment_but_not_for_space() {
    for is_full in [false, true] {
        let disk = SimulatedDisk::default();
        let (mut log, _, _) = open(&disk).expect("healthy");
        disk.set_full(is_full);
        for index in 1..200 {
            log.append(A, &mut vec![entry(index, 1, &"x".repeat(3_000))]);
        }
        let closed = log.close();
        if is_full {
            let LogError(line) = closed.expect_err("the batch has no place");
            assert!(line.contains("the disk is full"), "{line}");
        } else {
            closed.expect("there is space");
            let (_, recovered, _) = open(&disk).expect("healthy");
            assert_eq!(recovered[0].entries.len(), 199);
        }
    }
}
