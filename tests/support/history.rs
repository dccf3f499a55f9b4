//! Writers that keep account of what the cluster has told them, and the check that it told the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use raftkv::client::{Client, Error, Version};

use super::cluster::Cluster;
use super::wait::{PATIENCE, eventually};

/// What one key's only writer knows. Its writes to the key are made one after the other, each with a value of its own.
#[derive(Clone, Debug, Default)]
struct KeyHistory {
    /// The last acknowledged write.
    acknowledged: Option<(Version, String)>,
    /// Values of writes without an outcome. Each may have happened, and may still, at any time after it was sent.
    unknown: BTreeSet<String>,
    sent: u64,
}

/// What all writers know.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<String, KeyHistory>,
}

/// Threads that write until they are told to stop.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<History>>,
}

impl Writers {
    /// Starts so many writers, each with a client of its own and so many keys of its own, all of which it writes
    /// over and over with one request in flight for each. `prefix` keeps their keys apart from everybody else's.
    pub fn start(cluster: &Cluster, prefix: &str, writers: usize, keys_each: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let spawn = |writer: usize| {
            let client = cluster.client();
            let keys = (0..keys_each).map(|key| format!("{prefix}/{writer}/{key}")).collect();
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            thread::spawn(move || write_until(&stop, &acknowledged, &client, keys))
        };
        let threads = (0..writers).map(spawn).collect();
        Writers { stop, acknowledged, threads }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged.
    #[track_caller]
    pub fn await_progress(&self, writes: u64) {
        let goal = self.acknowledged() + writes;
        eventually(PATIENCE, format!("{writes} more writes are acknowledged"), || {
            (self.acknowledged() >= goal).then_some(())
        });
    }

    /// Stops all writers; what they know.
    #[track_caller]
    pub fn stop(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for thread in std::mem::take(&mut self.threads) {
            history.keys.extend(thread.join().expect("a writer's expectations hold").keys);
        }
        history
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_until(stop: &AtomicBool, acknowledged: &AtomicU64, client: &Client, keys: Vec<String>) -> History {
    let mut history = History { keys: keys.into_iter().map(|key| (key, KeyHistory::default())).collect() };
    let pipeline = client.pipeline();
    while !stop.load(Ordering::Relaxed) {
        let mut pending = Vec::new();
        for (key, known) in &mut history.keys {
            known.sent += 1;
            let value = format!("{key}#{}", known.sent);
            pending.push((value.clone(), known, pipeline.put(key, &value)));
        }
        for (value, known, put) in pending {
            match put.and_then(|pending| pending.wait()) {
                Ok(version) => {
                    known.acknowledge(version, value);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => known.fail(&error, value),
            }
        }
    }
    history
}

impl KeyHistory {
    fn acknowledge(&mut self, version: Version, value: String) {
        if let Some((before, last)) = &self.acknowledged {
            assert!(version > *before, "{value} has version {version}, {last} before it {before}");
        }
        self.acknowledged = Some((version, value));
    }

    fn fail(&mut self, error: &Error, value: String) {
        if error.maybe_applied() {
            self.unknown.insert(value);
        }
    }

    /// Whether a read may return this: the last acknowledged write, or a later one whose outcome is unknown.
    fn allows(&self, read: Option<&(u64, String)>) -> bool {
        match (&self.acknowledged, read) {
            (None, None) => true,
            (Some(_), None) => false,
            (None, Some((_, value))) => self.unknown.contains(value),
            (Some((version, last)), Some((read_version, read))) => {
                (read == last && *read_version == version.0)
                    || (self.unknown.contains(read) && *read_version > version.0)
            }
        }
    }
}

impl History {
    /// How many writes have no outcome.
    pub fn unknown(&self) -> usize {
        self.keys.values().map(|known| known.unknown.len()).sum()
    }

    /// Reads every key through each of these nodes and compares.
    #[track_caller]
    pub fn check(&self, cluster: &Cluster, nodes: &[u64]) {
        for id in nodes {
            let mut wire = cluster.wire(*id);
            for (key, known) in &self.keys {
                let read =
                    wire.get(key).map(|(version, value)| (version, String::from_utf8_lossy(&value).into_owned()));
                assert!(known.allows(read.as_ref()), "through node {id}, {key} is {read:?}; known is {known:?}");
            }
        }
    }
}
