use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use futures_channel::oneshot;
use hyper::rt::Executor as _;

use super::{Tasks, Wake};

fn tasks() -> (Tasks, Arc<AtomicUsize>) {
    let wakes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&wakes);
    let wake: Wake = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    (Tasks::new(wake), wakes)
}

#[test]
fn a_task_runs_when_it_is_new_and_when_it_is_woken() {
    let (mut tasks, _) = tasks();
    let (sender, receiver) = oneshot::channel();
    let got = Rc::new(Cell::new(None));
    let seen = Rc::clone(&got);
    tasks.spawn(async move { seen.set(receiver.await.ok()) });
    tasks.run_ready();
    assert_eq!((got.get(), tasks.len(), tasks.may_sleep()), (None, 1, true));
    sender.send(7).expect("it waits");
    assert!(!tasks.may_sleep(), "it is to be polled");
    tasks.run_ready();
    assert_eq!((got.get(), tasks.is_empty()), (Some(7), true));
}

#[test]
fn a_task_that_wakes_itself_lets_the_loop_go_on() {
    let (mut tasks, _) = tasks();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    tasks.spawn(poll_fn(move |context| {
        counted.set(counted.get() + 1);
        context.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    for turn in 1..=3 {
        assert!(tasks.run_ready(), "there is another batch");
        assert_eq!(polls.get(), turn, "once in each");
        assert!(!tasks.may_sleep(), "and it is to be polled again");
    }
}

#[test]
fn what_wakes_a_task_twice_polls_it_once() {
    let (mut tasks, _) = tasks();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    let id = tasks.spawn(poll_fn(move |_| {
        counted.set(counted.get() + 1);
        Poll::<()>::Pending
    }));
    tasks.wake(id);
    tasks.wake(id);
    assert!(!tasks.run_ready(), "nothing is left to be polled");
    assert_eq!(polls.get(), 1);
    tasks.run_ready();
    assert_eq!(polls.get(), 1);
}

#[test]
fn a_waker_of_a_task_that_has_ended_does_no_harm_to_the_next_in_its_place() {
    let (mut tasks, _) = tasks();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let keep = Rc::clone(&kept);
    tasks.spawn(poll_fn(move |context| {
        *keep.borrow_mut() = Some(context.waker().clone());
        Poll::Ready(())
    }));
    tasks.run_ready();
    let (sender, receiver) = oneshot::channel::<()>();
    tasks.spawn(async move { receiver.await.unwrap_or_default() });
    tasks.run_ready();
    kept.borrow().as_ref().expect("a waker").wake_by_ref();
    tasks.run_ready();
    assert_eq!(tasks.len(), 1, "it still waits");
    sender.send(()).expect("it waits");
    tasks.run_ready();
    assert!(tasks.is_empty());
}

#[test]
fn a_loop_that_is_up_is_not_woken_and_one_that_sleeps_is_woken_once() {
    let (mut tasks, wakes) = tasks();
    let never = poll_fn(|_| Poll::<()>::Pending);
    let (one, other) = (tasks.spawn(never), tasks.spawn(poll_fn(|_| Poll::<()>::Pending)));
    tasks.run_ready();
    assert_eq!(wakes.load(Ordering::Relaxed), 0, "it is up");
    assert!(tasks.may_sleep());
    tasks.wake(one);
    tasks.wake(other);
    assert_eq!(wakes.load(Ordering::Relaxed), 1, "one call for both");
    tasks.wake_up();
    tasks.run_ready();
    tasks.wake(one);
    assert_eq!(wakes.load(Ordering::Relaxed), 1, "it is up again");
}

#[test]
fn no_wake_from_another_thread_is_lost() {
    let (mut tasks, wakes) = tasks();
    let mut done = 0;
    for _ in 0..2_000 {
        let (sender, receiver) = oneshot::channel::<()>();
        tasks.spawn(async move { receiver.await.unwrap_or_default() });
        tasks.run_ready();
        let before = wakes.load(Ordering::Acquire);
        let thread = std::thread::spawn(move || sender.send(()).expect("it waits"));
        // Either it is seen before the loop sleeps, or the loop is woken.
        if tasks.may_sleep() {
            while wakes.load(Ordering::Acquire) == before {
                std::thread::yield_now();
            }
        }
        tasks.wake_up();
        thread.join().expect("it ends");
        tasks.run_ready();
        assert!(tasks.is_empty());
        done += 1;
    }
    assert_eq!(done, 2_000);
}

#[test]
fn tasks_bring_in_others() {
    let (mut tasks, _) = tasks();
    let spawner = tasks.spawner();
    let done = Rc::new(Cell::new(false));
    let seen = Rc::clone(&done);
    tasks.spawn(async move { spawner.execute(async move { seen.set(true) }) });
    tasks.run_ready();
    assert!(!tasks.may_sleep(), "the newcomer is to be polled");
    tasks.run_ready();
    assert!(done.get() && tasks.is_empty());
}
