//! A scripted node on a real socket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use raftkv_protocol::client::Request;

use super::scripted::{Greeting, Next, Scripted, Session, SharedTable, lock, table_of};

pub struct FakeNode {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    acceptor: Option<JoinHandle<()>>,
}

struct Inner {
    scripted: Scripted,
    closing: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
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
        let inner = Arc::new(Inner {
            scripted: Scripted::new(id, address, greeting, table, Box::new(script)),
            closing: AtomicBool::new(false),
            streams: Mutex::default(),
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
        self.inner.scripted.requests()
    }

    pub fn slots_requests(&self) -> usize {
        self.inner.scripted.slots_requests()
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
            serve(stream, &inner.scripted);
            inner.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(mut stream: TcpStream, scripted: &Scripted) {
    let mut session = Session::default();
    let mut chunk = [0; 4096];
    loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let mut out = Vec::new();
        let next = session.receive(scripted, &chunk[..read], &mut out);
        let written = stream.write_all(&out);
        if next == Next::HangUp || written.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}
