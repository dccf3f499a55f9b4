//! What tonic's generated clients need to call over one HTTP/2 connection, without a runtime: whoever waits for a call
//! moves the connection meanwhile.

use std::future::{Future, poll_fn};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::http::{Request, Response};
use mio::{Events, Interest, Token};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use crate::support::wait::PATIENCE;

/// The connection.
pub struct Connection {
    driver: h2::client::Connection<Socket, Bytes>,
    sender: SendRequest<Bytes>,
    wait: Wait,
}

impl Connection {
    pub fn connect(address: SocketAddr) -> Connection {
        let stream = std::net::TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_nonblocking(true).expect("it need not block");
        stream.set_nodelay(true).expect("the delay can be switched off");
        let mut stream = mio::net::TcpStream::from_std(stream);
        let poll = mio::Poll::new().expect("a poll");
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(0), interest).expect("registered");
        let mut wait = Wait { poll, events: Events::with_capacity(4) };
        let handshake = Builder::new().handshake(Socket(stream));
        let (sender, driver) = wait.until(handshake, |_| {}).expect("the other side speaks HTTP/2");
        Connection { driver, sender, wait }
    }

    /// For a generated client.
    pub fn channel(&self) -> Channel {
        Channel(self.sender.clone())
    }

    /// Waits for a call.
    pub fn wait<T>(&mut self, call: impl Future<Output = T>) -> T {
        let driver = &mut self.driver;
        let mut has_ended = false;
        self.wait.until(call, |context| has_ended = has_ended || Pin::new(&mut *driver).poll(context).is_ready())
    }
}

/// Sleeps until bytes can move.
struct Wait {
    poll: mio::Poll,
    events: Events,
}

impl Wait {
    /// Moves both, until the future is done.
    fn until<T>(&mut self, future: impl Future<Output = T>, mut beside: impl FnMut(&mut Context<'_>)) -> T {
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
                return done;
            }
            beside(&mut context);
            if woken.0.swap(false, Ordering::Relaxed) {
                continue;
            }
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("polled");
            assert!(!self.events.is_empty(), "no response within {PATIENCE:?}");
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A socket that does not block. Nobody is woken by it: whoever waits polls again when bytes can move.
struct Socket(mio::net::TcpStream);

/// What became of a try to move bytes.
fn moved(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let got = ready!(moved(self.0.read(buffer.initialize_unfilled())))?;
        buffer.advance(got);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        moved(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(std::net::Shutdown::Write))
    }
}

/// Sends a client's requests.
#[derive(Clone)]
pub struct Channel(SendRequest<Bytes>);

impl Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = tonic::codegen::StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let mut sender = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let message = body.collect().await?.to_bytes();
            let (response, stream) = sender.send_request(Request::from_parts(head, ()), false)?;
            Ok(exchange(response, stream, message).await?.map(Incoming))
        })
    }
}

/// Sends a message as the other side takes it, unless it answers before it has all of it.
async fn exchange(
    mut response: ResponseFuture,
    mut stream: h2::SendStream<Bytes>,
    mut message: Bytes,
) -> Result<Response<h2::RecvStream>, h2::Error> {
    stream.reserve_capacity(message.len());
    poll_fn(|context| {
        while !message.is_empty() {
            let Poll::Ready(Some(Ok(room))) = stream.poll_capacity(context) else { break };
            let part = message.split_to(room.min(message.len()));
            if stream.send_data(part, message.is_empty()).is_err() {
                break;
            }
        }
        Pin::new(&mut response).poll(context)
    })
    .await
}

/// A response's body.
pub struct Incoming(h2::RecvStream);

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.0.poll_data(context)) {
            Some(Ok(data)) => {
                let released = self.0.flow_control().release_capacity(data.len());
                Poll::Ready(Some(released.map(|()| Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => self
                .0
                .poll_trailers(context)
                .map(|trailers| trailers.map(|found| found.map(Frame::trailers)).transpose()),
        }
    }
}
