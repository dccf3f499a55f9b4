//! A network in memory, and a client on it that is moved by hand: nothing happens at the same time, time goes by only
//! when nothing else can happen, and every byte that the client sends is written down.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Token;
use raftkv_protocol::client::Request;

use super::scripted::{Greeting, Next, Scripted, Session, SharedTable};
use crate::client::by_hand::ByHand;
use crate::client::{Builder, Client, Pending, Result};
use crate::socket::{Network, Readiness, Socket};

/// More turns than any test needs; a client that never sleeps takes more.
const TURNS_MAX: usize = 20_000;
/// Turns in a row in which neither a socket is ready nor time goes by: one for requests that were just made, one for
/// what came of them.
const IN_VAIN_MAX: usize = 2;

/// Bytes that the client sent: when, over which connection, and what.
pub type Trace = Vec<(Duration, usize, Vec<u8>)>;

/// The network; every clone is the same one.
#[derive(Clone, Default)]
pub struct Memory(Rc<RefCell<Wires>>);

#[derive(Default)]
struct Wires {
    nodes: BTreeMap<SocketAddr, Rc<Scripted>>,
    /// Nothing comes from there or gets there, and nobody is told.
    unplugged: Vec<SocketAddr>,
    /// How many bytes may still be written to there.
    room: BTreeMap<SocketAddr, usize>,
    wires: Vec<Wire>,
    ready: Vec<Readiness>,
    /// Since the beginning.
    now: Duration,
    trace: Trace,
}

/// One connection.
struct Wire {
    address: SocketAddr,
    token: Token,
    state: Standing,
    session: Session,
    to_node: Vec<u8>,
    to_client: VecDeque<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Dialled,
    Refused,
    Stands,
    /// The node has closed it.
    Ended,
    /// It broke in between.
    Cut,
    /// The client has dropped it.
    Dropped,
}

#[derive(Debug)]
pub struct MemorySocket {
    network: Memory,
    wire: usize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// Node `id` at `10.0.0.id:7001`.
    pub fn node(
        &self,
        id: u8,
        table: &SharedTable,
        script: impl Fn(&Request<'_>, &mut Vec<u8>) -> Next + Send + Sync + 'static,
    ) -> Rc<Scripted> {
        let node = Rc::new(Scripted::new(u64::from(id), address(id), Greeting::Welcome, table, Box::new(script)));
        self.0.borrow_mut().nodes.insert(address(id), Rc::clone(&node));
        node
    }

    /// From now on nothing reaches node `id`, and nothing comes from it.
    pub fn unplug(&self, id: u8) {
        self.0.borrow_mut().unplugged.push(address(id));
    }

    /// Whom the client has not given up meanwhile can talk to it again.
    pub fn plug_in(&self, id: u8) {
        let mut wires = self.0.borrow_mut();
        wires.unplugged.retain(|unplugged| *unplugged != address(id));
        let again: Vec<Token> =
            wires.wires.iter().filter(|wire| wire.address == address(id)).map(|wire| wire.token).collect();
        wires.ready.extend(again.into_iter().map(ready));
    }

    /// The sockets to node `id` take so many bytes more.
    pub fn limit_room(&self, id: u8, bytes: usize) {
        self.0.borrow_mut().room.insert(address(id), bytes);
    }

    /// Breaks the connections to node `id`; what it has not read is lost.
    pub fn cut(&self, id: u8) {
        let mut wires = self.0.borrow_mut();
        let wires = &mut *wires;
        for wire in wires.wires.iter_mut().filter(|wire| wire.address == address(id) && wire.is_open()) {
            wire.state = Standing::Cut;
            wires.ready.push(ready(wire.token));
        }
    }

    pub fn trace(&self) -> Trace {
        self.0.borrow().trace.clone()
    }

    /// Lets every node read what has come, and answer.
    fn serve(&self) {
        let mut wires = self.0.borrow_mut();
        let wires = &mut *wires;
        for wire in &mut wires.wires {
            if wire.state != Standing::Stands || wire.to_node.is_empty() || wires.unplugged.contains(&wire.address) {
                continue;
            }
            let mut out = Vec::new();
            let next = wire.session.receive(&wires.nodes[&wire.address], &std::mem::take(&mut wire.to_node), &mut out);
            wire.to_client.extend(out);
            if next == Next::HangUp {
                wire.state = Standing::Ended;
            }
            wires.ready.push(ready(wire.token));
        }
    }

    fn take_ready(&self) -> Vec<Readiness> {
        std::mem::take(&mut self.0.borrow_mut().ready)
    }
}

/// Of node `id`.
pub fn address(id: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id], 7001))
}

/// Says everything at once: readiness is a hint.
pub fn ready(token: Token) -> Readiness {
    Readiness { token, readable: true, writable: true, read_closed: false, error: false }
}

impl Wire {
    fn is_open(&self) -> bool {
        matches!(self.state, Standing::Dialled | Standing::Stands)
    }
}

impl Network for Memory {
    type Socket = MemorySocket;

    fn dial(&mut self, address: SocketAddr, token: Token) -> io::Result<MemorySocket> {
        let mut wires = self.0.borrow_mut();
        let state = match () {
            () if wires.unplugged.contains(&address) => Standing::Dialled,
            () if wires.nodes.contains_key(&address) => Standing::Stands,
            () => Standing::Refused,
        };
        if state != Standing::Dialled {
            wires.ready.push(ready(token));
        }
        let session = Session::default();
        wires.wires.push(Wire { address, token, state, session, to_node: Vec::new(), to_client: VecDeque::new() });
        Ok(MemorySocket { network: self.clone(), wire: wires.wires.len() - 1 })
    }

    fn accept(&mut self) -> io::Result<MemorySocket> {
        Err(ErrorKind::Unsupported.into())
    }

    fn register(&mut self, _socket: &mut MemorySocket, _token: Token) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn deregister(&mut self, socket: &mut MemorySocket) -> io::Result<()> {
        let mut wires = self.0.borrow_mut();
        let token = wires.wires[socket.wire].token;
        wires.ready.retain(|readiness| readiness.token != token);
        Ok(())
    }
}

impl Socket for MemorySocket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wires = self.network.0.borrow_mut();
        let wires = &mut *wires;
        let wire = &mut wires.wires[self.wire];
        if wires.unplugged.contains(&wire.address) {
            return Err(ErrorKind::WouldBlock.into());
        }
        if wire.state == Standing::Cut {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let count = wire.to_client.len().min(buffer.len());
        for (byte, taken) in buffer.iter_mut().zip(wire.to_client.drain(..count)) {
            *byte = taken;
        }
        match (count, wire.state) {
            (0, Standing::Ended) => Ok(0),
            (0, _) => Err(ErrorKind::WouldBlock.into()),
            (count, _) => Ok(count),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut wires = self.network.0.borrow_mut();
        let wires = &mut *wires;
        let wire = &mut wires.wires[self.wire];
        if wire.state != Standing::Stands {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = wires.room.get(&wire.address).copied().unwrap_or(usize::MAX);
        let count = room.min(bytes.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        wires.room.entry(wire.address).and_modify(|room| *room -= count);
        wire.to_node.extend_from_slice(&bytes[..count]);
        wires.trace.push((wires.now, self.wire, bytes[..count].to_vec()));
        Ok(count)
    }

    fn is_connected(&self) -> io::Result<bool> {
        match self.network.0.borrow().wires[self.wire].state {
            Standing::Dialled => Ok(false),
            Standing::Refused => Err(ErrorKind::ConnectionRefused.into()),
            _ => Ok(true),
        }
    }

    fn remote(&self) -> io::Result<SocketAddr> {
        Ok(self.network.0.borrow().wires[self.wire].address)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        self.network.0.borrow_mut().wires[self.wire].state = Standing::Dropped;
    }
}

/// The client, its network and their clock.
pub struct Rig {
    pub network: Memory,
    pub client: ByHand<Memory>,
    pub now: Instant,
    start: Instant,
}

impl Rig {
    /// A client with the endpoints of these nodes.
    pub fn new(network: &Memory, nodes: &[u8], seed: u64) -> Rig {
        Rig::with(network, builder(nodes), seed)
    }

    pub fn with(network: &Memory, builder: Builder, seed: u64) -> Rig {
        let start = Instant::now();
        let client = ByHand::new(builder, network.clone(), seed, start).expect("there are endpoints");
        Rig { network: network.clone(), client, now: start, start }
    }

    /// How much time went by.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Moves the client until the outcome is there.
    pub fn outcome<T>(&mut self, pending: Pending<T>) -> Result<T> {
        self.run_until(|_| pending.is_ready());
        pending.wait()
    }

    /// Moves the client and lets so much time go by.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(|rig| rig.client.wake_at() > end && rig.network.0.borrow().ready.is_empty());
        self.set_now(end);
        self.turn();
    }

    /// Moves the client until it is `done`.
    pub fn run_until(&mut self, done: impl Fn(&Rig) -> bool) {
        let mut in_vain = 0;
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            let before = self.now;
            let nothing_came = self.network.0.borrow().ready.is_empty();
            if nothing_came {
                self.set_now(self.now.max(self.client.wake_at()));
            }
            in_vain = if nothing_came && self.now == before { in_vain + 1 } else { 0 };
            assert!(
                in_vain <= IN_VAIN_MAX,
                "the client wants turns at {:?}, and nothing comes of them",
                self.elapsed()
            );
            self.turn();
        }
        panic!("no end after {TURNS_MAX} turns and {:?}", self.elapsed());
    }

    /// One turn at the same time, and the answers to what it sends.
    pub fn turn(&mut self) {
        let ready = self.network.take_ready();
        self.client.turn(self.now, &ready);
        self.network.serve();
    }

    /// Lets time go by without a turn.
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.network.0.borrow_mut().now = now - self.start;
    }
}

/// Settings with the endpoints of these nodes.
pub fn builder(nodes: &[u8]) -> Builder {
    Client::builder().endpoints(nodes.iter().map(|id| address(*id).to_string()))
}
