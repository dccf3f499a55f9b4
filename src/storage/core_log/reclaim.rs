//! Entries in memory that a shard's log has let go of with all that was before them. There may be so many that a loop
//! which gave all their memory back at once would stand still meanwhile.

use raftkv_protocol::types::ShardId;

use super::FileLog;

/// Entries whose memory is given back at a time: at up to 1.5 µs each.
pub(super) const AT_A_TIME: usize = 128;

impl FileLog {
    /// The shard has let go of entries.
    pub(super) fn note_reclaimable(&mut self, shard: ShardId) {
        if self.shards[&shard].is_reclaimable() {
            self.reclaimable.insert(shard);
        }
    }

    /// Whether entries are in memory that are not in the log any more: [`FileLog::reclaim_some`] is to be called soon.
    #[must_use]
    pub fn is_reclaimable(&self) -> bool {
        !self.reclaimable.is_empty()
    }

    /// Gives some of their memory back. To be called once in each turn, after all that somebody waits for.
    pub fn reclaim_some(&mut self) {
        let Some(&shard) = self.reclaimable.first() else { return };
        let tail = self.shard(shard);
        let bytes = tail.reclaim(AT_A_TIME);
        if !tail.is_reclaimable() {
            self.reclaimable.remove(&shard);
        }
        self.tail_bytes -= bytes;
    }
}
