//! The REST face: the paths of `/v1`, as an axum router that any executor can run.
//!
//! It knows HTTP and what can be asked of a node, neither sockets nor shards: whatever it is asked goes to the
//! [`Backend`](super::ask::Backend). The responses to what cannot be served are RFC 9457 problems.

mod batch;
mod body;
mod keys;
mod metrics;
mod node;
mod openapi;
mod params;
mod problem;
mod scan;
mod ui;

#[cfg(test)]
mod node_test;
#[cfg(test)]
mod params_test;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use hyper::{Method, StatusCode};

use super::node_handle::NodeHandle;
use crate::metrics::requests::Task;

pub use problem::Uncounted;
pub use ui::Settings as UiSettings;

/// The node, as the handlers of this face share it.
pub type Rest = Arc<NodeHandle>;

/// The router of the REST face, and of the page for people.
pub fn router(rest: Rest, ui: UiSettings) -> Router {
    Router::new()
        .route("/v1/kv", get(scan::get).fallback(no_method))
        .route("/v1/kv/", axum::routing::any(keys::no_key))
        .route("/v1/kv/{*key}", get(keys::get).put(keys::put).delete(keys::delete).fallback(no_method))
        .route("/v1/batch", post(batch::post).fallback(no_method))
        .route("/v1/status", get(node::status).fallback(no_method))
        .route("/v1/cluster", get(node::cluster).fallback(no_method))
        .route("/metrics", get(metrics::get).fallback(no_method))
        .route("/livez", get(node::livez).fallback(no_method))
        .route("/readyz", get(node::readyz).fallback(no_method))
        .route("/openapi.json", get(openapi::get).fallback(no_method))
        .with_state(rest)
        .merge(ui::router(ui))
        .fallback(no_path)
}

/// What a request asks the node for, by its method and path; `None` if it is nothing that is counted as a request.
#[must_use]
pub fn task(method: &Method, path: &str) -> Option<Task> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/v1/kv" if is_read => Some(Task::Scan),
        "/v1/batch" if *method == Method::POST => Some(Task::Batch),
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
