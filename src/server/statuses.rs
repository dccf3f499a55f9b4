//! What the cores of a node know of themselves, put together: its status for whoever asks, and its figures for all who have asked.

use std::collections::BTreeMap;
use std::time::Instant;

use raftkv_protocol::client::Status;

use crate::metrics::Counters;
use crate::metrics::figures::CoreFigures;

use super::message::{CoreStatus, ReplyTo, Wanted};
use super::node::Node;

/// Who has asked, and for what.
#[derive(Debug)]
pub(super) enum Asker {
    Status(ReplyTo),
    Figures(Vec<ReplyTo>),
}

impl Asker {
    pub(super) fn wanted(&self) -> Wanted {
        match self {
            Asker::Status(_) => Wanted::Status,
            Asker::Figures(_) => Wanted::Figures,
        }
    }

    fn everybody(self) -> Vec<ReplyTo> {
        match self {
            Asker::Status(to) => vec![to],
            Asker::Figures(to) => to,
        }
    }
}

/// What the cores of a node have told.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) asker: Asker,
    pub(super) status: Box<Status>,
    pub(super) counters: Counters,
    pub(super) cores: Vec<CoreFigures>,
}

/// A question to the cores: their parts so far.
#[derive(Debug)]
struct Question {
    deadline: Instant,
    missing: u16,
    told: Gathered,
}

/// The questions to the cores under way.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    next: u64,
    jobs: BTreeMap<u64, Question>,
    /// Who waits for the figures. Those that are being gathered were asked for before, and what has happened since may not be in
    /// them.
    waiting: Vec<ReplyTo>,
}

impl Statuses {
    /// Has somebody wait for the figures.
    #[cfg(any(feature = "http", test))]
    pub(super) fn wait(&mut self, to: ReplyTo) {
        self.waiting.push(to);
    }

    /// All who wait for the figures, unless others' are being gathered: once is enough for all of them.
    pub(super) fn take_waiting(&mut self) -> Option<Asker> {
        let is_gathering = self.jobs.values().any(|question| question.told.asker.wanted() == Wanted::Figures);
        if is_gathering || self.waiting.is_empty() {
            return None;
        }
        Some(Asker::Figures(std::mem::take(&mut self.waiting)))
    }

    pub(super) fn start(&mut self, asker: Asker, node: &Node, deadline: Instant) -> u64 {
        let status = Box::new(Status {
            cluster: node.cluster,
            node: node.config.node_id,
            incarnation: node.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: node.config.initial_cluster.clone(),
            disk: node.health.own(),
            sync_ms: node.health.sync_ms(),
            ..Status::default()
        });
        let told = Gathered { asker, status, counters: Counters::default(), cores: Vec::new() };
        let question = Question { deadline, missing: node.config.cores, told };
        self.next += 1;
        self.jobs.insert(self.next, question);
        self.next
    }

    /// One core has answered; the last one's answer completes what was asked for.
    pub(super) fn part(&mut self, job: u64, part: CoreStatus) -> Option<Gathered> {
        let question = self.jobs.get_mut(&job)?;
        let told = &mut question.told;
        told.status.shards.extend(part.shards);
        told.status.holds.extend(part.holds);
        told.counters.add(&part.counters);
        told.cores.extend(part.figures);
        question.missing -= 1;
        if question.missing > 0 {
            return None;
        }
        let Question { mut told, .. } = self.jobs.remove(&job)?;
        told.status.shards.sort_by_key(|shard| shard.id);
        told.status.holds.sort_by_key(|hold| (hold.core, hold.shard));
        told.cores.sort_by_key(|figures| figures.core);
        Some(told)
    }

    pub(super) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        let late = self.jobs.extract_if(.., |_, question| question.deadline <= now);
        late.flat_map(|(_, question)| question.told.asker.everybody()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.waiting.is_empty()
    }
}
