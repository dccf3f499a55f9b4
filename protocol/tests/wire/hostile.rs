//! Bytes that nobody honest sends: they never panic, and never allocate more than a small multiple of what arrived.

use std::hint::black_box;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX, DecodeError, FrameError, HEADER_LEN, PEER_FRAME_MAX};
use raftkv_protocol::kind;
use raftkv_protocol::peer::{ChunkResult, PeerFrame, SNAPSHOT_CHUNK_MAX, SnapshotChunk};
use raftkv_protocol::types::{ShardId, SnapshotId};

use crate::counting_allocator::allocated_bytes;
use crate::message::{AnyMessage, open};
use crate::samples;
use crate::strategies::message;

/// The greediest element is an append's empty entry: 13 bytes on the wire, 56 in memory, and one copy of the block.
const FACTOR: usize = 6;
/// One boxed status and the header of a shared block.
const CONSTANT: usize = 512;

/// Decodes and checks what that allocated.
fn decode_within_bounds(kind: u8, payload: &[u8]) {
    let allocated = allocated_bytes(|| {
        let _ = black_box(AnyMessage::decode(kind, payload));
    });
    let allowed = FACTOR * payload.len() + CONSTANT;
    assert!(allocated <= allowed, "kind {kind:#04x}: {allocated} bytes for a payload of {}", payload.len());
}

fn known_kind() -> impl Strategy<Value = u8> {
    select(kind::ALL.map(|(kind, _)| kind).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn random_payloads_do_no_harm(kind in prop_oneof![4 => known_kind(), 1 => any::<u8>()], payload in vec(any::<u8>(), 0..300)) {
        decode_within_bounds(kind, &payload);
    }

    #[test]
    fn random_streams_do_no_harm(mut stream in vec(any::<u8>(), 0..64), length in 0..80_u32) {
        let _ = frame::parse(&stream, CLIENT_FRAME_MAX);
        if let Some(field) = stream.first_chunk_mut() {
            *field = length.to_le_bytes();
        }
        let _ = frame::parse(&stream, CLIENT_FRAME_MAX);
    }

    #[test]
    fn damaged_messages_do_no_harm(
        message in message(),
        damage in vec((any::<Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..5),
        kept in any::<Index>(),
    ) {
        let bytes = message.frame();
        let (kind, payload) = open(&bytes);
        let mut damaged = payload.to_vec();
        if !damaged.is_empty() {
            for (at, byte) in damage {
                let at = at.index(damaged.len());
                damaged[at] = byte;
            }
        }
        decode_within_bounds(kind, &damaged);
        decode_within_bounds(kind, &damaged[..kept.index(damaged.len() + 1)]);
    }
}

#[test]
fn a_message_that_ends_early_is_truncated_wherever_it_ends() {
    for (name, message) in samples::all() {
        let bytes = message.frame();
        let (kind, payload) = open(&bytes);
        // There a message may end: what follows was added later, or is left out. Of a status: six holds of 33 bytes, of which one has eight bytes of words.
        let (health, holds) = (9, 4 + 6 * 33 + 8);
        let later: &[usize] = match name.as_str() {
            "status_reply_gray" | "status_reply_repairing" => &[health],
            "heartbeat_lease" => &[8],
            "heartbeat_reply_promise" => &[16],
            "status_reply_held" => &[holds, health + holds],
            _ => &[],
        };
        for len in (0..payload.len()).filter(|len| !later.contains(&(payload.len() - len))) {
            let decoded = AnyMessage::decode(kind, &payload[..len]);
            assert!(matches!(decoded, Err(DecodeError::Truncated(_))), "{name} cut to {len} bytes: {decoded:?}");
        }
    }
}

#[test]
fn no_flipped_bit_of_a_frame_goes_unnoticed() {
    for (name, message) in samples::all() {
        let frame = message.frame();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let parsed = frame::parse(&damaged, PEER_FRAME_MAX);
            assert!(!matches!(parsed, Ok(Some(_))), "{name}: bit {bit}");
        }
    }
}

/// Messages that end with the count of an empty list: whatever follows is taken for its elements.
fn messages_ending_with_a_count() -> impl Iterator<Item = (String, AnyMessage<'static>)> {
    let names = ["batch_empty", "scan_reply_empty", "append_probe", "checkpoints_none"];
    samples::all().into_iter().filter(move |(name, _)| names.contains(&name.as_str()))
}

// museum 50
#[test]
fn a_count_is_not_believed_before_its_elements_arrived() {
    for (name, message) in messages_ending_with_a_count() {
        let mut bytes = message.frame();
        let count_at = bytes.len() - 4;
        for count in [1, u32::MAX / 56, u32::MAX] {
            bytes[count_at..].copy_from_slice(&count.to_le_bytes());
            let decoded = AnyMessage::decode(bytes[8], &bytes[HEADER_LEN..]);
            assert!(matches!(decoded, Err(DecodeError::Truncated(_))), "{name}: {decoded:?}");
            decode_within_bounds(bytes[8], &bytes[HEADER_LEN..]);
        }
    }
}

#[test]
fn the_greediest_lists_stay_within_the_bound() {
    for (_, message) in messages_ending_with_a_count() {
        let mut bytes = message.frame();
        let count_at = bytes.len() - 4;
        bytes.resize(bytes.len() + 14_000, 0);
        for element_len in [13, 14] {
            let count: u32 = 14_000 / element_len;
            bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
            decode_within_bounds(bytes[8], &bytes[HEADER_LEN..]);
        }
    }
}

// museum 50
#[test]
fn the_longest_piece_of_a_snapshot_fits_into_a_frame_and_is_not_copied() {
    let bytes = vec![7; SNAPSHOT_CHUNK_MAX];
    let result = ChunkResult::Ok { total: u64::MAX, bytes: &bytes };
    let chunk = SnapshotChunk { shard: ShardId(1), id: SnapshotId(2), offset: 3, result };
    let frame = AnyMessage::Peer(PeerFrame::SnapshotChunk(chunk)).frame();
    let (kind, payload) = open(&frame);
    let allocated = allocated_bytes(|| assert!(AnyMessage::decode(kind, payload).is_ok()));
    assert_eq!(allocated, 0);
}

#[test]
fn no_field_can_be_blown_up() {
    for (_, message) in samples::all() {
        let bytes = message.frame();
        let (kind, payload) = open(&bytes);
        for at in 0..payload.len().saturating_sub(3) {
            let mut greedy = payload.to_vec();
            greedy[at..at + 4].fill(0xff);
            decode_within_bounds(kind, &greedy);
        }
    }
}

// museum 50
#[test]
fn an_announced_length_is_judged_as_soon_as_it_is_there() {
    let announce = |length: u32, max| frame::parse(&length.to_le_bytes(), max).map(|frame| assert_eq!(frame, None));
    for max in [CLIENT_FRAME_MAX, PEER_FRAME_MAX] {
        let longest = max as u32 - 4;
        assert_eq!(announce(longest - 1, max), Ok(()));
        assert_eq!(announce(longest, max), Ok(()));
        assert_eq!(announce(longest + 1, max), Err(FrameError::Length { announced: max as u64 + 1, max }));
        assert_eq!(announce(u32::MAX, max), Err(FrameError::Length { announced: (1 << 32) + 3, max }));
        assert_eq!(announce(5, max), Ok(()));
        assert_eq!(announce(4, max), Err(FrameError::Length { announced: 8, max }));
        assert_eq!(announce(0, max), Err(FrameError::Length { announced: 4, max }));
    }
    assert_eq!(frame::parse(&[0xff; 3], CLIENT_FRAME_MAX), Ok(None));
}
