//! When the allocator's thread makes its first spare after a start, and how fast it fills one.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::LogError;
use super::disk::{Disk, LogIo, RealDisk};
use super::segment::segment_name;
use super::simulated_disk::SimulatedDisk;
use super::spares::{
    AllocatorWorker, Attempt, CALM_AFTER_START, Filling, First, Pool, Purpose, Quota, SpareMaker, SpareSource,
};
use super::stats::Shared;
use super::tip::SegmentFile;

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

const LONG: u64 = 256 << 10;

/// A start that finds spares of these sizes on a disk with so many bytes free.
fn start_with(sizes: &[u64], free: u64) -> (SimulatedDisk, First) {
    let disk = SimulatedDisk::new(1);
    let maker = || SpareMaker { disk: Arc::new(disk.clone()), segment_size: LONG, quota: Arc::new(Quota::new(None)) };
    for &size in sizes {
        maker().make(size, &|| {}).expect("space");
    }
    disk.set_capacity(Some(disk.used() + free));
    let first = First::new(maker()).expect("a readable directory");
    (disk, first)
}

fn sizes(disk: &SimulatedDisk) -> Vec<u64> {
    let mut sizes: Vec<u64> = disk.names().iter().map(|name| disk.bytes(name).len() as u64 >> 10).collect();
    sizes.sort_unstable();
    sizes
}

// museum 41
#[test]
fn what_a_start_gives_back_is_laid_by_where_the_disk_is_full() {
    let laid_by = |found: &[u64], free: u64, given_back: u64| {
        let (disk, mut first) = start_with(found, free << 10);
        first.lay_by(given_back << 10).expect("healthy");
        sizes(&disk)
    };
    assert_eq!(laid_by(&[], 100, 80), [80], "the rest is not the log's");
    assert_eq!(laid_by(&[], 72, 80), [72], "somebody was faster");
    assert_eq!(laid_by(&[], 100, 63), [0; 0], "too little for a segment");
    assert_eq!(laid_by(&[LONG], 100, 100), [256], "the next start has one");
    assert_eq!(laid_by(&[], 256, 200), [0; 0], "the allocator makes one of the usual size");
    assert_eq!(laid_by(&[128 << 10], 200, 200), [72, 256], "together they are enough");
    assert_eq!(laid_by(&[200 << 10], 240, 150), [92, 256], "of what is left 94 are the log's");
    assert_eq!(laid_by(&[64 << 10, 96 << 10], 88, 88), [64, 88, 96], "they are not");
}

// museum 41
#[test]
fn a_start_on_a_full_disk_takes_a_short_spare_that_holds_twice_what_it_must_write() {
    let found = [64 << 10, 128 << 10];
    let takes = |free: u64, size_min: u64| {
        let (disk, mut first) = start_with(&found, free);
        let taken = first.take(size_min).map(|spare| (spare.size >> 10, spare.filling));
        (taken.map_err(|error| error.0.contains("cannot allocate a log segment")), sizes(&disk))
    };
    assert_eq!(takes(0, 1), (Ok((128, Filling::Remains)), vec![64, 128]), "the longest");
    assert_eq!(takes(0, 64 << 10), (Ok((128, Filling::Remains)), vec![64, 128]));
    assert_eq!(takes(0, 65 << 10), (Ok((132, Filling::Zeros)), vec![132]), "both together are enough");
    assert_eq!(takes(0, 97 << 10), (Err(true), vec![64, 128]), "they are not, and stay");
    assert_eq!(takes(64 << 10, 129 << 10), (Ok((256, Filling::Zeros)), vec![256]), "with what is free");
    assert_eq!(takes(LONG, 1), (Ok((256, Filling::Zeros)), vec![64, 128, 256]), "the disk has room");
}

#[test]
fn short_spares_go_for_what_has_room_in_their_place() {
    let (disk, first) = start_with(&[LONG, LONG, 200 << 10], 100 << 10);
    let (mut worker, _pool) = AllocatorWorker::new(first, Arc::new(Shared::new()), Arc::new(|| {}));
    assert_eq!((worker.attempt(), sizes(&disk)), (Attempt::Done, vec![256; 3]));
    assert_eq!(worker.attempt(), Attempt::NoneWanted);

    let (disk, first) = start_with(&[LONG, LONG, LONG, 200 << 10], 100 << 10);
    let (mut worker, mut pool) = AllocatorWorker::new(first, Arc::new(Shared::new()), Arc::new(|| {}));
    assert!(!pool.is_ready(Some(290 << 10), Purpose::Entries) && worker.wants());
    assert_eq!((worker.attempt(), sizes(&disk)), (Attempt::Done, vec![256, 256, 256, 290]));
}

#[test]
fn of_many_short_spares_the_longest_are_kept() {
    let (disk, first) = start_with(&[64, 96, 72, 100, 68, 76, 80, 92].map(|size| size << 10), 0);
    assert_eq!(sizes(&disk), [72, 76, 80, 92, 96, 100]);
    drop(first);
}

#[test]
fn short_spares_go_when_there_are_enough_others() {
    let (disk, first) = start_with(&[64 << 10, LONG], 0);
    let (mut worker, _pool) = AllocatorWorker::new(first, Arc::new(Shared::new()), Arc::new(|| {}));
    assert_eq!((worker.attempt(), sizes(&disk)), (Attempt::Refused, vec![64, 256]));
    disk.set_capacity(None);
    while worker.wants() {
        assert_eq!(worker.attempt(), Attempt::Done);
    }
    assert_eq!(sizes(&disk), [256; 3]);
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

// museum 41
#[test]
fn a_segment_that_was_cut_short_is_kept_for_the_next_start_while_there_is_no_spare() {
    for (spares, left) in [(0, vec![96]), (1, vec![256])] {
        let (disk, first) = start_with(&vec![LONG; spares], 0);
        disk.set_bytes(&segment_name(1), vec![1; 96 << 10]);
        let (mut worker, mut pool) = AllocatorWorker::new(first, Arc::new(Shared::new()), Arc::new(|| {}));
        pool.let_go(vec![SegmentFile { sequence: 1, size: 96 << 10 }]);
        assert!(worker.wants());
        assert_eq!((worker.attempt(), sizes(&disk)), (Attempt::Done, left));
    }
}

/// The name, or the bytes, of a spare that could not be made for good.
#[test]
fn only_a_full_disk_passes() {
    let (disk, first) = start_with(&[], 0);
    let shared = Arc::new(Shared::new());
    let (mut worker, _pool) = AllocatorWorker::new(first, Arc::clone(&shared), Arc::new(|| {}));
    assert!(worker.wants());
    assert_eq!((worker.attempt(), shared.failure()), (Attempt::Refused, None));
    disk.set_capacity(None);
    disk.fail_at(2);
    assert_eq!(worker.attempt(), Attempt::Failed, "the sync of the directory");
    let LogError(line) = shared.failure().expect("it is final");
    assert!(line.starts_with("cannot allocate a log segment in /simulated/: "), "{line}");
    assert!(!worker.wants());
    assert_eq!(sizes(&disk), [0; 0], "it is not left where nobody counts it");
}
