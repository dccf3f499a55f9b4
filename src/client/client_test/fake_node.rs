//! A node for tests: it speaks the protocol over a real socket, and its answers are scripted.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use raftkv_protocol::client::{Answer, Code, Operation, Refusal, Reply, Request, SlotTable};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX};
use raftkv_protocol::hello::{Auth, Hello, HelloRefusal, HelloReply};
use raftkv_protocol::types::{ClusterId, EntryId, Incarnation, NodeId, RequestId, Term};

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

pub struct FakeNode {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    acceptor: Option<JoinHandle<()>>,
}

struct Inner {
    id: NodeId,
    greeting: Greeting,
    table: SharedTable,
    script: Box<Script>,
    closing: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    requests: AtomicUsize,
    slots_requests: AtomicUsize,
    open: AtomicUsize,
}

impl FakeNode {
    pub fn start(
        id: u64,
        table: &SharedTable,
        script: impl Fn(&Request<'_>, &mut Vec<u8>) -> Next + Send + Sync + 'static,
    ) -> FakeNode {
        FakeNode::start_at("127.0.0.1:0".parse().unwrap(), id, Greeting::Welcome, table, script)
    }

    pub fn greeting_with(greeting: Greeting) -> FakeNode {
        let any = "127.0.0.1:0".parse().unwrap();
        FakeNode::start_at(any, 1, greeting, &table_of(1), |_, _| Next::Go)
    }

    pub fn start_at(
        address: SocketAddr,
        id: u64,
        greeting: Greeting,
        table: &SharedTable,
        script: impl Fn(&Request<'_>, &mut Vec<u8>) -> Next + Send + Sync + 'static,
    ) -> FakeNode {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mut nodes = lock(table);
        nodes.nodes.retain(|(node, _)| *node != NodeId(id));
        nodes.nodes.push((NodeId(id), address.to_string()));
        drop(nodes);
        let inner = Arc::new(Inner {
            id: NodeId(id),
            greeting,
            table: Arc::clone(table),
            script: Box::new(script),
            closing: AtomicBool::new(false),
            streams: Mutex::default(),
            requests: AtomicUsize::new(0),
            slots_requests: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&inner);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        FakeNode { address, inner, acceptor: Some(acceptor) }
    }

    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Requests seen, apart from those for the slot table.
    pub fn requests(&self) -> usize {
        self.inner.requests.load(Ordering::SeqCst)
    }

    pub fn slots_requests(&self) -> usize {
        self.inner.slots_requests.load(Ordering::SeqCst)
    }

    pub fn open_connections(&self) -> usize {
        self.inner.open.load(Ordering::SeqCst)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        for stream in lock(&self.inner.streams).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // The acceptor looks at the flag when somebody connects.
        let _ = TcpStream::connect(self.address);
        let _ = self.acceptor.take().unwrap().join();
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

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        if inner.closing.load(Ordering::SeqCst) {
            return;
        }
        lock(&inner.streams).push(stream.try_clone().unwrap());
        let inner = Arc::clone(inner);
        thread::spawn(move || {
            inner.open.fetch_add(1, Ordering::SeqCst);
            serve(stream, &inner);
            inner.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(mut stream: TcpStream, inner: &Inner) {
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    let mut greeted = false;
    loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        input.extend_from_slice(&chunk[..read]);
        let mut out = Vec::new();
        let mut next = Next::Go;
        while let Some(frame) = frame::parse(&input, CLIENT_FRAME_MAX).unwrap() {
            if !greeted {
                Hello::decode(frame.kind, frame.payload).unwrap();
                next = inner.greet(&mut out);
                greeted = true;
            } else {
                next = inner.on_request(&Request::decode(frame.kind, frame.payload).unwrap(), &mut out);
            }
            let consumed = frame.consumed;
            input.drain(..consumed);
            if next == Next::HangUp {
                break;
            }
        }
        let written = stream.write_all(&out);
        if next == Next::HangUp || written.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

impl Inner {
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
                    features: 0,
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
