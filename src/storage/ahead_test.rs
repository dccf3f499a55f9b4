//! What does not wait on a full disk: terms and votes, starts of the process, and what sets segments free, while entries
//! wait for hours.

use raftkv_protocol::types::{EntryId, SnapshotId};

use super::conformance_test::{entry, hard_state};
use super::log_by_hand::{A, B, Node};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{BatchNumber, CoreLog, LogError, Space};

const SEGMENT: u64 = 1 << 20;
const BODY: usize = 60_000;

fn open(disk: &SimulatedDisk) -> Result<Node, LogError> {
    Node::open_with(disk, SEGMENT)
}

/// A turn of the loop, and all that the workers can do.
fn turn(node: &mut Node) -> BatchNumber {
    node.log.flush();
    while node.workers.can_sync() {
        node.workers.sync();
    }
    while node.workers.can_allocate() && node.workers.allocate() {}
    node.log.durable().expect("a full disk fails nothing")
}

/// A follower on a full disk: what it is sent goes on until an entry has waited for many turns.
fn starved() -> (Node, u64) {
    let disk = SimulatedDisk::new(4);
    disk.set_capacity(Some(8 * SEGMENT));
    let mut node = open(&disk).expect("space");
    node.log.set_hard_state(A, hard_state(1, 1));
    let mut last = 0;
    for waits in 0..10 {
        while turn(&mut node) == node.log.last_batch() {
            assert_eq!(waits, 0, "an entry that waits goes on waiting");
            last += 1;
            assert!(last < 200, "the disk is small");
            node.log.append(A, &mut vec![entry(last, 1, &"x".repeat(BODY))]);
        }
    }
    assert!(node.log.waits_for_space() && node.log.space() == Space::ReserveOnly);
    // The last entry waits.
    (node, last - 1)
}

// museum 41, rule 15, rule 17
#[test]
fn entries_that_wait_for_space_hold_up_neither_votes_nor_starts() {
    let (mut node, last) = starved();
    assert_eq!(node.spares().len(), 1, "the last segment is not for entries");
    for term in 2..14 {
        // More entries come, and terms with them.
        node.log.append(A, &mut vec![entry(last + term, 1, "more")]);
        node.log.set_hard_state(A, hard_state(term, 0));
        node.log.append(B, &mut vec![entry(term - 1, term, "other")]);
        turn(&mut node);
        node.log.set_hard_state(A, hard_state(term, 2));
        node.log.set_hard_state(B, hard_state(term, 3));
        turn(&mut node);
        assert_eq!(node.log.hard_state_ahead(A), Some(hard_state(term, 2)));
        assert_eq!(node.log.hard_state_ahead(B), Some(hard_state(term, 3)));
        let found = open(&node.disk.crash(Survivors::None)).expect("it starts with no byte free").recovered;
        assert_eq!((found[0].hard_state, found[0].entries.len() as u64), (hard_state(term, 2), last));
        assert_eq!((found[1].hard_state, found[1].entries.len()), (hard_state(term, 3), 0));
    }
    assert!(node.workers.can_prove(), "what went ahead is proved like any batch");
    node.workers.prove();

    // Then there is space. What went ahead is not undone by the batches behind which it was set.
    node.disk.set_capacity(None);
    let mut lives = 0;
    while turn(&mut node) != node.log.last_batch() {
        let found = open(&node.disk.crash(Survivors::None)).expect("healthy").recovered;
        assert_eq!([found[0].hard_state, found[1].hard_state], [hard_state(13, 2), hard_state(13, 3)]);
        lives += 1;
        assert!(lives < 100);
    }
    assert_eq!(node.log.hard_state_ahead(A), None);
    node.log.set_hard_state(A, hard_state(14, 1));
    node.settle();
    let found = open(&node.disk.crash(Survivors::None)).expect("healthy").recovered;
    assert_eq!([found[0].hard_state, found[1].hard_state], [hard_state(14, 1), hard_state(13, 3)]);
    assert_eq!((found[0].entries.len() as u64, found[1].entries.len()), (last + 13, 12));
}

// museum 41, rule 14, rule 17
#[test]
fn a_log_in_which_an_entry_waits_comes_back_by_itself_when_segments_can_go() {
    for kept in [3, 60] {
        let (mut node, last) = starved();
        let used = node.disk.used();
        // Votes may have used up the end of the current segment.
        for term in 2..if kept == 3 { 2 } else { 30 } {
            node.log.set_hard_state(A, hard_state(term, 2));
            turn(&mut node);
        }
        assert!(node.log.waits_for_space());
        node.log.compact(A, EntryId::new(last - kept, 1), SnapshotId(7));
        node.settle();
        assert!(node.disk.used() <= used, "nothing was given to it");
        assert!(!node.log.waits_for_space());
        assert_eq!(node.log.space(), Space::Plenty);
        let found = open(&node.disk.crash(Survivors::None)).expect("healthy").recovered;
        assert_eq!((found[0].start, found[0].entries.len() as u64), (EntryId::new(last - kept, 1), kept + 1));
    }
}
