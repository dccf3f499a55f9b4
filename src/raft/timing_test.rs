//! How long the random waits are.

use std::time::{Duration, Instant};

use super::cluster::T;
use super::timing::ElectionTimer;

/// What is left of the wait that each of many timers begins with.
fn waits(begin: impl Fn(&mut ElectionTimer)) -> Vec<Duration> {
    let now = Instant::now();
    let wait = |seed| {
        let mut timer = ElectionTimer::new(T, seed, now);
        begin(&mut timer);
        timer.settle(now);
        timer.deadline() - now
    };
    let mut waits: Vec<Duration> = (0..1_000).map(wait).collect();
    waits.sort();
    waits
}

/// All within the bounds, the end excluded, and spread over all that lies between.
#[track_caller]
fn assert_drawn_from(waits: &[Duration], from: Duration, to: Duration) {
    let (first, last) = (waits[0], waits[waits.len() - 1]);
    assert!(from <= first && last < to, "{first:?} to {last:?} should be in {from:?} to {to:?}");
    let margin = (to - from) / 50;
    assert!(first < from + margin && last + margin > to, "{first:?} to {last:?} do not fill {from:?} to {to:?}");
}

// rule 7
#[test]
fn waits_are_drawn_from_t_to_one_and_a_half_t() {
    assert_drawn_from(&waits(|_| {}), T, T * 3 / 2);
    assert_drawn_from(&waits(ElectionTimer::restart), T, T * 3 / 2);
    assert_drawn_from(&waits(ElectionTimer::heard), T, T * 3 / 2);
    assert_drawn_from(&waits(ElectionTimer::go_first), T / 4, T / 2);
}

#[test]
fn who_should_be_late_waits_until_the_others_have_had_their_time() {
    let late = |begin: fn(&mut ElectionTimer)| {
        waits(|timer: &mut ElectionTimer| {
            timer.set_late(true);
            begin(timer);
        })
    };
    assert_drawn_from(&late(ElectionTimer::restart), T * 3 / 2, T * 2);
    assert_drawn_from(&late(ElectionTimer::heard), T * 3 / 2, T * 2);
    // Five quick attempts of the others are over by then.
    assert_drawn_from(&late(ElectionTimer::hint), T / 4, T / 2);
    let yielding = |timer: &mut ElectionTimer| {
        timer.hint();
        timer.yield_to_other();
    };
    assert_drawn_from(&late(yielding), T / 4, T / 2);
    assert_drawn_from(
        &waits(|timer| {
            timer.set_late(true);
            timer.set_late(false);
            timer.restart();
        }),
        T,
        T * 3 / 2,
    );
}

// rule 5
#[test]
fn haste_is_milliseconds() {
    let millis = Duration::from_millis;
    assert_drawn_from(&waits(ElectionTimer::hint), Duration::ZERO, millis(20));
    let refused = |timer: &mut ElectionTimer| {
        timer.hint();
        timer.attempt();
        timer.refused();
    };
    assert_drawn_from(&waits(refused), millis(15), millis(30));
}
