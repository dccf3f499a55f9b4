//! Replies for people.

use std::io::{self, Write};

use raftkv_protocol::client::{Item, ShardStatus, SlotTable, Status};
use raftkv_protocol::types::{NodeId, ShardId, Slot};

use crate::words::{escape, quote};

/// `KEY @VERSION VALUE`.
pub fn item(out: &mut dyn Write, item: &Item<'_>) -> io::Result<()> {
    writeln!(out, "{} @{} {}", quote(item.key), item.version, quote(item.value))
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
    for (name, value) in &status.counters {
        writeln!(out, "counter {} {value}", escape(name.as_bytes()))?;
    }
    Ok(())
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
