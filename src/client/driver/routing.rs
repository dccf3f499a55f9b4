//! Which connection gets a request.

use std::time::Instant;

use raftkv_protocol::types::NodeId;

use super::{Driver, Peer, REFRESH_TIMEOUT, unknown_to};
use crate::client::lane::{Availability, Lane};
use crate::client::request::{Job, Operation, Patience};
use crate::client::{Error, ErrorKind, Target};
use crate::socket::Network;

/// What to do with a request.
enum Route {
    Lane(usize),
    /// No node can be tried before then.
    Pause(Instant, Error),
    Fail(Error),
}

impl<N: Network> Driver<N> {
    /// Puts a request where it is best served. It is sent at the end of the turn.
    pub(super) fn route(&mut self, mut job: Job) {
        job.shard = job.operation.key().and_then(|key| self.slots.shard_of(key));
        if matches!(job.operation, Operation::Slots) {
            self.refresh.running_until = Some(self.now + REFRESH_TIMEOUT);
        }
        let route = match job.operation.target() {
            Target::Any => self.route_anywhere(&mut job),
            Target::Node(node) => self.route_to_node(&job, *node),
            Target::Endpoint(address) => {
                let address = address.clone();
                let peer = self.peer_at(&address);
                self.route_to_peer(&job, peer)
            }
        };
        match route {
            Route::Lane(lane) => {
                self.lanes[lane].enqueue(job);
                self.touched.push(lane);
            }
            Route::Pause(until, error) => {
                job.last_error.get_or_insert(error);
                self.pause(until, job);
            }
            Route::Fail(error) => job.complete(Err(error)),
        }
    }

    /// The leader of the key's shard if it can be tried and knows such requests; otherwise any node, as each serves every key.
    fn route_anywhere(&mut self, job: &mut Job) -> Route {
        let leader = job.shard.and_then(|shard| self.slots.leader(shard)).and_then(|node| self.peer_named(node));
        if let Some(peer) = leader.filter(|peer| job.avoid != Some(*peer) && !job.operation.is_stale_read()) {
            let lane = self.lane_for(peer, job);
            let is_down = matches!(self.lanes[lane].availability(self.now), Availability::Down(_));
            if !is_down && !self.lanes[lane].lacks(job.operation.features()) {
                return Route::Lane(lane);
            }
        }
        if job.patience == Patience::OneRound && job.attempts as usize >= self.peers.len() {
            return Route::Fail(self.unreachable().or_else(|| job.last_error.clone()).unwrap_or_else(nowhere));
        }
        match self.best_peer(job) {
            Some(peer) => Route::Lane(self.lane_for(peer, job)),
            None => self.route_nowhere(job),
        }
    }

    /// Connections that stand come first, in rotation; for a stale read all that may be had are equal, so that the
    /// nodes share the load.
    fn best_peer(&mut self, job: &Job) -> Option<usize> {
        let start = self.rotation;
        // The first requests follow the order of the endpoints.
        if self.slots.shards() > 0 {
            self.rotation = self.rotation.wrapping_add(1);
        }
        let rank = |peer: &usize| {
            let lane = &self.lanes[self.lane_for(*peer, job)];
            let rank = match lane.availability(self.now) {
                Availability::Down(_) => return None,
                _ if lane.lacks(job.operation.features()) => return None,
                _ if job.operation.is_stale_read() => 0,
                Availability::Open => 0,
                Availability::Opening => 1,
                Availability::Closed => 2 + lane.failures(),
            };
            Some((job.avoid == Some(*peer), rank))
        };
        let peers = (0..self.peers.len()).map(|offset| start.wrapping_add(offset) % self.peers.len());
        peers.filter(|peer| rank(peer).is_some()).min_by_key(|peer| rank(peer))
    }

    fn route_nowhere(&mut self, job: &mut Job) -> Route {
        if let Some(error) = self.unknown_to_all(job) {
            return self.route_to_later_software(job, error);
        }
        let error = self.unreachable().unwrap_or_else(nowhere);
        if self.refused_everywhere() {
            return Route::Fail(error);
        }
        Route::Pause(self.first_up().unwrap_or(self.now), error)
    }

    /// Those who can be asked do not know such requests. The others may: those that are down, perhaps just to be updated, and
    /// those that the slot table will name.
    fn route_to_later_software(&mut self, job: &mut Job, error: Error) -> Route {
        let until = if self.slots.shards() == 0 {
            self.refresh.wanted |= !self.refresh_runs();
            Some(self.now + self.backoff.pause(1))
        } else {
            self.first_up()
        };
        let Some(until) = until else { return Route::Fail(error) };
        job.last_error = Some(error.clone());
        Route::Pause(until, error)
    }

    /// When the first lane that is down may be tried again.
    fn first_up(&self) -> Option<Instant> {
        let down = self.lanes.iter().filter_map(|lane| match lane.availability(self.now) {
            Availability::Down(until) => Some(until),
            _ => None,
        });
        down.min()
    }

    /// That those who can be asked do not know such requests, if there are any.
    fn unknown_to_all(&self, job: &Job) -> Option<Error> {
        let lacks = |peer: &usize| self.lanes[self.lane_for(*peer, job)].lacks(job.operation.features());
        let mut addresses: Vec<&str> =
            (0..self.peers.len()).filter(lacks).map(|peer| self.peers[peer].address.as_str()).collect();
        addresses.sort_unstable();
        (!addresses.is_empty()).then(|| unknown_to(job, &addresses))
    }

    fn route_to_node(&mut self, job: &Job, node: NodeId) -> Route {
        if let Some(peer) = self.peer_named(node) {
            return self.route_to_peer(job, peer);
        }
        if self.slots.shards() == 0 {
            self.refresh.wanted = true;
            let error = Error::new(ErrorKind::Unreachable, format!("the address of node {node} is not known yet"));
            return Route::Pause(self.now + self.backoff.pause(1), error);
        }
        let known: Vec<String> = self.slots.table().nodes.iter().map(|(id, _)| id.to_string()).collect();
        let message = format!("the cluster has no node {node}, only {}", known.join(", "));
        Route::Fail(Error::new(ErrorKind::BadRequest, message))
    }

    /// This peer or none; once it has failed the request, there is no point in waiting for it.
    fn route_to_peer(&self, job: &Job, peer: usize) -> Route {
        let lane = self.lane_for(peer, job);
        if self.lanes[lane].lacks(job.operation.features()) {
            return Route::Fail(unknown_to(job, &[self.peers[peer].address.as_str()]));
        }
        match (self.lanes[lane].availability(self.now), self.lanes[lane].last_error()) {
            (Availability::Down(_), Some(error)) if job.attempts > 0 => Route::Fail(error.clone()),
            (Availability::Down(until), Some(error)) => Route::Pause(until, error.clone()),
            _ => Route::Lane(lane),
        }
    }

    /// With several connections to a node each shard keeps to one of them, the one whose hello named it or a sibling.
    fn lane_for(&self, peer: usize, job: &Job) -> usize {
        let per_node = self.settings.connections_per_node;
        let own = job.shard.map_or(self.rotation, |shard| usize::from(shard.0));
        peer * per_node + own % per_node
    }

    pub(super) fn peer_of(&self, lane: usize) -> usize {
        lane / self.settings.connections_per_node
    }

    fn peer_named(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.node == Some(node))
    }

    /// The peer with this address, which is new if there is none.
    pub(super) fn peer_at(&mut self, address: &str) -> usize {
        if let Some(known) = self.peers.iter().position(|peer| peer.address == address) {
            return known;
        }
        self.peers.push(Peer { address: address.to_owned(), node: None });
        self.lanes.resize_with(self.peers.len() * self.settings.connections_per_node, Lane::default);
        self.peers.len() - 1
    }

    /// Makes peers of the slot table's nodes. A node that is known by an endpoint of another spelling keeps it: that
    /// address works from here, the table's may not.
    pub(super) fn name_peers(&mut self) {
        for (node, address) in self.slots.table().nodes.clone() {
            if self.peer_named(node).is_none() {
                let peer = self.peer_at(&address);
                self.peers[peer].node = Some(node);
            }
        }
    }

    /// Whether every node that was tried refused this client in a way that does not pass.
    fn refused_everywhere(&self) -> bool {
        let mut errors = self.lanes.iter().filter_map(Lane::last_error).peekable();
        errors.peek().is_some()
            && errors.all(|error| {
                matches!(error.kind(), ErrorKind::WrongCluster | ErrorKind::Version | ErrorKind::Unauthorized)
            })
    }

    /// Why no node can be reached. A node that answered and refused tells more than those that did not.
    fn unreachable(&self) -> Option<Error> {
        let errors = || self.lanes.iter().filter_map(Lane::last_error);
        let telling = |kind| !matches!(kind, ErrorKind::Unreachable | ErrorKind::ConnectionLost);
        if let Some(error) = errors().find(|error| telling(error.kind())) {
            return Some(error.clone());
        }
        let mut reasons: Vec<&str> = errors().map(Error::message).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let message = format!("cannot reach any node ({}); is raftkv-server running?", reasons.join("; "));
        (!reasons.is_empty()).then(|| Error::new(ErrorKind::Unreachable, message))
    }
}

fn nowhere() -> Error {
    Error::new(ErrorKind::Unreachable, "cannot reach any node")
}
