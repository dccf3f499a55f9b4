//! A blocking connection that speaks the protocol in raw frames: to reach one certain node, and to say what no client
//! library would say.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use raftkv::client::{Condition, Consistency, Item, ShardSnapshot, SlotTable, Status};
use raftkv_protocol::client::{Answer, Code, Existed, Operation, Reply, Request, Scan};
use raftkv_protocol::frame::{self, PEER_FRAME_MAX};
use raftkv_protocol::hello::{Auth, Hello, HelloReply, HelloRole, VERSION_MAX, VERSION_MIN};
use raftkv_protocol::types::{ClusterId, CoreId, EntryId, Incarnation, Index, NodeId, RequestId};
use socket2::SockRef;

/// How long to wait for bytes before the test fails.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    next_id: u64,
}

/// A reply, owned.
#[derive(Clone, Debug, PartialEq)]
pub struct Replied {
    /// The request's.
    pub id: u64,
    /// Where it was answered.
    pub at: EntryId,
    /// What it says.
    pub said: Said,
}

/// What a reply says, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Put,
    Deleted { existed: bool },
    Batch { existed: Existed },
    Value { version: u64, bytes: Vec<u8> },
    Page { items: Vec<Item>, more: bool },
    Slots(SlotTable),
    Status(Box<Status>),
    Pong,
    Snapshots(Vec<ShardSnapshot>),
    Refused { code: Code, leader: Option<NodeId>, message: String },
}

impl Said {
    /// The code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Said::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A client's hello.
pub fn client_hello() -> Hello<'static> {
    let role = HelloRole::Client { home: None };
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        cluster: ClusterId(0),
        role,
        features: 0,
        auth: Auth::default(),
    }
}

/// A node's hello.
pub fn peer_hello(cluster: ClusterId, node: u64, incarnation: u64) -> Hello<'static> {
    let role = HelloRole::Peer { node: NodeId(node), incarnation: Incarnation(incarnation), core: CoreId(0) };
    Hello { cluster, role, ..client_hello() }
}

/// Bytes of a frame.
pub fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

impl Wire {
    /// Dials, without a hello.
    pub fn dial(address: SocketAddr) -> io::Result<Wire> {
        Wire::dial_within(READ_TIMEOUT, address)
    }

    fn dial_within(patience: Duration, address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Wire { stream, input: Vec::new(), next_id: 0 })
    }

    /// Dials and says a client's hello.
    pub fn connect(address: SocketAddr) -> io::Result<Wire> {
        Wire::connect_within(READ_TIMEOUT, address)
    }

    /// The same, and waits for nothing longer than this, now and later.
    pub fn connect_within(patience: Duration, address: SocketAddr) -> io::Result<Wire> {
        let mut wire = Wire::dial_within(patience, address)?;
        wire.greet(&client_hello())?.map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
        Ok(wire)
    }

    /// Says hello; the answer is the reply's frame, decoded by `HelloReply`: the node's incarnation, or the refusal's
    /// name and words.
    pub fn greet(&mut self, hello: &Hello<'_>) -> io::Result<Result<u64, (&'static str, String)>> {
        self.send(&encoded(|out| hello.encode(out)))?;
        self.greeting()
    }

    /// Reads the answer to a hello.
    pub fn greeting(&mut self) -> io::Result<Result<u64, (&'static str, String)>> {
        let (kind, payload) = self.frame()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match HelloReply::decode(kind, &payload).map_err(io::Error::other)? {
            HelloReply::Welcome { incarnation, .. } => Ok(Ok(incarnation.0)),
            HelloReply::Refused { reason, message } => Ok(Err((reason.name(), message.to_owned()))),
        }
    }

    /// How long reads wait.
    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("a timeout can be set");
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the connection with a reset, as a process does that ends with bytes unread.
    pub fn reset(self) {
        let lingering = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        lingering.expect("the end of a socket can be chosen");
    }

    /// Sends nothing more.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is up");
    }

    /// The next frame; `None` after the last. A reset counts as the end.
    pub fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some(frame) = frame::parse(&self.input, PEER_FRAME_MAX).map_err(io::Error::other)? {
                let whole = (frame.kind, frame.payload.to_vec());
                let consumed = frame.consumed;
                self.input.drain(..consumed);
                return Ok(Some(whole));
            }
            let mut chunk = vec![0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request and returns its id.
    pub fn submit(&mut self, operation: Operation<'_>) -> io::Result<u64> {
        self.next_id += 1;
        let request = Request { id: RequestId(self.next_id), operation };
        self.send(&encoded(|out| request.encode(out)))?;
        Ok(self.next_id)
    }

    /// The next reply; `None` if the other side has closed the connection.
    pub fn reply(&mut self) -> io::Result<Option<Replied>> {
        let Some((kind, payload)) = self.frame()? else { return Ok(None) };
        Reply::decode(kind, &payload).map(|reply| Some(own(reply))).map_err(io::Error::other)
    }

    /// Sends a request and waits for its reply; an end of the connection is an error.
    pub fn try_ask(&mut self, operation: Operation<'_>) -> io::Result<Replied> {
        let id = self.submit(operation)?;
        let replied = self.reply()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        assert_eq!(replied.id, id, "a reply to another request");
        Ok(replied)
    }

    /// Sends a request and waits for its reply.
    #[track_caller]
    pub fn ask(&mut self, operation: Operation<'_>) -> Replied {
        self.try_ask(operation).expect("the node answers")
    }

    /// Waits until the node has seen everything that was sent before.
    #[track_caller]
    pub fn ping(&mut self) {
        assert_eq!(self.ask(Operation::Ping).said, Said::Pong);
    }

    /// Writes a key; returns its version.
    #[track_caller]
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> u64 {
        let replied = self.ask(put(key.as_ref(), value.as_ref()));
        assert_eq!(replied.said, Said::Put);
        replied.at.index.0
    }

    /// Reads a key, linearizably; version and value.
    #[track_caller]
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Option<(u64, Vec<u8>)> {
        match self.ask(get(key.as_ref())).said {
            Said::Value { version, bytes } => Some((version, bytes)),
            said if said.code() == Some(Code::NotFound) => None,
            said => panic!("no answer to a get: {said:?}"),
        }
    }

    /// Reads a page.
    #[track_caller]
    pub fn scan(&mut self, scan: Scan<'_>) -> (Vec<Item>, bool) {
        match self.ask(Operation::Scan(scan)).said {
            Said::Page { items, more } => (items, more),
            said => panic!("no answer to a scan: {said:?}"),
        }
    }

    /// The node's state.
    pub fn try_status(&mut self) -> io::Result<Status> {
        match self.try_ask(Operation::Status)?.said {
            Said::Status(status) => Ok(*status),
            said => Err(io::Error::other(format!("no answer to status: {said:?}"))),
        }
    }

    /// The node's state.
    #[track_caller]
    pub fn status(&mut self) -> Status {
        self.try_status().expect("the node answers")
    }

    /// One of the node's counters.
    #[track_caller]
    pub fn counter(&mut self, name: &str) -> u64 {
        let status = self.status();
        let found = status.counters.iter().find(|(counter, _)| counter == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

/// An unconditional put.
pub fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
    Operation::Put { key, value, condition: Condition::None }
}

/// A linearizable get.
pub fn get(key: &[u8]) -> Operation<'_> {
    Operation::Get { key, consistency: Consistency::Linearizable }
}

/// A stale get.
pub fn stale_get(key: &[u8]) -> Operation<'_> {
    Operation::Get { key, consistency: Consistency::Stale }
}

/// A delete.
pub fn delete(key: &[u8]) -> Operation<'_> {
    Operation::Delete { key, condition: Condition::None }
}

fn own(reply: Reply<'_>) -> Replied {
    let said = match reply.result {
        Ok(Answer::Put) => Said::Put,
        Ok(Answer::Deleted { existed }) => Said::Deleted { existed },
        Ok(Answer::Batch { existed }) => Said::Batch { existed },
        Ok(Answer::Value { version: Index(version), value }) => Said::Value { version, bytes: value.to_vec() },
        Ok(Answer::Page(page)) => {
            let own = |item: &raftkv_protocol::client::Item<'_>| Item {
                key: item.key.to_vec(),
                version: item.version,
                value: item.value.to_vec(),
            };
            Said::Page { items: page.items.iter().map(own).collect(), more: page.more }
        }
        Ok(Answer::Slots(table)) => Said::Slots(table),
        Ok(Answer::Status(status)) => Said::Status(status),
        Ok(Answer::Pong) => Said::Pong,
        Ok(Answer::Snapshots(snapshots)) => Said::Snapshots(snapshots),
        Ok(other) => panic!("an answer that did not exist when this was written: {other:?}"),
        Err(refusal) => {
            Said::Refused { code: refusal.code, leader: refusal.leader, message: refusal.message.to_owned() }
        }
    };
    Replied { id: reply.id.0, at: reply.at, said }
}
