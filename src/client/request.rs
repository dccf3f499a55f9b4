//! A request while the client is responsible for it, and what its reply means.

use std::time::Instant;

use raftkv_protocol::client as wire;
use raftkv_protocol::client::{Answer, Code, Condition, Consistency, Reply, ShardSnapshot, SlotTable, Status};
use raftkv_protocol::frame::CLIENT_FRAME_MAX;
use raftkv_protocol::hello::{FEATURE_BATCH, FEATURE_SNAPSHOT};
use raftkv_protocol::types::{NodeId, ShardId, Term};

use super::oneshot::Completer;
use super::{Batch, Batched, Error, ErrorKind, Item, Page, Result, ScanOptions, Target, Value, Version};

/// The length of a key travels in 16 bits.
const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Room for everything of a put but key and value.
const OVERHEAD_BYTES_MAX: usize = 256;
/// Fits a frame with any key.
const VALUE_BYTES_MAX: usize = CLIENT_FRAME_MAX - KEY_BYTES_MAX - OVERHEAD_BYTES_MAX;

// The four keys of a scan fit as well.
const _: () = assert!(4 * KEY_BYTES_MAX + OVERHEAD_BYTES_MAX <= CLIENT_FRAME_MAX);

/// What is asked, owned, so that it can be sent again.
#[derive(Debug)]
pub(super) enum Operation {
    Put { key: Box<[u8]>, value: Box<[u8]>, condition: Condition },
    Delete { key: Box<[u8]>, condition: Condition },
    Batch(Batch),
    Get { key: Box<[u8]>, consistency: Consistency },
    Scan(ScanOptions),
    Slots,
    Status(Target),
    Ping(Target),
    Snapshot { target: Target, wait_ms: u32 },
}

impl Operation {
    pub(super) fn as_wire(&self) -> wire::Operation<'_> {
        match self {
            Operation::Put { key, value, condition } => wire::Operation::Put { key, value, condition: *condition },
            Operation::Delete { key, condition } => wire::Operation::Delete { key, condition: *condition },
            Operation::Batch(batch) => wire::Operation::Batch(batch.as_wire()),
            Operation::Get { key, consistency } => wire::Operation::Get { key, consistency: *consistency },
            Operation::Scan(options) => wire::Operation::Scan(options.as_scan()),
            Operation::Slots => wire::Operation::Slots,
            Operation::Status(_) => wire::Operation::Status,
            Operation::Ping(_) => wire::Operation::Ping,
            Operation::Snapshot { wait_ms, .. } => wire::Operation::Snapshot { wait_ms: *wait_ms },
        }
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self, Operation::Put { .. } | Operation::Delete { .. } | Operation::Batch(_))
    }

    /// The features without which a node does not know the request, and would close the connection over it.
    pub(super) fn features(&self) -> u64 {
        match self {
            Operation::Batch(_) => FEATURE_BATCH,
            Operation::Snapshot { .. } => FEATURE_SNAPSHOT,
            _ => 0,
        }
    }

    /// What those are called that not every node knows.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Operation::Batch(_) => "batches",
            Operation::Snapshot { .. } => "requests for snapshots",
            _ => "such requests",
        }
    }

    /// A key of the shard that it is for.
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key, .. } | Operation::Get { key, .. } => Some(key),
            Operation::Batch(batch) => batch.key(),
            _ => None,
        }
    }

    /// Whether any replica will do, so that the load is better spread than sent to the leader.
    pub(super) fn is_stale_read(&self) -> bool {
        match self {
            Operation::Get { consistency, .. } => *consistency == Consistency::Stale,
            Operation::Scan(options) => options.consistency_wanted() == Consistency::Stale,
            _ => false,
        }
    }

    pub(super) fn target(&self) -> &Target {
        match self {
            Operation::Status(target) | Operation::Ping(target) | Operation::Snapshot { target, .. } => target,
            _ => &Target::Any,
        }
    }

    /// Refuses what no frame can carry: a server would close the connection over it, with everything else in flight
    /// there. All lower limits are the server's to judge.
    pub(super) fn check_size(&self) -> Result<()> {
        let (keys, value): (&[&[u8]], usize) = match self {
            Operation::Put { key, value, .. } => (&[key], value.len()),
            Operation::Delete { key, .. } | Operation::Get { key, .. } => (&[key], 0),
            Operation::Scan(options) => (&options.keys(), 0),
            Operation::Slots
            | Operation::Status(_)
            | Operation::Ping(_)
            | Operation::Snapshot { .. }
            | Operation::Batch(_) => (&[], 0),
        };
        let too_large = |what, bytes, limit| {
            let message = format!("{what} has {bytes} bytes, the protocol carries at most {limit}");
            Err(Error::new(ErrorKind::TooLarge, message))
        };
        if let Some(key) = keys.iter().find(|key| key.len() > KEY_BYTES_MAX) {
            return too_large("a key", key.len(), KEY_BYTES_MAX);
        }
        if let Operation::Batch(batch) = self {
            if let Some(bytes) = batch.too_long() {
                return too_large("a key", bytes, KEY_BYTES_MAX);
            }
            let (bytes, limit) = (batch.as_wire().encoded_len(), CLIENT_FRAME_MAX - OVERHEAD_BYTES_MAX);
            if bytes > limit {
                return too_large("the batch", bytes, limit);
            }
        }
        if value > VALUE_BYTES_MAX {
            return too_large("the value", value, VALUE_BYTES_MAX);
        }
        Ok(())
    }
}

/// What came of an operation, owned.
#[derive(Debug)]
pub(super) enum Outcome {
    Put(Version),
    Deleted(bool),
    Batched(Batched),
    Value(Option<Value>),
    Page(Page),
    Slots(SlotTable),
    Status(Box<Status>),
    Pong,
    Snapshots(Vec<ShardSnapshot>),
}

/// A refusal, owned.
#[derive(Debug)]
pub(super) struct Refused {
    pub code: Code,
    pub leader: Option<NodeId>,
    pub term: Term,
    pub message: String,
}

/// What a reply says.
#[derive(Debug)]
pub(super) enum Verdict {
    Done(Outcome),
    Refused(Refused),
    /// An answer to another question.
    Nonsense,
}

/// Reads the reply to `operation`.
pub(super) fn judge(operation: &Operation, reply: Reply<'_>) -> Verdict {
    let at = reply.at;
    let answer = match reply.result {
        Ok(answer) => answer,
        Err(refusal) if refusal.code == Code::NotFound => return judge_not_found(operation),
        Err(refusal) => {
            let message = refusal.message.to_owned();
            return Verdict::Refused(Refused { code: refusal.code, leader: refusal.leader, term: at.term, message });
        }
    };
    Verdict::Done(match (operation, answer) {
        (Operation::Put { .. }, Answer::Put) => Outcome::Put(at.index),
        (Operation::Delete { .. }, Answer::Deleted { existed }) => Outcome::Deleted(existed),
        (Operation::Batch(batch), Answer::Batch { existed }) => Outcome::Batched(batch.applied(at.index, existed)),
        (Operation::Get { .. }, Answer::Value { version, value }) => {
            Outcome::Value(Some(Value { version, bytes: value.to_vec() }))
        }
        (Operation::Scan(_), Answer::Page(page)) => Outcome::Page(own_page(page)),
        (Operation::Slots, Answer::Slots(table)) => Outcome::Slots(table),
        (Operation::Status(_), Answer::Status(status)) => Outcome::Status(status),
        (Operation::Ping(_), Answer::Pong) => Outcome::Pong,
        (Operation::Snapshot { .. }, Answer::Snapshots(snapshots)) => Outcome::Snapshots(snapshots),
        _ => return Verdict::Nonsense,
    })
}

fn judge_not_found(operation: &Operation) -> Verdict {
    match operation {
        Operation::Get { .. } => Verdict::Done(Outcome::Value(None)),
        Operation::Delete { .. } => Verdict::Done(Outcome::Deleted(false)),
        _ => Verdict::Nonsense,
    }
}

fn own_page(page: wire::Page<'_>) -> Page {
    let own =
        |item: &wire::Item<'_>| Item { key: item.key.to_vec(), version: item.version, value: item.value.to_vec() };
    let items: Vec<Item> = page.items.iter().map(own).collect();
    let cursor = if page.more { items.last().map(|item| item.key.clone()) } else { None };
    Page { items, cursor }
}

/// Who waits for the outcome.
#[derive(Debug)]
pub(super) enum Origin {
    /// A caller.
    Caller(Completer<Outcome>),
    /// The I/O thread, which wants a newer slot table.
    Refresh,
    /// The I/O thread, which doubts that the node is alive.
    Probe,
}

/// How long a job goes on trying when no node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    UntilDeadline,
    /// Until every node has failed once.
    OneRound,
}

/// A request and its history.
#[derive(Debug)]
pub(super) struct Job {
    pub operation: Operation,
    pub origin: Origin,
    pub deadline: Instant,
    pub patience: Patience,
    /// Of the key, as of the last routing.
    pub shard: Option<ShardId>,
    /// How often it was refused or lost its connection.
    pub attempts: u32,
    /// The peer that should not get it next.
    pub avoid: Option<usize>,
    /// Why the last attempt failed; the write is known not to have happened.
    pub last_error: Option<Error>,
}

impl Job {
    pub(super) fn new(operation: Operation, origin: Origin, deadline: Instant) -> Job {
        Job {
            operation,
            origin,
            deadline,
            patience: Patience::UntilDeadline,
            shard: None,
            attempts: 0,
            avoid: None,
            last_error: None,
        }
    }

    pub(super) fn complete(self, outcome: Result<Outcome>) {
        if let Origin::Caller(completer) = self.origin {
            completer.complete(outcome);
        }
    }

    /// Ends a job that may have reached a node.
    pub(super) fn fail_after_sending(self, error: Error) {
        let is_unknown = self.operation.is_write() && !mutant!("unknown-outcome-denied");
        let error = if is_unknown { error.unknown_outcome() } else { error };
        self.complete(Err(error));
    }
}
