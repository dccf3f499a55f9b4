//! Entries that are no longer in memory: what waits for them while they are read off the loop.
//!
//! Appends to a follower leave in order: one whose entries are in memory waits for those before it that are being read. The
//! follower would refuse it, and everything on its way would be read and sent once more.

use std::collections::VecDeque;

use raftkv_protocol::peer::{Body, Message};
use raftkv_protocol::types::{Entry, EntryId, Index, NodeId, ShardId, Term};

use crate::storage::{Fetch, FetchError};

/// How many bytes of bodies one fetch for applying may bring.
const APPLY_BYTES_MAX: usize = 4 << 20;

/// Appends that are in order: to whom, in which term, on which link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    to: NodeId,
    term: Term,
    link: u32,
}

/// The stream of an append, and after which entry it goes on there. `None` for other messages.
fn place_of(message: &Message) -> Option<(Stream, EntryId)> {
    let Body::Append { link, prev, .. } = message.body else { return None };
    Some((Stream { to: message.to, term: message.term, link }, prev))
}

/// Where the entries of an append are.
#[derive(Debug)]
pub(super) enum Entries {
    /// In memory, or they were when it was put here.
    InMemory,
    /// They are being read; the tag of the fetch.
    Reading(u64),
    /// They were read.
    Read(Vec<Entry>),
}

/// An append that has not left.
#[derive(Debug)]
pub(super) struct Unsent {
    stream: Stream,
    prev: EntryId,
    pub(super) message: Message,
    pub(super) last: Index,
    pub(super) entries: Entries,
}

impl Unsent {
    pub(super) fn first(&self) -> Index {
        self.prev.index.next()
    }

    /// The part of it that goes on from this entry.
    fn behind(&self, prev: EntryId) -> Unsent {
        let message = going_on_from(prev, self.message.clone());
        Unsent { stream: self.stream, prev, message, last: self.last, entries: Entries::InMemory }
    }
}

/// An append that goes on from a later entry than it did.
pub(super) fn going_on_from(later: EntryId, mut message: Message) -> Message {
    if let Body::Append { prev, .. } = &mut message.body {
        *prev = later;
    }
    message
}

/// What a finished fetch is for.
#[derive(Debug)]
pub(super) enum Finished {
    /// Some append may leave now, see [`ColdReads::next_to_send`].
    Send,
    /// These are to be applied.
    Apply(Vec<Entry>),
    /// Nobody waits for it, or the entries are not there any more. Raft finds out by itself what the follower needs instead.
    Gone,
}

/// Where an append comes in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing that waits comes before it.
    First,
    /// Others come before it that have not left. They end with this entry, which may be one of its own: a probe is sent again with
    /// every beat, and the disk may take longer than that.
    Behind(Index),
}

/// See the module. There are no more appends in here than Raft lets be on their way.
#[derive(Debug, Default)]
pub(super) struct ColdReads {
    next_tag: u64,
    /// Those of one stream in order; the first of each is being read.
    unsent: VecDeque<Unsent>,
    /// The fetch for applying that is in flight.
    applies: Option<u64>,
}

impl ColdReads {
    /// Whether appends wait here.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// A follower has everything up to here, also what was to be sent to it. Whether something was, so that what comes next
    /// may leave.
    pub(super) fn matched(&mut self, to: NodeId, matched: Index) -> bool {
        let before = self.unsent.len();
        self.unsent.retain(|unsent| unsent.stream.to != to || unsent.last > matched);
        self.unsent.len() < before
    }

    /// Where a message comes that Raft wants sent now. Forgets appends that it wants sent no more: those of an earlier term or
    /// link to the same node, as no answer to them would count; and all that wait if this one goes on from before or behind them, as
    /// Raft has begun anew from elsewhere then.
    pub(super) fn place(&mut self, message: &Message) -> Place {
        let Some((stream, prev)) = place_of(message).filter(|_| !self.unsent.is_empty()) else { return Place::First };
        self.unsent.retain(|unsent| unsent.stream.to != stream.to || unsent.stream == stream);
        let mut own = self.unsent.iter().filter(|unsent| unsent.stream == stream);
        let Some(first) = own.next() else { return Place::First };
        let last = own.next_back().unwrap_or(first).last;
        if first.prev.index <= prev.index && prev.index <= last {
            return Place::Behind(last);
        }
        self.unsent.retain(|unsent| unsent.stream != stream);
        Place::First
    }

    /// An append of these entries waits, because they are not in memory or others come before it. Raft has bounded their bytes
    /// already. Returns what is to be read.
    pub(super) fn wait(
        &mut self,
        shard: ShardId,
        message: Message,
        (first, last): (Index, Index),
        is_in_memory: bool,
    ) -> Option<Fetch> {
        let (stream, prev) = place_of(&message)?;
        let fetch = (!is_in_memory).then(|| self.fetch(shard, first, last, usize::MAX));
        let entries = fetch.map_or(Entries::InMemory, |fetch| Entries::Reading(fetch.tag));
        self.unsent.push_back(Unsent { stream, prev, message, last, entries });
        fetch
    }

    /// An append that was taken out is to leave once its entries are read, before all others of its stream.
    pub(super) fn read_first(&mut self, shard: ShardId, unsent: Unsent) -> Fetch {
        let fetch = self.fetch(shard, unsent.first(), unsent.last, usize::MAX);
        self.unsent.push_front(Unsent { entries: Entries::Reading(fetch.tag), ..unsent });
        fetch
    }

    /// Takes an append that waits for nothing any more.
    pub(super) fn next_to_send(&mut self) -> Option<Unsent> {
        let may_leave = |at: &usize| {
            let unsent = &self.unsent[*at];
            let is_first = self.unsent.iter().take(*at).all(|before| before.stream != unsent.stream);
            is_first && !matches!(unsent.entries, Entries::Reading(_))
        };
        let at = (0..self.unsent.len()).find(may_leave)?;
        self.unsent.remove(at)
    }

    /// Applying waits.
    pub(super) fn apply(&mut self, shard: ShardId, first: Index, last: Index) -> Fetch {
        let fetch = self.fetch(shard, first, last, APPLY_BYTES_MAX);
        self.applies = Some(fetch.tag);
        fetch
    }

    /// Whether a fetch for applying is in flight.
    pub(super) fn applies(&self) -> bool {
        self.applies.is_some()
    }

    /// Takes a finished fetch; an error is a corrupt log.
    pub(super) fn finish(&mut self, fetch: &Fetch, result: Result<Vec<Entry>, FetchError>) -> Result<Finished, String> {
        let is_apply = self.applies.take_if(|tag| *tag == fetch.tag).is_some();
        let waits = |unsent: &Unsent| matches!(unsent.entries, Entries::Reading(tag) if tag == fetch.tag);
        let at = self.unsent.iter().position(waits);
        match (result, at) {
            (Err(FetchError::Corrupt(what)), _) => Err(what),
            (Err(FetchError::Gone), Some(at)) => {
                self.give_up(at);
                Ok(Finished::Gone)
            }
            (Ok(entries), Some(at)) => {
                self.was_read(at, entries);
                Ok(Finished::Send)
            }
            (Ok(entries), None) if is_apply => Ok(Finished::Apply(entries)),
            (Ok(_) | Err(FetchError::Gone), None) => Ok(Finished::Gone),
        }
    }

    /// Entries of an append were read. If the read ended early, at what was not durable yet or after as many batches as one may
    /// read from, the rest is an append of its own.
    fn was_read(&mut self, at: usize, entries: Vec<Entry>) {
        let unsent = &mut self.unsent[at];
        let upto = entries.last().map_or(unsent.last, |entry| entry.id.index);
        let rest = entries.last().filter(|_| upto < unsent.last).map(|entry| unsent.behind(entry.id));
        (unsent.entries, unsent.last) = (Entries::Read(entries), upto);
        if let Some(rest) = rest {
            self.unsent.insert(at + 1, rest);
        }
    }

    /// An append cannot leave: the follower would refuse those behind it.
    fn give_up(&mut self, at: usize) {
        let stream = self.unsent[at].stream;
        let behind = self.unsent.split_off(at);
        self.unsent.extend(behind.into_iter().filter(|unsent| unsent.stream != stream));
    }

    fn fetch(&mut self, shard: ShardId, first: Index, last: Index, bytes_max: usize) -> Fetch {
        self.next_tag += 1;
        Fetch { shard, tag: self.next_tag, first, last, bytes_max }
    }
}
