//! Who is told what became of a write, over changes of leadership.

use std::time::{Duration, Instant};

use raftkv_protocol::client::Condition;
use raftkv_protocol::types::{EntryId, Index, Term};

use super::writes::{Decided, Write, Writes};

fn id(index: u64, term: u64) -> EntryId {
    EntryId { index: Index(index), term: Term(term) }
}

/// Proposes writes for `who`, the first of which becomes entry `first`.
fn propose(writes: &mut Writes<u32>, who: &[u32], first: EntryId, deadline: Instant) {
    for &to in who {
        let put = Write::Put { key: b"k", value: b"v", condition: Condition::None };
        writes.queue(put, to, deadline, usize::MAX).expect("there is room");
    }
    let commands = writes.take_commands().expect("something is queued");
    assert_eq!(commands.len(), who.len());
    writes.give_back(commands);
    writes.proposed(first);
}

fn apply(writes: &mut Writes<u32>, entry: EntryId) -> Vec<(u32, Decided)> {
    let mut decided = Vec::new();
    writes.applied(entry, |to, _, what| decided.push((to, what)));
    decided
}

#[test]
fn a_write_is_decided_by_the_entry_at_its_index() {
    let mut writes = Writes::default();
    propose(&mut writes, &[1, 2], id(5, 1), Instant::now());
    assert_eq!(apply(&mut writes, id(4, 1)), []);
    assert_eq!(apply(&mut writes, id(5, 1)), [(1, Decided::Applied)]);
    assert_eq!(apply(&mut writes, id(6, 2)), [(2, Decided::Overwritten)]);
    assert!(writes.is_empty());
}

// museum 16
#[test]
fn a_write_behind_overwritten_ones_of_higher_index_is_answered_as_applied() {
    let mut writes = Writes::default();
    let now = Instant::now();
    // Entries 10 to 14 of term 3; the next leader truncates them to 10@4; this node leads again: 11@5 is its no-op.
    propose(&mut writes, &[10, 11, 12, 13, 14], id(10, 3), now);
    propose(&mut writes, &[112, 113], id(12, 5), now);
    assert_eq!(apply(&mut writes, id(10, 4)), [(10, Decided::Overwritten)]);
    assert_eq!(apply(&mut writes, id(11, 5)), [(11, Decided::Overwritten)]);
    assert_eq!(apply(&mut writes, id(12, 5)), [(112, Decided::Applied), (12, Decided::Overwritten)]);
    assert_eq!(apply(&mut writes, id(13, 5)), [(113, Decided::Applied), (13, Decided::Overwritten)]);
    assert_eq!(apply(&mut writes, id(14, 5)), [(14, Decided::Overwritten)]);
    assert!(writes.is_empty());
}

#[test]
fn an_entry_that_another_node_brings_back_answers_its_write() {
    let mut writes = Writes::default();
    let now = Instant::now();
    propose(&mut writes, &[1, 2], id(10, 3), now);
    propose(&mut writes, &[3], id(11, 5), now);
    assert_eq!(apply(&mut writes, id(10, 3)), [(1, Decided::Applied)]);
    assert_eq!(apply(&mut writes, id(11, 3)), [(3, Decided::Overwritten), (2, Decided::Applied)]);
}

#[test]
fn an_expired_write_is_answered_once_and_keeps_its_place() {
    let mut writes = Writes::default();
    let now = Instant::now();
    propose(&mut writes, &[1], id(10, 3), now);
    propose(&mut writes, &[2], id(10, 5), now + Duration::from_secs(1));
    let mut unknown = Vec::new();
    writes.expire(now, |to, entry| unknown.push((to, entry)));
    writes.expire(now, |to, entry| unknown.push((to, entry)));
    assert_eq!(unknown, [(1, id(10, 3))]);
    assert!(!writes.is_empty(), "the second still waits");
    assert_eq!(apply(&mut writes, id(10, 5)), [(2, Decided::Applied)]);
}

#[test]
fn a_write_that_a_snapshot_skips_is_unknown_and_one_behind_it_still_waits() {
    let mut writes = Writes::default();
    let now = Instant::now();
    propose(&mut writes, &[1, 2, 3], id(10, 3), now);
    propose(&mut writes, &[4, 5], id(12, 5), now);
    let mut unknown = Vec::new();
    writes.skipped(Index(12), |to, entry| unknown.push((to, entry)));
    assert_eq!(unknown, [(1, id(10, 3)), (2, id(11, 3)), (4, id(12, 5)), (3, id(12, 3))]);
    assert_eq!(apply(&mut writes, id(13, 5)), [(5, Decided::Applied)]);
    assert!(writes.is_empty());
}
