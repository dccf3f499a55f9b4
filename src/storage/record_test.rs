//! Golden bytes of the log's formats, and what must hold for any record.

use std::fmt::Write;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, HardState, Index, NodeId, ShardId, SnapshotId, Term};

use super::BatchNumber;
use super::batch::{BLOCK_BYTES, Batch, BatchHeader, HardStateCopy, PlacedBatch, Placement};
use super::record::{BadRecord, Record, Seal, Seed, ShardState, stamp};
use super::segment::{BadHeader, FileState, SegmentHeader, SegmentId, SegmentKey, segment_name};

const KEY: SegmentKey = SegmentKey { id: SegmentId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), epoch: 3 };

fn golden_batch() -> Batch {
    let mut batch = Batch::new(BatchNumber(1));
    batch.push(&Record::Seal(Seal { segment: SegmentId(0xabcd), sequence: 6, cut: 0x9000 }));
    let state = ShardState {
        hard_state: HardState { term: Term(8), vote: None },
        start: EntryId::new(100, 4),
        last: EntryId::new(130, 7),
        snapshot: SnapshotId(12),
    };
    batch.push(&Record::Restate { shard: ShardId(2), state });
    batch.push(&Record::Reset { shard: ShardId(1), start: EntryId::new(50, 5), snapshot: SnapshotId(0x5eed) });
    for (index, kind, body) in [(51, EntryKind::Noop, ""), (52, EntryKind::Command, "put k v")] {
        batch.push_entry(
            ShardId(1),
            &Entry { id: EntryId::new(index, 9), kind, body: Bytes::from_static(body.as_bytes()) },
        );
    }
    batch.push(&Record::Watermark);
    batch.set_hard_state(ShardId(1), HardState { term: Term(9), vote: Some(NodeId(3)) });
    batch.set_hard_state(ShardId(2), HardState { term: Term(8), vote: None });
    batch
}

const PLACEMENT: Placement = Placement { key: KEY, number: 41, start: 0x1000, durable_upto: 0x1000 };

/// Compares with `testdata/NAME.hex`; `UPDATE_GOLDEN=1` writes it. Runs of zeros that fill whole lines are left out.
pub(in crate::storage) fn golden(name: &str, bytes: &[u8]) {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            write!(text, "{:04x}", line * 16).expect("a string takes it");
            chunk.iter().for_each(|byte| write!(text, " {byte:02x}").expect("a string takes it"));
            text.push('\n');
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/storage/testdata").join(format!("{name}.hex"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the golden file exists");
    assert_eq!(text, expected, "{name}: the format changed");
}

#[test]
fn golden_segment_header() {
    let predecessor = Some(Seal { segment: SegmentId(0xabcd), sequence: 6, cut: 0x9000 });
    let header = SegmentHeader { key: KEY, sequence: 7, size: 64 << 20, durable_upto: 0x3000, predecessor };
    golden("segment_header", &header.encode());
    assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    let first = SegmentHeader { predecessor: None, sequence: 1, ..header };
    assert_eq!(SegmentHeader::decode(&first.encode()), Ok(first));
}

#[test]
fn golden_batch_with_every_kind_of_record() {
    let mut batch = golden_batch();
    let expected_length = batch.placed_bytes();
    let bytes = batch.finish(&PLACEMENT, |_| {}).to_vec();
    assert_eq!(bytes.len() as u64, expected_length);
    golden("batch", &bytes);

    let header = BatchHeader::decode(&bytes, KEY, 0x1000).expect("its own header");
    let placed = PlacedBatch::new(header, KEY, &bytes);
    assert_eq!(placed.records().filter(Result::is_ok).count(), 6);
    for copy in [HardStateCopy::First, HardStateCopy::Second] {
        assert_eq!(placed.hard_states(copy).filter(Result::is_ok).count(), 2);
    }
}

#[test]
fn golden_copies() {
    let mut batch = Batch::new(BatchNumber(1));
    batch.push(&Record::Reused);
    for (index, kind, body) in [(51, EntryKind::Noop, ""), (52, EntryKind::Command, "put k v")] {
        let body = Bytes::from_static(body.as_bytes());
        batch.push_copy(ShardId(1), &Entry { id: EntryId::new(index, 9), kind, body });
    }
    batch.push(&Record::Copied { shard: ShardId(1), first: Index(51), last: Index(52) });
    let bytes = batch.finish(&PLACEMENT, |_| {}).to_vec();
    golden("copies", &bytes);
    let header = BatchHeader::decode(&bytes, KEY, 0x1000).expect("its own header");
    assert_eq!(PlacedBatch::new(header, KEY, &bytes).records().filter(Result::is_ok).count(), 4);
}

#[test]
fn golden_continued() {
    let mut batch = Batch::new(BatchNumber(1));
    batch.push(&Record::Continued { sequence: 8, segment: SegmentId(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00) });
    let bytes = batch.finish(&PLACEMENT, |_| {}).to_vec();
    assert_eq!(bytes.len() as u64, BLOCK_BYTES, "there is room for one block");
    golden("continued", &bytes);
    let header = BatchHeader::decode(&bytes, KEY, 0x1000).expect("its own header");
    let found = PlacedBatch::new(header, KEY, &bytes).records().next().expect("a record").expect("right").1;
    assert!(matches!(found, Record::Continued { sequence: 8, segment } if segment.0 as u8 == 0), "{found:?}");
}

#[test]
fn golden_entry_record() {
    let record = Record::Entry { shard: ShardId(5), id: EntryId::new(17, 3), kind: EntryKind::Command, body: b"body" };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let seed = Seed::new(KEY, 41);
    stamp(&mut bytes, seed);
    golden("entry", &bytes);
    assert_eq!(Record::decode(&bytes, seed), Ok((record, bytes.len())));
}

// rule 11
#[test]
fn a_batch_header_belongs_to_its_place() {
    let mut batch = golden_batch();
    let bytes = batch.finish(&PLACEMENT, |_| {}).to_vec();
    assert!(BatchHeader::decode(&bytes, KEY, 0x2000).is_none(), "another offset");
    let next_epoch = SegmentKey { epoch: 4, ..KEY };
    assert!(BatchHeader::decode(&bytes, next_epoch, 0x1000).is_none(), "another epoch");
    assert!(BatchHeader::decode(&bytes[..55], KEY, 0x1000).is_none(), "too short");
    for at in 0..super::batch::HEADER_BYTES {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(BatchHeader::decode(&flipped, KEY, 0x1000).is_none(), "byte {at}");
    }
}

#[test]
fn a_reused_batch_is_as_good_as_new() {
    let mut batch = golden_batch();
    let first = batch.finish(&PLACEMENT, |_| {}).to_vec();
    batch.reuse(BatchNumber(2));
    assert!(batch.is_empty());
    batch.push(&Record::Watermark);
    assert_eq!(batch.finish(&PLACEMENT, |_| {}).len(), 4096, "one block");
    batch.reuse(BatchNumber(3));
    let mut other = golden_batch();
    batch.push_encoded(
        &other.finish(&PLACEMENT, |_| {})[super::batch::HEADER_BYTES..]
            [..golden_batch().gathered_bytes() - super::batch::HEADER_BYTES],
    );
    golden_batch().hard_states().iter().for_each(|(shard, hard_state)| batch.set_hard_state(*shard, *hard_state));
    assert_eq!(batch.finish(&PLACEMENT, |_| {}), first);
}

#[test]
fn versions_and_kinds_of_the_future_are_named() {
    let header = SegmentHeader { key: KEY, sequence: 1, size: 65536, durable_upto: 0, predecessor: None };
    let mut bytes = header.encode();
    bytes[12] = 2;
    let checksum = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Version(2)));

    let mut record = Vec::new();
    Record::Watermark.encode(&mut record);
    record[8] = 77;
    let seed = Seed::new(KEY, 1);
    stamp(&mut record, seed);
    assert_eq!(Record::decode(&record, seed), Err(BadRecord::Unknown(77)));
}

#[test]
fn a_file_s_name_is_its_state() {
    assert_eq!(FileState::of(&segment_name(0x1f)), Some(FileState::Segment(0x1f)));
    assert_eq!(FileState::of("segment-000000000000001f.log"), Some(FileState::Segment(0x1f)));
    assert_eq!(FileState::of("segment-1f.log"), None);
    assert_eq!(FileState::of("spare-000000000000001f.log"), Some(FileState::Spare));
    assert_eq!(FileState::of("allocating-000000000000001f.log"), Some(FileState::Allocating));
    assert_eq!(FileState::of("lost+found"), None);
}

fn any_record() -> impl Strategy<Value = (u8, u16, u64, u64, Vec<u8>)> {
    (0u8..9, any::<u16>(), any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300))
}

fn build<'a>((kind, shard, term, index, body): &'a (u8, u16, u64, u64, Vec<u8>)) -> Record<'a> {
    let (shard, id) = (ShardId(*shard), EntryId::new(*index, *term));
    let hard_state = HardState { term: Term(*term), vote: (*index != 0).then_some(NodeId(*index)) };
    match kind {
        0 => Record::Entry { shard, id, kind: EntryKind::Configuration, body },
        1 => Record::HardState { shard, hard_state },
        2 => Record::Reset { shard, start: id, snapshot: SnapshotId(term ^ index) },
        3 => {
            let last = EntryId::new(index / 2, term / 2);
            Record::Restate { shard, state: ShardState { hard_state, start: id, last, snapshot: SnapshotId(*index) } }
        }
        4 => Record::Watermark,
        5 => Record::Reused,
        6 => Record::Copy { shard, id, kind: EntryKind::Command, body },
        7 => Record::Copied { shard, first: Index(*term), last: Index(*index) },
        _ => Record::Seal(Seal { segment: SegmentId(u128::from(*term) << 64 | 7), sequence: *term, cut: *index }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_encoded_is_decoded(parts in any_record(), number in any::<u64>()) {
        let record = build(&parts);
        let seed = Seed::new(KEY, number);
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        stamp(&mut bytes, seed);
        prop_assert_eq!(bytes.len(), record.encoded_bytes());
        prop_assert_eq!(Record::decode(&bytes, seed), Ok((record, bytes.len())));
        prop_assert!(Record::decode(&bytes[..bytes.len() - 1], seed).is_err());
        prop_assert_eq!(Record::decode(&bytes, Seed::new(KEY, number ^ 1)), Err(BadRecord::Checksum));
    }

    #[test]
    fn a_flip_is_noticed(parts in any_record(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let seed = Seed::new(KEY, 1);
        let mut bytes = Vec::new();
        build(&parts).encode(&mut bytes);
        stamp(&mut bytes, seed);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Record::decode(&bytes, seed).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Record::decode(&bytes, Seed::new(KEY, 1)).is_err());
        prop_assert!(BatchHeader::decode(&bytes, KEY, 0).is_none());
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
    }
}
