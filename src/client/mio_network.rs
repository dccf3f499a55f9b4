//! The real network: TCP sockets, and the poll that the client's I/O thread sleeps in.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::socket::Network;

const BOTH_WAYS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// TCP sockets, with their poll.
#[derive(Debug)]
pub(super) struct MioNetwork {
    poll: Poll,
}

impl MioNetwork {
    pub(super) fn new() -> io::Result<MioNetwork> {
        Ok(MioNetwork { poll: Poll::new()? })
    }

    /// What wakes a thread that waits here, with an event for `token`.
    pub(super) fn waker(&self, token: Token) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), token)
    }

    /// Waits until a socket is ready, the waker is used or time is up.
    pub(super) fn wait(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(round_up(timeout))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }
}

impl Network for MioNetwork {
    type Socket = TcpStream;

    fn dial(&mut self, address: SocketAddr, token: Token) -> io::Result<TcpStream> {
        dial(address, self.poll.registry(), token)
    }

    /// Nobody dials a client.
    fn accept(&mut self) -> io::Result<TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn register(&mut self, socket: &mut TcpStream, token: Token) -> io::Result<()> {
        self.poll.registry().register(socket, token, BOTH_WAYS)
    }

    fn deregister(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.poll.registry().deregister(socket)
    }
}

/// Begins to connect, and registers the socket for both ways.
pub(super) fn dial(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    // A socket that has failed by now tells its first user why, and better.
    let _ = stream.set_nodelay(true);
    registry.register(&mut stream, token, BOTH_WAYS)?;
    Ok(stream)
}

/// The poll counts in milliseconds and would return just before a timer is due, again and again.
fn round_up(timeout: Duration) -> Duration {
    Duration::from_millis(u64::try_from(timeout.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
}
