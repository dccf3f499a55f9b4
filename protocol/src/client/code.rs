//! Why a request was not served: the codes that are the same on every face of the server.

use std::fmt;

use crate::types::NodeId;

/// Why a request was not served, as a stable code. The same on every face of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// The request makes no sense; its message says why.
    BadRequest = 1,
    /// The key does not exist.
    NotFound = 2,
    /// Over a limit, which the message names.
    TooLarge = 3,
    /// The condition of a write does not hold.
    PreconditionFailed = 4,
    /// An atomic batch spans shards.
    CrossShard = 5,
    /// The asked node does not lead the shard; the hint names who does, if known.
    NotLeader = 6,
    /// The shard had no leader until the deadline.
    NoLeader = 7,
    /// The node is not ready to serve the shard yet.
    NotReady = 8,
    /// Too much is in flight; try again later.
    Overloaded = 9,
    /// The disk is full.
    NoSpace = 10,
    /// This replica differs from the majority and does not serve.
    Diverged = 11,
    /// No outcome until the deadline. A write may have been applied, or may be later.
    Timeout = 12,
    /// The connection may not do this.
    Unauthorized = 13,
}

impl Code {
    /// The code with this number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Code> {
        match number {
            1 => Some(Code::BadRequest),
            2 => Some(Code::NotFound),
            3 => Some(Code::TooLarge),
            4 => Some(Code::PreconditionFailed),
            5 => Some(Code::CrossShard),
            6 => Some(Code::NotLeader),
            7 => Some(Code::NoLeader),
            8 => Some(Code::NotReady),
            9 => Some(Code::Overloaded),
            10 => Some(Code::NoSpace),
            11 => Some(Code::Diverged),
            12 => Some(Code::Timeout),
            13 => Some(Code::Unauthorized),
            _ => None,
        }
    }

    /// Every code there is, in numerical order.
    pub fn all() -> impl Iterator<Item = Code> {
        (0..=u8::MAX).filter_map(Code::from_u8)
    }

    /// The name in the specification, as in `no_leader`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::NotFound => "not_found",
            Code::TooLarge => "too_large",
            Code::PreconditionFailed => "precondition_failed",
            Code::CrossShard => "cross_shard",
            Code::NotLeader => "not_leader",
            Code::NoLeader => "no_leader",
            Code::NotReady => "not_ready",
            Code::Overloaded => "overloaded",
            Code::NoSpace => "no_space",
            Code::Diverged => "diverged",
            Code::Timeout => "timeout",
            Code::Unauthorized => "unauthorized",
        }
    }

    /// Whether a write answered with this may have been applied, or may be in future.
    #[must_use]
    pub fn maybe_applied(self) -> bool {
        self == Code::Timeout
    }

    /// Whether the same request was surely not served, yet may be a little later or by another node: a client may
    /// send it again, writes included, until its deadline.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Code::NotLeader | Code::NoLeader | Code::NotReady | Code::Overloaded | Code::Diverged)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The bad outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// What kind.
    pub code: Code,
    /// Who leads the shard, with [`Code::NotLeader`] where it is known.
    pub leader: Option<NodeId>,
    /// For people: what, where, and what to do.
    pub message: &'a str,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
