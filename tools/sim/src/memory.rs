//! Memory that is not to be trusted, in runs that have it: one node finds now and then that the state of a shard is not what
//! it has put there.
//!
//! The state is right all the same, so that all that is shown of it can be judged as ever. The node does what it does with a
//! wrong one: it serves it no more, leads no more, takes no snapshot, and builds it anew once the log has grown too long, from
//! its own newest snapshot or the leader's. Applied falls then, to what that covers; nothing else may fall. In between the
//! node reads its states again, and finds nothing.

use raftkv_protocol::types::CoreId;

use crate::agenda::{MILLISECOND, SECOND};
use crate::machine::{Machine, State};
use crate::random::Random;
use crate::world::World;

/// What a seed says of it. It is drawn by itself: the rest of a run is drawn as if there were none, but for the bound of its
/// logs.
#[derive(Clone, Debug)]
pub struct MemoryPlan {
    /// Whose memory.
    node: usize,
    /// The longest time between two finds.
    pause_max: u64,
    /// When something is found next.
    next_at: u64,
    /// Bytes of a core's log above which a wrong state is built anew: few, so that there is time for it.
    pub(crate) core_log_bytes_max: u64,
}

impl MemoryPlan {
    /// One run in six has it.
    #[must_use]
    pub fn draw(nodes: usize, segment_size: u64, random: &mut Random) -> Option<MemoryPlan> {
        let is_on = random.below(6) == 0;
        let node = random.below(nodes as u64) as usize;
        let pause_max = *random.pick(&[SECOND / 2, 2 * SECOND, 8 * SECOND]);
        let next_at = random.skewed(100 * MILLISECOND, pause_max);
        let core_log_bytes_max = segment_size * random.between(1, 4);
        is_on.then_some(MemoryPlan { node, pause_max, next_at, core_log_bytes_max })
    }
}

impl World {
    /// Decides before a core's turn whether it finds one of its states to be wrong now.
    pub(crate) fn doubt_memory(&mut self, index: usize, core: usize) {
        let now = self.now();
        let Some(plan) = &mut self.plan.memory else { return };
        if !self.faulty || plan.node != index || now < plan.next_at {
            return;
        }
        plan.next_at = now + self.memory_random.skewed(100 * MILLISECOND, plan.pause_max);
        let Some(process) = self.machines[index].process() else { return };
        let router = process.node.router_mut(CoreId(core as u16));
        let mut shards: Vec<_> = router.into_iter().flat_map(|router| router.shards_mut()).collect();
        let at = self.memory_random.below(shards.len().max(1) as u64) as usize;
        if let Some(shard) = shards.get_mut(at) {
            // Before, it is read now and then, and its memory has kept it.
            if self.memory_random.below(3) > 0 {
                return shard.want_scrub();
            }
            shard.doubt_state();
            let id = shard.id();
            self.say(format!("node {} finds its state of shard {id} to be wrong", index + 1));
        }
    }

    /// Whether a node may take what it has for wrong.
    pub(crate) fn doubts(&self, node: usize) -> bool {
        self.plan.memory.as_ref().is_some_and(|plan| plan.node == node)
    }

    /// Somebody starts a node again that has a wrong state, as it says.
    pub(crate) fn restart_doubtful(&mut self) {
        let cores = 0..self.plan.cores;
        let is_doubtful = |machine: &Machine| {
            let State::Up(process) = &machine.state else { return false };
            let routers = cores.clone().filter_map(|core| process.node.router(CoreId(core)));
            routers.flat_map(|router| router.shards()).any(|shard| shard.is_wrong())
        };
        let doubtful: Vec<usize> =
            self.machines.iter().filter(|machine| is_doubtful(machine)).map(|machine| machine.index).collect();
        doubtful.into_iter().for_each(|node| _ = self.crash(node, false));
    }
}
