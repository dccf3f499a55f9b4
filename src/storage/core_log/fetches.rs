//! Entries that are no longer in memory: who waits for them, and what becomes of a fetch when they are discarded meanwhile.

use raftkv_protocol::types::{Entry, ShardId};

use super::FileLog;
use crate::storage::reader::{FetchAnswer, FetchJob};
use crate::storage::runs::Part;
use crate::storage::{Fetch, FetchError, Fetched};

/// Batches that one fetch reads from at most.
const FETCH_BATCHES_MAX: usize = 1024;
/// Parts of batches: a large one may have a hundred of them, and they are looked up on the loop.
const FETCH_PARTS_MAX: usize = 2 * FETCH_BATCHES_MAX;

/// Who waits for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Who asked the log for it.
    Caller,
    /// The log itself, to copy what it reads.
    Copy,
}

/// A fetch that is being read.
#[derive(Debug)]
pub(super) struct PendingFetch {
    pub(super) fetch: Fetch,
    pub(super) by: For,
    /// Some of what it reads was discarded meanwhile, or lies elsewhere now.
    pub(super) gone: bool,
}

impl FileLog {
    /// What these fetches of the shard ask for is not where they look for it.
    pub(super) fn void_fetches(&mut self, shard: ShardId, is_void: impl Fn(&Fetch) -> bool) {
        let is_void = |fetch: &Fetch| fetch.shard == shard && is_void(fetch);
        for pending in self.pending.values_mut().filter(|pending| is_void(&pending.fetch)) {
            pending.gone = true;
        }
        for finished in self.finished.iter_mut().filter(|finished| is_void(&finished.fetch)) {
            finished.result = Err(FetchError::Gone);
        }
    }

    /// Asks the reader for entries that are in the log.
    pub(super) fn read(&mut self, fetch: Fetch, by: For) -> u64 {
        let located = self.shards[&fetch.shard].locate(fetch.first, fetch.last);
        let (mut batches, mut latest) = (0, None);
        let parts = located
            .take_while(|part| {
                batches += usize::from(latest.replace(part.at) != Some(part.at));
                batches <= FETCH_BATCHES_MAX
            })
            .take(FETCH_PARTS_MAX)
            .map_while(|Part { at, first, last, extent }| Some(Part { at: self.places.get(at)?, first, last, extent }))
            .collect();
        self.last_fetch += 1;
        self.pending.insert(self.last_fetch, PendingFetch { fetch, by, gone: false });
        self.reader.fetch(FetchJob { id: self.last_fetch, fetch, parts });
        self.last_fetch
    }

    /// Picks up what the reader has read.
    pub(super) fn collect_reads(&mut self) {
        while let Some(FetchAnswer { id, mut fetched }) = self.reader.fetched() {
            let pending = self.pending.remove(&id).expect("only what is pending is read");
            if pending.gone {
                fetched.result = Err(FetchError::Gone);
            }
            match pending.by {
                For::Caller => self.finished.push_back(fetched),
                For::Copy => self.copy_read(id, fetched),
            }
        }
    }

    pub(super) fn finish_fetch(&mut self, fetch: Fetch, result: Result<Vec<Entry>, FetchError>) {
        self.finished.push_back(Fetched { fetch, result });
        (self.wake)();
    }
}
