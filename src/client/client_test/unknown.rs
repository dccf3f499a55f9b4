//! Batches while not all nodes know them: somebody serves them as long as one does, and if none does the caller hears why.

use std::time::Duration;

use raftkv_protocol::client::Code;
use raftkv_protocol::hello::FEATURE_BATCH;
use raftkv_protocol::types::Index;

use super::memory::{Memory, Rig, builder};
use super::scripted::{Next, refuse, serve, table_of};
use crate::client::{Batch, Batched, ErrorKind, Pending};

const TIMEOUT: Duration = Duration::from_secs(5);

fn batch(rig: &mut Rig) -> Pending<Batched> {
    rig.client.batch(Batch::new().put("{k}1", "v").put("{k}2", "v"), rig.now, TIMEOUT)
}

/// What a batch is told that every node is asked in vain for.
#[track_caller]
fn assert_unknown(rig: &mut Rig, addresses: &str, within: Duration) {
    let began = rig.elapsed();
    let pending = batch(rig);
    let error = rig.outcome(pending).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::BadRequest, false));
    let why = format!("the software of {addresses} does not know batches yet: update it; nothing was sent");
    assert!(error.message().starts_with(&why), "{error}");
    assert!(rig.elapsed() - began <= within, "{:?}", rig.elapsed() - began);
}

/// Whoever is updated first sends batches on to the leader as soon as that one is.
#[test]
fn a_batch_goes_to_a_node_that_knows_batches_if_the_leader_does_not() {
    let (network, table) = (Memory::default(), table_of(1));
    let nodes = [1, 2, 3].map(|id| network.node(id, &table, serve));
    nodes[0].set_features(0);
    nodes[1].set_features(0);
    for (seed, endpoints) in [&[1][..], &[2], &[1, 2, 3], &[3]].into_iter().enumerate() {
        let mut rig = Rig::new(&network, endpoints, seed as u64);
        let pending = batch(&mut rig);
        assert_eq!(rig.outcome(pending).map(|batched| batched.version), Ok(Index(1)), "{endpoints:?}");
        assert_eq!(nodes.each_ref().map(|node| node.requests()), [0, 0, seed + 1]);
    }
}

#[test]
fn a_batch_that_no_node_knows_is_an_error_at_once_that_names_them() {
    let (network, table) = (Memory::default(), table_of(1));
    let nodes = [1, 2].map(|id| network.node(id, &table, serve));
    nodes.iter().for_each(|node| node.set_features(0));
    for endpoints in [&[1][..], &[2], &[1, 2]] {
        let mut rig = Rig::new(&network, endpoints, 0);
        assert_unknown(&mut rig, "10.0.0.1:7001, 10.0.0.2:7001", Duration::from_secs(1));
    }
    assert_eq!(nodes.each_ref().map(|node| node.requests()), [0, 0]);
}

#[test]
fn a_batch_that_no_node_knows_waits_for_one_that_is_down() {
    let (network, table) = (Memory::default(), table_of(1));
    let nodes = [1, 2].map(|id| network.node(id, &table, serve));
    nodes[0].set_features(0);
    network.unplug(2);
    let mut rig = Rig::new(&network, &[1, 2], 0);
    assert_unknown(&mut rig, "10.0.0.1:7001", TIMEOUT);
    assert_eq!(rig.elapsed(), TIMEOUT);
    let pending = batch(&mut rig);
    rig.run_for(Duration::from_secs(1));
    assert!(!pending.is_ready());
    network.plug_in(2);
    assert_eq!(rig.outcome(pending).map(|batched| batched.version), Ok(Index(1)));
}

/// A node says what it knows when it is dialled: after an update it is dialled again.
#[test]
fn a_node_that_was_updated_is_asked() {
    let (network, table) = (Memory::default(), table_of(1));
    let node = network.node(1, &table, serve);
    node.set_features(0);
    let mut rig = Rig::new(&network, &[1], 0);
    assert_unknown(&mut rig, "10.0.0.1:7001", Duration::from_secs(1));
    node.set_features(FEATURE_BATCH);
    assert_unknown(&mut rig, "10.0.0.1:7001", Duration::from_secs(1));
    network.cut(1);
    let pending = batch(&mut rig);
    assert_eq!(rig.outcome(pending).map(|batched| batched.version), Ok(Index(1)));
}

/// A node that knows batches does not send them on to a leader that does not, and says so. That passes with an update.
#[test]
fn what_a_node_says_of_a_leader_without_batches_is_reported_at_the_deadline() {
    let (network, table) = (Memory::default(), table_of(1));
    network.node(1, &table, serve).set_features(0);
    network.node(2, &table, |request, out| {
        refuse(out, request.id, Code::NotReady, None);
        Next::Go
    });
    let mut rig = Rig::with(&network, builder(&[1, 2]), 0);
    let pending = batch(&mut rig);
    let error = rig.outcome(pending).unwrap_err();
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::NotReady, false));
    assert!(error.message().starts_with("scripted (says 10.0.0.2:7001)"), "{error}");
    assert_eq!(rig.elapsed(), TIMEOUT);
}
