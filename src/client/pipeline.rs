//! Many requests in flight from one thread.

use std::marker::PhantomData;
use std::time::Duration;

use raftkv_protocol::client::{Condition, Consistency, SlotTable, Status};

use super::{Client, Page, Result, ScanOptions, Target, Value, Version, WhenFull};

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
#[derive(Debug)]
#[must_use = "the outcome of the request is lost with it"]
pub struct Pending<T> {
    marker: PhantomData<T>,
}

impl<T> Pending<T> {
    /// Waits for the outcome, which comes by the request's deadline at the latest.
    ///
    /// # Errors
    /// Whatever became of the request.
    pub fn wait(self) -> Result<T> {
        unimplemented!()
    }

    /// The outcome if it is there; otherwise the pending reply back.
    ///
    /// # Errors
    /// The outer error is the pending reply itself; the inner result is the request's.
    pub fn try_wait(self) -> std::result::Result<Result<T>, Pending<T>> {
        unimplemented!()
    }

    /// Whether [`wait`](Pending::wait) would return at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        unimplemented!()
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
        let _ = (key, value, condition);
        unimplemented!()
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
        let _ = (key, condition);
        unimplemented!()
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
        let _ = (key, consistency);
        unimplemented!()
    }

    /// See [`Client::scan`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn scan(&self, options: ScanOptions) -> Result<Pending<Page>> {
        let _ = options;
        unimplemented!()
    }

    /// See [`Client::slots`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn slots(&self) -> Result<Pending<SlotTable>> {
        unimplemented!()
    }

    /// See [`Client::status`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn status(&self, target: impl Into<Target>) -> Result<Pending<Status>> {
        let _ = target.into();
        unimplemented!()
    }

    /// See [`Client::ping`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn ping(&self, target: impl Into<Target>) -> Result<Pending<()>> {
        let _ = target.into();
        unimplemented!()
    }

    pub(super) fn new(client: Client, timeout: Duration) -> Pipeline {
        Pipeline { client, timeout, when_full: WhenFull::default() }
    }
}
