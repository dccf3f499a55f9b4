//! What a client did, and what it was told.

use std::fmt;

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who called. It only names the operation for people: a client may have many calls open at once.
    pub client: u32,
    /// The one key that it was about.
    pub key: Vec<u8>,
    /// What it asked for.
    pub kind: Kind,
    /// When it was called: a time, or better a number from a sequence, as two operations that touch at one moment
    /// count as concurrent.
    pub call: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// When the caller was told, on the same scale as `call`; `u64::MAX` if there was no reply.
    pub ret: u64,
}

/// What an operation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A linearizable read.
    Get,
    /// Write the key.
    Put {
        /// The new value. Histories say more if it is unique.
        value: Vec<u8>,
        /// What must hold of the key.
        condition: Condition,
    },
    /// Remove the key.
    Delete {
        /// What must hold of the key.
        condition: Condition,
    },
}

/// What must hold of a key for a write to it to take place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key exists with exactly this version.
    Version(u64),
    /// The key exists.
    Exists,
    /// The key does not exist.
    Absent,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A get read this version and value, or that there is no such key.
    Value(Option<(u64, Vec<u8>)>),
    /// A put took place and gave the key this version: the index of its log entry.
    Put {
        /// The key's new version.
        version: u64,
    },
    /// A delete took place.
    Deleted {
        /// Whether there was something to remove, where the caller learnt it.
        existed: Option<bool>,
        /// The index of its log entry, where the caller learnt it.
        index: Option<u64>,
    },
    /// The condition did not hold when it was the operation's turn, so nothing was changed.
    ConditionFailed,
    /// It had no effect and never will.
    Failed,
    /// It may have happened, may still happen at any later time, and may never happen.
    Unknown,
}

/// What somebody knows of where an operation took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// In this place, as the index of its log entry.
    At(u64),
    /// Nowhere.
    Never,
    /// Nothing is known.
    Unknown,
}

/// An entry of a log that removes a key, whoever has asked for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Of the entry.
    pub index: u64,
    /// What must hold of the key.
    pub condition: Condition,
}

impl Kind {
    /// Whether it may change the key.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self, Kind::Get)
    }

    /// What must hold of the key.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self {
            Kind::Get => Condition::None,
            Kind::Put { condition, .. } | Kind::Delete { condition } => *condition,
        }
    }
}

impl Operation {
    /// Whether it says anything: what failed for certain, and reads that were not answered, do not.
    #[must_use]
    pub(crate) fn counts(&self) -> bool {
        match self.outcome {
            Outcome::Failed => false,
            Outcome::Unknown => self.kind.is_write(),
            _ => true,
        }
    }

    /// Whether it ended before the other began.
    #[must_use]
    pub(crate) fn precedes(&self, other: &Operation) -> bool {
        self.outcome != Outcome::Unknown && self.ret < other.call
    }

    /// Why no client can have seen this, whatever the store did.
    pub(crate) fn malformed(&self) -> Option<&'static str> {
        let fits = matches!(
            (&self.kind, &self.outcome),
            (_, Outcome::Failed | Outcome::Unknown)
                | (Kind::Get, Outcome::Value(_))
                | (Kind::Put { .. }, Outcome::Put { .. } | Outcome::ConditionFailed)
                | (Kind::Delete { .. }, Outcome::Deleted { .. } | Outcome::ConditionFailed)
        );
        if !fits {
            return Some("its outcome is none of its kind");
        }
        (self.outcome != Outcome::Unknown && self.ret < self.call).then_some("it ended before it began")
    }
}

/// The most bytes of a key or value that are shown.
const SHOWN_BYTES_MAX: usize = 40;

/// Bytes for people: quoted, escaped and cut.
pub(crate) struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES_MAX)];
        write!(f, "\"{}{}\"", shown.escape_ascii(), if shown.len() < self.0.len() { "…" } else { "" })
    }
}

impl fmt::Display for Condition {
    /// Nothing, or words that follow those of an operation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::None => Ok(()),
            Condition::Version(version) => write!(f, " if version {version}"),
            Condition::Exists => f.write_str(" if it exists"),
            Condition::Absent => f.write_str(" if absent"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Value(Some((version, value))) => write!(f, "{} @{version}", Quoted(value)),
            Outcome::Value(None) => f.write_str("no such key"),
            Outcome::Put { version } => write!(f, "written @{version}"),
            Outcome::Deleted { existed, index } => {
                f.write_str(match existed {
                    Some(true) => "deleted",
                    Some(false) => "there was nothing to delete",
                    None => "deleted, if it was there",
                })?;
                index.map_or(Ok(()), |index| write!(f, " @{index}"))
            }
            Outcome::ConditionFailed => f.write_str("the condition does not hold"),
            Outcome::Failed => f.write_str("failed, without effect"),
            Outcome::Unknown => f.write_str("outcome unknown"),
        }
    }
}

impl fmt::Display for Operation {
    /// `client 3 [17, 21] put "key" = "value" if version 4: written @5`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} [{}, ", self.client, self.call)?;
        match self.ret {
            u64::MAX => f.write_str("…] ")?,
            ret => write!(f, "{ret}] ")?,
        }
        let key = Quoted(&self.key);
        match &self.kind {
            Kind::Get => write!(f, "get {key}"),
            Kind::Put { value, condition } => write!(f, "put {key} = {}{condition}", Quoted(value)),
            Kind::Delete { condition } => write!(f, "delete {key}{condition}"),
        }?;
        write!(f, ": {}", self.outcome)
    }
}
