//! What a node for tests does with the bytes that it gets, whatever brings them: its answers are scripted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use raftkv_protocol::client::{Answer, Code, Existed, Operation, Refusal, Reply, Request, SlotTable};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX};
use raftkv_protocol::hello::{Auth, FEATURE_BATCH, Hello, HelloRefusal, HelloReply};
use raftkv_protocol::types::{ClusterId, EntryId, Incarnation, Index, NodeId, RequestId, Term};

pub const CLUSTER: ClusterId = ClusterId(7);

/// What happens to the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Go,
    HangUp,
}

/// How the node answers a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Welcome,
    Refuse(HelloRefusal),
    Garbage,
    Silence,
}

/// Sees a request that is not for the slot table, appends any replies to the bytes, and says what comes next.
pub type Script = dyn Fn(&Request<'_>, &mut Vec<u8>) -> Next + Send + Sync;

/// The tables that the nodes of a test share; a test changes it to move leaders.
pub type SharedTable = Arc<Mutex<SlotTable>>;

/// A node without connections.
pub struct Scripted {
    id: NodeId,
    greeting: Greeting,
    features: AtomicU64,
    table: SharedTable,
    script: Box<Script>,
    requests: AtomicUsize,
    slots_requests: AtomicUsize,
}

/// One connection's state on the node's side.
#[derive(Debug, Default)]
pub struct Session {
    input: Vec<u8>,
    greeted: bool,
}

impl Session {
    /// Takes in the next bytes of the stream and appends the answers to `out`.
    pub fn receive(&mut self, node: &Scripted, bytes: &[u8], out: &mut Vec<u8>) -> Next {
        self.input.extend_from_slice(bytes);
        while let Some(frame) = frame::parse(&self.input, CLIENT_FRAME_MAX).unwrap() {
            let next = if self.greeted {
                node.on_request(&Request::decode(frame.kind, frame.payload).unwrap(), out)
            } else {
                Hello::decode(frame.kind, frame.payload).unwrap();
                self.greeted = true;
                node.greet(out)
            };
            let consumed = frame.consumed;
            self.input.drain(..consumed);
            if next == Next::HangUp {
                return Next::HangUp;
            }
        }
        Next::Go
    }
}

impl Scripted {
    /// A node at `address`, which the table learns.
    pub fn new(id: u64, address: SocketAddr, greeting: Greeting, table: &SharedTable, script: Box<Script>) -> Scripted {
        let mut nodes = lock(table);
        nodes.nodes.retain(|(node, _)| *node != NodeId(id));
        nodes.nodes.push((NodeId(id), address.to_string()));
        drop(nodes);
        Scripted {
            id: NodeId(id),
            greeting,
            features: AtomicU64::new(FEATURE_BATCH),
            table: Arc::clone(table),
            script,
            requests: AtomicUsize::new(0),
            slots_requests: AtomicUsize::new(0),
        }
    }

    /// What it says that it knows, to those who dial it from now on.
    pub fn set_features(&self, features: u64) {
        self.features.store(features, Ordering::SeqCst);
    }

    /// Requests seen, apart from those for the slot table.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn slots_requests(&self) -> usize {
        self.slots_requests.load(Ordering::SeqCst)
    }

    fn greet(&self, out: &mut Vec<u8>) -> Next {
        match self.greeting {
            Greeting::Welcome => {
                let shards = lock(&self.table).leaders.len() as u16;
                let welcome = HelloReply::Welcome {
                    version: 1,
                    cluster: lock(&self.table).cluster,
                    node: self.id,
                    incarnation: Incarnation(1),
                    shards,
                    cores: 1,
                    features: self.features.load(Ordering::SeqCst),
                    http: "",
                    auth: Auth::default(),
                };
                welcome.encode(out);
                Next::Go
            }
            Greeting::Refuse(reason) => {
                HelloReply::Refused { reason, message: "scripted" }.encode(out);
                Next::HangUp
            }
            Greeting::Garbage => {
                out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                Next::HangUp
            }
            Greeting::Silence => Next::Go,
        }
    }

    fn on_request(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
        if matches!(request.operation, Operation::Slots) {
            self.slots_requests.fetch_add(1, Ordering::SeqCst);
            let table = lock(&self.table).clone();
            answer(out, request.id, EntryId::ZERO, Answer::Slots(table));
            return Next::Go;
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        (self.script)(request, out)
    }
}

/// A table of `shards` shards, without nodes, led by node 1 in term 1.
pub fn table_of(shards: usize) -> SharedTable {
    let leaders = vec![(Some(NodeId(1)), Term(1)); shards];
    Arc::new(Mutex::new(SlotTable { cluster: CLUSTER, nodes: Vec::new(), leaders }))
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

pub fn answer(out: &mut Vec<u8>, id: RequestId, at: EntryId, answer: Answer<'_>) {
    Reply { id, at, result: Ok(answer) }.encode(out);
}

pub fn refuse(out: &mut Vec<u8>, id: RequestId, code: Code, leader: Option<u64>) {
    let refusal = Refusal { code, leader: leader.map(NodeId), message: "scripted" };
    Reply { id, at: EntryId::ZERO, result: Err(refusal) }.encode(out);
}

/// Answers anything as a node that leads all shards would.
pub fn serve(request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    serve_at(EntryId::new(1, 1), request, out)
}

/// The same, with the place in the log that the replies tell.
pub fn serve_at(at: EntryId, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let reply = match request.operation {
        Operation::Put { .. } => Answer::Put,
        Operation::Batch(_) => Answer::Batch { existed: Existed::default() },
        Operation::Get { .. } => Answer::Value { version: Index(1), value: b"v" },
        _ => Answer::Pong,
    };
    answer(out, request.id, at, reply);
    Next::Go
}
