//! What the process tells its operator, line by line on stderr.
//!
//! **Invariant.** Whoever logs never waits for whoever reads: lines go through a bounded queue to a thread of their
//! own, and are dropped and counted when the queue is full. A stopped terminal must not stop an event loop.

use std::backtrace::BacktraceStatus;
use std::env;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{LevelFilter, error};
use raftkv_protocol::types::NodeId;

/// How many lines may wait to be written.
const LINES_MAX: usize = 4_096;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Sender<Item>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Item {
    Line(Vec<u8>),
    /// Everything before it has been written when the other end is dropped.
    Flush(Sender<()>),
}

/// Starts logging. `RUST_LOG` goes before `level`.
pub fn start(node: NodeId, level: LevelFilter) {
    let (sender, receiver) = bounded(LINES_MAX);
    QUEUE.get_or_init(|| sender);
    thread::Builder::new().name("logger".into()).spawn(move || write_lines(&receiver)).expect("a thread starts");
    let mut builder = env_logger::Builder::new();
    match env::var("RUST_LOG") {
        Ok(filters) => builder.parse_filters(&filters),
        Err(_) => builder.filter_level(level),
    };
    builder.target(env_logger::Target::Pipe(Box::new(Queue))).write_style(env_logger::WriteStyle::Never);
    builder.format(move |out, record| {
        let (time, level) = (out.timestamp_millis(), record.level());
        writeln!(out, "{time} {level:5} n{node} {}: {}", record.target(), record.args())
    });
    builder.init();
}

/// Makes a panic end the process: a node must not live on with a dead thread.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|info| {
        error!("{}", describe(info));
        flush();
        process::exit(1);
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
    let trace = std::backtrace::Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    format!("thread `{name}` panicked at {place}: {message}; the process ends{trace}")
}

/// Waits until what was logged so far is written, for a while.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, written) = bounded(0);
    if queue.send_timeout(Item::Flush(done), FLUSH_TIMEOUT).is_ok() {
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn write_lines(items: &Receiver<Item>) {
    // Nothing can be done, nor said, about a stderr that cannot be written to.
    for item in items {
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(io::stderr(), "{dropped} lines were not logged, as stderr was not read");
        }
        match item {
            Item::Line(line) => _ = io::stderr().write_all(&line),
            Item::Flush(done) => drop(done),
        }
    }
}

/// The near end of the queue, as the logger sees it: each write is a line.
struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let sent = QUEUE.get().is_some_and(|queue| queue.try_send(Item::Line(line.to_vec())).is_ok());
        if !sent {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
