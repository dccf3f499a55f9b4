//! A cluster, its clients, its network and its disks, in one thread: takes what is to happen from the agenda, one event
//! after the other, and lets the oracle look after each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use raftkv::error::Fatal;
use raftkv::server::by_hand::Progress;
use raftkv_protocol::types::CoreId;
use tempfile::TempDir;

use crate::agenda::{Event, HostId, LoopId, MICROSECOND, MILLISECOND, SECOND, Work};
use crate::batches::{BatchPlan, next_batch};
use crate::coverage::Coverage;
use crate::demand::Demand;
use crate::leases::LeasePlan;
use crate::machine::{Machine, State};
use crate::memory::MemoryPlan;
use crate::network::{Net, SharedNet, Told, node_address};
use crate::oracle::{Oracle, Violation};
use crate::plan::Plan;
use crate::random::Random;
use crate::slow_apply::ApplyPlan;
use crate::trace::Trace;
use crate::transcript::{Ticket, Transcript, Witness};
use crate::user::{Answer, Answered, Question, User, What, next_question};
use crate::verdict::{self, SEARCH_STEPS_MAX};

/// What is drawn for leases is drawn by itself.
const LEASES: u64 = 0x1ea5_e000_0000_0000;

/// And so are their clocks.
const DRIFTS: u64 = 0xd21f_7000_0000_0000;

/// And so is what is drawn for batches.
const BATCHES: u64 = 0xba7c_4000_0000_0000;

/// And so is what is drawn for slow replicas.
const SLOW_APPLY: u64 = 0xa991_7000_0000_0000;

/// And so is what is drawn for memory.
const MEMORY: u64 = 0x3e30_4100_0000_0000;

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
    batch_random: Random,
    pub(crate) apply_random: Random,
    pub(crate) memory_random: Random,
    /// What the clients asked and were told.
    pub transcript: Transcript,
    /// Snapshots that clients have asked for.
    pub(crate) demands: BTreeMap<u64, Demand>,
    unique: u64,
    /// Faults go on.
    pub(crate) faulty: bool,
    /// Somebody is to stay cut off until then.
    pub(crate) away_until: u64,
    /// Clients ask.
    asking: bool,
    /// They ask for the next page of what they scan.
    pub(crate) scanning: bool,
    epoch: Instant,
    /// Events that happened.
    pub events: u64,
    /// Of those, how many did something while the faults went on and clients asked. A turn that was scheduled for another
    /// time since, or at which a node stands still, a client that waits for as much as it may, and work that a disk that
    /// hangs does not do are none; nor is what the network tries in vain.
    pub events_under_faults: u64,
    pub(crate) dir: TempDir,
}

impl World {
    /// The beginning of a run: every node is about to start.
    ///
    /// # Errors
    /// If there is no directory to be had for what nodes keep besides their logs.
    pub fn new(seed: u64, whole_trace: bool) -> std::io::Result<World> {
        let mut random = Random::new(seed);
        let mut plan = Plan::draw(&mut random);
        let mut lease_random = Random::new(seed ^ LEASES);
        plan.leases = LeasePlan::draw(&mut lease_random, plan.election_timeout);
        plan.drift_max = plan.leases.as_ref().and_then(|leases| leases.drift_max).unwrap_or(plan.drift_max);
        let mut drift_random = Random::new(seed ^ DRIFTS);
        let mut batch_random = Random::new(seed ^ BATCHES);
        plan.batches = BatchPlan::draw(&mut batch_random);
        let mut apply_random = Random::new(seed ^ SLOW_APPLY);
        plan.slow_apply = ApplyPlan::draw(plan.nodes, &mut apply_random);
        let mut memory_random = Random::new(seed ^ MEMORY);
        plan.memory = MemoryPlan::draw(plan.nodes, plan.segment_size, &mut memory_random);
        plan.core_log_bytes_max =
            plan.memory.as_ref().map_or(plan.core_log_bytes_max, |memory| memory.core_log_bytes_max);
        let mut net = Net::new(plan.net.clone(), random.fork());
        let dir = tempfile::Builder::new().prefix("raftkv-sim-").tempdir_in(memory_dir())?;
        let epoch = Instant::now();
        let (mut machines, mut owners, mut users) = (Vec::new(), Vec::new(), Vec::new());
        let hosts: Vec<HostId> = (0..plan.nodes).map(|_| net.add_host(true)).collect();
        for (index, host) in hosts.into_iter().enumerate() {
            let loops: Vec<LoopId> = (0..plan.cores).map(|_| net.add_loop(host)).collect();
            owners.extend((0..usize::from(plan.cores)).map(|core| Owner::Core { machine: index, core }));
            machines.push(Machine::new(index, &plan, loops, dir.path(), epoch, &mut random));
            machines[index].lease_random = lease_random.fork();
            machines[index].drift_random = drift_random.fork();
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
            oracle: Oracle::new(plan.nodes, plan.shards, plan.drift_max),
            coverage: Coverage::default(),
            trace: Trace::new(whole_trace),
            net,
            machines,
            users,
            owners,
            random,
            batch_random,
            apply_random,
            memory_random,
            transcript: Transcript::default(),
            demands: BTreeMap::new(),
            unique: 0,
            faulty: true,
            away_until: 0,
            asking: true,
            scanning: true,
            epoch,
            events: 0,
            events_under_faults: 0,
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
        let calm = self.now() + self.plan.patience() + self.fetch_time() + self.write_time();
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
        let calm = self.now() + self.plan.patience() + self.fetch_time() + self.write_time();
        self.run_until_converged(calm)?;
        self.count_what_happened();
        verdict::judge(&mut self.transcript, &self.oracle, SEARCH_STEPS_MAX, &mut self.coverage)
    }

    fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        while self.now() < end {
            self.step()?;
        }
        Ok(())
    }

    /// One event.
    pub(crate) fn step(&mut self) -> Result<(), Violation> {
        let event = self.net.0.borrow_mut().agenda.take_next();
        let Some(event) = event else {
            return Err(Violation::of("something is always going to happen", "nothing is"));
        };
        self.events += 1;
        let is_under_faults = self.faulty;
        let did_something = match event {
            Event::Turn(owner) => self.turn(owner)?,
            Event::Net(event) => self.net.0.borrow_mut().happen(event),
            Event::Disk { node, core, boot, work } => self.disk(node, core, boot, work)?,
            Event::Nemesis => self.nemesis(),
            Event::Path { from, to, cut } => self.net.0.borrow_mut().set_cut(from, to, cut && self.faulty),
            Event::HandOver { to } => self.hand_over(None, to),
            Event::Start { node } => self.start(node)?,
            Event::Resume { node } => self.resume(node),
            Event::DiskHeals { node } => self.heal_disk(node),
            Event::Ask { client } => self.ask(client),
        };
        self.events_under_faults += u64::from(is_under_faults && did_something);
        self.trace.add_logged(self.net.0.borrow().agenda.now(), || match event {
            Event::Turn(owner) => match self.owners[owner.0] {
                Owner::Core { machine, core } => format!("node {} core {core}", machine + 1),
                Owner::User(user) => format!("client {user}"),
            },
            Event::Disk { node, core, .. } => format!("node {} core {core}", node + 1),
            _ => "elsewhere".to_owned(),
        });
        Ok(())
    }

    /// Whether it was taken.
    fn turn(&mut self, owner: LoopId) -> Result<bool, Violation> {
        if !self.net.0.borrow_mut().begin_turn(owner) {
            return Ok(false);
        }
        let whose = self.owners[owner.0];
        match whose {
            Owner::Core { machine, core } if self.can_turn(owner, machine, core) => {
                self.turn_core(owner, machine, core)?;
            }
            Owner::Core { .. } => return Ok(false),
            Owner::User(user) => self.turn_user(owner, user)?,
        }
        Ok(true)
    }

    /// Whether a core runs, and stands still for nothing.
    fn can_turn(&mut self, owner: LoopId, index: usize, core: usize) -> bool {
        let now = self.now();
        let machine = &mut self.machines[index];
        if machine.paused {
            return false;
        }
        if let Some(until) = machine.stands_until(core, now) {
            self.net.0.borrow_mut().wake_at(owner, until);
            return false;
        }
        machine.process().is_some_and(|process| process.node.wake_at(CoreId(core as u16)).is_some())
    }

    fn turn_core(&mut self, owner: LoopId, index: usize, core: usize) -> Result<(), Violation> {
        let (now, id) = (self.now(), CoreId(core as u16));
        let machine = &mut self.machines[index];
        let clock = machine.clock(now);
        let before = machine.before_turn(core, &self.plan, &mut self.random);
        self.allow_to_apply(index, core);
        self.doubt_memory(index, core);
        let machine = &mut self.machines[index];
        let since = machine.stood_since[core].take().map(|since| machine.clock(since));
        self.coverage.add("node stood still in the middle of a turn", u64::from(since.is_some()));
        let Some(process) = machine.process() else { return Ok(()) };
        let ready = self.net.0.borrow_mut().take_ready(owner);
        let turned = match since {
            Some(since) => process.node.turn_pausing(id, &[since, clock], &ready),
            None => process.node.turn(id, clock, &ready),
        };
        let has_died = machine.after_turn(core, before, &self.plan, now, &mut self.random);
        self.note_repairs(index, id)?;
        if matches!(turned, Ok(Progress::Ended)) {
            self.oracle.last_turn(index);
        }
        let has_voted = self.hear()?;
        let progress = match turned {
            Ok(progress) => progress,
            Err(fatal) => return self.node_failed(index, &fatal),
        };
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
        if progress == Progress::Ended {
            self.oracle.stopping(index);
            if has_died {
                self.crash_doomed(index);
                return Ok(());
            }
            return self.core_stopped(index, id);
        }
        self.check_leases_of(index, id)?;
        // A loop that is busy goes round again; even that takes some time.
        let stands_until = self.machines[index].stands_until(core, now).unwrap_or(0);
        self.coverage.add("log synced by its loop", u64::from(stands_until > 0));
        let when = self.machines[index].when(wake_at).max(now + 10 * MICROSECOND).max(stands_until);
        self.net.0.borrow_mut().wake_at(owner, when);
        self.wake_to_apply(owner, index, core);
        self.after_node(index);
        if has_died {
            self.coverage.note("loop died in the middle of a sync");
            self.crash_doomed(index);
        } else if has_voted {
            self.node_voted(index);
        }
        Ok(())
    }

    /// What a node has told others in its turn binds it from now on. Whether it has voted.
    fn hear(&mut self) -> Result<bool, Violation> {
        let told = std::mem::take(&mut self.net.0.borrow_mut().told);
        let mut has_voted = false;
        let now = self.now();
        for told in &told {
            if let Told::Raft(message) = told {
                self.oracle.leases.told(message, now)?;
            }
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

    /// Whether it was done.
    fn disk(&mut self, index: usize, core: usize, boot: u64, work: Work) -> Result<bool, Violation> {
        let machine = &mut self.machines[index];
        if machine.boot != boot || !machine.is_up() {
            return Ok(false);
        }
        if machine.hung || machine.paused {
            let event = Event::Disk { node: index, core, boot, work };
            self.net.0.borrow_mut().agenda.after(20 * MILLISECOND, event);
            return Ok(false);
        }
        if work == Work::Sync && machine.is_doomed.is_some() {
            self.crash_doomed(index);
            return Ok(true);
        }
        machine.work(core, work);
        if work == Work::Snapshot {
            self.look_at_snapshots(index, Some(CoreId(core as u16)))?;
        }
        let now = self.now();
        self.trace.digest(&[now, index as u64, core as u64, work as u64]);
        self.after_node(index);
        Ok(true)
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
        if let (Ticket::Snapshots(number), Answer::Snapshots(snapshots)) = (ticket, &answer) {
            self.judge_demand(number, snapshots.as_deref())?;
        }
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
            if let Ticket::Snapshots(number) = ticket {
                self.demands.remove(&number);
            }
            self.transcript.forget(ticket, &mut self.coverage);
        }
    }

    /// Whether it has asked something.
    fn ask(&mut self, index: usize) -> bool {
        let now = self.now();
        let may_ask = self.asking && self.users[index].waiting() < self.plan.inflight;
        if self.asking {
            let pause = self.random.below(self.plan.think_max);
            self.net.0.borrow_mut().agenda.after(pause, Event::Ask { client: index });
            if may_ask {
                self.unique += 1;
                let seen = self.transcript.last_version;
                let percent = self.plan.batches.as_ref().map_or(0, |batches| batches.percent);
                let question = if percent > 0 && self.batch_random.below(100) < percent {
                    next_batch(&self.plan, now, self.unique, seen, &mut self.batch_random)
                } else {
                    next_question(&self.plan, now, self.unique, seen, &mut self.random)
                };
                self.put_question(index, &question);
            }
        }
        may_ask
    }

    pub(crate) fn put_question(&mut self, index: usize, question: &Question) -> Ticket {
        let clock = self.clock();
        let user = &mut self.users[index];
        let ticket = self.transcript.asks(question, index, user.name(), &self.oracle);
        if let (Ticket::Snapshots(number), What::Snapshots(node)) = (ticket, &question.what) {
            self.demands.insert(number, Demand::of(&self.machines[*node]));
        }
        user.ask(ticket, question, clock);
        self.net.0.borrow_mut().wake(user.own);
        ticket
    }

    /// Whether it was down.
    fn start(&mut self, index: usize) -> Result<bool, Violation> {
        let now = self.now();
        if !matches!(self.machines[index].state, State::Down) {
            return Ok(false);
        }
        self.take_back_unproved(index);
        let machine = &mut self.machines[index];
        self.net.0.borrow_mut().power_returns(HostId(index));
        let loops = machine.loops.clone();
        match machine.start(&self.plan, &self.net, now, self.faulty, &mut self.random) {
            Ok(()) => {
                self.coverage.note("node started");
                self.coverage.add("node started bound by a promise", u64::from(machine.is_bound()));
                self.oracle.forget_snapshots(index);
                self.look_at_snapshots(index, None)?;
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
            }
            Err(fatal) => self.node_failed(index, &fatal)?,
        }
        Ok(true)
    }

    /// A core has ended in order; the last one ends the node.
    fn core_stopped(&mut self, index: usize, core: CoreId) -> Result<(), Violation> {
        let Some(process) = self.machines[index].process() else { return Ok(()) };
        if let Err(error) = process.node.end(core).close() {
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

    /// Whether it stood still.
    pub(crate) fn resume(&mut self, index: usize) -> bool {
        let machine = &mut self.machines[index];
        let was_paused = std::mem::take(&mut machine.paused);
        if was_paused {
            let mut net = self.net.0.borrow_mut();
            for owner in machine.loops.clone() {
                net.wake(owner);
            }
        }
        was_paused
    }

    /// Whether there was something to heal.
    pub(crate) fn heal_disk(&mut self, index: usize) -> bool {
        let machine = &mut self.machines[index];
        let was_ill = machine.hung || machine.slow > 0 || machine.has_full_disk();
        (machine.hung, machine.slow) = (false, 0);
        for disk in machine.disks.iter().chain(&machine.snapshot_disks) {
            disk.set_full(false);
        }
        self.after_node(index);
        was_ill
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
