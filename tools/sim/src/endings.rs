//! Nodes that end with an error. Each names what was done to it since it started, and only that: a fault that was planned
//! and did not come about, or that an earlier process has met, excuses nothing.

use raftkv::error::Fatal;
use raftkv::storage::simulated_disk::SimulatedDisk;

use crate::agenda::HostId;
use crate::damage::Harm;
use crate::machine::{Machine, State};
use crate::oracle::Violation;
use crate::world::World;

/// What a node may end for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its start was cut short while it salvaged a log.
    CutShort,
    /// Its log is damaged, and nobody else has what it held.
    Refused,
    /// A sync of its log has failed.
    FailedSync,
    /// Its disk is full, and it cannot start.
    NoRoom,
    /// Its disk is full, and what it was to write when it was told to stop has no place.
    NoRoomToStop,
    /// It has read a spot of its log that is damaged.
    Damage,
}

impl Machine {
    /// What was done to it that explains these last words of its node.
    #[must_use]
    pub fn reason(&self, words: &str) -> Option<Reason> {
        let (is_running, is_damaged) = (self.is_up(), self.harm == Harm::Lurking);
        let is_refused = words.contains("the log is corrupt") || words.contains("the log is incomplete");
        // Where a file is about to be made, the words are of the directory. It has no name of its own.
        let is_of = |name: &str| !name.is_empty() && words.contains(name) || words.contains("/simulated/:");
        let disks = self.disks.iter().chain(&self.snapshot_disks);
        let failed = disks.filter_map(SimulatedDisk::unsynced_name).any(|name| is_of(&name));
        if self.was_cut_short {
            Some(Reason::CutShort)
        } else if is_damaged && !is_running && self.is_alone && is_refused {
            Some(Reason::Refused)
        } else if failed && words.contains("os error 5)") {
            Some(Reason::FailedSync)
        } else if self.has_full_disk() && !is_running && words.contains("os error 28)") {
            Some(Reason::NoRoom)
        } else if self.has_full_disk() && words == "the disk is full: the last batch of the log was not written" {
            Some(Reason::NoRoomToStop)
        } else if is_damaged && is_running && self.damaged.iter().any(|file| file.is_named_in(words, &self.disks)) {
            Some(Reason::Damage)
        } else {
            None
        }
    }
}

impl World {
    /// The process has ended with an error: what its program would print.
    pub(crate) fn node_failed(&mut self, index: usize, fatal: &Fatal) -> Result<(), Violation> {
        let now = self.now();
        let words = fatal.to_string().replace(&*self.dir.path().to_string_lossy(), "DIR");
        self.trace.say(now, format!("node {} ends: {words}", index + 1));
        let machine = &mut self.machines[index];
        let reason = machine.reason(&words);
        machine.was_cut_short = false;
        self.net.0.borrow_mut().process_ends(HostId(index));
        machine.ended();
        self.oracle.ended(index);
        self.coverage.note(match reason {
            Some(Reason::CutShort) => "salvage cut short by a crash",
            Some(Reason::Refused) => "damage refused at the start",
            Some(Reason::FailedSync) => "node ended by a failed sync",
            Some(Reason::NoRoom) => "no room to start",
            Some(Reason::NoRoomToStop) => "no room for the last batch of a stop",
            Some(Reason::Damage) => "damage noticed while running",
            None => return Err(Violation::of("a node ends for a reason", format!("node {}: {words}", index + 1))),
        });
        match reason {
            Some(Reason::Refused) => {
                self.machines[index].state = State::Gone;
                return Ok(());
            }
            Some(Reason::CutShort) => {
                let power_fails = self.random.coin();
                self.machines[index].crash(&self.plan, power_fails, &mut self.random);
            }
            _ => {}
        }
        self.restart_later(index);
        Ok(())
    }
}
