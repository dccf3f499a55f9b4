//! Scans that are put together from all shards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Answer, Code, Item, Page, Refusal, Scan};
use raftkv_protocol::types::{EntryId, Index, ShardId};

use crate::limits::Limits;

use super::message::OwnedCall;

/// How long a scan is waited for beyond its deadline: the shards' own refusals come then, from other cores a sweep later, and
/// tell more than that they have not answered.
const REFUSALS_GRACE: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct OwnedItem {
    key: Box<[u8]>,
    version: Index,
    value: Box<[u8]>,
}

/// How much of a page each shard is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Portion {
    /// Its even share and a margin: keys are hashed over the shards, so that this nearly always fills the page.
    Share,
    /// All of it, where shares did not fill the page: the keys lie in few shards.
    Whole,
}

impl Portion {
    fn items(self, items_max: usize, shards: u16) -> usize {
        let even = items_max.div_ceil(usize::from(shards));
        match self {
            // Three standard deviations, and a few more for short pages.
            Portion::Share => items_max.min(even + 3 * even.isqrt() + 4),
            Portion::Whole => items_max,
        }
    }
}

/// A scan over all shards: its parts so far.
#[derive(Debug)]
struct Gather {
    /// The scan as it was asked for.
    call: OwnedCall,
    portion: Portion,
    reverse: bool,
    items_max: usize,
    bytes_max: usize,
    missing: u16,
    items: Vec<OwnedItem>,
    /// Keys may follow after the items.
    more: bool,
    /// The last key of each shard whose page was cut: nothing behind the nearest of them is known to be complete.
    horizons: Vec<Box<[u8]>>,
    refused: Option<(Code, String)>,
}

/// The scans over all shards under way.
#[derive(Debug)]
pub(super) struct Gathers {
    next: u64,
    jobs_max: usize,
    jobs: BTreeMap<u64, Gather>,
    finished: Vec<Gather>,
}

/// A scan whose parts are all there.
#[derive(Debug)]
pub(super) struct Finished(Gather);

impl Gathers {
    /// None yet, and never more than so many at a time.
    pub(super) fn new(jobs_max: usize) -> Gathers {
        Gathers { next: 0, jobs_max, jobs: BTreeMap::new(), finished: Vec::new() }
    }

    /// Whether another scan may be started now.
    pub(super) fn has_room(&self) -> bool {
        self.jobs.len() < self.jobs_max
    }

    /// Starts a scan over `shards`; returns its name and how many items each shard is to be asked for.
    pub(super) fn start(
        &mut self,
        call: OwnedCall,
        scan: &Scan<'_>,
        shards: u16,
        limits: &Limits,
        portion: Portion,
    ) -> (u64, usize) {
        let asked = usize::try_from(scan.limit).unwrap_or(usize::MAX);
        let items_max = if asked == 0 { limits.scan_items_max } else { asked.min(limits.scan_items_max) };
        let gather = Gather {
            call,
            portion,
            reverse: scan.reverse,
            items_max,
            bytes_max: limits.scan_bytes_max,
            missing: shards,
            items: Vec::new(),
            more: false,
            horizons: Vec::new(),
            refused: None,
        };
        self.next += 1;
        self.jobs.insert(self.next, gather);
        (self.next, portion.items(items_max, shards))
    }

    /// One shard has answered.
    pub(super) fn part(&mut self, job: u64, shard: ShardId, _at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        let Some(gather) = self.jobs.get_mut(&job) else { return };
        match result {
            Ok(Answer::Page(page)) => gather.add(&page),
            Ok(_) => gather.refuse(Code::BadRequest, format!("shard {shard} answered something else")),
            Err(_) if mutant!("scan-without-a-shard") => {}
            Err(refusal) => gather.refuse(refusal.code, format!("shard {shard}: {}", refusal.message)),
        }
        gather.missing -= 1;
        if gather.missing == 0
            && let Some(mut gather) = self.jobs.remove(&job)
        {
            gather.merge();
            self.finished.push(gather);
        }
    }

    /// Whether a scan waits to be answered.
    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    pub(super) fn take_finished(&mut self) -> Vec<Finished> {
        self.finished.drain(..).map(Finished).collect()
    }

    /// The scans whose shards have not all answered, although they have had time to refuse.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_late = |gather: &Gather| gather.call.deadline + REFUSALS_GRACE <= now;
        for (_, mut gather) in self.jobs.extract_if(.., |_, gather| is_late(gather)) {
            gather.refuse(Code::Timeout, "not every shard answered in time".to_owned());
            self.finished.push(gather);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.finished.is_empty()
    }
}

impl Gather {
    /// A shard has not served its part. Of several refusals the first is told, but that a shard has not answered only if that is
    /// all there is to tell: a read has no effect of which the outcome would be unknown.
    fn refuse(&mut self, code: Code, message: String) {
        if self.refused.as_ref().is_none_or(|(known, _)| *known == Code::Timeout) {
            self.refused = Some((code, message));
        }
    }

    fn add(&mut self, page: &Page<'_>) {
        if page.more
            && let Some(last) = page.items.last()
        {
            self.horizons.push(last.key.into());
        }
        let own = |item: &Item<'_>| OwnedItem { key: item.key.into(), version: item.version, value: item.value.into() };
        self.items.extend(page.items.iter().map(own));
    }
}

impl Gather {
    /// Puts the parts in the order asked for, and cuts them where the page ends.
    fn merge(&mut self) {
        self.items.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if self.reverse {
            self.items.reverse();
        }
        let nearest_is_greatest = self.reverse && !mutant!("scan-cut-at-the-farthest");
        let horizon = if nearest_is_greatest { self.horizons.iter().max() } else { self.horizons.iter().min() };
        let is_beyond = |key: &[u8], horizon: &[u8]| if self.reverse { key < horizon } else { key > horizon };
        let beyond =
            |key: &[u8]| horizon.is_some_and(|horizon| is_beyond(key, horizon)) && !mutant!("scan-cut-ignored");
        let mut bytes = 0;
        let ends = |(at, item): (usize, &OwnedItem)| {
            bytes += item.key.len() + item.value.len();
            at == self.items_max || (bytes > self.bytes_max && at > 0) || beyond(&item.key)
        };
        let end = self.items.iter().enumerate().position(ends);
        self.more = end.is_some() || (horizon.is_some() && !mutant!("scan-ends-at-a-cut"));
        self.items.truncate(end.unwrap_or(self.items.len()));
    }
}

impl Finished {
    /// The scan as it was asked for.
    pub(super) fn call(&self) -> &OwnedCall {
        &self.0.call
    }

    /// Whether the page could be fuller if the shards were asked for more than their shares.
    pub(super) fn is_short(&self) -> bool {
        let gather = &self.0;
        gather.portion == Portion::Share
            && gather.refused.is_none()
            && gather.more
            && gather.items.len() < gather.items_max
            && gather.items.iter().map(|item| item.key.len() + item.value.len()).sum::<usize>() < gather.bytes_max / 2
    }

    /// Hands the page, or why there is none, to `reply`.
    pub(super) fn reply(&self, reply: impl FnOnce(Result<Answer<'_>, Refusal<'_>>)) {
        if let Some((code, message)) = &self.0.refused {
            return reply(Err(Refusal { code: *code, leader: None, message }));
        }
        let items = self.0.items.iter();
        let items = items.map(|item| Item { key: &item.key, version: item.version, value: &item.value }).collect();
        reply(Ok(Answer::Page(Page { items, more: self.0.more })));
    }
}
