//! When a disk counts as slow, as well again, and as well.

use std::time::{Duration, Instant};

use raftkv_protocol::health::DiskHealth::{self, Full, Healthy, Recovering, Slow};

use super::disk_watch::DiskWatch;
use crate::storage::{BatchNumber, Space};

const BUDGET: Duration = Duration::from_millis(200);

/// A watch that is looked at, and the time.
struct Bench {
    watch: DiskWatch,
    begun: Instant,
}

impl Bench {
    fn new() -> Bench {
        let begun = Instant::now();
        Bench { watch: DiskWatch::new(BUDGET, begun), begun }
    }

    /// A look so many milliseconds after the start, while the syncer has this batch.
    fn look(&mut self, at_ms: u64, batch: Option<u64>) -> DiskHealth {
        self.look_for_space(at_ms, batch, Space::Plenty)
    }

    fn look_for_space(&mut self, at_ms: u64, batch: Option<u64>, space: Space) -> DiskHealth {
        self.watch.look(batch.map(BatchNumber), space, self.begun + Duration::from_millis(at_ms));
        self.watch.health()
    }

    /// When it wants to look again, in milliseconds after the start.
    fn deadline(&self) -> Option<u64> {
        self.watch.deadline().map(|at| (at - self.begun).as_millis() as u64)
    }
}

#[test]
fn a_batch_is_late_when_its_time_is_over_and_the_watch_asks_to_be_woken_then() {
    let mut bench = Bench::new();
    assert_eq!((bench.look(0, None), bench.deadline()), (Healthy, None));
    assert_eq!((bench.look(1_000, Some(1)), bench.deadline()), (Healthy, Some(1_200)));
    assert_eq!((bench.look(1_199, Some(1)), bench.deadline()), (Healthy, Some(1_200)));
    assert!(!bench.watch.stalls());
    assert_eq!(bench.look(1_200, Some(1)), Slow);
    assert!(bench.watch.stalls());
    assert_eq!(bench.deadline(), None, "it is late already");
    assert_eq!(bench.watch.in_flight(), Some(BUDGET));
}

#[test]
fn each_batch_has_its_own_time() {
    let mut bench = Bench::new();
    for batch in 1..100 {
        assert_eq!(bench.look(batch * 199, Some(batch)), Healthy);
    }
}

/// The loop was held up, not the disk: nobody has seen the batch late.
#[test]
fn a_batch_that_came_back_before_it_was_looked_at_was_not_late() {
    let mut bench = Bench::new();
    bench.look(0, Some(1));
    assert_eq!(bench.look(5_000, None), Healthy);
    bench.look(6_000, Some(2));
    assert_eq!(bench.look(9_000, Some(3)), Healthy);
}

#[test]
fn a_disk_stalls_until_a_batch_comes_back_in_time() {
    let mut bench = Bench::new();
    let mut stalls = |at_ms, batch| {
        bench.look(at_ms, batch);
        bench.watch.stalls()
    };
    assert!(!stalls(0, Some(1)) && stalls(200, Some(1)));
    assert!(stalls(300, Some(2)), "the late one came back, and the next is not back yet");
    assert!(!stalls(310, Some(3)));
    assert!(!stalls(509, Some(3)) && stalls(510, Some(3)));
}

#[test]
fn a_disk_without_work_stalls_for_a_second() {
    let mut bench = Bench::new();
    bench.look(0, Some(1));
    bench.look(200, Some(1));
    bench.look(250, None);
    assert_eq!(bench.deadline(), Some(1_200));
    bench.look(1_199, None);
    assert!(bench.watch.stalls());
    bench.look(1_200, None);
    assert!(!bench.watch.stalls());
}

#[test]
fn after_a_late_batch_a_disk_is_slow_then_recovering_then_healthy() {
    let mut bench = Bench::new();
    bench.look(0, Some(1));
    bench.look(200, Some(1));
    assert_eq!(bench.look(210, Some(2)), Slow);
    assert_eq!((bench.look(2_000, None), bench.deadline()), (Slow, Some(5_200)));
    assert_eq!(bench.look(5_199, None), Slow);
    assert_eq!((bench.look(5_200, None), bench.deadline()), (Recovering, Some(30_200)));
    assert_eq!(bench.look(30_199, None), Recovering);
    assert_eq!((bench.look(30_200, None), bench.deadline()), (Healthy, None));
}

#[test]
fn the_time_of_health_begins_anew_with_each_late_batch() {
    let mut bench = Bench::new();
    bench.look(0, Some(1));
    bench.look(200, Some(1));
    bench.look(20_000, Some(1));
    bench.look(20_001, Some(2));
    bench.look(20_002, None);
    assert_eq!(bench.look(49_999, None), Recovering);
    assert_eq!(bench.look(50_000, None), Healthy);
}

#[test]
fn a_disk_is_full_while_only_the_reserve_is_left_and_recovering_for_a_while() {
    let mut bench = Bench::new();
    assert_eq!(bench.look_for_space(0, None, Space::ReserveOnly), Full);
    assert_eq!(bench.look_for_space(60_000, None, Space::ReserveOnly), Full);
    assert!(!bench.watch.stalls());
    assert_eq!(bench.deadline(), None, "space does not return by the clock");
    assert_eq!((bench.look(61_000, None), bench.deadline()), (Recovering, Some(90_000)));
    assert_eq!(bench.look(89_999, None), Recovering);
    assert_eq!((bench.look(90_000, None), bench.deadline()), (Healthy, None));
}

#[test]
fn a_full_disk_that_is_late_too_is_slow_when_it_has_space() {
    let mut bench = Bench::new();
    bench.look_for_space(0, Some(1), Space::ReserveOnly);
    assert_eq!(bench.look_for_space(200, Some(1), Space::ReserveOnly), Full);
    assert!(bench.watch.stalls());
    assert_eq!(bench.look(300, Some(1)), Slow);
    assert_eq!(bench.look(310, None), Slow);
    assert_eq!(bench.look(5_300, None), Recovering);
    assert_eq!(bench.look(30_299, None), Recovering);
    assert_eq!(bench.look(30_300, None), Healthy);
}
