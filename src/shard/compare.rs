//! What a shard tells of its state, what it is told of others', and what follows for it.

use std::time::Instant;

use raftkv_protocol::types::{Index, NodeId};

use super::{News, Shard};
use crate::raft::Candidacy;
use crate::state_machine::{Checkpoint, Corruption};

impl<R: Copy> Shard<R> {
    /// Whether the replica's state may be shown: no others' is known to be another.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.comparison.serves()
    }

    /// Whether this node should not lead: a majority has another state, or its own is corrupt.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.comparison.is_wrong()
    }

    /// Whether a peer may lead: it is part of the majority, or at least not known to differ from it.
    #[must_use]
    pub fn trusts(&self, peer: NodeId) -> bool {
        !self.comparison.is_stranger(peer)
    }

    /// The checkpoints that are remembered, after an index, ascending.
    pub fn checkpoints_after(&self, index: Index) -> impl Iterator<Item = Checkpoint> + '_ {
        self.machine.checkpoints().filter(move |checkpoint| checkpoint.index > index)
    }

    /// The index of the newest checkpoint; 0 if there is none.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Index {
        self.machine.checkpoints().next_back().map_or(Index(0), |checkpoint| checkpoint.index)
    }

    /// Takes in a checkpoint of a peer's replica.
    pub fn told(&mut self, peer: NodeId, checkpoint: Checkpoint) {
        self.comparison.told(peer, checkpoint);
    }

    /// Compares the replicas' states, if there is something new to compare. A replica that is outvoted does not stand
    /// for election any more.
    pub fn compare(&mut self, now: Instant) -> Vec<News> {
        if !self.comparison.is_due(now) {
            return Vec::new();
        }
        let own: Vec<Checkpoint> = self.machine.checkpoints().collect();
        let news = self.comparison.judge(&own, now);
        self.choose_candidacy();
        news
    }

    /// Stops serving the state, which is not what it should be. [`Shard::compare`] tells.
    pub(super) fn state_corrupt(&mut self, corruption: &Corruption) {
        self.comparison.corrupt(corruption);
        self.choose_candidacy();
    }

    /// The state is another replica's now, or built anew; whether it is right behind `sound` is to be seen.
    pub(super) fn state_replaced(&mut self, sound: Index) {
        self.scrubbing = None;
        self.comparison.state_replaced(sound);
        self.choose_candidacy();
    }

    /// When [`Shard::compare`] has something to say although nothing new comes in.
    #[must_use]
    pub fn compare_at(&self) -> Option<Instant> {
        self.comparison.deadline()
    }

    /// Whether this node leads only if nobody else does.
    pub fn set_reluctant(&mut self, is_reluctant: bool) {
        self.is_reluctant = is_reluctant;
        self.choose_candidacy();
    }

    pub(super) fn choose_candidacy(&mut self) {
        self.raft.set_candidacy(match (self.is_wrong() || self.is_catching_up(), self.is_reluctant) {
            (true, _) => Candidacy::Never,
            (false, true) => Candidacy::Reluctant,
            (false, false) => Candidacy::Willing,
        });
    }

    /// As [`StateMachine::misapply`](crate::state_machine::StateMachine::misapply).
    #[cfg(test)]
    pub(crate) fn misapply(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.machine.misapply(key, value)
    }

    /// As [`StateMachine::flip_byte`](crate::state_machine::StateMachine::flip_byte), for tests.
    pub fn flip_byte(&mut self, key: &[u8]) -> bool {
        self.machine.flip_byte(key)
    }
}
