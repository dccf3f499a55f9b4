//! One outcome, handed from the I/O thread to whoever waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Error, Result};

/// The giving half. Dropped without an outcome it reports what was agreed for that case, so that nobody waits for ever.
#[derive(Debug)]
pub(super) struct Completer<T> {
    cell: Option<Arc<Cell<T>>>,
    abandoned: fn() -> Error,
}

/// The waiting half.
#[derive(Debug)]
pub(super) struct Receiver<T> {
    cell: Arc<Cell<T>>,
}

#[derive(Debug)]
struct Cell<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
enum State<T> {
    Empty,
    /// Somebody sleeps on the condition variable: without, notifying it would be a system call for nothing.
    Awaited,
    Done(Result<T>),
    Taken,
}

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is replaced as a whole, so that even a panic while it was locked leaves it valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn oneshot<T>(abandoned: fn() -> Error) -> (Completer<T>, Receiver<T>) {
    let cell = Arc::new(Cell { state: Mutex::new(State::Empty), changed: Condvar::new() });
    (Completer { cell: Some(Arc::clone(&cell)), abandoned }, Receiver { cell })
}

impl<T> Completer<T> {
    pub(super) fn complete(mut self, outcome: Result<T>) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Result<T>) {
        let Some(cell) = self.cell.take() else { return };
        let before = std::mem::replace(&mut *cell.lock(), State::Done(outcome));
        if matches!(before, State::Awaited) {
            cell.changed.notify_one();
        }
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        if self.cell.is_some() {
            self.settle(Err((self.abandoned)()));
        }
    }
}

impl<T> Receiver<T> {
    pub(super) fn wait(self) -> Result<T> {
        let mut state = self.cell.lock();
        loop {
            match std::mem::replace(&mut *state, State::Awaited) {
                State::Done(outcome) => {
                    *state = State::Taken;
                    return outcome;
                }
                _ => state = self.cell.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub(super) fn try_wait(self) -> std::result::Result<Result<T>, Receiver<T>> {
        if self.is_ready() { Ok(self.wait()) } else { Err(self) }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(*self.cell.lock(), State::Done(_))
    }
}
