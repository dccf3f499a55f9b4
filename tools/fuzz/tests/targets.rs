//! Every target for a while: nothing breaks, and it is no target that nothing can reach.

use raftkv_fuzz::engine::{Failure, Worker};
use raftkv_fuzz::feedback::Feedback;
use raftkv_fuzz::targets;

const EXECUTIONS: u64 = 20_000;

fn run(name: &str, features_min: usize) {
    let target = targets::all().into_iter().find(|target| target.name == name).expect("it is listed");
    let mut worker = Worker::new(target, 1);
    if let Err(Failure { input, words, .. }) = worker.run(EXECUTIONS) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name}: {words}\ninput: {hex}");
    }
    assert_eq!(worker.executions(), EXECUTIONS);
    let features = worker.feedback().features();
    assert!(features >= features_min, "{name} is shallow: {features} features");
}

// museum 50
#[test]
fn client_frames() {
    run("client-frames", 200);
}

// museum 50
#[test]
fn peer_frames() {
    run("peer-frames", 100);
}

// museum 54
#[test]
fn client_requests() {
    run("client-requests", 60);
}

// museum 39, 43
#[test]
fn log_reader() {
    run("log-reader", 40);
}

/// A segment's header and first batch, both of another log: what is left is a right log, and nobody can know that it is
/// the wrong one.
#[test]
fn a_file_that_has_become_another_logs() {
    let target = targets::all().into_iter().find(|target| target.name == "log-reader").expect("it is listed");
    for input in [
        &b"\x00\x91\x35\xbd\xbe\xc4\x88\x1f\xb7\xf4\x00\x10\x00\x00\x7c\x88\x11\x3e\xca\xee\xe4\xa7\xfd\xb7\xf4\x89\x27\x6b\x7b\x7c\x88\x11\xca\xee"[..],
        b"\x00\x06\xad\x1a\x5d\xbb\x77\xf7\xef\xfc\x81\x36\xcd\xbf\xf5\xf7\xa7\x5c\x09",
        // By way of another place in the file.
        b"\x00\x01\x00\x01\x02\x03\xc4\x9a\xc4\x95\xb7\xfb\x63\x72\x46\xd5\xbd\x10\x00\x45\xac\x89\x2b\x67\xf6\xc7\x03\x01",
    ] {
        (target.run)(input, &mut Feedback::default());
    }
}

/// Votes that come late make a leader of a term that is over. It lacks what the leader of a later one has committed.
#[test]
fn a_leader_of_a_term_that_is_over() {
    let target = targets::all().into_iter().find(|target| target.name == "raft-messages").expect("it is listed");
    let input = b"\x7f\x00\x00\x11\x00\x00\x00\x00\x68\x00\x6d\xa4\x87\xe7\x00\x00\xfd\xbf\xe5\xca\x4f\xe0\x05\x00\x00\x12\x02\x1f\x1e";
    (target.run)(input, &mut Feedback::default());
}

// museum 51
#[test]
fn raft_messages() {
    run("raft-messages", 300);
}

// museum 54
#[test]
fn apply_twice() {
    run("apply-twice", 12);
}

#[test]
fn targets_have_names_seeds_and_shares() {
    let all = targets::all();
    assert_eq!(all.iter().map(|target| target.share).sum::<u64>(), 100);
    // In 10 million executions, each has a million.
    assert!(all.iter().all(|target| target.share >= 10));
    for target in &all {
        assert!((target.seeds)().len() >= 3, "{} has too little to begin with", target.name);
        assert_eq!(all.iter().filter(|other| other.name == target.name).count(), 1);
    }
}
