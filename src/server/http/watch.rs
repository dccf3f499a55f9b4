//! What happens on an HTTP connection, and how long it may go on so.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Timer as _;

use super::serve::{Shared, Version, add};
use crate::event_loop::{Alarm, HttpSocket};
use crate::socket::Socket;

/// A connection or stream that moves fewer bytes in the time in which it may rest does rest.
pub(super) const PROGRESS_BYTES_MIN: u64 = 1 << 10;
/// After so long without anything, a connection of HTTP/1.1 is put to rest.
const QUIET: Duration = Duration::from_millis(250);

/// What happens on one connection, to tell one that rests from one that hangs.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests.
    begun: Cell<u64>,
    /// Requests that the node still works on: they have no response yet, or the next part of it is not there.
    under_way: Cell<u64>,
    /// Responses, and parts of them, that the node has got ready.
    done: Cell<u64>,
    /// Bytes of responses that the client has taken, over HTTP/2.
    pub(super) taken: Cell<u64>,
    /// Since when a head is on its way, over HTTP/2.
    pub(super) head_since: Cell<Option<Instant>>,
}

/// Counts a request for as long as it lives: if its client goes, its future is dropped.
pub(super) struct UnderWay(Rc<Activity>);

impl UnderWay {
    pub(super) fn begin(activity: &Rc<Activity>) -> UnderWay {
        add(&activity.begun);
        UnderWay::go_on(activity)
    }

    pub(super) fn go_on(activity: &Rc<Activity>) -> UnderWay {
        add(&activity.under_way);
        UnderWay(Rc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        add(&self.0.done);
    }
}

/// Why a connection is no longer watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has ended, or is to end.
    Over,
    /// Nothing happens between two requests; the next one must begin by then.
    Rests { until: Instant },
}

/// Ends connections that rest too long, hang, or send their heads byte by byte, and tells when one rests.
pub(super) struct Watch<'a, S> {
    socket: &'a HttpSocket<S>,
    shared: &'a Shared,
    activity: &'a Activity,
    /// What comes between requests is the head of the next one.
    has_heads: bool,
    alarm: Alarm,
    /// Requests that had begun at the last look, what the node had done of them, and bytes that had moved.
    begun: u64,
    done: u64,
    moved: u64,
    /// A request was under way at the last look.
    is_waiting: bool,
    /// When anything was last seen to happen.
    quiet_since: Instant,
    /// When enough happened, and the bytes that had moved by then.
    progress_at: Instant,
    progress_moved: u64,
    /// Bytes that had been read when the last request was seen to be under way: more are the next head.
    head_after: u64,
    /// Since when a head is on its way.
    head_since: Option<Instant>,
    /// The connection was told to end.
    is_told: bool,
    /// By when the client must have gone that was told to.
    gone_by: Option<Instant>,
}

impl<'a, S: Socket> Watch<'a, S> {
    pub(super) fn new(
        socket: &'a HttpSocket<S>,
        shared: &'a Shared,
        activity: &'a Activity,
        version: Version,
    ) -> Watch<'a, S> {
        let now = shared.timer.now();
        let has_heads = version == Version::Http1;
        let mut watch = Watch {
            socket,
            shared,
            activity,
            has_heads,
            alarm: Alarm::new(&shared.timer, now + shared.limits.http_header_timeout),
            begun: 0,
            done: 0,
            moved: 0,
            is_waiting: false,
            quiet_since: now,
            progress_at: now,
            progress_moved: 0,
            head_after: 0,
            // What was read before begins a head.
            head_since: has_heads.then_some(now),
            is_told: false,
            gone_by: None,
        };
        watch.moved = watch.moved_bytes();
        watch.progress_moved = watch.moved;
        watch
    }

    /// Runs a connection until it ends, is to be ended, or rests.
    pub(super) async fn over<C>(&mut self, mut connection: Pin<&mut C>, shut_down: impl Fn(Pin<&mut C>)) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        poll_fn(move |context| {
            if !self.is_told && (self.shared.stopping.get() || self.gone_by.is_some()) {
                self.is_told = true;
                shut_down(connection.as_mut());
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                if let Err(error) = ended {
                    log::debug!("an HTTP connection broke: {error}");
                    match (error.is_timeout(), self.gone_by) {
                        // Over HTTP/2 a client that does not answer to a ping is late.
                        (true, None) => add(&self.shared.counts.late),
                        (true, Some(_)) => {}
                        (false, _) => add(&self.shared.counts.broken),
                    }
                }
                return Poll::Ready(End::Over);
            }
            if self.socket.has_failed() {
                return Poll::Ready(End::Over);
            }
            self.poll(context)
        })
        .await
    }

    /// Runs a connection that was told to end.
    pub(super) async fn finish<C>(&mut self, connection: Pin<&mut C>) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        self.is_told = true;
        self.over(connection, |_| ()).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let now = self.shared.timer.now();
        self.look(now);
        let limits = &self.shared.limits;
        let rest_until = self.progress_at + limits.http_idle_timeout;
        let due = self.gone_by.unwrap_or_else(|| self.head_until().map_or(rest_until, |until| rest_until.min(until)));
        if due <= now {
            return self.is_late(now, context);
        }
        let quiet_at = self.may_rest().then(|| self.quiet_since + QUIET);
        if quiet_at.is_some_and(|at| at <= now) {
            return Poll::Ready(End::Rests { until: rest_until });
        }
        let next = quiet_at.map_or(due, |at| due.min(at));
        self.alarm.set(next, now, context);
        Poll::Pending
    }

    /// By when the head must be there that is on its way.
    fn head_until(&self) -> Option<Instant> {
        self.head_since.map(|since| since + self.shared.limits.http_header_timeout)
    }

    fn is_late(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<End> {
        if self.gone_by.is_none() {
            add(&self.shared.counts.late);
        }
        // Behind a head that does not come to its end nothing else can come.
        if self.has_heads || self.gone_by.is_some() || self.head_until().is_some_and(|until| until <= now) {
            return Poll::Ready(End::Over);
        }
        // Over HTTP/2 a request that is on its way meanwhile is either served or surely not.
        self.gone_by = Some(now + self.shared.limits.http_header_timeout);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the last request is answered, and nothing of the next one has come. A socket that takes no more leaves bytes
    /// with hyper.
    fn may_rest(&self) -> bool {
        let is_between = self.has_heads && self.begun > 0 && !self.is_waiting && self.head_since.is_none();
        is_between && !self.is_told && self.socket.is_writable()
    }

    /// The bytes that count as progress. Over HTTP/2 a client can send what asks for nothing, and keep the node busy with
    /// it: there it is what the client takes.
    fn moved_bytes(&self) -> u64 {
        match self.has_heads {
            true => self.socket.bytes_read() + self.socket.bytes_written(),
            false => self.activity.taken.get(),
        }
    }

    /// Looks whether something has happened since the last time.
    fn look(&mut self, now: Instant) {
        let (begun, done) = (self.activity.begun.get(), self.activity.done.get());
        let moved = self.moved_bytes();
        self.is_waiting = self.activity.under_way.get() > 0;
        let is_served = self.is_waiting || (begun, done) != (self.begun, self.done);
        if is_served {
            self.head_after = self.socket.bytes_read();
        }
        if is_served || moved != self.moved {
            self.quiet_since = now;
        }
        if is_served || moved >= self.progress_moved + PROGRESS_BYTES_MIN {
            (self.progress_moved, self.progress_at) = (moved, now);
        }
        (self.begun, self.done, self.moved) = (begun, done, moved);
        if !self.has_heads {
            self.head_since = self.activity.head_since.get();
        } else if begun > 0 {
            let is_head = !self.is_waiting && self.socket.bytes_read() > self.head_after;
            self.head_since = is_head.then(|| self.head_since.unwrap_or(now));
        }
    }
}
