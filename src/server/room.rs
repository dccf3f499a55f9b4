//! A core's room for replies, and the reads that wait for it: first come, first served. A long scan would otherwise
//! wait for as long as shorter reads find room beside what is under way.
//!
//! Whoever waits longest gets room in the end: nobody else's read is taken in meanwhile, those under way are answered
//! by their deadlines, and a read beside which no other is under way is taken in whatever it may weigh.

use std::collections::BTreeMap;

use crate::limits::Limits;

use super::budget::Debt;
use super::message::{Charge, Reader};

/// A place in the queue: who came first has the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// Whether a core has room for another read's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It has.
    Now,
    /// It will have when reads that are under way are answered: most replies are shorter than they were taken to be.
    /// Until then the read waits in this place.
    Later(Place),
    /// Its clients leave too much unread.
    No,
}

/// A read that waits: it is still with whoever has asked, and may weigh so many bytes.
#[derive(Debug)]
struct Waiting {
    reader: Reader,
    bytes: usize,
}

/// The reply bytes of a core, on all its connections.
#[derive(Debug)]
pub(super) struct ReplyBytes {
    max: usize,
    /// Wait for their readers.
    unread: usize,
    /// May come.
    charged: usize,
    /// How many reads are under way.
    reads: usize,
    queue: BTreeMap<Place, Waiting>,
    /// What the reads in the queue may weigh together.
    queued: usize,
    next: Place,
    /// Whose turn it is, and the place that its read had in the queue until that is taken in.
    called: Option<(Reader, Option<Place>)>,
}

impl ReplyBytes {
    pub(super) fn new(limits: &Limits) -> ReplyBytes {
        ReplyBytes {
            max: limits.core_reply_bytes_max,
            unread: 0,
            charged: 0,
            reads: 0,
            queue: BTreeMap::new(),
            queued: 0,
            next: Place(0),
            called: None,
        }
    }

    /// A connection has `waiting` bytes unread, greetings and last words included; `counted` is what was counted of
    /// them before.
    pub(super) fn count_unread(&mut self, counted: &mut usize, waiting: usize) {
        self.unread = self.unread.saturating_sub(*counted) + waiting;
        *counted = waiting;
    }

    /// The bytes that wait for their readers, as they are counted.
    #[cfg(test)]
    pub(super) fn unread_bytes(&self) -> usize {
        self.unread
    }

    /// A request was taken in.
    pub(super) fn add(&mut self, charge: Charge) {
        self.charged += charge.bytes();
        self.reads += usize::from(charge.is_read());
    }

    /// A request is answered.
    pub(super) fn settle(&mut self, charge: Charge) {
        self.charged = self.charged.saturating_sub(charge.bytes());
        self.reads = self.reads.saturating_sub(usize::from(charge.is_read()));
    }

    /// The answers that a connection waits for will be for nobody.
    pub(super) fn write_off(&mut self, debt: &Debt) {
        self.charged = self.charged.saturating_sub(debt.charged_bytes());
        self.reads = self.reads.saturating_sub(debt.reads());
    }

    /// Whether a read may be taken in.
    pub(super) fn ask(&mut self, reader: Reader, bytes: usize) -> Room {
        if self.is_overloaded() {
            return Room::No;
        }
        let (is_called, place) = match &mut self.called {
            Some((called, place)) if *called == reader => (true, place.take()),
            _ => (false, None),
        };
        let has_room = if place.is_some() || self.queue.is_empty() {
            self.fits(bytes)
        } else {
            // Who was called goes on for as long as that takes nobody's room, or a full pipeline would wait again
            // after each of its reads.
            is_called && self.unread + self.charged + self.queued + bytes <= self.max
        };
        if has_room {
            return Room::Now;
        }
        // What was called keeps its place if the longest entry of its shard has grown meanwhile.
        let place = place.unwrap_or_else(|| self.new_place());
        self.queue.insert(place, Waiting { reader, bytes });
        self.queued += bytes;
        Room::Later(place)
    }

    /// Whether the read that waits longest need not wait any more: there is room for it, or it is to be refused.
    pub(super) fn is_due(&self) -> bool {
        let first = self.queue.first_key_value();
        first.is_some_and(|(_, waiting)| self.is_overloaded() || self.fits(waiting.bytes))
    }

    /// Takes the read that waits longest out of the queue if it is due and came before `end`: its reader is to ask
    /// for it again now, and may ask for more until the next is called.
    pub(super) fn call(&mut self, end: Place) -> Option<Reader> {
        self.called = None;
        let place = *self.queue.first_key_value()?.0;
        if place >= end || !self.is_due() {
            return None;
        }
        let reader = self.leave(place)?;
        self.called = Some((reader, Some(place)));
        Some(reader)
    }

    /// The place that the next read would have.
    pub(super) fn end(&self) -> Place {
        self.next
    }

    /// How many reads wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The read in this place waits no longer.
    pub(super) fn leave(&mut self, place: Place) -> Option<Reader> {
        let Waiting { reader, bytes } = self.queue.remove(&place)?;
        self.queued -= bytes;
        Some(reader)
    }

    fn new_place(&mut self) -> Place {
        let place = self.next;
        self.next.0 += 1;
        place
    }

    fn is_overloaded(&self) -> bool {
        self.unread >= self.max
    }

    /// Whether there is room for a read that nobody is before. One is always taken in, or what may weigh more than is
    /// left beside what lies unread would wait for ever, and all behind it.
    fn fits(&self, bytes: usize) -> bool {
        self.reads == 0 || self.unread + self.charged + bytes <= self.max
    }
}
