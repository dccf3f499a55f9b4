use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::{Request, Response};
use tonic::Status;

use super::status_test::node;
use super::{Grpc, ResponseBody};
use crate::api::held::Held;
use crate::api::node_handle::NodeHandle;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OVERHEAD_BYTES_MAX};

const PUT: &str = "/raftkv.v1.KV/Put";
const BATCH: &str = "/raftkv.v1.KV/Batch";
const STATUS: &str = "/raftkv.v1.Cluster/Status";
/// The longest message with the limits as they are.
const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + BATCH_OVERHEAD_BYTES_MAX;
const ROOM_BYTES: usize = 8 << 20;

fn roomy() -> NodeHandle {
    NodeHandle { bodies: Held::new(ROOM_BYTES), ..node() }
}

/// What a call is answered before anything is asked of the node; `None` if something is.
fn answer<B>(node: &NodeHandle, path: &str, body: B) -> Option<Response<ResponseBody>>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let request = Request::post(path).header("content-type", "application/grpc").body(body).expect("a request");
    let grpc = Grpc::new(Arc::new(node.clone()));
    let answered = pin!(grpc.answer(request)).poll(&mut Context::from_waker(Waker::noop()));
    match answered {
        Poll::Ready(response) => Some(response),
        Poll::Pending => {
            let mut questions = Vec::new();
            assert!(node.backend.take_asked(&mut questions).is_empty());
            assert_eq!(questions.len(), 1, "it is asked of the node");
            None
        }
    }
}

/// The code that a call is refused with.
fn code<B>(node: &NodeHandle, path: &str, body: B) -> Option<String>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let response = answer(node, path, body)?;
    let status = Status::from_header_map(response.headers()).expect("a status");
    let code = status.metadata().get("raftkv-code").unwrap_or_else(|| panic!("no code: {status:?}"));
    Some(code.to_str().expect("a name").to_owned())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[test]
fn a_batch_of_very_many_operations_is_refused_before_it_is_decoded() {
    let empty_operation = [0x0a, 0];
    for (operations, expected) in [(256, "bad_request"), (257, "too_large"), (MESSAGE_BYTES_MAX / 2, "too_large")] {
        let message = empty_operation.repeat(operations);
        let refused = code(&roomy(), BATCH, Full::from(framed(&message)));
        assert_eq!(refused.as_deref(), Some(expected), "{operations} operations");
    }
}

#[test]
fn what_no_message_here_has_is_refused() {
    let many = [0x0a, 0].repeat(300);
    let group = [&[0x4b][..], &many, &[0x4c]].concat();
    for (what, message) in [
        ("a group", &group[..]),
        ("a number that does not end", &[0x08, 0xff]),
        ("a length beyond the end", &[0x0a, 2, 0]),
        ("a length beyond all ends", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ("half a fixed number", &[0x0d, 0, 0, 0]),
    ] {
        assert_eq!(code(&roomy(), BATCH, Full::from(framed(message))).as_deref(), Some("bad_request"), "{what}");
    }
    let unknown = [0x0a, 1, b'k', 0x78, 0x96, 1, 0x7a, 1, 7, 0x7d, 0, 0, 0, 0, 0x79, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(code(&roomy(), PUT, Full::from(framed(&unknown))), None, "fields of later versions are passed over");
}

#[test]
fn a_call_is_taken_up_to_the_bytes_of_its_longest_message() {
    let key_and_value = [0x0a, 1, b'k', 0x12, 3, 1, 2, 3];
    for (bytes, expected) in
        [(MESSAGE_BYTES_MAX - 1, None), (MESSAGE_BYTES_MAX, None), (MESSAGE_BYTES_MAX + 1, Some("too_large"))]
    {
        // Field 15 is unknown.
        let padding = 5 + (bytes - key_and_value.len()) % 5;
        let message =
            [&key_and_value[..], &[0x7a, u8::try_from(padding - 2).expect("short")], &vec![0; padding - 2]].concat();
        let mut body = framed(&message);
        body.resize(5 + bytes, 0);
        let refused = code(&roomy(), PUT, Full::from(body));
        assert_eq!(refused.as_deref(), expected, "{bytes} bytes, most of which are empty messages");
    }
}

/// Sends the same again and again.
struct Endless {
    part: Bytes,
    sent: Arc<AtomicUsize>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        self.sent.fetch_add(self.part.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.part.clone()))))
    }
}

#[test]
fn a_call_that_does_not_end_takes_no_more_than_one_message_may() {
    for (path, bytes_max) in [(PUT, MESSAGE_BYTES_MAX), (STATUS, 4 << 10)] {
        let sent = Arc::new(AtomicUsize::new(0));
        let endless = Endless { part: framed(&[]).into(), sent: Arc::clone(&sent) };
        let node = roomy();
        assert_eq!(code(&node, path, endless).as_deref(), Some("too_large"), "{path}");
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent > bytes_max && sent <= bytes_max + 10, "{path}: {sent} bytes were taken");
        assert_eq!(node.bodies.bytes(), 0, "{path}: nothing is held");
    }
}

#[test]
fn calls_whose_deadline_has_passed_are_counted() {
    let node = roomy();
    let request = Request::post(PUT).header("content-type", "application/grpc").header("grpc-timeout", "0m");
    let request = request.body(Full::<Bytes>::from(framed(&[0x0a, 1, b'k']))).expect("a request");
    let grpc = Grpc::new(Arc::new(node.clone()));
    let answered = pin!(grpc.answer(request)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(response) = answered else { panic!("it waits") };
    let status = Status::from_header_map(response.headers()).expect("a status");
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(node.deadlines.load(Ordering::Relaxed), 1);
}
