//! From settings to running cores, and from a signal to the end.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use mio::{Poll, Waker};
use raftkv_protocol::types::{CoreId, Incarnation, NodeId, ShardId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{self, Config};
use crate::error::Fatal;
use crate::event_loop::{Inbox, InboxSender, bind_listener, inbox, prove_free};
use crate::limits;
use crate::raft::{self, Raft};
use crate::shard::Shard;
use crate::storage::data_dir::DataDir;
use crate::storage::{self, FileLog, LogIo, RecoveredShard};

use super::core_loop::{CoreLoop, Parts};
use super::io::{Post, WAKER};
use super::message::ReplyTo;
use super::node::{Admission, LeaderTable, Node, Peer};
use super::router::Router;

/// A second signal so soon is the same one, sent to the process and to its group.
const SIGNAL_ECHO: Duration = Duration::from_millis(500);
/// How long to wait for an address that is in use.
const LISTEN_PATIENCE: Duration = Duration::from_secs(2);
/// Open files of the process as a whole.
const FILES_RESERVED: usize = 24;
/// Open files of a core: its poll, its listener, its links, its log.
const FILES_PER_CORE: usize = 24;
/// Sockets beyond the clients' limit that are accepted: peers, and whoever has not said hello yet.
const SOCKETS_BESIDE_CLIENTS: usize = 1_024;
/// Messages that may wait for a core.
const INBOX_MESSAGES: usize = 16 << 10;
/// Unanswered bytes of entries to one follower of one shard.
const INFLIGHT_BYTES_MAX: usize = 8 << 20;
/// Unanswered appends to one follower of one shard.
const INFLIGHT_MESSAGES_MAX: usize = 256;

/// What the main thread waits for.
enum Event {
    Signal,
    Ended(CoreId, Result<(), Fatal>),
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT) or fails.
pub fn run(mut config: Config) -> Result<(), Fatal> {
    let listen = config.listen;
    wait_until_free(listen)?;
    let sockets_max = within_open_files(&mut config);
    let node = Arc::new(open_node(config, sockets_max)?);
    let mailboxes = mailboxes(node.config.cores).map_err(|error| resource("an event loop", &error))?;
    let posts: Vec<_> = mailboxes.iter().map(|(_, _, sender, _)| sender.clone()).collect();
    let (events_in, events) = crossbeam_channel::unbounded();
    forward_signals(events_in.clone())?;
    let logs = open_logs(&node, &mailboxes)?;
    let epoch = Instant::now();
    for ((core, (poll, _, _, inbox)), (log, recovered)) in (0..).map(CoreId).zip(mailboxes).zip(logs) {
        let listener = bind_listener(listen).map_err(|error| cannot_listen(listen, &error))?;
        let shards = make_shards(&node, core, recovered, epoch)?;
        let router = Router::new(Arc::clone(&node), core, shards, log, random_u64()?, epoch);
        let parts = Parts { node: Arc::clone(&node), core, poll, listener, inbox, posts: posts.clone(), router };
        start_core(parts, events_in.clone())?;
    }
    announce(&node);
    supervise(&node, &posts, &events)
}

/// A process that was killed a moment ago may hold the address still, and whoever restarts it at once must not fail.
fn wait_until_free(listen: SocketAddr) -> Result<(), Fatal> {
    let give_up_at = Instant::now() + LISTEN_PATIENCE;
    loop {
        match prove_free(listen) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < give_up_at => pause(),
            Err(error) => return Err(cannot_listen(listen, &error)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing runs yet, and no event tells that an address is free")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

fn cannot_listen(listen: SocketAddr, error: &std::io::Error) -> Fatal {
    Fatal::failure(format!("cannot listen on {listen}: {error}; is another server running there? (--listen)"))
}

/// Asks for as many open files as the system grants, and takes no more clients than leave room for everything else.
/// Returns how many sockets may be accepted: clients, peers, and whoever has not said hello yet.
fn within_open_files(config: &mut Config) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the limit of open files: {error}");
    }
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX));
    let reserved = FILES_RESERVED + usize::from(config.cores) * FILES_PER_CORE;
    let sockets = files.saturating_sub(reserved).max(1);
    let clients = sockets - sockets / 4;
    if clients < config.limits.connections_max {
        log::warn!("only {files} files may be open: taking {clients} clients at most (ulimit -n, --connections-max)");
        config.limits.connections_max = clients;
    }
    sockets.min(config.limits.connections_max + SOCKETS_BESIDE_CLIENTS)
}

type Mailbox = (Poll, Arc<Waker>, InboxSender<Post>, Inbox<Post>);

fn mailboxes(cores: u16) -> std::io::Result<Vec<Mailbox>> {
    (0..cores)
        .map(|_| {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
            let (sender, receiver) = inbox(INBOX_MESSAGES, Arc::clone(&waker));
            Ok((poll, waker, sender, receiver))
        })
        .collect()
}

fn open_node(config: Config, sockets_max: usize) -> Result<Node, Fatal> {
    let cluster = config.cluster_id();
    let peers = resolve_peers(&config)?;
    let data_dir = DataDir::open(&config.data_dir, &config.identity())?;
    Ok(Node {
        cluster,
        incarnation: data_dir.incarnation(),
        admission: Admission::new(data_dir.is_admitted(), peers.iter().map(|peer| peer.id)),
        peers,
        leaders: LeaderTable::new(config.shards),
        connections: AtomicUsize::new(0),
        sockets: AtomicUsize::new(0),
        sockets_max,
        stopping: AtomicBool::new(false),
        data_dir: Mutex::new(data_dir),
        config,
    })
}

fn resolve_peers(config: &Config) -> Result<Vec<Peer>, Fatal> {
    let others = config.initial_cluster.iter().filter(|(id, _)| *id != config.node_id);
    others.map(|(id, address)| Ok(Peer { id: *id, address: resolve(*id, address)? })).collect()
}

fn resolve(id: NodeId, address: &str) -> Result<SocketAddr, Fatal> {
    let unusable = |why: &str| {
        Fatal::usage(format!("the address {address} of node {id} cannot be used: {why}; it should be HOST:PORT"))
    };
    let mut found = address.to_socket_addrs().map_err(|error| unusable(&error.to_string()))?;
    found.next().ok_or_else(|| unusable("the name has no address"))
}

fn open_logs(node: &Node, mailboxes: &[Mailbox]) -> Result<Vec<(FileLog, Vec<RecoveredShard>)>, Fatal> {
    let mut data_dir = node.data_dir.lock().map_err(|_| Fatal::failure("the data directory is in an unknown state"))?;
    let open = |(core, (_, waker, _, _)): (CoreId, &Mailbox)| {
        let waker = Arc::clone(waker);
        let wake: storage::Wake = Arc::new(move || {
            if let Err(error) = waker.wake() {
                log::error!("cannot wake an event loop: {error}");
            }
        });
        let shards = shards_of(&node.config, core).collect();
        let mut options = storage::Options::new(data_dir.log_dir(core), shards, wake);
        options.segment_size = node.config.segment_size;
        options.io = match node.config.log_io {
            config::LogIo::Map => LogIo::Map,
            config::LogIo::Direct => LogIo::Direct,
        };
        FileLog::open(options).map_err(|error| Fatal::failure(error.to_string()))
    };
    let logs = (0..).map(CoreId).zip(mailboxes).map(open).collect::<Result<_, _>>()?;
    data_dir.logs_have_begun()?;
    Ok(logs)
}

fn shards_of(config: &Config, core: CoreId) -> impl Iterator<Item = ShardId> {
    (core.0..config.shards).step_by(usize::from(config.cores)).map(ShardId)
}

fn make_shards(
    node: &Node,
    core: CoreId,
    recovered: Vec<RecoveredShard>,
    epoch: Instant,
) -> Result<Vec<Shard<ReplyTo>>, Fatal> {
    let incarnation = Incarnation(random_u64()?);
    let make = |(id, recovered): (ShardId, RecoveredShard)| {
        let RecoveredShard { hard_state, start, entries } = recovered;
        let config = raft::Config {
            id: node.config.node_id,
            shard: id,
            voters: node.config.initial_cluster.iter().map(|(id, _)| *id).collect(),
            incarnation,
            heartbeat: node.config.heartbeat,
            election_timeout: node.config.election_timeout,
            epoch,
            seed: random_u64()?,
            append_bytes_max: limits::APPEND_BYTES_MAX,
            inflight_bytes_max: INFLIGHT_BYTES_MAX,
            inflight_messages_max: INFLIGHT_MESSAGES_MAX,
            preferred: node.preferred_leader(id) == node.config.node_id,
        };
        let raft = Raft::new(config, raft::Recovered { hard_state, start, entries }, epoch);
        Ok(Shard::new(id, raft, node.config.limits.uncommitted_bytes_max))
    };
    shards_of(&node.config, core).zip(recovered).map(make).collect()
}

fn start_core(parts: Parts, events: Sender<Event>) -> Result<(), Fatal> {
    let core = parts.core;
    let body = move || {
        let ended = CoreLoop::new(parts).map_err(|error| resource("an event loop", &error)).and_then(CoreLoop::run);
        // The main thread listens as long as the process lives.
        events.send(Event::Ended(core, ended)).ok();
    };
    let thread = std::thread::Builder::new().name(format!("core-{core}")).spawn(body);
    thread.map(|_| ()).map_err(|error| resource("a thread", &error))
}

fn forward_signals(events: Sender<Event>) -> Result<(), Fatal> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| resource("a signal handler", &error))?;
    let body = move || {
        for _ in signals.forever() {
            if events.send(Event::Signal).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(body);
    thread.map(|_| ()).map_err(|error| resource("a thread", &error))
}

/// The one line that programs wait for.
fn announce(node: &Node) {
    let Config { node_id, listen, shards, cores, .. } = &node.config;
    let pid = std::process::id();
    let line = format!(
        "raftkv-server listening node={node_id} client={listen} cluster={} shards={shards} cores={cores} pid={pid}",
        node.cluster
    );
    // Whoever closed our standard output does not want the line.
    writeln!(std::io::stdout(), "{line}").ok();
}

/// Waits for the cores. The first failure ends the process; a signal asks all of them to end.
fn supervise(node: &Node, posts: &[InboxSender<Post>], events: &Receiver<Event>) -> Result<(), Fatal> {
    let mut running = posts.len();
    let mut told_at = None;
    while let Ok(event) = events.recv() {
        match event {
            Event::Signal if told_at.is_some_and(|at: Instant| at.elapsed() < SIGNAL_ECHO) => {}
            Event::Signal if node.is_stopping() => {
                return Err(Fatal::failure("told to stop a second time: ended without finishing what was in flight"));
            }
            Event::Signal => {
                log::info!("stopping: handing leadership over and finishing what is in flight");
                told_at = Some(Instant::now());
                node.stopping.store(true, Ordering::Relaxed);
                for post in posts {
                    post.answer(Post::Stop);
                }
            }
            Event::Ended(_, Err(fatal)) => return Err(fatal),
            Event::Ended(core, Ok(())) => {
                log::debug!("core {core} has ended");
                running -= 1;
                if running == 0 {
                    log::info!("stopped");
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn resource(what: &str, error: &std::io::Error) -> Fatal {
    Fatal::failure(format!("cannot make {what}: {error}; are there limits on threads or open files?"))
}

fn random_u64() -> Result<u64, Fatal> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes))
        .map_err(|error| Fatal::failure(format!("cannot draw random numbers from /dev/urandom: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}
