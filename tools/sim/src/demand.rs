//! Snapshots that clients ask for, and what the answers promise; and a look at what lies on the disks.

use raftkv::client::{ShardSnapshot, SnapshotOutcome};
use raftkv_protocol::types::{CoreId, EntryId, Index, ShardId};

use crate::damage::Harm;
use crate::machine::{Machine, State};
use crate::oracle::{Trust, Violation};
use crate::world::World;

/// A request for snapshots of all shards of a node.
#[derive(Debug)]
pub(crate) struct Demand {
    node: usize,
    /// The process that was there.
    boot: u64,
    /// What it had applied, by shard. Nothing if none was there.
    applied: Vec<Index>,
}

impl Demand {
    /// Of this node, now.
    pub(crate) fn of(machine: &Machine) -> Demand {
        let mut applied = vec![Index(0); machine.snapshot_disks.len()];
        if let State::Up(process) = &machine.state {
            let cores = (0..machine.disks.len()).map(|core| CoreId(core as u16));
            for shard in cores.filter_map(|core| process.node.router(core)).flat_map(|router| router.shards()) {
                applied[usize::from(shard.id().0)] = shard.applied();
            }
        }
        Demand { node: machine.index, boot: machine.boot, applied }
    }
}

impl World {
    /// A node has answered what a client has asked for, or will not.
    pub(crate) fn judge_demand(&mut self, number: u64, told: Option<&[ShardSnapshot]>) -> Result<(), Violation> {
        let Some(demand) = self.demands.remove(&number) else { return Ok(()) };
        let Some(told) = told else {
            self.coverage.note("snapshots asked for, and no answer");
            return Ok(());
        };
        let named: Vec<ShardId> = told.iter().map(|snapshot| snapshot.shard).collect();
        if named != (0..self.plan.shards).map(ShardId).collect::<Vec<_>>() {
            let what = format!("node {}: {named:?}", demand.node + 1);
            return Err(Violation::of("who is asked for snapshots names every shard once", what));
        }
        for ShardSnapshot { shard, outcome } in told {
            match outcome {
                SnapshotOutcome::Taken { at, .. } => {
                    self.coverage.note("snapshot asked for, and taken");
                    self.judge_covered(&demand, *shard, *at)?;
                }
                SnapshotOutcome::Unchanged { at, .. } => {
                    self.coverage.note("snapshot asked for, and there already");
                    self.judge_covered(&demand, *shard, *at)?;
                }
                SnapshotOutcome::Failed(_) => self.coverage.note("snapshot asked for, and failed"),
            }
        }
        Ok(())
    }

    fn judge_covered(&self, demand: &Demand, shard: ShardId, entry: EntryId) -> Result<(), Violation> {
        let machine = &self.machines[demand.node];
        // What was durable is not, where somebody has damaged it.
        if machine.snapshot_damaged || machine.harm == Harm::Lost {
            return Ok(());
        }
        let at = usize::from(shard.0);
        let applied = (machine.boot == demand.boot).then(|| demand.applied[at]);
        self.oracle.check_demanded(demand.node, shard, entry, applied, &machine.snapshot_disks[at])
    }

    /// Something may have been done to the snapshots of a core, or of all.
    pub(crate) fn look_at_snapshots(&mut self, node: usize, core: Option<CoreId>) -> Result<(), Violation> {
        let machine = &self.machines[node];
        let trust = match (machine.snapshot_damaged, self.doubts(node)) {
            (true, _) => Trust::Damaged,
            (false, true) => Trust::Doubted,
            (false, false) => Trust::Whole,
        };
        let shards = (0..self.plan.shards).filter(|shard| core.is_none_or(|core| shard % self.plan.cores == core.0));
        for shard in shards {
            let disk = &machine.snapshot_disks[usize::from(shard)];
            self.oracle.look_at_snapshots(node, ShardId(shard), disk, trust)?;
        }
        Ok(())
    }
}
