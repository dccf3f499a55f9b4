//! Calls below tonic's client, which would not make these: whatever headers, and whatever bytes for a message.

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::http::http_address;

/// What came of a call.
#[derive(Debug)]
pub struct Outcome {
    /// The HTTP status.
    pub http: u16,
    /// `grpc-status` and `raftkv-code`, from the head or the trailers.
    pub status: Option<(i32, String)>,
    /// The message for people.
    pub message: String,
    /// The messages, with their prefixes.
    pub body: Bytes,
}

/// A connection to a node.
pub async fn connect(cluster: &Cluster, id: u64) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(http_address(cluster.address(id))).await.expect("connected");
    let (streams, connection) = h2::client::handshake(socket).await.expect("greeted");
    // It ends with an error when the connection breaks, which every call in flight is told too.
    tokio::spawn(async move { drop(connection.await) });
    streams
}

/// The head of a call.
pub fn head(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://test{path}"));
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a head")
}

/// A message with its prefix: not compressed, and its length.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend((message.encoded_len() as u32).to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes.into()
}

/// A call with this body, which may be no message.
pub async fn call(cluster: &Cluster, path: &str, headers: &[(&str, &str)], body: Bytes) -> Outcome {
    let mut streams = connect(cluster, 1).await.ready().await.expect("there is room");
    let (response, mut sending) = streams.send_request(head(path, headers), false).expect("sent");
    sending.send_data(body, true).expect("sent");
    finish(response.await.expect("a response")).await
}

/// Reads a response to its end.
pub async fn finish(response: Response<h2::RecvStream>) -> Outcome {
    let (head, mut receiving) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(chunk) = receiving.data().await {
        let chunk = chunk.expect("the response goes on");
        receiving.flow_control().release_capacity(chunk.len()).expect("it was received");
        body.extend_from_slice(&chunk);
    }
    let trailers = receiving.trailers().await.expect("trailers or the end").unwrap_or_default();
    let status = status(&head.headers).or_else(|| status(&trailers));
    let text = |name| head.headers.get(name).or(trailers.get(name)).and_then(|value| value.to_str().ok());
    let message = text("grpc-message").unwrap_or_default().to_owned();
    Outcome { http: head.status.as_u16(), status, message, body: body.freeze() }
}

fn status(headers: &HeaderMap) -> Option<(i32, String)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Some((text("grpc-status")?.parse().ok()?, text("raftkv-code").unwrap_or_default().to_owned()))
}
