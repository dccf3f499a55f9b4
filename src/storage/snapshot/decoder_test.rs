//! Every byte of a snapshot counts: none may change, none may be missing, none may be added.

use proptest::prelude::*;
use raftkv_protocol::types::{EntryId, Index, SnapshotId};

use super::decoder::{Decoder, Step};
use super::format::{BLOCK_HEADER_BYTES, BadSnapshot, BlockKind, Footer, Item, begin_block, block_length, end_block};
use super::store_test::{Owned, assert_holds, contents, items, open, write};
use super::{SnapshotError, snapshot_name};
use crate::storage::simulated_disk::SimulatedDisk;

const AT: EntryId = EntryId::new(9, 4);

/// The file of a snapshot with these items.
fn file(items: &[Owned]) -> Vec<u8> {
    let disk = SimulatedDisk::new(3);
    write(&open(&disk), AT, items).expect("healthy");
    disk.bytes(&snapshot_name(AT))
}

/// Decodes bytes that come in chunks of this length; whether they are a whole snapshot.
fn decode(bytes: &[u8], chunk: usize) -> Result<bool, BadSnapshot> {
    let mut decoder = Decoder::default();
    for chunk in bytes.chunks(chunk) {
        decoder.feed(chunk);
        while decoder.step()? != Step::Starved {}
    }
    Ok(decoder.footer().is_some())
}

/// Where the blocks of a file lie.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    let mut blocks = Vec::new();
    while let Some(length) = block_length(&bytes[at..]) {
        blocks.push(at..at + length);
        at += length;
    }
    blocks
}

fn id(bytes: &[u8]) -> SnapshotId {
    SnapshotId(u64::from_le_bytes(*bytes[20..].first_chunk().expect("a header")))
}

// museum 32, 42
#[test]
fn a_flip_of_any_byte_is_found() {
    // Two blocks of items, of many and of one.
    let mut lengths = vec![900; 22];
    lengths.push(46_000);
    let items = items(&lengths);
    let mut bytes = file(&items);
    assert!(blocks(&bytes).len() == 3 && bytes.len() > 64_000, "{} bytes", bytes.len());
    assert_eq!(decode(&bytes, usize::MAX), Ok(true));
    for at in 0..bytes.len() {
        let mask = 1 << (at % 8);
        bytes[at] ^= mask;
        assert_ne!(decode(&bytes, usize::MAX), Ok(true), "byte {at}");
        bytes[at] ^= mask;
    }
    // A sample from the disk: the error names the block.
    let disk = SimulatedDisk::new(3);
    let store = open(&disk);
    write(&store, AT, &items).expect("healthy");
    for block in blocks(&bytes) {
        for at in [block.start, block.start + 4, block.start + 11, block.end - 1] {
            disk.flip(&snapshot_name(AT), at as u64, 7);
            match store.read(AT).and_then(contents).expect_err("damaged") {
                SnapshotError::Damaged { offset, path, .. } => {
                    assert_eq!((offset, path), (block.start as u64, format!("/simulated/{}", snapshot_name(AT))));
                }
                other => panic!("{other}"),
            }
            disk.flip(&snapshot_name(AT), at as u64, 7);
        }
    }
    assert_holds(&store, AT, &items);
}

// museum 42
#[test]
fn a_file_that_is_cut_off_anywhere_is_not_whole() {
    let bytes = file(&items(&[30; 20]));
    let disk = SimulatedDisk::new(3);
    let store = open(&disk);
    for length in 0..bytes.len() {
        disk.set_bytes(&snapshot_name(AT), bytes[..length].to_vec());
        match store.read(AT).and_then(contents) {
            Err(SnapshotError::Damaged { offset, .. }) => assert_eq!(offset, length as u64),
            other => panic!("of {length} bytes: {other:?}"),
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    disk.set_bytes(&snapshot_name(AT), longer);
    match store.read(AT).and_then(contents) {
        Err(SnapshotError::Damaged { offset, what, .. }) => {
            assert_eq!((offset, what), (bytes.len() as u64, "something follows the footer"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_belongs_to_its_place_and_its_snapshot() {
    let items = items(&[40 << 10; 3]);
    let bytes = file(&items);
    let blocks = blocks(&bytes);
    assert_eq!(blocks.len(), 4);
    let mut swapped = bytes.clone();
    swapped[blocks[0].clone()].copy_from_slice(&bytes[blocks[1].clone()]);
    swapped[blocks[1].clone()].copy_from_slice(&bytes[blocks[0].clone()]);
    assert!(decode(&swapped, 4096).is_err());
    let without_one = [&bytes[..blocks[1].start], &bytes[blocks[2].start..]].concat();
    assert!(decode(&without_one, 4096).is_err());
    let twice = [&bytes[..blocks[1].start], &bytes[blocks[0].start..]].concat();
    assert!(decode(&twice, 4096).is_err());
    // The same block, of the same state, in another snapshot.
    let disk = SimulatedDisk::new(4);
    write(&open(&disk), AT, &items).expect("healthy");
    let mut other = disk.bytes(&snapshot_name(AT));
    assert_eq!(other.len(), bytes.len());
    other[blocks[1].clone()].copy_from_slice(&bytes[blocks[1].clone()]);
    assert!(decode(&other, 4096).is_err());
}

/// A snapshot whose checksums are right, and whose blocks have these payloads.
fn forged(payloads: &[(BlockKind, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = file(&[]);
    bytes.truncate(blocks(&bytes)[0].start);
    for (number, (kind, payload)) in (1..).zip(payloads) {
        let start = bytes.len();
        begin_block(&mut bytes);
        bytes.extend_from_slice(payload);
        let id = id(&bytes);
        end_block(&mut bytes[start..], id, number, *kind);
    }
    bytes
}

#[test]
fn what_no_writer_writes_is_refused_though_its_checksums_are_right() {
    let item = |key: &[u8]| {
        let mut payload = Vec::new();
        Item { key, version: Index(1), value: b"v" }.encode(&mut payload);
        (BlockKind::Items, payload)
    };
    let footer = |items, bytes| {
        let mut payload = Vec::new();
        Footer { items, bytes, hash: 0, checkpoints: Vec::new() }.encode(&mut payload);
        (BlockKind::Footer, payload)
    };
    let verdict = |payloads: &[_]| decode(&forged(payloads), usize::MAX);
    assert_eq!(verdict(&[item(b"a"), item(b"b"), footer(2, 4)]), Ok(true));
    assert_eq!(verdict(&[item(b"a"), item(b"b")]), Ok(false));
    let mut cut = item(b"a");
    cut.1.pop();
    let mut long = item(b"a");
    long.1[0] = 9;
    for (what, payloads) in [
        ("a count is wrong", vec![item(b"a"), footer(2, 2)]),
        ("the bytes are wrong", vec![item(b"a"), footer(1, 3)]),
        ("keys fall", vec![item(b"b"), item(b"a"), footer(2, 4)]),
        ("a key is there twice", vec![item(b"a"), item(b"a"), footer(2, 4)]),
        ("an item is cut off", vec![cut, footer(1, 2)]),
        ("an item is longer than its block", vec![long, footer(1, 2)]),
        ("an empty block", vec![(BlockKind::Items, Vec::new()), footer(0, 0)]),
        ("a footer without its mark", vec![(BlockKind::Footer, vec![0; 36])]),
        ("two footers", vec![footer(0, 0), footer(0, 0)]),
    ] {
        assert!(matches!(verdict(&payloads), Err(BadSnapshot::Damaged { .. })), "{what}");
    }
    let mut unknown = forged(&[footer(0, 0)]);
    let block = blocks(&unknown)[0].clone();
    unknown[block.start + 4] = 3;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id(&unknown).0.to_le_bytes());
    hasher.update(&1u64.to_le_bytes());
    hasher.update(&unknown[block.start + 4..block.end]);
    unknown[block.start..block.start + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
    let unknown_kind = BadSnapshot::Damaged { offset: block.start as u64, what: "a block is of an unknown kind" };
    assert_eq!(decode(&unknown, usize::MAX), Err(unknown_kind));
}

// museum 50
#[test]
fn a_length_is_not_waited_for_if_no_block_is_so_long() {
    let mut bytes = file(&items(&[10]));
    let block = blocks(&bytes)[0].clone();
    bytes.truncate(block.start + BLOCK_HEADER_BYTES);
    bytes[block.start + 8..].copy_from_slice(&(16u32 << 20).to_le_bytes());
    assert_eq!(decode(&bytes, usize::MAX), Ok(false), "it may be a long one");
    bytes[block.start + 8] += 1;
    assert!(decode(&bytes, usize::MAX).is_err());
    bytes.truncate(20);
    bytes[12..16].copy_from_slice(&(1u32 << 20).to_le_bytes());
    assert_eq!(decode(&bytes, usize::MAX), Ok(false));
    bytes[12] += 1;
    assert!(decode(&bytes, usize::MAX).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_items_come_back_however_they_are_read(
        map in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 0..40),
            (any::<u64>(), prop_oneof![0..50usize, 60_000..70_000usize]),
            0..60,
        ),
        chunk in 1..100_000usize,
    ) {
        let items: Vec<Owned> =
            map.into_iter().map(|(key, (version, length))| (key, Index(version), vec![7; length])).collect();
        let disk = SimulatedDisk::new(3);
        let store = open(&disk);
        write(&store, AT, &items).expect("healthy");
        assert_holds(&store, AT, &items);
        prop_assert_eq!(decode(&disk.bytes(&snapshot_name(AT)), chunk.max(30)), Ok(true));
    }

    #[test]
    fn a_changed_file_is_refused_or_the_same(
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let bytes = file(&items(&[300; 30]));
        let mut changed = bytes.clone();
        let at = at.index(bytes.len());
        changed.splice(at..bytes.len().min(at + with.len()), with);
        prop_assert!(changed == bytes || decode(&changed, 1000) != Ok(true));
    }
}
