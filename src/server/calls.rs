//! What a call is made of: operations as bytes and back, what they weigh, and how they are declined.

use raftkv_protocol::client::{Code, Consistency, Operation, Reply, Request, Scan};
use raftkv_protocol::frame;
use raftkv_protocol::types::{RequestId, ShardId};

use crate::shard::{Declined, ReadKind, ShardScan};

use super::message::OwnedCall;
use super::router::Call;

/// The room of a frame for another core at first: most have enough of it.
const FRAME_BYTES: usize = 256;

/// A call that outlives the bytes it came in.
pub(super) fn own(call: &Call<'_>) -> OwnedCall {
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    Request { id: RequestId(0), operation: call.operation }.encode(&mut frame);
    OwnedCall { frame, shard: call.shard, to: call.to, deadline: call.deadline }
}

/// The operation in an [`OwnedCall`].
pub(super) fn decode_operation(bytes: &[u8]) -> Option<Operation<'_>> {
    let found = frame::parse(bytes, frame::PEER_FRAME_MAX).ok()??;
    Some(Request::decode(found.kind, found.payload).ok()?.operation)
}

/// A reply that came from another core.
pub(super) fn decode_reply(bytes: &[u8]) -> Option<Reply<'_>> {
    let found = frame::parse(bytes, frame::PEER_FRAME_MAX).ok()??;
    Reply::decode(found.kind, found.payload).ok()
}

/// What a write weighs while it waits for a majority; 0 for all else.
pub(super) fn write_bytes(operation: &Operation<'_>) -> usize {
    match operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete { key, .. } => key.len(),
        Operation::Batch(batch) => batch.bytes(),
        _ => 0,
    }
}

/// Whether an owned call may be asked twice.
pub(super) fn is_read(request_frame: &[u8]) -> bool {
    let is_read = matches!(decode_operation(request_frame), Some(Operation::Get { .. } | Operation::Scan(_)));
    is_read || mutant!("forwarded-write-resent")
}

/// Whether any node may answer.
pub(super) fn is_stale(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::Get { consistency, .. } => *consistency == Consistency::Stale,
        Operation::Scan(scan) => scan.consistency == Consistency::Stale,
        _ => false,
    }
}

/// A scan with this node's limits.
pub(super) fn shard_scan(scan: &Scan<'_>, items_max: usize, bytes_max: usize) -> ShardScan {
    let asked = usize::try_from(scan.limit).unwrap_or(usize::MAX);
    ShardScan {
        prefix: scan.prefix.into(),
        start: scan.start.into(),
        end: scan.end.into(),
        cursor: scan.cursor.into(),
        reverse: scan.reverse,
        items_max: if asked == 0 { items_max } else { asked.min(items_max) },
        bytes_max,
    }
}

/// The operation that a read came from.
pub(super) fn read_again(read: &ReadKind, shard: ShardId) -> Operation<'_> {
    let consistency = Consistency::Linearizable;
    match read {
        ReadKind::Get { key } => Operation::Get { key, consistency },
        ReadKind::Scan(scan) => Operation::Scan(Scan {
            prefix: &scan.prefix,
            start: &scan.start,
            end: &scan.end,
            cursor: &scan.cursor,
            limit: u32::try_from(scan.items_max).unwrap_or(u32::MAX),
            reverse: scan.reverse,
            consistency,
            shard: Some(shard),
        }),
    }
}

/// What a request is told that its shard has not taken in.
pub(super) fn refusal_of(declined: Declined) -> (Code, &'static str) {
    match declined {
        Declined::Overloaded => (Code::Overloaded, "too many bytes of the shard wait for a majority; try again later"),
        Declined::NoSpace => (
            Code::NoSpace,
            "the disk of the shard's leader is full, or those of half of the nodes are: only deletes are taken until space returns",
        ),
        Declined::InvalidBatch => (Code::BadRequest, "a batch has at least one operation, each on another key"),
        Declined::NotReady => {
            (Code::NotReady, "this node has not caught up since its start; ask again, or another node")
        }
        Declined::Diverged => {
            (Code::Diverged, "this replica's state is another than that of others; ask again, or another node")
        }
        Declined::NotLeader(_) => (Code::NotLeader, "this node does not lead the key's shard; nothing was written"),
    }
}
