//! Just enough of HTTP/2 (RFC 9113) to ask a server with prior knowledge, and to misbehave towards it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::http::http_address;
use super::wait::PATIENCE;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
/// Why a stream ends (RFC 9113 §7): nobody wants what is left of it.
pub const CANCEL: u32 = 8;
/// Fields of the static table of HPACK (RFC 7541, Appendix A): `:method GET` and `:method POST`.
const METHOD_GET: u8 = 0x82;
const METHOD_POST: u8 = 0x83;
/// A setting: how much of each response may come before there is a [`WINDOW_UPDATE`] for it.
const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// What both sides may send before they know the other's settings.
const WINDOW_BYTES: i64 = 65_535;
const FRAME_BYTES_MAX: usize = 16_384;

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    stream: TcpStream,
    /// Frames that came while there was no room for a body.
    early: VecDeque<Frame>,
    room: Room,
}

/// How much of bodies the other side takes.
#[derive(Debug)]
struct Room {
    initial: i64,
    connection: i64,
    /// By stream: how much more or less than `initial`.
    streams: BTreeMap<u32, i64>,
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Of which stream; 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// What came in some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// A frame that means something here.
    Frame(Frame),
    /// The end of the connection.
    End,
    /// Nothing of that.
    Nothing,
}

impl Frame {
    /// Whether it is the last of its stream.
    pub fn is_last(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0
    }

    /// Why the other side ends a stream or the connection (RFC 9113 §7).
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("4 bytes"))
    }
}

/// A connection to a node.
pub fn http2(cluster: &Cluster, id: u64) -> Http2 {
    Http2::connect(http_address(cluster.address(id)))
}

impl Http2 {
    /// Connects and greets.
    pub fn connect(address: SocketAddr) -> Http2 {
        Http2::connect_with_window(address, WINDOW_BYTES as u32)
    }

    /// Connects and greets as a client that takes so much of each response before it says that it takes more.
    pub fn connect_with_window(address: SocketAddr, bytes: u32) -> Http2 {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let room = Room { initial: WINDOW_BYTES, connection: WINDOW_BYTES, streams: BTreeMap::new() };
        let mut http = Http2 { stream, early: VecDeque::new(), room };
        http.stream.write_all(PREFACE).expect("sent");
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
        assert!(http.send(SETTINGS, 0, 0, &setting), "sent");
        http
    }

    /// Sends a frame; false if the other side has had enough.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).is_ok()
    }

    /// Asks for a path on a stream.
    pub fn get(&mut self, stream: u32, path: &str) -> bool {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &get_block(path))
    }

    /// The same with a head whose list of fields is so long, as RFC 9113 §6.5.2 counts: each field has 32 bytes beside those
    /// of its name and value.
    pub fn get_with_fields_of(&mut self, stream: u32, path: &str, bytes: usize) -> bool {
        self.fields_of(stream, path, bytes, END_STREAM)
    }

    /// The same with a body that is to come.
    pub fn begin_with_fields_of(&mut self, stream: u32, path: &str, bytes: usize) -> bool {
        self.fields_of(stream, path, bytes, 0)
    }

    fn fields_of(&mut self, stream: u32, path: &str, bytes: usize, end: u8) -> bool {
        let others = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test"), ("x", "")];
        let least: usize = others.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        let value = vec![b'p'; bytes - least];
        // RFC 7541 §5.1 and §6.2.2: a new name, and a value whose length takes more than its first byte has.
        let mut block = [&get_block(path)[..], &[0x00, 1, b'x', 0x7f]].concat();
        let mut length = value.len() - 0x7f;
        while length >= 0x80 {
            block.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        block.push(length as u8);
        block.extend_from_slice(&value);
        let frames: Vec<&[u8]> = block.chunks(FRAME_BYTES_MAX).collect();
        frames.iter().enumerate().all(|(n, part)| {
            let (kind, flags) = if n == 0 { (HEADERS, end) } else { (CONTINUATION, 0) };
            let is_last = n + 1 == frames.len();
            self.send(kind, flags | if is_last { END_HEADERS } else { 0 }, stream, part)
        })
    }

    /// Begins a call of a method of gRPC; its messages are a [`Http2::body`].
    pub fn call(&mut self, stream: u32, path: &str, headers: &[(&str, &str)]) -> bool {
        let of_grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        self.post(stream, path, &[&of_grpc, headers].concat())
    }

    /// Begins a request that has a [`Http2::body`].
    pub fn post(&mut self, stream: u32, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut block = block(METHOD_POST, path);
        for (name, value) in headers {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("a short header"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &block)
    }

    /// Sends the whole body of a request as the other side takes it; false if that has had enough.
    pub fn body(&mut self, stream: u32, mut body: &[u8]) -> bool {
        loop {
            let Some(room) = self.await_room(stream) else { return false };
            let (part, rest) = body.split_at(body.len().min(room).min(FRAME_BYTES_MAX));
            *self.room.streams.entry(stream).or_default() -= part.len() as i64;
            self.room.connection -= part.len() as i64;
            let flags = if rest.is_empty() { END_STREAM } else { 0 };
            if !self.send(DATA, flags, stream, part) || rest.is_empty() {
                return rest.is_empty();
            }
            body = rest;
        }
    }

    /// How much of a body may be sent, once that is something; `None` if the stream has ended, or the connection has.
    fn await_room(&mut self, stream: u32) -> Option<usize> {
        loop {
            let more = self.room.streams.get(&stream).copied().unwrap_or(0);
            let room = self.room.connection.min(self.room.initial + more);
            if room > 0 {
                return usize::try_from(room).ok();
            }
            let frame = self.any_frame()?;
            let Some(frame) = self.take_note(frame) else { continue };
            let ends = frame.stream == stream && (frame.kind == RST_STREAM || frame.is_last());
            self.early.push_back(frame);
            if ends {
                return None;
            }
        }
    }

    /// Begins a head that goes on in [`CONTINUATION`]s.
    pub fn begin_head(&mut self, stream: u32) -> bool {
        // `:method GET`, `:scheme http` and `:path /`.
        self.send(HEADERS, END_STREAM, stream, &[0x82, 0x86, 0x84])
    }

    /// Takes a stream back.
    pub fn reset(&mut self, stream: u32) -> bool {
        self.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
    }

    /// Takes so many more bytes of responses: of one, or of all with the stream 0.
    pub fn take(&mut self, stream: u32, bytes: u32) -> bool {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    /// Asks whether the other side is there, which keeps a connection busy.
    pub fn ping(&mut self) -> bool {
        self.send(PING, 0, 0, &[7; 8])
    }

    /// The next frame that means something here: settings and pings are answered. `None` if the connection ends.
    pub fn frame(&mut self) -> Option<Frame> {
        match self.early.pop_front() {
            Some(frame) => Some(frame),
            None => self.next_frame(),
        }
    }

    /// What comes within some time.
    pub fn frame_within(&mut self, patience: Duration) -> Came {
        let until = Instant::now() + patience;
        if let Some(frame) = self.early.pop_front() {
            return Came::Frame(frame);
        }
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a timeout can be set");
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            match peeked {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Came::Nothing;
                }
                _ => {}
            }
            let Some(frame) = self.any_frame() else { return Came::End };
            if let Some(frame) = self.take_note(frame) {
                return Came::Frame(frame);
            }
        }
    }

    fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any_frame()?;
            if let Some(frame) = self.take_note(frame) {
                return Some(frame);
            }
        }
    }

    /// Does what a frame asks for; `None` if that is all.
    fn take_note(&mut self, frame: Frame) -> Option<Frame> {
        match (frame.kind, frame.flags & ACK) {
            (SETTINGS, 0) => {
                self.heed(&frame.payload);
                self.send(SETTINGS, ACK, 0, &[]);
            }
            (PING, 0) => drop(self.send(PING, ACK, 0, &frame.payload)),
            (HEADERS | DATA | RST_STREAM | GOAWAY, _) => return Some(frame),
            (WINDOW_UPDATE, _) => {
                let more: i64 = u32::from_be_bytes(frame.payload[..4].try_into().expect("4 bytes")).into();
                match frame.stream {
                    0 => self.room.connection += more,
                    stream => *self.room.streams.entry(stream).or_default() += more,
                }
            }
            _ => {}
        }
        None
    }

    /// Heeds the other side's settings.
    fn heed(&mut self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                self.room.initial = u32::from_be_bytes(setting[2..].try_into().expect("4 bytes")).into();
            }
        }
    }

    /// The other side sends the client away, whatever it says before.
    pub fn await_goaway(&mut self) {
        while self.frame().is_some_and(|frame| frame.kind != GOAWAY) {}
    }

    /// The body of the response on a stream whose status is 200.
    pub fn response(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.frame().expect("a response");
            match frame.kind {
                // The first field is the status: 200 has an index of its own.
                HEADERS if frame.stream == stream => assert_eq!(frame.payload[0], 0x88, "the status is 200"),
                DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => panic!("not expected: {frame:?}"),
            }
            if frame.is_last() {
                return body;
            }
        }
    }

    fn any_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.read(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("nothing came within {PATIENCE:?}: {error}"),
        }
    }
}

/// The fields of a request for a path.
pub fn get_block(path: &str) -> Vec<u8> {
    block(METHOD_GET, path)
}

/// The fields that each request has: `:method` and `:scheme http` of the static table, `:path` and `:authority` literally
/// (RFC 7541).
fn block(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 4]);
    block.extend_from_slice(b"test");
    block
}

/// A message of gRPC as it goes into a body.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0][..], &length, message].concat()
}
