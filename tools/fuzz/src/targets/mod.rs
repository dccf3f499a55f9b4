//! The targets. What each of them checks stands at the head of its file.

pub mod apply_twice;
pub mod client_requests;
pub mod frames;
pub mod log_reader;
pub mod raft_messages;

use crate::{Target, no_fixup};

/// Every target. Their shares are percent of a campaign.
#[must_use]
pub fn all() -> Vec<Target> {
    vec![
        Target {
            name: "client-frames",
            what: "bytes between client and server: no panic, no greed, what is read is written back alike",
            share: 24,
            bytes_max: 1024,
            seeds: frames::client_seeds,
            run: frames::run_client,
            fixup: frames::fixup,
        },
        Target {
            name: "peer-frames",
            what: "bytes between peers, all Raft messages and forwards: the same",
            share: 24,
            bytes_max: 1024,
            seeds: frames::peer_seeds,
            run: frames::run_peer,
            fixup: frames::fixup,
        },
        Target {
            name: "client-requests",
            what: "requests through the API's checks into the state machine: what is accepted can be applied and read",
            share: 16,
            bytes_max: 1024,
            seeds: frames::client_seeds,
            run: client_requests::run,
            fixup: frames::fixup,
        },
        Target {
            name: "log-reader",
            what: "damaged log directories: refused with file and offset, or read as they once were, never shorter than proved",
            share: 12,
            bytes_max: 96,
            seeds: log_reader::seeds,
            run: log_reader::run,
            fixup: no_fixup,
        },
        Target {
            name: "raft-messages",
            what: "a replica among liars and three honest ones in any order, with losses and restarts: the invariants hold",
            share: 12,
            bytes_max: 384,
            seeds: raft_messages::seeds,
            run: raft_messages::run,
            fixup: no_fixup,
        },
        Target {
            name: "apply-twice",
            what: "commands, mutated and garbage ones too, on two state machines and a model: equal, and no panic",
            share: 12,
            bytes_max: 768,
            seeds: apply_twice::seeds,
            run: apply_twice::run,
            fixup: no_fixup,
        },
    ]
}
