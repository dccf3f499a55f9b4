//! What records mean one after the other.

use raftkv_protocol::types::{EntryId, EntryKind, Index, ShardId, SnapshotId, Term};

use super::conformance_test::hard_state;
use super::record::{Record, ShardState};
use super::replay::Replay;
use super::syncer::Place;

const A: ShardId = ShardId(4);

fn feed(replay: &mut Replay, records: &[Record<'_>]) -> Result<(), String> {
    let place = Place { segment: 1, offset: 4096 };
    replay.batch(place, records.iter().map(|record| Ok((0, *record))), |_, _, what| what)
}

fn entry(index: u64, term: u64) -> Record<'static> {
    Record::Entry { shard: A, id: EntryId::new(index, term), kind: EntryKind::Command, body: b"xy" }
}

fn reset(index: u64, term: u64) -> Record<'static> {
    Record::Reset { shard: A, start: EntryId::new(index, term), snapshot: SnapshotId(8) }
}

fn restate(start: EntryId, last: EntryId) -> Record<'static> {
    let state = ShardState { hard_state: hard_state(3, 1), start, last, snapshot: SnapshotId(4) };
    Record::Restate { shard: A, state }
}

fn copy(index: u64, term: u64) -> Record<'static> {
    Record::Copy { shard: A, id: EntryId::new(index, term), kind: EntryKind::Command, body: b"xy" }
}

fn copied(first: u64, last: u64) -> Record<'static> {
    Record::Copied { shard: A, first: Index(first), last: Index(last) }
}

/// Each batch that holds entries, with the first and the last of them.
fn located(replay: &mut Replay, first: u64, last: u64) -> Vec<(u64, u64, u64)> {
    let parts = replay.take(A).1;
    parts.locate(Index(first), Index(last)).map(|part| (part.at.0, part.first.0, part.last.0)).collect()
}

// rule 10
#[test]
fn entries_follow_or_replace_but_leave_no_gap() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1), entry(2, 2)]).expect("a log");
    let gap = feed(&mut replay, &[entry(4, 2)]).expect_err("entry 3 was discarded");
    assert!(gap.contains("entry 4@2 does not follow") && gap.contains("ends at 2@2"), "{gap}");
    feed(&mut replay, &[reset(9, 2)]).expect("a reset");
    feed(&mut replay, &[entry(9, 2)]).expect_err("what a snapshot covers is not appended again");
    feed(&mut replay, &[entry(10, 3)]).expect("the first behind the reset");
    let (recovered, tail) = replay.take(A);
    assert_eq!((recovered.start, recovered.entries), (EntryId::new(9, 2), vec![(Term(3), 2)]));
    assert_eq!(tail.last(), Index(10));
}

// rule 14
#[test]
fn the_greatest_index_has_no_successor() {
    let mut replay = Replay::default();
    feed(&mut replay, &[restate(EntryId::ZERO, EntryId::new(u64::MAX, 1))]).expect("the oldest segment");
    feed(&mut replay, &[entry(u64::MAX, 1), entry(5, 1)]).expect("they replace what is not there");
    assert_eq!(replay.missing(), Some((A, Index(1), Index(4))));
}

// rule 14
#[test]
fn a_restatement_confirms_what_came_before() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1)]).expect("a log");
    replay.hard_state(A, hard_state(3, 1));
    feed(&mut replay, &[restate(EntryId::ZERO, EntryId::new(2, 1))]).expect("it agrees");
    for (start, last) in [(EntryId::ZERO, EntryId::new(3, 1)), (EntryId::new(1, 2), EntryId::new(2, 1))] {
        let line = feed(&mut replay, &[restate(start, last)]).expect_err("it contradicts");
        assert!(line.contains("contradicts the records before it"), "{line}");
    }
    replay.hard_state(A, hard_state(4, 0));
    feed(&mut replay, &[restate(EntryId::ZERO, EntryId::new(2, 1))]).expect_err("another vote");
}

// rule 14
#[test]
fn entries_of_segments_that_were_let_go_must_be_covered() {
    let mut replay = Replay::default();
    feed(&mut replay, &[restate(EntryId::new(5, 1), EntryId::new(8, 2)), entry(9, 2)]).expect("the oldest segment");
    assert_eq!(replay.missing(), Some((A, Index(6), Index(8))));
    feed(&mut replay, &[reset(20, 3)]).expect("a reset");
    assert_eq!(replay.missing(), None);

    let mut replay = Replay::default();
    feed(&mut replay, &[restate(EntryId::new(5, 1), EntryId::new(8, 2)), entry(7, 3)]).expect("a truncation");
    assert_eq!(replay.missing(), Some((A, Index(6), Index(6))), "entry 6 is still lacking");
}

#[test]
fn the_index_forgets_batches_whose_entries_were_all_replaced() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1)]).expect("batch 1");
    feed(&mut replay, &[entry(3, 1), entry(4, 1)]).expect("batch 2");
    feed(&mut replay, &[entry(2, 2), entry(3, 2)]).expect("batch 3");
    assert_eq!(located(&mut replay, 1, 3), [(1, 1, 1), (3, 2, 3)]);
}

// rule 14
#[test]
fn a_restatement_may_start_the_log_later_but_only_where_it_was() {
    let log = || {
        let mut replay = Replay::default();
        feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 2), entry(4, 2)]).expect("a log");
        replay.hard_state(A, hard_state(3, 1));
        replay
    };
    let last = EntryId::new(4, 2);
    for start in [EntryId::new(2, 2), EntryId::new(5, 2), EntryId::new(4, 1)] {
        feed(&mut log(), &[restate(start, last)]).expect_err("there is no such entry");
    }
    for start in [EntryId::ZERO, EntryId::new(2, 1), last] {
        let mut replay = log();
        feed(&mut replay, &[restate(start, last)]).expect("it was there");
        if start != EntryId::ZERO {
            feed(&mut replay, &[restate(EntryId::ZERO, last)]).expect_err("it never starts earlier again");
        }
        let (recovered, _) = replay.take(A);
        assert_eq!((recovered.start, recovered.snapshot), (start, SnapshotId(4)));
        assert_eq!(recovered.entries.len() as u64, 4 - start.index.0);
    }
}

// rule 14
#[test]
fn what_the_oldest_segment_lacks_may_be_behind_a_later_start() {
    let mut replay = Replay::default();
    feed(&mut replay, &[restate(EntryId::new(5, 1), EntryId::new(8, 2)), entry(9, 2)]).expect("the oldest segment");
    replay.hard_state(A, hard_state(3, 1));
    feed(&mut replay, &[restate(EntryId::new(7, 2), EntryId::new(9, 2))]).expect("an entry that was not seen");
    assert_eq!(replay.missing(), Some((A, Index(8), Index(8))));
    feed(&mut replay, &[restate(EntryId::new(8, 1), EntryId::new(9, 2))]).expect_err("that one had term 2");
    feed(&mut replay, &[restate(EntryId::new(8, 2), EntryId::new(9, 2)), entry(10, 2)]).expect("all is there");
    assert_eq!(replay.missing(), None);
    let (recovered, tail) = replay.take(A);
    assert_eq!((recovered.start, recovered.entries), (EntryId::new(8, 2), vec![(Term(2), 2); 2]));
    assert!(!tail.contains(Index(8)) && tail.contains(Index(10)));
}

// rule 14
#[test]
fn copies_count_when_they_are_complete() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1)]).expect("batch 1");
    feed(&mut replay, &[copy(1, 1), entry(4, 1)]).expect("batch 2");
    feed(&mut replay, &[copy(2, 1)]).expect("batch 3");
    feed(&mut replay, &[copy(3, 1), copied(1, 3), entry(5, 1)]).expect("batch 4");
    assert_eq!(located(&mut replay, 1, 5), [(2, 1, 1), (3, 2, 2), (4, 3, 3), (2, 4, 4), (4, 5, 5)]);

    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1)]).expect("batch 1");
    feed(&mut replay, &[copy(1, 1), copy(2, 1)]).expect("batch 2");
    feed(&mut replay, &[entry(2, 2)]).expect("batch 3");
    assert_eq!(located(&mut replay, 1, 2), [(1, 1, 1), (3, 2, 2)], "the copies mean nothing");
}

// rule 14
#[test]
fn copies_end_where_entries_were_discarded() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1)]).expect("batch 1");
    feed(&mut replay, &[copy(1, 1), copy(2, 1), copy(3, 1)]).expect("batch 2");
    feed(&mut replay, &[entry(2, 2), copied(1, 1), entry(3, 2)]).expect("batch 3");
    assert_eq!(located(&mut replay, 1, 3), [(2, 1, 1), (3, 2, 3)]);

    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1), copy(1, 1), copy(2, 2), copied(1, 2)])
        .expect_err("entry 2 has another term");
}

/// An attempt that a crash ended is followed by a new one.
// rule 14
#[test]
fn copies_begin_anew_with_the_next_attempt() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1)]).expect("batch 1");
    feed(&mut replay, &[copy(1, 1), copy(2, 1)]).expect("batch 2");
    feed(&mut replay, &[copy(2, 1), copy(3, 1)]).expect("batch 3");
    feed(&mut replay, &[copied(2, 3)]).expect("no batch of its own");
    assert_eq!(located(&mut replay, 1, 3), [(1, 1, 1), (3, 2, 3)]);
}

// rule 14
#[test]
fn copies_make_up_for_segments_that_were_let_go() {
    let oldest = [restate(EntryId::new(5, 1), EntryId::new(8, 2)), entry(9, 2)];
    let mut replay = Replay::default();
    feed(&mut replay, &oldest).expect("the oldest segment");
    feed(&mut replay, &[copy(6, 1), copy(7, 2), copy(8, 2), copied(6, 8)]).expect("copies");
    assert_eq!(replay.missing(), None);
    let (recovered, tail) = replay.take(A);
    assert_eq!(recovered.start, EntryId::new(5, 1));
    assert_eq!(recovered.entries, [(Term(1), 2), (Term(2), 2), (Term(2), 2), (Term(2), 2)]);
    assert_eq!(tail.oldest_batch().map(|batch| batch.0), Some(1));

    let mut replay = Replay::default();
    feed(&mut replay, &oldest).expect("the oldest segment");
    feed(&mut replay, &[copy(6, 1), copy(7, 2), copied(6, 7)]).expect("copies that end too early");
    assert_eq!(replay.missing(), Some((A, Index(6), Index(8))));
    feed(&mut replay, &[copy(8, 2), copied(6, 8)]).expect("and those of the rest");
    assert_eq!(replay.missing(), None);

    let mut replay = Replay::default();
    feed(&mut replay, &oldest).expect("the oldest segment");
    feed(&mut replay, &[copy(7, 2), copy(8, 2), copied(6, 8)]).expect("copies that begin too late");
    assert_eq!(replay.missing(), Some((A, Index(6), Index(6))));
    replay.hard_state(A, hard_state(3, 1));
    feed(&mut replay, &[restate(EntryId::new(6, 1), EntryId::new(9, 2))]).expect("entry 6 is not needed any more");
    assert_eq!(replay.missing(), None);
}

/// The entries behind the copies were let go too: they are overwritten later.
// rule 14
#[test]
fn what_is_missing_behind_copies_may_be_overwritten() {
    let mut replay = Replay::default();
    feed(&mut replay, &[restate(EntryId::new(5, 1), EntryId::new(10, 2)), entry(11, 2)]).expect("the oldest segment");
    feed(&mut replay, &[copy(6, 1), copy(7, 2), copy(8, 2), copied(6, 8)]).expect("copies");
    assert_eq!(replay.missing(), Some((A, Index(6), Index(10))));
    feed(&mut replay, &[entry(8, 3)]).expect("it overwrites the rest");
    assert_eq!(replay.missing(), None);
    let (recovered, tail) = replay.take(A);
    assert_eq!(recovered.entries, [(Term(1), 2), (Term(2), 2), (Term(3), 2)]);
    let parts: Vec<_> = tail.locate(Index(6), Index(8)).map(|part| (part.at.0, part.first.0, part.last.0)).collect();
    assert_eq!(parts, [(2, 6, 7), (3, 8, 8)]);
}

/// Nobody writes such records; whoever forges them gets no panic.
#[test]
fn the_greatest_index_has_no_successor_among_copies_either() {
    let mut replay = Replay::default();
    feed(&mut replay, &[restate(EntryId::ZERO, EntryId::new(u64::MAX, 1))]).expect("the oldest segment");
    feed(&mut replay, &[copy(u64::MAX, 1), copied(1, u64::MAX)]).expect("a copy of the last");
    assert_eq!(replay.missing(), Some((A, Index(1), Index(u64::MAX - 1))));
    feed(&mut replay, &[copy(u64::MAX, 2), copied(1, u64::MAX)]).expect_err("another term");
    feed(&mut replay, &[copy(0, 1)]).expect_err("there is no entry 0");
    feed(&mut replay, &[reset(u64::MAX, 1), copy(5, 1), copied(0, u64::MAX)]).expect("nothing is copied");
    assert_eq!(replay.missing(), None);
}
