//! Whether the terminal that the process was started from has gone: SIGHUP says that, and it also says that settings are to
//! be read again.

use std::fs::{self, File};

use rustix::io::Errno;
use signal_hook::consts::SIGHUP;

/// The process's own terminal, whichever that is.
const TERMINAL: &str = "/dev/tty";

/// See the module.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The process has one, and is to end with it.
    matters: bool,
}

impl Terminal {
    /// As it is when the process starts, before any signal is caught. One that `nohup` has started outlives its terminal.
    pub(super) fn at_start() -> Terminal {
        Terminal { matters: File::open(TERMINAL).is_ok() && !is_hangup_ignored() }
    }

    /// Whether there was one, and it has gone.
    pub(super) fn has_gone(&self) -> bool {
        let gone = [Errno::NXIO, Errno::IO].map(|errno| Some(errno.raw_os_error()));
        self.matters && File::open(TERMINAL).is_err_and(|error| gone.contains(&error.raw_os_error()))
    }
}

/// The kernel keeps the set of ignored signals as bits, the first signal in the lowest.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (SIGHUP - 1)) != 0
}
