//! When the allocator's thread makes its first spare after a start, and how fast it fills one.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, LogIo, RealDisk};
use super::simulated_disk::SimulatedDisk;
use super::spares::{AllocatorWorker, Attempt, CALM_AFTER_START, First, Pool, Purpose, Quota, SpareMaker, SpareSource};
use super::stats::Shared;

const SEGMENT: u64 = 64 << 10;

/// An allocator that has found so many spares at its start, and its pool.
fn found(spares: usize) -> (AllocatorWorker, Pool) {
    let disk = Arc::new(SimulatedDisk::new(1));
    let maker = SpareMaker { disk, segment_size: SEGMENT, quota: Arc::new(Quota::new(None)) };
    for _ in 0..spares {
        maker.make(SEGMENT, &|| {}).expect("space");
    }
    let first = First::new(maker).expect("a readable directory");
    AllocatorWorker::new(first, Arc::new(Shared::new()), Arc::new(|| {}))
}

/// To fill a segment takes the disk from everything else that a start waits for.
#[test]
fn the_first_attempt_is_put_off_where_the_reserve_is_there() {
    let after: Vec<_> = (0..=3).map(|spares| found(spares).0.first_attempt_after()).collect();
    assert_eq!(after, [Duration::ZERO, Duration::ZERO, CALM_AFTER_START, CALM_AFTER_START]);
}

#[test]
fn a_log_that_waits_for_a_spare_says_so_once() {
    let (worker, mut pool) = found(3);
    assert!(pool.is_ready(Some(1), Purpose::Entries), "one is over");
    pool.take(1).expect("a spare");
    for _ in 0..3 {
        assert!(!pool.is_ready(Some(1), Purpose::Entries), "the reserve is left");
    }
    assert_eq!(worker.requests.len(), 1);
    let mut worker = worker;
    assert!(worker.wants());
    assert_eq!(worker.attempt(), Attempt::Done);
    assert!(pool.is_ready(Some(1), Purpose::Entries));
    pool.take(1).expect("the new spare");
    assert!(!pool.is_ready(Some(1), Purpose::Entries));
    assert_eq!(worker.requests.len(), 1, "it waits anew");
}

#[test]
fn files_are_filled_piece_by_piece() {
    for io in [LogIo::Direct, LogIo::Buffered, LogIo::Map] {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::create(dir.path(), io).expect("a disk");
        let rests = Cell::new(0);
        disk.create_by_and_by("file", 4 << 20, &|| rests.set(rests.get() + 1)).expect("space");
        let bytes = std::fs::read(dir.path().join("file")).expect("the file");
        assert_eq!((bytes.len(), bytes.iter().all(|byte| *byte == 0), rests.get()), (4 << 20, true, 4), "{io:?}");
    }
}

/// Whether there is a rest between two pieces: then the message is taken that a real thread never gets.
fn rests(worker: &mut AllocatorWorker) -> bool {
    let (alive, alive_out) = crossbeam_channel::bounded(1);
    alive.send(()).expect("room");
    worker.alive = Some(alive_out);
    worker.rest();
    alive.is_empty()
}

#[test]
fn a_spare_is_filled_at_leisure_unless_the_reserve_is_not_there_or_the_log_waits() {
    let (mut worker, mut pool) = found(2);
    assert!(rests(&mut worker));
    pool.take(1).expect("a spare");
    assert!(!rests(&mut worker), "the reserve is not there");
    assert_eq!(worker.attempt(), Attempt::Done);
    assert_eq!(worker.attempt(), Attempt::Done);
    assert!(pool.is_ready(Some(1), Purpose::Entries), "one is over");
    pool.take(1).expect("a spare");
    assert!(rests(&mut worker));
    assert!(!pool.is_ready(Some(1), Purpose::Entries));
    assert!(!rests(&mut worker), "the log waits");
}
