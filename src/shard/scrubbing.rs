//! States that are read again to see whether memory has kept them: when, and what comes of it.

use raftkv_protocol::types::EntryId;

use crate::state_machine::Snapshot;

use super::Shard;

/// What a key with its value counts for besides its bytes when it is read: however short it is, it must be found.
const ITEM_BYTES: u64 = 64;

impl<R: Copy> Shard<R> {
    /// Whether the state is to be read: it has come to a checkpoint since it was last, and is not known to be wrong.
    #[must_use]
    pub fn scrub_is_due(&self) -> bool {
        self.machine.scrub_is_due() && self.scrubbing.is_none() && !self.is_wrong()
    }

    /// What it costs to read the state, in bytes.
    #[must_use]
    pub fn scrub_bytes(&self) -> u64 {
        self.machine.bytes() + self.machine.keys() * ITEM_BYTES
    }

    /// The state as it is now, to be read elsewhere: takes no time. [`Shard::scrubbed`] is to be told what it came to.
    pub fn begin_scrub(&mut self) -> Snapshot {
        let state = self.machine.begin_scrub();
        self.scrubbing = Some(state.at());
        state
    }

    /// Has the state read however small it is, for simulations.
    pub fn want_scrub(&mut self) {
        self.machine.want_scrub();
    }

    /// The state was read as it was after an entry: its items have the hash `found`, and should have `expected`. If they
    /// are not alike, what this replica has in memory since then is no better. [`Shard::compare`] tells.
    ///
    /// Says nothing of a state that has taken its place meanwhile.
    pub fn scrubbed(&mut self, at: EntryId, found: u128, expected: u128) {
        if self.scrubbing.take_if(|begun| *begun == at).is_none() {
            return;
        }
        self.machine.scrubbed_as_of(at.index, found, expected);
        if let Some(corruption) = self.machine.corruption().copied() {
            self.state_corrupt(&corruption);
        }
    }
}
