//! The REST face: the paths of `/v1`, as an axum router that any executor can run.
//!
//! It knows HTTP and what can be asked of a node, neither sockets nor shards: whatever it is asked goes to the
//! [`Backend`]. The responses to what cannot be served are RFC 9457 problems.

mod body;
mod keys;
mod metrics;
mod node;
mod params;
mod problem;
mod scan;

#[cfg(test)]
mod params_test;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use hyper::rt::Timer;
use hyper::{Method, StatusCode};
use raftkv_protocol::client::Code;

use super::ask::{Backend, Outcome, OwnedOperation, OwnedRefusal};
use super::binary;
use crate::limits::Limits;
use crate::metrics::figures::Figures;
use crate::metrics::requests::Task;

pub use body::Held;
pub use node::{Check, Health};
pub use problem::Uncounted;

/// How long a handler waits for an answer beyond the time that the node has for it: only a node that has lost the
/// question needs it.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// What the handlers of a core share.
#[derive(Clone)]
pub struct Rest {
    /// The way to the node.
    pub backend: Backend,
    /// The limits of the node.
    pub limits: Arc<Limits>,
    /// The clock of the core's loop.
    pub timer: Arc<dyn Timer + Send + Sync>,
    /// Bytes of requests' bodies that are on their way in.
    pub bodies: Held,
    /// Bytes of replies that wait for their readers.
    pub replies: Held,
    /// What the node knows of itself.
    pub health: Arc<dyn Health>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

/// The router of the REST face.
pub fn router(rest: Rest) -> Router {
    Router::new()
        .route("/v1/kv", get(scan::page).fallback(no_method))
        .route("/v1/kv/", axum::routing::any(keys::no_key))
        .route("/v1/kv/{*key}", get(keys::get).put(keys::put).delete(keys::delete).fallback(no_method))
        .route("/v1/status", get(node::status).fallback(no_method))
        .route("/v1/cluster", get(node::cluster).fallback(no_method))
        .route("/metrics", get(metrics::get).fallback(no_method))
        .route("/livez", get(node::livez).fallback(no_method))
        .route("/readyz", get(node::readyz).fallback(no_method))
        .fallback(no_path)
        .with_state(rest)
}

/// What a request asks the node for, by its method and path; `None` if it is nothing that is counted as a request.
#[must_use]
pub fn task(method: &Method, path: &str) -> Option<Task> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/v1/kv" if is_read => Some(Task::Scan),
        "/v1/status" if is_read => Some(Task::Status),
        "/v1/cluster" if is_read => Some(Task::Slots),
        "/metrics" if is_read => Some(Task::Metrics),
        _ if !path.starts_with(keys::KEYS) => None,
        _ if is_read => Some(Task::Get),
        _ if *method == Method::PUT => Some(Task::Put),
        _ if *method == Method::DELETE => Some(Task::Delete),
        _ => None,
    }
}

async fn no_method() -> Response {
    problem::unknown(StatusCode::METHOD_NOT_ALLOWED, "see docs/rest.md for what can be done with this path")
}

async fn no_path() -> Response {
    problem::unknown(
        StatusCode::NOT_FOUND,
        "there is no such path; the keys are under /v1/kv/, the node's state under /v1/status",
    )
}

impl Rest {
    /// Asks the node.
    async fn ask(&self, operation: OwnedOperation) -> Outcome {
        let clock = self.timer.sleep(self.limits.request_timeout + ANSWER_GRACE);
        match body::first(self.backend.ask(operation), clock).await {
            body::First::Done(outcome) => outcome,
            body::First::Late => Err(OwnedRefusal::new(
                Code::Timeout,
                "the node did not answer itself; a write may or may not take effect",
            )),
        }
    }

    /// What the node knows of itself.
    async fn figures(&self) -> Result<Box<Figures>, OwnedRefusal> {
        let clock = self.timer.sleep(self.limits.request_timeout + ANSWER_GRACE);
        match body::first(self.backend.figures(), clock).await {
            body::First::Done(figures) => figures,
            body::First::Late => Err(OwnedRefusal::new(Code::Timeout, "the node did not answer itself")),
        }
    }

    /// Whether a key is within the limits, before the rest of a request is there.
    fn check_key(&self, key: &Bytes) -> Result<(), OwnedRefusal> {
        let operation = OwnedOperation::Get { key: key.clone(), consistency: Default::default() };
        binary::check(&operation.borrow(), &self.limits).map_err(|(code, words)| OwnedRefusal::new(code, words))
    }

    /// The body of a reply, which is counted until it has left.
    fn reply_body(&self, bytes: Bytes) -> Body {
        body::counted(&self.replies, bytes)
    }

    /// An answer that does not fit its question.
    fn unexpected(&self) -> OwnedRefusal {
        OwnedRefusal::new(Code::Timeout, "the node gave an answer to another question; please report this")
    }
}
