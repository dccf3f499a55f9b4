use raftkv::state_machine::command::{Change, Operation, encode_batch, encode_delete, encode_put};
use raftkv_history::{Condition, Removal};
use raftkv_protocol::client::Condition as Wire;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index, ShardId, Term};

use super::Oracle;

const SHARD: ShardId = ShardId(0);

fn id(index: u64) -> EntryId {
    EntryId { index: Index(index), term: Term(1) }
}

/// Somebody has this entry in memory.
fn holds(oracle: &mut Oracle, index: u64, body: Vec<u8>) {
    let entry = Entry { id: id(index), kind: EntryKind::Command, body: body.into() };
    oracle.shards[0].written.note(SHARD, &entry).expect("a new one");
}

#[test]
fn the_log_tells_what_is_removed_and_on_which_condition() {
    let mut oracle = Oracle::new(3, 1, 0);
    let (mut delete, mut put, mut lost, mut batch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    encode_delete(b"a", Wire::Version(Index(7)), &mut delete);
    encode_put(b"a", &[1; 8], Wire::None, &mut put);
    encode_delete(b"a", Wire::None, &mut lost);
    let operations = [
        Operation { key: b"a", condition: Wire::Exists, change: Change::Delete },
        Operation { key: b"b", condition: Wire::None, change: Change::Put(&[2; 8]) },
    ];
    encode_batch(operations.into_iter(), &mut batch).expect("two keys");
    for (index, body) in (1..).zip([delete, put, batch, lost]) {
        holds(&mut oracle, index, body);
    }
    // The last one is never committed, and nobody has the one of another term.
    for index in 1..4 {
        oracle.note_committed(SHARD, id(index)).expect("it fits");
    }
    oracle.note_committed(SHARD, EntryId { index: Index(4), term: Term(2) }).expect("it fits");
    let deleted = Removal { index: 1, condition: Condition::Version(7) };
    let in_batch = Removal { index: 3, condition: Condition::Exists };
    assert_eq!(oracle.removals(b"a"), [deleted, in_batch]);
    assert_eq!(oracle.removals(b"b"), []);
    // A batch of which states show that it was refused has removed nothing.
    oracle.batches.insert((SHARD, 3), true);
    assert_eq!(oracle.removals(b"a"), [deleted, in_batch]);
    oracle.batches.insert((SHARD, 3), false);
    assert_eq!(oracle.removals(b"a"), [deleted]);
}
