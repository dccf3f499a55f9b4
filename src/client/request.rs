//! A request while the client is responsible for it, and what its reply means.

use std::time::Instant;

use raftkv_protocol::client as wire;
use raftkv_protocol::client::{Answer, Code, Condition, Consistency, Reply, SlotTable, Status};
use raftkv_protocol::frame::CLIENT_FRAME_MAX;
use raftkv_protocol::types::{NodeId, ShardId, Term};

use super::oneshot::Completer;
use super::{Error, ErrorKind, Item, Page, Result, ScanOptions, Target, Value, Version};

/// Room for everything of a request but the caller's bytes.
const OVERHEAD_BYTES_MAX: usize = 256;

/// What is asked, owned, so that it can be sent again.
#[derive(Debug)]
pub(super) enum Operation {
    Put { key: Box<[u8]>, value: Box<[u8]>, condition: Condition },
    Delete { key: Box<[u8]>, condition: Condition },
    Get { key: Box<[u8]>, consistency: Consistency },
    Scan(ScanOptions),
    Slots,
    Status(Target),
    Ping(Target),
}

impl Operation {
    pub(super) fn as_wire(&self) -> wire::Operation<'_> {
        match self {
            Operation::Put { key, value, condition } => wire::Operation::Put { key, value, condition: *condition },
            Operation::Delete { key, condition } => wire::Operation::Delete { key, condition: *condition },
            Operation::Get { key, consistency } => wire::Operation::Get { key, consistency: *consistency },
            Operation::Scan(options) => wire::Operation::Scan(options.as_scan()),
            Operation::Slots => wire::Operation::Slots,
            Operation::Status(_) => wire::Operation::Status,
            Operation::Ping(_) => wire::Operation::Ping,
        }
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self, Operation::Put { .. } | Operation::Delete { .. })
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key, .. } | Operation::Get { key, .. } => Some(key),
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
            Operation::Status(target) | Operation::Ping(target) => target,
            _ => &Target::Any,
        }
    }

    /// A server closes the connection on a frame over the cap, with everything else in flight on it: such a request is
    /// refused here. All lower limits are the server's to judge.
    pub(super) fn check_size(&self) -> Result<()> {
        let bytes = match self {
            Operation::Put { key, value, .. } => key.len().saturating_add(value.len()),
            Operation::Delete { key, .. } | Operation::Get { key, .. } => key.len(),
            Operation::Scan(options) => options.payload_bytes(),
            Operation::Slots | Operation::Status(_) | Operation::Ping(_) => 0,
        };
        let limit = CLIENT_FRAME_MAX - OVERHEAD_BYTES_MAX;
        if bytes <= limit {
            return Ok(());
        }
        let message = format!("the request's {bytes} bytes exceed the {limit} that fit into a frame");
        Err(Error::new(ErrorKind::TooLarge, message))
    }
}

/// What came of an operation, owned.
#[derive(Debug)]
pub(super) enum Outcome {
    Put(Version),
    Deleted(bool),
    Value(Option<Value>),
    Page(Page),
    Slots(SlotTable),
    Status(Box<Status>),
    Pong,
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
        (Operation::Get { .. }, Answer::Value { version, value }) => {
            Outcome::Value(Some(Value { version, bytes: value.to_vec() }))
        }
        (Operation::Scan(_), Answer::Page(page)) => Outcome::Page(own_page(page)),
        (Operation::Slots, Answer::Slots(table)) => Outcome::Slots(table),
        (Operation::Status(_), Answer::Status(status)) => Outcome::Status(status),
        (Operation::Ping(_), Answer::Pong) => Outcome::Pong,
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
        let error = if self.operation.is_write() { error.unknown_outcome() } else { error };
        self.complete(Err(error));
    }
}
