//! RaftKV and etcd over gRPC with tonic's client, in the same way.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use grpc_check::raftkv::cluster_client::ClusterClient;
use grpc_check::raftkv::kv_client::KvClient;
use grpc_check::raftkv::{GetRequest, PutRequest, StatusRequest};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::etcd;
use crate::link::CallError;

/// The nodes are asked who leads what; this node's answer may be large.
const STATUS_BYTES_MAX: usize = 64 << 20;

async fn dial(address: SocketAddr, timeout: Duration) -> Result<Channel, CallError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(CallError::broken)?;
    endpoint.connect_timeout(timeout).connect().await.map_err(CallError::broken)
}

fn failed(status: Status) -> CallError {
    match status.code() {
        Code::NotFound => CallError::Status("not_found"),
        Code::DeadlineExceeded => CallError::Status("deadline_exceeded"),
        Code::ResourceExhausted => CallError::Status("resource_exhausted"),
        // What tonic makes of a connection that broke, or of a server that says so: dialling again does for both.
        Code::Unavailable | Code::Unknown | Code::Internal => CallError::broken(status),
        _ => CallError::Status("other_grpc_status"),
    }
}

/// RaftKV. Clones share the connection.
#[derive(Clone, Debug)]
pub struct RaftKv {
    channel: Channel,
    keys: KvClient<Channel>,
}

impl RaftKv {
    /// Dials.
    pub async fn connect(address: SocketAddr, timeout: Duration) -> Result<RaftKv, CallError> {
        let channel = dial(address, timeout).await?;
        Ok(RaftKv { keys: KvClient::new(channel.clone()), channel })
    }

    /// Writes a key.
    pub async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), CallError> {
        self.keys.put(PutRequest { key, value }).await.map(drop).map_err(failed)
    }

    /// Reads a key, linearizably.
    pub async fn get(&mut self, key: Bytes) -> Result<(), CallError> {
        let request = GetRequest { key, ..GetRequest::default() };
        self.keys.get(request).await.map(drop).map_err(failed)
    }

    /// Which shards the node leads, and how many there are.
    pub async fn led(&self) -> Result<(Vec<u16>, u16), CallError> {
        let mut cluster = ClusterClient::new(self.channel.clone()).max_decoding_message_size(STATUS_BYTES_MAX);
        let status = cluster.status(StatusRequest {}).await.map_err(failed)?.into_inner();
        let led = status.shards.iter().filter(|shard| shard.role == "leader").map(|shard| shard.id as u16);
        Ok((led.collect(), status.shards.len() as u16))
    }
}

/// etcd, called as generated code would call it. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Etcd(Grpc<Channel>);

impl Etcd {
    /// Dials.
    pub async fn connect(address: SocketAddr, timeout: Duration) -> Result<Etcd, CallError> {
        Ok(Etcd(Grpc::new(dial(address, timeout).await?)))
    }

    /// Writes a key.
    pub async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), CallError> {
        self.call::<_, etcd::PutResponse>(etcd::PUT, etcd::PutRequest { key, value }).await.map(drop)
    }

    /// Reads a key, linearizably.
    pub async fn get(&mut self, key: Bytes) -> Result<(), CallError> {
        let found: etcd::RangeResponse = self.call(etcd::RANGE, etcd::RangeRequest { key }).await?;
        if found.kvs.is_empty() { Err(CallError::Status("not_found")) } else { Ok(()) }
    }

    async fn call<A, R>(&mut self, path: &'static str, argument: A) -> Result<R, CallError>
    where
        A: Message + 'static,
        R: Message + Default + 'static,
    {
        self.0.ready().await.map_err(CallError::broken)?;
        let path = PathAndQuery::from_static(path);
        let answer = self.0.unary(Request::new(argument), path, ProstCodec::default()).await;
        answer.map(tonic::Response::into_inner).map_err(failed)
    }
}
