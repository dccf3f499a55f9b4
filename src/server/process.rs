//! What the system says of this process, for whoever scrapes its metrics.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::metrics::figures::ProcessFigures;

/// Ticks of a second in `/proc`, on every Linux that there is.
const TICKS_PER_S: f64 = 100.0;
/// Where the start of the process stands in `/proc/self/stat`, behind the name, which may have spaces.
const START_FIELD: usize = 19;

/// The figures of now. A few short reads of `/proc`, none of which waits for a disk. What cannot be read is 0.
pub(super) fn figures() -> ProcessFigures {
    static STARTED: OnceLock<f64> = OnceLock::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ProcessFigures {
        cpu_s: seconds(clock_gettime(ClockId::ProcessCPUTime)),
        resident_bytes: 1_024 * field(&status, "VmRSS:"),
        virtual_bytes: 1_024 * field(&status, "VmSize:"),
        threads: field(&status, "Threads:"),
        open_fds: open_fds(),
        max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        started_s: *STARTED.get_or_init(started_s),
    }
}

/// The number behind a name in a file of lines.
fn field(lines: &str, name: &str) -> u64 {
    let value = lines.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Since Linux 6.2 the size of the directory is the number of files; before, they are counted one by one.
fn open_fds() -> u64 {
    match fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len()) {
        0 => fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        open => open,
    }
}

/// The system knows when a process started by the time since the machine has.
fn started_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = fields.split(' ').nth(START_FIELD).and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0);
    seconds(clock_gettime(ClockId::Realtime)) - seconds(clock_gettime(ClockId::Boottime)) + ticks / TICKS_PER_S
}

fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
