//! Snapshots that come from a peer: in chunks, again after a broken connection, after a crash, from a disk that lies.

use std::sync::Arc;

use raftkv_protocol::types::{EntryId, ShardId};

use super::crash_test::{all_survivors, check_after_start, disk_with_two, some_items};
use super::store_test::{assert_holds, items, open, write};
use super::{SnapshotError, SnapshotInfo, SnapshotReceiver, SnapshotStore, snapshot_name};
use crate::storage::disk::{Access, Disk};
use crate::storage::simulated_disk::{SimulatedDisk, Survivors};

const AT: EntryId = EntryId::new(30, 3);
const CHUNK: usize = 100_000;

/// A peer's snapshot, and its bytes.
fn source() -> (SnapshotInfo, Vec<u8>) {
    let disk = SimulatedDisk::new(77);
    let info = write(&open(&disk), AT, &some_items()).expect("healthy");
    (info, disk.bytes(&snapshot_name(AT)))
}

/// The receiver after it has looked at what there is, and the offset of the first chunk that it wants.
fn resume(store: &SnapshotStore, info: SnapshotInfo) -> Result<(SnapshotReceiver, usize), SnapshotError> {
    let mut receiver = store.receive(info)?;
    loop {
        if let Some(offset) = receiver.resume()? {
            return Ok((receiver, offset as usize));
        }
    }
}

/// Writes the chunks from an offset up to `end`.
fn feed(receiver: &mut SnapshotReceiver, bytes: &[u8], from: usize, end: usize) -> Result<(), SnapshotError> {
    let mut offset = from;
    for chunk in bytes[from..end].chunks(CHUNK) {
        receiver.write(offset as u64, chunk)?;
        offset += chunk.len();
    }
    Ok(())
}

/// Receives what is missing, to the end.
fn receive(store: &SnapshotStore, info: SnapshotInfo, bytes: &[u8]) -> Result<SnapshotInfo, SnapshotError> {
    let (mut receiver, offset) = resume(store, info)?;
    feed(&mut receiver, bytes, offset, bytes.len())?;
    assert!(receiver.is_complete());
    receiver.finish()
}

fn is_damaged(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Damaged { .. })
}

#[test]
fn what_comes_in_chunks_is_the_same_file() {
    let (info, bytes) = source();
    let disk = disk_with_two();
    let store = open(&disk);
    assert_eq!(receive(&store, info, &bytes).expect("healthy"), info);
    assert!(disk.bytes(&snapshot_name(AT)) == bytes);
    let later = open(&disk.crash(Survivors::None));
    assert_holds(&later, AT, &some_items());
    assert_eq!(later.info(AT).expect("healthy"), info);
    assert_eq!(later.list().expect("healthy").len(), 2);
    let empty = SimulatedDisk::new(5);
    let nothing = write(&open(&empty), AT, &[]).expect("healthy");
    let fresh = SimulatedDisk::new(6);
    receive(&open(&fresh), nothing, &empty.bytes(&snapshot_name(AT))).expect("healthy");
    assert_holds(&open(&fresh), AT, &[]);
}

#[test]
fn chunks_come_in_order_and_a_broken_connection_costs_nothing() {
    let (info, bytes) = source();
    let store = open(&SimulatedDisk::new(1));
    let mut receiver = store.receive(info).expect("healthy");
    assert!(matches!(receiver.write(0, &bytes[..10]), Err(SnapshotError::OutOfPlace { .. })), "resumed first");
    assert_eq!(receiver.resume().expect("healthy"), Some(0));
    feed(&mut receiver, &bytes, 0, 123_456).expect("right");
    for offset in [0, 123_455, 123_457, bytes.len()] {
        let refused = receiver.write(offset as u64, &bytes[offset..]);
        assert!(matches!(refused, Err(SnapshotError::OutOfPlace { expected: 123_456 })), "{refused:?}");
    }
    assert_eq!(receiver.resume().expect("healthy"), Some(123_456));
    feed(&mut receiver, &bytes, 123_456, bytes.len()).expect("right");
    assert_eq!(receiver.finish().expect("healthy"), info);
}

#[test]
fn one_that_is_not_complete_is_kept_and_another_takes_its_place() {
    let (info, bytes) = source();
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let (mut receiver, _) = resume(&store, info).expect("healthy");
    feed(&mut receiver, &bytes, 0, 300_000).expect("right");
    assert!(!receiver.is_complete());
    assert!(matches!(receiver.finish(), Err(SnapshotError::OutOfPlace { expected: 300_000 })));
    let (_, offset) = resume(&store, info).expect("healthy");
    assert!(offset > 150_000 && offset < 300_000, "{offset}: the last whole block");
    let other = SimulatedDisk::new(8);
    let other_info = write(&open(&other), EntryId::new(31, 3), &items(&[9])).expect("healthy");
    receive(&store, other_info, &other.bytes(&snapshot_name(other_info.at))).expect("healthy");
    assert_eq!(disk.names(), [snapshot_name(other_info.at)]);
}

// museum 32, 42
#[test]
fn damage_on_the_way_is_found_when_it_comes() {
    let (info, bytes) = source();
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    for at in (0..bytes.len()).step_by(70_001).chain([10, bytes.len() - 1]) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x10;
        let (mut receiver, offset) = resume(&store, info).expect("healthy");
        assert_eq!(offset, 0, "nothing is left of the one before");
        let error = feed(&mut receiver, &wrong, 0, wrong.len()).expect_err("damaged");
        assert!(is_damaged(&error), "byte {at}: {error}");
        let end = receiver.resume().expect("as it was").expect("resumed");
        assert!(matches!(receiver.write(end, b""), Err(SnapshotError::Ended)));
        assert_eq!(disk.names(), [""; 0]);
    }
    receive(&store, info, &bytes).expect("and then it is right");
}

#[test]
fn what_was_not_announced_is_refused() {
    let (info, bytes) = source();
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let refused = |store: &SnapshotStore, info, bytes: &[u8]| {
        let error = receive(store, info, bytes).expect_err("refused");
        assert!(is_damaged(&error), "{error}");
        assert_eq!(disk.names(), [""; 0]);
    };
    refused(&store, SnapshotInfo { at: EntryId::new(30, 4), ..info }, &bytes);
    let other_id = raftkv_protocol::types::SnapshotId(info.id.0 ^ 1);
    refused(&store, SnapshotInfo { id: other_id, ..info }, &bytes);
    let other_shard = SnapshotStore::open(Arc::new(disk.clone()), ShardId(6)).expect("healthy");
    refused(&other_shard, info, &bytes);
    let shorter = SnapshotInfo { bytes: info.bytes - 1, ..info };
    refused(&store, shorter, &bytes);
    refused(&store, shorter, &bytes[..bytes.len() - 1]);
    let mut longer = bytes.clone();
    longer.push(0);
    refused(&store, SnapshotInfo { bytes: info.bytes + 1, ..info }, &longer);
}

// museum 29, rule 10
#[test]
fn receiving_one_may_die_at_any_operation_and_goes_on() {
    let (info, bytes) = source();
    let before = disk_with_two();
    let mut resumed = 0;
    for operation in 0.. {
        let disk = before.fork();
        let store = open(&disk);
        disk.die_at(operation);
        let is_done = receive(&store, info, &bytes).is_ok();
        let died = disk.is_off();
        let crashed: Vec<SimulatedDisk> = all_survivors().map(|survivors| disk.crash(survivors)).collect();
        disk.restart();
        for after in crashed.into_iter().chain([disk]) {
            let store = open(&after);
            if !store.list().expect("healthy").contains(&AT) {
                assert!(!is_done, "dead at operation {operation}");
                let (mut receiver, offset) = resume(&store, info).expect("healthy again");
                resumed += usize::from(offset > 0);
                feed(&mut receiver, &bytes, offset, bytes.len()).expect("healthy again");
                receiver.finish().expect("healthy again");
            }
            assert!(after.bytes(&snapshot_name(AT)) == bytes, "dead at operation {operation}");
            check_after_start(&after.crash(Survivors::None), AT, true, &format!("dead at operation {operation}"));
        }
        if !died {
            assert!(operation > 8 && resumed > 20, "{operation} operations, {resumed} resumed");
            return;
        }
    }
}

#[test]
fn what_an_earlier_process_could_not_sync_is_written_again() {
    let (info, bytes) = source();
    let disk = SimulatedDisk::new(1);
    let name = format!("receiving-{}.snap", info.id);
    disk.create(&name, 0).expect("space");
    disk.sync_dir().expect("healthy");
    let mut file = disk.open(&name, Access::Grow).expect("it is there");
    file.write_at(0, &bytes[..400_000]).expect("healthy");
    disk.fail_sync(0);
    file.sync().expect_err("EIO");
    disk.restart();
    let store = open(&disk);
    let (mut receiver, offset) = resume(&store, info).expect("healthy");
    assert!(offset > 300_000, "the page cache shows all of it: {offset}");
    feed(&mut receiver, &bytes, offset, bytes.len()).expect("healthy");
    receiver.finish().expect("healthy");
    assert_holds(&open(&disk.crash(Survivors::None)), AT, &some_items());
}

#[test]
fn what_lies_behind_the_last_right_block_is_cut_off() {
    let (info, bytes) = source();
    let name = format!("receiving-{}.snap", info.id);
    let other = SimulatedDisk::new(8);
    write(&open(&other), AT, &some_items()).expect("healthy");
    let garbage = |from: usize| [&bytes[..from], &vec![0xaa; bytes.len()]].concat();
    let mut beginnings = vec![(garbage(10), false), (garbage(400_000), true), (garbage(bytes.len()), true)];
    // Of another snapshot, under this one's name.
    beginnings.push((other.bytes(&snapshot_name(AT))[..400_000].to_vec(), false));
    for (beginning, is_used) in beginnings {
        let disk = SimulatedDisk::new(1);
        let store = open(&disk);
        disk.set_bytes(&name, beginning);
        assert_eq!(resume(&store, info).expect("healthy").1 > 0, is_used);
        receive(&store, info, &bytes).expect("healthy");
        let later = disk.crash(Survivors::None);
        assert!(later.bytes(&snapshot_name(AT)) == bytes);
    }
    // It ends where no announcement said that it would.
    let store = open(&SimulatedDisk::new(1));
    let (mut receiver, _) = resume(&store, info).expect("healthy");
    feed(&mut receiver, &bytes, 0, bytes.len()).expect("healthy");
    let shorter = SnapshotInfo { bytes: info.bytes - 1, ..info };
    assert_eq!(resume(&store, shorter).expect("healthy").1, 0);
}

#[test]
fn an_operation_that_fails_takes_the_file_with_it() {
    let (info, bytes) = source();
    let before = disk_with_two();
    let mut failures = 0;
    for operation in 0..20 {
        let disk = before.fork();
        let store = open(&disk);
        disk.fail_at(operation);
        if let Err(error) = receive(&store, info, &bytes) {
            assert!(matches!(error, SnapshotError::Disk { .. }), "operation {operation}: {error}");
            failures += 1;
            let (_, offset) = resume(&store, info).expect("healthy again");
            assert_eq!(offset, 0, "operation {operation}");
            receive(&store, info, &bytes).expect("healthy again");
        }
        check_after_start(&disk.crash(Survivors::None), AT, true, &format!("operation {operation} failed"));
    }
    assert!(failures > 6, "{failures}");
}

// museum 41, rule 17
#[test]
fn a_full_disk_refuses_a_chunk_and_is_left_as_it_was() {
    let (info, bytes) = source();
    let before = disk_with_two();
    let used = before.used();
    for room in (0..info.bytes).step_by(9_973).chain([info.bytes - 1]) {
        let disk = before.fork();
        let store = open(&disk);
        // Others fill the disk while it comes.
        let (mut receiver, offset) = resume(&store, info).expect("there is room");
        disk.set_capacity(Some(used + room));
        let error = feed(&mut receiver, &bytes, offset, bytes.len()).expect_err("there is no room");
        drop(receiver);
        assert!(matches!(error, SnapshotError::NoSpace { .. }), "{room} bytes: {error}");
        assert_eq!((store.list().expect("healthy").len(), disk.used()), (2, used), "{room} bytes");
        let refused = store.receive(info).expect_err("it would not fit");
        assert!(matches!(refused, SnapshotError::NoRoom { .. }), "{room} bytes: {refused}");
        disk.set_capacity(None);
        receive(&store, info, &bytes).expect("there is room again");
    }
}

/// They were kept to be looked at; what comes takes their place anyway once it is whole.
// rule 17
#[test]
fn snapshots_that_were_set_aside_make_room_for_one_that_comes_where_there_is_none() {
    let (info, bytes) = source();
    for (is_short, kept) in [(false, 2), (true, 0)] {
        let disk = disk_with_two();
        let store = open(&disk);
        for at in store.list().expect("healthy") {
            store.set_aside(at).expect("healthy");
        }
        let set_aside = || disk.names().iter().filter(|name| name.starts_with("damaged-")).count();
        assert_eq!(set_aside(), 2);
        let room = if is_short { info.bytes - 1 } else { info.bytes };
        disk.set_capacity(Some(disk.used() + room));
        let (mut receiver, offset) = resume(&store, info).expect("there is room");
        assert_eq!(set_aside(), kept);
        feed(&mut receiver, &bytes, offset, bytes.len()).expect("there is room");
    }
}

#[test]
fn an_unreadable_rest_is_given_up() {
    let (info, bytes) = source();
    let disk = SimulatedDisk::new(1);
    let store = open(&disk);
    let (mut receiver, _) = resume(&store, info).expect("healthy");
    feed(&mut receiver, &bytes, 0, 200_000).expect("healthy");
    drop(receiver);
    disk.set_unreadable(&disk.names()[0], true);
    assert!(matches!(resume(&store, info), Err(SnapshotError::Disk { .. })));
    receive(&store, info, &bytes).expect("from the beginning");
}
