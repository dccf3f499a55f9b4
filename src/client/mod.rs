//! The client library: blocking calls and pipelined ones on a cluster of RaftKV nodes.
//!
//! A [`Client`] owns one background thread with a connection to each node. It learns which node leads which slots and
//! sends every request straight to the right one; it follows leaders as they move, reconnects, retries what is safe to
//! retry, and gives every call a deadline.
//!
//! ```no_run
//! use std::time::Duration;
//! use raftkv::client::{Batch, Client, Condition, ErrorKind, ScanOptions};
//!
//! # fn main() -> raftkv::client::Result<()> {
//! let client = Client::builder()
//!     .endpoints(["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"])
//!     .timeout(Duration::from_secs(2))
//!     .connect()?;
//!
//! let version = client.put("greeting", "hello")?;
//! let value = client.get("greeting")?.expect("just written");
//! assert_eq!(value.bytes, b"hello");
//!
//! // Compare and set: only if nobody wrote the key since.
//! match client.put_if("greeting", "good morning", Condition::Version(version)) {
//!     Ok(version) => println!("version {version}"),
//!     Err(error) if error.kind() == ErrorKind::PreconditionFailed => println!("somebody was faster"),
//!     Err(error) => return Err(error),
//! }
//!
//! // Several keys at once, or none of them; the tag keeps them in one shard.
//! client.batch(Batch::new().put("{cart:7}:items", "3").delete("{cart:7}:coupon"))?;
//!
//! for page in client.scan_all(ScanOptions::prefix("greet")) {
//!     for item in page?.items {
//!         println!("{} @{}", String::from_utf8_lossy(&item.key), item.version);
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # What is retried, and what is not
//!
//! A refusal such as `not_leader` or `overloaded` means that the request was never proposed: it is sent again, to the
//! right node or after a pause, until the deadline. A read is also sent again, to another node, when its connection
//! breaks. **A write that may have reached a node and was not answered is never sent twice**: it fails with an error
//! whose [`maybe_applied`](Error::maybe_applied) is true, and only the caller knows whether writing again does harm.
//!
//! Programs with an event loop of their own, and simulations, move the client themselves: see [`by_hand`].
//!
//! The module knows the protocol and the network, nothing of the server.

mod backoff;
mod batch;
mod buffer;
mod builder;
pub mod by_hand;
mod call;
pub mod connection;
mod driver;
mod error;
mod io_thread;
mod lane;
mod mio_network;
mod oneshot;
mod pipeline;
mod request;
pub mod slots;
mod values;

#[cfg(test)]
mod backoff_test;
#[cfg(test)]
mod buffer_test;
#[cfg(test)]
mod client_test;
#[cfg(test)]
mod error_test;
#[cfg(test)]
mod oneshot_test;
#[cfg(test)]
mod slots_test;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};

pub use raftkv_protocol::client::{
    Condition, Consistency, HoldReason, LogHold, Role, ShardSnapshot, ShardStatus, SlotTable, SnapshotOutcome, Status,
};
pub use raftkv_protocol::health::{DiskHealth, Divergence, Verdict};
pub use raftkv_protocol::types::{ClusterId, NodeId, ShardId, Slot, Term};

pub use batch::{Batch, Batched};
pub use builder::Builder;
pub use call::Pending;
pub use error::{Error, ErrorKind, Result};
pub use pipeline::Pipeline;
pub use values::{Item, Page, ScanOptions, Target, Value, Version, WhenFull};

use builder::Settings;
use io_thread::{Doorbell, IoThread};
use oneshot::oneshot;
use request::{Job, Operation, Origin, Patience};

/// A connection to a cluster. Cheap to clone, and shared by as many threads as like. When the last one is dropped, and
/// the last [`Pipeline`], the connections are closed and what is still in flight fails with [`ErrorKind::Closed`].
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// The callers' side of the I/O thread.
struct Shared {
    timeout: Duration,
    jobs: Sender<Job>,
    doorbell: Arc<Doorbell>,
    /// Taken when it is joined.
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Settings to begin with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client with default settings, from one endpoint.
    ///
    /// # Errors
    /// See [`Builder::connect`].
    pub fn connect(endpoint: impl Into<String>) -> Result<Client> {
        Client::builder().endpoints([endpoint]).connect()
    }

    fn start(endpoints: &[String], settings: Settings) -> Result<Client> {
        let no_thread =
            |error: io::Error| Error::new(ErrorKind::Closed, format!("the client's I/O thread cannot start: {error}"));
        let timeout = settings.timeout;
        let (jobs, receiver) = crossbeam_channel::bounded(settings.queue_max);
        let io_thread = IoThread::new(endpoints, settings, receiver).map_err(no_thread)?;
        let doorbell = io_thread.doorbell();
        let thread =
            thread::Builder::new().name("raftkv-client".into()).spawn(move || io_thread.run()).map_err(no_thread)?;
        Ok(Client { shared: Arc::new(Shared { timeout, jobs, doorbell, thread: Some(thread) }) })
    }

    /// Fetches the slot table, or fails as soon as every endpoint has failed.
    fn learn_slots(&self) -> Result<()> {
        let (completer, receiver) = oneshot(|| Error::new(ErrorKind::Closed, "the client's I/O thread ended"));
        let deadline = Instant::now() + self.shared.timeout;
        let mut job = Job::new(Operation::Slots, Origin::Caller(completer), deadline);
        job.patience = Patience::OneRound;
        self.shared.hand_over(job, WhenFull::Block)?;
        receiver.wait().map(|_| ())
    }

    /// A handle for many requests in flight.
    #[must_use]
    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(self.clone(), self.shared.timeout)
    }

    /// Writes a key and returns its version once a majority has the write on disk.
    ///
    /// # Errors
    /// Any [`ErrorKind`]; see [`Error::maybe_applied`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Version> {
        self.pipeline().put(key, value)?.wait()
    }

    /// Writes a key if `condition` holds when the write is applied.
    ///
    /// # Errors
    /// [`ErrorKind::PreconditionFailed`] if it does not hold; otherwise as [`Client::put`].
    pub fn put_if(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, condition: Condition) -> Result<Version> {
        self.pipeline().put_if(key, value, condition)?.wait()
    }

    /// Removes a key; returns whether it existed.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.pipeline().delete(key)?.wait()
    }

    /// Removes a key if `condition` holds when the removal is applied; returns whether it existed.
    ///
    /// # Errors
    /// As [`Client::put_if`].
    pub fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<bool> {
        self.pipeline().delete_if(key, condition)?.wait()
    }

    /// Writes and removes several keys of one shard together, or none of them: no reader sees a part of it. All conditions
    /// are checked against what was there right before.
    ///
    /// # Errors
    /// [`ErrorKind::PreconditionFailed`] if a condition does not hold, with the operation in its words;
    /// [`ErrorKind::CrossShard`] if the keys lie in different shards; [`ErrorKind::BadRequest`] without an operation, with
    /// two on one key, or if no node that can be reached knows batches; otherwise as [`Client::put`]. While the nodes are updated
    /// to software that knows them, one that does is asked; it refuses with [`ErrorKind::NotReady`] until the shard's leader does.
    pub fn batch(&self, batch: Batch) -> Result<Batched> {
        self.pipeline().batch(batch)?.wait()
    }

    /// Reads a key, linearizably: every write acknowledged before this call is seen.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`NotFound`](ErrorKind::NotFound), which is `None`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.pipeline().get(key)?.wait()
    }

    /// Reads a key as fresh as asked. Stale reads are spread over all nodes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_with(&self, key: impl AsRef<[u8]>, consistency: Consistency) -> Result<Option<Value>> {
        self.pipeline().get_with(key, consistency)?.wait()
    }

    /// Reads one page of keys in byte order over all shards. Each shard is read at its own moment: neither a page nor a
    /// sequence of pages is a snapshot.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn scan(&self, options: ScanOptions) -> Result<Page> {
        self.pipeline().scan(options)?.wait()
    }

    /// The pages of a scan, each fetched when it is asked for; ends after the last page or the first error.
    #[must_use]
    pub fn scan_all(&self, options: ScanOptions) -> Pages {
        Pages { client: self.clone(), next: Some(options) }
    }

    /// The slot table as some node knows it: shards, their leaders, and the nodes' addresses.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn slots(&self) -> Result<SlotTable> {
        self.pipeline().slots()?.wait()
    }

    /// The state of one node: `client.status("127.0.0.1:7002")`, `client.status(NodeId(2))`, or [`Target::Any`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn status(&self, target: impl Into<Target>) -> Result<Status> {
        self.pipeline().status(target)?.wait()
    }

    /// Has one node take a snapshot of each of its shards whose state has moved since the last one, and waits until all are
    /// durable: `client.snapshot(NodeId(2))`. What has become of each shard's is in its
    /// [`outcome`](ShardSnapshot::outcome); one that failed is no error of the call. Large states take long: a pipeline
    /// with a longer [`timeout`](Pipeline::timeout) waits longer.
    ///
    /// # Errors
    /// As [`Client::get`]; `timeout` if they are not durable in time, although they go on; `bad_request` if the node's
    /// software does not know such requests.
    pub fn snapshot(&self, target: impl Into<Target>) -> Result<Vec<ShardSnapshot>> {
        self.pipeline().snapshot(target)?.wait()
    }

    /// Asks any node for a sign of life.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn ping(&self) -> Result<()> {
        self.pipeline().ping(Target::Any)?.wait()
    }
}

impl Shared {
    fn hand_over(&self, job: Job, when_full: WhenFull) -> Result<()> {
        let deadline = job.deadline;
        let job = match self.jobs.try_send(job) {
            Ok(()) => {
                self.doorbell.ring();
                return Ok(());
            }
            Err(TrySendError::Full(job)) if when_full == WhenFull::Block => job,
            Err(TrySendError::Full(job)) => return refuse(job, ErrorKind::QueueFull, "too many requests wait already"),
            Err(TrySendError::Disconnected(job)) => return refuse(job, ErrorKind::Closed, GONE),
        };
        match self.jobs.send_deadline(job, deadline) {
            Ok(()) => {
                self.doorbell.ring();
                Ok(())
            }
            Err(SendTimeoutError::Timeout(job)) => {
                refuse(job, ErrorKind::Timeout, "the deadline passed while too many other requests were waiting")
            }
            Err(SendTimeoutError::Disconnected(job)) => refuse(job, ErrorKind::Closed, GONE),
        }
    }
}

const GONE: &str = "the client's I/O thread ended";

/// Ends a job that was not handed over.
fn refuse(job: Job, kind: ErrorKind, message: &str) -> Result<()> {
    let error = Error::new(kind, message);
    job.complete(Err(error.clone()));
    Err(error)
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.doorbell.close();
        if let Some(thread) = self.thread.take() {
            // It fails if the thread panicked: every caller has learnt that already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.shared.timeout).finish_non_exhaustive()
    }
}

/// The pages of a scan ([`Client::scan_all`]).
#[derive(Debug)]
pub struct Pages {
    client: Client,
    next: Option<ScanOptions>,
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        let options = self.next.take()?;
        let page = self.client.scan(options.clone());
        if let Ok(Page { cursor: Some(cursor), .. }) = &page {
            self.next = Some(options.cursor(cursor));
        }
        Some(page)
    }
}
