//! The streams of HTTP/2 connections, and their ends when a client does not take what it has asked for.
//!
//! hyper polls the body of a response only when the client has room for what it got of it last, so that a body cannot end
//! itself. Here the bytes that hyper holds are counted until they go ([`Part`]), and the task that sends them is watched by
//! the clock ([`Watched`]): if it is dropped, the stream is reset and what waits is given up. A body gives hyper nothing
//! further, and not even its end, while much of it still waits, as the task is over then and there is nothing to drop: of a
//! response whose end hyper has, [`AHEAD_BYTES_MAX`] may wait as long as the connection lives.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf, Bytes};
use hyper::rt::{Executor, Timer as _};
use pin_project_lite::pin_project;

use super::serve::{Shared, add};
use super::watch::{Activity, PROGRESS_BYTES_MIN};
use crate::api::held::COUNTED_BYTES_MIN;
use crate::event_loop::Alarm;

/// How many bytes of a response may wait in hyper before it gets no more: those that nobody counts.
const AHEAD_BYTES_MAX: usize = COUNTED_BYTES_MIN;

/// How a connection's streams come to be: hyper asks for the response to a request, and then hands over the task that
/// sends it.
#[derive(Clone)]
pub(super) struct Streams {
    shared: Rc<Shared>,
    activity: Rc<Activity>,
    /// The stream whose task comes next.
    newest: Rc<Cell<Option<Rc<Stream>>>>,
}

impl Streams {
    pub(super) fn new(shared: &Rc<Shared>, activity: &Rc<Activity>) -> Streams {
        Streams { shared: Rc::clone(shared), activity: Rc::clone(activity), newest: Rc::default() }
    }

    /// A stream whose request is there.
    pub(super) fn open(&self) -> Rc<Stream> {
        let stream = Rc::new(Stream::new(&self.shared, &self.activity));
        self.newest.set(Some(Rc::clone(&stream)));
        stream
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        match self.newest.take() {
            Some(stream) => self.shared.spawner.execute(Watched { task, stream, alarm: None }),
            None => self.shared.spawner.execute(task),
        }
    }
}

pin_project! {
    /// A stream's task, which is run to its end, or until nothing has moved for too long. An async function would have room for
    /// the task twice: as it was given, and where it is polled.
    struct Watched<F> {
        #[pin]
        task: F,
        stream: Rc<Stream>,
        alarm: Option<Alarm>,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.task.poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(due) = this.stream.due() else { return Poll::Pending };
        let now = this.stream.now();
        if due <= now {
            this.stream.count_end(now);
            return Poll::Ready(());
        }
        this.alarm.get_or_insert_with(|| Alarm::new(&this.stream.shared.timer, due)).set(due, now, context);
        Poll::Pending
    }
}

/// A stream: what of its response waits for the client, and since when.
pub(super) struct Stream {
    shared: Rc<Shared>,
    activity: Rc<Activity>,
    /// Bytes that hyper has and that have not gone.
    waiting: Cell<usize>,
    /// Bytes that have gone since the last progress.
    gone: Cell<u64>,
    progress_at: Cell<Instant>,
    deadline: Cell<Option<Instant>>,
    /// Whoever waits until the body may go on.
    body: Cell<Option<Waker>>,
}

impl Stream {
    fn new(shared: &Rc<Shared>, activity: &Rc<Activity>) -> Stream {
        Stream {
            progress_at: Cell::new(shared.timer.now()),
            shared: Rc::clone(shared),
            activity: Rc::clone(activity),
            waiting: Cell::new(0),
            gone: Cell::new(0),
            deadline: Cell::new(None),
            body: Cell::new(None),
        }
    }

    fn now(&self) -> Instant {
        self.shared.timer.now()
    }

    /// The call that this stream is for ends by then.
    pub(super) fn end_at(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// Whether the body may give hyper what comes next, or tell it that nothing does.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.get() <= AHEAD_BYTES_MAX
    }

    /// Waits until it may.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.body.set(Some(context.waker().clone()));
        Poll::Pending
    }

    /// When the stream is over if nothing moves; `None` if nothing waits for the client.
    fn due(&self) -> Option<Instant> {
        let rest_until = self.progress_at.get() + self.shared.limits.http_idle_timeout;
        (self.waiting.get() > 0).then(|| self.deadline.get().map_or(rest_until, |deadline| deadline.min(rest_until)))
    }

    fn count_end(&self, now: Instant) {
        match self.deadline.get() {
            Some(deadline) if deadline <= now => {
                self.shared.counts.deadlines.fetch_add(1, Ordering::Relaxed);
            }
            _ => add(&self.shared.counts.streams_late),
        }
    }

    /// hyper has so many bytes more.
    fn hand(&self, bytes: usize) {
        self.progress_at.set(self.now());
        self.waiting.set(self.waiting.get() + bytes);
    }

    /// So many are not there any more.
    fn drop_bytes(&self, bytes: usize) {
        self.waiting.set(self.waiting.get() - bytes);
        if self.has_room()
            && let Some(waker) = self.body.take()
        {
            waker.wake();
        }
    }

    /// So many have gone to the client.
    fn advance(&self, bytes: usize) {
        self.drop_bytes(bytes);
        self.activity.taken.set(self.activity.taken.get() + bytes as u64);
        self.gone.set(self.gone.get() + bytes as u64);
        if self.gone.get() >= PROGRESS_BYTES_MIN || self.waiting.get() == 0 {
            self.gone.set(0);
            self.progress_at.set(self.now());
        }
    }
}

/// A part of a response's body.
pub(super) struct Part {
    bytes: Bytes,
    /// What they count for until they go; nothing if it is no stream.
    stream: Option<Rc<Stream>>,
}

impl Part {
    pub(super) fn new(bytes: Bytes, stream: Option<&Rc<Stream>>) -> Part {
        if let Some(stream) = stream {
            stream.hand(bytes.len());
        }
        Part { bytes, stream: stream.cloned() }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        if let Some(stream) = &self.stream {
            stream.advance(bytes);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.drop_bytes(self.bytes.len());
        }
    }
}
