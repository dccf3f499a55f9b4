//! `/v1/kv/{key}`: one key.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use raftkv_protocol::client::Code;
use raftkv_protocol::types::Index;
use serde::Serialize;

use super::body::{self, json};
use super::problem::Fault;
use super::{Rest, params};
use crate::api::ask::{OwnedAnswer, OwnedOperation, OwnedRefusal};

/// Where the keys are.
pub const KEYS: &str = "/v1/kv/";

#[derive(Serialize)]
struct Written {
    version: u64,
}

#[derive(Serialize)]
struct Deleted {
    deleted: bool,
}

#[derive(Serialize)]
struct Item {
    key: String,
    value: String,
    version: u64,
}

/// The key in a path: all that follows, slashes included.
fn key(request: &Request) -> Bytes {
    let path = request.uri().path();
    params::decode(path.strip_prefix(KEYS).unwrap_or_default())
}

/// `GET` and `HEAD`: the value and, as its entity tag, its version.
pub async fn get(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    let consistency = params::consistency(request.uri().query())?;
    let key = key(&request);
    let headers = request.headers();
    // Everybody who does not ask for JSON by name gets the value as it is.
    let key_in_json = params::accepts(headers, "application/json").then(|| STANDARD.encode(&key));
    let outcome = rest.ask(OwnedOperation::Get { key, consistency }).await?;
    let OwnedAnswer::Value { version, value } = outcome.1 else { return Err(rest.unexpected()) };
    if headers.contains_key(IF_NONE_MATCH) && params::has_already(headers, version) {
        return Ok(with_version(StatusCode::NOT_MODIFIED, Body::empty(), version));
    }
    if let Some(key) = key_in_json {
        let item = Item { key, value: STANDARD.encode(&value), version: version.0 };
        let mut response = json(&rest, &item);
        response.headers_mut().insert(ETAG, tag(version));
        return Ok(response);
    }
    let mut response = with_version(StatusCode::OK, Body::from(rest.replies.counted(value)), version);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// `PUT`: writes the body.
pub async fn put(State(rest): State<Rest>, request: Request) -> Result<Response, Fault> {
    params::none(request.uri().query())?;
    let condition = params::condition(request.headers())?;
    let key = key(&request);
    // Before the body comes: whoever sends much for nothing is told at once.
    rest.check_key(&key)?;
    let value = body::read(&rest, request.into_body(), &body::Kind::Value).await?;
    let (at, _) = rest.ask(OwnedOperation::Put { key, value: value.bytes, condition }).await?;
    let mut response = json(&rest, &Written { version: at.index.0 });
    response.headers_mut().insert(ETAG, tag(at.index));
    Ok(response)
}

/// `DELETE`: removes the key.
pub async fn delete(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    params::none(request.uri().query())?;
    let condition = params::condition(request.headers())?;
    let key = key(&request);
    let (_, answer) = rest.ask(OwnedOperation::Delete { key, condition }).await?;
    let OwnedAnswer::Deleted { existed } = answer else { return Err(rest.unexpected()) };
    Ok(json(&rest, &Deleted { deleted: existed }))
}

/// What a path without a key is told.
pub async fn no_key() -> OwnedRefusal {
    OwnedRefusal::new(Code::BadRequest, "the key is empty: a key has at least one byte")
}

fn tag(version: Index) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits in quotes can stand in a header")
}

fn with_version(status: StatusCode, body: Body, version: Index) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(ETAG, tag(version));
    response
}
