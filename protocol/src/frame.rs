//! The envelope of every message: length, checksum, kind, payload.

/// The largest frame a client may send, in bytes, header included.
pub const CLIENT_FRAME_MAX: usize = 1536 * 1024;
/// The largest frame a peer may send, in bytes, header included.
pub const PEER_FRAME_MAX: usize = 8 * 1024 * 1024;
/// Bytes before the payload: length (u32), crc (u32), kind (u8).
pub const HEADER_LEN: usize = 9;

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

/// Finds the frame at the start of `buffer`. `Ok(None)` means that more bytes are needed.
pub fn parse(buffer: &[u8], max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let _ = (buffer, max);
    unimplemented!()
}

/// Appends one frame to `out`; `payload` writes the message's bytes after the header.
pub fn write(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let _ = (out, kind);
    let _ = payload;
    unimplemented!()
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
