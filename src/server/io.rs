//! Everything of a core that is a socket or leads to another core: the way in for bytes and the way out for replies.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::Token;
use raftkv_protocol::client::{Answer, Refusal};
use raftkv_protocol::peer::{PeerFrame, SnapshotChunk};
use raftkv_protocol::types::{CoreId, EntryId, NodeId, RequestId};

use crate::event_loop::{Flushed, InboxSender, Input};
use crate::limits::{OVERHEAD_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MAX};
#[cfg(feature = "http")]
use crate::metrics::figures::Figures;
use crate::socket::{Network, Socket, Stream};

use super::connection::{Connection, Connections, Kind};
#[cfg(feature = "http")]
use super::exchanges::{Exchanges, Listener, Scraper};
use super::link::{Link, LinkEvent};
#[cfg(feature = "http")]
use super::message::ExchangeId;
use super::message::{Charge, ConnectionId, CoreMessage, Reader};
use super::node::Node;
use super::room::{Place, ReplyBytes, Room};
use super::snapshot_link::SnapshotLink;
use super::transport::Transport;

/// The poll's name for the waker.
pub(super) const WAKER: Token = Token(0);
/// The name of the readiness to accept connections.
pub const LISTENER: Token = Token(1);
const LINKS: usize = 2;
const CONNECTIONS: usize = 1 << 16;
/// The name of the connection on which snapshots are fetched.
const SNAPSHOTS: usize = CONNECTIONS - 1;

/// The name of the readiness to accept HTTP connections.
const HTTP_LISTENER: usize = CONNECTIONS - 2;
/// See [`HTTP_LISTENER`].
pub const HTTP: Token = Token(HTTP_LISTENER);
const HTTP_CONNECTIONS: usize = 1 << 32;

/// The name of an HTTP connection.
#[cfg(feature = "http")]
pub(super) fn http_token(place: usize) -> Token {
    Token(HTTP_CONNECTIONS + place)
}

/// What the answer to a question for a piece of a snapshot is taken to weigh.
pub(super) const PIECE_CHARGE: Charge = Charge::Other(SNAPSHOT_CHUNK_BYTES_MAX + OVERHEAD_BYTES_MAX as u32);

/// What a token of the poll stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Waker,
    Listener,
    Link(usize),
    Snapshots,
    Connection(usize),
    HttpListener,
    Http(usize),
}

impl From<Token> for Source {
    fn from(token: Token) -> Source {
        match token.0 {
            0 => Source::Waker,
            1 => Source::Listener,
            SNAPSHOTS => Source::Snapshots,
            HTTP_LISTENER => Source::HttpListener,
            link if link < CONNECTIONS => Source::Link(link - LINKS),
            slot if slot < HTTP_CONNECTIONS => Source::Connection(slot - CONNECTIONS),
            place => Source::Http(place - HTTP_CONNECTIONS),
        }
    }
}

/// From one core's thread to another's.
#[derive(Debug)]
pub(super) enum Post<S> {
    /// For the router.
    Message(CoreMessage),
    /// A connection that this core is to serve from now on.
    Adopt(Box<Adopted<S>>),
    /// Hand leadership over, finish what is in flight, and end.
    Stop,
}

impl<S> Post<S> {
    /// The bytes that a client's request takes in it. Raft bounds its own messages, and answers what was asked for.
    pub(super) fn request_bytes(&self) -> usize {
        match self {
            Post::Message(CoreMessage::Call(call)) => call.bytes(),
            _ => 0,
        }
    }
}

/// A connection on its way to another core, with what was read and not looked at, and what waits to be written.
#[derive(Debug)]
pub(super) struct Adopted<S> {
    pub(super) socket: S,
    pub(super) kind: Kind,
    pub(super) unread: Vec<u8>,
    pub(super) unsent: Vec<u8>,
}

/// The sockets of a core, and its ways to the other cores.
#[derive(Debug)]
pub(super) struct Io<N: Network> {
    pub(super) node: Arc<Node>,
    pub(super) network: N,
    pub(super) connections: Connections<N::Socket>,
    pub(super) links: Vec<Link<N::Socket>>,
    pub(super) snapshot_link: SnapshotLink<N::Socket>,
    /// By core, this one included.
    pub(super) posts: Vec<InboxSender<Post<N::Socket>>>,
    /// Connections with something to write.
    dirty: Vec<ConnectionId>,
    /// Connections to be read from in the next turn although the poll will not name them.
    pub(super) resumed: Vec<ConnectionId>,
    /// The newest link of each peer's core on which a leader has spoken: the closing of any other means nothing.
    pub(super) peer_links: BTreeMap<(NodeId, CoreId), ConnectionId>,
    /// The connection on which each core of a peer fetches snapshots.
    pub(super) fetchers: BTreeMap<(NodeId, CoreId), ConnectionId>,
    /// The newest link from each core of each peer.
    newest_links: BTreeMap<(NodeId, CoreId), ConnectionId>,
    /// Of all connections.
    reply_bytes: ReplyBytes,
    pub(super) replies_dropped: u64,
    pub(super) clients_open: u64,
    /// What came over HTTP and is not answered.
    #[cfg(feature = "http")]
    pub(super) exchanges: Exchanges,
    /// The bytes of replies over HTTP that were counted as unread.
    #[cfg(feature = "http")]
    http_unread: usize,
}

impl<N: Network> Io<N> {
    pub(super) fn new(node: Arc<Node>, network: N, posts: Vec<InboxSender<Post<N::Socket>>>, now: Instant) -> Io<N> {
        let link = |(at, peer): (usize, &super::node::Peer)| {
            Link::new(peer.clone(), Token(LINKS + at), node.config.limits.link_bytes_max, now)
        };
        let links = node.peers.iter().enumerate().map(link).collect();
        let reply_bytes = ReplyBytes::new(&node.config.limits);
        Io {
            node,
            network,
            connections: Connections::default(),
            links,
            snapshot_link: SnapshotLink::new(Token(SNAPSHOTS), now),
            posts,
            dirty: Vec::new(),
            resumed: Vec::new(),
            peer_links: BTreeMap::new(),
            fetchers: BTreeMap::new(),
            newest_links: BTreeMap::new(),
            reply_bytes,
            replies_dropped: 0,
            clients_open: 0,
            #[cfg(feature = "http")]
            exchanges: Exchanges::default(),
            #[cfg(feature = "http")]
            http_unread: 0,
        }
    }

    /// Takes a connection in, new or from another core.
    pub(super) fn add(&mut self, socket: N::Socket, kind: Kind, input: Input) -> std::io::Result<ConnectionId> {
        let remote = socket.remote()?;
        let id = self.connections.insert(Connection::new(socket, remote, kind, input));
        let token = Token(CONNECTIONS + id.slot as usize);
        let mut registered = Err(std::io::ErrorKind::NotFound.into());
        if let Some(connection) = self.connections.get(id)
            && let Some(socket) = Rc::get_mut(&mut connection.socket)
        {
            registered = self.network.register(socket, token);
        }
        match registered {
            Ok(()) => {
                self.node.sockets.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.connections.remove(id);
            }
        }
        registered.map(|()| id)
    }

    /// Forgets a connection and closes its socket. What it still waits for is answered to nobody.
    pub(super) fn close(&mut self, id: ConnectionId) -> Option<Connection<N::Socket>> {
        let mut connection = self.connections.remove(id)?;
        self.node.sockets.fetch_sub(1, Ordering::Relaxed);
        self.reply_bytes.count_unread(&mut connection.counted_bytes, 0);
        self.reply_bytes.write_off(&connection.debt);
        if let Some(place) = connection.place.take() {
            self.reply_bytes.leave(place);
        }
        if let Some(socket) = Rc::get_mut(&mut connection.socket)
            && let Err(error) = self.network.deregister(socket)
        {
            log::debug!("cannot deregister the connection from {}: {error}", connection.remote);
        }
        match connection.kind {
            Kind::Client => self.count_client(-1),
            Kind::Peer { node, core, .. } => {
                for links in [&mut self.peer_links, &mut self.newest_links] {
                    if links.get(&(node, core)) == Some(&id) {
                        links.remove(&(node, core));
                    }
                }
            }
            Kind::Snapshots { node, core } if self.fetchers.get(&(node, core)) == Some(&id) => {
                self.fetchers.remove(&(node, core));
            }
            Kind::Snapshots { .. } | Kind::Unknown => {}
        }
        Some(connection)
    }

    /// A core of a peer fetches snapshots on this connection from now on, and not on an earlier one: that is broken, even
    /// if nobody has noticed.
    pub(super) fn add_fetcher(&mut self, node: NodeId, core: CoreId, id: ConnectionId) {
        if let Some(earlier) = self.fetchers.insert((node, core), id) {
            self.close(earlier);
        }
    }

    /// A leader has spoken on a link from a peer's core, for the first time.
    pub(super) fn note_leader_link(&mut self, node: NodeId, core: CoreId, id: ConnectionId) {
        let newest = self.peer_links.entry((node, core)).or_insert(id);
        *newest = newer(*newest, id);
    }

    /// A peer's core sends on this link from now on.
    pub(super) fn add_link(&mut self, node: NodeId, core: CoreId, id: ConnectionId) {
        let newest = self.newest_links.entry((node, core)).or_insert(id);
        *newest = newer(*newest, id);
    }

    /// Whether a peer's core has made a newer link. What still comes on this one may be of a process that has ended, and
    /// that has said what its successor does not know any more, if its disk was damaged.
    pub(super) fn is_outdated(&self, node: NodeId, core: CoreId, id: ConnectionId) -> bool {
        self.newest_links.get(&(node, core)).is_some_and(|newest| *newest != id)
    }

    /// Counts a client that came or went.
    pub(super) fn count_client(&mut self, change: isize) {
        if change > 0 {
            self.clients_open += 1;
            self.node.connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.clients_open -= 1;
            self.node.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether the core has room for the reply to a request that a connection has brought. If it will have, the
    /// connection is not read from until then.
    pub(super) fn room(&mut self, id: ConnectionId, charge: Charge) -> Room {
        let Charge::Read(_) = charge else { return Room::Now };
        let room = self.reply_bytes.ask(Reader::Connection(id), charge.bytes());
        if let Room::Later(place) = room
            && let Some(connection) = self.connections.get(id)
        {
            (connection.paused, connection.place) = (true, Some(place));
        }
        room
    }

    /// Charges a request that is taken in.
    pub(super) fn charge(&mut self, id: ConnectionId, charge: Charge) {
        if let Some(connection) = self.connections.get(id) {
            connection.debt.add(charge);
            self.reply_bytes.add(charge);
        }
    }

    /// The bytes that wait for their readers, as they are counted.
    #[cfg(test)]
    pub(super) fn unread_bytes(&self) -> usize {
        self.reply_bytes.unread_bytes()
    }

    /// Whose read has waited longest for room, if it came before `end` and need not wait any more: a connection is to be
    /// read from now.
    pub(super) fn call(&mut self, end: Place) -> Option<Reader> {
        let reader = self.reply_bytes.call(end)?;
        if let Reader::Connection(id) = reader
            && let Some(connection) = self.connections.get(id)
        {
            (connection.paused, connection.place) = (false, None);
        }
        Some(reader)
    }

    /// The end of the queue of reads that wait for room.
    pub(super) fn queue_end(&self) -> Place {
        self.reply_bytes.end()
    }

    /// Whether a read that waits for room need not wait any more.
    pub(super) fn is_read_due(&self) -> bool {
        self.reply_bytes.is_due()
    }

    /// How many reads wait for room.
    pub(super) fn reads_waiting(&self) -> usize {
        self.reply_bytes.waiting()
    }

    /// Whether something waits for the end of the next turn to be written.
    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The connection has something to write at the end of the turn.
    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// One write for each connection with something to say. Returns the peers whose links broke.
    pub(super) fn flush(&mut self, now: Instant) -> Vec<NodeId> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.flush_connection(id);
        }
        self.dirty = dirty;
        let (node, network) = (&self.node, &mut self.network);
        let flushed =
            |link: &mut Link<_>| (link.flush_or_fall(node, network, now) == LinkEvent::Down).then_some(link.peer.id);
        self.links.iter_mut().filter_map(flushed).collect()
    }

    /// Whether every byte for clients is with the kernel.
    pub(super) fn is_flushed(&mut self) -> bool {
        let mut ids = self.connections.ids().into_iter();
        ids.all(|id| self.connections.get(id).is_none_or(|connection| connection.is_settled()))
    }

    fn flush_connection(&mut self, id: ConnectionId) {
        let limits = &self.node.config.limits;
        let Some(connection) = self.connections.get(id) else { return };
        connection.dirty = false;
        if connection.blocked {
            return;
        }
        let flushed = connection.output.flush(&mut Stream(&*connection.socket));
        self.reply_bytes.count_unread(&mut connection.counted_bytes, connection.output.waiting_bytes());
        match flushed {
            Ok(flushed) => connection.blocked = flushed == Flushed::Blocked,
            Err(error) => {
                log::debug!("cannot write to {}: {error}", connection.remote);
                self.close(id);
                return;
            }
        }
        if connection.closing && connection.output.waiting_bytes() == 0 {
            // Not closed yet: closing with unread input would reset the connection and take the last words with it.
            if connection.socket.shutdown_write().is_err() {
                self.close(id);
            }
        } else if connection.ended && connection.is_settled() {
            self.close(id);
        } else if connection.paused && connection.place.is_none() && connection.has_room(limits) {
            connection.paused = false;
            self.resumed.push(id);
        }
    }
}

/// The later of two connections. Generations count up, and around.
fn newer(one: ConnectionId, other: ConnectionId) -> ConnectionId {
    if other.generation.wrapping_sub(one.generation) < u32::MAX / 2 { other } else { one }
}

#[cfg(feature = "http")]
impl<N: Network> Io<N> {
    /// Whether there is room for the reply to a read that came over HTTP.
    pub(super) fn room_for(&mut self, reader: Reader, charge: Charge) -> Room {
        self.reply_bytes.ask(reader, charge.bytes())
    }

    /// Charges a request that came over HTTP, and remembers who waits for its outcome.
    pub(super) fn open_exchange(&mut self, exchange: ExchangeId, charge: Charge, listener: Listener) {
        self.reply_bytes.add(charge);
        self.exchanges.open(exchange, listener);
    }

    /// The same for whoever came for the node's figures.
    pub(super) fn open_scrape(&mut self, exchange: ExchangeId, charge: Charge, scraper: Scraper) {
        self.reply_bytes.add(charge);
        self.exchanges.open_scrape(exchange, scraper);
    }

    /// So many bytes of replies over HTTP wait for their readers.
    pub(super) fn count_http_unread(&mut self, bytes: usize) {
        self.reply_bytes.count_unread(&mut self.http_unread, bytes);
    }
}

impl<N: Network> Transport for Io<N> {
    fn reply(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        charge: Charge,
        at: EntryId,
        result: Result<Answer<'_>, Refusal<'_>>,
    ) {
        let limits = &self.node.config.limits;
        if let Some(found) = self.connections.get(connection) {
            if !found.reply(request, charge, at, result, limits) {
                self.replies_dropped += 1;
            }
            self.reply_bytes.count_unread(&mut found.counted_bytes, found.output.waiting_bytes());
            self.reply_bytes.settle(charge);
            self.mark_dirty(connection);
        }
    }

    #[cfg(feature = "http")]
    fn exchange(&mut self, exchange: ExchangeId, charge: Charge, at: EntryId, result: Result<Answer<'_>, Refusal<'_>>) {
        self.reply_bytes.settle(charge);
        self.exchanges.close(exchange, at, result);
    }

    #[cfg(feature = "http")]
    fn figures(&mut self, exchange: ExchangeId, charge: Charge, figures: Arc<Figures>) {
        self.reply_bytes.settle(charge);
        self.exchanges.show(exchange, figures);
    }

    fn peer(&mut self, node: NodeId) -> Option<&mut Vec<u8>> {
        self.links.iter_mut().find(|link| link.peer.id == node)?.buffer()
    }

    fn core(&mut self, core: CoreId, message: CoreMessage) -> Result<(), CoreMessage> {
        self.posts[usize::from(core.0)].send(Post::Message(message)).map_err(|post| match post {
            Post::Message(message) => message,
            Post::Adopt(_) | Post::Stop => unreachable!("a message was sent"),
        })
    }

    fn answer(&mut self, core: CoreId, message: CoreMessage) {
        self.posts[usize::from(core.0)].answer(Post::Message(message));
    }

    fn snapshot_chunk(&mut self, connection: ConnectionId, chunk: &SnapshotChunk<'_>) {
        if let Some(found) = self.connections.get(connection) {
            PeerFrame::SnapshotChunk(*chunk).encode(found.output.buffer());
            found.debt.settle(PIECE_CHARGE);
            self.reply_bytes.count_unread(&mut found.counted_bytes, found.output.waiting_bytes());
            self.reply_bytes.settle(PIECE_CHARGE);
            self.mark_dirty(connection);
        }
    }

    fn source(&mut self, node: NodeId) -> Option<&mut Vec<u8>> {
        self.snapshot_link.source(node, &mut self.network)
    }

    fn leave_source(&mut self) {
        self.snapshot_link.leave(&mut self.network);
    }
}
