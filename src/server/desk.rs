//! What a core has under way for its clients outside its own shards: forwarded and parked calls, gathered scans, questions for the status and
//! for snapshots.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use raftkv_protocol::client::Code;
use raftkv_protocol::peer::ForwardId;
use raftkv_protocol::types::{CoreId, NodeId};

use crate::limits::Limits;

use super::demand::Questions;
use super::gather::Gathers;
use super::message::{OwnedCall, ReplyTo};
use super::statuses::Statuses;

/// How often parked calls are tried again without any news of a leader.
const RETRY: Duration = Duration::from_millis(20);

/// A call that another node serves.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) node: NodeId,
    pub(super) call: OwnedCall,
}

#[derive(Debug)]
pub(super) struct Desk {
    next_serial: u64,
    forwards: BTreeMap<u64, Forwarded>,
    forwards_bytes: usize,
    parked: Vec<OwnedCall>,
    parked_bytes: usize,
    /// Scans over all shards that wait until others are done.
    scans: VecDeque<OwnedCall>,
    /// There is news of a leader, so that parked calls are worth a try at once.
    news: bool,
    next_retry: Instant,
    now: Instant,
    parked_bytes_max: usize,
    forwards_bytes_max: usize,
    scans_waiting_max: usize,
    pub(super) gathers: Gathers,
    pub(super) statuses: Statuses,
    pub(super) snapshots: Questions,
}

impl Desk {
    pub(super) fn new(serial: u64, limits: &Limits, now: Instant) -> Desk {
        Desk {
            next_serial: if mutant!("forward-serials-from-zero") { 0 } else { serial },
            forwards: BTreeMap::new(),
            forwards_bytes: 0,
            parked: Vec::new(),
            parked_bytes: 0,
            scans: VecDeque::new(),
            news: false,
            next_retry: now,
            now,
            parked_bytes_max: limits.core_parked_bytes_max,
            forwards_bytes_max: limits.core_forwarded_bytes_max,
            scans_waiting_max: limits.core_scans_waiting_max,
            gathers: Gathers::new(limits.core_scans_max),
            statuses: Statuses::default(),
            snapshots: Questions::default(),
        }
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Whether a call may be forwarded: it is kept until its answer comes.
    pub(super) fn may_forward(&self, call: &OwnedCall) -> bool {
        self.forwards_bytes + call.bytes() <= self.forwards_bytes_max
    }

    /// Remembers a call that is being sent to `node`; returns its name there.
    pub(super) fn forward(&mut self, core: CoreId, node: NodeId, call: OwnedCall) -> ForwardId {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        self.forwards_bytes += call.bytes();
        self.forwards.insert(serial, Forwarded { node, call });
        ForwardId { core, serial }
    }

    pub(super) fn take_forward(&mut self, serial: u64) -> Option<Forwarded> {
        let serial = if mutant!("forward-reply-misdelivered") { *self.forwards.keys().next()? } else { serial };
        let forwarded = self.forwards.remove(&serial)?;
        self.forwards_bytes -= forwarded.call.bytes();
        Some(forwarded)
    }

    pub(super) fn take_forwards_to(&mut self, node: NodeId) -> Vec<Forwarded> {
        let taken = self.forwards.extract_if(.., |_, forwarded| forwarded.node == node);
        let taken: Vec<Forwarded> = taken.map(|(_, forwarded)| forwarded).collect();
        self.forwards_bytes -= taken.iter().map(|forwarded| forwarded.call.bytes()).sum::<usize>();
        taken
    }

    /// Keeps a call until a leader is known; gives it back if there are too many.
    pub(super) fn park(&mut self, call: OwnedCall) -> Result<(), OwnedCall> {
        if self.parked_bytes + call.bytes() > self.parked_bytes_max {
            return Err(call);
        }
        self.parked_bytes += call.bytes();
        self.parked.push(call);
        Ok(())
    }

    /// Makes a scan wait its turn; gives it back if too many do.
    pub(super) fn queue_scan(&mut self, scan: OwnedCall) -> Result<(), OwnedCall> {
        if self.scans.len() >= self.scans_waiting_max {
            return Err(scan);
        }
        self.scans.push_back(scan);
        Ok(())
    }

    /// The next waiting scan, if it may start.
    pub(super) fn next_scan(&mut self) -> Option<OwnedCall> {
        if self.gathers.has_room() { self.scans.pop_front() } else { None }
    }

    /// Parked calls are worth another try.
    pub(super) fn leaders_changed(&mut self) {
        self.news = true;
    }

    /// The parked calls, if it is time to try them again.
    pub(super) fn take_retries(&mut self, now: Instant) -> Vec<OwnedCall> {
        if self.parked.is_empty() || !(self.news || self.next_retry <= now) {
            return Vec::new();
        }
        self.news = false;
        self.next_retry = now + RETRY;
        self.parked_bytes = 0;
        std::mem::take(&mut self.parked)
    }

    /// When parked calls are tried again without any news.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        (!self.parked.is_empty()).then_some(self.next_retry)
    }

    /// Whether parked calls are to be tried again at once.
    pub(super) fn has_retries(&self) -> bool {
        self.news && !self.parked.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.forwards.is_empty()
            && self.parked.is_empty()
            && self.scans.is_empty()
            && self.gathers.is_empty()
            && self.statuses.is_empty()
            && self.snapshots.is_empty()
    }

    /// Whoever has waited past the deadline, and what they are told.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(ReplyTo, Code, &'static str)> {
        let mut expired = Vec::new();
        for (_, forwarded) in self.forwards.extract_if(.., |_, forwarded| forwarded.call.deadline <= now) {
            self.forwards_bytes -= forwarded.call.bytes();
            let message = "the shard's leader did not answer in time; a write may or may not take effect";
            let code = if mutant!("expired-forward-refused") { Code::NoLeader } else { Code::Timeout };
            expired.push((forwarded.call.to, code, message));
        }
        for call in self.parked.extract_if(.., |call| call.deadline <= now) {
            self.parked_bytes -= call.bytes();
            let message =
                "the shard had no leader in time, so nothing was read or written: is a majority of the nodes up?";
            expired.push((call.to, Code::NoLeader, message));
        }
        while self.scans.front().is_some_and(|scan| scan.deadline <= now) {
            if let Some(scan) = self.scans.pop_front() {
                expired.push((scan.to, Code::Overloaded, "too many scans came before this one; try again later"));
            }
        }
        self.gathers.expire(now);
        for to in self.statuses.expire(now) {
            expired.push((to, Code::Timeout, "not every core answered in time"));
        }
        for to in self.snapshots.expire(now) {
            expired.push((to, Code::Timeout, "not every shard's snapshot was durable in time; what was begun goes on"));
        }
        expired
    }
}
