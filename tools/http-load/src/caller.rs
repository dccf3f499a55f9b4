//! Calls on one connection, with keys and values drawn as `raftkv-bench` draws them.

use std::time::Duration;

use bytes::Bytes;
use raftkv_bench::keys::KeySpace;
use raftkv_bench::rng::Rng;
use tokio::time::{sleep, timeout};

use crate::args::{Load, Workload};
use crate::link::{CallError, Link};
use crate::plan::Place;

/// How long to wait before another attempt at whatever failed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How many bytes more than one value the pool of values has.
const POOL_SLACK: usize = 4096;

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The server said so.
    Refused(&'static str),
    /// Nothing came in time.
    NoReply,
    /// The connection is of no use any more.
    Broken,
}

/// Sends one request after the other on a connection.
#[derive(Debug)]
pub struct Caller<'a> {
    args: &'a Load,
    keys: &'a KeySpace,
    place: &'a Place,
    link: Link,
    rng: Rng,
    pool: Bytes,
    key: Vec<u8>,
}

impl<'a> Caller<'a> {
    /// The sequence of keys that belongs to `seed`, among those of the place that the link leads to.
    pub fn new(args: &'a Load, keys: &'a KeySpace, place: &'a Place, link: Link, seed: u64) -> Caller<'a> {
        let mut rng = Rng::new(args.seed ^ seed);
        let mut pool = vec![0; args.value_size as usize + POOL_SLACK];
        rng.fill(&mut pool);
        Caller { args, keys, place, link, rng, pool: pool.into(), key: keys.buffer() }
    }

    /// One request of the workload.
    pub async fn next(&mut self) -> Result<(), Failure> {
        let index = self.place.keys[self.rng.below(self.place.keys.len())];
        match self.args.workload {
            Workload::Put => self.put(index).await,
            Workload::Get => {
                self.keys.write(index, &mut self.key);
                within(self.args.timeout, self.link.get(&self.key)).await
            }
        }
    }

    /// Writes a key.
    pub async fn put(&mut self, index: u32) -> Result<(), Failure> {
        let at = self.rng.below(POOL_SLACK);
        let value = self.pool.slice(at..at + self.args.value_size as usize);
        self.keys.write(index, &mut self.key);
        within(self.args.timeout, self.link.put(&self.key, value)).await
    }
}

async fn within(limit: Duration, call: impl Future<Output = Result<(), CallError>>) -> Result<(), Failure> {
    match timeout(limit, call).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(CallError::Status(name))) => Err(Failure::Refused(name)),
        Ok(Err(CallError::Broken(_))) => Err(Failure::Broken),
        Err(_) => Err(Failure::NoReply),
    }
}

/// Dials until it succeeds; reports every attempt that failed.
pub async fn connect(args: &Load, place: &Place, users: u32, failed: impl Fn()) -> Vec<Link> {
    loop {
        match Link::connect(args.target, place.address, users, args.timeout).await {
            Ok(links) => return links,
            Err(_) => failed(),
        }
        sleep(RETRY_PAUSE).await;
    }
}
