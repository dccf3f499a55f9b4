//! Refusals as RFC 9457 `application/problem+json`, with the codes that all faces share.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use raftkv_protocol::client::Code;
use serde::Serialize;

use crate::api::ask::OwnedRefusal;

/// What is told of a refusal.
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    /// Where the codes are explained.
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<u64>,
}

/// Goes with the response to a request that was refused before the node was asked, for whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncounted(pub Code);

/// The status of a code.
#[must_use]
pub fn status_of(code: Code) -> StatusCode {
    match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::NotLeader | Code::NoLeader | Code::NotReady | Code::Overloaded | Code::Diverged => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::Unauthorized => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn title_of(code: Code) -> &'static str {
    match code {
        Code::NotFound => "there is no such key",
        Code::TooLarge => "over a limit",
        Code::PreconditionFailed => "the condition does not hold",
        Code::CrossShard => "the keys lie in different shards",
        Code::NotLeader | Code::NoLeader => "the shard has no leader at the moment",
        Code::NotReady => "the node has not caught up yet",
        Code::Overloaded => "too much is in flight",
        Code::NoSpace => "the disk is full",
        Code::Diverged => "this replica differs from the others",
        Code::Timeout => "the outcome is unknown",
        Code::Unauthorized => "not allowed",
        _ => "the request makes no sense",
    }
}

/// A refusal as it is told behind what has come of an answer already.
#[must_use]
pub fn within_an_answer(refusal: &OwnedRefusal) -> Problem<'_> {
    Problem::new(status_of(refusal.code), title_of(refusal.code), refusal)
}

/// The response for a refusal.
#[must_use]
pub fn problem(refusal: &OwnedRefusal) -> Response {
    respond(status_of(refusal.code), title_of(refusal.code), refusal)
}

/// The response to a method that a path does not have, or to a path that there is not.
#[must_use]
pub fn unknown(status: StatusCode, detail: &str) -> Response {
    let title = if status == StatusCode::NOT_FOUND { "there is nothing here" } else { "the path has no such method" };
    respond(status, title, &OwnedRefusal::new(Code::BadRequest, detail))
}

impl<'a> Problem<'a> {
    fn new(status: StatusCode, title: &'static str, refusal: &'a OwnedRefusal) -> Problem<'a> {
        let code = refusal.code.name();
        Problem {
            r#type: format!("urn:raftkv:problem:{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: &refusal.message,
            leader: refusal.leader.map(|node| node.0),
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers can be written as JSON")
    }
}

fn respond(status: StatusCode, title: &'static str, refusal: &OwnedRefusal) -> Response {
    let body = Problem::new(status, title, refusal).to_json();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if !refusal.is_counted {
        response.extensions_mut().insert(Uncounted(refusal.code));
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if refusal.code.is_retryable() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Why a request is not served: refusals that all faces know, and one that only HTTP has.
#[derive(Debug)]
pub enum Fault {
    /// As on every face.
    Refused(OwnedRefusal),
    /// The rest of the request did not come in time.
    Late(String),
}

impl From<OwnedRefusal> for Fault {
    fn from(refusal: OwnedRefusal) -> Fault {
        Fault::Refused(refusal)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        match self {
            Fault::Refused(refusal) => problem(&refusal),
            Fault::Late(detail) => {
                let refusal = OwnedRefusal::new(Code::BadRequest, detail);
                respond(StatusCode::REQUEST_TIMEOUT, "the request came too slowly", &refusal)
            }
        }
    }
}

impl IntoResponse for OwnedRefusal {
    fn into_response(self) -> Response {
        problem(&self)
    }
}
