//! What the probes `/livez` and `/readyz` are told of the node.

use std::sync::Arc;
use std::time::Instant;

use super::super::node::Node;
use super::super::vitals::HANGS_AFTER;
use crate::api::rest::{Check, Health};

/// A node as its probes see it.
pub(in crate::server) struct Probes(pub(in crate::server) Arc<Node>);

impl Health for Probes {
    fn live(&self, now: Instant) -> Vec<Check> {
        let looks = self.0.vitals.looks(now);
        looks
            .map(|look| Check {
                name: format!("core-{}/turns", look.core),
                fault: (look.turned >= HANGS_AFTER).then(|| {
                    format!("the event loop has not turned for {:?}; if that goes on, end the process", look.turned)
                }),
            })
            .collect()
    }

    fn ready(&self, now: Instant) -> Vec<Check> {
        let stopping = Check {
            name: "running".to_owned(),
            fault: self.0.is_stopping().then(|| "the node is being stopped".to_owned()),
        };
        let mut checks = vec![stopping];
        for look in self.0.vitals.looks(now) {
            let (leaderless, first) = look.leaderless;
            checks.push(Check {
                name: format!("core-{}/leaders", look.core),
                fault: (leaderless > 0).then(|| {
                    format!("{leaderless} shards have no known leader, {first} first: is a majority of the nodes up?")
                }),
            });
            let (behind, first) = look.behind;
            checks.push(Check {
                name: format!("core-{}/caught-up", look.core),
                fault: (behind > 0).then(|| {
                    format!("{behind} shards have not caught up with their leaders since the start, {first} first")
                }),
            });
        }
        checks
    }
}
