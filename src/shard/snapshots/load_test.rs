//! What a shard begins with after a start.

use raftkv_protocol::types::{EntryId, Term};

use super::worker_test::{Bench, SHARD, grow, state_of, stores};
use super::{Found, Unfound, find};
use crate::storage::RecoveredShard;
use crate::storage::simulated_disk::SimulatedDisk;
use crate::storage::snapshot::snapshot_name;

/// A log after the entry at `start` that ends at `last`, all of term 1.
fn log(start: u64, last: u64) -> RecoveredShard {
    let id = if start == 0 { EntryId::ZERO } else { EntryId::new(start, 1) };
    RecoveredShard { start: id, entries: vec![(Term(1), 10); (last - start) as usize], ..RecoveredShard::default() }
}

/// Snapshots as of the entries 100, 150 and 200, the first of which is removed by the third.
fn with_two() -> SimulatedDisk {
    let bench = Bench::on(SimulatedDisk::new(1));
    let mut machine = state_of(100, 50);
    bench.take(&machine);
    for _ in 0..2 {
        grow(&mut machine, 0..50, b"later");
        bench.take(&machine);
    }
    bench.disk
}

fn name(index: u64) -> String {
    snapshot_name(EntryId::new(index, 1))
}

fn look(disk: &SimulatedDisk, log: &RecoveredShard) -> Result<(Option<u64>, Option<u64>), Unfound> {
    let Found { loaded, older } = find(&stores(disk), SHARD, log)?;
    if let Some(loaded) = &loaded {
        assert_eq!(loaded.machine.applied(), loaded.meta.at.index);
    }
    let index = |at: EntryId| at.index.0;
    Ok((loaded.map(|loaded| index(loaded.meta.at)), older.map(|older| index(older.at))))
}

#[test]
fn the_newest_is_loaded_and_the_older_is_known_if_the_log_reaches_back_to_it() {
    let disk = with_two();
    assert_eq!(look(&disk, &log(150, 230)), Ok((Some(200), Some(150))));
    assert_eq!(look(&disk, &log(100, 230)), Ok((Some(200), Some(150))));
    assert_eq!(look(&disk, &log(151, 230)), Ok((Some(200), None)));
    assert_eq!(look(&disk, &log(200, 200)), Ok((Some(200), None)));
    assert_eq!(look(&SimulatedDisk::new(2), &log(0, 230)), Ok((None, None)));
}

// museum 32
#[test]
fn the_older_takes_the_place_of_a_damaged_one() {
    for byte in [0, 30, 200, 1_000] {
        let disk = with_two();
        disk.flip(&name(200), byte, 3);
        assert_eq!(look(&disk, &log(150, 230)), Ok((Some(150), None)), "byte {byte}");
        assert!(!disk.names().contains(&name(200)), "it is set aside");
        assert_eq!(look(&disk, &log(150, 230)), Ok((Some(150), None)), "and not looked at again");
    }
    let disk = with_two();
    disk.truncate_quietly(&name(200), 10);
    assert_eq!(look(&disk, &log(150, 230)), Ok((Some(150), None)));
    let disk = with_two();
    disk.set_unreadable(&name(200), true);
    assert_eq!(look(&disk, &log(150, 230)), Ok((Some(150), None)));
}

// museum 30, 32
#[test]
fn a_log_that_goes_on_from_no_snapshot_is_refused() {
    let disk = with_two();
    disk.flip(&name(200), 100, 3);
    let gone = |unfound: Unfound| match unfound {
        Unfound::Gone(words) => words,
        Unfound::Unreadable(words) => panic!("nothing is unreadable: {words}"),
    };
    let refused = gone(look(&disk, &log(151, 230)).expect_err("entries 151 to 200 are nowhere"));
    assert!(refused.contains("begins after entry 151@1") && refused.contains("200@1"), "{refused}");
    let refused = gone(look(&SimulatedDisk::new(2), &log(7, 9)).expect_err("the first seven are nowhere"));
    assert!(refused.contains("shard 3") && refused.contains("there is none"), "{refused}");
    let disk = with_two();
    disk.flip(&name(200), 100, 3);
    disk.flip(&name(150), 100, 3);
    assert_eq!(look(&disk, &log(0, 230)), Ok((None, None)), "all of it is in the log");
    let disk = with_two();
    disk.set_unreadable(&name(200), true);
    disk.set_unreadable(&name(150), true);
    let refused = look(&disk, &log(150, 230));
    assert!(matches!(refused, Err(Unfound::Unreadable(_))), "they may be whole: {refused:?}");
    // Of a file with a bad sector nobody will ever have all.
    let disk = with_two();
    disk.spoil_block(&name(200), 1);
    assert_eq!(look(&disk, &log(150, 230)), Ok((Some(150), None)));
    assert!(disk.names().iter().any(|name| name.starts_with("damaged-")), "{:?}", disk.names());
    disk.spoil_block(&name(150), 0);
    let refused = gone(look(&disk, &log(150, 230)).expect_err("none is left"));
    assert!(refused.contains("begins after entry 150@1"), "{refused}");
}

// museum 29
#[test]
fn a_snapshot_that_the_log_does_not_hold_is_loaded_nevertheless_and_stands_alone() {
    let disk = with_two();
    assert_eq!(look(&disk, &log(0, 120)), Ok((Some(200), None)), "it is ahead of the log");
    let mut other = log(0, 230);
    other.entries[199] = (Term(0), 10);
    assert_eq!(look(&disk, &other), Ok((Some(200), None)), "the log holds another entry there");
}
