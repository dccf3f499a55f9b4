//! Golden bytes of a snapshot, and what its header and its name say.

use proptest::prelude::*;
use raftkv_protocol::types::{EntryId, Index, ShardId, SnapshotId};

use super::format::{
    BadSnapshot, FileState, Footer, Header, PREFIX_BYTES, Prefix, damaged_name, receiving_name, snapshot_name,
    spare_name, writing_name,
};
use super::store_test::{assert_holds, open, write};
use super::{SnapshotError, SnapshotReader};
use crate::storage::record_test::golden;
use crate::storage::simulated_disk::SimulatedDisk;

fn header() -> Header {
    Header {
        id: SnapshotId(0x0123_4567_89ab_cdef),
        shard: ShardId(5),
        at: EntryId::new(500, 7),
        hash_format: b"a hash".to_vec(),
        configuration: b"three voters".to_vec(),
    }
}

fn decode(bytes: &[u8]) -> Result<Header, BadSnapshot> {
    let prefix = bytes.first_chunk::<PREFIX_BYTES>().expect("all of it");
    let prefix = Prefix::decode(prefix)?;
    Header::decode(&prefix, &bytes[..prefix.length.min(bytes.len())])
}

/// Changes a header and makes its checksum right again.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = header().encode().expect("short");
    change(&mut bytes);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..16]);
    hasher.update(&bytes[20..]);
    bytes[16..20].copy_from_slice(&hasher.finalize().to_le_bytes());
    bytes
}

#[test]
fn golden_snapshot_of_two_blocks() {
    let disk = SimulatedDisk::new(42);
    let at = EntryId::new(500, 7);
    let items = vec![
        (b"".to_vec(), Index(3), b"of the empty key".to_vec()),
        (b"a".to_vec(), Index(500), b"value".to_vec()),
        (b"b".to_vec(), Index(77), vec![0; 65_536]),
    ];
    let store = open(&disk);
    write(&store, at, &items).expect("healthy");
    golden("snapshot", &disk.bytes(&snapshot_name(at)));
    assert_holds(&store, at, &items);
}

#[test]
fn a_header_is_read_as_written() {
    let header = header();
    assert_eq!(decode(&header.encode().expect("short")), Ok(header.clone()));
    let bare = Header { hash_format: Vec::new(), configuration: Vec::new(), ..header };
    assert_eq!(decode(&bare.encode().expect("short")), Ok(bare));
}

#[test]
fn a_header_that_was_changed_is_refused() {
    let bytes = header().encode().expect("short");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(matches!(decode(&flipped), Err(BadSnapshot::Damaged { offset: 0, .. })), "byte {at}, bit {bit}");
        }
    }
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 4] = [
        ("no id", |bytes| bytes[20..28].fill(0)),
        ("a longer name than there is", |bytes| bytes[30] += 40),
        ("a shorter configuration than there is", |bytes| bytes[48] -= 1),
        ("nothing but the beginning", |bytes| {
            bytes.truncate(50);
            bytes[12] = 50;
        }),
    ];
    for (what, change) in changes {
        assert!(matches!(decode(&forged(change)), Err(BadSnapshot::Damaged { .. })), "{what}");
    }
}

#[test]
fn a_newer_format_is_refused_with_its_number() {
    let disk = SimulatedDisk::new(1);
    // Whatever else it says: the first 20 bytes and the checksum mean the same in every version.
    let newer = forged(|bytes| {
        bytes[8] = 2;
        bytes.extend_from_slice(b"something new");
        bytes[12] += 13;
    });
    disk.set_bytes("newer.snap", newer);
    let error = SnapshotReader::open(&disk, "newer.snap").expect_err("refused");
    assert!(matches!(error, SnapshotError::Newer { version: 2, .. }));
    let line = error.to_string();
    assert!(line.contains("/simulated/newer.snap has format version 2, this version knows up to 1"), "{line}");
}

#[test]
fn a_name_says_what_a_file_is() {
    let (at, id) = (EntryId::new(0xab, u64::MAX), SnapshotId(0x12));
    assert_eq!(snapshot_name(at), "snapshot-00000000000000ab-ffffffffffffffff.snap");
    for (name, state) in [
        (snapshot_name(at), FileState::Snapshot(at)),
        (writing_name(id), FileState::Writing),
        (spare_name(id), FileState::Spare),
        (receiving_name(id), FileState::Receiving(id)),
        (damaged_name(at), FileState::Damaged),
    ] {
        assert_eq!(FileState::of(&name), Some(state), "{name}");
    }
    for name in [
        "snapshot-00000000000000ab.snap",
        "snapshot-00000000000000ab-+fffffffffffffff.snap",
        "snapshot-ab-1.snap",
        "snapshot-00000000000000ab-ffffffffffffffff",
        "receiving-12.snap",
        "segment-0000000000000001.log",
    ] {
        assert_eq!(FileState::of(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn a_footer_is_read_as_written(items: u64, bytes: u64, hash: u128, sums in prop::collection::vec((0u64.., 0u128..), 0..20)) {
        let checkpoints = sums.into_iter().map(|(index, hash)| (Index(index), hash)).collect();
        let footer = Footer { items, bytes, hash, checkpoints };
        let mut payload = Vec::new();
        footer.encode(&mut payload);
        prop_assert_eq!(Footer::decode(&payload), Some(footer));
        for length in 0..payload.len() {
            prop_assert_eq!(Footer::decode(&payload[..length]), None);
        }
    }
}
