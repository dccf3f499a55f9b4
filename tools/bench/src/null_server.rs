//! A server without Raft and without a disk: answers the same frames, as long as the real ones, at once.
//!
//! It reads and writes as the real loop does (a shared read buffer, stop at a short read, all input of a turn first and
//! then one write per connection), so that the distance between the two is what replication and durability cost, and
//! not how the sockets are used. Nothing that is put is kept.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use raftkv_protocol::client::{Answer, Code, Item, Operation, Page, Refusal, Reply, Request, SlotTable, Status};
use raftkv_protocol::frame::Frame;
use raftkv_protocol::hello::{Auth, Hello, HelloReply, VERSION_MAX};
use raftkv_protocol::kind;
use raftkv_protocol::types::{ClusterId, EntryId, Incarnation, Index, NodeId, Term};
use socket2::{Domain, Protocol, Socket, Type};

use crate::args::NullServer;
use crate::link::{Link, READ_BUFFER_LEN, garbled};

const LISTENER: Token = Token(usize::MAX);
/// A burst of connects must not wait for the loop.
const BACKLOG: i32 = 4096;

/// Serves until the process is killed. Prints one line once it listens.
pub fn serve(args: &NullServer) -> io::Result<()> {
    let own = args.cluster.iter().find(|(id, _)| *id == args.node_id).map(|&(_, address)| address);
    let address = args.listen.or(own).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7101)));
    let mut listener = listen(address)?;
    let address = listener.local_addr()?;
    let members = if args.cluster.is_empty() { vec![(args.node_id, address)] } else { args.cluster.clone() };
    let mut server = Server { answers: Answers::new(args, &members), conns: Vec::new(), free: Vec::new() };
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("null server node={} listen={address}", args.node_id);
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BUFFER_LEN];
    let mut touched = Vec::new();
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener, &poll)?,
                Token(number) => {
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        server.read(number, &mut buffer);
                    }
                    touched.push(number);
                }
            }
        }
        for number in touched.drain(..) {
            server.flush(number);
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[derive(Debug)]
struct Server {
    answers: Answers,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Conn {
    link: Link,
    greeted: bool,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let number = self.free.pop().unwrap_or(self.conns.len());
            if number == self.conns.len() {
                self.conns.push(None);
            }
            let link = Link::new(stream, poll.registry(), Token(number))?;
            self.conns[number] = Some(Conn { link, greeted: false });
        }
    }

    fn read(&mut self, number: usize, buffer: &mut Vec<u8>) {
        let Some(Conn { link, greeted }) = &mut self.conns[number] else { return };
        let answers = &mut self.answers;
        let result = link.receive(buffer, |frame, out| {
            if *greeted {
                return answers.answer(frame, out);
            }
            *greeted = true;
            answers.greet(frame, out)
        });
        if result.is_err() {
            self.close(number);
        }
    }

    fn flush(&mut self, number: usize) {
        if let Some(conn) = &mut self.conns[number]
            && conn.link.flush().is_err()
        {
            self.close(number);
        }
    }

    fn close(&mut self, number: usize) {
        self.conns[number] = None;
        self.free.push(number);
    }
}

/// What is answered.
#[derive(Debug)]
struct Answers {
    node: NodeId,
    table: SlotTable,
    value: Vec<u8>,
    /// Counts the puts, as the index of a log would.
    index: u64,
}

impl Answers {
    fn new(args: &NullServer, members: &[(u64, SocketAddr)]) -> Answers {
        let nodes: Vec<(NodeId, String)> =
            members.iter().map(|&(id, address)| (NodeId(id), address.to_string())).collect();
        let leader = |shard: u16| Some(nodes[usize::from(shard) % nodes.len()].0);
        Answers {
            node: NodeId(args.node_id),
            table: SlotTable {
                cluster: ClusterId::derive("null", &nodes, args.shards),
                leaders: (0..args.shards).map(|shard| (leader(shard), Term(1))).collect(),
                nodes,
            },
            value: vec![b'x'; args.value_size as usize],
            index: 0,
        }
    }

    fn greet(&self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        Hello::decode(frame.kind, frame.payload).map_err(garbled)?;
        let welcome = HelloReply::Welcome {
            version: VERSION_MAX,
            cluster: self.table.cluster,
            node: self.node,
            incarnation: Incarnation(1),
            shards: self.table.leaders.len() as u16,
            cores: 1,
            features: 0,
            http: "",
            auth: Auth::default(),
        };
        welcome.encode(out);
        Ok(())
    }

    fn answer(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let request = Request::decode(frame.kind, frame.payload).map_err(garbled)?;
        self.index += u64::from(frame.kind == kind::PUT);
        let at = EntryId::new(self.index, 1);
        let result = match request.operation {
            Operation::Put { .. } => Ok(Answer::Put),
            Operation::Delete { .. } => Ok(Answer::Deleted { existed: true }),
            Operation::Get { .. } => Ok(Answer::Value { version: Index(self.index), value: &self.value }),
            Operation::Scan(scan) => {
                let item = Item { key: scan.start, version: Index(self.index), value: &self.value };
                Ok(Answer::Page(Page { items: vec![item; scan.limit as usize], more: true }))
            }
            Operation::Slots => Ok(Answer::Slots(self.table.clone())),
            Operation::Status => Ok(Answer::Status(Box::new(self.status()))),
            Operation::Ping => Ok(Answer::Pong),
            _ => Err(Refusal { code: Code::BadRequest, leader: None, message: "not known to the null server" }),
        };
        Reply { id: request.id, at, result }.encode(out);
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            cluster: self.table.cluster,
            node: self.node,
            incarnation: Incarnation(1),
            version: concat!("null ", env!("CARGO_PKG_VERSION")).into(),
            nodes: self.table.nodes.clone(),
            ..Status::default()
        }
    }
}
