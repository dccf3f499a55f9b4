//! `GET /v1/kv`: a page of keys.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::{Rest, params};
use crate::api::ask::{OwnedAnswer, OwnedItem, OwnedOperation, OwnedRefusal};

/// Room for everything but key and value of an item, in bytes.
const ITEM_BYTES: usize = 64;

/// A page, as JSON. It may be long, so that it is written as text at once, without a tree of it.
pub async fn page(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    let scan = params::scan(request.uri().query())?;
    let (_, answer) = rest.ask(OwnedOperation::Scan(scan)).await?;
    let OwnedAnswer::Page { items, more } = answer else { return Err(rest.unexpected()) };
    let mut response = Response::new(Body::from(rest.replies.counted(write(&items, more).into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn write(items: &[OwnedItem], more: bool) -> Vec<u8> {
    let weight = |item: &OwnedItem| ITEM_BYTES + (item.key.len() + item.value.len()).div_ceil(3) * 4;
    let mut text = String::with_capacity(ITEM_BYTES + items.iter().map(weight).sum::<usize>());
    text.push_str(r#"{"items":["#);
    for (at, item) in items.iter().enumerate() {
        text.push_str(if at == 0 { r#"{"key":""# } else { r#",{"key":""# });
        encode(&item.key, &mut text);
        text.push_str(r#"","value":""#);
        encode(&item.value, &mut text);
        text.push_str(r#"","version":"#);
        text.push_str(&item.version.to_string());
        text.push('}');
    }
    text.push_str(r#"],"cursor":"#);
    match items.last().filter(|_| more) {
        Some(last) => {
            text.push('"');
            text.push_str(&params::cursor_behind(&last.key));
            text.push_str(r#""}"#);
        }
        None => text.push_str("null}"),
    }
    text.into_bytes()
}

/// Base64 needs no escapes in JSON.
fn encode(bytes: &Bytes, text: &mut String) {
    STANDARD.encode_string(bytes, text);
}
