//! The pages of a streaming scan.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use super::generated::raftkv::{Item, ScanResponse};
use super::status;
use crate::api::ask::{OwnedAnswer, OwnedItem, OwnedOperation, OwnedRefusal, OwnedScan};
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// A page that is on its way.
type Page = Pin<Box<dyn Future<Output = Result<(Vec<OwnedItem>, bool), OwnedRefusal>> + Send>>;

/// The pages of a scan, each read when the stream is polled for it: hyper does when there is room for what comes, so that
/// one that nobody takes is not read.
pub struct Pages {
    node: NodeHandle,
    scan: OwnedScan,
    /// How many items may still come.
    remaining: u64,
    page: Option<Page>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("scan", &self.scan).field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl Pages {
    /// The pages of a scan of at most `limit` items.
    pub fn new(node: NodeHandle, scan: OwnedScan, limit: u64) -> Pages {
        Pages { node, scan, remaining: limit, page: None }
    }

    fn ask(&self) -> Page {
        let node = self.node.clone();
        let limit = u32::try_from(self.remaining).unwrap_or(u32::MAX);
        let scan = OwnedScan { limit, ..self.scan.clone() };
        Box::pin(async move {
            let (_, answer) = node.ask(OwnedOperation::Scan(scan)).await?;
            let OwnedAnswer::Page { items, more } = answer else { return Err(node.unexpected()) };
            Ok((items, more))
        })
    }

    /// Takes note of what has come.
    fn take(&mut self, items: Vec<OwnedItem>, more: bool) -> Option<ScanResponse> {
        let last = items.last()?;
        self.remaining = if more { self.remaining.saturating_sub(items.len() as u64) } else { 0 };
        self.scan.cursor = last.key.clone();
        let items = items.into_iter();
        let items = items.map(|OwnedItem { key, version, value }| Item { key, value, version: version.0 });
        Some(ScanResponse { items: items.collect() })
    }
}

impl Stream for Pages {
    type Item = Result<ScanResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let mut page = self.page.take().unwrap_or_else(|| self.ask());
        let Poll::Ready(outcome) = page.as_mut().poll(context) else {
            self.page = Some(page);
            return Poll::Pending;
        };
        Poll::Ready(match outcome {
            Ok((items, more)) => self.take(items, more).map(Ok),
            Err(refusal) => {
                self.remaining = 0;
                Some(Err(status::of(refusal, &self.node, Some(Task::Scan))))
            }
        })
    }
}
