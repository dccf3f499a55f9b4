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
use std::time::Instant;

use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Timer as _;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};

use super::faces::{FaceBody, Faces};
use super::frames::CountedStream;
use super::streams::{Part, Stream, Streams};
use super::watch::{Activity, End, UnderWay, Watch};
use crate::event_loop::{HttpSocket, HttpStream, LoopTimer, Spawner};
use crate::limits::Limits;
use crate::socket::Socket;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How many streams of an HTTP/2 connection may wait in the state in which their client has reset them.
const RESET_STREAMS_MAX: usize = 20;
/// How many streams an HTTP/2 client may make this side reset before the connection is closed.
const ERROR_STREAMS_MAX: usize = 100;
/// How much of a request's body an HTTP/2 client may send ahead, on a stream and on all.
const WINDOW_BYTES: u32 = 256 << 10;
/// How much of the responses to one stream may wait in the connection.
const SEND_BUFFER_BYTES: usize = 64 << 10;

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

/// Serves a connection until it ends. What a version needs is in a box of its own: it goes while the connection rests.
pub(super) async fn serve<S: Socket + 'static>(socket: Rc<HttpSocket<S>>, shared: Rc<Shared>) {
    match sniff(&socket, &shared).await {
        Some(Version::Http1) => serve_http1(&socket, &shared).await,
        Some(Version::Http2) => Box::pin(serve_http2(&socket, &shared)).await,
        None => {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Tells the version by the connection's first bytes, which are put back. `None` if the connection ends before that, or
/// takes too long.
async fn sniff<S: Socket>(socket: &HttpSocket<S>, shared: &Shared) -> Option<Version> {
    let until = shared.timer.now() + shared.limits.http_header_timeout;
    let may_be_http2 = |seen: &[u8]| seen != PREFACE && PREFACE.starts_with(seen);
    let seen = first_bytes(socket, shared, until, may_be_http2).await?;
    Some(if seen == PREFACE { Version::Http2 } else { Version::Http1 })
}

/// Reads while the bytes are too `few`, and puts them back. `None` if the connection ends before that, or `until`.
async fn first_bytes<S: Socket>(
    socket: &HttpSocket<S>,
    shared: &Shared,
    until: Instant,
    few: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let mut seen = Vec::new();
    let mut sleep = pin!(shared.timer.until(until));
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
            if !few(&seen) {
                socket.unread(&seen);
                return Poll::Ready(Some(std::mem::take(&mut seen)));
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

/// What hyper asks for the response to a request, which is one of the ways in which [`Faces`] answer.
fn service<A: AsyncFn(&Faces, Request<Incoming>) -> Response<FaceBody> + Copy + 'static>(
    shared: &Rc<Shared>,
    activity: &Rc<Activity>,
    streams: Option<Streams>,
    answer: A,
) -> impl Service<Request<Incoming>, Response = Response<Reply>, Error = Infallible, Future: 'static> + use<A> {
    let (shared, activity) = (Rc::clone(shared), Rc::clone(activity));
    service_fn(move |request| {
        add(&shared.counts.requests);
        let under_way = UnderWay::begin(&activity);
        let (shared, activity) = (Rc::clone(&shared), Rc::clone(&activity));
        let stream = streams.as_ref().map(Streams::open);
        async move {
            let response = answer(&shared.faces, request).await;
            drop(under_way);
            shared.counts.count(response.status());
            if let Some(stream) = &stream {
                stream.end_at(response.body().deadline());
            }
            Ok(response.map(|body| Reply { body, activity, under_way: None, stream }))
        }
    })
}

/// A connection that rests between two requests waits here, without the buffers that hyper has for each.
async fn serve_http1<S: Socket + 'static>(socket: &Rc<HttpSocket<S>>, shared: &Rc<Shared>) {
    while let End::Rests { until } = Box::pin(serve_requests(socket, shared)).await {
        if !socket.has_unread() && first_bytes(socket, shared, until, <[u8]>::is_empty).await.is_none() {
            return;
        }
    }
}

/// Serves requests until the connection ends or rests.
async fn serve_requests<S: Socket + 'static>(socket: &Rc<HttpSocket<S>>, shared: &Rc<Shared>) -> End {
    let activity = Rc::default();
    let mut builder = http1::Builder::new();
    // The watch knows when a head begins; hyper would count the time that a connection rests as that of its next head.
    builder.header_read_timeout(None);
    let header_bytes_max = shared.limits.http_header_bytes_max;
    builder.half_close(true).max_buf_size(header_bytes_max).max_header_size(header_bytes_max);
    let service = service(shared, &activity, None, Faces::rest);
    let mut connection = builder.serve_connection(HttpStream(Rc::clone(socket)), service);
    let mut watch = Watch::new(socket, shared, &activity, Version::Http1);
    let end = watch.over(Pin::new(&mut connection), |connection| connection.graceful_shutdown()).await;
    if end == End::Over {
        return end;
    }
    // Between two requests hyper ends with that, without a word to the client.
    socket.keep_open();
    Pin::new(&mut connection).graceful_shutdown();
    let ended = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context))).await;
    socket.let_close();
    match ended {
        Poll::Ready(Ok(())) => {
            socket.unread(&connection.into_parts().read_buf);
            end
        }
        Poll::Ready(Err(_)) => End::Over,
        // In the midst of a request it ends after that.
        Poll::Pending => watch.finish(Pin::new(&mut connection)).await,
    }
}

async fn serve_http2<S: Socket + 'static>(socket: &Rc<HttpSocket<S>>, shared: &Rc<Shared>) {
    let activity = Rc::default();
    let limits = &shared.limits;
    let streams = Streams::new(shared, &activity);
    let mut builder = http2::Builder::new(streams.clone());
    builder.timer(shared.timer.clone());
    builder.max_concurrent_streams(u32::try_from(limits.http_streams_max).unwrap_or(u32::MAX));
    // h2 takes what is shorter.
    builder.max_header_list_size(u32::try_from(limits.http_header_bytes_max + 1).unwrap_or(u32::MAX));
    builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(2 * WINDOW_BYTES);
    builder.max_send_buf_size(SEND_BUFFER_BYTES);
    builder.max_pending_accept_reset_streams(RESET_STREAMS_MAX).max_local_error_reset_streams(ERROR_STREAMS_MAX);
    builder.keep_alive_interval(limits.http_idle_timeout / 2).keep_alive_timeout(limits.http_header_timeout);
    let service = service(shared, &activity, Some(streams), Faces::either);
    let stream = CountedStream::new(HttpStream(Rc::clone(socket)), shared, &activity);
    let connection = pin!(builder.serve_connection(stream, service));
    let mut watch = Watch::new(socket, shared, &activity, Version::Http2);
    watch.over(connection, |connection| connection.graceful_shutdown()).await;
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
