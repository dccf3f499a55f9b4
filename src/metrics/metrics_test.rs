use std::time::{Duration, Instant};

use raftkv_protocol::client::Code;

use super::Counters;
use super::histogram::{Histogram, Shape, SharedHistogram};
use super::latest::LatestMax;
use super::requests::{Face, Requests, Taken, Task};
use super::stopwatch::Stopwatch;

#[test]
fn the_manual_names_every_counter() {
    let manual = include_str!("../../docs/operations.md");
    let status = manual.split("\n## ").find(|chapter| chapter.starts_with("Looking at a node: status\n"));
    let status = status.expect("a chapter");
    for (name, _) in Counters::default().named() {
        assert!(status.contains(&format!("`{name}`")), "{name} is not among the counters");
    }
}

#[test]
fn the_counters_of_cores_add_up() {
    let mut sum = Counters { requests: 1, log_syncs: 2, ..Counters::default() };
    sum.add(&Counters { requests: 10, timeouts: 3, ..Counters::default() });
    let named = sum.named();
    let value = |name: &str| named.iter().find(|(counter, _)| counter == name).map(|(_, value)| *value);
    assert_eq!(["requests", "log_syncs", "timeouts", "turns"].map(value), [Some(11), Some(2), Some(3), Some(0)]);
    assert!(named.is_sorted());
}

#[test]
fn the_longest_of_the_node_is_the_longest_of_its_cores() {
    let core = |longest| Counters { log_sync_us_max: longest, snapshot_us_last: longest, ..Counters::default() };
    let mut node = Counters::default();
    for longest in [20, 70, 50] {
        node.add(&core(longest));
    }
    assert_eq!(node, core(70));
}

#[test]
fn a_bucket_holds_its_bound_and_nothing_above_it() {
    let (mut histogram, shared) = (Histogram::<4, 3>::default(), SharedHistogram::<4, 3>::default());
    for value in [0, 1, 16, 17, 32, 33, 64, 65, u64::MAX] {
        histogram.note(value);
        shared.note(value);
    }
    let sum = [0, 1, 16, 17, 32, 33, 64, 65, u64::MAX].into_iter().fold(0, u64::wrapping_add);
    assert_eq!(histogram.shape(), Shape { buckets: vec![(16, 3), (32, 2), (64, 2)], above: 2, sum });
    assert_eq!(shared.copy(), histogram);
    let mut both = histogram.clone();
    both.add(&histogram);
    assert_eq!((both.shape().buckets[0], both.shape().above), ((16, 6), 4));
}

#[test]
fn the_greatest_of_the_last_minute_is_forgotten_after_it() {
    let (mut longest, start) = (LatestMax::default(), Instant::now());
    let mut note = |after_s, value| {
        longest.note(start + Duration::from_secs(after_s), value);
        longest.greatest()
    };
    assert_eq!([note(0, 30), note(9, 20), note(10, 70), note(11, 10)], [30, 30, 70, 70]);
    assert_eq!([note(70, 1), note(79, 1), note(80, 2)], [70, 70, 2]);
    // For whole spans nothing was noted.
    assert_eq!([note(139, 3), note(149, 1), note(199, 1), note(200, 1)], [3, 3, 3, 1]);
    assert_eq!([note(1_000_000, 5), note(1_000_001, 4)], [5, 5]);
}

#[test]
fn a_stopwatch_shows_what_the_thread_has_worked_and_not_what_it_has_slept() {
    let watch = Stopwatch::Runs;
    let (begun, started) = (watch.read(), Instant::now());
    let nothing = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(30));
    let slept = watch.read() - begun;
    while watch.read() - begun < slept + Duration::from_millis(5) {}
    assert!(
        nothing.is_err() && slept < Duration::from_millis(20) && started.elapsed() >= Duration::from_millis(35),
        "{slept:?}"
    );
    assert_eq!(Stopwatch::Stands.read(), Stopwatch::default().read());
}

#[test]
fn requests_are_counted_by_face_task_and_result() {
    let (mut requests, now) = (Requests::default(), Instant::now());
    let taken = |face, task| Taken { at: now, face, task };
    requests.answered(taken(Face::Binary, Task::Put), None, now + Duration::from_micros(20));
    requests.answered(taken(Face::Binary, Task::Put), Some(Code::Timeout), now + Duration::from_secs(5));
    requests.refused(Face::Rest, Task::Put, Code::TooLarge);
    let mut sum = requests.clone();
    sum.add(&requests);
    let seen = |face, task| {
        let mut kinds = sum.kinds().filter(|(found, asked, _)| (*found, *asked) == (face, task));
        let (_, _, results) = kinds.next().expect("every kind is there");
        (results.counts().collect::<Vec<_>>(), results.times.shape().sum)
    };
    assert_eq!(seen(Face::Binary, Task::Put), (vec![("ok", 2), ("timeout", 2)], 2 * 5_000_020));
    assert_eq!(seen(Face::Rest, Task::Put), (vec![("ok", 0), ("too_large", 2)], 0));
    assert_eq!(seen(Face::Rest, Task::Get), (vec![("ok", 0)], 0));
}

#[test]
fn every_code_is_counted() {
    for code in Code::all() {
        let mut requests = Requests::default();
        requests.refused(Face::Rest, Task::Other, code);
        let mut kinds = requests.kinds().filter(|(face, task, _)| (*face, *task) == (Face::Rest, Task::Other));
        let (_, _, results) = kinds.next().expect("every kind is there");
        assert_eq!(results.counts().collect::<Vec<_>>(), [("ok", 0), (code.name(), 1)]);
    }
}
