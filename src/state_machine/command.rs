//! The body of a log entry that changes the map: how it is written and read.
//!
//! Numbers are little-endian. A command is read in place; nothing is allocated for it.
//!
//! ```text
//! command     offset  size  field
//!                  0     1  version: 1
//!                  1     1  flags: bit 0 = a session follows; all others are 0
//!                  2   8+8  client id, serial (only with a session)
//!               then     2  number of operations: 1 to 65,535
//!               then        the operations
//! operation        0     1  kind: 1 put, 2 delete
//!                  1     1  condition: 0 none, 1 version, 2 exists, 3 absent
//!                  2     8  the version (only with condition 1)
//!               then     4  length of the key
//!               then        the key
//!               then     4  length of the value (only of a put)
//!               then        the value (only of a put)
//! ```
//!
//! An operation takes effect only if the conditions of *all* operations of its command hold. One request of a client
//! is one command; a batch is a command of several operations on different keys.
//!
//! Whatever this version does not know stops it: a command that replicas understand differently would make them
//! differ. So that it never comes to that, something new is proposed only when every voter has announced it.

use std::collections::BTreeSet;
use std::fmt;

use raftkv_protocol::client::Condition;
pub use raftkv_protocol::client::{BatchOperation as Operation, Change};
use raftkv_protocol::types::Index;

const VERSION: u8 = 1;
const FLAG_SESSION: u8 = 1;
const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const CONDITION_NONE: u8 = 0;
const CONDITION_VERSION: u8 = 1;
const CONDITION_EXISTS: u8 = 2;
const CONDITION_ABSENT: u8 = 3;

/// Which client a command comes from, and the how-manieth of its commands it is: what makes a retry recognisable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The client.
    pub client: u64,
    /// Counts the client's commands.
    pub serial: u64,
}

/// A command that has been read from first to last byte.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    session: Option<Session>,
    count: u16,
    operations: &'a [u8],
}

/// Why a body is no command that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// It ends in the middle of something.
    Short,
    /// Bytes follow its last operation.
    Long,
    /// It has no operation.
    Empty,
    /// It has another format.
    Version(u8),
    /// It has flags without a meaning here.
    Flags(u8),
    /// It has an operation of an unknown kind.
    Kind(u8),
    /// It has a condition of an unknown kind.
    Condition(u8),
}

/// A batch names a key twice, has no operation or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBatch;

impl<'a> Command<'a> {
    /// Reads a command, all of it: what follows cannot fail any more.
    pub fn decode(body: &'a [u8]) -> Result<Command<'a>, CommandError> {
        let mut reader = Reader(body);
        match reader.u8()? {
            VERSION => {}
            version => return Err(CommandError::Version(version)),
        }
        let flags = reader.u8()?;
        if flags & !FLAG_SESSION != 0 {
            return Err(CommandError::Flags(flags));
        }
        let session = match flags & FLAG_SESSION {
            0 => None,
            _ => Some(Session { client: reader.u64()?, serial: reader.u64()? }),
        };
        let count = reader.u16()?;
        if count == 0 {
            return Err(CommandError::Empty);
        }
        let operations = reader.0;
        for _ in 0..count {
            reader.operation()?;
        }
        if !reader.0.is_empty() {
            return Err(CommandError::Long);
        }
        Ok(Command { session, count, operations })
    }

    /// Who sent it, if it says so.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// What it does, in order. At least one.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = Operation<'a>> + use<'a> {
        let mut reader = Reader(self.operations);
        (0..self.count).map(move |_| reader.operation().expect("decode has read every operation"))
    }
}

/// Appends the command of a put to `out`.
pub fn encode_put(key: &[u8], value: &[u8], condition: Condition, out: &mut Vec<u8>) {
    encode_head(None, 1, out);
    encode_operation(&Operation { key, condition, change: Change::Put(value) }, out);
}

/// Appends the command of a delete to `out`.
pub fn encode_delete(key: &[u8], condition: Condition, out: &mut Vec<u8>) {
    encode_head(None, 1, out);
    encode_operation(&Operation { key, condition, change: Change::Delete }, out);
}

/// Appends the command of a batch to `out`: all operations take place, or none. Their keys must differ.
pub fn encode_batch<'a>(
    operations: impl ExactSizeIterator<Item = Operation<'a>> + Clone,
    out: &mut Vec<u8>,
) -> Result<(), InvalidBatch> {
    let count = u16::try_from(operations.len()).map_err(|_| InvalidBatch)?;
    let mut keys = BTreeSet::new();
    let differ = operations.clone().all(|operation| keys.insert(operation.key));
    if count == 0 || !differ {
        return Err(InvalidBatch);
    }
    encode_head(None, count, out);
    operations.for_each(|operation| encode_operation(&operation, out));
    Ok(())
}

pub(super) fn encode_head(session: Option<Session>, count: u16, out: &mut Vec<u8>) {
    out.push(VERSION);
    match session {
        None => out.push(0),
        Some(session) => {
            out.push(FLAG_SESSION);
            out.extend_from_slice(&session.client.to_le_bytes());
            out.extend_from_slice(&session.serial.to_le_bytes());
        }
    }
    out.extend_from_slice(&count.to_le_bytes());
}

pub(super) fn encode_operation(operation: &Operation<'_>, out: &mut Vec<u8>) {
    out.push(match operation.change {
        Change::Put(_) => KIND_PUT,
        Change::Delete => KIND_DELETE,
    });
    match operation.condition {
        Condition::None => out.push(CONDITION_NONE),
        Condition::Version(version) => {
            out.push(CONDITION_VERSION);
            out.extend_from_slice(&version.0.to_le_bytes());
        }
        Condition::Exists => out.push(CONDITION_EXISTS),
        Condition::Absent => out.push(CONDITION_ABSENT),
    }
    encode_bytes(operation.key, out);
    if let Change::Put(value) = operation.change {
        encode_bytes(value, out);
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(bytes.len()).expect("keys and values arrive in frames, which are far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn operation(&mut self) -> Result<Operation<'a>, CommandError> {
        let kind = self.u8()?;
        let condition = match self.u8()? {
            CONDITION_NONE => Condition::None,
            CONDITION_VERSION => Condition::Version(Index(self.u64()?)),
            CONDITION_EXISTS => Condition::Exists,
            CONDITION_ABSENT => Condition::Absent,
            unknown => return Err(CommandError::Condition(unknown)),
        };
        let key = self.bytes()?;
        let change = match kind {
            KIND_PUT => Change::Put(self.bytes()?),
            KIND_DELETE => Change::Delete,
            unknown => return Err(CommandError::Kind(unknown)),
        };
        Ok(Operation { key, condition, change })
    }

    fn bytes(&mut self) -> Result<&'a [u8], CommandError> {
        let len = usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| CommandError::Short)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(CommandError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, CommandError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, CommandError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, CommandError> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CommandError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(CommandError::Short)?;
        self.0 = rest;
        Ok(*array)
    }
}

/// The most operations that [`describe`] shows.
const SHOWN_OPERATIONS_MAX: usize = 4;

/// Reads a command back for people: `put "k" (128 bytes)`.
#[must_use]
pub fn describe(body: &[u8]) -> String {
    let command = match Command::decode(body) {
        Ok(command) => command,
        Err(error) => return format!("unreadable command: {error}"),
    };
    let count = command.operations().len();
    let mut words: Vec<String> = command.operations().take(SHOWN_OPERATIONS_MAX).map(|op| op.to_string()).collect();
    if count > SHOWN_OPERATIONS_MAX {
        words.push("…".into());
    }
    let mut text = words.join(", ");
    if count > 1 {
        text = format!("batch of {count}: {text}");
    }
    if let Some(Session { client, serial }) = command.session() {
        text.push_str(&format!(" by client {client:016x} serial {serial}"));
    }
    text
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Short => f.write_str("it ends too early"),
            CommandError::Long => f.write_str("bytes follow its last operation"),
            CommandError::Empty => f.write_str("it has no operation"),
            CommandError::Version(version) => write!(f, "format version {version} is unknown to this server"),
            CommandError::Flags(flags) => write!(f, "flags {flags:#04x} are unknown to this server"),
            CommandError::Kind(kind) => write!(f, "operation kind {kind} is unknown to this server"),
            CommandError::Condition(condition) => write!(f, "condition kind {condition} is unknown to this server"),
        }
    }
}

impl fmt::Display for InvalidBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch has 1 to 65,535 operations, each on another key")
    }
}

impl std::error::Error for CommandError {}
impl std::error::Error for InvalidBatch {}
