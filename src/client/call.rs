//! What callers ask for, and what they get for it: each operation with the type of its result.

use std::fmt;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Condition, Consistency, ShardSnapshot, SlotTable, Status};

use super::oneshot::{Receiver, oneshot};
use super::request::{Job, Operation, Origin, Outcome};
use super::{Batch, Batched, Error, ErrorKind, Page, Result, ScanOptions, Target, Value, Version};

/// An operation whose outcome holds a `T`.
#[derive(Debug)]
pub(super) struct Call<T> {
    operation: Operation,
    /// Picks what the caller wants; `None` for an outcome of another operation.
    pick: fn(Outcome) -> Option<T>,
}

/// A reply that has yet to come. Dropping it abandons the reply, not the request.
#[must_use = "the outcome of the request is lost with it"]
pub struct Pending<T> {
    receiver: Receiver<Outcome>,
    pick: fn(Outcome) -> Option<T>,
}

impl<T> Call<T> {
    /// The request to hand over, and where its outcome will be.
    ///
    /// # Errors
    /// If no frame can carry it.
    pub(super) fn start(self, deadline: Instant) -> Result<(Job, Pending<T>)> {
        let Call { operation, pick } = self;
        operation.check_size()?;
        let (completer, receiver) = oneshot(if operation.is_write() { lost_with_a_write } else { lost_with_a_read });
        let job = Job::new(operation, Origin::Caller(completer), deadline);
        Ok((job, Pending { receiver, pick }))
    }
}

pub(super) fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, condition: Condition) -> Call<Version> {
    let operation = Operation::Put { key: own(key), value: own(value), condition };
    let pick = |outcome| match outcome {
        Outcome::Put(version) => Some(version),
        _ => None,
    };
    Call { operation, pick }
}

pub(super) fn delete(key: impl AsRef<[u8]>, condition: Condition) -> Call<bool> {
    let pick = |outcome| match outcome {
        Outcome::Deleted(existed) => Some(existed),
        _ => None,
    };
    Call { operation: Operation::Delete { key: own(key), condition }, pick }
}

pub(super) fn batch(batch: Batch) -> Call<Batched> {
    let pick = |outcome| match outcome {
        Outcome::Batched(batched) => Some(batched),
        _ => None,
    };
    Call { operation: Operation::Batch(batch), pick }
}

pub(super) fn get(key: impl AsRef<[u8]>, consistency: Consistency) -> Call<Option<Value>> {
    let pick = |outcome| match outcome {
        Outcome::Value(value) => Some(value),
        _ => None,
    };
    Call { operation: Operation::Get { key: own(key), consistency }, pick }
}

pub(super) fn scan(options: ScanOptions) -> Call<Page> {
    let pick = |outcome| match outcome {
        Outcome::Page(page) => Some(page),
        _ => None,
    };
    Call { operation: Operation::Scan(options), pick }
}

pub(super) fn slots() -> Call<SlotTable> {
    let pick = |outcome| match outcome {
        Outcome::Slots(table) => Some(table),
        _ => None,
    };
    Call { operation: Operation::Slots, pick }
}

pub(super) fn status(target: impl Into<Target>) -> Call<Status> {
    let pick = |outcome| match outcome {
        Outcome::Status(status) => Some(*status),
        _ => None,
    };
    Call { operation: Operation::Status(target.into()), pick }
}

pub(super) fn ping(target: impl Into<Target>) -> Call<()> {
    let pick = |outcome| match outcome {
        Outcome::Pong => Some(()),
        _ => None,
    };
    Call { operation: Operation::Ping(target.into()), pick }
}

pub(super) fn snapshot(target: impl Into<Target>, wait: Duration) -> Call<Vec<ShardSnapshot>> {
    let pick = |outcome| match outcome {
        Outcome::Snapshots(snapshots) => Some(snapshots),
        _ => None,
    };
    let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
    Call { operation: Operation::Snapshot { target: target.into(), wait_ms }, pick }
}

fn own(bytes: impl AsRef<[u8]>) -> Box<[u8]> {
    bytes.as_ref().into()
}

fn lost_with_a_read() -> Error {
    Error::new(ErrorKind::Closed, "the client's I/O thread ended")
}

fn lost_with_a_write() -> Error {
    lost_with_a_read().unknown_outcome()
}

impl<T> Pending<T> {
    /// What has failed before it could be handed over.
    pub(super) fn failed(error: Error) -> Pending<T> {
        let (completer, receiver) = oneshot(lost_with_a_read);
        completer.complete(Err(error));
        Pending { receiver, pick: |_| None }
    }

    /// Waits for the outcome, which comes by the request's deadline at the latest.
    ///
    /// # Errors
    /// Whatever became of the request.
    pub fn wait(self) -> Result<T> {
        pick(self.receiver.wait(), self.pick)
    }

    /// The outcome if it is there; otherwise the pending reply back.
    ///
    /// # Errors
    /// The outer error is the pending reply itself; the inner result is the request's.
    pub fn try_wait(self) -> std::result::Result<Result<T>, Pending<T>> {
        match self.receiver.try_wait() {
            Ok(outcome) => Ok(pick(outcome, self.pick)),
            Err(receiver) => Err(Pending { receiver, pick: self.pick }),
        }
    }

    /// Whether [`wait`](Pending::wait) would return at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.receiver.is_ready()
    }
}

fn pick<T>(outcome: Result<Outcome>, pick: fn(Outcome) -> Option<T>) -> Result<T> {
    let mismatch = || Error::new(ErrorKind::Protocol, "the outcome belongs to another operation").unknown_outcome();
    pick(outcome?).ok_or_else(mismatch)
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_ready", &self.is_ready()).finish_non_exhaustive()
    }
}
