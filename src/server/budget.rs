//! What replies may weigh before they exist. A request is charged with that when it is taken in, so that whoever asks
//! for much at once, or reads slowly, is read from later, and no memory is promised twice.

use raftkv_protocol::client::{Answer, Operation, Refusal, Scan};
use raftkv_protocol::types::{ShardId, Slot};

use crate::limits::{Limits, OVERHEAD_BYTES_MAX, SCAN_ITEM_OVERHEAD_BYTES};

use super::message::Charge;
use super::node::Node;

/// Everything of a reply but the value; also a refusal with its words.
const REPLY_BYTES: usize = 256;
/// Everything of the answer to a get or a write but the value.
const ANSWER_BYTES: usize = 56;
/// What the status says of a shard, and the slot table.
const SHARD_STATUS_BYTES: usize = 160;
/// What the metrics say of a node, of a shard and of a core.
#[cfg(feature = "http")]
const METRICS_BYTES: usize = 96 << 10;
#[cfg(feature = "http")]
const METRICS_SHARD_BYTES: usize = 2 << 10;
#[cfg(feature = "http")]
const METRICS_CORE_BYTES: usize = 1 << 10;
/// What the answer to a request for snapshots says of a shard, why there is none included.
const SHARD_SNAPSHOT_BYTES: usize = 256;

/// The most bytes that the reply to an operation may have: no value of a shard is longer than its longest entry. 0 if
/// the reply is short whatever it says. A read waits or is refused while the core has no room for its reply; what tells
/// how the node is, does not.
pub(super) fn charge(operation: &Operation<'_>, node: &Node) -> Charge {
    let shards = node.config.shards;
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    match operation {
        Operation::Get { key, .. } => {
            Charge::Read(bytes(REPLY_BYTES + node.leaders.entry_bytes_max(Slot::of(key).shard(shards))))
        }
        Operation::Scan(scan) => Charge::Read(bytes(REPLY_BYTES + page_bytes(scan, node))),
        Operation::Status | Operation::Slots => {
            Charge::Other(bytes(OVERHEAD_BYTES_MAX + usize::from(shards) * SHARD_STATUS_BYTES))
        }
        Operation::Snapshot { .. } => {
            Charge::Other(bytes(OVERHEAD_BYTES_MAX + usize::from(shards) * SHARD_SNAPSHOT_BYTES))
        }
        // A few bytes, or a refusal's words.
        _ => Charge::Other(0),
    }
}

/// The most bytes of a node's metrics as text.
#[cfg(feature = "http")]
pub(super) fn figures_charge(node: &Node) -> Charge {
    let each = |count: u16, bytes: usize| usize::from(count) * bytes;
    let shards = each(node.config.shards, METRICS_SHARD_BYTES) + each(node.config.cores, METRICS_CORE_BYTES);
    Charge::Other(u32::try_from(METRICS_BYTES + shards).unwrap_or(u32::MAX))
}

/// The most bytes of a page: so many of the longest items, or the limit of a page.
fn page_bytes(scan: &Scan<'_>, node: &Node) -> usize {
    let limits = &node.config.limits;
    let longest = match scan.shard {
        Some(shard) if shard.0 < node.config.shards => node.leaders.entry_bytes_max(shard),
        _ => (0..node.config.shards).map(|shard| node.leaders.entry_bytes_max(ShardId(shard))).max().unwrap_or(0),
    };
    let asked = usize::try_from(scan.limit).unwrap_or(usize::MAX);
    let items = if asked == 0 { limits.scan_items_max } else { asked.min(limits.scan_items_max) };
    // One item alone may be longer than the limit of a page.
    let item = longest + SCAN_ITEM_OVERHEAD_BYTES;
    items.saturating_mul(item).min(limits.page_bytes_max()).max(item)
}

/// The room of a reply's frame on its way to another core: it need not grow, and is no more than the [`charge`] of a read.
///
/// Writes are answered in frames that are about as long as their answers: a longer one takes room between the values that
/// are put meanwhile, and where it was freed, no value fits (256 bytes for each answer cost 14 bytes a key).
pub(super) fn room(result: &Result<Answer<'_>, Refusal<'_>>) -> usize {
    match result {
        Ok(Answer::Put | Answer::Deleted { .. } | Answer::Batch { .. } | Answer::Pong) => ANSWER_BYTES,
        Ok(Answer::Value { value, .. }) => ANSWER_BYTES + value.len(),
        Ok(Answer::Page(page)) => {
            let items = page.items.iter();
            REPLY_BYTES + items.map(|item| item.key.len() + item.value.len() + SCAN_ITEM_OVERHEAD_BYTES).sum::<usize>()
        }
        _ => REPLY_BYTES,
    }
}

/// What is owed to one connection.
#[derive(Debug, Default)]
pub(super) struct Debt {
    inflight: usize,
    reads: usize,
    charged_bytes: usize,
}

impl Debt {
    /// Whether another request may be taken in, with so many bytes of replies waiting for their reader.
    pub(super) fn has_room(&self, waiting_bytes: usize, limits: &Limits) -> bool {
        self.inflight < limits.inflight_max && waiting_bytes + self.charged_bytes < limits.reply_bytes_max
    }

    /// A request was taken in.
    pub(super) fn add(&mut self, charge: Charge) {
        self.inflight += 1;
        self.reads += usize::from(charge.is_read());
        self.charged_bytes += charge.bytes();
    }

    /// A request is answered.
    pub(super) fn settle(&mut self, charge: Charge) {
        self.inflight = self.inflight.saturating_sub(1);
        self.reads = self.reads.saturating_sub(usize::from(charge.is_read()));
        self.charged_bytes = self.charged_bytes.saturating_sub(charge.bytes());
    }

    /// Whether no request waits for its answer.
    pub(super) fn is_settled(&self) -> bool {
        self.inflight == 0
    }

    /// What the answers that are under way may weigh.
    pub(super) fn charged_bytes(&self) -> usize {
        self.charged_bytes
    }

    /// How many reads are under way.
    pub(super) fn reads(&self) -> usize {
        self.reads
    }
}
