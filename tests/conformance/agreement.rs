//! What one face has written, every other reads; and all of a node's faces tell the same of it.

use raftkv_protocol::client::{Code, Condition, Consistency, Operation, Scan};
use raftkv_protocol::types::Index;

use crate::face::{self, Face, Outcome};
use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};

fn put(face: &mut dyn Face, key: &[u8], value: &[u8], condition: Condition) -> Outcome {
    face.ask(Operation::Put { key, value, condition })
}

fn get(face: &mut dyn Face, key: &[u8], consistency: Consistency) -> Outcome {
    face.ask(Operation::Get { key, consistency })
}

#[test]
fn versions_are_the_same_on_every_face() {
    let cluster = crate::cluster();
    let mut faces = face::of_nodes(&cluster, &cluster.ids());
    for writer in 0..faces.len() {
        let key = format!("written {writer}").into_bytes();
        let Outcome::Put { mut version } = put(&mut *faces[writer], &key, b"0", Condition::None) else {
            panic!("{} writes nothing", faces[writer].name())
        };
        for (n, face) in (1..).zip(&mut faces) {
            let name = face.name();
            let before = (n - 1_u8).to_string().into_bytes();
            for consistency in [Consistency::Linearizable, Consistency::Lease] {
                let expected = Outcome::Value { version, bytes: before.clone() };
                assert_eq!(get(&mut **face, &key, consistency), expected, "{name}");
            }
            let held = Condition::Version(Index(version));
            let written = put(&mut **face, &key, n.to_string().as_bytes(), held);
            let Outcome::Put { version: newer } = written else { panic!("{name}: {written:?}") };
            assert!(newer > version, "{name}");
            assert_eq!(put(&mut **face, &key, b"no", held), Outcome::Refused(Code::PreconditionFailed), "{name}");
            version = newer;
        }
    }
}

/// Reads that leases have answered, on all nodes.
fn read_by_lease(cluster: &Cluster) -> u64 {
    cluster.ids().into_iter().map(|id| cluster.wire(id).counter("lease_reads")).sum()
}

#[test]
fn reads_by_a_lease_are_such_on_every_face() {
    let cluster = crate::cluster();
    cluster.wire(1).put("key", "value");
    for face in &mut face::of_nodes(&cluster, &cluster.ids()) {
        for consistency in [Consistency::Linearizable, Consistency::Lease] {
            let scan = Scan { consistency, ..Scan::default() };
            for read in [Operation::Get { key: b"key", consistency }, Operation::Scan(scan)] {
                let before = read_by_lease(&cluster);
                let mut ask = || {
                    face.ask(read);
                    read_by_lease(&cluster) > before
                };
                if consistency == Consistency::Linearizable {
                    assert!(!ask());
                    continue;
                }
                // Whoever leads has none for a moment after an election.
                eventually(PATIENCE, "a lease answers", || ask().then_some(()));
            }
        }
    }
}

#[test]
fn a_node_that_has_caught_up_answers_stale_reads_alike_on_every_face() {
    let cluster = crate::cluster();
    let mut wire = cluster.wire(1);
    let versions: Vec<(String, u64)> = cluster
        .keys_for_all_shards("key")
        .into_iter()
        .map(|key| {
            let version = wire.put(&key, "value");
            (key, version)
        })
        .collect();
    cluster.await_convergence();
    let mut pages = Vec::new();
    for face in &mut face::of_nodes(&cluster, &cluster.ids()) {
        for (key, version) in &versions {
            let expected = Outcome::Value { version: *version, bytes: b"value".to_vec() };
            assert_eq!(get(&mut **face, key.as_bytes(), Consistency::Stale), expected, "{}", face.name());
        }
        assert_eq!(get(&mut **face, b"none", Consistency::Stale), Outcome::Refused(Code::NotFound));
        let scan = Scan { consistency: Consistency::Stale, ..Scan::default() };
        pages.push((face.name(), face.ask(Operation::Scan(scan))));
    }
    assert!(pages.iter().all(|(_, page)| *page == pages[0].1), "{pages:#?}");
}

#[test]
fn every_face_of_a_node_tells_the_same_of_it() {
    let cluster = crate::cluster();
    cluster.wire(1).put("k", "v");
    cluster.await_convergence();
    for id in cluster.ids() {
        let mut faces = face::of_nodes(&cluster, &[id]);
        // A leader may be giving a shard to a node that leads fewer.
        let states = eventually(PATIENCE, format!("node {id} tells the same on every face"), || {
            let states: Vec<_> = faces.iter_mut().map(|face| face.status()).collect();
            states.iter().all(|state| *state == states[0]).then_some(states)
        });
        let state = &states[0];
        assert_eq!((state.node, state.members.len(), state.shards.len()), (id, 3, 6));
        assert!(state.shards.iter().any(|shard| shard.keys == 1), "{state:?}");
        assert!(state.counters.iter().any(|name| name == "connections_open"), "{state:?}");
    }
}
