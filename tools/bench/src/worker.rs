//! One thread of the load: an event loop over its share of the connections.
//!
//! A turn reads what is ready, answers every reply with a new request (closed loop) and writes once per connection.
//! Beside that it keeps the connections where the leaders are: it asks for the slot table once a second, and at once
//! when an answer says that a leader has moved.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use mio::{Events, Poll, Token};
use raftkv_protocol::client::SlotTable;
use raftkv_protocol::types::NodeId;

use crate::alarm::Alarm;
use crate::blocking::resolve;
use crate::conn::{Conn, News, Phase, Tools};
use crate::link::READ_BUFFER_LEN;
use crate::operations::Operations;
use crate::run::Run;
use crate::schedule::{Arrivals, Calendar, Schedule};
use crate::tally::Fault;
use crate::topology::{Target, Topology, reassign};

/// How often the counts are posted, requests given up and the slot table fetched.
const TICK_NS: u64 = 1_000_000_000;
/// How long to wait for news at least before asking for the slot table again.
const TABLE_PAUSE_NS: u64 = 20_000_000;
/// Keeps an idle thread responsive to the user.
const POLL_MAX_NS: u64 = 100_000_000;

/// A thread's state.
#[derive(Debug)]
pub struct Worker<'a> {
    run: &'a Run,
    window_end: u64,
    topology: Topology,
    key_sets: KeySets,
    conns: Vec<Conn>,
    tools: Tools<'a>,
    poll: Poll,
    alarm: Option<(Calendar, Alarm)>,
    /// When which connection has to be looked at without an event: to dial again, or after a pause.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    tick_at: u64,
    table_at: u64,
    /// The connection that asks for the next slot table.
    table_by: usize,
}

impl<'a> Worker<'a> {
    /// Thread `number` of the run.
    pub fn new(run: &'a Run, number: usize, topology: Topology) -> io::Result<Worker<'a>> {
        let poll = Poll::new()?;
        let own = (number..run.conns).step_by(run.threads);
        let schedule = |conn: usize| match run.rate {
            None => Schedule::Closed,
            Some(rate) => Schedule::Open(Arrivals::new(rate, conn as u64, run.conns as u64)),
        };
        // Every thread takes its share of one plan for all, so that the whole is spread evenly.
        let plan = plan(run, &topology, run.conns)?;
        let conns: Vec<Conn> = own.map(|conn| Conn::new(plan[conn], run.inflight, schedule(conn))).collect();
        let alarm = match run.rate {
            None => None,
            Some(rate) => {
                let calendar = Calendar::new(rate, run.conns as u64, run.threads as u64, number as u64);
                Some((calendar, Alarm::new(poll.registry(), Token(conns.len()))?))
            }
        };
        Ok(Worker {
            run,
            window_end: run.meter.window().end,
            key_sets: KeySets::new(run, &topology),
            topology,
            timers: (0..conns.len()).map(|conn| Reverse((0, conn))).collect(),
            conns,
            tools: Tools {
                operations: Operations::new(run.mix.clone(), run.seed.wrapping_add(number as u64)),
                recorder: run.meter.recorder(number),
                buffer: vec![0; READ_BUFFER_LEN],
            },
            poll,
            alarm,
            tick_at: TICK_NS,
            table_at: TICK_NS,
            table_by: 0,
        })
    }

    /// Generates load until the run is over.
    pub fn work(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.wait(&mut events)?;
            for event in &events {
                let Token(conn) = event.token();
                if conn < self.conns.len() {
                    self.on_ready(conn, event.is_readable() || event.is_read_closed() || event.is_error());
                }
            }
            let now = self.run.meter.now();
            self.on_timers(now);
            self.on_arrivals(now);
            if now >= self.tick_at {
                self.on_tick(now);
            }
            if now >= self.table_at {
                self.ask_for_table(now);
            }
            if self.is_over(now) {
                break;
            }
        }
        self.give_up_the_rest();
        self.tools.recorder.post();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let now = self.run.meter.now();
        let mut until = self.tick_at.min(self.table_at).min(now + POLL_MAX_NS);
        if now < self.window_end {
            until = until.min(self.window_end);
        }
        if let Some(&Reverse((at, _))) = self.timers.peek() {
            until = until.min(at);
        }
        if let Some((calendar, alarm)) = &mut self.alarm {
            alarm.set(calendar.due(), now)?;
        }
        match self.poll.poll(events, Some(Duration::from_nanos(until.saturating_sub(now)))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn on_ready(&mut self, number: usize, readable: bool) {
        let now = self.run.meter.now();
        match self.conns[number].on_ready(readable, &mut self.tools, now) {
            Ok(news) => {
                self.on_news(number, news, now);
                self.pump(number, now);
            }
            Err(error) => self.on_broken(number, &error, now),
        }
    }

    fn on_news(&mut self, number: usize, news: News, now: u64) {
        if news.welcomed {
            let conn = &mut self.conns[number];
            conn.keys = self.key_sets.of(conn.target, conn.cores).unwrap_or_else(|| Rc::clone(&conn.keys));
        }
        if news.moved {
            self.table_at = self.table_at.min(now + TABLE_PAUSE_NS);
        }
        if let Some(table) = news.table {
            self.on_table(table, now);
        }
        if let Some(at) = self.conns[number].pause(now) {
            self.timers.push(Reverse((at, number)));
        }
    }

    /// Sends what is due on a connection, with one write.
    fn pump(&mut self, number: usize, now: u64) {
        let conn = &mut self.conns[number];
        conn.fill(&mut self.tools.operations, now, self.window_end);
        if let Err(error) = conn.flush() {
            self.on_broken(number, &error, now);
        } else if conn.phase == Phase::Leaving && conn.waiting() == 0 {
            conn.close(&mut self.tools.recorder, now);
            self.timers.push(Reverse((now, number)));
        }
    }

    /// Drops a connection and tries again soon, at the next node: that one will tell where the leaders are now, and
    /// forwards what it is asked until then.
    fn on_broken(&mut self, number: usize, error: &io::Error, now: u64) {
        let conn = &mut self.conns[number];
        let fault = match error.kind() {
            io::ErrorKind::InvalidData => Fault::Garbled,
            _ if conn.phase == Phase::Ready || conn.phase == Phase::Leaving => Fault::Disconnected,
            _ => Fault::ConnectFailed,
        };
        self.tools.recorder.failed(fault, now, now, 1);
        let wait = conn.close(&mut self.tools.recorder, now);
        if let Some(node) = self.topology.node_after(conn.target.node) {
            conn.target.node = node;
        }
        let jitter = (number as u64 * 7_919) % (wait / 2 + 1);
        self.timers.push(Reverse((now + wait + jitter, number)));
        self.table_at = self.table_at.min(now + TABLE_PAUSE_NS);
    }

    fn on_timers(&mut self, now: u64) {
        while let Some(&Reverse((at, number))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if self.conns[number].phase == Phase::Down {
                self.dial(number, now);
            } else {
                self.pump(number, now);
            }
        }
    }

    fn dial(&mut self, number: usize, now: u64) {
        let conn = &mut self.conns[number];
        let address = self.topology.address(conn.target.node).ok_or_else(|| io::Error::other("an unknown node"));
        let dialled =
            address.and_then(resolve).and_then(|address| conn.dial(address, self.poll.registry(), Token(number)));
        if let Err(error) = dialled {
            self.on_broken(number, &error, now);
        }
    }

    fn on_arrivals(&mut self, now: u64) {
        let Some((mut calendar, alarm)) = self.alarm.take() else { return };
        while let Some(number) = calendar.pop(now) {
            self.pump(number, now);
        }
        self.alarm = Some((calendar, alarm));
    }

    fn on_tick(&mut self, now: u64) {
        self.tick_at = now + TICK_NS;
        let deadline = now.saturating_sub(self.run.timeout_ns);
        for number in 0..self.conns.len() {
            self.conns[number].expire(deadline, &mut self.tools.recorder, now);
            self.pump(number, now);
        }
        self.tools.recorder.post();
    }

    /// Has the next usable connection ask for the slot table: each time another one, for a node may be mute.
    fn ask_for_table(&mut self, now: u64) {
        self.table_at = now + TICK_NS;
        let count = self.conns.len();
        let candidates = (1..=count).map(|step| (self.table_by + step) % count);
        let usable = |&number: &usize| matches!(self.conns[number].phase, Phase::Ready | Phase::Leaving);
        if let Some(number) = candidates.into_iter().find(usable) {
            self.table_by = number;
            self.conns[number].ask_for_table();
            self.pump(number, now);
        }
    }

    /// Moves connections and key sets to where the leaders are now.
    fn on_table(&mut self, table: SlotTable, now: u64) {
        if self.topology.merge(table) {
            self.key_sets = KeySets::new(self.run, &self.topology);
        }
        let Ok(planned) = plan(self.run, &self.topology, self.conns.len()) else { return };
        let current: Vec<Target> = self.conns.iter().map(|conn| conn.target).collect();
        for (number, target) in reassign(&current, &planned).into_iter().enumerate() {
            let conn = &mut self.conns[number];
            let moves = conn.target.node != target.node || (conn.cores > 1 && conn.target.home != target.home);
            conn.target = target;
            if !moves {
                conn.keys = self.key_sets.of(target, conn.cores).unwrap_or_else(|| Rc::clone(&conn.keys));
                continue;
            }
            match conn.phase {
                Phase::Down | Phase::Leaving => continue,
                Phase::Ready => conn.phase = Phase::Leaving,
                Phase::Connecting | Phase::Greeting => drop(conn.close(&mut self.tools.recorder, now)),
            }
            self.timers.push(Reverse((now, number)));
        }
    }

    /// A closed loop ends with its window. An open one waits for what was due in it, but not for ever.
    fn is_over(&self, now: u64) -> bool {
        let end = self.window_end;
        if self.run.meter.stopped() {
            return true;
        }
        if self.run.rate.is_none() || now < end {
            return now >= end;
        }
        now >= end + self.run.timeout_ns || self.conns.iter().all(|conn| conn.waiting() == 0 && conn.unsent(end) == 0)
    }

    /// In an open loop, what was due and has no answer by now has failed.
    fn give_up_the_rest(&mut self) {
        if self.run.rate.is_none() {
            return;
        }
        let now = self.run.meter.now();
        let until = now.min(self.window_end);
        for conn in &mut self.conns {
            conn.expire(u64::MAX, &mut self.tools.recorder, now);
            let unsent = conn.unsent(until);
            self.tools.recorder.failed(Fault::NoReply, until.saturating_sub(1), now, unsent);
        }
    }
}

/// The keys to draw from.
#[derive(Debug)]
struct KeySets {
    by_shard: Vec<Rc<[u32]>>,
    by_node: BTreeMap<NodeId, Rc<[u32]>>,
}

impl KeySets {
    fn new(run: &Run, topology: &Topology) -> KeySets {
        let of_node = |node| topology.led_by(node).flat_map(|shard| &run.key_sets[usize::from(shard.0)]).copied();
        KeySets {
            by_shard: run.key_sets.iter().map(|keys| Rc::from(keys.as_slice())).collect(),
            by_node: topology.nodes().map(|(node, _)| (node, of_node(node).collect())).collect(),
        }
    }

    /// Those of all shards that the node leads if it has one core, and else those of the home shard, whose core the
    /// connection is on. `None` if the node leads nothing.
    fn of(&self, target: Target, cores: u16) -> Option<Rc<[u32]>> {
        let set =
            if cores > 1 { &self.by_shard[usize::from(target.home.0)] } else { self.by_node.get(&target.node)? };
        (!set.is_empty()).then(|| Rc::clone(set))
    }
}

fn plan(run: &Run, topology: &Topology, conns: usize) -> io::Result<Vec<Target>> {
    let plan = topology.plan(conns, |shard| !run.key_sets[usize::from(shard.0)].is_empty());
    if plan.is_empty() { Err(io::Error::other("no shard with keys has a leader")) } else { Ok(plan) }
}
