//! The frames that the node sends on an HTTP/2 connection, looked at as they go: what hyper ends by limits of its own, it
//! tells the client only.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use arrayvec::ArrayVec;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::serve::{Shared, add};
use crate::event_loop::HttpStream;
use crate::socket::Socket;

/// The head of a frame (RFC 9113 §4.1): the length of the rest, the type, flags and the stream.
const HEAD_BYTES: usize = 9;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// Where the reason stands in the rest of these two.
const RST_STREAM_REASON: usize = 0;
const GOAWAY_REASON: usize = 4;
const REASON_BYTES: usize = 4;
/// Reasons (RFC 9113 §7).
const NO_ERROR: u32 = 0x0;
const REFUSED_STREAM: u32 = 0x7;
const CANCEL: u32 = 0x8;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Follows what is sent from its first byte.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What is there of the head of a frame, and of the rest up to its reason.
    begun: ArrayVec<u8, { HEAD_BYTES + GOAWAY_REASON + REASON_BYTES }>,
    /// Bytes until the next head.
    skip: usize,
}

impl Frames {
    /// These bytes are sent next; `ended` hears of each frame that ends a stream or the connection, and why.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut ended: impl FnMut(u8, u32)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(self.wanted() - self.begun.len());
            self.begun.extend(bytes[..taken].iter().copied());
            bytes = &bytes[taken..];
            if self.begun.len() < self.wanted() {
                continue;
            }
            let length =
                usize::from(self.begun[0]) << 16 | usize::from(self.begun[1]) << 8 | usize::from(self.begun[2]);
            if let Some(reason) = self.begun.last_chunk::<REASON_BYTES>().filter(|_| self.begun.len() > HEAD_BYTES) {
                ended(self.begun[3], u32::from_be_bytes(*reason));
            }
            self.skip = length + HEAD_BYTES - self.begun.len();
            self.begun.clear();
        }
    }

    /// How much of the frame must be there to know what it is.
    fn wanted(&self) -> usize {
        match self.begun.get(3) {
            Some(&RST_STREAM) => HEAD_BYTES + RST_STREAM_REASON + REASON_BYTES,
            Some(&GOAWAY) => HEAD_BYTES + GOAWAY_REASON + REASON_BYTES,
            _ => HEAD_BYTES,
        }
    }
}

/// A connection whose frames are counted as they go.
pub(super) struct CountedStream<S> {
    stream: HttpStream<S>,
    frames: Frames,
    shared: Rc<Shared>,
}

impl<S> CountedStream<S> {
    pub(super) fn new(stream: HttpStream<S>, shared: &Rc<Shared>) -> CountedStream<S> {
        CountedStream { stream, frames: Frames::default(), shared: Rc::clone(shared) }
    }

    fn follow(&mut self, bytes: &[u8]) {
        let counts = &self.shared.counts;
        self.frames.follow(bytes, |kind, reason| match (kind, reason) {
            (GOAWAY, ENHANCE_YOUR_CALM) => add(&counts.floods),
            (GOAWAY, _) | (_, NO_ERROR | CANCEL) => {}
            (_, REFUSED_STREAM) => add(&counts.streams_refused),
            (_, _) => add(&counts.streams_broken),
        });
    }
}

impl<S: Socket> Read for CountedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: Socket> Write for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.follow(&bytes[..sent]);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut left = sent;
        for slice in slices {
            let (of_this, _) = slice.split_at(left.min(slice.len()));
            self.follow(of_this);
            left -= of_this.len();
        }
        Poll::Ready(Ok(sent))
    }
}
