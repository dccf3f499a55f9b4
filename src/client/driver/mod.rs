//! What the client does with requests, replies and time, over whatever network it is given.
//!
//! A turn takes in which sockets are ready and what time it is. It reads every ready connection, takes in the requests
//! that callers handed over, sees to what time has made due, and only then writes: the requests of one turn leave with
//! one write per connection. The driver alone owns connections, slot table and unfinished requests, so that nothing here
//! is locked. It reads no clock, and its only randomness is seeded: the same turns do the same.

mod dial;
mod resolver;
mod routing;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use raftkv_protocol::client::Code;
use raftkv_protocol::types::{ClusterId, NodeId};

use super::backoff::Backoff;
use super::builder::Settings;
use super::connection::Welcome;
use super::lane::{Incident, Lane, Overdue};
use super::request::{Job, Operation, Origin, Outcome, Refused};
use super::slots::SlotMap;
use super::{Error, ErrorKind};
use crate::socket::{Network, Readiness};

pub(super) use resolver::Resolver;

/// The slot table is asked for no more often than this, however many replies hint that it is old.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);
/// A table that has not come by then is asked for again.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);
/// A shard's supposed leaders may send a request to each other; after so many redirects it waits in between.
const PROMPT_REDIRECTS_MAX: u32 = 3;

/// A node, known by its address, and by its id once it said so or a slot table did. Its lanes are
/// `peer * connections_per_node ..` in [`Driver::lanes`].
#[derive(Debug)]
struct Peer {
    address: String,
    node: Option<NodeId>,
}

/// When to ask for the slot table.
#[derive(Debug)]
struct Refresh {
    wanted: bool,
    not_before: Instant,
    /// A table was asked for, here or by a caller; if it has not come by then, it is not counted on any more.
    running_until: Option<Instant>,
    /// The peer that is the last to ask.
    avoid: Option<usize>,
}

/// All connections of a client, and the requests on them. A lane's index is its socket's token.
#[derive(Debug)]
pub(super) struct Driver<N: Network> {
    settings: Settings,
    network: N,
    jobs: Receiver<Job>,
    /// Without one, every address has to be an IP address.
    resolver: Option<Resolver>,
    cluster: ClusterId,
    slots: SlotMap,
    peers: Vec<Peer>,
    lanes: Vec<Lane<N::Socket>>,
    /// Lanes that were given something in this turn.
    touched: Vec<usize>,
    /// Requests that wait out a pause.
    paused: Vec<(Instant, Job)>,
    incidents: Vec<Incident>,
    refresh: Refresh,
    backoff: Backoff,
    /// Rotates the peers for requests that any of them can serve.
    rotation: usize,
    next_id: u64,
    /// No request's deadline is earlier.
    first_deadline: Instant,
    now: Instant,
}

impl<N: Network> Driver<N> {
    /// The same `seed` gives the same pauses.
    pub(super) fn new(
        endpoints: &[String],
        settings: Settings,
        network: N,
        jobs: Receiver<Job>,
        seed: u64,
        now: Instant,
    ) -> Driver<N> {
        let mut driver = Driver {
            network,
            jobs,
            resolver: None,
            cluster: settings.cluster,
            slots: SlotMap::default(),
            peers: Vec::new(),
            lanes: Vec::new(),
            touched: Vec::new(),
            paused: Vec::new(),
            incidents: Vec::new(),
            refresh: Refresh { wanted: false, not_before: now, running_until: None, avoid: None },
            backoff: Backoff::new(settings.backoff, seed),
            rotation: 0,
            next_id: 1,
            first_deadline: now + IDLE,
            now,
            settings,
        };
        for endpoint in endpoints {
            driver.peer_at(endpoint);
        }
        driver
    }

    pub(super) fn resolve_with(self, resolver: Resolver) -> Driver<N> {
        Driver { resolver: Some(resolver), ..self }
    }

    pub(super) fn network_mut(&mut self) -> &mut N {
        &mut self.network
    }

    /// Does all that can be done at `now`, with the sockets that have become ready since the last turn.
    pub(super) fn turn(&mut self, now: Instant, ready: impl Iterator<Item = Readiness>) {
        self.now = now;
        for readiness in ready {
            self.on_ready(readiness.token.0);
        }
        self.on_resolved();
        self.on_timers();
        loop {
            let taken_all = self.take_in();
            self.refresh_table();
            self.settle_touched();
            if taken_all || !self.has_room() {
                break;
            }
        }
    }

    /// When the last turn was.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Whether the next turn would take in a request that was handed over.
    pub(super) fn has_work(&self) -> bool {
        !self.jobs.is_empty() && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.waiting() < self.settings.queue_max
    }

    /// Takes requests from the callers as long as there is room; returns whether there are no more.
    fn take_in(&mut self) -> bool {
        while self.has_room() {
            match self.jobs.try_recv() {
                Ok(job) => {
                    self.first_deadline = self.first_deadline.min(job.deadline);
                    self.route(job);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
        false
    }

    fn waiting(&self) -> usize {
        self.paused.len() + self.lanes.iter().map(Lane::waiting).sum::<usize>()
    }

    fn on_ready(&mut self, lane: usize) {
        // Other tokens than those of lanes just wake the loop.
        let Some(ready) = self.lanes.get_mut(lane) else { return };
        let result = ready.on_ready(self.now, &self.slots, &mut self.incidents);
        self.take_incidents(lane);
        match result {
            Ok(()) => self.touched.push(lane),
            Err(broken) => self.on_broken(lane, &broken),
        }
    }

    fn take_incidents(&mut self, lane: usize) {
        let mut incidents = std::mem::take(&mut self.incidents);
        for incident in incidents.drain(..) {
            self.on_incident(lane, incident);
        }
        self.incidents = incidents;
    }

    fn on_incident(&mut self, lane: usize, incident: Incident) {
        match incident {
            Incident::Welcome(welcome) => self.on_welcome(lane, &welcome),
            Incident::TableOutdated => self.refresh.wanted |= !self.refresh_runs(),
            Incident::Refused(job, refused) => self.on_refused(lane, job, refused),
            Incident::Unknown(job) => self.on_unknown(lane, job),
            Incident::Table(job, table) => {
                self.refresh.running_until = None;
                self.slots.merge(table.clone());
                self.name_peers();
                job.complete(Ok(Outcome::Slots(table)));
            }
        }
    }

    fn on_welcome(&mut self, lane: usize, welcome: &Welcome) {
        if self.cluster == ClusterId(0) {
            self.cluster = welcome.cluster;
        }
        let peer = self.peer_of(lane);
        if self.cluster != welcome.cluster {
            let message =
                format!("{} belongs to cluster {}, not {}", self.peers[peer].address, welcome.cluster, self.cluster);
            return self.on_lane_failed(lane, &Error::new(ErrorKind::WrongCluster, message));
        }
        self.peers[peer].node = Some(welcome.node);
        self.refresh.wanted |= self.slots.shards() == 0 && !self.refresh_runs();
    }

    fn on_refused(&mut self, lane: usize, mut job: Job, refused: Refused) {
        let peer = self.peer_of(lane);
        let message = format!("{} (says {})", refused.message, self.peers[peer].address);
        let (code, error) = (refused.code, Error::new(refused.code.into(), message));
        if code == Code::NotLeader {
            self.on_not_leader(peer, job, &refused, error);
        } else if code.maybe_applied() && job.operation.is_write() && !mutant!("unknown-write-retried") {
            job.fail_after_sending(error);
        } else if code.maybe_applied() || code.is_retryable() {
            if code != Code::Overloaded {
                // The node itself may be the trouble.
                self.refresh.wanted = true;
                job.avoid = Some(peer);
            }
            self.retry_later(job, error);
        } else {
            job.complete(Err(error));
        }
    }

    /// Another node may know such requests, while the nodes are updated one after the other, and send this one on.
    fn on_unknown(&mut self, lane: usize, mut job: Job) {
        let peer = self.peer_of(lane);
        job.attempts += 1;
        job.last_error = Some(unknown_to(&job, &[self.peers[peer].address.as_str()]));
        self.route(job);
    }

    fn on_not_leader(&mut self, peer: usize, mut job: Job, refused: &Refused, error: Error) {
        self.refresh.wanted = true;
        self.refresh.avoid = Some(peer);
        if let Some(shard) = job.shard {
            self.slots.redirect(shard, refused.leader, refused.term, self.peers[peer].node);
        }
        let elsewhere = refused.leader.is_some() && refused.leader != self.peers[peer].node;
        if elsewhere && job.attempts < PROMPT_REDIRECTS_MAX {
            job.attempts += 1;
            job.last_error = Some(error);
            self.route(job);
        } else {
            job.avoid = Some(peer);
            self.retry_later(job, error);
        }
    }

    fn retry_later(&mut self, mut job: Job, error: Error) {
        job.attempts += 1;
        job.last_error = Some(error);
        let due = self.now + self.backoff.pause(job.attempts);
        self.pause(due, job);
    }

    fn pause(&mut self, until: Instant, job: Job) {
        self.first_deadline = self.first_deadline.min(job.deadline);
        self.paused.push((until, job));
    }

    fn refresh_runs(&self) -> bool {
        self.refresh.running_until.is_some_and(|until| until > self.now)
    }

    fn refresh_table(&mut self) {
        if !self.refresh.wanted || self.refresh.not_before > self.now {
            return;
        }
        let deadline = self.now + REFRESH_TIMEOUT;
        let mut job = Job::new(Operation::Slots, Origin::Refresh, deadline);
        job.avoid = self.refresh.avoid.take();
        self.refresh.wanted = false;
        self.refresh.not_before = self.now + REFRESH_PAUSE;
        self.first_deadline = self.first_deadline.min(deadline);
        self.route(job);
    }

    fn on_timers(&mut self) {
        for lane in 0..self.lanes.len() {
            match self.overdue(lane) {
                Some(Overdue::Probe) => self.probe(lane),
                Some(Overdue::Silent) => {
                    let message = format!("no sign of life for {:?}", self.settings.silence_timeout);
                    self.on_lane_failed(lane, &self.lost(lane, &message));
                }
                Some(Overdue::Dial) => {
                    let message = format!("no answer within {:?}", self.settings.connect_timeout);
                    self.on_dial_failed(lane, &message);
                }
                None => {}
            }
        }
        let now = self.now;
        let due: Vec<_> = self.paused.extract_if(.., |(due, job)| *due <= now && job.deadline > now).collect();
        for (_, job) in due {
            self.route(job);
        }
        if self.first_deadline <= self.now {
            self.expire();
        }
    }

    /// What is overdue on a lane. Who is to be given up is heard once more before: this thread may have stood still between
    /// learning which sockets are ready and reading the clock.
    fn overdue(&mut self, lane: usize) -> Option<Overdue> {
        let silence = self.settings.silence_timeout;
        let overdue = self.lanes[lane].overdue(self.now, silence).0?;
        if overdue == Overdue::Probe {
            return Some(overdue);
        }
        self.on_ready(lane);
        self.lanes[lane].overdue(self.now, silence).0
    }

    fn probe(&mut self, lane: usize) {
        self.refresh.wanted = true;
        self.refresh.avoid = Some(self.peer_of(lane));
        let deadline = self.now + self.settings.silence_timeout;
        if let Err(broken) = self.lanes[lane].probe(self.now, &mut self.next_id, deadline) {
            self.on_broken(lane, &broken);
        }
    }

    /// Ends every request whose deadline has passed, and finds the next deadline.
    fn expire(&mut self) {
        let now = self.now;
        let mut next = now + IDLE;
        for (_, job) in self.paused.extract_if(.., |(_, job)| job.deadline <= now) {
            expire_unsent(job, None);
        }
        for lane in 0..self.lanes.len() {
            let address = &self.peers[self.peer_of(lane)].address;
            let (unsent, sent) = self.lanes[lane].take_expired(now);
            unsent.into_iter().for_each(|job| expire_unsent(job, Some(address)));
            for job in sent {
                let message = format!("no reply from {address} before the deadline");
                job.fail_after_sending(Error::new(ErrorKind::Timeout, message));
            }
            next = self.lanes[lane].first_deadline().map_or(next, |first| next.min(first));
        }
        self.first_deadline = self.paused.iter().map(|(_, job)| job.deadline).fold(next, Instant::min);
    }

    /// When a turn is due, should nothing happen before.
    pub(super) fn next_timer(&self) -> Instant {
        let silence = self.settings.silence_timeout;
        let lanes = self.lanes.iter().filter_map(|lane| lane.overdue(self.now, silence).1);
        let paused = self.paused.iter().map(|(due, _)| *due);
        let refresh = self.refresh.wanted.then_some(self.refresh.not_before);
        lanes.chain(paused).chain(refresh).fold(self.first_deadline, Instant::min)
    }

    /// Ends every request. The driver is of no use afterwards.
    pub(super) fn close(&mut self) {
        let closed = || Error::new(ErrorKind::Closed, "the client was dropped");
        self.jobs.try_iter().for_each(|job| job.complete(Err(closed())));
        self.paused.drain(..).for_each(|(_, job)| job.complete(Err(closed())));
        self.lanes.iter_mut().for_each(Lane::close);
    }
}

/// How long nothing may be due.
const IDLE: Duration = Duration::from_secs(3600);

/// Why these nodes are not asked.
fn unknown_to(job: &Job, addresses: &[&str]) -> Error {
    let (what, addresses) = (job.operation.name(), addresses.join(", "));
    let message = format!("the software of {addresses} does not know {what} yet: update it; nothing was sent");
    Error::new(ErrorKind::BadRequest, message)
}

/// The last refusal says more than that time is up.
fn expire_unsent(job: Job, dialling: Option<&str>) {
    let error = match (&job.last_error, dialling) {
        (Some(last), _) => {
            let message = format!("{}; gave up at the deadline after {} attempts", last.message(), job.attempts);
            Error::new(last.kind(), message)
        }
        (None, Some(address)) => {
            let message = format!("the deadline passed while waiting for a connection to {address}");
            Error::new(ErrorKind::Timeout, message)
        }
        (None, None) => Error::new(ErrorKind::Timeout, "the deadline passed before the request could be sent"),
    };
    job.complete(Err(error));
}
