use std::time::{Duration, Instant};

use super::{Clock, TimeoutQueue};

#[test]
fn a_clock_by_hand_shows_what_it_was_set_to() {
    let start = Instant::now();
    let later = start + Duration::from_secs(3_600);
    let mut clock = Clock::by_hand(start);
    assert_eq!(clock.refresh(), start);
    clock.set(later);
    assert_eq!((clock.refresh(), clock.now()), (later, later));
}

#[test]
fn a_clock_by_hand_may_go_on_in_the_middle_of_a_turn() {
    let start = Instant::now();
    let later = start + Duration::from_secs(1);
    let mut clock = Clock::by_hand(start);
    clock.set_readings(&[start, later]);
    assert_eq!([clock.refresh(), clock.refresh(), clock.refresh()], [start, later, later]);
}

#[test]
fn keys_expire_in_order_and_not_early() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut queue = TimeoutQueue::new(Duration::from_millis(10));
    assert_eq!(queue.deadline(), None);
    queue.push(at(0), 'a');
    queue.push(at(5), 'b');
    assert_eq!(queue.deadline(), Some(at(10)));
    assert_eq!(queue.pop_expired(at(9)), None);
    assert_eq!(queue.pop_expired(at(10)), Some('a'));
    assert_eq!(queue.pop_expired(at(14)), None);
    assert_eq!(queue.pop_expired(at(15)), Some('b'));
    assert_eq!(queue.pop_expired(at(99)), None);
}
