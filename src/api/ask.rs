//! What a face over HTTP asks its node, and how it hears the answer.
//!
//! A handler is a future on the core's own loop. It leaves its question with the [`Backend`] and waits; the loop takes
//! the questions of a turn together ([`Backend::take_asked`]), has the router serve them, and answers each when its shard
//! has. What is asked and answered is owned here, as it outlives the bytes that it came in.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_channel::oneshot;
use raftkv_protocol::client::{
    Answer, BatchBuffer, Code, Condition, Consistency, Existed, Operation, Refusal, Scan, SlotTable, Status,
};
use raftkv_protocol::types::{EntryId, Index, NodeId};

use crate::metrics::figures::Figures;
use crate::metrics::requests::{Face, Task};

/// An operation that owns its keys and values. The fields are those of [`Operation`].
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "see `Operation`")]
pub enum OwnedOperation {
    Put { key: Bytes, value: Bytes, condition: Condition },
    Delete { key: Bytes, condition: Condition },
    Batch(BatchBuffer),
    Get { key: Bytes, consistency: Consistency },
    Scan(OwnedScan),
    Slots,
    Status,
}

/// A scan over all shards that owns its bounds. The fields are those of [`Scan`].
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "see `Scan`")]
pub struct OwnedScan {
    pub prefix: Bytes,
    pub start: Bytes,
    pub end: Bytes,
    pub cursor: Bytes,
    pub limit: u32,
    pub reverse: bool,
    pub consistency: Consistency,
}

impl OwnedOperation {
    /// The operation, borrowing from this one.
    #[must_use]
    pub fn borrow(&self) -> Operation<'_> {
        match self {
            OwnedOperation::Put { key, value, condition } => Operation::Put { key, value, condition: *condition },
            OwnedOperation::Delete { key, condition } => Operation::Delete { key, condition: *condition },
            OwnedOperation::Batch(batch) => Operation::Batch(batch.as_batch()),
            OwnedOperation::Get { key, consistency } => Operation::Get { key, consistency: *consistency },
            OwnedOperation::Scan(scan) => Operation::Scan(Scan {
                prefix: &scan.prefix,
                start: &scan.start,
                end: &scan.end,
                cursor: &scan.cursor,
                limit: scan.limit,
                reverse: scan.reverse,
                consistency: scan.consistency,
                shard: None,
            }),
            OwnedOperation::Slots => Operation::Slots,
            OwnedOperation::Status => Operation::Status,
        }
    }
}

/// A good outcome that owns its values. The fields are those of [`Answer`].
#[derive(Debug)]
#[expect(missing_docs, reason = "see `Answer`")]
pub enum OwnedAnswer {
    Put,
    Deleted { existed: bool },
    Batch { existed: Existed },
    Value { version: Index, value: Bytes },
    Page { items: Vec<OwnedItem>, more: bool },
    Slots(SlotTable),
    Status(Box<Status>),
}

/// One key of a page.
#[derive(Debug)]
#[expect(missing_docs, reason = "see `Item`")]
pub struct OwnedItem {
    pub key: Bytes,
    pub version: Index,
    pub value: Bytes,
}

/// Why a request was not served.
#[derive(Clone, Debug)]
pub struct OwnedRefusal {
    /// What kind.
    pub code: Code,
    /// Who leads the shard, where it is known.
    pub leader: Option<NodeId>,
    /// For people: what, where, and what to do.
    pub message: String,
    /// The node has refused it, and counted that; otherwise the face has.
    pub is_counted: bool,
}

impl OwnedRefusal {
    /// A refusal by a face, which names no leader.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> OwnedRefusal {
        OwnedRefusal { code, leader: None, message: message.into(), is_counted: false }
    }
}

impl From<Refusal<'_>> for OwnedRefusal {
    fn from(refusal: Refusal<'_>) -> OwnedRefusal {
        let Refusal { code, leader, message } = refusal;
        OwnedRefusal { code, leader, message: message.to_owned(), is_counted: true }
    }
}

/// What has become of a question: the answer with the term and index that it was given at, or a refusal.
pub type Outcome = Result<(EntryId, OwnedAnswer), OwnedRefusal>;

impl OwnedAnswer {
    /// Copies an answer; `None` if it is none that anybody asks for over HTTP.
    #[must_use]
    pub fn copy(answer: Answer<'_>) -> Option<OwnedAnswer> {
        Some(match answer {
            Answer::Put => OwnedAnswer::Put,
            Answer::Deleted { existed } => OwnedAnswer::Deleted { existed },
            Answer::Batch { existed } => OwnedAnswer::Batch { existed },
            Answer::Value { version, value } => OwnedAnswer::Value { version, value: Bytes::copy_from_slice(value) },
            Answer::Page(page) => {
                let items = page.items.iter().map(|item| OwnedItem {
                    key: Bytes::copy_from_slice(item.key),
                    version: item.version,
                    value: Bytes::copy_from_slice(item.value),
                });
                OwnedAnswer::Page { items: items.collect(), more: page.more }
            }
            Answer::Slots(table) => OwnedAnswer::Slots(table),
            Answer::Status(status) => OwnedAnswer::Status(status),
            _ => return None,
        })
    }
}

/// A question that nobody has looked at yet.
#[derive(Debug)]
pub struct Question {
    /// Where the client has come in.
    pub face: Face,
    /// What is asked.
    pub operation: OwnedOperation,
    /// Who waits for the answer. A client that has gone waits no longer.
    pub answer: oneshot::Sender<Outcome>,
}

/// Who waits for the node's figures.
pub type Scrape = oneshot::Sender<Result<Arc<Figures>, OwnedRefusal>>;

/// What was asked and nobody has looked at.
#[derive(Debug, Default)]
struct Asked {
    /// Of the shards and of the node, as every client may.
    questions: Vec<Question>,
    /// For the node's metrics.
    scrapes: Vec<Scrape>,
    /// Requests that a face has refused, and that are to be counted.
    refused: Vec<(Face, Task, Code)>,
}

impl Asked {
    fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.scrapes.is_empty()
    }
}

/// The way of a core's handlers to their node: copies of it are the same.
#[derive(Clone, Default)]
pub struct Backend {
    asked: Arc<Mutex<Asked>>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl Backend {
    /// Asks the node and waits for what comes of it.
    pub async fn ask(&self, face: Face, operation: OwnedOperation) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        self.asked().questions.push(Question { face, operation, answer });
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Asks for what the node knows of itself.
    pub async fn figures(&self) -> Result<Arc<Figures>, OwnedRefusal> {
        let (scrape, figures) = oneshot::channel();
        self.asked().scrapes.push(scrape);
        figures.await.unwrap_or_else(|_| Err(ended()))
    }

    /// What was asked since the last look, for the loop, and who has asked for the node's figures. The list is empty before, and
    /// used again for what is asked from now on.
    #[must_use]
    pub fn take_asked(&self, list: &mut Vec<Question>) -> Vec<Scrape> {
        let mut asked = self.asked();
        std::mem::swap(list, &mut asked.questions);
        std::mem::take(&mut asked.scrapes)
    }

    /// A request was refused before the node was asked.
    pub fn refused(&self, face: Face, task: Task, code: Code) {
        self.asked().refused.push((face, task, code));
    }

    /// The requests that were refused so since the last look.
    #[must_use]
    pub fn take_refused(&self) -> Vec<(Face, Task, Code)> {
        std::mem::take(&mut self.asked().refused)
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.asked().is_empty()
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended() -> OwnedRefusal {
    OwnedRefusal::new(Code::Timeout, "the node ended before it could answer")
}
