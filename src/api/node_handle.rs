//! A core's node as the handlers of its HTTP faces see it.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::rt::Timer;
use raftkv_protocol::client::Code;
use raftkv_protocol::types::NodeId;

use super::ask::{Backend, Outcome, OwnedOperation, OwnedRefusal};
use super::binary;
use super::held::Held;
use crate::limits::Limits;
use crate::metrics::figures::{Figures, ProcessFigures};
use crate::metrics::requests::Face;

/// How long a handler waits for an answer beyond the time that the node has for it: only a node that has lost the
/// question needs it.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// What the handlers of a core share.
#[derive(Clone)]
pub struct NodeHandle {
    /// Where those whom the handlers serve have come in.
    pub face: Face,
    /// The way to the node.
    pub backend: Backend,
    /// The limits of the node.
    pub limits: Arc<Limits>,
    /// How many shards the cluster has.
    pub shards: u16,
    /// The clock of the core's loop.
    pub timer: Arc<dyn Timer + Send + Sync>,
    /// Bytes of requests' bodies that are on their way in.
    pub bodies: Held,
    /// Requests whose bodies did not come in time.
    pub bodies_late: Arc<AtomicU64>,
    /// Calls that were ended because their own deadlines had passed.
    pub deadlines: Arc<AtomicU64>,
    /// Bytes of replies that wait for their readers.
    pub replies: Held,
    /// Requests for the node's metrics, until their answers have left.
    pub scrapes: Held,
    /// What the node knows of itself.
    pub health: Arc<dyn Health>,
    /// The members of the cluster, and where they listen for the binary protocol.
    pub members: Arc<[(NodeId, String)]>,
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").finish_non_exhaustive()
    }
}

impl NodeHandle {
    /// Asks the node.
    pub async fn ask(&self, operation: OwnedOperation) -> Outcome {
        let clock = self.timer.sleep(self.limits.request_timeout + ANSWER_GRACE);
        match first(self.backend.ask(self.face, operation), clock).await {
            First::Done(outcome) => outcome,
            First::Late => Err(OwnedRefusal::new(
                Code::Timeout,
                "the node did not answer itself; a write may or may not take effect",
            )),
        }
    }

    /// What the node knows of itself.
    pub async fn figures(&self) -> Result<Arc<Figures>, OwnedRefusal> {
        let clock = self.timer.sleep(self.limits.request_timeout + ANSWER_GRACE);
        match first(self.backend.figures(), clock).await {
            First::Done(figures) => figures,
            First::Late => Err(OwnedRefusal::new(Code::Timeout, "the node did not answer itself")),
        }
    }

    /// Whether a key is within the limits, before the rest of a request is there.
    pub fn check_key(&self, key: &Bytes) -> Result<(), OwnedRefusal> {
        let operation = OwnedOperation::Get { key: key.clone(), consistency: Default::default() };
        binary::check(&operation.borrow(), &self.limits).map_err(|(code, words)| OwnedRefusal::new(code, words))
    }

    /// An answer that does not fit its question.
    #[must_use]
    pub fn unexpected(&self) -> OwnedRefusal {
        OwnedRefusal::new(Code::Timeout, "the node gave an answer to another question; please report this")
    }

    /// The words for a request whose body did not come in time, which is counted.
    #[must_use]
    pub fn body_is_late(&self) -> String {
        self.bodies_late.fetch_add(1, Ordering::Relaxed);
        format!(
            "the body was not there within {:?} (--http-body-timeout of the server); nothing was written",
            self.limits.http_body_timeout
        )
    }
}

/// What was first: the work, or the end of the time for it.
#[derive(Debug)]
pub enum First<T> {
    /// The work is done.
    Done(T),
    /// It is not, and its time is over.
    Late,
}

/// Polls the work, and then the clock.
pub async fn first<T>(work: impl Future<Output = T>, clock: impl Future<Output = ()>) -> First<T> {
    let (mut work, mut clock) = (pin!(work), pin!(clock));
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(First::Done(done));
        }
        clock.as_mut().poll(context).map(|()| First::Late)
    })
    .await
}

/// One thing that a node's health hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, as in `core-0/leaders`.
    pub name: String,
    /// What is wrong, and what to do; `None` if all is well.
    pub fault: Option<String>,
}

/// What a node knows of its own health, without asking anybody.
pub trait Health: Send + Sync + 'static {
    /// Whether its event loops turn.
    fn live(&self, now: Instant) -> Vec<Check>;

    /// Whether it can serve.
    fn ready(&self, now: Instant) -> Vec<Check>;

    /// What the system says of its process.
    fn process(&self) -> ProcessFigures;

    /// Whether it is to end: what would go on for ever ends.
    fn is_stopping(&self) -> bool;
}
