//! Opening connections, and what happens when they break.

use std::net::SocketAddr;

use mio::Token;
use raftkv_protocol::hello::HelloRefusal;
use raftkv_protocol::types::ShardId;

use super::Driver;
use super::resolver::{Resolved, Resolver};
use crate::client::connection::{Broken, Connection};
use crate::client::lane::Availability;
use crate::client::request::Origin;
use crate::client::{Error, ErrorKind};
use crate::socket::Network;

impl<N: Network> Driver<N> {
    /// Dials the lanes that were given requests in this turn, or sends those requests.
    pub(super) fn settle_touched(&mut self) {
        while let Some(lane) = self.touched.pop() {
            match self.lanes[lane].availability(self.now) {
                Availability::Closed if self.lanes[lane].waiting() > 0 => self.open(lane),
                Availability::Open => self.pump(lane),
                Availability::Closed | Availability::Opening | Availability::Down(_) => {}
            }
        }
    }

    fn pump(&mut self, lane: usize) {
        let (now, inflight_max) = (self.now, self.settings.inflight_max);
        let pumped = self.lanes[lane].pump(now, &mut self.next_id, inflight_max, &mut self.incidents);
        self.take_incidents(lane);
        if let Err(broken) = pumped {
            self.on_broken(lane, &broken);
        }
    }

    fn open(&mut self, lane: usize) {
        let address = &self.peers[self.peer_of(lane)].address;
        if let Ok(address) = address.parse() {
            return self.dial(lane, vec![address]);
        }
        let Some(resolver) = &self.resolver else {
            return self.on_dial_failed(lane, "this client resolves no names: it needs an IP address and a port");
        };
        let started = resolver.start(lane, address.clone());
        self.lanes[lane].resolve(self.now + self.settings.connect_timeout);
        if let Err(error) = started {
            self.on_dial_failed(lane, &format!("cannot start a thread to resolve its name: {error}"));
        }
    }

    pub(super) fn on_resolved(&mut self) {
        while let Some(Resolved { lane, addresses }) = self.resolver.as_ref().and_then(Resolver::next) {
            if !self.lanes[lane].is_resolving() {
                continue;
            }
            match addresses {
                Ok(addresses) => self.dial(lane, addresses.into_iter().rev().collect()),
                Err(error) => self.on_dial_failed(lane, &format!("its name cannot be resolved: {error}")),
            }
        }
    }

    /// Tries the last of `addresses`, and the others after it.
    fn dial(&mut self, lane: usize, mut addresses: Vec<SocketAddr>) {
        let home = self.home_of(lane);
        let mut reason = "its name has no address".to_owned();
        while let Some(address) = addresses.pop() {
            match self.network.dial(address, Token(lane)) {
                Ok(socket) => {
                    let connection = Connection::over(socket, self.cluster, home);
                    let give_up = self.now + self.settings.connect_timeout;
                    return self.lanes[lane].dial(connection, addresses, give_up);
                }
                Err(error) => reason = Broken::Io(error).to_string(),
            }
        }
        self.on_dial_failed(lane, &reason);
    }

    /// With several connections to a node, a shard whose requests go over this lane, one that the node leads if that is
    /// known. A connection for all shards has no home: the server spreads those over its cores.
    fn home_of(&self, lane: usize) -> Option<ShardId> {
        let per_node = self.settings.connections_per_node;
        let own = lane % per_node;
        let led = self.peers[self.peer_of(lane)].node.into_iter().flat_map(|node| self.slots.led_by(node));
        let led = led.into_iter().find(|shard| usize::from(shard.0) % per_node == own);
        led.or_else(|| u16::try_from(own).ok().map(ShardId)).filter(|_| per_node > 1)
    }

    pub(super) fn on_broken(&mut self, lane: usize, broken: &Broken) {
        let address = &self.peers[self.peer_of(lane)].address;
        let (kind, remedy) = match broken {
            Broken::Io(_) | Broken::Closed if self.lanes[lane].is_open() => {
                return self.on_lane_failed(lane, &self.lost(lane, &broken.to_string()));
            }
            Broken::Io(_) => return self.on_dial_failed(lane, &broken.to_string()),
            Broken::Closed => (ErrorKind::Unreachable, "; is it a RaftKV server?"),
            Broken::Frame(_) | Broken::Decode(_) => (ErrorKind::Protocol, "; is it a RaftKV server's client port?"),
            Broken::Refused { reason, .. } => (kind_of_refusal(*reason), ""),
        };
        let error = Error::new(kind, format!("{address}: {broken}{remedy}"));
        self.on_lane_failed(lane, &error);
    }

    /// A dial came to nothing: the next address of the name, if there is one.
    pub(super) fn on_dial_failed(&mut self, lane: usize, reason: &str) {
        let others = self.lanes[lane].take_other_addresses();
        if !others.is_empty() {
            return self.dial(lane, others);
        }
        let message = format!("{}: {reason}", self.peers[self.peer_of(lane)].address);
        self.on_lane_failed(lane, &Error::new(ErrorKind::Unreachable, message));
    }

    /// The error of requests whose connection broke.
    pub(super) fn lost(&self, lane: usize, reason: &str) -> Error {
        let address = &self.peers[self.peer_of(lane)].address;
        Error::new(ErrorKind::ConnectionLost, format!("the connection to {address} was lost: {reason}"))
    }

    /// Gives a lane up for a while and sends elsewhere what may be sent elsewhere.
    pub(super) fn on_lane_failed(&mut self, lane: usize, error: &Error) {
        log::debug!("{error}");
        let peer = self.peer_of(lane);
        let was_open = self.lanes[lane].is_open();
        let until = self.now + self.backoff.pause(self.lanes[lane].failures() + 1);
        for mut job in self.lanes[lane].fail(error, until, &mut self.network) {
            if matches!(job.origin, Origin::Probe) {
                continue;
            }
            job.attempts += 1;
            job.avoid = Some(peer);
            job.last_error = Some(error.clone());
            self.route(job);
        }
        if was_open {
            // Its shards will have other leaders soon.
            self.refresh.avoid = Some(peer);
            self.refresh.wanted = true;
        }
    }
}

fn kind_of_refusal(reason: HelloRefusal) -> ErrorKind {
    match reason {
        HelloRefusal::Cluster => ErrorKind::WrongCluster,
        HelloRefusal::Version => ErrorKind::Version,
        HelloRefusal::Unauthorized => ErrorKind::Unauthorized,
        HelloRefusal::Connections => ErrorKind::Overloaded,
        _ => ErrorKind::Protocol,
    }
}
