//! A socket of the loop as hyper reads and writes it.
//!
//! Readiness is edge-triggered: the loop notes what the poll reports ([`HttpSocket::note`]) and polls the connection's
//! task; a read that comes back short, or a write that is refused, clears it. Nobody registers a waker here, as a socket
//! is read and written by one task only.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::socket::{Readiness, Socket};

const HTTP_SCRATCH_BYTES: usize = 64 << 10;

/// What loop and task share of a connection.
#[derive(Debug)]
pub struct HttpSocket<S> {
    socket: S,
    readable: Cell<bool>,
    writable: Cell<bool>,
    read_closed: Cell<bool>,
    failed: Cell<bool>,
    stays_open: Cell<bool>,
    bytes_read: Cell<u64>,
    bytes_written: Cell<u64>,
    /// Read before hyper was there, and to be read by it first.
    prefix: RefCell<Vec<u8>>,
    /// Where bytes are read to: hyper's own buffer cannot be written to without `unsafe`.
    scratch: Scratch,
}

/// A buffer that the connections of a loop share.
pub type Scratch = Rc<RefCell<Vec<u8>>>;

/// A buffer for the connections of a loop.
#[must_use]
pub fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; HTTP_SCRATCH_BYTES]))
}

impl<S: Socket> HttpSocket<S> {
    /// A registered socket, of which nothing is known yet.
    pub fn new(socket: S, scratch: Scratch) -> HttpSocket<S> {
        HttpSocket {
            socket,
            readable: Cell::new(true),
            writable: Cell::new(true),
            read_closed: Cell::new(false),
            failed: Cell::new(false),
            stays_open: Cell::new(false),
            bytes_read: Cell::new(0),
            bytes_written: Cell::new(0),
            prefix: RefCell::default(),
            scratch,
        }
    }

    /// Takes down what the poll reports.
    pub fn note(&self, ready: &Readiness) {
        self.readable.set(self.readable.get() || ready.readable || ready.read_closed || ready.error);
        self.writable.set(self.writable.get() || ready.writable || ready.error);
        self.read_closed.set(self.read_closed.get() || ready.read_closed);
        self.failed.set(self.failed.get() || ready.error);
    }

    /// The connection is broken: whatever is under way for it is for nobody.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// The system takes bytes, as far as is known: whoever has some has written them.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable.get()
    }

    /// The socket stays open when its task shuts it down.
    pub fn keep_open(&self) {
        self.stays_open.set(true);
    }

    /// The socket is shut down again when its task does so.
    pub fn let_close(&self) {
        self.stays_open.set(false);
    }

    /// How many bytes have come.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// How many bytes have gone.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.get()
    }

    /// Reads what has arrived: `None` if nothing has, 0 at the end.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.readable.get() {
            return Ok(None);
        }
        loop {
            match self.socket.read(buffer) {
                Ok(got) => {
                    // A short read has emptied the socket, and what comes later is told anew. The end is told once.
                    self.readable.set(got == buffer.len() || got == 0 || self.read_closed.get());
                    self.bytes_read.set(self.bytes_read.get() + got as u64);
                    return Ok(Some(got));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable.set(false);
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// These bytes were read and are to be read again.
    pub fn unread(&self, bytes: &[u8]) {
        self.prefix.borrow_mut().splice(..0, bytes.iter().copied());
    }

    /// Whether there are such.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.prefix.borrow().is_empty()
    }

    /// Reads what has arrived into a buffer of hyper's; `seen` is told what it is.
    pub fn read_into(&self, mut into: ReadBufCursor<'_>, seen: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        let mut prefix = self.prefix.borrow_mut();
        if !prefix.is_empty() {
            let taken = prefix.len().min(into.remaining());
            seen(&prefix[..taken]);
            into.put_slice(&prefix[..taken]);
            prefix.drain(..taken);
            if prefix.is_empty() {
                *prefix = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        drop(prefix);
        let mut scratch = self.scratch.borrow_mut();
        let room = into.remaining().min(scratch.len());
        match self.read(&mut scratch[..room]) {
            Ok(Some(got)) => {
                seen(&scratch[..got]);
                into.put_slice(&scratch[..got]);
                Poll::Ready(Ok(()))
            }
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn write(&self, write: impl Fn(&S) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        if !self.writable.get() {
            return Poll::Pending;
        }
        loop {
            match write(&self.socket) {
                Ok(wrote) => {
                    self.bytes_written.set(self.bytes_written.get() + wrote as u64);
                    return Poll::Ready(Ok(wrote));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable.set(false);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// The task's end of the connection.
#[derive(Debug)]
pub struct HttpStream<S>(pub Rc<HttpSocket<S>>);

impl<S: Socket> Read for HttpStream<S> {
    fn poll_read(self: Pin<&mut Self>, _context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.0.read_into(into, |_| ())
    }
}

impl<S: Socket> Write for HttpStream<S> {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.write(|socket| socket.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.stays_open.get() {
            return Poll::Ready(Ok(()));
        }
        match self.0.socket.shutdown_write() {
            // The other side was faster.
            Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.write(|socket| socket.write_vectored(slices))
    }
}
