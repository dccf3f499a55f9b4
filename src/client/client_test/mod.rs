//! The client against scripted nodes: with its thread on real sockets, and moved by hand on a network in memory.

mod by_hand;
mod calls;
mod fake_node;
mod faults;
mod load;
mod memory;
mod scripted;
mod unknown;

use std::time::{Duration, Instant};

use super::{Builder, Client};
use fake_node::FakeNode;

/// A client that is quick to give up.
fn builder(nodes: &[&FakeNode]) -> Builder {
    Client::builder()
        .endpoints(nodes.iter().map(|node| node.endpoint()))
        .timeout(Duration::from_secs(5))
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
}

fn connect(nodes: &[&FakeNode]) -> Client {
    builder(nodes).connect().expect("a node answers")
}

/// Waits for what other threads bring about.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}
