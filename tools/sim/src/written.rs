//! What every entry holds, from the first moment that some node has it in memory: when it counts as committed it may be
//! on disks only.

use raftkv::raft::Raft;
use raftkv::state_machine::command::{Change, Command};
use raftkv::storage::CoreLog;
use raftkv_protocol::types::{Entry, EntryId, EntryKind, Index, ShardId, Term};
use xxhash_rust::xxh3::xxh3_64;

use crate::oracle::Violation;
use crate::plan::number_in;

/// What is in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Of its kind and its body.
    hash: u64,
    /// The put that it is; none if it is another kind of entry.
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
    match Command::decode(&entry.body).ok()?.operations().next()?.change {
        Change::Put(value) => number_in(value),
        Change::Delete => None,
    }
}

/// The entries of one shard: those of index i at i - 1, one for each term that wrote one there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    entries: Vec<Vec<(Term, Content)>>,
}

impl Written {
    /// What this entry holds, if anybody was seen with it in memory.
    pub(crate) fn get(&self, id: EntryId) -> Option<Content> {
        let of_index = self.entries.get((id.index.0 as usize).checked_sub(1)?)?;
        of_index.iter().find(|(term, _)| *term == id.term).map(|(_, content)| *content)
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

    fn note(&mut self, shard: ShardId, entry: &Entry) -> Result<(), Violation> {
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
                Ok(())
            }
        }
    }
}
