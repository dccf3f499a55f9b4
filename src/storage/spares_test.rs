//! When the allocator's thread makes its first spare after a start.

use std::sync::Arc;
use std::time::Duration;

use super::simulated_disk::SimulatedDisk;
use super::spares::{AllocatorWorker, Attempt, CALM_AFTER_START, First, Pool, Purpose, Quota, SpareMaker, SpareSource};
use super::stats::Shared;

const SEGMENT: u64 = 64 << 10;

/// An allocator that has found so many spares at its start, and its pool.
fn found(spares: usize) -> (AllocatorWorker, Pool) {
    let disk = Arc::new(SimulatedDisk::new(1));
    let maker = SpareMaker { disk, segment_size: SEGMENT, quota: Arc::new(Quota::new(None)) };
    for _ in 0..spares {
        maker.make(SEGMENT).expect("space");
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
