//! The bytes of one connection on their way in and out.
//!
//! Input is read into a scratch buffer that all connections of a core share and looked at in place; only the start of
//! an incomplete message is kept per connection. Output gathers during a turn and leaves with one write.

use std::io::{self, ErrorKind, Read, Write};

/// The size of a core's shared read buffer.
pub const SCRATCH_BYTES: usize = 256 << 10;
/// How much a connection may read in one turn before the others have theirs.
const TURN_BYTES_MAX: usize = 4 * SCRATCH_BYTES;
/// How far a kept buffer grows ahead of what has arrived.
const GROWTH_BYTES: usize = 64 << 10;
/// Empty buffers above this size are given back.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// How a look at a connection's input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Everything that had arrived was read.
    Drained,
    /// There may be more: the turn's share is used up, or the reader took nothing of it.
    More,
    /// The remote side has closed; everything before that was read.
    Closed,
}

/// What has arrived and was not consumed yet.
#[derive(Debug, Default)]
pub struct Input {
    kept: Vec<u8>,
}

impl Input {
    /// An input that begins with these bytes, which were read elsewhere.
    #[must_use]
    pub fn with(bytes: Vec<u8>) -> Input {
        Input { kept: bytes }
    }

    /// What is kept.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.kept
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept.len()
    }

    /// Reads until the socket is empty. `take` sees all bytes that are there, kept ones first, and says how many it
    /// consumed and whether it wants more; an error of either side ends it.
    ///
    /// `known_closed` tells that the poll has reported the end of the stream, which a short read alone does not show.
    pub fn receive<E: From<io::Error>>(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        known_closed: bool,
        take: impl FnMut(&[u8]) -> Result<(usize, Appetite), E>,
    ) -> Result<Received, E> {
        self.receive_some(stream, scratch, known_closed, TURN_BYTES_MAX, take)
    }

    /// The same, but ends after so many bytes or a little more.
    pub fn receive_some<E: From<io::Error>>(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        known_closed: bool,
        bytes_max: usize,
        mut take: impl FnMut(&[u8]) -> Result<(usize, Appetite), E>,
    ) -> Result<Received, E> {
        if !self.kept.is_empty() {
            let (consumed, appetite) = take(&self.kept)?;
            self.kept.drain(..consumed);
            if appetite == Appetite::Full {
                return Ok(Received::More);
            }
        }
        let mut taken_total = 0;
        while taken_total < bytes_max {
            let (got, asked, appetite) = match self.read_once(stream, scratch, &mut take) {
                Ok(progress) => progress,
                Err(ReadFailure::WouldBlock) => return Ok(Received::Drained),
                Err(ReadFailure::Closed) => return Ok(Received::Closed),
                Err(ReadFailure::Taker(error)) => return Err(error),
            };
            if appetite == Appetite::Full {
                return Ok(Received::More);
            }
            if got < asked && !known_closed {
                return Ok(Received::Drained);
            }
            taken_total += got;
        }
        Ok(Received::More)
    }

    fn read_once<E: From<io::Error>>(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> Result<(usize, Appetite), E>,
    ) -> Result<(usize, usize, Appetite), ReadFailure<E>> {
        if self.kept.is_empty() {
            let got = read_some(stream, scratch)?;
            let (consumed, appetite) = take(&scratch[..got]).map_err(ReadFailure::Taker)?;
            self.kept.extend_from_slice(&scratch[consumed..got]);
            return Ok((got, scratch.len(), appetite));
        }
        // A long message: its rest is read behind its start, without passing through the scratch buffer.
        let before = self.kept.len();
        self.kept.resize(before + GROWTH_BYTES.max(before.min(scratch.len())), 0);
        let asked = self.kept.len() - before;
        let got = match read_some(stream, &mut self.kept[before..]) {
            Ok(got) => got,
            Err(failure) => {
                self.kept.truncate(before);
                return Err(failure);
            }
        };
        self.kept.truncate(before + got);
        let (consumed, appetite) = take(&self.kept).map_err(ReadFailure::Taker)?;
        self.kept.drain(..consumed);
        if self.kept.is_empty() && self.kept.capacity() > KEPT_BYTES_MAX {
            self.kept = Vec::new();
        }
        Ok((got, asked, appetite))
    }
}

/// Whether whoever takes the input wants more of it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Go on.
    Hungry,
    /// Not now: what is left stays where it is.
    Full,
}

enum ReadFailure<E> {
    WouldBlock,
    Closed,
    Taker(E),
}

fn read_some<E: From<io::Error>>(stream: &mut impl Read, into: &mut [u8]) -> Result<usize, ReadFailure<E>> {
    loop {
        match stream.read(into) {
            Ok(0) => return Err(ReadFailure::Closed),
            Ok(got) => return Ok(got),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ReadFailure::WouldBlock),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadFailure::Taker(error.into())),
        }
    }
}

/// Whether output is left after a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All of it was taken by the socket.
    Empty,
    /// The socket is full; it will become writable.
    Blocked,
}

/// What has to go out.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// Where to append.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How many bytes wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// What waits.
    #[must_use]
    pub fn into_unsent(mut self) -> Vec<u8> {
        self.bytes.drain(..self.sent);
        self.bytes
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self, stream: &mut impl Write) -> io::Result<Flushed> {
        while self.sent < self.bytes.len() {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(wrote) => self.sent += wrote,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.forget_sent();
                    return Ok(Flushed::Blocked);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes.shrink_to(KEPT_BYTES_MAX);
        }
        Ok(Flushed::Empty)
    }

    /// Moves the waiting bytes to the front once more than half of the buffer is sent.
    fn forget_sent(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}
