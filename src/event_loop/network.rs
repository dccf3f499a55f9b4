//! The network that the kernel offers, as one core's poll sees it.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::socket::Network;

use super::listener::{dial, prepare};

/// TCP sockets behind mio's poll, and this core's share of the listening address.
#[derive(Debug)]
pub struct MioNetwork {
    registry: Registry,
    listener: TcpListener,
    http_listener: Option<TcpListener>,
}

impl MioNetwork {
    /// The network of the poll that `registry` belongs to. Whoever dials the listener's address shows under `token`.
    pub fn new(registry: Registry, mut listener: TcpListener, token: Token) -> io::Result<MioNetwork> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(MioNetwork { registry, listener, http_listener: None })
    }

    /// Whoever dials this listener's address shows under `token`, and is accepted by [`Network::accept_http`].
    pub fn listen_for_http(&mut self, mut listener: TcpListener, token: Token) -> io::Result<()> {
        self.registry.register(&mut listener, token, Interest::READABLE)?;
        self.http_listener = Some(listener);
        Ok(())
    }
}

impl Network for MioNetwork {
    type Socket = TcpStream;

    fn dial(&mut self, address: SocketAddr, token: Token) -> io::Result<TcpStream> {
        let mut stream = dial(address)?;
        self.register(&mut stream, token)?;
        Ok(stream)
    }

    fn accept(&mut self) -> io::Result<TcpStream> {
        accept(&self.listener)
    }

    fn accept_http(&mut self) -> io::Result<TcpStream> {
        self.http_listener.as_ref().map_or(Err(io::ErrorKind::WouldBlock.into()), accept)
    }

    fn register(&mut self, socket: &mut TcpStream, token: Token) -> io::Result<()> {
        self.registry.register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn deregister(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.registry.deregister(socket)
    }
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        let (stream, remote) = listener.accept()?;
        match prepare(&stream) {
            Ok(()) => return Ok(stream),
            // No reason to stop accepting: only this one is lost.
            Err(error) => log::debug!("the connection from {remote} was gone before it could be served: {error}"),
        }
    }
}
