//! Disks that lose, all at once or bit by bit, what was safe on them, and nodes that get it back from the others.

use raftkv::storage;
use raftkv::storage::simulated_disk::SimulatedDisk;
use raftkv_protocol::types::CoreId;

use crate::agenda::HostId;
use crate::machine::{Machine, State};
use crate::oracle::Violation;
use crate::plan::Fault;
use crate::world::World;

/// What a disk reads and writes at a time.
const BLOCK: u64 = 4_096;

/// Where a batch says how many bytes of records and of hard states it has, behind its magic.
const BATCH_MAGIC: &[u8] = b"RKVB";
const RECORDS_AT: usize = 44;
const HARD_STATES_AT: usize = 48;
const HEADER_BYTES: u64 = 56;

/// What a machine's disks have suffered that is not made up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Harm {
    /// Nothing.
    #[default]
    None,
    /// Somebody has damaged a log. It shows when somebody reads it: at the next start at the latest, if at all.
    Lurking,
    /// What was sound of a log was kept; the node gets the rest from the others.
    Repairing,
    /// The disks are empty, for good.
    Lost,
}

/// A bit of a segment that is not what was written.
#[derive(Clone, Debug)]
pub struct Flip {
    core: usize,
    name: String,
    at: u64,
    bit: u8,
    /// How the file begins: with an id of its own.
    header: Vec<u8>,
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
            && disk.bytes(&self.name).starts_with(&self.header)
    }
}

/// A file of a core's log. It may be taken into use again under another name.
#[derive(Clone, Debug)]
pub struct DamagedFile {
    core: usize,
    name: String,
    number: Option<u64>,
}

impl DamagedFile {
    /// The one of this name.
    #[must_use]
    pub fn of(disk: &SimulatedDisk, core: usize, name: &str) -> DamagedFile {
        DamagedFile { core, name: name.to_owned(), number: disk.number_of(name) }
    }

    /// Whether these words name it, by the name that it had or by the one that it has now.
    #[must_use]
    pub fn is_named_in(&self, words: &str, disks: &[SimulatedDisk]) -> bool {
        let now = self.number.and_then(|number| disks[self.core].name_of(number));
        words.contains(&self.name) || now.is_some_and(|name| words.contains(&name))
    }
}

/// When damage can be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// By whoever reads what is damaged.
    WhenRead,
    /// By the next start: a process goes on with the files that it has open.
    AtTheStart,
}

impl World {
    /// Damage stays on a minority: more is more than any number of copies survives. A node counts until it is healed. And
    /// it comes after every node has been admitted: one that never was cannot be told from one that has lost its disk,
    /// gives no vote to those that were, and so does not count while the damaged one is out. A lone node gets none but in
    /// its log, of which it is to say that nobody else has it.
    pub(crate) fn damage(&mut self, fault: Fault, node: usize) -> bool {
        if !self.machines.iter().all(Machine::is_admitted) {
            return false;
        }
        let is_lone = self.plan.nodes == 1;
        let harmed = self.machines.iter().filter(|machine| machine.index != node && machine.harm != Harm::None).count();
        let machine = &self.machines[node];
        if (harmed + 1) * 2 > self.plan.nodes && !is_lone {
            return false;
        }
        if matches!(machine.harm, Harm::Lurking | Harm::Lost) || matches!(machine.state, State::Gone) {
            return false;
        }
        if fault == Fault::LostDisk {
            if is_lone || machine.harm != Harm::None {
                return false;
            }
            self.lose_disk(node);
        } else {
            let Some(found) = self.damage_segment(fault, node) else { return false };
            self.machines[node].harm = Harm::Lurking;
            // Damage shows when somebody reads it: at the next start, or when a follower asks for old entries.
            if is_lone || self.random.below(4) > 0 || found == Found::AtTheStart {
                self.crash(node, false);
            }
        }
        self.oracle.discount(node);
        self.say(format!("node {}: {}", node + 1, fault.name()));
        true
    }

    fn lose_disk(&mut self, node: usize) {
        self.crash(node, true);
        self.machines[node].lose_disk(&mut self.random);
        self.oracle.lost(node);
        // The new machine is set up by somebody who looks at the firewalls too.
        self.net.0.borrow_mut().unbar(Some(HostId(node)));
    }

    /// A node has just started: what is known of the damage to its logs now.
    pub(crate) fn note_start(&mut self, node: usize) -> Result<(), Violation> {
        let salvaged = std::mem::take(&mut self.machines[node].salvaged);
        let before = self.machines[node].harm;
        if !salvaged.is_empty() {
            self.coverage.note("damaged log salvaged");
            self.say(format!("node {} keeps what is sound of shards {salvaged:?}", node + 1));
            if before != Harm::Lurking {
                return Err(Violation::of("only a damaged log is salvaged", format!("node {}: {before:?}", node + 1)));
            }
        }
        let machine = &mut self.machines[node];
        machine.flips.clear();
        machine.damaged.clear();
        let is_marked = machine.is_marked();
        machine.harm = match before {
            Harm::Lost => Harm::Lost,
            _ if is_marked => Harm::Repairing,
            _ => Harm::None,
        };
        let Some(process) = machine.process() else { return Ok(()) };
        for core in (0..self.plan.cores).map(CoreId) {
            for shard in process.node.router(core).into_iter().flat_map(|router| router.shards()) {
                let is_less = salvaged.contains(&shard.id());
                self.oracle.started(node, shard, is_less, &mut self.coverage)?;
            }
        }
        if is_marked && salvaged.is_empty() {
            self.coverage.note("damaged node restarted before it was healed");
        }
        if before != Harm::None && self.machines[node].harm == Harm::None {
            // A bit that nobody reads, a file that was not needed any more, or a node that stopped right after it was healed.
            self.coverage.note("damage without effect");
            self.oracle.count_again(node);
        }
        Ok(())
    }

    /// A core of a node has had its turn: its shards may be healed, and the mark of its damage gone.
    pub(crate) fn note_repairs(&mut self, node: usize, core: CoreId) -> Result<(), Violation> {
        let machine = &mut self.machines[node];
        let harm = machine.harm;
        if matches!(harm, Harm::None | Harm::Lost) {
            return Ok(());
        }
        let is_marked = machine.is_marked();
        let Some(process) = machine.process() else { return Ok(()) };
        for shard in process.node.router(core).into_iter().flat_map(|router| router.shards()) {
            if shard.raft().is_damaged() && !is_marked {
                let what = format!("node {} shard {}: {}", node + 1, shard.id(), shard.raft().state_line());
                return Err(Violation::of("a damaged node is marked until it is healed", what));
            }
            self.oracle.note_repair(node, shard, &mut self.coverage)?;
        }
        if harm == Harm::Repairing && !is_marked {
            self.machines[node].harm = Harm::None;
            self.oracle.count_again(node);
            self.coverage.note("node healed");
            self.say(format!("node {} is healed", node + 1));
        }
        Ok(())
    }

    /// A flip in the last batch of a log that then crashes is one fault too many: nothing proves that the batch was
    /// ever complete. It is taken back before the start. While the node runs, it must be noticed there too.
    ///
    /// What proves the batch may be a later one that is not durable yet: then a start that sees both refuses the log, and if
    /// it is cut short by a loss of power before that is on record, the next one sees neither.
    pub(crate) fn take_back_unproved(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        for flip in std::mem::take(&mut machine.flips) {
            let disk = &machine.disks[flip.core];
            if flip.is_unproved(disk) {
                flip.turn(disk);
                self.coverage.note("flip in an unproved batch taken back");
            } else {
                machine.flips.push(flip);
            }
        }
    }

    /// `None` if there is nothing to damage.
    fn damage_segment(&mut self, fault: Fault, node: usize) -> Option<Found> {
        let machine = &self.machines[node];
        let core = self.random.below(machine.disks.len() as u64) as usize;
        let disk = machine.disks[core].clone();
        let newest = storage::newest(&disk).ok()??;
        let sealed = disk.names().into_iter().filter(|name| name.starts_with("segment") && *name != newest.name);
        let sealed: Vec<String> = sealed.collect();
        let is_only = sealed.is_empty();
        let is_live = is_only || self.random.coin();
        let name = if is_live { newest.name.clone() } else { self.random.pick(&sealed).clone() };
        let length = disk.bytes(&name).len() as u64;
        let damaged = DamagedFile::of(&disk, core, &name);
        self.machines[node].damaged.push(damaged);
        if fault == Fault::ShortSegment {
            let length = self.random.below(length);
            self.machines[node].has_rotted = true;
            // One that has not even its header is as good as gone. The one before it tells that it was there.
            if length < BLOCK && is_live && !is_only {
                disk.remove_quietly(&name);
                self.coverage.note("newest segment gone");
                return Some(Found::AtTheStart);
            }
            disk.truncate_quietly(&name, length);
            return Some(Found::WhenRead);
        }
        let used = if is_live { newest.written_upto.min(length) } else { length };
        let places = match self.random.below(4) {
            0 => self.hard_state_of(&disk.bytes(&name)[..used as usize]),
            _ => Vec::new(),
        };
        let places = if places.is_empty() { vec![self.any_place(used).min(length - 1)] } else { places };
        for at in places {
            let mut flip = Flip { core, name: name.clone(), at, bit: self.random.below(8) as u8, header: Vec::new() };
            flip.turn(&disk);
            flip.header = disk.bytes(&name)[..HEADER_BYTES.min(length) as usize].to_vec();
            self.machines[node].flips.push(flip);
            self.machines[node].has_rotted = true;
        }
        Some(Found::WhenRead)
    }

    fn any_place(&mut self, used: u64) -> u64 {
        let block = self.random.below(used.div_ceil(BLOCK)) * BLOCK;
        // Headers and records lie where blocks begin, and most blocks are not full.
        block + if self.random.below(4) == 0 { self.random.below(BLOCK) } else { self.random.skewed(1, BLOCK) - 1 }
    }

    /// Where both copies of some batch's hard states begin, if any has some.
    fn hard_state_of(&mut self, segment: &[u8]) -> Vec<u64> {
        let number = |block: &[u8], at: usize| {
            block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let copies = |(at, block): (usize, &[u8])| {
            let (records, length) = (u64::from(number(block, RECORDS_AT)), u64::from(number(block, HARD_STATES_AT)));
            let start = at as u64 * BLOCK;
            let first = start + HEADER_BYTES + records;
            let second = (first + length).next_multiple_of(BLOCK);
            let is_there = block.starts_with(BATCH_MAGIC) && length > 0 && second + length <= segment.len() as u64;
            is_there.then(|| vec![first, second])
        };
        let batches: Vec<Vec<u64>> = segment.chunks(BLOCK as usize).enumerate().filter_map(copies).collect();
        if batches.is_empty() { Vec::new() } else { self.random.pick(&batches).clone() }
    }
}
