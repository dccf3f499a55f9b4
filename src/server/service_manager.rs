//! What the service manager that started the process is told (systemd, as in sd_notify(3)): that the node serves, what it
//! waits for, that it reads its settings again, that it stops, and, if that is wanted, that it lives.
//!
//! Whether it serves and lives is what `/readyz` and `/livez` say too. Nothing waits for the service manager: what its socket
//! does not take at once is lost.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::vitals::Vitals;

/// How often is looked whether the node serves, before it does.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often is looked whether it still does.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// `None` if nobody wants to be told.
    socket: Option<UnixDatagram>,
    /// How long it may hear nothing before it ends the process, if that is so.
    watchdog: Option<Duration>,
    /// It knows that the node serves.
    knows_ready: bool,
    /// What it was last told in words.
    status: String,
    told_alive_at: Option<Instant>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(super) fn from_environment() -> ServiceManager {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!(
                    "cannot tell the service manager anything at {}: {error} (NOTIFY_SOCKET)",
                    address.display()
                );
                None
            }
        });
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0).map(Duration::from_micros);
        ServiceManager::new(socket, watchdog)
    }

    pub(super) fn new(socket: Option<UnixDatagram>, watchdog: Option<Duration>) -> ServiceManager {
        ServiceManager { socket, watchdog, knows_ready: false, status: String::new(), told_alive_at: None }
    }

    /// How long to wait before the next [`ServiceManager::tick`]; `None` if it is not needed.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        let look = if self.knows_ready { LOOK_AGAIN_EVERY } else { LOOK_EVERY };
        Some(self.alive_every().map_or(look, |every| look.min(every)))
    }

    /// Twice as often as it must be.
    fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// The log and the snapshots are being read.
    pub(super) fn starting(&mut self) {
        self.say("starting: reading the log and the snapshots", &[]);
    }

    /// Tells what the node's cores look like, as far as that is news.
    pub(super) fn tick(&mut self, vitals: &Vitals, now: Instant) {
        let mut told = Vec::new();
        let faults = || vitals.looks(now).flat_map(|look| [look.leaderless_fault(), look.behind_fault()]);
        let fault = faults().flatten().next();
        if fault.is_none() && !self.knows_ready {
            self.knows_ready = true;
            told.push("READY=1".to_owned());
        }
        let lives = vitals.looks(now).all(|look| look.turns_fault().is_none());
        let is_due = |every| self.told_alive_at.is_none_or(|at| now.saturating_duration_since(at) >= every);
        if lives && self.alive_every().is_some_and(is_due) {
            self.told_alive_at = Some(now);
            told.push("WATCHDOG=1".to_owned());
        }
        self.say(&fault.unwrap_or_else(|| "serving: every shard has a leader".to_owned()), &told);
    }

    /// The settings are to be read again. Before the node serves there is nothing to tell.
    pub(super) fn reloading(&mut self) {
        if self.knows_ready {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            self.say("reading the settings again", &["RELOADING=1".to_owned(), format!("MONOTONIC_USEC={micros}")]);
        }
    }

    /// They have been read again.
    pub(super) fn reloaded(&mut self) {
        if self.knows_ready {
            self.say("serving", &["READY=1".to_owned()]);
        }
    }

    /// The node stops.
    pub(super) fn stopping(&mut self) {
        self.say("stopping: handing leadership over and finishing what is in flight", &["STOPPING=1".to_owned()]);
    }

    /// Sends these, and in words how things are if that was not said last.
    fn say(&mut self, status: &str, told: &[String]) {
        let Some(socket) = &self.socket else { return };
        let mut message = told.join("\n");
        if self.status != status {
            status.clone_into(&mut self.status);
            message.push_str(&format!("\nSTATUS={status}"));
        }
        if message.is_empty() {
            return;
        }
        if let Err(error) = socket.send(message.trim_start().as_bytes()) {
            log::debug!("the service manager was not told `{}`: {error}", message.trim_start().escape_debug());
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("it is neither a path nor begins with @")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
