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

/// What is known of a frame as its bytes go by, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Its type is there.
    Kind(u8),
    /// Its head is there, and its reason if it has one.
    Head { kind: u8, flags: u8, reason: Option<u32> },
    /// All of it is.
    End,
}

/// Splits what one side sends into frames.
#[derive(Debug, Default)]
struct Splitter {
    /// What is there of the head of a frame, and of the rest up to its reason.
    begun: ArrayVec<u8, { HEAD_BYTES + GOAWAY_REASON + REASON_BYTES }>,
    /// Bytes until the next head.
    skip: usize,
    /// They are the rest of a frame whose head was seen.
    is_within: bool,
}

impl Splitter {
    /// What follows begins behind so many bytes.
    fn behind(bytes: usize) -> Splitter {
        Splitter { skip: bytes, ..Splitter::default() }
    }

    /// These bytes go by next.
    fn follow(&mut self, mut bytes: &[u8], mut saw: impl FnMut(Sight)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 {
                return;
            }
            if std::mem::take(&mut self.is_within) {
                saw(Sight::End);
            }
            if bytes.is_empty() {
                return;
            }
            let before = self.begun.len();
            let taken = bytes.len().min(self.wanted() - before);
            self.begun.extend(bytes[..taken].iter().copied());
            bytes = &bytes[taken..];
            if before <= TYPE_AT
                && let Some(kind) = self.begun.get(TYPE_AT)
            {
                saw(Sight::Kind(*kind));
            }
            if self.begun.len() == self.wanted() {
                saw(self.head());
                self.skip = HEAD_BYTES + length(&self.begun) - self.begun.len();
                self.begun.clear();
                self.is_within = true;
            }
        }
    }

    /// How much of the frame must be there to know what it is.
    fn wanted(&self) -> usize {
        if self.begun.len() < HEAD_BYTES {
            return HEAD_BYTES;
        }
        HEAD_BYTES + reason_end(self.begun[TYPE_AT]).map_or(0, |end| end.min(length(&self.begun)))
    }

    fn head(&self) -> Sight {
        let (kind, flags) = (self.begun[TYPE_AT], self.begun[FLAGS_AT]);
        let has_reason = reason_end(kind).is_some_and(|end| self.begun.len() == HEAD_BYTES + end);
        let reason = self.begun.last_chunk().filter(|_| has_reason).copied().map(u32::from_be_bytes);
        Sight::Head { kind, flags, reason }
    }
}

/// Where the reason ends in the rest of a frame that has one.
fn reason_end(kind: u8) -> Option<usize> {
    match kind {
        RST_STREAM => Some(RST_STREAM_REASON + REASON_BYTES),
        GOAWAY => Some(GOAWAY_REASON + REASON_BYTES),
        _ => None,
    }
}

fn length(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// Follows what is sent from its first byte.
#[derive(Debug, Default)]
pub(super) struct Ends(Splitter);

impl Ends {
    /// These bytes are sent next; `ended` hears of each frame that ends a stream or the connection, and why.
    pub(super) fn follow(&mut self, bytes: &[u8], mut ended: impl FnMut(u8, u32)) {
        self.0.follow(bytes, |sight| {
            if let Sight::Head { kind, reason: Some(reason), .. } = sight {
                ended(kind, reason);
            }
        });
    }
}

/// Follows what a client sends from its first byte, to know whether a head is on its way: that may be several frames,
/// between which nothing else comes (RFC 9113 §4.3).
#[derive(Debug)]
pub(super) struct Heads {
    splitter: Splitter,
    is_open: bool,
    /// The frame that is on its way is the last one of what is open.
    is_last: bool,
}

impl Default for Heads {
    fn default() -> Heads {
        Heads { splitter: Splitter::behind(PREFACE.len()), is_open: false, is_last: false }
    }
}

impl Heads {
    /// Whether a head has begun, by the type of its frame, and has not come to its end.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// These bytes have come. Whether some head has ended with them.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> bool {
        let Heads { splitter, is_open, is_last } = self;
        let is_of_head = |kind| [HEADERS, CONTINUATION].contains(&kind);
        let mut has_ended = false;
        splitter.follow(bytes, |sight| match sight {
            Sight::Kind(kind) => *is_open |= is_of_head(kind),
            Sight::Head { kind, flags, .. } => *is_last = is_of_head(kind) && flags & END_HEADERS != 0,
            Sight::End => {
                *is_open &= !*is_last;
                has_ended |= *is_last;
            }
        });
        has_ended
    }
}

/// A connection whose frames are counted as they go, and whose heads are timed as they come.
pub(super) struct CountedStream<S> {
    stream: HttpStream<S>,
    ends: Ends,
    heads: Heads,
    shared: Rc<Shared>,
    activity: Rc<Activity>,
}

impl<S> CountedStream<S> {
    pub(super) fn new(stream: HttpStream<S>, shared: &Rc<Shared>, activity: &Rc<Activity>) -> CountedStream<S> {
        let (ends, heads) = (Ends::default(), Heads::default());
        CountedStream { stream, ends, heads, shared: Rc::clone(shared), activity: Rc::clone(activity) }
    }

    fn follow(&mut self, bytes: &[u8]) {
        let counts = &self.shared.counts;
        self.ends.follow(bytes, |kind, reason| match (kind, reason) {
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
