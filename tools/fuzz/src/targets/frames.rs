//! Frames: what arrives on a connection, from clients or from peers.
//!
//! Whatever the bytes are, nothing panics, and a decoder allocates no more than a small multiple of what arrived. A
//! stream that comes in pieces holds the same frames as one that comes at once. A message that is accepted is written
//! back so that it is read as the same message, and requests and Raft messages byte for byte, but for trailing fields
//! of a newer version.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use raftkv_protocol::client::{Reply, Request};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX, DecodeError, Frame, FrameError, HEADER_LEN, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Hello, HelloReply};
use raftkv_protocol::kind;
use raftkv_protocol::peer::PeerFrame;

use crate::allocations;
use crate::feedback::{Feedback, magnitude, named};
use crate::random::Random;

/// As in the protocol's own tests: an append's empty entry takes 13 bytes on the wire and 56 in memory, and its block is
/// copied once.
const ALLOCATED_FACTOR: usize = 6;
const ALLOCATED_CONSTANT: usize = 512;
/// Texts are cut at 4 KiB when they are written; below that every message comes back whole.
const WHOLE_BYTES_MAX: usize = 4096;

/// Any message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// The dialling side's first.
    Hello(Hello<'a>),
    /// The answer to that.
    HelloReply(HelloReply<'a>),
    /// Of a client.
    Request(Request<'a>),
    /// To a client.
    Reply(Reply<'a>),
    /// Of a peer.
    Peer(PeerFrame<'a>),
}

/// What is tested: the protocol, or in a test of these checks something that is broken.
pub trait Codec {
    /// Finds the frame at the start of a buffer.
    fn parse<'a>(&self, buffer: &'a [u8], max: usize) -> Result<Option<Frame<'a>>, FrameError>;
    /// Reads a message.
    fn decode<'a>(&self, kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError>;
    /// Writes one.
    fn encode(&self, message: &Message<'_>, out: &mut Vec<u8>);
}

/// The protocol as it is.
#[derive(Clone, Copy, Debug)]
pub struct Protocol;

impl Codec for Protocol {
    fn parse<'a>(&self, buffer: &'a [u8], max: usize) -> Result<Option<Frame<'a>>, FrameError> {
        frame::parse(buffer, max)
    }

    fn decode<'a>(&self, kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        match kind {
            kind::HELLO => Hello::decode(kind, payload).map(Message::Hello),
            0 | 2..0x10 => HelloReply::decode(kind, payload).map(Message::HelloReply),
            0x10..0x40 => Request::decode(kind, payload).map(Message::Request),
            0x40..0x80 => Reply::decode(kind, payload).map(Message::Reply),
            _ => PeerFrame::decode(kind, payload).map(Message::Peer),
        }
    }

    fn encode(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        match message {
            Message::Hello(hello) => hello.encode(out),
            Message::HelloReply(reply) => reply.encode(out),
            Message::Request(request) => request.encode(out),
            Message::Reply(reply) => reply.encode(out),
            Message::Peer(peer) => peer.encode(out),
        }
    }
}

/// The target for what clients and servers say to each other.
pub fn run_client(data: &[u8], feedback: &mut Feedback) {
    check_stream(&Protocol, data, CLIENT_FRAME_MAX, feedback);
}

/// The target for what peers say to each other.
pub fn run_peer(data: &[u8], feedback: &mut Feedback) {
    check_stream(&Protocol, data, PEER_FRAME_MAX, feedback);
}

/// Checks everything that must hold of a stream.
pub fn check_stream(codec: &impl Codec, data: &[u8], max: usize, feedback: &mut Feedback) {
    let whole = allocations::at_most(0, || read(codec, data, max, Pieces::whole(data)));
    let pieces = read(codec, data, max, Pieces::of(data));
    assert_eq!(pieces, whole, "a stream in pieces holds other frames than at once");
    let mut at = 0;
    for _ in 0..whole.frames {
        let Ok(Some(frame)) = codec.parse(&data[at..], max) else { panic!("a frame was there before") };
        at += frame.consumed;
        check_message(codec, &frame, feedback);
    }
    feedback.saw_with(1, u64::from(whole.frames.min(8)));
    feedback.saw_with(2, named(whole.end_name()));
}

/// What a stream held.
#[derive(Clone, Debug, PartialEq)]
struct Stream {
    frames: u32,
    /// Bytes up to the end of the last frame.
    bytes: usize,
    /// Of all kinds and lengths, in order.
    hash: u64,
    error: Option<FrameError>,
}

impl Stream {
    fn end_name(&self) -> &'static str {
        match self.error {
            None => "open",
            Some(FrameError::Length { .. }) => "length",
            Some(_) => "checksum",
        }
    }
}

/// Up to where a stream has arrived, piece by piece.
struct Pieces {
    arrived: usize,
    len: usize,
    /// `None`: everything at once.
    random: Option<Random>,
}

impl Pieces {
    fn whole(data: &[u8]) -> Pieces {
        Pieces { arrived: 0, len: data.len(), random: None }
    }

    /// Pieces that depend on the data alone.
    fn of(data: &[u8]) -> Pieces {
        let sample = data.iter().take(16).fold(data.len() as u64, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
        Pieces { arrived: 0, len: data.len(), random: Some(Random::new(sample)) }
    }
}

impl Iterator for Pieces {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.arrived == self.len {
            return None;
        }
        let piece = match &mut self.random {
            None => self.len,
            Some(random) => {
                let longest = if random.one_in(4) { 8 } else { 64 };
                1 + random.below(longest)
            }
        };
        self.arrived = (self.arrived + piece).min(self.len);
        Some(self.arrived)
    }
}

fn read(codec: &impl Codec, data: &[u8], max: usize, pieces: Pieces) -> Stream {
    let mut stream = Stream { frames: 0, bytes: 0, hash: 0, error: None };
    for arrived in pieces {
        loop {
            match codec.parse(&data[stream.bytes..arrived], max) {
                Ok(Some(frame)) => {
                    assert_eq!(
                        frame.payload.len() + HEADER_LEN,
                        frame.consumed,
                        "a frame is its header and its payload"
                    );
                    stream.frames += 1;
                    stream.bytes += frame.consumed;
                    stream.hash = stream.hash.rotate_left(7) ^ (u64::from(frame.kind) << 32 | frame.consumed as u64);
                }
                Ok(None) => break,
                Err(error) => {
                    stream.error = Some(error);
                    return stream;
                }
            }
        }
    }
    stream
}

thread_local! {
    /// Where messages are written again.
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn check_message(codec: &impl Codec, frame: &Frame<'_>, feedback: &mut Feedback) {
    let allowed = ALLOCATED_FACTOR * frame.payload.len() + ALLOCATED_CONSTANT;
    let decoded = allocations::at_most(allowed, || codec.decode(frame.kind, frame.payload));
    let kind = u64::from(frame.kind);
    match decoded {
        Ok(message) => {
            feedback.saw_with(3, kind << 8 | magnitude(frame.payload.len() as u64));
            WRITTEN.with_borrow_mut(|written| check_written_back(codec, frame, &message, written));
        }
        Err(DecodeError::Kind(unknown)) => {
            // The answer to a forwarded request holds a kind of its own.
            let is_inner = frame.kind == kind::FORWARD_REPLY;
            assert!(unknown == frame.kind || is_inner, "kind {unknown} is refused in a frame of kind {kind}");
            feedback.saw_with(4, kind);
        }
        Err(DecodeError::Truncated(field)) => feedback.saw_with(5, kind ^ named(field)),
        Err(DecodeError::Invalid(field)) => feedback.saw_with(6, kind ^ named(field)),
        Err(other) => panic!("an error without a name here: {other}"),
    }
}

fn check_written_back(codec: &impl Codec, frame: &Frame<'_>, message: &Message<'_>, written: &mut Vec<u8>) {
    if frame.payload.len() > WHOLE_BYTES_MAX {
        return;
    }
    written.clear();
    codec.encode(message, written);
    let again = frame::parse(written, PEER_FRAME_MAX);
    let Ok(Some(again)) = again else { panic!("what was written is no frame: {again:?}") };
    assert_eq!((again.kind, again.consumed), (frame.kind, written.len()), "written as another frame: {message:?}");
    assert!(again.payload.len() <= frame.payload.len(), "written longer than it was read: {message:?}");
    if is_written_alike(message) {
        assert!(frame.payload.starts_with(again.payload), "written in other bytes than it was read: {message:?}");
    }
    let reread = codec.decode(again.kind, again.payload);
    assert_eq!(reread.as_ref(), Ok(message), "read as another message than it was written");
}

/// Whether every byte of such a message has one meaning. The others hold numbers and fields of newer versions, which are
/// read as the nearest thing that is known.
fn is_written_alike(message: &Message<'_>) -> bool {
    match message {
        Message::Request(_) => true,
        Message::Peer(frame) => {
            !matches!(frame, PeerFrame::ForwardReply(_) | PeerFrame::Health(_) | PeerFrame::Checkpoints(_))
        }
        _ => false,
    }
}

/// Makes every frame of a stream one that its reader accepts: lengths that end within the stream, and checksums.
pub fn fixup(data: &mut [u8]) {
    let mut at = 0;
    while data.len() - at >= HEADER_LEN {
        let left = data.len() - at;
        let announced = u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]) as usize;
        let whole = announced.checked_add(4).filter(|whole| (HEADER_LEN..=left).contains(whole)).unwrap_or(left);
        let frame = &mut data[at..at + whole];
        frame[..4].copy_from_slice(&((whole - 4) as u32).to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&frame[..4]);
        checksum.update(&frame[8..]);
        frame[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
        at += whole;
    }
}

/// The golden frames of clients and servers, and all of them in one stream.
pub fn client_seeds() -> Vec<Vec<u8>> {
    with_stream(golden(|kind| kind < 0x80))
}

/// The golden frames of peers, and all of them in one stream.
pub fn peer_seeds() -> Vec<Vec<u8>> {
    with_stream(golden(|kind| kind >= 0x80))
}

fn with_stream(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.push(frames.concat());
    frames
}

/// The frames of `protocol/testdata`, by name.
fn golden(is_wanted: impl Fn(u8) -> bool) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/testdata");
    let files = fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}; run this where the repository is that it was built from", folder.display())
    });
    let mut paths: Vec<_> = files.map(|file| file.expect("its entries can be read").path()).collect();
    paths.sort();
    let listings = paths.iter().map(|path| fs::read_to_string(path).expect("a golden file can be read"));
    listings.map(|listing| bytes_of(&listing)).filter(|frame| is_wanted(frame[HEADER_LEN - 1])).collect()
}

/// The bytes of a hex listing: `#` lines are comments, `…:` is an offset.
fn bytes_of(listing: &str) -> Vec<u8> {
    let lines = listing.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).filter(|word| !word.ends_with(':'));
    words.map(|word| u8::from_str_radix(word, 16).expect("a golden file holds bytes")).collect()
}
