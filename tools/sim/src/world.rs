//! A cluster, its clients, its network and its disks, in one thread: takes what is to happen from the agenda, one event
//! after the other, and lets the oracle look after each.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use raftkv::error::Fatal;
use raftkv::server::by_hand::Progress;
use raftkv::storage::FileLog;
use raftkv::storage::simulated_disk::SimulatedDisk;
use raftkv_history::{Kind, Outcome};
use raftkv_protocol::types::{CoreId, ShardId};
use tempfile::TempDir;

use crate::agenda::{Event, HostId, LoopId, MICROSECOND, MILLISECOND, SECOND, Work};
use crate::coverage::Coverage;
use crate::damage::Harm;
use crate::machine::{Machine, State};
use crate::network::{Net, SharedNet, node_address};
use crate::oracle::{Oracle, Violation};
use crate::plan::Plan;
use crate::random::Random;
use crate::scan::{Scan, Wish};
use crate::trace::Trace;
use crate::transcript::{Ticket, Transcript, Witness};
use crate::user::{Answered, Question, User, What, next_question};
use crate::verdict::{self, Judged};

/// Who owns a loop.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Core { machine: usize, core: usize },
    User(usize),
}

/// See the module.
pub struct World {
    /// What was drawn.
    pub plan: Plan,
    pub(crate) net: SharedNet,
    pub(crate) machines: Vec<Machine>,
    pub(crate) users: Vec<User>,
    owners: Vec<Owner>,
    /// Judges.
    pub oracle: Oracle,
    /// What happened.
    pub coverage: Coverage,
    /// What happened, in order.
    pub trace: Trace,
    pub(crate) random: Random,
    /// What the clients asked and were told.
    pub transcript: Transcript,
    unique: u64,
    /// Faults go on.
    pub(crate) faulty: bool,
    /// Somebody is to stay cut off until then.
    pub(crate) away_until: u64,
    /// Clients ask.
    asking: bool,
    /// They ask for the next page of what they scan.
    scanning: bool,
    epoch: Instant,
    /// Events that happened.
    pub events: u64,
    dir: TempDir,
}

impl World {
    /// The beginning of a run: every node is about to start.
    ///
    /// # Errors
    /// If there is no directory to be had for what nodes keep besides their logs.
    pub fn new(seed: u64, whole_trace: bool) -> std::io::Result<World> {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let mut net = Net::new(plan.net.clone(), random.fork());
        let dir = tempfile::Builder::new().prefix("raftkv-sim-").tempdir_in(memory_dir())?;
        let epoch = Instant::now();
        let (mut machines, mut owners, mut users) = (Vec::new(), Vec::new(), Vec::new());
        let hosts: Vec<HostId> = (0..plan.nodes).map(|_| net.add_host(true)).collect();
        for (index, host) in hosts.into_iter().enumerate() {
            let loops: Vec<LoopId> = (0..plan.cores).map(|_| net.add_loop(host)).collect();
            owners.extend((0..usize::from(plan.cores)).map(|core| Owner::Core { machine: index, core }));
            machines.push(Machine::new(index, &plan, loops, dir.path(), epoch, &mut random));
            net.agenda.at(random.below(50 * MILLISECOND), Event::Start { node: index });
        }
        let places: Vec<LoopId> = (0..plan.clients)
            .map(|_| {
                let host = net.add_host(false);
                net.add_loop(host)
            })
            .collect();
        plan.bar(&mut net);
        let net = SharedNet(Rc::new(RefCell::new(net)));
        for (index, place) in places.into_iter().enumerate() {
            owners.push(Owner::User(index));
            users.push(User::new(index, &plan, &net, place, epoch, &mut random));
            net.0.borrow_mut().agenda.at(random.below(SECOND), Event::Ask { client: index });
        }
        net.0.borrow_mut().agenda.at(random.between(200, 1_500) * MILLISECOND, Event::Nemesis);
        Ok(World {
            oracle: Oracle::new(plan.nodes, plan.shards),
            coverage: Coverage::default(),
            trace: Trace::new(whole_trace),
            net,
            machines,
            users,
            owners,
            random,
            transcript: Transcript::default(),
            unique: 0,
            faulty: true,
            away_until: 0,
            asking: true,
            scanning: true,
            epoch,
            events: 0,
            dir,
            plan,
        })
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.net.0.borrow().agenda.now()
    }

    /// What the clients' clocks show.
    pub(crate) fn clock(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.now())
    }

    /// The whole run: faults, then peace, in which everything must come right again.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&mut self) -> Result<(), Violation> {
        self.trace.say(0, format!("{}", self.plan));
        self.net.0.borrow_mut().frame_faults = self.plan.frame_faults;
        self.run_until(self.plan.duration)?;
        self.make_peace();
        self.run_until_all_are_up()?;
        // A lone node whose log is damaged says so, and answers nothing any more.
        let is_over = self.machines.iter().all(|machine| matches!(machine.state, State::Gone));
        let calm = self.now() + self.plan.patience() + self.fetch_time();
        self.run_until(self.now() + SECOND)?;
        (self.asking, self.scanning) = (false, false);
        self.run_until_converged(calm)?;
        let end = self.now() + 10 * SECOND;
        while self.users.iter().any(|user| user.waiting() > 0) {
            if self.now() > end {
                return Err(Violation::of("every request is answered", "a client still waits 10 s after its deadline"));
            }
            self.step()?;
        }
        if !is_over {
            self.read_everything()?;
        }
        let calm = self.now() + self.plan.patience() + self.fetch_time();
        self.run_until_converged(calm)?;
        self.count_what_happened();
        if verdict::judge(&mut self.transcript, &self.oracle)? == Judged::WithoutOrders {
            self.coverage.note("history too hard to judge");
        }
        Ok(())
    }

    fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        while self.now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// A node that was told to stop does so first; then somebody starts it again.
    fn run_until_all_are_up(&mut self) -> Result<(), Violation> {
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

    fn run_until_converged(&mut self, end: u64) -> Result<(), Violation> {
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

    /// One event.
    fn step(&mut self) -> Result<(), Violation> {
        let event = self.net.0.borrow_mut().agenda.take_next();
        let Some(event) = event else {
            return Err(Violation::of("something is always going to happen", "nothing is"));
        };
        self.events += 1;
        match event {
            Event::Turn(owner) => self.turn(owner)?,
            Event::Net(event) => self.net.0.borrow_mut().happen(event),
            Event::Disk { node, core, boot, work } => self.disk(node, core, boot, work)?,
            Event::Nemesis => self.nemesis(),
            Event::Path { from, to, cut } => self.net.0.borrow_mut().set_cut(from, to, cut && self.faulty),
            Event::HandOver { to } => _ = self.hand_over(None, to),
            Event::Start { node } => self.start(node)?,
            Event::Resume { node } => self.resume(node),
            Event::DiskHeals { node } => self.heal_disk(node),
            Event::Ask { client } => self.ask(client),
        }
        Ok(())
    }

    fn turn(&mut self, owner: LoopId) -> Result<(), Violation> {
        if !self.net.0.borrow_mut().begin_turn(owner) {
            return Ok(());
        }
        match self.owners[owner.0] {
            Owner::Core { machine, core } => self.turn_core(owner, machine, core),
            Owner::User(user) => self.turn_user(owner, user),
        }
    }

    fn turn_core(&mut self, owner: LoopId, index: usize, core: usize) -> Result<(), Violation> {
        let now = self.now();
        let machine = &mut self.machines[index];
        if machine.paused {
            return Ok(());
        }
        let clock = machine.clock(now);
        let Some(process) = machine.process().filter(|process| process.node.wake_at(CoreId(core as u16)).is_some())
        else {
            return Ok(());
        };
        let ready = self.net.0.borrow_mut().take_ready(owner);
        let id = CoreId(core as u16);
        let turned = process.node.turn(id, clock, &ready);
        self.note_repairs(index, id)?;
        let has_voted = self.hear()?;
        match turned {
            Ok(Progress::GoesOn) => {}
            Ok(Progress::Ended(log)) => return self.core_stopped(index, *log),
            Err(fatal) => return self.node_failed(index, &fatal),
        }
        let Some(process) = self.machines[index].process() else { return Ok(()) };
        let (Some(wake_at), Some(router)) = (process.node.wake_at(id), process.node.router(id)) else { return Ok(()) };
        let mut digest = [now, index as u64, 0, 0, 0, 0];
        for shard in router.shards() {
            self.oracle.observe(index, shard, router.log(), &mut self.coverage)?;
            let raft = shard.raft();
            digest[2] = digest[2].wrapping_mul(31).wrapping_add(raft.term().0);
            digest[3] = digest[3].wrapping_mul(31).wrapping_add(raft.commit().0);
            digest[4] = digest[4].wrapping_mul(31).wrapping_add(raft.last().index.0);
            digest[5] = digest[5].wrapping_mul(31).wrapping_add(raft.persisted_index().0);
        }
        self.trace.digest(&digest);
        // A loop that is busy goes round again; even that takes some time.
        let when = self.machines[index].when(wake_at).max(now + 10 * MICROSECOND);
        self.net.0.borrow_mut().wake_at(owner, when);
        self.after_node(index);
        if has_voted {
            self.node_voted(index);
        }
        Ok(())
    }

    /// What a node has told others in its turn binds it from now on. Whether it has voted.
    fn hear(&mut self) -> Result<bool, Violation> {
        let told = std::mem::take(&mut self.net.0.borrow_mut().told);
        let mut has_voted = false;
        for told in &told {
            has_voted |= self.oracle.promises.told(told)?;
        }
        Ok(has_voted)
    }

    /// Whatever a node did may have woken its cores and given its disks work.
    fn after_node(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let mut net = self.net.0.borrow_mut();
        for owner in machine.take_woken() {
            net.wake(owner);
        }
        let boot = machine.boot;
        for (core, work, takes) in machine.begin_work(&self.plan, &mut self.random) {
            net.agenda.after(takes, Event::Disk { node: index, core, boot, work });
        }
    }

    fn disk(&mut self, index: usize, core: usize, boot: u64, work: Work) -> Result<(), Violation> {
        let machine = &mut self.machines[index];
        if machine.boot != boot || !machine.is_up() {
            return Ok(());
        }
        if machine.hung || machine.paused {
            let event = Event::Disk { node: index, core, boot, work };
            self.net.0.borrow_mut().agenda.after(20 * MILLISECOND, event);
            return Ok(());
        }
        if work == Work::Sync && machine.is_doomed.is_some() {
            self.crash_doomed(index);
            return Ok(());
        }
        machine.work(core, work);
        let now = self.now();
        self.trace.digest(&[now, index as u64, core as u64, work as u64]);
        self.after_node(index);
        Ok(())
    }

    fn turn_user(&mut self, owner: LoopId, index: usize) -> Result<(), Violation> {
        let now = self.now();
        let clock = self.clock();
        let ready = self.net.0.borrow_mut().take_ready(owner);
        for answered in self.users[index].turn(clock, &ready) {
            self.take_answer(answered)?;
        }
        let wake_at = self.users[index].wake_at().saturating_duration_since(self.epoch).as_nanos() as u64;
        self.net.0.borrow_mut().wake_at(owner, wake_at.max(now + 10 * MICROSECOND));
        Ok(())
    }

    fn take_answer(&mut self, Answered { ticket, answer }: Answered) -> Result<(), Violation> {
        let told = answer.digest();
        let witness = Witness { plan: &self.plan, oracle: &self.oracle, coverage: &mut self.coverage };
        let next = self.transcript.told(ticket, answer, witness)?;
        self.trace.digest(&[self.transcript.stamp(), told]);
        if let Some((user, question)) = next.filter(|_| self.scanning) {
            self.put_question(user, &question);
        }
        Ok(())
    }

    /// What a client that is gone has asked for.
    pub(crate) fn forget(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            self.transcript.forget(ticket, &mut self.coverage);
        }
    }

    fn ask(&mut self, index: usize) {
        let now = self.now();
        if self.asking {
            let pause = self.random.below(self.plan.think_max);
            self.net.0.borrow_mut().agenda.after(pause, Event::Ask { client: index });
            if self.users[index].waiting() < self.plan.inflight {
                self.unique += 1;
                let seen = self.transcript.last_version;
                let question = next_question(&self.plan, now, self.unique, seen, &mut self.random);
                self.put_question(index, &question);
            }
        }
    }

    fn put_question(&mut self, index: usize, question: &Question) -> Ticket {
        let clock = self.clock();
        let user = &mut self.users[index];
        let ticket = self.transcript.asks(question, index, user.name(), &self.oracle);
        user.ask(ticket, question, clock);
        self.net.0.borrow_mut().wake(user.own);
        ticket
    }

    fn start(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now();
        if !matches!(self.machines[index].state, State::Down) {
            return Ok(());
        }
        self.take_back_unproved(index);
        let machine = &mut self.machines[index];
        self.net.0.borrow_mut().power_returns(HostId(index));
        let loops = machine.loops.clone();
        match machine.start(&self.plan, &self.net, now, self.faulty, &mut self.random) {
            Ok(()) => {
                self.coverage.note("node started");
                self.note_start(index)?;
                self.note_recovery(index)?;
                let mut net = self.net.0.borrow_mut();
                net.listen(HostId(index), node_address(index), loops.clone());
                for owner in loops {
                    net.wake(owner);
                }
                drop(net);
                self.trace.say(now, format!("node {} starts", index + 1));
                self.after_node(index);
                Ok(())
            }
            Err(fatal) => self.node_failed(index, &fatal),
        }
    }

    fn note_recovery(&mut self, index: usize) -> Result<(), Violation> {
        let is_aside = |disk: &SimulatedDisk| disk.names().iter().any(|name| name.starts_with("damaged-"));
        if self.machines[index].snapshot_disks.iter().any(is_aside) {
            self.coverage.note("older snapshot took the place of a damaged one");
        }
        let has_flipped = self.machines[index].has_flipped;
        let Some(process) = self.machines[index].process() else { return Ok(()) };
        for core in 0..process.workers.len() {
            let Some(router) = process.node.router(CoreId(core as u16)) else { continue };
            let report = router.log().recovery();
            self.coverage.add("torn tail cut at recovery", u64::from(report.torn_bytes > 0));
            self.coverage.add("batches written again at recovery", report.batches_kept);
            self.coverage.add("flip that lost nothing told at recovery", report.blemishes);
            if report.blemishes > 0 && !has_flipped {
                let what = format!("node {}: {report:?}", index + 1);
                return Err(Violation::of("what a crash leaves is no blemish of the disk", what));
            }
        }
        Ok(())
    }

    /// The process has ended with an error: what its program would print.
    fn node_failed(&mut self, index: usize, fatal: &Fatal) -> Result<(), Violation> {
        let now = self.now();
        let words = fatal.to_string().replace(&*self.dir.path().to_string_lossy(), "DIR");
        self.trace.say(now, format!("node {} ends: {words}", index + 1));
        let machine = &mut self.machines[index];
        let (was_up, sync_failed) = (machine.is_up(), std::mem::take(&mut machine.sync_fails));
        let (was_cut_short, harm) = (std::mem::take(&mut machine.was_cut_short), machine.harm);
        self.net.0.borrow_mut().process_ends(HostId(index));
        machine.ended();
        self.oracle.ended(index);
        if was_cut_short {
            self.coverage.note("salvage cut short by a crash");
            let power_fails = self.random.coin();
            self.machines[index].crash(&self.plan, power_fails, &mut self.random);
        } else if harm == Harm::Lurking && !was_up && self.plan.nodes == 1 {
            self.coverage.note("damage refused at the start");
            self.machines[index].state = State::Gone;
            return Ok(());
        } else if sync_failed {
            self.coverage.note("node ended by a failed sync");
        } else if words.contains("space") || words.contains("full") {
            self.coverage.note("no room to start");
        } else if harm == Harm::Lurking && was_up {
            self.coverage.note("damage noticed while running");
        } else {
            return Err(Violation::of("a node ends for a reason", format!("node {}: {words}", index + 1)));
        }
        self.restart_later(index);
        Ok(())
    }

    /// A core has ended in order; the last one ends the node.
    fn core_stopped(&mut self, index: usize, log: FileLog) -> Result<(), Violation> {
        self.oracle.stopping(index);
        if let Err(error) = log.close() {
            return self.node_failed(index, &Fatal::failure(error.to_string()));
        }
        let cores = (0..self.plan.cores).map(CoreId);
        let process = self.machines[index].process();
        if process.is_some_and(|process| cores.into_iter().any(|core| process.node.router(core).is_some())) {
            return Ok(());
        }
        let now = self.now();
        self.trace.say(now, format!("node {} has stopped", index + 1));
        self.coverage.note("node stopped in order");
        self.net.0.borrow_mut().process_ends(HostId(index));
        self.machines[index].ended();
        self.oracle.ended(index);
        self.restart_later(index);
        Ok(())
    }

    /// Somebody will start the node again.
    pub(crate) fn restart_later(&mut self, index: usize) {
        let longest = if self.faulty { 4 * SECOND } else { 10 * MILLISECOND };
        let pause = self.random.skewed(5 * MILLISECOND, longest);
        self.net.0.borrow_mut().agenda.after(pause, Event::Start { node: index });
    }

    pub(crate) fn resume(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if std::mem::take(&mut machine.paused) {
            let mut net = self.net.0.borrow_mut();
            for owner in machine.loops.clone() {
                net.wake(owner);
            }
        }
    }

    pub(crate) fn heal_disk(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        (machine.hung, machine.slow) = (false, 0);
        for disk in machine.disks.iter().chain(&machine.snapshot_disks) {
            disk.set_full(false);
        }
        self.after_node(index);
    }

    /// How long a node may need to fetch the snapshots of all its shards at the rate that it keeps to, twice over: what it
    /// fetches may be out of date when it has come.
    fn fetch_time(&self) -> u64 {
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
    fn read_everything(&mut self) -> Result<(), Violation> {
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

    fn count_what_happened(&mut self) {
        let stats = self.net.0.borrow().stats;
        self.coverage.add("segment arrived", stats.segments);
        self.coverage.add("frame lost", stats.frames_lost);
        self.coverage.add("frame doubled", stats.frames_doubled);
        self.coverage.add("frame overtaken", stats.frames_late);
        self.coverage.add("connection reset", stats.resets);
        self.coverage.add("kernel gave up on a connection", stats.given_up);
        self.coverage.add("segment waited for a cut", stats.held);
        self.coverage.add("write blocked", stats.blocked);
        self.coverage.add("entry committed", self.oracle.committed());
        for index in 0..self.machines.len() {
            self.count_node(index);
        }
    }

    /// What a node has counted, before it ends.
    pub(crate) fn count_node(&mut self, index: usize) {
        let Some(process) = self.machines[index].process() else { return };
        for core in 0..process.workers.len() {
            let Some(router) = process.node.router(CoreId(core as u16)) else { continue };
            let counters = &router.counters;
            self.coverage.add("raft message received", counters.raft_messages_received);
            self.coverage.add("request forwarded", counters.forwards_sent);
            self.coverage.add("write refused for want of space", counters.refused_no_space);
            self.coverage.add("write refused as too much waits", counters.refused_overloaded);
            self.coverage.add("request timed out at a node", counters.timeouts);
            self.coverage.add("vote withheld from an admitted node", counters.votes_withheld);
            self.coverage.add("leader that is not to be followed", counters.leaders_unheeded);
            self.coverage.add("disk found to be full", counters.disk_full);
            self.coverage.add("shard left a slow or full disk", counters.transfers_away);
            self.coverage.add("replica found to differ", counters.divergences);
            self.coverage.add("loop turned", counters.turns);
            self.coverage.add("snapshot taken", counters.snapshots_taken);
            self.coverage.add("snapshot failed", counters.snapshots_failed);
            self.coverage.add("snapshot installed", counters.snapshots_installed);
            self.coverage.add("bytes of snapshots sent", counters.snapshot_bytes_sent);
        }
    }

    /// Where the run keeps what nodes have besides their logs; gone with it.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// Files in memory where there are such.
fn memory_dir() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
