//! Files of segments that were let go and are used again: how many wait, and that what they held is never read.

use std::sync::Arc;

use raftkv_protocol::types::Index;

use super::conformance_test::entry;
use super::log_by_hand::{A, BLOCK, Node, SEGMENT, about_to_let_go, body};
use super::reader::{FetchJob, Reader};
use super::runs::{Extent, Part};
use super::segment::{SegmentHeader, segment_name};
use super::simulated_disk::{Random, SimulatedDisk, Survivors};
use super::spares::{SPARES, SPARES_MAX};
use super::syncer::Place;
use super::{CoreLog, Fetch, FetchError, RecoveredShard};

/// The process dies between the change of a segment's name and the sync of the directory. What the next one writes into
/// the file must not be found under its old name.
// museum 40, 43, rule 14
#[test]
fn a_file_is_written_again_only_when_its_old_name_is_gone_for_good() {
    let expected = about_to_let_go().after_crash().recovered;
    let mut written = 0;
    for operation in 0.. {
        let node = about_to_let_go();
        node.disk.die_at(1);
        assert!(node.workers.can_allocate());
        node.workers.allocate();
        assert!(node.disk.is_off());
        node.disk.restart();
        // The next segment is made of this file.
        let is_recycled = |name: &String| node.disk.bytes(name)[..BLOCK] != [0; BLOCK];
        let (recycled, others): (Vec<String>, Vec<String>) = node.spares().into_iter().partition(is_recycled);
        others.iter().for_each(|name| node.disk.remove_quietly(name));
        let before = node.disk.bytes(&recycled[0]);
        node.disk.die_at(operation);
        let opened = Node::open(&node.disk).is_ok();
        written += u64::from(node.disk.names().contains(&recycled[0]) && node.disk.bytes(&recycled[0]) != before);
        for survivors in [Survivors::None, Survivors::Random { seed: operation, block: 512 }] {
            let after = Node::open(&node.disk.crash(survivors));
            assert_eq!(after.expect("no corruption").recovered, expected, "operation {operation}, {survivors:?}");
        }
        if !node.disk.is_off() {
            assert!(opened && operation > 4 && written > 2, "{written} of {operation}");
            break;
        }
    }
}

/// The reader itself never takes the bytes of a later segment for those of an earlier one, in whose file they are.
// museum 43, rule 13
#[test]
fn the_reader_knows_a_file_that_has_become_another_segment() {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 3);
    let woken = Arc::new(|| {});
    let (reader, mut worker) = Reader::new(Arc::new(node.disk.clone()), woken);
    let mut read = |offset: u64, index: u64| {
        let (first, last) = (Index(index), Index(index));
        let fetch = Fetch { shard: A, tag: 1, first, last, bytes_max: 1 << 20 };
        let part = Part { at: Place { segment: 1, offset }, first, last, extent: Extent::WHOLE };
        reader.fetch(FetchJob { id: 1, fetch, parts: vec![part] });
        let job = worker.next().expect("it was asked");
        worker.work(&job);
        reader.fetched().expect("it was read").fetched.result
    };
    // The restatement has the first block, each entry the next.
    let offset = 2 * BLOCK as u64;
    assert_eq!(read(offset, 1), Ok(vec![body(A, 1)]));
    let other = node.disk.bytes(&segment_name(3));
    let header = SegmentHeader::decode(&other).expect("a segment");
    assert_eq!(header.sequence, 3);
    node.disk.edit(&segment_name(1), |bytes| *bytes = other);
    for index in 1..=last {
        let Err(FetchError::Corrupt(line)) = read(offset, index) else { panic!("entry {index} is not in segment 1") };
        assert!(line.contains("sequence number 3"), "{line}");
    }
    node.disk.remove_quietly(&segment_name(1));
    read(offset, 1).expect_err("the file is gone");
}

// museum 43
#[test]
fn what_a_file_held_before_is_no_torn_batch() {
    let mut node = about_to_let_go();
    node.settle();
    let index = node.after_crash().recovered[0].start.index.0 + node.after_crash().recovered[0].entries.len() as u64;
    // Those that were made come first.
    let last = node.put_until_segment(A, index + 1, 8);
    let after = node.after_crash();
    assert_eq!(after.log.recovery().torn_bytes, 0);
    let segment = segment_name(8);
    let used = node.disk.bytes(&segment).iter().rposition(|byte| *byte != 0).expect("it is not empty");
    assert!(used > 12 * BLOCK, "the file was in use before: {used}");

    node.log.append(A, &mut vec![entry(last + 1, 1, &"y".repeat(2 * BLOCK))]);
    node.log.flush();
    node.disk.die_at(1);
    node.workers.sync();
    let disk = node.disk.fork();
    let report = || Node::open(&disk.fork()).expect("no corruption").log.recovery();
    assert_eq!((report().batches_kept > 0, report().torn_bytes), (true, 0), "it arrived as a whole");
    let kept = report().batches_kept;
    let at = (0..16).rev().find(|block| {
        disk.bytes(&segment)[block * BLOCK..][..4] == *b"RKVB" && is_ours(&disk, &segment, block * BLOCK)
    });
    let at = at.expect("the batch") * BLOCK;
    disk.flip(&segment, (at + BLOCK) as u64, 0);
    assert_eq!((report().batches_kept, report().torn_bytes), (kept - 1, 3 * BLOCK as u64));
    disk.flip(&segment, at as u64, 0);
    assert_eq!(report().torn_bytes, 0, "without its header nothing tells it from what was there before");
}

fn is_ours(disk: &SimulatedDisk, segment: &str, at: usize) -> bool {
    let bytes = disk.bytes(segment);
    let key = SegmentHeader::decode(&bytes).expect("a segment").key;
    super::batch::BatchHeader::decode(&bytes[at..], key, at as u64).is_some()
}

/// Any order of everything, with all that is released reused at once: stale records never parse.
// museum 43
#[test]
fn records_of_earlier_lives_of_a_file_are_never_read() {
    let mut node = Node::new();
    let mut random = Random(8);
    let (mut last, mut start) = (0, 0);
    for step in 0..600 {
        last += 1;
        node.put(A, last..=last);
        if random.below(4) == 0 {
            start = last - random.below((last - start).min(3) + 1);
            node.compact(A, start);
        }
        if step % 20 == 0 {
            let after = node.after_crash();
            let RecoveredShard { start: found, entries, .. } = &after.recovered[0];
            assert!(found.index.0 <= start && found.index.0 + entries.len() as u64 == last, "step {step}");
        }
    }
    assert!(node.segments()[0] > 25, "{:?}", node.segments());
}

#[test]
fn segments_become_spares_up_to_a_bound() {
    let mut node = Node::new();
    let last = node.put_until_segment(A, 1, 12);
    assert_eq!(node.spares().len(), SPARES);
    node.compact(A, last);
    node.put_until_segment(A, last + 1, 13);
    assert_eq!(node.segments(), [12, 13]);
    assert_eq!(node.spares().len(), SPARES_MAX);
    assert_eq!(node.disk.used(), (2 + SPARES_MAX as u64) * SEGMENT);
    let used: usize = node.spares().iter().filter(|name| node.disk.bytes(name)[..BLOCK] != [0; BLOCK]).count();
    assert_eq!(used, SPARES_MAX - SPARES + 1, "one of those that were made was taken");
}
