//! The node's replicas of the shards.

use std::fmt;

use raftkv_protocol::client::{Role, ShardStatus};

use super::page::{About, Page, label};
use crate::metrics::figures::{Figures, ShardFigures};

/// A number of a replica's status.
type Status = (About, fn(&ShardStatus) -> u64);
/// One that its status does not have.
type Beyond = (About, fn(&ShardFigures) -> u64);

static STATUS: [Status; 10] = [
    (About::new("raftkv_shard_term", "The term that this replica is in"), |shard| shard.term.0),
    (
        About::new("raftkv_shard_leader_id", "The node that this replica takes for the leader, 0 if it knows none"),
        |shard| shard.leader.map_or(0, |node| node.0),
    ),
    (About::new("raftkv_shard_commit_index", "Up to where this replica knows the log to be committed"), |shard| {
        shard.commit.0
    }),
    (About::new("raftkv_shard_applied_index", "Up to where this replica has applied the log"), |shard| shard.applied.0),
    (About::new("raftkv_shard_persisted_index", "Up to where the log is durable on this node"), |shard| {
        shard.persisted.0
    }),
    (About::new("raftkv_shard_last_index", "The last entry in this replica's log"), |shard| shard.last.index.0),
    (
        About::new("raftkv_shard_snapshot_index", "The last entry in this replica's newest snapshot, 0 without one"),
        |shard| shard.snapshot.index.0,
    ),
    (About::new("raftkv_shard_keys", "Keys that this replica holds"), |shard| shard.keys),
    (
        About::new(
            "raftkv_shard_diverged",
            "1 if this replica does not serve: it differs from others, is corrupt, or nobody knows whose state is right",
        ),
        |shard| u64::from(shard.divergence.is_some()),
    ),
    (
        About::new("raftkv_shard_repairing", "1 if this replica gets back from the others what its log has lost"),
        |shard| u64::from(shard.is_repairing),
    ),
];

static BEYOND: [Beyond; 3] = [
    (About::bytes("raftkv_shard_data", "Bytes of the keys and values that this replica holds"), |shard| shard.bytes),
    (
        About::bytes(
            "raftkv_shard_proposals_pending",
            "Bytes of writes that wait for a majority, as far as this node leads",
        ),
        |shard| shard.pending_bytes,
    ),
    (
        About::new("raftkv_shard_entries_pending", "Entries that wait for a majority, as far as this node leads"),
        |shard| shard.pending_entries,
    ),
];

const ROLES: [Role; 5] = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader, Role::Learner];

/// Writes them.
pub fn write(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let shards = &figures.status.shards;
    let roles = shards.iter().flat_map(|shard| ROLES.map(|role| (shard, role)));
    page.gauge(
        &About::new("raftkv_shard_role", "1 for what this node is to the shard, 0 for all else"),
        roles.map(|(shard, role)| {
            let mut labels = label("shard", shard.id);
            labels.push(("role", role.name().into()));
            (labels, shard.role == role)
        }),
    )?;
    for (about, value) in &STATUS {
        page.gauge(about, shards.iter().map(|shard| (label("shard", shard.id), value(shard))))?;
    }
    let replicas = || figures.cores.iter().flat_map(|core| &core.shards);
    for (about, value) in &BEYOND {
        page.gauge(about, replicas().map(|shard| (label("shard", shard.shard), value(shard))))?;
    }
    let failed =
        replicas().flat_map(|shard| [(shard, "overwritten", shard.overwritten), (shard, "expired", shard.expired)]);
    page.counter(
        &About::new(
            "raftkv_shard_proposals_failed",
            "Writes that another leader's entry took the place of, and whose outcome was not known in time",
        ),
        failed.map(|(shard, reason, count)| {
            let mut labels = label("shard", shard.shard);
            labels.push(("reason", reason.into()));
            (labels, count)
        }),
    )?;
    page.counter(
        &About::new("raftkv_shard_elections", "Elections that this node has stood in"),
        replicas().map(|shard| (label("shard", shard.shard), shard.elections)),
    )?;
    let lags = replicas().flat_map(|shard| shard.lags.iter().map(|(node, lag)| (shard.shard, *node, *lag)));
    page.gauge(
        &About::new(
            "raftkv_shard_follower_lag_entries",
            "Entries of the leader's log that a follower is not known to have durably, on the node that leads",
        ),
        lags.map(|(shard, node, lag)| {
            let mut labels = label("shard", shard);
            labels.push(("follower", node.to_string().into()));
            (labels, lag)
        }),
    )
}
