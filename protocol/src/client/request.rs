//! The bytes of requests. A forwarded request carries the same operation bytes behind another head.

use super::{Batch, Condition, Consistency, Operation, Request, Scan};
use crate::frame::{self, DecodeError};
use crate::kind;
use crate::types::{Index, RequestId, ShardId};
use crate::wire::{Reader, Writer};

const CONDITION_NONE: u8 = 0;
const CONDITION_VERSION: u8 = 1;
const CONDITION_EXISTS: u8 = 2;
const CONDITION_ABSENT: u8 = 3;

/// Stands for "all shards" in a scan: shard numbers end below 16,384.
const ALL_SHARDS: u16 = u16::MAX;

impl<'a> Request<'a> {
    /// Appends the request to `out` as one frame.
    ///
    /// # Panics
    ///
    /// If a key has more than 65,535 bytes: check the key limit first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, self.operation.kind(), |out| {
            out.put_u64(self.id.0);
            self.operation.put(out);
        });
    }

    /// Reads the payload of a request frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let mut fields = Reader::new(payload);
        let id = RequestId(fields.u64("id")?);
        Ok(Request { id, operation: Operation::read(kind, &mut fields)? })
    }

    /// The id of a request that [`Request::decode`] refused, so that its sender can be told which one it was. Every
    /// request of every kind begins with it.
    #[must_use]
    pub fn id_of(payload: &[u8]) -> Option<RequestId> {
        Reader::new(payload).u64("id").ok().map(RequestId)
    }
}

impl<'a> Operation<'a> {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Operation::Put { .. } => kind::PUT,
            Operation::Delete { .. } => kind::DELETE,
            Operation::Batch(_) => kind::BATCH,
            Operation::Get { .. } => kind::GET,
            Operation::Scan(_) => kind::SCAN,
            Operation::Slots => kind::SLOTS,
            Operation::Status => kind::STATUS,
            Operation::Ping => kind::PING,
            Operation::Snapshot { .. } => kind::SNAPSHOT,
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Operation::Put { key, value, condition } => {
                condition.put(out);
                out.put_bytes16(key);
                out.put_bytes32(value);
            }
            Operation::Delete { key, condition } => {
                condition.put(out);
                out.put_bytes16(key);
            }
            Operation::Batch(batch) => batch.put(out),
            Operation::Get { key, consistency } => {
                out.put_u8(*consistency as u8);
                out.put_bytes16(key);
            }
            Operation::Scan(scan) => scan.put(out),
            Operation::Slots | Operation::Status | Operation::Ping => {}
            Operation::Snapshot { wait_ms } => out.put_u32(*wait_ms),
        }
    }

    pub(crate) fn read(kind: u8, fields: &mut Reader<'a>) -> Result<Operation<'a>, DecodeError> {
        Ok(match kind {
            kind::PUT => {
                let condition = Condition::read(fields)?;
                Operation::Put { key: fields.bytes16("key")?, value: fields.bytes32("value")?, condition }
            }
            kind::DELETE => {
                let condition = Condition::read(fields)?;
                Operation::Delete { key: fields.bytes16("key")?, condition }
            }
            kind::BATCH => Operation::Batch(Batch::read(fields)?),
            kind::GET => {
                let consistency = Consistency::read(fields)?;
                Operation::Get { key: fields.bytes16("key")?, consistency }
            }
            kind::SCAN => Operation::Scan(Scan::read(fields)?),
            kind::SLOTS => Operation::Slots,
            kind::STATUS => Operation::Status,
            kind::PING => Operation::Ping,
            kind::SNAPSHOT => Operation::Snapshot { wait_ms: fields.u32("wait_ms")? },
            _ => return Err(DecodeError::Kind(kind)),
        })
    }
}

impl Condition {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Condition::None => out.put_u8(CONDITION_NONE),
            Condition::Version(version) => {
                out.put_u8(CONDITION_VERSION);
                out.put_u64(version.0);
            }
            Condition::Exists => out.put_u8(CONDITION_EXISTS),
            Condition::Absent => out.put_u8(CONDITION_ABSENT),
        }
    }

    pub(super) fn read(fields: &mut Reader<'_>) -> Result<Condition, DecodeError> {
        match fields.u8("condition")? {
            CONDITION_NONE => Ok(Condition::None),
            CONDITION_VERSION => Ok(Condition::Version(Index(fields.u64("condition version")?))),
            CONDITION_EXISTS => Ok(Condition::Exists),
            CONDITION_ABSENT => Ok(Condition::Absent),
            _ => Err(DecodeError::Invalid("condition")),
        }
    }
}

impl Consistency {
    fn read(fields: &mut Reader<'_>) -> Result<Consistency, DecodeError> {
        match fields.u8("consistency")? {
            0 => Ok(Consistency::Linearizable),
            1 => Ok(Consistency::Lease),
            2 => Ok(Consistency::Stale),
            _ => Err(DecodeError::Invalid("consistency")),
        }
    }
}

impl<'a> Scan<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.consistency as u8);
        out.put_u8(u8::from(self.reverse));
        out.put_u32(self.limit);
        out.put_u16(self.shard.map_or(ALL_SHARDS, |shard| shard.0));
        out.put_bytes16(self.prefix);
        out.put_bytes16(self.start);
        out.put_bytes16(self.end);
        out.put_bytes16(self.cursor);
    }

    fn read(fields: &mut Reader<'a>) -> Result<Scan<'a>, DecodeError> {
        let consistency = Consistency::read(fields)?;
        let reverse = fields.bool("reverse")?;
        let limit = fields.u32("limit")?;
        let shard = fields.u16("shard")?;
        Ok(Scan {
            prefix: fields.bytes16("prefix")?,
            start: fields.bytes16("start")?,
            end: fields.bytes16("end")?,
            cursor: fields.bytes16("cursor")?,
            limit,
            reverse,
            consistency,
            shard: (shard != ALL_SHARDS).then_some(ShardId(shard)),
        })
    }
}
