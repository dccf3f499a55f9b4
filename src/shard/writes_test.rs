use std::time::Instant;

use raftkv_protocol::client::Condition;
use raftkv_protocol::types::EntryId;

use super::writes::{Decided, Write, Writes};

/// Proposes so many writes, the first of which becomes `first`, and names them `names`.
fn propose(writes: &mut Writes<&'static str>, first: EntryId, names: &[&'static str]) {
    for name in names {
        let write = Write::Put { key: b"k", value: b"v", condition: Condition::None };
        writes.queue(write, name, Instant::now());
    }
    let commands = writes.take_commands().expect("writes were queued");
    assert_eq!(commands.len(), names.len());
    writes.give_back(commands);
    writes.proposed(first);
}

fn apply(writes: &mut Writes<&'static str>, id: EntryId) -> Vec<(&'static str, Decided)> {
    let mut decided = Vec::new();
    writes.applied(id, |to, outcome| decided.push((to, outcome)));
    decided
}

#[test]
fn writes_are_decided_by_the_entry_at_their_index() {
    let mut writes = Writes::default();
    propose(&mut writes, EntryId::new(2, 1), &["two", "three"]);
    assert_eq!(apply(&mut writes, EntryId::new(1, 1)), []);
    assert_eq!(apply(&mut writes, EntryId::new(2, 1)), [("two", Decided::Applied)]);
    assert_eq!(apply(&mut writes, EntryId::new(3, 2)), [("three", Decided::Overwritten)]);
}

/// A leader of term 3 is unseated with writes under way, loses them to another leader, and leads again in term 5: its
/// new writes take lower indexes than those that still wait. A new write that was applied must never be called
/// overwritten, or its client would send it again.
#[test]
fn a_second_leadership_decides_its_writes_although_longer_waiting_ones_lie_behind_them() {
    let mut writes = Writes::default();
    propose(&mut writes, EntryId::new(10, 3), &["old 10", "old 11", "old 12", "old 13"]);
    assert_eq!(apply(&mut writes, EntryId::new(10, 4)), [("old 10", Decided::Overwritten)]);
    propose(&mut writes, EntryId::new(12, 5), &["new 12"]);
    assert_eq!(apply(&mut writes, EntryId::new(11, 5)), [("old 11", Decided::Overwritten)]);
    let both = [("old 12", Decided::Overwritten), ("new 12", Decided::Applied)];
    assert_eq!(apply(&mut writes, EntryId::new(12, 5)), both);
    assert_eq!(apply(&mut writes, EntryId::new(13, 5)), [("old 13", Decided::Overwritten)]);
}
