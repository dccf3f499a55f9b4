//! The bytes between a non-blocking socket and the frames on it.

use std::io::{self, ErrorKind::Interrupted, ErrorKind::WouldBlock, Read, Write};

/// Free space that a read should find at least, and the size to which an empty buffer shrinks.
const READ_BYTES_MIN: usize = 16 << 10;
const IDLE_BYTES_MAX: usize = 256 << 10;

/// Bytes read and not yet parsed. Grows to the largest frame on the connection, whose length the parser bounds.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// All of it initialised; `start..end` is unread.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How much of the stream was read, in all.
    received: u64,
}

impl ReadBuffer {
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > IDLE_BYTES_MAX {
                self.bytes = Vec::new();
            }
        }
    }

    /// Reads once.
    pub(super) fn fill_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let read = source.read(&mut self.bytes[self.end..])?;
        self.end += read;
        self.received += read as u64;
        Ok(read)
    }

    fn make_room(&mut self) {
        if self.bytes.len() - self.end >= READ_BYTES_MIN {
            return;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() - self.end < READ_BYTES_MIN {
            let grown = (2 * self.bytes.len()).max(4 * READ_BYTES_MIN);
            self.bytes.resize(grown, 0);
        }
    }
}

/// Bytes encoded and not yet written.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    bytes: Vec<u8>,
    /// How much of `bytes` is written.
    start: usize,
    /// How much of the stream is written, in all.
    written: u64,
}

impl WriteBuffer {
    /// Adds what `encode` appends; returns the position in the stream at which it ends.
    pub(super) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> u64 {
        encode(&mut self.bytes);
        self.written + self.unwritten() as u64
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes until nothing is left (`true`) or the sink takes no more for now.
    pub(super) fn drain_to(&mut self, sink: &mut impl Write) -> io::Result<bool> {
        while self.start < self.bytes.len() {
            match sink.write(&self.bytes[self.start..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.start += written;
                    self.written += written as u64;
                }
                Err(error) if error.kind() == WouldBlock => {
                    self.forget_written();
                    return Ok(false);
                }
                Err(error) if error.kind() == Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.forget_written();
        Ok(true)
    }

    pub(super) fn unwritten(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn forget_written(&mut self) {
        // Moving the rest down costs its length: worth it only once as much is gone.
        if self.start < self.unwritten() {
            return;
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > IDLE_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}
