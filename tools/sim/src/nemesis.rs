//! Whoever wants the cluster to fail: one act after the other, of the kinds that the plan has drawn.

use raftkv_protocol::types::{CoreId, ShardId};

use crate::agenda::{Event, HostId, MILLISECOND, SECOND};
use crate::damage::Harm;
use crate::machine::{Machine, State, node_id};
use crate::plan::Fault;
use crate::world::World;

impl World {
    /// One act, and when the next follows. Whether it came to anything.
    pub(crate) fn nemesis(&mut self) -> bool {
        if !self.faulty {
            return false;
        }
        let pause = self.random.skewed(30 * MILLISECOND, self.plan.nemesis_pause_max);
        self.net.0.borrow_mut().agenda.after(pause, Event::Nemesis);
        if self.plan.faults.is_empty() {
            return false;
        }
        let cuts = self.net.0.borrow().cuts();
        if cuts > 0 && self.random.below(3) == 0 && self.away_until <= self.now() {
            self.say("all ways are mended".to_owned());
            self.net.0.borrow_mut().heal();
            return true;
        }
        let fault = *self.random.pick(&self.plan.faults.clone());
        let has_acted = self.act(fault);
        self.coverage.add(fault.name(), u64::from(has_acted));
        has_acted
    }

    pub(crate) fn say(&mut self, what: String) {
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
            Fault::Comeback => {
                let leader = self.any_leader();
                self.come_back(leader)
            }
            Fault::Reset => self.reset_connections(node),
            Fault::HandOver => {
                let heir = self.any_node();
                self.hand_over(Some(node), heir)
            }
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
            Fault::SnapshotError => self.snapshot_error(node),
            Fault::SnapshotRot => self.damage_snapshot(node),
            Fault::Rot | Fault::ShortSegment => self.damage(fault, node),
            Fault::LostDisk => {
                let (one, other) = self.plan.strangers.unwrap_or((node, node));
                let node = if self.random.coin() { one } else { other };
                self.damage(fault, node)
            }
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

    /// A node is cut off with others, just too few to go on together. It is back before them, and what the others lead
    /// meanwhile is soon handed to it: whatever it knew of the logs of those who stayed away is of another age.
    fn come_back(&mut self, node: usize) -> bool {
        let nodes = self.plan.nodes;
        if nodes == 1 {
            return false;
        }
        let first = (node + 1 + self.random.below(nodes as u64 - 1) as usize) % nodes;
        let others = (0..nodes).map(|at| (first + at) % nodes).filter(|other| *other != node);
        let companions: Vec<usize> = others.take((nodes - 1) / 2 - 1).collect();
        let is_away = |of: usize| of == node || companions.contains(&of);
        let election = self.plan.election_timeout.as_nanos() as u64;
        let back = self.random.between(election, 3 * election);
        let mut net = self.net.0.borrow_mut();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if is_away(from) != is_away(to) {
                let stays_longer = if from == node || to == node { 0 } else { self.random.below(2 * election) };
                let (from, to) = (HostId(from), HostId(to));
                net.set_cut(from, to, true);
                net.agenda.after(back + stays_longer, Event::Path { from, to, cut: false });
            }
        }
        net.agenda.after(back + self.random.skewed(MILLISECOND, election), Event::HandOver { to: node });
        drop(net);
        self.away_until = self.now() + back;
        let companions: Vec<usize> = companions.iter().map(|of| of + 1).collect();
        let back = back / MILLISECOND;
        self.say(format!("node {} is cut off with {companions:?}, back in {back} ms, then to lead", node + 1));
        true
    }

    /// Whatever is led by one node, or by any, it is told to hand to another, as the rule of placement does in its time.
    pub(crate) fn hand_over(&mut self, by: Option<usize>, heir: usize) -> bool {
        if !self.faulty || self.machines[heir].harm == Harm::Lost {
            return false;
        }
        let mut led = 0;
        for machine in self.machines.iter_mut().filter(|machine| by.is_none_or(|by| by == machine.index)) {
            let cores = 0..self.plan.cores;
            let Some(process) = machine.process() else { continue };
            for core in cores.map(CoreId) {
                let shards = process.node.router_mut(core).into_iter().flat_map(|router| router.shards_mut());
                for shard in shards.filter(|shard| shard.leads()) {
                    led += usize::from(shard.raft_mut().transfer(node_id(heir)).is_ok());
                }
            }
        }
        self.say(format!("{led} shards are to be handed to node {}", heir + 1));
        led > 0
    }

    fn reset_connections(&mut self, node: usize) -> bool {
        let reset = self.net.0.borrow_mut().reset(HostId(node));
        self.say(format!("{reset} connections of node {} are reset", node + 1));
        reset > 0
    }

    pub(crate) fn crash(&mut self, node: usize, power_fails: bool) -> bool {
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
        let machine = &self.machines[node];
        for disk in machine.disks.iter().chain(&machine.snapshot_disks).filter(|_| power_fails) {
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
        self.pause_with_lease(node, pause);
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
            Fault::FullDisk => {
                machine.disks[disk].set_full(true);
                let cores = machine.disks.len();
                // The snapshots of the core's shards lie on the same disk.
                machine.snapshot_disks.iter().skip(disk).step_by(cores).for_each(|disk| disk.set_full(true));
            }
            _ => machine.disks[disk].fail_sync(self.random.below(20)),
        }
        self.net.0.borrow_mut().agenda.after(lasts, Event::DiskHeals { node });
        self.say(format!("disk of node {}: {}", node + 1, fault.name()));
        true
    }

    /// Whatever is done next but once or so with a snapshot fails. If it is a sync the node ends; otherwise it goes on, and tries
    /// again later.
    fn snapshot_error(&mut self, node: usize) -> bool {
        let machine = &self.machines[node];
        if !machine.is_up() {
            return false;
        }
        let disk = self.random.below(machine.snapshot_disks.len() as u64) as usize;
        machine.snapshot_disks[disk].fail_at(self.random.below(8));
        true
    }

    /// Only of a snapshot without which the node can do: there is an older one that its log goes on from, and the worker rests.
    /// On a full disk it writes over the older one when it has seen that the newest is whole.
    fn damage_snapshot(&mut self, node: usize) -> bool {
        let machine = &self.machines[node];
        let State::Up(process) = &machine.state else { return false };
        let shard = ShardId(self.random.below(u64::from(self.plan.shards)) as u16);
        let router = process.node.router(CoreId(shard.0 % self.plan.cores));
        let replica = router.and_then(|router| router.shards().iter().find(|found| found.id() == shard));
        let disk = &machine.snapshot_disks[usize::from(shard.0)];
        let mut names: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("snapshot-")).collect();
        names.sort();
        let is_resting = process.node.snapshots(CoreId(shard.0 % self.plan.cores)).next_effort().is_none();
        let (Some(replica), [older, newest], true) = (replica, &names[..], is_resting) else { return false };
        let index = older.get(9..25).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
        if machine.snapshot_damaged || machine.harm != Harm::None || replica.raft().start().index.0 > index {
            return false;
        }
        let length = disk.bytes(newest).len() as u64;
        disk.flip(newest, self.random.below(length), self.random.below(8) as u8);
        self.machines[node].snapshot_damaged = true;
        if self.random.coin() {
            let power_fails = self.random.coin();
            self.crash(node, power_fails);
        }
        self.say(format!("node {}: a bit of the newest snapshot of shard {shard} flips", node + 1));
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

    /// The end of all faults.
    pub(crate) fn make_peace(&mut self) {
        let now = self.now();
        self.trace.say(now, "peace".to_owned());
        self.restart_doubtful();
        self.faulty = false;
        self.net.0.borrow_mut().frame_faults = false;
        self.net.0.borrow_mut().heal();
        self.net.0.borrow_mut().unbar(None);
        for index in 0..self.machines.len() {
            self.heal_disk(index);
            self.machines[index].forgive();
            self.resume(index);
            if matches!(self.machines[index].state, State::Down) {
                self.net.0.borrow_mut().agenda.after(10 * MILLISECOND, Event::Start { node: index });
            }
        }
    }
}
