use std::thread;

use super::oneshot::oneshot;
use super::{Error, ErrorKind};

fn abandoned() -> Error {
    Error::new(ErrorKind::Closed, "abandoned")
}

#[test]
fn an_outcome_reaches_a_waiter_that_came_before_or_after_it() {
    let (completer, receiver) = oneshot(abandoned);
    completer.complete(Ok(1));
    assert!(receiver.is_ready());
    assert_eq!(receiver.wait().unwrap(), 1);

    let (completer, receiver) = oneshot(abandoned);
    let waiter = thread::spawn(|| receiver.wait());
    completer.complete(Ok(2));
    assert_eq!(waiter.join().unwrap().unwrap(), 2);
}

#[test]
fn an_abandoned_waiter_is_told() {
    let (completer, receiver) = oneshot::<()>(abandoned);
    let receiver = receiver.try_wait().expect_err("nothing came");
    drop(completer);
    assert_eq!(receiver.wait().unwrap_err(), abandoned());
}
