//! Disks that lose, all at once or bit by bit, what was safe on them.

use raftkv::storage;
use raftkv::storage::simulated_disk::SimulatedDisk;

use crate::agenda::HostId;
use crate::machine::{Machine, State};
use crate::plan::Fault;
use crate::world::World;

/// What a disk reads and writes at a time.
const BLOCK: u64 = 4_096;

/// A bit of a segment that is not what was written.
#[derive(Clone, Debug)]
pub struct Flip {
    core: usize,
    name: String,
    at: u64,
    bit: u8,
}

impl Flip {
    /// There and back again.
    fn turn(&self, disk: &SimulatedDisk) {
        disk.flip(&self.name, self.at, self.bit);
    }

    /// Whether a start may take it for what a crash has left of a write that never came to its end.
    fn is_unproved(&self, disk: &SimulatedDisk) -> bool {
        let newest = storage::newest(disk).ok().flatten();
        newest.is_some_and(|newest| newest.name == self.name && self.at >= newest.durable_upto)
    }
}

impl World {
    /// Damage stays on a minority: more is more than any number of copies survives. And it comes after every node has
    /// been admitted: one that never was cannot be told from one that has lost its disk, gives no vote to those that
    /// were, and so does not count while the damaged one is out.
    pub(crate) fn damage(&mut self, fault: Fault, node: usize) -> bool {
        if !self.machines.iter().all(Machine::is_admitted) {
            return false;
        }
        let damaged = self.machines.iter().filter(|machine| machine.damaged).count();
        let machine = &self.machines[node];
        if machine.damaged || (damaged + 1) * 2 > self.plan.nodes || matches!(machine.state, State::Gone) {
            return false;
        }
        if fault == Fault::LostDisk {
            self.crash(node, true);
            self.machines[node].lose_disk(&mut self.random);
            // The new machine is set up by somebody who looks at the firewalls too.
            self.net.0.borrow_mut().unbar(Some(HostId(node)));
        } else if !self.damage_segment(fault, node) {
            return false;
        }
        // Damage shows when somebody reads it: at the next start, or when a follower asks for old entries.
        if fault != Fault::LostDisk && self.random.below(4) > 0 {
            self.crash(node, false);
        }
        self.machines[node].damaged = true;
        self.oracle.discount(node, fault == Fault::LostDisk);
        self.say(format!("node {}: {}", node + 1, fault.name()));
        true
    }

    /// A flip in the last batch of a log that then crashes is one fault too many: nothing proves that the batch was
    /// ever complete. It is taken back before the start. While the node runs, it must be noticed there too.
    pub(crate) fn take_back_unproved(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        for flip in std::mem::take(&mut machine.flips) {
            let disk = &machine.disks[flip.core];
            if flip.is_unproved(disk) {
                flip.turn(disk);
                self.coverage.note("flip in an unproved batch taken back");
            }
        }
    }

    fn damage_segment(&mut self, fault: Fault, node: usize) -> bool {
        let machine = &mut self.machines[node];
        let core = self.random.below(machine.disks.len() as u64) as usize;
        let disk = machine.disks[core].clone();
        let Ok(Some(newest)) = storage::newest(&disk) else { return false };
        let sealed = disk.names().into_iter().filter(|name| name.starts_with("segment") && *name != newest.name);
        let sealed: Vec<String> = sealed.collect();
        let is_live = sealed.is_empty() || self.random.coin();
        let name = if is_live { newest.name.clone() } else { self.random.pick(&sealed).clone() };
        let length = disk.bytes(&name).len() as u64;
        if fault == Fault::ShortSegment {
            disk.truncate_quietly(&name, self.random.below(length));
            return true;
        }
        let used = if is_live { newest.written_upto.min(length) } else { length };
        let block = self.random.below(used.div_ceil(BLOCK)) * BLOCK;
        // Headers and records lie where blocks begin, and most blocks are not full.
        let within =
            if self.random.below(4) == 0 { self.random.below(BLOCK) } else { self.random.skewed(1, BLOCK) - 1 };
        let flip = Flip { core, name, at: (block + within).min(length - 1), bit: self.random.below(8) as u8 };
        flip.turn(&disk);
        machine.flips.push(flip);
        true
    }
}
