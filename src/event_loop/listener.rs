//! Sockets that accept and sockets that dial.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

/// mio's own `bind` asks for 128 only, and a burst of connects then waits for seconds.
const BACKLOG: i32 = 4_096;

/// One core's share of the node's listening address: the kernel spreads connections over all sockets bound so.
pub fn bind_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Fails if anybody listens on the address already. Needed because [`bind_listener`] shares it willingly.
pub fn prove_free(address: SocketAddr) -> io::Result<()> {
    new_socket(address)?.bind(&address.into())
}

/// Starts to connect; the socket becomes writable when it has, or has failed.
pub fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}
