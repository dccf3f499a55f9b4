//! One non-blocking connection and its bytes. Knows frames, but not what they say.
//!
//! Reading borrows a buffer that all links of a thread share and stops at a short read, which with edge-triggered
//! readiness means that the socket is dry. Writing gathers in `out`: one write per turn, however many frames.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use raftkv_protocol::frame::{self, Frame};

/// The size of a shared read buffer, unless a larger frame needs more.
pub const READ_BUFFER_LEN: usize = 256 << 10;

/// A connection, or one that is being made.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// Frames that wait for [`Link::flush`].
    pub out: Vec<u8>,
    written: usize,
}

impl Link {
    /// Begins to connect. The first readiness event tells that it is done.
    pub fn connect(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Link> {
        Link::new(TcpStream::connect(address)?, registry, token)
    }

    /// Takes over a socket.
    pub fn new(mut stream: TcpStream, registry: &Registry, token: Token) -> io::Result<Link> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link { stream, partial: Vec::new(), out: Vec::new(), written: 0 })
    }

    /// Whether the connection stands; the error if it could not be made.
    pub fn established(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => self.stream.set_nodelay(true).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the socket dry and hands out every whole frame together with `out`, for the answers. An error, from the
    /// socket or from `on_frame`, means that the link must be dropped.
    pub fn receive(
        &mut self,
        buffer: &mut Vec<u8>,
        mut on_frame: impl FnMut(Frame<'_>, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            let kept = self.partial.len();
            if buffer.len() < kept + READ_BUFFER_LEN {
                buffer.resize(kept + READ_BUFFER_LEN, 0);
            }
            let count = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let was_short = kept + count < buffer.len();
            buffer[..kept].copy_from_slice(&self.partial);
            let mut rest = &buffer[..kept + count];
            while let Some(frame) = parse(rest)? {
                on_frame(frame, &mut self.out)?;
                rest = &rest[frame.consumed..];
            }
            self.partial.clear();
            self.partial.extend_from_slice(rest);
            if was_short {
                return Ok(());
            }
        }
    }

    /// Writes what waits, as far as the socket takes it; the rest goes with the next writable event.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}

/// The frame at the start of `bytes`, if it is whole.
pub fn parse(bytes: &[u8]) -> io::Result<Option<Frame<'_>>> {
    frame::parse(bytes, frame::CLIENT_FRAME_MAX).map_err(garbled)
}

/// The other side sent what it must not send.
pub fn garbled(what: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
