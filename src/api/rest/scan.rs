//! `GET /v1/kv`: the keys of a range, as one document however many pages it takes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::params::AskedScan;
use super::{Rest, params, problem};
use crate::api::ask::{OwnedItem, OwnedRefusal};
use crate::api::pages::Pages;
use crate::metrics::requests::Task;

/// Room for everything but key and value of an item, in bytes.
const ITEM_BYTES: usize = 64;

/// The keys. Whether there are any is known before the response begins; what ends it stands behind the items.
pub async fn get(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    let AskedScan { scan, is_page } = params::scan(request.uri().query())?;
    let limit = scan.limit.into();
    let mut pages = Pages::new(rest.clone(), scan, limit);
    let first = poll_fn(|context| pages.poll_next(context)).await.transpose()?.unwrap_or_default();
    let ends = is_page || pages.has_ended();
    let mut text = r#"{"items":["#.to_owned();
    write_items(&first, &mut text);
    let body = if ends {
        write_end(&pages, None, &mut text);
        Body::from(rest.replies.counted(text.into()))
    } else {
        let begun = Some(rest.replies.counted(text.into()));
        Body::new(Document { rest, pages, begun, has_ended: false })
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A document of several pages.
struct Document {
    rest: Rest,
    pages: Pages,
    /// The first page, until it is taken.
    begun: Option<Bytes>,
    has_ended: bool,
}

impl Document {
    /// The text of a page, or of what ends the document.
    fn text(&mut self, page: Option<Result<Vec<OwnedItem>, OwnedRefusal>>) -> Bytes {
        let mut text = String::new();
        let mut refusal = None;
        match page {
            Some(Ok(items)) => {
                text.push(',');
                write_items(&items, &mut text);
            }
            Some(Err(refused)) => refusal = Some(refused),
            None => {}
        }
        if self.pages.has_ended() {
            self.has_ended = true;
            write_end(&self.pages, refusal.as_ref(), &mut text);
        }
        if let Some(refused) = refusal.filter(|refused| !refused.is_counted) {
            self.rest.backend.refused(self.rest.face, Task::Scan, refused.code);
        }
        self.rest.replies.counted(text.into())
    }
}

impl http_body::Body for Document {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let page = ready!(self.pages.poll_next(context));
        Poll::Ready(Some(Ok(Frame::data(self.text(page)))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// They may be long, so that they are written as text at once, without a tree of it.
fn write_items(items: &[OwnedItem], text: &mut String) {
    let weight = |item: &OwnedItem| ITEM_BYTES + (item.key.len() + item.value.len()).div_ceil(3) * 4;
    text.reserve(ITEM_BYTES + items.iter().map(weight).sum::<usize>());
    for (at, item) in items.iter().enumerate() {
        text.push_str(if at == 0 { r#"{"key":""# } else { r#",{"key":""# });
        encode(&item.key, text);
        text.push_str(r#"","value":""#);
        encode(&item.value, text);
        text.push_str(r#"","version":"#);
        text.push_str(&item.version.to_string());
        text.push('}');
    }
}

/// Where the scan goes on, and why it has not.
fn write_end(pages: &Pages, refusal: Option<&OwnedRefusal>, text: &mut String) {
    text.push_str(r#"],"cursor":"#);
    match pages.cursor() {
        Some(key) => text.push_str(&format!("\"{}\"", params::cursor_behind(key))),
        None => text.push_str("null"),
    }
    if let Some(refusal) = refusal {
        text.push_str(r#","error":"#);
        text.push_str(&problem::within_an_answer(refusal).to_json());
    }
    text.push('}');
}

/// Base64 needs no escapes in JSON.
fn encode(bytes: &Bytes, text: &mut String) {
    STANDARD.encode_string(bytes, text);
}
