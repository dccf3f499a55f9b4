//! Where the entries of a shard are: runs of consecutive entries that lie in one place, which is a batch or a segment, or in
//! one part of it.
//!
//! Entries that are written again, so that an older place is not needed any more (see [`Record::Copy`]), end up in later
//! places than the entries behind them. Everywhere else a later entry never lies in an earlier place.
//!
//! Shards share their places: of each run it may be known which bytes of the place hold it, so that whoever reads it
//! reads no more.
//!
//! [`Record::Copy`]: super::record::Record::Copy

use std::collections::VecDeque;
use std::ops::Range;

use raftkv_protocol::types::Index;

/// A run whose bytes are known is not made longer than this, whatever lies in the same place behind it: of a large batch
/// too only what is wanted is read.
const EXTENT_BYTES_MAX: u32 = 64 << 10;

/// Which bytes of a place hold a run, counted from where the place begins. They may hold other records besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    from: u32,
    end: u32,
}

impl Extent {
    /// Not known: all bytes of the place have to be read.
    pub(crate) const WHOLE: Extent = Extent { from: 0, end: u32::MAX };

    pub(crate) fn new(bytes: Range<usize>) -> Extent {
        match (u32::try_from(bytes.start), u32::try_from(bytes.end)) {
            (Ok(from), Ok(end)) => Extent { from, end },
            _ => Extent::WHOLE,
        }
    }

    /// Those of the bytes that lie within these.
    pub(crate) fn within(self, range: Range<usize>) -> Range<usize> {
        (self.from as usize).clamp(range.start, range.end)..(self.end as usize).clamp(range.start, range.end)
    }

    fn bytes(self) -> u32 {
        self.end - self.from
    }

    /// What covers both.
    fn with(self, other: Extent) -> Extent {
        Extent { from: self.from.min(other.from), end: self.end.max(other.end) }
    }
}

/// Consecutive entries of one shard in one place: from here to the next run, or to the shard's last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run<T> {
    first: Index,
    at: T,
    extent: Extent,
}

/// Some of the entries of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<T> {
    /// The place.
    pub(crate) at: T,
    /// The first entry.
    pub(crate) first: Index,
    /// The last entry.
    pub(crate) last: Index,
    /// Where in the place the run lies.
    pub(crate) extent: Extent,
}

/// See the module. What the last entry is, and the one before the first, is known to the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs<T> {
    /// By index.
    runs: VecDeque<Run<T>>,
    /// Behind the run that holds the entry after this one, places do not go back.
    ordered_after: Index,
}

impl<T> Default for Runs<T> {
    fn default() -> Runs<T> {
        Runs { runs: VecDeque::new(), ordered_after: Index(0) }
    }
}

impl<T: Copy + Ord> Runs<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The first entry.
    pub(crate) fn first(&self) -> Option<Index> {
        self.runs.front().map(|run| run.first)
    }

    /// Where the last entry is.
    pub(crate) fn last_place(&self) -> Option<T> {
        self.runs.back().map(|run| run.at)
    }

    /// The earliest place that holds any of them.
    pub(crate) fn oldest(&self) -> Option<T> {
        let unordered = self.runs.iter().take_while(|run| run.first.prev() <= self.ordered_after);
        unordered.chain(self.runs.front()).map(|run| run.at).min()
    }

    /// Adds the entry behind the last.
    pub(crate) fn push(&mut self, index: Index, at: T, extent: Extent) {
        let run = self.runs.back_mut().filter(|run| run.at == at);
        match run.map(|run| (run.extent.with(extent), run)) {
            Some((longer, run)) if longer.bytes() <= EXTENT_BYTES_MAX || longer == run.extent => run.extent = longer,
            _ => self.runs.push_back(Run { first: index, at, extent }),
        }
    }

    /// Forgets everything from `from` on.
    pub(crate) fn truncate(&mut self, from: Index) {
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
    }

    /// Forgets everything up to `start`; `last` is the last entry.
    pub(crate) fn compact(&mut self, start: Index, last: Index) {
        if start >= last {
            return self.clear();
        }
        // The last of those that begin before holds what follows. The others go all at once, which takes no longer than one.
        let gone = self.runs.partition_point(|run| run.first.prev() <= start).saturating_sub(1);
        self.runs.drain(..gone);
        if let Some(front) = self.runs.front_mut() {
            front.first = front.first.max(start.next());
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Runs::default();
    }

    /// The run that holds an entry, by its position.
    fn position(&self, index: Index) -> Option<usize> {
        self.runs.partition_point(|run| run.first <= index).checked_sub(1)
    }

    /// Where the entries from `first` to `last` are, in order. `end` is the last entry of all.
    pub(crate) fn parts(&self, first: Index, last: Index, end: Index) -> impl Iterator<Item = Part<T>> {
        let begin = self.position(first).unwrap_or(0);
        let end_of = move |at: usize| self.runs.get(at + 1).map_or(end, |next| next.first.prev());
        (begin..self.runs.len())
            .map(move |at| Part {
                at: self.runs[at].at,
                first: self.runs[at].first.max(first),
                last: end_of(at).min(last),
                extent: self.runs[at].extent,
            })
            .take_while(move |part| part.first <= last)
    }

    /// The entries from `first` to `last` are where `by` says. `end` is the last entry of all.
    pub(crate) fn replace(&mut self, first: Index, last: Index, mut by: Runs<T>, end: Index) {
        let mut runs = VecDeque::with_capacity(self.runs.len() + by.len() + 1);
        runs.extend(self.runs.iter().take_while(|run| run.first < first));
        runs.append(&mut by.runs);
        if last < end {
            let behind = self.position(last.next()).map(|at| Run { first: last.next(), ..self.runs[at] });
            runs.extend(behind);
            runs.extend(self.runs.iter().filter(|run| run.first.prev() > last));
        }
        self.runs = runs;
        self.ordered_after = self.ordered_after.max(last);
    }
}

/// Where the entries of a shard are, as its records tell it one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Whereabouts<T> {
    /// Of the entries in the log.
    live: Runs<T>,
    /// Of copies, which mean nothing until they are complete.
    copies: Runs<T>,
    /// The last copy, if there are any.
    copies_last: Index,
}

impl<T> Default for Whereabouts<T> {
    fn default() -> Whereabouts<T> {
        Whereabouts { live: Runs::default(), copies: Runs::default(), copies_last: Index(0) }
    }
}

impl<T: Copy + Ord> Whereabouts<T> {
    pub(crate) fn live(&self) -> &Runs<T> {
        &self.live
    }

    /// An entry, which discards what was at and behind its index.
    pub(crate) fn entry(&mut self, index: Index, at: T) {
        self.live.truncate(index);
        self.live.push(index, at, Extent::WHOLE);
        if index <= self.copies_last {
            self.copies.truncate(index);
            self.copies_last = index.prev();
        }
    }

    /// A copy. Returns whether it follows those before it: otherwise an attempt to copy was given up, and a new one
    /// begins.
    pub(crate) fn copy(&mut self, index: Index, at: T) -> bool {
        let follows = !self.copies.is_empty() && index.prev() == self.copies_last;
        if !follows {
            self.copies.clear();
        }
        self.copies.push(index, at, Extent::WHOLE);
        self.copies_last = index;
        follows
    }

    /// The first copy that is not discarded, if there is any.
    pub(crate) fn copies_first(&self) -> Option<Index> {
        self.copies.first()
    }

    /// Which entries there are copies of, from `first` to `last`, in a log that begins after `start`.
    pub(crate) fn copied(&self, start: Index, first: Index, last: Index) -> Option<(Index, Index)> {
        let after_start = Index(start.0.checked_add(1)?);
        let range = (self.copies.first()?.max(first).max(after_start), self.copies_last.min(last));
        (range.0 <= range.1).then_some(range)
    }

    /// The copies from `first` to `last` take the place of the entries, whose last is `end`.
    pub(crate) fn use_copies(&mut self, (first, last): (Index, Index), end: Index) {
        let mut copies = std::mem::take(&mut self.copies);
        copies.compact(first.prev(), self.copies_last);
        if last < self.copies_last {
            copies.truncate(last.next());
        }
        self.live.replace(first, last, copies, end);
    }

    /// Forgets the copies.
    pub(crate) fn drop_copies(&mut self) {
        self.copies.clear();
    }

    /// The log begins after `start`; `last` is the last entry.
    pub(crate) fn compact(&mut self, start: Index, last: Index) {
        self.live.compact(start, last);
    }

    /// The log is empty.
    pub(crate) fn reset(&mut self) {
        *self = Whereabouts::default();
    }

    /// The same by other names of the places, in the same order.
    pub(crate) fn map<U>(&self, name: impl Fn(T) -> U) -> Whereabouts<U>
    where
        U: Copy + Ord,
    {
        let map = |runs: &Runs<T>| {
            let mut mapped = Runs { runs: VecDeque::new(), ordered_after: runs.ordered_after };
            runs.runs.iter().for_each(|run| mapped.push(run.first, name(run.at), run.extent));
            mapped
        };
        Whereabouts { live: map(&self.live), copies: map(&self.copies), copies_last: self.copies_last }
    }

    /// Gives up the copies and everything but where the entries are.
    pub(crate) fn into_live(self) -> Runs<T> {
        self.live
    }
}
