//! Reads: never stale, never going back, and none without a majority.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use raftkv_protocol::client::{Code, Operation, Request, Scan};
use raftkv_protocol::types::RequestId;

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually, pause};
use crate::support::wire::{Said, Wire, encoded, get, put, stale_get};

/// How long a minority is watched: several election timeouts.
const WATCH: Duration = Duration::from_secs(4);

pub fn others(cluster: &Cluster, id: u64) -> Vec<u64> {
    cluster.ids().into_iter().filter(|other| *other != id).collect()
}

/// Asks the node for everything that needs a majority, for a while; nothing of it may be served.
pub fn assert_serves_nothing_without_a_majority(cluster: &Cluster, id: u64, keys: &[String]) {
    let mut wire = cluster.wire(id);
    let watched_until = Instant::now() + WATCH;
    let mut last_codes = Vec::new();
    while Instant::now() < watched_until {
        for key in keys {
            wire.submit(get(key.as_bytes())).expect("sent");
            wire.submit(put(key.as_bytes(), b"by a minority")).expect("sent");
        }
        wire.submit(Operation::Scan(Scan::default())).expect("sent");
        last_codes.clear();
        for _ in 0..=2 * keys.len() {
            let said = wire.reply().expect("readable").expect("a reply").said;
            let code = said.code().filter(|code| *code != Code::NotFound);
            last_codes.push(code.unwrap_or_else(|| panic!("a minority served {said:?}")));
        }
    }
    let typed = last_codes.iter().all(|code| matches!(code, Code::NoLeader | Code::Timeout));
    assert!(typed, "in the end everybody is told that there is no leader: {last_codes:?}");
    assert!(last_codes.contains(&Code::NoLeader), "{last_codes:?}");
}

/// The state before the fault, written and applied everywhere: keys, one for each shard, and their versions.
pub fn written(cluster: &Cluster) -> (Vec<String>, Vec<u64>) {
    let keys = cluster.keys_for_all_shards("key");
    let mut wire = cluster.wire(1);
    let versions = keys.iter().map(|key| wire.put(key, "value")).collect();
    cluster.await_convergence();
    (keys, versions)
}

/// museum 22
#[test]
fn a_node_whose_peers_are_dead_serves_stale_reads_only() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=1s").start();
    let (keys, versions) = written(&cluster);
    // Two of six shards are led by the node that is left, so that both a leader and a follower are asked.
    let left = cluster.leader_of(&keys[0]);
    for id in others(&cluster, left) {
        cluster.kill_9(id);
    }
    assert_serves_nothing_without_a_majority(&cluster, left, &keys);
    let mut wire = cluster.wire(left);
    for (key, version) in keys.iter().zip(versions) {
        let said = wire.ask(stale_get(key.as_bytes())).said;
        assert_eq!(said, Said::Value { version, bytes: b"value".to_vec() });
    }
    cluster.restart_all();
    for key in &keys {
        let (_, value) = cluster.wire(left).get(key).expect("nothing is lost");
        assert!(value == b"value" || value == b"by a minority", "without an outcome a write may happen later");
    }
}

/// museum 22: as long as the peers are silent and not gone, the old leader has only its own clock to go by.
#[test]
fn a_leader_whose_peers_are_silent_answers_no_linearizable_read() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=1s").start();
    let (keys, _) = written(&cluster);
    let left = cluster.leader_of(&keys[0]);
    for id in others(&cluster, left) {
        cluster.process(id).pause();
    }
    assert_serves_nothing_without_a_majority(&cluster, left, &keys);
    for id in others(&cluster, left) {
        cluster.process(id).resume();
    }
    cluster.await_leaders();
    let version = cluster.wire(left).put(&keys[0], "later");
    assert_eq!(cluster.wire(left).get(&keys[0]), Some((version, b"later".to_vec())));
}

/// museum 21, 22: reads that reach a leader while it stands still are answered by what is true when it goes on.
#[test]
fn a_leader_that_was_paused_and_replaced_serves_nothing_stale() {
    let mut cluster = Cluster::start(3);
    let key = "key";
    cluster.wire(1).put(key, "0");
    for round in 1..=6 {
        let old = cluster.leader_of(key);
        let mut to_old = cluster.wire(old);
        cluster.process(old).pause();
        // With a first byte that is there before the peers' messages, the requests are looked at before them.
        let first = encoded(|out| Request { id: RequestId(0), operation: get(key.as_bytes()) }.encode(out));
        to_old.send(&first[..1]).expect("sent");
        let alive = others(&cluster, old);
        cluster.await_leaders_among(&alive);
        let value = round.to_string();
        let version = cluster.wire(alive[0]).put(key, &value);
        to_old.send(&first[1..]).expect("sent");
        for _ in 0..20 {
            to_old.submit(get(key.as_bytes())).expect("sent");
        }
        cluster.process(old).resume();
        for _ in 0..=20 {
            match to_old.reply().expect("readable").expect("a reply").said {
                Said::Value { version: read, bytes } => {
                    assert_eq!((read, bytes), (version, value.clone().into_bytes()), "round {round}");
                }
                said => assert!(matches!(said.code(), Some(Code::NotLeader | Code::NoLeader)), "{said:?}"),
            }
        }
        cluster.await_leaders();
    }
    cluster.await_convergence();
}

/// A thread that reads the same key through one node over and over and fails when its version falls.
struct Reader {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(cluster: &Cluster, id: u64, operation: Operation<'static>) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let (stopped, counted, address) = (Arc::clone(&stop), Arc::clone(&reads), cluster.address(id));
        let read = move || {
            let mut newest = 0;
            let mut wire: Option<Wire> = None;
            while !stopped.load(Ordering::Relaxed) {
                let Some(up) = &mut wire else {
                    wire = Wire::connect(address).ok();
                    pause(Duration::from_millis(1));
                    continue;
                };
                match up.try_ask(operation).map(|replied| replied.said) {
                    Ok(Said::Value { version, .. }) => {
                        assert!(version >= newest, "{operation:?} on node {id}: version {newest}, then {version}");
                        newest = version;
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(said) => {
                        let unready = matches!(said.code(), Some(Code::NotLeader | Code::NoLeader | Code::NotReady));
                        assert!(unready || said.code() == Some(Code::Timeout), "{operation:?} on node {id}: {said:?}");
                    }
                    Err(_) => wire = None,
                }
            }
        };
        Reader { stop, reads, thread: Some(thread::spawn(read)) }
    }

    #[track_caller]
    fn await_progress(&self) {
        let goal = self.reads.load(Ordering::Relaxed) + 20;
        eventually(PATIENCE, "more reads are answered", || {
            let failed = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!failed, "a reader has failed");
            (self.reads.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    #[track_caller]
    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("joined once");
        assert!(thread.join().is_ok(), "a reader has failed");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

const WATCHED: &[u8] = b"watched";

/// A linearizable and a stale reader on every node, and somebody who writes what they read.
fn with_readers(cluster: &mut Cluster, faults: impl FnOnce(&mut Cluster, &[Reader])) {
    let client = cluster.client();
    client.put(WATCHED, "0").expect("written");
    // From here on nobody may miss it, not even a stale reader.
    cluster.await_convergence();
    let reader =
        |id: &u64| [Reader::start(cluster, *id, get(WATCHED)), Reader::start(cluster, *id, stale_get(WATCHED))];
    let readers: Vec<Reader> = cluster.ids().iter().flat_map(reader).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = thread::spawn(move || {
        let mut newest = None;
        while !stopped.load(Ordering::Relaxed) {
            if let Ok(version) = client.put(WATCHED, "value") {
                assert!(newest < Some(version), "versions grow");
                newest = Some(version);
            }
        }
    });
    faults(cluster, &readers);
    readers.iter().for_each(Reader::await_progress);
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().is_ok(), "the writer has failed");
    readers.into_iter().for_each(Reader::finish);
}

/// museum 24
#[test]
fn no_client_sees_time_go_back_when_nodes_are_restarted() {
    let mut cluster = Cluster::start(3);
    with_readers(&mut cluster, |cluster, readers| {
        for id in [1, 2, 3, 1, 2, 3] {
            readers.iter().for_each(Reader::await_progress);
            cluster.kill_9(id);
            cluster.await_leaders();
            cluster.restart_all();
        }
    });
}

/// museum 21
#[test]
fn no_client_sees_time_go_back_in_a_storm_of_pauses() {
    let mut cluster = Cluster::start(3);
    with_readers(&mut cluster, |cluster, readers| {
        for (round, id) in [1, 2, 3, 1, 2, 3, 1, 2, 3].into_iter().enumerate() {
            cluster.process(id).pause();
            // Some pauses are shorter than an election timeout, some longer.
            pause(Duration::from_millis([150, 700, 1_500][round % 3]));
            cluster.process(id).resume();
            cluster.await_leaders();
            readers.iter().for_each(Reader::await_progress);
        }
    });
}
