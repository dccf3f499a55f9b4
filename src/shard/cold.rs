//! Entries that are no longer in memory: what waits for them while they are read off the loop.

use std::collections::BTreeMap;

use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{Entry, EntryId, Index, NodeId, ShardId, Term};

use crate::storage::{Fetch, FetchError};

/// How many bytes of bodies one fetch for applying may bring.
const APPLY_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
enum Purpose {
    Send(Message),
    Apply,
}

/// What tells an append from others: to whom, in which term, on which link, after which entry.
fn append_of(message: &Message) -> (NodeId, Term, Option<(u32, EntryId)>) {
    let place = if let Body::Append { link, prev, .. } = message.body { Some((link, prev)) } else { None };
    (message.to, message.term, place)
}

/// What a finished fetch is for.
#[derive(Debug)]
pub(super) enum Finished {
    /// This append waits for these entries.
    Send(Message, Vec<Entry>),
    /// These are to be applied.
    Apply(Vec<Entry>),
    /// The entries are not there any more. Raft finds out by itself what the follower needs instead.
    Gone,
}

/// The fetches in flight.
#[derive(Debug, Default)]
pub(super) struct ColdReads {
    next_tag: u64,
    waiting: BTreeMap<u64, Purpose>,
    applies: bool,
}

impl ColdReads {
    /// An append of these entries waits. Raft has bounded their bytes already. `None` if one from the same place on waits
    /// already:
    /// a probe is sent again with every beat, and the disk may take longer than that.
    pub(super) fn send(&mut self, shard: ShardId, message: Message, first: Index, last: Index) -> Option<Fetch> {
        let asked = append_of(&message);
        let waits = |purpose: &Purpose| matches!(purpose, Purpose::Send(waiting) if append_of(waiting) == asked);
        if self.waiting.values().any(waits) {
            return None;
        }
        let fetch = Fetch { shard, tag: 0, first, last, bytes_max: usize::MAX };
        Some(self.start(Purpose::Send(message), fetch))
    }

    /// Applying waits.
    pub(super) fn apply(&mut self, shard: ShardId, first: Index, last: Index) -> Fetch {
        self.applies = true;
        self.start(Purpose::Apply, Fetch { shard, tag: 0, first, last, bytes_max: APPLY_BYTES_MAX })
    }

    /// Whether a fetch for applying is in flight.
    pub(super) fn applies(&self) -> bool {
        self.applies
    }

    /// Takes a finished fetch; an error is a corrupt log.
    pub(super) fn finish(&mut self, fetch: &Fetch, result: Result<Vec<Entry>, FetchError>) -> Result<Finished, String> {
        let purpose = self.waiting.remove(&fetch.tag);
        if matches!(purpose, Some(Purpose::Apply)) {
            self.applies = false;
        }
        match (purpose, result) {
            (_, Err(FetchError::Corrupt(what))) => Err(what),
            (Some(Purpose::Send(message)), Ok(entries)) => Ok(Finished::Send(message, entries)),
            (Some(Purpose::Apply), Ok(entries)) => Ok(Finished::Apply(entries)),
            (_, Err(FetchError::Gone)) | (None, _) => Ok(Finished::Gone),
        }
    }

    fn start(&mut self, purpose: Purpose, mut fetch: Fetch) -> Fetch {
        self.next_tag += 1;
        fetch.tag = self.next_tag;
        self.waiting.insert(fetch.tag, purpose);
        fetch
    }
}
