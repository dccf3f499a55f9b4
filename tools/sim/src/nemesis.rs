//! Whoever wants the cluster to fail: one act after the other, of the kinds that the plan has drawn.

use raftkv_protocol::types::CoreId;

use crate::agenda::{Event, HostId, MILLISECOND, SECOND};
use crate::machine::{Machine, State};
use crate::plan::Fault;
use crate::world::World;

impl World {
    /// One act, and when the next follows.
    pub(crate) fn nemesis(&mut self) {
        if !self.faulty {
            return;
        }
        let pause = self.random.skewed(30 * MILLISECOND, self.plan.nemesis_pause_max);
        self.net.0.borrow_mut().agenda.after(pause, Event::Nemesis);
        if self.plan.faults.is_empty() {
            return;
        }
        let cuts = self.net.0.borrow().cuts();
        if cuts > 0 && self.random.below(3) == 0 {
            self.say("all ways are mended".to_owned());
            self.net.0.borrow_mut().heal();
            return;
        }
        let fault = *self.random.pick(&self.plan.faults.clone());
        if self.act(fault) {
            self.coverage.note(fault.name());
        }
    }

    fn say(&mut self, what: String) {
        let now = self.now();
        self.trace.say(now, what);
    }

    fn any_node(&mut self) -> usize {
        self.random.below(self.plan.nodes as u64) as usize
    }

    /// A node that leads shards, if there is any: what happens to it matters most.
    fn any_leader(&mut self) -> usize {
        let leads = |machine: &Machine| {
            let State::Up(process) = &machine.state else { return false };
            (0..self.plan.cores)
                .filter_map(|core| process.node.router(CoreId(core)))
                .any(|router| router.shards().iter().any(|shard| shard.leads()))
        };
        let leaders: Vec<usize> =
            self.machines.iter().filter(|machine| leads(machine)).map(|machine| machine.index).collect();
        if leaders.is_empty() { self.any_node() } else { *self.random.pick(&leaders) }
    }

    /// Whether it came to anything.
    fn act(&mut self, fault: Fault) -> bool {
        let node = if self.random.coin() { self.any_leader() } else { self.any_node() };
        match fault {
            Fault::Partition | Fault::Isolate | Fault::Partial | Fault::Swizzle | Fault::OneWay | Fault::HalfOpen => {
                self.cut(fault, node)
            }
            Fault::SlowPath => self.slow_path(node),
            Fault::Kill | Fault::PowerLoss => {
                let power_fails = fault == Fault::PowerLoss;
                if self.random.coin() {
                    return self.crash(node, power_fails);
                }
                self.machines[node].is_doomed = Some(power_fails);
                self.machines[node].is_up()
            }
            Fault::AfterVote => {
                self.machines[node].dies_of_vote = true;
                self.machines[node].is_up()
            }
            Fault::Blackout => self.blackout(),
            Fault::Stop => self.stop(node),
            Fault::Pause => self.pause(node),
            Fault::SlowDisk | Fault::HungDisk | Fault::SyncError | Fault::FullDisk => self.disk_fault(fault, node),
            Fault::Rot | Fault::ShortSegment | Fault::LostDisk => self.damage(fault, node),
            Fault::GiveUp => self.give_up(),
        }
    }

    fn cut(&mut self, fault: Fault, node: usize) -> bool {
        let nodes = self.plan.nodes;
        if nodes == 1 {
            return false;
        }
        let other = (node + 1 + self.random.below(nodes as u64 - 1) as usize) % nodes;
        let side = self.random.number();
        let outward = self.random.coin();
        let mut cuts = Vec::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                let across = (side >> from) & 1 != (side >> to) & 1;
                let cut = match fault {
                    Fault::Partition => across,
                    Fault::Isolate => from == node || to == node,
                    Fault::OneWay => (from, to) == (node, other),
                    Fault::HalfOpen if outward => from == node,
                    Fault::HalfOpen => to == node,
                    Fault::Partial => (side >> (from.min(to) * 7 + from.max(to))) & 3 == 0,
                    _ => self.random.below(4) == 0,
                };
                if cut {
                    cuts.push((from, to));
                }
            }
        }
        self.say(format!("{}: cut {:?}", fault.name(), cuts.iter().map(|(a, b)| (a + 1, b + 1)).collect::<Vec<_>>()));
        for (from, to) in &cuts {
            let (from, to) = (HostId(*from), HostId(*to));
            if fault == Fault::Swizzle {
                // One after the other, and mended in another order.
                self.later(SECOND, Event::Path { from, to, cut: true });
                self.later(3 * SECOND, Event::Path { from, to, cut: false });
            } else {
                self.net.0.borrow_mut().set_cut(from, to, true);
            }
        }
        !cuts.is_empty()
    }

    fn later(&mut self, at_most: u64, event: Event) {
        let delay = self.random.below(at_most);
        self.net.0.borrow_mut().agenda.after(delay, event);
    }

    fn slow_path(&mut self, node: usize) -> bool {
        let to = HostId(self.random.below((self.plan.nodes + self.plan.clients) as u64) as usize);
        let extra = self.random.skewed(5 * MILLISECOND, 2 * SECOND);
        self.say(format!(
            "the way from node {} to host {} is slow: up to {} ms",
            node + 1,
            to.0 + 1,
            extra / MILLISECOND
        ));
        self.net.0.borrow_mut().set_slow(HostId(node), to, extra);
        true
    }

    fn crash(&mut self, node: usize, power_fails: bool) -> bool {
        if !self.machines[node].is_up() {
            return false;
        }
        self.say(format!("node {} {}", node + 1, if power_fails { "loses power" } else { "is killed" }));
        self.count_node(node);
        if power_fails {
            self.net.0.borrow_mut().power_fails(HostId(node));
        } else {
            self.net.0.borrow_mut().process_ends(HostId(node));
        }
        self.machines[node].crash(&self.plan, power_fails, &mut self.random);
        for disk in self.machines[node].disks.iter().filter(|_| power_fails) {
            let report = disk.last_crash();
            self.coverage.add("block lost by a crash", report.blocks_lost);
            self.coverage.add("block torn by a crash", report.blocks_torn);
            self.coverage.add("unsynced block survived a crash", report.blocks_survived);
            self.coverage.add("unsynced name lost by a crash", report.names_lost);
        }
        self.oracle.ended(node);
        self.restart_later(node);
        true
    }

    /// The moment that a doomed node was waiting for: it is in the middle of a sync.
    pub(crate) fn crash_doomed(&mut self, node: usize) {
        if let Some(power_fails) = self.machines[node].is_doomed.take() {
            self.crash(node, power_fails);
        }
    }

    /// A node has voted. Now is the moment at which it would forget a vote that it had not written.
    pub(crate) fn node_voted(&mut self, node: usize) {
        if std::mem::take(&mut self.machines[node].dies_of_vote) {
            let power_fails = self.random.below(4) > 0;
            self.crash(node, power_fails);
        }
    }

    fn blackout(&mut self) -> bool {
        let crashed: Vec<bool> = (0..self.plan.nodes).map(|node| self.crash(node, true)).collect();
        crashed.contains(&true)
    }

    fn stop(&mut self, node: usize) -> bool {
        self.say(format!("node {} is told to stop", node + 1));
        let Some(process) = self.machines[node].process() else { return false };
        process.node.stop();
        let loops = self.machines[node].loops.clone();
        for owner in loops {
            self.net.0.borrow_mut().wake(owner);
        }
        true
    }

    fn pause(&mut self, node: usize) -> bool {
        let machine = &mut self.machines[node];
        if !machine.is_up() || machine.paused {
            return false;
        }
        machine.paused = true;
        let election = self.plan.election_timeout.as_nanos() as u64;
        let pause = self.random.skewed(5 * MILLISECOND, 3 * election);
        self.net.0.borrow_mut().agenda.after(pause, Event::Resume { node });
        self.say(format!("node {} stands still for {} ms", node + 1, pause / MILLISECOND));
        true
    }

    fn disk_fault(&mut self, fault: Fault, node: usize) -> bool {
        let machine = &mut self.machines[node];
        let disk = self.random.below(machine.disks.len() as u64) as usize;
        let lasts = self.random.skewed(50 * MILLISECOND, 3 * SECOND);
        match fault {
            Fault::SlowDisk => machine.slow = self.random.skewed(5 * MILLISECOND, SECOND),
            Fault::HungDisk => machine.hung = true,
            Fault::FullDisk => machine.disks[disk].set_full(true),
            _ => {
                machine.sync_fails = true;
                machine.disks[disk].fail_sync(self.random.below(20));
            }
        }
        self.net.0.borrow_mut().agenda.after(lasts, Event::DiskHeals { node });
        self.say(format!("disk of node {}: {}", node + 1, fault.name()));
        true
    }

    /// Damage stays on a minority: more is more than any number of copies survives. And it comes after every node has
    /// been admitted: one that never was cannot be told from one that has lost its disk, gives no vote to those that
    /// were, and so does not count while the damaged one is out.
    fn damage(&mut self, fault: Fault, node: usize) -> bool {
        let is_admitted = |machine: &Machine| match &machine.state {
            State::Up(process) => process.node.node().admission.is_admitted(),
            State::Down => false,
            State::Gone => true,
        };
        if !self.machines.iter().all(is_admitted) {
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
        } else if !self.damage_segment(fault, node) {
            return false;
        }
        // Damage shows when somebody reads it: at the next start.
        if fault != Fault::LostDisk && self.random.coin() {
            self.crash(node, false);
        }
        self.machines[node].damaged = true;
        self.oracle.discount(node, fault == Fault::LostDisk);
        self.say(format!("node {}: {}", node + 1, fault.name()));
        true
    }

    /// Only segments that later ones have sealed: what the last batch of a log loses when it also crashes cannot be
    /// told from what was never written.
    fn damage_segment(&mut self, fault: Fault, node: usize) -> bool {
        let machine = &self.machines[node];
        let disk = &machine.disks[self.random.below(machine.disks.len() as u64) as usize];
        let mut segments: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("segment")).collect();
        segments.sort();
        segments.pop();
        if segments.is_empty() {
            return false;
        }
        let name = self.random.pick(&segments).clone();
        let length = disk.bytes(&name).len() as u64;
        if fault == Fault::Rot {
            disk.flip(&name, self.random.below(length), self.random.below(8) as u8);
        } else {
            disk.truncate_quietly(&name, self.random.below(length));
        }
        true
    }

    fn give_up(&mut self) -> bool {
        let index = self.random.below(self.users.len() as u64) as usize;
        let clock = self.clock();
        let user = &mut self.users[index];
        let forgotten = user.give_up(&self.plan, &self.net, clock, &mut self.random);
        self.forget(forgotten);
        true
    }
}
