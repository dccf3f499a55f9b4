//! Snapshots where the disk has no room for them: what is written where, and what never goes for it.

use std::collections::BTreeSet;

use raftkv_protocol::peer::SnapshotMeta;

use super::worker_test::{Bench, failure, grow, newest_of, received, state_of, take, take_when_full};
use super::{Done, Failure, Loaded};
use crate::state_machine::StateMachine;
use crate::storage::simulated_disk::Survivors;

/// Two snapshots on a disk that takes nothing more, and what they are of.
fn full_with_two(seed: u64) -> (Bench, StateMachine, [SnapshotMeta; 2]) {
    let bench = Bench::new(seed);
    let mut machine = state_of(3_000, 300);
    let first = bench.take(&machine);
    grow(&mut machine, 0..10, &[8; 300]);
    let second = bench.take(&machine);
    bench.disk.set_full(true);
    (bench, machine, [first, second])
}

// museum 41, rule 17
#[test]
fn a_state_for_which_the_disk_has_no_room_is_written_over_the_older_snapshot() {
    let (bench, mut machine, [first, second]) = full_with_two(1);
    assert!(bench.piece(first.id, 0).is_some());
    let mut kept = second;
    for (keys, bytes) in [(0..10, 300), (0..3_000, 299), (5..10, 4), (0..1, 200)] {
        grow(&mut machine, keys, &vec![9; bytes]);
        let taken = bench.take(&machine);
        let files = [kept, taken].map(|meta| (crate::storage::snapshot::snapshot_name(meta.at), meta.bytes));
        assert_eq!(bench.disk.names(), files.each_ref().map(|(name, _)| name.clone()));
        for (name, bytes) in files {
            assert_eq!(bench.disk.bytes(&name).len() as u64, bytes);
        }
        let Loaded { meta, machine: loaded, .. } = newest_of(&bench.disk);
        assert_eq!((meta, loaded.hash()), (taken, machine.hash()));
        kept = taken;
    }
    assert_eq!(bench.piece(first.id, 0), None, "nobody is given what was written over it");

    // What is longer than the older one does not fit, and takes nothing away.
    let names = bench.disk.names();
    grow(&mut machine, 3_000..4_000, &[1; 300]);
    assert!(matches!(failure(bench.one(take(&machine))), Failure::NoSpace(_)));
    assert_eq!((bench.disk.names(), newest_of(&bench.disk).meta), (names, kept));
}

/// What is free the log takes while the snapshot is written, and the older one would be gone for nothing.
// museum 41, rule 17
#[test]
fn the_older_snapshot_goes_only_for_what_fits_into_its_own_bytes() {
    let (bench, mut machine, [_, second]) = full_with_two(1);
    bench.disk.set_full(false);
    bench.disk.set_capacity(Some(bench.disk.used() + 100_000));
    let names = bench.disk.names();
    grow(&mut machine, 0..100, &[1; 301]);
    for job in [take(&machine), take_when_full(&machine)] {
        let refused = failure(bench.one(job));
        assert!(matches!(refused, Failure::NoSpace(_)), "{refused:?}");
        assert_eq!((bench.disk.names(), newest_of(&bench.disk).meta), (names.clone(), second));
    }
    grow(&mut machine, 0..100, &[1; 299]);
    bench.take(&machine);
}

/// What is free there is the log's.
// rule 17
#[test]
fn while_the_log_lacks_space_a_snapshot_takes_no_more_of_it_than_it_must() {
    let (bench, mut machine, _) = full_with_two(1);
    bench.disk.set_full(false);
    let used = bench.disk.used();
    let most_used = |machine: &StateMachine| {
        bench.loop_end.send(take_when_full(machine));
        let mut most = 0;
        while bench.hands.next_effort().is_some() {
            bench.hands.work();
            most = most.max(bench.disk.used());
        }
        let done = bench.loop_end.done();
        assert!(matches!(done, Some(Done::Taken { .. })), "{done:?}");
        most
    };
    grow(&mut machine, 0..10, &[9; 300]);
    assert_eq!(most_used(&machine), used, "it is written over the older one");
    grow(&mut machine, 3_000..4_000, &[1; 300]);
    assert!(most_used(&machine) > used, "there is room for what fits nowhere else");
    let only = Bench::new(2);
    assert!(matches!(only.one(take_when_full(&machine)), Done::Taken { .. }), "there is no older one");
}

// museum 48, 41
#[test]
fn a_state_that_memory_has_not_kept_costs_no_older_snapshot() {
    let (bench, mut machine, _) = full_with_two(4);
    let names = bench.disk.names();
    grow(&mut machine, 0..1, b"more");
    assert!(machine.flip_byte(b"key002999"));
    for job in [take(&machine), take_when_full(&machine)] {
        assert!(matches!(bench.one(job), Done::Corrupt { .. }));
        assert_eq!(bench.disk.names(), names);
    }
}

/// It would be the only one.
#[test]
fn a_damaged_newer_snapshot_does_not_cost_the_older_one() {
    let (bench, mut machine, [first, second]) = full_with_two(2);
    bench.disk.flip(&crate::storage::snapshot::snapshot_name(second.at), second.bytes / 2, 3);
    grow(&mut machine, 0..10, &[9; 300]);
    let failure = failure(bench.one(take(&machine)));
    assert!(failure.words().contains("damaged"), "{failure:?}");
    assert_eq!(newest_of(&bench.disk).meta, first);
}

/// At every operation of it the power goes: the newer one is there, or the new one besides.
// museum 29, 41
#[test]
fn whatever_a_crash_leaves_of_a_snapshot_over_another_there_is_a_whole_one() {
    let mut found = BTreeSet::new();
    for operation in 0.. {
        let (bench, mut machine, [_, second]) = full_with_two(3);
        grow(&mut machine, 0..10, &[9; 300]);
        bench.disk.die_at(operation);
        bench.all(take(&machine));
        for seed in 0..8 {
            let survivors = match seed {
                0 => Survivors::None,
                1 => Survivors::All,
                _ => Survivors::Random { seed, block: 4_096 },
            };
            let newest = newest_of(&bench.disk.crash(survivors)).meta.at;
            assert!([second.at.index, machine.applied()].contains(&newest.index), "operation {operation}: {newest}");
            found.insert(newest.index);
        }
        if !bench.disk.is_off() {
            break;
        }
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn no_space_is_a_refusal_and_leaves_what_was_there() {
    let bench = Bench::new(1);
    let first = bench.take(&state_of(10, 10));
    let source = Bench::new(2);
    let other = source.take(&state_of(2_000, 500));
    received(bench.receive(other));
    bench.disk.set_capacity(Some(bench.disk.used() + 100_000));
    let machine = state_of(2_000, 500);
    let refused = failure(bench.one(take(&machine)));
    assert!(matches!(refused, Failure::NoSpace(_)), "{refused:?}");
    let mut upto = 0;
    let refused = loop {
        let (_, bytes) = source.piece(other.id, upto).expect("it is there");
        match bench.write(other, upto, bytes) {
            Done::Received { upto: now, .. } => upto = now,
            done => break failure(done),
        }
    };
    assert!(matches!(refused, Failure::NoSpace(_)), "{refused:?}");
    assert!(bench.piece(first.id, 0).is_some());
    bench.disk.set_capacity(None);
    assert_eq!(bench.take(&machine).at, machine.snapshot().at(), "space has returned");
}

/// Nothing of it is fetched: gigabytes would come each time that it is tried again.
#[test]
fn a_snapshot_for_which_there_is_no_room_is_not_begun() {
    let (source, sink) = (Bench::new(1), Bench::new(2));
    let meta = source.take(&state_of(2_000, 500));
    sink.disk.set_capacity(Some(meta.bytes - 1));
    let refused = failure(sink.receive(meta));
    let takes = format!("it takes {} bytes, and the disk has {} left", meta.bytes, meta.bytes - 1);
    assert!(matches!(&refused, Failure::NoSpace(words) if words.contains(&takes)), "{refused:?}");
    assert!(sink.disk.names().is_empty());
    sink.disk.set_capacity(Some(meta.bytes));
    received(sink.receive(meta));
    sink.fetch(&source, meta, 0, meta.bytes / 2);
    assert!(received(sink.receive(meta)) > meta.bytes / 3, "what is there already needs no room");
}

/// A snapshot is being written over the older one, the newer one is left, and the state is another since.
fn writing_over() -> (Bench, StateMachine, SnapshotMeta) {
    let (bench, mut machine, [_, second]) = full_with_two(6);
    grow(&mut machine, 0..10, &[9; 300]);
    bench.loop_end.send(take(&machine));
    while bench.disk.names().iter().filter(|name| name.starts_with("snapshot-")).count() > 1 {
        bench.hands.work();
    }
    (bench, machine, second)
}

/// The same after a kill, and a start.
fn killed_while_writing_over() -> (Bench, StateMachine, SnapshotMeta) {
    let (bench, machine, second) = writing_over();
    let disk = bench.disk.clone();
    std::mem::forget(bench);
    disk.crash_in_place(Survivors::Random { seed: 6, block: 512 });
    (Bench::on(disk), machine, second)
}

/// The room of the older one would be lost to others, and no snapshot would come any more.
// museum 41, rule 17
#[test]
fn a_snapshot_that_a_kill_ends_while_it_is_written_over_another_is_written_there_in_the_end() {
    let (bench, machine, second) = killed_while_writing_over();
    assert_eq!(newest_of(&bench.disk).meta, second);
    let taken = bench.take(&machine);
    let Loaded { meta, machine: loaded, .. } = newest_of(&bench.disk);
    assert_eq!((meta, loaded.hash()), (taken, machine.hash()));
    assert_eq!(bench.disk.names().len(), 2);
}

#[test]
fn a_stop_keeps_the_room_of_a_snapshot_that_was_being_written_over_another() {
    let (bench, machine, second) = writing_over();
    let disk = bench.disk.clone();
    drop(bench);
    let bench = Bench::on(disk);
    assert_eq!((newest_of(&bench.disk).meta, bench.disk.names().len()), (second, 2));
    bench.take(&machine);
}

/// Room that is kept keeps nothing out for which there is room with it.
#[test]
fn what_is_longer_than_the_room_that_was_kept_takes_what_is_free_beside_it() {
    let (bench, mut machine, second) = killed_while_writing_over();
    grow(&mut machine, 3_000..3_100, &[1; 300]);
    bench.disk.set_full(false);
    bench.disk.set_capacity(Some(bench.disk.used() + 10_000));
    assert!(matches!(failure(bench.one(take(&machine))), Failure::NoSpace(_)), "too little");
    assert_eq!((newest_of(&bench.disk).meta, bench.disk.names().len()), (second, 2), "and it is kept");
    bench.disk.set_capacity(Some(bench.disk.used() + 100_000));
    assert!(bench.take(&machine).bytes > second.bytes);
    assert_eq!(bench.disk.names().len(), 2);
}

#[test]
fn a_snapshot_that_comes_from_another_node_gets_the_room_that_was_kept() {
    let (bench, mut machine, second) = killed_while_writing_over();
    let source = Bench::new(7);
    grow(&mut machine, 0..10, &[3; 300]);
    let meta = source.take(&machine);
    bench.disk.set_full(false);
    bench.disk.set_capacity(Some(bench.disk.used() + 10_000));
    bench.fetch(&source, meta, received(bench.receive(meta)), meta.bytes);
    bench.install(meta);
    assert!(second.at.index < meta.at.index);
    assert_eq!(newest_of(&bench.disk).meta.at, meta.at);
}
