//! Batches on their way to their shard.

use std::time::Instant;

use raftkv_protocol::client::{Batch, Code, Operation};
use raftkv_protocol::types::NodeId;

use crate::shard::Declined;
use crate::storage::CoreLog;

use super::calls::refusal_of;
use super::message::ReplyTo;
use super::router::{Call, Router};
use super::transport::Transport;

/// What a batch is told that would have to go to a node of an older version.
pub(super) const NO_BATCHES_THERE: &str =
    "the node that leads the shard runs a version without batches: update it; nothing was written";

impl<L: CoreLog> Router<L> {
    /// A batch is one entry of one shard, so that its keys must lie in one.
    pub(super) fn batch(&mut self, batch: Batch<'_>, to: ReplyTo, deadline: Instant, transport: &mut impl Transport) {
        let owner = batch.shard(self.node.config.shards);
        let is_taken = mutant!("batch-over-shards-taken");
        match owner.map(|owner| owner.or_else(|(one, other)| if is_taken { Ok(one) } else { Err((one, other)) })) {
            Some(Ok(shard)) => {
                self.call(Call { operation: Operation::Batch(batch), shard, to, deadline }, transport);
            }
            Some(Err((one, other))) => {
                let message = format!(
                    "the keys of the batch lie in shards {one} and {other}: give them one tag, as in {{cart}}:a and \
                     {{cart}}:b, or write them in one batch for each shard; nothing was written"
                );
                self.refuse(to, Code::CrossShard, None, &message, transport);
            }
            None => {
                let (code, message) = refusal_of(Declined::InvalidBatch);
                self.refuse(to, code, None, message, transport);
            }
        }
    }

    /// Whether an operation may be sent on to this node: one that does not know it would close the link over it.
    pub(super) fn leader_knows(&self, operation: &Operation<'_>, leader: NodeId) -> bool {
        !matches!(operation, Operation::Batch(_)) || self.node.health.takes_batches(leader)
    }
}
