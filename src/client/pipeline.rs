//! Many requests in flight from one thread.

use std::time::{Duration, Instant};

use raftkv_protocol::client::{Condition, Consistency, ShardSnapshot, SlotTable, Status};

use super::call::{self, Call, Pending};
use super::{Batch, Batched, Client, Page, Result, ScanOptions, Target, Value, Version, WhenFull};

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
        self.submit(call::put(key, value, condition))
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
        self.submit(call::delete(key, condition))
    }

    /// See [`Client::batch`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn batch(&self, batch: Batch) -> Result<Pending<Batched>> {
        self.submit(call::batch(batch))
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
        self.submit(call::get(key, consistency))
    }

    /// See [`Client::scan`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn scan(&self, options: ScanOptions) -> Result<Pending<Page>> {
        self.submit(call::scan(options))
    }

    /// See [`Client::slots`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn slots(&self) -> Result<Pending<SlotTable>> {
        self.submit(call::slots())
    }

    /// See [`Client::status`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn status(&self, target: impl Into<Target>) -> Result<Pending<Status>> {
        self.submit(call::status(target))
    }

    /// See [`Client::ping`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn ping(&self, target: impl Into<Target>) -> Result<Pending<()>> {
        self.submit(call::ping(target))
    }

    /// See [`Client::snapshot`].
    ///
    /// # Errors
    /// See [`Pipeline::put`].
    pub fn snapshot(&self, target: impl Into<Target>) -> Result<Pending<Vec<ShardSnapshot>>> {
        self.submit(call::snapshot(target, self.timeout))
    }

    fn submit<T>(&self, call: Call<T>) -> Result<Pending<T>> {
        let (job, pending) = call.start(Instant::now() + self.timeout)?;
        self.client.shared.hand_over(job, self.when_full)?;
        Ok(pending)
    }

    pub(super) fn new(client: Client, timeout: Duration) -> Pipeline {
        Pipeline { client, timeout, when_full: WhenFull::default() }
    }
}
