//! What is counted: operations, their latencies, and what went wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies are kept to three digits, in nanoseconds, up to this.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Why a request, or a connection, came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server answered with the error of this name.
    Refused(&'static str),
    /// No connection could be made, or the hello was refused.
    ConnectFailed,
    /// A connection broke.
    Disconnected,
    /// It broke with a request in flight: the outcome is unknown.
    ConnectionLost,
    /// No reply within `--timeout`.
    NoReply,
    /// Bytes that are no reply to anything.
    Garbled,
}

impl Fault {
    /// As in the reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Refused(name) => name,
            Fault::ConnectFailed => "connect_failed",
            Fault::Disconnected => "disconnected",
            Fault::ConnectionLost => "connection_lost",
            Fault::NoReply => "no_reply",
            Fault::Garbled => "garbled",
        }
    }
}

/// Counts over some stretch of time.
#[derive(Clone, Debug)]
pub struct Tally {
    latency_ns: Histogram<u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3);
        Tally { latency_ns: latency_ns.expect("these bounds are valid"), faults: BTreeMap::new() }
    }
}

impl Tally {
    /// A request was answered after so many nanoseconds.
    pub fn answered(&mut self, latency_ns: u64) {
        self.latency_ns.saturating_record(latency_ns);
    }

    /// Something went wrong `count` times.
    pub fn failed(&mut self, fault: Fault, count: u64) {
        if count > 0 {
            *self.faults.entry(fault.name()).or_default() += count;
        }
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Tally) {
        self.latency_ns.add(&other.latency_ns).expect("all tallies have the same bounds");
        for (&name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
    }

    /// Back to nothing; keeps its memory.
    pub fn clear(&mut self) {
        self.latency_ns.reset();
        self.faults.clear();
    }

    /// Operations that were answered well.
    pub fn ops(&self) -> u64 {
        self.latency_ns.len()
    }

    /// Everything that went wrong, by name.
    pub fn faults(&self) -> &BTreeMap<&'static str, u64> {
        &self.faults
    }

    /// How much went wrong.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// The latency in microseconds that a share of all operations (0 to 1) did not exceed.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The largest latency in microseconds.
    pub fn latency_us_max(&self) -> f64 {
        self.latency_ns.max() as f64 / 1_000.0
    }
}
