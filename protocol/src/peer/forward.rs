//! The bytes of forwarded requests and their answers: a head, then what the client's own frames hold after their id.

use super::{Forward, ForwardId, ForwardReply};
use crate::client::{Operation, Reply};
use crate::frame::{self, DecodeError};
use crate::kind;
use crate::types::{CoreId, RequestId, ShardId};
use crate::wire::{Reader, Writer};

impl<'a> Forward<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, kind::FORWARD, |out| {
            self.id.put(out);
            out.put_u16(self.shard.0);
            out.put_u32(self.timeout_ms);
            out.put_u8(self.operation.kind());
            self.operation.put(out);
        });
    }

    pub(super) fn decode(payload: &'a [u8]) -> Result<Forward<'a>, DecodeError> {
        let mut fields = Reader::new(payload);
        let id = ForwardId::read(&mut fields)?;
        let shard = ShardId(fields.u16("shard")?);
        let timeout_ms = fields.u32("timeout_ms")?;
        let operation_kind = fields.u8("operation kind")?;
        let forwardable = [kind::PUT, kind::DELETE, kind::BATCH, kind::GET, kind::SCAN];
        if !forwardable.contains(&operation_kind) {
            return Err(DecodeError::Invalid("operation kind"));
        }
        let operation = Operation::read(operation_kind, &mut fields)?;
        Ok(Forward { id, shard, operation, timeout_ms })
    }
}

impl<'a> ForwardReply<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, kind::FORWARD_REPLY, |out| {
            self.id.put(out);
            out.put_u8(self.reply.kind());
            self.reply.put(out);
        });
    }

    pub(super) fn decode(payload: &'a [u8]) -> Result<ForwardReply<'a>, DecodeError> {
        let mut fields = Reader::new(payload);
        let id = ForwardId::read(&mut fields)?;
        let reply_kind = fields.u8("reply kind")?;
        let reply = Reply::read(reply_kind, RequestId(0), &mut fields)?;
        Ok(ForwardReply { id, reply })
    }
}

impl ForwardId {
    fn put(self, out: &mut Vec<u8>) {
        out.put_u16(self.core.0);
        out.put_u64(self.serial);
    }

    fn read(fields: &mut Reader<'_>) -> Result<ForwardId, DecodeError> {
        Ok(ForwardId { core: CoreId(fields.u16("origin core")?), serial: fields.u64("serial")? })
    }
}
