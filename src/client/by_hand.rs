//! The client without its thread: for programs with an event loop of their own, and for simulations.
//!
//! [`ByHand`] routes, retries, redirects and gives up exactly as a [`Client`](super::Client) does. What differs is who
//! moves it: it reads no clock, starts no thread and opens no socket by itself. Its owner brings the
//! [`Network`], calls [`turn`](ByHand::turn) with the time and the sockets that have become ready, and comes back no later
//! than [`wake_at`](ByHand::wake_at). The only randomness is in the pauses between attempts, and comes from a seed: the
//! same calls and turns on the same network send the same bytes.
//!
//! ```
//! use std::io;
//! use std::net::SocketAddr;
//! use std::time::{Duration, Instant};
//!
//! use mio::Token;
//! use mio::net::TcpStream;
//! use raftkv::client::by_hand::ByHand;
//! use raftkv::client::{Client, Condition, ErrorKind};
//! use raftkv::socket::Network;
//!
//! /// Where nobody can be reached.
//! #[derive(Debug)]
//! struct Desert;
//!
//! impl Network for Desert {
//!     type Socket = TcpStream;
//!     fn dial(&mut self, _: SocketAddr, _: Token) -> io::Result<TcpStream> {
//!         Err(io::ErrorKind::NetworkUnreachable.into())
//!     }
//!     fn accept(&mut self) -> io::Result<TcpStream> {
//!         Err(io::ErrorKind::Unsupported.into())
//!     }
//!     fn register(&mut self, _: &mut TcpStream, _: Token) -> io::Result<()> {
//!         Ok(())
//!     }
//!     fn deregister(&mut self, _: &mut TcpStream) -> io::Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> raftkv::client::Result<()> {
//! let mut now = Instant::now();
//! let builder = Client::builder().endpoints(["192.0.2.1:7001"]);
//! let mut client = ByHand::new(builder, Desert, 42, now)?;
//! let put = client.put_if("key", "value", Condition::None, now, Duration::from_secs(60));
//! while !put.is_ready() {
//!     client.turn(now, &[]); // without sockets, nothing but time goes by
//!     now = client.wake_at();
//! }
//! let error = put.wait().unwrap_err();
//! assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Unreachable, false));
//! # Ok(()) }
//! ```

use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use raftkv_protocol::client::{Condition, Consistency, ShardSnapshot, SlotTable, Status};

use super::builder::Builder;
use super::call::{self, Call};
use super::driver::Driver;
use super::request::Job;
use super::{Batch, Batched, Error, ErrorKind, Page, Pending, Result, ScanOptions, Target, Value, Version};
use crate::socket::{Network, Readiness};

/// A client that its owner moves.
///
/// A request is only noted down when it is made, and leaves with the next [`turn`](ByHand::turn). Look for its outcome
/// with [`Pending::is_ready`] and [`Pending::try_wait`] between turns: [`Pending::wait`] would block the only thread that
/// can bring it. Dropping the client ends every request with [`ErrorKind::Closed`].
#[derive(Debug)]
pub struct ByHand<N: Network> {
    driver: Driver<N>,
    jobs: Sender<Job>,
}

impl<N: Network> ByHand<N> {
    /// A client with the builder's endpoints and settings. The endpoints, and the addresses that the nodes tell of each
    /// other, must be IP addresses with ports, as nobody resolves names. Of the settings only
    /// [`timeout`](Builder::timeout) means nothing here: every request brings its own.
    ///
    /// Sockets are dialled with small numbers as their tokens. A socket that takes the place of one that is gone gets
    /// the same token.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] without an endpoint.
    pub fn new(builder: Builder, network: N, seed: u64, now: Instant) -> Result<ByHand<N>> {
        let (endpoints, settings) = builder.into_parts()?;
        let (jobs, receiver) = crossbeam_channel::bounded(settings.queue_max);
        Ok(ByHand { driver: Driver::new(&endpoints, settings, network, receiver, seed, now), jobs })
    }

    /// Writes a key if `condition` holds when the write is applied; see [`Client::put_if`](super::Client::put_if). What
    /// goes wrong with this or any other request comes with the outcome, [`ErrorKind::QueueFull`] included.
    pub fn put_if(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        condition: Condition,
        now: Instant,
        timeout: Duration,
    ) -> Pending<Version> {
        self.submit(call::put(key, value, condition), now + timeout)
    }

    /// Removes a key if `condition` holds when the removal is applied; see
    /// [`Client::delete_if`](super::Client::delete_if).
    pub fn delete_if(
        &mut self,
        key: impl AsRef<[u8]>,
        condition: Condition,
        now: Instant,
        timeout: Duration,
    ) -> Pending<bool> {
        self.submit(call::delete(key, condition), now + timeout)
    }

    /// Writes and removes several keys of one shard together; see [`Client::batch`](super::Client::batch).
    pub fn batch(&mut self, batch: Batch, now: Instant, timeout: Duration) -> Pending<Batched> {
        self.submit(call::batch(batch), now + timeout)
    }

    /// Reads a key as fresh as asked; see [`Client::get_with`](super::Client::get_with).
    pub fn get_with(
        &mut self,
        key: impl AsRef<[u8]>,
        consistency: Consistency,
        now: Instant,
        timeout: Duration,
    ) -> Pending<Option<Value>> {
        self.submit(call::get(key, consistency), now + timeout)
    }

    /// Reads one page of keys; see [`Client::scan`](super::Client::scan).
    pub fn scan(&mut self, options: ScanOptions, now: Instant, timeout: Duration) -> Pending<Page> {
        self.submit(call::scan(options), now + timeout)
    }

    /// The slot table as some node knows it.
    pub fn slots(&mut self, now: Instant, timeout: Duration) -> Pending<SlotTable> {
        self.submit(call::slots(), now + timeout)
    }

    /// The state of one node.
    pub fn status(&mut self, target: impl Into<Target>, now: Instant, timeout: Duration) -> Pending<Status> {
        self.submit(call::status(target), now + timeout)
    }

    /// Asks a node for a sign of life.
    pub fn ping(&mut self, target: impl Into<Target>, now: Instant, timeout: Duration) -> Pending<()> {
        self.submit(call::ping(target), now + timeout)
    }

    /// Has one node snapshot its shards; see [`Client::snapshot`](super::Client::snapshot).
    pub fn snapshot(
        &mut self,
        target: impl Into<Target>,
        now: Instant,
        timeout: Duration,
    ) -> Pending<Vec<ShardSnapshot>> {
        self.submit(call::snapshot(target, timeout), now + timeout)
    }

    /// Does all that can be done at `now`, which never goes back: reads and writes the sockets that have become ready
    /// since the last turn, sends what was asked for, and sees to what is due.
    pub fn turn(&mut self, now: Instant, ready: &[Readiness]) {
        self.driver.turn(now, ready.iter().copied());
    }

    /// When the next turn is due at the latest, should no socket become ready before. A moment that has passed means at
    /// once; every request that is made may bring it forward.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        if self.driver.has_work() { self.driver.now() } else { self.driver.next_timer() }
    }

    fn submit<T>(&mut self, call: Call<T>, deadline: Instant) -> Pending<T> {
        match call.start(deadline) {
            Ok((job, pending)) => {
                self.hand_over(job);
                pending
            }
            Err(error) => Pending::failed(error),
        }
    }

    fn hand_over(&mut self, job: Job) {
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.jobs.try_send(job) {
            job.complete(Err(Error::new(ErrorKind::QueueFull, "too many requests wait already")));
        }
    }
}

impl<N: Network> Drop for ByHand<N> {
    fn drop(&mut self) {
        self.driver.close();
    }
}
