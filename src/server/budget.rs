//! What replies may weigh before they exist. A request is charged with that when it is taken in, so that whoever asks
//! for much at once, or reads slowly, is read from later, and no memory is promised twice.

use raftkv_protocol::client::{Operation, Scan};
use raftkv_protocol::types::{ShardId, Slot};

use crate::limits::{Limits, OVERHEAD_BYTES_MAX, SCAN_ITEM_OVERHEAD_BYTES};

use super::node::Node;

/// Everything of a reply but the value; also a refusal with its words.
const REPLY_BYTES: usize = 256;
/// What the status says of a shard, and the slot table.
const SHARD_STATUS_BYTES: usize = 160;

/// The most bytes that the reply to an operation may have: no value of a shard is longer than its longest entry. 0 if
/// the reply is short whatever it says.
pub(super) fn charge(operation: &Operation<'_>, node: &Node) -> u32 {
    let shards = node.config.shards;
    let bytes = match operation {
        Operation::Get { key, .. } => REPLY_BYTES + node.leaders.entry_bytes_max(Slot::of(key).shard(shards)),
        Operation::Scan(scan) => REPLY_BYTES + page_bytes(scan, node),
        Operation::Status | Operation::Slots => OVERHEAD_BYTES_MAX + usize::from(shards) * SHARD_STATUS_BYTES,
        // A few bytes, or a refusal's words.
        _ => 0,
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Whether an operation waits or is refused while the core has no room for its reply. What tells how the node is, is not.
pub(super) fn is_read(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Get { .. } | Operation::Scan(_))
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

/// What is owed to one connection.
#[derive(Debug, Default)]
pub(super) struct Debt {
    inflight: usize,
    charged_bytes: usize,
}

impl Debt {
    /// Whether another request may be taken in, with so many bytes of replies waiting for their reader.
    pub(super) fn has_room(&self, waiting_bytes: usize, limits: &Limits) -> bool {
        self.inflight < limits.inflight_max && waiting_bytes + self.charged_bytes < limits.reply_bytes_max
    }

    /// A request was taken in.
    pub(super) fn add(&mut self, charge: u32) {
        self.inflight += 1;
        self.charged_bytes += charge as usize;
    }

    /// A request is answered.
    pub(super) fn settle(&mut self, charge: u32) {
        self.inflight = self.inflight.saturating_sub(1);
        self.charged_bytes = self.charged_bytes.saturating_sub(charge as usize);
    }

    /// Whether no request waits for its answer.
    pub(super) fn is_settled(&self) -> bool {
        self.inflight == 0
    }

    /// What the answers that are under way may weigh.
    pub(super) fn charged_bytes(&self) -> usize {
        self.charged_bytes
    }
}

/// Whether a core has room for another read's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It has.
    Now,
    /// It will have when reads that are under way are answered: most replies are shorter than they were taken to be.
    Later,
    /// Its clients leave too much unread.
    No,
}

/// The reply bytes of a core, on all its connections.
#[derive(Debug)]
pub(super) struct ReplyBytes {
    max: usize,
    /// Wait for their readers.
    pub(super) unread: usize,
    /// May come.
    pub(super) charged: usize,
}

impl ReplyBytes {
    pub(super) fn new(limits: &Limits) -> ReplyBytes {
        ReplyBytes { max: limits.core_reply_bytes_max, unread: 0, charged: 0 }
    }

    /// A connection has `waiting` bytes unread, greetings and last words included; `counted` is what was counted of
    /// them before.
    pub(super) fn count_unread(&mut self, counted: &mut usize, waiting: usize) {
        self.unread = self.unread.saturating_sub(*counted) + waiting;
        *counted = waiting;
    }

    /// Whether a read with this charge may be taken in.
    pub(super) fn room(&self, charge: u32) -> Room {
        if self.unread >= self.max {
            Room::No
        } else if self.charged == 0 || self.unread + self.charged + charge as usize <= self.max {
            // One read is always taken in, or a charge above what is left would wait for ever.
            Room::Now
        } else {
            Room::Later
        }
    }
}
