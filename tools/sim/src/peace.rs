//! What is to be right once the faults are over: every node is up, every shard has one leader, all replicas are the same,
//! and every key can be read.

use std::time::Duration;

use raftkv_history::{Kind, Outcome};
use raftkv_protocol::types::{CoreId, ShardId};

use crate::agenda::{MILLISECOND, SECOND};
use crate::damage::Harm;
use crate::machine::{ALLOCATION_MAX, Machine, State};
use crate::oracle::Violation;
use crate::scan::{Scan, Wish};
use crate::transcript::Ticket;
use crate::user::{Question, What};
use crate::world::World;

impl World {
    /// A node that was told to stop does so first; then somebody starts it again.
    pub(crate) fn run_until_all_are_up(&mut self) -> Result<(), Violation> {
        let end = self.now() + 20 * SECOND;
        let is_there = |machine: &Machine| match &machine.state {
            State::Up(process) => !process.node.node().is_stopping(),
            State::Down => false,
            State::Gone => true,
        };
        while !self.machines.iter().all(is_there) {
            if self.now() > end {
                return Err(Violation::of(
                    "a node that is told to stop does so, and can be started",
                    "20 s have passed",
                ));
            }
            self.step()?;
        }
        Ok(())
    }

    pub(crate) fn run_until_converged(&mut self, end: u64) -> Result<(), Violation> {
        let mut next_look = self.now();
        loop {
            if self.now() >= next_look {
                let Some(why_not) = self.why_not_converged() else { return Ok(()) };
                if self.now() > end {
                    return Err(Violation::of("after the faults everything comes right within ten elections", why_not));
                }
                next_look = self.now() + 50 * MILLISECOND;
            }
            self.step()?;
        }
    }

    /// How long a node may need to fetch the snapshots of all its shards at the rate that it keeps to, twice over: what it
    /// fetches may be out of date when it has come.
    pub(crate) fn fetch_time(&self) -> u64 {
        let mut largest = vec![0; usize::from(self.plan.shards)];
        for machine in &self.machines {
            let State::Up(process) = &machine.state else { continue };
            let routers = (0..self.plan.cores).filter_map(|core| process.node.router(CoreId(core)));
            for shard in routers.flat_map(|router| router.shards()) {
                let bytes = &mut largest[usize::from(shard.id().0)];
                *bytes = shard.state_bytes().max(*bytes);
            }
        }
        2 * largest.iter().sum::<u64>() * SECOND / self.plan.snapshot_rate
    }

    /// How long a node may need to write what the fullest log holds, when half a segment holds a batch and each waits for
    /// its segment to be allocated.
    pub(crate) fn write_time(&self) -> u64 {
        let mut fullest = 0;
        for machine in &self.machines {
            let State::Up(process) = &machine.state else { continue };
            let routers = (0..self.plan.cores).filter_map(|core| process.node.router(CoreId(core)));
            fullest = routers.map(|router| router.log().stats().held_bytes).fold(fullest, u64::max);
        }
        2 * fullest / self.plan.segment_size * ALLOCATION_MAX
    }

    /// What is not right yet.
    fn why_not_converged(&self) -> Option<String> {
        // Whoever has lost its disk tells nobody a term, and a damaged node waits for that of every other.
        let can_heal = self.machines.iter().all(|machine| machine.harm != Harm::Lost);
        let mut common: Vec<Option<(u64, u64, u128)>> = vec![None; usize::from(self.plan.shards)];
        let mut leaders = vec![0; common.len()];
        for machine in &self.machines {
            let index = machine.index;
            let process = match &machine.state {
                State::Gone => return None,
                State::Down => return Some(format!("node {} is down", index + 1)),
                State::Up(process) => process,
            };
            if machine.harm == Harm::Repairing && can_heal {
                return Some(format!("node {} is not healed", index + 1));
            }
            for core in 0..self.plan.cores {
                let Some(router) = process.node.router(CoreId(core)) else {
                    return Some(format!("node {} is stopping", index + 1));
                };
                for shard in router.shards() {
                    let status = shard.status();
                    let at = usize::from(shard.id().0);
                    let state = (status.last.index.0, status.applied.0, status.state_hash);
                    leaders[at] += usize::from(shard.leads());
                    // A node that has lost its disk is refused by its peers; it is out until somebody replaces it.
                    if machine.harm == Harm::Lost {
                        continue;
                    }
                    let agreed = *common[at].get_or_insert(state);
                    let is_ready = shard.is_ready() || (shard.raft().is_damaged() && !can_heal);
                    if !is_ready || status.last.index != status.applied || state != agreed {
                        let id = shard.id();
                        let how = format!("last, applied, state {state:x?}, agreed {agreed:x?}, ready {is_ready}");
                        return Some(format!(
                            "node {} differs in shard {id} ({how}): {}",
                            index + 1,
                            self.replicas_of(id)
                        ));
                    }
                }
            }
        }
        let odd = leaders.iter().position(|leaders| *leaders != 1)?;
        let id = ShardId(odd as u16);
        Some(format!("shard {id} has {} leaders: {}", leaders[odd], self.replicas_of(id)))
    }

    /// Every replica of a shard, for people.
    fn replicas_of(&self, shard: ShardId) -> String {
        let core = CoreId(shard.0 % self.plan.cores);
        let of = |machine: &Machine| {
            let State::Up(process) = &machine.state else { return None };
            let router = process.node.router(core)?;
            router.shards().iter().find(|found| found.id() == shard).map(|found| found.raft().state_line())
        };
        let lines: Vec<String> = self.machines.iter().filter_map(of).collect();
        format!("{}; links {}", lines.join("; "), self.net.0.borrow().describe_links())
    }

    /// Reads every key that was ever written, so that the history tells of each acknowledged write; then once more in
    /// scans.
    pub(crate) fn read_everything(&mut self) -> Result<(), Violation> {
        for key in self.transcript.written.clone() {
            let what = What::Key { key, kind: Kind::Get, stale: false };
            let Ticket::Operation(asked) = self.ask_in_peace(what)? else { continue };
            let operation = &self.transcript.operations[asked];
            if !matches!(operation.outcome, Outcome::Value(_)) {
                return Err(Violation::of("without faults a read succeeds", format!("{operation:?}")));
            }
        }
        self.scanning = true;
        for reverse in [false, true] {
            let refused = self.coverage.count("scan refused");
            self.ask_in_peace(What::Page(Scan::of(Wish::everything(reverse))))?;
            if self.coverage.count("scan refused") > refused {
                return Err(Violation::of("without faults a read succeeds", "a scan of everything was refused"));
            }
        }
        Ok(())
    }

    /// Asks, and waits for the answer, or for all pages of it.
    fn ask_in_peace(&mut self, what: What) -> Result<Ticket, Violation> {
        let ticket = self.put_question(0, &Question { what, timeout: Duration::from_secs(20) });
        let (mut stamp, mut end) = (0, 0);
        while self.users[0].waiting() > 0 {
            if stamp != self.transcript.stamp() {
                (stamp, end) = (self.transcript.stamp(), self.now() + 20 * SECOND);
            }
            if self.now() > end {
                return Err(Violation::of("every request is answered", "a read without faults has no answer"));
            }
            self.step()?;
        }
        Ok(ticket)
    }
}
