//! What processes have used, read from `/proc`.

use std::fs;

/// CPU time and memory of a set of processes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time since each process began, in seconds.
    pub cpu_s: f64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// The anonymous part of it: not backed by a file, as mapped log segments are.
    pub rss_anon_bytes: u64,
}

impl Usage {
    /// The sum over these processes; says which one cannot be read.
    pub fn of(pids: &[u32]) -> Result<Usage, String> {
        pids.iter().try_fold(Usage::default(), |sum, &pid| {
            let one = Usage::of_dir(&format!("/proc/{pid}")).map_err(|error| format!("process {pid}: {error}"))?;
            Ok(Usage {
                cpu_s: sum.cpu_s + one.cpu_s,
                rss_bytes: sum.rss_bytes + one.rss_bytes,
                rss_anon_bytes: sum.rss_anon_bytes + one.rss_anon_bytes,
            })
        })
    }

    /// This process.
    pub fn of_self() -> Result<Usage, String> {
        Usage::of_dir("/proc/self")
    }

    fn of_dir(dir: &str) -> Result<Usage, String> {
        let read = |name: &str| fs::read_to_string(format!("{dir}/{name}")).map_err(|error| error.to_string());
        let status = read("status")?;
        Ok(Usage {
            cpu_s: parse_cpu_s(&read("stat")?).ok_or("cannot understand its stat")?,
            rss_bytes: parse_bytes(&status, "VmRSS:").ok_or("has no memory: is it a zombie?")?,
            rss_anon_bytes: parse_bytes(&status, "RssAnon:").unwrap_or(0),
        })
    }
}

/// Resident memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Now, in bytes.
    pub rss_bytes: u64,
    /// The most so far.
    pub peak_bytes: u64,
    /// What of it now is not backed by a file.
    pub anon_bytes: u64,
}

impl Resident {
    /// Of this process.
    pub fn of(pid: u32) -> Result<Resident, String> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let bytes = |name: &str| parse_bytes(&status, name).ok_or_else(|| format!("{path} has no {name}"));
        Ok(Resident { rss_bytes: bytes("VmRSS:")?, peak_bytes: bytes("VmHWM:")?, anon_bytes: bytes("RssAnon:")? })
    }
}

/// Bytes that a process has made the kernel write to disks since it began.
pub fn written_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/io");
    let io = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse_written(&io).ok_or_else(|| format!("{path} has no write_bytes"))
}

/// The line of `/proc/PID/io` that counts what goes to the storage layer.
pub(crate) fn parse_written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Fields 14 and 15 of `/proc/PID/stat`. Field 2, the name in parentheses, may hold anything, so counting starts
/// behind its end.
pub(crate) fn parse_cpu_s(stat: &str) -> Option<f64> {
    let behind_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A line of `/proc/PID/status` such as `VmRSS:   1234 kB`.
pub(crate) fn parse_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
