use std::path::Path;
use std::time::Instant;

use raftkv::storage::disk::{Access, Disk};

use super::agenda::LoopId;
use super::damage::{DamagedFile, Harm};
use super::endings::Reason;
use super::machine::Machine;
use super::plan::Plan;
use super::random::Random;

fn machine() -> Machine {
    let mut random = Random::new(1);
    let plan = Plan { nodes: 3, cores: 1, ..Plan::draw(&mut random) };
    Machine::new(0, &plan, vec![LoopId(0)], Path::new("nowhere"), Instant::now(), &mut random)
}

/// Its disk fails the next sync, which is of this file.
fn fail_sync_of(machine: &Machine, name: &str) {
    let disk = &machine.disks[0];
    disk.create(name, 4_096).expect("room");
    let mut file = disk.open(name, Access::Place { size: 4_096 }).expect("it is there");
    disk.fail_sync(0);
    file.sync().expect_err("the sync fails");
}

fn of_sync(name: &str) -> String {
    format!("cannot write the log /simulated/{name} at offset 8192: Input/output error (os error 5); check the disk")
}

#[test]
fn a_sync_that_is_to_fail_excuses_nothing_before_it_has() {
    let machine = machine();
    machine.disks[0].fail_sync(3);
    assert_eq!(machine.reason(&of_sync("segment-1")), None);
    assert_eq!(machine.reason("shard 2: entry 5@1: unreadable command"), None);
}

#[test]
fn a_sync_that_has_failed_excuses_what_it_was_of_and_only_in_that_process() {
    let mut machine = machine();
    fail_sync_of(&machine, "segment-1");
    assert_eq!(machine.reason(&of_sync("segment-1")), Some(Reason::FailedSync));
    assert_eq!(machine.reason(&of_sync("segment-2")), None);
    assert_eq!(
        machine.reason("the log is corrupt: /simulated/segment-1 at offset 4096: a record's length is wrong"),
        None
    );
    machine.ended();
    assert_eq!(machine.reason(&of_sync("segment-1")), None);
}

#[test]
fn only_a_full_disk_has_no_room() {
    let machine = machine();
    let words = "cannot allocate a log segment of 65536 bytes in /simulated/: No space left on device (os error 28); free \
                 space there and start again";
    let last_words = "the disk is full: the last batch of the log was not written";
    assert_eq!((machine.reason(words), machine.reason(last_words)), (None, None));
    machine.disks[0].set_full(true);
    assert_eq!(machine.reason(words), Some(Reason::NoRoom));
    assert_eq!(machine.reason(last_words), Some(Reason::NoRoomToStop));
    assert_eq!(machine.reason("cannot allocate a log segment in /simulated/: something else; free space there"), None);
}

#[test]
fn damage_excuses_what_names_it() {
    let mut machine = machine();
    let words =
        |name: &str| format!("the log is corrupt: /simulated/{name} at offset 4096: a record's length is wrong");
    machine.harm = Harm::Lurking;
    machine.is_alone = true;
    assert_eq!(machine.reason(&words("segment-1")), Some(Reason::Refused));
    assert_eq!(machine.reason("the data directory is in use"), None);
    machine.harm = Harm::None;
    assert_eq!(machine.reason(&words("segment-1")), None);
}

#[test]
fn damage_goes_with_the_file_when_it_gets_another_name() {
    let machine = machine();
    let disk = machine.disks[0].clone();
    disk.create("segment-1", 4_096).expect("room");
    let file = DamagedFile::of(&disk, 0, "segment-1");
    disk.rename("segment-1", "spare-2").expect("a file");
    assert!(file.is_named_in("cannot open the log segment /simulated/spare-2 as segment-7", &machine.disks));
    assert!(file.is_named_in("cannot read the log /simulated/segment-1 at offset 4096", &machine.disks));
    assert!(!file.is_named_in("cannot read the log /simulated/segment-2 at offset 4096", &machine.disks));
}
