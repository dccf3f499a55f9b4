//! Answers that are put together from several parts: a scan from all shards, a status from all cores.

use std::collections::BTreeMap;
use std::time::Instant;

use raftkv_protocol::client::{Answer, Code, Item, Page, Refusal, Scan, ShardStatus, Status};
use raftkv_protocol::types::{EntryId, Index, ShardId};

use crate::limits::Limits;
use crate::metrics::Counters;

use super::message::ReplyTo;
use super::node::Node;

/// Scans over all shards under way at once per core; each may hold a page of every shard. More wait their turn.
const SCANS_MAX: usize = 16;

#[derive(Debug)]
struct OwnedItem {
    key: Box<[u8]>,
    version: Index,
    value: Box<[u8]>,
}

/// A scan over all shards: its parts so far.
#[derive(Debug)]
struct Gather {
    to: ReplyTo,
    deadline: Instant,
    reverse: bool,
    items_max: usize,
    bytes_max: usize,
    missing: u16,
    items: Vec<OwnedItem>,
    /// The last key of each shard whose page was cut: nothing behind the nearest of them is known to be complete.
    horizons: Vec<Box<[u8]>>,
    refused: Option<(Code, String)>,
}

/// The scans over all shards under way.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    next: u64,
    jobs: BTreeMap<u64, Gather>,
    finished: Vec<Gather>,
}

/// A scan whose parts are all there.
#[derive(Debug)]
pub(super) struct Finished(Gather);

impl Gathers {
    /// Whether another scan may be started now.
    pub(super) fn has_room(&self) -> bool {
        self.jobs.len() < SCANS_MAX
    }

    /// Starts a scan over `shards`.
    pub(super) fn start(
        &mut self,
        to: ReplyTo,
        scan: &Scan<'_>,
        shards: u16,
        limits: &Limits,
        deadline: Instant,
    ) -> u64 {
        let asked = usize::try_from(scan.limit).unwrap_or(usize::MAX);
        let gather = Gather {
            to,
            deadline,
            reverse: scan.reverse,
            items_max: if asked == 0 { limits.scan_items_max } else { asked.min(limits.scan_items_max) },
            bytes_max: limits.scan_bytes_max,
            missing: shards,
            items: Vec::new(),
            horizons: Vec::new(),
            refused: None,
        };
        self.next += 1;
        self.jobs.insert(self.next, gather);
        self.next
    }

    /// One shard has answered.
    pub(super) fn part(&mut self, job: u64, shard: ShardId, _at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        let Some(gather) = self.jobs.get_mut(&job) else { return };
        match result {
            Ok(Answer::Page(page)) => gather.add(&page),
            Ok(_) => gather.refused = Some((Code::BadRequest, format!("shard {shard} answered something else"))),
            Err(refusal) => gather.refused = Some((refusal.code, format!("shard {shard}: {}", refusal.message))),
        }
        gather.missing -= 1;
        if gather.missing == 0
            && let Some(gather) = self.jobs.remove(&job)
        {
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

    pub(super) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        self.jobs.extract_if(.., |_, gather| gather.deadline <= now).map(|(_, gather)| gather.to).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.finished.is_empty()
    }
}

impl Gather {
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

impl Finished {
    /// Who asked.
    pub(super) fn to(&self) -> ReplyTo {
        self.0.to
    }

    /// Merges the parts into one page in the order asked for, and hands it to `reply`.
    pub(super) fn reply(mut self, reply: impl FnOnce(Result<Answer<'_>, Refusal<'_>>)) {
        let gather = &mut self.0;
        if let Some((code, message)) = &gather.refused {
            return reply(Err(Refusal { code: *code, leader: None, message }));
        }
        gather.items.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if gather.reverse {
            gather.items.reverse();
        }
        let horizon = if gather.reverse { gather.horizons.iter().max() } else { gather.horizons.iter().min() };
        let beyond = |key: &[u8]| {
            horizon.is_some_and(|horizon| if gather.reverse { key < &**horizon } else { key > &**horizon })
        };
        let mut page = Page { items: Vec::new(), more: horizon.is_some() };
        let mut bytes = 0;
        for item in &gather.items {
            bytes += item.key.len() + item.value.len();
            let full = page.items.len() == gather.items_max || (bytes > gather.bytes_max && !page.items.is_empty());
            if full || beyond(&item.key) {
                page.more = true;
                break;
            }
            page.items.push(Item { key: &item.key, version: item.version, value: &item.value });
        }
        reply(Ok(Answer::Page(page)));
    }
}

/// A question for the node's status: the cores' parts so far.
#[derive(Debug)]
struct Question {
    to: ReplyTo,
    deadline: Instant,
    missing: u16,
    status: Box<Status>,
    counters: Counters,
}

/// The questions for the node's status under way.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    next: u64,
    jobs: BTreeMap<u64, Question>,
}

impl Statuses {
    pub(super) fn start(&mut self, to: ReplyTo, node: &Node, deadline: Instant) -> u64 {
        let status = Box::new(Status {
            cluster: node.cluster,
            node: node.config.node_id,
            incarnation: node.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: node.config.initial_cluster.clone(),
            ..Status::default()
        });
        let question = Question { to, deadline, missing: node.config.cores, status, counters: Counters::default() };
        self.next += 1;
        self.jobs.insert(self.next, question);
        self.next
    }

    /// One core has answered; the last one's answer completes the status.
    pub(super) fn part(
        &mut self,
        job: u64,
        shards: Vec<ShardStatus>,
        counters: &Counters,
    ) -> Option<(ReplyTo, Box<Status>)> {
        let question = self.jobs.get_mut(&job)?;
        question.status.shards.extend(shards);
        question.counters.add(counters);
        question.missing -= 1;
        if question.missing > 0 {
            return None;
        }
        let mut question = self.jobs.remove(&job)?;
        question.status.shards.sort_by_key(|shard| shard.id);
        question.status.counters = question.counters.named();
        Some((question.to, question.status))
    }

    pub(super) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        self.jobs.extract_if(.., |_, question| question.deadline <= now).map(|(_, question)| question.to).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}
