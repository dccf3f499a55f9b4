//! From settings to running cores, and from a signal to the end.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::net::TcpStream;
use mio::{Poll, Waker};
use raftkv_protocol::types::{CoreId, ShardId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::boottime;
use crate::config::Config;
use crate::error::Fatal;
use crate::event_loop::{Clock, Inbox, InboxSender, MioNetwork, Wake, bind_listener, prove_free, wake_through};
use crate::shard::snapshots::Stores;
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::{FileLog, LogIo, RecoveredShard};

use super::assembly::{
    FoundOrGone, Stored, ask_to_stop, find_snapshots, mailbox, router, snapshots, sockets_max, stored,
};
use super::core_loop::{CoreLoop, Parts};
use super::io::{HTTP, LISTENER, Post, WAKER};
use super::logs;
use super::node::{Node, Peer};
use super::reloading::Reloading;
use super::service_manager::ServiceManager;
use super::snapshot_threads;
use super::terminal::Terminal;

/// A second signal so soon is the same one, sent to the process and to its group.
const SIGNAL_ECHO: Duration = Duration::from_millis(500);
/// How long to wait for an address that is in use.
const LISTEN_PATIENCE: Duration = Duration::from_secs(2);
/// Open files of the process as a whole.
const FILES_RESERVED: usize = 24;
/// Open files of a core: its poll, its listener, its links, its log, its snapshots.
const FILES_PER_CORE: usize = 48;

/// What the main thread waits for.
enum Event {
    /// To stop.
    Stop,
    /// To read the settings again, or that the terminal has gone.
    HangUp,
    /// The settings have been read again.
    Reloaded,
    Ended(CoreId, Result<(), Fatal>),
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT, or its terminal has gone) or fails. When it is told to (SIGHUP), it
/// has the settings read again by `reload`, on a thread of its own.
pub fn run(mut config: Config, reload: impl FnMut() + Send + 'static) -> Result<(), Fatal> {
    let terminal = Terminal::at_start();
    let mut manager = ServiceManager::from_environment();
    manager.starting();
    let listen = config.listen;
    wait_until_free(listen, "--listen")?;
    if let Some(address) = config.http_listen {
        wait_until_free(address, "--http-listen")?;
    }
    let sockets_max = within_open_files(&mut config);
    let node = Arc::new(open_node(config, sockets_max)?);
    let seats = seats(&node.config).map_err(|error| resource("an event loop", &error))?;
    let posts: Vec<_> = seats.iter().map(|seat| seat.post.clone()).collect();
    let (events_in, events) = crossbeam_channel::unbounded();
    forward_signals(events_in.clone())?;
    let reloading = start_reloading(reload, events_in.clone())?;
    let wakes: Vec<_> = seats.iter().map(|seat| Arc::clone(&seat.wake)).collect();
    let logs = logs::open(&node, &wakes)?;
    let stores = open_snapshots(&node)?;
    let stored = load_snapshots(&node, logs, &stores)?;
    start_records(&node)?;
    let epoch = boottime::now();
    for ((core, seat), stored) in (0..).map(CoreId).zip(seats).zip(stored) {
        let network = network(&seat.poll, &node.config)?;
        let (snapshots, worker) = snapshots(&node, &stores, Arc::clone(&seat.wake));
        snapshot_threads::start(core, worker).map_err(|error| resource("a thread", &error))?;
        let router = router(&node, core, stored, snapshots, random_u64()?, epoch)?;
        let parts = Parts {
            node: Arc::clone(&node),
            core,
            network,
            inbox: seat.inbox,
            posts: posts.clone(),
            router,
            wake: seat.wake,
        };
        start_core(parts, seat.poll, events_in.clone())?;
    }
    announce(&node);
    Supervisor { node, posts, terminal, manager, reloading }.run(&events)
}

/// A process that was killed a moment ago may hold the address still, and whoever restarts it at once must not fail.
fn wait_until_free(listen: SocketAddr, flag: &str) -> Result<(), Fatal> {
    let give_up_at = Instant::now() + LISTEN_PATIENCE;
    loop {
        match prove_free(listen) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < give_up_at => pause(),
            Err(error) => return Err(cannot_listen(listen, flag, &error)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing runs yet, and no event tells that an address is free")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

fn cannot_listen(listen: SocketAddr, flag: &str, error: &std::io::Error) -> Fatal {
    Fatal::failure(format!("cannot listen on {listen}: {error}; is another server running there? ({flag})"))
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
    sockets.min(sockets_max(&config.limits))
}

/// Where a core's thread sleeps, and how it is woken and written to.
struct Seat {
    poll: Poll,
    wake: Wake,
    post: InboxSender<Post<TcpStream>>,
    inbox: Inbox<Post<TcpStream>>,
}

fn seats(config: &Config) -> std::io::Result<Vec<Seat>> {
    (0..config.cores)
        .map(|_| {
            let poll = Poll::new()?;
            let wake = wake_through(Waker::new(poll.registry(), WAKER)?);
            let (post, inbox) = mailbox(&config.limits, Arc::clone(&wake));
            Ok(Seat { poll, wake, post, inbox })
        })
        .collect()
}

fn network(poll: &Poll, config: &Config) -> Result<MioNetwork, Fatal> {
    let bind = |address, flag| bind_listener(address).map_err(|error| cannot_listen(address, flag, &error));
    let broken = |error| resource("an event loop", &error);
    let listener = bind(config.listen, "--listen")?;
    let registry = poll.registry().try_clone().map_err(broken)?;
    let mut network = MioNetwork::new(registry, listener, LISTENER).map_err(broken)?;
    if let Some(address) = config.http_listen.filter(|_| cfg!(feature = "http")) {
        network.listen_for_http(bind(address, "--http-listen")?, HTTP).map_err(broken)?;
    }
    Ok(network)
}

fn open_node(config: Config, sockets_max: usize) -> Result<Node, Fatal> {
    let peers = config.peer_addresses()?.into_iter().map(|(id, address)| Peer { id, address }).collect();
    let data_dir = DataDir::open(&config.data_dir, &config.identity())?;
    Ok(Node::new(config, peers, data_dir, sockets_max))
}

fn open_snapshots(node: &Node) -> Result<Stores, Fatal> {
    let disk_of = |shard| {
        let dir = node.data_dir().map_err(|fatal| std::io::Error::other(fatal.to_string()))?.snapshot_dir(shard);
        Ok(Arc::new(RealDisk::create(&dir, LogIo::Direct)?) as Arc<dyn Disk>)
    };
    Stores::open((0..node.config.shards).map(ShardId), disk_of).map_err(Fatal::failure)
}

/// Loads the newest snapshots of all shards, those of each core on a thread of its own.
fn load_snapshots(
    node: &Node,
    logs: Vec<(FileLog, Vec<RecoveredShard>)>,
    stores: &Stores,
) -> Result<Vec<Stored>, Fatal> {
    let found: Vec<Result<Vec<FoundOrGone>, Fatal>> = std::thread::scope(|scope| {
        let recovered = (0..).map(CoreId).zip(logs.iter().map(|(_, recovered)| recovered));
        let threads: Vec<_> = recovered
            .map(|(core, recovered)| scope.spawn(move || find_snapshots(node, core, recovered, stores)))
            .collect();
        let gone = || Err(Fatal::failure("a thread that loaded snapshots ended unexpectedly"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| gone())).collect()
    });
    let now_s = logs::seconds_now();
    let cores = (0..).map(CoreId).zip(logs.into_iter().zip(found));
    cores.map(|(core, (log, found))| stored(node, core, log, found?, now_s)).collect()
}

/// The small files of the data directory, which no loop waits for.
fn start_records(node: &Arc<Node>) -> Result<(), Fatal> {
    let node = Arc::clone(node);
    let thread = std::thread::Builder::new().name("records".to_owned()).spawn(move || node.keep_records());
    thread.map(|_| ()).map_err(|error| resource("a thread", &error))
}

fn start_core(parts: Parts<MioNetwork>, poll: Poll, events: Sender<Event>) -> Result<(), Fatal> {
    let core = parts.core;
    let body = move || {
        let ended = CoreLoop::new(parts, Clock::start()).run(poll);
        // The main thread listens as long as the process lives.
        events.send(Event::Ended(core, ended)).ok();
    };
    let thread = std::thread::Builder::new().name(format!("core-{core}")).spawn(body);
    thread.map(|_| ()).map_err(|error| resource("a thread", &error))
}

fn forward_signals(events: Sender<Event>) -> Result<(), Fatal> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| resource("a signal handler", &error))?;
    let body = move || {
        for signal in signals.forever() {
            let event = if signal == SIGHUP { Event::HangUp } else { Event::Stop };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(body);
    thread.map(|_| ()).map_err(|error| resource("a thread", &error))
}

fn start_reloading(reload: impl FnMut() + Send + 'static, events: Sender<Event>) -> Result<Reloading, Fatal> {
    // The main thread listens as long as the process lives.
    let done = move || drop(events.send(Event::Reloaded));
    Reloading::start(reload, done).map_err(|error| resource("a thread", &error))
}

/// The one line that programs wait for.
fn announce(node: &Node) {
    let Config { node_id, listen, http_listen, shards, cores, .. } = &node.config;
    let http = http_listen.map_or("off".to_owned(), |address| address.to_string());
    let pid = std::process::id();
    let line = format!(
        "raftkv-server listening node={node_id} client={listen} http={http} cluster={} shards={shards} cores={cores} pid={pid}",
        node.cluster
    );
    // Whoever closed our standard output does not want the line.
    writeln!(std::io::stdout(), "{line}").ok();
}

/// What the main thread does while the cores run.
struct Supervisor {
    node: Arc<Node>,
    posts: Vec<InboxSender<Post<TcpStream>>>,
    terminal: Terminal,
    manager: ServiceManager,
    reloading: Reloading,
}

impl Supervisor {
    /// Waits for the cores. The first failure ends the process; a signal asks all of them to end.
    fn run(mut self, events: &Receiver<Event>) -> Result<(), Fatal> {
        let mut running = self.posts.len();
        let mut told_at = None;
        while let Some(event) = self.next(events) {
            match event {
                Event::HangUp if !self.terminal.has_gone() => {
                    self.manager.reloading();
                    self.reloading.ask();
                }
                Event::Reloaded => {
                    if self.reloading.has_read() && !self.node.is_stopping() {
                        self.manager.reloaded();
                    }
                }
                Event::Stop | Event::HangUp if told_at.is_some_and(|at: Instant| at.elapsed() < SIGNAL_ECHO) => {}
                Event::Stop | Event::HangUp if self.node.is_stopping() => {
                    let words = "told to stop a second time: ended without finishing what was in flight";
                    return Err(Fatal::failure(words));
                }
                Event::Stop | Event::HangUp => {
                    log::info!("stopping: handing leadership over and finishing what is in flight");
                    told_at = Some(Instant::now());
                    self.manager.stopping();
                    ask_to_stop(&self.node, &self.posts);
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

    /// The next event. Meanwhile the service manager is told what it wants to know.
    fn next(&mut self, events: &Receiver<Event>) -> Option<Event> {
        loop {
            let Some(patience) = self.manager.patience().filter(|_| !self.node.is_stopping()) else {
                return events.recv().ok();
            };
            match events.recv_timeout(patience) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Timeout) => self.manager.tick(&self.node.vitals, boottime::now()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
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
