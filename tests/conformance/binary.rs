//! The binary protocol.

use std::net::SocketAddr;

use raftkv::client::Status;
use raftkv_protocol::client::Operation;

use crate::face::{Face, More, NodeState, Outcome, Page, ShardState};
use crate::support::wire::{Said, Wire};

pub struct Binary {
    node: u64,
    wire: Wire,
}

impl Binary {
    pub fn connect(node: u64, address: SocketAddr) -> Binary {
        Binary { node, wire: Wire::connect(address).expect("the node answers") }
    }
}

impl Face for Binary {
    fn name(&self) -> String {
        format!("binary by way of node {}", self.node)
    }

    fn ask(&mut self, operation: Operation<'_>) -> Outcome {
        let replied = self.wire.ask(operation);
        match (operation, replied.said) {
            (Operation::Put { .. }, Said::Put) => Outcome::Put { version: replied.at.index.0 },
            (Operation::Delete { .. }, Said::Deleted { existed }) => Outcome::Deleted { existed },
            (Operation::Batch(batch), Said::Batch { existed }) => Outcome::Batch {
                version: batch.has_puts().then_some(replied.at.index.0),
                deleted: (0..batch.len()).map(|operation| existed.contains(operation)).collect(),
            },
            (Operation::Get { .. }, Said::Value { version, bytes }) => Outcome::Value { version, bytes },
            (Operation::Scan(_), Said::Page { items, more }) => {
                let more = if more { More::Yes(items.last().expect("an item").key.clone()) } else { More::No };
                Outcome::Page(Page { items, more })
            }
            (_, Said::Refused { code, message, .. }) => {
                assert!(!message.is_empty(), "{code:?} says nothing");
                Outcome::Refused(code)
            }
            (operation, said) => panic!("{operation:?} is answered {said:?}"),
        }
    }

    fn status(&mut self) -> NodeState {
        state(self.wire.status())
    }
}

/// What the protocol tells of a node.
pub fn state(status: Status) -> NodeState {
    let shards = status.shards.iter().map(|shard| ShardState {
        id: shard.id.0.into(),
        role: shard.role.name().to_owned(),
        term: shard.term.0,
        leader: shard.leader.map(|node| node.0),
        commit: shard.commit.0,
        applied: shard.applied.0,
        persisted: shard.persisted.0,
        last_index: shard.last.index.0,
        last_term: shard.last.term.0,
        snapshot_index: shard.snapshot.index.0,
        keys: shard.keys,
        state_hash: shard.state_hash,
        is_repairing: shard.is_repairing,
        is_diverged: shard.divergence.is_some(),
    });
    NodeState {
        cluster: status.cluster.to_string(),
        node: status.node.0,
        incarnation: status.incarnation.to_string(),
        disk: status.disk.name().to_owned(),
        members: status.nodes.iter().map(|(id, address)| (id.0, address.clone())).collect(),
        shards: shards.collect(),
        counters: sorted(status.counters.into_iter().map(|(name, _)| name)),
        version: status.version,
    }
}

/// Names in an order that no face has a say in.
pub fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
