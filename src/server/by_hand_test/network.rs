//! A network in memory: what is written arrives at once, in order, and all who dial a node land at its first core. Its
//! sockets belong to one thread, and little fits into a connection, so that writers meet full ones.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use mio::Token;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::server::by_hand::LISTENER;
use crate::server::io::HTTP;
use crate::socket::{Network, Readiness, Socket};

/// Bytes on their way in one direction of a connection.
const PIPE_BYTES: usize = 2 << 10;

/// Writes of more than this are slow where [`Wires::slow_down`] has made them so.
const LONG_BYTES: usize = 8 << 10;

/// Connections whose long writes go through as the test lets them.
#[derive(Debug, Default)]
struct Slowness {
    is_slow: Cell<bool>,
    /// How many bytes of them may go through still.
    room: Cell<usize>,
    /// Those who wait for more.
    waiting: RefCell<Vec<Rc<Side>>>,
}

impl Slowness {
    /// How many of the bytes may be written.
    fn allow(&self, bytes: usize, writer: &Rc<Side>) -> usize {
        if !self.is_slow.get() || bytes <= LONG_BYTES {
            return bytes;
        }
        let allowed = bytes.min(self.room.get());
        self.room.set(self.room.get() - allowed);
        if allowed < bytes {
            self.waiting.borrow_mut().push(Rc::clone(writer));
        }
        allowed
    }
}

/// What a core is to be told at its next turn.
pub(super) type Bell = Rc<RefCell<Vec<Readiness>>>;

/// One side of a connection.
#[derive(Debug, Default)]
struct Side {
    unread: RefCell<VecDeque<u8>>,
    /// Nothing more will come.
    ended: Cell<bool>,
    /// Nobody reads here any more.
    gone: Cell<bool>,
    watched: RefCell<Option<(Bell, Token)>>,
}

impl Side {
    fn tell(&self) {
        if let Some((bell, token)) = &*self.watched.borrow() {
            ring(bell, *token, self.ended.get());
        }
    }
}

/// Tells a core once of all that has come to a socket since its last turn, as a poll does.
fn ring(bell: &Bell, token: Token, read_closed: bool) {
    let mut told = bell.borrow_mut();
    told.retain(|ready| ready.token != token);
    told.push(Readiness { token, readable: true, writable: true, read_closed, error: false });
}

#[derive(Debug)]
pub(super) struct MemorySocket {
    near: Rc<Side>,
    far: Rc<Side>,
    remote: SocketAddr,
    traffic: Rc<Cell<u64>>,
    slowness: Rc<Slowness>,
}

impl Socket for MemorySocket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut unread = self.near.unread.borrow_mut();
        if unread.is_empty() && !self.near.ended.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let was_full = unread.len() == PIPE_BYTES;
        let got = unread.len().min(buffer.len());
        buffer.iter_mut().zip(unread.drain(..got)).for_each(|(place, byte)| *place = byte);
        if was_full {
            self.far.tell();
        }
        Ok(got)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.far.gone.get() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut pipe = self.far.unread.borrow_mut();
        let room = PIPE_BYTES - pipe.len();
        let taken = if room == 0 { 0 } else { self.slowness.allow(bytes.len(), &self.near).min(room) };
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = &bytes[..taken];
        pipe.extend(taken);
        self.traffic.set(xxh3_64_with_seed(taken, self.traffic.get()));
        self.far.tell();
        Ok(taken.len())
    }

    fn is_connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn remote(&self) -> io::Result<SocketAddr> {
        Ok(self.remote)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.far.ended.set(true);
        self.far.tell();
        Ok(())
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        self.near.gone.set(true);
        self.near.watched.take();
        self.far.ended.set(true);
        self.far.tell();
    }
}

/// Connections that wait to be accepted.
type Waiting = Rc<RefCell<VecDeque<MemorySocket>>>;

#[derive(Debug)]
struct Listener {
    bell: Bell,
    waiting: Waiting,
    waiting_http: Waiting,
}

/// Everybody's wires.
#[derive(Clone, Debug, Default)]
pub(super) struct Wires {
    listeners: Rc<RefCell<BTreeMap<SocketAddr, Listener>>>,
    traffic: Rc<Cell<u64>>,
    slowness: Rc<Slowness>,
}

impl Wires {
    /// From now on only so many bytes of long writes go through until this is called again.
    pub(super) fn slow_down(&self, room: usize) {
        self.slowness.is_slow.set(true);
        self.slowness.room.set(room);
        self.slowness.waiting.take().iter().for_each(|side| side.tell());
    }

    /// The network of one core of the node at `own`.
    pub(super) fn network(&self, own: SocketAddr, bell: Bell) -> MemoryNetwork {
        let (waiting, waiting_http) = (Waiting::default(), Waiting::default());
        let mut listeners = self.listeners.borrow_mut();
        listeners.entry(own).or_insert_with(|| Listener {
            bell: Rc::clone(&bell),
            waiting: Rc::clone(&waiting),
            waiting_http: Rc::clone(&waiting_http),
        });
        MemoryNetwork { wires: self.clone(), own, bell, waiting, waiting_http }
    }

    /// A connection from one address to another.
    pub(super) fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<MemorySocket> {
        self.connect_to(from, to, LISTENER)
    }

    /// The same, for HTTP.
    pub(super) fn connect_http(&self, from: SocketAddr, to: SocketAddr) -> io::Result<MemorySocket> {
        self.connect_to(from, to, HTTP)
    }

    fn connect_to(&self, from: SocketAddr, to: SocketAddr, door: Token) -> io::Result<MemorySocket> {
        let listeners = self.listeners.borrow();
        let listener = listeners.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (one, other) = (Rc::new(Side::default()), Rc::new(Side::default()));
        let end = |near: &Rc<Side>, far: &Rc<Side>, remote| MemorySocket {
            near: Rc::clone(near),
            far: Rc::clone(far),
            remote,
            traffic: Rc::clone(&self.traffic),
            slowness: Rc::clone(&self.slowness),
        };
        let waiting = if door == HTTP { &listener.waiting_http } else { &listener.waiting };
        waiting.borrow_mut().push_back(end(&other, &one, from));
        ring(&listener.bell, door, false);
        Ok(end(&one, &other, to))
    }

    /// A hash of every byte that was ever written, in order.
    pub(super) fn traffic(&self) -> u64 {
        self.traffic.get()
    }
}

/// What one core sees of it.
#[derive(Debug)]
pub(super) struct MemoryNetwork {
    wires: Wires,
    own: SocketAddr,
    bell: Bell,
    waiting: Waiting,
    waiting_http: Waiting,
}

impl Network for MemoryNetwork {
    type Socket = MemorySocket;

    fn dial(&mut self, address: SocketAddr, token: Token) -> io::Result<MemorySocket> {
        let mut socket = self.wires.connect(self.own, address)?;
        self.register(&mut socket, token)?;
        Ok(socket)
    }

    fn accept(&mut self) -> io::Result<MemorySocket> {
        self.waiting.borrow_mut().pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn accept_http(&mut self) -> io::Result<MemorySocket> {
        self.waiting_http.borrow_mut().pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn register(&mut self, socket: &mut MemorySocket, token: Token) -> io::Result<()> {
        socket.near.watched.replace(Some((Rc::clone(&self.bell), token)));
        socket.near.tell();
        Ok(())
    }

    fn deregister(&mut self, socket: &mut MemorySocket) -> io::Result<()> {
        socket.near.watched.take();
        Ok(())
    }
}

impl Drop for MemoryNetwork {
    fn drop(&mut self) {
        let mut listeners = self.wires.listeners.borrow_mut();
        if listeners.get(&self.own).is_some_and(|listener| Rc::ptr_eq(&listener.waiting, &self.waiting)) {
            listeners.remove(&self.own);
        }
    }
}
