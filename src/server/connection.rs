//! The connections that others have dialled to this core: clients, and peers that send to it.

use std::net::SocketAddr;
use std::rc::Rc;

use raftkv_protocol::client::{Answer, Code, Refusal, Reply};
use raftkv_protocol::types::{CoreId, EntryId, NodeId, RequestId};

use crate::event_loop::{Input, Output};
use crate::limits::Limits;
use crate::socket::Socket;

use super::budget::Debt;
use super::message::{Charge, ConnectionId};
use super::room::Place;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody knows before the hello.
    Unknown,
    /// A client.
    Client,
    /// A node of the cluster, which sends Raft messages here.
    Peer {
        /// Which.
        node: NodeId,
        /// Its core.
        core: CoreId,
        /// Some of its messages were for other cores than this one.
        crosses: bool,
        /// A leader has spoken on it.
        leads: bool,
    },
    /// A node of the cluster, which fetches snapshots.
    Snapshots {
        /// Which.
        node: NodeId,
        /// Its core.
        core: CoreId,
    },
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: Rc<S>,
    pub(super) remote: SocketAddr,
    pub(super) kind: Kind,
    pub(super) input: Input,
    pub(super) output: Output,
    /// How many of the waiting bytes of `output` the core has counted.
    pub(super) counted_bytes: usize,
    pub(super) generation: u32,
    /// Requests that are not answered yet.
    pub(super) debt: Debt,
    /// Its reader leaves too much unread, or too much of it is under way: nothing more is read from it.
    pub(super) paused: bool,
    /// Its next request is a read that waits in this place for room at the core; it is paused until then.
    pub(super) place: Option<Place>,
    /// The poll has reported the end of the stream; there may be bytes before it.
    pub(super) read_closed: bool,
    /// The end of the stream was read. The connection ends when everything is answered.
    pub(super) ended: bool,
    /// The socket takes nothing more until it says so.
    pub(super) blocked: bool,
    /// Waits to be flushed at the end of the turn.
    pub(super) dirty: bool,
    /// To be closed as soon as its output is gone, whatever comes in.
    pub(super) closing: bool,
    /// To be handed to this core once the current bytes are looked at.
    pub(super) leaving: Option<CoreId>,
}

impl<S: Socket> Connection<S> {
    pub(super) fn new(socket: S, remote: SocketAddr, kind: Kind, input: Input) -> Connection<S> {
        Connection {
            socket: Rc::new(socket),
            remote,
            kind,
            input,
            output: Output::default(),
            counted_bytes: 0,
            generation: 0,
            debt: Debt::default(),
            paused: false,
            place: None,
            read_closed: false,
            ended: false,
            blocked: false,
            dirty: false,
            closing: false,
            leaving: None,
        }
    }

    /// Whether another request may be taken in: what is under way and unread stays within the limits.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.debt.has_room(self.output.waiting_bytes(), limits)
    }

    /// Appends the reply to a request that was charged with `charge`. Returns false if it was replaced by a refusal, as
    /// twice the limit waits unread: a value was longer than any that this node had seen when it was asked for.
    pub(super) fn reply(
        &mut self,
        id: RequestId,
        charge: Charge,
        at: EntryId,
        result: Result<Answer<'_>, Refusal<'_>>,
        limits: &Limits,
    ) -> bool {
        self.debt.settle(charge);
        let is_heavy = matches!(result, Ok(Answer::Value { .. } | Answer::Page(_)));
        if is_heavy && self.output.waiting_bytes() > 2 * limits.reply_bytes_max {
            let message = "too many replies wait unread; read them and ask again";
            let refusal = Refusal { code: Code::Overloaded, leader: None, message };
            Reply { id, at, result: Err(refusal) }.encode(self.output.buffer());
            return false;
        }
        Reply { id, at, result }.encode(self.output.buffer());
        true
    }

    /// Whether nothing is owed to the remote side any more.
    pub(super) fn is_settled(&self) -> bool {
        self.debt.is_settled() && self.output.waiting_bytes() == 0
    }
}

/// All accepted connections of a core.
#[derive(Debug)]
pub(super) struct Connections<S> {
    slots: Vec<Option<Connection<S>>>,
    free: Vec<u32>,
    generation: u32,
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Connections { slots: Vec::new(), free: Vec::new(), generation: 0 }
    }
}

impl<S: Socket> Connections<S> {
    pub(super) fn insert(&mut self, mut connection: Connection<S>) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1);
        if mutant!("connection-generation-kept") {
            self.generation = 0;
        }
        connection.generation = self.generation;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer connections than file descriptors")
        });
        self.slots[slot as usize] = Some(connection);
        ConnectionId { slot, generation: self.generation }
    }

    pub(super) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection<S>> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|connection| connection.generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection<S>> {
        self.get(id)?;
        self.free.push(id.slot);
        self.slots[id.slot as usize].take()
    }

    /// The connection in a place, for an event of the poll.
    pub(super) fn at(&self, slot: usize) -> Option<ConnectionId> {
        let connection = self.slots.get(slot)?.as_ref()?;
        Some(ConnectionId { slot: u32::try_from(slot).ok()?, generation: connection.generation })
    }

    /// Who is at the other ends.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.slots.iter().flatten().map(|connection| connection.kind)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        (0..self.slots.len()).filter_map(|slot| self.at(slot)).collect()
    }
}
