//! Host names to addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::client::io_thread::Doorbell;

/// Asks the operating system, each time on a helper thread: name services may block for seconds.
#[derive(Debug)]
pub(in crate::client) struct Resolver {
    sender: Sender<Resolved>,
    receiver: Receiver<Resolved>,
    /// Rung when there is something to receive.
    doorbell: Arc<Doorbell>,
}

/// A host name's addresses.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Who asked.
    pub lane: usize,
    pub addresses: io::Result<Vec<SocketAddr>>,
}

impl Resolver {
    pub(in crate::client) fn new(doorbell: Arc<Doorbell>) -> Resolver {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Resolver { sender, receiver, doorbell }
    }

    /// Begins to look up `name`, a `host:port`.
    pub(super) fn start(&self, lane: usize, name: String) -> io::Result<()> {
        let (sender, doorbell) = (self.sender.clone(), Arc::clone(&self.doorbell));
        let resolve = move || {
            let addresses = name.to_socket_addrs().map(Iterator::collect);
            // Fails only if the client is gone.
            let _ = sender.send(Resolved { lane, addresses });
            doorbell.ring();
        };
        thread::Builder::new().name("raftkv-resolve".into()).spawn(resolve).map(drop)
    }

    /// A name that has been looked up.
    pub(super) fn next(&self) -> Option<Resolved> {
        self.receiver.try_recv().ok()
    }
}
