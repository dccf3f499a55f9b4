//! A node that has lost the majority: what it took in before it noticed has an unknown outcome, and what comes later is
//! definitely not done.

use std::thread;

use raftkv::client::Status;
use raftkv_protocol::client::{BatchBuffer, Code, Condition, Consistency, Operation, Scan};

use crate::face::{self, Face, Outcome};
use crate::run;
use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};

/// Shorter than a leader without followers goes on as one.
const REQUEST_TIMEOUT: &str = "--request-timeout=400ms";
/// How long a leader does, at least.
const ELECTION_TIMEOUT: &str = "--election-timeout=2s";

fn put(face: &mut dyn Face, key: &[u8]) -> Outcome {
    face.ask(Operation::Put { key, value: b"new", condition: Condition::None })
}

fn batch(face: &mut dyn Face, key: &[u8]) -> Outcome {
    let mut batch = BatchBuffer::default();
    batch.push(&run::put(key, b"new", Condition::None)).expect("a short key");
    face.ask(Operation::Batch(batch.as_batch()))
}

/// A face of the node that is left, and the key that it writes.
type Writer = (Box<dyn Face + Send>, Vec<u8>);

/// The faces of a node that still serves, each with a key whose shard this node leads.
fn writers(cluster: &Cluster, node: u64) -> Vec<Writer> {
    let faces = face::of_node(cluster, node).into_iter();
    let keys = (0..).map(|n| format!("key{n}")).filter(|key| cluster.leader_of(key) == node);
    faces.zip(keys.map(String::into_bytes)).collect()
}

#[test]
fn what_a_leader_took_in_before_it_lost_its_majority_is_unknown_on_every_face() {
    let mut cluster = Cluster::of(3).flag(REQUEST_TIMEOUT).flag(ELECTION_TIMEOUT).start();
    let mut writers = writers(&cluster, 1);
    for node in [2, 3] {
        cluster.process(node).pause();
    }
    thread::scope(|scope| {
        for (face, key) in &mut writers {
            scope.spawn(|| assert_eq!(put(&mut **face, key), Outcome::Refused(Code::Timeout), "{}", face.name()));
        }
    });
    for node in [2, 3] {
        cluster.process(node).resume();
    }
    // Whether it was applied, only reading tells; and all faces tell the same.
    cluster.await_leaders();
    cluster.await_convergence();
    for (_, key) in &writers {
        let read =
            |face: &mut Box<dyn Face + Send>| face.ask(Operation::Get { key, consistency: Consistency::Linearizable });
        let told: Vec<Outcome> = face::of_nodes(&cluster, &cluster.ids()).iter_mut().map(read).collect();
        assert!(told.iter().all(|outcome| *outcome == told[0]), "{told:?}");
    }
}

#[test]
fn without_a_majority_every_face_refuses_definitely_and_reads_only_what_may_be_old() {
    let mut cluster = Cluster::of(3).flag("--request-timeout=500ms").flag("--cores=2").start();
    cluster.wire(1).put("old", "value");
    cluster.await_convergence();
    let mut faces = face::of_node(&cluster, 1);
    cluster.kill_9(2);
    cluster.kill_9(3);
    // Until then it takes writes in, or hands them to a node that is gone: their outcome is unknown.
    let has_noticed = |status: &Status| status.shards.iter().all(|shard| shard.leader.is_none());
    eventually(PATIENCE, "it knows of no leader", || has_noticed(&cluster.wire(1).status()).then_some(()));
    for (n, face) in faces.iter_mut().enumerate() {
        let face = &mut **face;
        let (key, name) = (format!("refused{n}").into_bytes(), face.name());
        let none = Outcome::Refused(Code::NoLeader);
        assert_eq!(put(face, &key), none, "{name}");
        assert_eq!(batch(face, &key), none, "{name}");
        assert_eq!(face.ask(Operation::Delete { key: b"old", condition: Condition::None }), none, "{name}");
        for consistency in [Consistency::Linearizable, Consistency::Lease] {
            assert_eq!(face.ask(Operation::Get { key: b"old", consistency }), none, "{name}");
            // Several shards were asked, and each says so when the time is up.
            assert_eq!(face.ask(Operation::Scan(Scan { consistency, ..Scan::default() })), none, "{name}");
        }
        let stale = face.ask(Operation::Get { key: b"old", consistency: Consistency::Stale });
        assert!(matches!(&stale, Outcome::Value { bytes, .. } if bytes == b"value"), "{name}: {stale:?}");
    }
    cluster.restart_all();
    let mut wire = cluster.wire(1);
    for n in 0..faces.len() {
        assert_eq!(wire.get(format!("refused{n}")), None, "what was definitely refused has not happened");
    }
    assert_eq!(wire.get("old").map(|(_, value)| value), Some(b"value".to_vec()));
}
