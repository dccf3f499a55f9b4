//! Several nodes on one machine as child processes of one launcher, for trying things out.
//!
//! The launcher starts the children, prints what they print, says what can be tried once all of them listen, and stops
//! them when it is told to stop. It knows a node by its command line, its output and its exit status only.
//!
//! **Invariants.**
//! - No child outlives the launcher, however the launcher ends.
//! - A child never waits for the launcher: lines that cannot be printed fast enough are dropped and counted, as a node
//!   whose output blocks would stop serving.
//! - A child that ends is not started again: that is for whoever watches to see and to do.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use raftkv_protocol::types::NodeId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{LocalCluster, LocalNode};
use crate::error::Fatal;

/// With this a child's line begins that says where it listens.
const LISTENING: &str = "raftkv-server listening ";
/// How long children may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the exit status of a child that has closed its output.
const EXIT_POLL: Duration = Duration::from_millis(10);
/// How many lines of the children may wait to be printed.
const LINES_MAX: usize = 4_096;

/// What the launcher waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// A child has printed a line.
    Line(NodeId, String),
    /// One of a child's two outputs has ended.
    Closed(NodeId),
    /// Somebody wants all of it to stop.
    Stop,
}

/// Runs the nodes until told to stop, or until all of them have ended.
pub fn run(cluster: LocalCluster) -> Result<(), Fatal> {
    let exe = env::current_exe().map_err(|error| Fatal::failure(format!("cannot find the own program: {error}")))?;
    let (events, inbox) = bounded(LINES_MAX);
    forward_signals(events.clone())?;
    let colour = if io::stdout().is_terminal() { Colour::On } else { Colour::Off };
    let output = Output { out: Box::new(io::stdout()), colour };
    Launcher::new(exe, output, events).run(cluster, &inbox)
}

fn forward_signals(events: Sender<Event>) -> Result<(), Fatal> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
    let mut signals = signals.map_err(|error| Fatal::failure(format!("cannot catch signals: {error}")))?;
    thread::spawn(move || {
        // The launcher's end of the channel lives as long as the process.
        for _ in signals.forever() {
            let _ = events.send(Event::Stop);
        }
    });
    Ok(())
}

/// The launcher's own process, seen from inside.
pub(super) struct Launcher {
    exe: PathBuf,
    output: Output,
    events: Sender<Event>,
    nodes: BTreeMap<NodeId, Node>,
    phase: Phase,
    dropped: Arc<AtomicU64>,
}

/// A child process that has not been reaped.
struct Node {
    plan: LocalNode,
    child: Child,
    listens: bool,
    /// How many of its two outputs are open.
    outputs_open: u8,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Not all nodes listen yet.
    Starting,
    /// All do, or did.
    Running,
    /// All are being stopped; killed at `deadline`.
    Stopping { deadline: Instant, because: Because },
}

#[derive(Clone, Debug)]
enum Because {
    Asked,
    Failed(String),
}

impl Launcher {
    pub(super) fn new(exe: PathBuf, output: Output, events: Sender<Event>) -> Launcher {
        let (nodes, dropped) = (BTreeMap::new(), Arc::default());
        Launcher { exe, output, events, nodes, phase: Phase::Starting, dropped }
    }

    pub(super) fn run(mut self, cluster: LocalCluster, inbox: &Receiver<Event>) -> Result<(), Fatal> {
        for plan in cluster.nodes {
            if matches!(self.phase, Phase::Starting) {
                self.start(plan);
            }
        }
        while !self.nodes.is_empty() {
            match inbox.recv_timeout(self.patience()) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the launcher holds a sender itself"),
            }
            self.reap();
            self.kill_if_late();
        }
        match self.phase {
            Phase::Stopping { because: Because::Asked, .. } => Ok(()),
            Phase::Stopping { because: Because::Failed(why), .. } => Err(Fatal::failure(why)),
            Phase::Starting | Phase::Running => Err(Fatal::failure("all nodes have ended")),
        }
    }

    fn start(&mut self, plan: LocalNode) {
        let id = plan.config.node_id;
        match spawn(&self.exe, &plan) {
            Ok(mut child) => {
                self.read(id, child.stdout.take());
                self.read(id, child.stderr.take());
                self.nodes.insert(id, Node { plan, child, listens: false, outputs_open: 2 });
            }
            Err(error) => self.stop(Because::Failed(format!("cannot start {}: {error}", self.exe.display()))),
        }
    }

    /// Turns an output of a child into events.
    fn read(&self, id: NodeId, output: Option<impl Read + Send + 'static>) {
        let (events, dropped) = (self.events.clone(), Arc::clone(&self.dropped));
        let output = BufReader::new(output.expect("the child was started with pipes"));
        thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                if events.try_send(Event::Line(id, String::from_utf8_lossy(&line).into_owned())).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            let _ = events.send(Event::Closed(id));
        });
    }

    /// How long to wait for the next event.
    fn patience(&self) -> Duration {
        if self.nodes.values().any(|node| node.outputs_open == 0) {
            return EXIT_POLL;
        }
        match self.phase {
            Phase::Stopping { deadline, .. } => deadline.saturating_duration_since(Instant::now()),
            Phase::Starting | Phase::Running => Duration::from_secs(3_600),
        }
    }

    fn handle(&mut self, event: Event) {
        let printed = match event {
            Event::Line(id, line) => {
                let printed = self.report_dropped().and_then(|()| self.output.node_line(id, &line));
                if line.starts_with(LISTENING) {
                    self.listens(id);
                }
                printed
            }
            Event::Closed(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.outputs_open -= 1;
                }
                Ok(())
            }
            Event::Stop if matches!(self.phase, Phase::Stopping { .. }) => {
                self.kill_all();
                Ok(())
            }
            Event::Stop => {
                self.stop(Because::Asked);
                self.output.own_line("stopping all nodes; once more to kill them")
            }
        };
        // Nobody reads any more: there is no point in going on.
        if printed.is_err() {
            self.stop(Because::Asked);
        }
    }

    fn report_dropped(&mut self) -> io::Result<()> {
        match self.dropped.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            lines => self.output.own_line(&format!("{lines} lines were not printed, as they came too fast")),
        }
    }

    fn listens(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.listens = true;
        }
        if matches!(self.phase, Phase::Starting) && self.nodes.values().all(|node| node.listens) {
            self.phase = Phase::Running;
            let banner = self.banner();
            if self.output.text(&banner).is_err() {
                self.stop(Because::Asked);
            }
        }
    }

    /// Takes the exit status of children that have ended and whose lines are printed.
    fn reap(&mut self) {
        let closed = self.nodes.iter_mut().filter(|(_, node)| node.outputs_open == 0);
        let ended: Vec<(NodeId, ExitStatus)> = closed
            .filter_map(|(id, node)| Some((*id, node.child.try_wait().expect("a child can be waited for")?)))
            .collect();
        for (id, status) in ended {
            let node = self.nodes.remove(&id).expect("it was just found");
            self.ended(id, &node.plan, status);
        }
    }

    fn ended(&mut self, id: NodeId, plan: &LocalNode, status: ExitStatus) {
        let line = match &self.phase {
            Phase::Stopping { .. } if status.success() => return,
            Phase::Stopping { .. } => format!("node{id} ended: {status}"),
            Phase::Starting => {
                self.stop(Because::Failed(format!("node{id} did not start ({status}): its last line says why")));
                return;
            }
            Phase::Running => {
                let command = shell_line(&self.exe, &plan.args);
                format!("node{id} ended: {status}; to start it again, in another terminal: {command}")
            }
        };
        if self.output.own_line(&line).is_err() {
            self.stop(Because::Asked);
        }
    }

    /// Asks all children to stop, once.
    fn stop(&mut self, because: Because) {
        if matches!(self.phase, Phase::Stopping { .. }) {
            return;
        }
        self.phase = Phase::Stopping { deadline: Instant::now() + STOP_TIMEOUT, because };
        for node in self.nodes.values() {
            terminate(&node.child);
        }
    }

    fn kill_if_late(&mut self) {
        if matches!(self.phase, Phase::Stopping { deadline, .. } if Instant::now() >= deadline) {
            self.kill_all();
        }
    }

    fn kill_all(&mut self) {
        for node in self.nodes.values_mut() {
            // An error means that it has ended by itself.
            let _ = node.child.kill();
        }
    }

    fn banner(&self) -> String {
        use std::fmt::Write;
        let mut text = match self.nodes.len() {
            1 => "\n1 node is up:\n".to_owned(),
            nodes => format!("\n{nodes} nodes are up:\n"),
        };
        let addresses: Vec<&str> = self.nodes.values().map(|node| node.plan.config.advertise.as_str()).collect();
        for (id, node) in &self.nodes {
            let (address, pid, data) =
                (&node.plan.config.advertise, node.child.id(), node.plan.config.data_dir.display());
            writeln!(text, "  node{id}  {address}  pid {pid}  data {data}").expect("strings can be written to");
        }
        let nc = neighbour(&self.exe, "raftkv-nc");
        let (first, last) = (addresses[0], addresses[addresses.len() - 1]);
        let victim = self.nodes.values().next().map_or(0, |node| node.child.id());
        let tries = [
            (format!("{nc} {first} put greeting hello"), "write through one node"),
            (format!("{nc} {last} get greeting"), "read through another"),
            (format!("{nc} {first} status"), "who leads what"),
            (format!("kill -9 {victim}"), "watch the others take over, and read again"),
        ];
        let width = tries.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
        text.push_str("In another terminal, try:\n");
        for (command, what) in tries {
            writeln!(text, "  {command:width$}   # {what}").expect("strings can be written to");
        }
        text.push_str("Ctrl-C stops all nodes. Their data stays.\n\n");
        text
    }
}

/// Starts a child with pipes for its output, bound to end with this thread's process.
pub(super) fn spawn(exe: &Path, plan: &LocalNode) -> io::Result<Child> {
    let mut command = Command::new(exe);
    command.args(&plan.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"RAFTKV_")) {
        command.env_remove(name);
    }
    // The service manager is told by the process that it has started, or by nobody.
    command.env_remove("NOTIFY_SOCKET");
    // A Ctrl-C at the terminal is for the launcher, which stops its children in its own way.
    command.process_group(0);
    die_with_parent(&mut command);
    command.spawn()
}

/// Makes the kernel kill the child when the thread that starts it ends, which is when the launcher ends.
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let bind = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a signal number, touches no memory, and is async-signal-safe.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the call; its signal would then never come.
        // SAFETY: getppid has no preconditions and is async-signal-safe.
        if unsafe { libc::getppid() }.cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls only async-signal-safe functions and allocates nothing:
    // the errors it makes are numbers.
    unsafe { command.pre_exec(bind) };
}

fn terminate(child: &Child) {
    // SAFETY: kill touches no memory. The child has not been waited for, so that its id is still its own.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
}

/// The path of another program of this package, if it lies beside this one; else its name.
fn neighbour(exe: &Path, name: &str) -> String {
    let path = exe.with_file_name(name);
    if path.is_file() { shell_word(shortened(&path).as_os_str()) } else { name.to_owned() }
}

/// The path from the current directory, if it leads there.
fn shortened(path: &Path) -> &Path {
    env::current_dir().ok().and_then(|dir| path.strip_prefix(dir).ok()).unwrap_or(path)
}

fn shell_line(exe: &Path, args: &[std::ffi::OsString]) -> String {
    let words = std::iter::once(shortened(exe).as_os_str()).chain(args.iter().map(|arg| arg.as_os_str()));
    words.map(shell_word).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it.
pub(super) fn shell_word(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether lines are told apart by colour too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    On,
    Off,
}

/// Where everything is printed.
pub(super) struct Output {
    pub out: Box<dyn Write>,
    pub colour: Colour,
}

impl Output {
    fn node_line(&mut self, id: NodeId, line: &str) -> io::Result<()> {
        match self.colour {
            Colour::On => writeln!(self.out, "\x1b[{}m[node{id}]\x1b[0m {line}", 31 + id.0 % 6),
            Colour::Off => writeln!(self.out, "[node{id}] {line}"),
        }
    }

    fn own_line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "[local-cluster] {line}")
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())
    }
}
