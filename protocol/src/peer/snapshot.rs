//! The bytes of what is said while a snapshot is fetched. Both frames name shard, snapshot and offset first.

use super::{ChunkResult, SNAPSHOT_CHUNK_MAX, SnapshotChunk, SnapshotRead};
use crate::frame::{self, DecodeError, HEADER_LEN, PEER_FRAME_MAX};
use crate::kind;
use crate::types::{ShardId, SnapshotId};
use crate::wire::{Reader, Writer};

const OK: u8 = 0;
const GONE: u8 = 1;

/// Shard, snapshot and offset.
const HEAD_LEN: usize = 2 + 8 + 8;
/// The longest chunk: its head, that it is there, the file's size, and the piece with its length.
const CHUNK_FRAME_MAX: usize = HEADER_LEN + HEAD_LEN + 1 + 8 + 4 + SNAPSHOT_CHUNK_MAX;
const _: () = assert!(CHUNK_FRAME_MAX <= PEER_FRAME_MAX, "the longest chunk fits into a peer's frame");

impl SnapshotRead {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, kind::SNAPSHOT_READ, |out| {
            put_head(out, self.shard, self.id, self.offset);
            out.put_u32(self.length_max);
        });
    }

    pub(super) fn decode(payload: &[u8]) -> Result<SnapshotRead, DecodeError> {
        let mut fields = Reader::new(payload);
        let (shard, id, offset) = read_head(&mut fields)?;
        let length_max = fields.u32("length_max")?;
        if length_max == 0 || u64::from(length_max) > SNAPSHOT_CHUNK_MAX as u64 {
            return Err(DecodeError::Invalid("length_max"));
        }
        Ok(SnapshotRead { shard, id, offset, length_max })
    }
}

impl<'a> SnapshotChunk<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, kind::SNAPSHOT_CHUNK, |out| {
            put_head(out, self.shard, self.id, self.offset);
            match self.result {
                ChunkResult::Ok { total, bytes } => {
                    out.put_u8(OK);
                    out.put_u64(total);
                    out.put_bytes32(bytes);
                }
                ChunkResult::Gone => out.put_u8(GONE),
            }
        });
    }

    pub(super) fn decode(payload: &'a [u8]) -> Result<SnapshotChunk<'a>, DecodeError> {
        let mut fields = Reader::new(payload);
        let (shard, id, offset) = read_head(&mut fields)?;
        let result = match fields.u8("result")? {
            OK => read_piece(offset, &mut fields)?,
            GONE => ChunkResult::Gone,
            _ => return Err(DecodeError::Invalid("result")),
        };
        Ok(SnapshotChunk { shard, id, offset, result })
    }
}

/// A piece that lies within its file, and brings whoever asked further.
fn read_piece<'a>(offset: u64, fields: &mut Reader<'a>) -> Result<ChunkResult<'a>, DecodeError> {
    let total = fields.u64("total")?;
    let bytes = fields.bytes32("piece")?;
    let left = total.checked_sub(offset).filter(|left| bytes.len() as u64 <= *left);
    let left = left.ok_or(DecodeError::Invalid("total"))?;
    if bytes.len() > SNAPSHOT_CHUNK_MAX || (bytes.is_empty() && left > 0) {
        return Err(DecodeError::Invalid("piece"));
    }
    Ok(ChunkResult::Ok { total, bytes })
}

fn put_head(out: &mut Vec<u8>, shard: ShardId, id: SnapshotId, offset: u64) {
    out.put_u16(shard.0);
    out.put_u64(id.0);
    out.put_u64(offset);
}

fn read_head(fields: &mut Reader<'_>) -> Result<(ShardId, SnapshotId, u64), DecodeError> {
    Ok((ShardId(fields.u16("shard")?), SnapshotId(fields.u64("snapshot")?), fields.u64("offset")?))
}
