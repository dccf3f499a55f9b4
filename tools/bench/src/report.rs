//! The result of a run, for people and for programs.

use std::fmt::Write;
use std::io::{self, Write as _};

use crate::json::{Object, optional, quoted, rounded};
use crate::process::Usage;
use crate::tally::Tally;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who answered.
    pub target: String,
    /// What was asked.
    pub workload: String,
    /// Connections in all.
    pub conns: u32,
    /// Requests in flight on each.
    pub inflight: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many keys there were.
    pub keys: u32,
    /// Requests a second in an open loop.
    pub rate: Option<u64>,
    /// Seconds of load before the measurement.
    pub warmup_s: f64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for.
    pub setup: Setup,
    /// What was measured.
    pub tally: Tally,
    /// Over how many seconds.
    pub measured_s: f64,
    /// How many elections there were meanwhile, over all shards, if anybody could say.
    pub elections: Option<u64>,
    /// What the servers had used at the beginning and at the end of them, if their processes are known.
    pub servers: Option<(Usage, Usage)>,
    /// The same of the generator.
    pub client: (Usage, Usage),
    /// How often the servers had synced their logs at the beginning and at the end, if they could say.
    pub syncs: Option<(u64, u64)>,
}

impl Report {
    /// Prints the result, as JSON or to be read. Fails if nothing succeeded.
    pub fn print(&self, as_json: bool) -> Result<(), String> {
        let text = if as_json { self.json() + "\n" } else { self.table() };
        io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
        if self.tally.ops() == 0 {
            return Err(format!("no operation succeeded; errors: {}", faults_text(&self.tally)));
        }
        Ok(())
    }

    /// Operations a second.
    pub fn ops_per_s(&self) -> f64 {
        self.tally.ops() as f64 / self.measured_s.max(f64::MIN_POSITIVE)
    }

    fn server_cpu_s(&self) -> Option<f64> {
        self.servers.map(|(begin, end)| end.cpu_s - begin.cpu_s)
    }

    fn client_cpu_s(&self) -> f64 {
        self.client.1.cpu_s - self.client.0.cpu_s
    }

    fn log_syncs(&self) -> Option<u64> {
        self.syncs.map(|(begin, end)| end.saturating_sub(begin))
    }

    fn log_syncs_per_op(&self) -> Option<f64> {
        let ops = self.tally.ops();
        self.log_syncs().filter(|_| ops > 0).map(|syncs| syncs as f64 / ops as f64)
    }

    fn per_op_us(&self, seconds: f64) -> Option<f64> {
        (self.tally.ops() > 0).then(|| seconds * 1e6 / self.tally.ops() as f64)
    }

    /// One line with one JSON object.
    pub fn json(&self) -> String {
        let (setup, tally) = (&self.setup, &self.tally);
        let memory = |of: fn(&Usage) -> u64| optional(self.servers.map(|(_, end)| of(&end)));
        let growth = self.servers.map(|(begin, end)| end.rss_anon_bytes as i64 - begin.rss_anon_bytes as i64);
        let mut json = Object::default();
        let mut field = |name: &str, value: &dyn std::fmt::Display| {
            json.field(name, value);
        };
        field("workload", &quoted(&setup.workload));
        field("target", &quoted(&setup.target));
        field("conns", &setup.conns);
        field("inflight", &setup.inflight);
        field("key_size", &setup.key_size);
        field("value_size", &setup.value_size);
        field("keys", &setup.keys);
        field("rate", &optional(setup.rate));
        field("duration_s", &rounded(self.measured_s));
        field("warmup_s", &rounded(setup.warmup_s));
        field("ops", &tally.ops());
        field("ops_per_s", &rounded(self.ops_per_s()));
        field("errors", &tally.fault_count());
        let faults: Vec<String> = tally.faults().iter().map(|(name, count)| format!("\"{name}\": {count}")).collect();
        field("errors_by", &format!("{{{}}}", faults.join(", ")));
        field("latency_us", &self.latency_json());
        field("elections", &optional(self.elections));
        field("server_cpu_s", &optional(self.server_cpu_s().map(rounded)));
        field("cpu_us_per_op", &optional(self.server_cpu_s().and_then(|cpu| self.per_op_us(cpu)).map(rounded)));
        field("server_rss_bytes", &memory(|usage| usage.rss_bytes));
        field("server_rss_anon_bytes", &memory(|usage| usage.rss_anon_bytes));
        field("server_rss_anon_growth_bytes", &optional(growth));
        field("log_syncs", &optional(self.log_syncs()));
        field("log_syncs_per_op", &optional(self.log_syncs_per_op().map(rounded)));
        field("client_cpu_s", &rounded(self.client_cpu_s()));
        field("client_cpu_us_per_op", &optional(self.per_op_us(self.client_cpu_s()).map(rounded)));
        json.finish()
    }

    fn latency_json(&self) -> String {
        let quantile = |share| rounded(self.tally.latency_us(share));
        format!(
            "{{\"p50\": {}, \"p90\": {}, \"p99\": {}, \"p999\": {}, \"max\": {}}}",
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            rounded(self.tally.latency_us_max())
        )
    }

    /// Several lines to read.
    pub fn table(&self) -> String {
        let (setup, tally) = (&self.setup, &self.tally);
        let mut text = format!(
            "{} on {} connections x {} in flight, keys of {} B, values of {} B, {:.1} s measured{}\n",
            setup.workload,
            setup.conns,
            setup.inflight,
            setup.key_size,
            setup.value_size,
            self.measured_s,
            setup.rate.map_or(String::new(), |rate| format!(", open loop at {rate}/s")),
        );
        let mut line = |name: &str, value: String| {
            writeln!(text, "  {name:<12}{value}").expect("a string takes everything");
        };
        line("throughput", format!("{:.0} ops/s ({} ops)", self.ops_per_s(), tally.ops()));
        let at = |share| readable_us(tally.latency_us(share));
        let max = readable_us(tally.latency_us_max());
        line("latency", format!("p50 {}  p90 {}  p99 {}  p99.9 {}  max {max}", at(0.5), at(0.9), at(0.99), at(0.999)));
        line("errors", faults_text(tally));
        if let Some(elections) = self.elections {
            line("elections", elections.to_string());
        }
        if let (Some(cpu), Some((begin, end))) = (self.server_cpu_s(), self.servers) {
            line("servers", format!("{cpu:.2} s of CPU, {} an operation", readable_cpu(self.per_op_us(cpu))));
            let growth = (end.rss_anon_bytes as f64 - begin.rss_anon_bytes as f64) / MIB;
            line("memory", format!("{:.0} MiB resident, anonymous {growth:+.0} MiB", end.rss_bytes as f64 / MIB));
        }
        if let (Some(syncs), Some(per_op)) = (self.log_syncs(), self.log_syncs_per_op()) {
            line("syncs", format!("{syncs} of the logs, {per_op:.3} an operation"));
        }
        let cpu = self.client_cpu_s();
        line("generator", format!("{cpu:.2} s of CPU, {} an operation", readable_cpu(self.per_op_us(cpu))));
        text
    }
}

const MIB: f64 = (1 << 20) as f64;

/// Such as `none` or `12 (no_leader 10, timeout 2)`.
pub fn faults_text(tally: &Tally) -> String {
    if tally.fault_count() == 0 {
        return "none".into();
    }
    let faults: Vec<String> = tally.faults().iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!("{} ({})", tally.fault_count(), faults.join(", "))
}

/// Microseconds in the unit that reads best.
pub fn readable_us(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 1_000_000.0 => format!("{:.2} ms", us / 1_000.0),
        us => format!("{:.2} s", us / 1_000_000.0),
    }
}

fn readable_cpu(us: Option<f64>) -> String {
    us.map_or_else(|| "-".into(), |us| format!("{us:.2} us"))
}
