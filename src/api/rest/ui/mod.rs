//! `GET /`: a page that shows a person how the node and its cluster do, and `GET /v1/ui`, what it has to know.
//!
//! The page is one file without outside resources, put together here of its parts at compile time: the plotting library
//! (`src/api/rest/ui/uplot`, under its own licence), and markup, style and scripts (`src/api/rest/ui/page`). It asks the node
//! that it came from what every client can ask. Its policy lets the browser run these scripts and no others, and talk to
//! nobody else.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::body::short_json;

#[cfg(test)]
mod ui_test;

/// The style of the page.
const STYLE: &str = concat!("\n", include_str!("uplot/uPlot.min.css"), "\n", include_str!("page/style.css"));
/// What draws.
const LIBRARY: &str = concat!("\n", include_str!("uplot/uPlot.iife.min.js"));
/// The page's own scripts, which share one scope.
const SCRIPT: &str = concat!(
    "\n",
    include_str!("page/node.js"),
    include_str!("page/metrics.js"),
    include_str!("page/elements.js"),
    include_str!("page/tables.js"),
    include_str!("page/plots.js"),
    include_str!("page/events.js"),
    include_str!("page/keys.js"),
    include_str!("page/main.js"),
);
/// What stands around them.
const HEAD: &str = include_str!("page/head.html");
const BODY: &str = include_str!("page/body.html");
const LICENCE: &str = concat!("<!--\nThe plots are drawn by uPlot.\n\n", include_str!("uplot/LICENSE"), "-->\n");

/// The SHA-256 of style, library and script, as a policy names them; a test holds them right.
const HASHES: [&str; 3] = [include_str!("hashes/style"), include_str!("hashes/library"), include_str!("hashes/script")];

/// The page, and what stays the same for all who ask for it.
#[derive(Debug)]
struct Page {
    text: String,
    tag: HeaderValue,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let text = format!(
        "{HEAD}<style>{STYLE}</style>\n</head>\n{LICENCE}{BODY}<script>{LIBRARY}</script>\n<script>{SCRIPT}</script>\n\
         </body>\n</html>\n"
    );
    let tag = format!("\"{:032x}\"", xxh3_128(text.as_bytes()));
    Page { tag: header(tag), policy: header(policy()), text }
});

fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("what is put together here can stand in a header")
}

/// What the browser may do for the page. Nothing is loaded but what is in it; only the node itself is asked.
fn policy() -> String {
    let [style, library, script] = HASHES.map(str::trim_end);
    format!(
        "default-src 'none'; script-src '{library}' '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// What the page has to know and no other answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Whether it offers to write keys.
    pub write: bool,
    /// What a sync of the log may take before it counts as slow, in milliseconds.
    pub slow_sync_ms: u64,
}

/// The paths of the page.
pub fn router(settings: Settings) -> Router {
    Router::new()
        .route("/", get(page).fallback(super::no_method))
        .route("/v1/ui", get(self::settings).fallback(super::no_method))
        .with_state(settings)
}

/// `GET /v1/ui`.
async fn settings(State(settings): State<Settings>) -> Response {
    short_json(&settings)
}

/// `GET /`. A browser keeps the page, and asks each time whether it is still the same.
async fn page(asked: HeaderMap) -> Response {
    let has_it = asked.get_all(IF_NONE_MATCH).iter().any(|tags| {
        let mut tags = tags.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.any(|tag| tag.strip_prefix(b"W/").unwrap_or(tag) == PAGE.tag.as_bytes())
    });
    let mut response = Response::new(if has_it { Body::empty() } else { Body::from(PAGE.text.as_str()) });
    if has_it {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fixed = HeaderValue::from_static;
    let headers: [(HeaderName, HeaderValue); 8] = [
        (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (ETAG, PAGE.tag.clone()),
        (CACHE_CONTROL, fixed("no-cache")),
        (CONTENT_SECURITY_POLICY, PAGE.policy.clone()),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (X_FRAME_OPTIONS, fixed("DENY")),
        (REFERRER_POLICY, fixed("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), fixed("same-origin")),
    ];
    response.headers_mut().extend(headers);
    response
}
