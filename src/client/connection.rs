//! A non-blocking connection to one node: the hello, and frames in both directions. It knows bytes and frames; which
//! request belongs to which reply, and what to do when it breaks, is its owner's business.
//!
//! ```no_run
//! use mio::{Events, Interest, Poll, Token};
//! use raftkv::client::connection::{Connection, Incoming};
//! use raftkv_protocol::client::{Operation, Request};
//! use raftkv_protocol::types::{ClusterId, RequestId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut poll = Poll::new()?;
//! let mut events = Events::with_capacity(16);
//! let address = "127.0.0.1:7001".parse()?;
//! let mut connection = Connection::dial(address, ClusterId(0), None, poll.registry(), Token(0))?;
//! let mut done = false;
//! while !done {
//!     poll.poll(&mut events, None)?;
//!     if !connection.flush()? {
//!         continue; // still connecting, or the socket takes no more for now
//!     }
//!     let mut greeted = false;
//!     connection.receive(|incoming| match incoming {
//!         Incoming::Welcome(_) => greeted = true,
//!         Incoming::Reply(reply) => done = reply.id == RequestId(1),
//!     })?;
//!     if greeted {
//!         connection.send(&Request { id: RequestId(1), operation: Operation::Ping });
//!         connection.flush()?;
//!     }
//! }
//! # Ok(()) }
//! ```

use std::fmt;
use std::io::{self, ErrorKind::Interrupted, ErrorKind::WouldBlock};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Registry, Token};
use raftkv_protocol::client::{Reply, Request};
use raftkv_protocol::frame::{self, DecodeError, FrameError, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{ClusterId, NodeId, ShardId};

use super::buffer::{ReadBuffer, WriteBuffer};
use super::mio_network;
use crate::socket::{Socket, Stream};

/// The largest frame that is accepted from a server: a page of a scan may exceed what a client may send.
pub const REPLY_FRAME_MAX: usize = PEER_FRAME_MAX;

/// A connection to one node, over TCP unless something else takes the socket's place.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    socket: S,
    phase: Phase,
    input: ReadBuffer,
    output: WriteBuffer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The TCP handshake runs.
    Connecting,
    /// The hello is sent or waits to be; the node has not answered it yet.
    Greeting,
    /// Requests and replies.
    Open,
}

/// What a node sent.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// The node accepted the hello. Comes once, first.
    Welcome(Welcome),
    /// The reply to a request.
    Reply(Reply<'a>),
}

/// How a node answered the hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its id.
    pub node: NodeId,
    /// How many shards the cluster has.
    pub shards: u16,
    /// How many cores the node has.
    pub cores: u16,
    /// Bits that say what the node knows, such as [`FEATURE_SNAPSHOT`](raftkv_protocol::hello::FEATURE_SNAPSHOT).
    pub features: u64,
}

/// Why a connection cannot go on. Whatever was in flight on it has no reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum Broken {
    /// The operating system says so.
    Io(io::Error),
    /// The other side closed it.
    Closed,
    /// The other side sent bytes that are not a frame.
    Frame(FrameError),
    /// The other side sent a frame that is not what belongs there.
    Decode(DecodeError),
    /// The node refused the hello.
    Refused {
        /// For programs.
        reason: HelloRefusal,
        /// For people.
        message: String,
    },
}

impl Connection<TcpStream> {
    /// Begins to dial a node and registers the socket for reading and writing. The hello goes out as soon as the
    /// connection stands: call [`flush`](Connection::flush) and [`receive`](Connection::receive) on each event.
    ///
    /// # Errors
    /// If there is no socket to be had, or the dial fails at once.
    pub fn dial(
        address: SocketAddr,
        cluster: ClusterId,
        home: Option<ShardId>,
        registry: &Registry,
        token: Token,
    ) -> Result<Connection, Broken> {
        Ok(Connection::over(mio_network::dial(address, registry, token)?, cluster, home))
    }

    /// Takes the socket out of the poll.
    pub fn deregister(&mut self, registry: &Registry) {
        // It fails only for a socket that is not registered, which is what is wanted.
        let _ = registry.deregister(&mut self.socket);
    }
}

impl<S: Socket> Connection<S> {
    /// A connection over a socket that is being dialled and is registered already. The hello goes out as soon as it
    /// stands, as with [`dial`](Connection::dial).
    #[must_use]
    pub fn over(socket: S, cluster: ClusterId, home: Option<ShardId>) -> Connection<S> {
        let mut output = WriteBuffer::default();
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster,
            role: HelloRole::Client { home },
            features: 0,
            auth: Auth::default(),
        };
        output.append(|bytes| hello.encode(bytes));
        Connection { socket, phase: Phase::Connecting, input: ReadBuffer::default(), output }
    }

    /// The socket, for who has to take it out of a [`Network`](crate::socket::Network) again.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whether the node has welcomed this client.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Adds a request to what the next [`flush`](Connection::flush) writes. Returns the position of its end in the
    /// stream: until [`written`](Connection::written) reaches it, the node cannot have seen the whole request.
    pub fn send(&mut self, request: &Request<'_>) -> u64 {
        self.output.append(|bytes| request.encode(bytes))
    }

    /// How much of the stream was handed to the operating system, in bytes.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.output.written()
    }

    /// How many bytes have come, in all.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.input.received()
    }

    /// How many bytes wait for [`flush`](Connection::flush).
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.output.unwritten()
    }

    /// Writes as much as the socket takes. Returns whether everything is out; if not, an event will come.
    ///
    /// # Errors
    /// [`Broken::Io`], also for a dial that failed.
    pub fn flush(&mut self) -> Result<bool, Broken> {
        if self.phase == Phase::Connecting && !self.finish_connecting()? {
            return Ok(false);
        }
        Ok(self.output.drain_to(&mut Stream(&self.socket))?)
    }

    /// Reads until the socket is empty and hands each frame to `on_incoming`.
    ///
    /// # Errors
    /// Any [`Broken`]; the frames that came before it have been handed over.
    pub fn receive(&mut self, mut on_incoming: impl FnMut(Incoming<'_>)) -> Result<(), Broken> {
        if self.phase == Phase::Connecting {
            return Ok(());
        }
        loop {
            match self.input.fill_from(&mut Stream(&self.socket)) {
                Ok(0) => return Err(Broken::Closed),
                Ok(_) => self.take_frames(&mut on_incoming)?,
                Err(error) if error.kind() == WouldBlock => return Ok(()),
                Err(error) if error.kind() == Interrupted => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        }
    }

    fn take_frames(&mut self, on_incoming: &mut impl FnMut(Incoming<'_>)) -> Result<(), Broken> {
        while let Some(frame) = frame::parse(self.input.unread(), REPLY_FRAME_MAX)? {
            let consumed = frame.consumed;
            if self.phase == Phase::Open {
                on_incoming(Incoming::Reply(Reply::decode(frame.kind, frame.payload)?));
            } else {
                let welcome = read_welcome(HelloReply::decode(frame.kind, frame.payload)?)?;
                self.phase = Phase::Open;
                on_incoming(Incoming::Welcome(welcome));
            }
            self.input.consume(consumed);
        }
        Ok(())
    }

    /// An event said that the socket is writable, perhaps.
    fn finish_connecting(&mut self) -> Result<bool, Broken> {
        let connected = self.socket.is_connected()?;
        if connected {
            self.phase = Phase::Greeting;
        }
        Ok(connected)
    }
}

fn read_welcome(reply: HelloReply<'_>) -> Result<Welcome, Broken> {
    match reply {
        HelloReply::Welcome { version, .. } if !(VERSION_MIN..=VERSION_MAX).contains(&version) => {
            let message = format!("the node chose version {version}, offered were {VERSION_MIN} to {VERSION_MAX}");
            Err(Broken::Refused { reason: HelloRefusal::Version, message })
        }
        HelloReply::Welcome { cluster, node, shards, cores, features, .. } => {
            Ok(Welcome { cluster, node, shards, cores, features })
        }
        HelloReply::Refused { reason, message } => Err(Broken::Refused { reason, message: message.to_owned() }),
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Io(error)
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Broken {
        Broken::Frame(error)
    }
}

impl From<DecodeError> for Broken {
    fn from(error: DecodeError) -> Broken {
        Broken::Decode(error)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Io(error) => error.kind().fmt(f),
            Broken::Closed => f.write_str("the other side closed the connection"),
            Broken::Frame(error) => write!(f, "what came is not RaftKV's protocol: {error}"),
            Broken::Decode(error) => write!(f, "what came is not RaftKV's protocol: {error}"),
            Broken::Refused { reason, message } => write!(f, "it refused the hello ({}): {message}", reason.name()),
        }
    }
}

impl std::error::Error for Broken {}
