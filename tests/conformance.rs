//! The same on every face: each case is written once, and run over the binary protocol, REST and gRPC from every node of
//! a cluster, and over the client library. What a case is told must be what it says, and the same everywhere: codes,
//! values, versions in their order, items and their order, and whether more follow.
//!
//! What only one face has (headers, conditional reads, deadlines, what cannot be parsed) is tested with that face.

mod support;

#[path = "conformance/agreement.rs"]
mod agreement;
#[path = "conformance/batches.rs"]
mod batches;
#[path = "conformance/binary.rs"]
mod binary;
#[path = "conformance/calls.rs"]
mod calls;
#[path = "conformance/conditions.rs"]
mod conditions;
#[path = "conformance/face.rs"]
mod face;
#[path = "conformance/grpc.rs"]
mod grpc;
#[path = "conformance/keys.rs"]
mod keys;
#[path = "conformance/library.rs"]
mod library;
#[path = "conformance/rest.rs"]
mod rest;
#[path = "conformance/run.rs"]
mod run;
#[path = "conformance/scans.rs"]
mod scans;
#[path = "conformance/without_majority.rs"]
mod without_majority;

use support::cluster::Cluster;

/// Small, so that few keys reach it.
pub const SCAN_ITEMS_MAX: usize = 20;
/// Smaller than the longest value.
pub const SCAN_BYTES_MAX: usize = 10_000;

/// A cluster whose pages are short, and which answers by leases whoever asks for it.
fn cluster() -> Cluster {
    let [items, bytes] =
        [("items", SCAN_ITEMS_MAX), ("bytes", SCAN_BYTES_MAX)].map(|(what, most)| format!("--scan-{what}-max={most}"));
    Cluster::of(3).flag(&items).flag(&bytes).flag("--lease=500ms").start()
}

#[test]
fn every_case_is_told_the_same_on_every_face_of_every_node() {
    let cases = [keys::CASES, conditions::CASES, batches::CASES, scans::CASES].concat();
    run::all(&cluster(), &cases);
}
