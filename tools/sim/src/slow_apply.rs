//! Slow replicas, in runs that have them: what is committed is durable, and acknowledged, long before they have applied it.
//!
//! Nothing holds of them that does not hold of others: reads wait until they have applied what they are to show, stale
//! ones are as old as they may be, and a snapshot covers what was applied and no more.

use raftkv_protocol::types::CoreId;

use crate::agenda::{LoopId, MILLISECOND};
use crate::random::Random;
use crate::world::World;

/// What a seed says of them. It is drawn by itself: the rest of a run is drawn as if there were none.
#[derive(Clone, Debug)]
pub struct ApplyPlan {
    /// By node.
    is_slow: Vec<bool>,
    /// The longest time between two turns in which a slow node's core applies something.
    pause_max: u64,
    /// The most entries of a shard that it applies in one.
    entries_max: u64,
}

impl ApplyPlan {
    /// One run in four has some.
    #[must_use]
    pub fn draw(nodes: usize, random: &mut Random) -> Option<ApplyPlan> {
        let is_on = random.below(4) == 0;
        let is_slow = (0..nodes).map(|_| random.coin()).collect();
        let pause_max = *random.pick(&[MILLISECOND, 20 * MILLISECOND, 300 * MILLISECOND]);
        let entries_max = *random.pick(&[1, 8, 64]);
        is_on.then_some(ApplyPlan { is_slow, pause_max, entries_max })
    }
}

impl World {
    /// Decides before a core's turn what it may apply in it: as much as usual where nothing is slow, and in peace.
    pub(crate) fn allow_to_apply(&mut self, index: usize, core: usize) {
        let Some(plan) = &self.plan.slow_apply else { return };
        let now = self.now();
        let machine = &mut self.machines[index];
        let share = if !plan.is_slow[index] || !self.faulty {
            None
        } else if now < machine.applies_at[core] {
            Some(0)
        } else {
            machine.applies_at[core] = now + self.apply_random.skewed(MILLISECOND / 10, plan.pause_max);
            Some(self.apply_random.between(1, plan.entries_max))
        };
        let router = machine.process().and_then(|process| process.node.router_mut(CoreId(core as u16)));
        for shard in router.into_iter().flat_map(|router| router.shards_mut()) {
            shard.apply_at_most(share);
        }
    }

    /// Has a core that was kept from applying go on in time. Nothing else wakes it for that.
    pub(crate) fn wake_to_apply(&mut self, owner: LoopId, index: usize, core: usize) {
        if self.plan.slow_apply.is_none() {
            return;
        }
        let machine = &mut self.machines[index];
        let applies_at = machine.applies_at[core];
        let router = machine.process().and_then(|process| process.node.router(CoreId(core as u16)));
        let lags =
            router.is_some_and(|router| router.shards().iter().any(|shard| shard.applied() < shard.raft().commit()));
        if lags && applies_at > self.now() {
            self.coverage.note("committed entries left for a later turn");
            self.net.0.borrow_mut().wake_at(owner, applies_at);
        }
    }
}
