//! The bytes of what a node tells all others of itself: how its disk does, and the hashes of its replicas' states.

use super::{Checkpoints, Health, ShardCheckpoint};
use crate::frame::{self, DecodeError};
use crate::health::DiskHealth;
use crate::kind;
use crate::types::{Index, ShardId};
use crate::wire::{Reader, Writer, read_list};

/// A checkpoint: the element's length, shard, index, hash.
const CHECKPOINT_LEN_MIN: usize = 2 + 2 + 8 + 16;

impl Health {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        frame::write(out, kind::HEALTH, |out| out.put_u8(self.disk as u8));
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Health, DecodeError> {
        let mut fields = Reader::new(payload);
        Ok(Health { disk: DiskHealth::from_u8(fields.u8("disk")?) })
    }
}

impl Checkpoints {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, kind::CHECKPOINTS, |out| {
            out.put_u16(self.format);
            out.put_count(self.checkpoints.len());
            for checkpoint in &self.checkpoints {
                out.put_element(|out| {
                    out.put_u16(checkpoint.shard.0);
                    out.put_u64(checkpoint.index.0);
                    out.put_u128(checkpoint.hash);
                });
            }
        });
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Checkpoints, DecodeError> {
        let mut fields = Reader::new(payload);
        Ok(Checkpoints {
            format: fields.u16("format")?,
            checkpoints: read_list(&mut fields, CHECKPOINT_LEN_MIN, "checkpoints", |fields| {
                let mut checkpoint = fields.element("checkpoint")?;
                Ok(ShardCheckpoint {
                    shard: ShardId(checkpoint.u16("checkpoint shard")?),
                    index: Index(checkpoint.u64("checkpoint index")?),
                    hash: checkpoint.u128("checkpoint hash")?,
                })
            })?,
        })
    }
}
