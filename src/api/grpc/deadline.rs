//! How long a call may take: the header `grpc-timeout`.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::rt::Sleep;
use raftkv_protocol::client::Code;

use super::bad;
use crate::api::ask::OwnedRefusal;
use crate::api::node_handle::NodeHandle;

const TIMEOUT: &str = "grpc-timeout";
/// The most digits of a timeout.
const DIGITS_MAX: usize = 8;

/// Ends when the call's deadline passes.
pub struct Clock {
    at: Instant,
    sleep: Pin<Box<dyn Sleep>>,
}

impl Clock {
    /// The clock of a call that has come now and may take so long; `None` if that is for ever.
    pub fn new(timeout: Duration, node: &NodeHandle) -> Option<Clock> {
        let at = node.timer.now().checked_add(timeout)?;
        Some(Clock { at, sleep: node.timer.sleep_until(at) })
    }

    /// When it ends.
    pub fn at(&self) -> Instant {
        self.at
    }
}

impl Future for Clock {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(context)
    }
}

/// How long a call may take, if it says so.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, OwnedRefusal> {
    let mut values = headers.get_all(TIMEOUT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(parse).map(Some).ok_or_else(refusal),
        (Some(_), Some(_)) => Err(refusal()),
    }
}

fn refusal() -> OwnedRefusal {
    bad("`grpc-timeout` is not one number of up to 8 digits with a unit of H, M, S, m, u or n, as in `250m`")
}

/// A number and its unit, as the specification of gRPC over HTTP/2 has it.
pub fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// What a call is told whose deadline has passed, which is counted.
pub fn passed(node: &NodeHandle) -> OwnedRefusal {
    node.deadlines.fetch_add(1, Ordering::Relaxed);
    OwnedRefusal::new(
        Code::Timeout,
        "the call's deadline (`grpc-timeout`) has passed; a write may have been applied, or may be later",
    )
}
