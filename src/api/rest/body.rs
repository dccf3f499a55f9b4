//! Bodies in and out.

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use raftkv_protocol::client::Code;
use serde::Serialize;

use super::Rest;
use super::problem::Fault;
use crate::api::ask::OwnedRefusal;
use crate::api::held::{COUNTED_BYTES_MIN, Share};
use crate::api::node_handle::{First, first};

/// A request's body, whole.
#[derive(Debug)]
pub struct Whole {
    /// What came.
    pub bytes: Bytes,
    _share: Share,
}

/// What a request's body is.
#[derive(Debug)]
pub enum Kind {
    /// A value, as it is.
    Value,
    /// A batch as JSON, of at most so many bytes.
    Batch { max: usize },
}

impl Kind {
    fn bytes_max(&self, rest: &Rest) -> usize {
        match self {
            Kind::Value => rest.limits.value_bytes_max,
            Kind::Batch { max } => *max,
        }
    }
}

/// Reads a request's body within the limits of length, time and memory.
pub async fn read(rest: &Rest, body: Body, kind: &Kind) -> Result<Whole, Fault> {
    let announced = body.size_hint().lower();
    if announced > kind.bytes_max(rest) as u64 {
        return Err(too_long(rest, kind).into());
    }
    let sleep = rest.timer.sleep(rest.limits.http_body_timeout);
    match first(gather(rest, body, kind, announced), sleep).await {
        First::Done(whole) => whole.map_err(Fault::from),
        First::Late => Err(Fault::Late(rest.body_is_late())),
    }
}

fn too_long(rest: &Rest, kind: &Kind) -> OwnedRefusal {
    let max = kind.bytes_max(rest);
    let (what, setting) = match kind {
        Kind::Value => ("value", "--value-bytes-max"),
        Kind::Batch { .. } => ("batch", "--batch-bytes-max and --batch-operations-max"),
    };
    OwnedRefusal::new(
        Code::TooLarge,
        format!("the {what} is longer than the limit of {max} bytes ({setting} of the server)"),
    )
}

async fn gather(rest: &Rest, mut body: Body, kind: &Kind, announced: u64) -> Result<Whole, OwnedRefusal> {
    let share = rest.bodies.hold(0);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| OwnedRefusal::new(Code::BadRequest, format!("the body is cut off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > kind.bytes_max(rest) {
            return Err(too_long(rest, kind));
        }
        share.grow(data.len())?;
        if bytes.is_empty() && body.is_end_stream() {
            return Ok(Whole { bytes: data, _share: share });
        }
        if bytes.is_empty() {
            // Only what has come is believed: a client may announce what it never sends.
            bytes.reserve(data.len().max(usize::try_from(announced).unwrap_or(0).min(COUNTED_BYTES_MIN)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes: bytes.freeze(), _share: share })
}

/// A response that is JSON. It counts until its reader has it, however long the values in it are.
pub fn json(rest: &Rest, value: &impl Serialize) -> Response {
    json_of(rest.replies.counted(written(value)))
}

/// A response that is JSON, and short.
pub fn short_json(value: &impl Serialize) -> Response {
    json_of(written(value))
}

fn written(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("what is answered can be written as JSON").into()
}

fn json_of(bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
