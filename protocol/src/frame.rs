//! The envelope of every message: length, checksum, kind, payload.
//!
//! ```text
//! offset  size  field
//!      0     4  length: how many bytes follow this field (crc, kind and payload: at least 5)
//!      4     4  crc: CRC-32 (IEEE) over the 4 length bytes, then the kind and the payload
//!      8     1  kind: see `kind`
//!      9     …  payload
//! ```
//!
//! All numbers are little-endian. The length is inside the checksum, so that a damaged one is noticed even when it
//! still lies within the cap. This module knows no message.

use std::fmt;

use byteorder::{ByteOrder, LE};

/// The largest frame a client may send, in bytes, header included.
pub const CLIENT_FRAME_MAX: usize = 1536 * 1024;
/// The largest frame a peer may send, in bytes, header included.
pub const PEER_FRAME_MAX: usize = 8 * 1024 * 1024;
/// Bytes before the payload: length (u32), crc (u32), kind (u8).
pub const HEADER_LEN: usize = KIND_AT + 1;

/// The length field's own size, which the length does not count.
const LENGTH_LEN: usize = 4;
const CRC_AT: usize = LENGTH_LEN;
const KIND_AT: usize = CRC_AT + 4;

/// A whole frame inside a read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which message the payload holds.
    pub kind: u8,
    /// The message's bytes.
    pub payload: &'a [u8],
    /// How many bytes of the buffer the frame took.
    pub consumed: usize,
}

/// Why bytes are not a frame. The stream cannot be followed any further: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The announced length is over the cap (or below the header's).
    Length {
        /// The announced length of the whole frame.
        announced: u64,
        /// The largest that is accepted here.
        max: usize,
    },
    /// The checksum does not match.
    Checksum,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Length { announced, max } => {
                write!(f, "a frame of {announced} bytes was announced, allowed are {HEADER_LEN} to {max}")
            }
            FrameError::Checksum => f.write_str("a frame's checksum does not match"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Finds the frame at the start of `buffer`. `Ok(None)` means that more bytes are needed.
///
/// A length out of bounds is refused as soon as its 4 bytes are there, before anybody waits or makes room for the rest.
pub fn parse(buffer: &[u8], max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    if buffer.len() < LENGTH_LEN {
        return Ok(None);
    }
    let announced = u64::from(LE::read_u32(buffer)) + LENGTH_LEN as u64;
    if announced < HEADER_LEN as u64 || announced > max as u64 {
        return Err(FrameError::Length { announced, max });
    }
    if announced > buffer.len() as u64 {
        return Ok(None);
    }
    let consumed = announced as usize;
    let frame = &buffer[..consumed];
    if LE::read_u32(&frame[CRC_AT..]) != checksum(frame) {
        return Err(FrameError::Checksum);
    }
    Ok(Some(Frame { kind: frame[KIND_AT], payload: &frame[HEADER_LEN..], consumed }))
}

/// Appends one frame to `out`; `payload` writes the message's bytes after the header. Allocates only if `out` has to grow.
///
/// # Panics
///
/// If the payload has 4 GiB or more, far above either cap.
pub fn write(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, kind]);
    payload(out);
    let frame = &mut out[start..];
    let length = u32::try_from(frame.len() - LENGTH_LEN).expect("messages are limited far below 4 GiB");
    LE::write_u32(frame, length);
    let crc = checksum(frame);
    LE::write_u32(&mut frame[CRC_AT..], crc);
}

/// The checksum of a whole frame, whatever its crc field holds.
fn checksum(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..LENGTH_LEN]);
    crc.update(&frame[KIND_AT..]);
    crc.finalize()
}

/// Why a frame's payload is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame's kind is not known here.
    Kind(u8),
    /// The payload ends inside a field, whose name is given.
    Truncated(&'static str),
    /// A field holds a value that it cannot have.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Kind(kind) => write!(f, "frame kind {kind:#04x} is not known here"),
            DecodeError::Truncated(field) => write!(f, "the message ends inside its field {field:?}"),
            DecodeError::Invalid(field) => write!(f, "the message's field {field:?} has an impossible value"),
        }
    }
}

impl std::error::Error for DecodeError {}
