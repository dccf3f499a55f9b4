//! A state machine from a snapshot: what the snapshot says of the state, and its items one after the other.

use std::fmt;

use raftkv_protocol::types::{EntryId, Index};

use super::scrub::Scrub;
use super::state_hash::{CHECKPOINT_INTERVAL, Contribution, FORMAT};
use super::{Checkpoint, StateMachine, size};

/// What was read is not the state that the snapshot says it is, or one that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreError(pub String);

/// A state machine that is being put together. It becomes one when all items are there and make up the hash that the
/// snapshot names.
pub struct Restore {
    machine: StateMachine,
}

impl Restore {
    /// Begins the state as of an entry, whose hash has this format.
    pub fn new(at: EntryId, hash_format: &[u8]) -> Result<Restore, RestoreError> {
        if hash_format != FORMAT {
            let (found, known) = (hash_format.escape_ascii(), FORMAT.escape_ascii());
            return Err(RestoreError(format!(
                "its state hash has the format `{found}`, this version knows `{known}`: start the version that wrote it"
            )));
        }
        Ok(Restore { machine: StateMachine { applied: at, ..StateMachine::default() } })
    }

    /// Adds an item.
    pub fn push(&mut self, key: &[u8], version: Index, value: &[u8]) -> Result<(), RestoreError> {
        let machine = &mut self.machine;
        if version > machine.applied.index {
            return Err(RestoreError(format!(
                "the key \"{}\" has version {version}, which is after entry {}",
                key.escape_ascii(),
                machine.applied
            )));
        }
        machine.hash.add(Contribution::of(key, version, value));
        machine.bytes += size(key, value);
        let mut is_new = true;
        machine.map.put(key, version, value, |_| is_new = false);
        if !is_new {
            return Err(RestoreError(format!("the key \"{}\" is there twice", key.escape_ascii())));
        }
        Ok(())
    }

    /// Ends with what the snapshot says of the whole state: its hash, and its latest checkpoints, oldest first.
    pub fn finish(
        self,
        hash: u128,
        checkpoints: impl IntoIterator<Item = Checkpoint>,
    ) -> Result<StateMachine, RestoreError> {
        let mut machine = self.machine;
        let found = machine.hash();
        if found != hash {
            return Err(RestoreError(format!(
                "its items make up the state hash {found:032x}, and it says {hash:032x}"
            )));
        }
        machine.scrub = Scrub::since(machine.applied.index);
        let mut last = Index(0);
        for checkpoint in checkpoints {
            let index = checkpoint.index;
            if index <= last || index > machine.applied.index || !index.0.is_multiple_of(CHECKPOINT_INTERVAL) {
                return Err(RestoreError(format!("its checkpoint at {index} makes no sense")));
            }
            last = index;
            machine.hash.remember(checkpoint);
        }
        Ok(machine)
    }
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").field("machine", &self.machine).finish()
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RestoreError {}
