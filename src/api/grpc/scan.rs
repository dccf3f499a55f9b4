//! The pages of a streaming scan, as messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use super::generated::raftkv::{Item, ScanResponse};
use super::status;
use crate::api::ask::{OwnedItem, OwnedScan};
use crate::api::node_handle::NodeHandle;
use crate::api::pages::Pages;
use crate::metrics::requests::Task;

/// A message for each page.
#[derive(Debug)]
pub struct Scanned {
    pages: Pages,
    node: Arc<NodeHandle>,
}

impl Scanned {
    /// The pages of a scan of at most `limit` items; 0 means as many as there are.
    pub fn new(node: Arc<NodeHandle>, scan: OwnedScan, limit: u64) -> Scanned {
        Scanned { pages: Pages::new(node.clone(), scan, limit), node }
    }
}

fn message(items: Vec<OwnedItem>) -> ScanResponse {
    let items = items.into_iter();
    let items = items.map(|OwnedItem { key, version, value }| Item { key, value, version: version.0 });
    ScanResponse { items: items.collect() }
}

impl Stream for Scanned {
    type Item = Result<ScanResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let page = std::task::ready!(self.pages.poll_next(context));
        Poll::Ready(
            page.map(|page| page.map(message).map_err(|refusal| status::of(refusal, &self.node, Some(Task::Scan)))),
        )
    }
}
