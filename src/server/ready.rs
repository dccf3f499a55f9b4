//! When a core's shards have all had a leader and have caught up with it; the node is admitted with its last core.

use std::time::{Duration, Instant};

use crate::shard::Shard;

use super::message::ReplyTo;
use super::node::Node;
use super::records::{Outcome, Record};

/// After the admission could not be put on record: a full disk, most likely.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) enum CoreReadiness {
    /// Some shard of the core is not ready.
    #[default]
    Awaited,
    /// All cores are ready; the node is to be admitted by this one, and is not yet.
    ToAdmit {
        /// When to look again.
        retry_at: Instant,
        /// It could not be put on record, and that was said.
        has_failed: bool,
    },
    /// There is nothing left to do here.
    Told,
}

impl CoreReadiness {
    /// Tells the node once that this core is ready. The last core admits the node; until that is on record the node goes
    /// on without being admitted, which loses nothing.
    pub(super) fn tick(&mut self, now: Instant, shards: &[Shard<ReplyTo>], node: &Node) {
        let has_failed = match self {
            CoreReadiness::Told => return,
            CoreReadiness::ToAdmit { retry_at, .. } if now < *retry_at => return,
            CoreReadiness::ToAdmit { has_failed, .. } => *has_failed,
            CoreReadiness::Awaited if !shards.iter().all(Shard::is_ready) => return,
            CoreReadiness::Awaited if !node.core_is_ready() => {
                *self = CoreReadiness::Told;
                return;
            }
            CoreReadiness::Awaited => false,
        };
        *self = match node.records.want(Record::Admitted) {
            Outcome::Durable => CoreReadiness::Told,
            Outcome::Pending => CoreReadiness::ToAdmit { retry_at: now, has_failed },
            Outcome::Failed(error) => {
                if !has_failed {
                    log::warn!("every shard has had a leader, but that cannot be put on record: {error}; trying again");
                }
                CoreReadiness::ToAdmit { retry_at: now + RETRY_AFTER, has_failed: true }
            }
        };
    }
}
