//! The bytes of Raft messages. Each has its own kind and begins with shard, sender, receiver and term.

use byteorder::{ByteOrder, LE};
use bytes::Bytes;

use super::{AppendResult, Body, Message, Promise, ReadContext, SnapshotMeta};
use crate::frame::{self, DecodeError};
use crate::kind;
use crate::types::{Entry, EntryId, EntryKind, Incarnation, Index, NodeId, ShardId, SnapshotId, Term};
use crate::wire::{Reader, Writer, put_entry_id, read_entry_id};

const ACCEPTED: u8 = 0;
const REJECTED: u8 = 1;

/// An entry's head: term, kind, length of the body. Its index follows from its place.
const ENTRY_HEAD_LEN: usize = 8 + 1 + 4;

impl Message {
    /// Appends the message to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let own: &[Entry] = match &self.body {
            Body::Append { entries, .. } => entries,
            _ => &[],
        };
        self.encode_with(own.iter(), out);
    }

    /// Appends the message to `out` as one frame; if it is an append, with these entries instead of its own.
    pub fn encode_with<'e>(&self, entries: impl Iterator<Item = &'e Entry>, out: &mut Vec<u8>) {
        frame::write(out, self.body.kind(), |out| {
            out.put_u16(self.shard.0);
            out.put_u64(self.from.0);
            out.put_u64(self.to.0);
            out.put_u64(self.term.0);
            self.body.put(entries, out);
        });
    }

    pub(super) fn decode(kind: u8, payload: &[u8]) -> Result<Message, DecodeError> {
        let mut fields = Reader::new(payload);
        Ok(Message {
            shard: ShardId(fields.u16("shard")?),
            from: NodeId(fields.u64("from")?),
            to: NodeId(fields.u64("to")?),
            term: Term(fields.u64("term")?),
            body: Body::read(kind, &mut fields)?,
        })
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::PreVote { .. } => kind::PRE_VOTE,
            Body::PreVoteReply { .. } => kind::PRE_VOTE_REPLY,
            Body::Vote { .. } => kind::VOTE,
            Body::VoteReply { .. } => kind::VOTE_REPLY,
            Body::Append { .. } => kind::APPEND,
            Body::AppendReply { .. } => kind::APPEND_REPLY,
            Body::Heartbeat { .. } => kind::HEARTBEAT,
            Body::HeartbeatReply { .. } => kind::HEARTBEAT_REPLY,
            Body::TimeoutNow => kind::TIMEOUT_NOW,
            Body::Snapshot { .. } => kind::SNAPSHOT_OFFER,
        }
    }

    fn put<'e>(&self, entries: impl Iterator<Item = &'e Entry>, out: &mut Vec<u8>) {
        match self {
            Body::PreVote { last } => put_entry_id(out, *last),
            Body::PreVoteReply { granted } | Body::VoteReply { granted } => out.put_u8(u8::from(*granted)),
            Body::Vote { last, transfer } => {
                put_entry_id(out, *last);
                out.put_u8(u8::from(*transfer));
            }
            Body::Append { link, prev, commit, entries: _ } => {
                out.put_u32(*link);
                put_entry_id(out, *prev);
                out.put_u64(commit.0);
                put_entries(entries, out);
            }
            Body::AppendReply { link, result } => {
                out.put_u32(*link);
                result.put(out);
            }
            Body::Heartbeat { commit, context, sent_us } => {
                out.put_u64(commit.0);
                context.put(out);
                if *sent_us != 0 {
                    out.put_u64(*sent_us);
                }
            }
            Body::HeartbeatReply { context, promise } => {
                context.put(out);
                promise.put(out);
            }
            Body::TimeoutNow => {}
            Body::Snapshot { link, meta } => {
                out.put_u32(*link);
                meta.put(out);
            }
        }
    }

    fn read(kind: u8, fields: &mut Reader<'_>) -> Result<Body, DecodeError> {
        Ok(match kind {
            kind::PRE_VOTE => Body::PreVote { last: read_entry_id(fields, "last")? },
            kind::PRE_VOTE_REPLY => Body::PreVoteReply { granted: fields.bool("granted")? },
            kind::VOTE => Body::Vote { last: read_entry_id(fields, "last")?, transfer: fields.bool("transfer")? },
            kind::VOTE_REPLY => Body::VoteReply { granted: fields.bool("granted")? },
            kind::APPEND => {
                let link = fields.u32("link")?;
                let prev = read_entry_id(fields, "prev")?;
                let commit = Index(fields.u64("commit")?);
                Body::Append { link, prev, commit, entries: read_entries(prev, fields)? }
            }
            kind::APPEND_REPLY => Body::AppendReply { link: fields.u32("link")?, result: AppendResult::read(fields)? },
            kind::HEARTBEAT => Body::Heartbeat {
                commit: Index(fields.u64("commit")?),
                context: ReadContext::read(fields)?,
                sent_us: if fields.rest().is_empty() { 0 } else { fields.u64("sent")? },
            },
            kind::HEARTBEAT_REPLY => {
                Body::HeartbeatReply { context: ReadContext::read(fields)?, promise: Promise::read(fields)? }
            }
            kind::TIMEOUT_NOW => Body::TimeoutNow,
            kind::SNAPSHOT_OFFER => Body::Snapshot { link: fields.u32("link")?, meta: SnapshotMeta::read(fields)? },
            _ => return Err(DecodeError::Kind(kind)),
        })
    }
}

/// The count, which is known only at the end, and then the entries.
fn put_entries<'e>(entries: impl Iterator<Item = &'e Entry>, out: &mut Vec<u8>) {
    let count_at = out.len();
    out.put_u32(0);
    let mut count = 0;
    for entry in entries {
        out.put_u64(entry.id.term.0);
        out.put_u8(entry.kind as u8);
        out.put_bytes32(&entry.body);
        count += 1;
    }
    LE::write_u32(&mut out[count_at..], count);
}

/// The entries after `prev`. Their block is copied once, and each body is a slice of the copy.
fn read_entries(prev: EntryId, fields: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let count = fields.count(ENTRY_HEAD_LEN, "entries")?;
    if count == 0 {
        return Ok(Vec::new());
    }
    prev.index.0.checked_add(count as u64).ok_or(DecodeError::Invalid("prev"))?;
    let block = Bytes::copy_from_slice(fields.rest());
    let mut entries = Vec::with_capacity(count);
    let mut id = prev;
    for _ in 0..count {
        let term = Term(fields.u64("entry term")?);
        if term < id.term {
            return Err(DecodeError::Invalid("entry term"));
        }
        id = EntryId { index: id.index.next(), term };
        let kind = EntryKind::from_u8(fields.u8("entry kind")?).ok_or(DecodeError::Invalid("entry kind"))?;
        let len = fields.bytes32("entry body")?.len();
        let end = block.len() - fields.rest().len();
        let body = block.slice(end - len..end);
        entries.push(Entry { id, kind, body });
    }
    Ok(entries)
}

impl AppendResult {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            AppendResult::Accepted { matched } => {
                out.put_u8(ACCEPTED);
                out.put_u64(matched.0);
            }
            AppendResult::Rejected { prev, hint } => {
                out.put_u8(REJECTED);
                out.put_u64(prev.0);
                put_entry_id(out, *hint);
            }
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<AppendResult, DecodeError> {
        match fields.u8("result")? {
            ACCEPTED => Ok(AppendResult::Accepted { matched: Index(fields.u64("matched")?) }),
            REJECTED => {
                Ok(AppendResult::Rejected { prev: Index(fields.u64("prev")?), hint: read_entry_id(fields, "hint")? })
            }
            _ => Err(DecodeError::Invalid("result")),
        }
    }
}

impl SnapshotMeta {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.0);
        put_entry_id(out, self.at);
        out.put_u64(self.bytes);
    }

    fn read(fields: &mut Reader<'_>) -> Result<SnapshotMeta, DecodeError> {
        Ok(SnapshotMeta {
            id: SnapshotId(fields.u64("snapshot")?),
            at: read_entry_id(fields, "at")?,
            bytes: fields.u64("bytes")?,
        })
    }
}

impl Promise {
    /// Its fields are there only if something is promised.
    fn put(&self, out: &mut Vec<u8>) {
        if *self != Promise::default() {
            out.put_u64(self.sent_us);
            out.put_u64(self.lasts_us);
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<Promise, DecodeError> {
        if fields.rest().is_empty() {
            return Ok(Promise::default());
        }
        Ok(Promise { sent_us: fields.u64("promise sent")?, lasts_us: fields.u64("promise lasts")? })
    }
}

impl ReadContext {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.incarnation.0);
        out.put_u64(self.term.0);
        out.put_u64(self.counter);
    }

    fn read(fields: &mut Reader<'_>) -> Result<ReadContext, DecodeError> {
        Ok(ReadContext {
            incarnation: Incarnation(fields.u64("context incarnation")?),
            term: Term(fields.u64("context term")?),
            counter: fields.u64("context counter")?,
        })
    }
}
