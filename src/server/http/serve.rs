//! One HTTP connection, from its first byte to its end: a task of the core's loop.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Timer as _;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use super::faces::{FaceBody, Faces};
use super::frames::CountedStream;
use super::streams::{Part, Stream, Streams};
use crate::event_loop::{Alarm, HttpSocket, HttpStream, LoopTimer, Spawner};
use crate::limits::Limits;
use crate::socket::Socket;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How many streams of an HTTP/2 connection may wait in the state in which their client has reset them.
const RESET_STREAMS_MAX: usize = 20;
/// How many streams an HTTP/2 client may make this side reset before the connection is closed.
const ERROR_STREAMS_MAX: usize = 100;
/// How much of a request's body an HTTP/2 client may send ahead, on a stream and on all.
const WINDOW_BYTES: u32 = 256 << 10;
/// How much of the responses to one stream may wait in the connection.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// A connection or stream that moves fewer bytes in the time in which it may rest does rest.
pub(super) const PROGRESS_BYTES_MIN: u64 = 1 << 10;

/// What the connections of a core share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) faces: Faces,
    pub(super) timer: LoopTimer,
    pub(super) spawner: Spawner,
    pub(super) limits: Limits,
    /// The node is to end: connections finish what they have begun.
    pub(super) stopping: Cell<bool>,
    pub(super) counts: Counts,
}

/// What is counted of HTTP.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: Cell<u64>,
    /// Responses with a status from 400 to 499, and from 500 on.
    pub(super) refused: [Cell<u64>; 2],
    pub(super) late: Cell<u64>,
    pub(super) broken: Cell<u64>,
    /// Streams that were ended because their clients did not take what they had asked for.
    pub(super) streams_late: Cell<u64>,
    /// Streams that hyper has refused as their connections have as many as they may.
    pub(super) streams_refused: Cell<u64>,
    /// Streams that hyper has ended for what their clients sent.
    pub(super) streams_broken: Cell<u64>,
    /// Connections that hyper has ended for what their clients sent too much of.
    pub(super) floods: Cell<u64>,
    /// Calls that were ended because their own deadlines had passed.
    pub(super) deadlines: Arc<AtomicU64>,
}

impl Counts {
    fn count(&self, status: StatusCode) {
        let [client, server] = &self.refused;
        if status.is_client_error() {
            add(client);
        } else if status.is_server_error() {
            add(server);
        }
    }
}

pub(super) fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// What happens on one connection, to tell one that rests from one that hangs.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests.
    begun: Cell<u64>,
    /// Requests that the node still works on: they have no response yet, or the next part of it is not there.
    under_way: Cell<u64>,
    /// Responses, and parts of them, that the node has got ready.
    done: Cell<u64>,
    /// Bytes that had been read when the last request began.
    read_at_request: Cell<u64>,
    /// Bytes of responses that the client has taken, over HTTP/2.
    pub(super) taken: Cell<u64>,
}

/// Counts a request for as long as it lives: if its client goes, its future is dropped.
struct UnderWay(Rc<Activity>);

impl UnderWay {
    fn begin(activity: &Rc<Activity>, bytes_read: u64) -> UnderWay {
        add(&activity.begun);
        activity.read_at_request.set(bytes_read);
        UnderWay::go_on(activity)
    }

    fn go_on(activity: &Rc<Activity>) -> UnderWay {
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

/// Serves a connection until it ends.
pub(super) async fn serve<S: Socket + 'static>(socket: Rc<HttpSocket<S>>, shared: Rc<Shared>) {
    match sniff(&socket, &shared).await {
        Some(Version::Http1) => serve_http1(&socket, &shared).await,
        Some(Version::Http2) => serve_http2(&socket, &shared).await,
        None => {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// Tells the version by the connection's first bytes, which are put back. `None` if the connection ends before that, or
/// takes too long.
async fn sniff<S: Socket>(socket: &HttpSocket<S>, shared: &Shared) -> Option<Version> {
    let mut seen = Vec::with_capacity(PREFACE.len());
    let mut sleep = pin!(shared.timer.after(shared.limits.http_header_timeout));
    poll_fn(|context| {
        if socket.has_failed() || shared.stopping.get() {
            return Poll::Ready(None);
        }
        let mut buffer = [0; PREFACE.len()];
        loop {
            match socket.read(&mut buffer[..PREFACE.len() - seen.len()]) {
                Ok(Some(0)) | Err(_) => return Poll::Ready(None),
                Ok(Some(got)) => seen.extend_from_slice(&buffer[..got]),
                Ok(None) => break,
            }
            if seen == PREFACE || !PREFACE.starts_with(&seen) {
                socket.unread(&seen);
                return Poll::Ready(Some(if seen == PREFACE { Version::Http2 } else { Version::Http1 }));
            }
        }
        sleep.as_mut().poll(context).map(|()| {
            add(&shared.counts.late);
            None
        })
    })
    .await
}

/// The body of a response. While the node works on what comes next, its connection does not rest.
struct Reply {
    body: FaceBody,
    activity: Rc<Activity>,
    under_way: Option<UnderWay>,
    /// Over HTTP/2.
    stream: Option<Rc<Stream>>,
}

impl Body for Reply {
    type Data = Part;
    type Error = <FaceBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, Self::Error>>> {
        if let Some(stream) = &self.stream {
            ready!(stream.poll_room(context));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.under_way = match self.under_way.take() {
            _ if frame.is_ready() => None,
            None => Some(UnderWay::go_on(&self.activity)),
            waits => waits,
        };
        let part = |bytes| Part::new(bytes, self.stream.as_ref());
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream.has_room()) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Served = Pin<Box<dyn Future<Output = Result<Response<Reply>, Infallible>>>>;

/// What hyper asks for the response to a request.
fn service<S: Socket + 'static>(
    socket: &Rc<HttpSocket<S>>,
    shared: &Rc<Shared>,
    activity: &Rc<Activity>,
    streams: Option<Streams>,
) -> impl Fn(Request<Incoming>) -> Served + use<S> {
    let (socket, shared, activity) = (Rc::clone(socket), Rc::clone(shared), Rc::clone(activity));
    move |request| {
        add(&shared.counts.requests);
        let under_way = UnderWay::begin(&activity, socket.bytes_read());
        let (shared, activity) = (Rc::clone(&shared), Rc::clone(&activity));
        let stream = streams.as_ref().map(Streams::open);
        Box::pin(async move {
            let response = shared.faces.answer(request).await;
            drop(under_way);
            shared.counts.count(response.status());
            if let Some(stream) = &stream {
                stream.end_at(response.body().deadline());
            }
            Ok(response.map(|body| Reply { body, activity, under_way: None, stream }))
        })
    }
}

async fn serve_http1<S: Socket + 'static>(socket: &Rc<HttpSocket<S>>, shared: &Rc<Shared>) {
    let activity = Rc::default();
    let mut builder = http1::Builder::new();
    // hyper counts the time that a connection rests as that of its next head: a head that has begun is timed here.
    let rest = shared.limits.http_idle_timeout + Duration::from_secs(1);
    builder.timer(shared.timer.clone()).header_read_timeout(rest);
    builder.half_close(true).max_buf_size(shared.limits.http_header_bytes_max);
    let service = service_fn(service(socket, shared, &activity, None));
    let connection = pin!(builder.serve_connection(HttpStream(Rc::clone(socket)), service));
    let watch = Watch::new(socket, shared, &activity, true);
    watch.over(connection, |connection| connection.graceful_shutdown()).await;
}

async fn serve_http2<S: Socket + 'static>(socket: &Rc<HttpSocket<S>>, shared: &Rc<Shared>) {
    let activity = Rc::default();
    let limits = &shared.limits;
    let streams = Streams::new(shared, &activity);
    let mut builder = http2::Builder::new(streams.clone());
    builder.timer(shared.timer.clone());
    builder.max_concurrent_streams(u32::try_from(limits.http_streams_max).unwrap_or(u32::MAX));
    builder.max_header_list_size(u32::try_from(limits.http_header_bytes_max).unwrap_or(u32::MAX));
    builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(2 * WINDOW_BYTES);
    builder.max_send_buf_size(SEND_BUFFER_BYTES);
    builder.max_pending_accept_reset_streams(RESET_STREAMS_MAX).max_local_error_reset_streams(ERROR_STREAMS_MAX);
    builder.keep_alive_interval(limits.http_idle_timeout / 2).keep_alive_timeout(limits.http_header_timeout);
    let service = service_fn(service(socket, shared, &activity, Some(streams)));
    let stream = CountedStream::new(HttpStream(Rc::clone(socket)), shared);
    let connection = pin!(builder.serve_connection(stream, service));
    let watch = Watch::new(socket, shared, &activity, false);
    watch.over(connection, |connection| connection.graceful_shutdown()).await;
}

/// Ends connections that rest too long, hang, or send their heads byte by byte.
struct Watch<'a, S> {
    socket: &'a HttpSocket<S>,
    shared: &'a Shared,
    activity: &'a Activity,
    /// What comes between requests is the head of the next one.
    has_heads: bool,
    alarm: Alarm,
    /// Requests that had begun at the last progress, and what the node had done of them.
    begun: u64,
    done: u64,
    /// Bytes that had moved at the last progress.
    moved: u64,
    progress_at: Instant,
    /// Since when a head is on its way.
    head_since: Option<Instant>,
    /// By when the client must have gone that was told to.
    gone_by: Option<Instant>,
}

impl<'a, S: Socket> Watch<'a, S> {
    fn new(socket: &'a HttpSocket<S>, shared: &'a Shared, activity: &'a Activity, has_heads: bool) -> Watch<'a, S> {
        let now = shared.timer.now();
        Watch {
            socket,
            shared,
            activity,
            has_heads,
            alarm: Alarm::new(&shared.timer, now + shared.limits.http_header_timeout),
            begun: 0,
            done: 0,
            moved: 0,
            progress_at: now,
            // What was read to tell the version begins a head.
            head_since: has_heads.then_some(now),
            gone_by: None,
        }
    }

    /// Runs a connection to its end, or until it is to be ended.
    async fn over<C>(mut self, mut connection: Pin<&mut C>, shut_down: impl Fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut is_told = false;
        poll_fn(move |context| {
            if !is_told && (self.shared.stopping.get() || self.gone_by.is_some()) {
                is_told = true;
                shut_down(connection.as_mut());
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                if let Err(error) = ended {
                    log::debug!("an HTTP connection broke: {error}");
                    add(&self.shared.counts.broken);
                }
                return Poll::Ready(());
            }
            if self.socket.has_failed() {
                return Poll::Ready(());
            }
            self.poll(context)
        })
        .await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.shared.timer.now();
        self.look(now);
        let limits = &self.shared.limits;
        let rest_until = self.progress_at + limits.http_idle_timeout;
        let head_until = self.head_since.map(|since| since + limits.http_header_timeout);
        let due = self.gone_by.unwrap_or_else(|| head_until.map_or(rest_until, |until| rest_until.min(until)));
        if due <= now {
            if self.gone_by.is_none() {
                add(&self.shared.counts.late);
            }
            if self.has_heads || self.gone_by.is_some() {
                return Poll::Ready(());
            }
            // Over HTTP/2 a request that is on its way meanwhile is either served or surely not.
            self.gone_by = Some(now + limits.http_header_timeout);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.alarm.set(due, now, context);
        Poll::Pending
    }

    /// The bytes that count as progress. Over HTTP/2 a client can send what asks for nothing, and keep the node busy with
    /// it: there it is what the client takes.
    fn moved_bytes(&self) -> u64 {
        match self.has_heads {
            true => self.socket.bytes_read() + self.socket.bytes_written(),
            false => self.activity.taken.get(),
        }
    }

    /// Looks whether something has moved since the last time.
    fn look(&mut self, now: Instant) {
        let (begun, done) = (self.activity.begun.get(), self.activity.done.get());
        let moved = self.moved_bytes();
        let is_waiting = self.activity.under_way.get() > 0;
        let has_worked = (begun, done) != (self.begun, self.done);
        if has_worked || is_waiting || moved >= self.moved + PROGRESS_BYTES_MIN {
            (self.begun, self.done, self.moved, self.progress_at) = (begun, done, moved, now);
        }
        if self.has_heads && begun > 0 {
            let is_head = !is_waiting && self.socket.bytes_read() > self.activity.read_at_request.get();
            self.head_since = is_head.then(|| self.head_since.unwrap_or(now));
        }
    }
}

/// A refusal for a connection that cannot be served at all.
pub(super) fn turn_away(socket: &impl Socket) -> io::Result<usize> {
    const WORDS: &str = "{\"type\":\"urn:raftkv:problem:overloaded\",\"title\":\"too much is in flight\",\"status\":503,\
        \"code\":\"overloaded\",\"detail\":\"this node has as many connections as it may (--connections-max)\"}";
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{WORDS}",
        WORDS.len()
    );
    socket.write(head.as_bytes())
}
