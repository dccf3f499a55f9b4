//! The frames of an HTTP/2 connection, looked at as they go and come. What hyper ends by limits of its own, it tells the
//! client only; and of a head that does not come to its end it tells nobody.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use arrayvec::ArrayVec;
use hyper::rt::{Read, ReadBufCursor, Timer as _, Write};

use super::serve::{PREFACE, Shared, add};
use super::watch::Activity;
use crate::event_loop::HttpStream;
use crate::socket::Socket;

/// The head of a frame (RFC 9113 §4.1): the length of the rest, the type, flags and the stream.
const HEAD_BYTES: usize = 9;
/// Where the type and the flags stand in it.
const TYPE_AT: usize = 3;
const FLAGS_AT: usize = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// The head of a request, or what follows its body, ends with this frame.
const END_HEADERS: u8 = 0x4;
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
            let length = length(&self.begun);
            if let Some(reason) = self.begun.last_chunk::<REASON_BYTES>().filter(|_| self.begun.len() > HEAD_BYTES) {
                ended(self.begun[TYPE_AT], u32::from_be_bytes(*reason));
            }
            self.skip = length + HEAD_BYTES - self.begun.len();
            self.begun.clear();
        }
    }

    /// How much of the frame must be there to know what it is.
    fn wanted(&self) -> usize {
        match self.begun.get(TYPE_AT) {
            Some(&RST_STREAM) => HEAD_BYTES + RST_STREAM_REASON + REASON_BYTES,
            Some(&GOAWAY) => HEAD_BYTES + GOAWAY_REASON + REASON_BYTES,
            _ => HEAD_BYTES,
        }
    }
}

fn length(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// Follows what a client sends from its first byte, to know whether a head is on its way: that may be several frames,
/// between which nothing else comes (RFC 9113 §4.3).
#[derive(Debug)]
pub(super) struct Heads {
    /// What is there of the head of a frame.
    begun: ArrayVec<u8, HEAD_BYTES>,
    /// Bytes until the next head.
    skip: usize,
    is_open: bool,
    /// The frame that is on its way is the last one of what is open.
    is_last: bool,
}

impl Default for Heads {
    fn default() -> Heads {
        Heads { begun: ArrayVec::new(), skip: PREFACE.len(), is_open: false, is_last: false }
    }
}

impl Heads {
    /// Whether a head has begun, by the type of its frame, and has not come to its end.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// These bytes have come. Whether some head has ended with them.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 {
                return has_ended;
            }
            has_ended |= self.end_frame();
            if bytes.is_empty() {
                return has_ended;
            }
            let taken = bytes.len().min(HEAD_BYTES - self.begun.len());
            self.begun.extend(bytes[..taken].iter().copied());
            bytes = &bytes[taken..];
            self.begin_frame();
        }
    }

    /// Takes up what is known of the frame that is on its way.
    fn begin_frame(&mut self) {
        let Some(kind) = self.begun.get(TYPE_AT) else { return };
        let is_of_head = [HEADERS, CONTINUATION].contains(kind);
        self.is_open |= is_of_head;
        if self.begun.is_full() {
            self.is_last = is_of_head && self.begun[FLAGS_AT] & END_HEADERS != 0;
            self.skip = length(&self.begun);
            self.begun.clear();
        }
    }

    /// The frame is there. Whether a head ends with it.
    fn end_frame(&mut self) -> bool {
        let ends = self.is_last;
        self.is_open &= !ends;
        self.is_last = false;
        ends
    }
}

/// A connection whose frames are counted as they go, and whose heads are timed as they come.
pub(super) struct CountedStream<S> {
    stream: HttpStream<S>,
    frames: Frames,
    heads: Heads,
    shared: Rc<Shared>,
    activity: Rc<Activity>,
}

impl<S> CountedStream<S> {
    pub(super) fn new(stream: HttpStream<S>, shared: &Rc<Shared>, activity: &Rc<Activity>) -> CountedStream<S> {
        let (frames, heads) = (Frames::default(), Heads::default());
        CountedStream { stream, frames, heads, shared: Rc::clone(shared), activity: Rc::clone(activity) }
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
    fn poll_read(self: Pin<&mut Self>, _context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let CountedStream { stream, heads, shared, activity, .. } = self.get_mut();
        stream.0.read_into(into, |bytes| {
            let has_ended = heads.follow(bytes);
            let since = activity.head_since.get().filter(|_| !has_ended);
            activity.head_since.set(heads.is_open().then(|| since.unwrap_or_else(|| shared.timer.now())));
        })
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
