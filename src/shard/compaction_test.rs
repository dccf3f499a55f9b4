//! When a snapshot is due, and where the log may begin after it.

use std::time::{Duration, Instant};

use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, Index, SnapshotId};

use super::compaction::Compaction;
use crate::state_machine::{Snapshot, StateMachine};

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { id: SnapshotId(index + 1_000), at: EntryId::new(index, 2), bytes: 1 }
}

fn state(index: u64) -> Snapshot {
    use raftkv_protocol::types::{Entry, EntryKind};
    let mut machine = StateMachine::default();
    for index in 1..=index {
        let entry = Entry { id: EntryId::new(index, 2), kind: EntryKind::Noop, body: bytes::Bytes::new() };
        machine.apply(&entry).expect("a no-op applies");
    }
    machine.snapshot()
}

/// Entries of 10 bytes each, up to this index.
fn append(compaction: &mut Compaction, from: u64, upto: u64) {
    (from..=upto).for_each(|index| compaction.appended(10, Index(index)));
}

fn take(compaction: &mut Compaction, index: u64) {
    compaction.begin(state(index));
    let taken = compaction.take_begun(Index(index)).expect("it is durable");
    assert!(compaction.taken(SnapshotMeta { at: taken.at(), ..meta(index) }), "entry {index}");
}

fn start(compaction: &Compaction) -> Option<(u64, u64)> {
    compaction.start().map(|(index, meta)| (index.0, meta.at.index.0))
}

#[test]
fn a_snapshot_is_due_after_so_many_bytes_and_only_if_something_new_is_applied() {
    let now = Instant::now();
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 9);
    assert!(!compaction.is_due(Index(9), 100, now));
    append(&mut compaction, 10, 10);
    assert!(compaction.is_due(Index(10), 100, now));
    assert!(!compaction.is_due(Index(0), 100, now), "nothing is applied");
    take(&mut compaction, 10);
    assert!(!compaction.is_due(Index(10), 1, now), "nothing is new");
    append(&mut compaction, 11, 20);
    assert!(!compaction.is_due(Index(20), 101, now));
    assert!(compaction.is_due(Index(20), 100, now));
    compaction.begin(state(20));
    assert!(!compaction.is_due(Index(20), 100, now), "one is on its way");
}

// rule 8
#[test]
fn a_state_is_not_written_before_the_log_is_durable_up_to_it() {
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 10);
    compaction.begin(state(10));
    assert!(compaction.take_begun(Index(9)).is_none());
    assert!(compaction.is_taking());
    assert_eq!(compaction.take_begun(Index(10)).map(|state| state.at().index), Some(Index(10)));
    assert!(compaction.take_begun(Index(10)).is_none(), "once");
}

#[test]
fn a_snapshot_that_fails_is_tried_again_with_growing_pauses() {
    let mut now = Instant::now();
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 10);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        compaction.begin(state(10));
        assert!(compaction.take_begun(Index(10)).is_some());
        compaction.failed(now);
        assert!(!compaction.is_due(Index(10), 1, now + Duration::from_millis(pause * 1_000 - 1)), "after {pause} s");
        now += Duration::from_secs(pause);
        assert!(compaction.is_due(Index(10), 1, now), "after {pause} s");
    }
    take(&mut compaction, 10);
    append(&mut compaction, 11, 11);
    compaction.begin(state(11));
    compaction.failed(now);
    assert!(compaction.is_due(Index(11), 1, now + Duration::from_secs(1)), "the pause is short again");
}

// rule 14
#[test]
fn the_log_reaches_back_to_the_older_of_two_snapshots() {
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 10);
    take(&mut compaction, 10);
    assert_eq!(start(&compaction), None);
    append(&mut compaction, 11, 25);
    take(&mut compaction, 20);
    assert_eq!(start(&compaction), Some((10, 10)));
    compaction.compacted(Index(10));
    assert_eq!(compaction.log_bytes(), 150);
    append(&mut compaction, 26, 30);
    take(&mut compaction, 30);
    assert_eq!(start(&compaction), Some((20, 20)));
}

#[test]
fn a_tail_stays_for_followers_that_lag() {
    let mut compaction = Compaction::new(400);
    append(&mut compaction, 1, 100);
    take(&mut compaction, 60);
    take(&mut compaction, 100);
    // 400 bytes are 40 entries: 61 to 100, found in steps of an eighth.
    let (index, _) = start(&compaction).expect("something may go");
    assert!((55..=60).contains(&index), "{index}");
    append(&mut compaction, 101, 200);
    assert_eq!(start(&compaction), Some((60, 60)), "not beyond the older snapshot");
    take(&mut compaction, 200);
    assert_eq!(start(&compaction), Some((100, 100)));
    let mut short = Compaction::new(4_000);
    append(&mut short, 1, 100);
    take(&mut short, 60);
    take(&mut short, 100);
    assert_eq!(start(&short), None, "all of it is tail");
}

#[test]
fn entries_that_were_replaced_do_not_count_as_tail() {
    let mut compaction = Compaction::new(400);
    append(&mut compaction, 1, 100);
    take(&mut compaction, 50);
    take(&mut compaction, 60);
    // A later leader's entries take the places of 61 to 100.
    append(&mut compaction, 61, 70);
    let (index, _) = start(&compaction).expect("something may go");
    assert!(index <= 50, "{index}");
}

#[test]
fn an_installed_snapshot_is_the_only_one_that_a_new_log_reaches_back_to() {
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 10);
    take(&mut compaction, 5);
    take(&mut compaction, 10);
    assert!(compaction.installed(meta(100), true).is_none());
    assert_eq!((compaction.log_bytes(), start(&compaction)), (0, None));
    append(&mut compaction, 101, 110);
    take(&mut compaction, 110);
    assert_eq!(start(&compaction), Some((100, 100)));
    assert_eq!(compaction.log_bytes(), 100);
}

#[test]
fn an_installed_snapshot_whose_entries_the_log_holds_changes_nothing_of_the_log() {
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 30);
    take(&mut compaction, 10);
    assert!(compaction.installed(meta(20), false).is_none());
    assert_eq!((compaction.log_bytes(), start(&compaction)), (300, Some((10, 10))));
}

#[test]
fn a_snapshot_that_an_installed_one_overtakes_is_not_kept() {
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 10);
    compaction.begin(state(10));
    assert!(compaction.take_begun(Index(10)).is_some());
    assert!(compaction.installed(meta(100), true).is_none(), "the worker has it");
    assert!(!compaction.taken(meta(10)));
    assert_eq!(compaction.newest(), Some(meta(100)));
    append(&mut compaction, 101, 110);
    compaction.begin(state(110));
    let unwritten = compaction.installed(meta(200), true).expect("the state that was not written yet");
    assert_eq!(unwritten.at().index, Index(110));
    assert!(!compaction.is_taking());
}

#[test]
fn a_start_goes_on_where_the_process_before_it_was() {
    let sizes = || std::iter::repeat_n(10, 100);
    let compaction = Compaction::found(Index(50), sizes(), Some(meta(70)), Some(meta(100)), 0);
    assert_eq!((compaction.newest(), compaction.log_bytes()), (Some(meta(100)), 1_000));
    assert_eq!(compaction.bytes_since_newest(), 500);
    assert_eq!(start(&compaction), Some((70, 70)));
    let compaction = Compaction::found(Index(50), sizes(), None, Some(meta(50)), 0);
    assert_eq!((compaction.bytes_since_newest(), start(&compaction)), (1_000, None));
    let behind = Compaction::found(Index(50), sizes(), None, Some(meta(500)), 0);
    assert_eq!((behind.newest(), behind.log_bytes(), start(&behind)), (Some(meta(500)), 0, None));
}

#[test]
fn a_rotten_snapshot_is_replaced_at_once_even_if_nothing_is_new() {
    let now = Instant::now();
    let mut compaction = Compaction::new(0);
    append(&mut compaction, 1, 20);
    take(&mut compaction, 10);
    let older = compaction.newest().expect("one is kept").id;
    take(&mut compaction, 20);
    let newest = compaction.newest().expect("one is kept").id;
    assert_eq!(compaction.rotten(SnapshotId(1)), None);
    assert!(!compaction.is_due(Index(20), 1_000, now));
    assert_eq!(compaction.rotten(newest).map(|meta| meta.at.index), Some(Index(20)));
    assert!(compaction.is_due(Index(20), 1_000, now));
    assert_eq!(start(&compaction), None, "the one that is left may be rotten too");
    take(&mut compaction, 20);
    assert!(!compaction.is_due(Index(20), 1_000, now));
    assert_eq!(compaction.rotten(older).map(|meta| meta.at.index), Some(Index(10)));
    assert!(!compaction.is_due(Index(20), 1_000, now), "the newest is right");
}
