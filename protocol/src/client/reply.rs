//! The bytes of replies. The answer to a forwarded request carries the same bytes behind another head.

use std::time::Duration;

use super::{
    Answer, Code, Existed, HoldReason, Item, LogHold, Page, Refusal, Reply, Role, ShardSnapshot, ShardStatus,
    SlotTable, SnapshotOutcome, Status,
};
use crate::frame::{self, DecodeError};
use crate::health::{DiskHealth, Divergence};
use crate::kind;
use crate::types::{ClusterId, CoreId, EntryId, Incarnation, Index, NodeId, RequestId, ShardId, Term};
use crate::wire::{Reader, Writer, put_entry_id, read_entry_id, read_list};

/// An item of a page: key length, version, value length.
const ITEM_LEN_MIN: usize = 2 + 8 + 4;
/// A list element with its own length: the length, an id or counter, and the length of an address or name.
const NODE_LEN_MIN: usize = 2 + 8 + 2;
const COUNTER_LEN_MIN: usize = 2 + 2 + 8;
/// A shard's leader: the element's length, the node, the term.
const LEADER_LEN_MIN: usize = 2 + 8 + 8;
/// A shard's state: the element's length, id and role, 6 numbers, 2 entry ids, the hash.
const SHARD_STATUS_LEN_MIN: usize = 2 + (2 + 1) + 6 * 8 + 2 * 16 + 16;

/// A snapshot: the element's length, the shard, the outcome, the entry, the size, how long it took, the words.
const SNAPSHOT_LEN_MIN: usize = 2 + 2 + 1 + 16 + 8 + 8 + 2;

/// What holds a log: the element's length, the core, the log's bytes and their limit, the shard, the bytes, the reason, the
/// words.
const HOLD_LEN_MIN: usize = 2 + 2 + 2 * 8 + 2 + 8 + 1 + 2;

const SNAPSHOT_TAKEN: u8 = 0;
const SNAPSHOT_UNCHANGED: u8 = 1;
const SNAPSHOT_FAILED: u8 = 2;

impl<'a> Reply<'a> {
    /// Appends the reply to `out` as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, self.kind(), |out| {
            out.put_u64(self.id.0);
            self.put(out);
        });
    }

    /// Reads the payload of a reply frame of this kind.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Reply<'a>, DecodeError> {
        let mut fields = Reader::new(payload);
        let id = RequestId(fields.u64("id")?);
        Reply::read(kind, id, &mut fields)
    }

    pub(crate) fn kind(&self) -> u8 {
        match &self.result {
            Ok(Answer::Put) => kind::PUT_REPLY,
            Ok(Answer::Deleted { .. }) => kind::DELETE_REPLY,
            Ok(Answer::Batch { .. }) => kind::BATCH_REPLY,
            Ok(Answer::Value { .. }) => kind::GET_REPLY,
            Ok(Answer::Page(_)) => kind::SCAN_REPLY,
            Ok(Answer::Slots(_)) => kind::SLOTS_REPLY,
            Ok(Answer::Status(_)) => kind::STATUS_REPLY,
            Ok(Answer::Pong) => kind::PING_REPLY,
            Ok(Answer::Snapshots(_)) => kind::SNAPSHOT_REPLY,
            Err(_) => kind::REFUSAL,
        }
    }

    /// Everything after the id.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_entry_id(out, self.at);
        match &self.result {
            Ok(answer) => answer.put(out),
            Err(refusal) => refusal.put(out),
        }
    }

    /// Everything after the id.
    pub(crate) fn read(kind: u8, id: RequestId, fields: &mut Reader<'a>) -> Result<Reply<'a>, DecodeError> {
        let at = read_entry_id(fields, "at")?;
        let result = match kind {
            kind::REFUSAL => Err(Refusal::read(fields)?),
            _ => Ok(Answer::read(kind, fields)?),
        };
        Ok(Reply { id, at, result })
    }
}

impl<'a> Answer<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Put | Answer::Pong => {}
            Answer::Deleted { existed } => out.put_u8(u8::from(*existed)),
            Answer::Batch { existed } => out.put_u128(existed.0),
            Answer::Value { version, value } => {
                out.put_u64(version.0);
                out.put_bytes32(value);
            }
            Answer::Page(page) => page.put(out),
            Answer::Slots(table) => table.put(out),
            Answer::Status(status) => status.put(out),
            Answer::Snapshots(snapshots) => {
                out.put_count(snapshots.len());
                for snapshot in snapshots {
                    out.put_element(|out| snapshot.put(out));
                }
            }
        }
    }

    fn read(kind: u8, fields: &mut Reader<'a>) -> Result<Answer<'a>, DecodeError> {
        Ok(match kind {
            kind::PUT_REPLY => Answer::Put,
            kind::DELETE_REPLY => Answer::Deleted { existed: fields.bool("existed")? },
            kind::BATCH_REPLY => Answer::Batch { existed: Existed(fields.u128("existed")?) },
            kind::GET_REPLY => {
                Answer::Value { version: Index(fields.u64("version")?), value: fields.bytes32("value")? }
            }
            kind::SCAN_REPLY => Answer::Page(Page::read(fields)?),
            kind::SLOTS_REPLY => Answer::Slots(SlotTable::read(fields)?),
            kind::STATUS_REPLY => Answer::Status(Box::new(Status::read(fields)?)),
            kind::PING_REPLY => Answer::Pong,
            kind::SNAPSHOT_REPLY => Answer::Snapshots(read_list(fields, SNAPSHOT_LEN_MIN, "snapshots", |fields| {
                ShardSnapshot::read(&mut fields.element("snapshot")?)
            })?),
            _ => return Err(DecodeError::Kind(kind)),
        })
    }
}

impl<'a> Refusal<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.code as u8);
        put_node(out, self.leader);
        out.put_text(self.message);
    }

    /// A code that has no name here comes from a newer server. It is read as [`Code::Timeout`], the one code that
    /// promises nothing: a write may have been applied, and nothing is sent again on its account.
    fn read(fields: &mut Reader<'a>) -> Result<Refusal<'a>, DecodeError> {
        let code = Code::from_u8(fields.u8("code")?).unwrap_or(Code::Timeout);
        Ok(Refusal { code, leader: read_node(fields, "leader")?, message: fields.text("message")? })
    }
}

impl<'a> Page<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.more));
        out.put_count(self.items.len());
        for item in &self.items {
            out.put_bytes16(item.key);
            out.put_u64(item.version.0);
            out.put_bytes32(item.value);
        }
    }

    fn read(fields: &mut Reader<'a>) -> Result<Page<'a>, DecodeError> {
        let more = fields.bool("more")?;
        let items = read_list(fields, ITEM_LEN_MIN, "items", |fields| {
            Ok(Item {
                key: fields.bytes16("item key")?,
                version: Index(fields.u64("item version")?),
                value: fields.bytes32("item value")?,
            })
        })?;
        Ok(Page { items, more })
    }
}

impl SlotTable {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u128(self.cluster.0);
        put_nodes(out, &self.nodes);
        out.put_count(self.leaders.len());
        for (leader, term) in &self.leaders {
            out.put_element(|out| {
                put_node(out, *leader);
                out.put_u64(term.0);
            });
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<SlotTable, DecodeError> {
        Ok(SlotTable {
            cluster: ClusterId(fields.u128("cluster")?),
            nodes: read_nodes(fields)?,
            leaders: read_list(fields, LEADER_LEN_MIN, "leaders", |fields| {
                let mut leader = fields.element("leader")?;
                Ok((read_node(&mut leader, "leader node")?, Term(leader.u64("leader term")?)))
            })?,
        })
    }
}

impl Status {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u128(self.cluster.0);
        out.put_u64(self.node.0);
        out.put_u64(self.incarnation.0);
        out.put_text(&self.version);
        put_nodes(out, &self.nodes);
        out.put_count(self.shards.len());
        for shard in &self.shards {
            out.put_element(|out| shard.put(out));
        }
        out.put_count(self.counters.len());
        for (name, value) in &self.counters {
            out.put_element(|out| {
                out.put_text(name);
                out.put_u64(*value);
            });
        }
        if self.disk != DiskHealth::Healthy || self.sync_ms > 0 || !self.holds.is_empty() {
            out.put_u8(self.disk as u8);
            out.put_u64(self.sync_ms);
        }
        if !self.holds.is_empty() {
            out.put_count(self.holds.len());
            self.holds.iter().for_each(|hold| out.put_element(|out| hold.put(out)));
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<Status, DecodeError> {
        let mut status = Status {
            cluster: ClusterId(fields.u128("cluster")?),
            node: NodeId(fields.u64("node")?),
            incarnation: Incarnation(fields.u64("incarnation")?),
            version: fields.text("version")?.to_owned(),
            nodes: read_nodes(fields)?,
            shards: read_list(fields, SHARD_STATUS_LEN_MIN, "shards", |fields| {
                ShardStatus::read(&mut fields.element("shard")?)
            })?,
            counters: read_list(fields, COUNTER_LEN_MIN, "counters", |fields| {
                let mut counter = fields.element("counter")?;
                Ok((counter.text("counter name")?.to_owned(), counter.u64("counter value")?))
            })?,
            disk: DiskHealth::Healthy,
            sync_ms: 0,
            holds: Vec::new(),
        };
        if !fields.rest().is_empty() {
            status.disk = DiskHealth::from_u8(fields.u8("disk")?);
            status.sync_ms = fields.u64("sync_ms")?;
        }
        if !fields.rest().is_empty() {
            status.holds =
                read_list(fields, HOLD_LEN_MIN, "holds", |fields| LogHold::read(&mut fields.element("hold")?))?;
        }
        Ok(status)
    }
}

impl LogHold {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u16(self.core.0);
        out.put_u64(self.log_bytes);
        out.put_u64(self.log_bytes_max);
        out.put_u16(self.shard.0);
        out.put_u64(self.bytes);
        out.put_u8(self.reason as u8);
        out.put_text(&self.message);
    }

    fn read(fields: &mut Reader<'_>) -> Result<LogHold, DecodeError> {
        Ok(LogHold {
            core: CoreId(fields.u16("core")?),
            log_bytes: fields.u64("log_bytes")?,
            log_bytes_max: fields.u64("log_bytes_max")?,
            shard: ShardId(fields.u16("shard id")?),
            bytes: fields.u64("bytes")?,
            reason: HoldReason::from_u8(fields.u8("reason")?),
            message: fields.text("message")?.to_owned(),
        })
    }
}

impl ShardStatus {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u16(self.id.0);
        out.put_u8(self.role as u8);
        out.put_u64(self.term.0);
        put_node(out, self.leader);
        out.put_u64(self.commit.0);
        out.put_u64(self.applied.0);
        out.put_u64(self.persisted.0);
        put_entry_id(out, self.last);
        put_entry_id(out, self.snapshot);
        out.put_u64(self.keys);
        out.put_u128(self.state_hash);
        if self.divergence.is_some() || self.is_repairing {
            Divergence::put(self.divergence.as_ref(), out);
        }
        if self.is_repairing {
            out.put_u8(1);
        }
    }

    fn read(fields: &mut Reader<'_>) -> Result<ShardStatus, DecodeError> {
        Ok(ShardStatus {
            id: ShardId(fields.u16("shard id")?),
            role: Role::from_u8(fields.u8("role")?),
            term: Term(fields.u64("term")?),
            leader: read_node(fields, "leader")?,
            commit: Index(fields.u64("commit")?),
            applied: Index(fields.u64("applied")?),
            persisted: Index(fields.u64("persisted")?),
            last: read_entry_id(fields, "last")?,
            snapshot: read_entry_id(fields, "snapshot")?,
            keys: fields.u64("keys")?,
            state_hash: fields.u128("state_hash")?,
            divergence: Divergence::read(fields)?,
            is_repairing: !fields.rest().is_empty() && fields.bool("is_repairing")?,
        })
    }
}

impl ShardSnapshot {
    fn put(&self, out: &mut Vec<u8>) {
        let (number, at, bytes, took, words) = match &self.outcome {
            SnapshotOutcome::Taken { at, bytes, took } => (SNAPSHOT_TAKEN, *at, *bytes, *took, ""),
            SnapshotOutcome::Unchanged { at, bytes } => (SNAPSHOT_UNCHANGED, *at, *bytes, Duration::ZERO, ""),
            SnapshotOutcome::Failed(words) => (SNAPSHOT_FAILED, EntryId::ZERO, 0, Duration::ZERO, words.as_str()),
        };
        out.put_u16(self.shard.0);
        out.put_u8(number);
        put_entry_id(out, at);
        out.put_u64(bytes);
        out.put_u64(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        out.put_text(words);
    }

    /// An outcome that has no name here is read as a failure: no snapshot is known to be there.
    fn read(fields: &mut Reader<'_>) -> Result<ShardSnapshot, DecodeError> {
        let shard = ShardId(fields.u16("shard id")?);
        let number = fields.u8("outcome")?;
        let (at, bytes) = (read_entry_id(fields, "at")?, fields.u64("bytes")?);
        let (took, words) = (Duration::from_micros(fields.u64("took_us")?), fields.text("message")?);
        let outcome = match number {
            SNAPSHOT_TAKEN => SnapshotOutcome::Taken { at, bytes, took },
            SNAPSHOT_UNCHANGED => SnapshotOutcome::Unchanged { at, bytes },
            _ => SnapshotOutcome::Failed(words.to_owned()),
        };
        Ok(ShardSnapshot { shard, outcome })
    }
}

impl Role {
    /// A role that has no name here comes from a newer node. All that is known of it is that it is none of those
    /// that vote, so it is read as a learner; the rest of the state stays readable.
    fn from_u8(number: u8) -> Role {
        match number {
            0 => Role::Follower,
            1 => Role::PreCandidate,
            2 => Role::Candidate,
            3 => Role::Leader,
            _ => Role::Learner,
        }
    }
}

/// No node is 0, which no node has as its id.
fn put_node(out: &mut Vec<u8>, node: Option<NodeId>) {
    out.put_u64(node.map_or(0, |node| node.0));
}

fn read_node(fields: &mut Reader<'_>, field: &'static str) -> Result<Option<NodeId>, DecodeError> {
    let id = fields.u64(field)?;
    Ok((id != 0).then_some(NodeId(id)))
}

fn put_nodes(out: &mut Vec<u8>, nodes: &[(NodeId, String)]) {
    out.put_count(nodes.len());
    for (id, address) in nodes {
        out.put_element(|out| {
            out.put_u64(id.0);
            out.put_text(address);
        });
    }
}

fn read_nodes(fields: &mut Reader<'_>) -> Result<Vec<(NodeId, String)>, DecodeError> {
    read_list(fields, NODE_LEN_MIN, "nodes", |fields| {
        let mut node = fields.element("node")?;
        Ok((NodeId(node.u64("node id")?), node.text("node address")?.to_owned()))
    })
}
