//! What the probes `/livez` and `/readyz` are told of the node.

use std::sync::Arc;
use std::time::Instant;

use super::super::node::Node;
use super::super::process;
use crate::api::node_handle::{Check, Health};
use crate::metrics::figures::ProcessFigures;

/// A node as its probes see it.
pub(in crate::server) struct Probes(pub(in crate::server) Arc<Node>);

impl Health for Probes {
    fn process(&self) -> ProcessFigures {
        process::figures()
    }

    fn live(&self, now: Instant) -> Vec<Check> {
        let looks = self.0.vitals.looks(now);
        looks.map(|look| Check { name: format!("core-{}/turns", look.core), fault: look.turns_fault() }).collect()
    }

    fn ready(&self, now: Instant) -> Vec<Check> {
        let stopping = Check {
            name: "running".to_owned(),
            fault: self.0.is_stopping().then(|| "the node is being stopped".to_owned()),
        };
        let mut checks = vec![stopping];
        for look in self.0.vitals.looks(now) {
            checks.push(Check { name: format!("core-{}/leaders", look.core), fault: look.leaderless_fault() });
            checks.push(Check { name: format!("core-{}/caught-up", look.core), fault: look.behind_fault() });
        }
        checks
    }

    fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }
}
