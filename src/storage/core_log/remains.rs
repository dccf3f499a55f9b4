//! Entries in memory that a shard's log has let go of with all that was before them. There may be so many that a loop
//! which gave all their memory back at once would stand still meanwhile.

use std::collections::VecDeque;

use raftkv_protocol::types::Entry;

use crate::storage::tail::memory_bytes;

/// Entries whose memory is given back at a time.
pub(super) const AT_A_TIME: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Remains {
    of_logs: VecDeque<VecDeque<Entry>>,
}

impl Remains {
    pub(super) fn add(&mut self, entries: VecDeque<Entry>) {
        if !entries.is_empty() {
            self.of_logs.push_back(entries);
        }
    }

    /// Gives some memory back; returns how many bytes.
    pub(super) fn give_some_back(&mut self) -> usize {
        let Some(oldest) = self.of_logs.front_mut() else { return 0 };
        let count = oldest.len().min(AT_A_TIME);
        let bytes = memory_bytes(oldest.drain(..count));
        if oldest.is_empty() {
            self.of_logs.pop_front();
        }
        bytes
    }
}
