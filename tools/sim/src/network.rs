//! A network in memory: connections are streams of bytes, as TCP's are, over paths that delay, break and lose.
//!
//! What TCP hides stays hidden: while a path is cut, bytes wait and arrive after it heals, in order, unless the sender's
//! kernel gives up first; a process that ends closes its connections, a machine that loses power says nothing until
//! it is up again and then resets them. On the links between nodes single frames may also be lost, doubled and
//! overtaken, which no TCP does: the protocol above promises to survive it. Forwarded requests are never doubled, as
//! nothing on the way could do that.

mod asked;
mod faults;
mod overheard;
#[cfg(test)]
mod overheard_test;
mod streams;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use mio::Token;
use raftkv::server::by_hand::LISTENER;
use raftkv::socket::Readiness;
use raftkv_protocol::types::RequestId;

use crate::agenda::{Agenda, Event, HostId, LoopId, MICROSECOND, SECOND};
use crate::random::Random;

pub use overheard::Told;

/// How long the kernel of a node keeps bytes that the other side does not acknowledge, as the server asks it to.
const UNACKNOWLEDGED_MAX: u64 = 5 * SECOND;
/// How long until a lost handshake is tried again.
const HANDSHAKE_AGAIN: u64 = SECOND;

/// An end of a connection: the one that dialled, or the other.
pub type Side = usize;
/// Who dialled.
pub const DIALLER: Side = 0;
/// The other.
pub const ACCEPTER: Side = 1;

/// What happens on the network by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A handshake reaches the host that was dialled.
    Handshake(u64),
    /// Its answer reaches the one who dialled.
    Established(u64),
    /// Something that one side sent reaches the other.
    Arrive {
        /// The connection.
        connection: u64,
        /// Who sent it.
        from: Side,
        /// What.
        segment: u64,
    },
    /// A kernel gives up on bytes that were not acknowledged for too long.
    GiveUp {
        /// The connection.
        connection: u64,
        /// Whose bytes.
        from: Side,
        /// Since when they wait.
        since: u64,
    },
}

/// How a network behaves in one run.
#[derive(Clone, Debug)]
pub struct NetPlan {
    /// The shortest delay of a segment, in nanoseconds.
    pub delay_min: u64,
    /// The longest one.
    pub delay_max: u64,
    /// What a connection takes before its reader has read, in bytes.
    pub window: usize,
    /// Frames between nodes that are lost, in a million.
    pub lost: u32,
    /// Raft messages that arrive twice, in a million.
    pub doubled: u32,
    /// Frames between nodes that may overtake others, in a million.
    pub overtaking: u32,
    /// How late the latest of those are.
    pub late_max: u64,
}

/// What the network has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Segments that arrived.
    pub segments: u64,
    /// Frames that were lost by themselves.
    pub frames_lost: u64,
    /// Frames that arrived twice.
    pub frames_doubled: u64,
    /// Frames that may have been overtaken.
    pub frames_late: u64,
    /// Connections that were reset.
    pub resets: u64,
    /// Connections on which a kernel gave up.
    pub given_up: u64,
    /// Segments that waited for a path to heal.
    pub held: u64,
    /// Writes that found no room.
    pub blocked: u64,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Flow {
    on_the_way: BTreeMap<u64, Segment>,
    /// Waits for the path to heal, oldest first.
    held: VecDeque<Segment>,
    held_since: u64,
    last_arrival: u64,
    /// Bytes that were taken from the sender and not read by the receiver.
    outstanding: usize,
    blocked: bool,
    /// The beginning of a frame whose rest was not written yet; only where frames have faults.
    partial: Vec<u8>,
    /// The beginning of a frame whose rest was not written yet, for whoever listens.
    overheard: Vec<u8>,
    greeted: bool,
}

#[derive(Debug)]
struct End {
    host: HostId,
    address: SocketAddr,
    owner: Option<LoopId>,
    token: Option<Token>,
    open: bool,
    arrived: VecDeque<u8>,
    ended: bool,
    error: Option<io::ErrorKind>,
}

#[derive(Debug)]
struct Connection {
    ends: [End; 2],
    flows: [Flow; 2],
    established: bool,
    between_nodes: bool,
    /// Requests of a client that were not answered yet, and their kinds.
    asked: BTreeMap<RequestId, u8>,
}

#[derive(Debug, Default)]
struct Loop {
    host: usize,
    ready: Vec<Readiness>,
    backlog: VecDeque<u64>,
    turn_at: Option<u64>,
}

#[derive(Debug)]
struct Host {
    /// Has power, and its kernel answers.
    up: bool,
    listening: Option<(SocketAddr, Vec<LoopId>)>,
    is_node: bool,
    ports: u16,
}

/// The network, the loops on it, and what is to happen.
#[derive(Debug)]
pub struct Net {
    /// What is to happen.
    pub agenda: Agenda,
    /// What was done.
    pub stats: NetStats,
    /// Whether frames are lost, doubled and overtaken.
    pub frame_faults: bool,
    /// What was said, until somebody looks.
    pub told: Vec<Told>,
    plan: NetPlan,
    random: Random,
    loops: Vec<Loop>,
    hosts: Vec<Host>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    next_segment: u64,
    /// From, to.
    cuts: BTreeSet<(HostId, HostId)>,
    /// Who is refused when dialling whom.
    barred: BTreeSet<(HostId, HostId)>,
    /// Longer delays between two hosts, in nanoseconds.
    slow: BTreeMap<(HostId, HostId), u64>,
}

/// A handle to the network.
#[derive(Clone, Debug)]
pub struct SharedNet(pub Rc<RefCell<Net>>);

impl Net {
    /// A network without hosts.
    #[must_use]
    pub fn new(plan: NetPlan, random: Random) -> Net {
        Net {
            agenda: Agenda::default(),
            stats: NetStats::default(),
            frame_faults: false,
            told: Vec::new(),
            plan,
            random,
            loops: Vec::new(),
            hosts: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_segment: 1,
            cuts: BTreeSet::new(),
            barred: BTreeSet::new(),
            slow: BTreeMap::new(),
        }
    }

    /// A machine.
    pub fn add_host(&mut self, is_node: bool) -> HostId {
        self.hosts.push(Host { up: true, listening: None, is_node, ports: 0 });
        HostId(self.hosts.len() - 1)
    }

    /// A loop on a machine.
    pub fn add_loop(&mut self, host: HostId) -> LoopId {
        self.loops.push(Loop { host: host.0, ..Loop::default() });
        LoopId(self.loops.len() - 1)
    }

    /// The loops of a process share an address.
    pub fn listen(&mut self, host: HostId, address: SocketAddr, loops: Vec<LoopId>) {
        self.hosts[host.0].listening = Some((address, loops));
    }

    /// A process ends; its kernel closes what it had open.
    pub fn process_ends(&mut self, host: HostId) {
        self.hosts[host.0].listening = None;
        for (id, side) in self.ends_of(host) {
            self.close(id, side);
        }
        self.forget_loops(host);
    }

    /// A machine loses power: nobody is told.
    pub fn power_fails(&mut self, host: HostId) {
        self.hosts[host.0].listening = None;
        self.hosts[host.0].up = false;
        for (id, side) in self.ends_of(host) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.ends[side].open = false;
                connection.ends[side].owner = None;
            }
        }
        self.forget_loops(host);
    }

    /// The machine is up again; it knows nothing of its old connections.
    pub fn power_returns(&mut self, host: HostId) {
        self.hosts[host.0].up = true;
        self.release(|connection, side| connection.ends[1 - side].host == host);
        for (id, from) in self.windows_closed_by(host) {
            // The sender's kernel asks again and again whether there is room, and now learns that nobody is there.
            self.send(id, from, Segment::Bytes(Vec::new()), true);
        }
    }

    /// Connections, and who writes to them, whose reader has lost power before it read what fills its window.
    fn windows_closed_by(&self, host: HostId) -> Vec<(u64, Side)> {
        let is_closed = |connection: &Connection, from: Side| {
            let (writer, reader) = (&connection.ends[from], &connection.ends[1 - from]);
            let is_full = connection.flows[from].outstanding >= self.plan.window;
            is_full && reader.host == host && !reader.open && writer.open
        };
        let sides = self.connections.iter().flat_map(|(id, connection)| {
            (0..2).filter(move |from| is_closed(connection, *from)).map(|from| (*id, from))
        });
        sides.collect()
    }

    /// The links between nodes that are not closed on both sides, for people.
    #[must_use]
    pub fn describe_links(&self) -> String {
        let links = self.connections.iter().filter(|(_, connection)| connection.between_nodes && !connection.is_over());
        let describe = |(id, connection): (&u64, &Connection)| {
            let [dialler, accepter] = &connection.ends;
            let flow = &connection.flows[DIALLER];
            format!(
                "{id}: {}{}>{}{}{} {}+{} on the way, {} unread, {} outstanding{}{}",
                dialler.host.0 + 1,
                if dialler.open { "" } else { " closed" },
                accepter.host.0 + 1,
                if accepter.open { "" } else { " closed" },
                if connection.established { "" } else { " connecting" },
                flow.on_the_way.len(),
                flow.held.len(),
                accepter.arrived.len(),
                flow.outstanding,
                if flow.blocked { ", blocked" } else { "" },
                accepter.error.map_or(String::new(), |error| format!(", {error}"))
            )
        };
        links.map(describe).collect::<Vec<_>>().join("; ")
    }

    fn ends_of(&self, host: HostId) -> Vec<(u64, Side)> {
        let ends = self.connections.iter().flat_map(|(id, connection)| {
            (0..2)
                .filter(|side| connection.ends[*side].host == host && connection.ends[*side].open)
                .map(|side| (*id, side))
        });
        ends.collect()
    }

    fn forget_loops(&mut self, host: HostId) {
        for own in self.loops.iter_mut().filter(|own| own.host == host.0) {
            own.ready.clear();
            own.backlog.clear();
            own.turn_at = None;
        }
    }

    /// Sends what was held on its way, where `which(connection, from)` says so and nothing else is in the way.
    fn release(&mut self, which: impl Fn(&Connection, Side) -> bool) {
        let mut freed = Vec::new();
        for (id, connection) in &mut self.connections {
            for from in 0..2 {
                if !connection.flows[from].held.is_empty() && which(connection, from) {
                    freed.push((*id, from, std::mem::take(&mut connection.flows[from].held)));
                }
            }
        }
        for (id, from, held) in freed {
            for segment in held {
                self.send(id, from, segment, true);
            }
        }
    }

    /// What a loop's poll reports.
    pub fn take_ready(&mut self, owner: LoopId) -> Vec<Readiness> {
        std::mem::take(&mut self.loops[owner.0].ready)
    }

    /// Whether the turn that is due now is the one that was asked for last; if so, it is taken now.
    pub fn begin_turn(&mut self, owner: LoopId) -> bool {
        let due = self.loops[owner.0].turn_at == Some(self.agenda.now());
        if due {
            self.loops[owner.0].turn_at = None;
        }
        due
    }

    /// Lets a loop take its turn at a time, or earlier if something else wakes it.
    pub fn wake_at(&mut self, owner: LoopId, time: u64) {
        let time = time.max(self.agenda.now());
        let own = &mut self.loops[owner.0];
        if own.turn_at.is_none_or(|at| time < at) {
            own.turn_at = Some(time);
            self.agenda.at(time, Event::Turn(owner));
        }
    }

    /// Wakes a loop as a poll does: soon.
    pub fn wake(&mut self, owner: LoopId) {
        let latency = self.random.skewed(5, 200) * MICROSECOND;
        self.wake_at(owner, self.agenda.now() + latency);
    }

    fn report(&mut self, id: u64, side: Side, change: impl Fn(&mut Readiness)) {
        let Some(connection) = self.connections.get(&id) else { return };
        let End { owner: Some(owner), token: Some(token), open: true, .. } = connection.ends[side] else { return };
        self.report_to(owner, token, change);
    }

    fn report_to(&mut self, owner: LoopId, token: Token, change: impl Fn(&mut Readiness)) {
        let ready = &mut self.loops[owner.0].ready;
        let at = ready.iter().position(|readiness| readiness.token == token).unwrap_or_else(|| {
            ready.push(Readiness { token, readable: false, writable: false, read_closed: false, error: false });
            ready.len() - 1
        });
        change(&mut ready[at]);
        self.wake(owner);
    }

    fn delay(&mut self, from: HostId, to: HostId) -> u64 {
        let extra = self.slow.get(&(from, to)).copied().unwrap_or(0);
        self.random.skewed(self.plan.delay_min, self.plan.delay_max) + self.random.below(extra + 1)
    }

    /// Puts a segment on its way; `in_order` behind everything that was sent before.
    fn send(&mut self, id: u64, from: Side, segment: Segment, in_order: bool) {
        let Some(connection) = self.connections.get(&id) else { return };
        let hosts = (connection.ends[from].host, connection.ends[1 - from].host);
        let mut arrival = self.agenda.now() + self.delay(hosts.0, hosts.1);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let flow = &mut connection.flows[from];
        if in_order {
            arrival = arrival.max(flow.last_arrival + 1);
            flow.last_arrival = arrival;
        } else {
            arrival += self.random.below(self.plan.late_max);
        }
        let number = self.next_segment;
        self.next_segment += 1;
        flow.on_the_way.insert(number, segment);
        self.agenda.at(arrival, Event::Net(NetEvent::Arrive { connection: id, from, segment: number }));
    }

    /// Lets happen what was scheduled. Whether something was delivered, or given up.
    pub fn happen(&mut self, event: NetEvent) -> bool {
        let before = (self.stats.segments, self.stats.given_up);
        match event {
            NetEvent::Handshake(id) => self.handshake(id),
            NetEvent::Established(id) => self.established(id),
            NetEvent::Arrive { connection, from, segment } => self.arrive(connection, from, segment),
            NetEvent::GiveUp { connection, from, since } => self.give_up(connection, from, since),
        }
        if self.next_segment.is_multiple_of(512) {
            self.connections.retain(|_, connection| !connection.is_over());
        }
        (self.stats.segments, self.stats.given_up) != before
    }

    fn passes(&self, from: HostId, to: HostId) -> bool {
        self.hosts[to.0].up && !self.is_cut(from, to)
    }

    fn handshake(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id).filter(|connection| connection.ends[DIALLER].open) else {
            return;
        };
        let (from, to) = (connection.ends[DIALLER].host, connection.ends[ACCEPTER].host);
        let address = connection.ends[ACCEPTER].address;
        if !self.passes(from, to) {
            return self.agenda.after(HANDSHAKE_AGAIN, Event::Net(NetEvent::Handshake(id)));
        }
        let loops = match &self.hosts[to.0].listening {
            Some((listening, loops)) if *listening == address && !self.barred.contains(&(from, to)) => loops.clone(),
            _ => {
                self.send(id, ACCEPTER, Segment::Reset, true);
                return;
            }
        };
        let owner = *self.random.pick(&loops);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[ACCEPTER].open = true;
        }
        self.loops[owner.0].backlog.push_back(id);
        self.report_to(owner, LISTENER, |ready| ready.readable = true);
        let delay = self.delay(to, from);
        self.agenda.after(delay, Event::Net(NetEvent::Established(id)));
    }

    fn established(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.ends[DIALLER].open) else {
            return;
        };
        let (from, to) = (connection.ends[ACCEPTER].host, connection.ends[DIALLER].host);
        if self.cuts.contains(&(from, to)) {
            return self.agenda.after(HANDSHAKE_AGAIN, Event::Net(NetEvent::Established(id)));
        }
        connection.established = true;
        self.report(id, DIALLER, |ready| ready.writable = true);
    }

    fn arrive(&mut self, id: u64, from: Side, number: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let hosts = (connection.ends[from].host, connection.ends[1 - from].host);
        let Some(segment) = connection.flows[from].on_the_way.remove(&number) else { return };
        let waits = !connection.flows[from].held.is_empty();
        if waits || !self.passes(hosts.0, hosts.1) {
            return self.hold(id, from, segment);
        }
        self.stats.segments += 1;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[1 - from];
        match segment {
            Segment::Bytes(_) | Segment::End if !end.open => {
                // Nobody is there any more: the kernel says so.
                if connection.ends[from].open {
                    self.send(id, 1 - from, Segment::Reset, true);
                }
            }
            Segment::Bytes(bytes) => {
                end.arrived.extend(bytes);
                self.report(id, 1 - from, |ready| ready.readable = true);
            }
            Segment::End => {
                end.ended = true;
                self.report(id, 1 - from, |ready| (ready.readable, ready.read_closed) = (true, true));
            }
            Segment::Reset => {
                let refused = from == ACCEPTER && !connection.established;
                self.fail(
                    id,
                    1 - from,
                    if refused { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::ConnectionReset },
                );
            }
        }
    }

    fn fail(&mut self, id: u64, side: Side, error: io::ErrorKind) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ends[side].error = Some(error);
        connection.flows[side].on_the_way.clear();
        connection.flows[side].held.clear();
        self.stats.resets += 1;
        self.report(id, side, |ready| {
            (ready.readable, ready.writable, ready.read_closed, ready.error) = (true, true, true, true);
        });
    }

    fn hold(&mut self, id: u64, from: Side, segment: Segment) {
        let now = self.agenda.now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.stats.held += 1;
        let flow = &mut connection.flows[from];
        if flow.held.is_empty() {
            flow.held_since = now;
            if connection.between_nodes {
                let event = NetEvent::GiveUp { connection: id, from, since: now };
                self.agenda.after(UNACKNOWLEDGED_MAX, Event::Net(event));
            }
        }
        flow.held.push_back(segment);
    }

    fn give_up(&mut self, id: u64, from: Side, since: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let flow = &connection.flows[from];
        if !flow.held.is_empty() && flow.held_since == since && connection.ends[from].open {
            self.stats.given_up += 1;
            self.fail(id, from, io::ErrorKind::TimedOut);
        }
    }

    /// An owner, or the kernel for it, closes its end.
    pub(crate) fn close(&mut self, id: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[side];
        if !std::mem::take(&mut end.open) {
            return;
        }
        (end.owner, end.token) = (None, None);
        let last_word = if end.arrived.is_empty() { Segment::End } else { Segment::Reset };
        end.arrived = VecDeque::new();
        if end.error.is_none() {
            self.send(id, side, last_word, true);
        }
    }
}

impl End {
    fn new(host: HostId, address: SocketAddr, open: bool) -> End {
        let (arrived, ended, error) = (VecDeque::new(), false, None);
        End { host, address, owner: None, token: None, open, arrived, ended, error }
    }
}

impl Connection {
    fn is_over(&self) -> bool {
        let silent = |flow: &Flow| flow.on_the_way.is_empty() && flow.held.is_empty();
        !self.ends[0].open && !self.ends[1].open && self.flows.iter().all(silent)
    }
}

/// Where the node on host `index` listens.
#[must_use]
pub fn node_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 7001))
}

fn node_of(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(v4) if v4.ip().octets()[1] == 0 => {
            Some(usize::from(v4.ip().octets()[2]) << 8 | usize::from(v4.ip().octets()[3]))
        }
        _ => None,
    }
}
