//! Requests that came over HTTP and are not answered yet. Whoever waits for one is told by a function, so that nothing
//! here knows of futures.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use raftkv_protocol::client::{Answer, Refusal};
use raftkv_protocol::types::EntryId;

use crate::metrics::figures::Figures;

use super::message::ExchangeId;

/// Is told what has become of a request.
pub(super) type Listener = Box<dyn FnOnce(EntryId, Result<Answer<'_>, Refusal<'_>>)>;

/// Is told the node's figures, or why there are none.
pub(super) type Scraper = Box<dyn FnOnce(Result<Arc<Figures>, Refusal<'_>>)>;

/// The open exchanges of a core.
#[derive(Default)]
pub(super) struct Exchanges {
    next: u64,
    open: BTreeMap<ExchangeId, Listener>,
    scrapes: BTreeMap<ExchangeId, Scraper>,
}

impl fmt::Debug for Exchanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanges").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

impl Exchanges {
    /// A name for a request, which none had before.
    pub(super) fn name(&mut self) -> ExchangeId {
        self.next += 1;
        ExchangeId(self.next)
    }

    /// Remembers who waits for a request's outcome.
    pub(super) fn open(&mut self, exchange: ExchangeId, listener: Listener) {
        self.open.insert(exchange, listener);
    }

    /// Tells whoever waits.
    pub(super) fn close(&mut self, exchange: ExchangeId, at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        if let Some(listener) = self.open.remove(&exchange) {
            listener(at, result);
        } else if let (Some(scraper), Err(refusal)) = (self.scrapes.remove(&exchange), result) {
            scraper(Err(refusal));
        }
    }

    /// Remembers who waits for the node's figures.
    pub(super) fn open_scrape(&mut self, exchange: ExchangeId, scraper: Scraper) {
        self.scrapes.insert(exchange, scraper);
    }

    /// Tells them.
    pub(super) fn show(&mut self, exchange: ExchangeId, figures: Arc<Figures>) {
        if let Some(scraper) = self.scrapes.remove(&exchange) {
            scraper(Ok(figures));
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.scrapes.is_empty()
    }
}
