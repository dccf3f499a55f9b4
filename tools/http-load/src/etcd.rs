//! The few calls of etcd's v3 gRPC API that the load needs, straight on HTTP/2.
//!
//! Full gRPC clients spend several times as much processor time on a call, which would be taken from the servers that
//! share the machine with the generator.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, Uri, header};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::link::CallError;

/// The path of a put.
pub const PUT: &str = "/etcdserverpb.KV/Put";
/// The path of a get.
pub const RANGE: &str = "/etcdserverpb.KV/Range";

/// Large enough that flow control never holds up a small reply.
const WINDOW_BYTES: u32 = 16 << 20;
/// A gRPC message's prefix: not compressed, and its length.
const PREFIX_LEN: usize = 5;

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `etcdserverpb.PutResponse`, of which nothing is needed.
#[derive(Clone, PartialEq, Message)]
pub struct PutResponse {}

/// `etcdserverpb.RangeRequest` of a single key; linearizable unless said otherwise.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    /// What was found.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    /// Who answers.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The member that leads; 0 if none does.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    /// Who answers.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> CallError {
        CallError::broken(error)
    }
}

/// One HTTP/2 connection. Clones share it. Lives on the thread's local task set.
#[derive(Clone, Debug)]
pub struct Channel {
    streams: SendRequest<Bytes>,
    put: Uri,
    range: Uri,
    status: Uri,
}

impl Channel {
    /// Dials.
    pub async fn connect(address: SocketAddr, timeout: Duration) -> Result<Channel, CallError> {
        let dialled = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
        let socket = dialled.map_err(CallError::broken)?.map_err(CallError::broken)?;
        socket.set_nodelay(true).map_err(CallError::broken)?;
        let (streams, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await?;
        // It ends with an error when the connection breaks, which every call in flight is told too.
        spawn_local(async move { drop(connection.await) });
        let authority = address.to_string();
        let uri = |path| {
            let uri = Uri::builder().scheme("http").authority(authority.as_str()).path_and_query(path);
            uri.build().expect("an address and a fixed path are valid")
        };
        Ok(Channel { streams, put: uri(PUT), range: uri(RANGE), status: uri("/etcdserverpb.Maintenance/Status") })
    }

    /// Writes a key.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<(), CallError> {
        self.call::<_, PutResponse>(&self.put, &PutRequest { key, value }).await.map(drop)
    }

    /// Reads a key, linearizably.
    pub async fn get(&self, key: Bytes) -> Result<(), CallError> {
        let found: RangeResponse = self.call(&self.range, &RangeRequest { key }).await?;
        if found.kvs.is_empty() { Err(CallError::Status("not_found")) } else { Ok(()) }
    }

    /// One unary call.
    async fn call<A: Message, R: Message + Default>(&self, uri: &Uri, argument: &A) -> Result<R, CallError> {
        let mut streams = self.streams.clone().ready().await?;
        let (response, mut body) = streams.send_request(head(uri), false)?;
        body.send_data(framed(argument), true)?;
        let response = response.await?;
        // A call that fails at once has its status in the only headers there are.
        check_status(response.headers())?;
        let mut body = response.into_body();
        let mut reply = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            reply.extend_from_slice(&chunk);
        }
        if let Some(trailers) = body.trailers().await? {
            check_status(&trailers)?;
        }
        let message = reply.get(PREFIX_LEN..).ok_or_else(|| CallError::Broken("a reply without a message".into()))?;
        R::decode(message).map_err(CallError::broken)
    }
}

/// Whether the member at this address leads.
pub async fn leads(address: SocketAddr, timeout: Duration) -> Result<bool, CallError> {
    let channel = Channel::connect(address, timeout).await?;
    let status: StatusResponse = channel.call(&channel.status, &StatusRequest {}).await?;
    Ok(status.header.is_some_and(|header| header.member_id == status.leader))
}

fn head(uri: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_LEN + len);
    bytes.put_u8(0);
    bytes.put_u32(len as u32);
    message.encode(&mut bytes).expect("there is room for the encoded length");
    bytes.freeze()
}

fn check_status(headers: &http::HeaderMap) -> Result<(), CallError> {
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        None | Some(b"0") => Ok(()),
        Some(b"4") => Err(CallError::Status("deadline_exceeded")),
        Some(b"8") => Err(CallError::Status("resource_exhausted")),
        Some(b"14") => Err(CallError::Status("unavailable")),
        Some(_) => Err(CallError::Status("other_grpc_status")),
    }
}
