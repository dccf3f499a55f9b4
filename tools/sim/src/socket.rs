//! The network as one loop sees it, and its sockets.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use mio::Token;
use raftkv::socket::{Network, Socket};

use crate::agenda::LoopId;
use crate::network::{ACCEPTER, DIALLER, Net, SharedNet, Side};

impl SharedNet {
    /// The network as one loop sees it.
    #[must_use]
    pub fn for_loop(&self, own: LoopId) -> SimNetwork {
        SimNetwork { net: Rc::clone(&self.0), own }
    }
}

/// The network as one loop sees it.
#[derive(Clone)]
pub struct SimNetwork {
    net: Rc<RefCell<Net>>,
    own: LoopId,
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimNetwork({})", self.own.0)
    }
}

impl Network for SimNetwork {
    type Socket = SimSocket;

    fn dial(&mut self, address: SocketAddr, token: Token) -> io::Result<SimSocket> {
        let id = self.net.borrow_mut().dial(self.own, address, token)?;
        Ok(SimSocket { net: Rc::clone(&self.net), id, side: DIALLER })
    }

    fn accept(&mut self) -> io::Result<SimSocket> {
        let id = self.net.borrow_mut().accept(self.own)?;
        Ok(SimSocket { net: Rc::clone(&self.net), id, side: ACCEPTER })
    }

    fn register(&mut self, socket: &mut SimSocket, token: Token) -> io::Result<()> {
        self.net.borrow_mut().register(socket.id, socket.side, self.own, token)
    }

    fn deregister(&mut self, socket: &mut SimSocket) -> io::Result<()> {
        self.net.borrow_mut().deregister(socket.id, socket.side);
        Ok(())
    }
}

/// An end of a connection.
pub struct SimSocket {
    net: Rc<RefCell<Net>>,
    id: u64,
    side: Side,
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({}, {})", self.id, self.side)
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.net.borrow_mut().close(self.id, self.side);
    }
}

impl Socket for SimSocket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.net.borrow_mut().read(self.id, self.side, buffer)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.net.borrow_mut().write(self.id, self.side, bytes)
    }

    fn is_connected(&self) -> io::Result<bool> {
        self.net.borrow().is_connected(self.id, self.side)
    }

    fn remote(&self) -> io::Result<SocketAddr> {
        self.net.borrow().remote(self.id, self.side)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.net.borrow_mut().shutdown_write(self.id, self.side);
        Ok(())
    }
}
