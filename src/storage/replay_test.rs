//! What records mean one after the other.

use raftkv_protocol::types::{EntryId, EntryKind, Index, ShardId, Term};

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

fn restate(start: EntryId, last: EntryId) -> Record<'static> {
    Record::Restate { shard: A, state: ShardState { hard_state: hard_state(3, 1), start, last, snapshot: 0 } }
}

// rule 10
#[test]
fn entries_follow_or_replace_but_leave_no_gap() {
    let mut replay = Replay::default();
    feed(&mut replay, &[entry(1, 1), entry(2, 1), entry(3, 1), entry(2, 2)]).expect("a log");
    let gap = feed(&mut replay, &[entry(4, 2)]).expect_err("entry 3 was discarded");
    assert!(gap.contains("entry 4@2 does not follow") && gap.contains("ends at 2@2"), "{gap}");
    feed(&mut replay, &[Record::Reset { shard: A, start: EntryId::new(9, 2) }]).expect("a reset");
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
    replay.end_of_segment();
    feed(&mut replay, &[restate(EntryId::ZERO, EntryId::new(2, 1))]).expect("it agrees");
    for (start, last) in [(EntryId::ZERO, EntryId::new(3, 1)), (EntryId::new(1, 1), EntryId::new(2, 1))] {
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
    feed(&mut replay, &[Record::Reset { shard: A, start: EntryId::new(20, 3) }]).expect("a reset");
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
    let (_, tail) = replay.take(A);
    let located: Vec<_> =
        tail.locate(Index(1), Index(3)).map(|(batch, first, last)| (batch.0, first.0, last.0)).collect();
    assert_eq!(located, [(1, 1, 1), (3, 2, 3)]);
}
