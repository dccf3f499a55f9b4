use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use hyper::rt::Timer as _;

use super::LoopTimer;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(sleep: Pin<&mut (impl Future<Output = ()> + ?Sized)>, count: &Arc<Count>) -> Poll<()> {
    sleep.poll(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
}

#[test]
fn a_sleep_ends_at_its_time_and_wakes_once() {
    let now = Instant::now();
    let (timer, count) = (LoopTimer::new(now), Arc::<Count>::default());
    let mut sleep = pin!(timer.after(SECOND));
    assert_eq!(poll(sleep.as_mut(), &count), Poll::Pending);
    assert_eq!(timer.deadline(), Some(now + SECOND));
    timer.advance(now + SECOND - Duration::from_millis(1));
    assert_eq!((poll(sleep.as_mut(), &count), count.0.load(Ordering::Relaxed)), (Poll::Pending, 0));
    timer.advance(now + SECOND);
    assert_eq!((poll(sleep.as_mut(), &count), count.0.load(Ordering::Relaxed)), (Poll::Ready(()), 1));
    assert_eq!(timer.deadline(), None);
}

#[test]
fn sleeps_of_the_same_time_do_not_replace_each_other_and_those_dropped_are_forgotten() {
    let now = Instant::now();
    let (timer, count) = (LoopTimer::new(now), Arc::<Count>::default());
    let (mut one, mut other) = (pin!(timer.after(SECOND)), Box::pin(timer.after(SECOND)));
    assert_eq!((poll(one.as_mut(), &count), poll(other.as_mut(), &count)), (Poll::Pending, Poll::Pending));
    drop(other);
    timer.advance(now + SECOND);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_sleep_can_be_set_anew() {
    let now = Instant::now();
    let (timer, count) = (LoopTimer::new(now), Arc::<Count>::default());
    let mut sleep = pin!(timer.after(SECOND));
    assert_eq!(poll(sleep.as_mut(), &count), Poll::Pending);
    sleep.reset(now + 3 * SECOND);
    assert_eq!(poll(sleep.as_mut(), &count), Poll::Pending);
    timer.advance(now + 2 * SECOND);
    assert_eq!((poll(sleep.as_mut(), &count), count.0.load(Ordering::Relaxed)), (Poll::Pending, 0));
    timer.advance(now + 3 * SECOND);
    assert_eq!(poll(sleep.as_mut(), &count), Poll::Ready(()));
}

#[test]
fn hyper_sees_the_time_of_the_loop() {
    let now = Instant::now();
    let timer = LoopTimer::new(now);
    timer.advance(now + SECOND);
    assert_eq!(timer.now(), now + SECOND);
    let mut over = timer.sleep_until(now);
    assert_eq!(poll(over.as_mut(), &Arc::default()), Poll::Ready(()));
    let mut sleep = timer.sleep(SECOND);
    assert_eq!(poll(sleep.as_mut(), &Arc::default()), Poll::Pending);
}
