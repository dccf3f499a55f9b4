//! The pages of a scan that goes on over as many of them as it takes, for the faces that stream it.

use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use raftkv_protocol::client::Code;

use super::ask::{OwnedAnswer, OwnedItem, OwnedOperation, OwnedRefusal, OwnedScan};
use super::node_handle::NodeHandle;

/// A page that is on its way, and whether keys may follow it.
type Asked = Pin<Box<dyn Future<Output = Result<(Vec<OwnedItem>, bool), OwnedRefusal>> + Send>>;

/// The pages of a scan, each read when somebody polls for it: hyper does when what came before has left, but for a rest, so
/// that a page that nobody takes is not read.
pub struct Pages {
    node: Arc<NodeHandle>,
    /// What is still to be read: the cursor is the last key that has come.
    scan: OwnedScan,
    /// How many items may still come.
    remaining: u64,
    has_begun: bool,
    /// All keys of the scan have come.
    is_complete: bool,
    asked: Option<Asked>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("scan", &self.scan).field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl Pages {
    /// The pages of a scan of at most `limit` items; 0 means as many as there are.
    #[must_use]
    pub fn new(node: Arc<NodeHandle>, scan: OwnedScan, limit: u64) -> Pages {
        let remaining = if limit == 0 { u64::MAX } else { limit };
        Pages { node, scan, remaining, has_begun: false, is_complete: false, asked: None }
    }

    /// The next page, which has at least one item; `None` when there are no more, or one was refused.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<OwnedItem>, OwnedRefusal>>> {
        if self.has_ended() {
            return Poll::Ready(None);
        }
        let mut asked = self.asked.take().unwrap_or_else(|| self.ask());
        let Poll::Ready(outcome) = asked.as_mut().poll(context) else {
            self.asked = Some(asked);
            return Poll::Pending;
        };
        Poll::Ready(match outcome {
            Ok((items, more)) => self.take(items, more).map(Ok),
            Err(refusal) => {
                self.remaining = 0;
                Some(Err(refusal))
            }
        })
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.remaining == 0
    }

    /// What the scan goes on behind, if keys may follow what has come.
    #[must_use]
    #[cfg_attr(not(feature = "rest"), expect(dead_code, reason = "a client of gRPC knows the last key"))]
    pub fn cursor(&self) -> Option<&[u8]> {
        (!self.is_complete).then_some(&self.scan.cursor[..])
    }

    fn ask(&self) -> Asked {
        if self.has_begun && self.node.health.is_stopping() {
            let words = "this node is being stopped; go on behind the last key, by way of another node";
            return Box::pin(ready(Err(OwnedRefusal::new(Code::NotReady, words))));
        }
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
    fn take(&mut self, items: Vec<OwnedItem>, more: bool) -> Option<Vec<OwnedItem>> {
        self.has_begun = true;
        self.is_complete = !more;
        self.remaining = if more { self.remaining.saturating_sub(items.len() as u64) } else { 0 };
        self.scan.cursor = items.last()?.key.clone();
        Some(items)
    }
}
