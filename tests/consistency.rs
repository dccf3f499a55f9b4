//! What clients were told stays true, whatever happens to the nodes: with real processes that are killed, paused and
//! started again under load, disks that fail and fill up, and networks that are cut.

mod support;

#[path = "consistency/chaos.rs"]
mod chaos;
#[path = "consistency/counters.rs"]
mod counters;
#[path = "consistency/disks.rs"]
mod disks;
#[path = "consistency/failover.rs"]
mod failover;
#[path = "consistency/full_disks.rs"]
mod full_disks;
#[path = "consistency/leases.rs"]
mod leases;
#[path = "consistency/partitions.rs"]
mod partitions;
#[path = "consistency/reads.rs"]
mod reads;
#[path = "consistency/snapshots.rs"]
mod snapshots;
