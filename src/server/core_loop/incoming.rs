//! The bytes that come on connections of the binary protocol, frame by frame, and how such a connection ends.

use std::io;
use std::rc::Rc;

use raftkv_protocol::client::{Code, Refusal, Reply, Request};
use raftkv_protocol::frame::{self, DecodeError, FrameError};
use raftkv_protocol::hello::HelloRefusal;
use raftkv_protocol::peer::{Body, PeerFrame};
use raftkv_protocol::types::{CoreId, EntryId, NodeId, RequestId};

use super::CoreLoop;
use crate::api::binary;
use crate::event_loop::{Appetite, Received};
use crate::metrics::requests::{Face, Taken, Task};
use crate::server::budget;
use crate::server::connection::{Connection, Kind};
use crate::server::io::{Adopted, Io, PIECE_CHARGE, Post};
use crate::server::message::{ConnectionId, CoreMessage, Origin, ReplyTo};
use crate::server::room::Room;
use crate::socket::{Network, Socket, Stream};

/// Why a connection is closed from this side.
#[derive(Debug)]
pub(in crate::server) enum Fault {
    Io(io::Error),
    Frame(FrameError),
    /// The frame is no message; if it has a request id, it is this one.
    Message(DecodeError, RequestId),
    /// The hello was refused; the answer is in the output.
    Refused,
    /// The other side may say hello again in a moment.
    NotYet,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl<N: Network> CoreLoop<N> {
    /// Reads a connection until it is empty, or until it has had its share.
    pub(super) fn receive(&mut self, id: ConnectionId) {
        let Some(connection) = self.io.connections.get(id) else { return };
        if connection.paused {
            return;
        }
        let known_closed = connection.read_closed;
        let socket = Rc::clone(&connection.socket);
        let mut input = std::mem::take(&mut connection.input);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut stream = Stream(&*socket);
        let outcome = input.receive(&mut stream, &mut scratch, known_closed, |bytes| self.take_frames(id, bytes));
        // A connection that is handed over, or closed, must be the last that holds its socket.
        drop(socket);
        self.scratch = scratch;
        let Some(connection) = self.io.connections.get(id) else { return };
        connection.input = input;
        match outcome {
            Ok(_) if connection.leaving.is_some() => self.hand_over(id),
            Ok(Received::Drained) => {}
            Ok(Received::More) if connection.paused => self.router.counters.reads_paused += 1,
            Ok(Received::More) => self.io.resumed.push(id),
            Ok(Received::Closed) => self.remote_closed(id),
            Err(fault) => self.fault(id, fault),
        }
    }

    /// Looks at the whole frames in `bytes`, as many as the connection has room for.
    pub(super) fn take_frames(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(usize, Appetite), Fault> {
        let mut at = 0;
        loop {
            let limits = &self.node.config.limits;
            let Some(connection) = self.io.connections.get(id) else { return Ok((at, Appetite::Full)) };
            if connection.closing {
                return Ok((bytes.len(), Appetite::Hungry));
            }
            if connection.leaving.is_some() {
                return Ok((at, Appetite::Full));
            }
            let asks = matches!(connection.kind, Kind::Client | Kind::Snapshots { .. });
            if asks && !connection.has_room(limits) {
                connection.paused = true;
                return Ok((at, Appetite::Full));
            }
            let kind = connection.kind;
            let is_peer = matches!(kind, Kind::Peer { .. });
            let frame_max = if is_peer { frame::PEER_FRAME_MAX } else { frame::CLIENT_FRAME_MAX };
            let Some(found) = frame::parse(&bytes[at..], frame_max).map_err(Fault::Frame)? else {
                return Ok((at, Appetite::Hungry));
            };
            match kind {
                Kind::Unknown => self.take_hello(id, found.kind, found.payload)?,
                Kind::Client => {
                    if let Room::Later(_) = self.take_request(id, found.kind, found.payload)? {
                        return Ok((at, Appetite::Full));
                    }
                }
                Kind::Peer { node, .. } => self.take_peer_frame(id, node, found.kind, found.payload)?,
                Kind::Snapshots { .. } => self.take_snapshot_frame(id, found.kind, found.payload)?,
            }
            at += found.consumed;
        }
    }

    /// Takes a request in, unless the core has no room for its reply: then it stays where it is for now.
    pub(super) fn take_request(&mut self, id: ConnectionId, kind: u8, payload: &[u8]) -> Result<Room, Fault> {
        let request = Request::decode(kind, payload)
            .map_err(|error| Fault::Message(error, Request::id_of(payload).unwrap_or_default()))?;
        let charge = budget::charge(&request.operation, &self.node);
        let room = self.io.room(id, charge);
        if let Room::Later(_) = room {
            return Ok(room);
        }
        self.io.charge(id, charge);
        let taken = Taken { at: self.clock.now(), face: Face::Binary, task: Task::of(&request.operation) };
        let origin = Origin::Client { connection: id, request: request.id, charge, taken };
        let to = ReplyTo { core: self.core, origin };
        match binary::check(&request.operation, &self.node.config.limits) {
            Ok(()) if room == Room::No => {
                self.router.counters.overloaded_replies += 1;
                let message = "the clients of this core leave too many replies unread; try again later";
                self.router.refuse(to, Code::Overloaded, None, message, &mut self.io);
            }
            Ok(()) => self.router.request(request.operation, to, self.clock.now(), &mut self.io),
            Err((code, message)) => self.router.refuse(to, code, None, &message, &mut self.io),
        }
        Ok(room)
    }

    pub(super) fn take_peer_frame(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        kind: u8,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let peer_frame =
            PeerFrame::decode(kind, payload).map_err(|error| Fault::Message(error, RequestId::default()))?;
        if let PeerFrame::Message(message) = &peer_frame
            && let Some(connection) = self.io.connections.get(id)
            && let Kind::Peer { core, crosses, leads, .. } = &mut connection.kind
        {
            let core = *core;
            *crosses |= self.node.owner(message.shard) != self.core;
            let is_leader =
                matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. });
            let is_first = is_leader && !std::mem::replace(leads, true);
            if self.io.is_outdated(from, core, id) {
                self.router.counters.raft_messages_outdated += 1;
                return Ok(());
            }
            if is_first {
                self.io.note_leader_link(from, core, id);
            }
        }
        self.router.peer_frame(from, peer_frame, self.clock.now(), &mut self.io);
        Ok(())
    }

    /// Takes a question of a node that fetches snapshots.
    pub(super) fn take_snapshot_frame(&mut self, id: ConnectionId, kind: u8, payload: &[u8]) -> Result<(), Fault> {
        let question = PeerFrame::decode(kind, payload).map_err(|error| Fault::Message(error, RequestId::default()))?;
        let PeerFrame::SnapshotRead(read) = question else {
            return Err(Fault::Message(DecodeError::Kind(kind), RequestId::default()));
        };
        self.io.charge(id, PIECE_CHARGE);
        self.router.snapshot_read(id, &read);
        Ok(())
    }

    pub(super) fn remote_closed(&mut self, id: ConnectionId) {
        let is_newest = |io: &Io<N>, node, core| io.peer_links.get(&(node, core)) == Some(&id);
        let Some(connection) = self.io.connections.get(id) else { return };
        match connection.kind {
            _ if connection.closing => {
                self.io.close(id);
            }
            Kind::Client if !connection.is_settled() => {
                // Half-closed: it still wants its answers, and the flush closes it when it has them. The start of a
                // request whose rest will never come is no reason to stay.
                connection.ended = true;
                self.io.mark_dirty(id);
            }
            Kind::Peer { node, core, crosses, .. } => {
                let newest = is_newest(&self.io, node, core);
                self.io.close(id);
                if newest {
                    self.peer_gone(node, crosses);
                }
            }
            Kind::Client | Kind::Snapshots { .. } | Kind::Unknown => {
                self.io.close(id);
            }
        }
    }

    /// The remote side has closed the link that its heartbeats came on: most likely the process has ended.
    pub(super) fn peer_gone(&mut self, node: NodeId, crosses: bool) {
        self.router.link_lost(node);
        if crosses {
            for core in 0..self.node.config.cores {
                if CoreId(core) != self.core {
                    self.io.posts[usize::from(core)].answer(Post::Message(CoreMessage::LinkLost(node)));
                }
            }
        }
    }

    /// Says what was wrong with the bytes, where the other side can be told, and closes the connection.
    pub(super) fn fault(&mut self, id: ConnectionId, fault: Fault) {
        let Some(connection) = self.io.connections.get(id) else { return };
        let remote = connection.remote;
        let words = match fault {
            // The remote process has ended with bytes unread. A network that is silent says nothing of the process.
            Fault::Io(error)
                if matches!(connection.kind, Kind::Peer { .. }) && error.kind() == io::ErrorKind::ConnectionReset =>
            {
                log::debug!("the link from {remote} broke: {error}");
                return self.remote_closed(id);
            }
            Fault::Io(error) => {
                log::debug!("the connection from {remote} broke: {error}");
                self.io.close(id);
                return;
            }
            Fault::NotYet => return drop(self.io.close(id)),
            Fault::Refused => None,
            Fault::Frame(error) => {
                self.router.counters.frames_bad += 1;
                Some((RequestId::default(), binary::bad_frame(error)))
            }
            Fault::Message(error, request) => {
                self.router.counters.messages_bad += 1;
                Some((request, binary::bad_message(error)))
            }
        };
        if let Some((request, (code, words))) = words {
            log::warn!("connection from {remote}: {words}");
            match connection.kind {
                Kind::Client => farewell(connection, request, code, &words),
                Kind::Unknown => self.refuse_hello(id, HelloRefusal::Malformed, &words),
                Kind::Peer { .. } | Kind::Snapshots { .. } => {}
            }
        }
        if let Some(connection) = self.io.connections.get(id) {
            connection.closing = true;
            self.lingering.push(self.clock.now(), id);
            self.io.mark_dirty(id);
        }
    }

    /// Moves a connection to the core that it is for; if that core has no room for it, it stays.
    pub(super) fn hand_over(&mut self, id: ConnectionId) {
        let Some(connection) = self.io.connections.get(id) else { return };
        let Some(core) = connection.leaving.take() else { return };
        let kind = std::mem::replace(&mut connection.kind, Kind::Unknown);
        let Some(connection) = self.io.close(id) else { return };
        let Ok(socket) = Rc::try_unwrap(connection.socket) else { return };
        let unsent = connection.output.into_unsent();
        let adopted = Box::new(Adopted { socket, kind, unread: connection.input.into_bytes(), unsent });
        if let Err(Post::Adopt(adopted)) = self.io.posts[usize::from(core.0)].send(Post::Adopt(adopted)) {
            self.adopt(*adopted);
        }
    }
}

/// The last words to a client whose bytes could not be understood.
fn farewell<S: Socket>(connection: &mut Connection<S>, id: RequestId, code: Code, words: &str) {
    let refusal = Refusal { code, leader: None, message: words };
    Reply { id, at: EntryId::ZERO, result: Err(refusal) }.encode(connection.output.buffer());
}
