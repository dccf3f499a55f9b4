//! The hello of a connection: who dials, whether they may, and which core serves them.

use log::Level;
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloReply, HelloRole};
use raftkv_protocol::types::CoreId;

use crate::api::binary;
use crate::socket::Network;

use super::connection::Kind;
use super::core_loop::{CoreLoop, Fault, is_full};
use super::link::{Unheard, check_incarnation};
use super::message::ConnectionId;

/// Connections on which other nodes fetch snapshots from one core.
const FETCHERS_MAX: usize = 1_024;

/// Why a hello is not answered with a welcome.
enum Unwelcome {
    /// It is refused, and why.
    Refused(HelloRefusal, String),
    /// In a moment it may be said again: who says it is being put on record.
    Yet,
}

impl From<(HelloRefusal, String)> for Unwelcome {
    fn from((reason, words): (HelloRefusal, String)) -> Unwelcome {
        Unwelcome::Refused(reason, words)
    }
}

impl<N: Network> CoreLoop<N> {
    /// Takes the first frame of a connection.
    pub(super) fn take_hello(&mut self, id: ConnectionId, kind: u8, payload: &[u8]) -> Result<(), Fault> {
        let malformed = || (HelloRefusal::Malformed, "the first frame is not a hello of this protocol".to_owned());
        // The versions first: the fields behind them may lie elsewhere in a version that is not spoken here.
        let checked = Hello::versions(kind, payload)
            .map_err(|_| malformed())
            .and_then(|(min, max)| binary::check_versions(min, max))
            .and_then(|version| Hello::decode(kind, payload).map(|hello| (version, hello)).map_err(|_| malformed()))
            .map_err(Unwelcome::from)
            .and_then(|(version, hello)| self.check_hello(&hello).map(|()| (version, hello.role)));
        match checked {
            Ok((version, role)) => {
                self.say_welcome(id, version);
                self.seat(id, role);
                Ok(())
            }
            Err(Unwelcome::Yet) => Err(Fault::NotYet),
            Err(Unwelcome::Refused(reason, words)) => {
                self.refuse_hello(id, reason, &words);
                Err(Fault::Refused)
            }
        }
    }

    fn check_hello(&mut self, hello: &Hello<'_>) -> Result<(), Unwelcome> {
        let node = &self.node;
        let is_member = |id| node.peers.iter().any(|peer| peer.id == id);
        binary::check_hello(hello, node.cluster, node.config.node_id, is_member)?;
        match hello.role {
            HelloRole::Client { .. } if is_full(node) => {
                self.router.counters.connections_refused += 1;
                let max = node.config.limits.connections_max;
                let words = format!("{max} clients are connected, the limit (--connections-max)");
                Err(Unwelcome::Refused(HelloRefusal::Connections, words))
            }
            HelloRole::Client { .. } => Ok(()),
            HelloRole::Snapshots { .. } if self.io.fetchers.len() >= FETCHERS_MAX => {
                let words = format!("{FETCHERS_MAX} connections fetch snapshots from this core, the limit");
                Err(Unwelcome::Refused(HelloRefusal::Connections, words))
            }
            HelloRole::Peer { node: peer, incarnation, .. } | HelloRole::Snapshots { node: peer, incarnation, .. } => {
                check_incarnation(node, peer, incarnation).map_err(|unheard| match unheard {
                    Unheard::Yet => Unwelcome::Yet,
                    Unheard::Refused(words) => Unwelcome::Refused(HelloRefusal::Incarnation, words),
                })?;
                node.note_peer(peer, hello.features);
                Ok(())
            }
        }
    }

    /// Tells the other side why it may not stay.
    pub(super) fn refuse_hello(&mut self, id: ConnectionId, reason: HelloRefusal, words: &str) {
        self.router.counters.hellos_refused += 1;
        let now = self.now();
        if let Some(connection) = self.io.connections.get(id) {
            // Another node would dial again every second, from each of its cores.
            let may_repeat = reason == HelloRefusal::Malformed || reason == HelloRefusal::Connections;
            let level = if may_repeat || self.node.together.is_worth_saying(connection.remote.ip(), words, now) {
                Level::Warn
            } else {
                Level::Debug
            };
            log::log!(level, "refused the hello from {}: {words}", connection.remote);
            HelloReply::Refused { reason, message: words }.encode(connection.output.buffer());
        }
    }

    fn say_welcome(&mut self, id: ConnectionId, version: u16) {
        let reply = HelloReply::Welcome {
            version,
            cluster: self.node.cluster,
            node: self.node.config.node_id,
            incarnation: self.node.incarnation,
            shards: self.node.config.shards,
            cores: self.node.config.cores,
            features: self.node.features(),
            http: "",
            auth: Auth::default(),
        };
        if let Some(connection) = self.io.connections.get(id) {
            reply.encode(connection.output.buffer());
            self.io.mark_dirty(id);
        }
    }

    /// Books the connection here, or sends it to the core that it is for.
    fn seat(&mut self, id: ConnectionId, role: HelloRole) {
        let cores = self.node.config.cores;
        let (kind, core) = match role {
            HelloRole::Client { home } => {
                let home = home.filter(|shard| shard.0 < self.node.config.shards);
                (Kind::Client, home.map(|shard| self.node.owner(shard)))
            }
            HelloRole::Peer { node, core, .. } => {
                (Kind::Peer { node, core, crosses: false, leads: false }, Some(CoreId(core.0 % cores)))
            }
            // Files belong to no core.
            HelloRole::Snapshots { node, core, .. } => (Kind::Snapshots { node, core }, None),
        };
        let own = self.core();
        let Some(connection) = self.io.connections.get(id) else { return };
        connection.kind = kind;
        match core.filter(|core| *core != own) {
            Some(core) => connection.leaving = Some(core),
            None => self.settle(id, kind),
        }
    }
}
