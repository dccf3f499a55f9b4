//! Sockets that accept and sockets that dial.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

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

/// How long the other host may leave bytes of a dialled connection unacknowledged before it counts as gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// Fails if anybody listens on the address already. Needed because [`bind_listener`] shares it willingly.
pub fn prove_free(address: SocketAddr) -> io::Result<()> {
    new_socket(address)?.bind(&address.into())
}

/// Starts to connect; the socket becomes writable when it has, or has failed.
pub(super) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(stream)
}

/// What every connection gets: no waiting for fuller packets, and an end if the other host has vanished.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(3))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}
