use std::collections::VecDeque;

use raftkv_protocol::types::{Entry, EntryId, EntryKind};

use super::remains::{AT_A_TIME, Remains};
use crate::storage::tail::{entry_memory_bytes, memory_bytes};

fn entries(count: usize) -> VecDeque<Entry> {
    let entry = |index| Entry { id: EntryId::new(index, 1), kind: EntryKind::Command, body: vec![7; 100].into() };
    (1..=count as u64).map(entry).collect()
}

#[test]
fn memory_is_given_back_in_pieces_and_all_of_it() {
    let mut remains = Remains::default();
    assert_eq!(remains.give_some_back(), 0);
    let counts = [2 * AT_A_TIME + 1, 0, 3];
    let bytes: usize = counts.iter().map(|count| memory_bytes(entries(*count).into_iter())).sum();
    counts.iter().for_each(|count| remains.add(entries(*count)));
    let pieces: Vec<usize> =
        std::iter::repeat_with(|| remains.give_some_back()).take_while(|bytes| *bytes > 0).collect();
    assert_eq!(pieces.iter().sum::<usize>(), bytes);
    let most = AT_A_TIME * entry_memory_bytes(&entries(1)[0]);
    assert_eq!((pieces.len(), pieces.iter().max()), (4, Some(&most)));
}
