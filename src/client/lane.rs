//! One of the client's connections over its whole life: closed, dialling, open with requests in flight, and down for a
//! while after a failure, together with the requests that wait for it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Reply, Request, SlotTable};
use raftkv_protocol::types::RequestId;

use super::connection::{Broken, Connection, Incoming, Welcome};
use super::request::{Job, Operation, Origin, Outcome, Refused, Verdict, judge};
use super::slots::SlotMap;
use super::{Error, ErrorKind, Target};
use crate::socket::{Network, Socket};

/// Encoded bytes that may wait for a socket; further requests wait unencoded.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;

/// One connection, in whatever state.
#[derive(Debug)]
pub(super) struct Lane<S> {
    state: State<S>,
    waiting: VecDeque<Job>,
    /// In a row, without a reply in between.
    failures: u32,
    last_error: Option<Error>,
}

#[derive(Debug, Default)]
enum State<S> {
    #[default]
    Closed,
    Down {
        until: Instant,
    },
    Resolving {
        give_up: Instant,
    },
    Dialing {
        connection: Connection<S>,
        others: Vec<SocketAddr>,
        give_up: Instant,
    },
    Open(Open<S>),
}

#[derive(Debug)]
struct Open<S> {
    connection: Connection<S>,
    /// What the node knows.
    features: u64,
    /// What ends together leaves it [`in_order`].
    in_flight: HashMap<RequestId, InFlight>,
    /// Since when the node owes a reply and has said nothing.
    owed_since: Option<Instant>,
    /// When it was asked for a sign of life since.
    probed_at: Option<Instant>,
}

#[derive(Debug)]
struct InFlight {
    job: Job,
    /// Where the request ends in the stream.
    end: u64,
}

/// Whether a request given to the lane now would get anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Open,
    Opening,
    /// It has to be dialled first.
    Closed,
    /// It failed a moment ago.
    Down(Instant),
}

/// What a lane cannot settle by itself.
#[derive(Debug)]
pub(super) enum Incident {
    Welcome(Welcome),
    Table(Job, SlotTable),
    Refused(Job, Refused),
    /// The node does not know such requests, and was not asked.
    Unknown(Job),
    /// A reply came from a later term than the slot table knows.
    TableOutdated,
}

/// What a lane wants done because time went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Dial,
    Probe,
    Silent,
}

impl<S> Default for Lane<S> {
    fn default() -> Lane<S> {
        Lane { state: State::Closed, waiting: VecDeque::new(), failures: 0, last_error: None }
    }
}

impl<S: Socket> Lane<S> {
    pub(super) fn availability(&self, now: Instant) -> Availability {
        match &self.state {
            State::Closed => Availability::Closed,
            State::Down { until } if *until <= now => Availability::Closed,
            State::Down { until } => Availability::Down(*until),
            State::Resolving { .. } | State::Dialing { .. } => Availability::Opening,
            State::Open(_) => Availability::Open,
        }
    }

    /// Whether the node has said what it knows, and some of these features is not among them.
    pub(super) fn lacks(&self, features: u64) -> bool {
        matches!(&self.state, State::Open(open) if open.lacks(features))
    }

    pub(super) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn enqueue(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    pub(super) fn resolve(&mut self, give_up: Instant) {
        self.state = State::Resolving { give_up };
    }

    pub(super) fn is_resolving(&self) -> bool {
        matches!(self.state, State::Resolving { .. })
    }

    /// `others` are the addresses to try if this one fails.
    pub(super) fn dial(&mut self, connection: Connection<S>, others: Vec<SocketAddr>, give_up: Instant) {
        self.state = State::Dialing { connection, others, give_up };
    }

    /// The addresses that a failed dial has left.
    pub(super) fn take_other_addresses(&mut self) -> Vec<SocketAddr> {
        match &mut self.state {
            State::Dialing { others, .. } => std::mem::take(others),
            _ => Vec::new(),
        }
    }

    /// Whether what breaks now breaks an accepted connection.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Reads what came and writes what waits.
    pub(super) fn on_ready(
        &mut self,
        now: Instant,
        slots: &SlotMap,
        incidents: &mut Vec<Incident>,
    ) -> Result<(), Broken> {
        match &mut self.state {
            State::Dialing { connection, .. } => {
                connection.flush()?;
                let mut welcome = None;
                connection.receive(|incoming| {
                    if let Incoming::Welcome(said) = incoming {
                        welcome = Some(said);
                    }
                })?;
                if let Some(welcome) = welcome {
                    self.open(welcome.features);
                    incidents.push(Incident::Welcome(welcome));
                }
                Ok(())
            }
            State::Open(open) => {
                let seen = (open.connection.received(), open.connection.written());
                open.receive(slots, incidents, &mut self.failures)?;
                open.connection.flush()?;
                // Bytes that waited for room in the socket and found some are a sign of life too.
                if seen != (open.connection.received(), open.connection.written()) {
                    open.note_sign_of_life(now);
                }
                Ok(())
            }
            // An event for a socket that is gone.
            State::Closed | State::Down { .. } | State::Resolving { .. } => Ok(()),
        }
    }

    fn open(&mut self, features: u64) {
        self.state = match std::mem::take(&mut self.state) {
            State::Dialing { connection, .. } => {
                self.last_error = None;
                let (in_flight, owed_since, probed_at) = (HashMap::new(), None, None);
                State::Open(Open { connection, features, in_flight, owed_since, probed_at })
            }
            other => other,
        };
    }

    /// Sends what waits, as far as there is room, with one write.
    pub(super) fn pump(
        &mut self,
        now: Instant,
        next_id: &mut u64,
        inflight_max: usize,
        incidents: &mut Vec<Incident>,
    ) -> Result<(), Broken> {
        let State::Open(open) = &mut self.state else { return Ok(()) };
        while open.in_flight.len() < inflight_max && open.connection.unwritten() < UNWRITTEN_BYTES_MAX {
            let Some(job) = self.waiting.pop_front() else { break };
            if open.lacks(job.operation.features()) {
                incidents.push(Incident::Unknown(job));
            } else {
                open.send(job, now, next_id);
            }
        }
        open.connection.flush()?;
        Ok(())
    }

    /// Asks the node for a sign of life.
    pub(super) fn probe(&mut self, now: Instant, next_id: &mut u64, deadline: Instant) -> Result<(), Broken> {
        let State::Open(open) = &mut self.state else { return Ok(()) };
        open.probed_at = Some(now);
        open.send(Job::new(Operation::Ping(Target::Any), Origin::Probe, deadline), now, next_id);
        open.connection.flush()?;
        Ok(())
    }

    /// Gives the connection up until `until`. Writes that the node may have seen end here with an unknown outcome; all
    /// other requests are returned, to be sent elsewhere.
    pub(super) fn fail(&mut self, error: &Error, until: Instant, network: &mut impl Network<Socket = S>) -> Vec<Job> {
        let mut movable: Vec<Job> = self.waiting.drain(..).collect();
        match std::mem::replace(&mut self.state, State::Down { until }) {
            State::Dialing { mut connection, .. } => take_out(&mut connection, network),
            State::Open(mut open) => {
                take_out(&mut open.connection, network);
                for InFlight { job, end } in in_order(open.in_flight) {
                    let is_seen = open.connection.written() >= end && !mutant!("sent-write-resent");
                    if job.operation.is_write() && is_seen {
                        job.fail_after_sending(error.clone());
                    } else {
                        movable.push(job);
                    }
                }
            }
            State::Closed | State::Down { .. } | State::Resolving { .. } => {}
        }
        self.failures += 1;
        self.last_error = Some(error.clone());
        movable
    }

    /// Takes out what `now` is too late for: first what was not sent, then what was.
    pub(super) fn take_expired(&mut self, now: Instant) -> (Vec<Job>, Vec<Job>) {
        let (expired, waiting) = self.waiting.drain(..).partition(|job| job.deadline <= now);
        self.waiting = waiting;
        let mut sent = Vec::new();
        if let State::Open(open) = &mut self.state {
            let late = open.in_flight.extract_if(|_, entry| entry.job.deadline <= now);
            sent.extend(in_order(late).into_iter().map(|entry| entry.job));
        }
        (expired.into(), sent)
    }

    /// The first deadline of a request here.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        let in_flight = match &self.state {
            State::Open(open) => open.in_flight.values().map(|entry| entry.job.deadline).min(),
            _ => None,
        };
        self.waiting.iter().map(|job| job.deadline).chain(in_flight).min()
    }

    /// What is overdue, and otherwise when something will be. A node has half of `silence` to answer a probe, however
    /// late that was sent: the client may have stood still.
    pub(super) fn overdue(&self, now: Instant, silence: Duration) -> (Option<Overdue>, Option<Instant>) {
        let (what, when) = match &self.state {
            State::Resolving { give_up } | State::Dialing { give_up, .. } => (Overdue::Dial, *give_up),
            State::Open(Open { probed_at: Some(at), .. }) => (Overdue::Silent, *at + silence / 2),
            State::Open(Open { owed_since: Some(since), .. }) => (Overdue::Probe, *since + silence / 2),
            State::Open(_) | State::Closed | State::Down { .. } => return (None, None),
        };
        if when <= now { (Some(what), None) } else { (None, Some(when)) }
    }

    /// Ends everything, as the client is closing.
    pub(super) fn close(&mut self) {
        let closed = || Error::new(ErrorKind::Closed, "the client was dropped");
        self.waiting.drain(..).for_each(|job| job.complete(Err(closed())));
        if let State::Open(open) = std::mem::take(&mut self.state) {
            in_order(open.in_flight).into_iter().for_each(|entry| entry.job.fail_after_sending(closed()));
        }
    }
}

impl<S> Open<S> {
    fn lacks(&self, features: u64) -> bool {
        features & !self.features != 0
    }
}

impl<S: Socket> Open<S> {
    fn send(&mut self, job: Job, now: Instant, next_id: &mut u64) {
        let id = RequestId(*next_id);
        *next_id += 1;
        let end = self.connection.send(&Request { id, operation: job.operation.as_wire() });
        self.in_flight.insert(id, InFlight { job, end });
        self.owed_since.get_or_insert(now);
    }

    fn receive(&mut self, slots: &SlotMap, incidents: &mut Vec<Incident>, failures: &mut u32) -> Result<(), Broken> {
        let in_flight = &mut self.in_flight;
        self.connection.receive(|incoming| {
            *failures = 0;
            if let Incoming::Reply(reply) = incoming {
                match (in_flight.remove(&reply.id), &reply.result) {
                    (Some(entry), _) => settle(entry.job, reply, slots, incidents),
                    // A node's last word before it closes the connection.
                    (None, Err(refusal)) if reply.id == RequestId(0) => log::warn!("a node gave up: {refusal}"),
                    // Its request's deadline has passed, and nobody waits for it any more.
                    (None, _) => {}
                }
            }
        })
    }

    fn note_sign_of_life(&mut self, now: Instant) {
        self.probed_at = None;
        self.owed_since = if self.in_flight.is_empty() { None } else { Some(now) };
    }
}

/// Requests in the order of sending, so that they end or move on in the same order in every run. An ordered map would
/// keep them so, but costs every request more than it costs these few to be sorted.
fn in_order(entries: impl IntoIterator<Item = (RequestId, InFlight)>) -> Vec<InFlight> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_unstable_by_key(|(id, _)| *id);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn take_out<S: Socket>(connection: &mut Connection<S>, network: &mut impl Network<Socket = S>) {
    // It fails only for a socket that is not registered, which is what is wanted.
    let _ = network.deregister(connection.socket_mut());
}

fn settle(job: Job, reply: Reply<'_>, slots: &SlotMap, incidents: &mut Vec<Incident>) {
    if job.shard.is_some_and(|shard| slots.is_behind(shard, reply.at.term)) {
        incidents.push(Incident::TableOutdated);
    }
    match judge(&job.operation, reply) {
        Verdict::Done(Outcome::Slots(table)) => incidents.push(Incident::Table(job, table)),
        Verdict::Done(outcome) => job.complete(Ok(outcome)),
        // A refusal is a sign of life as good as any.
        Verdict::Refused(_) if matches!(job.origin, Origin::Probe) => {}
        Verdict::Refused(refused) => incidents.push(Incident::Refused(job, refused)),
        Verdict::Nonsense => {
            let message = "the node answered another question than was asked";
            job.fail_after_sending(Error::new(ErrorKind::Protocol, message));
        }
    }
}
