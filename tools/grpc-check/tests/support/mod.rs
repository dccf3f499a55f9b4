//! The harness of the server's own tests, and calls with tonic's client.

#![expect(dead_code, reason = "not all of the harness is used here")]

#[path = "../../../../tests/support/cluster.rs"]
pub mod cluster;
#[path = "../../../../tests/support/http.rs"]
pub mod http;
#[path = "../../../../tests/support/netns.rs"]
pub mod netns;
#[path = "../../../../tests/support/process.rs"]
pub mod process;
pub mod raw;
#[path = "../../../../tests/support/tools.rs"]
pub mod tools;
#[path = "../../../../tests/support/wait.rs"]
pub mod wait;
#[path = "../../../../tests/support/wire.rs"]
pub mod wire;

use std::time::{Duration, Instant};

use grpc_check::raftkv::cluster_client::ClusterClient;
use grpc_check::raftkv::kv_client::KvClient;
use grpc_check::raftkv::{GetRequest, PutRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use cluster::Cluster;
use wait::PATIENCE;

/// A connection to one node.
pub async fn channel(cluster: &Cluster, id: u64) -> Channel {
    let address = http::http_address(cluster.address(id));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the node answers")
}

/// The keys, by way of one node.
pub async fn kv(cluster: &Cluster, id: u64) -> KvClient<Channel> {
    KvClient::new(channel(cluster, id).await)
}

/// What one node knows.
pub async fn nodes(cluster: &Cluster, id: u64) -> ClusterClient<Channel> {
    ClusterClient::new(channel(cluster, id).await)
}

/// A put.
pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> PutRequest {
    PutRequest { key: key.into().into(), value: value.into().into() }
}

/// A linearizable get.
pub fn get(key: impl Into<Vec<u8>>) -> GetRequest {
    GetRequest { key: key.into().into(), consistency: 0 }
}

/// A request with a deadline.
pub fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Waits until a node's counter has this value, while tonic goes on.
pub async fn await_counter(cluster: &Cluster, id: u64, name: &str, value: u64) {
    let (mut wire, started) = (cluster.wire(id), Instant::now());
    loop {
        let now = wire.counter(name);
        if now == value {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{name} is {now} and not {value}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A status and the code that all faces share.
pub fn told(status: &Status) -> (Code, &str) {
    let code = status.metadata().get("raftkv-code").and_then(|code| code.to_str().ok());
    (status.code(), code.unwrap_or_else(|| panic!("a code in {status:?}")))
}
