//! What the process tells its operator, line by line on stderr.
//!
//! **Invariant.** Whoever logs never waits for whoever reads: lines go through a bounded queue to a thread of their
//! own, and are dropped and counted when the queue is full. A stopped terminal must not stop an event loop.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::LevelFilter;
use raftkv_protocol::types::NodeId;

/// How many lines may wait to be written.
const LINES_MAX: usize = 4_096;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The environment's own say on what is logged, by module.
const RUST_LOG: &str = "RUST_LOG";

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// The near end of the queue, as the logger sees it: each write is one or more whole lines.
#[derive(Clone)]
pub(super) struct Queue {
    pub(super) items: Sender<Item>,
    pub(super) dropped: Arc<AtomicU64>,
}

pub(super) enum Item {
    Line(Vec<u8>),
    /// Everything before it has been written when the other end is dropped.
    Flush(Sender<()>),
}

/// Starts logging. `RUST_LOG` goes before `level`.
pub fn start(node: NodeId, level: LevelFilter) {
    let (queue, items) = queue(LINES_MAX);
    let dropped = Arc::clone(&queue.dropped);
    let write = move || write_lines(&items, &dropped, io::stderr());
    thread::Builder::new().name("logger".into()).spawn(write).expect("a thread starts");
    let target = env_logger::Target::Pipe(Box::new(QUEUE.get_or_init(|| queue).clone()));
    let mut builder = env_logger::Builder::new();
    let filters = env::var(RUST_LOG);
    match &filters {
        Ok(filters) => builder.parse_filters(filters),
        // All of it, so that the level can be changed: what is above it comes no further than the macros.
        Err(_) => builder.filter_level(LevelFilter::Trace),
    };
    builder.target(target).write_style(env_logger::WriteStyle::Never);
    builder.format(move |out, record| {
        let (time, level) = (out.timestamp_millis(), record.level());
        writeln!(out, "{time} {level:5} n{node} {}: {}", record.target(), record.args())
    });
    builder.init();
    if filters.is_err() {
        log::set_max_level(level);
    }
}

/// `RUST_LOG` says what is logged, and no level goes before it.
#[derive(Debug)]
pub struct FilteredByRustLog;

/// Changes how much is logged from now on.
pub fn set_level(level: LevelFilter) -> Result<(), FilteredByRustLog> {
    if env::var(RUST_LOG).is_ok() {
        return Err(FilteredByRustLog);
    }
    log::set_max_level(level);
    Ok(())
}

/// Makes a panic end the process: a node must not live on with a dead thread.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|info| {
        // Said whatever the level.
        let line = describe(info);
        match QUEUE.get() {
            Some(queue) => queue.push(line.as_bytes()),
            None => eprint!("{line}"),
        }
        flush();
        process::exit(1);
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = payload(info).unwrap_or("no message").replace('\n', " ");
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
    format!("raftkv-server: thread `{name}` panicked at {place}: {message}\n{trace}")
}

/// What `panic!` was given: a literal, or a formatted text.
fn payload<'i>(info: &'i PanicHookInfo<'_>) -> Option<&'i str> {
    let payload = info.payload();
    payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Waits until what was logged so far is written, for a while.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, written) = bounded(0);
    if queue.items.send_timeout(Item::Flush(done), FLUSH_TIMEOUT).is_ok() {
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}

pub(super) fn queue(lines_max: usize) -> (Queue, Receiver<Item>) {
    let (items, receiver) = bounded(lines_max);
    (Queue { items, dropped: Arc::default() }, receiver)
}

pub(super) fn write_lines(items: &Receiver<Item>, dropped: &AtomicU64, mut out: impl Write) {
    // Nothing can be done, nor said, about a stderr that cannot be written to.
    for item in items {
        let lines = dropped.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let _ = writeln!(out, "{lines} lines were not logged, as stderr was not read");
        }
        match item {
            Item::Line(line) => _ = out.write_all(&line),
            Item::Flush(done) => drop(done),
        }
    }
}

impl Queue {
    pub(super) fn push(&self, line: &[u8]) {
        if self.items.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
