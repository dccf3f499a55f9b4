//! What the data directory says of promises that leases rest on: the longest that this node may have made.
//!
//! It is written before the first promise is made, and read at the next start, which is bound by it. A promise that is
//! longer than those that are made now is forgotten as soon as no earlier process's can last any more.

use std::time::{Duration, Instant};

use raftkv_protocol::types::CoreId;

use crate::shard::Shard;

use super::message::ReplyTo;
use super::node::Node;
use super::records::{Outcome, Record};

/// After it could not be put on record: a full disk, most likely.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When the record is to be brought down to the setting, if it is above that.
#[derive(Debug)]
pub(super) struct PromisesOnRecord {
    lower_at: Option<Instant>,
}

impl PromisesOnRecord {
    /// As it is when a process starts. One core does it for all.
    pub(super) fn new(core: CoreId, shards: &[Shard<ReplyTo>], now: Instant) -> PromisesOnRecord {
        let first = shards.first().filter(|_| core == CoreId(0)).map(|shard| *shard.raft().leases());
        let longer = first.filter(|leases| leases.promised_before > leases.duration.unwrap_or_default());
        PromisesOnRecord { lower_at: longer.map(|leases| now + leases.promised_before) }
    }

    /// Brings it down when it is time. Until that is done, starts wait longer than they need to.
    pub(super) fn tick(&mut self, now: Instant, node: &Node) {
        if self.lower_at.is_none_or(|at| now < at) {
            return;
        }
        self.lower_at = match node.records.want(Record::Promised) {
            Outcome::Durable => None,
            Outcome::Pending => Some(now),
            Outcome::Failed(error) => {
                log::debug!("cannot put on record that no earlier promise lasts any more: {error}; trying again");
                Some(now + RETRY_AFTER)
            }
        };
    }
}
