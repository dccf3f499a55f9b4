//! The power goes, the process dies, the disk fails or is full, at every step of taking a snapshot.

use raftkv_protocol::types::EntryId;

use super::store_test::{Owned, assert_holds, items, open, write};
use super::{SnapshotError, SnapshotStore, snapshot_name};
use crate::storage::simulated_disk::{SimulatedDisk, Survivors};

const OLD: [EntryId; 2] = [EntryId::new(20, 3), EntryId::new(10, 2)];
const NEW: EntryId = EntryId::new(30, 3);
const NEXT: EntryId = EntryId::new(40, 3);

/// So many that a file is written in several goes.
pub(super) fn some_items() -> Vec<Owned> {
    items(&[20, 150 << 10, 150 << 10, 60 << 10, 5 << 10, 150 << 10])
}

/// A disk with two snapshots on it.
pub(super) fn disk_with_two() -> SimulatedDisk {
    let disk = SimulatedDisk::new(11);
    let store = open(&disk);
    for at in OLD.into_iter().rev() {
        write(&store, at, &some_items()).expect("healthy");
    }
    disk
}

/// What a crash may leave.
pub(super) fn all_survivors() -> impl Iterator<Item = Survivors> {
    let random = (0..8).map(|seed| Survivors::Random { seed, block: if seed % 2 == 0 { 512 } else { 4096 } });
    [Survivors::None, Survivors::All].into_iter().chain(random)
}

/// After a start: the old ones are whole; `new` is whole or not there, and is there if `is_done`; nothing else is left,
/// and it goes on.
pub(super) fn check_after_start(disk: &SimulatedDisk, new: EntryId, is_done: bool, context: &str) {
    let store = open(disk);
    let found = store.list().expect("healthy");
    let with_new = [new, OLD[0], OLD[1]];
    let is_right = found == with_new || found == with_new[..2] || (!is_done && found == OLD);
    assert!(is_right, "{context}: {found:?}");
    found.iter().for_each(|at| assert_holds(&store, *at, &some_items()));
    check_goes_on(&store, disk, context);
}

/// Only snapshots are left, and the next one is taken, durably.
fn check_goes_on(store: &SnapshotStore, disk: &SimulatedDisk, context: &str) {
    let mut names: Vec<String> = store.list().expect("healthy").into_iter().map(snapshot_name).collect();
    names.reverse();
    assert_eq!(disk.names(), names, "{context}");
    write(store, NEXT, &some_items()).expect("healthy again");
    assert_eq!(store.list().expect("healthy").len(), 2, "{context}");
    assert_holds(&open(&disk.crash(Survivors::None)), NEXT, &some_items());
}

// museum 29
#[test]
fn taking_one_may_die_at_any_operation() {
    let before = disk_with_two();
    for operation in 0.. {
        let disk = before.fork();
        let store = open(&disk);
        disk.die_at(operation);
        let is_done = write(&store, NEW, &some_items()).is_ok();
        let died = disk.is_off();
        for survivors in all_survivors() {
            let context = format!("dead at operation {operation}, {survivors:?}");
            check_after_start(&disk.crash(survivors), NEW, is_done, &context);
        }
        disk.restart();
        check_after_start(&disk, NEW, is_done, &format!("killed at operation {operation}"));
        if !died {
            assert!(operation >= 8, "{operation} operations");
            return;
        }
    }
}

#[test]
fn any_operation_may_fail_once() {
    let before = disk_with_two();
    let mut failures = 0;
    for operation in 0..20 {
        let disk = before.fork();
        let store = open(&disk);
        disk.fail_at(operation);
        let taken = write(&store, NEW, &some_items());
        disk.restart();
        let context = format!("operation {operation} failed");
        if let Err(error) = &taken {
            assert!(matches!(error, SnapshotError::Disk { .. }), "{context}: {error}");
            assert_eq!(store.list().expect("healthy again"), OLD, "{context}");
            failures += 1;
        }
        check_after_start(&disk.crash(Survivors::None), NEW, taken.is_ok(), &context);
        check_goes_on(&store, &disk, &context);
    }
    assert!(failures >= 6, "{failures}");
}

// museum 41, rule 17
#[test]
fn a_full_disk_refuses_and_is_left_as_it_was() {
    let before = disk_with_two();
    let bytes = before.bytes(&snapshot_name(OLD[0])).len() as u64;
    let used = before.used();
    for room in (0..bytes).step_by(9_973).chain([bytes - 1]) {
        let disk = before.fork();
        let store = open(&disk);
        disk.set_capacity(Some(used + room));
        let error = write(&store, NEW, &some_items()).expect_err("there is no room");
        assert!(matches!(error, SnapshotError::NoSpace { .. }), "{room} bytes: {error}");
        assert_eq!((store.list().expect("healthy"), disk.used()), (OLD.to_vec(), used), "{room} bytes");
        disk.set_capacity(None);
        check_goes_on(&store, &disk, "there is room again");
    }
    let disk = before.fork();
    let store = open(&disk);
    disk.set_full(true);
    let error = store.create(NEW, b"", b"").expect_err("not even a name");
    assert!(matches!(error, SnapshotError::NoSpace { .. }), "{error}");
    disk.set_full(false);
    disk.set_capacity(Some(used + bytes));
    assert!(write(&store, NEW, &some_items()).is_ok(), "just enough");
}
