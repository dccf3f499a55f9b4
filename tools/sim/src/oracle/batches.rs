//! What states show of the batches that were applied to them: all of a batch, at its index, or nothing.

use raftkv::server::message::ReplyTo;
use raftkv::shard::Shard;
use raftkv_protocol::types::{EntryId, Index, ShardId};

use super::{Oracle, Violation};

impl Oracle {
    /// Whether the entry, a batch, has taken effect; none if no replica was seen whose state says so.
    #[must_use]
    pub fn batch_applied(&self, shard: ShardId, index: u64) -> Option<bool> {
        self.batches.get(&(shard, index)).copied()
    }

    /// Looks at the batches that a replica has applied since it had applied `before`. Later entries may have written the
    /// same keys meanwhile: those say nothing then.
    pub(super) fn check_batches(
        &mut self,
        at: usize,
        node: usize,
        shard: &Shard<ReplyTo>,
        before: Index,
    ) -> Result<(), Violation> {
        let (known, state) = (&self.shards[at], shard.state());
        for index in (before.0 + 1..=state.applied().0).map(Index) {
            let Some(term) = known.committed.get(index.0 as usize - 1) else { break };
            let id = EntryId { term: *term, index };
            let Some(changes) = known.written.batch(id) else { continue };
            let mut shown = changes.iter().filter_map(|change| {
                let version = state.get(&change.key).map(|(version, _)| version);
                match version {
                    Some(version) if version == index => Some(change.is_put),
                    Some(version) => (version < index).then_some(false),
                    // Somebody may have removed it since, or it was not there before.
                    None => (change.is_put && state.applied() == index).then_some(false),
                }
            });
            let Some(first) = shown.next() else { continue };
            let known = *self.batches.entry((shard.id(), index.0)).or_insert(first);
            if known != first || shown.any(|shown| shown != first) {
                let state = changes.iter().map(|change| {
                    let version = state.get(&change.key).map(|(version, _)| version.0);
                    format!(
                        "{} {}: {version:?}",
                        if change.is_put { "put" } else { "delete" },
                        change.key.escape_ascii()
                    )
                });
                let what = format!(
                    "shard {}: node {} has applied up to {}; batch {id} leaves {:?}; of the first key seen: {known}",
                    shard.id(),
                    node + 1,
                    shard.state().applied(),
                    state.collect::<Vec<_>>()
                );
                return Err(Violation::of("a batch is applied as a whole or not at all", what));
            }
        }
        Ok(())
    }
}
