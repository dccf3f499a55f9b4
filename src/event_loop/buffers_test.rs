use std::io::{self, Read, Write};

use super::{Appetite, Flushed, Input, Output, Received, SCRATCH_BYTES};

/// Hands out the given pieces one per read, then would block, or reports the end.
struct Pieces {
    pieces: Vec<Vec<u8>>,
    then_closed: bool,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.first_mut() else {
            return if self.then_closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        };
        let got = piece.len().min(into.len());
        into[..got].copy_from_slice(&piece[..got]);
        piece.drain(..got);
        if piece.is_empty() {
            self.pieces.remove(0);
        }
        Ok(got)
    }
}

/// Takes whole messages of `length` bytes.
fn take_messages(length: usize, got: &mut Vec<Vec<u8>>) -> impl FnMut(&[u8]) -> Result<(usize, Appetite), io::Error> {
    move |bytes| {
        let whole = bytes.len() / length * length;
        got.extend(bytes[..whole].chunks(length).map(<[u8]>::to_vec));
        Ok((whole, Appetite::Hungry))
    }
}

fn receive_all(length: usize, pieces: Vec<Vec<u8>>, scratch_bytes: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut input = Input::default();
    let mut scratch = vec![0; scratch_bytes];
    let mut stream = Pieces { pieces, then_closed: true };
    loop {
        match input.receive(&mut stream, &mut scratch, false, take_messages(length, &mut got)).expect("receive") {
            Received::Closed => return got,
            Received::Drained | Received::More => {}
        }
    }
}

#[test]
fn any_split_gives_the_same_messages() {
    let stream: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    let want: Vec<Vec<u8>> = stream.chunks(10).map(<[u8]>::to_vec).collect();
    for piece in [1, 3, 7, 10, 11, 64, 999, 1_000] {
        for scratch in [16, 64, 4_096] {
            let pieces = stream.chunks(piece).map(<[u8]>::to_vec).collect();
            assert_eq!(receive_all(10, pieces, scratch), want, "pieces of {piece}, scratch of {scratch}");
        }
    }
}

#[test]
fn a_message_longer_than_the_scratch_buffer_arrives_whole() {
    let message: Vec<u8> = (0..=255).cycle().take(700_000).collect();
    let pieces = message.chunks(50_000).map(<[u8]>::to_vec).collect();
    assert_eq!(receive_all(700_000, pieces, 4_096), [message]);
}

#[test]
fn a_full_taker_leaves_the_rest_for_later() {
    let mut input = Input::default();
    let mut scratch = vec![0; 64];
    let mut stream = Pieces { pieces: vec![b"abcdef".to_vec()], then_closed: false };
    let full = |_: &[u8]| Ok::<_, io::Error>((2, Appetite::Full));
    assert_eq!(input.receive(&mut stream, &mut scratch, false, full).expect("receive"), Received::More);
    assert_eq!(input.kept_bytes(), 4);
    let mut rest = Vec::new();
    let all = |bytes: &[u8]| {
        rest.extend_from_slice(bytes);
        Ok::<_, io::Error>((bytes.len(), Appetite::Hungry))
    };
    assert_eq!(input.receive(&mut stream, &mut scratch, false, all).expect("receive"), Received::Drained);
    assert_eq!(rest, b"cdef");
}

#[test]
fn a_known_end_is_read_up_to() {
    let mut input = Input::default();
    let mut scratch = vec![0; 64];
    let mut got = Vec::new();
    let mut stream = Pieces { pieces: vec![b"ab".to_vec()], then_closed: true };
    let outcome = input.receive(&mut stream, &mut scratch, true, take_messages(1, &mut got)).expect("receive");
    assert_eq!((outcome, got.len()), (Received::Closed, 2));
}

/// Accepts `room` bytes in all, then would block.
struct Narrow {
    taken: Vec<u8>,
    room: usize,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wrote = bytes.len().min(self.room - self.taken.len());
        if wrote == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.taken.extend_from_slice(&bytes[..wrote]);
        Ok(wrote)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_goes_out_in_order_through_a_narrow_socket() {
    let message: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut output = Output::default();
    let mut socket = Narrow { taken: Vec::new(), room: 0 };
    for piece in message.chunks(30_000) {
        output.buffer().extend_from_slice(piece);
        socket.room += 25_000;
        assert_eq!(output.flush(&mut socket).expect("flush"), Flushed::Blocked);
    }
    assert_eq!(output.waiting_bytes(), 50_000);
    socket.room = usize::MAX;
    assert_eq!(output.flush(&mut socket).expect("flush"), Flushed::Empty);
    assert!(socket.taken == message);
}

// museum 18
#[test]
fn large_buffers_are_given_back() {
    const LARGE: usize = 10 << 20;
    const KEPT_MAX: usize = 1 << 20;
    let mut output = Output::default();
    output.buffer().resize(LARGE, 7);
    assert_eq!(output.flush(&mut Vec::new()).expect("a vector takes all"), Flushed::Empty);
    assert!(output.buffer().capacity() <= KEPT_MAX, "{}", output.buffer().capacity());

    let mut input = Input::default();
    let message = vec![7; LARGE];
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut stream = &message[..];
    while !stream.is_empty() {
        let whole = |bytes: &[u8]| -> Result<(usize, Appetite), io::Error> {
            Ok((if bytes.len() == LARGE { LARGE } else { 0 }, Appetite::Hungry))
        };
        input.receive(&mut stream, &mut scratch, false, whole).expect("a slice can be read");
    }
    assert_eq!(input.kept_bytes(), 0);
    assert!(input.into_bytes().capacity() <= KEPT_MAX);
}
