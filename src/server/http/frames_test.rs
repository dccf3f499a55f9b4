use super::frames::{Ends, Heads};
use super::serve::PREFACE;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(kind, 0, payload)
}

fn frame_with(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[test]
fn ends_of_streams_and_connections_are_seen_however_the_bytes_go() {
    let long = vec![3; 70_000];
    let sent = [
        frame(4, &[]),
        frame(3, &7_u32.to_be_bytes()),
        frame(0, &long),
        frame(3, &8_u32.to_be_bytes()),
        frame(7, &[&[0, 0, 0, 9, 0, 0, 0, 11][..], b"too_many_resets"].concat()),
        frame(1, &[3, 3, 3, 3]),
        frame(7, &[0, 0, 0, 9, 0, 0, 0, 0]),
        // Too short for a reason: nobody sends that, but it may come.
        frame(3, &[0, 0]),
        frame(3, &[]),
        frame(7, &[0, 0, 0, 9]),
        frame(3, &5_u32.to_be_bytes()),
    ]
    .concat();
    for piece in [1, 2, 3, 5, 8, 13, 4_096, sent.len()] {
        let (mut ends, mut seen) = (Ends::default(), Vec::new());
        for bytes in sent.chunks(piece) {
            ends.follow(bytes, |kind, reason| seen.push((kind, reason)));
        }
        assert_eq!(seen, [(3, 7), (3, 8), (7, 11), (7, 0), (3, 5)], "{piece} bytes at a time");
    }
}

#[test]
fn a_head_is_open_from_its_type_to_its_last_byte() {
    let (headers, continuation, end_headers) = (1, 9, 4);
    // Each piece, and whether a head is open behind it and whether one has ended with it.
    let pieces = [
        (PREFACE[..7].to_vec(), false, false),
        (PREFACE[7..].to_vec(), false, false),
        (frame(4, &[0; 12]), false, false),
        (frame_with(headers, end_headers, &[1, 2, 3]), false, true),
        (frame_with(headers, end_headers, &[]), false, true),
        (frame_with(headers, end_headers, &[1; 40])[..3].to_vec(), false, false),
        (frame_with(headers, end_headers, &[1; 40])[3..4].to_vec(), true, false),
        (frame_with(headers, end_headers, &[1; 40])[4..48].to_vec(), true, false),
        (vec![1], false, true),
        (frame(headers, &[1; 5]), true, false),
        (frame(continuation, &[]), true, false),
        (frame_with(continuation, end_headers, &[1])[..9].to_vec(), true, false),
        // Its end and the beginning of the next.
        ([&[1], &frame(headers, &[1])[..]].concat(), true, true),
        (frame_with(continuation, end_headers, &[1]), false, true),
        (frame_with(0, end_headers, &[9; 100]), false, false),
        ([frame(3, &[0, 0]), frame(3, &[0; 4]), frame_with(headers, end_headers, &[1])].concat(), false, true),
    ];
    let mut heads = Heads::default();
    for (n, (bytes, is_open, has_ended)) in pieces.iter().enumerate() {
        assert_eq!(heads.follow(bytes), *has_ended, "piece {n}");
        assert_eq!(heads.is_open(), *is_open, "piece {n}");
    }
    let mut heads = Heads::default();
    let ended = pieces.iter().flat_map(|(bytes, ..)| bytes).filter(|byte| heads.follow(&[**byte])).count();
    assert_eq!((ended, heads.is_open()), (6, false), "byte by byte");
}
