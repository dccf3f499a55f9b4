//! Just enough of HTTP/2 (RFC 9113) to ask a server with prior knowledge, and to misbehave towards it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::wait::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    stream: TcpStream,
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

impl Http2 {
    /// Connects and greets.
    pub fn connect(address: SocketAddr) -> Http2 {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut http = Http2 { stream };
        http.stream.write_all(PREFACE).expect("sent");
        assert!(http.send(SETTINGS, 0, 0, &[]), "sent");
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
        // RFC 7541: `:method GET` and `:scheme http` of the static table, `:path` and `:authority` literally.
        let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(&[0x01, 4]);
        block.extend_from_slice(b"test");
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    }

    /// Takes a stream back.
    pub fn reset(&mut self, stream: u32) -> bool {
        self.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
    }

    /// The next frame that means something here: settings and pings are answered. `None` if the connection ends.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any_frame()?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => drop(self.send(SETTINGS, ACK, 0, &[])),
                (PING, 0) => drop(self.send(PING, ACK, 0, &frame.payload)),
                (HEADERS | DATA | RST_STREAM | GOAWAY, _) => return Some(frame),
                _ => {}
            }
        }
    }

    /// The body of the response on a stream whose status is 200.
    pub fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.frame().expect("a response");
            match frame.kind {
                // The first field is the status: 200 has an index of its own.
                HEADERS if frame.stream == stream => assert_eq!(frame.payload[0], 0x88, "the status is 200"),
                DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => panic!("not expected: {frame:?}"),
            }
            if frame.flags & END_STREAM != 0 {
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
