//! Calls on one connection, with keys and values drawn as `raftkv-bench` draws them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use raftkv_bench::keys::KeySpace;
use raftkv_bench::rng::Rng;
use tokio::time::{sleep, timeout};

use crate::grpc::{
    CallError, Channel, PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use crate::{Args, Workload};

/// How long to wait before another attempt at whatever failed.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How many bytes more than one value the pool of values has.
const POOL_SLACK: usize = 4096;

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// etcd said so.
    Refused(&'static str),
    /// Nothing came in time.
    NoReply,
    /// The connection is of no use any more.
    Broken,
}

/// Sends one request after the other on a connection.
#[derive(Debug)]
pub struct Caller<'a> {
    args: &'a Args,
    keys: &'a KeySpace,
    channel: Channel,
    put_uri: Uri,
    range_uri: Uri,
    rng: Rng,
    pool: Bytes,
    key: Vec<u8>,
}

impl<'a> Caller<'a> {
    /// The sequence of keys that belongs to `seed`.
    pub fn new(args: &'a Args, keys: &'a KeySpace, channel: Channel, seed: u64) -> Caller<'a> {
        let mut rng = Rng::new(args.seed ^ seed);
        let mut pool = vec![0; args.value_size as usize + POOL_SLACK];
        rng.fill(&mut pool);
        let (put_uri, range_uri) = (channel.uri("/etcdserverpb.KV/Put"), channel.uri("/etcdserverpb.KV/Range"));
        Caller { args, keys, channel, put_uri, range_uri, rng, pool: pool.into(), key: keys.buffer() }
    }

    /// One request of the workload.
    pub async fn next(&mut self) -> Result<(), Failure> {
        let index = self.rng.below(self.args.keys as usize) as u32;
        match self.args.workload {
            Workload::Put => self.put(index).await,
            Workload::Get => self.get(index).await,
        }
    }

    /// Writes a key.
    pub async fn put(&mut self, index: u32) -> Result<(), Failure> {
        let at = self.rng.below(POOL_SLACK);
        let value = self.pool.slice(at..at + self.args.value_size as usize);
        let call = PutRequest { key: self.key(index), value };
        within(self.args.timeout, self.channel.call::<_, PutResponse>(&self.put_uri, &call)).await.map(drop)
    }

    async fn get(&mut self, index: u32) -> Result<(), Failure> {
        let call = RangeRequest { key: self.key(index) };
        let found: RangeResponse = within(self.args.timeout, self.channel.call(&self.range_uri, &call)).await?;
        if found.kvs.is_empty() { Err(Failure::Refused("not_found")) } else { Ok(()) }
    }

    fn key(&mut self, index: u32) -> Bytes {
        self.keys.write(index, &mut self.key);
        Bytes::copy_from_slice(&self.key)
    }
}

async fn within<R>(limit: Duration, call: impl Future<Output = Result<R, CallError>>) -> Result<R, Failure> {
    match timeout(limit, call).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(CallError::Status(name))) => Err(Failure::Refused(name)),
        Ok(Err(CallError::Broken(_))) => Err(Failure::Broken),
        Err(_) => Err(Failure::NoReply),
    }
}

/// Dials until it succeeds; reports every attempt that failed.
pub async fn connect(address: SocketAddr, limit: Duration, failed: impl Fn()) -> Channel {
    loop {
        match Channel::connect(address, limit).await {
            Ok(channel) => return channel,
            Err(_) => failed(),
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Whether the member at this address leads.
pub async fn leads(address: SocketAddr, limit: Duration) -> Result<bool, CallError> {
    let channel = Channel::connect(address, limit).await?;
    let uri = channel.uri("/etcdserverpb.Maintenance/Status");
    let status: StatusResponse = channel.call(&uri, &StatusRequest {}).await?;
    Ok(status.header.is_some_and(|header| header.member_id == status.leader))
}
