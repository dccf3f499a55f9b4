//! What became of writes: which entry a put is, and whether what clients are told fits.

use raftkv_history::{Hint, Kind, Operation, Outcome, Removal};
use raftkv_protocol::types::{EntryId, ShardId};

use super::{Oracle, Violation};
use crate::plan::number_in;

impl Oracle {
    /// Where an operation took effect, as far as the log says so.
    #[must_use]
    pub fn entry_of(&self, operation: &Operation) -> Hint {
        match (&operation.kind, &operation.outcome) {
            (_, Outcome::Put { version } | Outcome::Value(Some((version, _)))) => Hint::At(*version),
            (_, Outcome::Deleted { index: Some(index), .. }) => Hint::At(*index),
            (Kind::Put { value, .. }, _) => {
                let put = number_in(value).and_then(|number| self.puts.get(&number));
                put.map_or_else(|| self.absence(&operation.key), |(_, index)| Hint::At(*index))
            }
            _ => Hint::Unknown,
        }
    }

    /// What it means that a put is no entry that is known: entries that nobody had in memory were not looked at.
    fn absence(&self, key: &[u8]) -> Hint {
        let shard = &self.shards[usize::from(self.shard_of(key).0)];
        if shard.unread == 0 { Hint::Never } else { Hint::Unknown }
    }

    /// The entries that remove the key if their conditions hold, without batches of which it is known that they were refused.
    #[must_use]
    pub fn removals(&self, key: &[u8]) -> Vec<Removal> {
        let shard = self.shard_of(key);
        let removals = self.removals.get(key).into_iter().flatten();
        removals.filter(|removal| self.batch_applied(shard, removal.index) != Some(false)).copied().collect()
    }

    pub(super) fn note_committed(&mut self, shard: ShardId, id: EntryId) -> Result<(), Violation> {
        let known = &mut self.shards[usize::from(shard.0)];
        let Some(content) = known.written.get(id) else {
            known.unread += 1;
            return Ok(());
        };
        self.entries.insert((shard, id.index.0), content.put);
        for (key, condition) in known.written.removals(id) {
            let removal = Removal { index: id.index.0, condition: *condition };
            self.removals.entry(key.clone()).or_default().push(removal);
        }
        content.put.map_or(Ok(()), |number| self.note_put(shard, id.index.0, number))
    }

    fn note_put(&mut self, shard: ShardId, index: u64, number: u64) -> Result<(), Violation> {
        let (known_shard, known) = *self.puts.entry(number).or_insert((shard, index));
        if (known_shard, known) == (shard, index) {
            return Ok(());
        }
        let what = format!("put {number} is entry {known} of shard {known_shard} and entry {index} of shard {shard}");
        Err(Violation::of("a write is committed once", what))
    }

    /// Which entry the put, or the batch, with this number is, if it is committed.
    #[must_use]
    pub fn entry_of_put(&self, number: u64) -> Option<(ShardId, u64)> {
        self.puts.get(&number).copied()
    }

    /// What a client was told of a put fits what became of it.
    pub fn check_told(&self, operation: &Operation) -> Result<(), Violation> {
        let Kind::Put { value, .. } = &operation.kind else { return Ok(()) };
        let own = self.shard_of(&operation.key);
        if let Outcome::Put { version } = operation.outcome
            && let Some(entry) = self.entries.get(&(own, version))
            && *entry != number_in(value)
        {
            let what = format!(
                "put {:?} is confirmed as entry {version} of shard {own}, which is {entry:?}",
                number_in(value)
            );
            return Err(Violation::of("what a client is told of a write is true", what));
        }
        let Some((shard, index)) = number_in(value).and_then(|number| self.puts.get(&number)) else { return Ok(()) };
        let fits = match &operation.outcome {
            Outcome::Put { version } => version == index,
            Outcome::Failed => false,
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let what = format!("entry {index} of shard {shard} is committed; the client was told {:?}", operation.outcome);
        Err(Violation::of("what a client is told of a write is true", what))
    }

    /// What a read shows is what the entry of its version has written.
    ///
    /// # Errors
    /// If that entry is another.
    pub fn check_shown(&self, key: &[u8], version: u64, value: &[u8]) -> Result<(), Violation> {
        let shard = self.shard_of(key);
        let Some(entry) = self.entries.get(&(shard, version)) else { return Ok(()) };
        if *entry == number_in(value) {
            return Ok(());
        }
        let (key, number) = (key.escape_ascii(), number_in(value));
        let what =
            format!("key {key} was read as put {number:?} @{version}; that entry of shard {shard} is put {entry:?}");
        Err(Violation::of("a read shows what the entry of its version has written", what))
    }
}
