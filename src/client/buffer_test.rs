use std::io::{self, ErrorKind, Read, Write};

use proptest::prelude::*;

use super::buffer::{ReadBuffer, WriteBuffer};

/// Gives and takes pieces of these sizes, over and over.
struct Pieces<'a> {
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    bytes: Vec<u8>,
    at: usize,
}

impl<'a> Pieces<'a> {
    fn new(sizes: &'a [usize], bytes: Vec<u8>) -> Pieces<'a> {
        Pieces { sizes: sizes.iter().cycle(), bytes, at: 0 }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let size = (*self.sizes.next().unwrap()).min(out.len()).min(self.bytes.len() - self.at);
        out[..size].copy_from_slice(&self.bytes[self.at..self.at + size]);
        self.at += size;
        Ok(size)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Size 0 stands for a full socket.
        match (*self.sizes.next().unwrap()).min(bytes.len()) {
            0 => Err(ErrorKind::WouldBlock.into()),
            size => {
                self.bytes.extend_from_slice(&bytes[..size]);
                Ok(size)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stream(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_in_any_pieces_and_consumed_in_any_is_the_stream(
        read in prop::collection::vec(1..40_000_usize, 1..6),
        consume in prop::collection::vec(1..60_000_usize, 1..6),
    ) {
        let sent = stream(400_000);
        let mut source = Pieces::new(&read, sent.clone());
        let mut buffer = ReadBuffer::default();
        let mut wanted = consume.iter().cycle();
        let mut want = *wanted.next().unwrap();
        let mut received = Vec::new();
        while buffer.fill_from(&mut source).unwrap() > 0 {
            while buffer.unread().len() >= want {
                received.extend_from_slice(&buffer.unread()[..want]);
                buffer.consume(want);
                want = *wanted.next().unwrap();
            }
        }
        received.extend_from_slice(buffer.unread());
        prop_assert!(received == sent);
    }

    #[test]
    fn what_is_written_in_any_pieces_is_the_stream(
        append in prop::collection::vec(1..40_000_usize, 1..20),
        write in prop::collection::vec(1..30_000_usize, 1..6),
    ) {
        // A full socket after every piece.
        let sizes: Vec<usize> = write.iter().flat_map(|size| [*size, 0]).collect();
        let mut sink = Pieces::new(&sizes, Vec::new());
        let mut buffer = WriteBuffer::default();
        let sent = stream(append.iter().sum());
        let mut at = 0;
        for length in append {
            let end = buffer.append(|out| out.extend_from_slice(&sent[at..at + length]));
            at += length;
            prop_assert_eq!(end, at as u64);
            let empty = buffer.drain_to(&mut sink).unwrap();
            prop_assert_eq!(empty, buffer.unwritten() == 0);
            prop_assert_eq!(buffer.written(), sink.bytes.len() as u64);
            prop_assert_eq!(sink.bytes.len() + buffer.unwritten(), at);
        }
        while !buffer.drain_to(&mut sink).unwrap() {}
        prop_assert!(sink.bytes == sent);
    }
}
