//! The connection on which a core fetches snapshots from another node: dialled while there is something to fetch, to one
//! node at a time. Questions leave on it, and pieces come back.
//!
//! A connection that breaks is dialled again with growing pauses for as long as its node is asked for. What it carried is
//! the fetcher's business.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Token;
use raftkv_protocol::frame;
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::peer::{PeerFrame, SnapshotChunk};
use raftkv_protocol::types::{CoreId, NodeId};

use crate::event_loop::{Appetite, Flushed, Input, Output, Received};
use crate::socket::{Network, Socket, Stream};

use super::fetcher::Verdict;
use super::link::{Fault, bad_greeting, check_welcome};
use super::node::Node;

/// How long connecting and greeting may take.
const GREETING: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// So much of a piece is read in one turn: clients' requests wait meanwhile.
const TURN_BYTES_MAX: usize = 128 << 10;

#[derive(Debug)]
enum State<S> {
    /// Nothing is asked for.
    Idle,
    Down {
        retry_at: Instant,
    },
    Greeting {
        socket: S,
        give_up_at: Instant,
    },
    Up {
        socket: S,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct SnapshotLink<S> {
    token: Token,
    /// Who is asked.
    source: Option<NodeId>,
    state: State<S>,
    input: Input,
    output: Output,
    pause: Duration,
    blocked: bool,
    /// There may be more to read although the poll will not say so.
    unread: bool,
    /// The poll has reported the end of the stream, which it does once.
    ends: bool,
    /// Bytes have come, be it of a piece that is not whole yet.
    has_come: bool,
    now: Instant,
}

impl<S: Socket> SnapshotLink<S> {
    pub(super) fn new(token: Token, now: Instant) -> SnapshotLink<S> {
        SnapshotLink {
            token,
            source: None,
            state: State::Idle,
            input: Input::default(),
            output: Output::default(),
            pause: PAUSE_MIN,
            blocked: false,
            unread: false,
            ends: false,
            has_come: false,
            now,
        }
    }

    /// Where to append questions for this node, if the connection to it stands; else it is dialled in the next turn.
    pub(super) fn source(&mut self, node: NodeId, network: &mut impl Network<Socket = S>) -> Option<&mut Vec<u8>> {
        if self.source != Some(node) {
            self.leave(network);
            self.source = Some(node);
            self.state = State::Down { retry_at: self.now };
        }
        matches!(self.state, State::Up { .. }).then(|| self.output.buffer())
    }

    /// Closes the connection, if there is one.
    pub(super) fn leave(&mut self, network: &mut impl Network<Socket = S>) {
        if let State::Greeting { socket, .. } | State::Up { socket } = &mut self.state
            && let Err(error) = network.deregister(socket)
        {
            log::debug!("cannot deregister the connection for snapshots: {error}");
        }
        (self.source, self.state, self.pause) = (None, State::Idle, PAUSE_MIN);
        self.forget();
    }

    fn forget(&mut self) {
        (self.input, self.output) = (Input::default(), Output::default());
        (self.blocked, self.unread, self.ends, self.has_come) = (false, false, false, false);
    }

    /// When the connection has something to do by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Down { retry_at } => Some(*retry_at),
            State::Greeting { give_up_at, .. } => Some(*give_up_at),
            State::Up { .. } if self.unread => Some(self.now),
            State::Up { .. } | State::Idle => None,
        }
    }

    /// The poll has reported something.
    pub(super) fn note(&mut self, read_closed: bool) {
        if matches!(self.state, State::Greeting { .. } | State::Up { .. }) {
            self.unread = true;
            self.ends |= read_closed;
        }
    }

    /// Whether [`SnapshotLink::ready`] is to be called, once in a turn.
    pub(super) fn has_unread(&self) -> bool {
        self.unread
    }

    /// Whether bytes of pieces have come since this was asked last.
    pub(super) fn has_come(&mut self) -> bool {
        std::mem::take(&mut self.has_come)
    }

    /// Dials if it is time to, or gives up on a greeting that takes too long.
    pub(super) fn tick(&mut self, node: &Node, core: CoreId, network: &mut impl Network<Socket = S>, now: Instant) {
        self.now = now;
        match &self.state {
            State::Down { retry_at } if *retry_at <= now => {
                let source = self.source;
                let peer = node.peers.iter().find(|peer| Some(peer.id) == source);
                match peer.map(|peer| peer.address) {
                    Some(address) => self.dial(address, node, core, network),
                    None => self.leave(network),
                }
            }
            State::Greeting { give_up_at, .. } if *give_up_at <= now => {
                self.fall(network, &Fault::of("it does not answer"));
            }
            _ => {}
        }
    }

    /// Goes on with the socket. `take` gets every piece that has come. `false` if the connection broke.
    pub(super) fn ready(
        &mut self,
        node: &Node,
        network: &mut impl Network<Socket = S>,
        scratch: &mut [u8],
        take: impl FnMut(&SnapshotChunk<'_>) -> Verdict,
    ) -> bool {
        self.blocked = false;
        let outcome = self.flush().and_then(|()| self.receive(node, scratch, take));
        self.stand(network, outcome)
    }

    /// Writes what waits, as far as the socket takes it. `false` if the connection broke.
    pub(super) fn flush_or_fall(&mut self, network: &mut impl Network<Socket = S>) -> bool {
        if !matches!(self.state, State::Up { .. }) || self.output.waiting_bytes() == 0 {
            return true;
        }
        let outcome = self.flush();
        self.stand(network, outcome)
    }

    fn stand(&mut self, network: &mut impl Network<Socket = S>, outcome: Result<(), Fault>) -> bool {
        if let Err(fault) = &outcome {
            self.fall(network, fault);
        }
        outcome.is_ok()
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let (State::Greeting { socket, .. } | State::Up { socket }) = &self.state else {
            return Ok(());
        };
        if self.blocked {
            return Ok(());
        }
        match self.output.flush(&mut Stream(socket)) {
            Ok(flushed) => self.blocked = flushed == Flushed::Blocked,
            // Still connecting: the socket tells when it has.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => self.blocked = true,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn dial(&mut self, address: SocketAddr, node: &Node, core: CoreId, network: &mut impl Network<Socket = S>) {
        self.forget();
        match network.dial(address, self.token) {
            Ok(socket) => {
                let role = HelloRole::Snapshots { node: node.config.node_id, incarnation: node.incarnation, core };
                let hello = Hello {
                    version_min: VERSION_MIN,
                    version_max: VERSION_MAX,
                    cluster: node.cluster,
                    role,
                    features: node.admission.features(),
                    auth: Auth::default(),
                };
                hello.encode(self.output.buffer());
                self.state = State::Greeting { socket, give_up_at: self.now + GREETING };
            }
            Err(error) => self.fall(network, &error.into()),
        }
    }

    /// Reads the answer to the hello, and then pieces.
    fn receive(
        &mut self,
        node: &Node,
        scratch: &mut [u8],
        mut take: impl FnMut(&SnapshotChunk<'_>) -> Verdict,
    ) -> Result<(), Fault> {
        let mut is_greeting = matches!(self.state, State::Greeting { .. });
        let was_greeting = is_greeting;
        let (Some(peer), State::Greeting { socket, .. } | State::Up { socket }) = (self.source, &self.state) else {
            return Ok(());
        };
        let mut stream = Stream(socket);
        let kept = self.input.kept_bytes();
        let mut consumed = 0;
        let scratch_bytes = scratch.len().min(TURN_BYTES_MAX / 2);
        let scratch = &mut scratch[..scratch_bytes];
        let take = |bytes: &[u8]| -> Result<_, Fault> {
            let mut at = 0;
            while let Some(found) = frame::parse(&bytes[at..], frame::PEER_FRAME_MAX).map_err(|_| bad_greeting())? {
                at += found.consumed;
                if is_greeting {
                    let reply = HelloReply::decode(found.kind, found.payload).map_err(|_| bad_greeting())?;
                    check_welcome(&reply, node, peer)?;
                    is_greeting = false;
                    continue;
                }
                match PeerFrame::decode(found.kind, found.payload) {
                    Ok(PeerFrame::SnapshotChunk(chunk)) if take(&chunk) == Verdict::Fine => {}
                    _ => return Err(Fault::of("it sends what nobody asked for")),
                }
            }
            consumed += at;
            Ok((at, Appetite::Hungry))
        };
        let received = self.input.receive_some(&mut stream, scratch, self.ends, TURN_BYTES_MAX, take)?;
        self.has_come |= !was_greeting && consumed + self.input.kept_bytes() > kept;
        if was_greeting && !is_greeting {
            self.rise();
        }
        self.unread = received == Received::More;
        if received == Received::Closed { Err(Fault::of("it has closed the connection")) } else { Ok(()) }
    }

    fn rise(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Greeting { socket, .. } => State::Up { socket },
            other => other,
        };
        self.pause = PAUSE_MIN;
    }

    fn fall(&mut self, network: &mut impl Network<Socket = S>, fault: &Fault) {
        let (source, pause) = (self.source, self.pause);
        if let Some(source) = source {
            log::debug!("the connection to node {source} for snapshots: {}; trying again", fault.words);
        }
        self.leave(network);
        (self.source, self.pause) = (source, (pause * 2).min(PAUSE_MAX));
        self.state = State::Down { retry_at: self.now + pause };
    }
}
