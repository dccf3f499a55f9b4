//! What goes wrong on the network from outside: ways that are cut or slow, firewalls, connections that are forgotten.

use std::io;

use super::{ACCEPTER, Connection, DIALLER, Net};
use crate::agenda::HostId;

impl Net {
    /// Cuts or mends the way from one host to another. Whether it was otherwise before.
    pub fn set_cut(&mut self, from: HostId, to: HostId, cut: bool) -> bool {
        if cut {
            return self.cuts.insert((from, to));
        }
        let was_cut = self.cuts.remove(&(from, to));
        if was_cut {
            self.release(|connection, side| (connection.ends[side].host, connection.ends[1 - side].host) == (from, to));
        }
        was_cut
    }

    /// Whether the way is cut.
    #[must_use]
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// How many ways are cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.cuts.len()
    }

    /// Makes the way from one host to another slower, or as fast as others.
    pub fn set_slow(&mut self, from: HostId, to: HostId, extra: u64) {
        if extra == 0 {
            self.slow.remove(&(from, to));
        } else {
            self.slow.insert((from, to), extra);
        }
    }

    /// Mends all ways.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.release(|_, _| true);
    }

    /// A firewall refuses whatever one host dials to another from now on.
    pub fn bar(&mut self, from: HostId, to: HostId) {
        self.barred.insert((from, to));
    }

    /// Firewalls let everybody dial whom they want, or everybody this host.
    pub fn unbar(&mut self, host: Option<HostId>) {
        self.barred.retain(|(from, to)| host.is_some_and(|host| *from != host && *to != host));
    }

    /// A box on the way forgets about half of a host's connections: both ends of each are told that it is over. How many.
    pub fn reset(&mut self, host: HostId) -> usize {
        let is_open = |connection: &Connection| connection.established && connection.ends.iter().all(|end| end.open);
        let touches = |connection: &Connection| connection.ends.iter().any(|end| end.host == host);
        let open = self.connections.iter().filter(|(_, connection)| is_open(connection) && touches(connection));
        let mut ids: Vec<u64> = open.map(|(id, _)| *id).collect();
        ids.retain(|_| self.random.coin());
        for id in &ids {
            for side in [DIALLER, ACCEPTER] {
                self.fail(*id, side, io::ErrorKind::ConnectionReset);
            }
        }
        ids.len()
    }
}
