//! A whole RaftKV cluster in one thread, with simulated clock, network and disks. One seed is one run.
//!
//! Everything that decides whether data survives is the real code: event loops, links, greeting, routing, shards, Raft,
//! the log with its format and recovery, the state machine, the client library. Only the socket ([`network`]), the file
//! (`raftkv::storage::simulated_disk`) and the clock ([`agenda`]) are simulated.

pub mod agenda;
pub mod batches;
mod counts;
pub mod coverage;
mod damage;
mod demand;
mod endings;
pub mod leases;
pub mod logged;
mod machine;
mod memory;
mod nemesis;
pub mod network;
pub mod oracle;
mod peace;
pub mod plan;
mod promises;
pub mod random;
pub mod record;
pub mod run;
pub mod scan;
mod slow_apply;
pub mod socket;
pub mod trace;
pub mod transcript;
mod user;
mod verdict;
pub mod world;
mod written;

#[cfg(test)]
mod batches_test;
#[cfg(test)]
mod endings_test;
#[cfg(test)]
mod leases_test;
#[cfg(test)]
mod promises_test;
#[cfg(test)]
mod scan_test;
#[cfg(test)]
mod verdict_test;

/// What a campaign over the seeds of the continuous check must have met at least once.
pub const MUST_HAPPEN: &[&str] = &[
    "leader changed",
    "leader changed with appends in flight",
    "persisted suffix truncated",
    "truncation overtook a write",
    "leader deposed in the middle of a read round",
    "block lost by a crash",
    "block torn by a crash",
    "unsynced block survived a crash",
    "unsynced name lost by a crash",
    "write acknowledged",
    "read answered",
    "stale read answered",
    "scan page answered",
    "scan page answered in reverse",
    "scan page answered, stale",
    "scan page answered, not the first",
    "scan page over several shards",
    "key missing from a page",
    "scan refused",
    "condition failed",
    "write of unknown outcome",
    "committed entries left for a later turn",
    "replica found to be wrong",
    "wrong state built anew",
    "wrong state built anew from another's snapshot",
    "state read again by the worker",
    "batch applied",
    "batch refused by its condition",
    "batch over shards refused",
    "batch with a key twice refused",
    "batch of unknown outcome",
    "batch of unknown outcome found applied",
    "request forwarded",
    "torn tail cut at recovery",
    "log synced by its loop",
    "loop died in the middle of a sync",
    "batches written again at recovery",
    "frame lost",
    "frame doubled",
    "frame overtaken",
    "connection reset",
    "kernel gave up on a connection",
    "segment waited for a cut",
    "write blocked",
    "disk found to be full",
    "shard left a slow or full disk",
    "node ended by a failed sync",
    "node stopped in order",
    "damage refused at the start",
    "flip that lost nothing told at recovery",
    "newest segment gone",
    "damage noticed while running",
    "damaged log salvaged",
    "salvage cut short by a crash",
    "damaged node restarted before it was healed",
    "damage repaired from peers",
    "node healed",
    "vote withheld from an admitted node",
    "leader that is not to be followed",
    "write refused for want of space",
    "partition",
    "isolate",
    "one way cut",
    "half open",
    "partial partition",
    "swizzle",
    "slow path",
    "comeback",
    "connections reset",
    "leadership handed over",
    "kill",
    "power loss",
    "crash after a vote",
    "blackout",
    "stop",
    "pause",
    "slow disk",
    "hung disk",
    "sync error",
    "full disk",
    "snapshot error",
    "bit rot in a snapshot",
    "snapshot taken",
    "snapshot asked for, and taken",
    "snapshot asked for, and there already",
    "snapshot asked for, and failed",
    "snapshots asked for, and no answer",
    "snapshot failed",
    "snapshot installed",
    "log begins behind a snapshot",
    "node started from a snapshot",
    "older snapshot took the place of a damaged one",
    "bit rot",
    "flip in an unproved batch taken back",
    "short segment",
    "lost disk",
    "client gives up",
    "read served by a lease",
    "lease not held, read waited for a round",
    "lease held by the slowest clock on the word of the fastest",
    "vote withheld for a promise",
    "election put off for a promise",
    "lease given up to hand over",
    "node started bound by a promise",
    "node stood still in the middle of a turn",
];
