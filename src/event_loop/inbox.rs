//! How cores talk to each other: a bounded channel and a way to wake the receiver.
//!
//! A sleeping core is woken through an eventfd, which costs microseconds, so only the first message after the core
//! last looked pays for it. Messages that answer something, and so are bounded by what was asked, must not be refused
//! and go through [`InboxSender::answer`]; all others can meet a full inbox.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::Waker;

/// Makes a core's loop turn soon.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Wakes the loop that sleeps in the poll that `waker` belongs to.
#[must_use]
pub fn wake_through(waker: Waker) -> Wake {
    Arc::new(move || {
        if let Err(error) = waker.wake() {
            log::error!("cannot wake an event loop: {error}");
        }
    })
}

/// How much may wait in an inbox, answers apart.
#[derive(Debug)]
pub struct Capacity<T> {
    /// Messages.
    pub messages: usize,
    /// Bytes of those messages that weigh something.
    pub bytes: usize,
    /// What a message weighs.
    pub bytes_of: fn(&T) -> usize,
}

/// The receiving end, owned by one core.
#[derive(Debug)]
pub struct Inbox<T> {
    messages: Receiver<T>,
    answers: Receiver<T>,
    /// Of the messages that wait.
    bytes: Arc<AtomicUsize>,
    bytes_of: fn(&T) -> usize,
    /// Set by whoever wakes the core, cleared by the core before it looks: at most one wake-up per look.
    woken: Arc<AtomicBool>,
}

/// The sending end, one per sending core.
pub struct InboxSender<T> {
    messages: Sender<T>,
    answers: Sender<T>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    bytes_of: fn(&T) -> usize,
    woken: Arc<AtomicBool>,
    wake: Wake,
}

impl<T> fmt::Debug for InboxSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboxSender").field("woken", &self.woken).finish_non_exhaustive()
    }
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        InboxSender {
            messages: self.messages.clone(),
            answers: self.answers.clone(),
            bytes: Arc::clone(&self.bytes),
            bytes_max: self.bytes_max,
            bytes_of: self.bytes_of,
            woken: Arc::clone(&self.woken),
            wake: Arc::clone(&self.wake),
        }
    }
}

/// An inbox of a core that turns when it is woken with `wake`.
#[must_use]
pub fn inbox<T>(capacity: Capacity<T>, wake: Wake) -> (InboxSender<T>, Inbox<T>) {
    let Capacity { messages, bytes: bytes_max, bytes_of } = capacity;
    let (messages_in, messages) = crossbeam_channel::bounded(messages);
    let (answers_in, answers) = crossbeam_channel::unbounded();
    let (woken, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let sender = InboxSender {
        messages: messages_in,
        answers: answers_in,
        bytes: Arc::clone(&bytes),
        bytes_max,
        bytes_of,
        woken: Arc::clone(&woken),
        wake,
    };
    (sender, Inbox { messages, answers, bytes, bytes_of, woken })
}

impl<T> InboxSender<T> {
    /// Sends a message, or gives it back if the inbox is full or its core has ended.
    pub fn send(&self, message: T) -> Result<(), T> {
        let bytes = (self.bytes_of)(&message);
        // Taken first and given back, so that two senders cannot both have the last of it.
        if bytes > 0 && self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(message);
        }
        match self.messages.try_send(message) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(message)
            }
        }
    }

    /// Sends the answer to something that this core asked for; it never meets a full inbox.
    pub fn answer(&self, message: T) {
        if self.answers.send(message).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }
}

impl<T> Inbox<T> {
    /// Hands every waiting message to `each`. What arrives later wakes the core again.
    pub fn drain(&self, mut each: impl FnMut(T)) {
        // A swap, not a store: it acquires what was sent by whoever set the flag before. Whoever sets it later wakes us.
        self.woken.swap(false, Ordering::AcqRel);
        while let Ok(answer) = self.answers.try_recv() {
            each(answer);
        }
        // Bounded, so that a busy neighbour cannot hold this core for ever; the rest is left for the next turn.
        for _ in 0..self.messages.len() {
            match self.messages.try_recv() {
                Ok(message) => {
                    self.bytes.fetch_sub((self.bytes_of)(&message), Ordering::Relaxed);
                    each(message);
                }
                Err(_) => break,
            }
        }
    }

    /// Whether something waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.answers.is_empty()
    }
}
