//! What all trials do: start a cluster, write keys, put load on it, wait.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use raftkv_protocol::types::Slot;

use super::args::{Drive, Order, Site};
use super::figures::KEY_BYTES;
use crate::args::{Load, Peer, Workload};
use crate::cluster::{Cluster, Plan};
use crate::keys::KeySpace;
use crate::load;
use crate::operations::Mix;
use crate::prepare::{discover, prefill};
use crate::progress::Progress;
use crate::report::{Report, faults_text};
use crate::rng::Rng;
use crate::signals::stop_on_signals;
use crate::topology::Topology;

/// Keys written between two looks at the signals.
const CHUNK: u64 = 20_000;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// A size that nothing reaches.
pub(super) const NEVER_BYTES: u64 = 1 << 40;

/// A cluster and what is stored in it.
pub(super) struct Ground {
    pub(super) cluster: Cluster,
    pub(super) stop: Arc<AtomicBool>,
    keys: u32,
    value_bytes: u32,
    /// In which order keys are written, if not in the rising one.
    shuffled: Option<Vec<u32>>,
    own_flags: Vec<String>,
    /// Writes so far: other values each time.
    written: u64,
}

impl Ground {
    /// A fresh cluster that has settled. `flags` are the trial's, besides those of the user.
    pub(super) fn start(
        site: &Site,
        name: &str,
        nodes: u64,
        (keys, value_bytes): (u32, u32),
        flags: &[(&str, u64)],
    ) -> Result<Ground, String> {
        let stop = stop_on_signals()?;
        let all = joined(flags, &site.server_flags);
        let plan = Plan { server: &site.server, nodes, dir: &site.dir, name, flags: &all };
        let mut cluster = Cluster::start(&plan, Arc::clone(&stop))?;
        cluster.settled()?;
        let own_flags = site.server_flags.clone();
        Ok(Ground { cluster, stop, keys, value_bytes, shuffled: None, own_flags, written: 0 })
    }

    /// Kills all nodes and starts them with other flags.
    pub(super) fn restart_with(&mut self, flags: &[(&str, u64)]) -> Result<(), String> {
        self.cluster.set_flags(joined(flags, &self.own_flags));
        self.cluster.kill_all()?;
        self.cluster.launch_all()?;
        self.cluster.settled().map(drop)
    }

    /// In which order keys are to be written from now on.
    pub(super) fn set_order(&mut self, order: Order) {
        self.shuffled = (order == Order::Random).then(|| {
            let (mut keys, mut rng) = (Vec::from_iter(0..self.keys), Rng::new(1));
            (1..keys.len()).rev().for_each(|at| keys.swap(at, rng.below(at + 1)));
            keys
        });
    }

    /// Writes one key after the other, from the first on and around. `look` is called now and then.
    pub(super) fn write(
        &mut self,
        writes: u64,
        mut look: impl FnMut(&Cluster) -> Result<(), String>,
    ) -> Result<(), String> {
        let mix = self.mix()?;
        let mut topology = discover(&self.cluster.endpoints(), TIMEOUT)?;
        let mut progress = Progress::default();
        let mut done = 0;
        while done < writes {
            let count = CHUNK.min(writes - done).min(u64::from(self.keys));
            let places = (done..done + count).map(|number| (number % u64::from(self.keys)) as usize);
            let keys = places.map(|at| self.shuffled.as_ref().map_or(at as u32, |keys| keys[at]));
            let sets = by_shard(&mix.keys, keys, topology.shards());
            self.written += count;
            prefill(&mut topology, &sets, &mix, self.written, TIMEOUT)?;
            done += count;
            self.cluster.pause(Duration::ZERO)?;
            look(&self.cluster)?;
            if progress.due().is_some() {
                progress.show(&format!("     writing: {done} of {writes}"));
            }
        }
        progress.finish();
        Ok(())
    }

    /// Writes every key once.
    pub(super) fn load(&mut self) -> Result<(), String> {
        eprintln!("writing {} keys with {} bytes each", self.keys, self.value_bytes);
        self.write(u64::from(self.keys), |_| Ok(()))
    }

    /// A key of every shard that has been written.
    pub(super) fn one_key_each(&self, topology: &Topology) -> Result<Vec<Vec<u8>>, String> {
        let keys = KeySpace::new(self.keys, KEY_BYTES as usize)?;
        let first = |set: Vec<u32>| {
            let index = *set.first().ok_or("a shard has no key: give more --keys")?;
            let mut key = keys.buffer();
            keys.write(index, &mut key);
            Ok(key)
        };
        keys.by_shard(topology.shards()).into_iter().map(first).collect()
    }

    /// Puts on all keys, for so long, until the trial ends or `stop` is set; a closed loop without a rate.
    pub(super) fn puts(
        &self,
        drive: &Drive,
        (warmup, duration): (Duration, Duration),
        rate: Option<u64>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Report, String> {
        let load = Load {
            endpoints: self.cluster.endpoints(),
            target: Peer::Raftkv,
            workload: Workload::Put,
            conns: drive.conns,
            inflight: drive.inflight,
            key_size: KEY_BYTES,
            value_size: self.value_bytes,
            keys: self.keys,
            duration,
            warmup,
            rate,
            read_ratio: 0.0,
            scan_limit: 1,
            seed: self.written + 1,
            threads: 1,
            no_prefill: true,
            json: false,
            pids: self.cluster.pids(),
            timeout: TIMEOUT,
        };
        let report = load::run(&load, stop)?;
        if report.tally.fault_count() > 0 {
            eprintln!("errors: {}", faults_text(&report.tally));
        }
        Ok(report)
    }

    /// The same, as long as the user wants to see it.
    pub(super) fn measure(
        &mut self,
        drive: &Drive,
        times: (Duration, Duration),
        rate: Option<u64>,
    ) -> Result<Report, String> {
        let report = self.puts(drive, times, rate, &self.stop)?;
        self.cluster.pause(Duration::ZERO)?;
        if report.tally.ops() == 0 {
            return Err("no put succeeded".into());
        }
        Ok(report)
    }

    /// Waits until `look` finds something.
    pub(super) fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Cluster) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look(&self.cluster)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(format!("waited {patience:?} in vain for {what}"));
            }
            self.cluster.pause(PAUSE)?;
        }
    }

    fn mix(&self) -> Result<Mix, String> {
        Ok(Mix {
            workload: Workload::Put,
            keys: KeySpace::new(self.keys, KEY_BYTES as usize)?,
            value_size: self.value_bytes as usize,
            read_ratio: 0.0,
            scan_limit: 1,
        })
    }
}

fn joined(flags: &[(&str, u64)], own: &[String]) -> Vec<String> {
    let flags = flags.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]);
    flags.chain(own.iter().cloned()).collect()
}

fn by_shard(space: &KeySpace, indexes: impl Iterator<Item = u32>, shards: u16) -> Vec<Vec<u32>> {
    let mut sets = vec![Vec::new(); usize::from(shards)];
    let mut key = space.buffer();
    for index in indexes {
        space.write(index, &mut key);
        sets[usize::from(Slot::of(&key).shard(shards).0)].push(index);
    }
    sets
}
