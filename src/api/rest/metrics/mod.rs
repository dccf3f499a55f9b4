//! `GET /metrics`: what the node knows of itself, as Prometheus and OpenMetrics write it.
//!
//! The cores count in plain integers; a scrape gathers and adds them, and only then are they metrics. `docs/metrics.md`
//! lists them all. Their names, help and units stand here, in the files of this folder, and nowhere else.

mod counted;
mod node;
mod page;
mod requests;
mod shards;

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use raftkv_protocol::client::Code;

use super::{Rest, params};
use crate::api::ask::OwnedRefusal;
use crate::metrics::figures::{Figures, ProcessFigures};
use page::Page;

/// What OpenMetrics calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// In which text metrics are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// OpenMetrics for whoever names it, Prometheus for everybody else.
    fn accepted(headers: &HeaderMap) -> Format {
        if params::accepts(headers, OPEN_METRICS) { Format::OpenMetrics } else { Format::Prometheus }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => OPEN_METRICS_TYPE,
        }
    }

    fn write(self, shown: Shown) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(shown));
        let mut written = String::new();
        match self {
            Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
            Format::OpenMetrics => text::encode(&mut written, &registry)?,
        }
        Ok(written)
    }
}

/// All that is shown.
#[derive(Debug)]
struct Shown {
    figures: Arc<Figures>,
    process: ProcessFigures,
}

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (figures, page) = (&self.figures, &mut Page::new(encoder));
        node::write(figures, &self.process, page)?;
        requests::write(&figures.requests, page)?;
        counted::write(&figures.counters, page)?;
        shards::write(figures, page)
    }
}

/// `GET /metrics`.
pub async fn get(State(rest): State<Rest>, request: Request) -> Result<Response, OwnedRefusal> {
    params::none(request.uri().query())?;
    let format = Format::accepted(request.headers());
    let Some(share) = rest.scrapes.enter() else {
        let words =
            "as many requests for metrics are served as may be (--core-scrapes-max of the server); try again later";
        return Err(OwnedRefusal::new(Code::Overloaded, words));
    };
    let text = text(&rest, rest.figures().await?, format);
    let mut response = Response::new(Body::from(share.until_sent(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}

/// The figures as text, which all who have asked for them together have in common.
fn text(rest: &Rest, figures: Arc<Figures>, format: Format) -> Bytes {
    let write = || {
        let shown = Shown { figures: Arc::clone(&figures), process: rest.health.process() };
        let written = format.write(shown).expect("text can be written to memory");
        rest.replies.counted(written.into())
    };
    let text = match format {
        Format::Prometheus => &figures.texts.prometheus,
        Format::OpenMetrics => &figures.texts.open_metrics,
    };
    text.get_or_init(write).clone()
}

#[cfg(test)]
mod metrics_test;
