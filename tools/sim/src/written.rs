//! What every entry holds, from the first moment that some node has it in memory: when it counts as committed it may be
//! on disks only.

use std::collections::BTreeMap;

use raftkv::raft::Raft;
use raftkv::state_machine::command::{Change, Command, Operation};
use raftkv::storage::CoreLog;
use raftkv_history::Condition;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index, ShardId, Term};
use xxhash_rust::xxh3::xxh3_64;

use crate::oracle::Violation;
use crate::plan::number_in;
use crate::user::read_condition;

/// What is in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Of its kind and its body.
    hash: u64,
    /// The put, or the batch with puts, that it is; none if it is another kind of entry.
    pub(crate) put: Option<u64>,
}

impl Content {
    fn of(entry: &Entry) -> Content {
        Content { hash: xxh3_64(&entry.body) ^ entry.kind as u64, put: number_of_put(entry) }
    }
}

fn number_of_put(entry: &Entry) -> Option<u64> {
    if entry.kind != EntryKind::Command {
        return None;
    }
    // All puts of a batch write the same value.
    Command::decode(&entry.body).ok()?.operations().find_map(|operation| match operation.change {
        Change::Put(value) => number_in(value),
        Change::Delete => None,
    })
}

/// What an entry of several operations does; nothing if it is another.
fn batch_changes(entry: &Entry) -> Option<Vec<BatchChange>> {
    let command = (entry.kind == EntryKind::Command).then(|| Command::decode(&entry.body).ok()).flatten()?;
    let operations = command.operations();
    let change = |operation: Operation<'_>| BatchChange {
        key: operation.key.to_vec(),
        is_put: operation.change != Change::Delete,
    };
    (operations.len() > 1).then(|| operations.map(change).collect())
}

/// A key that an entry removes, and what must hold of it.
pub(crate) type RemovedKey = (Vec<u8>, Condition);

/// All of them.
fn removals_in(entry: &Entry) -> Vec<RemovedKey> {
    let command = (entry.kind == EntryKind::Command).then(|| Command::decode(&entry.body).ok()).flatten();
    let operations = command.iter().flat_map(Command::operations);
    let removals = operations.filter(|operation| operation.change == Change::Delete);
    removals.map(|operation| (operation.key.to_vec(), read_condition(operation.condition))).collect()
}

/// What a batch is to do to one key.
#[derive(Clone, Debug)]
pub(crate) struct BatchChange {
    pub(crate) key: Vec<u8>,
    /// Written rather than removed.
    pub(crate) is_put: bool,
}

/// The entries of one shard: those of index i at i - 1, one for each term that wrote one there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    entries: Vec<Vec<(Term, Content)>>,
    /// Those of several operations.
    batches: BTreeMap<(Term, Index), Vec<BatchChange>>,
    /// What those remove that remove anything.
    removals: BTreeMap<(Term, Index), Vec<RemovedKey>>,
}

impl Written {
    /// What this entry holds, if anybody was seen with it in memory.
    pub(crate) fn get(&self, id: EntryId) -> Option<Content> {
        let of_index = self.entries.get((id.index.0 as usize).checked_sub(1)?)?;
        of_index.iter().find(|(term, _)| *term == id.term).map(|(_, content)| *content)
    }

    /// What this entry is to do, if it is a batch that anybody was seen with in memory.
    pub(crate) fn batch(&self, id: EntryId) -> Option<&[BatchChange]> {
        self.batches.get(&(id.term, id.index)).map(Vec::as_slice)
    }

    /// What this entry removes, and on which conditions, if anybody was seen with it in memory.
    pub(crate) fn removals(&self, id: EntryId) -> &[RemovedKey] {
        self.removals.get(&(id.term, id.index)).map_or(&[], Vec::as_slice)
    }

    /// Looks at what has come to a replica's log since it ended with `before`.
    ///
    /// # Errors
    /// If an entry of the same index and term held something else elsewhere: the Log Matching Property (Raft, section 5.3).
    pub(crate) fn look(
        &mut self,
        shard: ShardId,
        raft: &Raft,
        log: &impl CoreLog,
        before: EntryId,
    ) -> Result<(), Violation> {
        let is_longer = before.index >= raft.start().index && raft.term_at(before.index) == Some(before.term);
        let first = if is_longer { before.index } else { raft.commit().max(raft.start().index) };
        let (first, last) = (Index(first.0 + 1), raft.last().index);
        if first > last {
            return Ok(());
        }
        if let Some(entries) = log.tail(shard, first, last) {
            return entries.into_iter().try_for_each(|entry| self.note(shard, entry));
        }
        let single = |index| log.tail(shard, Index(index), Index(index));
        (first.0..=last.0).filter_map(single).flatten().try_for_each(|entry| self.note(shard, entry))
    }

    pub(crate) fn note(&mut self, shard: ShardId, entry: &Entry) -> Result<(), Violation> {
        let content = Content::of(entry);
        match self.get(entry.id) {
            Some(known) if known == content => Ok(()),
            Some(known) => {
                let what = format!("shard {shard}: {} holds {content:?}, elsewhere {known:?}", entry.id);
                Err(Violation::of("entries of one index and term are the same", what))
            }
            None => {
                let at = entry.id.index.0 as usize;
                if self.entries.len() < at {
                    self.entries.resize(at, Vec::new());
                }
                self.entries[at - 1].push((entry.id.term, content));
                if let Some(changes) = batch_changes(entry) {
                    self.batches.insert((entry.id.term, entry.id.index), changes);
                }
                let removals = removals_in(entry);
                if !removals.is_empty() {
                    self.removals.insert((entry.id.term, entry.id.index), removals);
                }
                Ok(())
            }
        }
    }
}
