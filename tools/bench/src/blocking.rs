//! A plain blocking connection, for what happens before and beside the measured load: the slot table, the prefill,
//! the fail-over probe.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use raftkv_protocol::client::{Answer, Operation, Reply, Request, ShardSnapshot, SlotTable, Status};
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{ClusterId, RequestId, ShardId};

use crate::link::{garbled, parse};

/// A connection that has been welcomed.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// How much of `inbox` has been handed out.
    taken: usize,
    out: Vec<u8>,
    sent: u64,
}

impl Connection {
    /// Dials and says hello. `timeout` holds for the dialling and for each later read and write.
    pub fn open(address: &str, timeout: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&resolve(address)?, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let mut connection = Connection { stream, inbox: Vec::new(), taken: 0, out: Vec::new(), sent: 0 };
        hello(None).encode(&mut connection.out);
        connection.flush()?;
        connection.receive_frame(|kind, payload| welcomed(kind, payload).map(drop))??;
        Ok(connection)
    }

    /// Gives up the blocking. No request may be in flight.
    pub fn into_stream(self) -> io::Result<mio::net::TcpStream> {
        self.stream.set_nonblocking(true)?;
        Ok(mio::net::TcpStream::from_std(self.stream))
    }

    /// Adds a request to what [`Connection::flush`] sends.
    pub fn queue(&mut self, operation: Operation<'_>) -> RequestId {
        self.sent += 1;
        let id = RequestId(self.sent);
        Request { id, operation }.encode(&mut self.out);
        id
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for the next reply, whichever request it belongs to.
    pub fn receive<R>(&mut self, read: impl FnOnce(Reply<'_>) -> R) -> io::Result<R> {
        self.receive_frame(|kind, payload| Reply::decode(kind, payload).map(read))?.map_err(garbled)
    }

    /// Asks for the slot table. No other request may be in flight.
    pub fn slots(&mut self) -> io::Result<SlotTable> {
        self.ask(Operation::Slots, "the slot table", |answer| match answer {
            Answer::Slots(table) => Some(table),
            _ => None,
        })
    }

    /// Asks for the node's state. No other request may be in flight.
    pub fn status(&mut self) -> io::Result<Status> {
        self.ask(Operation::Status, "the state", |answer| match answer {
            Answer::Status(status) => Some(*status),
            _ => None,
        })
    }

    /// Has the node take snapshots of all its shards, and waits until they are durable. No other request may be in flight.
    pub fn snapshot(&mut self, wait: Duration) -> io::Result<Vec<ShardSnapshot>> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        self.ask(Operation::Snapshot { wait_ms }, "what became of snapshots", |answer| match answer {
            Answer::Snapshots(snapshots) => Some(snapshots),
            _ => None,
        })
    }

    /// Asks one question and waits for its answer; `what` says which one it is to be.
    fn ask<R>(
        &mut self,
        operation: Operation<'_>,
        what: &str,
        read: impl FnOnce(Answer<'_>) -> Option<R>,
    ) -> io::Result<R> {
        self.queue(operation);
        self.flush()?;
        self.receive(|reply| match reply.result {
            Ok(answer) => read(answer).ok_or_else(|| garbled(format!("another answer than {what}"))),
            Err(refusal) => Err(io::Error::other(format!("{}: {}", refusal.code.name(), refusal.message))),
        })?
    }

    fn receive_frame<R>(&mut self, read: impl FnOnce(u8, &[u8]) -> R) -> io::Result<R> {
        loop {
            if let Some(frame) = parse(&self.inbox[self.taken..])? {
                self.taken += frame.consumed;
                return Ok(read(frame.kind, frame.payload));
            }
            self.inbox.drain(..self.taken);
            self.taken = 0;
            let kept = self.inbox.len();
            self.inbox.resize(kept + 64 * 1024, 0);
            let result = self.stream.read(&mut self.inbox[kept..]);
            self.inbox.truncate(kept + result.as_ref().map_or(0, |&count| count));
            if result? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The hello of a client at home in `home`.
pub fn hello(home: Option<ShardId>) -> Hello<'static> {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        cluster: ClusterId::default(),
        role: HelloRole::Client { home },
        features: 0,
        auth: Auth::default(),
    }
}

/// How many cores the welcoming node has; an error if it did not welcome.
pub fn welcomed(kind: u8, payload: &[u8]) -> io::Result<u16> {
    match HelloReply::decode(kind, payload).map_err(garbled)? {
        HelloReply::Welcome { cores, .. } => Ok(cores),
        HelloReply::Refused { reason, message } => Err(io::Error::other(format!("refused, {reason:?}: {message}"))),
    }
}

/// The first address of `HOST:PORT`.
pub fn resolve(address: &str) -> io::Result<SocketAddr> {
    address.to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("{address} has no address")))
}
