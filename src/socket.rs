//! The few things that server and client do with sockets, behind traits: a simulated network can stand in for the real
//! one under the same event loop, links, connections and client.
//!
//! All of it is non-blocking and edge-triggered: who meets [`io::ErrorKind::WouldBlock`] is told by a [`Readiness`] when
//! there is something to do again.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::Token;
use mio::event::Event;
use mio::net::TcpStream;

/// A connection. Until a dialled one stands, and where nothing can be done, reading and writing is
/// [`io::ErrorKind::WouldBlock`].
pub trait Socket: fmt::Debug {
    /// Reads what has arrived, at most a buffer full; 0 at the end of the stream. If the buffer has room left, nothing
    /// more had arrived, and what does later is told anew.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is room for.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as much of several buffers as there is room for, in their order.
    fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        buffers.iter().find(|buffer| !buffer.is_empty()).map_or(Ok(0), |buffer| self.write(buffer))
    }

    /// Whether a dialled connection stands by now; its error if it never will.
    fn is_connected(&self) -> io::Result<bool>;

    /// Whom it leads to.
    fn remote(&self) -> io::Result<SocketAddr>;

    /// Tells the other side that nothing more will come.
    fn shutdown_write(&self) -> io::Result<()>;
}

/// Where one loop gets its sockets, and who tells it which of them are ready.
///
/// A registered socket's readiness is told when it changes, and all of it once the socket is registered: what has been
/// possible since before, too. There may be readiness for nothing. Dropping a socket takes it out and closes it.
pub trait Network: fmt::Debug {
    /// What it deals in.
    type Socket: Socket + 'static;

    /// Begins to connect, and registers the socket under `token`.
    fn dial(&mut self, address: SocketAddr, token: Token) -> io::Result<Self::Socket>;

    /// The next connection that somebody else has dialled to this loop, [`io::ErrorKind::WouldBlock`] if there is none
    /// left. It is not registered yet.
    fn accept(&mut self) -> io::Result<Self::Socket>;

    /// The next connection that somebody has dialled for HTTP, as with [`Network::accept`].
    fn accept_http(&mut self) -> io::Result<Self::Socket> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Registers a socket for reading and writing.
    fn register(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()>;

    /// Takes a socket out again, to be closed or to be registered with another loop's network.
    fn deregister(&mut self, socket: &mut Self::Socket) -> io::Result<()>;
}

/// What has become possible with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the poll's own words")]
pub struct Readiness {
    /// Which.
    pub token: Token,
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write, or a connection stands.
    pub writable: bool,
    /// The other side sends no more.
    pub read_closed: bool,
    /// It has failed; the next operation tells how.
    pub error: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Readiness {
        Readiness {
            token: event.token(),
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }
    }
}

/// A socket as a stream of bytes.
#[derive(Debug)]
pub struct Stream<'a, S>(pub &'a S);

impl<S: Socket> Read for Stream<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Socket> Write for Stream<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, buffer)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self;
        Write::write(&mut stream, bytes)
    }

    fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut stream = self;
        Write::write_vectored(&mut stream, buffers)
    }

    fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remote(&self) -> io::Result<SocketAddr> {
        self.peer_addr()
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
