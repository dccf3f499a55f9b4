//! Batches in a shard: what is answered to them, and what a full disk takes.

use raftkv_protocol::client::{Answer, BatchBuffer, BatchOperation, Change, Code, Condition, Existed, Refusal};
use raftkv_protocol::types::{Entry, EntryId, EntryKind};

use super::shard_test::{Cluster, PATIENCE};
use super::writes::{Form, answer};
use super::{Declined, Write};
use crate::state_machine::{Outcome, encode_batch};
use crate::storage::{CoreLog, Space};

fn batch(operations: &[BatchOperation<'_>]) -> BatchBuffer {
    let mut batch = BatchBuffer::default();
    operations.iter().for_each(|operation| batch.push(operation).expect("short keys"));
    batch
}

fn put(key: &[u8]) -> BatchOperation<'_> {
    BatchOperation { key, condition: Condition::None, change: Change::Put(b"value") }
}

fn delete(key: &[u8]) -> BatchOperation<'_> {
    BatchOperation { key, condition: Condition::None, change: Change::Delete }
}

// rule 17
#[test]
fn a_full_disk_refuses_a_batch_with_a_put_and_takes_one_of_deletes() {
    let mut cluster = Cluster::led_by_the_first();
    cluster.nodes[0].log.set_space(Space::ReserveOnly);
    let deadline = cluster.now + PATIENCE;
    let mut write = |to, operations: &[BatchOperation<'_>]| {
        let batch = batch(operations);
        let space = cluster.nodes[0].log.space();
        cluster.nodes[0].shard.write(Write::Batch(batch.as_batch()), to, deadline, space)
    };
    assert_eq!(write(1, &[delete(b"a"), put(b"b")]), Err(Declined::NoSpace));
    assert_eq!(write(2, &[delete(b"a"), delete(b"b")]), Ok(()));
    cluster.settle();
    assert_eq!(cluster.told(0), [(2, Ok(None))]);
}

// rule 18
#[test]
fn a_batch_that_makes_no_sense_leaves_the_turn_as_it_was() {
    let mut cluster = Cluster::led_by_the_first();
    let before = cluster.nodes[0].shard.status().last.index;
    let deadline = cluster.now + PATIENCE;
    for (to, operations, taken) in [
        (1, &[put(b"a")][..], Ok(())),
        (2, &[put(b"b"), put(b"c"), delete(b"b")], Err(Declined::InvalidBatch)),
        (3, &[], Err(Declined::InvalidBatch)),
        (4, &[delete(b"a"), put(b"d")], Ok(())),
    ] {
        let batch = batch(operations);
        assert_eq!(
            cluster.nodes[0].shard.write(Write::Batch(batch.as_batch()), to, deadline, Space::Plenty),
            taken,
            "{to}"
        );
    }
    cluster.settle();
    assert_eq!(cluster.told(0), [(1, Ok(None)), (4, Ok(None))]);
    assert_eq!(cluster.nodes[0].shard.status().last.index, before.next().next());
    assert_eq!(cluster.nodes[0].shard.status().keys, 1);
}

/// What is told to a batch of these operations with this outcome.
fn told(operations: &[BatchOperation<'_>], outcome: Outcome) -> Result<u128, (Code, String)> {
    let mut body = Vec::new();
    encode_batch(operations.iter().copied(), &mut body).expect("different keys");
    let entry = Entry { id: EntryId::new(1, 1), kind: EntryKind::Command, body: body.into() };
    let mut told = None;
    answer(&entry, Form::Batch, outcome, |result| {
        told = Some(match result {
            Ok(Answer::Batch { existed: Existed(bits) }) => Ok(bits),
            Ok(answer) => panic!("{answer:?} is no answer to a batch"),
            Err(Refusal { code, message, .. }) => Err((code, message.to_owned())),
        });
    });
    told.expect("it is answered")
}

/// The command of a batch of one operation is that of the operation alone, and so is its outcome.
#[test]
fn a_batch_is_answered_as_a_batch_however_many_operations_it_has() {
    assert_eq!(told(&[put(b"a")], Outcome::Put), Ok(0));
    assert_eq!(told(&[delete(b"a")], Outcome::Deleted { existed: false }), Ok(0));
    assert_eq!(told(&[delete(b"a")], Outcome::Deleted { existed: true }), Ok(1));
    assert_eq!(told(&[put(b"a"), delete(b"b")], Outcome::Batch { existed: Existed(0b10) }), Ok(0b10));
}

#[test]
fn a_refused_batch_names_the_operation_whose_condition_failed() {
    let failing = BatchOperation { condition: Condition::Absent, ..put(b"b") };
    let refused = |number, count| {
        let words = format!(
            "the condition of operation {number} of {count} (put \"b\" (5 bytes) if absent) does not hold: nothing of \
             the batch was written"
        );
        Err((Code::PreconditionFailed, words))
    };
    assert_eq!(told(&[failing], Outcome::ConditionFailed), refused(1, 1));
    let outcome = Outcome::BatchConditionFailed { operation: 1 };
    assert_eq!(told(&[put(b"a"), failing, delete(b"c")], outcome), refused(2, 3));
}
