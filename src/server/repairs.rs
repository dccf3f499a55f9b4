//! The shards of a core whose logs have lost something, until each has it back from the peers.

use std::time::{Duration, Instant};

use raftkv_protocol::types::ShardId;

use crate::shard::Shard;

use super::message::ReplyTo;
use super::node::Node;
use super::records::{Outcome, Record};

/// After the note of the damage could not be taken back: a full disk, most likely.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Repairs {
    shards: Vec<ShardId>,
    retry_at: Option<Instant>,
}

impl Repairs {
    /// As it is at the start.
    pub(super) fn new(shards: &[Shard<ReplyTo>], node: &Node) -> Repairs {
        let damaged = shards.iter().filter(|shard| shard.raft().is_damaged());
        let shards: Vec<ShardId> = damaged.map(Shard::id).collect();
        node.health.repairs_begin(shards.len());
        Repairs { shards, retry_at: None }
    }

    /// How many shards are left.
    pub(super) fn count(&self) -> usize {
        self.shards.len()
    }

    /// Takes the note of the damage of those back, durably, that are whole again.
    pub(super) fn tick(&mut self, now: Instant, shards: &[Shard<ReplyTo>], node: &Node) {
        if self.shards.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        for shard in shards.iter().filter(|shard| !shard.raft().is_damaged()).map(Shard::id) {
            let Some(at) = self.shards.iter().position(|damaged| *damaged == shard) else { continue };
            match node.records.want(Record::Healed(shard)) {
                Outcome::Pending => continue,
                Outcome::Durable => {}
                Outcome::Failed(error) => {
                    // It takes part already. At the worst a start repairs it once more.
                    if self.retry_at.is_none() {
                        log::warn!(
                            "shard {shard} is repaired, but that cannot be put on record: {error}; trying again"
                        );
                    }
                    self.retry_at = Some(now + RETRY_AFTER);
                    return;
                }
            }
            self.retry_at = None;
            self.shards.swap_remove(at);
            node.health.repair_ends();
            log::info!("shard {shard} is repaired: what the log had lost is back, and this node votes for it again");
        }
    }
}
