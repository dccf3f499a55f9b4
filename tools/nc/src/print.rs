//! Replies for people.

use std::io::{self, Write};

use raftkv_protocol::client::{
    Batch, Change, Existed, Item, LogHold, ShardSnapshot, ShardStatus, SlotTable, SnapshotOutcome, Status,
};
use raftkv_protocol::types::{EntryId, Index, NodeId, ShardId, Slot};

use crate::words::{escape, quote};

/// `KEY @VERSION VALUE`.
pub fn item(out: &mut dyn Write, item: &Item<'_>) -> io::Result<()> {
    writeln!(out, "{} @{} {}", quote(item.key), item.version, quote(item.value))
}

/// The version of what was put, and one line for each key that was to be removed.
pub fn batch(out: &mut dyn Write, batch: Batch<'_>, version: Index, existed: Existed) -> io::Result<()> {
    writeln!(out, "version {version}")?;
    let deletes = batch.operations().enumerate().filter(|(_, operation)| operation.change == Change::Delete);
    for (number, operation) in deletes {
        let what = if existed.contains(number) { "deleted" } else { "not found" };
        writeln!(out, "{what} {}", quote(operation.key))?;
    }
    Ok(())
}

/// The cluster, and one line for each shard.
pub fn slots(out: &mut dyn Write, table: &SlotTable) -> io::Result<()> {
    writeln!(out, "cluster {}", table.cluster)?;
    let shards = u16::try_from(table.leaders.len()).unwrap_or(u16::MAX);
    for (shard, (leader, term)) in (0..shards).map(ShardId).zip(&table.leaders) {
        let range = Slot::range(shard, shards);
        let address = |id: NodeId| table.nodes.iter().find(|(node, _)| *node == id);
        let leader = match leader.map(|id| (id, address(id))) {
            Some((id, Some((_, address)))) => format!("leader node {id} at {}", escape(address.as_bytes())),
            Some((id, None)) => format!("leader node {id}"),
            None => "no leader".into(),
        };
        writeln!(out, "shard {shard} slots {}-{} {leader} term {term}", range.start(), range.end())?;
    }
    Ok(())
}

/// What has become of a shard's snapshot that was asked for.
pub fn snapshot(out: &mut dyn Write, snapshot: &ShardSnapshot) -> io::Result<()> {
    write!(out, "shard {} ", snapshot.shard)?;
    match &snapshot.outcome {
        SnapshotOutcome::Taken { at, bytes, took } => {
            writeln!(out, "taken at {at}, {bytes} bytes, in {:.3} ms", took.as_secs_f64() * 1e3)
        }
        SnapshotOutcome::Unchanged { at, .. } if *at == EntryId::ZERO => writeln!(out, "nothing was ever written"),
        SnapshotOutcome::Unchanged { at, bytes } => writeln!(out, "nothing new since {at}, {bytes} bytes"),
        SnapshotOutcome::Failed(why) => writeln!(out, "failed: {}", escape(why.as_bytes())),
    }
}

/// The node, its members, its shards and its counters.
pub fn status(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    writeln!(out, "cluster {}", status.cluster)?;
    let version = escape(status.version.as_bytes());
    writeln!(out, "node {} incarnation {:016x} version {version}", status.node, status.incarnation.0)?;
    for (node, address) in &status.nodes {
        writeln!(out, "member {node} at {}", escape(address.as_bytes()))?;
    }
    writeln!(out, "disk {} sync-ms {}", status.disk, status.sync_ms)?;
    for shard in &status.shards {
        shard_status(out, shard)?;
    }
    for hold in &status.holds {
        log_hold(out, hold)?;
    }
    for (name, value) in &status.counters {
        writeln!(out, "counter {} {value}", escape(name.as_bytes()))?;
    }
    Ok(())
}

fn log_hold(out: &mut dyn Write, hold: &LogHold) -> io::Result<()> {
    let LogHold { core, log_bytes, log_bytes_max, shard, bytes, reason, message } = hold;
    write!(out, "hold core {core} log {log_bytes} of {log_bytes_max} shard {shard} bytes {bytes} {}", reason.name())?;
    match message.as_str() {
        "" => writeln!(out),
        message => writeln!(out, ": {}", escape(message.as_bytes())),
    }
}

fn shard_status(out: &mut dyn Write, shard: &ShardStatus) -> io::Result<()> {
    let leader = shard.leader.map_or("none".into(), |node| node.to_string());
    let divergence = shard.divergence.map_or(String::new(), |divergence| format!(" {divergence}"));
    let repairing = if shard.is_repairing { " repairing" } else { "" };
    writeln!(
        out,
        "shard {} {} term {} leader {leader} commit {} applied {} persisted {} last {} snapshot {} keys {} hash {:032x}{repairing}{divergence}",
        shard.id,
        shard.role.name(),
        shard.term,
        shard.commit,
        shard.applied,
        shard.persisted,
        shard.last,
        shard.snapshot,
        shard.keys,
        shard.state_hash
    )
}
