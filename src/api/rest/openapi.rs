//! `/openapi.json`: this API, described for tools (OpenAPI 3.1).

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::params;
use crate::api::ask::OwnedRefusal;

/// Written by hand; the tests hold it against the router, `tools/schemathesis/check` against what is answered.
const DOCUMENT: &str = include_str!("openapi.json");

/// `GET`: the document.
pub async fn get(request: Request) -> Result<Response, OwnedRefusal> {
    params::none(request.uri().query())?;
    let mut response = Response::new(Body::from(DOCUMENT));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
