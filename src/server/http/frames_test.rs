use super::frames::Frames;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
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
    ]
    .concat();
    for piece in [1, 2, 3, 5, 8, 13, 4_096, sent.len()] {
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for bytes in sent.chunks(piece) {
            frames.follow(bytes, |kind, reason| seen.push((kind, reason)));
        }
        assert_eq!(seen, [(3, 7), (3, 8), (7, 11), (7, 0)], "{piece} bytes at a time");
    }
}
