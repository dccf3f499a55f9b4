use std::io::ErrorKind;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use super::{Capacity, Wake, inbox, wake_through};

fn poll_and_wake() -> (Poll, Wake) {
    let poll = Poll::new().expect("poll");
    let waker = Waker::new(poll.registry(), Token(0)).expect("waker");
    (poll, wake_through(waker))
}

fn messages<T>(messages: usize) -> Capacity<T> {
    Capacity { messages, bytes: 0, bytes_of: |_| 0 }
}

#[test]
fn an_inbox_takes_so_many_bytes_and_whatever_weighs_nothing() {
    let (_poll, wake) = poll_and_wake();
    let capacity = Capacity { messages: 5, bytes: 10, bytes_of: |message: &usize| *message };
    let (sender, inbox) = inbox(capacity, wake);
    let other = sender.clone();
    assert_eq!(sender.send(4), Ok(()));
    assert_eq!(other.send(5), Ok(()), "9 of 10");
    assert_eq!(sender.send(2), Err(2), "11");
    assert_eq!(sender.send(1), Ok(()), "10 of 10");
    assert_eq!(other.send(1), Err(1), "full");
    assert_eq!([sender.send(0), sender.send(0)], [Ok(()), Ok(())]);
    sender.answer(100);
    assert_eq!(sender.send(0), Err(0), "full of messages");
    let mut got = Vec::new();
    inbox.drain(|message| got.push(message));
    assert_eq!(got, [100, 4, 5, 1, 0, 0]);
    assert_eq!(sender.send(10), Ok(()), "what was taken out makes room");
    assert_eq!(sender.send(1), Err(1));
}

#[test]
fn a_full_inbox_gives_the_message_back_but_takes_answers() {
    let (_poll, wake) = poll_and_wake();
    let (sender, inbox) = inbox(messages(2), wake);
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(sender.send(2), Ok(()));
    assert_eq!(sender.send(3), Err(3));
    sender.answer(4);
    let mut got = Vec::new();
    inbox.drain(|message| got.push(message));
    assert_eq!(got, [4, 1, 2]);
    assert!(inbox.is_empty());
    assert_eq!(sender.send(5), Ok(()));
}

/// Every message is seen although the receiver only looks when it was woken: no wake-up is lost.
#[test]
fn no_wake_up_is_lost() {
    const MESSAGES: u64 = 20_000;
    let (mut poll, wake) = poll_and_wake();
    let (sender, inbox) = inbox(messages(64), wake);
    let producers: Vec<_> = (0..2)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for n in 0..MESSAGES {
                    let mut message = n;
                    while let Err(back) = sender.send(message) {
                        message = back;
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut events = Events::with_capacity(8);
    let mut seen = 0;
    while seen < 2 * MESSAGES {
        match poll.poll(&mut events, Some(Duration::from_secs(10))) {
            // The process was stopped, and goes on.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.expect("poll"),
        }
        assert!(!events.is_empty(), "woken after {seen} messages no more");
        inbox.drain(|_| seen += 1);
    }
    for producer in producers {
        producer.join().expect("producer");
    }
}
