//! What sockets ask of the network.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use mio::Token;

use super::{ACCEPTER, Connection, End, Flow, Net, Segment, Side, node_of};
use crate::agenda::{Event, HostId, LoopId};
use crate::network::NetEvent;

/// What sockets ask of it.
impl Net {
    fn fresh_address(&mut self, host: usize) -> SocketAddr {
        self.hosts[host].ports = self.hosts[host].ports.wrapping_add(1);
        SocketAddr::from(([10, 1, (host >> 8) as u8, host as u8], 10_000 + self.hosts[host].ports % 50_000))
    }

    pub(crate) fn dial(&mut self, own: LoopId, address: SocketAddr, token: Token) -> io::Result<u64> {
        let from = self.loops[own.0].host;
        let to = node_of(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut dialler = End::new(HostId(from), self.fresh_address(from), true);
        (dialler.owner, dialler.token) = (Some(own), Some(token));
        let ends = [dialler, End::new(HostId(to), address, false)];
        let between_nodes = self.hosts[from].is_node;
        let id = self.next_connection;
        self.next_connection += 1;
        let flows = [Flow::default(), Flow::default()];
        self.connections
            .insert(id, Connection { ends, flows, established: false, between_nodes, asked: BTreeMap::new() });
        let delay = self.delay(HostId(from), HostId(to));
        self.agenda.after(delay, Event::Net(NetEvent::Handshake(id)));
        Ok(id)
    }

    pub(crate) fn accept(&mut self, own: LoopId) -> io::Result<u64> {
        self.loops[own.0].backlog.pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    pub(crate) fn register(&mut self, id: u64, side: Side, own: LoopId, token: Token) -> io::Result<()> {
        let connection = self.connections.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        let writable = side == ACCEPTER || connection.established;
        let end = &mut connection.ends[side];
        (end.owner, end.token) = (Some(own), Some(token));
        let readable = !end.arrived.is_empty() || end.ended || end.error.is_some();
        let read_closed = end.ended;
        self.report_to(own, token, |ready| {
            ready.readable |= readable;
            ready.writable |= writable;
            ready.read_closed |= read_closed;
        });
        Ok(())
    }

    pub(crate) fn deregister(&mut self, id: u64, side: Side) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[side].token = None;
        }
    }

    pub(crate) fn is_connected(&self, id: u64, side: Side) -> io::Result<bool> {
        let connection = self.connections.get(&id).ok_or(io::ErrorKind::NotConnected)?;
        match connection.ends[side].error {
            Some(error) => Err(error.into()),
            None => Ok(connection.established || side == ACCEPTER),
        }
    }

    pub(crate) fn remote(&self, id: u64, side: Side) -> io::Result<SocketAddr> {
        let connection = self.connections.get(&id).ok_or(io::ErrorKind::NotConnected)?;
        Ok(connection.ends[1 - side].address)
    }

    pub(crate) fn shutdown_write(&mut self, id: u64, side: Side) {
        self.send(id, side, Segment::End, true);
    }
}
