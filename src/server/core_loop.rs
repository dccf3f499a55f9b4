//! One core: where its event loop, the binary face and its router meet.
//!
//! A turn: read every ready socket until it is empty and hand the frames on; then, with the time read anew, let the
//! router drive its shards and hand the log's batch over; then one write per connection. Nothing in a turn waits for
//! the disk or for another core; only with `--log-sync inline` the loop itself brings the log's batch to the disk, when
//! all that could be sent was sent. [`CoreLoop::run`] waits for events between the turns; a simulator turns by hand.

mod incoming;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use raftkv_protocol::peer::SnapshotChunk;
use raftkv_protocol::types::CoreId;

use crate::error::Fatal;
use crate::event_loop::{Clock, Inbox, InboxSender, Input, MioNetwork, SCRATCH_BYTES, TimeoutQueue, Wake};
use crate::metrics::histogram::micros;
use crate::socket::{Network, Readiness};
use crate::storage::FileLog;

use super::connection::Kind;
use super::disk_watch::DiskWatch;
#[cfg(feature = "http")]
use super::http::{Http, Probes};
use super::io::{Adopted, Io, Post, Source};
use super::link::{Link, LinkEvent};
use super::message::{ConnectionId, Reader};
use super::node::Node;
use super::placement::Placement;
use super::promises::PromisesOnRecord;
use super::ready::CoreReadiness;
use super::repairs::Repairs;
use super::router::Router;

pub(super) use incoming::Fault;

/// The longest sleep of an idle loop.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The longest sleep while the node stops.
const SLEEP_MAX_STOPPING: Duration = Duration::from_millis(5);
/// After accepting failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that was told to go may take to go by itself.
const LINGER: Duration = Duration::from_secs(1);
/// An idle loop goes on so soon with what compaction has left in memory.
const RECLAIM_PAUSE: Duration = Duration::from_millis(1);

/// Where others dial this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Clients with the binary protocol, and peers.
    Binary,
    /// Whoever speaks HTTP.
    #[cfg(feature = "http")]
    Http,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There will be another.
    GoesOn,
    /// An ordered stop is complete but for the log, which is to be closed.
    Ended,
}

/// A core at work.
pub(super) struct CoreLoop<N: Network> {
    pub(super) node: Arc<Node>,
    core: CoreId,
    pub(super) clock: Clock,
    accept_again_at: Option<Instant>,
    #[cfg(feature = "http")]
    pub(super) http: Http<N::Socket>,
    pub(super) inbox: Inbox<Post<N::Socket>>,
    /// An empty list for what a turn takes out of it.
    taken_posts: Vec<Post<N::Socket>>,
    pub(super) router: Router<FileLog>,
    pub(super) io: Io<N>,
    scratch: Vec<u8>,
    hellos: TimeoutQueue<ConnectionId>,
    /// Connections that were told to go: what they still send is thrown away for a while, so that the last words reach them.
    lingering: TimeoutQueue<ConnectionId>,
    placement: Placement,
    pub(super) disk: DiskWatch,
    pub(super) repairs: Repairs,
    promises: PromisesOnRecord,
    /// The loop itself has synced the log at the end of the last turn: there are news for the next.
    pub(super) has_synced: bool,
    pub(super) stop_at: Option<Instant>,
    /// The node knows that all shards of this core have had a leader.
    readiness: CoreReadiness,
    /// While it stops: how many requests had come, and when the last of them was noticed.
    pub(super) last_request: (u64, Option<Instant>),
    /// While it stops: since when nothing is led here that somebody else could lead.
    pub(super) handed_over_at: Option<Instant>,
}

/// What a core is made from; unlike the loop itself it can be moved to its thread.
pub(super) struct Parts<N: Network> {
    pub(super) node: Arc<Node>,
    pub(super) core: CoreId,
    pub(super) network: N,
    pub(super) inbox: Inbox<Post<N::Socket>>,
    pub(super) posts: Vec<InboxSender<Post<N::Socket>>>,
    pub(super) router: Router<FileLog>,
    /// Makes the core turn.
    pub(super) wake: Wake,
}

impl<N: Network> CoreLoop<N> {
    pub(super) fn new(parts: Parts<N>, clock: Clock) -> CoreLoop<N> {
        let Parts { node, core, network, inbox, posts, mut router, wake } = parts;
        router.stopwatch = clock.stopwatch();
        #[cfg(not(feature = "http"))]
        drop(wake);
        let io = Io::new(Arc::clone(&node), network, posts, clock.now());
        CoreLoop {
            core,
            accept_again_at: None,
            #[cfg(feature = "http")]
            http: Http::new(&node.config, Arc::new(Probes(Arc::clone(&node))), wake, clock.now()),
            inbox,
            taken_posts: Vec::new(),
            repairs: Repairs::new(router.shards(), &node),
            promises: PromisesOnRecord::new(core, router.shards(), clock.now()),
            router,
            io,
            scratch: vec![0; SCRATCH_BYTES],
            hellos: TimeoutQueue::new(node.config.limits.hello_timeout),
            lingering: TimeoutQueue::new(LINGER),
            placement: Placement::new(Arc::clone(&node), clock.now()),
            disk: DiskWatch::new(node.config.slow_sync, clock.now()),
            has_synced: false,
            stop_at: None,
            readiness: CoreReadiness::default(),
            last_request: (0, None),
            handed_over_at: None,
            clock,
            node,
        }
    }

    /// Takes in what is ready and does all that it brings with it, up to one write per connection.
    pub(super) fn turn(&mut self, ready: impl Iterator<Item = Readiness>) -> Result<Turn, Fatal> {
        let begun = self.clock.refresh();
        let now = begun;
        if self.has_synced {
            // How long that took is known only now, while the batch still counts as in flight.
            self.watch_disk(now);
        }
        self.router.begin_turn(now);
        self.router.counters.turns += 1;
        #[cfg(feature = "http")]
        self.http.begin_turn();
        let mut events = 0;
        for ready in ready {
            events += 1;
            self.handle(ready);
        }
        self.router.counters.events += events;
        self.router.measures.turn_events.note(events);
        self.take_posts();
        for id in std::mem::take(&mut self.io.resumed) {
            self.receive(id);
        }
        self.resume_reads();
        // Timers are judged only now that everything that has arrived was taken in.
        let now = self.clock.refresh();
        self.tick_sockets(now);
        #[cfg(feature = "http")]
        self.run_http(now);
        // HTTP has read its sockets only now, and a read by a lease needs a time that was read after it came.
        #[cfg(feature = "http")]
        let now = self.clock.refresh();
        self.router.finish_turn(now, &mut self.io)?;
        #[cfg(feature = "http")]
        self.poll_http(now);
        self.node.vitals.note(self.core, now, self.router.shards());
        self.readiness.tick(now, self.router.shards(), &self.node);
        self.repairs.tick(now, self.router.shards(), &self.node);
        self.promises.tick(now, &self.node);
        self.watch_disk(now);
        self.placement.tick(now, &mut self.router, &self.io);
        for peer in self.io.flush(now) {
            self.router.link_down(peer, &mut self.io);
        }
        if !self.io.snapshot_link.flush_or_fall(&mut self.io.network) {
            self.router.snapshot_source_lost();
        }
        self.reclaim_some();
        self.gather_counters();
        // Without a thread for it, the batch is placed and synced here: what was to leave the node before its own disk has
        // it has left.
        self.has_synced = self.router.log_mut().sync_inline(now);
        self.note_turn(begun);
        Ok(if self.has_stopped(now) { Turn::Ended } else { Turn::GoesOn })
    }

    /// Gives some memory back of what compaction has left, when all that was to leave has left.
    fn reclaim_some(&mut self) {
        if self.router.log().is_reclaimable() {
            let begun = self.router.begin_hold();
            self.router.log_mut().reclaim_some();
            self.router.end_hold(begun);
        }
        self.router.note_hold();
    }

    fn note_turn(&mut self, begun: Instant) {
        let ended = self.clock.refresh();
        let took = micros(ended - begun);
        self.router.measures.turn_times.note(took);
        self.router.measures.longest_turn.note(ended, took);
    }

    /// The core's log, after its last turn.
    pub(super) fn into_log(self) -> FileLog {
        self.router.into_log()
    }

    /// The time of the turn.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Which core this is.
    pub(super) fn core(&self) -> CoreId {
        self.core
    }

    /// Sets a clock that is set by hand.
    pub(super) fn set_time(&mut self, now: Instant) {
        self.clock.set(now);
    }

    /// Sets a clock that is set by hand, and that shows these times as it is read.
    pub(super) fn set_readings(&mut self, times: &[Instant]) {
        self.clock.set_readings(times);
    }

    /// When the next turn is due at the latest, if nothing comes in before.
    pub(super) fn wake_at(&self) -> Instant {
        let now = self.clock.now();
        let is_resumed = !self.io.resumed.is_empty() || self.io.is_read_due();
        if self.router.is_busy() || self.has_synced || is_resumed || self.io.has_dirty() || !self.inbox.is_empty() {
            return now;
        }
        let links = self.io.links.iter().filter_map(Link::deadline).chain(self.io.snapshot_link.deadline());
        let timers = [
            self.hellos.deadline(),
            self.lingering.deadline(),
            self.accept_again_at,
            self.stop_at,
            self.placement.deadline(),
            self.disk.deadline(),
            self.router.log().sync_inline_at(),
            self.router.log().is_reclaimable().then(|| now + RECLAIM_PAUSE),
            #[cfg(feature = "http")]
            self.http.deadline(now),
        ];
        let longest = now + if self.stop_at.is_some() { SLEEP_MAX_STOPPING } else { SLEEP_MAX };
        let due = links.chain(timers.into_iter().flatten()).chain([self.router.deadline()]);
        due.fold(longest, Instant::min).max(now)
    }

    fn handle(&mut self, ready: Readiness) {
        match Source::from(ready.token) {
            Source::Waker => {}
            Source::Listener => self.accept(Door::Binary),
            #[cfg(feature = "http")]
            Source::HttpListener => self.accept(Door::Http),
            #[cfg(feature = "http")]
            Source::Http(place) => self.http.note(place, &ready),
            #[cfg(not(feature = "http"))]
            Source::HttpListener | Source::Http(_) => {}
            Source::Link(at) => self.link_ready(at, ready.read_closed),
            Source::Snapshots => self.io.snapshot_link.note(ready.read_closed),
            Source::Connection(slot) => {
                let Some(id) = self.io.connections.at(slot) else { return };
                if let Some(connection) = self.io.connections.get(id) {
                    connection.read_closed |= ready.read_closed;
                    if ready.writable {
                        connection.blocked = false;
                        self.io.mark_dirty(id);
                    }
                }
                if ready.readable || ready.read_closed || ready.error {
                    self.receive(id);
                }
            }
        }
    }

    /// Accepts what has been dialled at a door.
    fn accept(&mut self, door: Door) {
        loop {
            let accepted = match door {
                Door::Binary => self.io.network.accept(),
                #[cfg(feature = "http")]
                Door::Http => self.io.network.accept_http(),
            };
            match (accepted, door) {
                (Ok(socket), Door::Binary) => self.welcome(socket),
                #[cfg(feature = "http")]
                (Ok(socket), Door::Http) => self.welcome_http(socket),
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => return,
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (Err(error), _) => {
                    // Most likely no file descriptors are left. The poll will not name the listener for what waits
                    // already: ask again by the clock.
                    log::warn!(
                        "cannot accept connections: {error}; trying again (is the limit of open files too low?)"
                    );
                    self.accept_again_at = Some(self.clock.now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, socket: N::Socket) {
        self.router.counters.connections_accepted += 1;
        if self.node.sockets.load(Ordering::Relaxed) >= self.node.sockets_max {
            // Dropping it closes it. A hello would say why, but whoever opens this many waits for no words.
            self.router.counters.connections_refused += 1;
            return;
        }
        match self.io.add(socket, Kind::Unknown, Input::default()) {
            Ok(id) => {
                self.hellos.push(self.clock.now(), id);
            }
            Err(error) => log::debug!("a connection was gone before it could be served: {error}"),
        }
    }

    fn take_posts(&mut self) {
        let mut posts = std::mem::take(&mut self.taken_posts);
        self.inbox.drain(|post| posts.push(post));
        if !posts.is_empty() {
            self.router.measures.inbox_depths.note(posts.len() as u64);
        }
        for post in posts.drain(..) {
            match post {
                Post::Message(message) => self.router.core_message(message, &mut self.io),
                Post::Adopt(adopted) => self.adopt(*adopted),
                Post::Stop => {
                    self.stop_at = Some(self.clock.now() + self.node.config.limits.stop_timeout);
                    #[cfg(feature = "http")]
                    self.http.stop();
                }
            }
        }
        self.taken_posts = posts;
    }

    fn adopt(&mut self, adopted: Adopted<N::Socket>) {
        let Adopted { socket, kind, unread, unsent } = adopted;
        match self.io.add(socket, kind, Input::with(unread)) {
            Ok(id) => {
                if let Some(connection) = self.io.connections.get(id) {
                    connection.output.buffer().extend_from_slice(&unsent);
                }
                self.settle(id, kind);
                self.io.mark_dirty(id);
                self.io.resumed.push(id);
            }
            Err(error) => log::debug!("a connection was gone before its core could serve it: {error}"),
        }
    }

    /// Books a connection whose hello was accepted and which stays at this core.
    pub(super) fn settle(&mut self, id: ConnectionId, kind: Kind) {
        match kind {
            Kind::Client => self.io.count_client(1),
            Kind::Snapshots { node, core } => self.io.add_fetcher(node, core, id),
            Kind::Peer { node, core, .. } => self.io.add_link(node, core, id),
            Kind::Unknown => {}
        }
    }

    fn tick_sockets(&mut self, now: Instant) {
        if self.accept_again_at.is_some_and(|at| at <= now) {
            self.accept_again_at = None;
            self.accept(Door::Binary);
            #[cfg(feature = "http")]
            self.accept(Door::Http);
        }
        while let Some(id) = self.hellos.pop_expired(now) {
            if self.io.connections.get(id).is_some_and(|connection| connection.kind == Kind::Unknown) {
                self.router.counters.hellos_timed_out += 1;
                self.io.close(id);
            }
        }
        while let Some(id) = self.lingering.pop_expired(now) {
            self.io.close(id);
        }
        for link in &mut self.io.links {
            link.tick(&self.node, self.core, &mut self.io.network, now);
        }
        if self.io.snapshot_link.has_unread() {
            self.snapshot_link_ready();
        }
        self.io.snapshot_link.tick(&self.node, self.core, &mut self.io.network, now);
    }

    /// Reads the connection on which snapshots are fetched.
    fn snapshot_link_ready(&mut self) {
        let now = self.clock.now();
        let CoreLoop { router, io, scratch, node, .. } = self;
        let begun = router.begin_hold();
        let take = |chunk: &SnapshotChunk<'_>| router.snapshot_chunk(chunk, now);
        if !io.snapshot_link.ready(node, &mut io.network, scratch, take) {
            router.snapshot_source_lost();
        }
        if io.snapshot_link.has_come() {
            router.snapshots.fetcher.bytes_came(now);
        }
        router.end_hold(begun);
    }

    fn link_ready(&mut self, at: usize, read_closed: bool) {
        let now = self.clock.now();
        let Some(link) = self.io.links.get_mut(at) else { return };
        let peer = link.peer.id;
        match link.ready(&self.node, &mut self.io.network, &mut self.scratch, read_closed, now) {
            LinkEvent::Nothing => {}
            LinkEvent::Up => self.router.link_up(peer),
            LinkEvent::Down => self.router.link_down(peer, &mut self.io),
        }
    }

    /// Goes on with the reads that have waited for room. Those that come to wait meanwhile have the next turn.
    fn resume_reads(&mut self) {
        let end = self.io.queue_end();
        while let Some(reader) = self.io.call(end) {
            match reader {
                Reader::Connection(id) => self.receive(id),
                #[cfg(feature = "http")]
                Reader::Exchange(exchange) => self.resume_question(exchange),
                #[cfg(not(feature = "http"))]
                Reader::Exchange(_) => {}
            }
        }
    }
}

impl CoreLoop<MioNetwork> {
    /// Turns until the node is told to stop, or fails. `poll` is the one behind the network.
    pub(super) fn run(mut self, mut poll: Poll) -> Result<(), Fatal> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let sleep = self.wake_at().saturating_duration_since(self.clock.now());
            match poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Fatal::failure(format!("cannot wait for events: {error}")));
                }
                _ => {}
            }
            if self.turn(events.iter().map(Readiness::from))? == Turn::Ended {
                return self.into_log().close().map_err(|error| Fatal::failure(error.to_string()));
            }
        }
    }
}

pub(super) fn is_full(node: &Node) -> bool {
    node.connections.load(Ordering::Relaxed) >= node.config.limits.connections_max
}
