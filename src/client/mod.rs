//! The client library: blocking calls and pipelined ones on a cluster of RaftKV nodes.
//!
//! A [`Client`] owns one background thread with a connection to each node. It learns which node leads which slots and
//! sends every request straight to the right one; it follows leaders as they move, reconnects, retries what is safe to
//! retry, and gives every call a deadline.
//!
//! ```no_run
//! use std::time::Duration;
//! use raftkv::client::{Client, Condition, ErrorKind, ScanOptions};
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
//! The module knows the protocol and the network, nothing of the server.

mod builder;
mod error;
mod pipeline;
mod values;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use raftkv_protocol::client::{Condition, Consistency, Role, ShardStatus, SlotTable, Status};
pub use raftkv_protocol::types::{ClusterId, NodeId, ShardId, Slot, Term};

pub use builder::Builder;
pub use error::{Error, ErrorKind, Result};
pub use pipeline::{Pending, Pipeline};
pub use values::{Item, Page, ScanOptions, Target, Value, Version, WhenFull};

/// A connection to a cluster. Cheap to clone, and shared by as many threads as like; the last one dropped closes the
/// connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    timeout: Duration,
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

    /// Asks any node for a sign of life.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn ping(&self) -> Result<()> {
        self.pipeline().ping(Target::Any)?.wait()
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
