//! Bodies in and out, and the memory that they may take.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

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

/// Values below this are not counted while they wait for their reader: they are copied into the response's head.
const COUNTED_BYTES_MIN: usize = 4 << 10;

/// Bytes of one sort that the connections of a core hold at a time.
#[derive(Clone, Debug)]
pub struct Held {
    bytes: Arc<AtomicUsize>,
    max: usize,
    refusals: Arc<AtomicU64>,
}

impl Held {
    /// None are held, and at most `max` may be.
    #[must_use]
    pub fn new(max: usize) -> Held {
        Held { bytes: Arc::default(), max, refusals: Arc::default() }
    }

    /// How many are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How often there was no room for more.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Counts so many more for as long as the share lives.
    fn hold(&self, bytes: usize) -> Share {
        let mut share = Share { held: self.clone(), bytes: 0 };
        share.grow(bytes);
        share
    }
}

/// Somebody's part of what is held.
#[derive(Debug)]
pub struct Share {
    held: Held,
    bytes: usize,
}

impl Share {
    /// Counts so many more; false if that is too many.
    fn grow(&mut self, by: usize) -> bool {
        let before = self.held.bytes.fetch_add(by, Ordering::Relaxed);
        self.bytes += by;
        before + by <= self.held.max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request's body, whole.
#[derive(Debug)]
pub struct Whole {
    /// What came.
    pub bytes: Bytes,
    _share: Share,
}

/// Reads a request's body, which is a value, within the limits of length, time and memory.
pub async fn read(rest: &Rest, body: Body) -> Result<Whole, Fault> {
    let announced = body.size_hint().lower();
    if announced > rest.limits.value_bytes_max as u64 {
        return Err(too_long(rest).into());
    }
    let sleep = rest.timer.sleep(rest.limits.http_body_timeout);
    match first(gather(rest, body, announced), sleep).await {
        First::Done(whole) => whole.map_err(Fault::from),
        First::Late => Err(Fault::Late(format!(
            "the body was not there within {:?} (--http-body-timeout of the server); nothing was written",
            rest.limits.http_body_timeout
        ))),
    }
}

fn too_long(rest: &Rest) -> OwnedRefusal {
    let max = rest.limits.value_bytes_max;
    OwnedRefusal::new(
        Code::TooLarge,
        format!("the value is longer than the limit of {max} bytes (--value-bytes-max of the server)"),
    )
}

async fn gather(rest: &Rest, mut body: Body, announced: u64) -> Result<Whole, OwnedRefusal> {
    let crowded = || {
        OwnedRefusal::new(
            Code::Overloaded,
            "the bodies of other requests take all the room that there is for them (--core-http-body-bytes-max of \
             the server); try again later",
        )
    };
    let mut share = rest.bodies.hold(0);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| OwnedRefusal::new(Code::BadRequest, format!("the body is cut off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > rest.limits.value_bytes_max {
            return Err(too_long(rest));
        }
        if !share.grow(data.len()) {
            rest.bodies.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(crowded());
        }
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

/// What was first: the work, or the end of the time for it.
pub enum First<T> {
    Done(T),
    Late,
}

/// Polls the work, and then the clock.
pub async fn first<T>(work: impl Future<Output = T>, clock: Pin<Box<dyn hyper::rt::Sleep>>) -> First<T> {
    let (mut work, mut clock) = (pin!(work), clock);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(First::Done(done));
        }
        clock.as_mut().poll(context).map(|()| First::Late)
    })
    .await
}

/// A value on its way to a client. It is counted until its last byte is with the kernel.
struct Counted {
    value: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

/// The body with a value, counted among the replies that wait for their readers.
pub fn counted(replies: &Held, value: Bytes) -> Body {
    if value.len() < COUNTED_BYTES_MIN {
        return Body::from(value);
    }
    Body::from(Bytes::from_owner(Counted { _share: replies.hold(value.len()), value }))
}

/// A response that is JSON.
pub fn json(value: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(value).expect("what is answered can be written as JSON");
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
