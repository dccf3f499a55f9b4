//! Many requests in flight from one thread.

use std::fmt;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Condition, Consistency, SlotTable, Status};

use super::oneshot::{Receiver, oneshot};
use super::request::{Job, Operation, Origin, Outcome};
use super::{Client, Error, ErrorKind, Page, Result, ScanOptions, Target, Value, Version, WhenFull};

/// Sends requests without waiting for their replies: each call hands over a request and returns a [`Pending`].
///
/// Requests in flight have **no order among themselves**, not even those for one key: who needs an order waits for the
/// first before sending the second. Cheap to clone; every thread may have its own.
///
/// ```no_run
/// # fn main() -> raftkv::client::Result<()> {
/// use raftkv::client::Client;
///
/// let client = Client::connect("127.0.0.1:7001")?;
/// let pipeline = client.pipeline();
/// let pending: Vec<_> = (0..100).map(|n| pipeline.put(format!("key/{n}"), "value")).collect::<Result<_, _>>()?;
/// for put in pending {
///     put.wait()?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Pipeline {
    client: Client,
    timeout: Duration,
    when_full: WhenFull,
}

/// A reply that has yet to come. Dropping it abandons the reply, not the request.
#[must_use = "the outcome of the request is lost with it"]
pub struct Pending<T> {
    receiver: Receiver<Outcome>,
    /// Picks what the caller wants; `None` for an outcome of another operation.
    pick: fn(Outcome) -> Option<T>,
}

impl<T> Pending<T> {
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

impl Pipeline {
    /// Another deadline for the requests of this handle, from the moment each is made.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Pipeline {
        self.timeout = timeout;
        self
    }

    /// What to do when the client has no room for a request; [`WhenFull::Block`] unless set.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Pipeline {
        self.when_full = when_full;
        self
    }

    /// See [`Client::put`].
    ///
    /// # Errors
    /// Only what keeps the request from being handed over: `too_large`, `queue_full`, `timeout` (while waiting for
    /// room) or `closed`. Nothing was sent then. This holds for every method here.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Pending<Version>> {
        self.put_if(key, value, Condition::None)
    }

    /// See [`Client::put_if`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        condition: Condition,
    ) -> Result<Pending<Version>> {
        let operation = Operation::Put { key: own(key), value: own(value), condition };
        self.submit(operation, |outcome| match outcome {
            Outcome::Put(version) => Some(version),
            _ => None,
        })
    }

    /// See [`Client::delete`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Pending<bool>> {
        self.delete_if(key, Condition::None)
    }

    /// See [`Client::delete_if`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<Pending<bool>> {
        self.submit(Operation::Delete { key: own(key), condition }, |outcome| match outcome {
            Outcome::Deleted(existed) => Some(existed),
            _ => None,
        })
    }

    /// See [`Client::get`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Pending<Option<Value>>> {
        self.get_with(key, Consistency::Linearizable)
    }

    /// See [`Client::get_with`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn get_with(&self, key: impl AsRef<[u8]>, consistency: Consistency) -> Result<Pending<Option<Value>>> {
        self.submit(Operation::Get { key: own(key), consistency }, |outcome| match outcome {
            Outcome::Value(value) => Some(value),
            _ => None,
        })
    }

    /// See [`Client::scan`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn scan(&self, options: ScanOptions) -> Result<Pending<Page>> {
        self.submit(Operation::Scan(options), |outcome| match outcome {
            Outcome::Page(page) => Some(page),
            _ => None,
        })
    }

    /// See [`Client::slots`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn slots(&self) -> Result<Pending<SlotTable>> {
        self.submit(Operation::Slots, |outcome| match outcome {
            Outcome::Slots(table) => Some(table),
            _ => None,
        })
    }

    /// See [`Client::status`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn status(&self, target: impl Into<Target>) -> Result<Pending<Status>> {
        self.submit(Operation::Status(target.into()), |outcome| match outcome {
            Outcome::Status(status) => Some(*status),
            _ => None,
        })
    }

    /// See [`Client::ping`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn ping(&self, target: impl Into<Target>) -> Result<Pending<()>> {
        self.submit(Operation::Ping(target.into()), |outcome| match outcome {
            Outcome::Pong => Some(()),
            _ => None,
        })
    }

    fn submit<T>(&self, operation: Operation, pick: fn(Outcome) -> Option<T>) -> Result<Pending<T>> {
        operation.check_size()?;
        let (completer, receiver) = oneshot(if operation.is_write() { lost_with_a_write } else { lost_with_a_read });
        let job = Job::new(operation, Origin::Caller(completer), Instant::now() + self.timeout);
        self.client.shared.hand_over(job, self.when_full)?;
        Ok(Pending { receiver, pick })
    }

    pub(super) fn new(client: Client, timeout: Duration) -> Pipeline {
        Pipeline { client, timeout, when_full: WhenFull::default() }
    }
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
