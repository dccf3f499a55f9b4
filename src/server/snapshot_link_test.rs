//! A connection to a source that has sent more than is read in one turn, and the end of its stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use mio::Token;
use raftkv_protocol::hello::{Auth, HelloReply, VERSION_MAX};
use raftkv_protocol::peer::{ChunkResult, PeerFrame, SnapshotChunk};
use raftkv_protocol::types::{CoreId, Incarnation, NodeId, ShardId, SnapshotId};

use super::fetcher::Verdict;
use super::node::Node;
use super::records::Record;
use super::router_test::Cluster;
use super::snapshot_link::SnapshotLink;
use crate::socket::{Network, Socket};

const SOURCE: NodeId = NodeId(2);
const PIECE: usize = 60_000;
const PIECES: usize = 5;
/// What a turn may read, and what may be read beyond that.
const TURN: usize = (128 << 10) + (64 << 10);

/// What the source has sent, and whether it sends no more.
#[derive(Clone, Debug, Default)]
struct Sent(Rc<RefCell<(VecDeque<u8>, bool)>>);

impl Socket for Sent {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (bytes, ends) = &mut *self.0.borrow_mut();
        if bytes.is_empty() && !*ends {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buffer.len().min(bytes.len());
        bytes.drain(..length).zip(buffer).for_each(|(byte, place)| *place = byte);
        Ok(length)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn is_connected(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn remote(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Network for Sent {
    type Socket = Sent;

    fn dial(&mut self, _: SocketAddr, _: Token) -> io::Result<Sent> {
        Ok(self.clone())
    }

    fn accept(&mut self) -> io::Result<Sent> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn register(&mut self, _: &mut Sent, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &mut Sent) -> io::Result<()> {
        Ok(())
    }
}

impl Sent {
    /// A welcome, and then pieces.
    fn pieces(node: &Node) -> Sent {
        let mut out = Vec::new();
        let welcome = HelloReply::Welcome {
            version: VERSION_MAX,
            cluster: node.cluster,
            node: SOURCE,
            incarnation: Incarnation(2),
            shards: node.config.shards,
            cores: 1,
            features: 0,
            http: "",
            auth: Auth::default(),
        };
        welcome.encode(&mut out);
        for number in 0..PIECES {
            let result = ChunkResult::Ok { total: (PIECES * PIECE) as u64, bytes: &[7; PIECE] };
            let offset = (number * PIECE) as u64;
            let chunk = SnapshotChunk { shard: ShardId(0), id: SnapshotId(1), offset, result };
            PeerFrame::SnapshotChunk(chunk).encode(&mut out);
        }
        Sent(Rc::new(RefCell::new((out.into(), false))))
    }

    fn left(&self) -> usize {
        self.0.borrow().0.len()
    }
}

/// A link that has dialled its source.
fn dialled(node: &Node, network: &mut Sent) -> SnapshotLink<Sent> {
    let now = Instant::now();
    node.records.want(Record::Peer(SOURCE, Incarnation(2)));
    assert!(node.records.work(|_| Ok(Some(Incarnation(2)))), "its data directory is on record");
    let mut link = SnapshotLink::new(Token(1), now);
    assert!(link.source(SOURCE, network).is_none(), "it is dialled first");
    link.tick(node, CoreId(0), network, now);
    link
}

/// One turn: whether the connection stands, and how many pieces came.
fn turn(link: &mut SnapshotLink<Sent>, node: &Node, network: &mut Sent) -> (bool, usize) {
    let (mut pieces, mut scratch) = (0, vec![0; 1 << 20]);
    let before = network.left();
    let stands = link.ready(node, &mut network.clone(), &mut scratch, |_| {
        pieces += 1;
        Verdict::Fine
    });
    assert!(before - network.left() <= TURN, "{} bytes in one turn", before - network.left());
    (stands, pieces)
}

#[test]
fn what_a_turn_leaves_is_read_in_the_next_although_the_poll_says_nothing() {
    let cluster = Cluster::with(|_| ());
    let node = &cluster.nodes[0].0.node;
    let mut network = Sent::pieces(node);
    let mut link = dialled(node, &mut network);
    assert!(!link.has_unread());
    link.note(false);
    let mut pieces = Vec::new();
    while link.has_unread() {
        let (stands, came) = turn(&mut link, node, &mut network);
        assert!(stands);
        pieces.push(came);
    }
    assert_eq!((pieces.iter().sum::<usize>(), network.left()), (PIECES, 0), "{pieces:?}");
    assert!(pieces.len() > 1, "{pieces:?}");
    assert_eq!(link.deadline(), None);
}

#[test]
fn an_end_that_the_poll_has_told_once_is_come_to_in_a_later_turn() {
    let cluster = Cluster::with(|_| ());
    let node = &cluster.nodes[0].0.node;
    let mut network = Sent::pieces(node);
    network.0.borrow_mut().1 = true;
    let mut link = dialled(node, &mut network);
    link.note(true);
    let mut pieces = 0;
    loop {
        assert!(link.has_unread(), "the end is still to come, after {pieces} pieces");
        let (stands, came) = turn(&mut link, node, &mut network);
        pieces += came;
        if !stands {
            break;
        }
    }
    assert_eq!(pieces, PIECES);
}
