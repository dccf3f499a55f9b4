//! Properties of every message: it survives the wire, however the stream is cut into reads.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use raftkv_protocol::frame::{self, PEER_FRAME_MAX};

use crate::message::{AnyMessage, open};
use crate::strategies::message;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_encoded_is_decoded(message in message()) {
        let bytes = message.frame();
        let (kind, payload) = open(&bytes);
        prop_assert_eq!(AnyMessage::decode(kind, payload), Ok(message));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_split_of_a_stream_into_reads_parses_the_same(
        messages in vec(message(), 1..8),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(AnyMessage::frame).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();

        let mut buffer = Vec::new();
        let mut read = 0;
        let mut parsed = 0;
        for cut in cuts {
            buffer.extend_from_slice(&stream[read..cut]);
            read = cut;
            let mut consumed = 0;
            while let Some(frame) = frame::parse(&buffer[consumed..], PEER_FRAME_MAX).expect("a valid stream") {
                let decoded = AnyMessage::decode(frame.kind, frame.payload).expect("a valid message");
                prop_assert_eq!(&decoded, &messages[parsed]);
                parsed += 1;
                consumed += frame.consumed;
            }
            buffer.drain(..consumed);
        }
        prop_assert_eq!(parsed, messages.len());
        prop_assert!(buffer.is_empty());
    }
}
