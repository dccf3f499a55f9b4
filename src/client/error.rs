//! Why a call failed, and what that means for the write it carried.

use std::fmt;

use raftkv_protocol::client::Code;

/// The outcome of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call: what kind, whether the write may have happened all the same, and a line for people.
///
/// ```
/// use raftkv::client::{Error, ErrorKind};
///
/// fn next_step(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::PreconditionFailed => "somebody else was faster: read the key again",
///         _ if error.maybe_applied() => "read the key to learn whether the write happened",
///         _ if error.is_retryable() => "try again later",
///         _ => "give up",
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    maybe_applied: bool,
}

/// What kind of failure. Kinds up to [`ErrorKind::Unauthorized`] are the server's codes of the same name; the others
/// arise on this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request makes no sense, for instance an empty key.
    BadRequest,
    /// The key does not exist. Calls report this as `None` or `false`, so it is rarely seen.
    NotFound,
    /// A key, value or request is over a limit, which the message names.
    TooLarge,
    /// The condition of a write does not hold.
    PreconditionFailed,
    /// An atomic batch spans shards.
    CrossShard,
    /// The node that was asked does not lead the shard, and no other could be found within the deadline.
    NotLeader,
    /// The shard had no leader within the deadline: most likely a majority of the nodes is down.
    NoLeader,
    /// The node cannot serve the shard yet.
    NotReady,
    /// The server has too much in flight.
    Overloaded,
    /// The server's disk is full.
    NoSpace,
    /// The replica that was asked differs from the majority and does not serve.
    Diverged,
    /// No outcome until the deadline, on the server or here.
    Timeout,
    /// The server does not let this client do that.
    Unauthorized,
    /// No node could be reached, so nothing was sent.
    Unreachable,
    /// The connection broke before the reply came.
    ConnectionLost,
    /// The node belongs to another cluster than the one asked for.
    WrongCluster,
    /// Client and server share no version of the protocol.
    Version,
    /// The other side sent something that is not the protocol.
    Protocol,
    /// Too much waits in this client already ([`WhenFull::Fail`](super::WhenFull::Fail)).
    QueueFull,
    /// The client was dropped, or its I/O thread died, before the outcome was known.
    Closed,
}

impl ErrorKind {
    /// The protocol's code, for the kinds that have one.
    #[must_use]
    pub fn code(self) -> Option<Code> {
        Some(match self {
            ErrorKind::BadRequest => Code::BadRequest,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::TooLarge => Code::TooLarge,
            ErrorKind::PreconditionFailed => Code::PreconditionFailed,
            ErrorKind::CrossShard => Code::CrossShard,
            ErrorKind::NotLeader => Code::NotLeader,
            ErrorKind::NoLeader => Code::NoLeader,
            ErrorKind::NotReady => Code::NotReady,
            ErrorKind::Overloaded => Code::Overloaded,
            ErrorKind::NoSpace => Code::NoSpace,
            ErrorKind::Diverged => Code::Diverged,
            ErrorKind::Timeout => Code::Timeout,
            ErrorKind::Unauthorized => Code::Unauthorized,
            ErrorKind::Unreachable
            | ErrorKind::ConnectionLost
            | ErrorKind::WrongCluster
            | ErrorKind::Version
            | ErrorKind::Protocol
            | ErrorKind::QueueFull
            | ErrorKind::Closed => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::ConnectionLost => "connection_lost",
            ErrorKind::WrongCluster => "wrong_cluster",
            ErrorKind::Version => "version",
            ErrorKind::Protocol => "protocol",
            ErrorKind::QueueFull => "queue_full",
            ErrorKind::Closed => "closed",
            coded => coded.code().map_or("error", Code::name),
        }
    }
}

impl From<Code> for ErrorKind {
    fn from(code: Code) -> ErrorKind {
        match code {
            Code::BadRequest => ErrorKind::BadRequest,
            Code::NotFound => ErrorKind::NotFound,
            Code::TooLarge => ErrorKind::TooLarge,
            Code::PreconditionFailed => ErrorKind::PreconditionFailed,
            Code::CrossShard => ErrorKind::CrossShard,
            Code::NotLeader => ErrorKind::NotLeader,
            Code::NoLeader => ErrorKind::NoLeader,
            Code::NotReady => ErrorKind::NotReady,
            Code::Overloaded => ErrorKind::Overloaded,
            Code::NoSpace => ErrorKind::NoSpace,
            Code::Diverged => ErrorKind::Diverged,
            Code::Timeout => ErrorKind::Timeout,
            Code::Unauthorized => ErrorKind::Unauthorized,
            // The specification: take a code that is not known for the one that promises nothing.
            _ => ErrorKind::Timeout,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), maybe_applied: false }
    }

    /// The same error, for a write that may have reached the log.
    pub(super) fn unknown_outcome(mut self) -> Error {
        self.maybe_applied = true;
        self
    }

    /// What kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened and where, and what to do about it, without the name of the kind.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The protocol's code, for the kinds that have one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.kind.code()
    }

    /// Whether a write that failed so may have been applied, or may be in future. The client never sends such a write
    /// again; the caller may read the key, or repeat a write that does no harm if it happens twice. Always false for
    /// reads.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        self.maybe_applied
    }

    /// Whether the same call may well succeed later, and repeating it is safe: false whenever
    /// [`maybe_applied`](Error::maybe_applied) is true.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let passes = self.code().is_some_and(Code::is_retryable)
            || matches!(
                self.kind,
                ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::ConnectionLost | ErrorKind::QueueFull
            );
        passes && !self.maybe_applied
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)?;
        if self.maybe_applied {
            f.write_str(" (the write may have been applied)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
