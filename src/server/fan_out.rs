//! What one shard or one core alone cannot answer: scans over all shards, the status of all cores.

use raftkv_protocol::client::{Answer, Code, Operation, Scan};
use raftkv_protocol::types::{CoreId, EntryId, ShardId};

use std::sync::Arc;
use std::time::Instant;

use crate::metrics::figures::{CoreFigures, Figures, Texts};
use crate::metrics::requests::Requests;
use crate::shard::{Outbox, Shard};
use crate::storage::CoreLog;

use super::calls::{decode_operation, own};
use super::gather::Portion;
use super::message::{CoreMessage, CoreStatus, Origin, OwnedCall, ReplyTo, Wanted};
use super::router::{Call, Router};
use super::statuses::{Asker, Gathered};
use super::transport::Transport;

impl<L: CoreLog> Router<L> {
    pub(super) fn scan(&mut self, scan: Scan<'_>, to: ReplyTo, deadline: Instant, transport: &mut impl Transport) {
        if let Some(shard) = scan.shard {
            if shard.0 < self.node.config.shards {
                return self.call(Call { operation: Operation::Scan(scan), shard, to, deadline }, transport);
            }
            return self.refuse(to, Code::BadRequest, None, "there is no such shard", transport);
        }
        // Its shard means nothing: it is for all of them.
        let call = own(&Call { operation: Operation::Scan(scan), shard: ShardId(0), to, deadline });
        if self.desk.gathers.has_room() {
            self.gather(call, &scan, Portion::Share, transport);
        } else if self.desk.queue_scan(call).is_err() {
            self.counters.overloaded_scans += 1;
            let message = "too many scans wait already; try again later";
            self.refuse(to, Code::Overloaded, None, message, transport);
        }
    }

    /// Asks every shard for its part of a scan.
    fn gather(&mut self, call: OwnedCall, scan: &Scan<'_>, portion: Portion, transport: &mut impl Transport) {
        let (shards, deadline) = (self.node.config.shards, call.deadline);
        let (job, items) = self.desk.gathers.start(call, scan, shards, &self.node.config.limits, portion);
        let limit = u32::try_from(items).unwrap_or(u32::MAX);
        for shard in (0..shards).map(ShardId) {
            let part = Operation::Scan(Scan { shard: Some(shard), limit, ..*scan });
            let to = ReplyTo { core: self.core, origin: Origin::Gather { job, shard } };
            self.call(Call { operation: part, shard, to, deadline }, transport);
        }
    }

    /// Answers the scans whose parts are all there, or asks for larger parts where the page is short of keys.
    pub(super) fn finish_scans(&mut self, transport: &mut impl Transport) {
        for finished in self.desk.gathers.take_finished() {
            let call = finished.call();
            if finished.is_short()
                && let Some(Operation::Scan(scan)) = decode_operation(&call.frame)
            {
                self.gather(call.clone(), &scan, Portion::Whole, transport);
            } else {
                finished.reply(|result| self.exit(transport).reply(call.to, EntryId::ZERO, result));
            }
        }
        self.start_waiting_scans(transport);
    }

    /// The scans that found room; their shards are driven in the next turn, which follows at once.
    fn start_waiting_scans(&mut self, transport: &mut impl Transport) {
        while let Some(call) = self.desk.next_scan() {
            if let Some(Operation::Scan(scan)) = decode_operation(&call.frame) {
                self.scan(scan, call.to, call.deadline, transport);
            }
        }
    }

    /// Has the node's status told to whoever asks.
    pub(super) fn look(&mut self, to: ReplyTo, deadline: Instant, transport: &mut impl Transport) {
        self.ask_cores(Asker::Status(to), deadline, transport);
    }

    /// Has the node's figures told to all who have asked for them, unless they are being gathered for others: many may ask at a
    /// time, and gathering is not for nothing.
    pub(super) fn gather_figures(&mut self, transport: &mut impl Transport) {
        if let Some(asker) = self.desk.statuses.take_waiting() {
            self.counters.scrapes_gathered += 1;
            let deadline = self.desk.now() + self.node.config.limits.request_timeout;
            self.ask_cores(asker, deadline, transport);
        }
    }

    /// Asks all cores what they know of themselves.
    fn ask_cores(&mut self, asker: Asker, deadline: Instant, transport: &mut impl Transport) {
        let (cores, wanted) = (self.node.config.cores, asker.wanted());
        let job = self.desk.statuses.start(asker, &self.node, deadline);
        for core in (0..cores).map(CoreId).filter(|core| *core != self.core) {
            transport.answer(core, CoreMessage::StatusAsked { core: self.core, job, wanted });
        }
        self.status_part(job, self.own_status(wanted), transport);
    }

    /// One core has told what it knows; whoever asked is answered when all have.
    pub(super) fn status_part(&mut self, job: u64, part: CoreStatus, transport: &mut impl Transport) {
        let Some(Gathered { asker, mut status, counters, cores }) = self.desk.statuses.part(job, part) else { return };
        match asker {
            Asker::Figures(to) => {
                let mut requests = Box::<Requests>::default();
                cores.iter().for_each(|core| requests.add(&core.requests));
                let figures = Figures { status, counters, requests, cores, texts: Texts::default() };
                self.show(&Arc::new(figures), &to, transport);
            }
            Asker::Status(to) => {
                status.counters = counters.named();
                self.exit(transport).reply(to, EntryId::ZERO, Ok(Answer::Status(status)));
            }
        }
    }

    fn show(&mut self, figures: &Arc<Figures>, to: &[ReplyTo], transport: &mut impl Transport) {
        for to in to {
            if let Origin::Exchange { exchange, charge, taken } = to.origin {
                self.requests.answered(taken, None, self.desk.now());
                transport.figures(exchange, charge, Arc::clone(figures));
            }
        }
    }

    /// What a core tells of itself, and no more of it than is shown: what it has measured is long.
    pub(super) fn own_status(&self, wanted: Wanted) -> CoreStatus {
        CoreStatus {
            shards: self.shards.iter().map(Shard::status).collect(),
            counters: self.counters.clone(),
            holds: self.log_holds(),
            figures: (wanted == Wanted::Figures).then(|| self.own_figures()),
        }
    }

    fn own_figures(&self) -> CoreFigures {
        CoreFigures {
            core: self.core,
            measures: self.measures.clone(),
            log: self.log.figures(),
            links: self.told.links(),
            requests: self.requests.clone(),
            shards: self.shards.iter().map(Shard::figures).collect(),
        }
    }
}
