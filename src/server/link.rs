//! This core's own links to the peers: dialled here, one per peer, carrying Raft messages and forwards one way.
//!
//! A link that breaks is dialled again with growing pauses. Nothing is sent again on the new one: Raft probes what
//! arrived, and whatever was forwarded is unknown.

use std::io;
use std::time::{Duration, Instant};

use log::Level;
use mio::Token;
use raftkv_protocol::frame;
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{CoreId, Incarnation, NodeId};

use crate::event_loop::{Appetite, Flushed, Input, Output, Received};
use crate::socket::{Network, Socket, Stream};

use super::node::{Node, Peer};
use super::records::{Outcome, Record};

/// How long connecting and greeting may take.
const GREETING: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// After a refusal there is no hurry.
const PAUSE_REFUSED: Duration = Duration::from_secs(1);
/// What is over in moments is not worth a warning before it has lasted for so long.
const PASSING: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum State<S> {
    /// Between two other states.
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

/// Why a link broke.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) words: String,
    kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Broken,
    /// The peer has said no, so that there is no hurry to ask again.
    Refused,
    /// Part of how nodes meet: they hang up until each has put the other on record. Over in moments, if all is well.
    Passing,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault { words: error.to_string(), kind: FaultKind::Broken }
    }
}

impl Fault {
    pub(super) fn of(words: impl Into<String>) -> Fault {
        Fault { words: words.into(), kind: FaultKind::Broken }
    }

    fn refusal(words: String) -> Fault {
        Fault { words, kind: FaultKind::Refused }
    }

    fn passing(words: &str) -> Fault {
        Fault { words: words.to_owned(), kind: FaultKind::Passing }
    }
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEvent {
    /// Nothing that others need to know.
    Nothing,
    /// It can be used now.
    Up,
    /// It can no longer be used.
    Down,
}

/// A link to one peer.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub(super) peer: Peer,
    token: Token,
    state: State<S>,
    input: Input,
    output: Output,
    pause: Duration,
    /// Since when it has had no other faults than passing ones.
    passing_since: Option<Instant>,
    blocked: bool,
    /// What the hello has said of this node.
    said: u64,
    /// Unsent bytes above which it takes nothing more: its peer does not read.
    bytes_max: usize,
    pub(super) dirty: bool,
}

impl<S: Socket> Link<S> {
    pub(super) fn new(peer: Peer, token: Token, bytes_max: usize, now: Instant) -> Link<S> {
        Link {
            peer,
            token,
            state: State::Down { retry_at: now },
            input: Input::default(),
            output: Output::default(),
            pause: PAUSE_MIN,
            passing_since: None,
            blocked: false,
            said: 0,
            bytes_max,
            dirty: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Where to append frames, while the link is up and its peer reads.
    pub(super) fn buffer(&mut self) -> Option<&mut Vec<u8>> {
        let has_room = self.output.waiting_bytes() < self.bytes_max;
        (self.is_up() && has_room).then(|| self.output.buffer())
    }

    /// When the link has something to do by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Down { retry_at } => Some(*retry_at),
            State::Greeting { give_up_at, .. } => Some(*give_up_at),
            State::Up { .. } | State::Idle => None,
        }
    }

    /// Dials if it is time to, or gives up on a greeting that takes too long.
    pub(super) fn tick(&mut self, node: &Node, core: CoreId, network: &mut impl Network<Socket = S>, now: Instant) {
        match &self.state {
            State::Down { retry_at } if *retry_at <= now => self.dial(node, core, network, now),
            State::Greeting { give_up_at, .. } if *give_up_at <= now => {
                self.fall(node, network, now, &Fault::of("it does not answer"));
            }
            State::Greeting { .. } if self.said != node.features() => {
                self.fall(node, network, now, &outdated());
            }
            _ => {}
        }
    }

    /// Handles readiness of the socket; `read_closed` tells that the peer's end of the stream has come.
    pub(super) fn ready(
        &mut self,
        node: &Node,
        network: &mut impl Network<Socket = S>,
        scratch: &mut [u8],
        read_closed: bool,
        now: Instant,
    ) -> LinkEvent {
        self.blocked = false;
        let was_up = self.is_up();
        let outcome = self.flush().and_then(|()| self.receive(node, scratch, read_closed));
        match outcome {
            Ok(()) if !was_up && self.is_up() => LinkEvent::Up,
            Ok(()) => LinkEvent::Nothing,
            Err(fault) => {
                self.fall(node, network, now, &fault);
                if was_up { LinkEvent::Down } else { LinkEvent::Nothing }
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush_or_fall(
        &mut self,
        node: &Node,
        network: &mut impl Network<Socket = S>,
        now: Instant,
    ) -> LinkEvent {
        if !self.is_up() {
            return LinkEvent::Nothing;
        }
        match self.flush() {
            Ok(()) => LinkEvent::Nothing,
            Err(fault) => {
                self.fall(node, network, now, &fault);
                LinkEvent::Down
            }
        }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.dirty = false;
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

    fn dial(&mut self, node: &Node, core: CoreId, network: &mut impl Network<Socket = S>, now: Instant) {
        let dialled = network.dial(self.peer.address, self.token);
        self.input = Input::default();
        self.output = Output::default();
        self.blocked = false;
        match dialled {
            Ok(socket) => {
                let role = HelloRole::Peer { node: node.config.node_id, incarnation: node.incarnation, core };
                self.said = node.features();
                let hello = Hello {
                    version_min: VERSION_MIN,
                    version_max: VERSION_MAX,
                    cluster: node.cluster,
                    role,
                    features: self.said,
                    auth: Auth::default(),
                };
                hello.encode(self.output.buffer());
                self.state = State::Greeting { socket, give_up_at: now + GREETING };
            }
            Err(error) => self.fall(node, network, now, &error.into()),
        }
    }

    /// Reads what the peer says: its answer to the hello, then nothing but the end.
    fn receive(&mut self, node: &Node, scratch: &mut [u8], read_closed: bool) -> Result<(), Fault> {
        let mut welcomed = false;
        let is_greeting = matches!(self.state, State::Greeting { .. });
        let (State::Greeting { socket, .. } | State::Up { socket }) = &self.state else {
            return Ok(());
        };
        let peer = self.peer.id;
        let mut stream = Stream(socket);
        let received = self.input.receive(&mut stream, scratch, read_closed, |bytes| -> Result<_, Fault> {
            if !is_greeting || welcomed {
                return Ok((bytes.len(), Appetite::Hungry));
            }
            let Some(found) = frame::parse(bytes, frame::CLIENT_FRAME_MAX).map_err(|_| bad_greeting())? else {
                return Ok((0, Appetite::Hungry));
            };
            let reply = HelloReply::decode(found.kind, found.payload).map_err(|_| bad_greeting())?;
            check_welcome(&reply, node, peer)?;
            welcomed = true;
            Ok((found.consumed, Appetite::Hungry))
        })?;
        if welcomed && self.said != node.features() {
            return Err(outdated());
        }
        if welcomed {
            self.rise(node);
        }
        if received == Received::Closed {
            let words = "it has closed the link";
            return Err(if is_greeting && !welcomed { Fault::passing(words) } else { Fault::of(words) });
        }
        Ok(())
    }

    fn rise(&mut self, node: &Node) {
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Greeting { socket, .. } => State::Up { socket },
            other => other,
        };
        let level = self.level(node, "up", Level::Info);
        log::log!(level, "link to node {} at {} is up", self.peer.id, self.peer.address);
        self.pause = PAUSE_MIN;
        self.passing_since = None;
    }

    /// How loud to say what the link is like now: once, if the other cores' links are the same.
    fn level(&self, node: &Node, words: &str, news: Level) -> Level {
        if node.together.is_link_news(self.peer.id, words) { news } else { Level::Debug }
    }

    fn fall(&mut self, node: &Node, network: &mut impl Network<Socket = S>, now: Instant, fault: &Fault) {
        if let State::Greeting { socket, .. } | State::Up { socket } = &mut self.state
            && let Err(error) = network.deregister(socket)
        {
            log::debug!("cannot deregister the link to node {}: {error}", self.peer.id);
        }
        let level =
            if self.is_passing(fault, now) { Level::Debug } else { self.level(node, &fault.words, Level::Warn) };
        log::log!(level, "link to node {} at {}: {}; trying again", self.peer.id, self.peer.address, fault.words);
        let pause = if fault.kind == FaultKind::Refused { PAUSE_REFUSED } else { self.pause };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.state = State::Down { retry_at: now + pause };
        self.output = Output::default();
        self.dirty = false;
    }
}

impl<S> Link<S> {
    /// Whether a fault may be over in a moment by itself.
    fn is_passing(&mut self, fault: &Fault, now: Instant) -> bool {
        if fault.kind != FaultKind::Passing {
            self.passing_since = None;
            return false;
        }
        now.saturating_duration_since(*self.passing_since.get_or_insert(now)) < PASSING
    }
}

/// The peer may be a process that came up after this node was admitted, and must not hear that it was not.
fn outdated() -> Fault {
    Fault::passing("this node was admitted before it answered")
}

pub(super) fn bad_greeting() -> Fault {
    Fault::of("it does not speak this protocol")
}

/// The answer must come from the node that was meant, and from the disk that it had before.
pub(super) fn check_welcome(reply: &HelloReply<'_>, node: &Node, peer: NodeId) -> Result<(), Fault> {
    match reply {
        HelloReply::Welcome { node: answering, incarnation, features, .. } if *answering == peer => {
            check_incarnation(node, peer, *incarnation).map_err(|unheard| match unheard {
                Unheard::Yet => Fault::passing("its data directory is being put on record here"),
                Unheard::Refused(words) => Fault::refusal(words),
            })?;
            node.note_peer(peer, *features);
            node.admission.note_welcome(peer);
            Ok(())
        }
        HelloReply::Welcome { node: answering, .. } => {
            Err(Fault::refusal(format!("node {answering} answers there instead: is the address right?")))
        }
        HelloReply::Refused { message, .. } => Err(Fault::refusal(format!("it refuses this node: {message}"))),
    }
}

/// Why a peer is not heard.
#[derive(Debug)]
pub(super) enum Unheard {
    /// Its data directory is being put on record, which is a matter of moments unless the disk hangs: it may dial again.
    Yet,
    /// For good, or until somebody sees to it.
    Refused(String),
}

/// A node that comes back with another incarnation has lost its disk: it may have voted or acknowledged what it no
/// longer knows, so nothing it says counts. The first incarnation seen is remembered, and nothing counts before that is
/// durable.
pub(super) fn check_incarnation(node: &Node, peer: NodeId, incarnation: Incarnation) -> Result<(), Unheard> {
    match node.records.peer(peer) {
        Some(known) if known == incarnation || mutant!("new-incarnation-accepted") => Ok(()),
        Some(was) => Err(Unheard::Refused(format!(
            "node {peer} came back with another data directory (incarnation {:016x}, known is {:016x}): it may have \
             forgotten votes and entries; bring its old directory back",
            incarnation.0, was.0
        ))),
        None => match node.records.want(Record::Peer(peer, incarnation)) {
            Outcome::Durable => Ok(()),
            Outcome::Pending => Err(Unheard::Yet),
            Outcome::Failed(words) => Err(Unheard::Refused(words)),
        },
    }
}
