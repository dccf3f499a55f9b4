//! Any message of the protocol, so that one test can cover all of them.

use std::fmt;

use raftkv_protocol::client::{Reply, Request};
use raftkv_protocol::frame::{self, DecodeError, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Hello, HelloReply};
use raftkv_protocol::kind;
use raftkv_protocol::peer::PeerFrame;

#[derive(Clone, PartialEq)]
pub enum AnyMessage<'a> {
    Hello(Hello<'a>),
    HelloReply(HelloReply<'a>),
    Request(Request<'a>),
    Reply(Reply<'a>),
    Peer(PeerFrame<'a>),
}

impl<'a> AnyMessage<'a> {
    /// The message as one frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            AnyMessage::Hello(hello) => hello.encode(&mut out),
            AnyMessage::HelloReply(reply) => reply.encode(&mut out),
            AnyMessage::Request(request) => request.encode(&mut out),
            AnyMessage::Reply(reply) => reply.encode(&mut out),
            AnyMessage::Peer(peer) => peer.encode(&mut out),
        }
        out
    }

    /// Decodes by the ranges of the kinds.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<AnyMessage<'a>, DecodeError> {
        match kind {
            kind::HELLO => Hello::decode(kind, payload).map(AnyMessage::Hello),
            0 | 2..0x10 => HelloReply::decode(kind, payload).map(AnyMessage::HelloReply),
            0x10..0x40 => Request::decode(kind, payload).map(AnyMessage::Request),
            0x40..0x80 => Reply::decode(kind, payload).map(AnyMessage::Reply),
            _ => PeerFrame::decode(kind, payload).map(AnyMessage::Peer),
        }
    }
}

impl fmt::Debug for AnyMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyMessage::Hello(hello) => hello.fmt(f),
            AnyMessage::HelloReply(reply) => reply.fmt(f),
            AnyMessage::Request(request) => request.fmt(f),
            AnyMessage::Reply(reply) => reply.fmt(f),
            AnyMessage::Peer(peer) => peer.fmt(f),
        }
    }
}

/// Kind and payload of the one frame that these bytes are.
pub fn open(bytes: &[u8]) -> (u8, &[u8]) {
    let frame = frame::parse(bytes, PEER_FRAME_MAX).expect("a valid frame").expect("a whole frame");
    assert_eq!(frame.consumed, bytes.len());
    (frame.kind, frame.payload)
}
