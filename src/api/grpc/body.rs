//! The bodies of calls, around the messages in them: what holds them to their limits of memory and time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::HeaderMap;
use hyper::rt::Sleep;
use raftkv_protocol::client::Code;
use tonic::Status;
use tonic::codegen::StdError;

use super::deadline::{self, Clock};
use super::{bad, status};
use crate::api::ask::OwnedRefusal;
use crate::api::held::Share;
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// A request's body, which counts while it comes in.
pub struct RequestBody {
    body: Pin<Box<dyn Body<Data = Bytes, Error = StdError> + Send>>,
    node: Arc<NodeHandle>,
    task: Task,
    /// `None` for a stream of small messages, each of which is dealt with as it comes.
    whole: Option<Whole>,
    /// Set when there is something to wait for.
    sleep: Option<Pin<Box<dyn Sleep>>>,
}

/// What a body with one message in it may take.
pub struct Whole {
    /// Where it counts.
    share: Arc<Share>,
    bytes: usize,
    bytes_max: usize,
}

impl Whole {
    pub fn new(share: Arc<Share>, bytes_max: usize) -> Whole {
        Whole { share, bytes: 0, bytes_max }
    }

    /// Takes note of what has come. What follows the message, as others would, is read too, and thrown away.
    fn came(&mut self, bytes: usize) -> Result<(), OwnedRefusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bytes_max {
            let max = self.bytes_max;
            let words = format!("the call has more than {max} bytes, which its longest message would take");
            return Err(OwnedRefusal::new(Code::TooLarge, words));
        }
        self.share.grow(bytes)
    }
}

/// Names an error as the trait object wants it.
struct Foreign<B>(B);

impl<B> Body for Foreign<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.0).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl RequestBody {
    /// A body that holds one message, which is to be there in the time that the body of a request may take.
    pub fn whole<B>(body: B, node: &Arc<NodeHandle>, task: Task, whole: Whole) -> RequestBody
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        RequestBody { body: Box::pin(Foreign(body)), node: Arc::clone(node), task, whole: Some(whole), sleep: None }
    }

    /// A body that holds small messages as long as the client has some, and ends when it rests too long.
    pub fn stream<B>(body: B, node: &Arc<NodeHandle>, task: Task) -> RequestBody
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        RequestBody { body: Box::pin(Foreign(body)), node: Arc::clone(node), task, whole: None, sleep: None }
    }

    /// Takes note of what has come.
    fn came(&mut self, bytes: usize) -> Result<(), OwnedRefusal> {
        match &mut self.whole {
            Some(whole) => whole.came(bytes),
            None => {
                self.sleep = None;
                Ok(())
            }
        }
    }

    /// Ready when nothing has come for too long.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limits = &self.node.limits;
        let patience = if self.whole.is_some() { limits.http_body_timeout } else { limits.http_idle_timeout };
        let sleep = self.sleep.get_or_insert_with(|| self.node.timer.sleep(patience));
        sleep.as_mut().poll(context)
    }

    fn refuse(&self, refusal: OwnedRefusal) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(Some(Err(status::of(refusal, &self.node, Some(self.task)))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.body.as_mut().poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match self.came(frame.data_ref().map_or(0, Bytes::len)) {
                Ok(()) => Poll::Ready(Some(Ok(frame))),
                Err(refusal) => self.refuse(refusal),
            },
            Poll::Ready(Some(Err(error))) => self.refuse(bad(format!("the request is cut off: {error}"))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(self.wait(context));
                match self.whole {
                    Some(_) => self.refuse(OwnedRefusal::new(Code::BadRequest, self.node.body_is_late())),
                    None => Poll::Ready(None),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A response's body, which counts until its reader has it, and ends with the call's deadline.
pub struct ResponseBody {
    body: tonic::body::Body,
    node: Arc<NodeHandle>,
    clock: Option<Clock>,
    has_ended: bool,
}

impl ResponseBody {
    pub(super) fn new(body: tonic::body::Body, node: &Arc<NodeHandle>, clock: Option<Clock>) -> ResponseBody {
        ResponseBody { body, node: Arc::clone(node), clock, has_ended: false }
    }

    /// The call's deadline. Whoever holds the body ends it then if the client does not take what comes first.
    pub fn deadline(&self) -> Option<Instant> {
        self.clock.as_ref().map(Clock::at)
    }

    /// The deadline has passed: what is still to come does not.
    fn end_late(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        let mut trailers = HeaderMap::new();
        let status = status::of(deadline::passed(&self.node), &self.node, None);
        if let Err(status) = status.add_header(&mut trailers) {
            return Some(Err(status));
        }
        self.has_ended = true;
        Some(Ok(Frame::trailers(trailers)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                Poll::Ready(Some(Ok(frame.map_data(|data| self.node.replies.counted(data)))))
            }
            Poll::Pending => {
                let Some(clock) = &mut self.clock else { return Poll::Pending };
                std::task::ready!(Pin::new(clock).poll(context));
                Poll::Ready(self.end_late())
            }
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }
}
