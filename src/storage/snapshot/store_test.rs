//! The directory: what is listed, kept, removed and refused.

use std::sync::Arc;

use raftkv_protocol::types::{EntryId, Index, ShardId, SnapshotId};

use super::{
    FileLength, Footer, Header, Item, SnapshotError, SnapshotInfo, SnapshotReader, SnapshotStore, SnapshotWriter,
    snapshot_name,
};
use crate::storage::disk::{Access, Disk, LogIo, RealDisk};
use crate::storage::simulated_disk::{Random, SimulatedDisk, Survivors};

pub(super) const SHARD: ShardId = ShardId(5);

/// Key, version and value.
pub(super) type Owned = (Vec<u8>, Index, Vec<u8>);

/// What a snapshot holds.
pub(super) type Contents = (Header, Vec<Owned>, Footer);

/// Items with values of these lengths, keys in order.
pub(super) fn items(lengths: &[usize]) -> Vec<Owned> {
    let mut random = Random(lengths.len() as u64);
    let item = |(number, length): (usize, &usize)| {
        // No two sectors of a value are the same.
        let pattern: Vec<u8> = (0..509).map(|_| random.next() as u8).collect();
        let mut value = pattern.repeat(length / pattern.len() + 1);
        value.truncate(*length);
        (format!("key {number:06}").into_bytes(), Index(number as u64 + 1), value)
    };
    lengths.iter().enumerate().map(item).collect()
}

/// A footer's hash and checkpoints, which mean nothing to those who keep them.
pub(super) fn sums(at: EntryId) -> (u128, Vec<(Index, u128)>) {
    (u128::from(at.index.0) << 64 | 9, vec![(Index(1024), 17), (Index(2048), u128::MAX)])
}

pub(super) fn open(disk: &SimulatedDisk) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), SHARD).expect("healthy")
}

/// Takes a snapshot.
pub(super) fn write(store: &SnapshotStore, at: EntryId, items: &[Owned]) -> Result<SnapshotInfo, SnapshotError> {
    finish(store.create(at, b"a hash", b"three voters")?, at, items)
}

/// Fills a snapshot that was begun.
fn finish(mut writer: SnapshotWriter, at: EntryId, items: &[Owned]) -> Result<SnapshotInfo, SnapshotError> {
    for (key, version, value) in items {
        writer.push(Item { key, version: *version, value })?;
    }
    let (hash, checkpoints) = sums(at);
    writer.finish(hash, checkpoints)
}

/// A store that holds the snapshots of two entries, each of 200 KB and more.
fn with_two(disk: &SimulatedDisk) -> SnapshotStore {
    let store = open(disk);
    for index in [1, 2] {
        write(&store, EntryId::new(index, 1), &items(&[2_000; 100])).expect("healthy");
    }
    store
}

/// Everything that a reader gives.
pub(super) fn contents(mut reader: SnapshotReader) -> Result<Contents, SnapshotError> {
    let mut items = Vec::new();
    while let Some(block) = reader.next_items()? {
        items.extend(block.map(|item| (item.key.to_vec(), item.version, item.value.to_vec())));
    }
    let footer = reader.footer().cloned().expect("the end was reached");
    Ok((reader.header().clone(), items, footer))
}

/// Reads a snapshot, which must be whole and hold these items.
pub(super) fn assert_holds(store: &SnapshotStore, at: EntryId, expected: &[Owned]) {
    let (header, items, footer) = store.read(at).and_then(contents).expect("it is whole");
    assert_eq!((header.shard, header.at), (SHARD, at));
    assert_eq!((&*header.hash_format, &*header.configuration), (&b"a hash"[..], &b"three voters"[..]));
    assert!(items == expected, "other items as of {at}");
    let bytes = expected.iter().map(|(key, _, value)| (key.len() + value.len()) as u64).sum();
    let (hash, checkpoints) = sums(at);
    assert_eq!(footer, Footer { items: expected.len() as u64, bytes, hash, checkpoints });
}

fn entries(store: &SnapshotStore) -> Vec<u64> {
    store.list().expect("healthy").iter().map(|at| at.index.0).collect()
}

#[test]
fn what_was_written_is_read() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    assert_eq!(store.list().expect("healthy"), []);
    // No item, one block, several blocks, items longer than a block and than a piece, empty values.
    let huge = [10, 100 << 10, 0, 700 << 10, 65_500, 65_536 - 16 - 10, 1, 1 << 20];
    let many: Vec<usize> = (0..3000).map(|number| number % 400).collect();
    for (index, lengths) in [&[][..], &[0], &huge, &many, &[1 << 20]].into_iter().enumerate() {
        let (at, items) = (EntryId::new(100 + index as u64, 7), items(lengths));
        let info = write(&store, at, &items).expect("healthy");
        assert_holds(&store, at, &items);
        assert_eq!(store.info(at).expect("healthy"), info);
        assert_eq!((info.at, info.bytes), (at, disk.bytes(&snapshot_name(at)).len() as u64));
    }
}

#[test]
fn a_real_disk_does_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snapshots/shard-5");
    let store = SnapshotStore::open(Arc::new(RealDisk::create(&path, LogIo::default()).expect("healthy")), SHARD);
    let store = store.expect("healthy");
    // Long enough to be synced on the way.
    let items = items(&[3 << 20, 1 << 20, 100, 2 << 20]);
    for index in 1..=3 {
        let info = write(&store, EntryId::new(index, 1), &items).expect("healthy");
        assert_eq!(path.join(snapshot_name(info.at)).metadata().expect("it is there").len(), info.bytes);
    }
    assert_eq!(entries(&store), [3, 2]);
    assert_holds(&store, EntryId::new(3, 1), &items);
    let file = store.find(store.info(EntryId::new(2, 1)).expect("healthy").id).expect("healthy").expect("it is there");
    let mut receiver = {
        let other = RealDisk::create(&dir.path().join("other"), LogIo::Map).expect("healthy");
        SnapshotStore::open(Arc::new(other), SHARD).expect("healthy").receive(file.info()).expect("healthy")
    };
    let mut chunk = vec![0; 1 << 20];
    while let Some(offset) = receiver.resume().expect("healthy").filter(|_| !receiver.is_complete()) {
        let read = file.read(offset, &mut chunk).expect("healthy");
        receiver.write(offset, &chunk[..read]).expect("healthy");
    }
    assert_eq!(receiver.finish().expect("healthy"), file.info());
    let other = RealDisk::read_only(&dir.path().join("other"));
    assert_holds(&SnapshotStore::read_only(Arc::new(other), SHARD), EntryId::new(2, 1), &items);
}

// museum 27
#[test]
fn two_are_kept_and_one_that_is_open_can_be_read_on() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let items = items(&[300 << 10; 4]);
    write(&store, EntryId::new(1, 1), &items).expect("healthy");
    let mut reader = store.read(EntryId::new(1, 1)).expect("healthy");
    reader.next_items().expect("healthy").expect("an item");
    let file = store.find(reader.info().id).expect("healthy").expect("it is there");
    for index in 2..=5 {
        write(&store, EntryId::new(index, 1), &items).expect("healthy");
    }
    assert_eq!(entries(&store), [5, 4]);
    assert_eq!(disk.names().len(), 2);
    assert!(store.find(reader.info().id).expect("healthy").is_none());
    let mut rest = 0;
    while let Some(block) = reader.next_items().expect("its bytes are there") {
        rest += block.count();
    }
    assert_eq!(rest, 3);
    let mut end = [0; 8];
    assert_eq!(file.read(file.info().bytes - 8, &mut end).expect("its bytes are there"), 8);
    assert_eq!(&end, b"RKVDONE\n");
}

#[test]
fn an_older_or_equal_snapshot_is_not_wanted() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let items = items(&[9; 3]);
    let newest = write(&store, EntryId::new(20, 2), &items).expect("healthy");
    let superseded = |error| matches!(error, SnapshotError::Superseded { by } if by == newest.at);
    for at in [EntryId::new(20, 2), EntryId::new(19, 1)] {
        assert!(superseded(store.create(at, b"", b"").expect_err("refused")));
        let info = SnapshotInfo { at, ..newest };
        assert!(superseded(store.receive(info).expect_err("refused")));
    }
    // One that was begun before is refused at its end, and leaves nothing.
    let late = store.create(EntryId::new(30, 2), b"", b"").expect("healthy");
    write(&store, EntryId::new(31, 2), &items).expect("healthy");
    late.finish(0, Vec::new()).expect_err("refused");
    assert_eq!(entries(&store), [31, 20]);
    assert_eq!(disk.names().len(), 2);
}

#[test]
fn a_start_removes_what_is_left_over() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let info = write(&store, EntryId::new(7, 1), &items(&[1000; 3])).expect("healthy");
    let bytes = disk.bytes(&snapshot_name(info.at));
    let received = |index: u64| {
        let mut header = store.read(info.at).expect("healthy").header().clone();
        (header.id, header.at.index) = (SnapshotId(index), Index(index));
        header.encode().expect("short")
    };
    disk.set_bytes("writing-0000000000000001.snap", bytes);
    disk.set_bytes("receiving-0000000000000007.snap", received(7));
    disk.set_bytes("receiving-0000000000000008.snap", received(8));
    disk.set_bytes("receiving-0000000000000009.snap", received(9)[..30].to_vec());
    disk.set_bytes("notes.txt", b"not ours".to_vec());
    let store = open(&disk);
    let first = snapshot_name(info.at);
    let left = ["notes.txt", "receiving-0000000000000008.snap", &*first];
    assert_eq!(disk.crash(Survivors::None).names(), left, "it can be resumed, and is newer");
    write(&store, EntryId::new(8, 1), &[]).expect("healthy");
    let second = snapshot_name(EntryId::new(8, 1));
    assert_eq!(disk.names(), ["notes.txt", &*first, &*second]);
}

// museum 40
#[test]
fn a_name_that_was_not_durable_is_when_the_store_is_open() {
    let disk = SimulatedDisk::new(1);
    let items = items(&[50; 9]);
    let info = write(&open(&disk), EntryId::new(7, 1), &items).expect("healthy");
    // As a process leaves it that dies before it syncs the directory.
    disk.rename(&snapshot_name(info.at), "elsewhere").expect("healthy");
    disk.sync_dir().expect("healthy");
    disk.rename("elsewhere", &snapshot_name(info.at)).expect("healthy");
    disk.restart();
    open(&disk);
    assert_holds(&open(&disk.crash(Survivors::None)), info.at, &items);
}

// museum 32
#[test]
fn a_damaged_one_is_set_aside_until_the_next() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    for index in 1..=2 {
        write(&store, EntryId::new(index, 1), &items(&[500; 9])).expect("healthy");
    }
    let name = snapshot_name(EntryId::new(2, 1));
    disk.flip(&name, 3000, 4);
    let error = store.read(EntryId::new(2, 1)).and_then(contents).expect_err("damaged");
    assert!(error.to_string().contains("/simulated/snapshot-0000000000000002-0000000000000001.snap at offset "));
    for _ in 0..2 {
        store.set_aside(EntryId::new(2, 1)).expect("healthy");
        assert_eq!(entries(&store), [1]);
        assert_eq!(disk.crash(Survivors::None).names()[0], "damaged-0000000000000002-0000000000000001.snap");
        // It may be taken again, and may be damaged again.
        write(&store, EntryId::new(2, 1), &items(&[500; 9])).expect("healthy");
        assert_eq!((entries(&store), disk.names().len()), (vec![2, 1], 2));
    }
    store.set_aside(EntryId::new(2, 1)).expect("healthy");
    write(&store, EntryId::new(3, 1), &[]).expect("healthy");
    assert_eq!((entries(&store), disk.names().len()), (vec![3, 1], 2), "it did not count as one of two");
}

#[test]
fn a_file_must_be_what_its_name_says() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let info = write(&store, EntryId::new(7, 1), &[]).expect("healthy");
    let bytes = disk.bytes(&snapshot_name(info.at));
    disk.set_bytes(&snapshot_name(EntryId::new(8, 1)), bytes.clone());
    let error = store.read(EntryId::new(8, 1)).expect_err("another entry");
    assert!(matches!(error, SnapshotError::Damaged { offset: 0, .. }), "{error}");
    let other = SnapshotStore::read_only(Arc::new(disk.clone()), ShardId(6));
    let error = other.read(info.at).expect_err("another shard");
    assert!(matches!(error, SnapshotError::Damaged { offset: 0, .. }), "{error}");
    assert!(store.find(info.id).expect("healthy").is_some(), "the one under its name");
    disk.set_unreadable(&snapshot_name(info.at), true);
    assert!(matches!(store.read(info.at).expect_err("EIO"), SnapshotError::Disk { .. }));
    assert!(store.find(info.id).expect("healthy").is_none());
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let item = |key| Item { key, version: Index(1), value: b"" };
    let begin = || store.create(EntryId::new(1, 1), b"", b"").expect("healthy");
    for second in [&b"b"[..], b"a", b""] {
        let mut writer = begin();
        writer.push(item(b"b")).expect("healthy");
        assert!(matches!(writer.push(item(second)), Err(SnapshotError::OutOfOrder)));
        assert_eq!(disk.names(), [""; 0]);
        assert!(matches!(writer.finish(0, Vec::new()), Err(SnapshotError::Ended)));
    }
    let huge = vec![0; (16 << 20) - 16];
    assert!(matches!(begin().push(Item { value: &huge, ..item(b"a") }), Err(SnapshotError::TooLong)));
    begin().push(Item { value: &huge, ..item(b"") }).expect("just not too long");
    let checkpoints = vec![(Index(0), 0); (16 << 20) / 24];
    assert!(matches!(begin().finish(0, checkpoints), Err(SnapshotError::TooLong)));
    let error = store.create(EntryId::new(1, 1), b"", &vec![0; 1 << 20]).expect_err("refused");
    assert!(matches!(error, SnapshotError::TooLong));
    drop(begin());
    assert_eq!(disk.names(), [""; 0], "whatever is given up leaves nothing");
    assert_eq!(disk.used(), 0);
}

#[test]
fn ids_are_drawn_for_each() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let mut ids: Vec<u64> =
        (1..=4).map(|index| write(&store, EntryId::new(index, 1), &[]).expect("healthy").id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == 4 && ids[0] != 0);
    let file = disk.open(&snapshot_name(EntryId::new(4, 1)), Access::Read).expect("it is there");
    let mut id = [0; 8];
    file.read_at(20, &mut id).expect("healthy");
    assert!(ids.contains(&u64::from_le_bytes(id)));
}

#[test]
fn how_long_a_file_becomes_is_known_before() {
    let store = open(&SimulatedDisk::new(5));
    let long = [70_000, 1, 65_000, 600, 65_520, 65_520 - 10, 65_520 - 26, 65_520 - 27, 0];
    let lengths: [&[usize]; 5] = [&[], &[0], &[300; 1_000], &long, &[32_000; 40]];
    for (lengths, index) in lengths.into_iter().zip(1..) {
        let items = items(lengths);
        let at = EntryId::new(5_000 + index, 1);
        let written = write(&store, at, &items).expect("healthy").bytes;
        let reader = store.read(at).expect("it is there");
        let mut length = FileLength::new(&reader.header().hash_format, &reader.header().configuration);
        items.iter().for_each(|(key, version, value)| {
            length.push(&Item { key, version: *version, value });
        });
        assert_eq!(length.finish(sums(at).1.len()), written, "{lengths:?}");
    }
}

// museum 29, 41
#[test]
fn a_snapshot_over_another_leaves_nothing_of_it() {
    let disk = SimulatedDisk::new(6);
    let store = with_two(&disk);
    let (first, second, third) = (EntryId::new(1, 1), EntryId::new(2, 1), EntryId::new(3, 1));
    disk.set_full(true);
    assert!(matches!(write(&store, third, &items(&[10])), Err(SnapshotError::NoSpace { .. })));
    let writer = store.create_over(first, third, b"a hash", b"three voters").expect("it is there");
    assert_eq!(entries(&store), [2], "it is no snapshot from now on");
    let items = items(&[1_000, 0, 70_000]);
    let info = finish(writer, third, &items).expect("it is shorter");
    assert_eq!(disk.bytes(&snapshot_name(third)).len() as u64, info.bytes);
    assert_holds(&store, third, &items);
    assert_eq!(entries(&store), [3, 2]);
    // Whoever gives up leaves the other.
    drop(store.create_over(second, EntryId::new(4, 1), b"a hash", b"three voters").expect("it is there"));
    assert_eq!((entries(&store), disk.names().len()), (vec![3], 2), "and the room");
}

/// What was written over is no snapshot any more, and others would take its bytes.
// museum 41
#[test]
fn a_start_on_a_full_disk_keeps_the_room_of_a_snapshot_that_was_not_finished_over_another() {
    let disk = SimulatedDisk::new(8);
    let store = with_two(&disk);
    let third = EntryId::new(3, 1);
    let begun = store.create_over(EntryId::new(1, 1), third, b"a hash", b"three voters").expect("it is there");
    // The process ends, and does not tidy up.
    std::mem::forget(begun);
    disk.restart();
    let spares = |disk: &SimulatedDisk| disk.names().iter().filter(|name| name.starts_with("spare-")).count();
    let roomy = disk.fork();
    assert_eq!((entries(&open(&roomy)), spares(&roomy), roomy.names().len()), (vec![2], 0, 1), "the disk has room");
    disk.set_full(true);
    for _ in 0..2 {
        disk.crash_in_place(Survivors::None);
        assert_eq!((entries(&open(&disk)), spares(&disk), disk.names().len()), (vec![2], 1, 2));
    }
    let store = open(&disk);
    let begin = |bytes| store.create_in_spare(bytes, third, b"a hash", b"three voters").expect("healthy");
    assert!(begin(1 << 20).is_none(), "it is shorter");
    let writer = begin(200_000).expect("it is as long");
    assert!(begin(200_000).is_none(), "there is one");
    let items = items(&[1_000, 0, 70_000]);
    finish(writer, third, &items).expect("it is shorter");
    assert_holds(&store, third, &items);
    assert_eq!((entries(&store), spares(&disk), disk.names().len()), (vec![3, 2], 0, 2));
}

/// It may be long, and the next snapshot finds its room: a spare goes when there are two.
#[test]
fn a_spare_goes_when_there_are_two_snapshots() {
    let disk = SimulatedDisk::new(9);
    let store = open(&disk);
    write(&store, EntryId::new(1, 1), &items(&[2_000; 100])).expect("healthy");
    disk.set_bytes("spare-0000000000000001.snap", vec![1; 200_000]);
    write(&store, EntryId::new(2, 1), &items(&[2_000; 100])).expect("healthy");
    assert_eq!((entries(&store), disk.names().len()), (vec![2, 1], 2));
    disk.set_bytes("writing-0000000000000001.snap", vec![1; 400_000]);
    disk.set_full(true);
    assert_eq!((entries(&open(&disk)), disk.names().len()), (vec![2, 1], 2), "the older one is the room");
}

/// One came from another node while this one was written over the older of two.
#[test]
fn a_snapshot_that_comes_too_late_leaves_no_room_beside_two() {
    let disk = SimulatedDisk::new(10);
    let store = with_two(&disk);
    let late = EntryId::new(3, 1);
    let writer = store.create_over(EntryId::new(1, 1), late, b"a hash", b"three voters").expect("it is there");
    let by = write(&store, EntryId::new(4, 1), &items(&[10])).expect("healthy").at;
    disk.set_full(true);
    let refused = finish(writer, late, &items(&[1_000; 3])).expect_err("refused");
    assert!(matches!(refused, SnapshotError::Superseded { by: newest } if newest == by), "{refused}");
    assert_eq!((entries(&store), disk.names().len()), (vec![4, 2], 2));
}

/// On a full disk its bytes would be missed until the next start.
#[test]
fn a_snapshot_that_could_not_be_begun_over_another_leaves_nothing() {
    let disk = SimulatedDisk::new(7);
    let store = with_two(&disk);
    disk.set_full(true);
    let begin = || store.create_over(EntryId::new(1, 1), EntryId::new(3, 1), b"a hash", b"three voters");
    disk.fail_at(0);
    assert!(matches!(begin().expect_err("the renaming fails"), SnapshotError::Disk { .. }));
    assert_eq!(entries(&store), [2, 1]);
    disk.fail_at(1);
    assert!(matches!(begin().expect_err("the sync fails"), SnapshotError::Disk { .. }));
    assert_eq!((entries(&store), disk.names().len()), (vec![2], 1));
}
