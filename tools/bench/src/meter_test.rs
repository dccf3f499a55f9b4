use std::time::Duration;

use crate::meter::{Loop, Meter};
use crate::tally::Fault;

const MS: u64 = 1_000_000;

fn meter(kind: Loop) -> Meter {
    Meter::start(kind, Duration::from_millis(10), Duration::from_millis(100), 2)
}

#[test]
fn a_closed_loop_counts_what_was_answered_in_the_window() {
    let meter = meter(Loop::Closed);
    let mut recorder = meter.recorder(1);
    recorder.answered(5 * MS, 9 * MS);
    recorder.answered(5 * MS, 10 * MS);
    recorder.answered(100 * MS, 109 * MS);
    recorder.answered(100 * MS, 110 * MS);
    recorder.failed(Fault::NoReply, 5 * MS, 20 * MS, 3);
    assert_eq!(meter.take_live().ops(), 0, "nothing has been posted");
    recorder.post();
    let (tally, seconds) = meter.measured();
    assert_eq!((tally.ops(), tally.fault_count(), seconds), (2, 3, 0.1));
    assert_eq!(meter.take_live().ops(), 4);
    assert_eq!(meter.take_live().ops(), 0);
}

#[test]
fn an_open_loop_counts_what_was_due_in_the_window_and_as_long_as_it_took() {
    let meter = meter(Loop::Open);
    let mut recorder = meter.recorder(0);
    recorder.answered(9 * MS, 20 * MS);
    recorder.answered(10 * MS, 20 * MS);
    recorder.answered(109 * MS, 210 * MS);
    recorder.answered(110 * MS, 300 * MS);
    recorder.post();
    let (tally, seconds) = meter.measured();
    assert_eq!((tally.ops(), seconds), (2, 0.2));
    assert!((100_900.0..101_100.0).contains(&tally.latency_us_max()), "{}", tally.latency_us_max());
}
